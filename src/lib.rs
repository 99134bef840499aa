//! filtergate answers one question before a rollout: will this Wasm filter image load and behave in
//! the Envoy I run, and how fast does it load?
//!
//! A module travels one way:
//!
//! ```text
//! reference -> image -> module -> target -> vm -> exercise -> verdict -> report
//! ```
//!
//! [`parity`] stands behind all of it: it runs the same module in a real Envoy and compares.
//!
//! [`check`] takes a reference all that way to a [`Verdict`]; [`judge`] begins with an image that was
//! fetched before. [`report`] shows verdicts.
#![warn(missing_docs)]

pub mod abi;
pub mod bench;
pub mod cli;
pub mod envoy_config;
pub mod exercise;
pub mod host;
pub mod image;
pub mod module;
pub mod parity;
pub mod report;
pub mod store;
pub mod target;
mod timing;
pub mod verdict;
pub mod vm;

use std::{borrow::Borrow, time::Duration};

use crate::{
    bench::{Phase, PhaseClock},
    exercise::{
        Connection, Exchange, ExerciseOptions, FailurePolicy, Filter, smoke_connections,
        smoke_exchanges,
    },
    host::{Environment, Plugin},
    image::{FetchOptions, Image, Progress, Source},
    target::Target,
    verdict::{Finding, Rule, Severity, StaticReport, Verdict},
    vm::{Artifacts, CompileError, Template, VmOptions, on_a_guest_thread},
};

/// The name under which modules run; control planes always give one.
const PLUGIN_NAME: &str = "filtergate";

/// What to check, and under which conditions.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// The proxy release.
    pub target: Target,
    /// How images are fetched.
    pub fetch: FetchOptions,
    /// How guests run.
    pub vm: VmOptions,
    /// The root_ids to exercise instead of the declared ones.
    pub root_ids: Vec<String>,
    /// The plugin, but for its root_id.
    pub plugin: Plugin,
    /// Where Envoy runs the module.
    pub filter: Filter,
    /// The exchanges of each root, for an HTTP filter.
    pub exchanges: Vec<Exchange>,
    /// The connections of each root, for a network filter.
    pub connections: Vec<Connection>,
    /// Whether to try an unknown root_id and the empty one as controls.
    pub controls: bool,
    /// What surrounds the filter.
    pub environment: Environment,
    /// What becomes of requests whose VM failed.
    pub failure_policy: FailurePolicy,
    /// How many workers share the traffic; 0 counts as 1.
    pub workers: usize,
    /// After this long no further root_id is begun.
    pub budget: Duration,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            target: Target::default(),
            fetch: FetchOptions::default(),
            vm: VmOptions::default(),
            root_ids: Vec::new(),
            plugin: Plugin { name: PLUGIN_NAME.to_owned(), ..Plugin::default() },
            filter: Filter::default(),
            exchanges: smoke_exchanges(),
            connections: smoke_connections(),
            controls: true,
            environment: Environment::default(),
            failure_policy: FailurePolicy::default(),
            workers: 1,
            budget: Duration::from_secs(60),
        }
    }
}

/// Fetches the image and judges it. This never fails: what goes wrong is in the verdict.
pub async fn check(
    source: &Source,
    reference: &str,
    options: &CheckOptions,
    progress: &dyn Progress,
) -> Verdict {
    match image::fetch(source, reference, &options.fetch, progress).await {
        Ok(image) => judge(&image, options),
        Err(error) => Verdict::of_image_error(reference, &options.target, &error),
    }
}

/// Judges an image: static checks, load, exchanges.
pub fn judge(image: &Image, options: &CheckOptions) -> Verdict {
    Judge::new(image).judge(options)
}

/// Judges one image under several targets: it is compiled once.
///
/// To drop it takes milliseconds after a large module, whose code is unmapped.
pub struct Judge<I> {
    image: I,
    /// Compiled by the first target that nothing static stands against.
    template: Option<Template>,
}

