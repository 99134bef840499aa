//! Statistics that hold on a noisy machine: order statistics, never a mean. Nothing is measured
//! here, and the same samples always give the same answer.

use serde::{Deserialize, Serialize};

/// What a set of samples says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The middle one.
    pub median: u64,
    /// The median absolute deviation from the median: half of the samples are as near as this.
    pub mad: u64,
    /// The least: what the work takes when nothing else runs.
    pub min: u64,
    /// The lower end of the median's 95 % confidence interval, by the bootstrap.
    pub low: u64,
    /// Its upper end.
    pub high: u64,
    /// Samples that lie apart from the others.
    pub outliers: usize,
}

impl Summary {
    /// The summary of `samples`; `None` without any.
    pub fn of(samples: &[u64]) -> Option<Self> {
        let median = median(samples)?;
        let deviations: Vec<_> = samples.iter().map(|sample| sample.abs_diff(median)).collect();
        let mad = self::median(&deviations)?;
        let (low, high) = confidence_interval(samples)?;
        Some(Self {
            median,
            mad,
            min: samples.iter().copied().min()?,
            low,
            high,
            outliers: deviations.iter().filter(|deviation| is_apart(**deviation, mad)).count(),
        })
    }

    /// The deviation as a part of the median: 0.1 is noisy.
    pub fn noise(&self) -> f64 {
        if self.median == 0 { 0.0 } else { self.mad as f64 / self.median as f64 }
    }
}

/// Iglewicz and Hoaglin's rule: a modified z-score above 3.5, where 1.4826 MADs are a standard
/// deviation of the normal distribution.
fn is_apart(deviation: u64, mad: u64) -> bool {
    mad > 0 && deviation as f64 > 3.5 * 1.4826 * mad as f64
}

/// The middle sample, or half-way between the two middle ones.
pub fn median(samples: &[u64]) -> Option<u64> {
    median_in_place(&mut samples.to_vec())
}

/// The same; the order of the samples is lost.
fn median_in_place(samples: &mut [u64]) -> Option<u64> {
    let middle = samples.len() / 2;
    let odd = samples.len() % 2 == 1;
    if samples.is_empty() {
        return None;
    }
    let (below, upper, _) = samples.select_nth_unstable(middle);
    let upper = *upper;
    if odd {
        return Some(upper);
    }
    let lower = below.iter().copied().max().unwrap_or(upper);
    Some(lower + (upper - lower) / 2)
}

/// The sample below which this part of all lies.
pub fn quantile(samples: &[u64], part: f64) -> Option<u64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * part).round() as usize).copied()
}

/// So many samples are drawn for a bootstrap at most, whatever the number of runs.
const MAX_DRAWN: usize = 4_000_000;

/// The 95 % confidence interval of the median, by the percentile bootstrap.
fn confidence_interval(samples: &[u64]) -> Option<(u64, u64)> {
    let count = samples.len();
    let resamples = (MAX_DRAWN / count.max(1)).clamp(200, 2_000);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut drawn = vec![0; count];
    let mut medians = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        drawn.fill_with(|| samples[random.usize(..count)]);
        medians.push(median_in_place(&mut drawn)?);
    }
    Some((quantile(&medians, 0.025)?, quantile(&medians, 0.975)?))
}

/// Any number; a fixed one makes reports reproducible.
const SEED: u64 = 0x0f11_7e72;

/// Shuffles of a permutation test.
const PERMUTATIONS: u32 = 20_000;

/// The least p that [`permutation_test`] can give.
pub const LEAST_P: f64 = 1.0 / (PERMUTATIONS as f64 + 1.0);

/// How likely `after` would lie so far above `before`, if both were drawn from one distribution: the p of a
/// one-sided permutation test of the sum of ranks.
pub fn permutation_test(before: &[f64], after: &[f64]) -> f64 {
    let all: Vec<f64> = before.iter().chain(after).copied().collect();
    let mut ranks = ranks(&all);
    let sum = |ranks: &[f64]| ranks[before.len()..].iter().sum::<f64>();
    let observed = sum(&ranks);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut as_far = 0;
    for _ in 0..PERMUTATIONS {
        random.shuffle(&mut ranks);
        if sum(&ranks) >= observed {
            as_far += 1;
        }
    }
    f64::from(as_far + 1) / f64::from(PERMUTATIONS + 1)
}

/// The rank of each sample; equal ones share the middle of theirs.
fn ranks(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = |sample: &f64| {
        let below = sorted.partition_point(|other| other < sample);
        let not_above = sorted.partition_point(|other| other <= sample);
        (below + not_above) as f64 / 2.0
    };
    samples.iter().map(rank).collect()
}

