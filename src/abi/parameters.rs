//! What the parameters of host functions and callbacks mean, for whoever reads a trace.
//!
//! The names of host functions' parameters are those of proxy-wasm-cpp-host
//! `include/proxy-wasm/exports.h` and of the WASI preview 1 specification.

/// What a parameter is, and how many words of the call it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A number. One word, as are the next eight.
    Number,
    /// 32 bits with a sign.
    Signed,
    /// 64 bits with a sign.
    SignedLong,
    /// 0 or 1.
    Flag,
    /// `WasmHeaderMapType`.
    Map,
    /// `WasmBufferType`.
    Buffer,
    /// `WasmStreamType`.
    Stream,
    /// A log level.
    Level,
    /// `MetricType`.
    Metric,
    /// Bytes of the guest: address and size. Two words, as are the next two.
    Bytes,
    /// A property's path, whose parts are separated by NUL.
    Path,
    /// A list of headers.
    Pairs,
    /// The address of a 32-bit cell that the host fills. One word, as is the next.
    OutWord,
    /// The address of a 64-bit cell that the host fills.
    OutLong,
    /// The addresses of two cells that the host fills with address and size of bytes. Two words, as
    /// is the next.
    OutBytes,
    /// The same for a list of headers.
    OutPairs,
}

impl ParameterKind {
    /// How many words of the call it takes.
    pub fn words(self) -> usize {
        match self {
            Self::Bytes | Self::Path | Self::Pairs | Self::OutBytes | Self::OutPairs => 2,
            _ => 1,
        }
    }

    /// Whether the host fills it.
    pub fn is_out(self) -> bool {
        matches!(self, Self::OutWord | Self::OutLong | Self::OutBytes | Self::OutPairs)
    }
}

/// A parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: ParameterKind,
}

const fn p(name: &'static str, kind: ParameterKind) -> Parameter {
    Parameter { name, kind }
}

const fn n(name: &'static str) -> Parameter {
    p(name, Number)
}

use ParameterKind::{
    Buffer, Bytes, Flag, Level, Map, Metric, Number, OutBytes, OutLong, OutPairs, OutWord, Pairs,
    Path, Signed, SignedLong, Stream,
};

