//! Where a session is in its life, and the one write that is owed for it.

use std::sync::Arc;

use crate::{
    Error, ErrorKind,
    changes::{Change, Changes},
    document::{Document, Json},
    expiry::Timeouts,
    format::Terms,
    id::{RowId, Token},
    limits::Limits,
    login::{Data, Login},
    store::Row,
};

/// Where the session of a request comes from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// No row yet; it gets one when there is something to keep.
    New,
    /// This row, which the request's cookie opened.
    Stored(Arc<Row>, Token),
    /// Nothing can be kept, and the browser's cookies must stay as they are.
    Unkeepable(Unkeepable),
}

/// Why a request reads an empty session that it can't change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unkeepable {
    /// The cookie's token was replaced a moment ago; the browser is about to
    /// hold, or holds already, the new one.
    Moved,
    /// The cookies open several sessions, or are too many to tell.
    Ambiguous,
    /// The row could not be loaded, and the application goes on without it.
    NotLoaded,
}

/// What happens to the id when the session is saved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Id {
    Stays,
    Cycles,
    /// And its user is this one from then on.
    LogsIn(Arc<Login>),
    /// Where it is known to open nothing that could be ended.
    Ends,
}

/// Whether the request keeps its session beyond what the throttle asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    WhenDue,
    /// If it is of a kind that keeps sessions alive.
    WhenAllowed,
    Anyway,
}

/// Whether the visitor asked for the end of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visitor {
    Stays,
    SignsOut,
}

/// Whether the response has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Closed,
}

/// Whether a request keeps its session alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayTouch {
    Yes,
    No,
    /// Whether it is due or not.
    Must,
}

/// How the document that a request sees stands to its record of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Projection {
    Exact,
    /// The record did not fit a newer row; saving it will tell.
    Refused,
}

/// A session as its request sees it.
#[derive(Debug)]
pub(crate) struct State {
    origin: Origin,
    document: Arc<Document>,
    /// Whether the document is what the record makes of the origin's.
    projection: Projection,
    /// The document of a new session.
    blank: Arc<Document>,
    changes: Changes,
    id: Id,
    keep: Keep,
    doomed: Option<Doomed>,
    visitor: Visitor,
    phase: Phase,
}

/// The row of a session that was destroyed and is still there.
#[derive(Clone, Debug)]
pub(crate) struct Doomed {
    pub(crate) row: Arc<Row>,
    token: Token,
    /// Under which its cookie was set.
    pub(crate) terms: Terms,
}

/// The write that is owed to the session's own row.
#[derive(Debug)]
pub(crate) enum Owed {
    Nothing,
    /// Nothing either, as the last touch is recent.
    NoTouchYet,
    Insert(Arc<Document>),
    Save(Arc<Row>, Record, MayTouch),
    Touch(Arc<Row>, MayTouch),
    Reissue(Reissue),
    Refused(Unkeepable, Id),
}

/// A session under a new id.
#[derive(Debug)]
pub(crate) struct Reissue {
    pub(crate) source: Source,
    pub(crate) changes: Changes,
    pub(crate) login: Option<Arc<Login>>,
}

/// Where it comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The row that has been its until now.
    Row(RowId),
    /// Nothing is stored yet.
    Nothing(Arc<Document>),
}

/// What a request did to a row's document.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) changes: Changes,
    /// What they make of the row that the request loaded, where that is known.
    pub(crate) outcome: Option<Arc<Document>>,
}

/// All that is owed, in order: first the end of the old row.
#[derive(Debug)]
pub(crate) struct Debt {
    pub(crate) doomed: Option<Doomed>,
    pub(crate) owed: Owed,
}

impl Debt {
    /// Whether an answer without it would conceal that a session or a token
    /// lives on that was to end.
    pub(crate) fn ends_something(&self) -> bool {
        let ends_an_id = match &self.owed {
            Owed::Reissue(_) => true,
            Owed::Refused(_, id) => *id != Id::Stays,
            _ => false,
        };
        self.doomed.is_some() || ends_an_id
    }

