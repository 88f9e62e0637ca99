//! Lists, counts and ends the sessions of one user. It doesn't know who is signed in to a
//! request.
//!
//! Dropped futures: see [`ends`](super::ends).

use std::{
    fmt,
    future::{Future, IntoFuture},
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::{
    Device, Error, ListPosition, SessionId,
    ending::Ending,
    expiry,
    format::Format,
    id::RowId,
    row::Row,
    store::{
        PgSessionStore,
        admin::{
            ends::{Rows, Sessions, end_all},
            page::{Listed, Page, list},
        },
        batch::statements::LoadRow,
        connection::{sqlstate::spared, transaction::in_transaction},
        rows::{
            steps,
            user_limit::{self, Ended, NO_ROW, end_batch, end_others},
        },
        table::{
            handle::Work, inspect::check_row_security, statements::Statements, timestamp::Instant,
        },
        watches::{report::EndedRow, sweep::Watches},
    },
    telemetry::events,
};

/// Rows of a page that is searched for one session.
const PAGE: NonZeroU32 = NonZeroU32::new(1000).expect("not zero");

impl PgSessionStore {
    /// Returns the sessions that this user is signed in to by
    /// [`Session::login`](crate::Session::login), on all devices.
    ///
    /// This runs no query yet. The calls on the result need the column `user_id` (migration
    /// 0002), and an index on it to be fast (migration 0004).
    pub fn user(&self, user_id: impl Into<String>) -> UserSessions {
        UserSessions {
            store: self.clone(),
            user_id: self.stored_user(&user_id.into()),
        }
    }
}

/// The sessions of one user, for "where am I signed in" and "sign out everywhere else".
/// Returned by [`PgSessionStore::user`].
///
/// When a call returns, the sessions that it destroyed don't exist for any process. No request
/// in flight revives them: its changes are dropped, and its response is a 503.
///
/// Use the id of the user who is signed in, never an id that the client sent. Then a handle
/// of another user's session is refused.
///
/// ```
/// use axum::{Router, extract::State, routing::post};
/// use axum_pg_session::{Error, PgSessionStore, Session};
///
/// /// Destroys the user's other sessions, such as after a change of the password.
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
    /// Lists the live sessions, the latest login first. Await the result.
    ///
    /// It has at most 1,000 sessions, or [another number](ListSessions::limit). It begins with
    /// the latest login, or [after a position](ListSessions::after) of an earlier list.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store.clone());
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("ada")).await?;
    /// let sessions = store.user("ada").list().await?;
    /// assert_eq!(sessions.len(), 1);
    /// assert_eq!(Some(sessions[0].id()), ada.session().await?.id().as_ref());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](crate::ErrorKind::Setup) if the table has no column `user_id`, and
    /// if the database could not be queried.
    pub fn list(&self) -> ListSessions {
        ListSessions::of(self.clone())
    }

    pub(in crate::store) async fn rows(
        &self,
        page: Page,
        limit: NonZeroU32,
    ) -> Result<Vec<Listed>, Error> {
        self.ask(|table, connection, user_id| {
            Box::pin(list(table, connection, user_id, page.clone(), limit))
        })
        .await
    }

    pub(in crate::store) fn format(&self) -> &dyn Format {
        self.store.format()
    }

    /// The page after a position. If the ids of rows are secrets and the session of the
    /// position has ended, the page begins at the time when that session began.
    pub(in crate::store) async fn page_after(&self, position: ListPosition) -> Result<Page, Error> {
        let row = match position.id().row() {
            Some(row) => Some(row.clone()),
            None => self.row_of(position.id()).await?,
        };
        let row = row.unwrap_or_else(|| RowId::from(NO_ROW.to_owned()));
        Ok(position.page(&row))
    }

    /// Counts the live sessions.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn count(&self) -> Result<u64, Error> {
        self.ask(|table, connection, user_id| {
            Box::pin(async move { count_others(&table, connection, &user_id, NO_ROW).await })
        })
        .await
    }

    /// Destroys the session of this handle. Returns `false` if it was destroyed or expired
    /// before, or belongs to another user.
    ///
    /// A session that got a new id since the handle was listed is destroyed, too, except in
    /// the formats of Koa and Express, which keep no old ids: there this returns `false`.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store.clone());
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("ada")).await?;
    /// let id = ada.session().await?.id().expect("it is stored");
    ///
    /// assert!(!store.user("bob").destroy(&id).await?); // it is not his
    /// assert!(store.user("ada").destroy(&id).await?);
    /// assert!(ada.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn destroy(&self, id: &SessionId) -> Result<bool, Error> {
        let Some(first) = self.row_of(id).await? else {
            return Ok(false);
        };
        let mut row = first.clone();
        let mut was_undone = false;
        let mut moves = steps::Moves::default();
        loop {
            moves.follow()?;
            if self.end(row.clone()).await? {
                let ended = EndedRow::new(row.clone(), Some(self.user_id.as_str()));
                self.watches().ended([&ended], Ending::Revoked);
                self.watches().end([&first], Ending::Revoked);
                events::ended(self.store.meter(), &self.store.format().handle(&row));
                return Ok(true);
            }
            let found = self.load(row.clone()).await?;
            match found.as_ref().and_then(|row| row.successor()) {
                Some(successor) => row = successor,
                // A new id may have been undone meanwhile, so that the first id is live
                // again.
                None if !was_undone => {
                    was_undone = true;
                    row = first.clone();
                }
                None if found.is_some_and(|row| row.user.as_deref() == Some(&self.user_id)) => {
                    return Err(spared());
                }
                None => return Ok(false),
            }
        }
    }

    /// Finds the id of the row. If the ids of rows are secrets, it searches the user's own
    /// sessions for the handle.
    async fn row_of(&self, id: &SessionId) -> Result<Option<RowId>, Error> {
        let format = self.store.format();
        if let Some(row) = format.row_of(id, self.store.own_realm()) {
            return Ok(Some(row));
        }
        let mut page = Page::first();
        loop {
            let rows = self.rows(page, PAGE).await?;
            let next = Page::next(&rows);
            let mut ids = rows.into_iter().map(|row| RowId::from(row.0));
            if let Some(row) = ids.find(|row| format.handle(row) == *id) {
                return Ok(Some(row));
            }
            match next {
                Some(next) => page = next,
                None => return Ok(None),
            }
        }
    }

    fn watches(&self) -> &Watches {
        &self.store.shared.batches.watches
    }

    async fn end(&self, row: RowId) -> Result<bool, Error> {
        let ids = [row.as_str().to_owned()];
        self.change(|table, connection, user_id| {
            let ids = ids.clone();
            Box::pin(async move {
                let delete = &table.users.destroy;
                let ended = user_limit::end(&table, connection, delete, &user_id, &ids).await?;
                Ok(ended.len() == 1)
            })
        })
        .await
    }

    async fn load(&self, row: RowId) -> Result<Option<Arc<Row>>, Error> {
        let load = &self.store.shared.batches.load;
        load.submit(LoadRow(row)).outcome_in_time().await
    }

    /// Destroys all sessions of the user, and returns how many there were (ASVS 5.0 item 7.4.2:
    /// if an account is disabled or deleted).
    ///
    /// It deletes a thousand at a time at most, each batch with the store's
    /// [`timeout`](PgSessionStore::timeout), so that any number can be destroyed. Sessions whose
    /// rows another transaction has locked come last. To destroy them together with a change of
    /// your own, use [`destroy_all_in`](Self::destroy_all_in).
    ///
    /// A handler that calls it for its own user also destroys the session of its request. Changes
    /// of the request to that session are then an error of kind
    /// [`Ended`](crate::ErrorKind::Ended). To keep that session, use
    /// [`destroy_others`](Self::destroy_others). In a handler that signs the user in, use
    /// [`Login::end_others`](crate::Login::end_others): if `destroy_all` destroyed the session
    /// of the request, the login fails, and the user has no session.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store.clone());
    /// for _device in 0..3 {
    ///     TestVisitor::new(&layer).with_session(|session| session.login("ada")).await?;
    /// }
    /// assert_eq!(store.user("ada").destroy_all().await?, 3);
    /// assert_eq!(store.user("ada").count().await?, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list). Sessions that were destroyed before stay destroyed. If rows can't
    /// be deleted, such as those that another table references, all others are deleted.
    pub async fn destroy_all(&self) -> Result<u64, Error> {
        self.end_beside(None).await
    }

    /// Destroys all sessions of the user except the one of this handle, and returns how many
    /// there were (ASVS 5.0 item 7.4.3: offer it after a change of the password).
    ///
    /// It deletes a thousand at a time, as [`destroy_all`](Self::destroy_all) does.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store.clone());
    /// let ada = TestVisitor::new(&layer);
    /// for visitor in [&ada, &TestVisitor::new(&layer)] {
    ///     visitor.with_session(|session| session.login("ada")).await?;
    /// }
    /// let this = ada.session().await?.id().expect("it is stored");
    /// assert_eq!(store.user("ada").destroy_others(&this).await?, 1);
    /// assert!(!ada.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Ended`](crate::ErrorKind::Ended) if the session of this handle is not live,
    /// or belongs to another user. Then no session is destroyed. The call also fails, and
    /// destroys nothing, if another transaction has locked the row of the handle for long,
    /// because the session may be getting a new id. Otherwise as [`destroy_all`](Self::destroy_all).
    pub async fn destroy_others(&self, this: &SessionId) -> Result<u64, Error> {
        let row = self.row_of(this).await?;
        let this = row.ok_or_else(Error::not_of_the_user)?;
        self.end_beside(Some(this)).await
    }

    /// Ends the user's sessions, except `this`. Also reports those that were ended before an
    /// error.
    async fn end_beside(&self, this: Option<RowId>) -> Result<u64, Error> {
        let mut ended = 0;
        let outcome = end_all(&Others { user: self, this }, &mut ended).await;
        if outcome.is_ok() || ended > 0 {
            events::ended_at_once(self.store.meter(), ended);
        }
        outcome.map(|()| ended)
    }

    /// Destroys all sessions of the user in your transaction, and returns how many there were.
    /// They are destroyed if it commits, together with its other changes, such as the deletion
    /// of the account.
    ///
    /// No request revives a destroyed session after the commit. Until then, requests that
    /// change these sessions wait for your transaction. So commit soon, and call
    /// [`Session::save`](crate::Session::save) of one of them only afterwards. A login that
    /// is committed at the same time stays. With a foreign key to your users, it fails once
    /// the user is deleted.
    ///
    /// Logs and metrics don't count these sessions, because the store doesn't see the
    /// commit.
    ///
    /// ```
    /// use axum_pg_session::PgSessionStore;
    /// use sqlx::PgPool;
    ///
    /// async fn delete_account(
    ///     pool: &PgPool,
    ///     store: &PgSessionStore,
    ///     user: &str,
    /// ) -> Result<(), axum_pg_session::Error> {
    ///     let mut transaction = pool.begin().await?;
    ///     store.user(user).destroy_all_in(&mut transaction).await?;
    ///     sqlx::query("DELETE FROM account WHERE name = $1")
    ///         .bind(user)
    ///         .execute(&mut *transaction)
    ///         .await?;
    ///     Ok(transaction.commit().await?)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use axum_pg_session::{PgSessionLayer, testing::TestVisitor};
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let pool = PgPool::connect(database.url()).await?;
    /// # sqlx::raw_sql("CREATE TABLE account (name text); INSERT INTO account VALUES ('ada')")
    /// #     .execute(&pool).await?;
    /// let ada = TestVisitor::new(&PgSessionLayer::new(store.clone()));
    /// ada.with_session(|session| session.login("ada")).await?;
    ///
    /// delete_account(&pool, &store, "ada").await?;
    /// assert_eq!(store.user("ada").count().await?, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// In the formats of Koa and Express, a [`logout`](crate::Session::logout) after it is a 503. So
    /// call `logout` and [`save`](crate::Session::save) before you begin the transaction.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list), and of kind [`Setup`](crate::ErrorKind::Setup) if row level
    /// security applies to the role of your transaction, because its policies can hide sessions.
    /// On an error, roll back your transaction.
    pub async fn destroy_all_in(&self, transaction: &mut PgConnection) -> Result<u64, Error> {
        let table = self.table().await?;
        self.end_beside_in(transaction, &table, None).await
    }

    /// Destroys all sessions of the user except the one of this handle in your transaction, and
    /// returns how many there were. They are destroyed if it commits, together with its other
    /// changes, such as a change of the password.
    ///
    /// The session of the handle is locked until then, so commit before you call its
    /// [`save`](crate::Session::save). In the formats of Koa and Express, a handle that was
    /// read from text is looked up over a connection of the store's pool. See also
    /// [`destroy_all_in`](Self::destroy_all_in).
    ///
    /// ```
    /// use axum_pg_session::{Error, PgSessionStore, SessionId};
    /// use sqlx::PgPool;
    ///
    /// async fn change_password(
    ///     pool: &PgPool,
    ///     store: &PgSessionStore,
    ///     user: &str,
    ///     this: &SessionId,
    ///     hash: &str,
    /// ) -> Result<u64, Error> {
    ///     let mut transaction = pool.begin().await?;
    ///     sqlx::query("UPDATE account SET password = $2 WHERE name = $1")
    ///         .bind(user)
    ///         .bind(hash)
    ///         .execute(&mut *transaction)
    ///         .await?;
    ///     let ended = store.user(user).destroy_others_in(&mut transaction, this).await?;
    ///     transaction.commit().await?;
    ///     Ok(ended)
    /// }
    /// # let _ = change_password;
    /// ```
    ///
    /// # Errors
    ///
    /// As [`destroy_others`](Self::destroy_others), and as
    /// [`destroy_all_in`](Self::destroy_all_in). On an error, roll back your transaction.
    pub async fn destroy_others_in(
        &self,
        transaction: &mut PgConnection,
        this: &SessionId,
    ) -> Result<u64, Error> {
        let table = self.table().await?;
        let row = self.row_of(this).await?;
        let this = row.ok_or_else(Error::not_of_the_user)?;
        self.end_beside_in(transaction, &table, Some(this)).await
    }

    /// As [`end_beside`](Self::end_beside), in a transaction of the application.
    async fn end_beside_in(
        &self,
        transaction: &mut PgConnection,
        table: &Arc<Statements>,
        this: Option<RowId>,
    ) -> Result<u64, Error> {
        let for_others = table.for_others();
        let ending = async {
            check_row_security(transaction, &table.name).await?;
            let this = lock_own(&for_others, transaction, &self.user_id, this).await?;
            end_others(&for_others, transaction, &self.user_id, this.as_str()).await
        };
        self.store
            .table_handle()
            .note_changed_table(table, ending.await)
    }

    /// # Errors
    ///
    /// If the table has no users.
    async fn table(&self) -> Result<Arc<Statements>, Error> {
        let table = self.store.table_handle().table().await?;
        table.columns.check_users(&table.name)?;
        Ok(table)
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl for<'c> Fn(Arc<Statements>, &'c mut PgConnection, String) -> Work<'c, T>
        + Send
        + Sync,
    ) -> Result<T, Error> {
        self.store
            .ask(|table, connection| self.of_the_user(table, connection, &question))
            .await
    }

    async fn change<T: Send + 'static>(
        &self,
        work: impl for<'c> Fn(Arc<Statements>, &'c mut PgConnection, String) -> Work<'c, T>
        + Send
        + Sync,
    ) -> Result<T, Error> {
        self.store
            .change(|table, connection| self.of_the_user(table, connection, &work))
            .await
    }

    async fn change_patiently<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl for<'c> Fn(Arc<Statements>, &'c mut PgConnection, String) -> Work<'c, T>
        + Send
        + Sync,
    ) -> Result<T, Error> {
        self.store
            .change_patiently(patience, |table, connection| {
                self.of_the_user(table, connection, &work)
            })
            .await
    }

    /// # Errors
    ///
    /// If the table has no users.
    fn of_the_user<'c, T: Send + 'static>(
        &self,
        table: Arc<Statements>,
        connection: &'c mut PgConnection,
        work: impl FnOnce(Arc<Statements>, &'c mut PgConnection, String) -> Work<'c, T>,
    ) -> Work<'c, T> {
        match table.columns.check_users(&table.name) {
            Ok(()) => work(table, connection, self.user_id.clone()),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }
}

