#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(any(feature = "core-014", feature = "core-015")))]
compile_error!("turn on `core-014` for tower-sessions 0.14, or `core-015` for 0.15");

/// The blocks of the guide are tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/moving/from-tower-sessions.md")]
struct Guide;

use std::{fmt, time::Duration};

use axum_pg_session::{Error, ErrorKind, PgSessionStore, Reaper, SessionId, adapter::Adapter};
use serde_json::Value;
use time::OffsetDateTime;

/// Where axum-login keeps the id of its user, unless the application renames its data.
const AXUM_LOGIN: [&str; 2] = ["axum-login.data", "user_id"];

/// The member of a loaded record that holds the session as it was loaded. tower-sessions
/// has no way to list the keys of a session, so an application doesn't see it.
const BASE: &str = "\u{1f}axum-pg-session";

/// Ids that are tried for a new session. An id has 128 random bits, so a second attempt
/// is almost never needed.
const MAX_IDS: usize = 8;

/// A `SessionStore` of tower-sessions, in the table of a [`PgSessionStore`].
///
/// It implements the trait of tower-sessions 0.14 with the feature `core-014` and that of
/// 0.15 with `core-015`. Both are on by default. It also implements `ExpiredDeletion`, by one
/// run of the [`Reaper`]. Prefer [`Reaper::spawn`]: the first error ends
/// `continuously_delete_expired` for good.
///
/// It is cheap to clone. Clones share their pool and their batches.
///
/// ```
/// use axum_pg_session::{PgSessionStore, Reaper};
/// use axum_pg_session_tower_sessions::PostgresStore;
/// # use tower_sessions_015 as tower_sessions;
/// use tower_sessions::{Session, SessionManagerLayer};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// let store = PgSessionStore::connect(database.url()).await?;
/// store.migrate().await?;
/// let reaper = Reaper::new(store.clone()).spawn();
///
/// let layer = SessionManagerLayer::new(PostgresStore::new(store)); let app: axum::Router
/// = axum::Router::new() .route("/", axum::routing::get(async |session: Session| {
/// session.insert("seen", true).await.expect("a new session needs no query"); }))
/// .layer(layer);
/// # use tower::ServiceExt as _;
/// # let request = http::Request::get("/").body(axum::body::Body::empty())?;
/// let response = app.oneshot(request).await?;
/// assert!(response.headers().contains_key("set-cookie"));
/// reaper.stop().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    adapter: Adapter,
}

impl PostgresStore {
    /// Creates a store that keeps the sessions in the table of `store`, with its realm, its
    /// limits and its settings.
    ///
    /// The layer of `axum-pg-session` can use the same `store` beside it: neither opens the
    /// sessions of the other.
    ///
    /// Each session is a row whose id is a digest of the id in the cookie, so a copy of the
    /// table opens no session. The user of axum-login is stored in the column `user_id`, see
    /// [`user_path`](Self::user_path).
    #[must_use]
    pub fn new(store: PgSessionStore) -> Self {
        Self {
            adapter: Adapter::new(store).user_path(AXUM_LOGIN),
        }
    }

    /// Sets where a session names its user: a key of the session, then a member of its value,
    /// and so on. Default: `["axum-login.data", "user_id"]`, as axum-login stores it. An empty
    /// path stores no user.
    ///
    /// The user is text or an integer; any other value, and an empty text, is no user. It is
    /// stored in the column `user_id`, so the calls of [`PgSessionStore::user`] find the
    /// sessions of the user, and
    /// [`max_sessions_per_user`](PgSessionStore::max_sessions_per_user) counts them. A change
    /// of the user counts as a login. A user id of more than 1,024 bytes, or with U+0000 or
    /// U+001F, is an error of the save.
    ///
    /// A `with_data_key` of axum-login needs a path of its own. So does an application that
    /// keeps its user without axum-login:
    ///
    /// ```
    /// use axum_pg_session::PgSessionStore;
    /// use axum_pg_session_tower_sessions::PostgresStore;
    /// # use tower_sessions_015 as tower_sessions;
    /// use std::sync::Arc;
    /// use tower_sessions::Session;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let sessions = PostgresStore::new(store.clone()).user_path(["member"]);
    /// let session = Session::new(None, Arc::new(sessions), None);
    /// session.insert("member", 7).await?;
    /// session.save().await?;
    ///
    /// assert_eq!(store.user("7").count().await?, 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn user_path<P>(self, path: P) -> Self
    where
        P: IntoIterator,
        P::Item: Into<String>,
    {
        Self {
            adapter: self.adapter.user_path(path),
        }
    }

    /// Returns the store that this one was created on, for the calls by user.
    #[must_use]
    pub fn store(&self) -> &PgSessionStore {
        self.adapter.store()
    }

