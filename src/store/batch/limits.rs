//! How many rows one statement may have.

/// Rows of one statement for requests. Postgres plans thousands as well as hundreds, but one
/// statement's locks and memory should stay small.
pub(in crate::store) const MAX_ROWS: usize = 512;
/// Bytes that one statement carries at the most, so that a large document
/// does not hold up a batch of small ones. One row may exceed it, alone.
pub(super) const MAX_BYTES: usize = 256 * 1024;
/// Rows that one transaction deletes outside of requests. A user can have a million of them, for
/// example by a script that signs in for each of its runs.
pub(in crate::store) const BATCH: usize = 1000;
