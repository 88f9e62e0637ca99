//! The pending writes of a request.

use std::sync::Arc;

use super::{Farewell, NewId, Origin, State};
use crate::{
    Error,
    changes::{Change, Changes},
    document::{Document, Json},
    expiry::Timeouts,
    format::Terms,
    id::RowId,
    login::Login,
    store::Row,
};

/// Whether a save extends its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    Never,
    IfDue,
    Always,
}

/// The row of a destroyed session, until it is deleted.
#[derive(Clone, Debug)]
pub(crate) struct RowToDelete {
    pub(crate) row: Arc<Row>,
}

impl RowToDelete {
    /// The terms under which the session's cookie was set.
    pub(crate) fn terms(&self) -> Terms {
        self.row.document()?.terms()
    }
}

/// The pending write to the session's own row.
#[derive(Debug)]
pub(crate) enum RowWrite {
    None,
    /// No write, because the last touch is recent.
    NoTouchYet,
    Insert(Arc<Document>),
    Save(Arc<Row>, Record, Touch),
    Touch(Arc<Row>, Touch),
    NewId(NewIdWrite),
    /// The session can't be changed, or the changes do not fit the session that
    /// would begin with them.
    Refused(Error),
}

/// A session that gets a new id.
#[derive(Debug)]
pub(crate) struct NewIdWrite {
    pub(crate) source: Source,
    pub(crate) changes: Changes,
    pub(crate) login: Option<Arc<Login>>,
    /// What the request sees. If a login finds its session under another id, it
    /// begins a separate session with this document.
    pub(crate) seen: Arc<Document>,
    /// Not if the caller returns what the changes make of the row, or if they
    /// fit that row alone.
    pub(crate) may_begin_separately: bool,
}

/// The source of a session with a new id.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Its present row.
    Row(RowId),
    /// Nothing is stored yet.
    Nothing(Arc<Document>),
}

/// The changes of a request to a row's document.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) changes: Changes,
    /// The document after these changes, based on the row that the request
    /// loaded, if that is known.
    pub(crate) outcome: Option<Arc<Document>>,
    /// The caller returns the committed value, which only the request's own row
    /// may reveal.
    pub(crate) is_confirmed: bool,
    /// The request gave the row a new id, and does not know whether it succeeded.
    pub(crate) is_new_id_in_doubt: bool,
}

impl Record {
    /// Whether the changes may follow the session to its new id.
    pub(crate) fn may_follow(&self) -> bool {
        !self.is_confirmed && !self.is_new_id_in_doubt
    }
}

/// The rows that a request deletes.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    /// A row that the application's check refused.
    pub(crate) refused: Option<RowToDelete>,
    /// The row of the session that the handler destroyed.
    pub(crate) ended: Option<RowToDelete>,
    /// The origin before it was destroyed.
    pub(crate) former: Option<Origin>,
    /// If the handler destroyed a session, even without a row.
    pub(crate) farewell: Option<Farewell>,
}

impl Deletions {
    pub(crate) fn is_empty(&self) -> bool {
        self.refused.is_none() && self.ended.is_none()
    }
}

/// All pending writes of a request, in the order of execution.
#[derive(Debug)]
pub(crate) struct PendingWrites {
    pub(crate) deletions: Deletions,
    /// See [`State::ends_something`].
    pub(crate) ends_something: bool,
    pub(crate) write: RowWrite,
    /// The document that the request saw when it took these writes.
    pub(crate) seen: Arc<Document>,
    /// Whether a caller returns what these writes make of the row.
    pub(crate) is_confirmed: bool,
}

impl PendingWrites {
    /// Whether the response waits for the database.
    pub(crate) fn need_a_statement(&self) -> bool {
        let is_free = matches!(
            self.write,
            RowWrite::None | RowWrite::NoTouchYet | RowWrite::Refused(_)
        );
        !self.deletions.is_empty() || !is_free
    }
}

impl State {
    /// Takes the pending writes. Changes that the handler makes before the
    /// outcome is settled belong to the next save.
    pub(crate) fn take_writes(&mut self, timeouts: &Timeouts, touch: Touch) -> PendingWrites {
        let ends_something = self.ends_something();
        let deletions = self.take_deletions();
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
            // It stays, so that no later save or response claims this logout.
            NewId::End => NewId::End,
            id => std::mem::replace(id, NewId::None),
        };
        if let NewId::Login(login) = &id {
            self.login_in_flight = Some(Arc::clone(login));
        }
        self.is_new_id_in_flight = matches!(id, NewId::Login(_) | NewId::Cycle)
            && matches!(self.origin, Origin::Stored(..));
        self.is_touched = false;
        PendingWrites {
            deletions,
            ends_something,
            write: self.write(record, is_changed, id, timeouts, touch),
            seen: Arc::clone(&self.document),
            is_confirmed,
        }
    }

    pub(crate) fn has_deletions(&self) -> bool {
        self.refused.is_some() || self.is_ended
    }

    /// Whether the pending writes destroy a session or replace a token. If they
    /// fail, the response must not conceal that the session or token still works.
    pub(crate) fn ends_something(&self) -> bool {
        let has_row = match &self.origin {
            Origin::Stored(..) | Origin::Moved(..) => true,
            Origin::ReadOnly(_) => self.lost.is_some(),
            Origin::New => false,
        };
        self.refused.is_some() || (self.is_ended && has_row) || self.new_id != NewId::None
    }

    /// Takes the rows to delete, and nothing else.
    pub(crate) fn take_deletions(&mut self) -> Deletions {
        let is_executed = self.is_ended && self.new_id != NewId::End;
        let former = self.is_ended.then(|| self.origin.clone());
        Deletions {
            refused: self.refused.take(),
            farewell: is_executed.then_some(self.farewell),
            former,
            ended: self.take_ended(),
        }
    }

    /// Takes the row of a destroyed session. From here on, the origin is the
    /// session that follows it.
    fn take_ended(&mut self) -> Option<RowToDelete> {
        if !std::mem::take(&mut self.is_ended) {
            return None;
        }
        match std::mem::replace(&mut self.origin, Origin::New) {
            Origin::Stored(row, _) | Origin::Moved(row, _) => Some(RowToDelete { row }),
            Origin::ReadOnly(_) if self.lost.is_some() => self.lost.take(),
            origin => {
                self.origin = origin;
                None
            }
        }
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
                    changes: record.changes,
                    login: id.login(),
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
            Touch::IfDue if timeouts.is_touch_due(&self.document.meta(), row.times) => {
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
            changes: Changes::default(),
            login: Some(login),
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

impl NewId {
    fn login(self) -> Option<Arc<Login>> {
        match self {
            Self::Login(login) => Some(login),
            Self::None | Self::Cycle | Self::End => None,
        }
    }
}
