//! The recorder that the crate's metrics go to.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// From the duration of a commit in memory to the timeout of a store.
const SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// A statement has at most 512 rows.
const ROWS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

pub(crate) fn builder() -> Result<PrometheusBuilder, BuildError> {
    let ends = |end: &str| Matcher::Suffix(end.to_owned());
    PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets_for_metric(ends("duration"), &SECONDS)?
        .set_buckets_for_metric(ends("_time"), &SECONDS)?
        .set_buckets_for_metric(ends("batch_size"), &ROWS)
}

/// Installs the recorder of the process. Observations stay in memory until `/metrics` is read or
/// `run_upkeep` is called, so a task calls it.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    let upkept = handle.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_secs(5));
        loop {
            interval.tick().await;
            upkept.run_upkeep();
        }
    });
    Ok(handle)
}
