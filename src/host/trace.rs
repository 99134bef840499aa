//! A trace of what crosses the boundary: every call of a callback and of a host function, in the order
//! in which Envoy's own `wasm:trace` log begins them.

use std::time::Instant;

use crate::{
    abi::{
        HOST_FUNCTION_PARAMETERS, HOST_FUNCTIONS, Parameter, ParameterKind, callback_parameters,
    },
    host::pairs,
};

use super::{
    memory::{Guest, slice, split},
    state::{HostState, Phase},
};

/// Which way a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallDirection {
    /// The host calls an export of the module.
    HostToGuest,
    /// The module calls a host function.
    GuestToHost,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// It has not come back (yet): it trapped, or the one that it was called from ended with it.
    NotReturned,
    /// It returned, with this value if it has one.
    Returned(Option<u32>),
}

impl CallOutcome {
    /// What a trace keeps of a callback's result.
    pub fn returned(result: &impl Words) -> Self {
        Self::Returned(result.words().first().and_then(|word| u32::try_from(*word).ok()))
    }
}

/// An argument, or what a host function handed back, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedValue {
    /// The parameter's name.
    pub name: &'static str,
    /// What it means.
    pub value: Decoded,
}

/// The meaning of a word or of the bytes that it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A number.
    Number(u64),
    /// A number with a sign.
    Signed(i64),
    /// Yes or no.
    Flag(bool),
    /// One of the ABI's enumerations, by the name it has there.
    Name(&'static str),
    /// Bytes, cut at a limit, and how many there were.
    Bytes(Vec<u8>, usize),
    /// The parts of a path.
    Path(Vec<Vec<u8>>),
    /// A list of headers, cut at a limit, and how many there were.
    Pairs(Vec<(Vec<u8>, Vec<u8>)>, usize),
    /// An address that the module's memory does not have.
    Invalid,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedCall {
    /// Which way.
    pub direction: CallDirection,
    /// How many calls stand around it.
    pub depth: usize,
    /// The import module of a host function.
    pub module: Option<&'static str>,
    /// The export or the host function.
    pub name: &'static str,
    /// The arguments as they are.
    pub words: Vec<u64>,
    /// The arguments in words, without those that only say where a result goes.
    pub arguments: Vec<TracedValue>,
    /// What became of it.
    pub outcome: CallOutcome,
    /// What a host function handed back through the module's memory.
    pub results: Vec<TracedValue>,
    /// When it began, nanoseconds since the instance was made.
    pub begun_ns: u64,
    /// How long it took, nanoseconds.
    pub took_ns: u64,
}

/// Most calls kept between two takings.
const MAX_CALLS: usize = 50_000;
/// Most bytes kept of one argument.
const MAX_BYTES: usize = 512;
/// Most headers kept of one list.
const MAX_PAIRS: usize = 64;

/// The calls of one instance.
#[derive(Debug)]
pub struct Trace {
    began: Instant,
    calls: Vec<TracedCall>,
    open: Vec<Option<usize>>,
    dropped: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { began: Instant::now(), calls: Vec::new(), open: Vec::new(), dropped: 0 }
    }
}

impl Trace {
    /// Takes the calls so far.
    pub fn take(&mut self) -> Vec<TracedCall> {
        // Calls that still run are those of a guest that never came back.
        self.open.clear();
        std::mem::take(&mut self.calls)
    }

