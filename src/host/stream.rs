//! Stream control: continue, close, local replies, the route cache.

use crate::abi::Status;

use super::{
    context::LocalReply,
    memory::{Guest, read},
    pairs,
    state::{Deferred, Exit, HostResult, HostState, HostTrap},
};

const REQUEST: u32 = 0;
const RESPONSE: u32 = 1;
const DOWNSTREAM: u32 = 2;
const UPSTREAM: u32 = 3;

/// `proxy_continue_stream` (0.2.x): Ok also where there is nothing to continue; for upstream
/// connections Envoy has no implementation.
pub fn proxy_continue_stream(guest: &mut Guest<'_>, stream: u32) -> HostResult {
    let state = guest.data_mut();
    let id = state.context_id()?;
    match stream {
        REQUEST | RESPONSE => {
            if let Some(state_of_stream) = state.stream()?.filter(|stream| !stream.is_tcp) {
                // Either direction clears what the module sees of the request.
                let request = &mut state_of_stream.request;
                request.headers_visible = false;
                request.trailers_visible = false;
                request.body.source = super::context::BodySource::None;
                state.deferred.push(if stream == REQUEST {
                    Deferred::ContinueRequest(id)
                } else {
                    Deferred::ContinueResponse(id)
                });
            }
            Ok(())
        }
        DOWNSTREAM => {
            if is_tcp(state)? {
                state.deferred.push(Deferred::ContinueDownstream(id));
            }
            Ok(())
        }
        UPSTREAM => Err(Status::Unimplemented.into()),
        _ => Err(Status::BadArgument.into()),
    }
}

/// `proxy_close_stream` (0.2.x): resets an HTTP stream or closes the connection.
pub fn proxy_close_stream(guest: &mut Guest<'_>, stream: u32) -> HostResult {
    let state = guest.data_mut();
    let id = state.context_id()?;
    match stream {
        REQUEST | RESPONSE => {
            let Some(stream) = state.stream()?.filter(|stream| !stream.is_tcp) else {
                return Ok(());
            };
            if stream.ending {
                return Err(when_it_is_over("the stream was reset"));
            }
            state.deferred.push(Deferred::CloseStream(id));
            Ok(())
        }
        // There is one way to close a connection, whichever side is named.
        DOWNSTREAM | UPSTREAM => {
            if is_tcp(state)? {
                state.deferred.push(Deferred::CloseConnection(id));
            }
            Ok(())
        }
        _ => Err(Status::BadArgument.into()),
    }
}

fn when_it_is_over(what: &str) -> Exit {
    HostTrap::CrashesEnvoy(format!(
        "{what} when the stream was over: Envoy dies of a segmentation fault"
    ))
    .into()
}

fn is_tcp(state: &mut HostState) -> HostResult<bool> {
    Ok(state.stream()?.is_some_and(|stream| stream.is_tcp))
}

/// `proxy_continue_request` (0.1.0).
pub fn proxy_continue_request(guest: &mut Guest<'_>) -> HostResult {
    proxy_continue_stream(guest, REQUEST)
}

/// `proxy_continue_response` (0.1.0).
pub fn proxy_continue_response(guest: &mut Guest<'_>) -> HostResult {
    proxy_continue_stream(guest, RESPONSE)
}

/// `proxy_clear_route_cache` (0.1.0): there is one route here, so that nothing can be seen of it.
pub fn proxy_clear_route_cache(guest: &mut Guest<'_>) -> HostResult {
    guest.data().context_id()?;
    Ok(())
}

/// `proxy_send_local_response`: Ok on any context, with an effect on HTTP streams. The reply leaves after
/// the callback; the callback's own result no longer counts.
#[allow(clippy::too_many_arguments, reason = "the ABI's own parameters")]
pub fn proxy_send_local_response(
    guest: &mut Guest<'_>,
    status: u32,
    details_ptr: u32,
    details_size: u32,
    body_ptr: u32,
    body_size: u32,
    headers_ptr: u32,
    headers_size: u32,
    grpc_status: u32,
) -> HostResult {
    let id = guest.data().context_id()?;
    let details = read(guest, details_ptr, details_size)?;
    let body = read(guest, body_ptr, body_size)?;
    let headers = read(guest, headers_ptr, headers_size)?;
    let state: &mut HostState = guest.data_mut();
    state.charge_stream(details.len() + body.len() + headers.len())?;
    state.stop_iteration = true;
    let Some(stream) = state.stream()?.filter(|stream| !stream.is_tcp) else { return Ok(()) };
    if stream.ending {
        return Err(when_it_is_over("a local reply was asked for"));
    }
    if stream.local_reply.is_some() {
        stream.ignored_replies += 1;
        return Ok(());
    }
    stream.local_reply = Some(LocalReply {
        status,
        // Envoy keeps details free of white space.
        details: details.iter().map(|b| if b.is_ascii_whitespace() { b'_' } else { *b }).collect(),
        body,
        headers: pairs::decode(&headers),
        grpc_status: grpc_status.cast_signed(),
    });
    state.deferred.push(Deferred::LocalReply(id));
    Ok(())
}
