//! The sessions of one user.

use std::{fmt, sync::Arc};

use futures_core::future::BoxFuture;
use sqlx::{Connection as _, PgConnection};

use crate::{
    Error, ErrorKind, SessionId, UserSession, events,
    id::RowId,
    store::{
        PgSessionStore, entries::LoadRow, instant::Instant, limit, reissue, table::Table,
        user_session::Listed,
    },
};

/// Deadlocks and pauses of the database that the end of sessions outlives.
const MAX_ATTEMPTS: usize = 3;

impl PgSessionStore {
    /// The sessions that this user is signed in to by
    /// [`Session::login`](crate::Session::login), on all devices.
    ///
    /// Nothing is asked of the database yet. All that is asked then needs the
    /// column `user_id` (migration 0002), and an index on it to be quick
    /// (migration 0004).
    pub fn user(&self, user_id: impl Into<String>) -> UserSessions {
        UserSessions {
            store: self.clone(),
            user_id: self.own_realm().user(&user_id.into()),
        }
    }
}

/// The sessions of one user: "where am I signed in", "sign out everywhere
/// else". From [`PgSessionStore::user`].
///
/// What is ended here is ended for every process when the call returns, and no
/// request that is under way brings it back: what such a request still saves is
/// dropped, and it is answered with 503.
///
/// Ask with the id of the user who is signed in, never with one that a visitor
/// sent: a handle of another user's session is refused by that.
///
/// ```
/// use axum::{Router, extract::State, routing::post};
/// use axum_pg_session::{Error, PgSessionStore, Session};
///
/// /// Ends the user's other sessions, such as after a change of the password.
/// async fn sign_out_elsewhere(
///     State(store): State<PgSessionStore>,
///     session: Session,
/// ) -> Result<String, Error> {
///     let (Some(user), Some(this)) = (session.user_id(), session.id()) else {
///         return Ok("You are not signed in.".into());
///     };
///     let ended = store.user(user).destroy_others(&this).await?;
///     Ok(format!("{ended} other devices were signed out."))
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// let alice = store.user("alice");
/// assert!(alice.list().await?.is_empty());
/// assert_eq!(alice.destroy_all().await?, 0);
/// # let _: Router<PgSessionStore> = Router::new().route("/", post(sign_out_elsewhere));
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "nothing is asked yet"]
pub struct UserSessions {
    store: PgSessionStore,
    user_id: String,
}

