//! The five figures every measured series is published with.

use serde::{Deserialize, Serialize};

/// A series in five figures, in the series' own unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many values.
    pub n: usize,
    /// The smallest.
    pub min: f64,
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The value that 99 % do not exceed (nearest rank: always one that was measured, and the
    /// largest of fewer than 100).
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Summarises a series; None if it is empty or holds something that is no number.
    pub fn of(values: &[f64]) -> Option<Summary> {
        if values.is_empty() || values.iter().any(|v| v.is_nan()) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let n = sorted.len();
        Some(Summary {
            n,
            min: sorted[0],
            median: (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
            p99: sorted[(n * 99).div_ceil(100) - 1],
            max: sorted[n - 1],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_odd_number() {
        let summary = Summary::of(&[5.0, 1.0, 3.0]).unwrap();
        let expected = Summary { n: 3, min: 1.0, median: 3.0, p99: 5.0, max: 5.0 };
        assert_eq!(summary, expected);
    }

    #[test]
    fn of_an_even_number() {
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 8.0]).unwrap().median, 3.0);
    }

    #[test]
    fn p99_is_a_measured_value() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        let summary = Summary::of(&values).unwrap();
        assert_eq!((summary.median, summary.p99, summary.max), (100.5, 198.0, 200.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(Summary::of(&hundred).unwrap().p99, 99.0);
    }

    #[test]
    fn of_nothing_or_no_number() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
    }
}
