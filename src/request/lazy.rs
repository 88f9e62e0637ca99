//! Finds the session that a request's tokens open, at the first use.
//!
//! The first [`load`](LazySession::load) opens the session, and the later ones get
//! the same outcome, also if it is an error:
//!
//! 1. Parse the tokens of the request. Without one there is no query, and the
//!    session is new, or read-only if another site posted the request and the layer
//!    refuses that. With more tokens than the layer looks up, the session is
//!    ambiguous.
//! 2. Load the rows of all tokens at once.
//! 3. Classify each row as live, moved, outlived or unusable, and combine them. One
//!    live row is the session. Several are ambiguous, because the order of cookies
//!    is not reliable. Without a live row, the session is read-only if one moved
//!    within the last 5 seconds, and otherwise new. An ambiguous or read-only
//!    session reads as empty and can't be changed.
//! 4. If no own token opens a session, look for the session of another system's cookie,
//!    see [`takeover`](crate::takeover).
//! 5. Run the application's `valid_if` check on a stored session.
//!
//! The response may start while a load is in flight. An atomic fence on both sides
//! decides which one closes the session: the response, if it sees the session, and
//! the load otherwise.
//!
//! This module doesn't know when a response is saved, nor SQL.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use http::{
    HeaderMap, HeaderName, Uri,
    header::{HOST, ORIGIN},
    request::Parts,
    uri::Authority,
};
use tokio::{
    sync::OnceCell,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tracing::Instrument as _;

use crate::{
    Error, FailurePolicy, Session, Transport,
    cookie::{CookieConfig, Cookies},
    document::Document,
    format::Line,
    forwarding::moved_grace_left,
    id::{RowId, Token},
    request::{
        config::{Config, CrossSite, Empty, Host},
        hooks::is_checking,
    },
    request_tokens::RequestTokens,
    row::Row,
    state::{Origin, ReadOnlyReason, State},
    takeover::{Key, TakenOver, Takeover, Unfit},
    telemetry::{Lookup, loading},
};

/// A session that is loaded when it is first used.
///
/// The layer puts it into the request's extensions, for middleware that may
/// need the session. Handlers take [`Session`]. It is also an extractor, one
/// that runs no query.
///
/// If two layers are nested, it belongs to the inner one.
/// [`named`](Self::named) finds the other.
///
/// ```
/// use axum::{Router, body::Body, extract::Request, middleware::{Next, from_fn}, response::Response};
/// use axum_pg_session::{Error, LazySession, PgSessionLayer, PgSessionStore};
/// use tower::ServiceExt;
///
/// async fn greet(session: LazySession, request: Request, next: Next) -> Result<Response, Error> {
///     if request.uri().path().starts_with("/private") {
///         session.load().await?.insert("seen", true)?;
///     }
///     Ok(next.run(request).await)
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // No server listens there. Requests that don't use the session still work.
/// let pool = sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none")?;
/// let app = Router::new()
///     .fallback(|| async { "public" })
///     .layer(from_fn(greet))
///     .layer(PgSessionLayer::new(PgSessionStore::new(pool)));
///
/// let response = app.oneshot(Request::new(Body::empty())).await?;
/// assert!(response.status().is_success());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct LazySession(Arc<Lazy>);

struct Lazy {
    config: Arc<Config>,
    cookies: Cookies,
    line: Line,
    /// The request's tokens, parsed at the first use.
    presented: OnceLock<RequestTokens>,
    /// The key in the other system's cookie, if sessions are taken over.
    other: OnceLock<RequestTokens>,
    /// Whether the request can't begin a session.
    is_refused_a_session: bool,
    /// For the layer's hooks, if it has any.
    head: Option<Arc<Parts>>,
    session: OnceCell<Result<Session, Error>>,
    response_started: AtomicBool,
    /// It selects the cookie of the request.
    host: Host,
    /// Whether the request's tokens opened no session.
    opened_nothing: AtomicBool,
    /// Whether the response saves the session, and closes it.
    is_closed_by_response: AtomicBool,
    /// Whether the session of the other system's cookie was looked for.
    has_looked_for_other: AtomicBool,
    /// Whether the response keeps the other system's cookie.
    keeps_other_cookie: AtomicBool,
    /// A session that was taken over and whose check failed. The response sends its token,
    /// though no caller gets the session.
    unchecked: OnceLock<Session>,
    outer: Option<LazySession>,
}

impl LazySession {
    pub(crate) fn new(
        config: Arc<Config>,
        unread: Unread,
        head: Option<Arc<Parts>>,
        outer: Option<Self>,
    ) -> Self {
        Self(Arc::new(Lazy {
            config,
            cookies: unread.cookies,
            line: unread.line,
            presented: unread.presented,
            other: OnceLock::new(),
            is_refused_a_session: unread.is_refused_a_session,
            head,
            session: OnceCell::new(),
            response_started: AtomicBool::new(false),
            host: unread.host,
            opened_nothing: AtomicBool::new(false),
            is_closed_by_response: AtomicBool::new(false),
            has_looked_for_other: AtomicBool::new(false),
            keeps_other_cookie: AtomicBool::new(false),
            unchecked: OnceLock::new(),
            outer,
        }))
    }

    /// Returns the session. The first call loads it.
    ///
    /// # Errors
    ///
    /// If the row could not be loaded: then each call returns the same error.
    /// Of kind [`Reentrant`](crate::ErrorKind::Reentrant) if the
    /// [`valid_if`](crate::PgSessionLayer::valid_if) check calls it, because
    /// the check already gets the session.
    pub async fn load(&self) -> Result<Session, Error> {
        if is_checking(self.0.number()) {
            return Err(Error::reentrant());
        }
        // If dropped here, nothing is kept. The next call, or one that already waits,
        // loads the rows and runs the check again.
        let session = self.0.session.get_or_init(|| self.0.open()).await;
        // Pairs with the fence of `start_response`: either the response sees this
        // session, or this call sees that the response has started and closes it.
        fence(Ordering::SeqCst);
        let is_late = self.0.response_started.load(Ordering::Relaxed);
        if is_late && !self.0.is_closed_by_response.load(Ordering::Relaxed) {
            session.iter().for_each(Session::close_for_changes);
        }
        session.clone()
    }

    /// Returns whether the request carries a well-formed token of this layer, or of the
    /// system whose sessions it [takes over](crate::PgSessionLayer::takeover). It runs no
    /// query, so the token may not open a session.
    ///
    /// `false` means that the request has no session. `true` proves nothing: the
    /// token may be unknown or expired, and unless tokens are
    /// [signed](crate::PgSessionLayer::signing_keys) it may be forged.
    ///
    /// Use this before the handler, for example to serve visitors without a
    /// session from a cache. Don't exempt requests with a token from a rate limit,
    /// because any client can send one. To limit how many sessions a client begins,
    /// call [`will_be_created`](Self::will_be_created) and
    /// [`was_created`](Self::was_created) after the handler:
    ///
    /// ```
    /// use axum::{
    ///     Router, body::Body, extract::Request, http::StatusCode, middleware::{Next, from_fn},
    ///     response::{IntoResponse, Response}, routing::get,
    /// };
    /// use axum_pg_session::{Error, LazySession, PgSessionLayer, PgSessionStore, Session};
    /// use tower::ServiceExt;
    ///
    /// # fn is_over_its_limit(_: &Request) -> bool { true }
    /// /// Refuses a client that begins one session after the other.
    /// async fn limit(session: LazySession, request: Request, next: Next) -> Result<Response, Error> {
    ///     let is_over = is_over_its_limit(&request);
    ///     let response = next.run(request).await;
    ///     if !is_over {
    ///         return Ok(response);
    ///     }
    ///     if session.was_created() {
    ///         // The handler has called `save`.
    ///         session.load().await?.destroy()?;
    ///     } else if session.will_be_created() {
    ///         session.load().await?.discard()?;
    ///     } else {
    ///         return Ok(response);
    ///     }
    ///     Ok(StatusCode::TOO_MANY_REQUESTS.into_response())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none")?;
    /// let app = Router::new()
    ///     .route("/", get(|| async { "public" }))
    ///     .route("/cart", get(async |session: Session| session.insert("cart", ["tea"])))
    ///     .layer(from_fn(limit))
    ///     .layer(PgSessionLayer::new(PgSessionStore::new(pool)));
    ///
    /// let ask = |path| app.clone().oneshot(Request::get(path).body(Body::empty()).expect("a path"));
    /// assert_eq!(ask("/").await?.status(), StatusCode::OK);
    /// assert_eq!(ask("/cart").await?.status(), StatusCode::TOO_MANY_REQUESTS);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn has_token(&self) -> bool {
        !self.0.presented().tokens.is_empty() || self.0.key().is_some()
    }

    /// Returns whether the session was loaded in this request, by a handler, an
    /// extractor or a middleware. A load that failed counts too.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.looked_at().is_some()
    }

    /// Returns whether the next save of this request begins a session: nothing is
    /// stored yet, and the changes so far need a row and a cookie. It doesn't load
    /// the session.
    ///
    /// Use this after the handler, see the example of
    /// [`has_token`](Self::has_token). If the handler has called
    /// [`Session::save`], the session has begun already, see
    /// [`was_created`](Self::was_created).
    #[must_use]
    pub fn will_be_created(&self) -> bool {
        matches!(self.looked_at(), Some(Ok(session)) if session.will_be_created())
    }

    /// Returns whether an explicit [`Session::save`] of this request has begun the
    /// session: its row is stored, and [`discard`](Session::discard) keeps it. It
    /// doesn't load the session.
    ///
    /// A middleware that refuses new sessions after the handler calls
    /// [`Session::destroy`], which deletes the row and removes the cookie.
    #[must_use]
    pub fn was_created(&self) -> bool {
        matches!(self.looked_at(), Some(Ok(session)) if session.was_created())
    }

    /// Returns the session of the layer with this cookie name: of this layer,
    /// or of an outer one.
    ///
    /// ```
    /// use axum_pg_session::{LazySession, Session, Error};
    ///
    /// async fn audit(sessions: LazySession) -> Result<String, Error> {
    ///     let admin = sessions.named("__Host-admin").expect("its layer is set up");
    ///     Ok(admin.load().await?.get("name")?.unwrap_or_default())
    /// }
    /// ```
    #[must_use]
    pub fn named(&self, cookie_name: &str) -> Option<Self> {
        if self.0.config.cookie_name() == cookie_name {
            return Some(self.clone());
        }
        self.0.outer.as_ref()?.named(cookie_name)
    }

    /// The outcome of the load, if the session was loaded.
    pub(crate) fn looked_at(&self) -> Option<&Result<Session, Error>> {
        self.0.session.get()
    }

    /// Marks the response as started. Returns whether the session was loaded before,
    /// so that the response saves and closes it. A session that is loaded later is
    /// closed by its load.
    pub(crate) fn start_response(&self) -> bool {
        self.0.response_started.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let is_loaded = self.looked_at().is_some();
        self.0
            .is_closed_by_response
            .store(is_loaded, Ordering::Relaxed);
        is_loaded
    }

    /// Closes the session for changes, because no response will save them.
    pub(crate) fn end_without_response(&self) {
        self.start_response();
        if let Some(Ok(session)) = self.looked_at() {
            session.close_for_changes();
        }
    }

    /// Whether another application on this machine may have set the cookie of the
    /// request: its token is well-formed and opened no session. Browsers send a cookie
    /// to each port of a host.
    pub(crate) fn may_have_a_cookie_of_another_port(&self) -> bool {
        self.0.host == Host::ThisMachine && self.0.opened_nothing.load(Ordering::Relaxed)
    }

    /// The takeover, if the request carries a key of the other system, whose cookie the response
    /// may remove.
    pub(crate) fn takeover(&self) -> Option<&Takeover> {
        let takeover = self.0.config.takeover.as_deref()?;
        let is_kept = self.0.keeps_other_cookie.load(Ordering::Relaxed);
        self.0.key().filter(|_| !is_kept).map(|_| takeover)
    }

    /// The session of the other system's cookie could not be deleted.
    pub(crate) fn keep_other_cookie(&self) {
        self.0.keeps_other_cookie.store(true, Ordering::Relaxed);
    }

    /// The session that was taken over and whose check failed.
    pub(crate) fn unchecked(&self) -> Option<&Session> {
        self.0.unchecked.get()
    }

    /// Deletes the session of the other system's cookie, which the response removes, unless
    /// this request has looked for it. A task does so, whether or not the request waits for it.
    pub(crate) fn end_other(&self) -> Option<JoinHandle<Result<(), Error>>> {
        let has_looked = self.0.has_looked_for_other.load(Ordering::Relaxed);
        let key = self.0.key().filter(|_| !has_looked)?;
        let store = self.0.config.store.clone();
        let deletion = async move {
            let outcome = store.end_other(&key, store.deadline()).await;
            outcome.inspect_err(|error| {
                store.meter().failed(error);
                error.mark_as_logged();
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    error.type = error.kind().name(),
                    "a session of another system could not be deleted; its visitor has one of ours"
                );
            })
        };
        Some(tokio::spawn(deletion.in_current_span()))
    }

    /// The request's head, if a hook of the layer uses it.
    pub(crate) fn head(&self) -> Option<&Arc<Parts>> {
        self.0.head.as_ref()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// The cookie that the request reads and the response sets.
    pub(crate) fn cookie(&self) -> &CookieConfig {
        self.0.cookie()
    }

    pub(crate) fn line(&self) -> Line {
        self.0.line
    }

    /// Whether the request carries a cookie of the layer, with any value.
    pub(crate) fn has_cookie(&self) -> bool {
        self.0.presented().named
    }
}

