//! Reads, extends and ends one session by its handle, outside of its requests. It changes no
//! data of a session.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::{
    Error, ErrorKind, SessionId, StoredSession,
    ending::Ending,
    id::RowId,
    row::Row,
    state::{Deletion, Record, Saved, ToDelete},
    store::{
        PgSessionStore, rows::steps::Moves, table::statements::Statements,
        watches::sweep::SessionEnd,
    },
    timeouts::Timeouts,
    touch::Touch,
};

impl PgSessionStore {
    /// Loads the session of this handle as it is stored now, for a socket or a job
    /// that outlives the session's request. Returns `None` if it was destroyed or expired.
    ///
    /// If the session got a new id since ([`cycle_id`], or a [`login`] of the same
    /// user), this follows it, and [`StoredSession::id`] is the new handle. Keep
    /// the new one: the old one leads to the session for one minute, and then to
    /// nothing. A socket or a job that calls this more rarely should keep the
    /// user's id, too.
    ///
    /// `None` doesn't always mean that the user signed out. This call doesn't follow
    ///
    /// - the login of an anonymous visitor, or of another user,
    /// - a login with [`Login::discard_data`],
    /// - a new id that is older than one minute.
    ///
    /// The application reads the session for the client that opened the socket. That
    /// can be an attacker who planted the token before the login. So a socket that was
    /// opened before the user signed in gets `None` afterwards: open it again after
    /// the sign-in, with a request that brings the new cookie.
    ///
    /// Otherwise it is safe to follow a handle, because it opens nothing: it is
    /// a digest, and no browser can send it as a cookie.
    ///
    /// It doesn't extend the session, see [`PgSessionLayer::touch`], nor run
    /// the layer's `valid_if`. In the formats of Koa and Express nothing leads from
    /// an old id to the new one, and a handle that was parsed from text is found by an
    /// index that [`migrate`](Self::migrate) creates. Without it, the call reads every row.
    ///
    /// ```
    /// use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, SessionId, testing::TestVisitor};
    ///
    /// /// What a socket asks from time to time: whether its user is still signed in.
    /// async fn is_signed_in(store: &PgSessionStore, id: &mut SessionId) -> Result<bool, Error> {
    ///     let Some(session) = store.load(id).await? else {
    ///         return Ok(false);
    ///     };
    ///     *id = session.id().clone();
    ///     Ok(session.user_id().is_some())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let ada = TestVisitor::new(&PgSessionLayer::new(store.clone()));
    /// ada.with_session(|session| session.login("ada")).await?;
    /// let mut id = ada.session().await?.id().expect("it is stored");
    ///
    /// ada.with_session(|session| session.cycle_id()).await?;
    /// assert!(is_signed_in(&store, &mut id).await?);
    /// assert_eq!(ada.session().await?.id(), Some(id.clone()));
    ///
    /// ada.with_session(|session| session.logout()).await?;
    /// assert!(!is_signed_in(&store, &mut id).await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// If the database could not be queried. The session may still be live, so a socket
    /// should stay open.
    ///
    /// [`cycle_id`]: crate::Session::cycle_id
    /// [`login`]: crate::Session::login
    /// [`Login::discard_data`]: crate::Login::discard_data
    /// [`PgSessionLayer::touch`]: crate::PgSessionLayer::touch
    pub async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, Error> {
        let row = self.row_behind(id).await?;
        Ok(row.and_then(|row| {
            let document = Arc::clone(row.document()?);
            let id = self.format().handle(&row.id);
            let realm = self.own_realm().clone();
            Some(StoredSession::new(id, row, document, realm))
        }))
    }

    /// The live row of this handle, also if it got another id since, but not if it got
    /// another user, because the handle never belonged to that session. The new id can be
    /// undone during the lookup. Then the first id is live again.
    async fn row_behind(&self, id: &SessionId) -> Result<Option<Arc<Row>>, Error> {
        let Some(first) = self.row_of(id).await? else {
            return Ok(None);
        };
        let mut next = first.clone();
        let mut was_undone = false;
        let mut moves = Moves::default();
        loop {
            moves.follow()?;
            match self.load_rows(&[next.clone()]).await?.pop() {
                None if next != first && !was_undone => {
                    was_undone = true;
                    next = first.clone();
                }
                None => return Ok(None),
                Some(row) => match row.successor() {
                    Some(_) if row.has_another_user() => return Ok(None),
                    Some(successor) => next = successor,
                    None => return Ok(Some(row)),
                },
            }
        }
    }

