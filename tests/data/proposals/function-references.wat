(module
  (type $t (func)) (func $f (param (ref null $t)) (call_ref $t (local.get 0)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024)))
