;;;; The routes, and the life of the server. POST-EVENT is the hot path: key, content type, body, event, intake, 202.

(in-package :millrace)

(defconstant +payload-bytes-max+ (* 256 1024))
(defconstant +body-bytes-max+ (+ +payload-bytes-max+ (* 16 1024))
  "The payload, two names of which each character may be sent as twelve bytes, keys, white space.")
(defconstant +name-characters-max+ 255)
(defconstant +key-cache-entries-max+ 10000)
(defconstant +ack-looks-max+ 500)
(defconstant +finish-s-max+ 5)
(defconstant +drain-s-max+ 15)

(defparameter *tiers* '("free" "pro" "business" "enterprise"))
(defparameter *states* '("persisted" "delivered" "failed" "dead_letter"))

;;; Keys: mr_live_, 160 random bits, and a CRC-32 of all before it, by which a typing error is refused without a look-up. Only SHA-256 hashes
;;; are kept: nobody guesses 160 random bits, so a slow hash would protect nothing.

(defvar *keys* (make-hash-table :test 'equal :synchronized t)
  "Organisations by the hash of their key, which never changes its owner and cannot be revoked.")

(defun checksum (body) (hex (ironclad:digest-sequence :crc32 (octets body))))

(defun generate-key ()
  (let ((body (concatenate 'string "mr_live_" (hex (random-octets 20)))))
    (concatenate 'string body (checksum body))))

(defun key-hash (key) (sha-256 (octets key)))

(defun authenticate ()
  "The organisation whose key is in the request's headers."
  (let* ((authorization (h:header-in* :authorization))
         (key (string-trim " " (cond ((null authorization) (or (h:header-in* :x-api-key) ""))
                                     ((and (> (length authorization) 7) (string-equal "Bearer " authorization :end2 7)) (subseq authorization 7))
                                     (t "")))))
    (or (and (= (length key) 56) (string= (checksum (subseq key 0 48)) (subseq key 48)) (organization-of (key-hash key)))
        (refuse 401 "invalid-api-key"
                "send a valid API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'; POST /api/keys/generate makes one"
                :headers '((:www-authenticate . "Bearer"))))))

(defun organization-of (hash)
  (or (gethash hash *keys*)
      (let ((row (first (organization-rows hash))))
        (when row
          (when (>= (hash-table-count *keys*) +key-cache-entries-max+) (clrhash *keys*))
          (setf (gethash hash *keys*) (first row))))))

;;; Bodies and what is in them.

(defun require-json ()
  (let ((type (or (h:header-in* :content-type) "")))
    (unless (string-equal "application/json" (string-trim " " (subseq type 0 (position #\; type))))
      (refuse 415 "content-type" "send the body as application/json"))))

(defun refuse-too-large ()
  (refuse 413 "too-large" (format nil "the payload is over the limit of ~d bytes; send less" +payload-bytes-max+)))

(defun body ()
  "The request's body, octets; refused before it is read when it says that it is too long, and while it is read when it does not say so."
  (let ((length (ignore-errors (parse-integer (h:header-in* :content-length)))))
    (cond ((and length (> length +body-bytes-max+)) (refuse-too-large))
          (length (or (h:raw-post-data :force-binary t) #()))
          ((h:header-in* :transfer-encoding)
           (let* ((buffer (make-array (1+ +body-bytes-max+) :element-type '(unsigned-byte 8)))
                  (end (read-sequence buffer (h:raw-post-data :want-stream t))))
             (when (> end +body-bytes-max+) (refuse-too-large))
             (subseq buffer 0 end)))
          (t #()))))

(defun json-body (octets wanted)
  "The text of a JSON object, and its members as (name begin end)."
  (handler-case (let ((text (decode-utf-8 octets))) (values text (members text)))
    (malformed-json () (refuse 400 "malformed-body" (format nil "the body is not a JSON object in UTF-8; send one with ~a" wanted)))))

(defun name-member (field text members &optional (what "send a string of 1 to 255 characters"))
  "The value of a member that must be a string, or nil when it is not there."
  (destructuring-bind (&optional begin end) (rest (assoc field members :test #'string=))
    (declare (ignore end))
    (when begin
      (let ((value (and (char= (schar text begin) #\")
                        (handler-case (read-json-string text begin)
                          (malformed-json () (refuse-field field "holds half of a surrogate pair; send Unicode text"))))))
        (cond ((not (and value (<= 1 (length value) +name-characters-max+))) (refuse-field field "is not right; ~a" what))
              ((find #\Nul value) (refuse-field field "holds a NUL character, which the database cannot keep"))
              (t value))))))

(defun event-of-body (octets organization-id)
  (multiple-value-bind (text members) (json-body octets "'type' and 'payload'")
    (dolist (field '("type" "payload" "dedup_id"))
      (when (> (count field members :key #'first :test #'string=) 1) (refuse-field field "is there twice; send it once")))
    (let ((type (or (name-member "type" text members) (refuse-field "type" "is missing; send a string of 1 to 255 characters")))
          (dedup-id (name-member "dedup_id" text members))
          (payload (rest (or (assoc "payload" members :test #'string=) (refuse-field "payload" "is missing; send any JSON value")))))
      (setf payload (subseq text (first payload) (second payload)))
      (when (or (> (length payload) +payload-bytes-max+)
                (and (> (length octets) +payload-bytes-max+) (> (length (octets payload)) +payload-bytes-max+)))
        (refuse-too-large))
      (make-event :id (new-id) :organization-id organization-id :type type :dedup-id dedup-id :payload payload :created-at-us (now-us)))))

;;; Answers: each route returns a status, text, and more headers.

(defun time-json (us)
  (if (null us)
      "null"
      (multiple-value-bind (seconds microseconds) (floor us 1000000)
        (multiple-value-bind (second minute hour day month year)
            (decode-universal-time (+ seconds (load-time-value (encode-universal-time 0 0 0 1 1 1970 0))) 0)
          (format nil "\"~4,'0d-~2,'0d-~2,'0dT~2,'0d:~2,'0d:~2,'0d.~6,'0dZ\"" year month day hour minute second microseconds)))))

(defun event-json (event)
  "As rule R1 has it; the payload goes out as it came."
  (concatenate 'string "{\"id\":\"" (event-id event) "\",\"type\":" (json-string (event-type event))
               ",\"dedup_id\":" (if (event-dedup-id event) (json-string (event-dedup-id event)) "null")
               ",\"payload\":" (event-payload event) ",\"state\":\"" (event-state event)
               "\",\"created_at\":" (time-json (event-created-at-us event)) ",\"persisted_at\":" (time-json (event-persisted-at-us event)) "}"))

(defun post-event ()
  (let ((organization-id (authenticate))
        (repeat-key (h:header-in* :idempotency-key)))
    (require-json)
    (when (and repeat-key (not (<= 1 (length repeat-key) 255)))
      (refuse-field "Idempotency-Key" "is not 1 to 255 characters long; send a shorter one"))
    (let* ((octets (body))
           (id (accept (event-of-body octets organization-id) repeat-key (and repeat-key (sha-256 (coerce octets '(vector (unsigned-byte 8))))))))
      (values 202 (concatenate 'string "{\"id\":\"" id "\",\"status\":\"accepted\",\"durability\":\"memory\"}")
              (list (cons :location (concatenate 'string "/api/events/" id)))))))

(defun checked-id (text)
  (if (ppcre:scan "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$" text) (string-downcase text) (refuse-no-event)))

(defun refuse-no-event () (refuse 404 "no-such-event" "this organisation has no event with this id"))

(defun get-event (id)
  (let* ((organization-id (authenticate))
         (id (checked-id id))
         ;; In this order: an event leaves the buffer only when it has a row.
         (pending (pending-event id)))
    (values 200 (event-json (if (and pending (string= (event-organization-id pending) organization-id))
                                pending
                                (event-of-row (or (first (event-rows organization-id id)) (refuse-no-event))))))))

(defun number-parameter (name default min max what)
  (let ((text (h:get-parameter name)))
    (cond ((or (null text) (string= text "")) default)
          ((and (every #'digit text) (< (length text) 19) (<= min (parse-integer text) max)) (parse-integer text))
          (t (refuse-field name what)))))

(defun inbox ()
  (let ((organization-id (authenticate))
        (state (h:get-parameter "status"))
        (limit (number-parameter "limit" 100 1 1000 "is not a number from 1 to 1000"))
        (after-seq (number-parameter "cursor" 0 0 most-positive-fixnum "is not the 'next_cursor' of a page")))
    (when (equal state "") (setf state nil))
    (when (and state (not (member state *states* :test #'string=)))
      (refuse-field "status" "is none of ~{~a~^, ~}; send one of them, or leave it out" *states*))
    (let ((rows (run-inbox organization-id after-seq state limit)))
      (values 200 (format nil "{\"events\":[~{~a~^,~}],\"next_cursor\":~:[null~;~:*\"~d\"~]}"
                          (mapcar (lambda (row) (event-json (event-of-row row))) rows)
                          (and (= (length rows) limit) (first (last (first (last rows))))))))))

(defun run-inbox (organization-id after-seq state limit) (values (inbox-rows organization-id after-seq state limit)))

(defun acknowledge (id)
  (let ((organization-id (authenticate))
        (id (checked-id id)))
    ;; Its sender may read, and so acknowledge, an event that has no row yet.
    (loop for look from 0
          while (pending-event id)
          do (when (= look +ack-looks-max+) (refuse-unavailable "database-unavailable" "the event could not be persisted yet"))
             (sleep 0.01))
    (if (eql 1 (nth-value 1 (deliver organization-id id)))
        (values 200 (json-object "id" id "state" "delivered"))
        (refuse-no-event))))

(defun new-key ()
  (require-json)
  (multiple-value-bind (text members) (json-body (body) "'organization_name'")
    (let ((name (or (name-member "organization_name" text members)
                    (refuse-field "organization_name" "is missing; send a string of 1 to 255 characters")))
          (tier (or (name-member "tier" text members "leave it out, or send free, pro, business or enterprise") "free"))
          (key (generate-key))
          (organization-id (new-id)))
      (unless (member tier *tiers* :test #'string=)
        (refuse-field "tier" "is none of ~{~a~^, ~}; send one of them, or leave it out" *tiers*))
      (add-key (key-hash key) organization-id name tier)
      ;; 0: no limit is enforced, whatever the tier.
      (values 201 (json-object "organization_id" organization-id "organization_name" name "api_key" key "tier" tier
                               "rate_limit_per_minute" 0)))))

(defun ready ()
  (unless *store-answers* (refuse-unavailable "database-unavailable" "the database does not answer"))
  (values 200 (json-object "status" "ready")))

(defun metrics ()
  (values 200
          (format nil "ingest_build_info{version=\"common-lisp\",mode=\"cache-first\",polling=\"wake\",database=\"PostgreSQL\"} 1
ingest_pending_events ~d
ingest_pending_bytes ~d
ingest_events_acknowledged_total ~d
ingest_events_persisted_total ~d
ingest_events_duplicate_total ~d
ingest_poll_interval_seconds ~f
ingest_deep_idle ~:[0~;1~]
~{ingest_polls_total{source=\"store\",state=\"~(~a~)\"} ~d~%~}"
                  (pending-count) *pending-bytes* *acknowledged* *persisted* *duplicates* (interval-s) (deep-idle-p) *polls*)
          '((:content-type . "text/plain; version=0.0.4"))))

(defun route (method path)
  (destructuring-bind (&optional first second third . rest) (ppcre:split "/" path :start 1)
    (flet ((is (&rest wanted) (and (null rest) (every #'equal wanted (list first second third))))
           (allow (allowed function)
             (if (eq method allowed)
                 (funcall function)
                 (refuse 405 "method-not-allowed" (format nil "this route takes ~a" allowed)
                         :headers (list (cons :allow (string allowed)))))))
      (cond ((is "api" "events" nil) (allow :post #'post-event))
            ((is "api" "events" third) (allow :get (lambda () (get-event third))))
            ((is "api" "inbox" nil) (allow :get #'inbox))
            ((is "api" "ack" third) (allow :post (lambda () (acknowledge third))))
            ((is "api" "keys" "generate") (allow :post #'new-key))
            ((or (is "healthz" nil nil) (is "health" nil nil)) (allow :get (lambda () (values 200 (json-object "status" "ok")))))
            ((is "readyz" nil nil) (allow :get #'ready))
            ((is "metrics" nil nil) (allow :get #'metrics))
            (t (refuse 404 "no-such-route" "there is no such route"))))))

;;; hunchentoot

(defclass acceptor (h:acceptor) ())

(defmethod h:process-connection :around ((acceptor acceptor) socket)
  ;; Head and body of an answer are two writes: without this the second waits for the other side's delayed acknowledgement, some 40 ms.
  (setf (usocket:socket-option socket :tcp-nodelay) t)
  (call-next-method))

(defmethod h:acceptor-dispatch-request ((acceptor acceptor) request)
  (sb-ext:atomic-incf (car *in-flight*))
  (unwind-protect
       (handler-case (multiple-value-call #'answer (if *stopping* (refuse-stopping) (route (h:request-method request) (h:script-name request))))
         (problem (problem) (answer-problem problem))
         ((or pg:database-connection-error cl-postgres-error:server-shutdown stream-error usocket:socket-error) (condition)
           (log-line "the database does not answer: ~a" condition)
           (answer-problem (handler-case (refuse-unavailable "database-unavailable" "the database does not answer") (problem (problem) problem)))))
    (sb-ext:atomic-decf (car *in-flight*))))

(defun answer (status text &optional headers)
  (setf (h:return-code*) status
        (h:content-type*) "application/json")
  (loop for (name . value) in headers do (setf (h:header-out name) value))
  (octets text))

(defun answer-problem (problem)
  (let ((body (problem-body (problem-status problem) (problem-name problem) (problem-detail problem) (problem-more problem)))
        (headers (acons :content-type "application/problem+json" (problem-headers problem))))
    (if (and (member (problem-status problem) '(401 413 415)) (body-comes-p))
        (answer-before-body (answer (problem-status problem) body headers))
        (answer (problem-status problem) body headers))))

(defun body-comes-p () (or (h:header-in* :content-length) (h:header-in* :transfer-encoding)))

(defun problem-body (status name detail &optional more)
  (apply #'json-object "type" (concatenate 'string "/problems/" name) "title" (substitute #\Space #\- name)
         "status" status "detail" detail more))

(defun answer-before-body (octets)
  "hunchentoot reads a body into memory before it answers, if nobody else did. What is refused is answered first, and then thrown away as it
arrives."
  (let ((in (h:raw-post-data :want-stream t))
        (buffer (make-array 8192 :element-type '(unsigned-byte 8))))
    (setf (h:content-length*) (length octets))
    (let ((out (h:send-headers)))
      (write-sequence octets out)
      (finish-output out))
    ;; No stream when it has been read.
    (when (streamp in)
      (loop while (= (read-sequence buffer in) (length buffer))))
    nil))

(defmethod h:acceptor-status-message ((acceptor acceptor) status &key &allow-other-keys)
  "What hunchentoot itself refuses, and mistakes of this server."
  (setf (h:content-type*) "application/problem+json")
  (octets (problem-body status (if (< status 500) "malformed-request" "internal")
                        (if (< status 500) "this is no request that this server takes" "the server made a mistake; nothing was acknowledged"))))

(defun setting (name &optional default)
  (or (sb-posix:getenv name) default (error "set ~a in the environment" name)))

(defun main ()
  (handler-case
      (progn
        (configure (setting "DATABASE_URL"))
        (setf *pending-events-max* (parse-integer (setting "PENDING_EVENTS_MAX" "50000"))
              pomo:*max-pool-size* 8
              h:*log-lisp-backtraces-p* nil)
        (migrate)
        (warm-dedup)
        (serve (parse-integer (setting "PORT" "8080"))))
    (error (condition)
      (log-line "error: ~a" condition)
      (sb-ext:exit :code 1 :abort t))))

(defun wait-until (seconds-max holds)
  (loop repeat (* 50 seconds-max) until (funcall holds) do (sleep 0.02)))

(defun serve (port)
  (let ((signalled nil)
        (processor (bt:make-thread #'process-events :name "processor"))
        (acceptor (make-instance 'acceptor :address "127.0.0.1" :port port :access-log-destination nil :listen-backlog 1024
                                           :taskmaster (make-instance 'h:one-thread-per-connection-taskmaster
                                                                      :max-thread-count 1000 :max-accept-count 1200))))
    (sb-sys:enable-interrupt sb-unix:sigterm (lambda (&rest ignored) (declare (ignore ignored)) (setf signalled t)))
    (h:start acceptor)
    (loop until signalled do (sleep 0.1))
    (setf *stopping* t)
    (h:stop acceptor)
    (wait-until +finish-s-max+ (lambda () (zerop (car *in-flight*))))
    (bt:with-lock-held (*lock*)
      (setf *closed* t)
      (bt:condition-notify *arrived*))
    (wait-until +drain-s-max+ (lambda () (not (bt:thread-alive-p processor))))
    (let ((lost (pending-count)))
      (when (plusp lost) (log-line "stopped with ~d acknowledged events that could not be persisted" lost))
      (sb-ext:exit :code (if (zerop lost) 0 1) :abort t))))