impl fmt::Debug for Lazy {
    /// Omits the request's head, which holds the cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy")
            .field("config", &self.config)
            .field("session", &self.session)
            .field("outer", &self.outer)
            .finish_non_exhaustive()
    }
}

impl Lazy {
    fn presented(&self) -> &RequestTokens {
        let format = self.config.store.format();
        self.presented
            .get_or_init(|| format.presented(&self.cookies, self.cookie()))
    }

    fn cookie(&self) -> &CookieConfig {
        self.config.cookie_of(self.host)
    }

    /// What the cookie of the other system holds.
    fn other(&self) -> &RequestTokens {
        self.other.get_or_init(|| match &self.config.takeover {
            Some(takeover) => takeover.presented(&self.cookies),
            None => RequestTokens::default(),
        })
    }

    /// The key of the other system, with a valid signature.
    fn key(&self) -> Option<Key> {
        let takeover = self.config.takeover.as_ref()?;
        let token = self.other().tokens.first()?;
        Some(Key {
            takeover: Arc::clone(takeover),
            token: token.clone(),
        })
    }

    /// Runs the steps of the module documentation. If the future is dropped, no row
    /// has changed, but the tokens were counted, and the next attempt counts them
    /// again.
    async fn open(&self) -> Result<Session, Error> {
        let (store, presented) = (&self.config.store, self.presented());
        let deadline = store.deadline();
        store.tally().presented(presented, store.meter());
        // If dropped here, the load may still run. Its rows are discarded.
        let state = self.find(deadline).await;
        let lookup = lookup(presented, self.other(), &state);
        let has_own = !presented.tokens.is_empty() || presented.forged > 0;
        let opened_nothing = has_own && matches!(lookup, Lookup::Miss | Lookup::Forged);
        self.opened_nothing.store(opened_nothing, Ordering::Relaxed);
        let mut state = state.inspect_err(|_| store.meter().looked_up(lookup))?;
        state.set_limits(self.config.limits);
        match state.origin() {
            Origin::ReadOnly(ReadOnlyReason::Ambiguous) => store.tally().ambiguous(),
            Origin::New if self.config.empty == Empty::IsStored => state.touch(),
            Origin::Stored(_, token) if presented.is_outdated(token) => state.renew_signature(),
            _ => {}
        }
        let is_taken_over = matches!(
            state.origin(),
            Origin::Stored(_, token) if !presented.tokens.contains(token)
        );
        let session = Session::new(Arc::clone(&self.config.session), state);
        let session = match is_taken_over {
            true => session.sending_its_token(),
            false => session,
        };
        // If dropped here, the check is dropped where it waits. Its session and the
        // changes that it recorded there are dropped with it.
        let checked = self.check(&session, lookup, deadline).await;
        if is_taken_over && checked.is_err() && session.discard().is_ok() {
            self.unchecked.get_or_init(|| session.clone());
        }
        store
            .meter()
            .looked_up(*checked.as_ref().unwrap_or(&Lookup::Failed));
        checked.map(|_| session)
    }