async fn count_others(
    table: &Statements,
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

/// The sessions of a user, except `this`.
struct Others<'a> {
    user: &'a UserSessions,
    this: Option<RowId>,
}

impl Sessions for Others<'_> {
    fn store(&self) -> &PgSessionStore {
        &self.user.store
    }

    async fn find(&self, most: usize) -> Result<Vec<String>, Error> {
        let this = self.this.as_ref().map_or(NO_ROW, RowId::as_str);
        self.user
            .ask(|table, connection, user_id| {
                let this = this.to_owned();
                Box::pin(async move {
                    user_limit::batch(&table, connection, &user_id, &this, most).await
                })
            })
            .await
    }

    async fn end(&self, patience: Duration, rows: Rows) -> Result<Ended, Error> {
        let ended = self
            .user
            .change_patiently(patience, |table, connection, user_id| {
                let (this, rows) = (self.this.clone(), rows.clone());
                Box::pin(end_some(table, connection, user_id, this, rows))
            })
            .await?;
        self.user.watches().ended(&ended.sessions, Ending::Revoked);
        Ok(ended)
    }
}

/// Ends some of the user's sessions in one transaction, so that an attempt that is repeated has
/// ended nothing. The row of `this` is locked meanwhile. Otherwise it could get a new id, and
/// count as one of the others.
async fn end_some(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    user_id: String,
    this: Option<RowId>,
    rows: Rows,
) -> Result<Ended, Error> {
    in_transaction(connection, |transaction| {
        Box::pin(async move {
            let this = lock_own(&table, transaction, &user_id, this).await?;
            let mut ids = match rows {
                Rows::Any => return end_batch(&table, transaction, &user_id, this.as_str()).await,
                Rows::These(ids) => ids,
            };
            ids.retain(|id| id != this.as_str());
            let delete = &table.users.destroy;
            user_limit::end_these(&table, transaction, delete, &user_id, ids).await
        })
    })
    .await
}

