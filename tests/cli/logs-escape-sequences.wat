;; Logs what would rewrite a terminal, reverse the reading order, or give a CI system a command.
(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (drop (call $log (i32.const 2) (i32.const 100) (i32.const 16)))
    (drop (call $log (i32.const 3) (i32.const 200) (i32.const 23)))
    (drop (call $log (i32.const 4) (i32.const 300) (i32.const 15)))
    (drop (call $log (i32.const 2) (i32.const 400) (i32.const 19)))
    (i32.const 1))
  (data (i32.const 100) "\1b[2J\1b]0;title\07ok")
  (data (i32.const 200) "a\0d\0a::error::all is lost")
  (data (i32.const 300) "##[error]broken")
  ;; U+202E, right-to-left override.
  (data (i32.const 400) "invoice\e2\80\aegpj.exe\00x"))
