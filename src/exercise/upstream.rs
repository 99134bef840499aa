//! The canned upstream behind an exchange.

use serde_json::json;

use crate::host::HeaderMap;

use super::exchange::{Message, Upstream};

/// What the upstream sends back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `:status` and the rest.
    pub headers: HeaderMap,
    /// The body in the frames in which it reaches the filter.
    pub frames: Vec<Vec<u8>>,
    /// Trailers, which end the stream.
    pub trailers: Option<HeaderMap>,
}

/// The answer of `upstream` to a request.
pub fn answer(upstream: &Upstream, request: &Message, is_http2: bool) -> Answer {
    match upstream {
        Upstream::Echo => echo(request, is_http2),
    }
}

fn echo(request: &Message, is_http2: bool) -> Answer {
    let pseudo = |name: &str| request.header(name).unwrap_or_default();
    // As an HTTP/1.1 server sees them: the authority is the host header, other pseudo headers are
    // the request line.
    let headers: Vec<_> = request
        .headers
        .iter()
        .filter(|(name, _)| name == ":authority" || !name.starts_with(':'))
        .map(|(name, value)| {
            [if name == ":authority" { "host" } else { name.as_str() }, value.as_str()]
        })
        .collect();
    let mut seen = json!({
        "body": String::from_utf8_lossy(&request.body),
        "headers": headers,
        "line": format!("{} {}", pseudo(":method"), pseudo(":path")),
    });
    let with_trailers = !request.trailers.is_empty();
    if with_trailers {
        seen["trailers"] = json!(request.trailers);
    }
    let body = spaced_json(&seen).into_bytes();
    let mut pairs =
        vec![(":status", "200".to_owned()), ("content-type", "application/json".to_owned())];
    if with_trailers {
        if !is_http2 {
            pairs.push(("transfer-encoding", "chunked".to_owned()));
        }
        pairs.push(("trailer", "x-up-trailer".to_owned()));
    } else {
        pairs.push(("content-length", body.len().to_string()));
        pairs.push(("x-up", "yes".to_owned()));
    }
    pairs.push(("x-envoy-upstream-service-time", "0".to_owned()));
    Answer {
        headers: HeaderMap::from_pairs(pairs),
        frames: if with_trailers { vec![body] } else { vec![body, Vec::new()] },
        trailers: with_trailers.then(|| HeaderMap::from_pairs([("x-up-trailer", "yes")])),
    }
}

/// JSON with a space behind each comma and colon, so that its length is that of the records which
/// real proxies left.
pub(crate) fn spaced_json(value: &impl serde::Serialize) -> String {
    struct Spaced;
    impl serde_json::ser::Formatter for Spaced {
        fn begin_array_value<W: ?Sized + std::io::Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            if first { Ok(()) } else { writer.write_all(b", ") }
        }

        fn begin_object_key<W: ?Sized + std::io::Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            if first { Ok(()) } else { writer.write_all(b", ") }
        }

        fn begin_object_value<W: ?Sized + std::io::Write>(
            &mut self,
            writer: &mut W,
        ) -> std::io::Result<()> {
            writer.write_all(b": ")
        }
    }
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
    // Writing such a value to memory does not fail.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    String::from_utf8_lossy(&out).into_owned()
}
