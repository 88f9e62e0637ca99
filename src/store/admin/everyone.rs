//! Ends all sessions at once. It doesn't distinguish users.
//!
//! How it works: it reads the database's time first. Then it walks through the table in the
//! order of the ids, in batches, and deletes the rows of sessions that began before that time.
//! A session that gets a new id meanwhile may move to a part that was walked already. So it
//! walks again, until a walk finds no row. Sessions without a time of their beginning are
//! collected at the start, and deleted by their ids. A batch with a locked or damaged row is
//! cut until that row is alone, and such rows are deleted last.
//!
//! Dropped futures: batches that were committed stay deleted, and no event is reported for
//! them. A batch in flight is canceled, unless it has committed.

use std::{collections::HashSet, sync::Arc};

use sqlx::{PgConnection, Row as _};

use crate::{
    Error,
    ending::Ending,
    id::RowId,
    row::successor_of,
    store::{
        PgSessionStore,
        batch::{
            deletion_portions::Portions,
            limits::BATCH,
            search::{self, Left},
        },
        connection::{sqlstate::spared, transaction::in_transaction},
        rows::destroy::destroy_unread,
        table::{
            inspect::server,
            statements::Statements,
            timestamp::{Instant, written},
        },
        watches::report::EndedRow,
    },
    telemetry::events,
};

/// How many walks in a row may find rows and delete none. A trigger may keep rows without an
/// error. After one or two such walks, another process may have deleted the rows.
const FRUITLESS: u32 = 3;

/// The position of a walk through the table.
#[derive(Clone)]
struct Page {
    /// The last id of the page before.
    after: String,
    /// Seconds since the epoch. Sessions that began later stay.
    began: f64,
}

/// The state of the table when the call begins.
struct Beginning {
    /// Seconds since the epoch.
    now: f64,
    /// The sessions without `created`, and those whose `created` is in the future, because the clock
    /// was set back.
    undated: Vec<String>,
}

/// The result of deletions.
#[derive(Default)]
struct Ended {
    /// Rows that were deleted, including forwardings.
    rows: usize,
    /// Those that were alive.
    sessions: Vec<EndedRow>,
    /// Those that had expired since they were found.
    expired: Vec<EndedRow>,
    /// Those that were not deleted, because they no longer existed, or a trigger kept them.
    undeleted: Vec<String>,
    /// The successor rows of the forwardings.
    successors: Vec<String>,
    /// The rows that the transaction did not try to delete, because it took long enough.
    rest: Vec<String>,
    left: Left,
}

impl Ended {
    fn add(&mut self, more: Self) {
        self.rows += more.rows;
        self.undeleted.extend(more.undeleted);
        self.successors.extend(more.successors);
        self.left.add(more.left);
    }
}

impl PgSessionStore {
    /// Destroys all sessions, including anonymous ones, and returns how many there were (ASVS
    /// 5.0 item 7.4.5). It is for an emergency, such as stolen keys or backups.
    ///
    /// It has no time limit as a whole. It runs small statements, each with the store's
    /// [`timeout`](Self::timeout). Sessions that begin meanwhile stay, including logins. No
    /// request in flight revives a destroyed session. Sessions whose rows another transaction
    /// has locked are destroyed last.
    ///
    /// If the table has no column `created`, or it is NULL, the ids of these sessions are
    /// read first and kept in memory, about 100 bytes each. The same holds for sessions
    /// whose `created` is in the future, because the database's clock was set back. In the
    /// formats of Koa and Express, such a session stays if it gets a new id at that moment.
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
    /// If a statement failed. Sessions that were destroyed before stay destroyed. If rows can't
    /// be deleted, such as those that another table references, all others are deleted.
    pub async fn destroy_everyone(&self) -> Result<u64, Error> {
        let mut ended = 0;
        let outcome = self.end_everyone(&mut ended).await;
        if outcome.is_ok() || ended > 0 {
            events::ended_at_once(self.meter(), ended);
        }
        outcome.map(|()| ended)
    }

