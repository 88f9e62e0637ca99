#![expect(
    clippy::needless_pass_by_value,
    reason = "a key is text or a `Key`, which are handles"
)]

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use tracing::Instrument as _;

use crate::{
    CookieLifetime, Error, Expiry,
    changes::{Change, decode, encode, erased},
    config::Config,
    document::{Document, Json, RESERVED, check_key},
    expiry::{Timeouts, instant},
    format::CookieChange,
    id::SessionId,
    key::SessionKey,
    state::{Origin, ReadOnlyReason, State},
    store::PgSessionStore,
};

#[cfg(doc)]
use crate::ErrorKind;

mod commit;
mod shaped;
mod terms;
mod user;

pub(crate) use commit::Closing;

/// The session of a request, as an extractor.
///
/// The row is loaded once per request, when the first extractor asks for it;
/// from then on all calls but [`save`](Self::save) are synchronous. What a
/// handler does is recorded and saved after it has returned, before the
/// response is sent: a response that says yes is a change that is committed.
/// An answer of 5xx drops the record (but not a [`destroy`](Self::destroy)).
///
/// Saving replays the record on the row as it is by then. So requests of one
/// session that run at the same moment, in one process or many, do not undo
/// each other: different keys all survive, [`update`](Self::update) loses
/// nothing, and of two [`insert`](Self::insert)s of one key the last to be
/// saved wins.
///
/// Clones are handles of the same session. Once the response has started,
/// reading goes on working and changes are errors.
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

struct Inner {
    config: Arc<Config>,
    state: Mutex<State>,
    /// Which thread holds the state's lock, so that a closure that asks for it
    /// again gets an error instead of waiting for itself.
    holder: AtomicUsize,
    /// One save at a time, so that each starts from the row of the last.
    saving: tokio::sync::Mutex<CookieChange>,
}

