//! Every root_id in turn: load, exchanges, shutdown, and the two controls.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    bench::PhaseClock,
    host::{Deferred, Environment, LogLine, Plugin, Process, TracedCall},
    verdict::{Finding, Rule, Severity},
    vm::{Instance, Template, Trap, TrapKind},
};

use super::{
    connection::{Connection, ConnectionResult},
    exchange::{Exchange, ExchangeResult},
    http::run_exchange,
    incident::{Incident, incident_finding},
    load::{LoadRun, Loaded, hazard_finding, load_base, load_plugin, trap_finding},
    policy::{FailurePolicy, RELOAD_AFTER_NS},
    tcp::run_connection,
};

/// What to exercise and with what.
#[derive(Debug, Clone)]
pub struct ExerciseOptions {
    /// The root_ids, in order. Without one the empty root_id is exercised.
    pub root_ids: Vec<String>,
    /// The plugin configuration.
    pub configuration: Vec<u8>,
    /// The VM configuration.
    pub vm_configuration: Vec<u8>,
    /// The VM's environment variables.
    pub environment_variables: BTreeMap<String, String>,
    /// The capabilities that the module has; none is all.
    pub allowed_capabilities: Vec<String>,
    /// Whether a headers callback may stop the headers alone.
    pub allow_on_headers_stop_iteration: bool,
    /// The VM's id.
    pub vm_id: String,
    /// The plugin's name.
    pub plugin_name: String,
    /// The exchanges of each root.
    pub exchanges: Vec<Exchange>,
    /// The TCP connections of each root; where there are any the module is a network filter.
    pub connections: Vec<Connection>,
    /// Whether to try an unknown root_id and the empty one as controls.
    pub controls: bool,
    /// Whether Envoy prints backtraces for this module.
    pub has_function_names: bool,
    /// What surrounds the filter.
    pub environment: Environment,
    /// What becomes of requests whose VM failed.
    pub failure_policy: FailurePolicy,
    /// After this long no further root is begun.
    pub budget: Duration,
}

/// Most root_ids that are exercised; an image may declare any number.
const MAX_ROOTS: usize = 64;

/// A root_id that no module knows.
const UNKNOWN_ROOT_ID: &str = "filtergate-unknown-root-id";

/// What came of one root.
#[derive(Debug, Clone, Default)]
pub struct RootRun {
    /// The root_id.
    pub root_id: String,
    /// Whether Envoy would accept the configuration for it.
    pub accepted: bool,
    /// The first error's rule, if any.
    pub outcome: Option<Rule>,
    /// What the module logged while it loaded.
    pub logs: Vec<LogLine>,
    /// The exchanges.
    pub exchanges: Vec<ExchangeResult>,
    /// The TCP connections.
    pub connections: Vec<ConnectionResult>,
    /// Times of instantiate, start, vm_start and configure.
    pub phases: PhaseClock,
    /// Most memory that an instance had, bytes.
    pub peak_memory_bytes: usize,
    /// What crossed the boundary, where that is traced, stage by stage.
    pub trace: Vec<TraceSection>,
}

/// The calls of one stage of a root's run.
#[derive(Debug, Clone)]
pub struct TraceSection {
    /// The stage.
    pub stage: TraceStage,
    /// The calls in order.
    pub calls: Vec<TracedCall>,
}

/// A stage of a root's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceStage {
    /// The load of the canary, which is thrown away.
    Canary,
    /// The load of the worker.
    Worker,
    /// The exchange of this name.
    Exchange(String),
    /// The TCP connection of this name.
    Connection(String),
    /// The root's last tick and end.
    End,
}

impl RootRun {
    fn note_trace(&mut self, stage: TraceStage, calls: Vec<TracedCall>) {
        if !calls.is_empty() {
            self.trace.push(TraceSection { stage, calls });
        }
    }
}

/// What came of all roots.
#[derive(Debug, Clone, Default)]
pub struct Exercised {
    /// One for each root_id.
    pub roots: Vec<RootRun>,
    /// What the module logged in the base VM.
    pub base_logs: Vec<LogLine>,
    /// What crossed the boundary in the base VM, where that is traced.
    pub base_trace: Vec<TracedCall>,
    /// Times of instantiate and start in the base VM.
    pub base_phases: PhaseClock,
    /// What was found, root by root.
    pub findings: Vec<Finding>,
    /// Something of filtergate's own kept the exercise from its end.
    pub undecided: bool,
}

