//! [`Session`]: the reads and changes of a handler, and the calls that save at once.
//!
//! A session is a handle to a [`State`] under a mutex. Synchronous calls lock it,
//! read the document or record a change, and run no query. An explicit save runs in
//! [`save_with`](Session::save_with): it is polled once in the handler's task and,
//! if it is not done, continues in a task of its own. [`saving`] has the writes.
//!
//! This module knows the [store](PgSessionStore) by its calls only. It doesn't know
//! requests, responses or SQL.

#![expect(
    clippy::needless_pass_by_value,
    reason = "a key is text or a `Key`, which are handles"
)]

use std::{
    fmt,
    future::{Future as _, poll_fn},
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
};

use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use tokio::task::unconstrained;
use tracing::Instrument as _;

use crate::{
    CookieLifetime, Error, ErrorKind, Expiry,
    document::{Document, Json, RESERVED, check_key, key::AsKey},
    expiry::instant,
    format::CookieChange,
    id::SessionId,
    state::{
        Origin, ReadOnlyReason, State,
        changes::{Apply, Change, decode, encode, erased},
    },
    store::{PgSessionStore, SessionEnd},
    timeouts::Timeouts,
};

pub(crate) mod failure_policy;
mod outcomes;
mod saving;
mod shape;
pub(crate) mod typed;
mod user;

use outcomes::{Caller, Saving};
pub(crate) use saving::Closing;

pub(crate) type BeforeSave = Arc<dyn Fn(&Session) -> Result<(), Error> + Send + Sync>;

/// The session of a request, as an extractor.
///
/// The first extractor of a request loads the row. After that, all calls except
/// [`save`](Self::save), [`take`](Self::take) and
/// [`update_now`](Self::update_now) are synchronous: they read what was loaded,
/// and record changes. The layer saves the changes after the handler has
/// returned, and sends the response after the commit. So a success response
/// means that the changes are committed, unless
/// [`on_save_failure`](crate::PgSessionLayer::on_save_failure) is set to
/// continue.
///
/// A failed response drops the changes, except a [`destroy`](Self::destroy). By
/// default, a 5xx or a 408 is a failed response; see
/// [`save_if`](crate::PgSessionLayer::save_if).
///
/// A save replays the changes on the newest row. So concurrent requests of a
/// session, in one process or in many, never overwrite each other's changes:
/// different keys are all kept, [`update`](Self::update) loses no change, and
/// if two requests [`insert`](Self::insert) the same key, the last save wins.
///
/// Clones are handles to the same session. After the response has started, you
/// can still read the session; a change is an error.
///
/// ```
/// use axum::{Router, body::Body, http::Request, routing::post};
/// use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};
/// use tower::ServiceExt;
///
/// async fn add(session: Session) -> Result<String, Error> {
///     let basket = session.update("basket", |basket: Option<Vec<String>>| {
///         let mut basket = basket.unwrap_or_default();
///         basket.push("pear".into());
///         basket
///     })?;
///     Ok(format!("{} in your basket", basket.len()))
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// let store = PgSessionStore::connect(database.url()).await?;
/// store.migrate().await?;
/// let app = Router::new().route("/", post(add)).layer(PgSessionLayer::new(store));
///
/// let response = app.oneshot(Request::post("/").body(Body::empty())?).await?;
/// assert!(response.headers().contains_key("set-cookie"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Session(Arc<Inner>);

/// The part of the layer's configuration that a session uses.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) store: PgSessionStore,
    pub(crate) timeouts: Arc<Timeouts>,
    /// The application's hook that runs before a save.
    pub(crate) before_save: Option<BeforeSave>,
}

struct Inner {
    settings: Arc<Settings>,
    state: Mutex<State>,
    /// The thread that holds the lock on `state`. If a closure locks it again
    /// on that thread, it gets an error instead of a deadlock.
    holder: AtomicUsize,
    /// Orders the saves of this request, so each starts from the row of the last
    /// one. The only lock of a session that is held across an `await`.
    saving: tokio::sync::Mutex<Saving>,
    /// Whether `valid_if` is checking the session.
    is_checked: AtomicBool,
    /// Whether a save of this request has begun a session.
    has_begun: AtomicBool,
}

/// The locked state.
struct Locked<'s> {
    state: MutexGuard<'s, State>,
    holder: &'s AtomicUsize,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.holder.store(0, Relaxed);
    }
}