    /// Extends the session of this handle as a request would, and returns
    /// whether it is alive.
    pub(crate) async fn touch_by_id(
        &self,
        id: &SessionId,
        timeouts: &Arc<Timeouts>,
    ) -> Result<bool, Error> {
        self.check_timeouts(timeouts)?;
        let Some(row) = self.row_behind(id).await? else {
            return Ok(false);
        };
        let Some(document) = row.document() else {
            return Ok(false);
        };
        if timeouts.has_ended(&document.meta(), row.times, self.zone_slack()) {
            return Ok(false);
        }
        let (record, timeouts) = (Record::default(), Arc::clone(timeouts));
        match self.save(row, record, timeouts, Touch::IfDue).await {
            Ok(Saved::Here(_) | Saved::Moved) => Ok(true),
            // Another request extended it meanwhile, or it ended.
            Ok(Saved::Untouched(_)) => Ok(self.row_behind(id).await?.is_some()),
            Err(error) if error.kind() == ErrorKind::Ended => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Watches the session of this handle, for a socket or a job that outlives the session's
    /// request. Returns a future that is ready when the session no longer exists. If it doesn't
    /// exist, the future is ready at once.
    ///
    /// - If this process destroys the session by this store or a clone of it, the future is ready
    ///   after the commit.
    /// - If another process destroys it, or it expires, the next lookup finds that. So the future
    ///   is ready after the [interval](Self::watch_interval) at most, 5 seconds by default, plus
    ///   the time of a statement. The same holds for
    ///   [`destroy_all_in`](crate::UserSessions::destroy_all_in) and
    ///   [`destroy_others_in`](crate::UserSessions::destroy_others_in), because the store doesn't
    ///   see your commit.
    /// - A store with other options counts as another process, except for its
    ///   [realm](Self::realm). So set all options first, then build the layer.
    /// - If the session can't be looked up [for a minute](Self::watch_outage), the future is ready
    ///   with [`Ending::Unreachable`](crate::Ending::Unreachable).
    /// - The lookups run in a task on the runtime of the first watch. If that runtime stops, all
    ///   watches end.
    ///
    /// It follows the session to a new id, as [`load`](Self::load) does. In the formats of Koa
    /// and Express, it follows only new ids that this process made. It doesn't follow a login of an anonymous
    /// visitor or of another user, nor one with
    /// [`Login::discard_data`](crate::Login::discard_data): the future is then ready with
    /// [`Ending::Replaced`](crate::Ending::Replaced). The same holds if another user is written
    /// into the same row, as axum-login can do.
    ///
    /// It never extends the session, see [`PgSessionLayer::touch`], and doesn't run the layer's
    /// `valid_if`.
    ///
    /// In a handler, [`Session::ended`](crate::Session::ended) does the same without a query.
    ///
    /// ```
    /// use axum_pg_session::{Ending, PgSessionLayer, PgSessionStore, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let ada = TestVisitor::new(&PgSessionLayer::new(store.clone()));
    /// ada.with_session(|session| session.login("ada")).await?;
    /// let id = ada.session().await?.id().expect("it is stored");
    ///
    /// let mut ended = store.watch(&id).await?;
    /// let job = async {
    ///     // A long job, of which this is the first step.
    ///     store.user("ada").destroy_all().await
    /// };
    /// assert_eq!(job.await?, 1);
    /// assert_eq!((&mut ended).await, Ending::Revoked);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// If the database could not be queried.
    ///
    /// # Panics
    ///
    /// If it is called outside of a tokio runtime.
    ///
    /// [`PgSessionLayer::touch`]: crate::PgSessionLayer::touch
    pub async fn watch(&self, id: &SessionId) -> Result<SessionEnd, Error> {
        let row = self.row_behind(id).await?;
        Ok(row.map_or_else(
            || SessionEnd::over(id.clone(), Ending::Unknown),
            |row| self.watch_row(&row),
        ))
    }

    /// Destroys the session of this handle, as
    /// [`Session::destroy`](crate::Session::destroy) does, from outside of its
    /// requests. Returns whether there was one: `false` if it was destroyed or
    /// expired before.
    ///
    /// It follows a session to a new id, also to another user's, for at least one minute:
    /// until the row of the old id is deleted. It shows nothing of that session. In the
    /// formats of Koa and Express, it follows only new ids that this process made in the
    /// last minute by this store or a clone of it. If another process made the new id, it
    /// returns `false`, and the session remains.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionStore, SessionId};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let id: SessionId = "yo3kjqNtsxUxpQFnyVPVYF3pKT1yfnW1GnyDmtdW4qA".parse()?;
    /// assert!(!store.destroy(&id).await?);
    /// assert!(store.load(&id).await?.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// If the row could not be deleted.
    pub async fn destroy(&self, id: &SessionId) -> Result<bool, Error> {
        let found = self.row_of(id).await?;
        let former = || self.shared.batches.watches.former_row_of(id);
        match found.or_else(former) {
            Some(id) => {
                // A handle follows each new id.
                let target = ToDelete::Session {
                    loaded: f64::NEG_INFINITY,
                };
                let deletion = self.destroy_row(id, target, Ending::Destroyed).await?;
                Ok(deletion == Deletion::Done)
            }
            None => Ok(false),
        }
    }

    /// Finds the id of the row. If the row's id is a secret, a handle that was kept as text
    /// doesn't contain it. Then the query computes the handle of every row.
    async fn row_of(&self, id: &SessionId) -> Result<Option<RowId>, Error> {
        if let Some(row) = self.format().row_of(id, self.own_realm()) {
            return Ok(Some(row));
        }
        let digest = id.digest()?;
        self.ask(move |table, connection| Box::pin(find(table, connection, digest)))
            .await
    }
}

async fn find(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    digest: [u8; 32],
) -> Result<Option<RowId>, Error> {
    let id: Option<String> = table
        .find
        .query_scalar()
        .bind(digest.as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(id.map(RowId::from))
}