fn median_of_floats(samples: &mut [f64]) -> f64 {
    let middle = samples.len() / 2;
    let odd = samples.len() % 2 == 1;
    if samples.is_empty() {
        return 0.0;
    }
    let (below, upper, _) = samples.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if odd {
        return upper;
    }
    (below.iter().copied().fold(f64::MIN, f64::max) + upper) / 2.0
}

/// The 95 % confidence interval of what the median of `after` is as a part of the median of `before`, by
/// the percentile bootstrap.
pub fn ratio_interval(before: &[f64], after: &[f64]) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut draw = |samples: &[f64]| {
        let mut drawn: Vec<_> =
            samples.iter().map(|_| samples[random.usize(..samples.len())]).collect();
        median_of_floats(&mut drawn)
    };
    let resamples = (MAX_DRAWN / (before.len() + after.len()).max(1)).clamp(200, 2_000);
    let mut ratios: Vec<f64> =
        (0..resamples).map(|_| draw(after) / draw(before).max(f64::MIN_POSITIVE)).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |part: f64| ratios[((ratios.len() - 1) as f64 * part).round() as usize];
    (at(0.025), at(0.975))
}

/// The slope of the line through points that outliers do not turn (Theil and Sen): the median slope of
/// all pairs. `None` where all points have one x.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::new();
    for (index, (x, y)) in points.iter().enumerate() {
        for (other_x, other_y) in &points[index + 1..] {
            if other_x != x {
                slopes.push((other_y - y) / (other_x - x));
            }
        }
    }
    (!slopes.is_empty()).then(|| median_of_floats(&mut slopes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary { median: 7, mad: 0, min: 7, low: 7, high: 7, outliers: 0 };
        assert_eq!(Summary::of(&[7]), Some(one));
        assert_eq!(median(&[4, 1, 3, 2]), Some(2));
        assert_eq!(median(&[u64::MAX, u64::MAX]), Some(u64::MAX));
        // One outlier moves neither the median nor the deviation, and is counted.
        let summary = Summary::of(&[10, 11, 12, 13, 9_000]).unwrap();
        assert_eq!((summary.median, summary.mad, summary.min), (12, 1, 10));
        assert_eq!(summary.outliers, 1);
        assert!((summary.noise() - 1.0 / 12.0).abs() < 1e-9);
        assert_eq!(Summary::of(&[0, 0]).unwrap().noise(), 0.0);
        assert_eq!(quantile(&[30, 10, 20], 0.0), Some(10));
        assert_eq!(quantile(&[30, 10, 20], 1.0), Some(30));
    }

    #[test]
    fn the_interval_is_narrow_where_the_samples_are() {
        let samples: Vec<u64> = (0..101).map(|n| 1_000 + n).collect();
        let summary = Summary::of(&samples).unwrap();
        assert!(summary.low < 1_050 && summary.high > 1_050);
        assert!(summary.low > 1_020 && summary.high < 1_080, "{summary:?}");
    }

    #[test]
    fn a_shift_is_significant_and_noise_is_not() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut draw = |shift: f64| -> Vec<f64> {
            (0..20).map(|_| 100.0 + shift + random.f64() * 10.0).collect()
        };
        let (one, same, more) = (draw(0.0), draw(0.0), draw(15.0));
        assert!(permutation_test(&one, &more) <= 2.0 * LEAST_P);
        assert!(permutation_test(&one, &same) > 0.05);
        assert!(permutation_test(&[1.0; 20], &[2.0; 20]) <= 2.0 * LEAST_P);
        assert_eq!(permutation_test(&[1.0; 20], &[1.0; 20]), 1.0);
        // It is one-sided: less is no alarm.
        assert!(permutation_test(&more, &one) > 0.9);
    }

    #[test]
    fn slopes() {
        let line = [(1.0, 3.0), (2.0, 5.0), (4.0, 9.0), (8.0, 1_000.0)];
        // One point off the line does not turn it around.
        assert!(slope(&line).unwrap() < 170.0);
        assert_eq!(slope(&line[..3]), Some(2.0));
        assert_eq!(slope(&[(1.0, 2.0), (1.0, 3.0)]), None);
    }

    proptest! {
        #[test]
        fn order_does_not_matter_to_what_needs_no_drawing(
            mut samples in proptest::collection::vec(any::<u64>(), 1..40),
        ) {
            let summary = Summary::of(&samples).unwrap();
            prop_assert!(summary.min <= summary.low && summary.low <= summary.high);
            prop_assert!(summary.min <= summary.median);
            let below = samples.iter().filter(|sample| **sample <= summary.median).count();
            prop_assert!(below * 2 >= samples.len());
            samples.reverse();
            let reversed = Summary::of(&samples).unwrap();
            prop_assert_eq!((summary.median, summary.mad), (reversed.median, reversed.mad));
        }
    }
}
