//! The statements of a new id.

use std::sync::Arc;

use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::Query};

use crate::{
    Error,
    document::Document,
    expiry::{Extent, FORWARDING, Times},
    id::RowId,
    login::Login,
    store::{
        entries::Written,
        instant::Instant,
        reissue::Plan,
        row::{Content, Row},
        sql::Sql,
        table::Table,
    },
};

pub(super) async fn copy(
    table: &Table,
    connection: &mut PgConnection,
    plan: &Plan,
    row: &Row,
    document: Document,
) -> Result<Row, Error> {
    let extent = plan.timeouts.extent(&document.meta(), row.times.created);
    let content = Content::from(Arc::new(document));
    insert(table, connection, &row.id, &plan.new_id, &content, extent).await?;
    let times = row.times.moved(Written::at(row.times.now, extent));
    Ok(Row::written(plan.new_id.clone(), content, times).of(row.user.clone()))
}

/// Copies the row under another id, with another document and expiry.
pub(super) async fn insert(
    table: &Table,
    connection: &mut PgConnection,
    from: &RowId,
    to: &RowId,
    content: &Content,
    extent: Extent,
) -> Result<(), Error> {
    of_row(&table.reissue.copy, from, to, content, extent)
        .execute(connection)
        .await?;
    Ok(())
}

/// The session begins anew, but for what it holds.
pub(super) async fn copy_for(
    login: &Login,
    table: &Table,
    connection: &mut PgConnection,
    plan: &Plan,
    row: &Row,
    document: Document,
) -> Result<Row, Error> {
    let now = row.times.now;
    let created = table.columns.has_created().then_some(now);
    let extent = plan.timeouts.extent(&document.meta(), created);
    let content = Content::from(Arc::new(document));
    of_row(
        &table.reissue.login_copy,
        &row.id,
        &plan.new_id,
        &content,
        extent,
    )
    .bind(login.user_id())
    .bind(login.device_text())
    .execute(connection)
    .await?;
    let times = Times::of_new(Written::at(now, extent), &table.columns);
    Ok(Row::written(plan.new_id.clone(), content, times).of(plan.user()))
}

/// What both statements that copy a row begin with.
fn of_row(
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

/// A session that begins with its login.
pub(super) async fn begin(
    table: &Table,
    connection: &mut PgConnection,
    plan: &Plan,
    document: Arc<Document>,
) -> Result<Row, Error> {
    let login = plan.login.as_deref().ok_or_else(Error::ended)?;
    let has_created = table.columns.has_created();
    let extent = plan.timeouts.extent_of_new(&document.meta(), has_created);
    let content = Content::from(document);
    let expires: Instant = table
        .reissue
        .login_insert
        .query_scalar()
        .bind(plan.new_id.as_str())
        .bind(&*content.text)
        .bind(extent.ttl)
        .bind(extent.until)
        .bind(login.user_id())
        .bind(login.device_text())
        .fetch_one(connection)
        .await?;
    let written = Written {
        now: table.clock.now(),
        expires: expires.0,
    };
    let times = Times::of_new(written, &table.columns);
    Ok(Row::written(plan.new_id.clone(), content, times).of(plan.user()))
}

pub(super) async fn delete(
    table: &Table,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<(), Error> {
    table
        .destroy
        .one
        .query()
        .bind(id.as_str())
        .bind(true)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn forward(
    table: &Table,
    connection: &mut PgConnection,
    plan: &Plan,
    row: &Row,
) -> Result<(), Error> {
    table
        .reissue
        .forward
        .query()
        .bind(row.id.as_str())
        .bind(plan.forwarding(row).to_text())
        .bind(FORWARDING.as_secs_f64())
        .execute(connection)
        .await?;
    Ok(())
}
