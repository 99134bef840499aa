;; A filter for TCP that logs a word for each chunk of the client's.
(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (func (export "proxy_abi_version_0_2_1"))
  (memory (export "memory") 1)
  (data (i32.const 0) "data")
  (func (export "malloc") (param i32) (result i32) i32.const 1024)
  (func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32)
    (drop (call $log (i32.const 2) (i32.const 0) (i32.const 4)))
    i32.const 0))
