//! Work on many rows of which one may be locked or damaged.

use std::time::Duration;

use tokio::time::Instant;

/// How long a statement of requests waits for a locked row. It is longer than a
/// commit takes.
pub(in crate::store) const PATIENCE: Duration = Duration::from_millis(200);
/// The same where one of the rows is known to be locked, and is being found.
pub(in crate::store) const PATIENCE_IN_SEARCH: Duration = Duration::from_millis(25);
/// Into how many parts a statement is cut that one of its rows is at fault for.
pub(in crate::store) const PARTS: usize = 4;

/// How long a statement waits for a locked row if no visitor waits for it, and
/// if the store has this timeout.
pub(in crate::store) fn patience_of(timeout: Duration) -> Duration {
    Duration::from_secs(1).min(timeout / 4)
}

/// The search for the rows that a statement fails for, because another transaction
/// has locked them or because they are damaged, so that the others don't fail with
/// them: the statement is cut until such a row is alone. After the deadline it is
/// not cut any more.
pub(in crate::store) struct Search {
    pending: Vec<Vec<String>>,
    left: Vec<String>,
    deadline: Instant,
}

impl Search {
    pub(in crate::store) fn among(ids: Vec<String>, deadline: Instant) -> Self {
        Self {
            pending: vec![ids],
            left: Vec::new(),
            deadline,
        }
    }

    /// The ids of the next statement.
    pub(in crate::store) fn next(&mut self) -> Option<Vec<String>> {
        self.pending.pop()
    }

    /// The statement for these ids failed, so it is cut. Returns whether it was:
    /// otherwise they are left for later.
    pub(in crate::store) fn cut(&mut self, ids: Vec<String>) -> bool {
        let is_to_cut = ids.len() > 1 && Instant::now() < self.deadline;
        match is_to_cut {
            true => {
                let length = ids.len().div_ceil(PARTS);
                let parts = ids.chunks(length).rev().map(<[String]>::to_vec);
                self.pending.extend(parts);
            }
            false => self.left.extend(ids),
        }
        is_to_cut
    }

    /// The ids that are left for later. After the deadline, others may be among
    /// them.
    pub(in crate::store) fn left(self) -> Vec<String> {
        self.left
    }
}
