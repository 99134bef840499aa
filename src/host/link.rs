//! Ties each import of a module to its host function.

use wasmtime::Linker;

use crate::{abi::find_host_function, module::Facts};

use super::{
    buffers, dns, env, foreign, grpc, headers, http_call, logging,
    memory::Guest,
    metrics, properties, shared,
    state::{Exit, HostResult, HostState},
    stream, trace, wasi,
};

/// What a host function answers to the guest.
trait Answer {
    fn code(self) -> u32;
}

impl Answer for () {
    fn code(self) -> u32 {
        0
    }
}

impl Answer for u32 {
    fn code(self) -> u32 {
        self
    }
}

/// Where a host function stands in the tables and in the module.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// In [`crate::abi::HOST_FUNCTIONS`].
    index: usize,
    /// The import module.
    module: &'static str,
}

fn run<T: Answer>(
    guest: &mut Guest<'_>,
    place: Place,
    words: &[u64],
    function: impl FnOnce(&mut Guest<'_>) -> HostResult<T>,
) -> wasmtime::Result<u32> {
    let Place { index, module } = place;
    if guest.data().trace.is_none() {
        return answer(guest, index, function);
    }
    trace::begin_host_call(guest, index, module, words);
    let answered = answer(guest, index, function);
    trace::end_host_call(guest, index, words, answered.as_ref().ok().copied());
    answered
}

fn answer<T: Answer>(
    guest: &mut Guest<'_>,
    index: usize,
    function: impl FnOnce(&mut Guest<'_>) -> HostResult<T>,
) -> wasmtime::Result<u32> {
    let entered = guest.data_mut().enter(index);
    match entered.and_then(|()| function(guest)) {
        Ok(answer) => Ok(answer.code()),
        Err(Exit::Code(code)) => Ok(code),
        Err(Exit::Trap(trap)) => Err(wasmtime::Error::new(trap)),
    }
}

macro_rules! definitions {
    ($($($void:ident)? $name:literal => |$guest:ident $(, $arg:ident: $ty:ty)*| $call:expr;)*) => {
        pub(super) fn define(linker: &mut Linker<HostState>, name: &str, place: Place) -> wasmtime::Result<()> {
            match name {
                $($name => {
                    definitions!(@wrap linker, name, place, $($void)? |$guest $(, $arg: $ty)*| $call);
                })*
                _ => {}
            }
            Ok(())
        }

        #[cfg(test)]
        pub(super) const DEFINED: &[&str] = &[$($name,)*];
    };
    (@wrap $linker:ident, $fn:ident, $place:ident, |$guest:ident $(, $arg:ident: $ty:ty)*| $call:expr) => {
        $linker.func_wrap($place.module, $fn, move |mut caller: Guest<'_> $(, $arg: $ty)*| {
            run(&mut caller, $place, &[$($arg.into()),*], |$guest| $call)
        })?;
    };
    (@wrap $linker:ident, $fn:ident, $place:ident, void |$guest:ident $(, $arg:ident: $ty:ty)*| $call:expr) => {
        $linker.func_wrap($place.module, $fn, move |mut caller: Guest<'_> $(, $arg: $ty)*| {
            run(&mut caller, $place, &[$($arg.into()),*], |$guest| $call).map(drop)
        })?;
    };
}

#[rustfmt::skip]
mod table {
    use super::*;

