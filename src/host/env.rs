//! `env` functions that are no `proxy_*` function, time, status, ticks, contexts and configuration.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::abi::Status;

use super::{
    memory::{Guest, give, write_u32, write_u64},
    state::{Deferred, HostResult, HostState},
};

/// `pthread_equal`: whether two words are equal.
pub fn pthread_equal(_guest: &mut Guest<'_>, left: u32, right: u32) -> HostResult<u32> {
    Ok(u32::from(left == right))
}

/// `emscripten_notify_memory_growth`: nothing.
pub fn emscripten_notify_memory_growth(_guest: &mut Guest<'_>, _memory: u32) -> HostResult {
    Ok(())
}

/// Nanoseconds since the epoch. The clock that Envoy is built with counts whole microseconds, which
/// shows where a module prints or hashes a time.
pub fn wall_clock_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX).saturating_mul(1000)
    })
}

/// `proxy_get_current_time_nanoseconds`: the wall clock.
pub fn proxy_get_current_time_nanoseconds(guest: &mut Guest<'_>, result_ptr: u32) -> HostResult {
    guest.data().context_id()?;
    let now = guest.data().process.now_ns();
    write_u64(guest, result_ptr, now)
}

/// `proxy_get_status`: the root's last call status, whatever the effective context.
pub fn proxy_get_status(
    guest: &mut Guest<'_>,
    code_ptr: u32,
    message_ptr_ptr: u32,
    message_size_ptr: u32,
) -> HostResult {
    guest.data().context_id()?;
    let (code, message) = guest.data().call_status.clone();
    write_u32(guest, code_ptr, code)?;
    give(guest, &message, message_ptr_ptr, message_size_ptr)
}

/// `proxy_set_tick_period_milliseconds`: acts on the root of the context; 0 turns ticks off,
/// anything else begins a period anew.
pub fn proxy_set_tick_period_milliseconds(guest: &mut Guest<'_>, period: u32) -> HostResult {
    let root = guest.data().root_id()?;
    guest.data_mut().arm_tick(root, period);
    Ok(())
}

/// `proxy_set_effective_context`: every context of the VM will do; 0, the VM's own, means the
/// current one.
pub fn proxy_set_effective_context(guest: &mut Guest<'_>, id: u32) -> HostResult {
    let state = guest.data_mut();
    state.context_id()?;
    if !state.contexts.contains_key(&id) {
        return Err(Status::BadArgument.into());
    }
    state.effective = id;
    Ok(())
}

/// `proxy_done`: only for a root that answered 0 from `proxy_on_done`.
pub fn proxy_done(guest: &mut Guest<'_>) -> HostResult {
    let state = guest.data_mut();
    let root = state.root_id()?;
    match state.contexts.get_mut(&root) {
        Some(context) if context.pending_done => {
            context.pending_done = false;
            state.deferred.push(Deferred::RootDone(root));
            Ok(())
        }
        _ => Err(Status::NotFound.into()),
    }
}

/// `proxy_get_configuration` (0.1.0): the plugin's configuration while it is configured, else the
/// VM's.
pub fn proxy_get_configuration(guest: &mut Guest<'_>, ptr_ptr: u32, size_ptr: u32) -> HostResult {
    let state: &HostState = guest.data();
    state.context_id()?;
    let bytes = if state.configuring {
        state.plugin.configuration.clone()
    } else {
        state.plugin.vm_configuration.clone()
    };
    give(guest, &bytes, ptr_ptr, size_ptr)
}