/// The parameters of each host function, in the order of [`super::HOST_FUNCTIONS`].
#[rustfmt::skip]
pub static HOST_FUNCTION_PARAMETERS: &[(&str, &[Parameter])] = &[
    ("pthread_equal", &[n("left"), n("right")]),
    ("emscripten_notify_memory_growth", &[n("memory_index")]),
    ("envoy_resolve_dns", &[p("address", Bytes), p("token", OutWord)]),
    ("proxy_log", &[p("level", Level), p("message", Bytes)]),
    ("proxy_get_status", &[p("code", OutWord), p("message", OutBytes)]),
    ("proxy_set_property", &[p("path", Path), p("value", Bytes)]),
    ("proxy_get_property", &[p("path", Path), p("value", OutBytes)]),
    ("proxy_send_local_response", &[n("status"), p("details", Bytes), p("body", Bytes), p("headers", Pairs), p("grpc_status", Signed)]),
    ("proxy_get_shared_data", &[p("key", Bytes), p("value", OutBytes), p("cas", OutWord)]),
    ("proxy_set_shared_data", &[p("key", Bytes), p("value", Bytes), n("cas")]),
    ("proxy_register_shared_queue", &[p("name", Bytes), p("token", OutWord)]),
    ("proxy_resolve_shared_queue", &[p("vm_id", Bytes), p("name", Bytes), p("token", OutWord)]),
    ("proxy_dequeue_shared_queue", &[n("token"), p("data", OutBytes)]),
    ("proxy_enqueue_shared_queue", &[n("token"), p("data", Bytes)]),
    ("proxy_get_header_map_value", &[p("map", Map), p("key", Bytes), p("value", OutBytes)]),
    ("proxy_add_header_map_value", &[p("map", Map), p("key", Bytes), p("value", Bytes)]),
    ("proxy_replace_header_map_value", &[p("map", Map), p("key", Bytes), p("value", Bytes)]),
    ("proxy_remove_header_map_value", &[p("map", Map), p("key", Bytes)]),
    ("proxy_get_header_map_pairs", &[p("map", Map), p("pairs", OutPairs)]),
    ("proxy_set_header_map_pairs", &[p("map", Map), p("pairs", Pairs)]),
    ("proxy_get_header_map_size", &[p("map", Map), p("size", OutWord)]),
    ("proxy_get_buffer_status", &[p("buffer", Buffer), p("length", OutWord), p("flags", OutWord)]),
    ("proxy_get_buffer_bytes", &[p("buffer", Buffer), n("start"), n("length"), p("data", OutBytes)]),
    ("proxy_set_buffer_bytes", &[p("buffer", Buffer), n("start"), n("length"), p("data", Bytes)]),
    ("proxy_http_call", &[p("cluster", Bytes), p("headers", Pairs), p("body", Bytes), p("trailers", Pairs), p("timeout_ms", Signed), p("token", OutWord)]),
    ("proxy_grpc_call", &[p("service", Bytes), p("service_name", Bytes), p("method", Bytes), p("metadata", Pairs), p("message", Bytes), p("timeout_ms", Signed), p("token", OutWord)]),
    ("proxy_grpc_stream", &[p("service", Bytes), p("service_name", Bytes), p("method", Bytes), p("metadata", Pairs), p("token", OutWord)]),
    ("proxy_grpc_close", &[n("token")]),
    ("proxy_grpc_cancel", &[n("token")]),
    ("proxy_grpc_send", &[n("token"), p("message", Bytes), p("end_of_stream", Flag)]),
    ("proxy_set_tick_period_milliseconds", &[n("period_ms")]),
    ("proxy_get_current_time_nanoseconds", &[p("time_ns", OutLong)]),
    ("proxy_define_metric", &[p("type", Metric), p("name", Bytes), p("metric", OutWord)]),
    ("proxy_increment_metric", &[n("metric"), p("offset", SignedLong)]),
    ("proxy_record_metric", &[n("metric"), n("value")]),
    ("proxy_get_metric", &[n("metric"), p("value", OutLong)]),
    ("proxy_set_effective_context", &[n("context")]),
    ("proxy_done", &[]),
    ("proxy_call_foreign_function", &[p("name", Bytes), p("arguments", Bytes), p("results", OutBytes)]),
    ("proxy_get_configuration", &[p("configuration", OutBytes)]),
    ("proxy_continue_request", &[]),
    ("proxy_continue_response", &[]),
    ("proxy_clear_route_cache", &[]),
    ("proxy_continue_stream", &[p("stream", Stream)]),
    ("proxy_close_stream", &[p("stream", Stream)]),
    ("proxy_get_log_level", &[p("level", OutWord)]),
    ("args_get", &[n("argv"), n("argv_buf")]),
    ("args_sizes_get", &[p("argc", OutWord), p("argv_buf_size", OutWord)]),
    ("clock_res_get", &[n("id"), p("resolution_ns", OutLong)]),
    ("clock_time_get", &[n("id"), n("precision_ns"), p("time_ns", OutLong)]),
    ("environ_get", &[n("environ"), n("environ_buf")]),
    ("environ_sizes_get", &[p("count", OutWord), p("buf_size", OutWord)]),
    ("fd_advise", &[n("fd"), n("offset"), n("len"), n("advice")]),
    ("fd_allocate", &[n("fd"), n("offset"), n("len")]),
    ("fd_close", &[n("fd")]),
    ("fd_datasync", &[n("fd")]),
    ("fd_fdstat_get", &[n("fd"), n("stat")]),
    ("fd_fdstat_set_flags", &[n("fd"), n("flags")]),
    ("fd_fdstat_set_rights", &[n("fd"), n("base"), n("inheriting")]),
    ("fd_filestat_get", &[n("fd"), n("stat")]),
    ("fd_filestat_set_size", &[n("fd"), n("size")]),
    ("fd_filestat_set_times", &[n("fd"), n("atim"), n("mtim"), n("flags")]),
    ("fd_pread", &[n("fd"), n("iovs"), n("iovs_len"), n("offset"), p("read", OutWord)]),
    ("fd_prestat_dir_name", &[n("fd"), n("path"), n("path_len")]),
    ("fd_prestat_get", &[n("fd"), n("stat")]),
    ("fd_pwrite", &[n("fd"), n("iovs"), n("iovs_len"), n("offset"), p("written", OutWord)]),
    ("fd_read", &[n("fd"), n("iovs"), n("iovs_len"), p("read", OutWord)]),
    ("fd_readdir", &[n("fd"), n("buf"), n("buf_len"), n("cookie"), p("used", OutWord)]),
    ("fd_renumber", &[n("from"), n("to")]),
    ("fd_seek", &[n("fd"), p("offset", SignedLong), n("whence"), n("position")]),
    ("fd_sync", &[n("fd")]),
    ("fd_tell", &[n("fd"), p("position", OutLong)]),
    ("fd_write", &[n("fd"), n("iovs"), n("iovs_len"), p("written", OutWord)]),
    ("path_create_directory", &[n("fd"), p("path", Bytes)]),
    ("path_filestat_get", &[n("fd"), n("flags"), p("path", Bytes), n("stat")]),
    ("path_filestat_set_times", &[n("fd"), n("flags"), p("path", Bytes), n("atim"), n("mtim"), n("fst_flags")]),
    ("path_link", &[n("old_fd"), n("old_flags"), p("old_path", Bytes), n("new_fd"), n("new_path")]),
    ("path_open", &[n("fd"), n("dirflags"), p("path", Bytes), n("oflags"), n("rights"), n("inheriting"), n("fdflags"), n("opened")]),
    ("path_readlink", &[n("fd"), p("path", Bytes), n("buf"), n("buf_len"), p("used", OutWord)]),
    ("path_remove_directory", &[n("fd"), p("path", Bytes)]),
    ("path_rename", &[n("fd"), p("old_path", Bytes), n("new_fd"), p("new_path", Bytes)]),
    ("path_symlink", &[p("old_path", Bytes), n("fd"), n("new_path")]),
    ("path_unlink_file", &[n("fd"), p("path", Bytes)]),
    ("poll_oneoff", &[n("in"), n("out"), n("subscriptions"), p("events", OutWord)]),
    ("proc_exit", &[n("code")]),
    ("random_get", &[n("buf"), n("buf_len")]),
    ("sched_yield", &[]),
    ("sock_accept", &[n("fd"), n("flags"), p("accepted", OutWord)]),
    ("sock_recv", &[n("fd"), n("iovs"), n("iovs_len"), n("flags"), p("read", OutWord), p("out_flags", OutWord)]),
    ("sock_send", &[n("fd"), n("iovs"), n("iovs_len"), n("flags"), p("sent", OutWord)]),
    ("sock_shutdown", &[n("fd"), n("how")]),
];

