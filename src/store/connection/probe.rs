//! What one message asks of a server.

use sqlx::{PgConnection, Row as _, SqlSafeStr};

/// The server's process behind a connection. Process ids repeat, and the pool
/// may follow to another server, so it takes more to know the process again: the
/// start of the server, and that the process began before it was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::store) struct Backend {
    pub(in crate::store) pid: i32,
    /// When the server started, in microseconds since the epoch.
    pub(in crate::store) started: i64,
    /// When the process was asked, in seconds since the epoch, by the server's
    /// clock.
    pub(in crate::store) seen: f64,
}

/// What the server says of a connection.
pub(in crate::store) struct Probe {
    pub(in crate::store) backend: Backend,
    pub(in crate::store) is_in_a_transaction: bool,
}

/// Asks a connection which process serves it, and whether it is in a
/// transaction. `None` in a transaction that failed.
///
/// What is saved in a transaction that somebody else began is answered as
/// committed, and is not. sqlx 0.9.0 forgets a `BEGIN` whose future is dropped,
/// and the pool lends that connection to the next. sqlx keeps what the server
/// says of it to itself, so it takes a message of its own, which no pooler
/// tears apart.
///
/// # Errors
///
/// When the connection does not answer.
pub(in crate::store) async fn probe(
    connection: &mut PgConnection,
) -> Result<Option<Probe>, sqlx::Error> {
    ask(connection, include_str!("../sql/probe.sql")).await
}

pub(super) async fn ask(
    connection: &mut PgConnection,
    sql: impl SqlSafeStr,
) -> Result<Option<Probe>, sqlx::Error> {
    let asked = sqlx::raw_sql(sql).fetch_one(connection).await;
    let row = match asked {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("25P02") => {
            return Ok(None);
        }
        asked => asked?,
    };
    Ok(Some(Probe {
        backend: Backend {
            pid: row.try_get_unchecked(0)?,
            started: row.try_get_unchecked(1)?,
            seen: row.try_get_unchecked(2)?,
        },
        is_in_a_transaction: row.try_get_unchecked(3)?,
    }))
}

/// Whether the server is a standby, or takes no writes for another reason. Asked
/// in a single message, as a pooler may stand before the server.
pub(in crate::store) async fn is_read_only(
    connection: &mut PgConnection,
) -> Result<bool, sqlx::Error> {
    let row = sqlx::raw_sql(include_str!("../sql/read_only.sql"))
        .fetch_one(connection)
        .await?;
    row.try_get(0)
}
