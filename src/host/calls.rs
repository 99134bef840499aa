//! Calls to other services.
//!
//! There is no cluster, resolver or stream behind these yet: each answers what Envoy answers when the
//! thing is not available, after the same checks. A report names those that a module called.

use crate::abi::{HOST_FUNCTIONS, Status};

use super::{
    memory::{Guest, view, write_u32},
    state::{HostResult, HostState},
};

/// Host functions whose success is not modelled yet.
const NOT_MODELLED: &[&str] = &[
    "proxy_http_call",
    "proxy_grpc_call",
    "proxy_grpc_stream",
    "proxy_grpc_send",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "envoy_resolve_dns",
];

impl HostState {
    /// Those of them that the guest called.
    pub fn calls_not_modelled(&self) -> impl Iterator<Item = &'static str> {
        let called = self.calls.iter().zip(HOST_FUNCTIONS).filter(|(calls, _)| **calls > 0);
        let names =
            called.map(|(_, function)| function.name).filter(|name| NOT_MODELLED.contains(name));
        // Only some foreign functions have no model.
        names.chain(self.foreign_not_modelled.then_some("proxy_call_foreign_function"))
    }
}

/// Arguments are checked before anything else is looked at.
fn check_ranges(guest: &mut Guest<'_>, ranges: &[(u32, u32)]) -> HostResult {
    guest.data().context_id()?;
    for (ptr, size) in ranges {
        view(guest, *ptr, *size)?;
    }
    Ok(())
}

/// `proxy_http_call` to a cluster that is not there: BadArgument, with 0 in the token cell.
#[allow(clippy::too_many_arguments, reason = "the ABI's own parameters")]
pub fn proxy_http_call(
    guest: &mut Guest<'_>,
    upstream_ptr: u32,
    upstream_size: u32,
    headers_ptr: u32,
    headers_size: u32,
    body_ptr: u32,
    body_size: u32,
    trailers_ptr: u32,
    trailers_size: u32,
    token_ptr: u32,
) -> HostResult {
    check_ranges(
        guest,
        &[
            (upstream_ptr, upstream_size),
            (body_ptr, body_size),
            (headers_ptr, headers_size),
            (trailers_ptr, trailers_size),
        ],
    )?;
    write_u32(guest, token_ptr, 0)?;
    Err(Status::BadArgument.into())
}

/// `proxy_grpc_call` to a cluster that is not there: ParseFailure.
#[allow(clippy::too_many_arguments, reason = "the ABI's own parameters")]
pub fn proxy_grpc_call(
    guest: &mut Guest<'_>,
    service_ptr: u32,
    service_size: u32,
    service_name_ptr: u32,
    service_name_size: u32,
    method_ptr: u32,
    method_size: u32,
    metadata_ptr: u32,
    metadata_size: u32,
    request_ptr: u32,
    request_size: u32,
) -> HostResult {
    check_ranges(
        guest,
        &[
            (service_ptr, service_size),
            (service_name_ptr, service_name_size),
            (method_ptr, method_size),
            (metadata_ptr, metadata_size),
            (request_ptr, request_size),
        ],
    )?;
    Err(Status::ParseFailure.into())
}

/// `proxy_grpc_stream` to a cluster that is not there: ParseFailure.
#[allow(clippy::too_many_arguments, reason = "the ABI's own parameters")]
pub fn proxy_grpc_stream(
    guest: &mut Guest<'_>,
    service_ptr: u32,
    service_size: u32,
    service_name_ptr: u32,
    service_name_size: u32,
    method_ptr: u32,
    method_size: u32,
    metadata_ptr: u32,
    metadata_size: u32,
) -> HostResult {
    check_ranges(
        guest,
        &[
            (service_ptr, service_size),
            (service_name_ptr, service_name_size),
            (method_ptr, method_size),
            (metadata_ptr, metadata_size),
        ],
    )?;
    Err(Status::ParseFailure.into())
}

/// Tokens of gRPC calls and streams carry their class in the low two bits.
const GRPC_CALL: u32 = 1;
const GRPC_STREAM: u32 = 2;

fn unknown_token(token: u32, classes: &[u32]) -> HostResult {
    if classes.contains(&(token & 0b11)) {
        Err(Status::NotFound.into())
    } else {
        Err(Status::BadArgument.into())
    }
}

/// `proxy_grpc_send` on a stream that is not there.
pub fn proxy_grpc_send(
    guest: &mut Guest<'_>,
    token: u32,
    message_ptr: u32,
    message_size: u32,
) -> HostResult {
    check_ranges(guest, &[(message_ptr, message_size)])?;
    unknown_token(token, &[GRPC_STREAM])
}

/// `proxy_grpc_cancel` and `proxy_grpc_close` of a call or stream that is not there.
pub fn proxy_grpc_end(guest: &mut Guest<'_>, token: u32) -> HostResult {
    guest.data().context_id()?;
    unknown_token(token, &[GRPC_CALL, GRPC_STREAM])
}

/// `envoy_resolve_dns`: Ok and a token; no answer comes.
pub fn envoy_resolve_dns(
    guest: &mut Guest<'_>,
    name_ptr: u32,
    name_size: u32,
    token_ptr: u32,
) -> HostResult {
    check_ranges(guest, &[(name_ptr, name_size)])?;
    /// Envoy's first DNS token.
    const FIRST_TOKEN: u32 = 2;
    write_u32(guest, token_ptr, FIRST_TOKEN)
}
