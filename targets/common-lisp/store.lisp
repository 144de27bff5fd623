;;;; All SQL. One server writes to a database (see README.md), so seq grows in the order of the commits.

(in-package :millrace)

(defvar *database* nil "What postmodern connects with: database, user, password, host, :port, :pooled-p.")

;; state: received (left to be taken in), persisted, delivered. The payload is text: jsonb would lose what was sent.
(defparameter *schema*
  '("CREATE TABLE IF NOT EXISTS api_keys (
        key_hash TEXT PRIMARY KEY, organization_id UUID NOT NULL, organization_name TEXT NOT NULL, tier TEXT NOT NULL)"
    "CREATE TABLE IF NOT EXISTS events (
        id UUID PRIMARY KEY, seq BIGSERIAL NOT NULL, organization_id UUID NOT NULL, type TEXT NOT NULL, dedup_id TEXT, payload TEXT NOT NULL,
        state TEXT NOT NULL, created_at_us BIGINT NOT NULL, persisted_at_us BIGINT)"
    "CREATE INDEX IF NOT EXISTS events_inbox ON events (organization_id, seq)"
    "CREATE INDEX IF NOT EXISTS events_dedup ON events (organization_id, dedup_id, created_at_us) WHERE dedup_id IS NOT NULL"
    "CREATE INDEX IF NOT EXISTS events_received ON events (created_at_us) WHERE state = 'received'"))

(defstruct event id organization-id type dedup-id (payload "" :type string) (created-at-us 0) (persisted-at-us nil) (state "pending"))

(defun configure (url)
  "Takes a URL: postgres://USER[:PASSWORD]@HOST[:PORT]/NAME."
  (ppcre:register-groups-bind (user password host port name)
      ("^postgres(?:ql)?://([^:@/]+)(?::([^@/]*))?@([^:/]+)(?::(\\d+))?/([^?]+)" url)
    (return-from configure
      (setf *database* (list (h:url-decode name) (h:url-decode user) (h:url-decode (or password "")) host
                             :port (if port (parse-integer port) 5432) :pooled-p t))))
  (error "DATABASE_URL is not like postgres://user@127.0.0.1:5432/events: ~s" url))

(defun run (name sql &rest parameters)
  "The rows of a statement, and how many it changed. It is prepared once on each connection. A pooled connection may have been closed by the
other side since it was used: then the statement is tried once more, on a new one. Every statement here may be repeated."
  (flet ((attempt ()
           (pomo:with-connection *database*
             (let ((prepared (pg:connection-meta pomo:*database*)))
               (unless (gethash name prepared)
                 (pg:prepare-query pomo:*database* name sql)
                 (setf (gethash name prepared) t))
               (pg:exec-prepared pomo:*database* name (mapcar (lambda (parameter) (or parameter :null)) parameters) 'pg:list-row-reader)))))
    (handler-case (attempt)
      ((or pg:database-connection-error cl-postgres-error:server-shutdown stream-error) ()
        (pomo:clear-connection-pool)
        (attempt)))))

(defmacro define-statement (name (&rest parameters) sql)
  "A function that runs SQL with its parameters."
  `(defun ,name ,parameters (run ,(string-downcase name) ,sql ,@parameters)))

(define-statement add-key (key-hash organization-id name tier)
  "INSERT INTO api_keys (key_hash, organization_id, organization_name, tier) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")

(define-statement organization-rows (key-hash)
  "SELECT organization_id FROM api_keys WHERE key_hash = $1")

(define-statement insert-events (ids organization-ids types dedup-ids payloads created-at-us)
  "INSERT INTO events (id, organization_id, type, dedup_id, payload, created_at_us, state, persisted_at_us)
   SELECT *, 'persisted', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
   FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[]) ON CONFLICT (id) DO NOTHING")

;; A new seq, so that nothing appears behind a reader's cursor.
(define-statement claim-received (events-max)
  "UPDATE events SET state = 'persisted', persisted_at_us = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, seq = DEFAULT WHERE id IN
   (SELECT id FROM events WHERE state = 'received' ORDER BY created_at_us LIMIT $1 FOR UPDATE SKIP LOCKED)")

(define-statement holder-rows (organization-id dedup-id since-us)
  "SELECT id FROM events WHERE organization_id = $1 AND dedup_id = $2 AND created_at_us > $3 ORDER BY created_at_us DESC LIMIT 1")

(define-statement dedup-rows (since-us rows-max)
  "SELECT organization_id, dedup_id, id, created_at_us FROM events WHERE dedup_id IS NOT NULL AND created_at_us > $1
   ORDER BY created_at_us DESC LIMIT $2")

(define-statement event-rows (organization-id id)
  "SELECT id, organization_id, type, dedup_id, payload, state, created_at_us, persisted_at_us FROM events
   WHERE organization_id = $1 AND id = $2 AND state <> 'received'")

(define-statement inbox-rows (organization-id after-seq state limit)
  "SELECT id, organization_id, type, dedup_id, payload, state, created_at_us, persisted_at_us, seq FROM events
   WHERE organization_id = $1 AND seq > $2 AND state <> 'received' AND ($3::text IS NULL OR state = $3) ORDER BY seq LIMIT $4")

(define-statement deliver (organization-id id)
  "UPDATE events SET state = 'delivered' WHERE organization_id = $1 AND id = $2 AND state <> 'received'")

(defun migrate ()
  (pomo:with-connection *database*
    (dolist (sql *schema*)
      ;; What is there already is told as a warning.
      (handler-bind ((warning #'muffle-warning)) (pomo:execute sql)))))

(defun write-events (events)
  "Writes a batch; safe to repeat when it is not known whether it was written."
  (flet ((column (reader) (array-literal (mapcar reader events))))
    (insert-events (column #'event-id) (column #'event-organization-id) (column #'event-type) (column #'event-dedup-id)
                   (column #'event-payload) (column #'event-created-at-us))))

(defun array-literal (values)
  "An array in PostgreSQL's text format."
  (with-output-to-string (out)
    (write-char #\{ out)
    (loop for (value . more) on values
          do (etypecase value
               (null (write-string "NULL" out))
               (integer (format out "~d" value))
               (string (write-char #\" out)
                (loop for char across value
                      do (when (or (char= char #\") (char= char #\\)) (write-char #\\ out))
                         (write-char char out))
                (write-char #\" out)))
             (when more (write-char #\, out)))
    (write-char #\} out)))

(defun event-of-row (row)
  (flet ((or-nil (value) (if (eq value :null) nil value)))
    (destructuring-bind (id organization-id type dedup-id payload state created-at-us persisted-at-us &rest seq) row
      (declare (ignore seq))
      (make-event :id id :organization-id organization-id :type type :dedup-id (or-nil dedup-id) :payload payload :state state
                  :created-at-us created-at-us :persisted-at-us (or-nil persisted-at-us)))))
