//! Deletes sessions of one user: those beyond the limit, or all but one. The limit holds
//! also if several processes log the user in at the same time.
//!
//! It runs in the caller's transaction: it doesn't begin or commit one, and a dropped
//! future deletes nothing.

use std::{collections::HashSet, sync::Arc};

use sqlx::PgConnection;

use crate::{
    Error, ErrorKind,
    id::RowId,
    login::{SessionLimit, SessionLimitPolicy},
    store::{
        batch::{deletion_portions::Portions, limits::BATCH},
        connection::sqlstate::spared,
        sql::Sql,
        table::{statements::Statements, timestamp::Instant},
        watches::report::{EndedRow, alive},
    },
};

/// An id that no row has.
pub(in crate::store) const NO_ROW: &str = "";

/// Locks the user until the end of the transaction. So logins of one user follow each
/// other, and each counts what the earlier ones committed.
pub(in crate::store) async fn lock(
    table: &Statements,
    connection: &mut PgConnection,
    user_id: &str,
) -> Result<(), Error> {
    table
        .cycle
        .login_lock
        .query()
        .bind(table.name.lock_key(&format!("user {user_id}")))
        .execute(connection)
        .await?;
    Ok(())
}

/// The most ids that are in memory at once, about 100 bytes each.
const LARGEST_SEARCH: usize = 128 * BATCH;

/// The sessions of a user that one transaction deleted.
#[derive(Clone, Debug)]
pub(in crate::store) struct Ended {
    /// The rows of those that had not expired.
    pub(in crate::store) sessions: Vec<EndedRow>,
    /// Whether there may be more.
    pub(in crate::store) is_a_part: bool,
    /// Those of the given rows that it did not try to delete, because it took long enough.
    pub(in crate::store) rest: Vec<String>,
}

/// Deletes the user's sessions beyond the limit: one batch at most, and for a short time,
/// because the client waits for this.
///
/// # Errors
///
/// If the policy refuses the login.
pub(in crate::store) async fn enforce(
    table: &Statements,
    connection: &mut PgConnection,
    limit: SessionLimit,
    user_id: &str,
    new: &RowId,
) -> Result<Ended, Error> {
    let others = limit.sessions.get() - 1;
    let most = match limit.at_limit {
        SessionLimitPolicy::Refuse => 1,
        SessionLimitPolicy::EndOldest => BATCH,
    };
    let mut ended = Vec::new();
    let mut progress = Progress::default();
    loop {
        let surplus = surplus(table, connection, user_id, new.as_str(), others, most).await?;
        if !surplus.is_empty() && limit.at_limit == SessionLimitPolicy::Refuse {
            return Err(refused(limit));
        }
        let (delete, portions) = (&table.users.destroy, Portions::limited());
        let (more, tried) = end_in(portions, table, connection, delete, user_id, &surplus).await?;
        let is_a_part = surplus.len() >= most || tried < surplus.len();
        let deleted = more.len();
        ended.extend(more);
        if surplus.is_empty() || (is_a_part && deleted > 0) {
            return Ok(Ended {
                sessions: ended,
                is_a_part,
                rest: Vec::new(),
            });
        }
        // The next search finds a session that got a new id meanwhile.
        progress.check(deleted, surplus)?;
    }
}

/// Deletes a batch of the user's sessions beyond the limit, without a login.
pub(in crate::store) async fn end_surplus(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    limit: SessionLimit,
    user_id: Arc<str>,
) -> Result<Ended, Error> {
    let kept = limit.sessions.get();
    let surplus = surplus(&table, connection, &user_id, NO_ROW, kept, BATCH).await?;
    let (delete, portions) = (&table.users.destroy, Portions::limited());
    let (sessions, tried) =
        end_in(portions, &table, connection, delete, &user_id, &surplus).await?;
    let is_a_part = surplus.len() >= BATCH || tried < surplus.len();
    if sessions.is_empty() && is_a_part {
        // The next batch would be the same.
        return Err(spared());
    }
    Ok(Ended {
        is_a_part,
        sessions,
        rest: Vec::new(),
    })
}

/// Finds live sessions of the user beyond the newest `kept`, except `this`.
///
/// It reads and sorts `kept + most` sessions, not all of them. Of any such selection, the
/// sessions after the newest `kept` are surplus, whatever other sessions exist. So each
/// batch reads about as many rows as it deletes, and the newest sessions remain in the end.
async fn surplus(
    table: &Statements,
    connection: &mut PgConnection,
    user_id: &str,
    this: &str,
    kept: u32,
    most: usize,
) -> Result<Vec<String>, Error> {
    let mut found = some(
        table,
        connection,
        user_id,
        this,
        i64::from(kept) + i64::try_from(most).unwrap_or(i64::MAX / 2),
    )
    .await?;
    // The order of `user_list.sql`.
    found.sort_by(|(one, created), (other, later)| {
        let created = created.map_or(f64::NEG_INFINITY, |at| at.0);
        let later = later.map_or(f64::NEG_INFINITY, |at| at.0);
        later.total_cmp(&created).then_with(|| one.cmp(other))
    });
    Ok(ids(found.into_iter().skip(kept as usize)))
}

/// The ids of at most `most` live sessions of the user, except `this`.
pub(in crate::store) async fn batch(
    table: &Statements,
    connection: &mut PgConnection,
    user_id: &str,
    this: &str,
    most: usize,
) -> Result<Vec<String>, Error> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let found = some(table, connection, user_id, this, most).await?;
    Ok(ids(found.into_iter()))
}