/// Exercises `template` as `options` say.
pub fn exercise(template: &Template, options: &ExerciseOptions) -> Exercised {
    let begun = Instant::now();
    let mut all = Exercised::default();
    let mut root_ids = options.root_ids.clone();
    if root_ids.is_empty() {
        root_ids.push(String::new());
    }
    let names = options.has_function_names;
    let base = load_base(template, &plugin(options, ""), names, &mut all.base_phases);
    (all.base_logs, all.base_trace) = (base.logs, base.trace);
    if let Some(finding) = base.finding {
        // No root was begun: the reason is the module's, not a root's.
        let outcome = Some(finding.rule);
        let failed =
            |root_id: &String| RootRun { root_id: root_id.clone(), outcome, ..RootRun::default() };
        all.roots = root_ids.iter().take(MAX_ROOTS).map(failed).collect();
        all.undecided = finding.rule == Rule::LimitReached;
        all.findings.push(finding);
        return all;
    }
    let mut called = Called::default();
    let mut reads_root_id = false;
    for (index, root_id) in root_ids.iter().enumerate() {
        if index >= MAX_ROOTS || begun.elapsed() > options.budget {
            let why = if index >= MAX_ROOTS {
                format!("only the first {MAX_ROOTS} are")
            } else {
                format!("{} s were used up", options.budget.as_secs())
            };
            all.findings.push(
                Finding::warning(
                    Rule::RootNotExercised,
                    format!(
                        "{} of {} root_ids were not exercised: {why}",
                        root_ids.len() - index,
                        root_ids.len()
                    ),
                )
                .help("name those that matter with --root-id"),
            );
            all.undecided = true;
            break;
        }
        let mut run = Run { template, options, findings: Vec::new(), undecided: false };
        let (root, read) = run.root(root_id, &mut called);
        reads_root_id |= read;
        all.undecided |= run.undecided;
        all.findings.extend(run.findings);
        all.roots.push(root);
    }
    // A module that loads nowhere, or that takes all the time there is, tells nothing by controls.
    let some_load = all.roots.iter().any(|root| root.accepted);
    if options.controls && some_load && begun.elapsed() <= options.budget {
        all.findings.extend(controls(template, options, &root_ids, reads_root_id));
    }
    all.findings.extend(called.findings());
    all
}

struct Run<'a> {
    template: &'a Template,
    options: &'a ExerciseOptions,
    findings: Vec<Finding>,
    undecided: bool,
}

