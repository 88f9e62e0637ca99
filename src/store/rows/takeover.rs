//! Moves a row of another system into our table. It doesn't know the cookie that the key came
//! from, nor the response that sends the token.
//!
//! How it works:
//!
//! 1. Read the other system's row, and our row with a digest of the key as its id, in one
//!    statement. A move is one transaction, so the statement sees one of them. Ours holds the
//!    token of a session that was moved before, sealed by the key.
//! 2. Read what the other row holds. If it is not in the expected form, nothing is changed.
//! 3. In one transaction, delete the other row, under the condition that it still holds the
//!    same data, insert the row of the session under a fresh token, and insert the row that
//!    leads from the key to this token. If the condition fails, start again: another request
//!    has changed or moved the row.
//!
//! A transaction that fails with a conflict or a lost connection is repeated a few times. If
//! the commit succeeded all the same, step 1 finds its token.
//!
//! Dropped futures: the transaction is rolled back, unless its commit was sent. If it was, the
//! key leads to the session for a minute, so the next request with the same cookie finds it.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{
    Error, ErrorKind,
    document::Document,
    event::SessionEventKind,
    expiry::{Extent, Written},
    forwarding::FORWARDING,
    id::{RowId, Token},
    login::Login,
    realm::Realm,
    row::{Content, Row, sealed_in},
    store::{
        batch::until_free::serve_until_free,
        connection::transaction::{despite_others, in_transaction},
        rows::{Batches, steps::delete},
        table::{
            name::TableName,
            statements::Statements,
            timestamp::{self, written},
        },
        watches::report::EndedRow,
    },
    takeover::{Key, Taken, TakenOver, Unfit},
    telemetry::{Operation, events},
    timeouts::Timeouts,
};

/// Attempts in spite of lost connections and of other requests that move the row.
const MAX_ATTEMPTS: usize = 4;

