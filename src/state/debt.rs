//! The write that a request owes its session.

use std::sync::Arc;

use super::{Id, Keep, Origin, Projection, State, Unkeepable};
use crate::{
    changes::{Change, Changes},
    document::{Document, Json},
    expiry::Timeouts,
    format::Terms,
    id::{RowId, Token},
    login::Login,
    store::Row,
};

/// Whether a request keeps its session alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayTouch {
    Yes,
    No,
    /// Whether it is due or not.
    Must,
}

/// The row of a session that was destroyed and is still there.
#[derive(Clone, Debug)]
pub(crate) struct Doomed {
    pub(crate) row: Arc<Row>,
    pub(super) token: Token,
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
    pub(super) fn differs_from(&self, row: &Row, changes: &Changes) -> bool {
        !changes.is_empty() && row.document() != Some(&self.document)
    }

    fn recorded(&self, changes: Changes) -> Record {
        let outcome = (self.projection == Projection::Exact).then(|| Arc::clone(&self.document));
        Record { changes, outcome }
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
