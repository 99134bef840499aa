//! The connection driver: one TCP connection through the filter, with the rules of Envoy's network
//! filter manager (`source/common/network/filter_manager_impl.cc`), of its TCP proxy behind the
//! filter, and of its Wasm filter (`source/extensions/common/wasm/context.cc`).
//!
//! Half-closed connections are the rule here: a TCP proxy lets either side end on its own.

use std::collections::VecDeque;

use crate::{
    host::{BodySource, Deferred, Flow, StreamState},
    vm::{Instance, Trap, TrapKind},
};

use super::{
    connection::{Connection, ConnectionResult, Received, Step, TcpUpstream},
    events::{LATE_CALLS_NS, MAX_LATE_EVENTS, calls_are_under_way, run_next},
    incident::Incident,
    load::Loaded,
};

/// Who closed a connection, as `proxy_on_downstream_connection_close` is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClosedBy {
    /// Envoy.
    Local = 1,
    /// The client.
    Remote = 2,
}

/// What `proxy_on_upstream_connection_close` is told, whoever closed: the filter only sees the end
/// of the stream.
const CLOSED_BY_UNKNOWN: u32 = 0;

/// One direction of the connection.
#[derive(Debug, Default)]
struct Side {
    /// The sender has ended it.
    ended: bool,
    /// The end has passed the filter.
    end_passed: bool,
    /// The callback that holds it back.
    held_in: Option<&'static str>,
    /// What left on the other side of the filter.
    received: Received,
}

/// One connection on its way.
struct Stream<'a> {
    instance: &'a mut Instance,
    id: u32,
    from_client: Side,
    from_upstream: Side,
    /// The TCP proxy behind the filter was reached and has connected. Before, nothing is read from
    /// the client.
    connected: bool,
    /// The client's connection is gone.
    closed: bool,
    closed_by_filter: bool,
    /// The filter is not there: its VM has failed, and the policy is open.
    passed_by: bool,
    /// What the upstream is about to do by itself.
    answers: VecDeque<Step>,
    echoes: bool,
    incidents: Vec<Incident>,
}

/// How much time passes between two steps, nanoseconds.
const BETWEEN_STEPS_NS: u64 = 100_000_000;
/// Most answers of an echo to one step: a filter can send it something for each.
const MAX_ANSWERS: u32 = 1024;
/// Most events that a held connection waits for before it counts as stalled.
const MAX_EVENTS: u32 = 1024;
/// After this long the TCP proxy gives an idle connection up (`idle_timeout`), nanoseconds.
const IDLE_TIMEOUT_NS: u64 = 3_600_000_000_000;