/// A number that no other live thread has.
fn this_thread() -> usize {
    thread_local! {
        static MARK: u8 = const { 0 };
    }
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

impl Session {
    pub(crate) fn new(settings: Arc<Settings>, state: State) -> Self {
        let cookie = match state.origin() {
            Origin::ReadOnly(ReadOnlyReason::Ambiguous) => CookieChange::RemoveFormer,
            _ => CookieChange::None,
        };
        Self(Arc::new(Inner {
            settings,
            state: Mutex::new(state),
            holder: AtomicUsize::new(0),
            saving: tokio::sync::Mutex::new(Saving::new(cookie)),
            is_checked: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
        }))
    }

    /// Makes the response set the cookie of this session, whatever else it does. Must be
    /// called before the session is shared.
    pub(crate) fn sending_its_token(mut self) -> Self {
        let cookie = self.cookie_of(&self.state());
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.saving.get_mut().cookie = cookie;
        }
        self
    }

    fn store(&self) -> &PgSessionStore {
        &self.0.settings.store
    }

    #[cfg(feature = "testing")]
    pub(crate) fn row(&self) -> Option<Arc<crate::row::Row>> {
        self.state().row().cloned()
    }

    fn timeouts(&self) -> &Arc<Timeouts> {
        &self.0.settings.timeouts
    }

    /// Locks the state.
    ///
    /// # Panics
    ///
    /// If [`try_state`](Self::try_state) fails.
    fn state(&self) -> Locked<'_> {
        self.try_state().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Locks the state.
    ///
    /// # Errors
    ///
    /// If a closure that changes this session calls it: the closure runs under
    /// the lock.
    fn try_state(&self) -> Result<Locked<'_>, Error> {
        let (holder, me) = (&self.0.holder, this_thread());
        // Only this thread stores its own mark.
        if holder.load(Relaxed) == me {
            return Err(Error::reentrant());
        }
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        holder.store(me, Relaxed);
        Ok(Locked { state, holder })
    }

    fn open_state(&self) -> Result<Locked<'_>, Error> {
        let state = self.try_state()?;
        state.check_open()?;
        Ok(state)
    }

    /// Returns the value of `key`, or `None` if there is none or it is JSON's
    /// `null`.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("theme", "dark")).await?;
    ///
    /// let session = ada.session().await?;
    /// assert_eq!(session.get::<String>("theme")?.as_deref(), Some("dark"));
    /// assert_eq!(session.get::<String>("language")?, None);
    /// assert!(session.get::<u64>("theme").is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) if the value is not a
    /// `T`. The value stays as it is.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsKey<T>) -> Result<Option<T>, Error> {
        let key = key.as_ref();
        if key == RESERVED {
            return Ok(None);
        }
        let state = self.try_state()?;
        state
            .document()
            .get(key)
            .map_or(Ok(None), |raw| decode(key, raw))
    }

    /// Sets `key` to `value`, replacing the old value.
    ///
    /// A value that equals the loaded one is no change and runs no query.
    ///
    /// ```
    /// use axum_pg_session::{ErrorKind, Key};
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// const BASKET: Key<Vec<String>> = Key::new("basket");
    ///
    /// ada.with_session(|session| session.insert(BASKET, vec!["tea".to_owned()])).await?;
    /// assert_eq!(ada.session().await?.get(BASKET)?, Some(vec!["tea".to_owned()]));
    ///
    /// let refused = ada.with_session(|session| session.insert("price", f64::NAN)).await;
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::Serialize);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of one of these kinds:
    ///
    /// - [`Serialize`](ErrorKind::Serialize) if `value` can't be written as
    ///   JSON, or holds a float that JSON can't express (NaN or an infinity).
    /// - [`TooLarge`](ErrorKind::TooLarge) if the session would exceed a
    ///   [limit](crate::PgSessionLayer::max_document_size).
    /// - [`ReservedKey`](ErrorKind::ReservedKey) for `_session`.
    /// - [`ResponseStarted`](ErrorKind::ResponseStarted) if the response has
    ///   started.
    pub fn insert<T: Serialize>(&self, key: impl AsKey<T>, value: T) -> Result<(), Error> {
        let key = key.as_ref();
        self.check_key(key)?;
        let value = encode(key, &value)?;
        self.check_value(key, &value)?;
        let insert = self.tagged(key, Change::Insert(key.to_owned(), value));
        self.open_state()?.apply(insert)
    }

    /// Removes `key` and returns its value.
    ///
    /// Use this for values that are read once, such as flash messages. The
    /// removal is committed after the handler, so two concurrent requests can
    /// both get the value. For a one-time token, use [`take`](Self::take).
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("flash", "Your profile is saved.")).await?;
    ///
    /// let flash = ada.with_session(|session| session.remove::<String>("flash")).await?;
    /// assert_eq!(flash.as_deref(), Some("Your profile is saved."));
    /// assert!(!ada.session().await?.contains_key("flash"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) if the value is not a
    /// `T`. The value then stays; [`delete`](Self::delete) removes it. Also
    /// those of [`insert`](Self::insert).
    pub fn remove<T: DeserializeOwned>(&self, key: impl AsKey<T>) -> Result<Option<T>, Error> {
        let key = key.as_ref();
        self.check_key(key)?;
        self.check_removal(key)?;
        let mut state = self.open_state()?;
        let Some(raw) = state.document().get(key) else {
            return Ok(None);
        };
        let value = decode(key, raw)?;
        state.apply(Change::Remove(key.to_owned()))?;
        Ok(value)
    }

    /// Removes `key` without reading its value. Returns whether it had one.
    ///
    /// Use this for a value that can't be deserialized, such as one that an
    /// earlier version of the site stored with another type.
    ///
    /// ```
    /// use axum_pg_session::{Error, Key, Session};
    ///
    /// const THEME: Key<u8> = Key::new("theme");
    ///
    /// /// Themes were stored as text once.
    /// fn theme(session: &Session) -> Result<u8, Error> {
    ///     if session.get(THEME).is_err() {
    ///         session.delete(THEME)?;
    ///     }
    ///     Ok(session.get(THEME)?.unwrap_or(0))
    /// }
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none")?;
    /// # let app = axum::Router::new()
    /// #     .route("/", axum::routing::get(async |session: Session| {
    /// #         session.insert("theme", "dark")?;
    /// #         assert_eq!(theme(&session)?, 0);
    /// #         assert!(!session.contains_key("theme"));
    /// #         session.discard()
    /// #     }))
    /// #     .layer(PgSessionLayer::new(PgSessionStore::new(pool)));
    /// # let response = tower::ServiceExt::oneshot(app, http::Request::new(axum::body::Body::empty())).await?;
    /// # assert!(response.status().is_success());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`ReservedKey`](ErrorKind::ReservedKey) for `_session`, and
    /// [`ResponseStarted`](ErrorKind::ResponseStarted) if the response has
    /// started.
    pub fn delete(&self, key: impl AsRef<str>) -> Result<bool, Error> {
        let key = key.as_ref();
        self.check_key(key)?;
        self.check_removal(key)?;
        let mut state = self.open_state()?;
        if state.document().get(key).is_none() {
            return Ok(false);
        }
        state.apply(Change::Remove(key.to_owned()))?;
        Ok(true)
    }

    /// Sets `key` to the result of `update` on its value, and returns the
    /// result.
    ///
    /// Unlike `get` followed by `insert`, it loses no change if requests are
    /// concurrent. If another request is saved first, `update` is called again
    /// with the newer value. So `update` should depend only on its argument,
    /// and the committed value may differ from the returned one. Call
    /// [`update_now`](Self::update_now) to get the committed value.
    /// `update` must own what it uses, because it can be called after the handler
    /// has returned.
    ///
    /// `update` must not use this session: calls that return a `Result` fail
    /// with [`Reentrant`](ErrorKind::Reentrant), the others panic.
    ///
    /// ```
    /// use axum_pg_session::{Error, testing::TestVisitor};
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// /// Adds an article, in a request of its own.
    /// async fn add(visitor: &TestVisitor, article: &str) -> Result<(), Error> {
    ///     let article = article.to_owned();
    ///     let add = move |basket: Option<Vec<String>>| {
    ///         let mut basket = basket.unwrap_or_default();
    ///         basket.push(article.clone());
    ///         basket
    ///     };
    ///     visitor.with_session(|session| session.update("basket", add)).await.map(drop)
    /// }
    ///
    /// add(&ada, "tea").await?;
    /// tokio::try_join!(add(&ada, "milk"), add(&ada, "sugar"))?;
    /// assert_eq!(ada.session().await?.get::<Vec<String>>("basket")?.map(|basket| basket.len()), Some(3));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) if the value is not a
    /// `T`, and those of [`insert`](Self::insert).
    pub fn update<T, U>(
        &self,
        key: impl AsKey<T> + AsKey<U>,
        mut update: impl FnMut(Option<T>) -> U + Send + 'static,
    ) -> Result<U, Error>
    where
        T: DeserializeOwned,
        U: Serialize + 'static,
    {
        let key = AsRef::<str>::as_ref(&key);
        self.check_key(key)?;
        let mut state = self.open_state()?;
        let current = state
            .document()
            .get(key)
            .map_or(Ok(None), |raw| decode(key, raw))?;
        let updated = update(current);
        let value = encode(key, &updated)?;
        self.check_value(key, &value)?;
        let apply = self.checked(key, erased(key, state.limits(), update, drop));
        let update = self.tagged(key, Change::Update(key.to_owned(), apply));
        state.record(update, key, value)?;
        Ok(updated)
    }

    /// Replaces all keys with the fields of `value`, which must serialize to a
    /// JSON object. The session, its id and its expiry stay.
    ///
    /// It works like [`clear`](Self::clear) followed by an
    /// [`insert`](Self::insert) of each field: it overwrites what other
    /// requests saved before it.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("basket", ["tea"])).await?;
    ///
    /// let settings = serde_json::json!({ "language": "en", "theme": "dark" });
    /// ada.with_session(|session| session.replace(settings)).await?;
    /// assert_eq!(ada.session().await?.keys(), ["language", "theme"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Serialize`](ErrorKind::Serialize) if `value` is not an object,
    /// and those of [`insert`](Self::insert). On error, nothing is changed.
    pub fn replace(&self, value: impl Serialize) -> Result<(), Error> {
        let members = Document::of(&value)?;
        let mut changes = vec![Change::Clear];
        for (key, value) in members {
            self.check_key(&key)?;
            self.check_value(&key, &value)?;
            changes.push(self.tagged(&key.clone(), Change::Insert(key, value)));
        }
        self.open_state()?.apply_all(changes)
    }

    /// Removes all keys. The session, its id and its expiry stay.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("basket", ["tea"])).await?;
    /// let id = ada.session().await?.id();
    ///
    /// ada.with_session(|session| session.clear()).await?;
    /// let session = ada.session().await?;
    /// assert!(session.is_empty());
    /// assert_eq!(session.id(), id);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) if the response
    /// has started.
    pub fn clear(&self) -> Result<(), Error> {
        self.open_state()?.apply(Change::Clear)
    }

    /// Returns the keys, in the order in which they were first inserted.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.state().document().keys().map(str::to_owned).collect()
    }

    /// Returns whether `key` has a value.
    #[must_use]
    pub fn contains_key(&self, key: impl AsRef<str>) -> bool {
        let key = key.as_ref();
        key != RESERVED && self.state().document().get(key).is_some()
    }

    /// Returns whether the session has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state().document().is_empty()
    }

    /// Gives the session a new id when it is saved. The data stays.
    ///
    /// Call it at every change of privilege (ASVS 5.0 item 7.2.4), for example
    /// when a user switches to another role or confirms a second factor. A
    /// token that an attacker planted or saw before no longer opens the
    /// session. To sign a user in, call [`login`](Self::login), which also
    /// changes the id.
    ///
    /// The change is one transaction: at every instant the old or the new id
    /// works. A failed response (a 5xx or a 408) keeps the old id.
    ///
    /// A request in flight under the old id keeps what it loaded, and its
    /// changes are saved under the new id. A request that is sent with the old
    /// id later reads an empty session. For 5 seconds it can't change that
    /// session: a write is a 503, and the browser's cookies stay as they are.
    /// After that, a write begins a new session. If two requests cycle at the
    /// same time, the second is a 503.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("basket", ["tea"])).await?;
    /// let thief = ada.clone_cookies();
    ///
    /// ada.with_session(|session| session.cycle_id()).await?;
    /// assert!(ada.session().await?.contains_key("basket"));
    /// assert!(thief.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) if the response
    /// has started.
    pub fn cycle_id(&self) -> Result<(), Error> {
        self.open_state()?.cycle();
        Ok(())
    }

    /// Destroys the session: deletes its row and removes the browser's cookie,
    /// even if the response is a 5xx or a 408. If there is no response, because
    /// the handler panics or is canceled, the session stays.
    ///
    /// A destroyed session stays destroyed: the late changes of other requests
    /// are dropped, and their responses are a 503. What this request inserts
    /// afterwards, such as a farewell message, begins a new session.
    ///
    /// If the database does not confirm the deletion, the response is a 503,
    /// and the browser keeps the cookie. The session may still exist.
    ///
    /// It also destroys each session that the request's cookies opened and that
    /// [`valid_if`](crate::PgSessionLayer::valid_if) or the layer's timeouts ended,
    /// even if this request has begun a new one.
    ///
    /// If the session got a new id while the request ran, it is destroyed under
    /// that id. In the formats of Koa and Express, this works only in the process
    /// that made the new id. In another process the row is missing, so the response
    /// is a 503, unless a `destroy` in that process deleted it.
    ///
    /// A request can't destroy a session if its token was replaced less than 5
    /// seconds ago: the response is a 503. If its cookies open several sessions, the
    /// response is a 400.
    ///
    /// A form that another site posts comes without the `SameSite=Lax` cookie, so
    /// there is no session to destroy: the response is a success, and the visitor's
    /// session stays. With
    /// [`begin_on_cross_site_post(false)`](crate::PgSessionLayer::begin_on_cross_site_post)
    /// the response is a 403 ([`CrossSite`](ErrorKind::CrossSite)).
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("basket", ["tea"])).await?;
    /// ada.with_session(|session| session.destroy()).await?;
    /// assert!(ada.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) if the response
    /// has started.
    pub fn destroy(&self) -> Result<(), Error> {
        self.open_state()?.destroy();
        Ok(())
    }

    /// Returns the public handle of the stored session. It is safe to show and
    /// to log.
    ///
    /// `None` if nothing is stored yet. [`cycle_id`](Self::cycle_id) and
    /// [`login`](Self::login) change it when they are saved.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store.clone());
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| {
    ///     assert_eq!(session.id(), None);
    ///     session.login("ada")
    /// })
    /// .await?;
    ///
    /// let id = ada.session().await?.id().expect("it is stored");
    /// assert!(store.user("ada").destroy(&id).await?);
    /// assert!(ada.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        let format = self.store().format();
        self.state().row().map(|row| format.handle(&row.id))
    }

    /// Watches the session, for a socket or a stream that outlives the request. The result is a
    /// future that is ready when the session no longer exists, and returns the
    /// [`Ending`](crate::Ending). `None` if nothing is stored yet, as for [`id`](Self::id). The
    /// session of an anonymous visitor is watched, too, so check the user as well.
    ///
    /// This call runs no query. The future is ready at once if this process destroys the session,
    /// and after [a few seconds](PgSessionStore::watch_interval) if another one does, or if the
    /// session expires. It follows the session to a new id, and never extends it.
    /// [`PgSessionStore::watch`] has the details.
    ///
    /// After a [`login`](Self::login) in the same request, call [`save`](Self::save) first:
    /// otherwise this watches the former session, which the login replaces.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use axum::{http::StatusCode, response::{IntoResponse, Sse, sse::Event}};
    /// use axum_pg_session::Session;
    /// use futures_util::{Stream, StreamExt, stream};
    ///
    /// # fn news() -> impl Stream<Item = Result<Event, Infallible>> { stream::empty() }
    /// /// Server-sent events that end when the visitor signs out.
    /// async fn events(session: Session) -> Result<impl IntoResponse, StatusCode> {
    ///     let ended = session.user_id().and_then(|_| session.ended());
    ///     let ended = ended.ok_or(StatusCode::UNAUTHORIZED)?;
    ///     Ok(Sse::new(news().take_until(ended)))
    /// }
    /// # use axum::{Router, routing::get};
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// # let app = Router::new().route("/", get(events)).layer(layer.clone());
    /// # let request = || axum::http::Request::get("/").body(axum::body::Body::empty());
    /// # let ada = TestVisitor::new(&layer);
    /// # assert_eq!(ada.send(&app, request()?).await?.status(), StatusCode::UNAUTHORIZED);
    /// # ada.with_session(|session| session.insert("basket", 1)).await?;
    /// # assert_eq!(ada.send(&app, request()?).await?.status(), StatusCode::UNAUTHORIZED);
    /// # ada.with_session(|session| session.login("ada")).await?;
    /// # assert_eq!(ada.send(&app, request()?).await?.status(), StatusCode::OK);
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// If it is called outside of a tokio runtime.
    #[must_use]
    pub fn ended(&self) -> Option<SessionEnd> {
        self.state().row().map(|row| self.store().watch_row(row))
    }

    /// Returns whether nothing is stored for this session yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state().is_new()
    }

    /// Returns whether the next save begins a session: nothing is stored yet, and
    /// the handler has made changes that need a row and a cookie.
    ///
    /// It is `false` before the handler and for a session that gets a new id. It is also
    /// `false` after an explicit [`save`](Self::save): see
    /// [`was_created`](Self::was_created). In a
    /// middleware, use
    /// [`LazySession::will_be_created`](crate::LazySession::will_be_created),
    /// which doesn't load the session.
    #[must_use]
    pub fn will_be_created(&self) -> bool {
        self.state().begins_a_session()
    }

    /// Returns whether an explicit [`save`](Self::save) of this request has begun
    /// this session, and the handler has not destroyed it since.
    #[must_use]
    pub fn was_created(&self) -> bool {
        self.0.has_begun.load(Relaxed) && !self.is_new()
    }

    /// Returns when the session expires if no other request arrives, by the
    /// database's clock.
    ///
    /// `None` if nothing is stored yet, or if another writer set the expiry to
    /// `infinity`.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.state()
            .row()
            .and_then(|row| instant(row.times.expires))
    }

    /// Sets when this session expires, instead of the layer's timeouts.
    ///
    /// The choice is stored with the session, so it also applies to later
    /// requests. The browser gets a cookie with the same lifetime.
    ///
    /// In the formats of Koa and Express it is stored where they read it. There, an
    /// [`idle_timeout`](crate::PgSessionLayer::idle_timeout) of the layer takes
    /// precedence for the row.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_pg_session::Expiry;
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// const MINUTE: Duration = Duration::from_secs(60);
    ///
    /// ada.with_session(|session| {
    ///     session.insert("basket", ["tea"])?;
    ///     session.set_expiry(Expiry::Idle(10 * MINUTE))
    /// })
    /// .await?;
    /// ada.idle_for(9 * MINUTE).await?;
    /// assert!(!ada.session().await?.is_new());
    /// ada.idle_for(2 * MINUTE).await?;
    /// assert!(ada.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) if the response
    /// has started, and [`Setup`](ErrorKind::Setup) if the table or its format
    /// can't keep the choice, see [`Expiry::At`] and [`Expiry::Timeouts`].
    pub fn set_expiry(&self, expiry: Expiry) -> Result<(), Error> {
        let mut state = self.open_state()?;
        self.check_expiry(expiry)?;
        let blank = Arc::clone(state.blank());
        state.apply(Change::Expiry(expiry, blank))
    }

    /// Sets how long the browser keeps the cookie of this session, instead of
    /// the layer's [`cookie_lifetime`](crate::PgSessionLayer::cookie_lifetime).
    ///
    /// The choice is stored with the session, and the response sets the cookie
    /// again. A later [`login`](Self::login) replaces the choice with its own,
    /// unless it has [`Login::keep_settings`](crate::Login::keep_settings).
    ///
    /// In the formats of Koa and Express the choice is the member `maxAge` or
    /// `originalMaxAge` of the stored cookie, which is also the session's idle timeout
    /// there. If neither the session nor the layer has one, `Persistent` sets the idle
    /// timeout that the other application gives such a session: 45 minutes in Koa, and
    /// 1 day in Express.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::Request, routing::post};
    /// use axum_pg_session::{CookieLifetime, Error, Session};
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// /// The cookie ends with the browser on a public computer.
    /// async fn start(session: Session) -> Result<(), Error> {
    ///     session.set_cookie_lifetime(CookieLifetime::BrowserSession)?;
    ///     session.insert("basket", ["tea"])
    /// }
    ///
    /// let app = Router::new().route("/", post(start)).layer(layer);
    /// let response = ada.send(&app, Request::post("/").body(Body::empty())?).await?;
    /// assert!(!response.headers()["set-cookie"].to_str()?.contains("Max-Age"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) if the response
    /// has started.
    pub fn set_cookie_lifetime(&self, lifetime: CookieLifetime) -> Result<(), Error> {
        self.open_state()?.set_cookie_lifetime(Some(lifetime))
    }

    /// Extends the session with this request, whatever the layer's
    /// [`touch_interval`](crate::PgSessionLayer::touch_interval) and
    /// [`touch_if`](crate::PgSessionLayer::touch_if) are. A new session is
    /// stored even if it is empty.
    ///
    /// A failed response (a 5xx or a 408) drops this call, as it drops changes.
    /// The layer may still extend the session by its own rules.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.touch()).await?;
    /// let session = ada.session().await?;
    /// assert!(session.is_empty() && !session.is_new());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) if the response
    /// has started.
    pub fn touch(&self) -> Result<(), Error> {
        self.open_state()?.touch();
        Ok(())
    }

    /// Drops the changes that this request made since the session was loaded or last
    /// [saved](Self::save) explicitly, a [`destroy`](Self::destroy) included.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("theme", "dark")).await?;
    /// ada.with_session(|session| {
    ///     session.insert("theme", "light")?;
    ///     session.destroy()?;
    ///     session.discard()
    /// })
    /// .await?;
    /// assert_eq!(ada.session().await?.get::<String>("theme")?.as_deref(), Some("dark"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) if the response
    /// has started.
    pub fn discard(&self) -> Result<(), Error> {
        self.open_state()?.discard();
        Ok(())
    }

    /// Saves the changes so far now, instead of after the handler.
    ///
    /// When it returns, the changes are committed and visible to other
    /// requests, whatever the response is. The cookie is still sent with the
    /// response, and only the response extends the session.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::{Request, StatusCode}, routing::post};
    /// use axum_pg_session::{Error, Session};
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// /// The order is committed before the mail is sent, so it stays if that fails.
    /// async fn order(session: Session) -> Result<StatusCode, Error> {
    ///     session.insert("order", 4711)?;
    ///     session.save().await?;
    ///     session.insert("mailed", true)?; // dropped with the failed response
    ///     Ok(StatusCode::BAD_GATEWAY)
    /// }
    ///
    /// let app = Router::new().route("/", post(order)).layer(layer);
    /// let response = ada.send(&app, Request::post("/").body(Body::empty())?).await?;
    /// assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    /// assert_eq!(ada.session().await?.keys(), ["order"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// If the changes could not be committed. They are dropped, but a
    /// [`destroy`](Self::destroy) is tried again with the response. Of kind
    /// [`Ended`](ErrorKind::Ended) if the session was destroyed meanwhile. If
    /// the request timed out or the connection was lost during the commit, the kind is
    /// [`Unavailable`](ErrorKind::Unavailable), and the changes may be
    /// committed all the same. Of kind [`Reentrant`](ErrorKind::Reentrant) in
    /// [`valid_if`](crate::PgSessionLayer::valid_if): the changes of the check are
    /// saved with the response.
    ///
    /// If the caller stops waiting, the save continues. If it fails then, the next
    /// save or the response fails with the same error, so that no change is lost
    /// without an error.
    pub async fn save(&self) -> Result<(), Error> {
        self.open_state().map(drop)?;
        self.save_with(None).await
    }

    /// Saves the recorded changes and then this one, whose closure runs on the
    /// committed value.
    ///
    /// The save must not be dropped with the handler: a token that is being
    /// committed would be lost, though the response could still set its cookie. So
    /// the first poll runs here, which avoids a task if the save has nothing to wait
    /// for. If it waits, a task finishes it. There is no `await` in between at which
    /// it could be dropped.
    async fn save_with(&self, last: Option<Change>) -> Result<(), Error> {
        if self.0.is_checked.load(Relaxed) {
            return Err(Error::saved_by_its_check());
        }
        let (session, caller) = (self.clone(), Caller::default());
        let waiting = caller.waits();
        let saving = async move { session.save_now(last, caller).await }.in_current_span();
        // This poll puts the save into the line for the mutex, before the response can
        // enter it. `unconstrained`, because a task that has used up its budget would
        // not get into the line.
        let mut saving = Box::pin(unconstrained(saving));
        let first = poll_fn(|context| {
            let poll = AssertUnwindSafe(|| saving.as_mut().poll(context));
            Poll::Ready(catch_unwind(poll))
        });
        let outcome = match first.await {
            Ok(Poll::Ready(outcome)) => Ok(outcome),
            // If dropped here, the task finishes the save. `waiting` records that the
            // caller has left, so the next save or the response reports an error.
            Ok(Poll::Pending) => tokio::spawn(saving).await.or_else(|stopped| {
                stopped
                    .try_into_panic()
                    .map_or_else(|_| Ok(Err(Error::abandoned())), Err)
            }),
            Err(panic) => Err(panic),
        };
        waiting.got_the_outcome();
        // If a hook of the application panicked, the handler gets the panic.
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs the application's check of this session, which must not save it. A save
    /// could give the session a new token that is lost if the check fails. It could
    /// also be in flight when the check refuses the session.
    pub(crate) async fn under_check<T>(&self, check: impl Future<Output = T>) -> T {
        self.0.is_checked.store(true, Relaxed);
        // If dropped here, the flag stays set. The session is dropped, too: the
        // caller has not given it to the handler yet.
        let outcome = check.await;
        self.0.is_checked.store(false, Relaxed);
        outcome
    }

    /// Removes `key`, commits the removal now, and returns the value. If
    /// several requests take it, in one process or in many, at most one gets
    /// it. If the session got a new id while another request ran, a login of that
    /// request begins a session of its own, with a copy of the values that are
    /// left. See the [guarantees](crate::guide::guarantees).
    ///
    /// Use this for values that must be used only once, such as the state of an
    /// OAuth redirect or the token of a form. Like [`save`](Self::save), it
    /// also commits the changes recorded before. If the caller stops waiting,
    /// the value may be removed without any caller getting it.
    ///
    /// ```
    /// use axum::{Router, body::Body, extract::Path, http::Request, routing::get};
    /// use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session, testing::TestVisitor};
    ///
    /// /// Only the first of two clicks succeeds.
    /// async fn confirm(session: Session) -> Result<&'static str, Error> {
    ///     match session.take::<String>("nonce").await? {
    ///         Some(_) => Ok("confirmed"),
    ///         None => Ok("confirmed before"),
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("nonce", "8f3a")).await?;
    ///
    /// let app = Router::new().route("/", get(confirm)).layer(layer);
    /// for expected in ["confirmed", "confirmed before"] {
    ///     let response = ada.send(&app, Request::get("/").body(Body::empty())?).await?;
    ///     let body = axum::body::to_bytes(response.into_body(), 100).await?;
    ///     assert_eq!(body, expected);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) if the value is not a
    /// `T`, and [`Ended`](ErrorKind::Ended) if the session was destroyed or got
    /// a new id since it was loaded. Also those of [`insert`](Self::insert) and
    /// [`save`](Self::save). On error, the value stays, unless the kind is
    /// [`Unavailable`](ErrorKind::Unavailable): then the removal may be
    /// committed. The changes recorded before are dropped, unless the error
    /// came before the save.
    pub async fn take<T>(&self, key: impl AsKey<T>) -> Result<Option<T>, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let key = key.as_ref();
        self.check_key(key)?;
        self.check_removal(key)?;
        self.open_state().map(drop)?;
        let taken = Arc::new(Mutex::new(None));
        let (keep, name) = (Arc::clone(&taken), key.to_owned());
        let read = move |stored: Option<&Json>| {
            let value = stored.map_or(Ok(None), |raw| decode(&name, raw))?;
            *locked(&keep) = value;
            Ok(())
        };
        let change = Change::Take(key.to_owned(), Box::new(read));
        // If dropped here, the removal may be committed, and the value is lost.
        self.save_with(Some(change)).await?;
        Ok(locked(&taken).take())
    }

    /// Sets `key` to the result of `update` on its value, commits that now, and
    /// returns the committed value.
    ///
    /// Use this for limits that must not be exceeded, such as a quota or the
    /// number of attempts at a code: each concurrent request gets a different
    /// number. It counts for this session. A visitor can begin others, so limit
    /// what a user may do in a table of your own, too. Like [`save`](Self::save),
    /// it also commits the changes recorded before. If another request is saved first, `update` is called again with
    /// the newer value; the last call counts.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::{Request, StatusCode}, routing::post};
    /// use axum_pg_session::{Error, Session};
    ///
    /// /// A visitor may try three times.
    /// async fn enter_code(session: Session) -> Result<StatusCode, Error> {
    ///     let attempts = session
    ///         .update_now("attempts", |attempts: Option<u32>| attempts.unwrap_or(0) + 1)
    ///         .await?;
    ///     Ok(if attempts <= 3 { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS })
    /// }
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// let app = Router::new().route("/", post(enter_code)).layer(layer);
    /// for expected in [200, 200, 200, 429] {
    ///     let response = ada.send(&app, Request::post("/").body(Body::empty())?).await?;
    ///     assert_eq!(response.status(), expected);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`update`](Self::update) and [`save`](Self::save), and of kind
    /// [`Ended`](ErrorKind::Ended) if the session was destroyed or got a new id
    /// since it was loaded. On error, nothing is changed, unless the kind is
    /// [`Unavailable`](ErrorKind::Unavailable): then the update may be
    /// committed. The changes recorded before are dropped, unless the error
    /// came before the save.
    pub async fn update_now<T, U>(
        &self,
        key: impl AsKey<T> + AsKey<U>,
        update: impl FnMut(Option<T>) -> U + Send + 'static,
    ) -> Result<U, Error>
    where
        T: DeserializeOwned,
        U: Serialize + Send + 'static,
    {
        let key = AsRef::<str>::as_ref(&key);
        self.check_key(key)?;
        let limits = self.open_state()?.limits();
        let updated = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&updated);
        let keep = move |value| *locked(&kept) = Some(value);
        let apply = self.checked(key, erased(key, limits, update, keep));
        let change = self.tagged(key, Change::UpdateNow(key.to_owned(), apply));
        // If dropped here, the update may be committed.
        self.save_with(Some(change)).await?;
        let updated = locked(&updated).take();
        updated.ok_or_else(Error::abandoned)
    }

    /// # Errors
    ///
    /// For the crate's own member, and for names that the format can't keep.
    fn check_key(&self, key: &str) -> Result<(), Error> {
        check_key(self.store().format().layout(), key)
    }

    fn is_own(&self, key: &str) -> bool {
        self.store().format().layout().own_key() == Some(key)
    }

    /// The change as it is recorded. A change of the format's own member
    /// concerns the session's lifetime and cookie, so it is wrapped in
    /// `Change::Terms`.
    fn tagged(&self, key: &str, change: Change) -> Change {
        match self.is_own(key) {
            true => Change::Terms(Box::new(change)),
            false => change,
        }
    }

    fn check_value(&self, key: &str, value: &Json) -> Result<(), Error> {
        match self.is_own(key) && !value.is_object() {
            true => Err(no_object(key)),
            false => Ok(()),
        }
    }

    fn check_removal(&self, key: &str) -> Result<(), Error> {
        match self.is_own(key) {
            true => Err(no_object(key)),
            false => Ok(()),
        }
    }

    /// The closure for later replays, with the same check.
    fn checked(&self, key: &str, mut apply: Apply) -> Apply {
        if !self.is_own(key) {
            return apply;
        }
        let key = key.to_owned();
        Box::new(move |stored| {
            let value = apply(stored)?;
            match value.is_object() {
                true => Ok(value),
                false => Err(no_object(&key)),
            }
        })
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Session {
    /// Omits the values, because they can be personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

fn no_object(key: &str) -> Error {
    Error::new(
        ErrorKind::ReservedKey,
        format!("the key {key} holds the cookie's attributes and must stay an object"),
    )
}
