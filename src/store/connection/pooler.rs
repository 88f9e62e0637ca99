//! Detects a pooler in transaction mode, by comparing two connections. It knows no table and
//! runs no statement of a session.
//!
//! Dropped futures: both connections are the comparison's own, so dropping it closes them.

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions,
};
use tokio::time::timeout;

use crate::{
    Error, ErrorKind,
    store::{
        connection::{
            encryption::warn_where_there_is_none,
            executor::Executor,
            peer::{PATIENCE, Peer},
        },
        sql::Pooling,
    },
};

/// How often two connections are compared. Other clients may take turns in a way that hides
/// the pooler. One of the two is asked twice in a row. That shows a pooler that uses the
/// server's connections in turn at the first round, however many they are.
const ROUNDS: usize = 7;
/// How the names of sqlx's prepared statements begin.
const NAMES_OF_SQLX: &str = "sqlx_s_";

impl Executor {
    /// Returns the kind of pooler that is configured or detected. If the comparison fails,
    /// this assumes a pooler.
    ///
    /// # Errors
    ///
    /// If a pooler certainly gives the server's connections to others between two
    /// statements, doesn't keep track of prepared statements, and was not configured.
    pub(in crate::store) async fn detect_pooling(&self) -> Result<Pooling, Error> {
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
                // A failure doesn't contradict an earlier result.
                Ok(match comparisons.peer() {
                    Peer::Server => Pooling::Own,
                    Peer::Unknown | Peer::Pooler => Pooling::Transaction,
                })
            }
        }
    }

    /// How to send the statements. A pooler that keeps track of prepared statements gets
    /// the same ones as the server.
    pub(in crate::store) fn pooling_of_statements(&self) -> Pooling {
        match self.connections.comparisons().peer() {
            Peer::Unknown => Pooling::Transaction,
            Peer::Server | Peer::Pooler => self.pooling,
        }
    }
}

/// A pooler in transaction mode, if any, and what it does with prepared statements.
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

/// Whether a pooler shares connections of the server: two open connections lead to the same
/// process, or one of them leads to different processes over time.
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

/// The server's process of a connection, and when it began, because processes of two servers
/// can have the same id. It is a single message, which every pooler keeps together.
async fn backend(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let row = sqlx::raw_sql(include_str!("../sql/backend.sql"))
        .fetch_one(connection)
        .await?;
    row.try_get_unchecked(0)
}

/// Whether the server has prepared statements with sqlx's names. A pooler that keeps track
/// of prepared statements gives them other names.
async fn has_our_names(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let names: Vec<String> = sqlx::query_scalar(include_str!("../sql/prepared.sql"))
        .fetch_all(&mut *transaction)
        .await?;
    transaction.clear_cached_statements().await?;
    transaction.commit().await?;
    Ok(names.iter().any(|name| name.starts_with(NAMES_OF_SQLX)))
}
