//! One statement for many rows: gathers rows, sends the statement, and matches the results.
//!
//! Nothing here knows a session: neither what is saved, nor why, nor in which order the
//! writes of one session are sent.

pub(super) mod deletion_portions;
pub(super) mod execute;
pub(super) mod limits;
mod pace;
pub(super) mod queue;
pub(super) mod search;
pub(super) mod statements;
pub(super) mod until_free;