    /// Finds the session of the request's own tokens, or else that of the other system's key.
    async fn find(&self, deadline: Instant) -> Result<State, Error> {
        // If dropped at either await, nothing is kept. A row that was taken over by then is
        // found by the next load.
        let own = self.find_own().await?;
        if !opens_nothing(&own) {
            return Ok(own);
        }
        let store = &self.config.store;
        store.tally().presented(self.other(), store.meter());
        let Some(key) = self.key() else {
            return Ok(own);
        };
        // No response can send the token any more, so the session stays where it is.
        if self.response_started.load(Ordering::Relaxed) {
            return Ok(own);
        }
        self.has_looked_for_other.store(true, Ordering::Relaxed);
        match self.take_over(&key, deadline).instrument(loading()).await {
            Ok(Some(taken)) => Ok(taken.with_refused_of(own)),
            Ok(None) => {
                store.tally().unknown(1, store.meter());
                Ok(own)
            }
            Err(error) => self.not_loaded(error),
        }
    }

    /// Finds the session of the other system's key, and takes it over. From then on, it is
    /// that of a token of ours, which the browser is about to get.
    async fn take_over(&self, key: &Key, deadline: Instant) -> Result<Option<State>, Error> {
        let store = &self.config.store;
        let outcome = store.take_over(key, &self.config.timeouts, deadline);
        let (token, rows) = match outcome.await? {
            TakenOver::Now(token, row) => (token, vec![row]),
            TakenOver::Before(token) => {
                let rows = store.load_rows(&[store.row_id(&token)]).await?;
                (token, rows)
            }
            TakenOver::Nothing => return Ok(None),
            TakenOver::Unfit(unfit) => {
                self.report(key, unfit);
                return Ok(None);
            }
        };
        let id = store.row_id(&token);
        let state = self.resolve(&[token], &[id], rows);
        Ok(Some(state).filter(|state| !opens_nothing(state)))
    }