impl UserSessions {
    /// The live sessions, the one that was signed in last first.
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](crate::ErrorKind::Setup) where the table has no column
    /// `user_id`, and when the database could not be asked.
    pub async fn list(&self) -> Result<Vec<UserSession>, Error> {
        let rows = self.rows().await?;
        let format = self.store.format();
        Ok(rows
            .into_iter()
            .map(|row| UserSession::of(row, format))
            .collect())
    }

    async fn rows(&self) -> Result<Vec<Listed>, Error> {
        self.ask(|table, connection, user_id| Box::pin(list(table, connection, user_id)))
            .await
    }

    /// How many live sessions there are.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn count(&self) -> Result<u64, Error> {
        self.ask(|table, connection, user_id| {
            Box::pin(async move { count_others(&table, connection, &user_id, NOBODY).await })
        })
        .await
    }

    /// Ends the session of this handle, and says whether it did: not where it
    /// ended already, and not where it is another user's.
    ///
    /// A session that got a new id since the handle was listed ends too.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn destroy(&self, id: &SessionId) -> Result<bool, Error> {
        let Some(mut row) = self.row_of(id).await? else {
            return Ok(false);
        };
        loop {
            if self.end(row.clone()).await? {
                events::ended(self.store.meter(), &self.store.format().handle(&row));
                return Ok(true);
            }
            match self.successor(row).await? {
                Some(successor) => row = successor,
                None => return Ok(false),
            }
        }
    }

    /// In a format whose ids are secrets only the user's own are looked at.
    async fn row_of(&self, id: &SessionId) -> Result<Option<RowId>, Error> {
        let format = self.store.format();
        if let Some(row) = format.row_of(id, self.store.own_realm()) {
            return Ok(Some(row));
        }
        let ids = self.rows().await?.into_iter().map(|row| RowId::from(row.0));
        Ok(ids.into_iter().find(|row| format.handle(row) == *id))
    }

    async fn end(&self, row: RowId) -> Result<bool, Error> {
        let ids = [row.as_str().to_owned()];
        self.ask(|table, connection, user_id| {
            let ids = ids.clone();
            Box::pin(async move { Ok(limit::end(&table, connection, &user_id, &ids).await? == 1) })
        })
        .await
    }

    async fn successor(&self, row: RowId) -> Result<Option<RowId>, Error> {
        let load = &self.store.shared.writer.load;
        let row = load.submit(LoadRow(row)).answer().await?;
        Ok(row.and_then(|row| row.successor()))
    }

    /// Ends all sessions of the user, and says how many there were (ASVS 5.0
    /// item 7.4.2: where an account is disabled or deleted).
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn destroy_all(&self) -> Result<u64, Error> {
        let ended = self
            .ask(|table, connection, user_id| {
                Box::pin(async move { end_others(&table, connection, &user_id, NOBODY).await })
            })
            .await?;
        events::ended_at_once(self.store.meter(), ended);
        Ok(ended)
    }

    /// Ends all sessions of the user but the one of this handle, and says how
    /// many there were (ASVS 5.0 item 7.4.3: offer it after a change of the
    /// password).
    ///
    /// # Errors
    ///
    /// Of kind [`Ended`](crate::ErrorKind::Ended) where the session of this
    /// handle is not alive, or not the user's; then nothing is ended. And as
    /// [`list`](Self::list).
    pub async fn destroy_others(&self, this: &SessionId) -> Result<u64, Error> {
        let this = self.row_of(this).await?.ok_or_else(Error::ended)?;
        let ended = self
            .ask(move |table, connection, user_id| {
                let this = this.clone();
                Box::pin(async move { destroy_others(&table, connection, &user_id, this).await })
            })
            .await?;
        events::ended_at_once(self.store.meter(), ended);
        Ok(ended)
    }

    async fn ask<T>(
        &self,
        question: impl for<'c> Fn(Arc<Table>, &'c mut PgConnection, String) -> Work<'c, T> + Sync,
    ) -> Result<T, Error> {
        let ask_once = || {
            let user_id = self.user_id.clone();
            self.store.ask_table(
                |table, connection| match table.columns.check_users(&table.name) {
                    Ok(()) => question(table, connection, user_id),
                    Err(error) => Box::pin(async { Err(error) }),
                },
            )
        };
        for _ in 1..MAX_ATTEMPTS {
            match ask_once().await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                outcome => return outcome,
            }
        }
        ask_once().await
    }
}

type Work<'c, T> = BoxFuture<'c, Result<T, Error>>;

/// The id that no row has.
const NOBODY: &str = "";

async fn list(
    table: Arc<Table>,
    connection: &mut PgConnection,
    user_id: String,
) -> Result<Vec<Listed>, Error> {
    let rows = table
        .users
        .list
        .query_as()
        .bind(user_id)
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

async fn count_others(
    table: &Table,
    connection: &mut PgConnection,
    user_id: &str,
    this: &str,
) -> Result<u64, Error> {
    let sessions: i64 = table
        .users
        .count
        .query_scalar()
        .bind(user_id)
        .bind(this)
        .fetch_one(connection)
        .await?;
    Ok(sessions.unsigned_abs())
}

/// A session that gets a new id while it is to end escapes the statement, which
/// sees its old row only; the next one finds it.
pub(super) async fn end_others(
    table: &Table,
    connection: &mut PgConnection,
    user_id: &str,
    this: &str,
) -> Result<u64, Error> {
    let mut ended = 0;
    loop {
        let deleted: Vec<Instant> = table
            .users
            .destroy_others
            .query_scalar()
            .bind(user_id)
            .bind(this)
            .fetch_all(&mut *connection)
            .await?;
        ended += table.live(&deleted);
        if count_others(table, connection, user_id, this).await? == 0 {
            return Ok(ended);
        }
    }
}

/// This session is locked meanwhile, so that it gets no new id, under which it
/// would be one of the others.
async fn destroy_others(
    table: &Table,
    connection: &mut PgConnection,
    user_id: &str,
    mut this: RowId,
) -> Result<u64, Error> {
    let mut transaction = connection.begin().await?;
    loop {
        let row = reissue::lock(table, &mut transaction, &this).await?;
        if row.user.as_deref() == Some(user_id) {
            break;
        }
        this = row.successor().ok_or_else(Error::ended)?;
    }
    let ended = end_others(table, &mut transaction, user_id, this.as_str()).await?;
    transaction.commit().await?;
    Ok(ended)
}

impl fmt::Debug for UserSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSessions")
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}