impl<I: Borrow<Image>> Judge<I> {
    /// Nothing is done yet.
    pub fn new(image: I) -> Self {
        Self { image, template: None }
    }

    /// The verdict under the options' target. All options but the target have to be the same from
    /// one call to the next.
    pub fn judge(&mut self, options: &CheckOptions) -> Verdict {
        judge_with(self.image.borrow(), options, &mut self.template)
    }
}

fn judge_with(image: &Image, options: &CheckOptions, template: &mut Option<Template>) -> Verdict {
    let mut verdict = Verdict::new(image, &options.target);
    verdict.filter = options.filter;
    verdict.phases.add(Phase::Fetch, image.fetch);
    verdict.phases.add(Phase::Verify, image.verify);
    let mut clock = PhaseClock::default();
    let report =
        clock.measure(Phase::Parse, || verdict::check_statically(&image.wasm, &options.target));
    verdict.phases.absorb(&clock);
    let config = image.runtime_config.as_ref();
    let declared = config.map_or(&[][..], |config| &config.abi_versions);
    verdict.findings.extend(verdict::check_declared_abi(declared, &report));
    verdict.set_module(image, &report);
    let facts = report.facts.as_ref();
    let other = facts.and_then(|facts| verdict::check_filter_kind(facts, options.filter));
    verdict.findings.extend(other);
    if report.is_loadable()
        && let Some(abi) = report.abi
    {
        execute(image, report, abi, options, template, &mut verdict);
        not_measured(&image.wasm, options, &mut verdict);
    } else {
        if options.vm.trace
            && let Some(abi) = report.abi
            && report.fails_only_by_exports()
        {
            start_all_the_same(image, &report, abi, options, &mut verdict);
        }
        verdict.findings.extend(report.findings);
        verdict.loads = Some(false);
    }
    verdict.conclude();
    verdict
}

/// Envoy starts the base VM of a module whose callbacks have wrong types before it refuses it: its
/// constructors run and may log. The verdict stands without it, so that only a trace takes the time.
fn start_all_the_same(
    image: &Image,
    report: &StaticReport,
    abi: abi::AbiVersion,
    options: &CheckOptions,
    verdict: &mut Verdict,
) {
    let facts = report.facts.clone().unwrap_or_default();
    let mut clock = PhaseClock::default();
    let (target, vm) = (&options.target, &options.vm);
    let artifacts = artifacts(image, options);
    let template =
        Template::compile(&image.wasm, facts, abi, target, vm, artifacts.as_ref(), &mut clock);
    let Ok(template) = template else { return };
    let plugin = Plugin { name: PLUGIN_NAME.to_owned(), ..Plugin::default() };
    let names = report.has_function_names;
    let base = on_a_guest_thread(|| exercise::load_base(&template, &plugin, names, &mut clock));
    if let Ok(base) = base {
        (verdict.base_logs, verdict.base_trace) = (base.logs, base.trace);
    }
}

/// What the store has of the image's module.
fn artifacts(image: &Image, options: &CheckOptions) -> Option<Artifacts> {
    options.fetch.store.as_ref().map(|store| Artifacts::new(store, &image.wasm_sha256))
}

