//! Moves a session's times, so that a test need not wait. Only with the feature `testing`.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::{
    Error,
    id::RowId,
    row::Row,
    store::{
        PgSessionStore,
        table::{name::TableName, statements::Statements},
    },
};

/// How the times of a row are moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shift {
    /// Seconds since the epoch.
    expires: f64,
    /// Seconds by which the session becomes older.
    older: f64,
    /// Seconds by which the last request becomes longer ago.
    unseen: f64,
}

impl Shift {
    /// As if so many seconds had passed without a request.
    pub(crate) fn by(row: &Row, seconds: f64) -> Self {
        Self {
            expires: row.times.expires - seconds,
            older: seconds,
            unseen: seconds,
        }
    }

    /// As if the session had begun so many seconds ago and been used since. `None` if the
    /// table doesn't store when it began.
    pub(crate) fn to_age(row: &Row, seconds: f64) -> Option<Self> {
        let age = row.times.now - row.times.created?;
        Some(Self {
            expires: row.times.expires,
            older: seconds - age,
            unseen: 0.0,
        })
    }
}

impl PgSessionStore {
    pub(crate) fn table_name(&self) -> &TableName {
        &self.table_handle().name
    }

    pub(crate) async fn shift(&self, id: RowId, shift: Shift) -> Result<(), Error> {
        self.change(move |table, connection| {
            Box::pin(move_times(table, connection, id.clone(), shift))
        })
        .await
    }
}

async fn move_times(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    id: RowId,
    shift: Shift,
) -> Result<(), Error> {
    let query = table.age.query().bind(id.as_str().to_owned());
    let query = query
        .bind(shift.expires)
        .bind(shift.older)
        .bind(shift.unseen);
    match query.execute(connection).await?.rows_affected() {
        0 => Err(Error::ended()),
        _ => Ok(()),
    }
}
