(module
  (memory (export "memory") 1 2 shared)
  (func (drop (i32.atomic.load (i32.const 0))))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024)))
