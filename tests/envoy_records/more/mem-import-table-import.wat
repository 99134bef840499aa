(module (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
 (import "env" "proxy_add_header_map_value" (func $addh (param i32 i32 i32 i32 i32) (result i32)))(import "env" "memory" (memory 1)) (import "env" "t" (table 1 funcref))

(func (export "proxy_abi_version_0_2_1"))
(global $heap (mut i32) (i32.const 8192)) (func $alloc (export "proxy_on_memory_allocate") (param $n i32) (result i32) (local $p i32) (local.set $p (global.get $heap)) (global.set $heap (i32.and (i32.add (i32.add (local.get $p) (local.get $n)) (i32.const 15)) (i32.const -8))) (local.get $p))
(func (export "proxy_on_context_create") (param i32 i32))
(func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
(func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $log (i32.const 2) (i32.const 16) (i32.const 10))) (i32.const 1))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (drop (call $addh (i32.const 0) (i32.const 32) (i32.const 7) (i32.const 48) (i32.const 1))) (i32.const 0))

(data (i32.const 16) "configured") (data (i32.const 32) "x-probe") (data (i32.const 48) "1"))