/// Locks the row of `this`, which must be the user's session, until the transaction ends. Returns
/// its current id, or [`NO_ROW`] if `this` is `None`.
///
/// # Errors
///
/// If the session has ended, or belongs to another user.
async fn lock_own(
    table: &Statements,
    connection: &mut PgConnection,
    user_id: &str,
    this: Option<RowId>,
) -> Result<RowId, Error> {
    let Some(mut this) = this else {
        return Ok(RowId::from(NO_ROW.to_owned()));
    };
    let mut moves = steps::Moves::default();
    loop {
        moves.follow()?;
        let row = steps::lock(table, connection, &this)
            .await
            .map_err(of_a_handle)?;
        if row.user.as_deref() == Some(user_id) {
            return Ok(this);
        }
        this = row.successor().ok_or_else(Error::not_of_the_user)?;
    }
}

fn of_a_handle(error: Error) -> Error {
    match error.kind() {
        crate::ErrorKind::Ended => Error::not_of_the_user(),
        _ => error,
    }
}

impl fmt::Debug for UserSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSessions")
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

/// One session of a user, as [`UserSessions::list`](crate::UserSessions::list) found it.
///
/// ```
/// use axum_pg_session::{Device, Login, PgSessionLayer, PgSessionStore, testing::TestVisitor};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// let ada = TestVisitor::new(&PgSessionLayer::new(store.clone()));
/// let device = Device::new().with_label("my phone");
/// ada.with_session(|session| session.login(Login::new("ada").device(device))).await?;
///
/// let listed = store.user("ada").list().await?;
/// let labels: Vec<_> = listed.iter().filter_map(|session| session.device()?.label()).collect();
/// assert_eq!(labels, ["my phone"]);
/// assert_eq!(Some(listed[0].id()), ada.session().await?.id().as_ref());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct UserSession {
    id: SessionId,
    position: ListPosition,
    created: Option<OffsetDateTime>,
    last_seen: Option<OffsetDateTime>,
    expires_at: Option<OffsetDateTime>,
    device: Option<Device>,
}

