//! Undoes a new id, or the first row of a session, whose response was not
//! delivered.
//!
//! A request can stop waiting while its new id is being committed: the database is too
//! slow, or the client disconnects. If it stops before the commit is sent, the
//! transaction is rolled back. If it stops later, the table has a row whose token was
//! never sent, and the old id no longer opens the session. So the receiver of the token
//! holds an [`Undelivered`]. Dropping it starts a task that restores the row of the old
//! id and deletes the new one, in one transaction:
//!
//! 1. It locks the row of the old id, even if that row is deleted by now. The
//!    transaction of the new id holds that lock until its end. So the outcome of that
//!    transaction is now known, even if the connection was lost during the commit.
//! 2. The old row must still forward to the new id (or nowhere, after a login that
//!    dropped the data), and the document of the new row must be unchanged. Then the
//!    task restores the old row. After the 60 seconds of the forwarding, or if the new
//!    id has another user or external id, the task only deletes the new row.
//! 3. If another request saved a change to the new row meanwhile, nothing is
//!    undone, because that change was acknowledged.
//! 4. In the formats of other applications, the session may have been destroyed by its old id
//!    after a login that dropped the data. Then the task doesn't restore the old row, or deletes
//!    the row that it has restored.
//!
//! The task retries until the database responds, for 15 minutes at most. Only
//! one session is undone at a time. If the process stops before, the new id
//! stays. The same holds if an [`Undelivered`] is dropped outside of a runtime.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::PgConnection;
use tokio::{runtime::Handle, time::Instant};

use crate::{
    Error,
    ending::Ending,
    expiry::Extent,
    format::OldId,
    forwarding::FORWARDING,
    id::RowId,
    row::{Content, Row},
    store::{
        batch::until_free::serve_until_free,
        connection::transaction::in_transaction,
        rows::{
            Batches, kept_columns,
            steps::{self, Extras, delete, lock_live},
        },
        table::statements::Statements,
        watches::former_ids::Fate,
    },
    telemetry::Operation,
};

/// How long the task retries before it gives up.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The SQLSTATE `invalid_text_representation`.
const MALFORMED: &str = "22P02";

/// The effect of a transaction whose commit was sent.
#[derive(Clone, Debug)]
pub(in crate::store) enum Made {
    /// The row `before` got the new id, and was written as `after`.
    Moved {
        before: Box<Row>,
        extras: Extras,
        after: Box<Row>,
        /// The external id of the row `after`.
        external_id: Option<String>,
    },
    /// A session began.
    Begun,
}

/// The effect of the last commit that was sent; `None` if none was.
#[derive(Debug, Default)]
pub(in crate::store) struct Commit(Mutex<Option<Made>>);

impl Commit {
    pub(in crate::store) fn sent(&self, made: Made) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
    }

    pub(in crate::store) fn made(&self) -> Option<Made> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A row whose token was not delivered yet.
pub(in crate::store) struct Undelivered(Option<Unsent>);

struct Unsent {
    batches: Arc<Batches>,
    id: RowId,
    commit: Arc<Commit>,
}

impl Undelivered {
    pub(in crate::store) fn new_id(batches: &Arc<Batches>, id: RowId, commit: Arc<Commit>) -> Self {
        Self(Some(Unsent {
            batches: Arc::clone(batches),
            id,
            commit,
        }))
    }

    pub(in crate::store) fn row(batches: &Arc<Batches>, id: RowId) -> Self {
        let commit = Commit::default();
        commit.sent(Made::Begun);
        Self(Some(Unsent {
            batches: Arc::clone(batches),
            id,
            commit: Arc::new(commit),
        }))
    }