/// The state, locked.
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
    pub(crate) fn new(config: Arc<Config>, state: State) -> Self {
        let cookie = match state.origin() {
            Origin::ReadOnly(ReadOnlyReason::Ambiguous) => CookieChange::RemoveFormer,
            _ => CookieChange::None,
        };
        Self(Arc::new(Inner {
            config,
            state: Mutex::new(state),
            holder: AtomicUsize::new(0),
            saving: tokio::sync::Mutex::new(cookie),
        }))
    }

    fn store(&self) -> &PgSessionStore {
        &self.0.config.store
    }

    #[cfg(feature = "testing")]
    pub(crate) fn row(&self) -> Option<Arc<crate::store::Row>> {
        self.state().row().cloned()
    }

    fn timeouts(&self) -> &Arc<Timeouts> {
        &self.0.config.timeouts
    }

    /// # Panics
    ///
    /// Where [`try_state`](Self::try_state) fails.
    fn state(&self) -> Locked<'_> {
        self.try_state().unwrap_or_else(|error| panic!("{error}"))
    }

    /// # Errors
    ///
    /// In a closure that changes this session, which holds the lock.
    fn try_state(&self) -> Result<Locked<'_>, Error> {
        let (holder, me) = (&self.0.holder, this_thread());
        // Only this thread itself stores its own mark.
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

    /// The value of `key`; `None` where there is none or it is JSON's `null`.
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) when the value is not
    /// a `T`. It stays as it is.
    pub fn get<T: DeserializeOwned>(&self, key: impl SessionKey<T>) -> Result<Option<T>, Error> {
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

    /// Sets `key` to `value`, whatever it was.
    ///
    /// A value equal to the one that was loaded is no change and costs no
    /// statement.
    ///
    /// # Errors
    ///
    /// Of kind [`Serialize`](ErrorKind::Serialize) when `value` can't be
    /// written as JSON or holds a float that JSON can't express, NaN or an
    /// infinity, [`TooLarge`](ErrorKind::TooLarge) when the session
    /// would exceed a [limit](crate::PgSessionLayer::max_document_size),
    /// [`ReservedKey`](ErrorKind::ReservedKey) for `_session`, and
    /// [`ResponseStarted`](ErrorKind::ResponseStarted) when it is too late.
    pub fn insert<T: Serialize>(&self, key: impl SessionKey<T>, value: T) -> Result<(), Error> {
        let key = key.as_ref();
        check_key(key)?;
        let value = encode(key, &value)?;
        self.check_value(key, &value)?;
        let insert = self.about(key, Change::Insert(key.to_owned(), value));
        self.open_state()?.apply(insert)
    }

    /// Removes `key` and returns the value that it had.
    ///
    /// Use this for values that are read once, such as flash messages. The
    /// removal is committed after the handler, so of two requests that run at
    /// the same time both can get the value. A one-time token needs
    /// [`take`](Self::take).
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) when the value is not a
    /// `T`; then it stays, until [`delete`](Self::delete). And those of
    /// [`insert`](Self::insert).
    pub fn remove<T: DeserializeOwned>(&self, key: impl SessionKey<T>) -> Result<Option<T>, Error> {
        let key = key.as_ref();
        check_key(key)?;
        self.check_removal(key)?;
        let mut state = self.open_state()?;
        let Some(raw) = state.document().get(key) else {
            return Ok(None);
        };
        let value = decode(key, raw)?;
        state.apply(Change::Remove(key.to_owned()))?;
        Ok(value)
    }

    /// Removes `key` without reading its value. Returns whether there was one.
    ///
    /// Use this for a value that can't be read any more, such as one that an
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
    /// # let answer = tower::ServiceExt::oneshot(app, http::Request::new(axum::body::Body::empty())).await?;
    /// # assert!(answer.status().is_success());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`ReservedKey`](ErrorKind::ReservedKey) for `_session`, and
    /// [`ResponseStarted`](ErrorKind::ResponseStarted) when it is too late.
    pub fn delete(&self, key: impl AsRef<str>) -> Result<bool, Error> {
        let key = key.as_ref();
        check_key(key)?;
        self.check_removal(key)?;
        let mut state = self.open_state()?;
        if state.document().get(key).is_none() {
            return Ok(false);
        }
        state.apply(Change::Remove(key.to_owned()))?;
        Ok(true)
    }

    /// Sets `key` to what `update` makes of its value, and answers that.
    ///
    /// Unlike `get` and `insert` it loses nothing when requests run at the
    /// same moment: if another one was saved first, `update` is called again
    /// with the newer value. So it should depend on nothing but its argument,
    /// and what it returned at first may not be what is committed:
    /// [`update_now`](Self::update_now) returns that. It must not use this
    /// session itself: calls that return a `Result` fail with
    /// [`Reentrant`](ErrorKind::Reentrant), the others panic.
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) when the value is not a
    /// `T`, and those of [`insert`](Self::insert).
    pub fn update<T, U>(
        &self,
        key: impl SessionKey<T> + SessionKey<U>,
        mut update: impl FnMut(Option<T>) -> U + Send + 'static,
    ) -> Result<U, Error>
    where
        T: DeserializeOwned,
        U: Serialize + 'static,
    {
        let key = AsRef::<str>::as_ref(&key);
        check_key(key)?;
        let mut state = self.open_state()?;
        let current = state
            .document()
            .get(key)
            .map_or(Ok(None), |raw| decode(key, raw))?;
        let updated = update(current);
        let value = encode(key, &updated)?;
        self.check_value(key, &value)?;
        let apply = self.checked(key, erased(key, state.limits(), update, drop));
        let update = self.about(key, Change::Update(key.to_owned(), apply));
        state.record(update, key, value)?;
        Ok(updated)
    }

    /// Sets all keys to those of `value`, which must be written as a JSON
    /// object; keys that it does not have are removed. The session, its id and
    /// its expiry stay.
    ///
    /// As [`clear`](Self::clear) and [`insert`](Self::insert)s in one: it beats
    /// what was there when it is saved.
    ///
    /// # Errors
    ///
    /// Of kind [`Serialize`](ErrorKind::Serialize) when `value` is no object,
    /// and those of [`insert`](Self::insert). Then nothing is changed.
    pub fn replace(&self, value: impl Serialize) -> Result<(), Error> {
        let members = Document::of(&value)?;
        let mut changes = vec![Change::Clear];
        for (key, value) in members {
            check_key(&key)?;
            self.check_value(&key, &value)?;
            changes.push(self.about(&key.clone(), Change::Insert(key, value)));
        }
        self.open_state()?.apply_all(changes)
    }

    /// Removes all keys. The session, its id and its expiry stay.
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) when it is too
    /// late.
    pub fn clear(&self) -> Result<(), Error> {
        self.open_state()?.apply(Change::Clear)
    }

    /// The keys, in the order in which they were first inserted.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.state().document().keys().map(str::to_owned).collect()
    }

    /// Whether `key` has a value.
    #[must_use]
    pub fn contains_key(&self, key: impl AsRef<str>) -> bool {
        let key = key.as_ref();
        key != RESERVED && self.state().document().get(key).is_some()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state().document().is_empty()
    }

    /// Gives the session a new id when it is saved, with the same data.
    ///
    /// Do this at every change of privilege (ASVS 5.0 item 7.2.4), such as when
    /// a user takes up another role, or gives a second factor: a token that
    /// somebody planted or saw before opens nothing afterwards. Signing in is
    /// [`login`](Self::login), which does it too. The change is one
    /// transaction, so at every instant the old or the new id works. An answer
    /// of 5xx leaves the old one.
    ///
    /// A request that is still running under the old id keeps what it loaded,
    /// and its changes are saved under the new one. A request that is sent
    /// with the old id later reads an empty session, can't change it, and
    /// leaves the browser's cookies as they are. Of two requests that cycle
    /// at the same moment the second is answered with 503.
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) when it is too
    /// late.
    pub fn cycle_id(&self) -> Result<(), Error> {
        self.open_state()?.cycle();
        Ok(())
    }

    /// Ends the session: its row is deleted and the browser's cookie removed,
    /// also when the handler answers with 5xx.
    ///
    /// Nothing brings it back: what other requests of it still save is
    /// dropped, and they are answered with 503. What this request inserts
    /// afterwards, such as a farewell, begins a new session.
    ///
    /// A request whose token was replaced, or that carries several live ones,
    /// can't end a session, and its answer must not say that it did: it is
    /// 503 or 400.
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) when it is too
    /// late.
    pub fn destroy(&self) -> Result<(), Error> {
        self.open_state()?.destroy();
        Ok(())
    }

    /// The public handle of the stored session: safe to show and to log.
    ///
    /// `None` as long as there is nothing stored. It changes with
    /// [`cycle_id`](Self::cycle_id) and [`login`](Self::login), once that is
    /// saved.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        let format = self.store().format();
        self.state().row().map(|row| format.handle(&row.id))
    }

    /// Whether nothing is stored for this session yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state().is_new()
    }

    /// Whether this request is about to begin a session: nothing is stored yet,
    /// and what the handler did so far is worth a row and a cookie.
    ///
    /// Before the handler it is `false`. A session that goes on under a new id
    /// is no new one. A middleware asks
    /// [`LazySession::will_be_created`](crate::LazySession::will_be_created),
    /// which loads nothing.
    #[must_use]
    pub fn will_be_created(&self) -> bool {
        self.state().begins_a_session()
    }

    /// When the session ends if no other request comes, by the database's
    /// clock.
    ///
    /// `None` as long as there is nothing stored, and for a row that another
    /// writer gave an infinite life.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.state()
            .row()
            .and_then(|row| instant(row.times.expires))
    }

    /// Sets when this session ends, instead of the layer's timeouts.
    ///
    /// The choice is stored with the session, so later requests keep to it.
    /// The browser gets a cookie that lives as long.
    ///
    /// In Koa's format it is stored where Koa looks for it; there an
    /// [`idle_timeout`](crate::PgSessionLayer::idle_timeout) that the layer was
    /// told beats it for the row.
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) when it is too
    /// late, and [`Setup`](ErrorKind::Setup) where the table or its format
    /// can't keep the choice, see [`Expiry::Timeouts`].
    pub fn set_expiry(&self, expiry: Expiry) -> Result<(), Error> {
        let mut state = self.open_state()?;
        self.check_expiry(expiry)?;
        let blank = Arc::clone(state.blank());
        state.apply(Change::Expiry(expiry, blank))
    }

    /// Sets how long the browser keeps the cookie of this session, instead of
    /// what the layer's
    /// [`cookie_lifetime`](crate::PgSessionLayer::cookie_lifetime) says.
    ///
    /// The choice is stored with the session, and the response carries the
    /// cookie anew. A later [`login`](Self::login) replaces it by its own.
    ///
    /// In Koa's format the choice is the member `maxAge` of the stored cookie,
    /// which is also the session's idle timeout there.
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) when it is too
    /// late.
    pub fn set_cookie_lifetime(&self, lifetime: CookieLifetime) -> Result<(), Error> {
        self.open_state()?.set_cookie_lifetime(Some(lifetime))
    }

    /// Extends the session with this request, whatever the layer's
    /// [`touch_interval`](crate::PgSessionLayer::touch_interval) and
    /// [`touch_if`](crate::PgSessionLayer::touch_if) say. A new session is
    /// stored, also if nothing is inserted.
    ///
    /// An answer of 5xx drops it, as it drops changes.
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) when it is too
    /// late.
    pub fn touch(&self) -> Result<(), Error> {
        self.open_state()?.touch();
        Ok(())
    }

    /// Drops what this request did to the session since it was loaded, or
    /// [saved](Self::save) by hand, a [`destroy`](Self::destroy) included.
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) when it is too
    /// late.
    pub fn discard(&self) -> Result<(), Error> {
        self.open_state()?.discard();
        Ok(())
    }

    /// Saves now what was done so far, instead of after the handler.
    ///
    /// When it returns, the changes are committed, and other requests see
    /// them, whatever this handler answers. The cookie still travels with the
    /// response, and only the response extends the session.
    ///
    /// # Errors
    ///
    /// When the changes could not be committed; they are dropped, but a
    /// [`destroy`](Self::destroy) is tried again with the response. Of kind
    /// [`Ended`](ErrorKind::Ended) when the session was destroyed meanwhile.
    pub async fn save(&self) -> Result<(), Error> {
        self.open_state().map(drop)?;
        let session = self.clone();
        // A handler that gives up waiting must not lose a token that was
        // committed meanwhile: the response still owes its cookie.
        let saving = async move { session.save_now().await }.in_current_span();
        tokio::spawn(saving).await.unwrap_or_else(|stopped| {
            match stopped.try_into_panic() {
                // A hook of the application; its handler called it.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::abandoned()),
            }
        })
    }

    /// Removes `key`, commits that now, and returns the value that was
    /// removed: of any number of requests that take it, in one process or
    /// many, exactly one gets it.
    ///
    /// Use this for whatever must be used once, such as the state of an OAuth
    /// redirect or the token of a form. As [`save`](Self::save), it also
    /// commits what was recorded before. If the caller stops waiting, the value
    /// may be removed without anyone getting it.
    ///
    /// ```
    /// use axum::{Router, body::Body, extract::Path, http::Request, routing::get};
    /// use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session, testing::TestVisitor};
    ///
    /// /// Only the first of two clicks gets through.
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
    /// let ada = TestVisitor::of(&layer);
    /// ada.given(|session| session.insert("nonce", "8f3a")).await?;
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
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) when the value is not a
    /// `T`, and [`Ended`](ErrorKind::Ended) when the session was destroyed or
    /// got a new id since it was loaded. And those of [`insert`](Self::insert)
    /// and [`save`](Self::save). Then the value stays, and what was recorded
    /// before is dropped unless the error came before the save.
    pub async fn take<T>(&self, key: impl SessionKey<T>) -> Result<Option<T>, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let key = key.as_ref();
        check_key(key)?;
        self.check_removal(key)?;
        let taken = Arc::new(Mutex::new(None));
        {
            let mut state = self.open_state()?;
            let (taken, name) = (Arc::clone(&taken), key.to_owned());
            let read = move |stored: Option<&Json>| {
                let value = stored.map_or(Ok(None), |raw| decode(&name, raw))?;
                *locked(&taken) = value;
                Ok(())
            };
            state.apply(Change::Take(key.to_owned(), Box::new(read)))?;
            state.confirm();
        }
        self.save().await?;
        Ok(locked(&taken).take())
    }

    /// Sets `key` to what `update` makes of its value, commits that now, and
    /// returns what was committed.
    ///
    /// Use this for whatever must not be exceeded, such as the attempts at a
    /// code or a quota: each of the requests that run at the same time gets
    /// another number. As [`save`](Self::save), it also commits what was
    /// recorded before. If other requests were faster, `update` is called
    /// again with the newer value; the last call counts.
    ///
    /// ```
    /// use axum_pg_session::{Error, Session};
    ///
    /// /// Whether the visitor may try once more.
    /// async fn may_try(session: &Session) -> Result<bool, Error> {
    ///     let attempts = session
    ///         .update_now("attempts", |attempts: Option<u32>| attempts.unwrap_or(0) + 1)
    ///         .await?;
    ///     Ok(attempts <= 3)
    /// }
    /// # let _ = may_try;
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`update`](Self::update) and [`save`](Self::save), and of kind
    /// [`Ended`](ErrorKind::Ended) when the session was destroyed or got a new
    /// id since it was loaded. Then nothing is changed, and what was recorded
    /// before is dropped unless the error came before the save.
    pub async fn update_now<T, U>(
        &self,
        key: impl SessionKey<T> + SessionKey<U>,
        update: impl FnMut(Option<T>) -> U + Send + 'static,
    ) -> Result<U, Error>
    where
        T: DeserializeOwned,
        U: Serialize + Send + 'static,
    {
        let key = AsRef::<str>::as_ref(&key);
        check_key(key)?;
        let updated = Arc::new(Mutex::new(None));
        {
            let mut state = self.open_state()?;
            let updated = Arc::clone(&updated);
            let keep = move |value| *locked(&updated) = Some(value);
            let apply = self.checked(key, erased(key, state.limits(), update, keep));
            let change = self.about(key, Change::Update(key.to_owned(), apply));
            state.apply(change)?;
            state.confirm();
        }
        self.save().await?;
        let updated = locked(&updated).take();
        updated.ok_or_else(Error::abandoned)
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Session {
    /// Without the values, which are the visitor's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
