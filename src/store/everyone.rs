//! The end of all sessions at once.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{
    Error, events,
    store::{PgSessionStore, destroy::successor_of, inspect::now, parts, table::Table},
};

/// Rows of one statement, as many as the reaper's.
const BATCH: i64 = 1000;

/// Where a walk through the table is.
#[derive(Clone)]
struct Page {
    /// The last id of the page before.
    after: String,
    /// Seconds since the epoch; sessions that began later are none of ours.
    began: f64,
}

/// What a walk does about rows that another transaction has locked.
#[derive(Clone, Copy, Debug)]
enum Locked {
    AreLeft,
    AreAwaited,
}

/// What a walk did with the rows that it found.
#[derive(Debug, Default)]
struct Walk {
    ended: u64,
    /// Rows that are locked.
    left: u64,
}

impl PgSessionStore {
    /// Ends all sessions, the anonymous ones too, and says how many there were
    /// (ASVS 5.0 item 7.4.5): for an emergency, such as keys or backups that
    /// got into wrong hands.
    ///
    /// It takes as long as it takes, in small statements, each with the store's
    /// [`timeout`](Self::timeout). Sessions that begin meanwhile stay, logins
    /// included. No request that is under way brings an ended one back. A session
    /// whose row another transaction has locked ends last.
    ///
    /// ```
    /// # use axum_pg_session::PgSessionStore;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// assert_eq!(store.destroy_everyone().await?, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When a statement failed; what was ended by then stays ended.
    pub async fn destroy_everyone(&self) -> Result<u64, Error> {
        let began = self
            .ask_table(|_, connection| Box::pin(now(connection)))
            .await?;
        let mut ended = 0;
        let mut locked = Locked::AreLeft;
        // A session that got a new id meanwhile may be where the walk was
        // before, so it walks until it finds no row.
        while let Some(walk) = self.walk(began, locked).await? {
            ended += walk.ended;
            // All others have ended by now.
            locked = match walk.left {
                0 => Locked::AreLeft,
                _ => Locked::AreAwaited,
            };
        }
        events::ended_at_once(self.meter(), ended);
        Ok(ended)
    }

    /// Walks through the table once. `None` if it found no row.
    async fn walk(&self, began: f64, locked: Locked) -> Result<Option<Walk>, Error> {
        let mut walk = None;
        let mut page = Page {
            after: String::new(),
            began,
        };
        loop {
            let next = page.clone();
            let ids = self
                .ask_table(move |table, connection| Box::pin(ids(table, connection, next)))
                .await?;
            let Some(last) = ids.last() else {
                return Ok(walk);
            };
            page.after.clone_from(last);
            let walk = walk.get_or_insert_with(Walk::default);
            match locked {
                Locked::AreLeft => self.end_around_locks(ids, walk).await?,
                Locked::AreAwaited => walk.ended += self.end_rows(ids, None).await?,
            }
        }
    }

    /// A row that is locked must not keep the others alive: the statement is cut
    /// until that row is alone, and it is left to the next walk.
    async fn end_around_locks(&self, ids: Vec<String>, walk: &mut Walk) -> Result<(), Error> {
        let deadline = self.set_up().database.deadline();
        let mut patience = parts::patience_of(self.set_up().database.timeout);
        let mut pending = vec![ids];
        while let Some(ids) = pending.pop() {
            match self.end_rows(ids.clone(), Some(patience)).await {
                Ok(ended) => walk.ended += ended,
                Err(error) if error.is_of_a_lock() && Instant::now() < deadline => {
                    patience = parts::PATIENCE_IN_SEARCH;
                    match ids.len() {
                        0 | 1 => walk.left += 1,
                        _ => pending.extend(parts::cut(&ids)),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn end_rows(&self, ids: Vec<String>, patience: Option<Duration>) -> Result<u64, Error> {
        self.ask_table_patiently(patience, |table, connection| {
            Box::pin(end(table, connection, ids))
        })
        .await
    }
}

async fn ids(
    table: Arc<Table>,
    connection: &mut PgConnection,
    page: Page,
) -> Result<Vec<String>, Error> {
    let ids = table
        .users
        .everyone
        .query_scalar()
        .bind(page.after)
        .bind(page.began)
        .bind(BATCH)
        .fetch_all(connection)
        .await?;
    Ok(ids)
}

/// A forwarding is no session of its own.
async fn end(
    table: Arc<Table>,
    connection: &mut PgConnection,
    ids: Vec<String>,
) -> Result<u64, Error> {
    let deleted: Vec<(String, Option<String>)> = table
        .destroy
        .many
        .query_as()
        .bind(ids)
        .fetch_all(connection)
        .await?;
    let ended = deleted.iter().filter(|(_, text)| {
        text.as_ref()
            .is_none_or(|text| successor_of(table.layout, text).is_none())
    });
    Ok(u64::try_from(ended.count()).unwrap_or(u64::MAX))
}
