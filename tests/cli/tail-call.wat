;; Needs a proposal that older V8 do not have.
(module
  (memory (export "memory") 1)
  (func $forever (result i32) (return_call $forever))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024)))
