/// The middle of `samples`: half of them are not above it.
///
/// Sorts them. The upper one of the two in the middle; 0 where there are none.
///
/// ```
/// assert_eq!(bench_common::median(&mut [3.0, 1.0, 2.0]), 2.0);
/// ```
#[must_use]
pub fn median(samples: &mut [f64]) -> f64 {
    percentile(samples, 0.5)
}

/// The sample that `part` of `samples` are not above, such as 0.99.
///
/// Sorts them. 0 where there are none.
///
/// ```
/// let mut samples: Vec<f64> = (1..=100).map(f64::from).collect();
/// assert_eq!(bench_common::percentile(&mut samples, 0.99), 100.0);
/// assert_eq!(bench_common::percentile(&mut [], 0.99), 0.0);
/// ```
#[must_use]
pub fn percentile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let at = (samples.len() as f64 * part) as usize;
    let last = samples.len().checked_sub(1);
    last.map_or(0.0, |last| samples[at.min(last)])
}