    /// Logs a row of the other system that stays where it is, once.
    fn report(&self, key: &Key, Unfit(reason): Unfit) {
        let store = &self.config.store;
        let id = store.row_id_of_key(key);
        if key.takeover.is_first_report_of(&id) {
            tracing::warn!(
                session.id = %store.format().handle(&id),
                reason,
                "a session of another system can't be taken over; its visitor gets a new session, \
                 the row stays"
            );
        }
    }

    /// Loads the rows of the request's tokens and finds its session among them.
    async fn find_own(&self) -> Result<State, Error> {
        let (store, presented) = (&self.config.store, self.presented());
        match presented.tokens.as_slice() {
            [] if self.is_refused_a_session => {
                Ok(self.without_row(Origin::ReadOnly(ReadOnlyReason::CrossSite)))
            }
            [] => Ok(self.without_row(Origin::New)),
            // A token that was not looked up may be the live one.
            _ if presented.is_cut => {
                Ok(self.without_row(Origin::ReadOnly(ReadOnlyReason::Ambiguous)))
            }
            tokens => {
                let ids: Vec<_> = tokens.iter().map(|token| store.row_id(token)).collect();
                match store.load_rows(&ids).instrument(loading()).await {
                    Ok(rows) => {
                        store.tally().unknown(ids.len() - rows.len(), store.meter());
                        Ok(self.resolve(tokens, &ids, rows))
                    }
                    Err(error) => self.not_loaded(error),
                }
            }
        }
    }

