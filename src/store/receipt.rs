//! What a request holds while it waits for a statement.

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{Error, store::database::out_of_time};

/// The answer to one row, when its statement is through.
pub(crate) struct Receipt<T> {
    answer: oneshot::Receiver<Result<T, Error>>,
    deadline: Instant,
}

impl<T> Receipt<T> {
    pub(super) fn new(answer: oneshot::Receiver<Result<T, Error>>, deadline: Instant) -> Self {
        Self { answer, deadline }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// # Errors
    ///
    /// Those of the statement, and `Unavailable` when the time is up; then the
    /// statement may still be carried out.
    pub(crate) async fn answer(self) -> Result<T, Error> {
        timeout_at(self.deadline, self.outcome())
            .await
            .unwrap_or_else(|_| Err(out_of_time()))
    }

    /// As [`answer`](Self::answer) without a timer of its own, for a part of
    /// what a request waits for: the request has one, and so has the statement.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    pub(crate) async fn outcome(self) -> Result<T, Error> {
        self.answer
            .await
            .unwrap_or_else(|_| Err(Error::abandoned()))
    }
}