/// Compiles the module and exercises its roots.
fn execute(
    image: &Image,
    report: StaticReport,
    abi: abi::AbiVersion,
    options: &CheckOptions,
    template: &mut Option<Template>,
    verdict: &mut Verdict,
) {
    let StaticReport { facts, findings, has_function_names, .. } = report;
    verdict.findings.extend(findings);
    let template = match template {
        Some(template) => {
            template.set_target(&options.target);
            template
        }
        None => {
            let mut clock = PhaseClock::default();
            let compiled = Template::compile(
                &image.wasm,
                facts.unwrap_or_default(),
                abi,
                &options.target,
                &options.vm,
                artifacts(image, options).as_ref(),
                &mut clock,
            );
            verdict.phases.absorb(&clock);
            match compiled {
                Ok(compiled) => template.insert(compiled),
                Err(error) => {
                    compile_failed(&image.wasm, error, verdict);
                    return;
                }
            }
        }
    };
    verdict.compiler = Some(template.compiler());
    let (exchanges, connections) = match options.filter {
        Filter::Http => (options.exchanges.clone(), Vec::new()),
        Filter::Network => (Vec::new(), options.connections.clone()),
    };
    let exercise_options = ExerciseOptions {
        root_ids: root_ids(options, image),
        plugin: options.plugin.clone(),
        exchanges,
        connections,
        controls: options.controls,
        has_function_names,
        environment: options.environment.clone(),
        failure_policy: options.failure_policy,
        workers: options.workers,
        budget: options.budget,
    };
    let exercised = on_a_guest_thread(|| exercise::exercise(template, &exercise_options));
    let exercised = match exercised {
        Ok(exercised) => exercised,
        Err(error) => {
            verdict.findings.push(Finding::warning(Rule::LimitReached, error.to_string()));
            verdict.undecided = true;
            return;
        }
    };
    // A load that filtergate itself gave up says nothing of Envoy's.
    verdict.loads = exercised
        .roots
        .first()
        .map(|root| root.accepted)
        .filter(|accepted| *accepted || !exercised.undecided);
    verdict.phases.absorb(&exercised.base_phases);
    if let Some(first) = exercised.roots.first() {
        verdict.phases.absorb_only(&first.phases, &[Phase::VmStart, Phase::Configure]);
    }
    verdict.base_logs = exercised.base_logs;
    verdict.base_trace = exercised.base_trace;
    verdict.undecided |= exercised.undecided;
    verdict.findings.extend(exercised.findings);
    verdict.roots = exercised.roots;
}

/// The root_ids to exercise: those that were asked for, else those that the image declares.
pub(crate) fn root_ids(options: &CheckOptions, image: &Image) -> Vec<String> {
    let mut root_ids = options.root_ids.clone();
    if root_ids.is_empty()
        && let Some(config) = &image.runtime_config
    {
        root_ids.clone_from(&config.root_ids);
    }
    let mut seen = std::collections::HashSet::new();
    root_ids.retain(|root_id| seen.insert(root_id.clone()));
    root_ids
}

fn compile_failed(bytes: &[u8], error: CompileError, verdict: &mut Verdict) {
    let finding = match error {
        CompileError::Invalid(invalid) => {
            verdict.loads = Some(false);
            verdict::invalid_body(bytes, &invalid)
        }
        CompileError::Unsupported(reason) => {
            // Nothing static stands against it, and Envoy's engine takes it.
            verdict.loads = Some(true);
            verdict.undecided = true;
            Finding::warning(
                Rule::ModuleFeature,
                format!("Envoy's engine takes this module and no compiler here does, so that it was not run: {reason}"),
            )
            .help("the static checks found nothing against it; legacy exceptions go away with emscripten's -sWASM_LEGACY_EXCEPTIONS=0 or -fno-exceptions")
        }
        CompileError::Machine(reason) => {
            verdict.undecided = true;
            Finding::warning(
                Rule::LimitReached,
                format!("this machine cannot run modules: {reason}"),
            )
        }
    };
    verdict.findings.push(finding);
}

/// Says where the verdict rests on what was not measured: on wasm proposals in a V8 that was not at
/// hand. What V8's own list has off leaves the verdict open.
fn not_measured(bytes: &[u8], options: &CheckOptions, verdict: &mut Verdict) {
    if verdict.loads == Some(false) {
        return;
    }
    let findings = verdict::check_proposals(bytes, &options.target);
    if findings.iter().any(|finding| finding.severity == Severity::Warning) {
        verdict.loads = None;
        verdict.undecided = true;
    }
    verdict.findings.extend(findings);
}
