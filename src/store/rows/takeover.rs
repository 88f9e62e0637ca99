//! Moves a row of another system into our table. It doesn't know the cookie that the key came
//! from, nor the response that gives the session a new id.
//!
//! How it works:
//!
//! 1. Read the other system's row. If there is none, another request may have moved it, so
//!    load ours. A row can only move in this direction, so none is missed.
//! 2. Read what the row holds. If it is not in the expected form, nothing is changed.
//! 3. In one transaction, delete the other row, under the condition that it still holds the
//!    same data, and insert ours. If the condition fails, start again: another request has
//!    changed or moved the row.
//!
//! A transaction that fails with a conflict or a lost connection is repeated a few times. If
//! the commit succeeded all the same, step 1 finds our row.
//!
//! Dropped futures: the transaction is rolled back, unless its commit was sent. If it was, our
//! row has the id of the other system's key, so the same cookie opens the session again.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{
    Error, ErrorKind,
    event::SessionEventKind,
    expiry::Written,
    id::{RowId, Token},
    login::Login,
    realm::Realm,
    row::{Content, Row},
    store::{
        batch::{statements::LoadRow, until_free::serve_until_free},
        connection::transaction::in_transaction,
        rows::Batches,
        table::{
            name::TableName,
            statements::Statements,
            timestamp::{self, written},
        },
        watches::report::EndedRow,
    },
    takeover::{Taken, TakenOver, Takeover, Unfit},
    telemetry::{Operation, events},
    timeouts::Timeouts,
};

/// Attempts in spite of lost connections and of other requests that move the row.
const MAX_ATTEMPTS: usize = 4;

/// The session to take over.
#[derive(Clone)]
pub(in crate::store) struct TakeoverOrder {
    pub(in crate::store) takeover: Arc<Takeover>,
    pub(in crate::store) name: TableName,
    pub(in crate::store) key: Token,
    /// The id of our row.
    pub(in crate::store) id: RowId,
    pub(in crate::store) realm: Realm,
    pub(in crate::store) timeouts: Arc<Timeouts>,
    pub(in crate::store) deadline: Instant,
}

/// How an attempt ended.
enum Attempt {
    Ended(TakenOver),
    /// Another request has changed the row, or moved it.
    Lost,
}

impl Batches {
    pub(in crate::store) async fn take_over(
        &self,
        order: &TakeoverOrder,
    ) -> Result<TakenOver, Error> {
        for attempt in 1.. {
            // If the future is dropped here, nothing is lost, see above.
            let error = match self.attempt_takeover(order).await {
                Ok(Attempt::Ended(outcome)) => return Ok(outcome),
                Ok(Attempt::Lost) => lost_too_often(),
                Err(error) => error,
            };
            let may_pass = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable)
                || error.is_of_a_changed_table();
            let is_late = error.is_out_of_time() || Instant::now() >= order.deadline;
            if !may_pass || is_late || attempt >= MAX_ATTEMPTS {
                return Err(error);
            }
        }
        Err(lost_too_often())
    }

    async fn attempt_takeover(&self, order: &TakeoverOrder) -> Result<Attempt, Error> {
        let Some(found) = self.read_other(order).await? else {
            return Ok(Attempt::Ended(self.already_taken_over(order).await?));
        };
        let taken = match order.takeover.read(&found.data, found.expires) {
            Ok(taken) => taken,
            Err(unfit) => return Ok(Attempt::Ended(TakenOver::Unfit(unfit))),
        };
        let moved = Moved {
            order: order.clone(),
            data: found.data.into(),
            user: user_of(&taken, &order.realm),
            content: Content::from(taken.document),
        };
        match self.move_here(moved).await {
            Ok(Some(row)) => {
                let row = Arc::new(row);
                let format = &self.table_handle.format;
                events::taken_over(&self.table_handle.executor.meter, &format.handle(&row.id));
                let session = EndedRow::new(row.id.clone(), row.user.clone());
                self.watches
                    .moved(None, false, &session, SessionEventKind::Began);
                Ok(Attempt::Ended(TakenOver::Row(row)))
            }
            Ok(None) => Ok(Attempt::Lost),
            // A character that this database can't store in a document.
            Err(error) if error.kind() == ErrorKind::Serialize => Ok(Attempt::Ended(
                TakenOver::Unfit(Unfit("the table can't store its text")),
            )),
            // The session was taken over before, and a process of the other system wrote
            // its row again.
            Err(error) if error.sqlstate().as_deref() == Some("23505") => {
                Ok(Attempt::Ended(self.already_taken_over(order).await?))
            }
            Err(error) => Err(error),
        }
    }

    /// The row that another request has moved.
    async fn already_taken_over(&self, order: &TakeoverOrder) -> Result<TakenOver, Error> {
        let load = self
            .load
            .submit_until(order.deadline, LoadRow(order.id.clone()));
        let row = load.outcome().await?;
        Ok(row.map_or(TakenOver::Nothing, TakenOver::Row))
    }

    async fn read_other(&self, order: &TakeoverOrder) -> Result<Option<Other>, Error> {
        let call = self.table_handle.call(Operation::Load);
        let (name, key) = (order.name.clone(), order.key.clone());
        self.table_handle
            .serve(order.deadline, None, call, |table, connection| {
                Box::pin(read(table, connection, name, key))
            })
            .await
    }

    async fn move_here(&self, moved: Moved) -> Result<Option<Row>, Error> {
        let moved = Arc::new(moved);
        let order = &moved.order;
        serve_until_free(
            &self.table_handle,
            Some(self.locked.key(order.id.as_str())),
            order.deadline,
            Operation::Takeover,
            |table, connection| {
                let moved = Arc::clone(&moved);
                Box::pin(in_transaction(connection, |transaction| {
                    Box::pin(move_in(table, transaction, moved))
                }))
            },
        )
        .await
    }
}

