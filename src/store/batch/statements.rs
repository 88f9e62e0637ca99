//! The entries of the statements for many rows: the parameters of one row, and its result.
//! They don't know why a row is loaded or written.

use std::sync::Arc;

use sqlx::{Row as _, postgres::PgRow};

use crate::{
    expiry::{Extent, Times, Written},
    id::RowId,
    row::Row,
    store::{
        batch::execute::{Binding, Entry, column},
        sql::Sizes,
        table::{
            statements::Statements,
            timestamp::{self, Instant},
        },
    },
    telemetry::Operation,
};

/// A row to be loaded, if it is alive.
#[derive(Clone, Debug)]
pub(in crate::store) struct LoadRow(pub(in crate::store) RowId);

fn written(row: &PgRow, table: &Statements) -> Result<Written, sqlx::Error> {
    Ok(Written {
        now: table.clock.now(),
        expires: timestamp::written(row, 1)?.0,
    })
}

/// A row to be inserted. No result if the id exists.
#[derive(Clone, Debug)]
pub(in crate::store) struct InsertRow {
    pub(in crate::store) id: RowId,
    pub(in crate::store) text: Arc<str>,
    pub(in crate::store) extent: Extent,
}

/// A row to be inserted for a user of another session layer. No result if the id
/// exists.
#[derive(Clone, Debug)]
pub(in crate::store) struct InsertUserRow {
    pub(in crate::store) row: InsertRow,
    /// As it is stored, with the realm.
    pub(in crate::store) user: Arc<str>,
}

/// A document to be written if the row still holds what was loaded. No result if it
/// doesn't.
#[derive(Clone, Debug)]
pub(in crate::store) struct SaveRow {
    pub(in crate::store) id: RowId,
    pub(in crate::store) digest: [u8; 32],
    pub(in crate::store) text: Arc<str>,
    pub(in crate::store) extent: Option<Extent>,
}

impl SaveRow {
    fn ttl(&self) -> Option<f64> {
        self.extent.map(|extent| extent.ttl)
    }

    fn until(&self) -> Option<f64> {
        self.extent.and_then(|extent| extent.until)
    }
}

/// An expiry to be moved if it still is what was loaded. No result if it isn't.
#[derive(Clone, Debug)]
pub(in crate::store) struct TouchRow {
    pub(in crate::store) id: RowId,
    pub(in crate::store) expires: f64,
    pub(in crate::store) extent: Extent,
}

/// A row to be deleted.
#[derive(Clone, Debug)]
pub(in crate::store) struct DestroyRow {
    pub(in crate::store) id: RowId,
    /// Whether it is deleted even if it looks like a forwarding.
    pub(in crate::store) even_forwarding: bool,
}

/// A row that was deleted.
#[derive(Clone, Debug)]
pub(in crate::store) struct Destroyed {
    /// Whether it had not expired yet.
    pub(in crate::store) was_alive: bool,
    /// The document if it was short, because it may be a forwarding.
    pub(in crate::store) text: Option<String>,
    /// The user who was signed in.
    pub(in crate::store) user: Option<String>,
}

impl Entry for LoadRow {
    type Output = Arc<Row>;

    const OPERATION: Operation = Operation::Load;
    const SAFE_TO_REPEAT: bool = true;
    const RETURNS_DOCUMENTS: bool = true;

    fn id(&self) -> &RowId {
        &self.0
    }

    fn statement(table: &Statements) -> &Sizes {
        &table.load
    }

    fn bind<'q>(query: Binding<'q>, _: &'q [Self]) -> Binding<'q> {
        query
    }

    fn bind_one<'q>(&'q self, query: Binding<'q>) -> Binding<'q> {
        query
    }

    fn decode(&self, row: &PgRow, table: &Statements) -> Result<Arc<Row>, sqlx::Error> {
        let row = loaded(row, self.0.clone(), table)?;
        table.clock.observe(row.times.now);
        Ok(Arc::new(row))
    }

    fn size(output: &Arc<Row>) -> usize {
        output.text.as_ref().map_or(0, |text| text.len())
    }

    fn share(output: &Arc<Row>) -> Option<Arc<Row>> {
        Some(Arc::clone(output))
    }
}

impl Entry for InsertRow {
    type Output = Written;

    const OPERATION: Operation = Operation::Insert;
    const LOOKS_FOR_ROWS: bool = false;

    fn id(&self) -> &RowId {
        &self.id
    }

    fn weight(&self) -> usize {
        self.text.len()
    }

    fn statement(table: &Statements) -> &Sizes {
        &table.insert
    }

    fn bind<'q>(query: Binding<'q>, entries: &'q [Self]) -> Binding<'q> {
        query
            .bind(column(entries, |entry| &*entry.text))
            .bind(column(entries, |entry| entry.extent.ttl))
            .bind(column(entries, |entry| entry.extent.until))
    }

    fn bind_one<'q>(&'q self, query: Binding<'q>) -> Binding<'q> {
        query
            .bind(&*self.text)
            .bind(self.extent.ttl)
            .bind(self.extent.until)
    }

