//! What differs from one measurement to another, and what of it is a regression.
//!
//! Exact counters are the same for the same build, so that any difference is one; a threshold says which
//! are large enough to fail. Times are the same for no two runs. A time fails only where every way to look
//! at it says so, since what is measured here shares its machine with others:
//!
//! - CPU time, not wall time;
//! - median, lower quartile and minimum have all grown beyond the threshold: a busy moment moves the
//!   first, and rarely the last;
//! - the median has by more than that: by as much as the samples, and those of the reference, lie apart;
//! - the lower end of the confidence interval of its growth is beyond the threshold, too;
//! - as they are and as parts of the reference's time: a machine that became slower makes the reference
//!   slower as well;
//! - a permutation test says that it is no chance, with its level shared among all times that are
//!   compared;
//! - the difference is more than clocks, caches and page faults make.

use serde::Serialize;

use super::{
    figures::{Exact, Place, Unit, exact, times_of},
    phase::Phase,
    report::{BenchReport, Measured, Times},
    stats::{LEAST_P, median, permutation_test, quantile, ratio_interval},
};

/// From which difference on something has become worse.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// Of exact counters, as a part of what they were.
    pub exact: f64,
    /// Of times, likewise.
    pub time: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { exact: 0.02, time: 0.10 }
    }
}

/// The level at which all times together may fail by chance.
const LEVEL: f64 = 0.01;
/// Fewer samples than this on one side can show nothing.
const FEWEST_SAMPLES: usize = 8;
/// Phases whose CPU time grew by less than this have not become worse, nanoseconds.
const PHASE_FLOOR_NS: f64 = 100_000.0;
/// The same for streams, which are measured in batches.
const STREAM_FLOOR_NS: f64 = 300.0;
/// By so much more than the threshold a stream has to grow, or a load from a store. Where code and data
/// happen to lie makes some microseconds of a stream a third longer in one process than in another, and
/// on a busy machine a load that compiles nothing came out between half and twice as long. The counters
/// of a stream are exact, and so is the size of what the store has.
const SHORT_MARGIN: f64 = 1.0;

/// What becomes of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// None, or not enough of one.
    Same,
    /// Less than before, by more than the threshold.
    Better,
    /// More than before, by more than the threshold: the gate fails.
    Worse,
    /// It is shown and does not count.
    NotGated,
}

/// Before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Of what.
    #[serde(flatten)]
    pub place: Place,
    /// `fuel`, `host_calls`, `cpu_ns` and so on.
    pub metric: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// In the baseline; a median where it is a time.
    pub before: u64,
    /// Now.
    pub after: u64,
    /// The difference as a part of what it was; `None` where it was 0.
    pub change: Option<f64>,
    /// Of times: the 95 % confidence interval of the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// Of times: how likely it is by chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// What becomes of it.
    pub verdict: Change,
}

/// All differences under one compiler.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What the other one is: a reference or the name of a file.
    pub with: String,
    /// Under this compiler.
    pub compiler: String,
    /// Exact counters, those that are equal too.
    pub exact: Vec<Difference>,
    /// CPU times.
    pub times: Vec<Difference>,
    /// How much slower the machine was than for the baseline, by the reference.
    pub slower_machine: Option<f64>,
    /// What was not compared, and why.
    pub remarks: Vec<String>,
}

impl Comparison {
    /// What fails the gate.
    pub fn regressions(&self) -> impl Iterator<Item = &Difference> {
        let all = self.exact.iter().chain(&self.times);
        all.filter(|difference| difference.verdict == Change::Worse)
    }
}

/// Why two measurements cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotComparable {
    /// Fuel means something under one compiler only.
    #[error(
        "compiled with {after}, and the baseline with {before}: fuel and code of two compilers cannot be compared; choose one with --compiler"
    )]
    Compilers {
        /// Those of the baseline.
        before: String,
        /// Those of this run.
        after: String,
    },
}