    /// Whether the response waits for the database.
    pub(crate) fn takes_a_statement(&self) -> bool {
        let is_free = matches!(
            self.owed,
            Owed::Nothing | Owed::NoTouchYet | Owed::Refused(..)
        );
        self.doomed.is_some() || !is_free
    }
}

impl State {
    pub(crate) fn new(origin: Origin, document: Arc<Document>, blank: Arc<Document>) -> Self {
        Self {
            origin,
            document,
            projection: Projection::Exact,
            blank,
            changes: Changes::default(),
            id: Id::Stays,
            keep: Keep::WhenDue,
            doomed: None,
            visitor: Visitor::Stays,
            phase: Phase::Open,
        }
    }

    /// For a request that has no session yet, or none that it can keep.
    pub(crate) fn without_row(origin: Origin, blank: Arc<Document>) -> Self {
        Self::new(origin, Arc::clone(&blank), blank)
    }

    /// Before anything is changed.
    pub(crate) fn keep_within(&mut self, limits: Limits) {
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

    pub(crate) fn row(&self) -> Option<&Arc<Row>> {
        match &self.origin {
            Origin::Stored(row, _) => Some(row),
            Origin::New | Origin::Unkeepable(_) => None,
        }
    }

    /// # Errors
    ///
    /// Once the response has started.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Closed => Err(Error::new(
                ErrorKind::ResponseStarted,
                "the response has started, so this change to the session would be lost",
            )),
        }
    }

    pub(crate) fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    /// # Errors
    ///
    /// Where the document would be too large; then nothing is changed.
    pub(crate) fn apply(&mut self, change: Change) -> Result<(), Error> {
        match &change {
            Change::Insert(key, value) => {
                self.limits().check_insert(&self.document, key, value)?;
            }
            Change::Remove(_) | Change::Clear => {}
            Change::Update(..) | Change::Expiry(..) | Change::Terms(_) => {
                return self.apply_all(vec![change]);
            }
        }
        self.apply_anyway(change)
    }

    fn apply_anyway(&mut self, mut change: Change) -> Result<(), Error> {
        change.apply(Arc::make_mut(&mut self.document))?;
        self.changes.record(change);
        Ok(())
    }

    /// All of them or none, and only the outcome must fit.
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
        draft.measure();
        self.limits().check_growth(&self.document, &draft)?;
        self.document = Arc::new(draft);
        changes
            .into_iter()
            .for_each(|change| self.changes.record(change));
        Ok(())
    }

    /// For a change that makes `value` of the key.
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

    pub(crate) fn cycle(&mut self) {
        if self.id == Id::Stays {
            self.id = Id::Cycles;
        }
    }

    /// Nobody gets what another user left in the session, and its end is the
    /// login's choice.
    pub(crate) fn log_in(&mut self, mut login: Login) -> Result<(), Error> {
        if self.user().is_some_and(|user| user != login.user_id()) {
            login.data = Data::IsDropped;
        }
        if login.data == Data::IsDropped {
            self.apply(Change::Clear)?;
        }
        let blank = Arc::clone(&self.blank);
        self.apply(Change::Expiry(login.end(), blank))?;
        self.id = Id::LogsIn(Arc::new(login));
        Ok(())
    }

    /// Who is signed in, or is about to be.
    pub(crate) fn user(&self) -> Option<&str> {
        match &self.id {
            Id::LogsIn(login) => Some(login.user_id()),
            _ => self.row()?.user.as_deref(),
        }
    }

    /// Seconds since the user signed in, or signed in again.
    pub(crate) fn age_of_login(&self) -> Option<f64> {
        if matches!(self.id, Id::LogsIn(_)) {
            return Some(0.0);
        }
        let row = self.row()?;
        row.user.as_ref()?;
        Some(row.times.now - row.times.created?)
    }

    /// Extends the session, or begins it, whatever else is done to it.
    pub(crate) fn keep(&mut self) {
        self.keep = Keep::Anyway;
    }

    /// For a cookie that should be replaced.
    pub(crate) fn keep_if_allowed(&mut self) {
        self.keep = Keep::WhenAllowed;
    }

    /// The session is again as it was loaded, or as it was saved last.
    pub(crate) fn discard(&mut self) {
        self.forget_changes();
        self.visitor = Visitor::Stays;
        let origin = match self.doomed.take() {
            Some(doomed) => Origin::Stored(doomed.row, doomed.token),
            None => self.origin.clone(),
        };
        self.settle(origin);
    }

    /// What follows belongs to another session, which gets an id of its own.
    /// A token that no longer opens its session can't end it either, which the
    /// answer must not conceal.
    pub(crate) fn destroy(&mut self) {
        if let Origin::Stored(row, token) = &self.origin {
            self.doomed = Some(Doomed {
                row: Arc::clone(row),
                token: token.clone(),
                terms: self.document.terms(),
            });
            self.origin = Origin::New;
        }
        self.document = Arc::clone(&self.blank);
        self.forget_changes();
        if matches!(self.origin, Origin::Unkeepable(_)) {
            self.id = Id::Ends;
        }
    }

    pub(crate) fn log_out(&mut self) {
        self.destroy();
        self.visitor = Visitor::SignsOut;
    }

    pub(crate) fn signs_out(&self) -> bool {
        self.visitor == Visitor::SignsOut
    }

    /// For an end that could not be carried out.
    pub(crate) fn owe_end_of(&mut self, doomed: Doomed) {
        self.doomed = Some(doomed);
    }

    /// Drops what the request did to its session; its end stays owed.
    pub(crate) fn forget_changes(&mut self) {
        drop(self.changes.take());
        self.id = Id::Stays;
        self.keep = Keep::WhenDue;
    }

    /// Whether a write of the document is owed.
    pub(crate) fn owes_a_document(&self) -> bool {
        match &self.origin {
            Origin::New => self.keep == Keep::Anyway || self.logs_in() || !self.is_untouched(),
            Origin::Stored(row, _) => self.id != Id::Stays || self.differs_from(row, &self.changes),
            Origin::Unkeepable(_) => false,
        }
    }

    fn logs_in(&self) -> bool {
        matches!(self.id, Id::LogsIn(_))
    }

    fn is_untouched(&self) -> bool {
        self.changes.is_empty() || self.document.is_empty()
    }

    /// Takes what is owed now. Until [`settle`](Self::settle) tells how it
    /// went, later changes are recorded on their own.
    pub(crate) fn take_debt(&mut self, timeouts: &Timeouts, may_touch: MayTouch) -> Debt {
        let may_touch = self.keep.instead_of(may_touch);
        self.complete();
        let changes = self.changes.take();
        let id = std::mem::replace(&mut self.id, Id::Stays);
        self.keep = Keep::WhenDue;
        Debt {
            doomed: self.doomed.take(),
            owed: self.owed(changes, id, timeouts, may_touch),
        }
    }

    fn owed(&self, changes: Changes, id: Id, timeouts: &Timeouts, may_touch: MayTouch) -> Owed {
        match &self.origin {
            Origin::New if matches!(id, Id::LogsIn(_)) => Owed::Reissue(Reissue {
                source: Source::Nothing(Arc::clone(&self.document)),
                changes: Changes::default(),
                login: id.login(),
            }),
            Origin::New
                if may_touch != MayTouch::Must
                    && (changes.is_empty() || self.document.is_empty()) =>
            {
                Owed::Nothing
            }
            Origin::New => Owed::Insert(Arc::clone(&self.document)),
            Origin::Unkeepable(_) if changes.is_empty() && id == Id::Stays => Owed::Nothing,
            Origin::Unkeepable(reason) => Owed::Refused(*reason, id),
            Origin::Stored(row, _) if id != Id::Stays => Owed::Reissue(Reissue {
                source: Source::Row(row.id.clone()),
                changes,
                login: id.login(),
            }),
            Origin::Stored(row, _) if self.differs_from(row, &changes) => {
                Owed::Save(Arc::clone(row), self.recorded(changes), may_touch)
            }
            Origin::Stored(row, _) if self.touches(row, timeouts, may_touch) => {
                Owed::Touch(Arc::clone(row), may_touch)
            }
            Origin::Stored(..) if may_touch == MayTouch::No => Owed::Nothing,
            Origin::Stored(..) => Owed::NoTouchYet,
        }
    }

    fn touches(&self, row: &Row, timeouts: &Timeouts, may_touch: MayTouch) -> bool {
        match may_touch {
            MayTouch::Must => true,
            MayTouch::Yes => timeouts.is_touch_due(&self.document.meta(), row.times),
            MayTouch::No => false,
        }
    }

    /// What is saved has the member of its format, also where another writer
    /// left it out.
    fn complete(&mut self) {
        let Some(key) = self.document.layout().own_key() else {
            return;
        };
        let is_there = self.document.get(key).is_some_and(Json::is_object);
        if let (false, false, Some(terms)) = (self.changes.is_empty(), is_there, self.blank.terms())
        {
            let change = Change::Insert(key.to_owned(), terms);
            self.apply_anyway(Change::Terms(Box::new(change)))
                .expect("an insert that is not measured never fails");
        }
    }

    /// A change that leaves the document as it was loaded is none.
    fn differs_from(&self, row: &Row, changes: &Changes) -> bool {
        !changes.is_empty() && row.document() != Some(&self.document)
    }

    fn recorded(&self, changes: Changes) -> Record {
        let outcome = (self.projection == Projection::Exact).then(|| Arc::clone(&self.document));
        Record { changes, outcome }
    }

    /// The session goes on from this row, with what was changed since
    /// [`take_debt`](Self::take_debt).
    pub(crate) fn settle(&mut self, origin: Origin) {
        self.origin = origin;
        self.document = self
            .row()
            .and_then(|row| row.document())
            .unwrap_or(&self.blank)
            .clone();
        self.projection = Projection::Exact;
        if self.changes.is_empty() {
            return;
        }
        // A change that does not fit the newer document is told when it is saved.
        if self
            .changes
            .replay(Arc::make_mut(&mut self.document))
            .is_err()
        {
            self.projection = Projection::Refused;
        }
    }

    /// The session goes on as it is stored, without what could not be saved.
    /// One that ended is not begun anew: the browser may hold its successor.
    pub(crate) fn settle_without_changes(&mut self, error: &Error) {
        let origin = match (error.kind(), &self.origin) {
            (ErrorKind::Ended, _) => Origin::Unkeepable(Unkeepable::Moved),
            (_, origin) => origin.clone(),
        };
        self.settle(origin);
    }
}

impl Id {
    fn login(self) -> Option<Arc<Login>> {
        match self {
            Self::LogsIn(login) => Some(login),
            Self::Stays | Self::Cycles | Self::Ends => None,
        }
    }
}

impl Keep {
    fn instead_of(self, may_touch: MayTouch) -> MayTouch {
        match (self, may_touch) {
            (Self::Anyway, _) | (Self::WhenAllowed, MayTouch::Yes) => MayTouch::Must,
            (Self::WhenDue | Self::WhenAllowed, may_touch) => may_touch,
        }
    }
}

impl Unkeepable {
    pub(crate) fn error(self) -> Error {
        match self {
            Self::Moved => Error::new(
                ErrorKind::Ended,
                "the session has a new id since this request was sent; its change is dropped",
            ),
            Self::Ambiguous => Error::new(
                ErrorKind::Ambiguous,
                "the request carries cookies of several sessions",
            ),
            Self::NotLoaded => Error::new(
                ErrorKind::Unavailable,
                "the session could not be loaded, so nothing of it can be changed",
            ),
        }
    }
}

#[cfg(test)]
mod tests;
