//! Where a session is in its life, and the one write that is owed for it.

use std::sync::Arc;

use crate::{
    Error, ErrorKind,
    changes::{Change, Changes},
    document::Document,
    id::Token,
    limits::Limits,
    login::{Data, Login},
    store::Row,
};

mod debt;
mod record;
mod unkeepable;

pub(crate) use debt::{Debt, Doomed, MayTouch, Owed, Record, Reissue, Source};
pub(crate) use unkeepable::Unkeepable;

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

#[cfg(test)]
mod tests;
