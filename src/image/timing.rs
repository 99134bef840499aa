//! Wall and CPU time of the stages of a fetch.

use std::ops::AddAssign;
use std::time::Instant;

use crate::cpu_time;

/// The time that a stage took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTime {
    /// Wall-clock nanoseconds.
    pub wall_ns: u64,
    /// CPU nanoseconds. Over an asynchronous stage they are those of the whole process, because
    /// its work may move between threads.
    pub cpu_ns: u64,
}

impl AddAssign for StageTime {
    fn add_assign(&mut self, other: Self) {
        self.wall_ns += other.wall_ns;
        self.cpu_ns += other.cpu_ns;
    }
}

impl StageTime {
    /// What is left when a part of the stage is counted elsewhere.
    pub(crate) fn without(self, part: StageTime) -> Self {
        Self {
            wall_ns: self.wall_ns.saturating_sub(part.wall_ns),
            cpu_ns: self.cpu_ns.saturating_sub(part.cpu_ns),
        }
    }
}

#[derive(Clone, Copy)]
enum CpuClock {
    Thread,
    Process,
}

/// A running stage.
pub(crate) struct Stopwatch {
    start: Instant,
    clock: CpuClock,
    cpu_start: u64,
}

impl Stopwatch {
    /// For work that stays on this thread.
    pub(crate) fn thread() -> Self {
        Self::with(CpuClock::Thread)
    }

    /// For work that awaits.
    pub(crate) fn process() -> Self {
        Self::with(CpuClock::Process)
    }

    fn with(clock: CpuClock) -> Self {
        Self { cpu_start: cpu_ns(clock), start: Instant::now(), clock }
    }

    pub(crate) fn elapsed(&self) -> StageTime {
        StageTime {
            wall_ns: u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            cpu_ns: cpu_ns(self.clock).saturating_sub(self.cpu_start),
        }
    }
}

/// Runs `work` on this thread and adds its time to `total`.
pub(crate) fn timed<T>(total: &mut StageTime, work: impl FnOnce() -> T) -> T {
    let watch = Stopwatch::thread();
    let result = work();
    *total += watch.elapsed();
    result
}

fn cpu_ns(clock: CpuClock) -> u64 {
    match clock {
        CpuClock::Thread => cpu_time::of_this_thread(),
        CpuClock::Process => cpu_time::of_the_process(),
    }
}
