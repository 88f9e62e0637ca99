//! The statements that write many rows: what one row of each is.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::{
    expiry::Extent,
    id::RowId,
    store::{
        statements::{Answers, Work, WriteRow},
        table::Table,
    },
};

/// A row to be inserted; the answer is the database's now, or none where the
/// id exists.
#[derive(Clone, Debug)]
pub(super) struct InsertRow {
    pub(super) id: RowId,
    pub(super) text: Arc<str>,
    pub(super) extent: Extent,
}

/// A document to be written where the row still holds what was loaded; the
/// answer is the database's now, or none where it does not.
#[derive(Clone, Debug)]
pub(super) struct SaveRow {
    pub(super) id: RowId,
    pub(super) digest: [u8; 32],
    pub(super) text: Arc<str>,
    pub(super) extent: Option<Extent>,
}

/// An expiry to be moved where it still is what was loaded; the answer is as
/// that of a save.
#[derive(Clone, Debug)]
pub(super) struct TouchRow {
    pub(super) id: RowId,
    pub(super) expires: f64,
    pub(super) extent: Extent,
}

/// A row to be deleted; the answer is what a short one held, which may be a
/// forwarding.
#[derive(Clone, Debug)]
pub(super) struct DestroyRow {
    pub(super) id: RowId,
}

/// One parameter of a statement: the same member of every row.
fn column<'r, R, T>(rows: &'r [R], member: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(member).collect()
}

impl WriteRow for InsertRow {
    type Answer = f64;

    fn id(&self) -> &RowId {
        &self.id
    }

    fn weight(&self) -> usize {
        self.text.len()
    }

    fn write(
        table: Arc<Table>,
        connection: &mut PgConnection,
        rows: Vec<Self>,
    ) -> Work<'_, Answers<f64>> {
        Box::pin(async move {
            let answers: Vec<(String, f64)> = sqlx::query_as(table.insert.clone())
                .bind(column(&rows, |row| row.id.as_str()))
                .bind(column(&rows, |row| &*row.text))
                .bind(column(&rows, |row| row.extent.ttl))
                .bind(column(&rows, |row| row.extent.until))
                .fetch_all(connection)
                .await?;
            Ok(answers.into_iter().collect())
        })
    }
}

impl WriteRow for SaveRow {
    type Answer = f64;

    fn id(&self) -> &RowId {
        &self.id
    }

    fn weight(&self) -> usize {
        self.text.len()
    }

    fn write(
        table: Arc<Table>,
        connection: &mut PgConnection,
        rows: Vec<Self>,
    ) -> Work<'_, Answers<f64>> {
        Box::pin(async move {
            let answers: Vec<(String, f64)> = sqlx::query_as(table.save.clone())
                .bind(column(&rows, |row| row.id.as_str()))
                .bind(column(&rows, |row| row.digest.as_slice()))
                .bind(column(&rows, |row| &*row.text))
                .bind(column(&rows, |row| row.extent.map(|extent| extent.ttl)))
                .bind(column(&rows, |row| {
                    row.extent.and_then(|extent| extent.until)
                }))
                .fetch_all(connection)
                .await?;
            Ok(answers.into_iter().collect())
        })
    }
}

impl WriteRow for TouchRow {
    type Answer = f64;

    fn id(&self) -> &RowId {
        &self.id
    }

    fn write(
        table: Arc<Table>,
        connection: &mut PgConnection,
        rows: Vec<Self>,
    ) -> Work<'_, Answers<f64>> {
        Box::pin(async move {
            let answers: Vec<(String, f64)> = sqlx::query_as(table.touch.clone())
                .bind(column(&rows, |row| row.id.as_str()))
                .bind(column(&rows, |row| row.expires))
                .bind(column(&rows, |row| row.extent.ttl))
                .bind(column(&rows, |row| row.extent.until))
                .fetch_all(connection)
                .await?;
            Ok(answers.into_iter().collect())
        })
    }
}

impl WriteRow for DestroyRow {
    type Answer = Option<String>;

    fn id(&self) -> &RowId {
        &self.id
    }

    fn write(
        table: Arc<Table>,
        connection: &mut PgConnection,
        rows: Vec<Self>,
    ) -> Work<'_, Answers<Option<String>>> {
        Box::pin(async move {
            let answers: Vec<(String, Option<String>)> = sqlx::query_as(table.destroy.clone())
                .bind(column(&rows, |row| row.id.as_str()))
                .fetch_all(connection)
                .await?;
            Ok(answers.into_iter().collect())
        })
    }
}