impl UserSession {
    pub(in crate::store) fn of(
        (id, expires, created, seen, device): Listed,
        format: &dyn Format,
    ) -> Self {
        let at = |instant: Option<Instant>| expiry::instant(instant?.0);
        let id = format.handle(&RowId::from(id));
        Self {
            position: ListPosition::new(created, id.clone()),
            id,
            created: at(created),
            last_seen: at(seen),
            expires_at: at(Some(expires)),
            device: device.and_then(|text| serde_json::from_str(&text).ok()),
        }
    }

    /// Returns the public handle, for
    /// [`UserSessions::destroy`](crate::UserSessions::destroy). It opens nothing, so
    /// it can be in a page or an address.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns the position after this session, for
    /// [`ListSessions::after`](crate::ListSessions::after).
    #[must_use]
    pub fn position(&self) -> ListPosition {
        self.position.clone()
    }

    /// Returns when the user last signed in to this session. `None` if the table has no column
    /// `created`.
    #[must_use]
    pub fn created(&self) -> Option<OffsetDateTime> {
        self.created
    }

    /// Returns when a request last extended the session. The last request may be later by up to
    /// the layer's [`touch_interval`](crate::PgSessionLayer::touch_interval). `None` if the table
    /// has no column `last_seen` (migration 0005).
    #[must_use]
    pub fn last_seen(&self) -> Option<OffsetDateTime> {
        self.last_seen
    }

