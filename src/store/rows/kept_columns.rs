//! The application's own columns of a row that a login replaces without its data. If the login is
//! undone, the row is inserted again with them. It doesn't know why the login is undone. A format
//! whose old rows forward doesn't need this, because the old row keeps the columns.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::{
    Error,
    expiry::Extent,
    id::RowId,
    row::Content,
    store::{rows::steps::check_written, table::statements::Statements},
};

/// Returns the row as the text of a composite value, which has each column exactly. `None` if the
/// table has no columns of the application, or the role may not read all of them. Then an undo
/// leaves their defaults.
pub(super) async fn read(
    table: &Statements,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<Option<Arc<str>>, Error> {
    let columns = &table.columns;
    if !columns.may_read_all || columns.carried.iter().all(|column| columns.has(column)) {
        return Ok(None);
    }
    let found: Option<String> = table
        .cycle
        .row_as_text
        .query_scalar()
        .bind(id.as_str())
        .fetch_optional(connection)
        .await?;
    found.map(|text| Some(text.into())).ok_or_else(Error::ended)
}

/// Inserts a row with the application's columns of the row that was read.
///
/// # Errors
///
/// Those of the statement, such as if the table has other columns by now, and if a trigger drops
/// the row without an error.
pub(super) async fn insert(
    table: &Statements,
    connection: &mut PgConnection,
    row_as_text: &str,
    (id, content, extent): (&RowId, &Content, Extent),
) -> Result<(), Error> {
    let inserted = table
        .cycle
        .restore_row
        .query()
        .bind(id.as_str())
        .bind(&*content.text)
        .bind(extent.ttl)
        .bind(extent.until)
        .bind(row_as_text)
        .execute(connection)
        .await?;
    check_written(&inserted)
}