    /// Keeps the row: the caller has received the token, or there is none.
    pub(in crate::store) fn delivered(mut self) {
        self.0 = None;
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        let Some(unsent) = self.0.take() else {
            return;
        };
        if let (Some(made), Ok(runtime)) = (unsent.commit.made(), Handle::try_current()) {
            runtime.spawn(async move { unsent.batches.undo(&unsent.id, made).await });
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Undo {
    Done,
    /// Nothing was undone: another request has changed the session under its new id, or the old row
    /// doesn't forward to it.
    TooLate,
}

impl Batches {
    async fn undo(self: &Arc<Self>, new_id: &RowId, mut made: Made) {
        let handle = self.table_handle.format.handle(new_id);
        let until = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(50);
        loop {
            let attempt = {
                // If the future is dropped, at either await of this block, its turn ends,
                // and an attempt in flight is rolled back unless it was committed.
                let _turn = self.undoing.lock().await;
                let deadline = self.table_handle.executor.deadline();
                let may_go_back = !self.was_destroyed(&made);
                let undoing = serve_until_free(
                    &self.table_handle,
                    Some(self.locked.key(new_id.as_str())),
                    deadline,
                    Operation::Cycle,
                    |table, connection| {
                        let (new_id, made) = (new_id.clone(), made.clone());
                        Box::pin(undo(table, connection, new_id, made, may_go_back))
                    },
                );
                undoing.await
            };
            // If the future is dropped here, a session that was destroyed meanwhile stays restored.
            let outcome = match attempt {
                Ok(Undo::Done) => self.report_undo(new_id, &made).await,
                Ok(Undo::TooLate) => {
                    return tracing::debug!(
                        session.id = %handle,
                        "a new id whose response was not delivered was kept"
                    );
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => {
                    return tracing::debug!(
                        session.id = %handle,
                        "a new id whose response was not delivered was undone"
                    );
                }
                Err(error) if Instant::now() >= until => {
                    return tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        session.id = %handle,
                        "a new id whose response was not delivered could not be undone"
                    );
                }
                Err(error) => {
                    // The table has other columns by now, so the text is not a valid row.
                    if let Made::Moved { extras, .. } = &mut made
                        && error.sqlstate().is_some_and(|code| code == MALFORMED)
                    {
                        extras.row_as_text = None;
                    }
                    tokio::time::sleep(pause).await;
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether the session was destroyed by its former id after a login had dropped its data.
    fn was_destroyed(&self, made: &Made) -> bool {
        match made {
            Made::Moved { before, .. } => {
                self.watches.fate(&before.id, f64::NEG_INFINITY) == Some(Fate::Deleted)
            }
            Made::Begun => false,
        }
    }

    /// Records the undo, and deletes the restored row if the session was destroyed meanwhile.
    async fn report_undo(self: &Arc<Self>, new_id: &RowId, made: &Made) -> Result<(), Error> {
        if let Made::Moved { before, .. } = made
            && self.watches.restore(&before.id, new_id)
        {
            let destroyed = self.destroy_row(&before.id, Ending::Destroyed, f64::NEG_INFINITY);
            destroyed.await?;
        }
        Ok(())
    }
}

async fn undo(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    new_id: RowId,
    made: Made,
    may_go_back: bool,
) -> Result<Undo, Error> {
    in_transaction(connection, |transaction| {
        Box::pin(async move {
            match made {
                Made::Moved {
                    before,
                    extras,
                    after,
                    external_id,
                } => {
                    // Meanwhile all sessions of the former user, or of the former external id,
                    // may have been ended. That did not include this one.
                    let is_another_users = before.user.is_some() && before.user != after.user;
                    let has_another_external_id =
                        extras.external_id.is_some() && extras.external_id != external_id;
                    let may_go_back = may_go_back && !is_another_users && !has_another_external_id;
                    let rows = (&*before, &*after);
                    let extras = may_go_back.then_some(&extras);
                    move_back(&table, transaction, rows, extras).await
                }
                Made::Begun => {
                    delete_unsent(&table, transaction, &new_id).await?;
                    Ok(Undo::Done)
                }
            }
        })
    })
    .await
}

/// Restores the row of the old id with these extras; `None` only deletes the new one.
async fn move_back(
    table: &Statements,
    connection: &mut PgConnection,
    (before, after): (&Row, &Row),
    extras: Option<&Extras>,
) -> Result<Undo, Error> {
    let old = lock_live(table, connection, &before.id).await?;
    let old = old.map(|(row, _)| row);
    match (table.old_id, &old) {
        (OldId::Forwards, Some(old)) if !forwards_to(old, &after.id) => {
            return Ok(Undo::TooLate);
        }
        _ => {}
    }
    let Some((now, _)) = lock_live(table, connection, &after.id).await? else {
        // If there is an old row, the transaction of the new id was rolled back. If there is
        // none to lock, the commit may still be running.
        if old.is_none() {
            delete_unsent(table, connection, &after.id).await?;
        }
        return Ok(Undo::Done);
    };
    if now.document() != after.document() {
        return Ok(Undo::TooLate);
    }
    // The forwarding expired, or the session was destroyed by its old id, or another
    // application has revived the old row.
    let is_ended = match table.old_id {
        OldId::Forwards => old.is_none(),
        OldId::IsDeleted => old.is_some(),
    };
    let is_late = now.times.now - after.times.now > FORWARDING.as_secs_f64();
    let Some(extras) = extras.filter(|_| !is_ended && !is_late) else {
        delete(table, connection, &after.id).await?;
        return Ok(Undo::Done);
    };
    if table.old_id == OldId::IsDeleted {
        let content = Content::from(Arc::clone(before.document().ok_or_else(Error::ended)?));
        let extent = Extent {
            ttl: f64::INFINITY,
            until: Some(before.times.expires),
        };
        let restores = table.cycle.restores.query().bind(before.id.as_str());
        restores.execute(&mut *connection).await?;
        match &extras.row_as_text {
            Some(text) => {
                let row = (&before.id, &content, extent);
                kept_columns::insert(table, connection, text, row).await?;
            }
            None => {
                steps::insert(table, connection, &now.id, &before.id, &content, extent).await?;
            }
        }
    }
    restore(table, connection, before, extras).await?;
    delete(table, connection, &after.id).await?;
    Ok(Undo::Done)
}

/// Whether the transaction of the new id can have written this row. After a login that
/// drops the data, the row forwards nowhere. If another login wrote that, there is no row
/// with the new id.
fn forwards_to(old: &Row, new_id: &RowId) -> bool {
    old.successor()
        .is_some_and(|successor| successor == *new_id || successor.as_str().is_empty())
}

/// Restores the row. If the table lacks a column, the statement ignores its
/// parameter.
async fn restore(
    table: &Statements,
    connection: &mut PgConnection,
    row: &Row,
    extras: &Extras,
) -> Result<(), Error> {
    let query = table
        .cycle
        .undo
        .query()
        .bind(row.id.as_str())
        .bind(row.text.as_deref())
        .bind(row.times.expires)
        .bind(row.user.as_deref())
        .bind(extras.device.as_deref())
        .bind(row.times.created)
        .bind(extras.external_id.as_deref());
    query.execute(connection).await?;
    Ok(())
}

/// Deletes the row, even if the transaction that inserts it may still be
/// committed: an insert of the same id waits for that transaction to end.
async fn delete_unsent(
    table: &Statements,
    connection: &mut PgConnection,
    id: &RowId,
) -> Result<(), Error> {
    let insert = table.insert.one.query();
    insert
        .bind(id.as_str())
        .bind("{}")
        .bind(0.0_f64)
        .bind(None::<f64>)
        .fetch_optional(&mut *connection)
        .await?;
    delete(table, connection, id).await
}