    /// Runs the application's check, if the session is stored.
    ///
    /// The deadline is that of the load, so that the store's timeout bounds both. A
    /// check that is not done by then is dropped, with its session and the changes
    /// that it recorded there.
    async fn check(
        &self,
        session: &Session,
        lookup: Lookup,
        deadline: Instant,
    ) -> Result<Lookup, Error> {
        let hooks = &self.config.hooks;
        if session.is_new() {
            return Ok(lookup);
        }
        let check = hooks.is_valid(session, self.head.as_ref(), self.number());
        let is_valid = session.under_check(timeout_at(deadline, check)).await;
        match is_valid.unwrap_or_else(|_| Err(Error::unchecked(CHECK_IS_LATE))) {
            Ok(true) => Ok(lookup),
            Ok(false) => {
                session.refuse();
                Ok(Lookup::Refused)
            }
            Err(error) => {
                self.config.store.meter().failed(&error);
                error.mark_as_logged();
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    error.type = error.kind().name(),
                    "a session could not be checked; the caller gets the error"
                );
                Err(error)
            }
        }
    }

    /// A number that no other live request has.
    fn number(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn without_row(&self, origin: Origin) -> State {
        State::without_row(origin, Arc::clone(self.config.blank.over(self.line)))
    }

    fn not_loaded(&self, error: Error) -> Result<State, Error> {
        let store = &self.config.store;
        store.meter().failed(&error);
        error.mark_as_logged();
        let kind = error.kind().name();
        let cause = &error as &dyn std::error::Error;
        match self.config.on_load_failure {
            FailurePolicy::Continue if error.is_of_the_database() => {
                tracing::error!(
                    error = cause,
                    error.type = kind,
                    "session load failed; the request continues without a session"
                );
                Ok(self.without_row(Origin::ReadOnly(ReadOnlyReason::NotLoaded)))
            }
            _ => {
                tracing::error!(
                    error = cause,
                    error.type = kind,
                    "a session could not be loaded; the caller gets the error"
                );
                Err(error)
            }
        }
    }

    /// Finds the session that the tokens open. If several are live, none is used,
    /// because the order of cookies is not reliable. A dead token never affects a
    /// live one.
    fn resolve(&self, tokens: &[Token], ids: &[RowId], rows: Vec<Arc<Row>>) -> State {
        let (mut verdict, mut outlived) = (Opened::Nothing, Vec::new());
        for row in rows {
            match self.classify(row) {
                Opened::Outlived(row) => outlived.push(row),
                next => verdict = verdict.beside(next),
            }
        }
        let state = match verdict {
            Opened::Nothing | Opened::Outlived(_) => self.without_row(Origin::New),
            Opened::ReadOnly(reason) => self.without_row(Origin::ReadOnly(reason)),
            Opened::Live(row, document) => {
                let token = ids
                    .iter()
                    .position(|id| *id == row.id)
                    .map(|at| tokens[at].clone());
                let token = token.expect("every row was asked for");
                let blank = Arc::clone(self.config.blank.over(self.line));
                State::new(Origin::Stored(row, token), document, blank)
            }
        };
        state.replacing(outlived)
    }

    fn classify(&self, row: Arc<Row>) -> Opened {
        let Some(document) = row.document().cloned() else {
            tracing::warn!(
                session.id = %self.config.store.format().handle(&row.id),
                "a session row holds no JSON object; its visitor gets a new session, the row stays"
            );
            return Opened::Nothing;
        };
        let meta = document.meta();
        if meta.successor.is_some() {
            return match moved_grace_left(row.times) {
                Some(retry_after) => Opened::ReadOnly(ReadOnlyReason::Moved { retry_after }),
                // The browser has received the new token, or its response is lost.
                None => Opened::Nothing,
            };
        }
        let slack = self.config.store.zone_slack();
        match self.config.timeouts.has_ended(&meta, row.times, slack) {
            true => Opened::Outlived(row),
            false => Opened::Live(row, document),
        }
    }
}

