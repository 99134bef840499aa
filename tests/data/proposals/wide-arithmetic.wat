(module
  (func (i64.add128 (i64.const 1)(i64.const 1)(i64.const 1)(i64.const 1)) drop drop)
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024)))