    async fn end_everyone(&self, ended: &mut u64) -> Result<(), Error> {
        let beginning = self
            .ask(|table, connection| Box::pin(beginning(table, connection)))
            .await?;
        let mut undated = self.end_these(beginning.undated, ended).await?;
        // A session that got a new id meanwhile may be in a part that was walked already, so
        // this walks until it finds no row. It ends, because no session begins in the past.
        let mut deadline = None;
        let mut fruitless = 0;
        while let Some(more) = self.walk(beginning.now, ended).await? {
            if !more.left.ids.is_empty() {
                let deadline =
                    *deadline.get_or_insert_with(|| self.table_handle().executor.deadline());
                more.left.wait(deadline).await?;
                continue;
            }
            fruitless = if more.rows == 0 { fruitless + 1 } else { 0 };
            if fruitless == FRUITLESS {
                return Err(spared());
            }
        }
        let deadline = deadline.unwrap_or_else(|| self.table_handle().executor.deadline());
        while !undated.ids.is_empty() {
            let ids = undated.ids.clone();
            undated.wait(deadline).await?;
            undated = self.end_these(ids, ended).await?;
        }
        Ok(())
    }

    /// Ends these sessions, and returns those that are left. A session that got a new id
    /// meanwhile is found by the forwarding in its old row.
    async fn end_these(&self, mut ids: Vec<String>, ended: &mut u64) -> Result<Left, Error> {
        let mut all = Ended::default();
        while !ids.is_empty() {
            for ids in ids.chunks(BATCH) {
                all.add(self.end_rows(ids.to_vec(), ended).await?);
            }
            ids = std::mem::take(&mut all.successors);
            ids.sort_unstable();
        }
        let kept = self.alive_among(all.undeleted).await?;
        if !kept.is_empty() {
            all.left.leave(kept, spared());
        }
        all.left.ids.sort_unstable();
        Ok(all.left)
    }

    async fn alive_among(&self, ids: Vec<String>) -> Result<Vec<String>, Error> {
        let ids: Vec<_> = ids.into_iter().map(RowId::from).collect();
        let mut alive = Vec::new();
        for ids in ids.chunks(BATCH) {
            let rows = self.load_rows(ids).await?;
            let live = rows.iter().filter(|row| row.successor().is_none());
            alive.extend(live.map(|row| row.id.as_str().to_owned()));
        }
        Ok(alive)
    }

    /// Walks through the table once. `None` if it found no row.
    async fn walk(&self, began: f64, ended: &mut u64) -> Result<Option<Ended>, Error> {
        let mut all = None;
        let mut page = Page {
            after: String::new(),
            began,
        };
        loop {
            let ids = self
                .ask(|table, connection| Box::pin(ids(table, connection, page.clone())))
                .await?;
            let Some(last) = ids.last() else {
                return Ok(all);
            };
            page.after.clone_from(last);
            let more = self.end_rows(ids, ended).await?;
            let all = all.get_or_insert_with(Ended::default);
            all.add(more);
            all.successors.clear();
            all.undeleted.clear();
        }
    }

    /// Deletes these rows. A row that is locked, or can't be deleted, must not keep the others
    /// alive. So the statement is cut until that row is alone, and it is left for later. Each
    /// part is reported when it is committed, because a later one may fail.
    async fn end_rows(&self, ids: Vec<String>, ended: &mut u64) -> Result<Ended, Error> {
        let database = &self.table_handle().executor;
        let mut patience = search::patience_of(database.timeout);
        let mut all = Ended::default();
        let mut search = search::Search::among(ids, database.deadline());
        while let Some(ids) = search.next() {
            let outcome = self
                .change_patiently(patience, |table, connection| {
                    Box::pin(end(table, connection, ids.clone()))
                })
                .await;
            let outcome = match (outcome, &*ids) {
                (Err(error), [id]) if error.is_of_a_document() => self.end_unread(id).await,
                (Err(error), _) if !error.blames_a_row() => return Err(error),
                (outcome, _) => outcome,
            };
            match outcome {
                Ok(mut more) => {
                    search.add(std::mem::take(&mut more.rest));
                    self.report_end(&more, ended);
                    all.add(more);
                }
                Err(error) => {
                    patience = search::PATIENCE_IN_SEARCH;
                    search.failed(ids, error);
                }
            }
        }
        all.left.add(search.left());
        Ok(all)
    }

