//! At most so many sessions of one user, also where several processes log the
//! user in at once.

use sqlx::PgConnection;

use crate::{
    Error, ErrorKind,
    id::RowId,
    login::{AtLimit, SessionLimit},
    store::{instant::Instant, table::Table},
};

/// One login of a user at a time, until the end of its transaction: each counts
/// what the earlier ones committed.
pub(super) async fn lock(
    table: &Table,
    connection: &mut PgConnection,
    user_id: &str,
) -> Result<(), Error> {
    table
        .reissue
        .login_lock
        .query()
        .bind(table.name.lock_key(&format!("user {user_id}")))
        .execute(connection)
        .await?;
    Ok(())
}

/// How many sessions it ended.
pub(super) async fn enforce(
    table: &Table,
    connection: &mut PgConnection,
    limit: SessionLimit,
    user_id: &str,
    new: &RowId,
) -> Result<u64, Error> {
    let others = i64::from(limit.sessions.get()) - 1;
    let mut ended = 0;
    loop {
        let surplus = oldest(table, connection, user_id, new, others).await?;
        if surplus.is_empty() {
            return Ok(ended);
        }
        if limit.at_limit == AtLimit::Refuse {
            return Err(refused(limit));
        }
        // One that got a new id meanwhile is found the next time.
        ended += end(table, connection, user_id, &surplus).await?;
    }
}

/// The user's live sessions but for the newest ones and this one.
async fn oldest(
    table: &Table,
    connection: &mut PgConnection,
    user_id: &str,
    new: &RowId,
    kept: i64,
) -> Result<Vec<String>, Error> {
    let ids = table
        .users
        .oldest
        .query_scalar()
        .bind(user_id)
        .bind(new.as_str())
        .bind(kept)
        .fetch_all(connection)
        .await?;
    Ok(ids)
}

/// Ends these sessions where they are the user's, and says how many were alive.
pub(super) async fn end(
    table: &Table,
    connection: &mut PgConnection,
    user_id: &str,
    ids: &[String],
) -> Result<u64, Error> {
    let deleted: Vec<Instant> = table
        .users
        .destroy
        .query_scalar()
        .bind(user_id)
        .bind(ids)
        .fetch_all(connection)
        .await?;
    Ok(table.live(&deleted))
}

impl Table {
    /// How many of these have not expired yet.
    pub(super) fn live(&self, expiries: &[Instant]) -> u64 {
        let now = self.clock.now();
        expiries
            .iter()
            .map(|expiry| u64::from(expiry.0 > now))
            .sum()
    }
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
