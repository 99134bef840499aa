;; A component, which is no core module.
(component)
