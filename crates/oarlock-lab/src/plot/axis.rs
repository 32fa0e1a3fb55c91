//! Round numbers for axes and bins.

/// The smallest of 1, 2, 5, 10, 20, 50, … (and their fractions) that is at least `least`,
/// which must be positive.
pub fn round_up(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * power);
    // A step that equals `least` but for rounding is good enough.
    let fits = steps.into_iter().find(|s| *s >= least * 0.999_999);
    fits.unwrap_or(10.0 * power)
}

/// Round places from `from` to `to`, about `wanted` of them, and how many decimals they need.
pub fn ticks(from: f64, to: f64, wanted: f64) -> (Vec<f64>, usize) {
    let step = round_up((to - from) / wanted);
    let first = (from / step).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    ((first..=last).map(|n| n as f64 * step).collect(), decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_up_to_1_2_5() {
        assert_eq!(round_up(3.0), 5.0);
        assert_eq!(round_up(5.0), 5.0);
        assert_eq!(round_up(51.0), 100.0);
        assert_eq!(round_up(0.1), 0.1);
        assert_eq!(round_up(1.0), 1.0);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(-0.5, 1.0, 4.0), (vec![-0.5, 0.0, 0.5, 1.0], 1));
        assert_eq!(ticks(0.0, 120.0, 4.0), (vec![0.0, 50.0, 100.0], 0));
    }
}
