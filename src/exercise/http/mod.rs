//! The exchange driver: one HTTP stream through the filter, with the iteration rules of Envoy's
//! filter manager (`source/common/http/filter_manager.cc`) and of its Wasm filter
//! (`source/extensions/common/wasm/context.cc`).

use crate::{
    host::{Deferred, Flow, HeaderMap, StreamState},
    vm::{Instance, NewContext, Trap},
};

mod callbacks;
mod leaving;

use callbacks::{DataStatus, HeadersStatus};

use super::{
    around::{Reply, frame_for_http1, has_body, length_mismatch, prepare, request_headers, status},
    events::{calls_are_under_way, run_next},
    exchange::{ClientResponse, Exchange, ExchangeResult, Message, Request},
    incident::Incident,
    load::Loaded,
};

/// Where the iteration of one direction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Iteration {
    #[default]
    Continue,
    /// Stopped in a body or trailers callback: the filter still sees what arrives.
    StopSingle,
    /// Stopped in a headers callback: the filter sees nothing until it continues.
    StopAll,
}

/// One direction of the filter manager.
#[derive(Debug, Default)]
struct Side {
    iteration: Iteration,
    headers_continued: bool,
    /// The last frame or trailers arrived.
    end_seen: bool,
    /// Data is held back (it may be empty).
    buffering: bool,
    /// Nothing passes any more.
    aborted: bool,
    /// What left on the other side of the filter.
    passed: Message,
    headers_passed: bool,
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
    /// The filter is passed by: the VM failed and the failure reply was made.
    failure_reply_sent: bool,
    reset: bool,
    /// The answer began before the whole request was there.
    closes: bool,
    paused_in: &'static str,
    incidents: Vec<Incident>,
}

/// Most events that a paused stream waits for before it counts as stalled.
const MAX_EVENTS: u32 = 1024;
/// How long calls may take that no stream waits for, nanoseconds.
const LATE_CALLS_NS: u64 = 15_000_000_000;
/// Most events that are waited for then.
const MAX_LATE_EVENTS: u32 = 64;
/// After this long Envoy gives an idle stream up (`stream_idle_timeout`), nanoseconds.
const IDLE_TIMEOUT_NS: u64 = 300_000_000_000;

/// Runs one exchange on a loaded worker.
pub fn run_exchange(worker: &mut Loaded, exchange: &Exchange) -> (ExchangeResult, Vec<Incident>) {
    let root = worker.root;
    let instance = &mut worker.instance;
    let id = instance.add_context(NewContext::Stream(root));
    let stream_state = StreamState {
        start_ns: instance.state().process.now_ns().cast_signed(),
        ..StreamState::default()
    };
    if let Some(context) = instance.state_mut().contexts.get_mut(&id) {
        context.stream = Some(Box::new(stream_state));
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
        failure_reply_sent: false,
        reset: false,
        closes: false,
        paused_in: "",
        incidents: Vec::new(),
    };
    stream.run();
    let result = stream.result();
    let incidents = stream.incidents;
    worker.instance.state_mut().contexts.remove(&id);
    (result, incidents)
}

