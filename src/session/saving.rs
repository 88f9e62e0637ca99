//! Saves what a request recorded: when its response is ready, or when the
//! handler calls `save`. This module knows neither HTTP nor SQL. It returns the
//! cookie change, and the layer writes the headers.
//!
//! Both paths do the same, under a mutex that orders the saves of one request.
//! So each save starts from the row of the last one:
//!
//! 1. Call the application's hook `before_save`, without a lock on the state.
//! 2. Take the pending writes from the [state](crate::state).
//! 3. Delete the rows that the request destroyed or refused.
//! 4. Write the session's own row: insert, save, touch, or a new id.
//! 5. Settle the outcome in the state, and the cookie change in [`Saving`].
//!
//! [`Session::commit`] also closes the session for changes, before step 2. It
//! first reports an explicit save that failed after the handler had stopped
//! waiting.
//!
//! Dropped futures:
//!
//! - An explicit save is not dropped with the handler. If it can't finish at
//!   once, it continues in a task of its own, so a token is not lost.
//! - If the client disconnects, [`Session::commit`] is dropped and stops waiting.
//!   Writes that it has queued are still executed, up to the store's timeout. A
//!   first row, or a new id, is undone, because its token was not sent.
//! - Once the response has reached the layer, its deletions are always executed:
//!   they are queued before the first wait for the database. If the future is
//!   dropped while it waits for an earlier save, a task queues them after that
//!   save.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::runtime::Handle;
use tracing::{Instrument as _, Span};

use super::Session;
use crate::{
    Error, ErrorKind, FailurePolicy,
    document::{Document, Terms},
    ending::Ending,
    format::{CookieChange, Ticket},
    id::Token,
    row::Row,
    session::outcomes::{Caller, Failed, Saving},
    state::{
        Deletion, Deletions, Origin, PendingWrites, Record, RefusedBy, RowWrite, Saved, State,
        ToDelete, changes::Change,
    },
    telemetry::saving,
    touch::Touch,
};

/// What the response means for the session of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub(crate) keeps_changes: bool,
    /// Whether the response reports a failure, by its status.
    pub(crate) is_failure: bool,
    pub(crate) on_failure: FailurePolicy,
    pub(crate) touch: Touch,
}

impl Session {
    /// An explicit save. Records `last`, if there is one, after the earlier saves
    /// have finished. `last` must be part of this save only, because the caller
    /// returns the value that its closure was called with.
    ///
    /// The handler can't drop this future, see `save_with`. Only a runtime that
    /// shuts down does. The caller then gets an error, and queued writes may be
    /// committed.
    pub(super) async fn save_now(&self, last: Option<Change>, caller: Caller) -> Result<(), Error> {
        // The mutex is fair, so saves follow each other in the order of their calls.
        let mut saving = self.0.saving.lock().await;
        let is_confirmed = last.is_some();
        // The response has taken the changes, so its outcome is that of this save.
        if let (Some(outcome), None) = (&saving.closed, &last) {
            return outcome.clone();
        }
        let (mut ends_something, is_of_the_hook, prepared) = match saving.take_unreported() {
            Some(save) => (save.ends_something, save.is_of_the_hook, Err(save.error)),
            None => {
                if let Some(change) = last {
                    self.record_last(change, &caller, &mut saving)?;
                }
                let prepared = self.prepare_caught(&caller, &mut saving);
                (false, prepared.is_err(), prepared)
            }
        };
        let mut was_discarded = false;
        let outcome = match prepared {
            Ok(()) => {
                let writes = self.state().take_writes(self.timeouts(), Touch::Never);
                let begins_a_session = writes.begins_a_session;
                ends_something = writes.ends_something;
                was_discarded = is_confirmed && !writes.is_confirmed;
                let outcome = self.execute(writes, &mut saving.cookie).await;
                if begins_a_session && outcome.is_ok() {
                    self.0.has_begun.store(true, Relaxed);
                }
                outcome.inspect_err(|error| self.store().meter().failed(error))
            }
            Err(error) => {
                let mut state = self.state();
                ends_something |= state.ends_something();
                state.forget_changes();
                Err(error)
            }
        };
        if let Err(error) = &outcome {
            saving.failed.push(Failed {
                error: error.clone(),
                caller,
                ends_something,
                is_of_the_hook,
            });
        }
        match was_discarded {
            true => outcome.and(Err(Error::discarded())),
            false => outcome,
        }
    }

