(module
  (func (drop (i32.load (i64.const 0))))
  (memory (export "memory") i64 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024)))