/// Compares what was measured with a baseline, compiler by compiler. `name` is what the baseline is
/// called.
///
/// # Errors
///
/// Where they have no compiler in common.
pub fn compare(
    name: &str,
    before: &BenchReport,
    after: &BenchReport,
    thresholds: Thresholds,
) -> Result<Vec<Comparison>, NotComparable> {
    let mut all = Vec::new();
    let mut alone = Vec::new();
    for measured in &after.measured {
        match before.under(&measured.compiler) {
            Some(other) => {
                all.push(Pair { name, before, after, thresholds }.compare(other, measured));
            }
            None => alone.push(measured.compiler.as_str()),
        }
    }
    let Some(first) = all.first_mut() else {
        let names = |report: &BenchReport| {
            let names: Vec<_> = report.measured.iter().map(|m| m.compiler.as_str()).collect();
            names.join(" and ")
        };
        return Err(NotComparable::Compilers { before: names(before), after: names(after) });
    };
    for compiler in alone {
        first.remarks.push(format!(
            "`{name}` has nothing measured under {compiler}: fuel and code of two compilers are not compared"
        ));
    }
    Ok(all)
}

struct Pair<'a> {
    name: &'a str,
    before: &'a BenchReport,
    after: &'a BenchReport,
    thresholds: Thresholds,
}

impl Pair<'_> {
    fn compare(&self, before: &Measured, after: &Measured) -> Comparison {
        let (was, is) = (&self.before.fingerprint, &self.after.fingerprint);
        let mut remarks = Vec::new();
        let same_engine = was.engine == is.engine;
        let same_machine = was.machine == is.machine;
        let same_filtergate = was.filtergate == is.filtergate;
        if !same_engine {
            let engine = &was.engine;
            remarks.push(format!("the baseline is of another engine ({engine}): only exact counters are gated, without those of compiled code"));
        }
        if !same_machine {
            remarks.push("the baseline is of another machine: only exact counters are gated, without those of compiled code".to_owned());
        }
        if !same_filtergate {
            let version = &was.filtergate;
            remarks.push(format!("the baseline is of filtergate {version}: only exact counters are gated, and what differs may be its doing"));
        }
        if was.conditions != is.conditions {
            remarks.push("the baseline was measured for another target, configuration or traffic: what differs may be their doing".to_owned());
        }
        let same_code = same_engine && same_machine;
        let exact = self.exact(&exact(self.before, before), &exact(self.after, after), same_code);
        let times = self.times(before, after, same_code && same_filtergate, &mut remarks);
        let (reference, now) = (before.reference_ns.median(), after.reference_ns.median());
        Comparison {
            with: self.name.to_owned(),
            compiler: after.compiler.clone(),
            exact,
            times,
            slower_machine: (reference > 0 && now > 0).then(|| now as f64 / reference as f64),
            remarks,
        }
    }

    fn exact(&self, before: &[Exact], after: &[Exact], same_code: bool) -> Vec<Difference> {
        let mut all = Vec::new();
        for now in after {
            let same = |was: &&Exact| was.place == now.place && was.metric == now.metric;
            let Some(was) = before.iter().find(same) else { continue };
            let change =
                (was.value > 0).then(|| (now.value as f64 - was.value as f64) / was.value as f64);
            let verdict = if now.of_the_machine && !same_code {
                Change::NotGated
            } else if now.value == was.value {
                Change::Same
            } else {
                // From nothing to something is more than any threshold.
                match change.unwrap_or(f64::INFINITY) {
                    change if change > self.thresholds.exact => Change::Worse,
                    change if change < -self.thresholds.exact => Change::Better,
                    _ => Change::Same,
                }
            };
            all.push(Difference {
                place: now.place.clone(),
                metric: now.metric,
                unit: now.unit,
                before: was.value,
                after: now.value,
                change,
                interval: None,
                p: None,
                verdict,
            });
        }
        all
    }

    fn times(
        &self,
        before: &Measured,
        after: &Measured,
        gated: bool,
        remarks: &mut Vec<String>,
    ) -> Vec<Difference> {
        let befores = cpu_times(before);
        let pairs: Vec<_> = cpu_times(after)
            .into_iter()
            .filter_map(|(place, floor, now)| {
                let (_, _, was) = befores.iter().find(|(other, ..)| *other == place)?;
                (!was.samples.is_empty() && !now.samples.is_empty())
                    .then_some((place, floor, *was, now))
            })
            .collect();
        let enough = |times: &Times| times.samples.len() >= FEWEST_SAMPLES;
        // Fetch and verify may have been measured once.
        let tests = pairs.iter().filter(|(_, _, was, now)| enough(was) && enough(now)).count();
        if tests == 0 && !pairs.is_empty() {
            remarks.push(format!(
                "times are not gated: that takes at least {FEWEST_SAMPLES} runs on both sides"
            ));
        }
        let level = (LEVEL / tests.max(1) as f64).max(LEAST_P);
        let reference = |measured: &Measured| measured.reference_ns.median() as f64;
        let references = (reference(before), reference(after));
        let (before_reference, after_reference) = (&before.reference_ns, &after.reference_ns);
        let compared = pairs.into_iter().map(|(place, floor, was, now)| {
            let (before, after) = (floats(&was.samples), floats(&now.samples));
            let p = permutation_test(&before, &after);
            let (low, high) = ratio_interval(&before, &after);
            let (from, to) = (was.median(), now.median());
            let spread =
                [&before_reference.samples, &after_reference.samples, &was.samples, &now.samples];
            let spread =
                spread.into_iter().map(|samples| relative_spread(samples)).fold(0.0, f64::max);
            let threshold = self.thresholds.time;
            let is_short = place.what == "exchange" || place.is_from_store();
            let margin = if is_short { SHORT_MARGIN } else { 0.0 };
            let spread = spread + margin;
            let verdict = if !gated || !enough(was) || !enough(now) {
                Change::NotGated
            } else {
                let worse =
                    Growth { before: &was.samples, after: &now.samples, references, spread };
                let better = Growth {
                    before: &now.samples,
                    after: &was.samples,
                    references: (references.1, references.0),
                    spread,
                };
                if worse.is_beyond(threshold, floor) && low - 1.0 > threshold && p <= level {
                    Change::Worse
                } else if better.is_beyond(threshold, floor)
                    && 1.0 / high - 1.0 > threshold
                    && permutation_test(&after, &before) <= level
                {
                    Change::Better
                } else {
                    Change::Same
                }
            };
            Difference {
                place,
                metric: "cpu_ns",
                unit: Unit::Ns,
                before: from,
                after: to,
                change: (from > 0).then(|| to as f64 / from as f64 - 1.0),
                interval: Some((low - 1.0, high - 1.0)),
                p: Some(p),
                verdict,
            }
        });
        compared.collect()
    }
}

