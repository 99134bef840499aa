//! gRPC calls and streams (Envoy `source/extensions/common/wasm/context.cc`, `grpcCall` and on, and
//! `source/common/grpc/async_client_impl.cc`).

use crate::abi::Status;

use super::{
    environment::{Cluster, GrpcAnswer, Hosts},
    header_map::HeaderMap,
    http_call::{TIMED_OUT, refused},
    memory::{Guest, read, view, write_u32},
    pending::{Arrival, OpenStream, TokenClass},
    reentry::bring_at_once,
    state::{HostResult, HostState, HostTrap},
    wire::{self, Value},
};

const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;

const NO_CLUSTER: &str = "Cluster not available";
const NO_HOST: &str = "no healthy upstream";

/// The details that Envoy adds to the message of a host that refuses connections.
const REFUSED_DETAILS: &str = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}";

/// What a `GrpcService` message says.
#[derive(Debug, PartialEq, Eq)]
enum GrpcService {
    /// `envoy_grpc`, with its cluster.
    Envoy(String),
    /// Neither `envoy_grpc` nor another target.
    WithoutTarget,
}

/// Takes bytes for a message: a field that is not known is passed over, as long as it is well formed.
/// `None` where they are none.
fn grpc_service(bytes: &[u8]) -> Option<GrpcService> {
    let mut envoy = None;
    wire::fields(bytes, |number, value| {
        if let (1, Value::Bytes(message)) = (number, value) {
            envoy = Some(message);
        }
    })?;
    let Some(envoy) = envoy else { return Some(GrpcService::WithoutTarget) };
    let mut cluster = &[][..];
    wire::fields(envoy, |number, value| {
        if let (1, Value::Bytes(name)) = (number, value) {
            cluster = name;
        }
    })?;
    Some(GrpcService::Envoy(std::str::from_utf8(cluster).ok()?.to_owned()))
}

fn close(status: u32, message: &str, details: &str) -> Arrival {
    let message = match (message, details) {
        ("", "") => String::new(),
        ("", details) => details.to_owned(),
        (message, "") => message.to_owned(),
        (message, details) => format!("{message}{{{details}}}"),
    };
    Arrival::GrpcClose(status, message.into_bytes())
}

/// Begins a call or stream: the memory of all arguments first, then the cluster that `service` names, a
/// serialized `GrpcService` or else a name. A name that no cluster has is a ParseFailure; a message that
/// names none is an InternalFailure, which uses a token up and is told to `proxy_on_grpc_close` as well.
fn begin(
    guest: &mut Guest<'_>,
    class: TokenClass,
    service: (u32, u32),
    others: &[(u32, u32)],
) -> HostResult<(u32, String, Cluster)> {
    let root = guest.data().root_id()?;
    let service = read(guest, service.0, service.1)?;
    for (ptr, size) in others {
        view(guest, *ptr, *size)?;
    }
    let (name, in_message) = match grpc_service(&service) {
        Some(GrpcService::WithoutTarget) => {
            return Err(HostTrap::CrashesEnvoy(
                "the gRPC service is taken for a `GrpcService` message without a target (a cluster's name can be one by accident): Envoy aborts"
                    .to_owned(),
            )
            .into());
        }
        Some(GrpcService::Envoy(name)) => (name, true),
        None => (String::from_utf8_lossy(&service).into_owned(), false),
    };
    let state = guest.data_mut();
    let found = state.process.environment.clusters.get(&name).cloned();
    if found.is_none() && !in_message {
        state.pending.note_unknown(name, Status::ParseFailure);
        return Err(Status::ParseFailure.into());
    }
    let token = state.pending.next_token(class);
    match found {
        Some(cluster) => Ok((token, name, cluster)),
        None => {
            state.pending.note_unknown(name, Status::InternalFailure);
            state.fail_call(root, token, close(UNAVAILABLE, NO_CLUSTER, ""));
            Err(Status::InternalFailure.into())
        }
    }
}

fn metadata<'a>(first: &[(&'a str, &'a str)], rest: &'a [(String, String)]) -> HeaderMap {
    let rest = rest.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    HeaderMap::from_pairs(first.iter().copied().chain(rest))
}

