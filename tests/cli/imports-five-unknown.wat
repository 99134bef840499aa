;; Imports five functions that Envoy does not have for this ABI, and one that it has.
(module
  (import "env" "abort" (func (param i32 i32 i32 i32)))
  (import "env" "proxy_no_such_call" (func))
  (import "env" "__syscall_openat" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi:cli/environment@0.2.0" "get-environment" (func (param i32)))
  (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
  (import "env" "proxy_continue_request" (func (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024)))