    fn decode(&self, row: &PgRow, table: &Statements) -> Result<Written, sqlx::Error> {
        written(row, table)
    }
}

impl Entry for InsertUserRow {
    type Output = Written;

    const OPERATION: Operation = Operation::Insert;
    const LOOKS_FOR_ROWS: bool = false;

    fn id(&self) -> &RowId {
        &self.row.id
    }

    fn weight(&self) -> usize {
        self.row.weight()
    }

    fn statement(table: &Statements) -> &Sizes {
        &table.insert_user
    }

    fn bind<'q>(query: Binding<'q>, entries: &'q [Self]) -> Binding<'q> {
        query
            .bind(column(entries, |entry| &*entry.row.text))
            .bind(column(entries, |entry| entry.row.extent.ttl))
            .bind(column(entries, |entry| entry.row.extent.until))
            .bind(column(entries, |entry| &*entry.user))
    }

    fn bind_one<'q>(&'q self, query: Binding<'q>) -> Binding<'q> {
        self.row.bind_one(query).bind(&*self.user)
    }

    fn decode(&self, row: &PgRow, table: &Statements) -> Result<Written, sqlx::Error> {
        written(row, table)
    }
}

impl Entry for SaveRow {
    type Output = Written;

    const OPERATION: Operation = Operation::Save;

    fn id(&self) -> &RowId {
        &self.id
    }

    fn weight(&self) -> usize {
        self.text.len()
    }

    fn statement(table: &Statements) -> &Sizes {
        &table.save
    }

    fn bind<'q>(query: Binding<'q>, entries: &'q [Self]) -> Binding<'q> {
        query
            .bind(column(entries, |entry| entry.digest.as_slice()))
            .bind(column(entries, |entry| &*entry.text))
            .bind(column(entries, Self::ttl))
            .bind(column(entries, Self::until))
    }

    fn bind_one<'q>(&'q self, query: Binding<'q>) -> Binding<'q> {
        query
            .bind(self.digest.as_slice())
            .bind(&*self.text)
            .bind(self.ttl())
            .bind(self.until())
    }

    fn decode(&self, row: &PgRow, table: &Statements) -> Result<Written, sqlx::Error> {
        written(row, table)
    }
}

impl Entry for TouchRow {
    type Output = Written;

    const OPERATION: Operation = Operation::Touch;

    fn id(&self) -> &RowId {
        &self.id
    }

    fn statement(table: &Statements) -> &Sizes {
        &table.touch
    }

    fn bind<'q>(query: Binding<'q>, entries: &'q [Self]) -> Binding<'q> {
        query
            .bind(column(entries, |entry| entry.expires))
            .bind(column(entries, |entry| entry.extent.ttl))
            .bind(column(entries, |entry| entry.extent.until))
    }

    fn bind_one<'q>(&'q self, query: Binding<'q>) -> Binding<'q> {
        query
            .bind(self.expires)
            .bind(self.extent.ttl)
            .bind(self.extent.until)
    }

    fn decode(&self, row: &PgRow, table: &Statements) -> Result<Written, sqlx::Error> {
        written(row, table)
    }
}

impl Entry for DestroyRow {
    type Output = Destroyed;

    const OPERATION: Operation = Operation::Destroy;

    fn id(&self) -> &RowId {
        &self.id
    }

    fn statement(table: &Statements) -> &Sizes {
        &table.destroy
    }

    fn bind<'q>(query: Binding<'q>, entries: &'q [Self]) -> Binding<'q> {
        let even_forwardings = entries.iter().filter(|entry| entry.even_forwarding);
        let ids: Vec<_> = even_forwardings.map(|entry| entry.id.as_str()).collect();
        query.bind(ids)
    }

    fn bind_one<'q>(&'q self, query: Binding<'q>) -> Binding<'q> {
        query.bind(self.even_forwarding)
    }

    fn decode(&self, row: &PgRow, table: &Statements) -> Result<Destroyed, sqlx::Error> {
        Ok(Destroyed {
            was_alive: timestamp::written(row, 1)?.0 > table.clock.now(),
            text: row.try_get(2)?,
            user: row.try_get(3)?,
        })
    }
}

/// The row of this id, from the columns that a load returns. Others may follow them.
pub(in crate::store) fn loaded(
    row: &PgRow,
    id: RowId,
    table: &Statements,
) -> Result<Row, sqlx::Error> {
    let text: Option<&str> = row.try_get(1)?;
    let times = Times {
        expires: instant(row, 2)?,
        created: row.try_get::<Option<Instant>, _>(3)?.map(|at| at.0),
        now: instant(row, 4)?,
        seen: row.try_get::<Option<Instant>, _>(5)?.map(|at| at.0),
    };
    let user: Option<&str> = row.try_get(6)?;
    let row = Row::new(id, text.map(Arc::from), times, table.layout);
    Ok(row.of_column(user, table.has_user_in_document))
}

fn instant(row: &PgRow, column: usize) -> Result<f64, sqlx::Error> {
    row.try_get::<Instant, _>(column).map(|instant| instant.0)
}
