//! Where a session is in its life, and the one write that is owed for it.

use std::sync::Arc;

use crate::{
    Error, ErrorKind,
    changes::{Change, Changes},
    document::{Document, Json},
    expiry::Timeouts,
    id::{RowId, Token},
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
}

/// What happens to the id when the session is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    Stays,
    Cycles,
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
    changes: Changes,
    id: Id,
    /// The row of a session that was destroyed and is still there.
    doomed: Option<RowId>,
    phase: Phase,
}

/// The write that is owed to the session's own row.
#[derive(Debug)]
pub(crate) enum Owed {
    Nothing,
    Insert(Arc<Document>),
    Save(Arc<Row>, Record, MayTouch),
    Touch(Arc<Row>),
    Cycle(RowId, Changes),
    Refused(Unkeepable),
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
    pub(crate) doomed: Option<RowId>,
    pub(crate) owed: Owed,
}

impl State {
    pub(crate) fn new(origin: Origin, document: Arc<Document>) -> Self {
        Self {
            origin,
            document,
            projection: Projection::Exact,
            changes: Changes::default(),
            id: Id::Stays,
            doomed: None,
            phase: Phase::Open,
        }
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn document(&self) -> &Arc<Document> {
        &self.document
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

    pub(crate) fn apply(&mut self, mut change: Change) -> Result<(), Error> {
        change.apply(Arc::make_mut(&mut self.document))?;
        self.changes.record(change);
        Ok(())
    }

    /// For a change that the caller has applied to the document by `value`.
    pub(crate) fn record(&mut self, change: Change, key: &str, value: Json) {
        Arc::make_mut(&mut self.document).insert(key, value);
        self.changes.record(change);
    }

    pub(crate) fn cycle(&mut self) {
        self.id = Id::Cycles;
    }

    /// What follows belongs to another session, which gets an id of its own.
    /// A token that no longer opens its session can't end it either, which the
    /// answer must not conceal.
    pub(crate) fn destroy(&mut self) {
        let doomed = self.row().map(|row| row.id.clone());
        if doomed.is_some() {
            self.origin = Origin::New;
        }
        self.doomed = doomed.or_else(|| self.doomed.take());
        self.document = Arc::default();
        self.forget_changes();
        if matches!(self.origin, Origin::Unkeepable(_)) {
            self.changes.record(Change::Clear);
        }
    }

    /// For an end that could not be carried out.
    pub(crate) fn owe_end_of(&mut self, id: RowId) {
        self.doomed = Some(id);
    }

    /// Drops what the request did to its session; its end stays owed.
    pub(crate) fn forget_changes(&mut self) {
        self.changes = Changes::default();
        self.id = Id::Stays;
    }

    /// Takes what is owed now. Until [`settle`](Self::settle) tells how it
    /// went, later changes are recorded on their own.
    pub(crate) fn take_debt(&mut self, timeouts: &Timeouts, may_touch: MayTouch) -> Debt {
        let changes = std::mem::take(&mut self.changes);
        let id = std::mem::replace(&mut self.id, Id::Stays);
        Debt {
            doomed: self.doomed.take(),
            owed: self.owed(changes, id, timeouts, may_touch),
        }
    }

    fn owed(&self, changes: Changes, id: Id, timeouts: &Timeouts, may_touch: MayTouch) -> Owed {
        match &self.origin {
            Origin::New if changes.is_empty() || self.document.is_empty() => Owed::Nothing,
            Origin::New => Owed::Insert(Arc::clone(&self.document)),
            Origin::Unkeepable(_) if changes.is_empty() && id == Id::Stays => Owed::Nothing,
            Origin::Unkeepable(reason) => Owed::Refused(*reason),
            Origin::Stored(row, _) if id == Id::Cycles => Owed::Cycle(row.id.clone(), changes),
            Origin::Stored(row, _) if self.differs_from(row, &changes) => {
                Owed::Save(Arc::clone(row), self.recorded(changes), may_touch)
            }
            Origin::Stored(row, _)
                if may_touch == MayTouch::Yes
                    && timeouts.is_touch_due(&self.document.meta(), row.times) =>
            {
                Owed::Touch(Arc::clone(row))
            }
            Origin::Stored(..) => Owed::Nothing,
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
            .cloned()
            .unwrap_or_default();
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
        }
    }
}

#[cfg(test)]
mod tests;
