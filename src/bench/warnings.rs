//! What a reader of the numbers should know before relying on them.

use super::{
    machine::Busyness,
    report::{Measured, Times},
};

/// Below so many runs the deviation says little.
const FEW_RUNS: usize = 10;
/// A deviation above this part of the median is noise worth a word.
const NOISY: f64 = 0.05;
/// Below this, the clock and the caches are measured rather than the work.
const SHORT_NS: u64 = 20_000;
/// Above this part of the time the cores had little to spare.
const BUSY: f64 = 0.9;
/// Above this part of the time a hypervisor had other things to do.
const STOLEN: f64 = 0.02;

/// The warnings, the most important first.
pub fn warnings(measured: &[Measured], busyness: &Busyness) -> Vec<String> {
    let mut warnings = Vec::new();
    let noise = |times: &Times| times.summary.map_or(0.0, |summary| summary.noise());
    let totals = || measured.iter().map(|measured| &measured.load.total);
    if let Some(runs) = measured.iter().map(|measured| measured.load.runs).min()
        && runs < FEW_RUNS
    {
        let (noun, verb) = if runs == 1 { ("run", "is") } else { ("runs", "are") };
        warnings.push(format!("{runs} {noun} {verb} few: take at least {FEW_RUNS}"));
    }
    let wall = totals().map(|total| noise(&total.wall_ns)).fold(0.0, f64::max);
    let cpu = totals().map(|total| noise(&total.cpu_ns)).fold(0.0, f64::max);
    if wall > NOISY {
        let advice = if cpu > NOISY {
            "so is CPU time: take more runs, or measure when the machine is quiet"
        } else {
            "compare CPU time, which is steady"
        };
        let percent = wall * 100.0;
        warnings.push(format!("wall time is noisy (MAD {percent:.0} % of the median): {advice}"));
    }
    if let Some(busy) = busyness.busy
        && busy > BUSY
    {
        let load = busyness.load_average.map_or(String::new(), |load| format!(", load {load}"));
        let percent = busy * 100.0;
        warnings.push(format!("the machine was busy (all cores {percent:.0} %{load}): wall times are those of a busy machine"));
    }
    if let Some(stolen) = busyness.stolen
        && stolen > STOLEN
    {
        let percent = stolen * 100.0;
        warnings.push(format!("the hypervisor gave {percent:.0} % of the time to others"));
    }
    for measured in measured {
        if let Some(why) = &measured.not_from_store {
            let compiler = &measured.compiler;
            warnings.push(format!("no load from the store was measured under {compiler}: {why}"));
        }
    }
    let mut short: Vec<_> = measured
        .iter()
        .flat_map(|measured| &measured.load.phases)
        .filter(|phase| phase.times.wall_ns.median() < SHORT_NS)
        .map(|phase| phase.name.as_str())
        .collect();
    let mut seen = std::collections::HashSet::new();
    short.retain(|name| seen.insert(*name));
    if !short.is_empty() {
        warnings.push(format!(
            "too short to compare by time (under {} µs): {}",
            SHORT_NS / 1000,
            short.join(", ")
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use crate::bench::{
        Phase,
        report::{Load, PhaseCost, TimesPair},
    };

    use super::*;

    fn measured(samples: Vec<u64>, configure: u64) -> Measured {
        let pair = |samples: Vec<u64>| TimesPair {
            wall_ns: Times::of(samples.clone()),
            cpu_ns: Times::of(samples),
            instructions: None,
        };
        let phases = vec![PhaseCost {
            name: Phase::Configure,
            root_id: Some("a".to_owned()),
            times: pair(vec![configure; samples.len()]),
            counters: Default::default(),
        }];
        let runs = samples.len();
        let load = Load { warmup: 0, runs, fetched_once: false, phases, total: pair(samples) };
        Measured {
            compiler: "winch".to_owned(),
            compiled_bytes: 0,
            load,
            from_store: None,
            not_from_store: None,
            roots: Vec::new(),
            workers: None,
            reference_ns: Times::default(),
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut measured = [measured(vec![30_000_000, 10_000_000, 20_000_000], 5_000)];
        measured[0].not_from_store = Some("no temporary folder".to_owned());
        let busy = Busyness { busy: Some(0.99), stolen: Some(0.1), ..Busyness::default() };
        let warnings = warnings(&measured, &busy).join("\n");
        for part in [
            "3 runs are few",
            "wall time is noisy",
            "(under 20 µs): configure",
            "all cores 99 %",
            "10 % of the time",
            "no load from the store was measured under winch: no temporary folder",
        ] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
    }

    #[test]
    fn nothing_to_warn_of() {
        let measured = [measured((0..20).map(|n| 20_000_000 + n).collect(), 50_000)];
        assert_eq!(warnings(&measured, &Busyness::default()), Vec::<String>::new());
        assert!(warnings(&[], &Busyness::default()).is_empty());
    }
}
