//! What an exchange is and what came of it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::host::LogLine;

/// One HTTP exchange: what the client sends, and how the upstream answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// Its name in reports.
    pub name: String,
    /// What the client sends.
    pub request: Request,
    /// How the upstream answers once it has the whole request.
    #[serde(default)]
    pub upstream: Upstream,
    /// METADATA frames, which HTTP/2 alone has: an exchange with any is one over HTTP/2 on both sides of
    /// Envoy, which has to allow them (`allow_metadata`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<Metadata>,
}

impl Exchange {
    /// Whether it is one over HTTP/2.
    pub fn is_http2(&self) -> bool {
        !self.metadata.is_empty()
    }

    /// The METADATA frames of a party in front of one of its `frames`; with their number, those behind the
    /// last.
    pub(crate) fn metadata_before(
        &self,
        party: Party,
        frame: usize,
        frames: usize,
    ) -> impl Iterator<Item = &Metadata> {
        let is_due = move |metadata: &&Metadata| {
            metadata.from == party && metadata.before_frame.min(frames) == frame
        };
        self.metadata.iter().filter(is_due)
    }

    /// Why it cannot be sent as it is: behind the end of a message there are no METADATA frames.
    pub fn fault(&self) -> Option<String> {
        let Request { frames, trailers, .. } = &self.request;
        let is_late = |metadata: &Metadata| {
            metadata.from == Party::Client
                && trailers.is_empty()
                && metadata.before_frame >= frames.len()
        };
        let late = self.metadata.iter().find(|metadata| is_late(metadata))?;
        let (name, count, before) = (&self.name, frames.len(), late.before_frame);
        Some(format!(
            "exchange `{name}`: its metadata before frame {before} is behind the end of the request, which has {count} frames, counted from 0: add an empty one"
        ))
    }
}

/// A METADATA frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Who sends it.
    #[serde(default)]
    pub from: Party,
    /// In front of which frame of the body, counted from 0; a number beyond the last one means behind
    /// all of them and in front of the trailers. The upstream's answer has its body in one frame.
    #[serde(default)]
    pub before_frame: usize,
    /// What it says.
    pub entries: BTreeMap<String, String>,
}

/// A party of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// Who asks.
    #[default]
    Client,
    /// Who answers.
    Upstream,
}

/// A request as the client sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// The `host` header.
    pub host: String,
    /// Other headers in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body in the frames in which it reaches the filter. Without trailers the last one ends the
    /// stream: behind a content-length Envoy's codec sends the data, then an empty frame.
    #[serde(default)]
    pub frames: Vec<String>,
    /// Trailers in order.
    #[serde(default)]
    pub trailers: Vec<(String, String)>,
    /// The client goes away behind the last frame: the request never ends.
    #[serde(default)]
    pub abandoned: bool,
}

/// How the upstream answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// 200 with the request as JSON; chunked and with a trailer if the request had trailers.
    #[default]
    Echo,
}

/// What a party saw of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Headers in order, pseudo headers too.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers in order.
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// The first value of a header, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What came of an exchange.
#[derive(Debug, Clone, Default)]
pub struct ExchangeResult {
    /// Its name.
    pub name: String,
    /// What the client got, if it got a whole answer.
    pub response: Option<ClientResponse>,
    /// Without one: whether its connection was closed. Else it waits.
    pub closed: bool,
    /// What the upstream got, if anything reached it.
    pub upstream: Option<Message>,
    /// Whether the upstream got all that it needs to answer.
    pub reached_upstream: bool,
    /// Whether the answer began before the whole request was there: over HTTP/1.1 Envoy then closes
    /// the connection behind it.
    pub closes: bool,
    /// What an access log says of it; none where Envoy died or hung.
    pub access: Option<AccessLog>,
    /// What the module logged.
    pub logs: Vec<LogLine>,
}

/// What an access log says of an exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLog {
    /// `%RESPONSE_CODE%`; 0 without a response.
    pub status: u32,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Option<String>,
    /// `%BYTES_RECEIVED%`: of the request's body.
    pub received: u64,
    /// `%BYTES_SENT%`: of the response's body.
    pub sent: u64,
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, details, received, sent } = self;
        let details = details.as_deref().unwrap_or("-");
        write!(f, "{status} {details} {received} bytes in, {sent} out")
    }
}

impl ExchangeResult {
    /// Of one that waits for ever.
    pub fn unanswered(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// The answer that the client got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientResponse {
    /// HTTP status.
    pub status: u32,
    /// The rest.
    pub message: Message,
}

/// The exchanges of the smoke test: a GET, a POST with a body behind a content-length, and a POST
/// with a chunked body and a trailer.
pub fn smoke_exchanges() -> Vec<Exchange> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let agent = || vec![pair("user-agent", "filtergate"), pair("accept", "*/*")];
    const BODY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let request = |method: &str, path: &str, more: &[(&str, &str)]| Request {
        method: method.to_owned(),
        path: path.to_owned(),
        host: "example.com".to_owned(),
        headers: agent().into_iter().chain(more.iter().map(|(n, v)| pair(n, v))).collect(),
        frames: Vec::new(),
        trailers: Vec::new(),
        abandoned: false,
    };
    vec![
        Exchange {
            name: "get".to_owned(),
            request: request("GET", "/", &[("x-test", "one")]),
            upstream: Upstream::Echo,
            metadata: Vec::new(),
        },
        Exchange {
            name: "post".to_owned(),
            request: Request {
                frames: vec![BODY.to_owned(), String::new()],
                ..request("POST", "/", &[("content-type", "text/plain"), ("content-length", "64")])
            },
            upstream: Upstream::Echo,
            metadata: Vec::new(),
        },
        Exchange {
            name: "trailers".to_owned(),
            request: Request {
                frames: vec![BODY.to_owned()],
                trailers: vec![pair("x-trailer", "end")],
                ..request(
                    "POST",
                    "/trailers",
                    &[("content-type", "text/plain"), ("trailer", "x-trailer")],
                )
            },
            upstream: Upstream::Echo,
            metadata: Vec::new(),
        },
    ]
}