/// Runs one connection on a loaded worker, or past the filter of one whose VM has failed.
pub fn run_connection(
    worker: &mut Loaded,
    connection: &Connection,
    passed_by: bool,
) -> (ConnectionResult, Vec<Incident>) {
    let root = worker.root;
    let instance = &mut worker.instance;
    let id = instance.state_mut().begin_stream(root, true);
    let mut stream = Stream {
        instance,
        id,
        from_client: Side::default(),
        from_upstream: Side::default(),
        connected: false,
        closed: false,
        closed_by_filter: false,
        passed_by,
        answers: VecDeque::new(),
        echoes: connection.upstream == TcpUpstream::Echo,
        incidents: Vec::new(),
    };
    stream.run(root, connection);
    let result = ConnectionResult {
        name: connection.name.clone(),
        client: stream.from_upstream.received,
        upstream: stream.connected.then_some(stream.from_client.received),
        closed_by_filter: stream.closed_by_filter,
        logs: stream.instance.state_mut().logs.take(),
    };
    let incidents = stream.incidents;
    worker.instance.state_mut().end_stream(id);
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
            Flow::Request => &mut self.from_client,
            Flow::Response => &mut self.from_upstream,
        }
    }

    fn run(&mut self, root: u32, connection: &Connection) {
        self.new_connection(root);
        self.wait_for_resume();
        for step in &connection.steps {
            self.step(step);
        }
        self.wait_for_resume();
        self.step(&Step::ClientEnds);
        self.step(&Step::UpstreamEnds);
        self.let_calls_come_back();
        if !self.closed {
            let held = [self.from_client.held_in, self.from_upstream.held_in];
            self.note_held(held);
        }
    }

    /// Does a step and all that the upstream does because of it.
    fn step(&mut self, step: &Step) {
        self.arrive(step);
        let mut answered = 0;
        while let Some(answer) = self.answers.pop_front() {
            if answered == MAX_ANSWERS {
                self.answers.clear();
                self.incidents.push(Incident::EndlessConnection { answers: MAX_ANSWERS });
                break;
            }
            answered += 1;
            self.arrive(&answer);
        }
        self.let_time_pass();
    }

    /// The time between two steps, in which calls come back and ticks come.
    fn let_time_pass(&mut self) {
        let until_ns = self.instance.state().process.elapsed_ns() + BETWEEN_STEPS_NS;
        for _ in 0..MAX_EVENTS {
            if self.closed || !self.event(until_ns) {
                break;
            }
        }
    }

    fn arrive(&mut self, step: &Step) {
        // An end that breaks off sees no more, whatever becomes of the other.
        match step {
            Step::ClientResets => self.from_upstream.received.ended = true,
            Step::UpstreamResets => self.from_client.received.ended = true,
            _ => {}
        }
        if self.closed || !self.connected {
            return;
        }
        let (flow, data) = match step {
            Step::ClientSends(text) => (Flow::Request, Some(text)),
            Step::ClientEnds => (Flow::Request, None),
            Step::UpstreamSends(text) => (Flow::Response, Some(text)),
            Step::UpstreamEnds => (Flow::Response, None),
            Step::ClientResets => {
                // Nothing is read of a side that has ended, so that its reset goes unseen.
                if !self.from_client.ended {
                    self.close(ClosedBy::Remote);
                }
                return;
            }
            Step::UpstreamResets => {
                self.close(ClosedBy::Local);
                return;
            }
        };
        if self.side(flow).ended {
            return;
        }
        self.side(flow).ended = data.is_none();
        if let Some(text) = data {
            let state = self.state();
            state.direction_mut(flow).body.frame.extend_from_slice(text.as_bytes());
            if flow == Flow::Request {
                state.request_bytes += text.len() as u64;
            }
        }
        self.receive(flow);
    }

    /// Data or an end arrived: the filter sees all that was not let through yet.
    fn receive(&mut self, flow: Flow) {
        let end = self.side(flow).ended;
        let continues = self.data_callback(flow, end);
        // Where the callback held the data other callbacks see them, too.
        if continues {
            self.state().direction_mut(flow).body.source = BodySource::None;
        }
        if end && flow == Flow::Response {
            self.upstream_connection_close();
        }
        if continues {
            self.pass(flow);
        }
        self.close_if_both_ended(flow);
    }

    /// A connection both of whose sides have ended is closed: by the client where its end came last,
    /// else by Envoy, also because the connection to the upstream has gone.
    fn close_if_both_ended(&mut self, last: Flow) {
        if self.closed {
            return;
        }
        let client_is_done = self.from_client.ended && self.from_upstream.end_passed;
        let upstream_is_done = self.from_upstream.ended && self.from_client.end_passed;
        if client_is_done || upstream_is_done {
            // Data that were held until now go with the connection.
            let held = [Flow::Request, Flow::Response].map(|flow| {
                let is_lost = !self.state().direction(flow).body.frame.is_empty();
                self.side(flow).held_in.filter(|_| is_lost)
            });
            self.note_held(held);
        }
        if client_is_done && last == Flow::Request {
            self.close(ClosedBy::Remote);
        } else if client_is_done || upstream_is_done {
            self.close(ClosedBy::Local);
        }
    }

    fn note_held(&mut self, held: [Option<&'static str>; 2]) {
        let held = held.into_iter().flatten();
        self.incidents.extend(held.map(|paused_in| Incident::ConnectionStalled { paused_in }));
    }

    /// Lets through what was held back on one side, and its end.
    fn pass(&mut self, flow: Flow) {
        if self.closed {
            return;
        }
        self.side(flow).held_in = None;
        let data = std::mem::take(&mut self.state().direction_mut(flow).body.frame);
        let side = self.side(flow);
        let ends = side.ended && !side.end_passed;
        side.end_passed |= ends;
        side.received.ended |= ends;
        side.received.data.extend_from_slice(&data);
        if flow == Flow::Response {
            self.state().response_bytes += data.len() as u64;
            return;
        }
        if self.echoes {
            if !data.is_empty() {
                let text = String::from_utf8_lossy(&data).into_owned();
                self.answers.push_back(Step::UpstreamSends(text));
            }
            if ends {
                self.answers.push_back(Step::UpstreamEnds);
            }
        }
    }

    // The callbacks.

    fn new_connection(&mut self, root: u32) {
        let callbacks = self.instance.live_callbacks();
        if let Some(create) = callbacks.and_then(|callbacks| callbacks.on_context_create.clone()) {
            let params = (self.id, root);
            let outcome = self.instance.call("proxy_on_context_create", &create, self.id, params);
            self.after_call(outcome);
        }
        let name = "proxy_on_new_connection";
        let callback = self.instance.callbacks().on_new_connection.clone();
        let id = self.id;
        let continues = self
            .iterate(|instance| callback.map(|callback| instance.call(name, &callback, id, id)));
        if continues {
            self.connect();
        } else if !self.connected {
            self.from_client.held_in = Some(name);
        }
    }

    /// The TCP proxy's turn: it connects, and only then reads from the client.
    fn connect(&mut self) {
        if self.closed || self.connected {
            return;
        }
        self.connected = true;
        self.from_client.held_in = None;
        self.state().upstream_selected = true;
    }

    fn data_callback(&mut self, flow: Flow, end: bool) -> bool {
        let body = &mut self.state().direction_mut(flow).body;
        body.source = BodySource::Frame;
        let size = u32::try_from(body.frame.len()).unwrap_or(u32::MAX);
        let callbacks = self.instance.callbacks();
        let (name, callback) = match flow {
            Flow::Request => ("proxy_on_downstream_data", callbacks.on_downstream_data.clone()),
            Flow::Response => ("proxy_on_upstream_data", callbacks.on_upstream_data.clone()),
        };
        let (id, end) = (self.id, u32::from(end));
        let continues = self.iterate(|instance| {
            callback.map(|callback| instance.call(name, &callback, id, (id, size, end)))
        });
        self.side(flow).held_in = (!continues).then_some(name);
        continues
    }

    /// Makes a call that decides whether the iteration goes on; any result but 0 stops it. On a VM
    /// that has failed there is no call, and the connection is closed.
    fn iterate(
        &mut self,
        call: impl FnOnce(&mut Instance) -> Option<Result<u32, Box<Trap>>>,
    ) -> bool {
        if self.passed_by {
            return true;
        }
        if self.instance.is_failed() {
            self.disappear();
            return false;
        }
        let result = call(self.instance).map_or(Ok(0), |outcome| outcome);
        let result = self.after_call(result);
        if self.instance.is_failed() {
            self.disappear();
            return false;
        }
        result == Some(0)
    }

    fn upstream_connection_close(&mut self) {
        let callbacks = self.instance.live_callbacks();
        if let Some(close) = callbacks.and_then(|c| c.on_upstream_connection_close.clone()) {
            let name = "proxy_on_upstream_connection_close";
            let params = (self.id, CLOSED_BY_UNKNOWN);
            let outcome = self.instance.call(name, &close, self.id, params);
            self.after_call(outcome);
        }
    }

    /// The client's connection goes, and with it that to the upstream and the context.
    fn close(&mut self, by: ClosedBy) {
        self.disappear();
        let id = self.id;
        let callbacks = self.instance.live_callbacks();
        if let Some(close) = callbacks.and_then(|c| c.on_downstream_connection_close.clone()) {
            let name = "proxy_on_downstream_connection_close";
            let outcome = self.instance.call(name, &close, id, (id, by as u32));
            self.after_call(outcome);
        }
        // Unlike that of an HTTP stream, the log comes between the two.
        let done = self.instance.live_callbacks().and_then(|c| c.on_done.clone());
        if let Some(done) = done {
            let outcome = self.instance.call("proxy_on_done", &done, id, id).map(drop);
            self.after_call(outcome);
        }
        let log = self.instance.live_callbacks().and_then(|c| c.on_log.clone());
        if let Some(log) = log {
            let outcome = self.instance.call("proxy_on_log", &log, id, id);
            self.after_call(outcome);
        }
        let delete = self.instance.live_callbacks().and_then(|c| c.on_delete.clone());
        if let Some(delete) = delete {
            let outcome = self.instance.call("proxy_on_delete", &delete, id, id);
            self.after_call(outcome);
        }
    }

    /// Both connections are gone, as their ends see it.
    fn disappear(&mut self) {
        self.closed = true;
        self.answers.clear();
        let hangs = |incident: &Incident| match incident {
            Incident::Trap(trap) => trap.kind == TrapKind::Timeout,
            _ => false,
        };
        // A worker that hangs closes nothing.
        if !self.incidents.iter().any(hangs) {
            self.from_client.received.ended = true;
            self.from_upstream.received.ended = true;
        }
    }

    /// Ends an outermost call: takes note of a trap, and does what waited for the end.
    fn after_call<R>(&mut self, outcome: Result<R, Box<Trap>>) -> Option<R> {
        let end = self.instance.end_call();
        let (result, trap) = match outcome {
            Ok(result) => (Some(result), None),
            Err(trap) => (None, Some(trap)),
        };
        self.incidents.extend(trap.into_iter().chain(end.trap).map(Incident::Trap));
        for deferred in end.deferred {
            match deferred {
                Deferred::ContinueDownstream(id) if id == self.id && !self.closed => {
                    self.connect();
                    self.pass(Flow::Request);
                }
                Deferred::CloseConnection(id) if id == self.id && !self.closed => {
                    self.closed_by_filter = true;
                    self.close(ClosedBy::Local);
                }
                _ => {}
            }
        }
        result
    }

    /// What is held may still be let through by an event, within the time and the events that it is
    /// given.
    fn wait_for_resume(&mut self) {
        let until_ns = self.instance.state().process.elapsed_ns() + IDLE_TIMEOUT_NS;
        for _ in 0..MAX_EVENTS {
            if self.closed || self.from_client.held_in.is_none() || !self.event(until_ns) {
                break;
            }
        }
    }

    /// What the connection began and did not wait for comes back to the root all the same.
    fn let_calls_come_back(&mut self) {
        let until_ns = self.instance.state().process.elapsed_ns() + LATE_CALLS_NS;
        for _ in 0..MAX_LATE_EVENTS {
            if !calls_are_under_way(self.instance) || !self.event(until_ns) {
                break;
            }
        }
    }

    /// One event, if there is one before `until_ns`.
    fn event(&mut self, until_ns: u64) -> bool {
        match run_next(self.instance, until_ns) {
            Some(outcome) => {
                let goes_on = self.after_call(outcome).is_some();
                self.close_if_both_ended(Flow::Response);
                goes_on
            }
            None => false,
        }
    }
}
