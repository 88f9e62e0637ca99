//! Work on many rows of which another transaction may have locked one.

use std::time::Duration;

/// How long a statement of requests waits for a locked row. It is longer than a
/// commit takes.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);
/// The same where one of the rows is known to be locked, and is being found.
pub(super) const PATIENCE_IN_SEARCH: Duration = Duration::from_millis(25);
/// Into how many parts a statement is cut that one of its rows is at fault for.
pub(super) const PARTS: usize = 4;

/// How long a statement waits for a locked row if no visitor waits for it, and
/// if the store has this timeout.
pub(super) fn patience_of(timeout: Duration) -> Duration {
    Duration::from_secs(1).min(timeout / 4)
}

/// The ids in parts, of which the last is the first to be taken.
pub(super) fn cut(ids: &[String]) -> impl Iterator<Item = Vec<String>> {
    let length = ids.len().div_ceil(PARTS).max(1);
    ids.chunks(length).rev().map(<[String]>::to_vec)
}