/// The distance between the quartiles as a part of the median.
fn relative_spread(samples: &[u64]) -> f64 {
    match (quantile(samples, 0.25), median(samples), quantile(samples, 0.75)) {
        (Some(low), Some(middle), Some(high)) if middle > 0 => (high - low) as f64 / middle as f64,
        _ => 0.0,
    }
}

fn floats(samples: &[u64]) -> Vec<f64> {
    samples.iter().map(|sample| *sample as f64).collect()
}

/// Whether times have grown, whichever way one looks at them.
struct Growth<'a> {
    before: &'a [u64],
    after: &'a [u64],
    /// The medians of the reference, 0 where there is none.
    references: (f64, f64),
    /// How far samples lie apart, as a part of their median.
    spread: f64,
}

impl Growth<'_> {
    fn is_beyond(&self, threshold: f64, floor_ns: f64) -> bool {
        let slower = match self.references {
            (before, after) if before > 0.0 && after > 0.0 => after / before,
            _ => 1.0,
        };
        type View = fn(&[u64]) -> Option<u64>;
        let views: [(View, f64); 3] = [
            (median, threshold + self.spread),
            (|samples| quantile(samples, 0.25), threshold),
            (|samples| quantile(samples, 0.0), threshold),
        ];
        views.iter().all(|(view, threshold)| {
            let (Some(before), Some(after)) = (view(self.before), view(self.after)) else {
                return false;
            };
            // What the baseline would take now; a faster machine excuses nothing here.
            let expected = before as f64 * slower.max(1.0);
            after as f64 > expected * (1.0 + threshold) && after as f64 - expected > floor_ns
        })
    }
}

/// The CPU times that are compared, each with the least difference that counts.
fn cpu_times(measured: &Measured) -> Vec<(Place, f64, &Times)> {
    let floor = |place: &Place| match place.what {
        "exchange" => STREAM_FLOOR_NS,
        _ => PHASE_FLOOR_NS,
    };
    times_of(measured)
        .into_iter()
        // What a registry or a disk takes is not the module's.
        .filter(|(place, _)| place.what != Phase::Fetch.as_str())
        .map(|(place, pair)| {
            let floor = floor(&place);
            (place, floor, &pair.cpu_ns)
        })
        .collect()
}