    /// Returns when the session expires if no other request arrives. `None` if it never expires.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }

    /// Returns the device that the [`login`](crate::Login::device) stored, if any.
    #[must_use]
    pub fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }
}

impl fmt::Debug for UserSession {
    /// Omits the device, which is personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSession")
            .field("id", &self.id)
            .field("created", &self.created)
            .field("last_seen", &self.last_seen)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The default number of sessions of one list. It is more than a page shows, and little
/// memory.
const LIMIT: NonZeroU32 = NonZeroU32::new(1000).expect("not zero");

/// A list of a user's sessions, from [`UserSessions::list`]: await it.
///
/// ```
/// use std::num::NonZeroU32;
/// use axum_pg_session::{ListPosition, PgSessionLayer, PgSessionStore, testing::TestVisitor};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// for _ in 0..3 {
///     let ada = TestVisitor::new(&PgSessionLayer::new(store.clone()));
///     ada.with_session(|session| session.login("ada")).await?;
/// }
/// let ada = store.user("ada");
/// let two = NonZeroU32::new(2).expect("not zero");
///
/// let first_page = ada.list().limit(two).await?;
/// assert_eq!(first_page.len(), 2);
/// // As in a link to the next page.
/// let position = first_page[1].position().to_string();
/// let next_page = ada.list().limit(two).after(position.parse()?).await?;
/// assert_eq!(next_page.len(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is asked until it is awaited"]
pub struct ListSessions {
    sessions: UserSessions,
    limit: NonZeroU32,
    after: Option<ListPosition>,
}

impl ListSessions {
    pub(in crate::store) fn of(sessions: UserSessions) -> Self {
        Self {
            sessions,
            limit: LIMIT,
            after: None,
        }
    }

    /// Sets how many sessions the list has at most. Default: 1,000.
    pub fn limit(self, sessions: NonZeroU32) -> Self {
        Self {
            limit: sessions,
            ..self
        }
    }

    /// Begins after the last session of an earlier list. Default: with the latest login.
    pub fn after(self, position: ListPosition) -> Self {
        Self {
            after: Some(position),
            ..self
        }
    }

    async fn load(self) -> Result<Vec<UserSession>, Error> {
        let Self {
            sessions,
            limit,
            after,
        } = self;
        let after = match after {
            Some(position) => sessions.page_after(position).await?,
            None => Page::first(),
        };
        let rows = sessions.rows(after, limit).await?;
        let format = sessions.format();
        Ok(rows
            .into_iter()
            .map(|row| UserSession::of(row, format))
            .collect())
    }
}

impl IntoFuture for ListSessions {
    type Output = Result<Vec<UserSession>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.load())
    }
}
