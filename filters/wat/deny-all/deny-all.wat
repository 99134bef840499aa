;; deny-all: answers every request itself and lets none through.
;; It sends a local response 403 with a header, a body and response code
;; details, and stops the request there. Written by hand for ABI 0.2.1; the
;; only import is proxy_send_local_response.
;; It takes no configuration and behaves the same under any root_id.
(module
  (import "env" "proxy_send_local_response"
    (func $send_local_response
      (param $status i32)
      (param $details i32) (param $details_size i32)
      (param $body i32) (param $body_size i32)
      (param $headers i32) (param $headers_size i32)
      (param $grpc_status i32)
      (result i32)))

  (memory (export "memory") 1)
  (data (i32.const 0x00) "deny_all")
  (data (i32.const 0x10) "denied by deny-all\n")
  ;; A header list: the number of pairs, the sizes of each key and value, then
  ;; each key and value with a zero byte after it.
  (data (i32.const 0x30)
    "\01\00\00\00"
    "\0b\00\00\00" "\08\00\00\00"
    "x-denied-by\00" "deny-all\00")

  (func (export "proxy_abi_version_0_2_1"))

  ;; The host never has to give this filter bytes.
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    i32.const 0)

  (func (export "proxy_on_request_headers")
    (param $context i32) (param $count i32) (param $end_of_stream i32) (result i32)
    (drop
      (call $send_local_response
        (i32.const 403)
        (i32.const 0x00) (i32.const 8)
        (i32.const 0x10) (i32.const 19)
        (i32.const 0x30) (i32.const 33)
        ;; No gRPC status.
        (i32.const -1)))
    ;; Action: pause.
    i32.const 1))
