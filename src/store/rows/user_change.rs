//! Writes that may give a row another user, for another session layer whose logins are
//! changes of its document. It doesn't know where the document names the user.
//!
//! How it works: such a write is one transaction, because a batch can't count the sessions of
//! a user.
//!
//! 1. If the store limits the sessions of a user, the user is locked, as by a login.
//! 2. The row is locked, the changes are replayed on it, and the document, the user and the
//!    expiry are written. Or a new row is inserted.
//! 3. If the user is another one than before, the sessions beyond the limit are deleted.
//!
//! The batches compare the document that they replace, so a save of the same session that
//! runs at the same time is repeated on the document of this transaction.
//!
//! If the connection was lost, the commit is in doubt. The next attempt looks at the row: if
//! it still is as it was, the transaction was rolled back and is repeated. If it holds the
//! changes and the user, there is nothing left to do. Otherwise another request has written
//! it since, and the error stays.
//!
//! Dropped futures: this runs in the task of its request. The transaction is rolled back,
//! unless its commit was sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{
    Error,
    document::Document,
    ending::Ending,
    event::SessionEventKind,
    expiry::{Extent, Written},
    id::RowId,
    login::SessionLimit,
    row::Row,
    state::changes::Changes,
    store::{
        batch::{
            execute::Entry as _,
            statements::{InsertRow, InsertUserRow},
            until_free::serve_until_free,
        },
        connection::transaction::in_transaction,
        rows::{
            Batches,
            save::unreadable,
            steps::lock,
            user_limit::{self, Ended},
        },
        table::{statements::Statements, timestamp},
        watches::report::EndedRow,
    },
    telemetry::{Operation, events},
};

/// Attempts to commit, in spite of deadlocks and lost connections.
const MAX_ATTEMPTS: usize = 3;

/// A save that may change the user of its session.
pub(in crate::store) struct UserChange {
    pub(in crate::store) id: RowId,
    /// The user of the changed document, as it is stored.
    pub(in crate::store) user: Option<Arc<str>>,
    pub(in crate::store) extent: Extent,
    progress: Mutex<Progress>,
}

struct Progress {
    changes: Changes,
    /// The row as an earlier attempt found it, whose commit may have succeeded.
    before: Option<Row>,
}

/// What a transaction did.
#[derive(Default)]
struct Done {
    /// Whether the session got a user who was not signed in there before.
    is_login: bool,
    /// The session as it was, if it had another user or none.
    replaced: Option<EndedRow>,
    ended: Option<Ended>,
}

impl UserChange {
    pub(in crate::store) fn new(
        id: RowId,
        changes: Changes,
        user: Option<Arc<str>>,
        extent: Extent,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            user,
            extent,
            progress: Mutex::new(Progress {
                changes,
                before: None,
            }),
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replays the changes on the row. `None` if an earlier attempt has committed them.
    ///
    /// # Errors
    ///
    /// If the changes don't fit, or if it is unknown whether an earlier attempt committed
    /// them.
    fn replay(&self, row: &Row) -> Result<Option<Document>, Error> {
        let loaded = row.document().ok_or_else(unreadable)?;
        let mut document = Document::clone(loaded);
        let progress = &mut *self.progress();
        progress.changes.replay_caught(&mut document)?;
        match &progress.before {
            Some(before) if before.text != row.text || before.user != row.user => {
                match document == **loaded && row.user == self.user {
                    true => Ok(None),
                    false => Err(Error::lost_commit()),
                }
            }
            _ => Ok(Some(document)),
        }
    }

    /// Records the row that the transaction found, right before its commit.
    fn is_about_to_commit(&self, row: Row) {
        self.progress().before = Some(row);
    }

    /// The server has rolled the transaction back.
    fn is_rolled_back(&self) {
        self.progress().before = None;
    }
}

impl Batches {
    /// Saves the changes, the user and the expiry.
    ///
    /// # Errors
    ///
    /// Of kind `Ended` if the row doesn't exist, and of kind `SessionLimit` if the policy
    /// refuses the login.
    pub(in crate::store) async fn save_with_user(
        self: &Arc<Self>,
        change: Arc<UserChange>,
    ) -> Result<(), Error> {
        let limit = self.table_handle.limit;
        let deadline = self.table_handle.executor.deadline();
        let key = change.id.clone();
        let mut attempt = 1;
        let done = loop {
            // If the future is dropped here, the transaction is rolled back, unless its
            // commit was sent.
            let outcome = serve_until_free(
                &self.table_handle,
                Some(self.locked.key(key.as_str())),
                deadline,
                Operation::Cycle,
                |table, connection| {
                    let change = Arc::clone(&change);
                    Box::pin(in_transaction(connection, move |transaction| {
                        Box::pin(save_in(table, transaction, change, limit))
                    }))
                },
            );
            match outcome
                .await
                .map_err(|error| error.of_a_login(change.user.is_some()))
            {
                Err(error) if attempt < MAX_ATTEMPTS && may_pass(&error, deadline) => {
                    attempt += 1;
                    if !error.is_of_the_connection() {
                        change.is_rolled_back();
                    }
                }
                outcome => break outcome?,
            }
        };
        self.report_user(&change.id, change.user.as_ref(), &done);
        Ok(())
    }

