use std::sync::Arc;

use sqlx::PgConnection;

use crate::{
    Error,
    store::{PgSessionStore, Shared, table::Table, transaction::begin},
    telemetry::Operation,
};

/// Of a batch that deadlocked, which has deleted nothing.
const MAX_ATTEMPTS: u32 = 3;

/// How one batch of the reaper ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    Deleted(u64),
    /// Another reaper is at work on this table.
    Locked,
}

impl PgSessionStore {
    /// Deletes the longest expired rows, at most `limit`, in one transaction.
    pub(crate) async fn delete_expired(&self, limit: u32) -> Result<Batch, Error> {
        self.shared.delete_expired(limit).await
    }
}

impl Shared {
    async fn delete_expired(&self, limit: u32) -> Result<Batch, Error> {
        for _ in 1..MAX_ATTEMPTS {
            match self.delete_expired_once(limit).await {
                Err(error) if error.is_of_other_writers() => {}
                outcome => return outcome,
            }
        }
        self.delete_expired_once(limit).await
    }

    async fn delete_expired_once(&self, limit: u32) -> Result<Batch, Error> {
        let set_up = &self.writer.set_up;
        let table = set_up.table().await?;
        let outcome = set_up
            .database
            .run(set_up.call(Operation::Reap), |connection| {
                Box::pin(delete_expired(table, connection, limit))
            })
            .await;
        set_up.learn_from(outcome)
    }
}

async fn delete_expired(
    table: Arc<Table>,
    connection: &mut PgConnection,
    limit: u32,
) -> Result<Batch, Error> {
    let mut transaction = begin(connection).await?;
    let is_ours: bool = table
        .reap_lock
        .query_scalar()
        .bind(table.name.lock_key("reaper"))
        .fetch_one(&mut *transaction)
        .await?;
    if !is_ours {
        return Ok(Batch::Locked);
    }
    let deleted = table
        .reap
        .query()
        .bind(i64::from(limit))
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    transaction.commit().await?;
    Ok(Batch::Deleted(deleted))
}
