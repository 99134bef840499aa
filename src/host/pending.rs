//! Calls that have not come back, and the events that they will be.

use std::collections::{BTreeMap, BTreeSet};

use crate::abi::Status;

use super::{
    header_map::HeaderMap,
    state::{Deferred, HostState, HostTrap},
};

/// Most events that may wait at a time.
const MAX_SCHEDULED: usize = 4096;

/// What the quickest answer takes, nanoseconds: what is ready in the process comes before it.
pub const NETWORK_LATENCY_NS: u64 = 100_000;

/// What comes back from a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A request that the canned upstream answers when the time has come.
    HttpEcho(HeaderMap, Vec<u8>),
    /// A whole response.
    HttpResponse(HeaderMap, Vec<u8>, Option<HeaderMap>),
    /// A reset, or a response that was too large.
    HttpReset,
    /// Initial metadata of a stream.
    GrpcInitialMetadata(HeaderMap),
    /// A message.
    GrpcMessage(Vec<u8>),
    /// Trailing metadata of a stream.
    GrpcTrailingMetadata(HeaderMap),
    /// The end of a stream, or a call that failed: status and message.
    GrpcClose(u32, Vec<u8>),
    /// The addresses of a name, as the module gets them.
    Resolved(Vec<u8>),
}

impl Arrival {
    /// The callback that brings it, and the size, count or status that it is told.
    pub fn callback(&self) -> (&'static str, u32) {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        match self {
            Self::HttpEcho(..) | Self::HttpReset => ("proxy_on_http_call_response", 0),
            Self::HttpResponse(headers, ..) => {
                ("proxy_on_http_call_response", count(headers.len()))
            }
            Self::GrpcInitialMetadata(headers) => {
                ("proxy_on_grpc_receive_initial_metadata", count(headers.len()))
            }
            Self::GrpcMessage(message) => ("proxy_on_grpc_receive", count(message.len())),
            Self::GrpcTrailingMetadata(headers) => {
                ("proxy_on_grpc_receive_trailing_metadata", count(headers.len()))
            }
            Self::GrpcClose(status, _) => ("proxy_on_grpc_close", *status),
            Self::Resolved(addresses) => ("envoy_on_resolve_dns", count(addresses.len())),
        }
    }
}

/// An event that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// When, in nanoseconds of the virtual clock.
    pub due_ns: u64,
    /// Events of one time come in this order.
    pub order: u64,
    /// The root context that made the call.
    pub root: u32,
    /// The call.
    pub token: u32,
    /// What comes back.
    pub arrival: Arrival,
}

/// An open gRPC stream.
#[derive(Debug, Clone, Default)]
pub struct OpenStream {
    /// The cluster.
    pub cluster: String,
    /// The server has what it waits for.
    pub answered: bool,
    /// The module has closed its side.
    pub local_closed: bool,
    /// The server has closed its side.
    pub remote_closed: bool,
}

/// The calls of one instance.
#[derive(Debug, Default)]
pub struct Pending {
    /// The last tokens: HTTP calls, gRPC calls, gRPC streams, DNS.
    tokens: [u32; 4],
    /// HTTP and unary gRPC calls that have not come back.
    pub open: BTreeSet<u32>,
    /// Open gRPC streams.
    pub streams: BTreeMap<u32, OpenStream>,
    /// What waits for its time.
    pub scheduled: Vec<Scheduled>,
    /// What the running callback of a call can see.
    pub delivered: Option<Arrival>,
    /// Clusters that were called and are not there, with the result that the call gave.
    pub unknown_clusters: BTreeSet<(String, u32)>,
}

/// A class of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenClass {
    /// 4, 8, 12…
    Http,
    /// 5, 9, 13…
    GrpcCall,
    /// 6, 10, 14…
    GrpcStream,
    /// 2, 3, 4…
    Dns,
}

impl Pending {
    /// The next token of a class; a call that fails uses one up too.
    pub fn next_token(&mut self, class: TokenClass) -> u32 {
        let (first, step) = match class {
            TokenClass::Http => (4, 4),
            TokenClass::GrpcCall => (5, 4),
            TokenClass::GrpcStream => (6, 4),
            TokenClass::Dns => (2, 1),
        };
        let last = &mut self.tokens[class as usize];
        *last = if *last == 0 { first } else { last.wrapping_add(step) };
        *last
    }

    /// Takes note of a cluster that is not there. A few names tell enough.
    pub fn note_unknown(&mut self, mut cluster: String, result: Status) {
        const MOST: usize = 16;
        const LONGEST: usize = 256;
        cluster.truncate(cluster.floor_char_boundary(LONGEST));
        if self.unknown_clusters.len() < MOST {
            self.unknown_clusters.insert((cluster, result as u32));
        }
    }

    /// Forgets what a call was still to bring.
    pub fn forget(&mut self, token: u32) {
        self.scheduled
            .retain(|event| event.token != token || matches!(event.arrival, Arrival::Resolved(_)));
    }
}

impl HostState {
    /// Gives a root's ticks this period from now on.
    pub fn arm_tick(&mut self, root: u32, period_ms: u32) {
        let due_ns = self.process.elapsed_ns() + u64::from(period_ms) * 1_000_000;
        if let Some(context) = self.contexts.get_mut(&root) {
            (context.tick_period_ms, context.tick_due_ns) = (period_ms, due_ns);
        }
    }

    /// Lets the callback of `arrival` on a root context see it; gives what was seen before.
    pub fn begin_arrival(&mut self, root: u32, arrival: Arrival) -> Option<Arrival> {
        if let (Arrival::Resolved(_), Some(context)) = (&arrival, self.contexts.get_mut(&root)) {
            context.last_buffer = None;
        }
        self.pending.delivered.replace(arrival)
    }

    /// Has the failure of a call that could not be made told to the module when the running call ends.
    pub fn fail_call(&mut self, root: u32, token: u32, arrival: Arrival) {
        let (due_ns, order) = (self.process.elapsed_ns(), self.process.next_order());
        let event = Scheduled { due_ns, order, root, token, arrival };
        self.deferred.push(Deferred::CallFailed(Box::new(event)));
    }

    /// Has `arrival` come back `delay_ms` from now to the root of the context that acts.
    pub fn schedule(
        &mut self,
        root: u32,
        token: u32,
        delay_ms: u32,
        arrival: Arrival,
    ) -> Result<(), HostTrap> {
        if self.pending.scheduled.len() >= MAX_SCHEDULED {
            return Err(HostTrap::Limit(format!(
                "the module has more than {MAX_SCHEDULED} calls under way"
            )));
        }
        let due_ns =
            self.process.elapsed_ns() + u64::from(delay_ms) * 1_000_000 + NETWORK_LATENCY_NS;
        let order = self.process.next_order();
        self.pending.scheduled.push(Scheduled { due_ns, order, root, token, arrival });
        Ok(())
    }
}
