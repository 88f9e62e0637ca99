//! Counters of rejected tokens. A sudden rise suggests token guessing (OWASP).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    request_tokens::RequestTokens,
    telemetry::{Meter, RejectedToken},
};

/// The number of rejected tokens in this process since the store was created, from
/// [`PgSessionStore::counters`](crate::PgSessionStore::counters).
///
/// A token is counted when a request uses its session. A few rejected tokens are normal,
/// because cookies outlive their sessions. Compare their growth with the number of
/// requests: a sudden rise suggests token guessing.
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
    /// Well-formed tokens without a live session: it was destroyed or expired, or the
    /// token was guessed.
    pub unknown: u64,
    /// Values that are not well-formed tokens.
    pub malformed: u64,
    /// Tokens without a valid signature, if tokens are signed.
    pub forged: u64,
    /// Requests with several live sessions, or with more tokens than are looked up. An
    /// attacker may have planted one.
    pub ambiguous: u64,
}

/// The counters that all clones of a store share.
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

    /// Counts the tokens that are rejected without a query.
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
                "a request carries invalid tokens"
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
