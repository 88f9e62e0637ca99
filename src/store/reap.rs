//! The end of expired rows, in batches.
//!
//! A batch is one statement that finds the longest expired rows and deletes
//! them. If it waits for a locked row it is canceled after a moment. Then the
//! ids of the batch are read, and parts of it are deleted in transactions of
//! their own, smaller and smaller around the row that is locked. That row is
//! left to the next run, and this run goes on behind it. `SKIP LOCKED` would do
//! the same in one statement, but Citus refuses it.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;

use crate::{
    Error,
    store::{PgSessionStore, Shared, parts, table::Table, transaction::begin},
    telemetry::Operation,
};

/// Of a batch that deadlocked, which has deleted nothing.
const MAX_ATTEMPTS: u32 = 3;

/// How one batch of the reaper ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    Deleted {
        rows: u64,
        /// No row is left, but for those that are locked.
        is_last: bool,
    },
    /// Another reaper is at work on this table.
    Locked,
}

/// Rows that another transaction has locked, which a run leaves to the next.
#[derive(Debug, Default)]
pub(crate) struct Skipped(Vec<String>);

impl PgSessionStore {
    /// Deletes the longest expired rows, at most `limit`, but for those that are
    /// locked.
    pub(crate) async fn delete_expired(
        &self,
        limit: u32,
        skipped: &mut Skipped,
    ) -> Result<Batch, Error> {
        self.shared.delete_expired(limit, skipped).await
    }
}

impl Shared {
    async fn delete_expired(&self, limit: u32, skipped: &mut Skipped) -> Result<Batch, Error> {
        if skipped.0.is_empty() {
            let oldest = Rows::Oldest(limit);
            let timeout = self.writer.set_up.database.timeout;
            match self.reap(oldest, parts::patience_of(timeout)).await {
                Err(error) if error.is_of_a_lock() => {}
                Err(error) => return Err(error),
                Ok(None) => return Ok(Batch::Locked),
                Ok(Some(rows)) => {
                    return Ok(Batch::Deleted {
                        rows,
                        is_last: rows < u64::from(limit),
                    });
                }
            }
        }
        self.delete_around_locks(limit, skipped).await
    }

    async fn delete_around_locks(&self, limit: u32, skipped: &mut Skipped) -> Result<Batch, Error> {
        let deadline = self.writer.set_up.database.deadline();
        let ids = self.expired(limit, skipped.0.clone()).await?;
        let is_last = ids.len() < limit as usize;
        let mut rows = 0;
        let mut search = parts::Search::among(ids, deadline);
        while let Some(ids) = search.next() {
            let part = Rows::These(ids.clone());
            match self.reap(part, parts::PATIENCE_IN_SEARCH).await {
                Ok(Some(more)) => rows += more,
                Ok(None) if rows == 0 => return Ok(Batch::Locked),
                // It began when this one was between two parts.
                Ok(None) => break,
                Err(error) if error.is_of_a_lock() => search.met_a_lock(ids),
                Err(error) => {
                    self.writer.set_up.database.meter.reaped(rows);
                    return Err(error);
                }
            }
        }
        skipped.0.extend(search.locked());
        tracing::debug!(
            reaper.locked = skipped.0.len(),
            "locked rows are left to the next run"
        );
        Ok(Batch::Deleted { rows, is_last })
    }

    async fn expired(&self, limit: u32, skipped: Vec<String>) -> Result<Vec<String>, Error> {
        let set_up = &self.writer.set_up;
        let question = set_up.ask(None, Operation::Reap, |table, connection| {
            Box::pin(async move {
                let ids = table.reap_find.query_scalar().bind(i64::from(limit));
                Ok(ids.bind(skipped).fetch_all(connection).await?)
            })
        });
        question.await
    }

    /// `None` if another reaper is at work.
    async fn reap(&self, rows: Rows, patience: Duration) -> Result<Option<u64>, Error> {
        for _ in 1..MAX_ATTEMPTS {
            match self.reap_once(rows.clone(), patience).await {
                Err(error) if error.is_of_other_writers() => {}
                outcome => return outcome,
            }
        }
        self.reap_once(rows, patience).await
    }

    async fn reap_once(&self, rows: Rows, patience: Duration) -> Result<Option<u64>, Error> {
        let set_up = &self.writer.set_up;
        let question = set_up.ask(Some(patience), Operation::Reap, |table, connection| {
            Box::pin(reap(table, connection, rows))
        });
        question.await
    }
}

#[derive(Clone, Debug)]
enum Rows {
    Oldest(u32),
    These(Vec<String>),
}

async fn reap(
    table: Arc<Table>,
    connection: &mut PgConnection,
    rows: Rows,
) -> Result<Option<u64>, Error> {
    let mut transaction = begin(connection).await?;
    let is_ours: bool = table
        .reap_lock
        .query_scalar()
        .bind(table.name.lock_key("reaper"))
        .fetch_one(&mut *transaction)
        .await?;
    if !is_ours {
        return Ok(None);
    }
    let delete = match rows {
        Rows::Oldest(limit) => table.reap.query().bind(i64::from(limit)),
        Rows::These(ids) => table.reap_some.query().bind(ids),
    };
    match delete.execute(&mut *transaction).await {
        Ok(deleted) => {
            transaction.commit().await?;
            Ok(Some(deleted.rows_affected()))
        }
        // At once: until then the next part of this run would find the lock taken.
        Err(error) => {
            drop(transaction.rollback().await);
            Err(error.into())
        }
    }
}