/// The session to take over.
#[derive(Clone)]
pub(in crate::store) struct TakeoverOrder {
    pub(in crate::store) key: Key,
    pub(in crate::store) name: TableName,
    /// The id of the row that leads from the key to the session.
    pub(in crate::store) key_id: RowId,
    /// The new token, and the id of its row.
    pub(in crate::store) token: Token,
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
        let found = match self.find(order).await? {
            Found::Theirs(other) => other,
            found => return Ok(Attempt::Ended(found.moved_before(&order.key))),
        };
        let taken = match order.key.takeover.read(&found.data, found.expires) {
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
                Ok(Attempt::Ended(TakenOver::Now(order.token.clone(), row)))
            }
            Ok(None) => Ok(Attempt::Lost),
            Err(error) if is_of_a_constraint(&error) => Ok(Attempt::Ended(TakenOver::Unfit(
                Unfit("a constraint refuses it, such as the foreign key of its user"),
            ))),
            // A character that this database can't store in a document.
            Err(error) if error.kind() == ErrorKind::Serialize => Ok(Attempt::Ended(
                TakenOver::Unfit(Unfit("the table can't store its text")),
            )),
            // The session was taken over before, and a process of the other system wrote
            // its row again.
            Err(error) if error.sqlstate().as_deref() == Some("23505") => {
                Ok(Attempt::Ended(match self.find(order).await? {
                    Found::Theirs(_) => {
                        TakenOver::Unfit(Unfit("a unique key of the session table refuses it"))
                    }
                    found => found.moved_before(&order.key),
                }))
            }
            Err(error) => Err(error),
        }
    }

    async fn find(&self, order: &TakeoverOrder) -> Result<Found, Error> {
        let call = self.table_handle.call(Operation::Load);
        let order = order.clone();
        self.table_handle
            .serve(order.deadline, None, call, |table, connection| {
                Box::pin(read(table, connection, order))
            })
            .await
    }

    /// Deletes the other system's row of this key, whatever it holds.
    pub(in crate::store) async fn end_other(
        &self,
        key: &Key,
        name: TableName,
        deadline: Instant,
    ) -> Result<(), Error> {
        let name_of_lock = format!("{name:?} {}", key.token.as_str());
        // If the future is dropped here, the row may stay.
        despite_others(|| {
            serve_until_free(
                &self.table_handle,
                Some(self.locked.key(&name_of_lock)),
                deadline,
                Operation::Destroy,
                |table, connection| {
                    let (name, key) = (name.clone(), key.clone());
                    Box::pin(async move {
                        delete_other(&table, connection, &name, &key, None).await?;
                        Ok(())
                    })
                },
            )
        })
        .await
    }

    async fn move_here(&self, moved: Moved) -> Result<Option<Row>, Error> {
        let moved = Arc::new(moved);
        let order = &moved.order;
        serve_until_free(
            &self.table_handle,
            Some(self.locked.key(order.key_id.as_str())),
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

/// What a key leads to.
enum Found {
    /// Our row leads on to the session, whose token is sealed.
    Ours(Option<String>),
    Theirs(Other),
    Nothing,
}

/// The other system's row.
struct Other {
    data: Vec<u8>,
    expires: f64,
}

impl Found {
    fn moved_before(self, key: &Key) -> TakenOver {
        let token = match self {
            Self::Ours(Some(sealed)) => key.unseal(&sealed),
            Self::Ours(None) | Self::Theirs(_) | Self::Nothing => None,
        };
        token.map_or(TakenOver::Nothing, TakenOver::Before)
    }
}

/// The columns of `takeover_read.sql`: two of theirs, and one of ours.
type Read = (Option<Vec<u8>>, Option<timestamp::Instant>, Option<String>);

async fn read(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    order: TakeoverOrder,
) -> Result<Found, Error> {
    let statement = table.takeover.read(&order.name);
    let rows: Vec<Read> = statement
        .query_as()
        .bind(order.key.token.as_str())
        .bind(order.key_id.as_str())
        .fetch_all(connection)
        .await
        .map_err(|error| of_the_other_table(error.into(), &order.name))?;
    let mut found = Found::Nothing;
    for row in rows {
        match row {
            (Some(data), Some(expires), _) => {
                let expires = expires.0;
                found = Found::Theirs(Other { data, expires });
            }
            // A process of the other system may have written its row again. Ours wins.
            (_, _, text) => {
                let sealed = text.and_then(|text| sealed_in(table.layout, &text));
                return Ok(Found::Ours(sealed));
            }
        }
    }
    Ok(found)
}

async fn delete_other(
    table: &Statements,
    connection: &mut PgConnection,
    name: &TableName,
    key: &Key,
    data: Option<&[u8]>,
) -> Result<bool, Error> {
    let deleted = table
        .takeover
        .delete(name)
        .query()
        .bind(key.token.as_str().to_owned())
        .bind(data.map(<[u8]>::to_vec))
        .fetch_optional(connection)
        .await
        .map_err(|error| of_the_other_table(error.into(), name))?;
    Ok(deleted.is_some())
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
    if !delete_other(&table, transaction, &order.name, &order.key, Some(data)).await? {
        return Ok(None);
    }
    let has_created = table.columns.has_created();
    let extent = order
        .timeouts
        .extent_of_new(&content.document.meta(), has_created);
    let user_id = user.as_deref();
    let expires = insert(
        &table,
        transaction,
        &order.id,
        &content.text,
        extent,
        user_id,
    )
    .await?;
    let forwarding = Document::taken_over(order.key.seal(&order.token)?).to_text();
    let extent = Extent {
        ttl: FORWARDING.as_secs_f64(),
        until: None,
    };
    // Of an earlier takeover: the other system has written its row again, and the reaper has
    // not deleted ours. A live one was found before.
    delete(&table, transaction, &order.key_id).await?;
    insert(
        &table,
        transaction,
        &order.key_id,
        &forwarding,
        extent,
        None,
    )
    .await?;
    let times = table.columns.times_of_new(Written {
        now: table.clock.now(),
        expires,
    });
    let user = user.clone().filter(|_| table.columns.has("user_id"));
    Ok(Some(
        Row::written(order.id.clone(), content.clone(), times).of(user),
    ))
}

/// Inserts a row of ours, and returns when it expires.
async fn insert(
    table: &Statements,
    transaction: &mut PgConnection,
    id: &RowId,
    text: &str,
    extent: Extent,
    user_id: Option<&str>,
) -> Result<f64, Error> {
    let inserted = table
        .cycle
        .login_insert
        .query()
        .bind(id.as_str())
        .bind(text)
        .bind(extent.ttl)
        .bind(extent.until)
        .bind(user_id)
        .bind(None::<&str>)
        .bind(None::<&str>)
        .fetch_one(transaction)
        .await?;
    Ok(written(&inserted, 0)?.0)
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

/// Whether the session can't be stored as it is: its user was deleted, the user's id is too
/// long for its column, or a check fails.
fn is_of_a_constraint(error: &Error) -> bool {
    let code = error.sqlstate();
    // Constraints, and a view's check option. An equal key is another case. What a trigger
    // raises stays an error, because it may pass.
    code.is_some_and(|code| {
        code == "22001" || (code.starts_with("23") && code != "23505") || code.starts_with("44")
    })
}

fn lost_too_often() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "other requests changed the row that is taken over until the attempts were used up",
    )
}