    /// Returns the public handle of a session, for the calls that take one, such as
    /// [`destroy_others`](axum_pg_session::UserSessions::destroy_others).
    ///
    /// `id` is the `Id` of tower-sessions. Any value with its text, the 22 characters of the
    /// cookie, returns the same.
    ///
    /// ```
    /// use axum_pg_session::PgSessionStore;
    /// use axum_pg_session_tower_sessions::PostgresStore;
    /// # use tower_sessions_015 as tower_sessions;
    /// use std::sync::Arc;
    /// use tower_sessions::Session;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let sessions = PostgresStore::new(store.clone()).user_path(["member"]);
    /// let sign_in = async || {
    ///     let session = Session::new(None, Arc::new(sessions.clone()), None);
    ///     session.insert("member", "ada").await?;
    ///     session.save().await?;
    ///     Ok::<_, tower_sessions::session::Error>(session)
    /// };
    /// let (desk, phone) = (sign_in().await?, sign_in().await?);
    ///
    /// let this = sessions.handle(desk.id().expect("it was saved"));
    /// assert_eq!(store.user("ada").destroy_others(&this).await?, 1);
    /// assert!(store.load(&this).await?.is_some());
    /// # let _ = phone;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn handle(&self, id: impl fmt::Display) -> SessionId {
        self.adapter.handle(&id.to_string())
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("store", self.store())
            .finish_non_exhaustive()
    }
}

/// The rest of a session's time. A time that has passed is none.
fn ttl(expiry_date: OffsetDateTime) -> Duration {
    let left = expiry_date - OffsetDateTime::now_utc();
    Duration::try_from(left).unwrap_or_default()
}

/// The end of a session that has so many seconds left, by this process's clock. The time
/// is measured by the database's clock, so an error of this process's clock cancels out
/// in `ttl`.
fn expiry_date(ttl: f64) -> OffsetDateTime {
    let left = time::Duration::saturating_seconds_f64(ttl);
    OffsetDateTime::now_utc().saturating_add(left)
}

/// The message of the error and of its source. tower-sessions only takes text.
fn text(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Implements the traits of one version of tower-sessions-core.
macro_rules! implement {
    ($module:ident, $core:ident, $feature:literal) => {
        #[cfg(feature = $feature)]
        mod $module {
            use $core::{
                ExpiredDeletion, SessionStore,
                session::{Id, Record},
                session_store::{Error, Result},
            };

            use super::*;

            fn failed(error: &axum_pg_session::Error) -> Error {
                match error.kind() {
                    ErrorKind::Serialize | ErrorKind::TooLarge => Error::Encode(text(error)),
                    ErrorKind::Deserialize => Error::Decode(text(error)),
                    _ => Error::Backend(text(error)),
                }
            }

            /// The members that are stored.
            fn members(record: &Record) -> impl Iterator<Item = (&String, &Value)> {
                record.data.iter().filter(|(key, _)| *key != BASE)
            }

            #[cfg_attr(docsrs, doc(cfg(feature = $feature)))]
            #[async_trait::async_trait]
            impl SessionStore for PostgresStore {
                /// Inserts the session, with another id if its id exists.
                async fn create(&self, record: &mut Record) -> Result<()> {
                    for _ in 0..MAX_IDS {
                        let key = record.id.to_string();
                        let ttl = ttl(record.expiry_date);
                        // If the future is dropped here, the row is deleted again.
                        let created = self.adapter.create(&key, members(record), ttl).await;
                        if let Some(base) = created.map_err(|error| failed(&error))? {
                            record.data.remove(BASE);
                            keep(record, base);
                            return Ok(());
                        }
                        record.id = Id::default();
                    }
                    Err(Error::Backend("every new id exists already".to_owned()))
                }

                /// Saves what the request changed, if the session exists.
                async fn save(&self, record: &Record) -> Result<()> {
                    let key = record.id.to_string();
                    let base = record.data.get(BASE).and_then(Value::as_str);
                    let ttl = ttl(record.expiry_date);
                    // If the future is dropped here, a save that was submitted is executed.
                    let saved = self.adapter.save(&key, members(record), base, ttl).await;
                    saved.map_err(|error| failed(&error))
                }

                async fn load(&self, id: &Id) -> Result<Option<Record>> {
                    let loaded = self.adapter.load(&id.to_string()).await;
                    let loaded = loaded.map_err(|error| failed(&error))?;
                    Ok(loaded.map(|loaded| {
                        let mut record = Record {
                            id: *id,
                            data: loaded.members,
                            expiry_date: expiry_date(loaded.ttl),
                        };
                        keep(&mut record, loaded.base);
                        record
                    }))
                }

                async fn delete(&self, id: &Id) -> Result<()> {
                    // The deletion is executed even if the future is dropped.
                    let deleted = self.adapter.destroy(&id.to_string()).await;
                    deleted.map(drop).map_err(|error| failed(&error))
                }
            }

            #[cfg_attr(docsrs, doc(cfg(feature = $feature)))]
            #[async_trait::async_trait]
            impl ExpiredDeletion for PostgresStore {
                /// One run of the reaper.
                async fn delete_expired(&self) -> Result<()> {
                    let reaper = Reaper::new(self.store().clone());
                    // If the future is dropped here, whole batches are deleted.
                    let reaped = reaper.run_once().await;
                    reaped.map(drop).map_err(|error| failed(&error))
                }
            }

            /// Keeps the base in the record. `Session::is_empty` counts members, so an empty
            /// session stays empty.
            fn keep(record: &mut Record, base: String) {
                if !record.data.is_empty() {
                    record.data.insert(BASE.to_owned(), Value::String(base));
                }
            }
        }
    };
}

implement!(v014, core_014, "core-014");
implement!(v015, core_015, "core-015");
