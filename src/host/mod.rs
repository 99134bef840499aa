//! The mock Proxy-Wasm host: what Envoy offers to a module, one file for each family of functions.
//!
//! Host functions follow proxy-wasm-cpp-host `src/exports.cc` and Envoy's
//! `source/extensions/common/wasm/context.cc`. The order of their checks matters: a module sees which
//! one fails first.

mod buffers;
mod context;
mod counters;
mod dns;
mod env;
pub mod environment;
mod foreign;
mod grpc;
mod header_map;
mod headers;
mod http_call;
mod link;
mod logging;
mod memory;
mod metrics;
pub mod pairs;
mod pending;
mod process;
mod properties;
mod reentry;
mod shared;
mod signature;
mod state;
mod stream;
mod trace;
mod wasi;
mod wire;

pub use context::{
    Body, BodySource, Context, ContextKind, Direction, Flow, Kind, LocalReply, Object, Prototype,
    SetProperty, StreamState,
};
pub use counters::{Boundary, CallbackCost, Counters, Meter, Metered};
pub use environment::Environment;
pub use header_map::HeaderMap;
pub use link::define_imports;
pub use logging::{LogLevel, LogLine, LogSink};
pub use memory::GuestMemory;
pub use pending::{Arrival, NETWORK_LATENCY_NS, Pending, Scheduled, TokenClass};
pub use process::{Process, QueueReady};
pub use reentry::Reentrant;
pub use state::{
    Deferred, Exit, HostResult, HostState, HostTrap, Phase, Plugin, StoreLimits, VmFailure,
};
pub use trace::{CallDirection, CallOutcome, Decoded, Trace, TracedCall, TracedValue, Words};
