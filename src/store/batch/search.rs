//! Work on many rows of which one may be locked or damaged: how long a statement waits for
//! a lock, and the search for the rows at fault. It sends no statement itself.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{Error, error::out_of_time};

/// How long a statement of requests waits for a locked row. It is longer than a
/// commit takes.
pub(in crate::store) const PATIENCE: Duration = Duration::from_millis(200);
/// The same while the search for a locked row runs.
pub(in crate::store) const PATIENCE_IN_SEARCH: Duration = Duration::from_millis(25);
/// Between two attempts at rows that are locked.
pub(in crate::store) const PAUSE: Duration = Duration::from_millis(100);
/// The number of parts that a statement is cut into if one of its rows is at fault.
pub(in crate::store) const PARTS: usize = 4;

/// Cuts after the deadline at most. Five find one row among a thousand.
const MOST_LATE_CUTS: u32 = 16;

/// How long a statement waits for a locked row if no request waits for it, for a store
/// with this timeout.
pub(in crate::store) fn patience_of(timeout: Duration) -> Duration {
    Duration::from_secs(1).min(timeout / 4)
}

/// The search for the rows that a statement fails for, because another transaction
/// has locked them or because they are damaged, so that the others don't fail with
/// them: the statement is cut until such a row is alone. After the deadline it is cut only a
/// few times more, and not for a row that is locked, which may stay locked.
pub(in crate::store) struct Search {
    pending: Vec<Vec<String>>,
    left: Left,
    deadline: Instant,
    late_cuts: u32,
}

/// The rows that are left for later, and others with them if the deadline came
/// before the end of the search.
#[derive(Default)]
pub(in crate::store) struct Left {
    pub(in crate::store) ids: Vec<String>,
    /// Why the first of them is left.
    pub(in crate::store) error: Option<Error>,
    /// Whether any of them is locked, so that a later attempt can succeed.
    pub(in crate::store) is_locked: bool,
}

impl Left {
    pub(in crate::store) fn leave(&mut self, ids: Vec<String>, error: Error) {
        self.is_locked |= error.is_of_a_lock();
        self.ids.extend(ids);
        self.error.get_or_insert(error);
    }

    pub(in crate::store) fn add(&mut self, more: Self) {
        self.is_locked |= more.is_locked;
        self.ids.extend(more.ids);
        self.error = self.error.take().or(more.error);
    }

    /// Waits for a moment, if another attempt can delete more rows.
    ///
    /// # Errors
    ///
    /// If it can't, or the deadline has passed.
    pub(in crate::store) async fn wait(self, deadline: Instant) -> Result<(), Error> {
        match self.error {
            Some(error) if !self.is_locked => Err(error),
            Some(error) if Instant::now() >= deadline => Err(match error.is_of_a_lock() {
                true => out_of_time(),
                false => error,
            }),
            _ => {
                sleep(PAUSE).await;
                Ok(())
            }
        }
    }
}

impl Search {
    pub(in crate::store) fn among(ids: Vec<String>, deadline: Instant) -> Self {
        let mut search = Self {
            pending: Vec::new(),
            left: Left::default(),
            deadline,
            late_cuts: 0,
        };
        search.add(ids);
        search
    }

    /// The ids of the next statement.
    pub(in crate::store) fn next(&mut self) -> Option<Vec<String>> {
        self.pending.pop()
    }

    /// Adds rows that a statement was not sent for.
    pub(in crate::store) fn add(&mut self, ids: Vec<String>) {
        if !ids.is_empty() {
            self.pending.push(ids);
        }
    }

    /// Records that the statement for these ids failed: they are cut into parts, or
    /// left if they can't be.
    pub(in crate::store) fn failed(&mut self, ids: Vec<String>, error: Error) {
        let is_late = Instant::now() >= self.deadline;
        let may_cut = !is_late || (!error.is_of_a_lock() && self.late_cuts < MOST_LATE_CUTS);
        self.late_cuts += u32::from(is_late);
        match ids.len() > 1 && may_cut {
            true => {
                let length = ids.len().div_ceil(PARTS);
                let parts = ids.chunks(length).rev().map(<[String]>::to_vec);
                self.pending.extend(parts);
            }
            false => self.left.leave(ids, error),
        }
    }

    pub(in crate::store) fn left(self) -> Left {
        self.left
    }
}
