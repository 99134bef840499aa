//! One load of a module, from its bytes to a configured root, and many of them: cold, and from a store
//! that has the module compiled.

use std::sync::Arc;

use crate::{
    exercise::{LoadRun, Loaded, load_plugin},
    host::{Environment, Plugin, Process},
    target::Target,
    verdict::check_statically,
    vm::{Artifacts, Template, VmOptions},
};

use super::{
    phase::{Phase, PhaseClock},
    reference::Reference,
    report::{Load, PhaseCost, Times, TimesPair},
    run_store::RunStore,
};
use crate::timing::PhaseTime;

/// Under which conditions a module is loaded.
#[derive(Debug, Clone)]
pub struct LoadConditions {
    /// The proxy release.
    pub target: Target,
    /// How guests run.
    pub vm: VmOptions,
    /// One plugin configuration for each root_id, at least one.
    pub plugins: Vec<Plugin>,
    /// What surrounds the filter.
    pub environment: Environment,
}

/// Why a load came to no end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadFailed(pub String);

/// Gets the bytes of a module anew, and adds the phases that this takes.
pub type Bytes<'a> = Box<dyn FnMut(&mut PhaseClock) -> Result<Vec<u8>, LoadFailed> + Send + 'a>;

/// A module that is to be measured under one compiler.
pub struct Subject<'a> {
    /// How it is loaded.
    pub conditions: LoadConditions,
    /// Where it comes from.
    pub bytes: Bytes<'a>,
    /// Fetch and verify, where they were measured once and `bytes` does not do them again.
    pub fetched_once: Option<(PhaseTime, PhaseTime)>,
}

/// A compiled module and the time that its load took.
pub struct TimedLoad {
    pub(super) template: Template,
    pub(super) names: bool,
    /// The phases, those of the first root among them.
    pub clock: PhaseClock,
    /// The clocks of the other roots, which only have phases of an instance.
    pub others: Vec<PhaseClock>,
}

/// Compiles a module as a load does, or gets it from `artifacts`, which have to be those of `wasm`.
pub(super) fn compile(
    wasm: &[u8],
    target: &Target,
    vm: &VmOptions,
    artifacts: Option<&Artifacts>,
    clock: &mut PhaseClock,
) -> Result<(Template, bool), LoadFailed> {
    let report = clock.measure(Phase::Parse, || check_statically(wasm, target));
    let loadable = report.is_loadable();
    let (true, Some(abi)) = (loadable, report.abi) else {
        let reason = report.findings.first().map(|finding| finding.message.clone());
        return Err(LoadFailed(reason.unwrap_or_else(|| "it is no Proxy-Wasm module".to_owned())));
    };
    let facts = report.facts.unwrap_or_default();
    let template = Template::compile(wasm, facts, abi, target, vm, artifacts, clock)
        .map_err(|error| LoadFailed(error.to_string()))?;
    Ok((template, report.has_function_names))
}

/// Loads one plugin in a process of its own.
pub(super) fn load_root(
    template: &Template,
    names: bool,
    plugin: &Plugin,
    process: Process,
    clock: &mut PhaseClock,
) -> Result<Loaded, LoadFailed> {
    let run = load_plugin(template, plugin, &Arc::new(process), names, clock);
    match run {
        LoadRun { loaded: Some(loaded), accepted: true, .. } => Ok(loaded),
        run => {
            let reason = run.findings.first().map(|finding| finding.message.clone());
            Err(LoadFailed(reason.unwrap_or_else(|| "it was refused".to_owned())))
        }
    }
}

/// Loads a module as Envoy does: static checks, compile, link, and for each root instantiate, start,
/// `proxy_on_vm_start`, `proxy_on_configure`.
///
/// It must run on a thread for guests, see [`crate::vm::on_a_guest_thread`].
///
/// # Errors
///
/// Where Envoy would refuse the module, or it cannot be run here.
pub fn cold_load(
    wasm: &[u8],
    conditions: &LoadConditions,
    clock: PhaseClock,
) -> Result<TimedLoad, LoadFailed> {
    load(wasm, conditions, None, clock)
}

