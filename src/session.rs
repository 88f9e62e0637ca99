use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;

use crate::{
    Error, ErrorKind, Expiry,
    changes::{Change, Changes, decode, encode, erased},
    document::RESERVED,
    expiry::{Timeouts, instant},
    id::{RowId, SessionId, Token},
    state::{Debt, MayTouch, Origin, Owed, State},
    store::{PgSessionStore, Row},
};

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
    store: PgSessionStore,
    timeouts: Arc<Timeouts>,
    state: Mutex<State>,
    /// One save at a time, so that each starts from the row of the last.
    saving: tokio::sync::Mutex<Pending>,
}

/// The cookie that the response owes the browser.
#[derive(Clone, Debug, Default)]
pub(crate) enum Pending {
    #[default]
    AsItIs,
    /// With its life, where it outlives the browser.
    Set(Token, Duration),
    Removed,
}

/// How the response ends the session's request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub(crate) keeps_changes: bool,
    pub(crate) may_touch: MayTouch,
}

impl Session {
    pub(crate) fn new(store: PgSessionStore, timeouts: Arc<Timeouts>, state: State) -> Self {
        Self(Arc::new(Inner {
            store,
            timeouts,
            state: Mutex::new(state),
            saving: tokio::sync::Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_state(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.state();
        state.check_open()?;
        Ok(state)
    }

    /// The value of `key`; `None` where there is none or it is JSON's `null`.
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) when the value is not
    /// a `T`. It stays as it is.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        if key == RESERVED {
            return Ok(None);
        }
        let state = self.state();
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
    /// written as JSON, [`ReservedKey`](ErrorKind::ReservedKey) for
    /// `_session`, and [`ResponseStarted`](ErrorKind::ResponseStarted) when it
    /// is too late.
    pub fn insert(&self, key: &str, value: impl Serialize) -> Result<(), Error> {
        check_key(key)?;
        let value = encode(key, &value)?;
        self.open_state()?
            .apply(Change::Insert(key.to_owned(), value))
    }

    /// Removes `key` and answers the value that it had.
    ///
    /// To have a value once, as a flash message, is to remove it.
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) when the value is not a
    /// `T`; then it stays. Any JSON is a `serde_json::Value`. And those of
    /// [`insert`](Self::insert).
    pub fn remove<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        check_key(key)?;
        let mut state = self.open_state()?;
        let Some(raw) = state.document().get(key) else {
            return Ok(None);
        };
        let value = decode(key, raw)?;
        state.apply(Change::Remove(key.to_owned()))?;
        Ok(value)
    }

