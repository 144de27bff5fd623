;;;; Makes the executable: sbcl --dynamic-space-size 4GB --script build.lisp

(require :asdf)
(require :sb-posix)
;; The server speaks plain HTTP: without this hunchentoot wants OpenSSL.
(push :hunchentoot-no-ssl *features*)
(push (uiop:getcwd) asdf:*central-registry*)
(handler-bind ((warning #'muffle-warning))
  (asdf:load-system "millrace"))
(sb-ext:save-lisp-and-die "millrace" :executable t :save-runtime-options t :toplevel (intern "MAIN" :millrace))
