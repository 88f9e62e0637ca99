//! Single messages that ask about the server or its process. They know no table, and every
//! pooler keeps them together.

use sqlx::{PgConnection, Row as _, SqlSafeStr};

/// The server's process behind a connection. Process ids repeat, and the pool may follow the
/// primary to another server. So a process is identified also by the start of its server, and
/// by the fact that it began before it was probed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::store) struct Backend {
    pub(in crate::store) pid: i32,
    /// When the server started, in microseconds since the epoch.
    pub(in crate::store) started: i64,
    /// When the process was probed, in seconds since the epoch, by the server's clock.
    pub(in crate::store) seen: f64,
}

/// What the server reports about a connection.
pub(in crate::store) struct Probe {
    pub(in crate::store) backend: Backend,
    pub(in crate::store) is_in_a_transaction: bool,
}

/// Asks a connection which process serves it, and whether it is in a
/// transaction. `None` in a transaction that failed.
///
/// A write in a transaction that another future began would seem committed, and is not.
/// sqlx 0.9.0 forgets a `BEGIN` whose future is dropped, and the pool hands that connection
/// to the next caller. sqlx doesn't expose the transaction state that the server reports, so
/// the probe is a message of its own.
///
/// # Errors
///
/// If the connection doesn't respond.
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
