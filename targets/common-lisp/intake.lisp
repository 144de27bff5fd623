;;;; Between the request and the row: what is pending, which dedup_id is taken, which answer belongs to an Idempotency-Key, and the
;;;; processor that persists. One lock for all of it, held for microseconds, never while the database is asked.

(in-package :millrace)

(defconstant +batch-events-max+ 500)
(defconstant +pending-bytes-max+ (* 32 1024 1024) "Of payload; a character takes four in memory.")
(defconstant +event-overhead-bytes+ 512)
(defconstant +dedup-window-us+ (* 24 3600 1000000))
(defconstant +dedup-entries-max+ 200000)
(defconstant +answer-entries-max+ 50000)
(defconstant +retry-s+ 0.5)

;;; A queue: a list of which both ends are known.
(defstruct queue (head '()) (tail '()))

(defun enqueue (item queue)
  (let ((cell (list item)))
    (if (queue-head queue)
        (setf (cdr (queue-tail queue)) cell)
        (setf (queue-head queue) cell))
    (setf (queue-tail queue) cell)))

(defun dequeue (queue) (pop (queue-head queue)))

;;; A table that forgets its oldest entries first. An entry is (value . time).
(defstruct (recent (:constructor make-recent (entries-max)))
  entries-max
  (entries (make-hash-table :test 'equal))
  (ages (make-queue)))

(defun recent-get (key recent since-us)
  "The value, unless it is older than SINCE-US."
  (let ((entry (gethash key (recent-entries recent))))
    (when (and entry (> (cdr entry) since-us)) (car entry))))

(defun recent-put (key value at-us recent)
  "Keeps an entry; the time of the newest one that had to go for it, or nil."
  (setf (gethash key (recent-entries recent)) (cons value at-us))
  (enqueue (cons key at-us) (recent-ages recent))
  (loop while (> (hash-table-count (recent-entries recent)) (recent-entries-max recent))
        for (old-key . old-us) = (dequeue (recent-ages recent))
        ;; A newer entry may have taken the key over.
        when (eql old-us (cdr (gethash old-key (recent-entries recent))))
          do (remhash old-key (recent-entries recent)) and return old-us))

(defvar *lock* (bt:make-lock "intake"))
(defvar *arrived* (bt:make-condition-variable :name "arrived"))
(defvar *pending* (make-hash-table :test 'equal) "Events by id.")
(defvar *order* (make-queue) "The same events, oldest first.")
(defvar *pending-events-max* 50000)
(defvar *pending-bytes* 0)
(defvar *dedup* (make-recent +dedup-entries-max+))
(defvar *answers* (make-recent +answer-entries-max+))
(defvar *forgotten-us* 0 "When the newest event was taken in that may be in its window and is not in *DEDUP*.")
(defvar *in-flight* (list 0) "Requests that are being answered.")
(defvar *stopping* nil "No new request is answered, and those in flight are finished.")
(defvar *closed* nil "No event is taken in any more.")
(defvar *acknowledged* 0)
(defvar *persisted* 0)
(defvar *duplicates* 0)

(defun key (organization-id text)
  "Of both tables; a base string where that can be, which takes a quarter of the memory."
  (let ((key (concatenate 'string organization-id "/" text)))
    (if (every (lambda (char) (typep char 'base-char)) key) (coerce key 'simple-base-string) key)))

(defun warm-dedup ()
  (let ((rows (run-dedup-rows)))
    (loop for (organization-id dedup-id id at-us) in (reverse rows)
          do (recent-put (key organization-id dedup-id) id at-us *dedup*))
    (when (= (length rows) +dedup-entries-max+)
      (setf *forgotten-us* (fourth (car (last rows)))))))

(defun run-dedup-rows () (values (dedup-rows (- (now-us) +dedup-window-us+) +dedup-entries-max+)))

(defun accept (event repeat-key fingerprint)
  "Takes an event in; its id may be acknowledged. REPEAT-KEY is nil or the Idempotency-Key: with the same FINGERPRINT it gets the first id again."
  (let* ((since-us (- (event-created-at-us event) +dedup-window-us+))
         (dedup-key (and (event-dedup-id event) (key (event-organization-id event) (event-dedup-id event))))
         (answer-key (and repeat-key (key (event-organization-id event) repeat-key))))
    (labels ((known ()
               (when answer-key
                 (let ((answer (recent-get answer-key *answers* since-us)))
                   (cond ((null answer))
                         ((equal (cdr answer) fingerprint) (return-from accept (car answer)))
                         (t (refuse 422 "idempotency-key-reused"
                                    "this Idempotency-Key was used with another body; use a new key for a new request")))))
               (when dedup-key
                 (let ((holder (recent-get dedup-key *dedup* since-us)))
                   (when holder (refuse-duplicate holder))))))
      (when (and dedup-key (> *forgotten-us* since-us))
        (bt:with-lock-held (*lock*) (known))
        (let ((row (first (holder-rows (event-organization-id event) (event-dedup-id event) since-us))))
          (when row (refuse-duplicate (first row)))))
      (bt:with-lock-held (*lock*)
        (known)
        (add-pending event)
        (when dedup-key
          ;; More entries are kept than events may be pending, so what is forgotten is persisted.
          (let ((forgotten-us (recent-put dedup-key (event-id event) (event-created-at-us event) *dedup*)))
            (when forgotten-us (setf *forgotten-us* forgotten-us))))
        (when answer-key
          (recent-put answer-key (cons (event-id event) fingerprint) (event-created-at-us event) *answers*))
        (incf *acknowledged*)
        (event-id event)))))

(defun refuse-duplicate (id)
  (incf *duplicates*)
  (refuse 409 "duplicate" (format nil "an event with this dedup_id was already accepted: its id is ~a; don't send it again" id)
          :more (list "id" id)))

(defun refuse-stopping () (refuse-unavailable "stopping" "the server is stopping"))

(defun event-bytes (event) (+ (length (event-payload event)) +event-overhead-bytes+))

(defun add-pending (event)
  (when *closed* (refuse-stopping))
  (when (or (>= (hash-table-count *pending*) *pending-events-max*)
            (> (+ *pending-bytes* (event-bytes event)) +pending-bytes-max+))
    (refuse-unavailable "full" "the server holds as much unfinished work as it may"))
  (setf (gethash (event-id event) *pending*) event)
  (enqueue event *order*)
  (incf *pending-bytes* (event-bytes event))
  (bt:condition-notify *arrived*))

(defun pending-event (id) (bt:with-lock-held (*lock*) (gethash id *pending*)))
(defun pending-count () (hash-table-count *pending*))

(defun oldest-pending ()
  (bt:with-lock-held (*lock*)
    (loop for event in (queue-head *order*) repeat +batch-events-max+ collect event)))

(defun remove-pending (events)
  (bt:with-lock-held (*lock*)
    (dolist (event events)
      (remhash (event-id event) *pending*)
      (dequeue *order*)
      (decf *pending-bytes* (event-bytes event)))
    (incf *persisted* (length events))))

;;; The processor: writes what is pending in batches, then looks for rows that were left in the table.

(defconstant +base-s+ 0.1)
(defconstant +backoff-s-max+ 2.0)
(defconstant +deep-idle-s+ 30.0)
(defconstant +deep-idle-after+ 10)

(defvar *empty-polls* 0 "In a row.")
(defvar *polls* (list :empty 0 :partial 0 :full 0))
(defvar *store-answers* t)

(defun deep-idle-p () (>= *empty-polls* +deep-idle-after+))

(defun interval-s ()
  "100 ms, doubling to 2 s while nothing is found; 30 s from the tenth empty poll in a row on."
  (if (deep-idle-p) +deep-idle-s+ (min (* +base-s+ (expt 2 (max 0 (1- *empty-polls*)))) +backoff-s-max+)))

(defun write-pending ()
  (let ((events (oldest-pending)))
    (when events
      (write-events events)
      (remove-pending events))
    (length events)))

(defun look ()
  (let ((found (or (nth-value 1 (claim-received +batch-events-max+)) 0)))
    (incf (getf *polls* (cond ((zerop found) :empty) ((< found +batch-events-max+) :partial) (t :full))))
    found))

(defun log-line (control &rest arguments)
  (format *error-output* "~&~?~%" control arguments)
  (finish-output *error-output*))

(defun note-poll (found)
  (let ((was-deep-idle (deep-idle-p)))
    (setf *empty-polls* (if (zerop found) (1+ *empty-polls*) 0))
    (unless (eq was-deep-idle (deep-idle-p))
      (log-line "deep idle ~:[left~;entered~]" (deep-idle-p)))))

(defun rest-after-poll ()
  "An arrival cuts every wait but the shortest: under load that would be a batch for each event."
  (let ((wait-s (interval-s)))
    (if (<= wait-s +base-s+)
        (unless *closed* (sleep wait-s))
        (bt:with-lock-held (*lock*)
          (unless (or *closed* (queue-head *order*))
            (bt:condition-wait *arrived* *lock* :timeout wait-s))))))

(defun process-events ()
  "Until nothing is taken in any more and nothing is pending."
  (loop until (and *closed* (zerop (pending-count)))
        do (handler-case
               (let ((found (write-pending)))
                 (when (< found +batch-events-max+)
                   (setf found (max found (look))))
                 (setf *store-answers* t)
                 (when (< found +batch-events-max+)
                   (note-poll found)
                   (rest-after-poll)))
             ;; Whatever it is: the events stay pending, and the buffer's bound is what protects this process.
             (error (condition)
               (setf *store-answers* nil)
               (log-line "could not persist; ~d events are pending: ~a" (pending-count) condition)
               (sleep +retry-s+)))))