/// `proxy_grpc_call`: a cluster without a healthy host is an InternalFailure, too, and is told to
/// `proxy_on_grpc_close`. The token cell is written only where the call was made.
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
    timeout_ms: u32,
    token_ptr: u32,
) -> HostResult {
    let root = guest.data().root_id()?;
    let others = [
        (service_name_ptr, service_name_size),
        (method_ptr, method_size),
        (metadata_ptr, metadata_size),
        (request_ptr, request_size),
    ];
    let (token, _, cluster) =
        begin(guest, TokenClass::GrpcCall, (service_ptr, service_size), &others)?;
    let state = guest.data_mut();
    if cluster.hosts == Hosts::None {
        let arrival = close(UNAVAILABLE, NO_HOST, "no_healthy_upstream");
        state.fail_call(root, token, arrival);
        return Err(Status::InternalFailure.into());
    }
    let answer = match (cluster.hosts, &cluster.grpc) {
        (Hosts::Refusing, _) => {
            Some((0, close(UNAVAILABLE, refused(state.release.minor), REFUSED_DETAILS)))
        }
        (_, GrpcAnswer::Never) => None,
        (_, GrpcAnswer::NotGrpc) => Some((0, close(UNKNOWN, "", "via_upstream"))),
        // A server is told the time-out, and one of 0 is over at once.
        (_, GrpcAnswer::Given(_)) if timeout_ms == 0 => {
            Some((0, close(DEADLINE_EXCEEDED, "Deadline Exceeded", "via_upstream")))
        }
        (_, GrpcAnswer::Given(answer)) => Some((
            answer.delay_ms,
            match answer.messages.first() {
                _ if answer.status != 0 => close(answer.status, &answer.message, "via_upstream"),
                Some(message) => Arrival::GrpcMessage(message.as_bytes().to_vec()),
                None => close(INTERNAL, "", ""),
            },
        )),
    };
    let answer = answer.filter(|(delay_ms, _)| timeout_ms == 0 || *delay_ms < timeout_ms);
    let answer = match answer {
        None if timeout_ms > 0 => {
            Some((timeout_ms, close(UNAVAILABLE, TIMED_OUT, "response_timeout")))
        }
        answer => answer,
    };
    state.pending.open.insert(token);
    if let Some((delay_ms, arrival)) = answer {
        state.schedule(root, token, delay_ms, arrival)?;
    }
    write_u32(guest, token_ptr, token)
}

/// What a stream brings whose connection fails: metadata that Envoy makes up.
fn made_up_metadata(message: &str) -> [Arrival; 2] {
    let trailing = metadata(
        &[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "14"),
            ("grpc-message", message),
        ],
        &[],
    );
    [Arrival::GrpcInitialMetadata(HeaderMap::new()), Arrival::GrpcTrailingMetadata(trailing)]
}

/// `proxy_grpc_stream`: fails as `proxy_grpc_call` does.
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
    token_ptr: u32,
) -> HostResult {
    let root = guest.data().root_id()?;
    let others = [
        (service_name_ptr, service_name_size),
        (method_ptr, method_size),
        (metadata_ptr, metadata_size),
    ];
    let (token, cluster, Cluster { hosts, .. }) =
        begin(guest, TokenClass::GrpcStream, (service_ptr, service_size), &others)?;
    if hosts == Hosts::None {
        for arrival in made_up_metadata(NO_HOST) {
            bring_at_once(guest, root, token, arrival)?;
        }
        let arrival = close(UNAVAILABLE, NO_HOST, "no_healthy_upstream");
        guest.data_mut().fail_call(root, token, arrival);
        return Err(Status::InternalFailure.into());
    }
    let state = guest.data_mut();
    state.charge(cluster.len() + size_of::<OpenStream>())?;
    let refusing = hosts == Hosts::Refusing;
    let stream = OpenStream { cluster, answered: refusing, ..OpenStream::default() };
    state.pending.streams.insert(token, stream);
    if refusing {
        let message = refused(state.release.minor);
        for arrival in made_up_metadata(message) {
            state.schedule(root, token, 0, arrival)?;
        }
        state.schedule(root, token, 0, close(UNAVAILABLE, message, REFUSED_DETAILS))?;
    }
    write_u32(guest, token_ptr, token)
}