fn opens_nothing(state: &State) -> bool {
    matches!(
        state.origin(),
        Origin::New | Origin::ReadOnly(ReadOnlyReason::CrossSite)
    )
}

const CHECK_IS_LATE: &str = "the load and the check took longer than the store's `timeout`";

/// The outcome of the lookup, before the application's check.
fn lookup(
    presented: &RequestTokens,
    other: &RequestTokens,
    found: &Result<State, Error>,
) -> Lookup {
    match found.as_ref().map(State::origin) {
        Err(_) | Ok(Origin::ReadOnly(ReadOnlyReason::NotLoaded)) => Lookup::Failed,
        Ok(Origin::Stored(..) | Origin::Moved(..)) => Lookup::Hit,
        Ok(Origin::ReadOnly(ReadOnlyReason::Moved { .. } | ReadOnlyReason::Ended)) => Lookup::Moved,
        Ok(Origin::ReadOnly(ReadOnlyReason::Ambiguous)) => Lookup::Ambiguous,
        Ok(Origin::New) if !(presented.tokens.is_empty() && other.tokens.is_empty()) => {
            Lookup::Miss
        }
        Ok(Origin::New) if presented.forged + other.forged > 0 => Lookup::Forged,
        Ok(Origin::New) if presented.malformed + other.malformed > 0 => Lookup::Malformed,
        Ok(Origin::New | Origin::ReadOnly(ReadOnlyReason::CrossSite)) => Lookup::Anonymous,
    }
}

