//! What the crate records by the installed recorder of metrics.

use metrics::{LocalRecorderGuard, Unit};
use metrics_util::{
    CompositeKey, MetricKind,
    debugging::{DebugValue, DebuggingRecorder},
};

const PREFIX: &str = "axum_pg_session.";

/// A recorder of this thread. It does not see stores that were built before it.
pub(crate) struct Meters {
    recorder: &'static DebuggingRecorder,
    _guard: LocalRecorderGuard<'static>,
}

/// A metric as it was registered.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Registered {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) help: String,
}

impl Meters {
    pub(crate) fn install() -> Self {
        let recorder: &_ = Box::leak(Box::new(DebuggingRecorder::new()));
        Self {
            recorder,
            _guard: metrics::set_default_local_recorder(recorder),
        }
    }

    /// What has moved since the last time, a line each, in order: the growth
    /// of a counter, the sizes of batches, and how often a time was taken.
    pub(crate) fn moved(&self) -> Vec<String> {
        let snapshot = self.recorder.snapshotter().snapshot().into_vec();
        let mut moved: Vec<_> = snapshot
            .into_iter()
            .filter_map(|(key, unit, _, value)| {
                let value = shown(unit, value)?;
                Some(format!("{} {value}", series(&key)))
            })
            .collect();
        moved.sort();
        moved
    }

    #[track_caller]
    pub(crate) fn have_moved(&self, expected: &[&str]) {
        assert_eq!(self.moved(), expected);
    }

    /// The growth of one series since the last call.
    pub(crate) fn moved_by(&self, series: &str) -> Option<String> {
        let line = self
            .moved()
            .into_iter()
            .find(|line| line.starts_with(&format!("{series} ")))?;
        Some(line[series.len() + 1..].to_owned())
    }

    pub(crate) fn registered(&self) -> Vec<Registered> {
        let snapshot = self.recorder.snapshotter().snapshot().into_vec();
        let mut registered: Vec<_> = snapshot
            .into_iter()
            .map(|(key, unit, help, _)| Registered {
                name: key.key().name().to_owned(),
                kind: kind(&key),
                unit: unit.expect("each is described").as_str(),
                labels: labels(&key),
                help: help.expect("each is described").to_string(),
            })
            .collect();
        registered.sort();
        registered
    }
}

fn kind(key: &CompositeKey) -> &'static str {
    match key.kind() {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    }
}

fn labels(key: &CompositeKey) -> Vec<(String, String)> {
    let labels = key.key().labels();
    labels
        .map(|label| (label.key().to_owned(), label.value().to_owned()))
        .collect()
}

fn series(key: &CompositeKey) -> String {
    let name = key.key().name();
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let labels: Vec<_> = labels(key)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    match labels.as_slice() {
        [] => name.to_owned(),
        labels => format!("{name}{{{}}}", labels.join(",")),
    }
}

fn shown(unit: Option<Unit>, value: DebugValue) -> Option<String> {
    match (value, unit) {
        (DebugValue::Counter(0), _) => None,
        (DebugValue::Counter(growth), _) => Some(format!("+{growth}")),
        (DebugValue::Histogram(values), _) if values.is_empty() => None,
        (DebugValue::Histogram(values), Some(Unit::Seconds)) => {
            assert!(values.iter().all(|value| (0.0..60.0).contains(&value.0)));
            Some(format!("×{}", values.len()))
        }
        (DebugValue::Histogram(mut values), _) => {
            values.sort();
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            Some(format!("[{}]", values.join(", ")))
        }
        (value @ DebugValue::Gauge(_), _) => Some(format!("{value:?}")),
    }
}
