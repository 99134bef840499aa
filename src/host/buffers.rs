//! Buffers: bodies, configurations and what calls bring.

use crate::abi::Status;

use super::{
    context::{Body, Flow},
    memory::{Guest, give, read, write_u32},
    pending::Arrival,
    state::{HostResult, HostState},
};

const HTTP_REQUEST_BODY: u32 = 0;
const HTTP_RESPONSE_BODY: u32 = 1;
const NETWORK_DOWNSTREAM_DATA: u32 = 2;
const NETWORK_UPSTREAM_DATA: u32 = 3;
const HTTP_CALL_RESPONSE_BODY: u32 = 4;
const GRPC_RECEIVE_BUFFER: u32 = 5;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;
const CALL_DATA: u32 = 8;

/// The buffer that is meant: call data is whatever buffer was last selected on the context, which
/// Envoy keeps in one place for all types.
fn select(state: &mut HostState, buffer: u32) -> HostResult<u32> {
    if buffer == CALL_DATA {
        return Ok(state.context()?.last_buffer.unwrap_or(CALL_DATA));
    }
    if bytes(state, buffer).is_ok() {
        state.context()?.last_buffer = Some(buffer);
    }
    Ok(buffer)
}

/// The bytes of a buffer; an absent buffer is an error, one without bytes is empty.
fn bytes(state: &mut HostState, buffer: u32) -> HostResult<&[u8]> {
    match buffer {
        HTTP_REQUEST_BODY => body(state, Flow::Request, false),
        HTTP_RESPONSE_BODY => body(state, Flow::Response, false),
        NETWORK_DOWNSTREAM_DATA => body(state, Flow::Request, true),
        NETWORK_UPSTREAM_DATA => body(state, Flow::Response, true),
        GRPC_RECEIVE_BUFFER => {
            state.context_id()?;
            match &state.pending.delivered {
                Some(Arrival::GrpcMessage(message)) => Ok(message),
                _ => Ok(&[]),
            }
        }
        CALL_DATA => {
            state.context_id()?;
            match &state.pending.delivered {
                Some(Arrival::Resolved(addresses)) => Ok(addresses),
                _ => Ok(&[]),
            }
        }
        HTTP_CALL_RESPONSE_BODY => {
            state.context_id()?;
            match &state.pending.delivered {
                Some(Arrival::HttpResponse(_, body, _)) => Ok(body),
                _ => Err(Status::NotFound.into()),
            }
        }
        VM_CONFIGURATION => {
            state.context_id()?;
            Ok(&state.plugin.vm_configuration)
        }
        PLUGIN_CONFIGURATION => {
            state.context_id()?;
            if state.configuring {
                Ok(&state.plugin.configuration)
            } else {
                Err(Status::NotFound.into())
            }
        }
        _ => Err(Status::BadArgument.into()),
    }
}

/// What is visible of a body, or of a TCP connection's data.
fn body(state: &mut HostState, flow: Flow, of_tcp: bool) -> HostResult<&[u8]> {
    let stream = state.stream()?.filter(|stream| stream.is_tcp == of_tcp);
    Ok(stream
        .and_then(|stream| stream.direction(flow).body.visible().map(Vec::as_slice))
        .unwrap_or(&[]))
}

/// `proxy_get_buffer_bytes`: a start beyond the end gives no bytes, a length beyond it is cut.
pub fn proxy_get_buffer_bytes(
    guest: &mut Guest<'_>,
    buffer: u32,
    start: u32,
    length: u32,
    ptr_ptr: u32,
    size_ptr: u32,
) -> HostResult {
    let state = guest.data_mut();
    let buffer = select(state, buffer)?;
    let all = bytes(state, buffer)?;
    let start = start as usize;
    let wanted = match all.get(start..) {
        Some(rest) => rest[..rest.len().min(length as usize)].to_vec(),
        None => Vec::new(),
    };
    give(guest, &wanted, ptr_ptr, size_ptr)
}

/// `proxy_get_buffer_status`: the length, and flags that are always 0.
pub fn proxy_get_buffer_status(
    guest: &mut Guest<'_>,
    buffer: u32,
    length_ptr: u32,
    flags_ptr: u32,
) -> HostResult {
    let state = guest.data_mut();
    let buffer = select(state, buffer)?;
    let length = bytes(state, buffer)?.len();
    write_u32(guest, length_ptr, u32::try_from(length).unwrap_or(u32::MAX))?;
    write_u32(guest, flags_ptr, 0)
}

/// `proxy_set_buffer_bytes`: at 0 it replaces `length` bytes from the front, at or beyond the end it
/// appends, in between it is refused, as is a buffer that is read-only or not there.
pub fn proxy_set_buffer_bytes(
    guest: &mut Guest<'_>,
    buffer: u32,
    start: u32,
    length: u32,
    data_ptr: u32,
    data_size: u32,
) -> HostResult {
    let buffer = select(guest.data_mut(), buffer)?;
    bytes(guest.data_mut(), buffer)?;
    let data = read(guest, data_ptr, data_size)?;
    let (flow, of_tcp) = match buffer {
        HTTP_REQUEST_BODY => (Flow::Request, false),
        HTTP_RESPONSE_BODY => (Flow::Response, false),
        NETWORK_DOWNSTREAM_DATA => (Flow::Request, true),
        NETWORK_UPSTREAM_DATA => (Flow::Response, true),
        GRPC_RECEIVE_BUFFER => {
            let state = guest.data_mut();
            state.charge_stream(data.len())?;
            return match &mut state.pending.delivered {
                Some(Arrival::GrpcMessage(message)) => splice_bytes(message, start, length, &data),
                _ => Err(Status::BadArgument.into()),
            };
        }
        _ => return Err(Status::BadArgument.into()),
    };
    let state = guest.data_mut();
    state.charge_stream(data.len())?;
    let stream = state.stream()?.filter(|stream| stream.is_tcp == of_tcp);
    let stream = stream.ok_or(Status::BadArgument)?;
    splice(&mut stream.direction_mut(flow).body, start, length, &data)
}

fn splice(body: &mut Body, start: u32, length: u32, data: &[u8]) -> HostResult {
    splice_bytes(body.visible_mut().ok_or(Status::BadArgument)?, start, length, data)
}

fn splice_bytes(target: &mut Vec<u8>, start: u32, length: u32, data: &[u8]) -> HostResult {
    let (start, length) = (start as usize, length as usize);
    if start == 0 {
        let removed = length.min(target.len());
        target.splice(..removed, data.iter().copied());
        Ok(())
    } else if start >= target.len() {
        target.extend_from_slice(data);
        Ok(())
    } else {
        Err(Status::BadArgument.into())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::context::BodySource, *};

    #[test]
    fn setting_replaces_prepends_appends_and_refuses() {
        let after = |start, length, data: &str| {
            let mut body = Body {
                frame: b"0123456789".to_vec(),
                source: BodySource::Frame,
                ..Body::default()
            };
            splice(&mut body, start, length, data.as_bytes())
                .map(|()| String::from_utf8(body.frame).unwrap())
        };
        assert_eq!(after(0, 0, "ab").unwrap(), "ab0123456789");
        assert_eq!(after(0, 4, "ab").unwrap(), "ab456789");
        assert_eq!(after(0, u32::MAX, "ab").unwrap(), "ab");
        assert_eq!(after(10, 3, "ab").unwrap(), "0123456789ab");
        assert_eq!(after(99, 0, "ab").unwrap(), "0123456789ab");
        assert_eq!(after(3, 1, "ab"), Err(Status::BadArgument.into()));
    }
}
