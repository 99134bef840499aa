;; noop: the smallest filter that a proxy accepts.
;; It has the marker of ABI 0.2.1, a memory and an allocator, and nothing else:
;; every callback that a module does not export counts as "continue".
;; The allocator hands out nothing, because the host never has to give it bytes.
;; It takes no configuration and behaves the same under any root_id.
(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    i32.const 0))