/// What a token opened, and the combination of several.
enum Opened {
    Nothing,
    /// A row that the layer's timeouts have ended. Beside it, the others open what they open alone.
    Outlived(Arc<Row>),
    Live(Arc<Row>, Arc<Document>),
    ReadOnly(ReadOnlyReason),
}

impl Opened {
    /// Combines two tokens of one request. Live beats moved, and two live sessions are
    /// ambiguous.
    fn beside(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing | Self::Outlived(_), other)
            | (other, Self::Nothing | Self::Outlived(_)) => other,
            (Self::Live(..), Self::Live(..)) => Self::ReadOnly(ReadOnlyReason::Ambiguous),
            (Self::ReadOnly(ReadOnlyReason::Moved { .. }), other)
            | (other, Self::ReadOnly(ReadOnlyReason::Moved { .. })) => other,
            (ambiguous @ Self::ReadOnly(_), _) | (_, ambiguous) => ambiguous,
        }
    }
}

/// The parts of a request that identify its session. Cookies are parsed at the
/// first use.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) cookies: Cookies,
    pub(crate) line: Line,
    pub(crate) presented: OnceLock<RequestTokens>,
    /// Whether the request can't begin a session.
    pub(crate) is_refused_a_session: bool,
    pub(crate) host: Host,
}

