;; A filter for TCP: it lets everything of the client through and holds what the upstream sends.
(module
  (func (export "proxy_abi_version_0_2_1"))
  (memory (export "memory") 1)
  (func (export "malloc") (param i32) (result i32) i32.const 1024)
  (func (export "proxy_on_upstream_data") (param i32 i32 i32) (result i32) i32.const 1))
