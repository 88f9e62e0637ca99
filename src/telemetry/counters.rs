//! How often tokens opened nothing: guessing is noticed here (OWASP).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    credentials::RequestTokens,
    telemetry::{Meter, RejectedToken},
};

/// Tokens that opened nothing, in this process since the store was set up:
/// what [`PgSessionStore::counters`](crate::PgSessionStore::counters) answers.
///
/// They count where somebody asked for the session. A few of them are ordinary,
/// as cookies outlive their sessions; watch how they grow beside the number of
/// requests.
///
/// ```
/// use axum_pg_session::{Counters, PgSessionStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// assert_eq!(store.counters(), Counters::default());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counters {
    /// Tokens of the right form under which the table has no live session:
    /// it ended or expired, or somebody guessed.
    pub unknown: u64,
    /// Values that can't be a token.
    pub malformed: u64,
    /// Tokens without a signature, or with one that no key verifies, where
    /// tokens are signed.
    pub forged: u64,
    /// Requests with several live sessions, or with more tokens than are
    /// looked up: somebody may have planted one.
    pub ambiguous: u64,
}

/// What all clones of a store count.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    unknown: AtomicU64,
    malformed: AtomicU64,
    forged: AtomicU64,
    ambiguous: AtomicU64,
}

impl Tally {
    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            unknown: self.unknown.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            forged: self.forged.load(Relaxed),
            ambiguous: self.ambiguous.load(Relaxed),
        }
    }

    /// What needs no table to be told.
    pub(crate) fn presented(&self, presented: &RequestTokens, meter: &Meter) {
        let (malformed, forged) = (presented.malformed, presented.forged);
        if malformed + forged > 0 {
            self.malformed.fetch_add(malformed, Relaxed);
            self.forged.fetch_add(forged, Relaxed);
            meter.rejected(RejectedToken::Malformed, malformed);
            meter.rejected(RejectedToken::Forged, forged);
            tracing::debug!(
                token.malformed = malformed,
                token.forged = forged,
                "a request carries what is no token"
            );
        }
    }

    pub(crate) fn unknown(&self, tokens: usize, meter: &Meter) {
        if tokens > 0 {
            self.unknown.fetch_add(tokens as u64, Relaxed);
            meter.rejected(RejectedToken::Unknown, tokens as u64);
            tracing::debug!(
                token.unknown = tokens,
                "a request carries tokens that open no session"
            );
        }
    }

    pub(crate) fn ambiguous(&self) {
        self.ambiguous.fetch_add(1, Relaxed);
        tracing::debug!("a request carries tokens of several sessions");
    }
}
