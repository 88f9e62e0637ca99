//! What the benchmarks share: a [Postgres](postgres) that flushes to disk, statistics, [tables](Table),
//! and [figures that are tracked](Summary) from one run to the next.

mod summary;
mod table;

use std::{fs, thread::available_parallelism};

use dev_postgres::{Builder, Prefer, Server};

pub use summary::Summary;
pub use table::Table;

/// The Postgres of a benchmark, not yet started: the machine's, if it has one.
///
/// `fsync` is on, so a commit waits for the disk as in production. A later
/// [`setting`](Builder::setting) of the same name wins. `DATABASE_URL` is ignored, because the
/// settings of that server are unknown.
pub fn postgres() -> Builder {
    Server::builder()
        .prefer(Prefer::Machine)
        .setting("fsync", "on")
        .setting("synchronous_commit", "on")
        // A checkpoint during a measurement would be noise.
        .setting("max_wal_size", "8GB")
        .setting("checkpoint_timeout", "1h")
}

/// The number of cores that the benchmark and its database share.
#[must_use]
pub fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// The CPU time that this thread has used, in microseconds. NaN if the system doesn't report it;
/// only Linux does.
#[must_use]
pub fn thread_cpu_micros() -> f64 {
    let line = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = line.split(' ').next().and_then(|field| field.parse().ok());
    nanos.map_or(f64::NAN, |nanos: f64| nanos / 1e3)
}

/// The median: the mean of the two middle samples if their number is even, NaN without samples.
///
/// ```
/// assert_eq!(bench_common::median([3.0, 1.0, 2.0]), 2.0);
/// assert_eq!(bench_common::median([4.0, 1.0]), 2.5);
/// ```
#[must_use]
pub fn median(samples: impl IntoIterator<Item = f64>) -> f64 {
    let samples = sorted(samples);
    match samples.len() {
        0 => f64::NAN,
        n => f64::midpoint(samples[(n - 1) / 2], samples[n / 2]),
    }
}

/// The sample that `part` of all samples don't exceed, such as 0.99; NaN without samples.
///
/// ```
/// let samples = (1..=100).map(f64::from);
/// assert_eq!(bench_common::percentile(samples, 0.99), 100.0);
/// ```
#[must_use]
pub fn percentile(samples: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let samples = sorted(samples);
    let at = (samples.len() as f64 * part) as usize;
    let sample = samples.get(at).or(samples.last());
    sample.copied().unwrap_or(f64::NAN)
}

fn sorted(samples: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut samples: Vec<f64> = samples.into_iter().collect();
    samples.sort_by(f64::total_cmp);
    samples
}

/// A number with at most three digits and a unit of thousands.
///
/// ```
/// use bench_common::readable;
/// let texts = [0.25, 12.0, 1_000.0, 34_500.0, 5e6].map(readable);
/// assert_eq!(texts, ["0.25", "12", "1k", "34.5k", "5M"]);
/// ```
#[must_use]
pub fn readable(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 999.5e3 => (value / 1e6, "M"),
        size if size >= 999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = match scaled.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let digits = format!("{scaled:.decimals$}");
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => &digits,
    };
    format!("{digits}{unit}")
}
