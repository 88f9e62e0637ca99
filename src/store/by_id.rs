//! What an application asks of one session outside of its requests.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::{
    Error, SessionId, StoredSession,
    id::RowId,
    store::{PgSessionStore, table::Table},
};

impl PgSessionStore {
    /// The session of this handle as it is stored now, for a socket or a job
    /// that outlives the session's request. `None` where it ended.
    ///
    /// It does not extend the session. In Koa's format a handle that was read
    /// from text, rather than taken from a session, costs a look at every row.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionStore, SessionId};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// // From `Session::id`, in a request.
    /// let id: SessionId = "yo3kjqNtsxUxpQFnyVPVYF3pKT1yfnW1GnyDmtdW4qA".parse()?;
    /// assert!(store.load(&id).await?.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When the database could not be asked.
    pub async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, Error> {
        let Some(id) = self.row_of(id).await? else {
            return Ok(None);
        };
        let rows = self.load_rows(&[id]).await?;
        let row = rows.into_iter().find(|row| row.successor().is_none());
        Ok(row.and_then(|row| {
            let document = Arc::clone(row.document()?);
            let id = self.format().handle(&row.id);
            Some(StoredSession::new(
                id,
                row,
                document,
                self.own_realm().clone(),
            ))
        }))
    }

    /// Ends the session of this handle, as
    /// [`Session::destroy`](crate::Session::destroy) does, from outside of its
    /// requests, and returns whether there was one: `false` if it was destroyed
    /// or expired before, which is as good.
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
    /// When the row could not be deleted.
    pub async fn destroy(&self, id: &SessionId) -> Result<bool, Error> {
        match self.row_of(id).await? {
            Some(id) => self.destroy_row(id).await,
            None => Ok(false),
        }
    }

    /// A handle that was kept as text does not tell the row where the row's id
    /// is a secret; then every row is asked.
    async fn row_of(&self, id: &SessionId) -> Result<Option<RowId>, Error> {
        if let Some(row) = self.format().row_of(id, self.own_realm()) {
            return Ok(Some(row));
        }
        let digest = id.digest()?;
        self.ask_table(move |table, connection| Box::pin(find(table, connection, digest)))
            .await
    }
}

async fn find(
    table: Arc<Table>,
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
