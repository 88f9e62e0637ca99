//! What requests want of a row, and what they get back.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use crate::{
    Error,
    expiry::Timeouts,
    id::RowId,
    row::Row,
    state::{NewIdWrite, Record, Saved, Touch},
    store::rows::undo::Undelivered,
};

/// What a request owes its row, and who waits for the outcome.
pub(in crate::store) enum Write {
    Save(SaveOrder),
    Destroy(oneshot::Sender<Result<bool, Error>>),
    NewId(NewIdOrder),
}

/// Changes to be replayed on the row; none of them means a mere touch.
pub(in crate::store) struct SaveOrder {
    /// The row as the request loaded it.
    pub(in crate::store) base: Arc<Row>,
    pub(in crate::store) record: Record,
    pub(in crate::store) touch: Touch,
    pub(in crate::store) timeouts: Arc<Timeouts>,
    /// Until when the request waits.
    pub(in crate::store) deadline: Instant,
    /// If the session got a new id since the request loaded it, so that the order
    /// is carried out on a row that the request must not see: what the request
    /// is told if that fails.
    pub(in crate::store) forwarded: Option<Error>,
    pub(in crate::store) answer: oneshot::Sender<Result<Saved, Error>>,
}

impl SaveOrder {
    /// A request whose token does not open the row learns nothing of it, not even
    /// why its changes do not fit.
    pub(in crate::store) fn answer(self, outcome: Result<Saved, Error>) {
        let outcome = match (self.forwarded, outcome) {
            (None, outcome) => outcome,
            (Some(_), Ok(_)) => Ok(Saved::Moved),
            (Some(_), Err(error)) if error.is_of_the_database() => Err(error),
            (Some(moved), Err(_)) => Err(moved),
        };
        // Nobody waits for the answer of a cancelled request.
        drop(self.answer.send(outcome));
    }
}

pub(in crate::store) struct NewIdOrder {
    pub(in crate::store) write: NewIdWrite,
    pub(in crate::store) timeouts: Arc<Timeouts>,
    pub(in crate::store) new_id: RowId,
    /// Until when the request waits.
    pub(in crate::store) deadline: Instant,
    pub(in crate::store) answer: oneshot::Sender<Result<NewId, Error>>,
}

/// The outcome of a new id, and what undoes it if nobody receives the outcome.
pub(in crate::store) type NewId = (Result<Arc<Row>, Error>, Undelivered);
