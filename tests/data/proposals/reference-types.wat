(module
  (table $t 1 externref) (func (param externref) (table.set $t (i32.const 0) (local.get 0)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024)))
