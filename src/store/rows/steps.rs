//! The statements of a transaction on one row. They run in the caller's transaction: they
//! neither begin nor commit one.

use std::sync::Arc;

use sqlx::{
    PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgQueryResult, PgRow},
    query::Query,
};

use crate::{
    Error, ErrorKind,
    expiry::Extent,
    id::RowId,
    row::{Content, Row},
    store::{
        batch::statements::loaded,
        connection::sqlstate::{spared, unwritten},
        sql::Sql,
        table::statements::Statements,
    },
};

/// What is stored with a row and not read by requests.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Extras {
    pub(in crate::store) device: Option<String>,
    pub(in crate::store) external_id: Option<String>,
    /// The row with the application's columns, see [`kept_columns`](super::kept_columns).
    pub(in crate::store) row_as_text: Option<Arc<str>>,
}

/// Forwardings that a call follows from a handle to its session. A session can have that many
/// new ids while they last.
const MOST_MOVES: u32 = 1000;

/// Counts the forwardings that a call follows. Another program may have written a row that
/// leads to itself.
#[derive(Default)]
pub(in crate::store) struct Moves(u32);

impl Moves {
    /// # Errors
    ///
    /// If there are too many.
    pub(in crate::store) fn follow(&mut self) -> Result<(), Error> {
        self.0 += 1;
        match self.0 > MOST_MOVES {
            true => Err(Error::new(
                ErrorKind::Database,
                "the forwardings of a session lead in a circle",
            )),
            false => Ok(()),
        }
    }
}

/// Copies the row under another id, with another document and expiry.
///
/// # Errors
///
/// Those of the statement, and if a trigger drops the new row without an error.
pub(in crate::store) async fn insert(
    table: &Statements,
    connection: &mut PgConnection,
    from: &RowId,
    to: &RowId,
    content: &Content,
    extent: Extent,
) -> Result<(), Error> {
    let copied = of_row(&table.cycle.copy, from, to, content, extent);
    check_written(&copied.execute(connection).await?)
}

/// # Errors
///
/// If the statement for a row that exists has written none. A trigger can drop a row without
/// an error.
pub(super) fn check_written(outcome: &PgQueryResult) -> Result<(), Error> {
    match outcome.rows_affected() {
        0 => Err(unwritten()),
        _ => Ok(()),
    }
}

/// Binds the parameters that both statements that copy a row begin with.
pub(super) fn of_row(
    copy: &Sql,
    from: &RowId,
    to: &RowId,
    content: &Content,
    extent: Extent,
) -> Query<'static, Postgres, PgArguments> {
    copy.query()
        .bind(from.as_str())
        .bind(to.as_str())
        .bind(&*content.text)
        .bind(extent.ttl)
        .bind(extent.until)
}

/// Deletes the row if it exists, and if no trigger keeps it.
pub(in crate::store) async fn delete(
    table: &Statements,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<(), Error> {
    deletion(table, id).execute(connection).await?;
    Ok(())
}

/// Deletes a row that the transaction has locked.
///
/// # Errors
///
/// Those of the statement, and if a trigger keeps the row without an error.
pub(super) async fn delete_locked(
    table: &Statements,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<(), Error> {
    match deletion(table, id)
        .execute(connection)
        .await?
        .rows_affected()
    {
        0 => Err(spared()),
        _ => Ok(()),
    }
}

fn deletion(table: &Statements, id: &RowId) -> Query<'static, Postgres, PgArguments> {
    let delete = table.destroy.one.query();
    delete.bind(id.as_str().to_owned()).bind(true)
}

/// Locks the row and reads it. Waits for transactions that are writing it.
///
/// # Errors
///
/// Those of the statement, and [`Error::ended`] if there is no live row.
pub(in crate::store) async fn lock(
    table: &Statements,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<Row, Error> {
    let (row, _) = lock_with_extras(table, connection, id).await?;
    Ok(row)
}

/// As [`lock`]. Also returns what else is stored with the row.
pub(super) async fn lock_with_extras(
    table: &Statements,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<(Row, Extras), Error> {
    let locked = lock_live(table, connection, id).await?;
    locked.ok_or_else(Error::ended)
}

/// Locks the row like [`lock_with_extras`]. Returns `None` if there is no live row.
pub(super) async fn lock_live(
    table: &Statements,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<Option<(Row, Extras)>, Error> {
    let Some(row) = lock_by(&table.cycle.lock, connection, id).await? else {
        return Ok(None);
    };
    let extras = Extras {
        device: row.try_get(7)?,
        external_id: row.try_get(8)?,
        row_as_text: None,
    };
    Ok(Some((loaded(&row, id.clone(), table)?, extras)))
}

/// Locks the row and reads what a load reads. Returns `None` if there is no live row.
pub(super) async fn lock_as_loaded(
    table: &Statements,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<Option<Row>, Error> {
    match lock_by(&table.lock, connection, id).await? {
        Some(row) => Ok(Some(loaded(&row, id.clone(), table)?)),
        None => Ok(None),
    }
}

async fn lock_by(
    statement: &Sql,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<Option<PgRow>, Error> {
    let query = statement.query().bind(id.as_str());
    let row = query.fetch_optional(connection).await?;
    match row {
        Some(row) if row.try_get::<&str, _>(0)? != id.as_str() => Err(Error::not_asked_for()),
        row => Ok(row),
    }
}
