//! A bounded part of a pool: acquires and releases connections, cancels statements, follows
//! the primary, and classifies errors. It knows no table and no column.

use std::time::Duration;

pub(in crate::store) mod acquire;
mod cancellations;
pub(super) mod connecting;
mod encryption;
pub(super) mod executor;
pub(super) mod peer;
pub(super) mod pool;
mod pooler;
pub(super) mod primary;
pub(super) mod probe;
pub(super) mod purpose;
mod round_trip;
pub(in crate::store) mod sqlstate;
pub(super) mod transaction;
pub(super) mod url;

/// How long the database may take for one statement, including the wait for a connection:
/// long enough for a failover to a warm standby, and short enough that users still wait.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest timeout. Adding it to the current time can't overflow.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