    /// Sets `key` to what `update` makes of its value, and answers that.
    ///
    /// Unlike `get` and `insert` it loses nothing when requests run at the
    /// same moment: if another one was saved first, `update` is called again
    /// with the newer value. So it should depend on nothing but its argument,
    /// and what it answered at first may not be the last word. It must not use
    /// this session itself, which waits for it: that would be a deadlock.
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](ErrorKind::Deserialize) when the value is not a
    /// `T`, and those of [`insert`](Self::insert).
    pub fn update<T, U>(
        &self,
        key: &str,
        mut update: impl FnMut(Option<T>) -> U + Send + 'static,
    ) -> Result<U, Error>
    where
        T: DeserializeOwned,
        U: Serialize,
    {
        check_key(key)?;
        let mut state = self.open_state()?;
        let current = state
            .document()
            .get(key)
            .map_or(Ok(None), |raw| decode(key, raw))?;
        let updated = update(current);
        let value = encode(key, &updated)?;
        state.record(
            Change::Update(key.to_owned(), erased(key, update)),
            key,
            value,
        );
        Ok(updated)
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
    pub fn contains_key(&self, key: &str) -> bool {
        key != RESERVED && self.state().document().get(key).is_some()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state().document().is_empty()
    }

    /// Gives the session a new id when it is saved, with the same data.
    ///
    /// Do this at every change of privilege, such as signing in (ASVS 5.0
    /// item 7.2.4): a token that somebody planted or saw before opens nothing
    /// afterwards. The change is one transaction, so at every instant the old
    /// or the new id works. An answer of 5xx leaves the old one.
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
    /// [`cycle_id`](Self::cycle_id), once that is saved.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.state().row().map(|row| row.id.clone().into())
    }

    /// Whether nothing is stored for this session yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state().row().is_none()
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
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](ErrorKind::ResponseStarted) when it is too
    /// late.
    pub fn set_expiry(&self, expiry: Expiry) -> Result<(), Error> {
        self.open_state()?.apply(Change::Expiry(expiry))
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
        let saving = tokio::spawn(async move { session.save_now().await });
        saving.await.unwrap_or_else(|_| Err(Error::abandoned()))
    }

    async fn save_now(&self) -> Result<(), Error> {
        let mut cookie = self.0.saving.lock().await;
        let debt = self.state().take_debt(&self.0.timeouts, MayTouch::No);
        self.pay(debt, &mut cookie).await
    }

    /// Ends the time for changes, saves them, and answers the cookie that the
    /// response owes. It owes the one of an earlier save also where this one
    /// failed.
    pub(crate) async fn commit(&self, closing: Closing) -> (Pending, Result<(), Error>) {
        let mut cookie = self.0.saving.lock().await;
        let debt = self.close(closing);
        let outcome = self.pay(debt, &mut cookie).await;
        (cookie.clone(), outcome)
    }

    fn close(&self, closing: Closing) -> Debt {
        let mut state = self.state();
        state.close();
        if !closing.keeps_changes {
            state.forget_changes();
        }
        state.take_debt(&self.0.timeouts, closing.may_touch)
    }

    async fn pay(&self, debt: Debt, cookie: &mut Pending) -> Result<(), Error> {
        let outcome = match self.end(debt.doomed, cookie).await {
            Ok(()) => self.write(debt.owed, cookie).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            self.state().settle_without_changes(error);
        }
        outcome
    }

    async fn end(&self, doomed: Option<RowId>, cookie: &mut Pending) -> Result<(), Error> {
        let Some(id) = doomed else {
            return Ok(());
        };
        if let Err(error) = self.0.store.destroy(id.clone()).await {
            self.state().owe_end_of(id);
            return Err(error);
        }
        *cookie = Pending::Removed;
        Ok(())
    }

    async fn write(&self, owed: Owed, cookie: &mut Pending) -> Result<(), Error> {
        let store = &self.0.store;
        let timeouts = Arc::clone(&self.0.timeouts);
        match owed {
            Owed::Nothing => {}
            Owed::Refused(reason) => return Err(reason.error()),
            Owed::Touch(row) => self.touch(row, cookie).await,
            Owed::Insert(document) => {
                let (token, row) = store.insert(&document, &timeouts).await?;
                *cookie = self.begin(row, token);
            }
            Owed::Cycle(id, changes) => {
                let (token, row) = store.cycle(id, changes, timeouts).await?;
                *cookie = self.begin(row, token);
            }
            Owed::Save(row, changes, may_touch) => {
                let lengthens = changes.set_expiry();
                let before = Arc::clone(&row);
                let row = store.save(row, changes, timeouts, may_touch).await?;
                // Under a new id the browser has, or gets, another cookie.
                let is_ours = row.id == before.id;
                let renewed = self.go_on(Arc::clone(&row));
                if is_ours && (lengthens || self.outgrows_cookie(&before, &row)) {
                    *cookie = renewed;
                }
            }
        }
        Ok(())
    }

    /// A touch that fails costs the visitor nothing but a later expiry.
    async fn touch(&self, row: Arc<Row>, cookie: &mut Pending) {
        let timeouts = Arc::clone(&self.0.timeouts);
        let before = Arc::clone(&row);
        let touched = self
            .0
            .store
            .save(row, Changes::default(), timeouts, MayTouch::Yes)
            .await;
        match touched {
            Ok(row) => {
                let renewed = self.go_on(Arc::clone(&row));
                if self.outgrows_cookie(&before, &row) {
                    *cookie = renewed;
                }
            }
            Err(error) if error.kind() == ErrorKind::Ended => {
                tracing::debug!("a session ended before it could be touched");
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a session could not be touched"
            ),
        }
    }

    fn begin(&self, row: Arc<Row>, token: Token) -> Pending {
        let mut state = self.state();
        state.settle(Origin::Stored(row, token));
        self.cookie_of(&state)
    }

    fn go_on(&self, row: Arc<Row>) -> Pending {
        let mut state = self.state();
        if let Origin::Stored(_, token) = state.origin().clone() {
            state.settle(Origin::Stored(row, token));
        }
        self.cookie_of(&state)
    }

    fn cookie_of(&self, state: &State) -> Pending {
        let Origin::Stored(row, token) = state.origin() else {
            return Pending::AsItIs;
        };
        let life = self
            .0
            .timeouts
            .cookie_life(&state.document().meta(), row.times);
        Pending::Set(token.clone(), life)
    }

    /// Whether the session was extended beyond what a cookie can be told. One
    /// that was not may have ended or moved, and its cookie must not return.
    fn outgrows_cookie(&self, before: &Row, after: &Row) -> bool {
        let meta = self.state().document().meta();
        before.times.expires != after.times.expires
            && self.0.timeouts.outlives_cookie(&meta, after.times)
    }

    /// Whether a cookie that opened no session should go. Not where the
    /// browser may hold, or be about to get, one that does.
    pub(crate) fn has_no_use_for_a_cookie(&self) -> bool {
        matches!(self.state().origin(), Origin::New)
    }

    pub(crate) fn close_for_changes(&self) {
        self.state().close();
    }
}

fn check_key(key: &str) -> Result<(), Error> {
    if key == RESERVED {
        return Err(Error::new(
            ErrorKind::ReservedKey,
            "the key _session is kept for what the session knows of itself",
        ));
    }
    Ok(())
}

impl fmt::Debug for Session {
    /// Without the values, which are the visitor's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
