//! A session as its request sees it: a state machine. It does no I/O, reads no clock,
//! and doesn't know the store or HTTP.
//!
//! A [`State`] has three parts:
//!
//! - The *origin* is the row that the request's own token opened, as it was
//!   last loaded or saved.
//! - The *record* is what the handler did since then: changes of the document,
//!   a new id, a destroy, a touch.
//! - The *document* is what the handler reads: the origin's document with the
//!   record applied.
//!
//! [`take_writes`](State::take_writes) turns the record into pending writes,
//! and empties it. The caller executes them and reports the outcome by one of
//! the `settle_…` functions. Changes that the handler makes in between start a
//! new record, which is replayed on the outcome.
//!
//! Two rules hold in every state:
//!
//! - A request never reads a row that its own token did not open. If the
//!   session got a new id meanwhile, the request's saves go to the successor
//!   row, but the document stays what the request loaded and changed itself.
//! - A destroyed session stays destroyed. [`destroy`](State::destroy) also
//!   deletes what a save in flight is about to commit.

use std::sync::Arc;

use crate::{
    CookieLifetime, Error, ErrorKind, Expiry,
    document::{Document, Json, limits::Limits},
    id::Token,
    login::{Data, Login},
    row::Row,
    state::changes::{Apply, Change, Changes},
    timeouts::Timeouts,
    touch::{Touch, is_touch_due},
};

pub(crate) mod changes;
mod pending;

pub(crate) use pending::{
    Deletion, Deletions, DestroyEffects, EndedRow, NewId, NewIdWrite, Origin, PendingWrites,
    ReadOnlyReason, Record, RefusedBy, RefusedRow, RowWrite, Saved, Source, ToDelete,
};

/// Whether the response has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Closed,
}

/// Whether the document is the origin's document with the record applied.
#[derive(Clone, Debug)]
enum Projection {
    Exact,
    /// The record did not fit a newer row. The save will report it.
    Failed(Error),
}

/// The session of one request.
#[derive(Debug)]
pub(crate) struct State {
    origin: Origin,
    /// The document that the record is applied to: the origin's, or what this
    /// request saw of a session that moved.
    base: Arc<Document>,
    /// The base of a session that moved, while the handler has destroyed it.
    seen: Arc<Document>,
    /// The document that the handler reads.
    document: Arc<Document>,
    projection: Projection,
    /// Whether a save in doubt may have changed the row since the base was read.
    is_base_in_doubt: bool,
    /// The document of a new session.
    blank: Arc<Document>,
    changes: Changes,
    new_id: NewId,
    /// The login that a save of this request is committing.
    login_in_flight: Option<Arc<Login>>,
    /// Whether a save may have given the origin's row a new id, but its outcome is
    /// unknown. The store undoes that id, because its token was not sent. A change
    /// under the new id would prevent the undo.
    is_new_id_in_doubt: bool,
    /// The handler called `touch`.
    is_touched: bool,
    /// The cookie's signature should be replaced with the next touch.
    renews_signature: bool,
    /// The caller returns the committed value, so the save must read the row
    /// even if the changes leave the loaded document as it was.
    is_confirmed: bool,
    /// The handler destroyed the origin's session. Later changes belong to a
    /// new session.
    is_ended: bool,
    effects: DestroyEffects,
    /// The effects that were executed, which a discard can't take back.
    executed_effects: DestroyEffects,
    /// Rows that the request's tokens opened, and that the application's check or the layer's
    /// timeouts refused. A destroy deletes all of them. Otherwise, a row that the check refused
    /// is deleted by any save or response. A row that exceeded the timeouts is deleted if the request
    /// begins a session, because its token replaces theirs in the browser, and the row would
    /// count toward the user's limit.
    refused: Vec<RefusedRow>,
    /// The row that the request's token opened before the session became read-only.
    /// A destroy still ends that session.
    lost: Option<Arc<Row>>,
    phase: Phase,
}

