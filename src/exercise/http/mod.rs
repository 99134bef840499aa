//! The exchange driver: one HTTP stream through the filter, with the iteration rules of Envoy's
//! filter manager (`source/common/http/filter_manager.cc`) and of its Wasm filter
//! (`source/extensions/common/wasm/context.cc`).

use std::time::Duration;

use crate::{
    host::{Deferred, Flow, HeaderMap, StreamState},
    vm::{Instance, Trap},
};

mod callbacks;
mod iteration;
mod leaving;

use iteration::Iteration;

use super::{
    around::{
        Reply, content_length, frame_for_http1, has_body, length_mismatch, prepare,
        request_headers, status,
    },
    events::{LATE_CALLS_NS, MAX_LATE_EVENTS, calls_are_under_way, run_next},
    exchange::{AccessLog, ClientResponse, Exchange, ExchangeResult, Message, Party, Request},
    incident::Incident,
    load::Loaded,
};

/// One direction of the filter manager.
#[derive(Debug, Default)]
struct Side {
    iteration: Iteration,
    headers_continued: bool,
    /// The last frame or trailers arrived.
    end_seen: bool,
    /// Data is held back (it may be empty).
    buffering: bool,
    /// It is held back for a filter that wants all of it: more than the limit is refused.
    limited: bool,
    /// Nothing passes any more.
    aborted: bool,
    /// What left on the other side of the filter.
    passed: Message,
    headers_passed: bool,
    /// The numbers of entries of METADATA frames that came while everything was stopped.
    saved_metadata: Vec<u32>,
    /// The headers did not end it.
    has_body: bool,
    ended: bool,
}

/// One stream on its way.
struct Stream<'a> {
    instance: &'a mut Instance,
    root: u32,
    id: u32,
    exchange: &'a Exchange,
    request: Side,
    response: Side,
    /// A local reply waits for the running callback to end.
    reply: Option<Reply>,
    in_callback: bool,
    /// The callback that runs or ran last.
    running: &'static str,
    /// The filter is not in this stream's way.
    passed_by: bool,
    /// The VM failed and the failure reply was made: the response does not meet the filter.
    failure_reply_sent: bool,
    /// Nothing goes on any more.
    reset: bool,
    /// The client's connection was closed on it.
    closed: bool,
    /// The whole request has come from the client.
    received: bool,
    /// The reply to it is 400.
    bad_request: bool,
    /// When the upstream's answer arrives, nanoseconds of the virtual clock.
    answer_due_ns: Option<u64>,
    answered: bool,
    /// The answer began before the whole request was there.
    closes: bool,
    /// The last callbacks were called.
    finished: bool,
    /// What the host kept of the stream, once it is gone.
    gone: StreamState,
    paused_in: &'static str,
    incidents: Vec<Incident>,
}

/// How far apart the pieces of a request arrive: each frame of a body that has any bytes, and over
/// HTTP/2 each frame.
pub const FRAME_GAP: Duration = Duration::from_millis(40);
/// Most events that a paused stream waits for before it counts as stalled.
const MAX_EVENTS: u32 = 1024;
/// After this long Envoy gives an idle stream up (`stream_idle_timeout`), nanoseconds.
const IDLE_TIMEOUT_NS: u64 = 300_000_000_000;

/// Runs one exchange on a loaded worker. One that is `passed_by` does not meet the filter.
pub fn run_exchange(
    worker: &mut Loaded,
    exchange: &Exchange,
    passed_by: bool,
) -> (ExchangeResult, Vec<Incident>) {
    let root = worker.root;
    let instance = &mut worker.instance;
    let id = instance.state_mut().begin_stream(root, false);
    let context = instance.state_mut().contexts.get_mut(&id);
    if let Some(stream) = context.and_then(|context| context.stream.as_deref_mut()) {
        stream.is_http2 = exchange.is_http2();
    }
    let mut stream = Stream {
        instance,
        root,
        id,
        exchange,
        request: Side::default(),
        response: Side::default(),
        reply: None,
        in_callback: false,
        running: "",
        passed_by,
        failure_reply_sent: false,
        reset: false,
        closed: false,
        received: false,
        bad_request: false,
        answer_due_ns: None,
        answered: false,
        closes: false,
        finished: false,
        gone: StreamState::default(),
        paused_in: "",
        incidents: Vec::new(),
    };
    stream.run();
    let result = stream.result();
    (result, stream.incidents)
}

