//! The writes that requests submit for a row, and the results that they get. It only has
//! data: no queue and no SQL.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use crate::{
    Error,
    ending::Ending,
    id::RowId,
    row::Row,
    state::{Deletion, NewIdWrite, Record, Saved, ToDelete},
    store::rows::undo::Undelivered,
    timeouts::Timeouts,
    touch::Touch,
};

/// A write of a row, and the sender of its result.
pub(in crate::store) enum Write {
    Save(SaveOrder),
    Destroy(DestroyOrder),
    NewId(NewIdOrder),
}

/// Changes to be replayed on the row. Without changes it is a touch.
pub(in crate::store) struct SaveOrder {
    /// The row as the request loaded it.
    pub(in crate::store) base: Arc<Row>,
    pub(in crate::store) record: Record,
    pub(in crate::store) touch: Touch,
    pub(in crate::store) timeouts: Arc<Timeouts>,
    /// The request stops waiting at this time.
    pub(in crate::store) deadline: Instant,
    /// The error for the request if this order fails, in case the session got a new id
    /// since the request loaded it. The order is then executed on a row that the
    /// request must not see.
    pub(in crate::store) forwarded: Option<Error>,
    pub(in crate::store) reply: oneshot::Sender<Result<Saved, Error>>,
}

impl SaveOrder {
    /// Sends the result. If the request's token doesn't open the row, the result shows
    /// nothing of the row, not even why the changes don't fit.
    pub(in crate::store) fn reply(self, outcome: Result<Saved, Error>) {
        let outcome = match (self.forwarded, outcome) {
            (None, outcome) => outcome,
            (Some(_), Ok(_)) => Ok(Saved::Moved),
            (Some(_), Err(error)) if error.is_of_the_database() => Err(error),
            (Some(moved), Err(_)) => Err(moved),
        };
        // A canceled request has no receiver.
        drop(self.reply.send(outcome));
    }
}

pub(in crate::store) struct DestroyOrder {
    pub(in crate::store) target: ToDelete,
    pub(in crate::store) ending: Ending,
    pub(in crate::store) reply: oneshot::Sender<Result<Deletion, Error>>,
}

pub(in crate::store) struct NewIdOrder {
    pub(in crate::store) write: NewIdWrite,
    pub(in crate::store) timeouts: Arc<Timeouts>,
    pub(in crate::store) new_id: RowId,
    /// The request stops waiting at this time.
    pub(in crate::store) deadline: Instant,
    pub(in crate::store) reply: oneshot::Sender<Result<NewId, Error>>,
}

/// The outcome of a new id, and a guard that undoes it if the outcome is not received.
pub(in crate::store) type NewId = (Result<Arc<Row>, Error>, Undelivered);
