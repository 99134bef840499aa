//! The times of repeated loads, by phase.

use super::{
    phase::{Phase, PhaseClock},
    stats::Summary,
};
use crate::timing::PhaseTime;

/// Times of one phase, or of all phases together, over several loads.
#[derive(Debug, Clone, Default)]
pub struct Series {
    wall_ns: Vec<u64>,
    cpu_ns: Vec<u64>,
}

impl Series {
    /// Adds the time of one load.
    pub fn push(&mut self, time: PhaseTime) {
        self.wall_ns.push(time.wall_ns);
        self.cpu_ns.push(time.cpu_ns);
    }

    /// Wall time; `None` without samples.
    pub fn wall(&self) -> Option<Summary> {
        Summary::of(&self.wall_ns)
    }

    /// CPU time; `None` without samples.
    pub fn cpu(&self) -> Option<Summary> {
        Summary::of(&self.cpu_ns)
    }
}

/// The times of several loads of one module.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    phases: [Series; Phase::ALL.len()],
    total: Series,
}

impl Samples {
    /// Adds the times of one load.
    pub fn push(&mut self, clock: &PhaseClock) {
        for (phase, time) in clock.iter() {
            self.phases[phase as usize].push(time);
        }
        self.total.push(clock.total());
    }

    /// Adds a time to one phase that was measured apart from the loads and is no part of their
    /// total.
    pub fn push_apart(&mut self, phase: Phase, time: PhaseTime) {
        self.phases[phase as usize].push(time);
    }

    /// The phases that took place, in order.
    pub fn phases(&self) -> impl Iterator<Item = (Phase, &Series)> {
        Phase::ALL
            .into_iter()
            .map(|phase| (phase, &self.phases[phase as usize]))
            .filter(|(_, series)| !series.wall_ns.is_empty())
    }

    /// All phases of a load together.
    pub fn total(&self) -> &Series {
        &self.total
    }

    /// What a reader of the numbers should know before relying on them.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (Some(wall), Some(cpu)) = (self.total.wall(), self.total.cpu()) else {
            return warnings;
        };
        if wall.runs < FEW_RUNS {
            warnings.push(format!("{} runs are few: take at least {FEW_RUNS}", wall.runs));
        }
        if wall.noise() > NOISY {
            let advice = if cpu.noise() > NOISY {
                "the machine is busy: take more runs, or measure when it is quiet"
            } else {
                "compare CPU time, which is steady"
            };
            warnings.push(format!(
                "wall time is noisy (MAD {:.0} % of the median): {advice}",
                wall.noise() * 100.0
            ));
        }
        let short: Vec<_> = self
            .phases()
            .filter(|(_, series)| series.wall().is_some_and(|wall| wall.median < SHORT_NS))
            .map(|(phase, _)| phase.as_str())
            .collect();
        if !short.is_empty() {
            warnings.push(format!(
                "too short to compare by time (under {} µs): {}",
                SHORT_NS / 1000,
                short.join(", ")
            ));
        }
        warnings
    }
}

/// Below so many runs the deviation says little.
const FEW_RUNS: usize = 10;
/// A deviation above this part of the median is noise worth a word.
const NOISY: f64 = 0.05;
/// Below this, the clock and the caches are measured rather than the work.
const SHORT_NS: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(compile: u64, configure: u64) -> PhaseClock {
        let mut clock = PhaseClock::default();
        clock.add(Phase::Compile, PhaseTime { wall_ns: compile, cpu_ns: compile / 2 });
        clock.add(Phase::Configure, PhaseTime { wall_ns: configure, cpu_ns: configure });
        clock
    }

    #[test]
    fn phases_and_total() {
        let mut samples = Samples::default();
        for compile in [30_000_000, 10_000_000, 20_000_000] {
            samples.push(&load(compile, 5_000));
        }
        samples.push_apart(Phase::Fetch, PhaseTime { wall_ns: 9_000_000, cpu_ns: 1 });
        let names: Vec<_> = samples.phases().map(|(phase, _)| phase.as_str()).collect();
        assert_eq!(names, ["fetch", "compile", "configure"]);
        assert_eq!(samples.total().wall().unwrap().median, 20_005_000);
        assert_eq!(samples.total().cpu().unwrap().min, 5_005_000);
        let warnings = samples.warnings().join("\n");
        for part in ["3 runs are few", "wall time is noisy", "(under 20 µs): configure"] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
    }

    #[test]
    fn nothing_to_warn_of() {
        let mut samples = Samples::default();
        for run in 0..20 {
            samples.push(&load(20_000_000 + run, 50_000));
        }
        assert_eq!(samples.warnings(), Vec::<String>::new());
        assert!(Samples::default().warnings().is_empty());
    }
}
