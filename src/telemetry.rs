//! Metrics, spans and events. This module records what other modules report. It runs no
//! query and doesn't decide anything.

pub(crate) mod counters;
pub(crate) mod events;
#[cfg_attr(feature = "metrics", path = "telemetry/facade.rs")]
#[cfg_attr(not(feature = "metrics"), path = "telemetry/noop.rs")]
mod facade;
mod meter;
#[cfg_attr(
    not(feature = "metrics"),
    expect(dead_code, reason = "only the facade reads what describes a metric")
)]
mod names;
mod operation;
mod spans;
mod statement;

pub(crate) use facade::Stopwatch;
pub(crate) use meter::Meter;
pub(crate) use names::{End, Lookup, RejectedToken, Run};
pub(crate) use operation::Operation;
pub(crate) use spans::{Origin, loading, saving, writing};
pub(crate) use statement::{Call, Origins, Running};
