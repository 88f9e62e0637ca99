//! What a session owes when its request ends, or its handler saves by hand.

use std::sync::Arc;

use tracing::{Instrument as _, Span};

use super::Session;
use crate::{
    Error, ErrorKind, FailurePolicy,
    format::{Terms, Ticket},
    id::Token,
    state::{Debt, Doomed, MayTouch, Origin, Owed, Record, State},
    store::Row,
    telemetry::saving,
};

/// The cookie that the response owes the browser.
#[derive(Clone, Debug, Default)]
pub(crate) enum Pending {
    #[default]
    AsItIs,
    /// It stays, but the cookie of a former scope goes: both open sessions.
    OfOneScope,
    Set(Ticket),
    Removed(Terms),
}

/// How the response ends the session's request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub(crate) keeps_changes: bool,
    pub(crate) on_failure: FailurePolicy,
    pub(crate) may_touch: MayTouch,
}

impl Session {
    pub(super) async fn save_now(&self) -> Result<(), Error> {
        let mut cookie = self.0.saving.lock().await;
        self.prepare()?;
        let debt = self.state().take_debt(self.timeouts(), MayTouch::No);
        let outcome = self.pay(debt, &mut cookie).await;
        outcome.inspect_err(|error| self.store().meter().failed(error))
    }

    /// Ends the time for changes, saves them, and answers the cookie that the
    /// response owes. It owes the one of an earlier save also where this one
    /// failed.
    pub(crate) async fn commit(&self, closing: Closing) -> (Pending, Result<(), Error>) {
        let mut cookie = self.0.saving.lock().await;
        let (debt, prepared) = self.close(closing);
        let must_hold = closing.on_failure == FailurePolicy::Refuse || debt.ends_something();
        let outcome = self.pay(debt, &mut cookie).await.and(prepared);
        let outcome = outcome.inspect_err(|error| self.store().meter().failed(error));
        match outcome {
            Err(error) if !must_hold && error.is_of_the_database() => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    error.type = error.kind().name(),
                    "a session could not be saved; its changes are lost"
                );
                (cookie.clone(), Ok(()))
            }
            outcome => (cookie.clone(), outcome),
        }
    }

    /// What is owed, and whether the application could prepare it.
    fn close(&self, closing: Closing) -> (Debt, Result<(), Error>) {
        if !closing.keeps_changes {
            self.state().forget_changes();
        }
        let prepared = self.prepare();
        let mut state = self.state();
        state.close();
        if prepared.is_err() {
            state.forget_changes();
        }
        (
            state.take_debt(self.timeouts(), closing.may_touch),
            prepared,
        )
    }

    /// Lets the application add to what is about to be saved. Its hook uses
    /// the session, so the state is not locked meanwhile.
    fn prepare(&self) -> Result<(), Error> {
        if !self.state().owes_a_document() {
            return Ok(());
        }
        self.0.config.hooks.before_save(self)
    }

    async fn pay(&self, debt: Debt, cookie: &mut Pending) -> Result<(), Error> {
        let span = match debt.takes_a_statement() {
            true => saving(),
            false => Span::none(),
        };
        let outcome = self.pay_all(debt, cookie).instrument(span).await;
        if let Err(error) = &outcome {
            self.state().settle_without_changes(error);
        }
        outcome
    }

    async fn pay_all(&self, debt: Debt, cookie: &mut Pending) -> Result<(), Error> {
        self.end(debt.doomed, cookie).await?;
        self.write(debt.owed, cookie).await
    }

    async fn end(&self, doomed: Option<Doomed>, cookie: &mut Pending) -> Result<(), Error> {
        let Some(doomed) = doomed else {
            return Ok(());
        };
        if let Err(error) = self.store().destroy_row(doomed.row.id.clone()).await {
            self.state().owe_end_of(doomed);
            return Err(error);
        }
        if self.signs_out() {
            self.store().meter().user_signed_out();
        }
        *cookie = Pending::Removed(doomed.terms);
        Ok(())
    }

    async fn write(&self, owed: Owed, cookie: &mut Pending) -> Result<(), Error> {
        let store = self.store();
        let timeouts = Arc::clone(self.timeouts());
        match owed {
            Owed::Nothing => {}
            Owed::NoTouchYet => store.meter().skipped_a_touch(),
            Owed::Refused(reason, _) => return Err(reason.error()),
            Owed::Touch(row, may_touch) => self.touch_row(row, may_touch, cookie).await,
            Owed::Insert(document) => {
                let (token, row) = store.insert(document, &timeouts).await?;
                *cookie = self.begin(row, token);
            }
            Owed::Reissue(reissue) => {
                let (token, row) = store.reissue(reissue, timeouts).await?;
                *cookie = self.begin(row, token);
            }
            Owed::Save(row, record, may_touch) => {
                // Whoever must be extended may hold an outdated signature.
                let lengthens = record.changes.set_expiry() || may_touch == MayTouch::Must;
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
    async fn touch_row(&self, row: Arc<Row>, may_touch: MayTouch, cookie: &mut Pending) {
        let timeouts = Arc::clone(self.timeouts());
        let before = Arc::clone(&row);
        let touched = self
            .store()
            .save(row, Record::default(), timeouts, may_touch)
            .await;
        match touched {
            Ok(row) => {
                let renewed = self.go_on(Arc::clone(&row));
                let is_written = row.times != before.times;
                if (may_touch == MayTouch::Must && is_written)
                    || self.outgrows_cookie(&before, &row)
                {
                    *cookie = renewed;
                }
            }
            Err(error) if error.kind() == ErrorKind::Ended => {
                tracing::debug!("a session ended before it could be touched");
            }
            Err(error) => {
                self.store().meter().failed(&error);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    error.type = error.kind().name(),
                    "a session could not be touched"
                );
            }
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
        let document = state.document();
        Pending::Set(Ticket {
            token: token.clone(),
            life: self.timeouts().cookie_life(&document.meta(), row.times),
            now: row.times.now,
            terms: document.terms(),
        })
    }

    /// Whether the session was extended beyond what a cookie can be told. One
    /// that was not may have ended or moved, and its cookie must not return.
    fn outgrows_cookie(&self, before: &Row, after: &Row) -> bool {
        let meta = self.state().document().meta();
        before.times.expires != after.times.expires
            && self.timeouts().outlives_cookie(&meta, after.times)
    }

    /// Whether a cookie that opened no session should go. Not where the
    /// browser may hold, or be about to get, one that does.
    pub(crate) fn has_no_use_for_a_cookie(&self) -> bool {
        matches!(self.state().origin(), Origin::New)
    }

    /// Whether the browser should forget more than the cookie.
    pub(crate) fn signs_out(&self) -> bool {
        self.state().signs_out()
    }

    /// For a session that the application does not accept.
    pub(crate) fn disown(&self) {
        self.state().destroy();
    }

    pub(crate) fn close_for_changes(&self) {
        self.state().close();
    }
}
