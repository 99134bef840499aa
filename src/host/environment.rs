//! What surrounds the filter: the clusters that it can call and the names that it can resolve.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::logging::LogLevel;

/// Headers, trailers or metadata in order.
pub type NamedValues = Vec<(String, String)>;

/// What surrounds the filter. The default has one cluster, `upstream`, which echoes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Clusters by name.
    #[serde(default)]
    pub clusters: BTreeMap<String, Cluster>,
    /// What names resolve to. Of the others, `localhost` and addresses are resolved without a query, and
    /// the rest do not exist.
    #[serde(default)]
    pub dns: BTreeMap<String, Vec<Address>>,
    /// The level of Envoy's `wasm` logger, as a module reads it. All lines are kept, whatever it is.
    #[serde(default = "default_log_level")]
    pub log_level: LogLevel,
    /// The most bytes of a body that Envoy buffers for a filter: `per_connection_buffer_limit_bytes` of
    /// the listener.
    #[serde(default = "default_buffer_limit")]
    pub buffer_limit_bytes: usize,
}

/// Envoy's own default, 1 MiB.
fn default_buffer_limit() -> usize {
    1 << 20
}

/// Envoy's own default.
fn default_log_level() -> LogLevel {
    LogLevel::Info
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            clusters: BTreeMap::from([("upstream".to_owned(), Cluster::default())]),
            dns: BTreeMap::new(),
            log_level: default_log_level(),
            buffer_limit_bytes: default_buffer_limit(),
        }
    }
}

/// An address of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// As Envoy prints it, with a port: `127.0.0.1:0`.
    pub address: String,
    /// Seconds that it may be kept.
    #[serde(default)]
    pub ttl: u32,
}

/// A cluster of Envoy's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Whether it can be reached.
    #[serde(default)]
    pub hosts: Hosts,
    /// How it answers HTTP calls.
    #[serde(default)]
    pub http: HttpAnswer,
    /// How it answers gRPC calls and streams.
    #[serde(default)]
    pub grpc: GrpcAnswer,
}

/// Whether a cluster can be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hosts {
    /// A host that takes connections.
    #[default]
    Reachable,
    /// No healthy host: a call fails at once.
    None,
    /// A host that refuses connections.
    Refusing,
}

/// How an HTTP call is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpAnswer {
    /// With 200 and the request as JSON.
    #[default]
    Echo,
    /// With this response.
    Given(GivenResponse),
    /// Never.
    Never,
    /// With headers, and a reset this many milliseconds later.
    Reset(u32),
    /// With a body beyond what Envoy keeps for a call (32 MiB).
    OverLimit,
}

/// A response to an HTTP call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenResponse {
    /// The status.
    pub status: u32,
    /// Headers as they come from the wire, with the framing.
    #[serde(default)]
    pub headers: NamedValues,
    /// The body; none for a HEAD request.
    #[serde(default)]
    pub body: String,
    /// Trailers; none for a HEAD request.
    #[serde(default)]
    pub trailers: NamedValues,
    /// Milliseconds until it comes.
    #[serde(default)]
    pub delay_ms: u32,
}

/// How a gRPC call or stream is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrpcAnswer {
    /// By a server that speaks no gRPC.
    #[default]
    NotGrpc,
    /// As said here, after the first message or the end of the request.
    Given(GivenMessages),
    /// Never.
    Never,
}

/// The answer of a gRPC server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenMessages {
    /// Initial metadata, without `:status` and `content-type`.
    #[serde(default)]
    pub initial_metadata: NamedValues,
    /// Messages. A unary call is answered with the first one.
    #[serde(default)]
    pub messages: Vec<String>,
    /// Trailing metadata, without status and message.
    #[serde(default)]
    pub trailing_metadata: NamedValues,
    /// The gRPC status.
    #[serde(default)]
    pub status: u32,
    /// Its message.
    #[serde(default)]
    pub message: String,
    /// Milliseconds until it comes.
    #[serde(default)]
    pub delay_ms: u32,
}
