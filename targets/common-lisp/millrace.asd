(asdf:defsystem "millrace"
  :description "The core of the event-ingestion contract: hunchentoot, postmodern."
  :depends-on ("hunchentoot" "postmodern" "ironclad" "bordeaux-threads" "cl-ppcre")
  :serial t
  :components ((:file "package") (:file "json") (:file "store") (:file "intake") (:file "server")))
