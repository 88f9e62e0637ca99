use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering, fence},
};

use http::request::Parts;
use tokio::sync::OnceCell;

use crate::{
    Error, FailurePolicy, Session,
    cookie::Cookies,
    document::Document,
    format::Line,
    id::RowId,
    layer::{Config, Empty, Unread},
    presented::Presented,
    state::{Origin, State, Unkeepable},
    store::Row,
};

/// A session that is loaded when somebody asks for it.
///
/// The layer puts it into the request's extensions, for middleware that may
/// need the session; handlers take [`Session`]. It is an extractor too, one
/// that costs nothing.
///
/// Where two layers are nested it is the inner one's; [`named`](Self::named)
/// finds the other.
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
/// // Nothing listens there: a request that needs no session does not notice.
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

#[derive(Debug)]
struct Lazy {
    config: Arc<Config>,
    cookies: Cookies,
    line: Line,
    /// What the request says of its session, once somebody asks.
    presented: OnceLock<Presented>,
    /// For the application's check of the session, where it has one.
    head: Option<Arc<Parts>>,
    session: OnceCell<Result<Session, Error>>,
    response_started: AtomicBool,
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
            head,
            session: OnceCell::new(),
            response_started: AtomicBool::new(false),
            outer,
        }))
    }

    /// The session, loaded at the first call, whoever makes it.
    ///
    /// # Errors
    ///
    /// When the row could not be loaded; the same one at each call.
    pub async fn load(&self) -> Result<Session, Error> {
        let session = self.0.session.get_or_init(|| self.0.open()).await;
        // Against the fence of `start_response`: either the response sees this
        // session, or this call sees that the response has started.
        fence(Ordering::SeqCst);
        if self.0.response_started.load(Ordering::Relaxed) {
            session.iter().for_each(Session::close_for_changes);
        }
        session.clone()
    }

    /// The session of the layer with this cookie name, this one or one
    /// further out.
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

    /// The outcome of loading, where anybody asked for it.
    pub(crate) fn looked_at(&self) -> Option<&Result<Session, Error>> {
        self.0.session.get()
    }

    pub(crate) fn start_response(&self) {
        self.0.response_started.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn line(&self) -> Line {
        self.0.line
    }

    /// Whether the request carries a token.
    #[cfg(feature = "testing")]
    pub(crate) fn has_token(&self) -> bool {
        !self.0.presented().tokens.is_empty()
    }

    /// Whether the request carries a cookie of our name, of whatever value.
    pub(crate) fn has_cookie(&self) -> bool {
        self.0.presented().named
    }
}

impl Lazy {
    fn presented(&self) -> &Presented {
        let format = self.config.store.format();
        self.presented
            .get_or_init(|| format.presented(&self.cookies, &self.config.cookie))
    }

    async fn open(&self) -> Result<Session, Error> {
        let presented = self.presented();
        let tally = self.config.store.tally();
        tally.presented(presented);
        let mut state = match presented.tokens.as_slice() {
            [] => self.without_row(Origin::New),
            // The one that was cut off may be the live one.
            _ if presented.is_cut => self.without_row(Origin::Unkeepable(Unkeepable::Ambiguous)),
            tokens => {
                let format = self.config.store.format();
                let ids: Vec<_> = tokens.iter().map(|token| format.row_id(token)).collect();
                match self.config.store.load_rows(&ids).await {
                    Ok(rows) => {
                        tally.unknown(ids.len() - rows.len());
                        self.resolve(&ids, rows)
                    }
                    Err(error) => self.not_loaded(error)?,
                }
            }
        };
        state.keep_within(self.config.limits);
        match state.origin() {
            Origin::Unkeepable(Unkeepable::Ambiguous) => tally.ambiguous(),
            Origin::New if self.config.empty == Empty::IsStored => state.keep(),
            Origin::Stored(_, token) if presented.is_outdated(token) => state.keep_if_allowed(),
            _ => {}
        }
        Ok(self
            .checked(Session::new(Arc::clone(&self.config), state))
            .await)
    }

    /// The application's word on a session that is stored.
    async fn checked(&self, session: Session) -> Session {
        let hooks = &self.config.hooks;
        if !session.is_new() && !hooks.is_valid(&session, self.head.as_ref()).await {
            session.disown();
        }
        session
    }

    fn without_row(&self, origin: Origin) -> State {
        State::without_row(origin, Arc::clone(&self.config.blank))
    }

    fn not_loaded(&self, error: Error) -> Result<State, Error> {
        match self.config.on_load_failure {
            FailurePolicy::Continue if error.is_of_the_database() => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a session could not be loaded; its request goes on without it"
                );
                Ok(self.without_row(Origin::Unkeepable(Unkeepable::NotLoaded)))
            }
            _ => Err(error),
        }
    }

    /// Which session the tokens open. Order proves nothing, so of several
    /// live ones none is taken; a dead one never ends a live one.
    fn resolve(&self, ids: &[RowId], rows: Vec<Arc<Row>>) -> State {
        let mut opened = rows.into_iter().map(|row| self.classify(row));
        let mut verdict = Opened::Nothing;
        for next in &mut opened {
            verdict = verdict.beside(next);
        }
        match verdict {
            Opened::Nothing => self.without_row(Origin::New),
            Opened::Unkeepable(reason) => self.without_row(Origin::Unkeepable(reason)),
            Opened::Live(row, document) => {
                let token = ids
                    .iter()
                    .position(|id| *id == row.id)
                    .map(|at| self.presented().tokens[at].clone());
                let token = token.expect("every row was asked for");
                let blank = Arc::clone(&self.config.blank);
                State::new(Origin::Stored(row, token), document, blank)
            }
        }
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
            return Opened::Unkeepable(Unkeepable::Moved);
        }
        match self.config.timeouts.has_ended(&meta, row.times) {
            true => Opened::Nothing,
            false => Opened::Live(row, document),
        }
    }
}

enum Opened {
    Nothing,
    Live(Arc<Row>, Arc<Document>),
    Unkeepable(Unkeepable),
}

impl Opened {
    fn beside(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, other) | (other, Self::Nothing) => other,
            (Self::Live(..), Self::Live(..)) => Self::Unkeepable(Unkeepable::Ambiguous),
            (Self::Unkeepable(Unkeepable::Moved), other)
            | (other, Self::Unkeepable(Unkeepable::Moved)) => other,
            (ambiguous @ Self::Unkeepable(_), _) | (_, ambiguous) => ambiguous,
        }
    }
}
