//! A session that was read outside of its requests. It can't be changed, and has no
//! connection to the store.

#![expect(
    clippy::needless_pass_by_value,
    reason = "a key is text or a `Key`, which are handles"
)]

use std::{fmt, sync::Arc};

use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::{
    Error, SessionId,
    document::{Document, RESERVED, key::AsKey},
    expiry::instant,
    realm::Realm,
    row::Row,
    state::changes::decode,
};

/// A session as it was stored at one moment, outside of its requests. Returned by
/// [`PgSessionStore::load`](crate::PgSessionStore::load).
///
/// It is read-only. A change belongs in a request of the session, where it is merged with
/// the changes of other requests.
///
/// ```
/// use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// let layer = PgSessionLayer::new(store.clone());
/// let ada = TestVisitor::new(&layer);
/// ada.with_session(|session| session.insert("name", "Ada")).await?;
///
/// // What a job keeps, or a socket.
/// let id = ada.session().await?.id().expect("it is stored");
/// let stored = store.load(&id).await?.expect("it has not ended");
/// assert_eq!(stored.get("name")?, Some("Ada".to_owned()));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct StoredSession {
    id: SessionId,
    row: Arc<Row>,
    document: Arc<Document>,
    realm: Realm,
}

impl StoredSession {
    pub(crate) fn new(id: SessionId, row: Arc<Row>, document: Arc<Document>, realm: Realm) -> Self {
        Self {
            id,
            row,
            document,
            realm,
        }
    }

    /// Returns the public handle.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns the value of `key`, or `None` if there is none or it is JSON's `null`.
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](crate::ErrorKind::Deserialize) if the value is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsKey<T>) -> Result<Option<T>, Error> {
        let key = key.as_ref();
        match self.document.get(key) {
            Some(raw) if key != RESERVED => decode(key, raw),
            _ => Ok(None),
        }
    }

    /// Returns the keys, in the order in which they were first inserted.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.document.keys().map(str::to_owned).collect()
    }

    /// Returns the user who was signed in by [`Session::login`](crate::Session::login), if any.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.row.user.as_deref().map(|user| self.realm.id_of(user))
    }

    /// Returns when the session expires if no other request arrives, by the database's clock.
    /// `None` if it never expires.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        instant(self.row.times.expires)
    }
}

impl fmt::Debug for StoredSession {
    /// Omits the values, which are data of the user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSession")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
