//! The only file that uses the `metrics` facade.

use std::{
    fmt,
    sync::OnceLock,
    time::{Duration, Instant},
};

use metrics::{Key, KeyName, Label, Level, Metadata, with_recorder};

use super::names::{Family, Unit};

pub(super) use metrics::{Counter, Histogram};

static METADATA: Metadata<'static> =
    Metadata::new("axum_pg_session", Level::INFO, Some(module_path!()));

pub(super) type Labels<'l> = &'l [(&'static str, &'static str)];

impl Family {
    pub(super) fn counter(&self, labels: Labels<'_>) -> Counter {
        with_recorder(|recorder| recorder.register_counter(&self.key(labels), &METADATA))
    }

    pub(super) fn histogram(&self, labels: Labels<'_>) -> Histogram {
        with_recorder(|recorder| recorder.register_histogram(&self.key(labels), &METADATA))
    }

    pub(super) fn describe_counter(&self) {
        let (name, unit) = (KeyName::from(self.name), Some(self.unit.into()));
        with_recorder(|recorder| recorder.describe_counter(name, unit, self.help.into()));
    }

    pub(super) fn describe_histogram(&self) {
        let (name, unit) = (KeyName::from(self.name), Some(self.unit.into()));
        with_recorder(|recorder| recorder.describe_histogram(name, unit, self.help.into()));
    }

    fn key(&self, labels: Labels<'_>) -> Key {
        let labels = labels
            .iter()
            .map(|(key, value)| Label::from_static_parts(key, value));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }
}

impl From<Unit> for metrics::Unit {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::Count => Self::Count,
            Unit::Seconds => Self::Seconds,
        }
    }
}

/// A value that is created at its first use. By then, the application has installed its
/// recorder, and a stored handle needs no lookup.
pub(super) struct Lazy<T>(OnceLock<T>);

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Lazy<T> {
    pub(super) fn with(&self, make: impl FnOnce() -> T, act: impl FnOnce(&T)) {
        act(self.0.get_or_init(make));
    }
}

/// Measures a duration by this process's clock, only for metrics.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

impl<T> fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lazy")
    }
}
