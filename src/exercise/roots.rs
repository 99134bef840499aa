//! Every root_id in turn: load, exchanges, shutdown, and the two controls.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    bench::PhaseClock,
    host::{Environment, LogLine, Plugin, Process, TracedCall},
    verdict::{Finding, Rule, Severity},
    vm::{Instance, Template},
};

use super::{
    connection::{Connection, ConnectionResult},
    exchange::{Exchange, ExchangeResult},
    load::{load_base, load_plugin},
    policy::FailurePolicy,
};

/// What to exercise and with what.
#[derive(Debug, Clone)]
pub struct ExerciseOptions {
    /// The root_ids, in order. Without one the empty root_id is exercised.
    pub root_ids: Vec<String>,
    /// The plugin, but for its root_id.
    pub plugin: Plugin,
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
    /// How many workers share the traffic; 0 counts as 1.
    pub workers: usize,
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
    /// What it logged while no stream ran: in ticks and other events, and at its end.
    pub idle_logs: Vec<LogLine>,
    /// The exchanges.
    pub exchanges: Vec<ExchangeResult>,
    /// The TCP connections.
    pub connections: Vec<ConnectionResult>,
    /// Counters and gauges that the module defined, `name: value` in the order of their names, as they
    /// are behind the traffic.
    pub metrics: Vec<String>,
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
    /// The load of a worker, and what it does before the first request.
    Worker,
    /// The exchange of this name.
    Exchange(String),
    /// The TCP connection of this name.
    Connection(String),
    /// The root's last tick and end.
    End,
}

impl RootRun {
    pub(super) fn note_trace(&mut self, stage: TraceStage, calls: Vec<TracedCall>) {
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
    let base = load_base(template, &options.plugin.with_root_id(""), names, &mut all.base_phases);
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

/// The run of one root.
pub(super) struct Run<'a> {
    pub template: &'a Template,
    pub options: &'a ExerciseOptions,
    pub findings: Vec<Finding>,
    pub undecided: bool,
}

impl Run<'_> {
    fn root(&mut self, root_id: &str, called: &mut Called) -> (RootRun, bool) {
        let names = self.options.has_function_names;
        let mut root = RootRun { root_id: root_id.to_owned(), ..RootRun::default() };
        let process = Arc::new(Process::within(self.options.environment.clone()));
        let plugin = self.options.plugin.with_root_id(root_id);
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
            self.serve(&plugin, &process, &mut root, called);
        }
        root.outcome = self
            .findings
            .iter()
            .find(|finding| finding.severity == Severity::Error)
            .map(|finding| finding.rule);
        (root, read_root_id)
    }

    pub(super) fn report(&mut self, root_id: &str, findings: Vec<Finding>) {
        self.findings.extend(findings.into_iter().map(|finding| finding.root(root_id)));
    }
}

pub(super) fn peak(instance: &Instance) -> usize {
    instance.state().limits.peak_memory_bytes
}

/// Functions that a report names where a module called them.
#[derive(Default)]
pub(super) struct Called {
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
pub(super) fn note_calls(instance: &Instance, seen: &mut Called) {
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
            &options.plugin.with_root_id(control),
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
