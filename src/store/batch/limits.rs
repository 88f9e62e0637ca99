//! The limits of one statement: rows and bytes. This file only has the numbers. The queue applies
//! them.

/// Rows of one statement for requests. Postgres plans thousands as well as hundreds, but one
/// statement's locks and memory should stay small.
pub(in crate::store) const MAX_ROWS: usize = 512;
/// Bytes of one statement, so that a large document doesn't delay a batch of small ones. A statement
/// with one row may exceed it.
pub(super) const MAX_BYTES: usize = 256 * 1024;
/// Rows that one transaction deletes outside of requests. A user can have a million of them, for
/// example by a script that signs in for each of its runs.
pub(in crate::store) const BATCH: usize = 1000;