    /// Calls that were not kept.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn begin(
        &mut self,
        direction: CallDirection,
        module: Option<&'static str>,
        name: &'static str,
        words: &[u64],
        arguments: Vec<TracedValue>,
    ) {
        if self.calls.len() >= MAX_CALLS {
            self.dropped += 1;
            self.open.push(None);
            return;
        }
        let call = TracedCall {
            direction,
            depth: self.open.len(),
            module,
            name,
            words: words.to_vec(),
            arguments,
            outcome: CallOutcome::NotReturned,
            results: Vec::new(),
            begun_ns: self.now(),
            took_ns: 0,
        };
        self.open.push(Some(self.calls.len()));
        self.calls.push(call);
    }

    fn end(&mut self, outcome: CallOutcome, results: Vec<TracedValue>) {
        let now = self.now();
        if let Some(Some(index)) = self.open.pop()
            && let Some(call) = self.calls.get_mut(index)
        {
            call.outcome = outcome;
            call.results = results;
            call.took_ns = now.saturating_sub(call.begun_ns);
        }
    }

    /// Begins a call of an export.
    pub fn begin_callback(&mut self, name: &'static str, words: &[u64]) {
        let mut arguments = Vec::new();
        for (parameter, word) in callback_parameters(name).iter().zip(words) {
            let value = match parameter.kind {
                ParameterKind::Flag => Decoded::Flag(*word != 0),
                _ => Decoded::Number(*word),
            };
            arguments.push(TracedValue { name: parameter.name, value });
        }
        self.begin(CallDirection::HostToGuest, None, name, words, arguments);
    }

    /// Ends the call that was begun last.
    pub fn end_callback(&mut self, outcome: CallOutcome) {
        self.end(outcome, Vec::new());
    }
}

/// Begins a call of the host function with this index.
pub(super) fn begin_host_call(
    guest: &mut Guest<'_>,
    index: usize,
    module: &'static str,
    words: &[u64],
) {
    let arguments = decode(guest, index, words, false);
    let name = HOST_FUNCTIONS[index].name;
    if let Some(trace) = &mut guest.data_mut().trace {
        trace.begin(CallDirection::GuestToHost, Some(module), name, words, arguments);
    }
}

/// Ends it; `returned` is the answer of one that comes back.
pub(super) fn end_host_call(
    guest: &mut Guest<'_>,
    index: usize,
    words: &[u64],
    returned: Option<u32>,
) {
    let results = match returned {
        Some(0) => decode(guest, index, words, true),
        _ => Vec::new(),
    };
    let has_result = !HOST_FUNCTIONS[index].signature.ends_with('>');
    if let Some(trace) = &mut guest.data_mut().trace {
        let outcome = match returned {
            Some(code) => CallOutcome::Returned(has_result.then_some(code)),
            None => CallOutcome::NotReturned,
        };
        trace.end(outcome, results);
    }
}

/// What the words of a call mean: the arguments, or what the host filled.
fn decode(guest: &mut Guest<'_>, index: usize, words: &[u64], out: bool) -> Vec<TracedValue> {
    let memory: &[u8] = if guest.data().phase == Phase::Instantiate {
        &[]
    } else {
        split(guest).map_or(&[], |(memory, _)| memory)
    };
    let mut values = Vec::new();
    let mut rest = words;
    for parameter in HOST_FUNCTION_PARAMETERS[index].1 {
        let Some((own, tail)) = rest.split_at_checked(parameter.kind.words()) else { break };
        rest = tail;
        if parameter.kind.is_out() == out {
            let value = decode_one(memory, *parameter, own);
            values.push(TracedValue { name: parameter.name, value });
        }
    }
    values
}

