//! The record of a history: every request and its outcome.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    site::{Deed, Seen},
    socket::Socket,
};

/// A session from its begin to its end, whatever ids it has meanwhile.
pub(crate) type Life = u64;
pub(crate) type Token = Arc<str>;

/// When something was sent or received, in the order of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moment {
    pub(crate) tick: u64,
    pub(crate) time: Instant,
}

impl Moment {
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.tick < other.tick
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.time.saturating_duration_since(earlier.time)
    }
}

#[derive(Debug)]
pub(crate) struct Entry {
    /// Unique, and the value that the request writes.
    pub(crate) number: u64,
    /// Whose cookie it carries, or which it begins; `None` for an unknown one.
    pub(crate) life: Option<Life>,
    pub(crate) token: Option<Token>,
    pub(crate) deed: Deed,
    pub(crate) key: &'static str,
    pub(crate) sent: Moment,
    /// When the response arrived, or the client stopped waiting for it.
    pub(crate) ended: Moment,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Done(Seen, GivenCookie),
    /// The page found no session and did nothing.
    NoSession(GivenCookie),
    /// A server error that the page chose, which drops what it did.
    Dropped(Seen, GivenCookie),
    InDoubt(Doubt),
    /// A response that no page should give.
    Strange(String),
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Doubt {
    /// 503: not done, or the response of the database was lost.
    Unavailable,
    Cancelled,
    ConnectionLost,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum GivenCookie {
    None,
    Token(Token),
    Removal,
}

impl Entry {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Done(..))
    }

    /// Whether it changed something, now or later.
    pub(crate) fn may_have_happened(&self) -> bool {
        matches!(self.outcome, Outcome::Done(..) | Outcome::InDoubt(_))
    }

    /// What the page showed of a session that it found.
    pub(crate) fn seen(&self) -> Option<&Seen> {
        match &self.outcome {
            Outcome::Done(seen, _) | Outcome::Dropped(seen, _) => Some(seen),
            Outcome::NoSession(_) | Outcome::InDoubt(_) | Outcome::Strange(_) => None,
        }
    }

    pub(crate) fn cookie(&self) -> Option<&GivenCookie> {
        match &self.outcome {
            Outcome::Done(_, cookie) | Outcome::Dropped(_, cookie) | Outcome::NoSession(cookie) => {
                Some(cookie)
            }
            Outcome::InDoubt(_) | Outcome::Strange(_) => None,
        }
    }

    /// Whether all of it was over before `other` was sent.
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        self.is_done() && self.ended.is_before(other.sent)
    }

    pub(crate) fn cycles(&self) -> bool {
        matches!(self.deed, Deed::Cycle | Deed::CycleAndAppend | Deed::Login)
    }

    pub(crate) fn appends(&self) -> bool {
        matches!(
            self.deed,
            Deed::Append | Deed::AppendEarly | Deed::CycleAndAppend
        )
    }
}

/// The checker lets a session expire: from when it may have, and from when it
/// certainly has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expired {
    pub(crate) life: Life,
    pub(crate) from: Moment,
    pub(crate) until: Moment,
}

#[derive(Debug, Default)]
pub(crate) struct Record {
    ticks: AtomicU64,
    numbers: AtomicU64,
    lives: AtomicU64,
    /// Sockets that have not ended.
    open_sockets: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) entries: Vec<Entry>,
    pub(crate) expired: Vec<Expired>,
    pub(crate) reapings: Vec<Option<u16>>,
    pub(crate) sockets: Vec<Socket>,
}

impl Record {
    pub(crate) fn now(&self) -> Moment {
        let time = Instant::now();
        let tick = self.ticks.fetch_add(1, Ordering::SeqCst);
        Moment { tick, time }
    }

    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Requests that were sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.numbers.load(Ordering::SeqCst)
    }

    pub(crate) fn new_life(&self) -> Life {
        self.lives.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The first life that is not begun yet.
    pub(crate) fn next_life(&self) -> Life {
        self.lives.load(Ordering::SeqCst) + 1
    }

    pub(crate) fn keep(&self, entry: Entry) {
        self.kept().entries.push(entry);
    }

    /// With its status, if a response came.
    pub(crate) fn keep_reaping(&self, status: Option<u16>) {
        self.kept().reapings.push(status);
    }

    pub(crate) fn keep_expired(&self, expired: Expired) {
        self.kept().expired.push(expired);
    }

    pub(crate) fn socket_opens(&self) {
        self.open_sockets.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn socket_is_over(&self) {
        self.open_sockets.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn has_open_sockets(&self) -> bool {
        self.open_sockets.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn keep_socket(&self, socket: Socket) {
        self.kept().sockets.push(socket);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self) -> Kept {
        std::mem::take(&mut self.kept())
    }
}
