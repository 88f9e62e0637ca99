//! The statements of a new id.

use std::{sync::Arc, time::Duration};

use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::Query};

use crate::{
    Error,
    document::Document,
    expiry::{Extent, Times},
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

/// How long the old id tells late requests where their session went. It opens
/// nothing meanwhile. Longer than any answer should be under way.
const FORWARDING: Duration = Duration::from_secs(60);

pub(super) async fn copy(
    table: &Table,
    connection: &mut PgConnection,
    plan: &Plan,
    row: &Row,
    document: Document,
) -> Result<Row, Error> {
    let extent = plan.timeouts.extent(&document.meta(), row.times.created);
    let content = Content::from(Arc::new(document));
    of_row(&table.reissue.copy, row, plan, &content, extent)
        .execute(connection)
        .await?;
    let times = row.times.moved(Written::at(row.times.now, extent));
    Ok(Row::written(plan.new_id.clone(), content, times).of(row.user.clone()))
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
    of_row(&table.reissue.login_copy, row, plan, &content, extent)
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
    row: &Row,
    plan: &Plan,
    content: &Content,
    extent: Extent,
) -> Query<'static, Postgres, PgArguments> {
    copy.query()
        .bind(row.id.as_str())
        .bind(plan.new_id.as_str())
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
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn forward(
    table: &Table,
    connection: &mut PgConnection,
    plan: &Plan,
    id: &RowId,
) -> Result<(), Error> {
    table
        .reissue
        .forward
        .query()
        .bind(id.as_str())
        .bind(plan.forwarding().to_text())
        .bind(FORWARDING.as_secs_f64())
        .execute(connection)
        .await?;
    Ok(())
}
