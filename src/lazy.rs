use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};

use tokio::sync::OnceCell;

use crate::{
    Error, Session,
    cookie::Presented,
    document::Document,
    id::RowId,
    layer::Config,
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
    presented: Presented,
    session: OnceCell<Result<Session, Error>>,
    response_started: AtomicBool,
    outer: Option<LazySession>,
}

impl LazySession {
    pub(crate) fn new(config: Arc<Config>, presented: Presented, outer: Option<Self>) -> Self {
        Self(Arc::new(Lazy {
            config,
            presented,
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
        if self.0.config.cookie.name() == cookie_name {
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

    /// Whether the request carries a cookie of our name, of whatever value.
    pub(crate) fn has_cookie(&self) -> bool {
        self.0.presented.named
    }
}

impl Lazy {
    async fn open(&self) -> Result<Session, Error> {
        let state = match self.presented.tokens.as_slice() {
            [] => State::new(Origin::New, Arc::default()),
            // The one that was cut off may be the live one.
            _ if self.presented.is_cut => {
                State::new(Origin::Unkeepable(Unkeepable::Ambiguous), Arc::default())
            }
            tokens => {
                let ids: Vec<_> = tokens.iter().map(crate::id::Token::row_id).collect();
                let rows = self.config.store.load(&ids).await?;
                self.resolve(&ids, rows)
            }
        };
        let timeouts = Arc::clone(&self.config.timeouts);
        Ok(Session::new(self.config.store.clone(), timeouts, state))
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
            Opened::Nothing => State::new(Origin::New, Arc::default()),
            Opened::Unkeepable(reason) => State::new(Origin::Unkeepable(reason), Arc::default()),
            Opened::Live(row, document) => {
                let token = ids
                    .iter()
                    .position(|id| *id == row.id)
                    .map(|at| self.presented.tokens[at].clone());
                let token = token.expect("every row was asked for");
                State::new(Origin::Stored(row, token), document)
            }
        }
    }

    fn classify(&self, row: Arc<Row>) -> Opened {
        let Some(document) = row.document().cloned() else {
            tracing::warn!(
                session.id = row.id.as_str(),
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