    /// If this change fails, the changes that were recorded before stay. A failed
    /// `take` loses no value, so only its caller gets the error.
    fn record_last(
        &self,
        change: Change,
        caller: &Caller,
        saving: &mut Saving,
    ) -> Result<(), Error> {
        let may_be_lost = !matches!(change, Change::Take(..));
        let recorded = catch_unwind(AssertUnwindSafe(|| {
            let mut state = self.open_state()?;
            state.apply(change)?;
            state.confirm();
            Ok(())
        }));
        let error = match &recorded {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Error::clone(error),
            Err(_) => Error::panicked(),
        };
        if may_be_lost {
            saving.failed.push(Failed {
                error,
                caller: caller.clone(),
                ends_something: false,
                is_of_the_hook: false,
            });
        }
        recorded.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Closes the session for changes, saves them, and returns the cookie
    /// change of the response. The response carries that change even if this
    /// save failed, because an earlier save may have succeeded.
    ///
    /// The client can drop this future at each `await` by disconnecting.
    pub(crate) async fn commit(&self, closing: Closing) -> (CookieChange, Result<(), Error>) {
        let waiting = Waiting(Some(self));
        // An earlier save may still run. If dropped here, nothing was taken or queued:
        // `waiting` closes the session and starts a task for the deletions. The other
        // changes are lost.
        let mut saving = self.0.saving.lock().await;
        let may_fail = |error: &Error, ends_something: bool| {
            closing.on_failure == FailurePolicy::Continue
                && !ends_something
                && error.is_of_the_database()
        };
        let unreported = match saving.take_unreported() {
            // The response is an error and saves nothing, so the client expects no
            // change.
            Some(save) if closing.is_failure && !closing.keeps_changes && !save.ends_something => {
                None
            }
            Some(save) if save.is_covered() && may_fail(&save.error, save.ends_something) => {
                log_lost_changes(&save.error);
                None
            }
            save => save,
        };
        // If the hook panics, `waiting` does the same.
        let (writes, prepared) = self.close(closing, unreported.is_some());
        waiting.end();
        // A later `save` returns this error if the future is dropped before the
        // outcome is known.
        saving.closed = Some(Err(Error::without_outcome()));
        let must_hold = prepared.is_err() || unreported.is_some();
        let ends_something = writes.ends_something;
        let cookie = &mut saving.cookie;
        let earlier = cookie.clone();
        // If dropped here, the deletions and a queued write are still executed. A row
        // that this save inserts, or its new id, is undone.
        let outcome = self.execute(writes, cookie).await.and(prepared);
        if cookie.sets_the_token_of(&earlier) {
            // If dropped here, all writes are done. The token of an earlier explicit
            // save is not sent, and its row stays. A token that this save made never
            // gets here, so between its commit and the response there is no `await`.
            self.drop_if_moved(cookie).await;
        }
        // The deletion failed. The handler wanted the session destroyed, so its token
        // must not be sent.
        let cookie = match self.state().is_ended() {
            true => CookieChange::None,
            false => cookie.clone(),
        };
        let outcome = outcome.inspect_err(|error| self.store().meter().failed(error));
        let outcome = match unreported {
            // The metrics counted it when it failed.
            Some(save) => outcome.and(Err(save.error)),
            None => outcome,
        };
        saving.closed = Some(match closing.keeps_changes {
            true => outcome.clone(),
            false => Err(Error::response_started()),
        });
        match outcome {
            Err(error) if !must_hold && may_fail(&error, ends_something) => {
                log_lost_changes(&error);
                (cookie, Ok(()))
            }
            outcome => (cookie, outcome),
        }
    }

    /// The session may have ended or got a new id since it was saved. Then this
    /// cookie would replace a live token in the browser.
    async fn drop_if_moved(&self, cookie: &mut CookieChange) {
        let id = self.state().row().map(|row| row.id.clone());
        let is_dead = match id {
            // If the check fails, the cookie is sent as it was saved.
            Some(id) => matches!(self.store().is_live(id).await, Ok(false)),
            None => true,
        };
        if is_dead {
            drop_dead_token(cookie);
        }
    }

    /// Returns the pending writes, and whether the application's hook
    /// succeeded.
    fn close(&self, closing: Closing, has_failed: bool) -> (PendingWrites, Result<(), Error>) {
        let keeps_changes = closing.keeps_changes && !has_failed;
        if !keeps_changes {
            self.state().forget_changes();
        }
        let prepared = self.prepare();
        let mut state = self.state();
        state.close();
        // Another task may have changed the session while the hook ran.
        if prepared.is_err() || !keeps_changes {
            state.forget_changes();
        }
        (state.take_writes(self.timeouts(), closing.touch), prepared)
    }

    /// Calls the application's hook. The hook uses the session, so the state
    /// must not be locked.
    fn prepare(&self) -> Result<(), Error> {
        let Some(before_save) = &self.0.settings.before_save else {
            return Ok(());
        };
        let writes_a_document = self.state().writes_a_document();
        match writes_a_document {
            true => before_save(self),
            false => Ok(()),
        }
    }

    /// As [`prepare`](Self::prepare). If the hook panics, the changes are dropped, as
    /// if it had returned an error: the response must not save changes that this save
    /// did not. If the caller has left, the response reports it.
    fn prepare_caught(&self, caller: &Caller, saving: &mut Saving) -> Result<(), Error> {
        catch_unwind(AssertUnwindSafe(|| self.prepare())).unwrap_or_else(|panic| {
            let mut state = self.state();
            saving.failed.push(Failed {
                error: Error::panicked(),
                caller: caller.clone(),
                ends_something: state.ends_something(),
                is_of_the_hook: true,
            });
            state.forget_changes();
            drop(state);
            resume_unwind(panic)
        })
    }

    /// Executes the writes and settles a failure in the state.
    async fn execute(&self, writes: PendingWrites, cookie: &mut CookieChange) -> Result<(), Error> {
        let span = match writes.need_a_statement() {
            true => saving(),
            false => Span::none(),
        };
        let replaces_id = writes.replace_an_id();
        // If dropped here, the state is not settled. The response has closed the
        // session by then, so only reads can see that.
        let outcome = self.execute_all(writes, cookie).instrument(span).await;
        if let Err(error) = &outcome {
            if error.kind() == ErrorKind::Ended {
                drop_dead_token(cookie);
            }
            self.state().settle_failed(error, replaces_id);
        }
        outcome
    }

    async fn execute_all(
        &self,
        writes: PendingWrites,
        cookie: &mut CookieChange,
    ) -> Result<(), Error> {
        // If dropped here, the deletions are executed, and the write is not: it was
        // not queued yet. The same holds if a deletion fails.
        self.delete_rows(writes.deletions, cookie).await?;
        self.write(writes.write, writes.seen, cookie).await
    }

    /// Queues all deletions before it waits for one. If the future is dropped
    /// while it waits, they are still executed.
    async fn delete_rows(&self, rows: Deletions, cookie: &mut CookieChange) -> Result<(), Error> {
        let queue =
            |row: &Row, target, ending| self.store().destroy_row(row.id.clone(), target, ending);
        let why = match self.signs_out() {
            true => Ending::SignedOut,
            false => Ending::Destroyed,
        };
        let is_destroyed = rows.effects.is_some();
        let refused = rows.refused.into_iter();
        let refused: Vec<_> = refused
            .map(|refused| {
                let row = &refused.row;
                let loaded = row.times.now;
                // Without a destroy, the row is deleted only if it is unchanged: another request
                // may have made it valid since, or given it a new id.
                let unchanged = ToDelete::Unchanged(Arc::clone(row));
                let deletion = match (is_destroyed, refused.by) {
                    (true, _) => queue(row, ToDelete::Session { loaded }, why),
                    (false, RefusedBy::Check) => queue(row, unchanged, Ending::Rejected),
                    (false, RefusedBy::Timeouts) => queue(row, unchanged, Ending::Expired),
                };
                (deletion, refused)
            })
            .collect();
        let ended = rows.ended.map(|ended| {
            let loaded = ended.row.times.now;
            (queue(&ended.row, ToDelete::Session { loaded }, why), ended)
        });
        let mut left = Deletions {
            effects: rows.effects,
            ..Deletions::default()
        };
        let mut outcome = Ok(());
        // The terms of the cookie whose session was destroyed last.
        let mut destroyed = None;
        // All deletions are queued, so none is lost if dropped in this loop or below.
        for (deletion, refused) in refused {
            let deletion = deletion.await;
            match deletion.and_then(known) {
                Ok(Deletion::Spared) => self.state().spare(refused),
                Ok(_) if is_destroyed => destroyed = Some(terms(&refused.row)),
                Ok(_) => {}
                Err(error) => {
                    left.refused.push(refused);
                    outcome = Err(error);
                }
            }
        }
        if let Some((deletion, row)) = ended {
            let deletion = deletion.await;
            match deletion.and_then(known) {
                Ok(_) => destroyed = Some(terms(&row.row)),
                Err(error) => {
                    left.ended = Some(row);
                    outcome = Err(error);
                }
            }
        }
        if destroyed.is_some() && self.signs_out() {
            self.store().meter().user_signed_out();
        }
        match outcome {
            Ok(()) => {
                if let Some(terms) = destroyed {
                    *cookie = CookieChange::Remove(terms);
                }
                self.state().settle_deleted(rows.effects);
            }
            Err(_) => self.state().settle_not_deleted(left),
        }
        outcome
    }

    /// Writes the session's own row, and sets the cookie change if the browser needs
    /// a new cookie.
    async fn write(
        &self,
        write: RowWrite,
        seen: Arc<Document>,
        cookie: &mut CookieChange,
    ) -> Result<(), Error> {
        let store = self.store();
        let timeouts = Arc::clone(self.timeouts());
        match write {
            RowWrite::None => {}
            RowWrite::NoTouchYet => store.meter().skipped_a_touch(),
            RowWrite::Refused(error) => return Err(error),
            RowWrite::Touch(row, touch) => self.touch_row(row, touch, cookie).await,
            RowWrite::Insert(document) => {
                // If dropped here, the insert continues in a task, which then deletes
                // the row: its token was not sent.
                let (token, row) = store.insert(document, timeouts).await?;
                *cookie = self.begin(row, token);
            }
            RowWrite::NewId(write) => {
                // If dropped here, the order is still executed, and its new id is then
                // undone: the old id gets its row back.
                let (token, row) = store.new_id(write, timeouts).await?;
                *cookie = self.begin(row, token);
            }
            RowWrite::Save(row, record, touch) => {
                // An explicit touch may replace an outdated signature.
                let lengthens = record.changes.set_terms() || touch == Touch::Always;
                let may_extend = touch != Touch::Never;
                let before = Arc::clone(&row);
                // If dropped here, the changes are still saved. The token stays the
                // same, so there is nothing to undo.
                match store.save(row, record, timeouts, touch).await? {
                    Saved::Here(row) => {
                        let renewed = self.go_on(Arc::clone(&row));
                        self.state().settle_doubt();
                        let outgrows = may_extend && self.outgrows_cookie(&before, &row);
                        if lengthens || outgrows {
                            *cookie = renewed;
                        }
                    }
                    // Another request has saved the same, such as an expiry, and its
                    // response may be lost. Or the session was destroyed.
                    Saved::Untouched(row) => {
                        let renewed = self.go_on(row);
                        if lengthens {
                            *cookie = renewed;
                            self.drop_if_moved(cookie).await;
                        }
                    }
                    // The browser has the new cookie, or is about to get it.
                    Saved::Moved => {
                        drop_dead_token(cookie);
                        self.state().settle_moved(seen);
                    }
                }
            }
        }
        Ok(())
    }

    /// A failed touch is not an error for the request: the session only expires
    /// earlier. If the future is dropped, a queued touch is still executed.
    async fn touch_row(&self, row: Arc<Row>, touch: Touch, cookie: &mut CookieChange) {
        let timeouts = Arc::clone(self.timeouts());
        let before = Arc::clone(&row);
        let touched = self
            .store()
            .save(row, Record::default(), timeouts, touch)
            .await;
        match touched {
            Ok(Saved::Here(row)) => {
                let renewed = self.go_on(Arc::clone(&row));
                if touch == Touch::Always || self.outgrows_cookie(&before, &row) {
                    *cookie = renewed;
                }
            }
            Ok(Saved::Untouched(row)) => drop(self.go_on(row)),
            Ok(Saved::Moved) => {
                drop_dead_token(cookie);
                tracing::debug!("a session got a new id before it could be touched");
            }
            Err(error) if error.kind() == ErrorKind::Ended => {
                drop_dead_token(cookie);
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

    fn begin(&self, row: Arc<Row>, token: Token) -> CookieChange {
        let mut state = self.state();
        state.settle_begun(row, token);
        self.cookie_of(&state)
    }

    fn go_on(&self, row: Arc<Row>) -> CookieChange {
        let mut state = self.state();
        state.settle_saved(row);
        self.cookie_of(&state)
    }

    pub(super) fn cookie_of(&self, state: &State) -> CookieChange {
        let Origin::Stored(row, token) = state.origin() else {
            return CookieChange::None;
        };
        let Some(document) = row.document() else {
            return CookieChange::None;
        };
        let meta = document.meta();
        CookieChange::Set(Ticket {
            token: token.clone(),
            life: self.timeouts().cookie_life(&meta, row.times),
            lifetime: meta.cookie_lifetime(),
            now: row.times.now,
            terms: document.terms(),
        })
    }

    /// Whether the session was extended beyond the longest lifetime of a
    /// cookie. A session that was not extended may have ended or moved, so its
    /// cookie must not be sent again.
    fn outgrows_cookie(&self, before: &Row, after: &Row) -> bool {
        let meta = after.document().map(|document| document.meta());
        before.times.expires != after.times.expires
            && meta.is_some_and(|meta| self.timeouts().outlives_cookie(&meta, after.times))
    }

    /// Whether the handler destroyed the session of the request's cookie, even
    /// if the cookie opened no session.
    pub(crate) fn removes_cookie(&self) -> bool {
        let state = self.state();
        state.removes_cookie() && matches!(state.origin(), Origin::New)
    }

    /// Whether the handler destroyed a session, and the response deletes it.
    pub(crate) fn is_to_be_deleted(&self) -> bool {
        let state = self.state();
        state.is_ended() || state.removes_cookie()
    }

    /// Whether the handler signed the user out.
    fn signs_out(&self) -> bool {
        self.state().signs_out()
    }

    /// Whether the deletion of a logout is committed, so the browser should clear
    /// more than the cookie.
    pub(crate) fn has_signed_out(&self) -> bool {
        self.state().has_signed_out()
    }

    /// Refuses a session that failed the application's check.
    pub(crate) fn refuse(&self) {
        self.state().refuse();
    }

    pub(crate) fn close_for_changes(&self) {
        self.state().close();
    }
}

/// Guards the response until its save has taken the changes: it first waits for an
/// earlier save of its request, which the handler no longer waits for. If the response
/// is dropped meanwhile, the session is closed, because no response saves later changes.
/// A task executes its deletions after the earlier save, including those that failed in
/// that save. The other changes are lost.
struct Waiting<'s>(Option<&'s Session>);

impl Waiting<'_> {
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(session) = self.0 else {
            return;
        };
        session.close_for_changes();
        if let Ok(runtime) = Handle::try_current() {
            let session = session.clone();
            runtime.spawn(async move {
                let mut saving = session.0.saving.lock().await;
                let deletions = session.state().take_deletions();
                let outcome = session.delete_rows(deletions, &mut saving.cookie).await;
                if let Err(error) = outcome {
                    session.store().meter().failed(&error);
                }
            });
        }
    }
}

/// The terms under which the session's cookie was set.
fn terms(row: &Row) -> Terms {
    row.document()?.terms()
}

/// # Errors
///
/// If the session that the handler destroyed may live under another id.
fn known(deletion: Deletion) -> Result<Deletion, Error> {
    match deletion {
        Deletion::Done | Deletion::WasOver | Deletion::Spared => Ok(deletion),
        Deletion::Unknown => Err(Error::not_destroyed()),
    }
}

/// For [`FailurePolicy::Continue`].
fn log_lost_changes(error: &Error) {
    error.mark_as_logged();
    tracing::error!(
        error = error as &dyn std::error::Error,
        error.type = error.kind().name(),
        "a session could not be saved; its changes are lost"
    );
}

/// Drops a token that an earlier save of this request has set. It no longer
/// opens a session, and would replace the live token in the browser.
fn drop_dead_token(cookie: &mut CookieChange) {
    if matches!(cookie, CookieChange::Set(_)) {
        *cookie = CookieChange::None;
    }
}
