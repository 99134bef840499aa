;; Refuses to be configured with nothing, and says so.
(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_configure") (param i32) (param $size i32) (result i32)
    (if (i32.eqz (local.get $size))
      (then (drop (call $log (i32.const 4) (i32.const 16) (i32.const 22)))))
    (i32.ne (local.get $size) (i32.const 0)))
  (data (i32.const 16) "no configuration given"))
