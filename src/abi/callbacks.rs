//! Exports that Envoy looks up in a module, in the order in which it looks them up.

use super::AbiSet;

/// An export that Envoy calls.
#[derive(Debug)]
pub struct Callback {
    /// The export's name.
    pub name: &'static str,
    /// Its type, in the notation of [`super::HostFunction::signature`].
    pub signature: &'static str,
    /// The ABI versions for which it is looked up with this type.
    pub abis: AbiSet,
}

const fn callback(name: &'static str, signature: &'static str, abis: AbiSet) -> Callback {
    Callback { name, signature, abis }
}

/// Entry points: `_start` is looked up only without `_initialize`, `main` and `__main_void` only
/// with it (proxy-wasm-cpp-host `src/wasm.cc`, `getFunctions`). `__main_void` since Envoy 1.39.
pub static LIFECYCLE: &[Callback] = &[
    callback("_initialize", ">", AbiSet::ALL),
    callback("main", "ii>i", AbiSet::ALL),
    callback("__main_void", ">i", AbiSet::ALL),
    callback("_start", ">", AbiSet::ALL),
];

/// Allocators in order of preference; the second is looked up only where the first is absent.
pub static ALLOCATORS: &[Callback] = &[
    callback("malloc", "i>i", AbiSet::ALL),
    callback("proxy_on_memory_allocate", "i>i", AbiSet::ALL),
];

/// Callbacks, in the order of `FOR_ALL_MODULE_FUNCTIONS` (proxy-wasm-cpp-host
/// `include/proxy-wasm/wasm.h`), then those of one ABI, then Envoy's own. All are optional.
#[rustfmt::skip]
pub static CALLBACKS: &[Callback] = &[
    callback("proxy_validate_configuration", "ii>i", AbiSet::ALL),
    callback("proxy_on_vm_start", "ii>i", AbiSet::ALL),
    callback("proxy_on_configure", "ii>i", AbiSet::ALL),
    callback("proxy_on_tick", "i>", AbiSet::ALL),
    callback("proxy_on_context_create", "ii>", AbiSet::ALL),
    callback("proxy_on_new_connection", "i>i", AbiSet::ALL),
    callback("proxy_on_downstream_data", "iii>i", AbiSet::ALL),
    callback("proxy_on_upstream_data", "iii>i", AbiSet::ALL),
    callback("proxy_on_downstream_connection_close", "ii>", AbiSet::ALL),
    callback("proxy_on_upstream_connection_close", "ii>", AbiSet::ALL),
    callback("proxy_on_request_body", "iii>i", AbiSet::ALL),
    callback("proxy_on_request_trailers", "ii>i", AbiSet::ALL),
    callback("proxy_on_request_metadata", "ii>i", AbiSet::ALL),
    callback("proxy_on_response_body", "iii>i", AbiSet::ALL),
    callback("proxy_on_response_trailers", "ii>i", AbiSet::ALL),
    callback("proxy_on_response_metadata", "ii>i", AbiSet::ALL),
    callback("proxy_on_http_call_response", "iiiii>", AbiSet::ALL),
    callback("proxy_on_grpc_receive", "iii>", AbiSet::ALL),
    callback("proxy_on_grpc_close", "iii>", AbiSet::ALL),
    callback("proxy_on_grpc_receive_initial_metadata", "iii>", AbiSet::ALL),
    callback("proxy_on_grpc_receive_trailing_metadata", "iii>", AbiSet::ALL),
    callback("proxy_on_queue_ready", "ii>", AbiSet::ALL),
    callback("proxy_on_done", "i>i", AbiSet::ALL),
    callback("proxy_on_log", "i>", AbiSet::ALL),
    callback("proxy_on_delete", "i>", AbiSet::ALL),
    callback("proxy_on_request_headers", "ii>i", AbiSet::V0_1_0),
    callback("proxy_on_response_headers", "ii>i", AbiSet::V0_1_0),
    callback("proxy_on_request_headers", "iii>i", AbiSet::V0_2_X),
    callback("proxy_on_response_headers", "iii>i", AbiSet::V0_2_X),
    callback("proxy_on_foreign_function", "iii>", AbiSet::V0_2_X),
    callback("envoy_on_resolve_dns", "iii>", AbiSet::ALL),
    callback("envoy_on_stats_update", "ii>", AbiSet::ALL),
];