/// The ids in order, so that two statements that delete the same rows can't deadlock.
fn ids(rows: impl Iterator<Item = Began>) -> Vec<String> {
    let mut ids: Vec<_> = rows.map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids
}

/// A row, and when its session began.
type Began = (String, Option<Instant>);

async fn some(
    table: &Statements,
    connection: &mut PgConnection,
    user_id: &str,
    this: &str,
    most: i64,
) -> Result<Vec<Began>, Error> {
    let found = table
        .users
        .some
        .query_as()
        .bind(user_id)
        .bind(this)
        .bind(most)
        .fetch_all(connection)
        .await?;
    Ok(found)
}

/// Deletes those of these sessions whose user, or external id, is `key`. Returns those that were
/// alive.
///
/// The statement compares the key with `IS NOT DISTINCT FROM`, and the expiry with `IS TRUE`,
/// which can't use an index. Otherwise Postgres without statistics would expect few sessions of a
/// user, or few live ones, use that index, and read all of them for each batch.
pub(in crate::store) async fn end(
    table: &Statements,
    connection: &mut PgConnection,
    delete: &Sql,
    key: &str,
    ids: &[String],
) -> Result<Vec<EndedRow>, Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let deleted = delete.query().bind(key).bind(ids);
    alive(table, &deleted.fetch_all(connection).await?)
}

/// As [`end`], in portions. Also returns how many of the ids it has tried, from the first on.
async fn end_in(
    mut portions: Portions,
    table: &Statements,
    connection: &mut PgConnection,
    delete: &Sql,
    key: &str,
    ids: &[String],
) -> Result<(Vec<EndedRow>, usize), Error> {
    let (mut sessions, mut tried) = (Vec::new(), 0);
    while let Some(rows) = portions.next(ids.len() - tried) {
        let portion = &ids[tried..tried + rows];
        sessions.extend(end(table, connection, delete, key, portion).await?);
        tried += rows;
    }
    Ok((sessions, tried))
}

/// As [`end`], for as many of these sessions as a short time allows.
pub(in crate::store) async fn end_these(
    table: &Statements,
    connection: &mut PgConnection,
    delete: &Sql,
    key: &str,
    mut ids: Vec<String>,
) -> Result<Ended, Error> {
    let portions = Portions::limited();
    let (sessions, tried) = end_in(portions, table, connection, delete, key, &ids).await?;
    Ok(Ended {
        sessions,
        is_a_part: !ids.is_empty(),
        rest: ids.split_off(tried),
    })
}

fn refused(limit: SessionLimit) -> Error {
    Error::new(
        ErrorKind::SessionLimit,
        format!(
            "the user has {} sessions already, as many as allowed; this login is refused",
            limit.sessions
        ),
    )
}

/// Deletes a batch of the user's sessions, except `this`. It takes a short time.
pub(in crate::store) async fn end_batch(
    table: &Statements,
    connection: &mut PgConnection,
    user_id: &str,
    this: &str,
) -> Result<Ended, Error> {
    let most = BATCH;
    end_at_most(most, Portions::limited, table, connection, user_id, this).await
}

/// Deletes the user's sessions, except `this`. Stops after a search that found none, or `most`
/// of which it deleted some. Otherwise it searches again: a statement doesn't see the new row of
/// a session that gets a new id at the same time, and the next search finds it.
async fn end_at_most(
    most: usize,
    portions: fn() -> Portions,
    table: &Statements,
    connection: &mut PgConnection,
    user_id: &str,
    this: &str,
) -> Result<Ended, Error> {
    let mut sessions = Vec::new();
    let mut progress = Progress::default();
    loop {
        let ids = batch(table, connection, user_id, this, most).await?;
        let delete = &table.users.destroy;
        let (more, tried) = end_in(portions(), table, connection, delete, user_id, &ids).await?;
        let deleted = more.len();
        sessions.extend(more);
        let is_a_part = ids.len() >= most || tried < ids.len();
        if ids.is_empty() || (is_a_part && deleted > 0) {
            return Ok(Ended {
                sessions,
                is_a_part,
                rest: Vec::new(),
            });
        }
        progress.check(deleted, ids)?;
    }
}

/// The sessions that were found and not deleted. Another call may have destroyed them, or they may
/// have got new ids meanwhile. If they are found again, a trigger keeps them.
#[derive(Default)]
pub(in crate::store) struct Progress(HashSet<String>);

impl Progress {
    /// # Errors
    ///
    /// If none of these sessions was deleted, and each was found before.
    pub(in crate::store) fn check(
        &mut self,
        deleted: usize,
        ids: Vec<String>,
    ) -> Result<(), Error> {
        if deleted == 0 && !ids.is_empty() && ids.iter().all(|id| self.0.contains(id)) {
            return Err(spared());
        }
        self.0.extend(ids);
        Ok(())
    }
}

/// Deletes all of the user's sessions, except `this`, in one transaction.
///
/// Each search passes over the rows that the transaction has already deleted. So each one
/// finds twice as many rows as the one before, and a million rows take few searches.
pub(in crate::store) async fn end_others(
    table: &Statements,
    connection: &mut PgConnection,
    user_id: &str,
    this: &str,
) -> Result<u64, Error> {
    let mut ended = 0;
    let mut most = BATCH;
    loop {
        let portions = Portions::unlimited;
        let batch = end_at_most(most, portions, table, connection, user_id, this).await?;
        ended += batch.sessions.len() as u64;
        if !batch.is_a_part {
            return Ok(ended);
        }
        most = LARGEST_SEARCH.min(2 * most);
    }
}
