//! What a bench found out: the one structure that is shown, printed as JSON, saved, and read back as a
//! baseline. The names of its fields are an API.

use serde::{Deserialize, Serialize};

use crate::host::Counters;

use super::{
    machine::{Busyness, Fingerprint},
    phase::Phase,
    scale::Axis,
    stats::Summary,
};

/// The number that changes when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// One image, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When, in seconds since the epoch.
    pub created: u64,
    /// The reference as it was typed.
    pub reference: String,
    /// The proxy release as it was typed.
    pub target: String,
    /// The Envoy in it.
    pub envoy: String,
    /// By what it was measured.
    pub fingerprint: Fingerprint,
    /// The module.
    pub module: ModuleSize,
    /// What was measured, compiler by compiler.
    pub measured: Vec<Measured>,
    /// How the cost grows, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub scale: Vec<Axis>,
    /// The same module in a real Envoy, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub in_envoy: Option<InEnvoy>,
    /// Why the processor's instructions were not counted; `None` where they were, and in measurements
    /// by an older filtergate.
    #[serde(default)]
    pub instructions_not_counted: Option<String>,
    /// How busy the machine was.
    pub busyness: Busyness,
    /// What a reader of the numbers should know before relying on them.
    pub warnings: Vec<String>,
}

/// What a real Envoy's own log says of a load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InEnvoy {
    /// Its release.
    pub release: String,
    /// How often it was started.
    pub runs: usize,
    /// The stretches of time that its log tells.
    pub phases: Vec<EnvoyPhase>,
    /// From its first line to where it serves, nanoseconds of wall time.
    pub ready_ns: Times,
    /// The same without the filter.
    pub without_filter_ns: Times,
}

/// A stretch of time between two lines of Envoy's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvoyPhase {
    /// As the phase here: `compile` is all from the line before the module to its first callback, with
    /// linking and instantiation.
    pub name: Phase,
    /// Wall time, nanoseconds.
    pub wall_ns: Times,
}

/// The size of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleSize {
    /// SHA-256 in lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Function bodies.
    pub functions: u64,
    /// Bytes of the code section.
    pub code_bytes: u64,
}

/// What was measured under one compiler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The compiler that ran, which made every figure of fuel here.
    pub compiler: String,
    /// Bytes of machine code that the module became.
    pub compiled_bytes: u64,
    /// The load, cold.
    pub load: Load,
    /// The same where a store has the module compiled. `None` where [`Self::not_from_store`] says why,
    /// and in measurements by an older filtergate.
    #[serde(default)]
    pub from_store: Option<Load>,
    /// Why no load from a store was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_from_store: Option<String>,
    /// Memory and traffic of each root.
    pub roots: Vec<Root>,
    /// Several workers, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workers: Option<Workers>,
    /// The CPU time of a piece of work that is always the same, measured in between.
    pub reference_ns: Times,
}

/// How a module comes to be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Anew in each load.
    Cold,
    /// A store has what was made of it before.
    FromStore,
}

impl Way {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::FromStore => "from the store",
        }
    }

    /// A load in this way under a compiler, as `winch, from the store`.
    pub fn of(self, compiler: &str) -> String {
        format!("{compiler}, {}", self.as_str())
    }
}

/// Loads in one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Loads that were not counted before those that were.
    pub warmup: u32,
    /// Loads that were.
    pub runs: usize,
    /// Whether fetch and verify were measured once only, and are not in the total.
    pub fetched_once: bool,
    /// The phases; those of a root for each root.
    pub phases: Vec<PhaseCost>,
    /// All phases together, for the first root.
    pub total: TimesPair,
}

/// What one phase costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseCost {
    /// Which.
    pub name: Phase,
    /// Whose, if it is a phase of a root.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root_id: Option<String>,
    /// Its times.
    #[serde(flatten)]
    pub times: TimesPair,
    /// What the guest did in it, counted in a run of its own.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Wall and CPU time of the same thing, and the instructions beside them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TimesPair {
    /// Wall time, nanoseconds.
    pub wall_ns: Times,
    /// CPU time, nanoseconds.
    pub cpu_ns: Times,
    /// Instructions in user mode by the processor's counter, of all threads. `None` where they were not
    /// counted, see [`BenchReport::instructions_not_counted`].
    #[serde(default)]
    pub instructions: Option<Times>,
}

