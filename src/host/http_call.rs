//! `proxy_http_call` (Envoy `source/extensions/common/wasm/context.cc`, `httpCall`, and
//! `source/common/http/async_client_impl.cc`).

use crate::abi::Status;

use super::{
    environment::{GivenResponse, Hosts, HttpAnswer},
    header_map::HeaderMap,
    memory::{Guest, read, write_u32},
    pairs,
    pending::{Arrival, TokenClass},
    state::HostResult,
};

/// A response of Envoy's router.
fn routers(status: u32, body: &str) -> Arrival {
    let headers = HeaderMap::from_pairs([
        (":status", status.to_string().as_str()),
        ("content-length", body.len().to_string().as_str()),
        ("content-type", "text/plain"),
    ]);
    Arrival::HttpResponse(headers, body.as_bytes().to_vec(), None)
}

/// What the router says of a host that refuses connections. Envoy 1.36 and 1.37 give the transport's
/// reason, 1.39 and 1.40 do not; 1.38 was not seen.
pub(super) fn refused(envoy_minor: u8) -> &'static str {
    if envoy_minor < 38 {
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, transport failure reason: delayed connect error: Connection refused"
    } else {
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    }
}
/// What the router says of an answer that does not come in time.
pub(super) const TIMED_OUT: &str = "upstream request timeout";

fn given(response: &GivenResponse, head: bool) -> Arrival {
    let mut headers = HeaderMap::from_pairs([(":status", response.status.to_string())]);
    for (name, value) in &response.headers {
        headers.add(name.as_bytes(), value.as_bytes());
    }
    headers.add(b"x-envoy-upstream-service-time", response.delay_ms.to_string().as_bytes());
    let (body, trailers) =
        if head { (&[][..], &[][..]) } else { (response.body.as_bytes(), &response.trailers[..]) };
    let trailers = (!trailers.is_empty())
        .then(|| HeaderMap::from_pairs(trailers.iter().map(|(name, value)| (name, value))));
    Arrival::HttpResponse(headers, body.to_vec(), trailers)
}

/// `proxy_http_call`: memory first, then the time-out's sign, the cluster, and `:path`, `:method` and
/// `:authority`. The token cell is written in any case. Trailers are checked and never sent.
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
    timeout_ms: u32,
    token_ptr: u32,
) -> HostResult {
    let root = guest.data().root_id()?;
    let upstream = read(guest, upstream_ptr, upstream_size)?;
    let body = read(guest, body_ptr, body_size)?;
    let headers = read(guest, headers_ptr, headers_size)?;
    read(guest, trailers_ptr, trailers_size)?;
    write_u32(guest, token_ptr, 0)?;
    if timeout_ms.cast_signed() < 0 {
        return Err(Status::BadArgument.into());
    }
    let state = guest.data_mut();
    let name = String::from_utf8_lossy(&upstream).into_owned();
    let Some(cluster) = state.process.environment.clusters.get(&name).cloned() else {
        state.pending.note_unknown(name, Status::BadArgument);
        return Err(Status::BadArgument.into());
    };
    let mut request = HeaderMap::request();
    for (name, value) in pairs::decode(&headers) {
        request.add(&name, &value);
    }
    let has = |name: &[u8]| request.get(name).is_some();
    if !(has(b":path") && has(b":method") && has(b":authority")) {
        return Err(Status::BadArgument.into());
    }
    state.charge(headers.len() + body.len())?;
    if !body.is_empty() {
        let length = body.len().to_string();
        request.replace(b"content-length", length.as_bytes());
    }
    let token = state.pending.next_token(TokenClass::Http);
    if cluster.hosts == Hosts::None {
        return Err(Status::InternalFailure.into());
    }
    request.replace(b"x-envoy-internal", b"true");
    if timeout_ms > 0 {
        request.add(b"x-envoy-expected-rq-timeout-ms", timeout_ms.to_string().as_bytes());
    }
    // An upstream that waits for the rest of a body never answers.
    let waits =
        request.number::<usize>(b"content-length").is_some_and(|length| length > body.len());
    let head = request.get(b":method") == Some(b"HEAD");
    let answer = match (cluster.hosts, &cluster.http) {
        (Hosts::Refusing, _) => Some((0, routers(503, refused(state.release.minor)))),
        _ if waits => None,
        (_, HttpAnswer::Never) => None,
        (_, HttpAnswer::Echo) => Some((0, Arrival::HttpEcho(request, body))),
        (_, HttpAnswer::Given(response)) => Some((response.delay_ms, given(response, head))),
        (_, HttpAnswer::Reset(delay_ms)) => Some((*delay_ms, Arrival::HttpReset)),
        (_, HttpAnswer::OverLimit) => Some((0, Arrival::HttpReset)),
    };
    let answer = match answer {
        Some((delay_ms, arrival)) if timeout_ms == 0 || delay_ms < timeout_ms => {
            Some((delay_ms, arrival))
        }
        _ if timeout_ms > 0 => Some((timeout_ms, routers(504, TIMED_OUT))),
        other => other,
    };
    state.pending.open.insert(token);
    if let Some((delay_ms, arrival)) = answer {
        state.schedule(root, token, delay_ms, arrival)?;
    }
    write_u32(guest, token_ptr, token)
}
