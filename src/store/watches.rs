//! Watched sessions: the application waits here, for a socket or a stream, until a session has
//! ended. It knows ids of rows, and neither requests nor sockets.
//!
//! How it works: the [`registry`] has an entry for each row that is watched, and a
//! channel for each watch. A call of this process that ends sessions reports them when its
//! transaction is committed, which ends their watches at once. A task, the
//! [`sweep`], looks up all watched rows every few seconds. So it finds the sessions that
//! another process ended, and those that expired. Both follow a session to its new id.
//!
//! [`former_ids`] records what happened to a row whose old id leaves no row. A later destroy
//! reads it.

pub(super) mod former_ids;
mod registry;
pub(super) mod report;
pub(super) mod sweep;
