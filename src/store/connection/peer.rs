//! Whether connections lead to a pooler, as far as it is known. It only stores the result:
//! [`pooler`](super::pooler) compares the connections.

use std::time::Duration;

use tokio::time::Instant;

/// The time limit for one comparison. A pooler with one connection in session mode lets the
/// second client wait until the first has left.
pub(in crate::store) const PATIENCE: Duration = Duration::from_secs(4);
/// The pause between a failed comparison and the next one. It doubles each time, because
/// the role may have no connection left at all.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the connections lead to, as a comparison of two of them shows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::store) enum Peer {
    /// No comparison has succeeded, so it can be a pooler. Each statement is sent
    /// unnamed and in a transaction, which sets limits of its own. None is canceled by
    /// its process id.
    #[default]
    Unknown,
    /// A process of the server, always the same one.
    Server,
    /// A pooler that keeps track of prepared statements.
    Pooler,
}

/// The result of the comparisons, and when the next one is due. They are repeated
/// until one succeeds, because the first one may have met a busy server.
#[derive(Debug)]
pub(in crate::store) struct Comparisons {
    peer: Peer,
    pause: Duration,
    /// `None` before the first comparison.
    next: Option<Instant>,
    /// Whether the failure was logged.
    is_logged: bool,
}

impl Default for Comparisons {
    fn default() -> Self {
        Self {
            peer: Peer::default(),
            pause: PAUSE,
            next: None,
            is_logged: false,
        }
    }
}

impl Comparisons {
    pub(in crate::store) fn peer(&self) -> Peer {
        self.peer
    }

    pub(in crate::store) fn found(&mut self, peer: Peer) {
        self.peer = peer;
    }

    pub(in crate::store) fn failed(&mut self) {
        self.next = Some(Instant::now() + self.pause);
        self.pause = LONGEST_PAUSE.min(2 * self.pause);
    }

    /// Whether the caller is to compare now. Returns `false` to all others until that
    /// comparison can have ended.
    pub(in crate::store) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.peer == Peer::Unknown && self.next.is_some_and(|next| next <= now);
        if is_due {
            self.next = Some(now + PATIENCE + self.pause);
        }
        is_due
    }

    /// Logs once that no comparison has succeeded.
    pub(in crate::store) fn log(&mut self) {
        if self.peer == Peer::Unknown && !self.is_logged {
            self.is_logged = true;
            tracing::warn!(
                "the check for a connection pooler failed, which needs two connections beside the \
                 pool; each statement runs in a transaction until the check succeeds"
            );
        }
    }
}