/// Samples of one quantity, in nanoseconds or in instructions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// What they say; `None` without any.
    #[serde(flatten)]
    pub summary: Option<Summary>,
    /// All of them in order, where they are kept.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub samples: Vec<u64>,
}

impl Times {
    /// Of these samples.
    pub fn of(samples: Vec<u64>) -> Self {
        Self { summary: Summary::of(&samples), samples }
    }

    /// The median; 0 without samples.
    pub fn median(&self) -> u64 {
        self.summary.map_or(0, |summary| summary.median)
    }
}

/// Memory and traffic of a root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// Its root_id.
    pub root_id: String,
    /// The module's memory from stage to stage.
    pub memory: Vec<StageMemory>,
    /// What streams cost once the filter runs.
    pub exchanges: Vec<ExchangeCost>,
}

impl Root {
    /// The most memory that it had.
    pub fn peak_pages(&self) -> u64 {
        self.memory.iter().map(|stage| stage.pages).max().unwrap_or(0)
    }
}

/// The module's memory at the end of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageMemory {
    /// `instantiate`, `start`, `vm_start`, `configure`, `exchanges`.
    pub stage: String,
    /// Pages of 64 KiB, all memories together.
    pub pages: u64,
}

/// What an exchange (or a TCP connection) costs in the steady state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExchangeCost {
    /// Its name.
    pub name: String,
    /// Why it was not measured to its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failed: Option<String>,
    /// Whether it costs the same each time.
    pub steady: bool,
    /// What the guest did in it.
    #[serde(flatten)]
    pub counters: Counters,
    /// Its times, with the mock's client and upstream.
    #[serde(flatten)]
    pub times: TimesPair,
    /// Callback by callback.
    pub callbacks: Vec<CallbackRow>,
}

/// What the calls of one callback in an exchange cost together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackRow {
    /// The export.
    pub name: String,
    /// Calls of it in one exchange.
    pub calls: u64,
    /// What the guest did in them.
    #[serde(flatten)]
    pub counters: Counters,
    /// Wall time, nanoseconds; the median.
    pub wall_ns: u64,
    /// CPU time, nanoseconds; the median.
    pub cpu_ns: u64,
}

/// Several workers of one Envoy, each with an instance of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// How many.
    pub count: usize,
    /// Wall and CPU time to start one, with its configuration.
    pub start: TimesPair,
    /// Bytes of the module's memory in one, after an exchange of each kind.
    pub memory_bytes_each: u64,
    /// In all of them.
    pub memory_bytes: u64,
    /// Bytes that the process has in RAM more than before them; `None` where the system does not tell.
    pub resident_bytes: Option<u64>,
}

impl Measured {
    /// The loads that were measured, and in which way.
    pub fn loads(&self) -> impl Iterator<Item = (Way, &Load)> {
        let stored = self.from_store.iter().map(|load| (Way::FromStore, load));
        [(Way::Cold, &self.load)].into_iter().chain(stored)
    }
}

impl BenchReport {
    /// The same without the samples that its numbers were made of.
    #[must_use]
    pub fn without_samples(mut self) -> Self {
        let forget = |pair: &mut TimesPair| {
            pair.wall_ns.samples.clear();
            pair.cpu_ns.samples.clear();
            if let Some(instructions) = &mut pair.instructions {
                instructions.samples.clear();
            }
        };
        for measured in &mut self.measured {
            measured.reference_ns.samples.clear();
            for load in [&mut measured.load].into_iter().chain(&mut measured.from_store) {
                load.phases.iter_mut().for_each(|phase| forget(&mut phase.times));
                forget(&mut load.total);
            }
            for exchange in measured.roots.iter_mut().flat_map(|root| &mut root.exchanges) {
                forget(&mut exchange.times);
            }
            if let Some(workers) = &mut measured.workers {
                forget(&mut workers.start);
            }
        }
        if let Some(envoy) = &mut self.in_envoy {
            let phases = envoy.phases.iter_mut().map(|phase| &mut phase.wall_ns);
            phases.for_each(|times| times.samples.clear());
            envoy.ready_ns.samples.clear();
            envoy.without_filter_ns.samples.clear();
        }
        self
    }

    /// What was measured under this compiler.
    pub fn under(&self, compiler: &str) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.compiler == compiler)
    }
}
