//! What Envoy does around the filter: the headers that it adds, the replies that it makes, and what its
//! router and codec refuse.

use crate::host::{Flow, HeaderMap, LocalReply};

use super::{
    exchange::{Exchange, Message},
    incident::LengthMismatch,
};

/// A reply that Envoy makes itself.
#[derive(Debug)]
pub(super) struct Reply {
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub details: String,
}

/// What Envoy's HTTP/1.1 codec does with the headers of a response: it frames the body itself. `open` says
/// that the headers did not end the message, whatever came then.
pub(super) fn frame_for_http1(message: &mut Message, head: bool, open: bool) {
    message.headers.retain(|(name, _)| name != "transfer-encoding");
    let has_length = message.header("content-length").is_some();
    if !has_body(status(message)) {
        message.body.clear();
    } else if head {
        message.body.clear();
        if !has_length {
            message.headers.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
        }
    } else if has_length {
        frame_by_length(message);
    } else {
        let framing = if open { ("transfer-encoding", "chunked") } else { ("content-length", "0") };
        message.headers.push((framing.0.to_owned(), framing.1.to_owned()));
    }
}

/// What a peer reads of a message with a content-length: so many bytes, and no trailers.
pub(super) fn frame_by_length(message: &mut Message) {
    if let Some(length) = content_length(message) {
        message.body.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        message.trailers.clear();
    }
}

/// The `content-length` of a message.
pub(super) fn content_length(message: &Message) -> Option<u64> {
    message.header("content-length")?.parse().ok()
}

/// Whether a response of this status has a body.
pub(super) fn has_body(status: u32) -> bool {
    !(100..200).contains(&status) && status != 204 && status != 304
}

/// The status of a response; 0 where it has none.
pub(super) fn status(message: &Message) -> u32 {
    message.header(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
}

pub(super) fn length_mismatch(message: &Message, flow: Flow) -> Option<LengthMismatch> {
    let declared = content_length(message)?;
    let actual = message.body.len() as u64;
    (declared != actual).then_some(LengthMismatch { flow, declared, actual })
}

/// The `x-request-id` of an exchange whose client sends none; Envoy's is random.
const REQUEST_ID: &[u8] = b"00000000-0000-4000-8000-000000000001";

/// The request's headers as the filter sees them, with what Envoy adds before.
pub(super) fn request_headers(exchange: &Exchange) -> HeaderMap {
    let request = &exchange.request;
    // The scheme is the one that the hop before says it was.
    let forwarded =
        request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-proto"));
    let scheme = match forwarded {
        Some((_, proto)) if proto == "https" => "https",
        _ => "http",
    };
    let mut headers = HeaderMap::request();
    for (name, value) in [
        (":authority", request.host.as_str()),
        (":path", &request.path),
        (":method", &request.method),
        (":scheme", scheme),
    ] {
        headers.add(name.as_bytes(), value.as_bytes());
    }
    for (name, value) in &request.headers {
        match name.to_ascii_lowercase().as_str() {
            // Not for the next hop, or not for a client to say.
            "connection" | "x-envoy-internal" => {}
            _ => headers.add(name.as_bytes(), value.as_bytes()),
        }
    }
    for (name, value) in [("x-forwarded-proto", b"http".as_slice()), ("x-request-id", REQUEST_ID)] {
        if headers.get(name.as_bytes()).is_none() {
            headers.add(name.as_bytes(), value);
        }
    }
    headers
}

/// `Utility::prepareLocalReply` (Envoy `source/common/http/utility.cc`).
pub(super) fn prepare(reply: &LocalReply) -> Reply {
    let mut headers = HeaderMap::from_pairs([(":status", reply.status.to_string())]);
    for (name, value) in &reply.headers {
        headers.add(name, value);
    }
    if reply.body.is_empty() {
        headers.remove(b"content-length");
        headers.remove(b"content-type");
    } else {
        headers.replace(b"content-length", reply.body.len().to_string().as_bytes());
        if headers.get(b"content-type").is_none() {
            headers.add(b"content-type", b"text/plain");
        }
    }
    Reply {
        headers,
        body: reply.body.clone(),
        details: String::from_utf8_lossy(&reply.details).into_owned(),
    }
}

/// The answer that the router gives instead of sending these request headers upstream, in Envoy's
/// words (`HeaderUtility::checkRequiredRequestHeaders`, `checkValidRequestHeaders`).
pub(super) fn refused_by_router(headers: &HeaderMap) -> Option<(u32, String)> {
    // A change of the headers has the route chosen anew, and routes match paths.
    if headers.get(b":path").is_none_or(|path| path.first() != Some(&b'/')) {
        return Some((404, String::new()));
    }
    if headers.get(b":method").is_none_or(<[u8]>::is_empty) {
        return Some((503, "missing required header: :method".to_owned()));
    }
    let name_is_valid = |name: &[u8]| {
        name.first() == Some(&b':')
            || !name.is_empty()
                && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
    };
    let value_is_valid =
        |value: &[u8]| value.iter().all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f));
    headers.iter().find_map(|(name, value)| {
        let what = match (name_is_valid(name), value_is_valid(value)) {
            (false, _) => "name",
            (true, false) => "value for",
            (true, true) => return None,
        };
        let name = serde_json::to_string(&String::from_utf8_lossy(name)).unwrap_or_default();
        Some((503, format!("invalid header {what}: {}", name.trim_matches('"'))))
    })
}

/// A reply of Envoy's own.
pub(super) fn envoys_reply(status: u32, details: &str, body: String) -> LocalReply {
    LocalReply {
        status,
        details: details.as_bytes().to_vec(),
        body: body.into_bytes(),
        headers: Vec::new(),
        grpc_status: -1,
    }
}

pub(super) fn text_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    headers.iter().map(|(name, value)| (text(name), text(value))).collect()
}