    /// Inserts the row of a user whose sessions are limited. `None` if the id exists.
    ///
    /// # Errors
    ///
    /// Of kind `SessionLimit` if the policy refuses the login.
    pub(in crate::store) async fn insert_limited(
        self: &Arc<Self>,
        order: InsertUserRow,
        limit: SessionLimit,
    ) -> Result<Option<Written>, Error> {
        let deadline = self.table_handle.executor.deadline();
        let (id, user) = (order.row.id.clone(), Arc::clone(&order.user));
        // If the future is dropped here, or the commit is in doubt, the caller deletes the
        // row.
        let inserted = serve_until_free(
            &self.table_handle,
            Some(self.locked.key(&user)),
            deadline,
            Operation::Cycle,
            |table, connection| {
                let order = order.clone();
                Box::pin(in_transaction(connection, move |transaction| {
                    Box::pin(insert_in(table, transaction, order, limit))
                }))
            },
        );
        let inserted = inserted.await.map_err(|error| error.of_a_login(true))?;
        Ok(inserted.map(|(written, ended)| {
            let done = Done {
                is_login: true,
                replaced: None,
                ended: Some(ended),
            };
            self.report_user(&id, Some(&user), &done);
            written
        }))
    }

    /// Inserts a row, in the batch of its kind. `None` if the id exists.
    pub(in crate::store) async fn insert_with_user(
        self: &Arc<Self>,
        row: InsertRow,
        user: Option<Arc<str>>,
    ) -> Result<Option<Written>, Error> {
        match (user, self.table_handle.limit) {
            (None, _) => self.insert.submit(row).outcome().await,
            (Some(user), Some(limit)) => {
                self.insert_limited(InsertUserRow { row, user }, limit)
                    .await
            }
            (Some(user), None) => {
                let id = row.id.clone();
                let order = InsertUserRow {
                    row,
                    user: Arc::clone(&user),
                };
                let written = self.insert_user.submit(order).outcome().await;
                let written = written.map_err(|error| error.of_a_login(true))?;
                if written.is_some() {
                    let done = Done {
                        is_login: true,
                        ..Done::default()
                    };
                    self.report_user(&id, Some(&user), &done);
                }
                Ok(written)
            }
        }
    }

    /// Reports what was committed, and ends the sessions that were too many for the
    /// transaction.
    fn report_user(self: &Arc<Self>, id: &RowId, user: Option<&Arc<str>>, done: &Done) {
        let (meter, format) = (&self.table_handle.executor.meter, &self.table_handle.format);
        if let Some(replaced) = &done.replaced {
            self.watches.ended([replaced], Ending::Replaced);
        }
        if done.is_login {
            events::signed_in(meter, &format.handle(id));
            let session = EndedRow::new(id.clone(), user.cloned());
            self.watches
                .moved(None, false, &session, SessionEventKind::SignedIn);
        }
        if let (Some(ended), Some(limit), Some(user)) = (&done.ended, self.table_handle.limit, user)
        {
            self.ended_at_the_limit(&ended.sessions, limit);
            if ended.is_a_part {
                self.end_surplus(Arc::clone(user), limit);
            }
        }
    }
}

/// Whether another attempt may succeed. After a lost connection, the transaction may still be
/// in flight at the server. Then it holds the lock of the row, for which the next attempt
/// waits, or it is rolled back.
fn may_pass(error: &Error, deadline: Instant) -> bool {
    let may_pass = error.is_of_other_writers()
        || error.is_of_a_changed_table()
        || error.is_of_the_connection();
    may_pass && Instant::now() < deadline
}

async fn save_in(
    table: Arc<Statements>,
    transaction: &mut PgConnection,
    change: Arc<UserChange>,
    limit: Option<SessionLimit>,
) -> Result<Done, Error> {
    let user = change.user.as_deref();
    // Before the row, as every login does, so that two of them can't deadlock.
    if let (Some(user), Some(_)) = (user, limit) {
        user_limit::lock(&table, transaction, user).await?;
    }
    let row = lock(&table, transaction, &change.id).await?;
    if row.successor().is_some() {
        return Err(Error::ended());
    }
    let is_login = user.is_some() && row.user.as_deref() != user;
    let Some(document) = change.replay(&row)? else {
        return Ok(Done::default());
    };
    let saved = table
        .save_user
        .query()
        .bind(change.id.as_str())
        .bind(document.to_text())
        .bind(change.extent.ttl)
        .bind(change.extent.until)
        .bind(user)
        .bind(is_login)
        .fetch_optional(&mut *transaction)
        .await?;
    saved.ok_or_else(Error::ended)?;
    let ended = match (user, limit) {
        (Some(user), Some(limit)) if is_login => {
            let ended = user_limit::enforce(&table, transaction, limit, user, &change.id).await;
            Some(ended.map_err(Error::of_an_end)?)
        }
        _ => None,
    };
    let is_another = row.user.as_deref() != user;
    let replaced = is_another.then(|| EndedRow::new(row.id.clone(), row.user.clone()));
    change.is_about_to_commit(row);
    Ok(Done {
        is_login,
        replaced,
        ended,
    })
}

async fn insert_in(
    table: Arc<Statements>,
    transaction: &mut PgConnection,
    order: InsertUserRow,
    limit: SessionLimit,
) -> Result<Option<(Written, Ended)>, Error> {
    user_limit::lock(&table, transaction, &order.user).await?;
    let query = table.insert_user.one.query().bind(order.id().as_str());
    let inserted = order
        .bind_one(query)
        .fetch_optional(&mut *transaction)
        .await?;
    let Some(inserted) = inserted else {
        return Ok(None);
    };
    let written = Written {
        now: table.clock.now(),
        expires: timestamp::written(&inserted, 1)?.0,
    };
    let (user, id) = (&order.user, &order.row.id);
    let ended = user_limit::enforce(&table, transaction, limit, user, id).await;
    Ok(Some((written, ended.map_err(Error::of_an_end)?)))
}