impl State {
    pub(crate) fn new(origin: Origin, document: Arc<Document>, blank: Arc<Document>) -> Self {
        Self {
            origin,
            base: Arc::clone(&document),
            seen: Arc::clone(&document),
            document,
            projection: Projection::Exact,
            is_base_in_doubt: false,
            blank,
            changes: Changes::default(),
            new_id: NewId::None,
            login_in_flight: None,
            is_new_id_in_doubt: false,
            is_touched: false,
            renews_signature: false,
            is_confirmed: false,
            is_ended: false,
            effects: DestroyEffects::default(),
            executed_effects: DestroyEffects::default(),
            refused: Vec::new(),
            lost: None,
            phase: Phase::Open,
        }
    }

    /// Creates the state of a request without a session, or with one that it
    /// can't change.
    pub(crate) fn without_row(origin: Origin, blank: Arc<Document>) -> Self {
        Self::new(origin, Arc::clone(&blank), blank)
    }

    /// Sets the rows that have exceeded the layer's timeouts.
    pub(crate) fn replacing(mut self, outlived: Vec<Arc<Row>>) -> Self {
        let refused = |row| RefusedRow::new(row, RefusedBy::Timeouts);
        self.refused.extend(outlived.into_iter().map(refused));
        self
    }

    /// Must be called before the first change.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.changes = Changes::within(limits);
    }

    pub(crate) fn limits(&self) -> Limits {
        self.changes.limits()
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn document(&self) -> &Arc<Document> {
        &self.document
    }

    pub(crate) fn blank(&self) -> &Arc<Document> {
        &self.blank
    }

    /// The row that the request's own token opened, unless the handler
    /// destroyed its session.
    pub(crate) fn row(&self) -> Option<&Arc<Row>> {
        match &self.origin {
            Origin::Stored(row, _) | Origin::Moved(row, _) if !self.is_ended => Some(row),
            _ => None,
        }
    }

    /// Whether the session of the request is not stored yet.
    pub(crate) fn is_new(&self) -> bool {
        self.row().is_none()
    }

    /// # Errors
    ///
    /// If the response has started.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Closed => Err(Error::response_started()),
        }
    }

    pub(crate) fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    // Changes of the document.

    /// # Errors
    ///
    /// If the document would be too large. Then nothing is changed.
    pub(crate) fn apply(&mut self, change: Change) -> Result<(), Error> {
        match &change {
            Change::Insert(key, value) => {
                self.limits().check_insert(&self.document, key, value)?;
            }
            Change::Remove(_) | Change::Clear => {}
            _ => return self.apply_all(vec![change]),
        }
        self.apply_unchecked(change)
    }

    fn apply_unchecked(&mut self, mut change: Change) -> Result<(), Error> {
        change.apply(Arc::make_mut(&mut self.document))?;
        self.changes.record(change);
        Ok(())
    }

    /// Applies all changes or none. Only the outcome must fit the limits.
    ///
    /// # Errors
    ///
    /// As of [`apply`](Self::apply).
    pub(crate) fn apply_all(&mut self, mut changes: Vec<Change>) -> Result<(), Error> {
        let mut draft = Document::clone(&self.document);
        for change in &mut changes {
            if let Some((key, value)) = change.inserted() {
                self.limits().check_depth(key, value)?;
            }
            change.apply(&mut draft)?;
        }
        self.adopt(draft)?;
        changes
            .into_iter()
            .for_each(|change| self.changes.record(change));
        Ok(())
    }

    /// Records a change whose outcome is `draft`.
    ///
    /// # Errors
    ///
    /// As of [`apply`](Self::apply).
    pub(crate) fn record_edit(&mut self, change: Change, draft: Document) -> Result<(), Error> {
        self.adopt(draft)?;
        self.changes.record(change);
        Ok(())
    }

    fn adopt(&mut self, mut draft: Document) -> Result<(), Error> {
        draft.measure();
        self.limits().check_growth(&self.document, &draft)?;
        self.document = Arc::new(draft);
        Ok(())
    }

    /// Records a change that sets the key to `value`.
    ///
    /// # Errors
    ///
    /// As of [`apply`](Self::apply).
    pub(crate) fn record(&mut self, change: Change, key: &str, value: Json) -> Result<(), Error> {
        self.limits().check_insert(&self.document, key, &value)?;
        Arc::make_mut(&mut self.document).insert(key, value);
        self.changes.record(change);
        Ok(())
    }

    /// Makes the next save read the row even if the changes seem to have no
    /// effect, because the caller returns the committed value.
    pub(crate) fn confirm(&mut self) {
        self.is_confirmed = true;
    }

    // The id and the user.

    pub(crate) fn cycle(&mut self) {
        if self.new_id == NewId::None {
            self.new_id = NewId::Cycle;
        }
    }

    /// Records a login.
    ///
    /// It drops the data of another user: the row's user, or one whose login is
    /// pending. If a pending login of the same user ends the other sessions, this one
    /// does, too. The login sets the expiry and the lifetime of the cookie. After a
    /// destroy that can't be executed, the login is not executed either, because its
    /// response would conceal that.
    ///
    /// # Errors
    ///
    /// If the user doesn't fit the limits of the document. Then nothing is changed.
    pub(crate) fn log_in(&mut self, mut login: Login) -> Result<(), Error> {
        let is_of_another_user = self.is_of_another_user(login.user_id());
        if self.user() != Some(login.user_id()) || is_of_another_user {
            login = login.without_settings();
        }
        let keeps_settings = login.keeps_settings();
        let mut is_dropped = false;
        if let NewId::Login(pending) = &self.new_id {
            is_dropped = pending.data == Data::IsDropped;
            if pending.user_id() == login.user_id() {
                login = login.after(pending);
            }
        }
        if is_dropped || is_of_another_user {
            login.data = Data::IsDropped;
        }
        let blank = || Arc::clone(&self.blank);
        let mut changes = Vec::new();
        if login.data == Data::IsDropped {
            changes.push(Change::Clear);
        }
        if self.row().is_some_and(|row| has_unknown_login(row)) {
            changes.push(Change::LoginIsKnown);
        }
        // A format may keep the expiry and the cookie's lifetime in one setting. The
        // login's settings come last, so they win.
        if !keeps_settings {
            changes.push(Change::CookieLifetime(None, blank()));
        }
        if let Some(expiry) = login.end().or((!keeps_settings).then_some(Expiry::Default)) {
            changes.push(Change::Expiry(expiry, blank()));
        }
        if let Some(lifetime) = login.lifetime() {
            changes.push(Change::CookieLifetime(Some(lifetime), blank()));
        }
        changes.extend(self.user_in_document(login.user_id()));
        self.apply_all(changes)?;
        if self.new_id != NewId::End {
            self.new_id = NewId::Login(Arc::new(login));
        }
        Ok(())
    }

    /// The change that stores the user in the document, if the format stores the user there.
    fn user_in_document(&self, user: &str) -> Option<Change> {
        let member = self.document.layout().user()?;
        let user = user.to_owned();
        let apply: Apply = Box::new(move |stored| Ok((member.value)(stored, &user)));
        let change = Change::Update(member.key.to_owned(), apply);
        Some(Change::Terms(Box::new(change)))
    }

    /// Whether the handler may be reading another user's data. That user can be the row's, the
    /// user of a pending login, or the user of a session that was destroyed or got a new id
    /// since. After a destroy, the data belongs to no user yet.
    fn is_of_another_user(&self, user: &str) -> bool {
        let lost = self.lost.as_ref().filter(|_| !self.is_ended);
        let rows = [self.row(), lost].into_iter().flatten();
        let users = rows.filter_map(|row| row.user.as_deref());
        users.chain(self.user()).any(|known| known != user)
    }

    pub(crate) fn set_cookie_lifetime(
        &mut self,
        lifetime: Option<CookieLifetime>,
    ) -> Result<(), Error> {
        let blank = Arc::clone(&self.blank);
        self.apply(Change::CookieLifetime(lifetime, blank))
    }

    /// The user who is signed in, or whose login is pending.
    pub(crate) fn user(&self) -> Option<&str> {
        match self.pending_login() {
            Some(login) => Some(login.user_id()),
            None => self.row()?.user.as_deref(),
        }
    }

    fn pending_login(&self) -> Option<&Login> {
        match &self.new_id {
            NewId::Login(login) => Some(login),
            _ if self.is_ended => None,
            _ => self.login_in_flight.as_deref(),
        }
    }

    /// Seconds from the last login of the user to `now`, by the database's
    /// clock.
    pub(crate) fn age_of_login(&self, now: f64) -> Option<f64> {
        if self.pending_login().is_some() {
            return Some(0.0);
        }
        let row = self.row()?;
        row.user.as_ref()?;
        if has_unknown_login(row) {
            return None;
        }
        Some(now.max(row.times.now) - row.times.created?)
    }

    // The end.

    /// Records a destroy. Later changes belong to a new session. If the request can't
    /// destroy its session, the save is an error, so that the response doesn't claim it.
    pub(crate) fn destroy(&mut self) {
        self.forget_record();
        self.is_ended = true;
        self.effects.removes_cookie = true;
        self.base = Arc::clone(&self.blank);
        self.document = Arc::clone(&self.blank);
        self.projection = Projection::Exact;
        if self.is_read_only() {
            self.new_id = NewId::End;
        }
    }

    /// Whether neither a change nor a destroy of the session can be executed.
    fn is_read_only(&self) -> bool {
        let is_left = self.is_ended && self.lost.is_some();
        matches!(self.origin, Origin::ReadOnly(_)) && !is_left
    }

    pub(crate) fn log_out(&mut self) {
        self.destroy();
        self.effects.signs_out = true;
    }

    pub(crate) fn signs_out(&self) -> bool {
        self.effects.signs_out
    }

    /// Whether the handler destroyed the session, and the deletion is pending.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether the deletion of a logout was executed.
    pub(crate) fn has_signed_out(&self) -> bool {
        self.executed_effects.signs_out
    }

    pub(crate) fn removes_cookie(&self) -> bool {
        self.effects.removes_cookie
    }

    /// Takes over what the other state's tokens opened and its layer refused.
    pub(crate) fn with_refused_of(mut self, other: Self) -> Self {
        self.refused.extend(other.refused);
        self
    }

    /// Refuses the row for the application's check. The handler gets a new session.
    pub(crate) fn refuse(&mut self) {
        self.forget_record();
        let origin = std::mem::replace(&mut self.origin, Origin::New);
        if let Origin::Stored(row, _) | Origin::Moved(row, _) = origin {
            self.refused.push(RefusedRow::new(row, RefusedBy::Check));
        }
        self.base = Arc::clone(&self.blank);
        self.document = Arc::clone(&self.blank);
    }

    pub(crate) fn touch(&mut self) {
        self.is_touched = true;
    }

    pub(crate) fn renew_signature(&mut self) {
        self.renews_signature = true;
    }

    /// Restores the session as it was last loaded or saved.
    pub(crate) fn discard(&mut self) {
        self.forget_record();
        self.new_id = NewId::None;
        self.is_ended = false;
        self.effects = self.executed_effects;
        self.rebase();
    }

    /// Drops the record, but not a destroy.
    pub(crate) fn forget_changes(&mut self) {
        self.forget_record();
        self.document = Arc::clone(&self.base);
        self.projection = Projection::Exact;
    }

    fn forget_record(&mut self) {
        drop(self.changes.take());
        if self.new_id != NewId::End {
            self.new_id = NewId::None;
        }
        self.is_touched = false;
        self.is_confirmed = false;
    }

    /// Whether the next save writes a document.
    pub(crate) fn writes_a_document(&self) -> bool {
        match &self.origin {
            Origin::ReadOnly(_) if self.is_read_only() => self.logs_in_separately().is_some(),
            Origin::Stored(..) | Origin::Moved(..) if !self.is_ended => {
                self.new_id != NewId::None || self.is_changed()
            }
            _ => {
                self.is_touched
                    || matches!(self.new_id, NewId::Login(_))
                    || !(self.changes.is_empty() || self.document.is_empty())
            }
        }
    }

    /// Whether the next save begins a session.
    pub(crate) fn begins_a_session(&self) -> bool {
        let is_separate = self.is_new() || self.logs_in_separately().is_some();
        is_separate && self.writes_a_document()
    }

    /// Whether the changes have an effect. Changes that leave the document as it was
    /// have none, unless the row may hold another document. Changes that did not fit a
    /// newer row have one: the save reports them.
    fn is_changed(&self) -> bool {
        let is_uncertain = self.is_confirmed || self.is_base_in_doubt;
        let differs = || self.base != self.document || self.misfit().is_some();
        !self.changes.is_empty() && (is_uncertain || differs())
    }

    /// Why the record does not fit the document that it is based on now.
    fn misfit(&self) -> Option<&Error> {
        match &self.projection {
            Projection::Exact => None,
            Projection::Failed(error) => Some(error),
        }
    }

    /// The login that begins a session separate from the one that the request
    /// loaded.
    fn logs_in_separately(&self) -> Option<&Arc<Login>> {
        let NewId::Login(login) = &self.new_id else {
            return None;
        };
        let is_separate = match &self.origin {
            Origin::Moved(..) => true,
            Origin::ReadOnly(reason) => reason.allows_a_login(),
            Origin::New | Origin::Stored(..) => false,
        };
        is_separate.then_some(login)
    }

    // Outcomes of a save.

    /// The session is now stored in `row`, which the new token opens.
    pub(crate) fn settle_begun(&mut self, row: Arc<Row>, token: Token) {
        self.login_in_flight = None;
        self.is_new_id_in_doubt = false;
        self.settle_doubt();
        self.settle_stored(row, token);
    }

    fn settle_stored(&mut self, row: Arc<Row>, token: Token) {
        self.origin = Origin::Stored(row, token);
        self.rebase();
    }

    /// The row was saved under its own id.
    pub(crate) fn settle_saved(&mut self, row: Arc<Row>) {
        if let Origin::Stored(_, token) | Origin::Moved(_, token) = &self.origin {
            let token = token.clone();
            self.settle_stored(row, token);
        }
    }

    /// The changes were saved to the successor row, because the session got a
    /// new id. `seen` is what this request saw when it saved them.
    pub(crate) fn settle_moved(&mut self, seen: Arc<Document>) {
        if let Origin::Stored(row, token) | Origin::Moved(row, token) = &self.origin {
            self.origin = Origin::Moved(Arc::clone(row), token.clone());
            self.seen = Arc::clone(&seen);
            if !self.is_ended {
                self.base = seen;
                self.replay();
            }
        }
    }

    /// The writes failed, so the state continues without them. `replaces_id` is
    /// whether they give the row a new id. A session that was destroyed or moved is not
    /// replaced with a new one, because the browser may have the new token.
    pub(crate) fn settle_failed(&mut self, error: &Error, replaces_id: bool) {
        self.login_in_flight = None;
        let is_in_doubt = error.kind() == ErrorKind::Unavailable;
        self.is_base_in_doubt |= is_in_doubt;
        let replaces_id = replaces_id && matches!(self.origin, Origin::Stored(..));
        self.is_new_id_in_doubt |= is_in_doubt && replaces_id;
        if error.kind() == ErrorKind::Ended && !self.is_ended {
            self.become_read_only(match error.retry_after() {
                Some(retry_after) => ReadOnlyReason::Moved { retry_after },
                None => ReadOnlyReason::Ended,
            });
        }
        self.replay();
    }

    fn become_read_only(&mut self, reason: ReadOnlyReason) {
        match std::mem::replace(&mut self.origin, Origin::ReadOnly(reason)) {
            Origin::Stored(row, _) | Origin::Moved(row, _) => {
                self.lost = Some(row);
                self.base = Arc::clone(&self.blank);
            }
            origin => self.origin = origin,
        }
    }

    /// A save compared its changes with what the row holds. A mere touch does not.
    pub(crate) fn settle_doubt(&mut self) {
        self.is_base_in_doubt = false;
    }

    pub(crate) fn settle_deleted(&mut self, effects: Option<DestroyEffects>) {
        let Some(effects) = effects else {
            return;
        };
        self.executed_effects = effects;
        // The handler may have discarded it in the meantime.
        self.effects.removes_cookie |= effects.removes_cookie;
        self.effects.signs_out |= effects.signs_out;
    }

    /// Keeps a row that a save has spared, so that a later destroy deletes it.
    pub(crate) fn spare(&mut self, refused: RefusedRow) {
        self.refused.push(RefusedRow {
            is_spared: true,
            ..refused
        });
    }

    /// These rows could not be deleted. The response tries again.
    pub(crate) fn settle_not_deleted(&mut self, left: Deletions) {
        self.refused.extend(left.refused);
        if !matches!(self.origin, Origin::New) {
            return;
        }
        self.is_ended |= left.effects.is_some();
        if let Some(EndedRow { row, former }) = left.ended {
            if matches!(former, Origin::ReadOnly(_)) {
                self.lost = Some(row);
            }
            self.origin = former;
        }
    }

    /// Applies the record to the origin's document.
    fn rebase(&mut self) {
        if self.is_ended {
            return;
        }
        let stored = match &self.origin {
            // The request keeps its own view of a session that moved.
            Origin::Moved(..) => Some(&self.seen),
            Origin::Stored(row, _) => row.document(),
            Origin::New | Origin::ReadOnly(_) => None,
        };
        self.base = Arc::clone(stored.unwrap_or(&self.blank));
        self.replay();
    }

    fn replay(&mut self) {
        self.document = Arc::clone(&self.base);
        self.projection = Projection::Exact;
        if self.changes.is_empty() {
            return;
        }
        let document = Arc::make_mut(&mut self.document);
        // If a change does not fit the newer document, the save reports it.
        if let Err(error) = self.changes.replay_caught(document) {
            self.projection = Projection::Failed(error);
        }
    }

    /// Takes the pending writes. Changes that the handler makes before the
    /// outcome is settled belong to the next save.
    pub(crate) fn take_writes(&mut self, timeouts: &Timeouts, touch: Touch) -> PendingWrites {
        let ends_something = self.ends_something();
        let begins_a_session = self.begins_a_session();
        let deletions = self.deletions(begins_a_session);
        let touch = self.touch_instead_of(touch);
        self.complete();
        let is_changed = self.is_changed();
        let is_confirmed = std::mem::take(&mut self.is_confirmed);
        let record = Record {
            outcome: (self.misfit().is_none() && matches!(self.origin, Origin::Stored(..)))
                .then(|| Arc::clone(&self.document)),
            is_confirmed,
            is_new_id_in_doubt: self.is_new_id_in_doubt,
            changes: self.changes.take(),
        };
        let id = match &mut self.new_id {
            // It stays, so that each later save and the response fail, too.
            NewId::End => NewId::End,
            id => std::mem::replace(id, NewId::None),
        };
        if let NewId::Login(login) = &id {
            self.login_in_flight = Some(Arc::clone(login));
        }
        self.is_touched = false;
        PendingWrites {
            deletions,
            ends_something,
            begins_a_session,
            write: self.write(record, is_changed, id, timeouts, touch),
            seen: Arc::clone(&self.document),
            is_confirmed,
        }
    }

    /// Whether the pending writes destroy a session or replace a token. If they
    /// fail, the response must not conceal that the session or token still works.
    pub(crate) fn ends_something(&self) -> bool {
        let has_row = match &self.origin {
            Origin::Stored(..) | Origin::Moved(..) => true,
            Origin::ReadOnly(_) => self.lost.is_some(),
            Origin::New => false,
        };
        let has_row = has_row || !self.refused.is_empty();
        let is_refused = self
            .refused
            .iter()
            .any(|refused| is_deleted(refused, false));
        is_refused || (self.is_ended && has_row) || self.new_id != NewId::None
    }

    /// Takes the rows to delete, and nothing else.
    pub(crate) fn take_deletions(&mut self) -> Deletions {
        self.deletions(false)
    }

    fn deletions(&mut self, begins_a_session: bool) -> Deletions {
        let is_executed = self.is_ended && self.new_id != NewId::End;
        let is_taken =
            |refused: &mut RefusedRow| is_executed || is_deleted(refused, begins_a_session);
        Deletions {
            refused: self.refused.extract_if(.., is_taken).collect(),
            effects: is_executed.then_some(self.effects),
            ended: self.take_ended(),
        }
    }

    /// Takes the row of a destroyed session. From here on, the origin is the
    /// session that follows it.
    fn take_ended(&mut self) -> Option<EndedRow> {
        if !std::mem::take(&mut self.is_ended) {
            return None;
        }
        let row = match &self.origin {
            Origin::Stored(row, _) | Origin::Moved(row, _) => Arc::clone(row),
            Origin::ReadOnly(_) => self.lost.take()?,
            Origin::New => return None,
        };
        let former = std::mem::replace(&mut self.origin, Origin::New);
        Some(EndedRow { row, former })
    }

    fn write(
        &self,
        record: Record,
        is_changed: bool,
        id: NewId,
        timeouts: &Timeouts,
        touch: Touch,
    ) -> RowWrite {
        let misfit = match &self.origin {
            Origin::New => self.misfit(),
            Origin::ReadOnly(reason) if reason.allows_a_login() => self.misfit(),
            _ => None,
        };
        if let (Some(error), false) = (misfit, record.changes.is_empty()) {
            return RowWrite::Refused(error.clone());
        }
        match (&self.origin, id) {
            (Origin::New, NewId::Login(login)) => self.begin(login),
            (Origin::ReadOnly(reason), NewId::Login(login)) if reason.allows_a_login() => {
                self.begin(login)
            }
            (Origin::New, _) if touch == Touch::Always || self.is_worth_a_row(&record) => {
                RowWrite::Insert(Arc::clone(&self.document))
            }
            (Origin::New, _) => RowWrite::None,
            (Origin::ReadOnly(_), NewId::None) if record.changes.is_empty() => RowWrite::None,
            (Origin::ReadOnly(reason), _) => RowWrite::Refused(reason.error()),
            (Origin::Stored(row, _) | Origin::Moved(row, _), id) if id != NewId::None => {
                RowWrite::NewId(NewIdWrite {
                    source: Source::Row(row.id.clone()),
                    loaded_user: row.user.clone(),
                    changes: record.changes,
                    login: id.login(),
                    loaded: Arc::clone(&self.base),
                    seen: Arc::clone(&self.document),
                    may_begin_separately: !record.is_confirmed && self.misfit().is_none(),
                })
            }
            (Origin::Moved(row, _), _) if is_changed => {
                RowWrite::Save(Arc::clone(row), record, Touch::Never)
            }
            (Origin::Moved(..), _) => RowWrite::None,
            (Origin::Stored(row, _), _) if is_changed => {
                RowWrite::Save(Arc::clone(row), record, touch)
            }
            (Origin::Stored(row, _), _) => self.touch_of(row, timeouts, touch),
        }
    }

    fn is_worth_a_row(&self, record: &Record) -> bool {
        !(record.changes.is_empty() || self.document.is_empty())
    }

    fn touch_of(&self, row: &Arc<Row>, timeouts: &Timeouts, touch: Touch) -> RowWrite {
        match touch {
            Touch::Always => RowWrite::Touch(Arc::clone(row), touch),
            Touch::IfDue if is_touch_due(timeouts, &self.document.meta(), row.times) => {
                RowWrite::Touch(Arc::clone(row), touch)
            }
            Touch::IfDue => RowWrite::NoTouchYet,
            Touch::Never => RowWrite::None,
        }
    }

    /// A session that begins with its login.
    fn begin(&self, login: Arc<Login>) -> RowWrite {
        RowWrite::NewId(NewIdWrite {
            source: Source::Nothing(Arc::clone(&self.document)),
            loaded_user: None,
            changes: Changes::default(),
            login: Some(login),
            loaded: Arc::clone(&self.document),
            seen: Arc::clone(&self.document),
            may_begin_separately: true,
        })
    }

    fn touch_instead_of(&self, touch: Touch) -> Touch {
        match touch {
            _ if self.is_touched => Touch::Always,
            Touch::IfDue if self.renews_signature && self.row().is_some() => Touch::Always,
            touch => touch,
        }
    }

    /// Adds the member of the format if another writer left it out, so that
    /// every saved document has it.
    fn complete(&mut self) {
        let Some(key) = self.document.layout().own_key() else {
            return;
        };
        let is_there = self.document.get(key).is_some_and(Json::is_object);
        if let (false, false, Some(terms)) = (self.changes.is_empty(), is_there, self.blank.terms())
        {
            let change = Change::Insert(key.to_owned(), terms);
            self.apply_unchecked(Change::Terms(Box::new(change)))
                .expect("an insert that is not measured never fails");
        }
    }
}

fn has_unknown_login(row: &Row) -> bool {
    let document = row.document();
    document.is_some_and(|document| document.meta().login_is_unknown)
}

/// Whether the row is deleted although the handler doesn't destroy the session.
fn is_deleted(refused: &RefusedRow, begins_a_session: bool) -> bool {
    !refused.is_spared && (refused.by == RefusedBy::Check || begins_a_session)
}

#[cfg(test)]
mod tests;
