//! The pending writes of a request, and their outcomes: the data that the state and
//! the store exchange. It does no I/O.

use std::{sync::Arc, time::Duration};

use crate::{
    Error, ErrorKind,
    document::Document,
    id::{RowId, Token},
    login::Login,
    row::Row,
    state::changes::Changes,
    touch::Touch,
};

/// The row of a destroyed session, until it is deleted.
#[derive(Debug)]
pub(crate) struct EndedRow {
    pub(crate) row: Arc<Row>,
    /// The origin before the session was destroyed.
    pub(super) former: Origin,
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
    /// The user who was signed in when the request loaded the row. Another application can change
    /// the user of a row.
    pub(crate) loaded_user: Option<Arc<str>>,
    pub(crate) changes: Changes,
    pub(crate) login: Option<Arc<Login>>,
    /// What the request loaded, before its changes.
    pub(crate) loaded: Arc<Document>,
    /// What the request sees. If a login finds its session under another id, it
    /// begins a separate session with this document.
    pub(crate) seen: Arc<Document>,
    /// Whether a login may begin a separate session. `false` if the caller returns the
    /// committed value, or if the changes fit only the row's document.
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
    /// The request gave the row a new id, and the outcome is unknown.
    pub(crate) is_new_id_in_doubt: bool,
}

impl Record {
    /// Whether the changes may follow the session to its new id.
    pub(crate) fn may_follow(&self) -> bool {
        !self.is_confirmed && !self.is_new_id_in_doubt
    }
}

/// A row that the request's token opened, and that is not the session of the request.
#[derive(Clone, Debug)]
pub(crate) struct RefusedRow {
    pub(crate) row: Arc<Row>,
    pub(crate) by: RefusedBy,
    /// A save has not deleted it, because another request had changed it or given it a new id.
    pub(crate) is_spared: bool,
}

impl RefusedRow {
    pub(super) fn new(row: Arc<Row>, by: RefusedBy) -> Self {
        Self {
            row,
            by,
            is_spared: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedBy {
    /// The application's check.
    Check,
    /// The layer's timeouts.
    Timeouts,
}

/// The rows that a request deletes.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    pub(crate) refused: Vec<RefusedRow>,
    pub(crate) ended: Option<EndedRow>,
    /// If the handler destroyed a session, even without a row.
    pub(crate) effects: Option<DestroyEffects>,
}

impl Deletions {
    pub(crate) fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.ended.is_none()
    }
}

/// All pending writes of a request, in the order of execution.
#[derive(Debug)]
pub(crate) struct PendingWrites {
    pub(crate) deletions: Deletions,
    /// See [`State::ends_something`](super::State::ends_something).
    pub(crate) ends_something: bool,
    /// See [`State::begins_a_session`](super::State::begins_a_session).
    pub(crate) begins_a_session: bool,
    pub(crate) write: RowWrite,
    /// The document that the request saw when it took these writes.
    pub(crate) seen: Arc<Document>,
    /// Whether a caller returns the value that these writes commit.
    pub(crate) is_confirmed: bool,
}

impl PendingWrites {
    /// Whether the session's row gets a new id.
    pub(crate) fn replace_an_id(&self) -> bool {
        matches!(
            self.write,
            RowWrite::NewId(NewIdWrite {
                source: Source::Row(_),
                ..
            })
        )
    }

    /// Whether the response waits for the database.
    pub(crate) fn need_a_statement(&self) -> bool {
        let is_free = matches!(
            self.write,
            RowWrite::None | RowWrite::NoTouchYet | RowWrite::Refused(_)
        );
        !self.deletions.is_empty() || !is_free
    }
}

impl NewId {
    pub(super) fn login(self) -> Option<Arc<Login>> {
        match self {
            Self::Login(login) => Some(login),
            Self::None | Self::Cycle | Self::End => None,
        }
    }
}

/// The row that a request works on.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// No row yet. The first save that has data inserts one.
    New,
    /// This row, which the request's token opened.
    Stored(Arc<Row>, Token),
    /// The row that the request's token opened, but whose session got a new id
    /// while the request was running. Saves and a destroy go to the successor
    /// row; nothing else does.
    Moved(Arc<Row>, Token),
    /// The session can't be changed, and the browser's cookies must stay as
    /// they are.
    ReadOnly(ReadOnlyReason),
}

/// Why a request reads an empty session that it can't change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOnlyReason {
    /// The session got a new id recently. The browser has the new token, or is
    /// about to get it.
    Moved {
        /// How long a request with the old token can't begin a session of its
        /// own.
        retry_after: Duration,
    },
    /// The session was destroyed while the request was running.
    Ended,
    /// The cookies open several sessions, or there are more of them than the
    /// layer looks up.
    Ambiguous,
    /// Another site posted the request, so the browser withheld its cookie.
    CrossSite,
    /// The row could not be loaded, and the layer continues without it.
    NotLoaded,
}

impl ReadOnlyReason {
    /// Whether a login begins a separate session. The new token of a session that
    /// moved may never have reached the browser.
    pub(super) fn allows_a_login(self) -> bool {
        matches!(self, Self::Moved { .. } | Self::Ended)
    }

    pub(crate) fn error(self) -> Error {
        match self {
            Self::Moved { retry_after } => Error::moved(retry_after),
            Self::Ended => Error::ended(),
            Self::Ambiguous => Error::new(
                ErrorKind::Ambiguous,
                "the request carries cookies of several sessions",
            ),
            Self::CrossSite => Error::new(
                ErrorKind::CrossSite,
                "another site posted this request, without the cookie, so it can't begin a session",
            ),
            Self::NotLoaded => Error::new(
                ErrorKind::Unavailable,
                "the session could not be loaded, so it can't be changed",
            ),
        }
    }
}

/// The pending change of the session's id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NewId {
    None,
    Cycle,
    /// A new id and a new user.
    Login(Arc<Login>),
    /// A destroy that this request can't execute.
    End,
}

/// The effects of a destroyed session on the response.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DestroyEffects {
    /// The response removes the cookie, unless it sets one.
    pub(super) removes_cookie: bool,
    /// The handler signed the user out.
    pub(super) signs_out: bool,
}

/// What a request deletes.
pub(crate) enum ToDelete {
    /// The session that was loaded at this time of the database (seconds since the epoch), even if
    /// it was changed or got a new id.
    Session { loaded: f64 },
    /// This row, only if it hasn't changed since it was loaded.
    Unchanged(Arc<Row>),
}

/// What the deletion of a session has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    Done,
    /// Nothing: the session was destroyed or had expired before.
    WasOver,
    /// Nothing: the row has changed since it was loaded, or may live under another id.
    Spared,
    /// Nothing: there is no row. The session was destroyed or expired, or another process gave it
    /// a new id.
    Unknown,
}

/// Where the changes of a request were saved.
#[derive(Clone, Debug)]
pub(crate) enum Saved {
    /// In the row that the request's own token opens.
    Here(Arc<Row>),
    /// Not at all: there was nothing to change, and another writer moved the expiry or
    /// deleted the row.
    Untouched(Arc<Row>),
    /// In the successor of that row, which the request must not see.
    Moved,
}
