//! Contexts: the VM's, roots and streams, and what a stream makes visible to the module.

use std::collections::BTreeMap;

use super::header_map::HeaderMap;

/// What a context stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextKind {
    /// The VM: `_initialize`, `_start`, `main` and allocations run on it.
    Vm,
    /// A plugin.
    Root,
    /// A stream.
    Stream,
}

/// A context of one instance.
#[derive(Debug)]
pub struct Context {
    /// What it stands for.
    pub kind: ContextKind,
    /// The root's id, for a stream.
    pub parent: u32,
    /// The HTTP stream, for a stream context.
    pub stream: Option<Box<StreamState>>,
    /// Milliseconds between ticks; 0 is off. On roots.
    pub tick_period_ms: u32,
    /// When the next tick is due by the virtual clock, nanoseconds.
    pub tick_due_ns: u64,
    /// The buffer that was last selected, by its type.
    pub last_buffer: Option<u32>,
    /// The root answered 0 from `proxy_on_done` and has not called `proxy_done` yet.
    pub pending_done: bool,
    /// What `declare_property` declared on it, by path.
    pub prototypes: BTreeMap<Vec<u8>, Prototype>,
}

/// How the values of a property that the module sets are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prototype {
    /// Set once, it stays.
    pub read_only: bool,
    /// What the bytes are.
    pub kind: Kind,
}

/// What the bytes of a property are, by its declaration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Bytes or a string, which read the same.
    #[default]
    Plain,
    /// A FlatBuffers table.
    FlatBuffers,
    /// A protobuf message.
    Protobuf,
}

/// An object of Envoy's own in the filter state, as it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A text.
    Text(Vec<u8>),
    /// A map without entries.
    Address,
    /// Nothing: it cannot be read.
    Opaque,
}

/// A property that the module set.
#[derive(Debug, Clone)]
pub struct SetProperty {
    /// Its bytes.
    pub value: Vec<u8>,
    /// The declaration in force when it was first set.
    pub prototype: Prototype,
}

impl Context {
    /// A context without a stream.
    pub fn new(kind: ContextKind, parent: u32) -> Self {
        Self {
            kind,
            parent,
            stream: None,
            tick_period_ms: 0,
            tick_due_ns: 0,
            last_buffer: None,
            pending_done: false,
            prototypes: BTreeMap::new(),
        }
    }
}

/// Which direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Downstream to upstream.
    Request,
    /// Upstream to downstream.
    Response,
}

/// Which bytes a body callback shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodySource {
    /// None: reading gives no bytes, setting is refused.
    #[default]
    None,
    /// The frame that just arrived.
    Frame,
    /// What was buffered so far, with the frame.
    Buffered,
}

/// A body on its way through the filter.
#[derive(Debug, Default)]
pub struct Body {
    /// The frame that just arrived.
    pub frame: Vec<u8>,
    /// What the filter manager holds back.
    pub buffered: Vec<u8>,
    /// What is visible now.
    pub source: BodySource,
    /// The last body callback asked for buffering.
    pub buffering: bool,
}

impl Body {
    /// The bytes that the module sees, if it sees any.
    pub fn visible(&self) -> Option<&Vec<u8>> {
        match self.source {
            BodySource::None => None,
            BodySource::Frame => Some(&self.frame),
            BodySource::Buffered => Some(&self.buffered),
        }
    }

    /// The same, to change.
    pub fn visible_mut(&mut self) -> Option<&mut Vec<u8>> {
        match self.source {
            BodySource::None => None,
            BodySource::Frame => Some(&mut self.frame),
            BodySource::Buffered => Some(&mut self.buffered),
        }
    }
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub struct Direction {
    /// Headers, once they arrived.
    pub headers: Option<HeaderMap>,
    /// Whether the module can reach them now.
    pub headers_visible: bool,
    /// Trailers, once they arrived or were added.
    pub trailers: Option<HeaderMap>,
    /// Whether the module can reach them now.
    pub trailers_visible: bool,
    /// The body.
    pub body: Body,
}

/// A local reply that waits to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u32,
    /// Response code details.
    pub details: Vec<u8>,
    /// Body.
    pub body: Vec<u8>,
    /// Headers to add.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// gRPC status; outside of 0 to 16 is none.
    pub grpc_status: i32,
}

/// What is known of one HTTP stream or TCP connection.
#[derive(Debug, Default)]
pub struct StreamState {
    /// A TCP connection: it has no headers, and its data are the bodies of the two directions.
    pub is_tcp: bool,
    /// A stream of HTTP/2.
    pub is_http2: bool,
    /// Downstream to upstream.
    pub request: Direction,
    /// Upstream to downstream.
    pub response: Direction,
    /// The last headers or body callback, of either direction, was the last one of its message.
    pub end_of_stream: bool,
    /// `proxy_on_log` is running: header maps come from the access log, and are read-only.
    pub access_log: bool,
    /// The reply that the module asked for, taken by the driver.
    pub local_reply: Option<LocalReply>,
    /// Further replies asked for, which Envoy ignores.
    pub ignored_replies: u32,
    /// A reply was sent.
    pub replied: bool,
    /// The stream is over: its last callbacks run.
    pub ending: bool,
    /// Bytes of the request's body that arrived.
    pub request_bytes: u64,
    /// Bytes of the response's body that were sent.
    pub response_bytes: u64,
    /// The status of the response, once there is one.
    pub response_code: Option<u32>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub code_details: Option<String>,
    /// Wall-clock start, nanoseconds since the epoch.
    pub start_ns: i64,
    /// The request is complete, with its duration.
    pub duration_ns: Option<i64>,
    /// State that the module wrote with `proxy_set_property`, by path.
    pub filter_state: BTreeMap<Vec<u8>, SetProperty>,
    /// Objects that `set_envoy_filter_state` made, by key.
    pub objects: BTreeMap<Vec<u8>, Object>,
    /// The upstream was chosen.
    pub upstream_selected: bool,
    /// The whole answer of the upstream arrived.
    pub upstream_done: bool,
}

impl StreamState {
    /// One direction.
    pub fn direction(&self, flow: Flow) -> &Direction {
        match flow {
            Flow::Request => &self.request,
            Flow::Response => &self.response,
        }
    }

    /// The same, to change.
    pub fn direction_mut(&mut self, flow: Flow) -> &mut Direction {
        match flow {
            Flow::Request => &mut self.request,
            Flow::Response => &mut self.response,
        }
    }

    /// The headers that can be read now: while the module can reach them, and in the access log.
    pub fn readable_headers(&self, flow: Flow) -> Option<&HeaderMap> {
        let direction = self.direction(flow);
        (self.access_log || direction.headers_visible)
            .then_some(direction.headers.as_ref())
            .flatten()
    }

    /// The trailers that can be read now. The access log never has those of the request.
    pub fn readable_trailers(&self, flow: Flow) -> Option<&HeaderMap> {
        let direction = self.direction(flow);
        let visible = match flow {
            Flow::Request => direction.trailers_visible && !self.access_log,
            Flow::Response => direction.trailers_visible || self.access_log,
        };
        visible.then_some(direction.trailers.as_ref()).flatten()
    }
}