impl Unread {
    /// Copies them from the request's URI and headers.
    pub(crate) fn of(config: &Config, uri: &Uri, headers: &HeaderMap) -> Self {
        let host = host_of(uri, headers);
        if host == Host::Other && config.transport.is_none() && is_from_plain_http(uri, headers) {
            config.warn_of_plain_http();
        }
        match &config.transport {
            None => Self {
                cookies: Cookies::of(headers),
                line: config.store.format().line(uri, headers),
                presented: OnceLock::new(),
                is_refused_a_session: config.cross_site == CrossSite::IsRefused
                    && is_cross_site_post(uri, headers),
                host,
            },
            Some(transport) => Self {
                cookies: Cookies::None,
                line: Line::Unknown,
                presented: OnceLock::from(Self::carried(config, &**transport, headers)),
                is_refused_a_session: false,
                host: Host::Other,
            },
        }
    }

    fn carried(config: &Config, transport: &dyn Transport, headers: &HeaderMap) -> RequestTokens {
        let value = transport.read(headers).filter(|value| !value.is_empty());
        let mut presented = RequestTokens::default();
        if let Some(value) = value {
            presented.add(config.store.format().read(value, &config.cookie));
            // The application chose the header, so no other program sets it.
            presented.named = true;
        }
        presented
    }
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The host of the request, as the browser names it. HTTP/2 has it in the URI.
fn host_name<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> &'r str {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.or(uri.authority().map(Authority::as_str))
        .unwrap_or_default()
}

/// A host without its port. An IPv6 address has colons of its own, and ends in a
/// bracket.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// Whether the host of the request is a name of this machine.
pub(crate) fn host_of(uri: &Uri, headers: &HeaderMap) -> Host {
    let name = without_port(host_name(uri, headers));
    let of_localhost = ".localhost";
    let end = name.len().checked_sub(of_localhost.len());
    let end = end.and_then(|start| name.get(start..));
    let is_local = ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|local| name.eq_ignore_ascii_case(local))
        || end.is_some_and(|end| end.eq_ignore_ascii_case(of_localhost));
    match is_local {
        true => Host::ThisMachine,
        false => Host::Other,
    }
}

/// Whether a page of this host sent the request over plain HTTP, by its `Origin`, which a
/// proxy that ends TLS passes on.
fn is_from_plain_http(uri: &Uri, headers: &HeaderMap) -> bool {
    headers.get(ORIGIN).is_some_and(|origin| {
        let origin = origin.as_bytes();
        origin.starts_with(b"http://") && is_origin_of(origin, host_name(uri, headers))
    })
}

/// A link from another site has no `Origin`, and brings a `Lax` cookie. Browsers
/// without `Sec-Fetch-Site` are Safari before 16.4, and all of them on plain HTTP.
fn is_cross_site_post(uri: &Uri, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    match headers.get(SEC_FETCH_SITE) {
        Some(site) => site.as_bytes() == b"cross-site",
        None => !is_origin_of(origin.as_bytes(), host_name(uri, headers)),
    }
}

/// Whether the origin is one of this host. Neither schemes nor ports are compared: a
/// site has several ports, and a proxy may pass on its own.
fn is_origin_of(origin: &[u8], host: &str) -> bool {
    let origin = str::from_utf8(origin).ok();
    let origin = origin.and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, authority)| {
        without_port(authority).eq_ignore_ascii_case(without_port(host))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn localhost_is_known_by_each_of_its_names() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:3000", true),
            ("127.0.0.1:3000", true),
            ("[::1]", true),
            ("[::1]:3000", true),
            ("shop.localhost:3000", true),
            ("notlocalhost", false),
            ("localhost.example", false),
            ("shop.example:3000", false),
            ("[::2]:3000", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(host);
            let headers = HeaderMap::from_iter([(HOST, value)]);
            let host_of = host_of(&Uri::from_static("/"), &headers);
            assert_eq!(host_of == Host::ThisMachine, expected, "{host}");
        }
        let uri = Uri::from_static("http://localhost:3000/page");
        assert_eq!(host_of(&uri, &HeaderMap::new()), Host::ThisMachine);
    }
}
