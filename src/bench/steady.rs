//! What streams cost in the steady state, by the clock. Whole streams are timed in batches without any
//! meter; callbacks in runs of their own, one for each clock.

use crate::{
    exercise::Loaded,
    host::{Metered, Process},
    timing::{PhaseTime, Stopwatch},
};

use super::{
    load::{LoadConditions, LoadFailed, Loads, load_root, pair, turns},
    phase::PhaseClock,
    reference::Reference,
    report::{ExchangeCost, TimesPair},
    stats::median,
    traffic::Traffic,
};

/// A batch takes about so long, nanoseconds: long beside the reading of a clock.
const BATCH_NS: u64 = 2_000_000;
/// The most streams in a batch.
const MAX_BATCH: u64 = 1_000;
/// Streams before those that are timed.
const WARM_UP_STREAMS: usize = 3;
/// Streams of a kind whose callbacks are timed one by one.
const TIMED_STREAMS: usize = 101;

/// Runs one kind of stream on one root's worker of one subject.
struct Lane {
    subject: usize,
    root: usize,
    stream: usize,
    batch: u64,
    times: Vec<PhaseTime>,
}

/// Times the streams of all subjects in turns, and puts the times into the costs that were counted
/// before. `costs` are by subject and root. Gives the times of the reference, by subject.
///
/// # Errors
///
/// Where a root that loaded before does not any more.
pub(super) fn time(
    loads: &[Loads],
    conditions: &[&LoadConditions],
    traffic: &Traffic,
    runs: u32,
    reference: Option<&Reference>,
    costs: &mut [Vec<&mut Vec<ExchangeCost>>],
) -> Result<Vec<Vec<u64>>, LoadFailed> {
    let mut reference_ns: Vec<Vec<u64>> = loads.iter().map(|_| Vec::new()).collect();
    let mut workers = Vec::new();
    let mut lanes = Vec::new();
    for (subject, load) in loads.iter().enumerate() {
        let mut of_subject = Vec::new();
        for (root, costs) in costs[subject].iter().enumerate() {
            let mut worker = worker(load, conditions[subject], root)?;
            for (stream, cost) in costs.iter().enumerate() {
                if cost.failed.is_none()
                    && let Some(batch) = batch_size(&mut worker, traffic, stream)
                {
                    lanes.push(Lane { subject, root, stream, batch, times: Vec::new() });
                }
            }
            of_subject.push(worker);
        }
        workers.push(of_subject);
    }
    // The same stream of each subject one after the other.
    lanes.sort_by_key(|lane: &Lane| (lane.root, lane.stream, lane.subject));
    for round in 0..runs {
        if !lanes.is_empty() {
            for times in &mut reference_ns {
                times.extend(reference.map(Reference::run));
            }
        }
        for index in turns(round, lanes.len()) {
            let lane = &mut lanes[index];
            // A new one each time: where its memory happens to lie makes a difference of its own.
            let mut worker = worker(&loads[lane.subject], conditions[lane.subject], lane.root)?;
            if let Some(time) = lane.run(&mut worker, traffic) {
                lane.times.push(time);
            }
        }
    }
    for lane in lanes {
        let worker = &mut workers[lane.subject][lane.root];
        let cost = &mut costs[lane.subject][lane.root][lane.stream];
        cost.times = pair(lane.times.into_iter());
        callbacks(worker, traffic, lane.stream, cost);
    }
    Ok(reference_ns)
}

/// An instance for the traffic of one root, in a process of its own.
pub(super) fn worker(
    load: &Loads,
    conditions: &LoadConditions,
    root: usize,
) -> Result<Loaded, LoadFailed> {
    let process = Process::within(conditions.environment.clone());
    let plugin = &conditions.plugins[root];
    load_root(&load.template, load.names, plugin, process, &mut PhaseClock::default())
}

