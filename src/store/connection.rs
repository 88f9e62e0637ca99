//! A bounded, resilient part of a pool. Knows no table.

use std::time::Duration;

mod acquire;
mod cancellations;
pub(super) mod connecting;
mod encryption;
pub(super) mod executor;
pub(super) mod peer;
pub(super) mod pool;
mod pooler;
pub(super) mod primary;
pub(super) mod probe;
mod round_trip;
pub(in crate::store) mod sqlstate;
pub(super) mod transaction;
pub(super) mod url;

/// How long the database may take for one statement, the wait for a
/// connection included: long enough for a fail-over to a warm standby to be
/// noticed, short enough that visitors are still there.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// No clock overflows when it is added to the present.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
