//! Wall and CPU time of pieces of work, and the instructions that they took where those are counted.

mod instructions;

use std::{
    ops::AddAssign,
    time::{Duration, Instant},
};

pub use instructions::{NotCounted, count_instructions};

/// Wall and CPU time, in nanoseconds, and instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhaseTime {
    /// Wall time.
    pub wall_ns: u64,
    /// CPU time: of the whole process for compiling on all cores, and for work that awaits, so that it
    /// is counted wherever it runs; of the thread alone for all else, beside which other work may go
    /// on. 0 where the system does not tell it.
    pub cpu_ns: u64,
    /// Instructions in user mode, of the whole process. `None` where [`count_instructions`] was not
    /// called or says why they are not counted.
    pub instructions: Option<u64>,
}

impl AddAssign for PhaseTime {
    fn add_assign(&mut self, other: Self) {
        self.wall_ns += other.wall_ns;
        self.cpu_ns += other.cpu_ns;
        self.instructions = match (self.instructions, other.instructions) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
    }
}

impl PhaseTime {
    /// What is left when a part of the work is counted elsewhere.
    pub(crate) fn without(self, part: Self) -> Self {
        Self {
            wall_ns: self.wall_ns.saturating_sub(part.wall_ns),
            cpu_ns: self.cpu_ns.saturating_sub(part.cpu_ns),
            instructions: self
                .instructions
                .map(|all| all.saturating_sub(part.instructions.unwrap_or(0))),
        }
    }

    /// What each of so many equal pieces takes, when they took this together.
    pub(crate) fn of_each(self, pieces: u64) -> Self {
        Self {
            wall_ns: self.wall_ns / pieces,
            cpu_ns: self.cpu_ns / pieces,
            instructions: self.instructions.map(|all| all / pieces),
        }
    }
}

/// The clock whose time [`Stopwatch::elapsed_ns`] gives.
#[derive(Clone, Copy)]
enum CpuClock {
    /// None: wall time alone.
    Off,
    Thread,
    Process,
}

impl CpuClock {
    #[cfg(unix)]
    fn now_ns(self) -> u64 {
        use rustix::time::{ClockId, clock_gettime};
        let now = clock_gettime(match self {
            Self::Off => return 0,
            Self::Thread => ClockId::ThreadCPUTime,
            Self::Process => ClockId::ProcessCPUTime,
        });
        let part = |value: i64| u64::try_from(value).unwrap_or(0);
        part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
    }

    #[cfg(not(unix))]
    fn now_ns(self) -> u64 {
        0
    }
}

/// Work that is being timed.
pub(crate) struct Stopwatch {
    start: Instant,
    clock: CpuClock,
    cpu_start: u64,
    instructions_start: Option<u64>,
}

impl Stopwatch {
    /// For work that stays on this thread, beside which other work may go on.
    pub(crate) fn thread() -> Self {
        Self::with(CpuClock::Thread)
    }

    /// For work that awaits or uses several threads.
    pub(crate) fn process() -> Self {
        Self::with(CpuClock::Process)
    }

    /// For work that is too short for the clock of CPU time beside it.
    pub(crate) fn wall() -> Self {
        Self::with(CpuClock::Off)
    }

    /// The time of the one clock that matters: CPU time, or wall time of a watch of that alone.
    pub(crate) fn elapsed_ns(&self) -> u64 {
        match self.clock {
            CpuClock::Off => u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            clock => clock.now_ns().saturating_sub(self.cpu_start),
        }
    }

    fn with(clock: CpuClock) -> Self {
        // Read first, so that reading it takes no time that is measured.
        let instructions_start = match clock {
            CpuClock::Off => None,
            CpuClock::Thread | CpuClock::Process => instructions::now(),
        };
        Self { cpu_start: clock.now_ns(), start: Instant::now(), clock, instructions_start }
    }

    pub(crate) fn elapsed(&self) -> PhaseTime {
        let wall_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let cpu_ns = self.clock.now_ns().saturating_sub(self.cpu_start);
        let instructions = self.instructions_start.zip(instructions::now());
        let instructions = instructions.map(|(start, now)| now.saturating_sub(start));
        PhaseTime { wall_ns, cpu_ns, instructions }
    }
}

/// The CPU time that this thread has had; `None` where the system does not tell it.
pub(crate) fn thread_cpu() -> Option<Duration> {
    Some(CpuClock::Thread.now_ns()).filter(|ns| *ns > 0).map(Duration::from_nanos)
}

/// Runs `work` on this thread and adds its time to `total`.
pub(crate) fn timed<T>(total: &mut PhaseTime, work: impl FnOnce() -> T) -> T {
    let watch = Stopwatch::thread();
    let result = work();
    *total += watch.elapsed();
    result
}