impl Run<'_> {
    fn plugin(&self, root_id: &str) -> Plugin {
        plugin(self.options, root_id)
    }

    fn root(&mut self, root_id: &str, called: &mut Called) -> (RootRun, bool) {
        let names = self.options.has_function_names;
        let mut root = RootRun { root_id: root_id.to_owned(), ..RootRun::default() };
        let process = Arc::new(Process::within(self.options.environment.clone()));
        let plugin = self.plugin(root_id);
        let mut canary = load_plugin(self.template, &plugin, &process, names, &mut root.phases);
        root.logs = std::mem::take(&mut canary.logs);
        root.note_trace(TraceStage::Canary, std::mem::take(&mut canary.trace));
        root.accepted = canary.accepted;
        self.undecided |= canary.was_given_up();
        let read_root_id = canary.loaded.as_ref().is_some_and(|l| l.instance.state().read_root_id);
        if let Some(loaded) = &canary.loaded {
            note_calls(&loaded.instance, called);
            root.peak_memory_bytes = peak(&loaded.instance);
        }
        self.report(root_id, canary.findings);
        // Envoy throws the canary away and starts each worker anew.
        if canary.accepted {
            drop(canary.loaded);
            self.serve(root_id, &plugin, &process, &mut root, called);
        }
        root.outcome = self
            .findings
            .iter()
            .find(|finding| finding.severity == Severity::Error)
            .map(|finding| finding.rule);
        (root, read_root_id)
    }

    fn serve(
        &mut self,
        root_id: &str,
        plugin: &Plugin,
        process: &Arc<Process>,
        root: &mut RootRun,
        called: &mut Called,
    ) {
        let names = self.options.has_function_names;
        let mut clock = PhaseClock::default();
        let mut worker = load_plugin(self.template, plugin, process, names, &mut clock);
        root.note_trace(TraceStage::Worker, std::mem::take(&mut worker.trace));
        let LoadRun { loaded: Some(mut worker), accepted: true, .. } = worker else {
            let why = worker.findings.first().map_or(String::new(), |f| format!(": {}", f.message));
            self.undecided |= worker.was_given_up();
            self.report(
                root_id,
                vec![
                    Finding::error(
                        Rule::RootWorkerDiffers,
                        format!("the first instance loaded and the second did not{why}"),
                    )
                    .envoy("Wasm VM failed Failed to configure thread-local Wasm plugin")
                    .help("Envoy starts the module once for each worker thread, and skips the filter silently where that fails: make start and configure give the same answer every time"),
                ],
            );
            return;
        };
        for exchange in &self.options.exchanges {
            let passed_by = self.renew_failed(&mut worker, plugin, process);
            let (result, incidents) = run_exchange(&mut worker, exchange, passed_by);
            let trace = worker.instance.state_mut().take_trace();
            root.note_trace(TraceStage::Exchange(exchange.name.clone()), trace);
            root.exchanges.push(result);
            let place = ("exchange", exchange.name.as_str());
            if self.incidents(root_id, place, incidents, &worker.instance) {
                break;
            }
        }
        for connection in &self.options.connections {
            let passed_by = self.renew_failed(&mut worker, plugin, process);
            let (result, incidents) = run_connection(&mut worker, connection, passed_by);
            let trace = worker.instance.state_mut().take_trace();
            root.note_trace(TraceStage::Connection(connection.name.clone()), trace);
            root.connections.push(result);
            let place = ("connection", connection.name.as_str());
            if self.incidents(root_id, place, incidents, &worker.instance) {
                break;
            }
        }
        self.wind_down(root_id, &mut worker);
        self.unknown_clusters(root_id, &worker.instance);
        root.note_trace(TraceStage::End, worker.instance.state_mut().take_trace());
        note_calls(&worker.instance, called);
        root.peak_memory_bytes = root.peak_memory_bytes.max(peak(&worker.instance));
        let dropped = worker.instance.state().logs.dropped();
        if dropped > 0 {
            self.report(
                root_id,
                vec![Finding::note(
                    Rule::LimitReached,
                    format!("{dropped} log lines of the module were not kept"),
                )],
            );
        }
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
                let names = self.options.has_function_names;
                let mut clock = PhaseClock::default();
                let again = load_plugin(self.template, plugin, process, names, &mut clock);
                // One that does not start anew stays the failed one.
                if let Some(loaded) = again.loaded.filter(|_| again.accepted) {
                    *worker = loaded;
                }
                false
            }
        }
    }

    /// A tick if the root asked for ticks, then the root's end.
    fn wind_down(&mut self, root_id: &str, worker: &mut Loaded) {
        let Loaded { instance, root } = worker;
        let root = *root;
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
        let finished = match result {
            Ok(0) => {
                if let Some(context) = instance.state_mut().contexts.get_mut(&root) {
                    context.pending_done = true;
                }
                // The module will say when it is done; after a tick at the latest here.
                instance.end_call().deferred.contains(&Deferred::RootDone(root))
            }
            Ok(_) => {
                instance.end_call();
                true
            }
            Err(trap) => {
                self.end_callback(root_id, instance, Err(trap));
                false
            }
        };
        if finished {
            self.delete_root(root_id, instance, root);
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
    ) {
        let late = instance.end_call().trap;
        for trap in result.err().into_iter().chain(late) {
            let finding = self.trap(&trap, "of the root context");
            self.report(root_id, vec![finding]);
        }
    }

    fn trap(&mut self, trap: &Trap, place: &str) -> Finding {
        let names = self.options.has_function_names;
        match &trap.kind {
            TrapKind::Guest(_) => trap_finding(Rule::RunTrap, trap, names, &format!(" ({place})"))
                .help(if self.options.connections.is_empty() {
                    "Envoy answers this request with 503, and every later one on the same worker: see the module's log lines and the backtrace"
                } else {
                    "Envoy closes this connection, and every later one on the same worker: see the module's log lines and the backtrace"
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

    fn report(&mut self, root_id: &str, findings: Vec<Finding>) {
        self.findings.extend(findings.into_iter().map(|finding| finding.root(root_id)));
    }
}

fn plugin(options: &ExerciseOptions, root_id: &str) -> Plugin {
    Plugin {
        name: options.plugin_name.clone(),
        root_id: root_id.to_owned(),
        vm_id: options.vm_id.clone(),
        configuration: options.configuration.clone(),
        vm_configuration: options.vm_configuration.clone(),
        environment_variables: options.environment_variables.clone(),
        allowed_capabilities: options.allowed_capabilities.clone(),
        allow_on_headers_stop_iteration: options.allow_on_headers_stop_iteration,
    }
}

fn peak(instance: &Instance) -> usize {
    instance.state().limits.peak_memory_bytes
}

/// Functions that a report names where a module called them.
#[derive(Default)]
struct Called {
    /// Foreign functions without a model.
    not_modelled: BTreeSet<&'static str>,
    /// Those that the capabilities leave out, with Envoy's line.
    restricted: BTreeMap<&'static str, String>,
}

impl Called {
    fn findings(self) -> impl Iterator<Item = Finding> {
        let restricted = self.restricted.into_iter().map(|(name, line)| {
            Finding::note(
                Rule::HostRestricted,
                format!("the module called `{name}`, which its capabilities leave out: the call fails"),
            )
            .envoy(line)
            .help("allow it (--allow-capability; allowed_capabilities in the proxy's configuration) if the module needs it")
        });
        not_modelled_finding(&self.not_modelled).into_iter().chain(restricted)
    }
}

/// Takes note of the functions to be named that the instance called.
fn note_calls(instance: &Instance, seen: &mut Called) {
    seen.not_modelled.extend(&instance.state().foreign_not_modelled);
    seen.restricted.extend(instance.state().restricted_calls());
}

fn not_modelled_finding(seen: &BTreeSet<&str>) -> Option<Finding> {
    if seen.is_empty() {
        return None;
    }
    let names: Vec<_> = seen.iter().map(|name| format!("`{name}`")).collect();
    Some(
        Finding::note(
            Rule::HostNotModelled,
            format!(
                "the module called the foreign functions {}, which are not modelled: it was answered as by an Envoy that is built without them",
                names.join(", ")
            ),
        )
        .help("what the module does with a successful call is not covered by this verdict"),
    )
}

/// What the module does with a root_id that it does not know, and with the empty one.
fn controls(
    template: &Template,
    options: &ExerciseOptions,
    root_ids: &[String],
    reads_root_id: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut reads = reads_root_id;
    let mut all_accepted = true;
    for control in [UNKNOWN_ROOT_ID, ""] {
        if root_ids.iter().any(|root_id| root_id == control) {
            continue;
        }
        let mut clock = PhaseClock::default();
        let process = Arc::new(Process::new());
        let run = load_plugin(
            template,
            &plugin(options, control),
            &process,
            options.has_function_names,
            &mut clock,
        );
        reads |= run.loaded.as_ref().is_some_and(|loaded| loaded.instance.state().read_root_id);
        all_accepted &= run.accepted && run.findings.is_empty();
        let label = if control.is_empty() { "the empty root_id" } else { "an unknown root_id" };
        let what = match run.findings.first() {
            Some(finding) if finding.severity == Severity::Error => {
                format!("is refused: {}", finding.message)
            }
            Some(finding) => finding.message.clone(),
            None => "is accepted: it loads without a complaint".to_owned(),
        };
        let said = run
            .logs
            .iter()
            .rfind(|line| line.level >= crate::host::LogLevel::Warn)
            .map(|line| format!("; it logs: {}", line.message))
            .unwrap_or_default();
        findings.push(
            Finding::note(Rule::RootUnknownId, format!("{label} {what}{said}")).root(control),
        );
    }
    if !reads && all_accepted && !findings.is_empty() {
        findings.push(
            Finding::note(
                Rule::RootNotDistinguished,
                "the module never reads `plugin_root_id`: it behaves the same for any root_id",
            )
            .help("a wrong root_id in the proxy's configuration will go unnoticed"),
        );
    }
    findings
}
