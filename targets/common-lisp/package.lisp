(defpackage :millrace
  (:use :common-lisp)
  (:local-nicknames (:bt :bordeaux-threads) (:h :hunchentoot) (:pg :cl-postgres))
  (:export #:main))

(in-package :millrace)

(define-condition problem (error)
  ((status :initarg :status :reader problem-status)
   (name :initarg :name :reader problem-name)
   (detail :initarg :detail :reader problem-detail)
   (headers :initarg :headers :initform '() :reader problem-headers)
   (more :initarg :more :initform '() :reader problem-more))
  (:documentation "A way to say no: its body is RFC 9457 (rule O3). MORE: further members, a plist."))

(defun refuse (status name detail &key headers more)
  (error 'problem :status status :name name :detail detail :headers headers :more more))

(defun refuse-field (field control &rest arguments)
  (refuse 400 "invalid-field" (format nil "'~a' ~?" field control arguments) :more (list "field" field)))

(defun refuse-unavailable (name what)
  (refuse 503 name (format nil "~a; nothing was acknowledged; try again after the time in Retry-After" what)
          :headers '((:retry-after . "1"))))

(defun now-us ()
  "Microseconds since 1970, UTC."
  (multiple-value-bind (seconds microseconds) (sb-ext:get-time-of-day)
    (+ (* seconds 1000000) microseconds)))

(defun hex (octets) (ironclad:byte-array-to-hex-string octets))
(defun random-octets (count) (ironclad:random-data count (load-time-value (ironclad:make-prng :os))))
(defun sha-256 (octets) (hex (ironclad:digest-sequence :sha256 octets)))
(defun octets (string) (sb-ext:string-to-octets string :external-format :utf-8))

(defun new-id ()
  "A random UUID (version 4)."
  (let ((bits (random-octets 16)))
    (setf (ldb (byte 4 4) (aref bits 6)) 4
          (ldb (byte 2 6) (aref bits 8)) 2)
    (let ((text (hex bits)))
      (format nil "~a-~a-~a-~a-~a" (subseq text 0 8) (subseq text 8 12) (subseq text 12 16) (subseq text 16 20) (subseq text 20)))))
