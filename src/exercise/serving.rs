//! Traffic through the workers of one root, and the root's end.

use std::sync::Arc;

use crate::{
    bench::PhaseClock,
    host::{Deferred, Plugin, Process},
    verdict::{Finding, Rule},
    vm::{Instance, Trap, TrapKind},
};

use super::{
    events::run_next,
    exchange::ExchangeResult,
    http::run_exchange,
    incident::{Incident, incident_finding},
    load::{LoadRun, Loaded, hazard_finding, load_plugin, trap_finding},
    policy::{FailurePolicy, RELOAD_AFTER_NS},
    roots::{Called, RootRun, Run, TraceStage, note_calls, peak},
    tcp::run_connection,
};

/// How long a worker runs before the first request comes, nanoseconds: what the module began while it
/// loaded goes on meanwhile.
const SETTLE_NS: u64 = 150_000_000;
/// How long a root that has not finished yet is waited for, nanoseconds.
const DONE_NS: u64 = 30_000_000_000;
/// Most events that a worker is given while no stream runs.
const MAX_IDLE_EVENTS: u32 = 16;

impl Run<'_> {
    /// Sends the traffic through the workers in turn.
    pub(super) fn serve(
        &mut self,
        plugin: &Plugin,
        process: &Arc<Process>,
        root: &mut RootRun,
        called: &mut Called,
    ) {
        if !process.lock().is_untouched() {
            // The main thread has an instance of its own, which only what all share can show.
            self.load(plugin, process);
        }
        let mut workers = Vec::new();
        for _ in 0..self.options.workers.max(1) {
            let Some(worker) = self.start_worker(plugin, process, root) else { return };
            workers.push(worker);
        }
        for worker in &mut workers {
            self.let_pass(&root.root_id, worker, SETTLE_NS, |_| false);
            root.idle_logs.extend(worker.instance.state_mut().logs.take());
            root.note_trace(TraceStage::Worker, worker.instance.state_mut().take_trace());
        }
        let count = workers.len();
        for (index, exchange) in self.options.exchanges.iter().enumerate() {
            let worker = &mut workers[index % count];
            let passed_by = self.renew_failed(worker, plugin, process);
            let (result, incidents) = run_exchange(worker, exchange, passed_by);
            root.exchanges.push(result);
            let stage = TraceStage::Exchange(exchange.name.clone());
            let place = ("exchange", exchange.name.as_str());
            if self.end_of_stream(&mut workers, index % count, root, stage, place, incidents) {
                if self.hangs() {
                    // The worker thread never gets to the others.
                    let rest = self.options.exchanges.iter().skip(index + 1);
                    root.exchanges
                        .extend(rest.map(|exchange| ExchangeResult::unanswered(&exchange.name)));
                }
                break;
            }
        }
        for (index, connection) in self.options.connections.iter().enumerate() {
            let worker = &mut workers[index % count];
            let passed_by = self.renew_failed(worker, plugin, process);
            let (result, incidents) = run_connection(worker, connection, passed_by);
            root.connections.push(result);
            let stage = TraceStage::Connection(connection.name.clone());
            let place = ("connection", connection.name.as_str());
            if self.end_of_stream(&mut workers, index % count, root, stage, place, incidents) {
                break;
            }
        }
        root.metrics = process.lock().counters_and_gauges();
        for mut worker in workers {
            self.wind_down(&root.root_id, &mut worker);
            self.unknown_clusters(&root.root_id, &worker.instance);
            let state = worker.instance.state_mut();
            root.note_trace(TraceStage::End, state.take_trace());
            root.idle_logs.extend(state.logs.take());
            let dropped = state.logs.dropped();
            note_calls(&worker.instance, called);
            root.peak_memory_bytes = root.peak_memory_bytes.max(peak(&worker.instance));
            if dropped > 0 {
                let message = format!("{dropped} log lines of the module were not kept");
                self.report(&root.root_id, vec![Finding::note(Rule::LimitReached, message)]);
            }
        }
    }

    /// One more instance, whose time is not counted.
    fn load(&self, plugin: &Plugin, process: &Arc<Process>) -> LoadRun {
        let names = self.options.has_function_names;
        load_plugin(self.template, plugin, process, names, &mut PhaseClock::default())
    }

    /// Whether a callback did not come back.
    fn hangs(&self) -> bool {
        self.findings.iter().any(|finding| finding.rule == Rule::RunTimeout)
    }

    fn start_worker(
        &mut self,
        plugin: &Plugin,
        process: &Arc<Process>,
        root: &mut RootRun,
    ) -> Option<Loaded> {
        let mut worker = self.load(plugin, process);
        root.note_trace(TraceStage::Worker, std::mem::take(&mut worker.trace));
        let LoadRun { loaded: Some(worker), accepted: true, .. } = worker else {
            let why = worker.findings.first().map_or(String::new(), |f| format!(": {}", f.message));
            self.undecided |= worker.was_given_up();
            self.report(
                &root.root_id,
                vec![
                    Finding::error(
                        Rule::RootWorkerDiffers,
                        format!("the first instance loaded and a later one did not{why}"),
                    )
                    .envoy("Wasm VM failed Failed to configure thread-local Wasm plugin")
                    .help("Envoy starts the module once for each worker thread, and skips the filter silently where that fails: make start and configure give the same answer every time"),
                ],
            );
            return None;
        };
        Some(worker)
    }

    /// Reports on a stream of the worker at `served`; answers whether there is no use in another one. Items
    /// in queues are told to the workers that own them, whoever put them there.
    fn end_of_stream(
        &mut self,
        workers: &mut [Loaded],
        served: usize,
        root: &mut RootRun,
        stage: TraceStage,
        place: (&str, &str),
        incidents: Vec<Incident>,
    ) -> bool {
        let instance = &mut workers[served].instance;
        root.note_trace(stage, instance.state_mut().take_trace());
        if self.incidents(&root.root_id, place, incidents, instance) {
            return true;
        }
        for (index, worker) in workers.iter_mut().enumerate() {
            if index != served {
                self.let_pass(&root.root_id, worker, 0, |_| false);
                root.idle_logs.extend(worker.instance.state_mut().logs.take());
            }
        }
        false
    }

    /// Lets time pass while no stream runs, until an event leaves what is waited for behind; answers
    /// whether one did.
    fn let_pass(
        &mut self,
        root_id: &str,
        worker: &mut Loaded,
        time_ns: u64,
        is_over: impl Fn(&[Deferred]) -> bool,
    ) -> bool {
        let until_ns = worker.instance.state().process.elapsed_ns() + time_ns;
        for _ in 0..MAX_IDLE_EVENTS {
            let Some(result) = run_next(&mut worker.instance, until_ns) else { break };
            let failed = result.is_err();
            let deferred = self.end_callback(root_id, &mut worker.instance, result);
            if is_over(&deferred) {
                return true;
            }
            if failed {
                break;
            }
        }
        false
    }

    /// Does with a VM that has failed what the policy says; answers whether traffic passes it by.
    fn renew_failed(&self, worker: &mut Loaded, plugin: &Plugin, process: &Arc<Process>) -> bool {
        if !worker.instance.is_failed() {
            return false;
        }
        match self.options.failure_policy {
            FailurePolicy::Closed => false,
            FailurePolicy::Open => true,
            FailurePolicy::Reload => {
                process.advance_to(process.elapsed_ns() + RELOAD_AFTER_NS);
                let again = self.load(plugin, process);
                // One that does not start anew stays the failed one.
                if let Some(loaded) = again.loaded.filter(|_| again.accepted) {
                    *worker = loaded;
                }
                false
            }
        }
    }

    /// A tick if the root asked for ticks, then the root's end. A root that says that it is not done is
    /// waited for.
    fn wind_down(&mut self, root_id: &str, worker: &mut Loaded) {
        let root = worker.root;
        let instance = &mut worker.instance;
        let ticks = instance.state().ticks(root);
        if let Some(tick) = instance
            .live_callbacks()
            .and_then(|callbacks| callbacks.on_tick.clone())
            .filter(|_| ticks)
        {
            let result = instance.call("proxy_on_tick", &tick, root, root);
            self.end_callback(root_id, instance, result);
        }
        let callbacks = instance.live_callbacks();
        let Some(done) = callbacks.and_then(|callbacks| callbacks.on_done.clone()) else {
            self.delete_root(root_id, instance, root);
            return;
        };
        let result = instance.call("proxy_on_done", &done, root, root);
        let is_done = |deferred: &[Deferred]| deferred.contains(&Deferred::RootDone(root));
        let finished = match result {
            Ok(0) => {
                if let Some(context) = instance.state_mut().contexts.get_mut(&root) {
                    context.pending_done = true;
                }
                let deferred = self.end_callback(root_id, instance, Ok(()));
                is_done(&deferred) || self.let_pass(root_id, worker, DONE_NS, is_done)
            }
            Ok(_) => {
                self.end_callback(root_id, instance, Ok(()));
                true
            }
            Err(trap) => {
                self.end_callback(root_id, instance, Err(trap));
                false
            }
        };
        if finished {
            self.delete_root(root_id, &mut worker.instance, root);
        }
    }

    fn unknown_clusters(&mut self, root_id: &str, instance: &Instance) {
        let clusters = &instance.state().pending.unknown_clusters;
        let findings = clusters.iter().map(|(name, result)| {
            Finding::note(
                Rule::HostUnknownCluster,
                format!("the module called cluster `{name}`, which is not there, and was given result {result}"),
            )
            .help("what the module does with an answer is not covered by this verdict")
        });
        self.report(root_id, findings.collect());
    }

    fn delete_root(&mut self, root_id: &str, instance: &mut Instance, root: u32) {
        let callbacks = instance.live_callbacks();
        if let Some(delete) = callbacks.and_then(|callbacks| callbacks.on_delete.clone()) {
            let result = instance.call("proxy_on_delete", &delete, root, root);
            self.end_callback(root_id, instance, result);
        }
    }

    fn end_callback(
        &mut self,
        root_id: &str,
        instance: &mut Instance,
        result: Result<(), Box<Trap>>,
    ) -> Vec<Deferred> {
        let end = instance.end_call();
        for trap in result.err().into_iter().chain(end.trap) {
            let finding = self.trap(&trap, "of the root context");
            self.report(root_id, vec![finding]);
        }
        end.deferred
    }

    fn trap(&mut self, trap: &Trap, place: &str) -> Finding {
        let names = self.options.has_function_names;
        match &trap.kind {
            TrapKind::Guest(_) => trap_finding(Rule::RunTrap, trap, names, &format!(" ({place})"))
                .help(if self.options.connections.is_empty() {
                    "Envoy answers this request with 503, and every later one on the same worker unless failure_policy says otherwise (FAIL_OPEN: without the filter, FAIL_RELOAD: a new VM): see the module's log lines and the backtrace"
                } else {
                    "Envoy closes this connection, and every later one on the same worker unless failure_policy says otherwise (FAIL_OPEN: without the filter, FAIL_RELOAD: a new VM): see the module's log lines and the backtrace"
                }),
            TrapKind::Restricted { function } => trap_finding(
                Rule::RunTrap,
                trap,
                names,
                &format!(" ({place}): the allocator called `{function}`, which Envoy forbids there"),
            )
            .help("the allocator may only log and read the clock"),
            TrapKind::Timeout => Finding::error(
                Rule::RunTimeout,
                format!("`{}` ({place}) did not end within its time: Envoy has no limit, and the worker thread would hang with all its connections", trap.function),
            )
            .evidence(trap.backtrace.iter().cloned())
            .help("find the loop by the backtrace; if the work only takes long, raise --callback-timeout to see it through"),
            _ => {
                self.undecided |= matches!(trap.kind, TrapKind::Limit(_));
                hazard_finding(trap, &format!("`{}` ({place})", trap.function))
            }
        }
    }

    /// Reports what went wrong in an exchange or connection; answers whether there is no use in another one.
    fn incidents(
        &mut self,
        root_id: &str,
        (kind, name): (&str, &str),
        incidents: Vec<Incident>,
        instance: &Instance,
    ) -> bool {
        let mut over = false;
        let trapped = incidents.iter().any(|incident| matches!(incident, Incident::Trap(_)));
        for incident in incidents {
            match incident {
                Incident::Trap(trap) => {
                    // Envoy shares the VM among all streams of a worker: one that it does not survive
                    // was the last.
                    over |= !trap.is_the_guests();
                    let finding = self.trap(&trap, &format!("{kind} `{name}`"));
                    self.report(root_id, vec![finding]);
                }
                // The consequence of a trap, not a cause.
                _ if trapped => {}
                incident => {
                    let finding = incident_finding(&incident, instance).root(root_id);
                    self.report_for_exchange(finding, kind, name);
                }
            }
        }
        over
    }

    /// What goes wrong in several exchanges or connections is one finding, with their names at its end.
    fn report_for_exchange(&mut self, mut finding: Finding, kind: &str, name: &str) {
        let place = format!(" ({kind}");
        let same = |known: &&mut Finding| {
            known.rule == finding.rule
                && known.root_id == finding.root_id
                && known
                    .message
                    .strip_prefix(finding.message.as_str())
                    .is_some_and(|rest| rest.starts_with(&place))
        };
        match self.findings.iter_mut().find(same) {
            Some(known) => {
                known.message.pop();
                known.message.push_str(&format!(", `{name}`)"));
            }
            None => {
                finding.message.push_str(&format!("{place} `{name}`)"));
                self.findings.push(finding);
            }
        }
    }
}