/// How many streams make a batch; the first ones are the warm-up. `None` where one fails.
fn batch_size(worker: &mut Loaded, traffic: &Traffic, stream: usize) -> Option<u64> {
    for _ in 0..WARM_UP_STREAMS {
        traffic.run(stream, worker).ok()?;
    }
    let watch = Stopwatch::wall();
    traffic.run(stream, worker).ok()?;
    Some((BATCH_NS / watch.elapsed_ns().max(1)).clamp(1, MAX_BATCH))
}

impl Lane {
    /// What one stream takes, over a batch. `None` where one fails: what a failed VM takes is no
    /// cost of the filter's.
    fn run(&self, worker: &mut Loaded, traffic: &Traffic) -> Option<PhaseTime> {
        for _ in 0..WARM_UP_STREAMS {
            traffic.run(self.stream, worker).ok()?;
        }
        let watch = Stopwatch::thread();
        for _ in 0..self.batch {
            traffic.run(self.stream, worker).ok()?;
        }
        Some(watch.elapsed().of_each(self.batch))
    }
}

/// Times the callbacks of one kind of stream by each clock.
fn callbacks(worker: &mut Loaded, traffic: &Traffic, stream: usize, cost: &mut ExchangeCost) {
    for reads in [Metered::Wall, Metered::Cpu] {
        let reading_ns = reading_ns(reads);
        worker.instance.meter(Some(reads));
        let mut times: Vec<Vec<u64>> = cost.callbacks.iter().map(|_| Vec::new()).collect();
        for _ in 0..TIMED_STREAMS {
            if traffic.run(stream, worker).is_err() {
                break;
            }
            let mut sums = vec![0; times.len()];
            for callback in worker.instance.take_costs() {
                let row = cost.callbacks.iter().position(|row| row.name == callback.name);
                if let Some(row) = row {
                    sums[row] += callback.ns.saturating_sub(reading_ns);
                }
            }
            for (times, sum) in times.iter_mut().zip(sums) {
                times.push(sum);
            }
        }
        worker.instance.meter(None);
        for (row, times) in cost.callbacks.iter_mut().zip(times) {
            let median = median(&times).unwrap_or(0);
            match reads {
                Metered::Cpu => row.cpu_ns = median,
                Metered::Wall | Metered::Counters => row.wall_ns = median,
            }
        }
    }
}

/// What the clock itself shows between two readings.
fn reading_ns(reads: Metered) -> u64 {
    let times: Vec<_> = (0..101)
        .map(|_| {
            let watch = match reads {
                Metered::Cpu => Stopwatch::thread(),
                Metered::Wall | Metered::Counters => Stopwatch::wall(),
            };
            watch.elapsed_ns()
        })
        .collect();
    median(&times).unwrap_or(0)
}

/// Times that several workers take to start, and what they have in memory.
pub(super) fn workers(
    load: &Loads,
    conditions: &LoadConditions,
    traffic: &Traffic,
    count: usize,
) -> Result<super::report::Workers, LoadFailed> {
    let resident_before = resident_bytes();
    let mut times = Vec::new();
    let mut workers = Vec::new();
    for _ in 0..count {
        let watch = Stopwatch::process();
        let worker = worker(load, conditions, 0)?;
        times.push(watch.elapsed());
        workers.push(worker);
    }
    for worker in &mut workers {
        for stream in 0..traffic.names().len() {
            if traffic.run(stream, worker).is_err() {
                break;
            }
        }
    }
    let memory = workers.iter().map(|worker| worker.instance.memory_bytes());
    let resident = resident_before.zip(resident_bytes());
    let start: TimesPair = pair(times.into_iter());
    Ok(super::report::Workers {
        count,
        start,
        memory_bytes_each: memory.clone().max().unwrap_or(0),
        memory_bytes: memory.sum(),
        resident_bytes: resident.map(|(before, now)| now.saturating_sub(before)),
    })
}

/// Bytes of RAM that this process has. `None` where the system does not tell.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