/// The same where the module may be compiled already.
fn load(
    wasm: &[u8],
    conditions: &LoadConditions,
    artifacts: Option<&Artifacts>,
    mut clock: PhaseClock,
) -> Result<TimedLoad, LoadFailed> {
    let LoadConditions { target, vm, plugins, environment } = conditions;
    let (template, names) = compile(wasm, target, vm, artifacts, &mut clock)?;
    let mut others = Vec::new();
    for (index, plugin) in plugins.iter().enumerate() {
        let process = Process::within(environment.clone());
        if index == 0 {
            load_root(&template, names, plugin, process, &mut clock)?;
        } else {
            let mut clock = PhaseClock::default();
            load_root(&template, names, plugin, process, &mut clock)?;
            others.push(clock);
        }
    }
    Ok(TimedLoad { template, names, clock, others })
}

/// The times of one subject's loads.
#[derive(Default)]
struct Series {
    /// By phase, those of the first root among them.
    first: Vec<PhaseClock>,
    /// Of the other roots, run by run.
    others: Vec<Vec<PhaseClock>>,
    reference_ns: Vec<u64>,
}

/// Where the code of a module comes from.
enum Code {
    /// It is compiled each time.
    Compiled,
    /// The store has it, as what was made of these bytes.
    Stored(Artifacts, Vec<u8>),
    /// The store does not, for this reason.
    NotStored(String),
}

/// The loads of one subject in one way.
struct Lane {
    subject: usize,
    code: Code,
    series: Series,
    last: Option<TimedLoad>,
}

impl Lane {
    fn new(subject: usize, code: Code) -> Self {
        Self { subject, code, series: Series::default(), last: None }
    }

    /// Loads the subject once. `None` where there is nothing in the store to load it from.
    fn run(&mut self, subject: &mut Subject<'_>) -> Result<Option<TimedLoad>, LoadFailed> {
        let artifacts = match &self.code {
            Code::Compiled => None,
            Code::Stored(artifacts, of) => Some((artifacts, of)),
            Code::NotStored(_) => return Ok(None),
        };
        let mut clock = PhaseClock::default();
        let wasm = (subject.bytes)(&mut clock)?;
        let lost = match artifacts {
            Some((_, of)) if *of != wasm => "the module was changed while it was measured",
            _ => {
                let artifacts = artifacts.map(|(artifacts, _)| artifacts);
                let loaded = load(&wasm, &subject.conditions, artifacts, clock)?;
                match loaded.clock.get(Phase::Artifact) {
                    None if artifacts.is_some() => "the compiled module was removed meanwhile",
                    _ => return Ok(Some(loaded)),
                }
            }
        };
        self.code = Code::NotStored(lost.to_owned());
        Ok(None)
    }
}

/// What came of one subject's loads.
pub(super) struct Loads {
    pub template: Template,
    pub names: bool,
    pub load: Load,
    /// The loads from the store, or why there were none.
    pub from_store: Result<Load, String>,
    pub reference_ns: Vec<u64>,
}

