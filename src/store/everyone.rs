//! The end of all sessions at once.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::{
    Error, events,
    store::{PgSessionStore, destroy::successor_of, inspect::now, table::Table},
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

impl PgSessionStore {
    /// Ends all sessions, the anonymous ones too, and says how many there were
    /// (ASVS 5.0 item 7.4.5): for an emergency, such as keys or backups that
    /// got into wrong hands.
    ///
    /// It takes as long as it takes, in small statements, each with the store's
    /// [`timeout`](Self::timeout). Sessions that begin meanwhile stay, logins
    /// included. No request that is under way brings an ended one back.
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
        // A session that got a new id meanwhile may be where the walk was
        // before, so it walks until it finds no row.
        while let Some(more) = self.walk(began).await? {
            ended += more;
        }
        events::ended_at_once(self.meter(), ended);
        Ok(ended)
    }

    /// How many sessions a walk through the table ended, if it found any row.
    async fn walk(&self, began: f64) -> Result<Option<u64>, Error> {
        let mut ended = None;
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
                return Ok(ended);
            };
            page.after.clone_from(last);
            let more = self
                .ask_table(move |table, connection| Box::pin(end(table, connection, ids)))
                .await?;
            ended = Some(ended.unwrap_or(0) + more);
        }
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
