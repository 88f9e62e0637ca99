use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use axum_core::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};

/// For a database that may be about to fail over, which takes seconds.
const UNTIL_THE_DATABASE_IS_BACK: Duration = Duration::from_secs(5);
/// For what was lost to another request, and need not be lost again.
const UNTIL_OTHERS_ARE_THROUGH: Duration = Duration::from_secs(1);

/// What went wrong with a session, opaque but for its [`kind`](Error::kind).
///
/// The error that caused it, often one of sqlx, is kept as its
/// [`source`](std::error::Error::source). As a response it is its
/// [`status`](Error::status) with a sentence that tells a visitor nothing of
/// the cause, and a `Retry-After` where trying again may help.
///
/// ```
/// use axum_pg_session::{ErrorKind, PgSessionStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let error = PgSessionStore::connect("not a URL").await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Setup);
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The causes that a caller may want to tell apart.
///
/// ```
/// use axum::{Router, body::Body, http::Request, response::{IntoResponse, Response}, routing::get};
/// use axum_pg_session::{Error, ErrorKind, PgSessionLayer, PgSessionStore, Session};
/// use tower::ServiceExt;
///
/// /// Of what the visitor sent, only this can be too much.
/// fn explained(error: Error) -> Response {
///     match error.kind() {
///         ErrorKind::TooLarge => "That was too long.".into_response(),
///         _ => error.into_response(),
///     }
/// }
///
/// async fn note(session: Session) -> Response {
///     let note = session.insert("note", "x".repeat(2_000_000));
///     note.map_err(explained).into_response()
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// let app = Router::new().route("/", get(note)).layer(PgSessionLayer::new(store));
/// let response = app.oneshot(Request::get("/").body(Body::empty())?).await?;
/// let body = axum::body::to_bytes(response.into_body(), 1000).await?;
/// assert_eq!(body, "That was too long.");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The database could not be reached, did not answer in time, or was lost
    /// before it said whether a change was committed.
    Unavailable,
    /// The database refused a statement for another reason.
    Database,
    /// The configuration, the table or its rights are wrong.
    Setup,
    /// Other writers won every attempt until the time was up.
    Conflict,
    /// The session was destroyed, expired, or got a new id while the request
    /// was running; its late changes are dropped.
    Ended,
    /// The request carries cookies of several live sessions, or more of them
    /// than are looked up, so that none can be trusted.
    Ambiguous,
    /// The user has as many sessions as allowed, so another login is refused.
    SessionLimit,
    /// A value can't be written as JSON, or a user's id can't be stored.
    Serialize,
    /// A stored value is not of the type that was asked for.
    Deserialize,
    /// The session would be larger, or a value deeper, than the layer's
    /// limits allow. Stored is what was stored before.
    TooLarge,
    /// The key belongs to this crate.
    ReservedKey,
    /// The response has started, so a change could not be saved any more.
    ResponseStarted,
    /// The system's generator of random numbers failed.
    Random,
}

impl ErrorKind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Unavailable,
        Self::Database,
        Self::Setup,
        Self::Conflict,
        Self::Ended,
        Self::Ambiguous,
        Self::SessionLimit,
        Self::Serialize,
        Self::Deserialize,
        Self::TooLarge,
        Self::ReservedKey,
        Self::ResponseStarted,
        Self::Random,
    ];

    /// As metrics and events name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Database => "database",
            Self::Setup => "setup",
            Self::Conflict => "conflict",
            Self::Ended => "ended",
            Self::Ambiguous => "ambiguous",
            Self::SessionLimit => "session_limit",
            Self::Serialize => "serialize",
            Self::Deserialize => "deserialize",
            Self::TooLarge => "too_large",
            Self::ReservedKey => "reserved_key",
            Self::ResponseStarted => "response_started",
            Self::Random => "random",
        }
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::build(kind, message.into(), None)
    }

    pub(crate) fn caused(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::build(kind, message.into(), Some(source.into()))
    }

    fn build(
        kind: ErrorKind,
        message: Cow<'static, str>,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            message,
            source,
        }))
    }

    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The status that this error has as a response: 503 where trying again
    /// may help, 400 for [`ErrorKind::Ambiguous`], 403 for
    /// [`ErrorKind::SessionLimit`], 507 for [`ErrorKind::TooLarge`], and 500
    /// otherwise.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.kind() {
            ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Ended => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorKind::Ambiguous => StatusCode::BAD_REQUEST,
            // Not 413: an answer below 500 would keep what the handler did
            // before, and the request itself may be small.
            ErrorKind::TooLarge => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::SessionLimit => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// After how long trying again may help, as the response says by its
    /// `Retry-After` (RFC 9110, section 10.2.3): 5 seconds where the database
    /// could not serve, 1 second where other requests were in the way. `None`
    /// where it would not help.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_pg_session::PgSessionStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // Nothing listens there.
    /// let pool = sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none")?;
    /// let store = PgSessionStore::new(pool).timeout(Duration::from_millis(100));
    ///
    /// let error = store.check().await.unwrap_err();
    /// assert_eq!(error.retry_after(), Some(Duration::from_secs(5)));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind() {
            ErrorKind::Unavailable => Some(UNTIL_THE_DATABASE_IS_BACK),
            ErrorKind::Conflict | ErrorKind::Ended => Some(UNTIL_OTHERS_ARE_THROUGH),
            _ => None,
        }
    }

    /// Says in the headers of a 503 when to come back.
    pub(crate) fn ask_back(&self, headers: &mut HeaderMap) {
        let wait = self.retry_after().unwrap_or(UNTIL_THE_DATABASE_IS_BACK);
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }

    /// Whether the database is at fault, rather than the request.
    pub(crate) fn is_of_the_database(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Unavailable | ErrorKind::Database | ErrorKind::Setup | ErrorKind::Conflict
        )
    }

    pub(crate) fn ended() -> Self {
        Self::new(
            ErrorKind::Ended,
            "the session ended while this request was running; its changes are dropped",
        )
    }

    pub(crate) fn not_a_url(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::caused(
            ErrorKind::Setup,
            "this is not the URL of a Postgres database",
            source,
        )
    }

    pub(crate) fn abandoned() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "the runtime stopped before the database answered",
        )
    }

    /// Rows that can't be tied to what was asked must never reach a visitor.
    pub(crate) fn not_asked_for() -> Self {
        Self::new(
            ErrorKind::Setup,
            "the database answered with a row that was not asked for; \
             is a transaction pooler between this process and Postgres?",
        )
    }
}

impl fmt::Debug for Error {
    /// Without the details of a database error, which quote whole rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let sentence = match self.kind() {
            ErrorKind::TooLarge => "This session can hold no more.",
            ErrorKind::Ambiguous => "Several sessions at once. Please clear this site's cookies.",
            ErrorKind::SessionLimit => {
                "You are signed in on too many devices. Please sign out on one."
            }
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => {
                "The session store is unavailable. Please try again."
            }
            _ => "Internal server error.",
        };
        let mut response = (self.status(), sentence).into_response();
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            self.ask_back(response.headers_mut());
        }
        response
    }
}
