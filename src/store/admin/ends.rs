//! Ends all sessions of a kind, such as those of a user. It doesn't know which ones.
//!
//! How it works: sessions are ended in batches, each in a transaction. If a batch fails because
//! of a locked or damaged row, its rows are searched and deleted in smaller and smaller parts,
//! until that row is alone. Locked rows are tried again until the deadline.
//!
//! Dropped futures: batches that were committed stay deleted, and no event is reported for
//! them. A batch in flight is canceled and rolled back, unless it has committed.

use std::{collections::HashSet, future::Future, time::Duration};

use tokio::time::Instant;

use crate::{
    Error,
    store::{
        PgSessionStore,
        batch::{
            limits::BATCH,
            search::{self, Left, PATIENCE_IN_SEARCH},
        },
        rows::user_limit::Ended,
    },
};

/// The rows that one transaction deletes.
#[derive(Clone, Debug)]
pub(super) enum Rows {
    /// A batch of them.
    Any,
    These(Vec<String>),
}

/// Sessions that a call ends.
pub(super) trait Sessions: Sync {
    fn store(&self) -> &PgSessionStore;

    /// The ids of at most `most` of them that are alive.
    fn find(&self, most: usize) -> impl Future<Output = Result<Vec<String>, Error>> + Send;

    /// Deletes some of them in one transaction, and reports them. It waits for a locked row for
    /// `patience` at most.
    ///
    /// # Errors
    ///
    /// Those of the statements, and if none of a batch was deleted.
    fn end(
        &self,
        patience: Duration,
        rows: Rows,
    ) -> impl Future<Output = Result<Ended, Error>> + Send;
}

/// Ends batches until there is no such session. Sessions that another transaction has locked end
/// last.
pub(super) async fn end_all(sessions: &impl Sessions, ended: &mut u64) -> Result<(), Error> {
    match end_batches(sessions, ended).await {
        Err(error) if error.blames_a_row() => {}
        outcome => return outcome,
    }
    let mut left = end_around(sessions, ended).await?;
    let deadline = deadline(sessions);
    while !left.ids.is_empty() {
        left.wait(deadline).await.map_err(Error::of_an_end)?;
        left = end_around(sessions, ended).await?;
    }
    // A trigger may have kept rows without an error.
    end_batches(sessions, ended).await
}

fn deadline(sessions: &impl Sessions) -> Instant {
    sessions.store().table_handle().executor.deadline()
}

async fn end_batches(sessions: &impl Sessions, ended: &mut u64) -> Result<(), Error> {
    let patience = search::patience_of(sessions.store().table_handle().executor.timeout);
    loop {
        let batch = sessions.end(patience, Rows::Any).await?;
        *ended += batch.sessions.len() as u64;
        if !batch.is_a_part {
            return Ok(());
        }
    }
}

/// A row that is locked, or can't be deleted, must not keep the others alive. So the batch
/// is cut until that row is alone, and it is left for later.
async fn end_around(sessions: &impl Sessions, ended: &mut u64) -> Result<Left, Error> {
    let (mut left, mut seen) = (Left::default(), HashSet::new());
    loop {
        let deadline = deadline(sessions);
        let ids = rows_beside(sessions, &seen).await?;
        if ids.is_empty() {
            return Ok(left);
        }
        let mut search = search::Search::among(ids, deadline);
        while let Some(mut ids) = search.next() {
            let rows = Rows::These(ids.clone());
            match sessions.end(PATIENCE_IN_SEARCH, rows).await {
                Ok(batch) => {
                    *ended += batch.sessions.len() as u64;
                    let rest = batch.rest.first();
                    let tried = ids.iter().position(|id| Some(id) == rest);
                    ids.truncate(tried.unwrap_or(ids.len()));
                    // A row that stays is one with a new id, or a trigger keeps it.
                    if batch.sessions.len() < ids.len() {
                        seen.extend(ids);
                    }
                    search.add(batch.rest);
                }
                Err(error) if error.blames_a_row() => search.failed(ids, error),
                Err(error) => return Err(error),
            }
        }
        let more = search.left();
        seen.extend(more.ids.iter().cloned());
        left.add(more);
    }
}

/// Finds a batch of the sessions, except those whose deletion already failed.
async fn rows_beside(
    sessions: &impl Sessions,
    seen: &HashSet<String>,
) -> Result<Vec<String>, Error> {
    let ids = sessions.find(BATCH + seen.len()).await?;
    let ids = ids.into_iter().filter(|id| !seen.contains(id));
    Ok(ids.take(BATCH).collect())
}
