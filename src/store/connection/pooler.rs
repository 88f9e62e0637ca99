//! Whether a pooler stands before Postgres that the statements are not written
//! for.

use std::time::Duration;

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions,
};
use tokio::time::{Instant, timeout};

use crate::{
    Error, ErrorKind,
    store::{
        connection::{encryption::warn_where_there_is_none, executor::Database},
        sql::Pooling,
    },
};

/// How often two connections are compared: others may come between in step. One
/// of them is asked twice in a row, so that a pooler that lends the server's
/// connections in turn shows at the first round, whatever their number.
const ROUNDS: usize = 7;
/// A pooler that lends its only connection for a session lets the second one
/// wait until the first has left.
pub(in crate::store) const PATIENCE: Duration = Duration::from_secs(4);
/// Between a failed comparison and the next one. It doubles each time, because the
/// role may not be allowed another connection at all.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What sqlx calls the statements that it prepares.
const NAMES_OF_SQLX: &str = "sqlx_s_";

/// What the connections lead to, by comparing two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::store) enum Peer {
    /// No comparison has succeeded, so it can be a pooler. Each statement is sent
    /// unnamed and in a transaction, which sets limits of its own. None is canceled by
    /// its process id.
    #[default]
    Unknown,
    /// A process of the server that stays the same.
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

    fn found(&mut self, peer: Peer) {
        self.peer = peer;
    }

    fn failed(&mut self) {
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
                "the check for a connection pooler failed; it needs two connections beside the \
                 pool. Until it succeeds, each statement runs in a transaction"
            );
        }
    }
}

impl Database {
    /// What stands between, as it was told of or is noticed. If the comparison fails,
    /// it may be a pooler.
    ///
    /// # Errors
    ///
    /// Where it is certain that a pooler gives the server's connections to
    /// others between two statements, and neither looks after the prepared ones
    /// nor was told of.
    pub(in crate::store) async fn noticed_pooling(&self) -> Result<Pooling, Error> {
        let options = self.pool().connect_options();
        let warned = warn_where_there_is_none(&options);
        tokio::join!(self.pooling_before(&options), warned).0
    }

    async fn pooling_before(&self, options: &PgConnectOptions) -> Result<Pooling, Error> {
        if self.pooling == Pooling::Transaction {
            return Ok(Pooling::Transaction);
        }
        let found = timeout(PATIENCE, compare(options)).await;
        let mut comparisons = self.connections.comparisons();
        match found {
            Ok(Ok(Found::MixedUp)) => {
                comparisons.failed();
                Err(Error::new(
                    ErrorKind::Setup,
                    "a pooler in transaction mode stands before Postgres and does not keep track \
                     of prepared statements; set PgSessionStore::behind_transaction_pooler",
                ))
            }
            Ok(Ok(Found::KeptApart)) => {
                comparisons.found(Peer::Pooler);
                Ok(Pooling::Transaction)
            }
            Ok(Ok(Found::Nothing)) => {
                comparisons.found(Peer::Server);
                Ok(Pooling::Own)
            }
            Ok(Err(_)) | Err(_) => {
                comparisons.failed();
                // A failure says nothing against an earlier result.
                Ok(match comparisons.peer() {
                    Peer::Server => Pooling::Own,
                    Peer::Unknown | Peer::Pooler => Pooling::Transaction,
                })
            }
        }
    }

    /// How to send the statements. A pooler that keeps track of prepared ones gets
    /// them as the server does.
    pub(in crate::store) fn pooling_of_statements(&self) -> Pooling {
        match self.connections.comparisons().peer() {
            Peer::Unknown => Pooling::Transaction,
            Peer::Server | Peer::Pooler => self.pooling,
        }
    }
}

/// A pooler that lends for a transaction, by what it does with what its clients
/// have prepared.
enum Found {
    Nothing,
    KeptApart,
    MixedUp,
}

async fn compare(options: &PgConnectOptions) -> Result<Found, sqlx::Error> {
    let mut one = options.connect().await?;
    let mut other = options.connect().await?;
    let found = match are_lent(&mut one, &mut other).await? {
        false => Found::Nothing,
        true if has_our_names(&mut one).await? => Found::MixedUp,
        true => Found::KeptApart,
    };
    one.close().await?;
    other.close().await?;
    Ok(found)
}

/// Whether two open connections are one to the server, or one of them is a new
/// one each time, as other clients of the pooler come between.
async fn are_lent(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let first = (backend(one).await?, backend(other).await?);
    let mut are_lent = first.0 == first.1;
    for _ in 1..ROUNDS {
        if are_lent {
            break;
        }
        are_lent = backend(one).await? != first.0
            || backend(one).await? != first.0
            || backend(other).await? != first.1;
    }
    Ok(are_lent)
}

/// By its process and when that began, as processes of two servers can have
/// one number. In a single message, which no pooler tears apart.
async fn backend(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let row = sqlx::raw_sql(include_str!("../sql/backend.sql"))
        .fetch_one(connection)
        .await?;
    row.try_get_unchecked(0)
}

/// A pooler that keeps track of prepared statements has names of its own for
/// them.
async fn has_our_names(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let names: Vec<String> = sqlx::query_scalar(include_str!("../sql/prepared.sql"))
        .fetch_all(&mut *transaction)
        .await?;
    transaction.clear_cached_statements().await?;
    transaction.commit().await?;
    Ok(names.iter().any(|name| name.starts_with(NAMES_OF_SQLX)))
}
