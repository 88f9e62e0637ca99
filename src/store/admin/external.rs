//! Ends the sessions that came from one session of an identity provider. It doesn't know users.
//!
//! How it works: batches of the sessions with this external id are searched and deleted, each in a
//! transaction of its own, until a search finds none. A session that gets a new id meanwhile is
//! found by the next search, because the new row has the external id, too.
//!
//! Dropped futures: batches that were committed stay deleted. The batch in flight is canceled, and
//! rolled back unless it has committed.

use std::{fmt, sync::Arc};

use sqlx::PgConnection;

use crate::{
    Error,
    ending::Ending,
    store::{
        PgSessionStore,
        connection::{sqlstate::spared, transaction::in_transaction},
        rows::user_limit::BATCH,
        table::statements::Statements,
        watches::report::{EndedRow, alive},
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
    /// Ends these sessions, and returns how many there were. No request in flight revives them.
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](crate::ErrorKind::Setup) if the table has no column `external_id`, and
    /// if the database could not delete the rows. Sessions that were ended before stay ended.
    pub async fn destroy_all(&self) -> Result<u64, Error> {
        let mut ended = 0;
        let outcome = self.end_all(&mut ended).await;
        if ended > 0 {
            events::ended_at_once(self.store.meter(), ended);
        }
        outcome.map(|()| ended)
    }

    async fn end_all(&self, ended: &mut u64) -> Result<(), Error> {
        loop {
            // If the future is dropped here, the batch is canceled unless it has committed.
            let batch = self
                .store
                .change(|table, connection| {
                    let external_id = self.external_id.clone();
                    Box::pin(async move {
                        in_transaction(connection, |transaction| {
                            Box::pin(end_batch(table, transaction, external_id))
                        })
                        .await
                    })
                })
                .await?;
            let Some(sessions) = batch else {
                return Ok(());
            };
            let watches = &self.store.shared.batches.watches;
            watches.ended(&sessions, Ending::Revoked);
            *ended += sessions.len() as u64;
        }
    }
}

/// Deletes a batch. `None` if there is no such session.
///
/// # Errors
///
/// If none was deleted although there are some.
async fn end_batch(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    external_id: String,
) -> Result<Option<Vec<EndedRow>>, Error> {
    table.columns.check_external_id(&table.name)?;
    let mut before = Vec::new();
    loop {
        let some = table.external.some.query_scalar();
        let some = some.bind(&external_id).bind(i64::from(BATCH));
        let mut ids: Vec<String> = some.fetch_all(&mut *connection).await?;
        if ids.is_empty() {
            return Ok(None);
        }
        // In order, so that two statements that delete the same rows can't deadlock.
        ids.sort_unstable();
        let delete = table.external.destroy.query().bind(&external_id).bind(&ids);
        let live = alive(&table, &delete.fetch_all(&mut *connection).await?)?;
        if !live.is_empty() {
            return Ok(Some(live));
        }
        // They got new ids meanwhile, or a trigger keeps them.
        if ids == before {
            return Err(spared());
        }
        before = ids;
    }
}

impl fmt::Debug for ExternalSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalSessions").finish_non_exhaustive()
    }
}