/// The other system's row.
struct Other {
    data: Vec<u8>,
    expires: f64,
}

async fn read(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    name: TableName,
    key: Token,
) -> Result<Option<Other>, Error> {
    let read = table.takeover.read(&name);
    let found: Option<(Vec<u8>, timestamp::Instant)> = read
        .query_as()
        .bind(key.as_str().to_owned())
        .fetch_optional(connection)
        .await
        .map_err(|error| of_the_other_table(error.into(), &name))?;
    Ok(found.map(|(data, expires)| Other {
        data,
        expires: expires.0,
    }))
}

/// A row on its way into our table.
struct Moved {
    order: TakeoverOrder,
    data: Arc<[u8]>,
    user: Option<Arc<str>>,
    content: Content,
}

/// Returns no row if the other system's row is not the one that was read. If the future is
/// dropped, nothing is committed.
async fn move_in(
    table: Arc<Statements>,
    transaction: &mut PgConnection,
    moved: Arc<Moved>,
) -> Result<Option<Row>, Error> {
    let Moved {
        order,
        data,
        user,
        content,
    } = &*moved;
    let delete = table.takeover.delete(&order.name);
    let deleted = delete
        .query()
        .bind(order.key.as_str().to_owned())
        .bind(data.to_vec())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(|error| of_the_other_table(error.into(), &order.name))?;
    if deleted.is_none() {
        return Ok(None);
    }
    let has_created = table.columns.has_created();
    let extent = order
        .timeouts
        .extent_of_new(&content.document.meta(), has_created);
    let inserted = table
        .cycle
        .login_insert
        .query()
        .bind(order.id.as_str().to_owned())
        .bind(content.text.to_string())
        .bind(extent.ttl)
        .bind(extent.until)
        .bind(user.as_deref().map(str::to_owned))
        .bind(None::<String>)
        .bind(None::<String>)
        .fetch_one(transaction)
        .await?;
    let times = table.columns.times_of_new(Written {
        now: table.clock.now(),
        expires: written(&inserted, 0)?.0,
    });
    let user = user.clone().filter(|_| table.columns.has("user_id"));
    Ok(Some(
        Row::written(order.id.clone(), content.clone(), times).of(user),
    ))
}

/// The user as it is stored. A session with an id that no login accepts has no user.
fn user_of(taken: &Taken, realm: &Realm) -> Option<Arc<str>> {
    let login = Login::new(taken.user.clone()?);
    login
        .check()
        .is_ok()
        .then(|| realm.user(login.user_id()).into())
}

/// An error of the other system's table is no reason to inspect ours again.
fn of_the_other_table(error: Error, name: &TableName) -> Error {
    match error.kind() {
        ErrorKind::Setup => Error::caused(
            ErrorKind::Setup,
            format!(
                "sessions of table {name} can't be taken over; correct Takeover::table, grant \
                 SELECT and DELETE on the table, or remove the takeover if the table was dropped"
            ),
            error,
        ),
        _ => error,
    }
}

fn lost_too_often() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "other requests changed the row that is taken over until the attempts were used up",
    )
}