fn decode_one(memory: &[u8], parameter: Parameter, words: &[u64]) -> Decoded {
    let first = words.first().copied().unwrap_or_default();
    let name = |names: &[&'static str]| {
        let index = usize::try_from(first).unwrap_or(usize::MAX);
        names.get(index).map_or(Decoded::Number(first), |name| Decoded::Name(name))
    };
    match parameter.kind {
        ParameterKind::Number => Decoded::Number(first),
        ParameterKind::Signed => {
            Decoded::Signed(u32::try_from(first).map_or(0, u32::cast_signed).into())
        }
        ParameterKind::SignedLong => Decoded::Signed(first.cast_signed()),
        ParameterKind::Flag => Decoded::Flag(first != 0),
        ParameterKind::Map => name(MAPS),
        ParameterKind::Buffer => name(BUFFERS),
        ParameterKind::Stream => name(STREAMS),
        ParameterKind::Level => name(LEVELS),
        ParameterKind::Metric => name(METRICS),
        ParameterKind::OutWord => cell(memory, first).map_or(Decoded::Invalid, Decoded::Number),
        ParameterKind::OutLong => bytes_at(memory, first, 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(Decoded::Invalid, |bytes| Decoded::Number(u64::from_le_bytes(bytes))),
        ParameterKind::Bytes | ParameterKind::Path | ParameterKind::Pairs => {
            let size = words.get(1).copied().unwrap_or_default();
            decode_bytes(memory, parameter.kind, first, size)
        }
        ParameterKind::OutBytes | ParameterKind::OutPairs => {
            let size = words.get(1).and_then(|at| cell(memory, *at));
            match (cell(memory, first), size) {
                (Some(ptr), Some(size)) => decode_bytes(memory, parameter.kind, ptr, size),
                _ => Decoded::Invalid,
            }
        }
    }
}

fn decode_bytes(memory: &[u8], kind: ParameterKind, ptr: u64, size: u64) -> Decoded {
    let Some(bytes) = bytes_at(memory, ptr, size) else { return Decoded::Invalid };
    match kind {
        ParameterKind::Pairs | ParameterKind::OutPairs => {
            let mut list = pairs::decode(bytes);
            let count = list.len();
            list.truncate(MAX_PAIRS);
            for (name, value) in &mut list {
                name.truncate(MAX_BYTES);
                value.truncate(MAX_BYTES);
            }
            Decoded::Pairs(list, count)
        }
        ParameterKind::Path => {
            let kept = &bytes[..bytes.len().min(MAX_BYTES)];
            Decoded::Path(kept.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect())
        }
        _ => Decoded::Bytes(bytes[..bytes.len().min(MAX_BYTES)].to_vec(), bytes.len()),
    }
}

fn bytes_at(memory: &[u8], ptr: u64, size: u64) -> Option<&[u8]> {
    slice(memory, u32::try_from(ptr).ok()?, u32::try_from(size).ok()?)
}

fn cell(memory: &[u8], ptr: u64) -> Option<u64> {
    let bytes = bytes_at(memory, ptr, 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes).into())
}

const MAPS: &[&str] = &[
    "RequestHeaders",
    "RequestTrailers",
    "ResponseHeaders",
    "ResponseTrailers",
    "GrpcReceiveInitialMetadata",
    "GrpcReceiveTrailingMetadata",
    "HttpCallResponseHeaders",
    "HttpCallResponseTrailers",
];
const BUFFERS: &[&str] = &[
    "HttpRequestBody",
    "HttpResponseBody",
    "NetworkDownstreamData",
    "NetworkUpstreamData",
    "HttpCallResponseBody",
    "GrpcReceiveBuffer",
    "VmConfiguration",
    "PluginConfiguration",
    "CallData",
];
const STREAMS: &[&str] = &["Request", "Response", "Downstream", "Upstream"];
const LEVELS: &[&str] = &["trace", "debug", "info", "warn", "error", "critical"];
const METRICS: &[&str] = &["Counter", "Gauge", "Histogram"];

/// Words of a call, as a trace keeps them.
pub trait Words {
    /// The words, in order.
    fn words(&self) -> Vec<u64>;
}

impl Words for () {
    fn words(&self) -> Vec<u64> {
        Vec::new()
    }
}

impl Words for u32 {
    fn words(&self) -> Vec<u64> {
        vec![(*self).into()]
    }
}

macro_rules! words_of_tuples {
    ($($(($word:ident, $index:tt))*;)*) => {
        $(impl Words for ($($word,)*) {
            fn words(&self) -> Vec<u64> {
                vec![$(self.$index.into()),*]
            }
        })*
    };
}

words_of_tuples! {
    (u32, 0) (u32, 1);
    (u32, 0) (u32, 1) (u32, 2);
    (u32, 0) (u32, 1) (u32, 2) (u32, 3) (u32, 4);
}

impl HostState {
    /// Takes the calls so far; none where nothing is traced.
    pub fn take_trace(&mut self) -> Vec<TracedCall> {
        self.trace.as_mut().map(|trace| trace.take()).unwrap_or_default()
    }
}