impl Stream<'_> {
    fn state(&mut self) -> &mut StreamState {
        let context = self.instance.state_mut().contexts.get_mut(&self.id);
        context.and_then(|context| context.stream.as_deref_mut()).unwrap_or(&mut self.gone)
    }

    fn is_head(&self) -> bool {
        self.exchange.request.method == "HEAD"
    }

    fn side(&mut self, flow: Flow) -> &mut Side {
        match flow {
            Flow::Request => &mut self.request,
            Flow::Response => &mut self.response,
        }
    }

    fn run(&mut self) {
        self.create_context();
        let exchange = self.exchange;
        let Request { frames, trailers, abandoned, .. } = &exchange.request;
        self.received = frames.is_empty() && trailers.is_empty() && !abandoned;
        self.receive_headers(Flow::Request, request_headers(exchange), self.received);
        for (index, frame) in frames.iter().enumerate() {
            let is_apart = index > 0 && !frame.is_empty() || exchange.is_http2();
            if is_apart {
                self.wait_for_frame();
            }
            if !self.can_read() || self.is_over() {
                break;
            }
            let last = index + 1 == frames.len() && trailers.is_empty() && !abandoned;
            self.receive_metadata_of(Party::Client, index, frames.len());
            if self.is_over() {
                break;
            }
            self.received = last;
            self.state().request_bytes += frame.len() as u64;
            self.receive_data(Flow::Request, frame.as_bytes().to_vec(), last);
        }
        if !trailers.is_empty() && !abandoned && self.can_read() && !self.is_over() {
            self.receive_metadata_of(Party::Client, frames.len(), frames.len());
            self.received = true;
            let pairs = trailers.iter().map(|(name, value)| (name, value));
            self.receive_trailers(Flow::Request, HeaderMap::from_pairs(pairs));
        }
        if *abandoned && !self.is_over() {
            self.client_leaves();
            (self.reset, self.closed) = (true, true);
        }
        self.wait_for_the_end();
        self.finish();
        self.forget();
        self.let_calls_come_back();
    }

    /// What happens until the next piece of the request arrives.
    pub(super) fn wait_for_frame(&mut self) {
        let gap_ns = u64::try_from(FRAME_GAP.as_nanos()).unwrap_or(u64::MAX);
        let until_ns = self.instance.state().process.elapsed_ns().saturating_add(gap_ns);
        for _ in 0..MAX_EVENTS {
            let due_ns = self.answer_due_ns.filter(|due_ns| *due_ns < until_ns);
            if self.is_over() {
                return;
            }
            match (self.event(due_ns.unwrap_or(until_ns)), due_ns) {
                (Some(_), _) => {}
                (None, Some(due_ns)) => {
                    self.answer_due_ns = None;
                    self.instance.state().process.advance_to(due_ns);
                    self.answer();
                }
                (None, None) => break,
            }
        }
        self.instance.state().process.advance_to(until_ns);
    }

    /// The host forgets the stream.
    fn forget(&mut self) {
        if let Some(stream) = self.instance.state_mut().end_stream(self.id) {
            self.gone = *stream;
        }
    }

    /// What the stream began and did not wait for comes back to the root all the same.
    fn let_calls_come_back(&mut self) {
        let until_ns = self.instance.state().process.elapsed_ns() + LATE_CALLS_NS;
        for _ in 0..MAX_LATE_EVENTS {
            if !calls_are_under_way(self.instance) || self.event(until_ns) != Some(true) {
                break;
            }
        }
    }

    /// Envoy stops reading where a filter holds more back than the limit without wanting all of it, until
    /// the stream goes on.
    fn can_read(&mut self) -> bool {
        let limit = self.instance.state().process.environment.buffer_limit_bytes;
        let until_ns = self.instance.state().process.elapsed_ns() + IDLE_TIMEOUT_NS;
        for _ in 0..MAX_EVENTS {
            let buffered = self.state().direction(Flow::Request).body.buffered.len();
            if self.is_over() || self.request.limited || buffered <= limit {
                return true;
            }
            if self.event(until_ns) != Some(true) {
                break;
            }
        }
        false
    }

    /// The upstream's answer, and events that may resume a paused stream, within the time and the
    /// number that it is given; then it is stalled.
    fn wait_for_the_end(&mut self) {
        let until_ns = self.instance.state().process.elapsed_ns() + IDLE_TIMEOUT_NS;
        for _ in 0..MAX_EVENTS {
            if self.is_over() {
                return;
            }
            match (self.event(self.answer_due_ns.unwrap_or(until_ns)), self.answer_due_ns.take()) {
                (Some(true), due_ns) => self.answer_due_ns = self.answer_due_ns.or(due_ns),
                (_, Some(due_ns)) => {
                    self.instance.state().process.advance_to(due_ns);
                    self.answer();
                }
                (_, None) => break,
            }
        }
        if !self.is_over() {
            self.client_leaves();
            self.incidents.push(Incident::Stalled { paused_in: self.paused_in });
        }
    }

    /// A client that waits for nothing goes away.
    fn client_leaves(&mut self) {
        self.state().code_details = Some("downstream_remote_disconnect".to_owned());
    }

    fn is_over(&self) -> bool {
        self.response.ended || self.reset
    }

    /// One event, if there is one before `until_ns`, and whether it went well.
    fn event(&mut self, until_ns: u64) -> Option<bool> {
        self.running = "an event";
        let result = run_next(self.instance, until_ns)?;
        let ok = result.is_ok();
        if let Err(trap) = result {
            self.trapped(trap);
        }
        self.run_deferred();
        Some(ok)
    }

    /// Envoy ends the stream, with the client's connection.
    fn close(&mut self) {
        (self.reset, self.closed) = (true, true);
        self.incidents.push(Incident::Reset);
        self.finish();
    }

    fn create_context(&mut self) {
        let callbacks = self.instance.live_callbacks();
        if let Some(create) = callbacks.and_then(|callbacks| callbacks.on_context_create.clone()) {
            let params = (self.id, self.root);
            let result = self.instance.call("proxy_on_context_create", &create, self.id, params);
            if let Err(trap) = result {
                self.trapped(trap);
            }
            self.run_deferred();
        }
    }

    /// Takes note of a trap. Only the guest's own leave an Envoy that still answers.
    fn trapped(&mut self, trap: Box<Trap>) {
        if !trap.is_the_guests() {
            self.reset = true;
        }
        self.incidents.push(Incident::Trap(trap));
    }

    /// Why Envoy would not survive this.
    fn crash(&mut self, deferred: &Deferred) -> Option<&'static str> {
        let in_metadata = self.in_callback && self.running == "proxy_on_response_metadata";
        let in_last_callback = self.in_callback && self.running == "proxy_on_response_trailers";
        match deferred {
            Deferred::ContinueResponse(id)
                if *id == self.id && self.state().response.headers.is_none() =>
            {
                Some(
                    "the response was continued before there was one: Envoy dies of a segmentation fault",
                )
            }
            Deferred::ContinueResponse(id) | Deferred::CloseStream(id)
                if *id == self.id && in_last_callback =>
            {
                Some(
                    "the stream was continued or reset in the callback that ends the response: Envoy dies of a segmentation fault",
                )
            }
            Deferred::LocalReply(id) | Deferred::CloseStream(id)
                if *id == self.id && in_metadata =>
            {
                Some(
                    "the stream was ended in the callback for metadata of its response: Envoy dies of a segmentation fault",
                )
            }
            _ => None,
        }
    }

    fn run_deferred(&mut self) {
        let end = self.instance.end_call();
        if let Some(trap) = end.trap {
            self.trapped(trap);
        }
        for deferred in end.deferred {
            if let Some(why) = self.crash(&deferred) {
                self.trapped(Box::new(Trap::crash(self.running, why)));
                return;
            }
            match deferred {
                Deferred::ContinueRequest(id) if id == self.id => {
                    self.continue_iteration(Flow::Request);
                }
                Deferred::ContinueResponse(id) if id == self.id => {
                    self.continue_iteration(Flow::Response);
                }
                Deferred::CloseStream(id) if id == self.id && !self.is_over() => {
                    let details = &mut self.state().code_details;
                    details.get_or_insert_with(|| "wasm_close_stream".to_owned());
                    self.close();
                }
                Deferred::LocalReply(id) if id == self.id => {
                    if let Some(reply) = self.state().local_reply.take() {
                        self.reply_locally(prepare(&reply));
                    }
                }
                _ => {}
            }
        }
        if !self.in_callback {
            self.send_reply();
        }
    }

    fn access_log(&mut self) -> Option<AccessLog> {
        let survives = |incident: &Incident| match incident {
            Incident::Trap(trap) => trap.is_the_guests(),
            _ => true,
        };
        if !self.incidents.iter().all(survives) {
            return None;
        }
        let state = self.state();
        Some(AccessLog {
            status: state.response_code.unwrap_or(0),
            details: state.code_details.clone(),
            received: state.request_bytes,
            sent: state.response_bytes,
        })
    }

    fn result(&mut self) -> ExchangeResult {
        if self.state().ignored_replies > 0 {
            self.incidents.push(Incident::SecondReply);
        }
        let head = self.is_head();
        let passed = &self.response.passed;
        let status = status(passed);
        let bodyless = head || !has_body(status);
        let mismatch = length_mismatch(passed, Flow::Response).filter(|_| !bodyless);
        if self.response.ended && !self.reset {
            if !(200..=999).contains(&status) {
                self.incidents.push(Incident::NoFinalStatus(status));
            } else if let Some(mismatch) = mismatch {
                self.incidents.push(Incident::LengthMismatch(mismatch));
            }
        }
        // What a client has whole by its length it keeps, whatever becomes of the stream.
        let whole_by_length = content_length(passed).is_some()
            && mismatch.is_none_or(|mismatch| mismatch.actual > mismatch.declared);
        let is_whole = if self.reset || mismatch.is_some() {
            self.response.headers_passed && whole_by_length
        } else {
            self.response.ended
        };
        // Nobody reads the answer to a request that was given up.
        let abandoned = self.exchange.request.abandoned;
        let response = (is_whole && !abandoned).then(|| {
            let mut message = self.response.passed.clone();
            // Over HTTP/2 the framing is none of the headers' business.
            if !self.exchange.is_http2() {
                frame_for_http1(&mut message, head, self.response.has_body);
            }
            ClientResponse { status, message }
        });
        let upstream = self.request.headers_passed.then(|| self.upstream_view());
        ExchangeResult {
            name: self.exchange.name.clone(),
            response,
            closed: self.closed || abandoned || self.response.ended && self.closes,
            upstream,
            reached_upstream: self.answered,
            closes: self.closes,
            access: self.access_log(),
            logs: self.instance.state_mut().logs.take(),
        }
    }
}