/// The parameters of the exports that Envoy calls.
#[rustfmt::skip]
static CALLBACK_PARAMETERS: &[(&str, &[Parameter])] = &[
    ("main", &[n("argc"), n("argv")]),
    ("malloc", &[n("size")]),
    ("proxy_on_memory_allocate", &[n("size")]),
    ("proxy_on_vm_start", &[n("root"), n("vm_configuration_size")]),
    ("proxy_on_configure", &[n("root"), n("configuration_size")]),
    ("proxy_on_tick", &[n("root")]),
    ("proxy_on_context_create", &[n("context"), n("parent")]),
    ("proxy_on_new_connection", &[n("context")]),
    ("proxy_on_downstream_data", &[n("context"), n("size"), p("end_of_stream", Flag)]),
    ("proxy_on_upstream_data", &[n("context"), n("size"), p("end_of_stream", Flag)]),
    ("proxy_on_downstream_connection_close", &[n("context"), n("close_type")]),
    ("proxy_on_upstream_connection_close", &[n("context"), n("close_type")]),
    ("proxy_on_request_headers", &[n("context"), n("headers"), p("end_of_stream", Flag)]),
    ("proxy_on_request_body", &[n("context"), n("size"), p("end_of_stream", Flag)]),
    ("proxy_on_request_trailers", &[n("context"), n("trailers")]),
    ("proxy_on_request_metadata", &[n("context"), n("elements")]),
    ("proxy_on_response_headers", &[n("context"), n("headers"), p("end_of_stream", Flag)]),
    ("proxy_on_response_body", &[n("context"), n("size"), p("end_of_stream", Flag)]),
    ("proxy_on_response_trailers", &[n("context"), n("trailers")]),
    ("proxy_on_response_metadata", &[n("context"), n("elements")]),
    ("proxy_on_http_call_response", &[n("root"), n("token"), n("headers"), n("body_size"), n("trailers")]),
    ("proxy_on_grpc_receive_initial_metadata", &[n("root"), n("token"), n("headers")]),
    ("proxy_on_grpc_receive", &[n("root"), n("token"), n("size")]),
    ("proxy_on_grpc_receive_trailing_metadata", &[n("root"), n("token"), n("trailers")]),
    ("proxy_on_grpc_close", &[n("root"), n("token"), n("status")]),
    ("proxy_on_queue_ready", &[n("root"), n("token")]),
    ("envoy_on_resolve_dns", &[n("root"), n("token"), n("size")]),
    ("proxy_on_done", &[n("context")]),
    ("proxy_on_log", &[n("context")]),
    ("proxy_on_delete", &[n("context")]),
];

/// The parameters of the export `name`; none where it is not known.
pub fn callback_parameters(name: &str) -> &'static [Parameter] {
    CALLBACK_PARAMETERS
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(&[], |(_, parameters)| parameters)
}

#[cfg(test)]
mod tests {
    use crate::abi::{ALLOCATORS, CALLBACKS, FuncType, HOST_FUNCTIONS, LIFECYCLE};

    use super::*;

    #[test]
    fn parameters_take_the_words_that_the_signatures_have() {
        assert_eq!(HOST_FUNCTIONS.len(), HOST_FUNCTION_PARAMETERS.len());
        let words = |parameters: &[Parameter]| -> usize {
            parameters.iter().map(|parameter| parameter.kind.words()).sum()
        };
        for (function, (name, parameters)) in HOST_FUNCTIONS.iter().zip(HOST_FUNCTION_PARAMETERS) {
            assert_eq!(function.name, *name);
            assert_eq!(words(parameters), function.func_type().params.len(), "{name}");
        }
        for (name, parameters) in CALLBACK_PARAMETERS {
            let known = CALLBACKS.iter().chain(LIFECYCLE).chain(ALLOCATORS);
            let callbacks: Vec<_> = known.filter(|callback| callback.name == *name).collect();
            assert!(!callbacks.is_empty(), "{name}");
            let most =
                callbacks.iter().map(|c| FuncType::parse(c.signature).params.len()).max().unwrap();
            assert_eq!(words(parameters), most, "{name}");
        }
    }
}
