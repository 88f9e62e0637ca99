//! What a session owes when its request ends, or its handler saves by hand.

use std::{sync::Arc, time::Duration};

use super::Session;
use crate::{
    Error, ErrorKind,
    id::{RowId, Token},
    state::{Debt, MayTouch, Origin, Owed, Record, State},
    store::Row,
};

/// The cookie that the response owes the browser.
#[derive(Clone, Debug, Default)]
pub(crate) enum Pending {
    #[default]
    AsItIs,
    /// With its life, where it outlives the browser.
    Set(Token, Duration),
    Removed,
}

/// How the response ends the session's request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub(crate) keeps_changes: bool,
    pub(crate) may_touch: MayTouch,
}

impl Session {
    pub(super) async fn save_now(&self) -> Result<(), Error> {
        let mut cookie = self.0.saving.lock().await;
        let debt = self.state().take_debt(&self.0.timeouts, MayTouch::No);
        self.pay(debt, &mut cookie).await
    }

    /// Ends the time for changes, saves them, and answers the cookie that the
    /// response owes. It owes the one of an earlier save also where this one
    /// failed.
    pub(crate) async fn commit(&self, closing: Closing) -> (Pending, Result<(), Error>) {
        let mut cookie = self.0.saving.lock().await;
        let debt = self.close(closing);
        let outcome = self.pay(debt, &mut cookie).await;
        (cookie.clone(), outcome)
    }

    fn close(&self, closing: Closing) -> Debt {
        let mut state = self.state();
        state.close();
        if !closing.keeps_changes {
            state.forget_changes();
        }
        state.take_debt(&self.0.timeouts, closing.may_touch)
    }

    async fn pay(&self, debt: Debt, cookie: &mut Pending) -> Result<(), Error> {
        let outcome = match self.end(debt.doomed, cookie).await {
            Ok(()) => self.write(debt.owed, cookie).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            self.state().settle_without_changes(error);
        }
        outcome
    }

    async fn end(&self, doomed: Option<RowId>, cookie: &mut Pending) -> Result<(), Error> {
        let Some(id) = doomed else {
            return Ok(());
        };
        if let Err(error) = self.0.store.destroy(id.clone()).await {
            self.state().owe_end_of(id);
            return Err(error);
        }
        *cookie = Pending::Removed;
        Ok(())
    }

    async fn write(&self, owed: Owed, cookie: &mut Pending) -> Result<(), Error> {
        let store = &self.0.store;
        let timeouts = Arc::clone(&self.0.timeouts);
        match owed {
            Owed::Nothing => {}
            Owed::Refused(reason) => return Err(reason.error()),
            Owed::Touch(row) => self.touch(row, cookie).await,
            Owed::Insert(document) => {
                let (token, row) = store.insert(document, &timeouts).await?;
                *cookie = self.begin(row, token);
            }
            Owed::Cycle(id, changes) => {
                let (token, row) = store.cycle(id, changes, timeouts).await?;
                *cookie = self.begin(row, token);
            }
            Owed::Save(row, record, may_touch) => {
                let lengthens = record.changes.set_expiry();
                let before = Arc::clone(&row);
                let row = store.save(row, record, timeouts, may_touch).await?;
                // Under a new id the browser has, or gets, another cookie.
                let is_ours = row.id == before.id;
                let renewed = self.go_on(Arc::clone(&row));
                if is_ours && (lengthens || self.outgrows_cookie(&before, &row)) {
                    *cookie = renewed;
                }
            }
        }
        Ok(())
    }

    /// A touch that fails costs the visitor nothing but a later expiry.
    async fn touch(&self, row: Arc<Row>, cookie: &mut Pending) {
        let timeouts = Arc::clone(&self.0.timeouts);
        let before = Arc::clone(&row);
        let touched = self
            .0
            .store
            .save(row, Record::default(), timeouts, MayTouch::Yes)
            .await;
        match touched {
            Ok(row) => {
                let renewed = self.go_on(Arc::clone(&row));
                if self.outgrows_cookie(&before, &row) {
                    *cookie = renewed;
                }
            }
            Err(error) if error.kind() == ErrorKind::Ended => {
                tracing::debug!("a session ended before it could be touched");
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a session could not be touched"
            ),
        }
    }

    fn begin(&self, row: Arc<Row>, token: Token) -> Pending {
        let mut state = self.state();
        state.settle(Origin::Stored(row, token));
        self.cookie_of(&state)
    }

    fn go_on(&self, row: Arc<Row>) -> Pending {
        let mut state = self.state();
        if let Origin::Stored(_, token) = state.origin().clone() {
            state.settle(Origin::Stored(row, token));
        }
        self.cookie_of(&state)
    }

    fn cookie_of(&self, state: &State) -> Pending {
        let Origin::Stored(row, token) = state.origin() else {
            return Pending::AsItIs;
        };
        let life = self
            .0
            .timeouts
            .cookie_life(&state.document().meta(), row.times);
        Pending::Set(token.clone(), life)
    }

    /// Whether the session was extended beyond what a cookie can be told. One
    /// that was not may have ended or moved, and its cookie must not return.
    fn outgrows_cookie(&self, before: &Row, after: &Row) -> bool {
        let meta = self.state().document().meta();
        before.times.expires != after.times.expires
            && self.0.timeouts.outlives_cookie(&meta, after.times)
    }

    /// Whether a cookie that opened no session should go. Not where the
    /// browser may hold, or be about to get, one that does.
    pub(crate) fn has_no_use_for_a_cookie(&self) -> bool {
        matches!(self.state().origin(), Origin::New)
    }

    pub(crate) fn close_for_changes(&self) {
        self.state().close();
    }
}