    fn report_end(&self, rows: &Ended, ended: &mut u64) {
        let watches = &self.shared.batches.watches;
        watches.ended(&rows.sessions, Ending::Revoked);
        watches.ended(&rows.expired, Ending::Expired);
        *ended += rows.sessions.len() as u64;
    }

    /// Deletes a row without reading its document.
    async fn end_unread(&self, id: &str) -> Result<Ended, Error> {
        let session = self
            .change_patiently(search::PATIENCE_IN_SEARCH, |table, connection| {
                Box::pin(destroy_unread(table, connection, id.to_owned()))
            })
            .await?;
        Ok(Ended {
            rows: 1,
            sessions: session.into_iter().collect(),
            ..Ended::default()
        })
    }
}

async fn beginning(
    table: Arc<Statements>,
    connection: &mut PgConnection,
) -> Result<Beginning, Error> {
    let now = server(&mut *connection).await?.now;
    let undated = table.users.undated.query_as().bind(now);
    let undated: Vec<(String, Option<Instant>)> = undated.fetch_all(&mut *connection).await?;
    // Sessions that began while the statement waited are not in the future.
    let later = server(connection).await?.now;
    let undated = undated
        .into_iter()
        .filter(|(_, began)| began.is_none_or(|began| began.0 > later))
        .map(|(id, _)| id)
        .collect();
    Ok(Beginning { now, undated })
}

async fn ids(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    page: Page,
) -> Result<Vec<String>, Error> {
    let ids = table
        .users
        .everyone
        .query_scalar()
        .bind(page.after)
        .bind(page.began)
        .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    Ok(ids)
}

/// Deletes these rows in one transaction, as many as a short time allows.
async fn end(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    ids: Vec<String>,
) -> Result<Ended, Error> {
    in_transaction(connection, |transaction| {
        Box::pin(async move {
            let (mut ended, mut portions) = (Ended::default(), Portions::limited());
            let mut rest = ids;
            while let Some(rows) = portions.next(rest.len()) {
                let next = rest.split_off(rows);
                end_at_once(&table, transaction, &rest, &mut ended).await?;
                rest = next;
            }
            ended.rest = rest;
            Ok(ended)
        })
    })
    .await
}

/// Deletes these rows, and adds them to `ended`. A forwarding does not count as a session.
async fn end_at_once(
    table: &Statements,
    connection: &mut PgConnection,
    ids: &[String],
    ended: &mut Ended,
) -> Result<(), Error> {
    let deleted = table.destroy.many.query().bind(ids).bind(ids);
    let now = table.clock.now();
    let deleted = deleted.fetch_all(connection).await?;
    ended.rows += deleted.len();
    let mut undeleted: HashSet<&str> = ids.iter().map(String::as_str).collect();
    for row in deleted {
        undeleted.remove(row.try_get::<&str, _>(0)?);
        let (expires, text): (_, Option<String>) = (written(&row, 1)?, row.try_get(2)?);
        let user: Option<String> = row.try_get(3)?;
        match text.and_then(|text| successor_of(table.layout, &text)) {
            // After a login that drops the data, it leads nowhere.
            Some(successor) if successor.as_str().is_empty() => {}
            Some(successor) => ended.successors.push(successor.as_str().to_owned()),
            None => {
                let row = EndedRow::new(RowId::from(row.try_get::<String, _>(0)?), user);
                match expires.0 > now {
                    true => ended.sessions.push(row),
                    false => ended.expired.push(row),
                }
            }
        }
    }
    ended
        .undeleted
        .extend(undeleted.into_iter().map(str::to_owned));
    Ok(())
}
