//! Ends the sessions that came from one session of an identity provider. It doesn't know users.
//!
//! How it works: batches of the sessions with this external id are searched and deleted, each in a
//! transaction of its own, until a search finds none, see [`ends`](super::ends). A session that
//! gets a new id meanwhile is found by the next search, because the new row has the external id,
//! too.
//!
//! Dropped futures: see [`ends`](super::ends).

use std::{fmt, sync::Arc, time::Duration};

use sqlx::PgConnection;

use crate::{
    Error,
    ending::Ending,
    store::{
        PgSessionStore,
        admin::ends::{Rows, Sessions, end_all},
        batch::limits::BATCH,
        connection::transaction::in_transaction,
        rows::user_limit::{Ended, Progress, end_these},
        table::statements::Statements,
    },
    telemetry::events,
};

impl PgSessionStore {
    /// Returns the sessions whose [`Login::external_id`](crate::Login::external_id) is this one.
    ///
    /// This runs no query yet. The call on the result needs the column `external_id` (migration
    /// 0006), and an index on it to be fast (migration 0007).
    pub fn external(&self, external_id: impl Into<String>) -> ExternalSessions {
        ExternalSessions {
            external_id: self.own_realm().user(&external_id.into()),
            store: self.clone(),
        }
    }
}

/// The sessions that came from one session of an identity provider, for OpenID Connect's
/// back-channel logout. Returned by [`PgSessionStore::external`].
///
/// ```
/// use axum_pg_session::{Error, Login, PgSessionStore, Session};
///
/// /// The provider's token was verified.
/// fn sign_in(session: &Session, subject: &str, sid: &str) -> Result<(), Error> {
///     session.login(Login::new(subject).external_id(sid))
/// }
///
/// /// The provider's logout token was verified.
/// async fn signed_out_there(store: &PgSessionStore, sid: &str) -> Result<u64, Error> {
///     store.external(sid).destroy_all().await
/// }
///
/// # use axum_pg_session::{PgSessionLayer, testing::TestVisitor};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// let layer = PgSessionLayer::new(store.clone());
/// let (desk, phone) = (TestVisitor::new(&layer), TestVisitor::new(&layer));
/// desk.with_session(|session| sign_in(session, "ada", "sid-1")).await?;
/// phone.with_session(|session| sign_in(session, "ada", "sid-2")).await?;
///
/// assert_eq!(signed_out_there(&store, "sid-1").await?, 1);
/// assert!(desk.session().await?.is_new());
/// assert!(!phone.session().await?.is_new());
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "no query runs until a method is called"]
pub struct ExternalSessions {
    store: PgSessionStore,
    /// With the realm, as it is stored.
    external_id: String,
}

impl ExternalSessions {
    /// Destroys these sessions, and returns how many there were. No request in flight revives
    /// them.
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](crate::ErrorKind::Setup) if the table has no column `external_id`, and
    /// if the database could not delete the rows. Sessions that were destroyed before stay
    /// destroyed. If rows can't be deleted, such as those that another table references, all
    /// others are deleted.
    pub async fn destroy_all(&self) -> Result<u64, Error> {
        let mut ended = 0;
        let outcome = end_all(self, &mut ended).await;
        if ended > 0 {
            events::ended_at_once(self.store.meter(), ended);
        }
        outcome.map(|()| ended)
    }
}

impl Sessions for ExternalSessions {
    fn store(&self) -> &PgSessionStore {
        &self.store
    }

    async fn find(&self, most: usize) -> Result<Vec<String>, Error> {
        self.store
            .ask(|table, connection| {
                let external_id = self.external_id.clone();
                Box::pin(async move { find(&table, connection, &external_id, most).await })
            })
            .await
    }

    async fn end(&self, patience: Duration, rows: Rows) -> Result<Ended, Error> {
        let ended = self
            .store
            .change_patiently(patience, |table, connection| {
                let (external_id, rows) = (self.external_id.clone(), rows.clone());
                Box::pin(in_transaction(connection, move |transaction| {
                    Box::pin(end_some(table, transaction, external_id, rows))
                }))
            })
            .await?;
        let watches = &self.store.shared.batches.watches;
        watches.ended(&ended.sessions, Ending::Revoked);
        Ok(ended)
    }
}

async fn find(
    table: &Statements,
    connection: &mut PgConnection,
    external_id: &str,
    most: usize,
) -> Result<Vec<String>, Error> {
    table.columns.check_external_id(&table.name)?;
    let some = table.external.some.query_scalar();
    let some = some
        .bind(external_id)
        .bind(i64::try_from(most).unwrap_or(i64::MAX));
    let mut ids: Vec<String> = some.fetch_all(connection).await?;
    // In order, so that two statements that delete the same rows can't deadlock.
    ids.sort_unstable();
    Ok(ids)
}

/// Deletes a batch, or those of these rows that are of the external id.
///
/// # Errors
///
/// If none of a batch was deleted although there are some.
async fn end_some(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    external_id: String,
    rows: Rows,
) -> Result<Ended, Error> {
    let delete = &table.external.destroy;
    let mut ids = match rows {
        Rows::These(ids) => return end_these(&table, connection, delete, &external_id, ids).await,
        Rows::Any => find(&table, connection, &external_id, BATCH).await?,
    };
    let mut progress = Progress::default();
    loop {
        let ended = end_these(&table, connection, delete, &external_id, ids.clone()).await?;
        if ids.is_empty() || !ended.sessions.is_empty() {
            return Ok(ended);
        }
        // They got new ids meanwhile, or a trigger keeps them.
        progress.check(0, ids)?;
        ids = find(&table, connection, &external_id, BATCH).await?;
    }
}

impl fmt::Debug for ExternalSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalSessions").finish_non_exhaustive()
    }
}
