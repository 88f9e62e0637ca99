//! The application's own columns of a row that a login replaces without its data. If the login
//! is undone, the row is inserted again with them. It doesn't know why.
//!
//! The statements are rendered when they are needed, which is rare: a format whose old rows
//! forward keeps the columns in the old row.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr as _};

use crate::{
    Error,
    expiry::Extent,
    format::ColumnNames,
    id::RowId,
    row::Content,
    store::{
        rows::steps::check_written,
        sql::{Pooling, Sql},
        table::statements::Statements,
    },
};

const READ: &str = r#"
SELECT (t.*)::text AS row_as_text
FROM "public"."session" AS t
WHERE t.id = $1
"#;

const INSERT: &str = r#"
INSERT INTO "public"."session" AS n (id, expiry, session
    , last_seen -- if carried last_seen
    -- carried columns
)
SELECT $1,
       pg_catalog.to_timestamp(LEAST(extract(epoch FROM pg_catalog.now())::float8 + $3, $4)),
       $2::json
       , pg_catalog.now() -- if carried last_seen
       -- carried values
FROM (SELECT ($5::text::"public"."session").*) AS t
"#;

/// Returns the row as the text of a composite value, which has each column exactly. `None` if the
/// table has no columns of the application.
pub(super) async fn read(
    table: &Statements,
    names: ColumnNames,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<Option<Arc<str>>, Error> {
    let columns = &table.columns;
    if columns.carried.iter().all(|column| columns.has(column)) {
        return Ok(None);
    }
    let found: Option<String> = rendered(table, names, READ)
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
    names: ColumnNames,
    connection: &mut PgConnection,
    row_as_text: &str,
    (id, content, extent): (&RowId, &Content, Extent),
) -> Result<(), Error> {
    let inserted = rendered(table, names, INSERT)
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

/// It is not prepared under a name, so it can be used behind a pooler.
fn rendered(table: &Statements, names: ColumnNames, sql: &str) -> Sql {
    let sql = table
        .name
        .render(&names.render(&table.columns.render(sql.trim())));
    // Identifiers are quoted and values are bound.
    let sql = AssertSqlSafe(Arc::<str>::from(sql)).into_sql_str();
    Sql::new(sql, Pooling::Transaction)
}
