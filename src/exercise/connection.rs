//! What a TCP connection through a network filter is and what came of it.

use serde::{Deserialize, Serialize};

use crate::host::LogLine;

/// Where Envoy runs a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// `envoy.filters.http.wasm`: HTTP streams.
    #[default]
    Http,
    /// `envoy.filters.network.wasm`, in front of a TCP proxy: connections.
    Network,
}

impl Filter {
    /// `http`, `network`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Network => "network",
        }
    }
}

/// One TCP connection: what its two ends do, one after the other. An end that has neither ended nor
/// reset its side when the steps are over ends it then, the client first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Its name in reports.
    pub name: String,
    /// What the upstream does by itself.
    #[serde(default)]
    pub upstream: TcpUpstream,
    /// What happens, in order; each step has had all its consequences when the next one begins.
    pub steps: Vec<Step>,
}

/// What an upstream does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TcpUpstream {
    /// It sends back what it gets, and ends its side when the client's side has ended.
    #[default]
    Echo,
    /// Nothing: all that it does is steps.
    Silent,
}

/// Something that an end of a connection does. An end of the stream is a step of its own, because
/// whether it arrives together with data is a matter of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The client sends this.
    ClientSends(String),
    /// The client ends its side (FIN).
    ClientEnds,
    /// The client breaks the connection off (RST).
    ClientResets,
    /// The upstream sends this.
    UpstreamSends(String),
    /// The upstream ends its side (FIN).
    UpstreamEnds,
    /// The upstream breaks its connection off (RST).
    UpstreamResets,
}

/// What an end of a connection got. Whether it was ended or reset is not told apart: releases of
/// Envoy differ there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// All bytes.
    pub data: Vec<u8>,
    /// Whether it saw the end.
    pub ended: bool,
}

/// What came of a connection.
#[derive(Debug, Clone, Default)]
pub struct ConnectionResult {
    /// Its name.
    pub name: String,
    /// What the client got.
    pub client: Received,
    /// What the upstream got; `None` where no connection to it was made.
    pub upstream: Option<Received>,
    /// Whether the module closed the connection.
    pub closed_by_filter: bool,
    /// What the module logged.
    pub logs: Vec<LogLine>,
}

/// The connections of the smoke test: one chunk, three chunks, and an upstream that ends first.
pub fn smoke_connections() -> Vec<Connection> {
    use Step::{ClientEnds, ClientSends, UpstreamEnds, UpstreamSends};
    let connection = |name: &str, upstream, steps: &[Step]| Connection {
        name: name.to_owned(),
        upstream,
        steps: steps.to_vec(),
    };
    let client = |text: &str| ClientSends(text.to_owned());
    vec![
        connection("one-chunk", TcpUpstream::Echo, &[client("hello"), ClientEnds]),
        connection(
            "three-chunks",
            TcpUpstream::Echo,
            &[client("one "), client("two "), client("three"), ClientEnds],
        ),
        connection(
            "upstream-ends-first",
            TcpUpstream::Silent,
            &[client("hello"), UpstreamSends("world".to_owned()), UpstreamEnds, ClientEnds],
        ),
    ]
}
