//! The phases of a load, and a clock for them.

use crate::{
    host::Counters,
    timing::{PhaseTime, Stopwatch},
};

/// A phase of a load.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Getting the bytes of the image.
    Fetch,
    /// Digests, sizes, unpacking.
    Verify,
    /// Reading the module's sections, and the static checks.
    Parse,
    /// Getting from the store what was compiled before, instead of compiling.
    Artifact,
    /// Compiling, which validates function bodies.
    Compile,
    /// Tying imports to host functions.
    Link,
    /// Memories, segments, the start section.
    Instantiate,
    /// `_initialize`, `_start`, `main`.
    Start,
    /// `proxy_on_context_create` and `proxy_on_vm_start` of the root.
    VmStart,
    /// `proxy_on_configure`.
    Configure,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 10] = [
        Self::Fetch,
        Self::Verify,
        Self::Parse,
        Self::Artifact,
        Self::Compile,
        Self::Link,
        Self::Instantiate,
        Self::Start,
        Self::VmStart,
        Self::Configure,
    ];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Verify => "verify",
            Self::Parse => "parse",
            Self::Artifact => "artifact",
            Self::Compile => "compile",
            Self::Link => "link",
            Self::Instantiate => "instantiate",
            Self::Start => "start",
            Self::VmStart => "vm_start",
            Self::Configure => "configure",
        }
    }
}

/// What an instance had done and had at the end of a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PhaseEnd {
    /// What it had done since it was made.
    pub counters: Counters,
    /// Bytes of all its memories.
    pub memory_bytes: u64,
}

/// Collects the times of phases. A phase that did not take place has no time.
#[derive(Debug, Clone, Default)]
pub struct PhaseClock {
    times: [Option<PhaseTime>; Phase::ALL.len()],
    ends: [Option<PhaseEnd>; Phase::ALL.len()],
}

impl PhaseClock {
    /// Runs `work`, which stays on this thread, as (a part of) `phase`.
    pub fn measure<T>(&mut self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let watch = Stopwatch::thread();
        let result = work();
        self.add(phase, watch.elapsed());
        result
    }

    /// Adds time that was measured elsewhere.
    pub fn add(&mut self, phase: Phase, time: PhaseTime) {
        *self.times[phase as usize].get_or_insert_default() += time;
    }

    /// The time of one phase.
    pub fn get(&self, phase: Phase) -> Option<PhaseTime> {
        self.times[phase as usize]
    }

    /// Notes what stood at the end of `phase`.
    pub fn end(&mut self, phase: Phase, end: PhaseEnd) {
        self.ends[phase as usize] = Some(end);
    }

    /// What stood at the end of `phase`, if an instance ran in it.
    pub fn end_of(&self, phase: Phase) -> Option<PhaseEnd> {
        self.ends[phase as usize]
    }

    /// The phases that took place, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, PhaseTime)> {
        Phase::ALL.into_iter().filter_map(|phase| Some((phase, self.get(phase)?)))
    }

    /// All phases together.
    pub fn total(&self) -> PhaseTime {
        let mut total = PhaseTime::default();
        for (_, time) in self.iter() {
            total += time;
        }
        total
    }

    /// Adds these times of another clock.
    pub fn absorb_only(&mut self, other: &Self, phases: &[Phase]) {
        for (phase, time) in other.iter().filter(|(phase, _)| phases.contains(phase)) {
            self.add(phase, time);
        }
    }

    /// Adds all times of another clock.
    pub fn absorb(&mut self, other: &Self) {
        for (phase, time) in other.iter() {
            self.add(phase, time);
        }
    }
}