/// The server answers once it has the first message or the end of the request.
fn server_answers(state: &mut HostState, root: u32, token: u32) -> Result<(), HostTrap> {
    let Some(stream) = state.pending.streams.get_mut(&token) else { return Ok(()) };
    if std::mem::replace(&mut stream.answered, true) {
        return Ok(());
    }
    let cluster = state.process.environment.clusters.get(&stream.cluster);
    let Some(GrpcAnswer::Given(answer)) = cluster.map(|cluster| cluster.grpc.clone()) else {
        return Ok(());
    };
    let delay_ms = answer.delay_ms;
    let mut initial = metadata(
        &[(":status", "200"), ("content-type", "application/grpc")],
        &answer.initial_metadata,
    );
    initial.add(b"x-envoy-upstream-service-time", delay_ms.to_string().as_bytes());
    state.schedule(root, token, delay_ms, Arrival::GrpcInitialMetadata(initial))?;
    for message in answer.messages {
        state.schedule(root, token, delay_ms, Arrival::GrpcMessage(message.into_bytes()))?;
    }
    let trailing = metadata(
        &[("grpc-status", &answer.status.to_string()), ("grpc-message", &answer.message)],
        &answer.trailing_metadata,
    );
    state.schedule(root, token, delay_ms, Arrival::GrpcTrailingMetadata(trailing))?;
    state.schedule(root, token, delay_ms, close(answer.status, &answer.message, "via_upstream"))
}

/// Tokens of gRPC calls and streams carry their class in the low two bits.
fn class(token: u32) -> Option<TokenClass> {
    match token & 0b11 {
        1 => Some(TokenClass::GrpcCall),
        2 => Some(TokenClass::GrpcStream),
        _ => None,
    }
}

/// `proxy_grpc_send`: BadArgument for what is no stream's token, NotFound for one that is not open. A
/// message behind the end of the request goes nowhere.
pub fn proxy_grpc_send(
    guest: &mut Guest<'_>,
    token: u32,
    message_ptr: u32,
    message_size: u32,
) -> HostResult {
    let root = guest.data().root_id()?;
    view(guest, message_ptr, message_size)?;
    if class(token) != Some(TokenClass::GrpcStream) {
        return Err(Status::BadArgument.into());
    }
    let state = guest.data_mut();
    if !state.pending.streams.contains_key(&token) {
        return Err(Status::NotFound.into());
    }
    server_answers(state, root, token)?;
    Ok(())
}

/// `proxy_grpc_cancel`: nothing comes back of the call or stream any more.
pub fn proxy_grpc_cancel(guest: &mut Guest<'_>, token: u32) -> HostResult {
    guest.data().context_id()?;
    let class = class(token).ok_or(Status::BadArgument)?;
    let pending = &mut guest.data_mut().pending;
    let was_open = match class {
        TokenClass::GrpcCall => pending.open.remove(&token),
        _ => pending.streams.remove(&token).is_some(),
    };
    if !was_open {
        return Err(Status::NotFound.into());
    }
    pending.forget(token);
    Ok(())
}

/// `proxy_grpc_close`: cancels a call, and ends the request of a stream, which is gone once both
/// sides have ended.
pub fn proxy_grpc_close(guest: &mut Guest<'_>, token: u32) -> HostResult {
    let root = guest.data().root_id()?;
    if class(token) != Some(TokenClass::GrpcStream) {
        return proxy_grpc_cancel(guest, token);
    }
    let state = guest.data_mut();
    server_answers(state, root, token)?;
    let stream = state.pending.streams.get_mut(&token).ok_or(Status::NotFound)?;
    stream.local_closed = true;
    if stream.remote_closed {
        state.pending.streams.remove(&token);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clusters_are_messages_only_by_accident() {
        for name in ["upstream", "unknown", "given", "refused"] {
            assert_eq!(grpc_service(name.as_bytes()), None);
        }
        for name in ["", "empty"] {
            assert_eq!(grpc_service(name.as_bytes()), Some(GrpcService::WithoutTarget));
        }
        let message = b"\n\x06\n\x04grpc";
        assert_eq!(grpc_service(message), Some(GrpcService::Envoy("grpc".to_owned())));
    }
}