impl Stream<'_> {
    fn state(&mut self) -> &mut StreamState {
        let contexts = &mut self.instance.state_mut().contexts;
        contexts
            .entry(self.id)
            .or_insert_with(|| crate::host::Context::new(crate::host::ContextKind::Stream, 0))
            .stream
            .get_or_insert_default()
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
        let Request { frames, trailers, .. } = &exchange.request;
        let only_headers = frames.is_empty() && trailers.is_empty();
        self.receive_headers(Flow::Request, request_headers(exchange), only_headers);
        for (index, frame) in frames.iter().enumerate() {
            let last = index + 1 == frames.len() && trailers.is_empty();
            self.state().request_bytes += frame.len() as u64;
            self.receive_data(Flow::Request, frame.as_bytes().to_vec(), last);
        }
        if !trailers.is_empty() {
            let pairs = trailers.iter().map(|(name, value)| (name, value));
            self.receive_trailers(Flow::Request, HeaderMap::from_pairs(pairs));
        }
        self.wait_for_resume();
        self.finish();
        self.let_calls_come_back();
    }

    /// What the stream began and did not wait for comes back to the root all the same.
    fn let_calls_come_back(&mut self) {
        let until_ns = self.instance.state().process.elapsed_ns() + LATE_CALLS_NS;
        for _ in 0..MAX_LATE_EVENTS {
            if !calls_are_under_way(self.instance) || !self.event(until_ns) {
                break;
            }
        }
    }

    /// A paused stream may still be resumed by an event, within the time and the events that it is
    /// given; then it is stalled.
    fn wait_for_resume(&mut self) {
        let until_ns = self.instance.state().process.elapsed_ns() + IDLE_TIMEOUT_NS;
        for _ in 0..MAX_EVENTS {
            if self.is_over() || !self.event(until_ns) {
                break;
            }
        }
        if !self.is_over() {
            self.incidents.push(Incident::Stalled { paused_in: self.paused_in });
        }
    }

    fn is_over(&self) -> bool {
        self.response.ended || self.reset
    }

    /// One event, if there is one before `until_ns`.
    fn event(&mut self, until_ns: u64) -> bool {
        let Some(result) = run_next(self.instance, until_ns) else { return false };
        let ok = result.is_ok();
        if let Err(trap) = result {
            self.trapped(trap);
        }
        self.run_deferred();
        ok
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

    // What arrives from the codec.

    fn receive_headers(&mut self, flow: Flow, headers: HeaderMap, end: bool) {
        if self.side(flow).aborted || self.reset {
            return;
        }
        self.side(flow).end_seen = end;
        self.state().direction_mut(flow).headers = Some(headers);
        let status = self.headers_callback(flow, end);
        let side = self.side(flow);
        if side.aborted {
            self.send_reply();
            return;
        }
        match status {
            HeadersStatus::StopAll => side.iteration = Iteration::StopAll,
            HeadersStatus::Continue => {
                if side.iteration == Iteration::Continue && !side.headers_continued {
                    side.headers_continued = true;
                    self.pass_headers(flow, end);
                }
            }
        }
        self.send_reply();
    }

    fn receive_data(&mut self, flow: Flow, data: Vec<u8>, end: bool) {
        if self.side(flow).aborted || self.reset {
            return;
        }
        self.side(flow).end_seen |= end;
        if self.side(flow).iteration == Iteration::StopAll {
            self.hold(flow, data);
            return;
        }
        self.filter_data(flow, data, end);
        self.send_reply();
    }

    fn receive_trailers(&mut self, flow: Flow, trailers: HeaderMap) {
        if self.side(flow).aborted || self.reset {
            return;
        }
        self.side(flow).end_seen = true;
        self.state().direction_mut(flow).trailers = Some(trailers);
        if self.side(flow).iteration == Iteration::StopAll {
            return;
        }
        self.filter_trailers(flow);
        self.send_reply();
    }

    // The filter's turn.

    /// `decodeData`, then `commonHandleAfterDataCallback`.
    fn filter_data(&mut self, flow: Flow, data: Vec<u8>, end: bool) {
        let had_trailers = self.state().direction(flow).trailers.is_some();
        let (status, data) = self.data_callback(flow, data, end);
        if self.side(flow).aborted {
            return;
        }
        let trailers_added = !had_trailers && self.state().direction(flow).trailers.is_some();
        let iteration = self.side(flow).iteration;
        match status {
            DataStatus::Continue if iteration == Iteration::StopSingle => {
                self.hold(flow, data);
                self.continue_iteration(flow);
            }
            DataStatus::Continue => {
                self.pass_data(flow, data, end && !trailers_added);
                if trailers_added {
                    self.pass_trailers(flow);
                }
            }
            stopped => {
                if iteration == Iteration::Continue {
                    self.side(flow).iteration = Iteration::StopSingle;
                }
                if stopped != DataStatus::StopNoBuffer {
                    self.hold(flow, data);
                } else if self.side(flow).end_seen {
                    // So that a later continue ends the stream even though nothing is held back.
                    self.side(flow).buffering = true;
                }
            }
        }
    }

    fn filter_trailers(&mut self, flow: Flow) {
        let continues = self.trailers_callback(flow);
        if self.side(flow).aborted {
            return;
        }
        match (continues, self.side(flow).iteration) {
            (true, Iteration::StopSingle) => self.continue_iteration(flow),
            (true, _) => self.pass_trailers(flow),
            (false, Iteration::Continue) => self.side(flow).iteration = Iteration::StopSingle,
            (false, _) => {}
        }
    }

    fn hold(&mut self, flow: Flow, data: Vec<u8>) {
        self.side(flow).buffering = true;
        self.state().direction_mut(flow).body.buffered.extend(data);
    }

    /// `commonContinue`: what was held back goes on, from this filter if it stopped everything, from
    /// the next one otherwise.
    fn continue_iteration(&mut self, flow: Flow) {
        let side = self.side(flow);
        if side.aborted
            || side.ended
            || (side.iteration == Iteration::Continue && side.headers_continued)
        {
            return;
        }
        let from_here = side.iteration == Iteration::StopAll;
        side.iteration = Iteration::Continue;
        let (end_seen, buffering) = (side.end_seen, side.buffering);
        let headers_continued = std::mem::replace(&mut side.headers_continued, true);
        let had_trailers = self.state().direction(flow).trailers.is_some();
        if self.state().direction(flow).headers.is_none() {
            return;
        }
        if !headers_continued {
            self.pass_headers(flow, end_seen && !buffering && !had_trailers);
        }
        if buffering {
            let end = end_seen && !had_trailers;
            self.side(flow).buffering = false;
            let data = std::mem::take(&mut self.state().direction_mut(flow).body.buffered);
            if from_here {
                self.filter_data(flow, data, end);
            } else {
                self.pass_data(flow, data, end);
            }
        }
        // A body callback that stopped again holds the trailers back too.
        if had_trailers && !self.side(flow).aborted {
            if self.side(flow).iteration != Iteration::Continue {
                return;
            }
            if from_here {
                self.filter_trailers(flow);
            } else {
                self.pass_trailers(flow);
            }
        }
    }

    fn run_deferred(&mut self) {
        let end = self.instance.end_call();
        if let Some(trap) = end.trap {
            self.trapped(trap);
        }
        for deferred in end.deferred {
            match deferred {
                Deferred::ContinueRequest(id) if id == self.id => {
                    self.continue_iteration(Flow::Request);
                }
                Deferred::ContinueResponse(id) if id == self.id => {
                    self.continue_iteration(Flow::Response);
                }
                Deferred::CloseStream(id) if id == self.id => {
                    self.reset = true;
                    self.incidents.push(Incident::Reset);
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

    fn result(&mut self) -> ExchangeResult {
        if self.state().ignored_replies > 0 {
            self.incidents.push(Incident::SecondReply);
        }
        let head = self.exchange.request.method == "HEAD";
        if self.response.ended && !self.reset {
            let passed = &self.response.passed;
            let status = status(passed);
            if (200..=999).contains(&status) {
                let mismatch = length_mismatch(passed, Flow::Response);
                if let Some(mismatch) = mismatch.filter(|_| !head && has_body(status)) {
                    self.incidents.push(Incident::LengthMismatch(mismatch));
                }
            } else {
                self.incidents.push(Incident::NoFinalStatus(status));
            }
        }
        let response = (self.response.ended && !self.reset).then(|| {
            let mut message = self.response.passed.clone();
            frame_for_http1(&mut message, head);
            ClientResponse { status: status(&message), message }
        });
        let upstream = self.request.headers_passed.then(|| self.request.passed.clone());
        ExchangeResult {
            name: self.exchange.name.clone(),
            response,
            upstream,
            request_ended: self.request.ended,
            closes: self.closes,
            logs: self.instance.state_mut().logs.take(),
        }
    }
}