/// The order in which subjects take their turns: each second round runs backwards, so that a machine
/// that changes its speed changes it for all of them.
pub(super) fn turns(round: u32, count: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Loads each subject `warmup` times for nothing and `runs` times for the record, cold and from a store
/// of this run's own, in turns.
///
/// # Errors
///
/// With the first load that fails.
pub(super) fn sample(
    subjects: &mut [Subject<'_>],
    runs: u32,
    warmup: u32,
    reference: Option<&Reference>,
) -> Result<Vec<Loads>, LoadFailed> {
    let store = RunStore::new();
    let mut lanes = Vec::new();
    for (index, subject) in subjects.iter_mut().enumerate() {
        let wasm = (subject.bytes)(&mut PhaseClock::default())?;
        let kept = store.as_ref().map_err(String::clone);
        let kept = kept.and_then(|store| store.keep(&wasm, &subject.conditions));
        let code = match kept {
            Ok(artifacts) => Code::Stored(artifacts, wasm),
            Err(why) => Code::NotStored(why),
        };
        lanes.extend([Lane::new(index, Code::Compiled), Lane::new(index, code)]);
    }
    let rounds = warmup.saturating_add(runs);
    for round in 0..rounds {
        for index in turns(round, lanes.len()) {
            let lane = &mut lanes[index];
            // Before each, so that all find the same in the processor's caches.
            let reference_ns = reference.map(Reference::run);
            let Some(loaded) = lane.run(&mut subjects[lane.subject])? else { continue };
            if round >= warmup {
                lane.series.first.push(loaded.clock.clone());
                lane.series.others.push(loaded.others.clone());
                lane.series.reference_ns.extend(reference_ns);
            }
            // To drop it takes time that belongs to no phase.
            if round + 1 == rounds {
                lane.last = Some(loaded);
            }
        }
    }
    let mut lanes = lanes.into_iter();
    let loads = subjects.iter().map(|subject| {
        let nothing = || LoadFailed("nothing was measured".to_owned());
        let (cold, stored) = lanes.next().zip(lanes.next()).ok_or_else(nothing)?;
        let TimedLoad { template, names, .. } = cold.last.ok_or_else(nothing)?;
        let load = cold.series.load(warmup, subject);
        let from_store = match stored.code {
            Code::NotStored(why) => Err(why),
            Code::Compiled | Code::Stored(..) => Ok(stored.series.load(warmup, subject)),
        };
        let reference_ns = [cold.series.reference_ns, stored.series.reference_ns].concat();
        Ok(Loads { template, names, load, from_store, reference_ns })
    });
    loads.collect()
}

/// The phases that each root has of its own.
const OF_A_ROOT: [Phase; 2] = [Phase::VmStart, Phase::Configure];

impl Series {
    fn load(&self, warmup: u32, subject: &Subject<'_>) -> Load {
        let plugins = &subject.conditions.plugins;
        let mut phases = Vec::new();
        if let Some((fetch, verify)) = subject.fetched_once {
            for (name, time) in [(Phase::Fetch, fetch), (Phase::Verify, verify)] {
                phases.extend(phase_cost(name, None, [Some(time)]));
            }
        }
        for name in Phase::ALL {
            if !OF_A_ROOT.contains(&name) {
                let times = self.first.iter().map(|clock| clock.get(name));
                phases.extend(phase_cost(name, None, times));
            }
        }
        for (index, plugin) in plugins.iter().enumerate() {
            for name in OF_A_ROOT {
                let times: Vec<_> = match index.checked_sub(1) {
                    None => self.first.iter().map(|clock| clock.get(name)).collect(),
                    Some(other) => {
                        let clocks = self.others.iter().map(|clocks| clocks.get(other));
                        clocks.map(|clock| clock.and_then(|clock| clock.get(name))).collect()
                    }
                };
                phases.extend(phase_cost(name, Some(&plugin.root_id), times));
            }
        }
        Load {
            warmup,
            runs: self.first.len(),
            fetched_once: subject.fetched_once.is_some(),
            phases,
            total: pair(self.first.iter().map(PhaseClock::total)),
        }
    }
}

/// The cost of a phase that took place; what was counted in it comes later.
fn phase_cost(
    name: Phase,
    root_id: Option<&str>,
    times: impl IntoIterator<Item = Option<PhaseTime>>,
) -> Option<PhaseCost> {
    let times: Vec<_> = times.into_iter().flatten().collect();
    (!times.is_empty()).then(|| PhaseCost {
        name,
        root_id: root_id.map(str::to_owned),
        times: pair(times.into_iter()),
        counters: Default::default(),
    })
}

/// Wall times, CPU times and instructions as series; instructions where each of `times` has them.
pub(super) fn pair(times: impl Iterator<Item = PhaseTime>) -> TimesPair {
    let times: Vec<_> = times.collect();
    let of = |value: fn(&PhaseTime) -> u64| Times::of(times.iter().map(value).collect());
    let instructions: Option<Vec<u64>> = times.iter().map(|time| time.instructions).collect();
    TimesPair {
        wall_ns: of(|time| time.wall_ns),
        cpu_ns: of(|time| time.cpu_ns),
        instructions: instructions.filter(|counts| !counts.is_empty()).map(Times::of),
    }
}