    definitions! {
        "pthread_equal" => |guest, a: u32, b: u32| env::pthread_equal(guest, a, b);
        void "emscripten_notify_memory_growth" => |guest, a: u32| env::emscripten_notify_memory_growth(guest, a);
        "envoy_resolve_dns" => |guest, a: u32, b: u32, c: u32| dns::envoy_resolve_dns(guest, a, b, c);
        "proxy_log" => |guest, a: u32, b: u32, c: u32| logging::proxy_log(guest, a, b, c);
        "proxy_get_status" => |guest, a: u32, b: u32, c: u32| env::proxy_get_status(guest, a, b, c);
        "proxy_set_property" => |guest, a: u32, b: u32, c: u32, d: u32| properties::proxy_set_property(guest, a, b, c, d);
        "proxy_get_property" => |guest, a: u32, b: u32, c: u32, d: u32| properties::proxy_get_property(guest, a, b, c, d);
        "proxy_send_local_response" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32| stream::proxy_send_local_response(guest, a, b, c, d, e, f, g, h);
        "proxy_get_shared_data" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32| shared::proxy_get_shared_data(guest, a, b, c, d, e);
        "proxy_set_shared_data" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32| shared::proxy_set_shared_data(guest, a, b, c, d, e);
        "proxy_register_shared_queue" => |guest, a: u32, b: u32, c: u32| shared::proxy_register_shared_queue(guest, a, b, c);
        "proxy_resolve_shared_queue" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32| shared::proxy_resolve_shared_queue(guest, a, b, c, d, e);
        "proxy_dequeue_shared_queue" => |guest, a: u32, b: u32, c: u32| shared::proxy_dequeue_shared_queue(guest, a, b, c);
        "proxy_enqueue_shared_queue" => |guest, a: u32, b: u32, c: u32| shared::proxy_enqueue_shared_queue(guest, a, b, c);
        "proxy_get_header_map_value" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32| headers::proxy_get_header_map_value(guest, a, b, c, d, e);
        "proxy_add_header_map_value" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32| headers::proxy_add_header_map_value(guest, a, b, c, d, e);
        "proxy_replace_header_map_value" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32| headers::proxy_replace_header_map_value(guest, a, b, c, d, e);
        "proxy_remove_header_map_value" => |guest, a: u32, b: u32, c: u32| headers::proxy_remove_header_map_value(guest, a, b, c);
        "proxy_get_header_map_pairs" => |guest, a: u32, b: u32, c: u32| headers::proxy_get_header_map_pairs(guest, a, b, c);
        "proxy_set_header_map_pairs" => |guest, a: u32, b: u32, c: u32| headers::proxy_set_header_map_pairs(guest, a, b, c);
        "proxy_get_header_map_size" => |guest, a: u32, b: u32| headers::proxy_get_header_map_size(guest, a, b);
        "proxy_get_buffer_status" => |guest, a: u32, b: u32, c: u32| buffers::proxy_get_buffer_status(guest, a, b, c);
        "proxy_get_buffer_bytes" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32| buffers::proxy_get_buffer_bytes(guest, a, b, c, d, e);
        "proxy_set_buffer_bytes" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32| buffers::proxy_set_buffer_bytes(guest, a, b, c, d, e);
        "proxy_http_call" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32, j: u32| http_call::proxy_http_call(guest, a, b, c, d, e, f, g, h, i, j);
        "proxy_grpc_call" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32, j: u32, k: u32, l: u32| grpc::proxy_grpc_call(guest, a, b, c, d, e, f, g, h, i, j, k, l);
        "proxy_grpc_stream" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32| grpc::proxy_grpc_stream(guest, a, b, c, d, e, f, g, h, i);
        "proxy_grpc_close" => |guest, a: u32| grpc::proxy_grpc_close(guest, a);
        "proxy_grpc_cancel" => |guest, a: u32| grpc::proxy_grpc_cancel(guest, a);
        "proxy_grpc_send" => |guest, a: u32, b: u32, c: u32, _d: u32| grpc::proxy_grpc_send(guest, a, b, c);
        "proxy_set_tick_period_milliseconds" => |guest, a: u32| env::proxy_set_tick_period_milliseconds(guest, a);
        "proxy_get_current_time_nanoseconds" => |guest, a: u32| env::proxy_get_current_time_nanoseconds(guest, a);
        "proxy_define_metric" => |guest, a: u32, b: u32, c: u32, d: u32| metrics::proxy_define_metric(guest, a, b, c, d);
        "proxy_increment_metric" => |guest, a: u32, b: u64| metrics::proxy_increment_metric(guest, a, b);
        "proxy_record_metric" => |guest, a: u32, b: u64| metrics::proxy_record_metric(guest, a, b);
        "proxy_get_metric" => |guest, a: u32, b: u32| metrics::proxy_get_metric(guest, a, b);
        "proxy_set_effective_context" => |guest, a: u32| env::proxy_set_effective_context(guest, a);
        "proxy_done" => |guest| env::proxy_done(guest);
        "proxy_call_foreign_function" => |guest, a: u32, b: u32, c: u32, d: u32, e: u32, f: u32| foreign::proxy_call_foreign_function(guest, a, b, c, d, e, f);
        "proxy_get_configuration" => |guest, a: u32, b: u32| env::proxy_get_configuration(guest, a, b);
        "proxy_continue_request" => |guest| stream::proxy_continue_request(guest);
        "proxy_continue_response" => |guest| stream::proxy_continue_response(guest);
        "proxy_clear_route_cache" => |guest| stream::proxy_clear_route_cache(guest);
        "proxy_continue_stream" => |guest, a: u32| stream::proxy_continue_stream(guest, a);
        "proxy_close_stream" => |guest, a: u32| stream::proxy_close_stream(guest, a);
        "proxy_get_log_level" => |guest, a: u32| logging::proxy_get_log_level(guest, a);
        "args_get" => |_guest, _a: u32, _b: u32| wasi::fixed::ok();
        "args_sizes_get" => |guest, a: u32, b: u32| wasi::no_strings(guest, a, b);
        "clock_res_get" => |guest, a: u32, b: u32| wasi::clock_res_get(guest, a, b);
        "clock_time_get" => |guest, a: u32, _b: u64, c: u32| wasi::clock_time_get(guest, a, c);
        "environ_get" => |guest, a: u32, b: u32| wasi::environ_get(guest, a, b);
        "environ_sizes_get" => |guest, a: u32, b: u32| wasi::environ_sizes_get(guest, a, b);
        "fd_advise" => |_guest, _a: u32, _b: u64, _c: u64, _d: u32| wasi::fixed::ok();
        "fd_allocate" => |_guest, a: u32, _b: u64, _c: u64| wasi::fixed::stdio(a);
        "fd_close" => |guest, _a: u32| wasi::ok_on_a_context(guest);
        "fd_datasync" => |_guest, a: u32| wasi::fixed::stdio(a);
        "fd_fdstat_get" => |guest, a: u32, b: u32| wasi::fd_fdstat_get(guest, a, b);
        "fd_fdstat_set_flags" => |_guest, _a: u32, _b: u32| wasi::fixed::nosys();
        "fd_fdstat_set_rights" => |_guest, a: u32, _b: u64, _c: u64| wasi::fixed::stdio(a);
        "fd_filestat_get" => |_guest, _a: u32, _b: u32| wasi::fixed::badf();
        "fd_filestat_set_size" => |_guest, a: u32, _b: u64| wasi::fixed::stdio(a);
        "fd_filestat_set_times" => |_guest, a: u32, _b: u64, _c: u64, _d: u32| wasi::fixed::stdio(a);
        "fd_pread" => |_guest, _a: u32, _b: u32, _c: u32, _d: u64, _e: u32| wasi::fixed::nosys();
        "fd_prestat_dir_name" => |_guest, _a: u32, _b: u32, _c: u32| wasi::fixed::nosys();
        "fd_prestat_get" => |_guest, _a: u32, _b: u32| wasi::fixed::badf();
        "fd_pwrite" => |guest, a: u32, b: u32, c: u32, _d: u64, e: u32| wasi::fd_write(guest, a, b, c, e);
        "fd_read" => |_guest, _a: u32, _b: u32, _c: u32, _d: u32| wasi::fixed::nosys();
        "fd_readdir" => |guest, _a: u32, _b: u32, _c: u32, _d: u64, e: u32| wasi::fd_readdir(guest, e);
        "fd_renumber" => |_guest, a: u32, b: u32| wasi::fd_renumber(a, b);
        "fd_seek" => |guest, _a: u32, _b: u64, _c: u32, _d: u32| wasi::ok_on_a_context(guest);
        "fd_sync" => |_guest, a: u32| wasi::fixed::stdio(a);
        "fd_tell" => |guest, a: u32, b: u32| wasi::fd_tell(guest, a, b);
        "fd_write" => |guest, a: u32, b: u32, c: u32, d: u32| wasi::fd_write(guest, a, b, c, d);
        "path_create_directory" => |_guest, _a: u32, _b: u32, _c: u32| wasi::fixed::notsup();
        "path_filestat_get" => |_guest, _a: u32, _b: u32, _c: u32, _d: u32, _e: u32| wasi::fixed::notsup();
        "path_filestat_set_times" => |_guest, _a: u32, _b: u32, _c: u32, _d: u32, _e: u64, _f: u64, _g: u32| wasi::fixed::notsup();
        "path_link" => |_guest, _a: u32, _b: u32, _c: u32, _d: u32, _e: u32, _f: u32| wasi::fixed::notsup();
        "path_open" => |_guest, _a: u32, _b: u32, _c: u32, _d: u32, _e: u32, _f: u64, _g: u64, _h: u32, _i: u32| wasi::fixed::noent();
        "path_readlink" => |guest, _a: u32, _b: u32, _c: u32, _d: u32, _e: u32, f: u32| wasi::no_bytes_not_supported(guest, f);
        "path_remove_directory" => |_guest, _a: u32, _b: u32, _c: u32| wasi::fixed::notsup();
        "path_rename" => |_guest, _a: u32, _b: u32, _c: u32, _d: u32, _e: u32, _f: u32| wasi::fixed::notsup();
        "path_symlink" => |_guest, _a: u32, _b: u32, _c: u32, _d: u32| wasi::fixed::notsup();
        "path_unlink_file" => |_guest, _a: u32, _b: u32, _c: u32| wasi::fixed::notsup();
        "poll_oneoff" => |guest, _a: u32, _b: u32, _c: u32, d: u32| wasi::poll_oneoff(guest, d);
        void "proc_exit" => |guest, _a: u32| wasi::ok_on_a_context(guest);
        "random_get" => |guest, a: u32, b: u32| wasi::random_get(guest, a, b);
        "sched_yield" => |_guest| wasi::fixed::ok();
        "sock_accept" => |guest, _a: u32, _b: u32, c: u32| wasi::sock_accept(guest, c);
        "sock_recv" => |guest, _a: u32, _b: u32, _c: u32, _d: u32, e: u32, f: u32| wasi::sock_recv(guest, e, f);
        "sock_send" => |guest, _a: u32, _b: u32, _c: u32, _d: u32, e: u32| wasi::no_bytes_not_supported(guest, e);
        "sock_shutdown" => |_guest, _a: u32, _b: u32| wasi::fixed::notsup();
    }
}

/// Defines the functions that a module imports, and no others. The module was checked against its
/// target before, so that every name is known and of the right type.
pub fn define_imports(linker: &mut Linker<HostState>, facts: &Facts) -> wasmtime::Result<()> {
    // Modules may import one function twice.
    linker.allow_shadowing(true);
    for import in &facts.imports {
        if import.kind.func().is_some()
            && let Some((index, function)) = find_host_function(&import.module, &import.name)
            && let Some(module) = function.namespace.module(&import.module)
        {
            table::define(linker, &import.name, Place { index, module })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::abi::HOST_FUNCTIONS;

    use super::*;

    #[test]
    fn every_function_of_the_table_has_a_definition_and_no_other() {
        let table: Vec<_> = HOST_FUNCTIONS.iter().map(|function| function.name).collect();
        assert_eq!(table::DEFINED, table);
    }
}
