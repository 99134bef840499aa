//! Calls of the guest from within one of its own calls: its allocator, and what Envoy knows at once.

use wasmtime::{AsContextMut, TypedFunc, WasmParams, WasmResults};

use super::{
    memory::Guest,
    pending::Arrival,
    state::{HostResult, HostTrap},
    trace::{CallOutcome, Words},
};

/// A callback on a root context: the context, a token, and a size or count.
type OnArrival = TypedFunc<(u32, u32, u32), ()>;

/// The callbacks that Envoy calls from within a call of the guest's.
#[derive(Default)]
pub struct Reentrant {
    /// `envoy_on_resolve_dns`, of names that need no query.
    pub on_resolve_dns: Option<OnArrival>,
    /// `proxy_on_grpc_receive_initial_metadata`, of streams that fail at once.
    pub on_grpc_receive_initial_metadata: Option<OnArrival>,
    /// `proxy_on_grpc_receive_trailing_metadata`, of the same.
    pub on_grpc_receive_trailing_metadata: Option<OnArrival>,
}

/// Calls the guest on `context` (`SaveRestoreContext` in proxy-wasm-cpp-host). A trap is kept, and fails
/// the VM when the outer call ends: `None`.
pub fn call_back<P: WasmParams + Words, R: WasmResults + Words>(
    guest: &mut Guest<'_>,
    name: &'static str,
    function: &TypedFunc<P, R>,
    context: u32,
    params: P,
) -> HostResult<Option<R>> {
    let state = guest.data_mut();
    let current = state.current.replace(context);
    let effective = std::mem::take(&mut state.effective);
    if let Some(trace) = &mut state.trace {
        trace.begin_callback(name, &params.words());
    }
    let result = function.call(guest.as_context_mut(), params);
    let state = guest.data_mut();
    if let Some(trace) = &mut state.trace {
        trace.end_callback(result.as_ref().map_or(CallOutcome::NotReturned, CallOutcome::returned));
    }
    (state.current, state.effective) = (current, effective);
    match result {
        Ok(value) => Ok(Some(value)),
        // Time, limits and Envoy's own death end the whole call, not just this one.
        Err(error) => match HostTrap::beyond_the_guest(&error) {
            Some(trap) => Err(trap.into()),
            None => {
                state.nested_trap.get_or_insert((name, error));
                Ok(None)
            }
        },
    }
}

/// Brings `arrival` to the root context of the running call, which goes on afterwards.
pub fn bring_at_once(guest: &mut Guest<'_>, root: u32, token: u32, arrival: Arrival) -> HostResult {
    let state = guest.data();
    if state.nested_trap.is_some() {
        return Ok(());
    }
    let callbacks = &state.reentrant;
    let callback = match &arrival {
        Arrival::Resolved(_) => &callbacks.on_resolve_dns,
        Arrival::GrpcInitialMetadata(_) => &callbacks.on_grpc_receive_initial_metadata,
        Arrival::GrpcTrailingMetadata(_) => &callbacks.on_grpc_receive_trailing_metadata,
        _ => return Ok(()),
    };
    let Some(callback) = callback.clone() else { return Ok(()) };
    let (name, size) = arrival.callback();
    let before = guest.data_mut().begin_arrival(root, arrival);
    let result = call_back(guest, name, &callback, root, (root, token, size));
    guest.data_mut().pending.delivered = before;
    result.map(drop)
}
