//! Statistics that hold on a noisy machine: order statistics, never a mean. Nothing is measured
//! here.

/// What a set of samples says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many samples.
    pub runs: usize,
    /// The middle one.
    pub median: u64,
    /// The median absolute deviation from the median: half of the samples are as near as this.
    pub mad: u64,
    /// The least: what the work takes when nothing else runs.
    pub min: u64,
}

impl Summary {
    /// The summary of `samples`; `None` without any.
    pub fn of(samples: &[u64]) -> Option<Self> {
        let median = median(samples)?;
        let deviations: Vec<_> = samples.iter().map(|sample| sample.abs_diff(median)).collect();
        Some(Self {
            runs: samples.len(),
            median,
            mad: self::median(&deviations)?,
            min: samples.iter().copied().min()?,
        })
    }

    /// The deviation as a part of the median: 0.1 is noisy.
    pub fn noise(&self) -> f64 {
        if self.median == 0 { 0.0 } else { self.mad as f64 / self.median as f64 }
    }
}

/// The middle sample, or half-way between the two middle ones.
pub fn median(samples: &[u64]) -> Option<u64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = sorted[sorted.len() / 2 - 1];
    Some(lower + (upper - lower) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary { runs: 1, median: 7, mad: 0, min: 7 };
        assert_eq!(Summary::of(&[7]), Some(one));
        assert_eq!(median(&[4, 1, 3, 2]), Some(2));
        assert_eq!(median(&[u64::MAX, u64::MAX]), Some(u64::MAX));
        // One outlier moves neither the median nor the deviation.
        let summary = Summary::of(&[10, 11, 12, 13, 9_000]).unwrap();
        assert_eq!((summary.median, summary.mad, summary.min), (12, 1, 10));
        assert!((summary.noise() - 1.0 / 12.0).abs() < 1e-9);
        assert_eq!(Summary::of(&[0, 0]).unwrap().noise(), 0.0);
    }

    proptest! {
        #[test]
        fn order_does_not_matter(mut samples in proptest::collection::vec(any::<u64>(), 1..40)) {
            let summary = Summary::of(&samples).unwrap();
            prop_assert!(summary.min <= summary.median);
            let below = samples.iter().filter(|sample| **sample <= summary.median).count();
            prop_assert!(below * 2 >= samples.len());
            samples.reverse();
            prop_assert_eq!(Summary::of(&samples), Some(summary));
        }
    }
}
