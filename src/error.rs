//! The errors of the crate: their kinds, their responses, and how they are logged. This
//! module does no I/O and doesn't know which call failed.

use std::{
    borrow::Cow,
    error::Error as StdError,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum_core::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};

/// The `Retry-After` if the database is unavailable. A failover takes seconds.
const UNTIL_THE_DATABASE_IS_BACK: Duration = Duration::from_secs(5);
/// The `Retry-After` if other writers of the session were faster.
const UNTIL_OTHERS_ARE_THROUGH: Duration = Duration::from_secs(1);

/// An error of a session. Use its [`kind`](Error::kind) to distinguish errors.
///
/// Its cause, often an error of sqlx, is its [`source`](std::error::Error::source). Its
/// response has the [`status`](Error::status), one sentence for the visitor that doesn't
/// reveal the cause, and a `Retry-After` if a later attempt may succeed. If the status is
/// a 5xx, the error is logged, unless the layer has logged it before.
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
    retry: Retry,
    /// The sentence for the visitor, if the one of the kind doesn't apply.
    sentence: Option<&'static str>,
    /// Whether the error was logged, so that it is logged once.
    is_logged: AtomicBool,
}

/// When a later attempt may succeed.
#[derive(Clone, Copy, Debug)]
enum Retry {
    AsTheKind,
    After(Duration),
    Never,
}

/// The kind of an [`Error`].
///
/// ```
/// use axum::{Router, body::Body, http::Request, response::{IntoResponse, Response}, routing::get};
/// use axum_pg_session::{Error, ErrorKind, PgSessionLayer, PgSessionStore, Session};
/// use tower::ServiceExt;
///
/// /// Explains the one error that the visitor can correct.
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
    /// The database could not be reached, did not respond in time, or the connection was
    /// lost before it was known whether a change was committed.
    Unavailable,
    /// The database refused a statement for another reason.
    Database,
    /// The configuration, the table or its privileges are wrong.
    Setup,
    /// Other writers of the session were faster at each attempt, until the timeout.
    Conflict,
    /// The session was destroyed, expired, or got a new id while the request was running.
    /// Its late changes are dropped.
    Ended,
    /// The request carries cookies of several live sessions, or more cookies than are
    /// looked up, so it is unknown which session is meant.
    Ambiguous,
    /// Another site posted the request, without the cookie, so it can't begin a
    /// session: see
    /// [`begin_on_cross_site_post`](crate::PgSessionLayer::begin_on_cross_site_post).
    CrossSite,
    /// The user has the maximum number of sessions, so another login is refused.
    SessionLimit,
    /// The user of a login doesn't exist: the session table has a foreign key from
    /// `user_id` to the application's users.
    UnknownUser,
    /// A value can't be written as JSON, or the encoding of the database lacks
    /// one of its characters, or a user's id can't be stored.
    Serialize,
    /// A stored value is not of the requested type.
    Deserialize,
    /// The session would be larger, or a value deeper, than the layer's limits allow. The
    /// stored session stays as it was.
    TooLarge,
    /// The key is reserved for this crate.
    ReservedKey,
    /// The response has started, so a change can't be saved any more.
    ResponseStarted,
    /// The system's random number generator failed.
    Random,
    /// A closure of [`Session::update`](crate::Session::update) used its own
    /// session, or [`valid_if`](crate::PgSessionLayer::valid_if) loaded
    /// or saved the session that it checks.
    Reentrant,
    /// An error of the application's own, see [`Error::application`].
    Application,
}

impl ErrorKind {
    pub(crate) const ALL: [Self; 17] = [
        Self::Unavailable,
        Self::Database,
        Self::Setup,
        Self::Conflict,
        Self::Ended,
        Self::Ambiguous,
        Self::CrossSite,
        Self::SessionLimit,
        Self::UnknownUser,
        Self::Serialize,
        Self::Deserialize,
        Self::TooLarge,
        Self::ReservedKey,
        Self::ResponseStarted,
        Self::Random,
        Self::Reentrant,
        Self::Application,
    ];

    /// The name in metrics and events.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Database => "database",
            Self::Setup => "setup",
            Self::Conflict => "conflict",
            Self::Ended => "ended",
            Self::Ambiguous => "ambiguous",
            Self::CrossSite => "cross_site",
            Self::SessionLimit => "session_limit",
            Self::UnknownUser => "unknown_user",
            Self::Serialize => "serialize",
            Self::Deserialize => "deserialize",
            Self::TooLarge => "too_large",
            Self::ReservedKey => "reserved_key",
            Self::ResponseStarted => "response_started",
            Self::Random => "random",
            Self::Reentrant => "reentrant",
            Self::Application => "application",
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
        Self(Arc::new(Inner::new(kind, message, source)))
    }

    /// Creates an error of the application, for
    /// [`before_save`](crate::PgSessionLayer::before_save).
    ///
    /// ```
    /// use axum_pg_session::{Error, ErrorKind};
    ///
    /// let error = Error::application("the basket service did not respond");
    /// assert_eq!(error.kind(), ErrorKind::Application);
    /// ```
    pub fn application(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::caused(
            ErrorKind::Application,
            "a hook of the application failed",
            source,
        )
    }

    /// Returns the kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the status that this error has as a response: 503 for
    /// [`ErrorKind::Unavailable`], [`ErrorKind::Conflict`] and
    /// [`ErrorKind::Ended`], 400 for [`ErrorKind::Ambiguous`], 403 for
    /// [`ErrorKind::SessionLimit`], [`ErrorKind::UnknownUser`] and
    /// [`ErrorKind::CrossSite`], 507 for [`ErrorKind::TooLarge`], and 500
    /// otherwise.
    ///
    /// If a session could not be saved, the layer's response is a 503 instead of a 500,
    /// except for [`ErrorKind::Serialize`].
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.kind() {
            ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Ended => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorKind::Ambiguous => StatusCode::BAD_REQUEST,
            // Not 413: a response below 500 would save the earlier changes of the handler,
            // and the request itself may be small.
            ErrorKind::TooLarge => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::SessionLimit | ErrorKind::UnknownUser | ErrorKind::CrossSite => {
                StatusCode::FORBIDDEN
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns after how long the same request may succeed. It is the `Retry-After` of the
    /// response (RFC 9110, section 10.2.3): 5 seconds for [`ErrorKind::Unavailable`], and
    /// 1 second for a [`ErrorKind::Conflict`] with another request. An error of kind
    /// [`ErrorKind::Ended`] has one only if the request's token was replaced less than 5
    /// seconds ago: the rest of that time. `None` if a later attempt would fail, too.
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
        match (self.0.retry, self.kind()) {
            (Retry::After(wait), _) => Some(wait),
            (Retry::AsTheKind, ErrorKind::Unavailable) => Some(UNTIL_THE_DATABASE_IS_BACK),
            (Retry::AsTheKind, ErrorKind::Conflict) => Some(UNTIL_OTHERS_ARE_THROUGH),
            (Retry::AsTheKind | Retry::Never, _) => None,
        }
    }

    /// Writes `Retry-After`, if a later attempt may succeed.
    pub(crate) fn write_retry_after(&self, headers: &mut HeaderMap) {
        if let Some(wait) = self.retry_after() {
            // Rounded up, because an attempt that is too early would fail again.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
    }

    /// The sentence for the visitor. It must be true, and must not reveal the cause.
    pub(crate) fn sentence(&self) -> &'static str {
        if let Some(sentence) = self.0.sentence {
            return sentence;
        }
        match self.kind() {
            ErrorKind::Unavailable => "The session store is unavailable. Please try again.",
            ErrorKind::Conflict => {
                "This session is being changed by many requests. Please try again."
            }
            ErrorKind::Ended => {
                "This session has ended or was renewed. Nothing was saved. Please reload the page."
            }
            ErrorKind::Ambiguous => "Several sessions at once. Please clear this site's cookies.",
            ErrorKind::SessionLimit => {
                "You are signed in on too many devices. Please sign out on one."
            }
            ErrorKind::UnknownUser => "This account does not exist any more.",
            ErrorKind::CrossSite => "This request came from another site. Please try again here.",
            ErrorKind::TooLarge => "Your session is full.",
            ErrorKind::Database => "The session store refused this request.",
            ErrorKind::Setup => "The session store can't be used.",
            ErrorKind::Serialize => "A value can't be stored in your session.",
            ErrorKind::Deserialize => "A value of your session can't be read.",
            ErrorKind::ReservedKey => "A reserved name can't be used in your session.",
            ErrorKind::ResponseStarted => {
                "This page was already being sent, so your changes were not saved."
            }
            ErrorKind::Random => "No session can begin at the moment.",
            ErrorKind::Reentrant => "Your session is already being changed.",
            ErrorKind::Application => "Internal server error.",
        }
    }

    /// The sentence for a visitor whose changes could not be saved.
    pub(crate) fn sentence_of_a_failed_save(&self) -> &'static str {
        match self.kind() {
            // Another attempt would fail, too.
            ErrorKind::Serialize => self.sentence(),
            _ if self.status() == StatusCode::INTERNAL_SERVER_ERROR => {
                "Your changes could not be saved."
            }
            _ => self.sentence(),
        }
    }

    /// Prevents another log entry, for code that logs the error itself.
    pub(crate) fn mark_as_logged(&self) {
        self.0.is_logged.store(true, Relaxed);
    }

    fn is_new_to_the_log(&self) -> bool {
        !self.0.is_logged.swap(true, Relaxed)
    }

    /// Logs a failed save, for which the layer responds with this status.
    pub(crate) fn log_failed_save(&self, status: StatusCode) {
        // Several requests can share an error. Each of them logs its own response.
        self.mark_as_logged();
        if !self.log_refusal(status) {
            tracing::error!(
                error = self as &dyn StdError,
                error.type = self.kind().name(),
                http.response.status_code = status.as_u16(),
                "a session could not be saved"
            );
        }
    }

    fn log_response(&self) {
        let status = self.status();
        let is_logged = !status.is_server_error() || !self.is_new_to_the_log();
        if !is_logged && !self.log_refusal(status) {
            tracing::error!(
                error = self as &dyn StdError,
                error.type = self.kind().name(),
                http.response.status_code = status.as_u16(),
                "a handler returned an error of a session"
            );
        }
    }

    /// Logs an error that the site did not cause, such as a logout during another request
    /// or a planted cookie. Returns whether it is such an error.
    fn log_refusal(&self, status: StatusCode) -> bool {
        match self.kind() {
            ErrorKind::Ended
            | ErrorKind::Ambiguous
            | ErrorKind::CrossSite
            | ErrorKind::SessionLimit
            | ErrorKind::UnknownUser => tracing::debug!(
                error = self as &dyn StdError,
                error.type = self.kind().name(),
                http.response.status_code = status.as_u16(),
                "a change to a session was refused"
            ),
            ErrorKind::TooLarge => tracing::warn!(
                error = self as &dyn StdError,
                error.type = self.kind().name(),
                http.response.status_code = status.as_u16(),
                "a session would be too large to be saved"
            ),
            _ => return false,
        }
        true
    }

    /// Whether the database caused the error, not the request.
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

    /// For a request with the old token of a session that has a new id.
    pub(crate) fn moved(retry_after: Duration) -> Self {
        let message =
            "the session has a new id since this request was sent; its changes are dropped";
        Self(Arc::new(Inner {
            retry: Retry::After(retry_after),
            ..Inner::new(ErrorKind::Ended, message.into(), None)
        }))
    }

    /// For a destroy of a session whose row no longer exists, if the session may have a new id.
    pub(crate) fn not_destroyed() -> Self {
        let message = "the row of the session no longer exists: the session was destroyed or \
                       expired, or another process gave it a new id; sign out again";
        Self(Arc::new(Inner {
            sentence: Some(
                "This session has ended or was renewed. If you are still signed in, please sign \
                 out again.",
            ),
            ..Inner::new(ErrorKind::Ended, message.into(), None)
        }))
    }

    /// For `destroy_others` with a handle that is not of the user's sessions.
    pub(crate) fn not_of_the_user() -> Self {
        let message =
            "the handle is of no live session of this user, so no other session was ended";
        Self(Arc::new(Inner {
            sentence: Some("This session has ended, so no other session was ended."),
            ..Inner::new(ErrorKind::Ended, message.into(), None)
        }))
    }

    /// For an application's check that failed. It is unknown whether the session is valid.
    pub(crate) fn unchecked(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::unchecked_until(Retry::AsTheKind, source.into())
    }

    /// As [`unchecked`](Self::unchecked), for a check whose own query failed.
    pub(crate) fn unchecked_for(source: Self) -> Self {
        let retry = source.retry_after().map_or(Retry::Never, Retry::After);
        Self::unchecked_until(retry, source.into())
    }

    fn unchecked_until(retry: Retry, source: Box<dyn StdError + Send + Sync>) -> Self {
        let message = "the `valid_if` check of the session failed";
        let sentence = match retry {
            Retry::Never => "Your session could not be checked.",
            Retry::AsTheKind | Retry::After(_) => {
                "Your session could not be checked. Please try again."
            }
        };
        Self(Arc::new(Inner {
            retry,
            sentence: Some(sentence),
            ..Inner::new(ErrorKind::Unavailable, message.into(), Some(source))
        }))
    }

    /// For a change that comes too late.
    pub(crate) fn response_started() -> Self {
        Self::new(
            ErrorKind::ResponseStarted,
            "the response has started, or the request was canceled: \
             this change to the session would be lost",
        )
    }

    /// For a save whose changes were taken by the response of a canceled request.
    pub(crate) fn without_outcome() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "the request was canceled while its response saved the session; \
             the changes may be committed",
        )
    }

    /// For `valid_if`.
    pub(crate) fn saved_by_its_check() -> Self {
        Self::new(
            ErrorKind::Reentrant,
            "valid_if can't save the session that it checks; what it changes is saved with the response",
        )
    }

    /// For a closure of a session that uses that session.
    pub(crate) fn reentrant() -> Self {
        Self::new(
            ErrorKind::Reentrant,
            "a closure that changes a session must use nothing but its argument",
        )
    }

    pub(crate) fn not_a_url(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::caused(
            ErrorKind::Setup,
            "this is not the URL of a Postgres database",
            source,
        )
    }

    /// For `take` and `update_now` concurrent with a `discard` of the same request. The
    /// next attempt would do the same.
    pub(crate) fn discarded() -> Self {
        let message = "the same request discarded its changes while this one was being saved";
        Self(Arc::new(Inner {
            retry: Retry::Never,
            sentence: Some("Your changes could not be saved."),
            ..Inner::new(ErrorKind::Conflict, message.into(), None)
        }))
    }

    pub(crate) fn panicked() -> Self {
        Self::new(
            ErrorKind::Serialize,
            "a closure that changes the session panicked",
        )
    }

    pub(crate) fn abandoned() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "the runtime stopped before the database responded",
        )
    }

    /// For a write whose connection was lost, if another writer has changed the row since.
    pub(crate) fn lost_commit() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "the connection was lost during the commit, and another request has changed the \
             session since; the changes may be committed",
        )
    }

    /// For rows that match no requested id. They must never reach a visitor.
    pub(crate) fn not_asked_for() -> Self {
        Self::new(
            ErrorKind::Setup,
            "the database returned a row that was not asked for; \
             is a transaction pooler between this process and Postgres?",
        )
    }

    pub(crate) fn is_out_of_time(&self) -> bool {
        StdError::source(self).is_some_and(<dyn StdError>::is::<OutOfTime>)
    }
}

impl Inner {
    fn new(
        kind: ErrorKind,
        message: Cow<'static, str>,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            message,
            source,
            retry: Retry::AsTheKind,
            sentence: None,
            is_logged: AtomicBool::new(false),
        }
    }
}

impl fmt::Debug for Error {
    /// Omits the details of a database error, because they quote whole rows.
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
        self.log_response();
        let mut response = (self.status(), self.sentence()).into_response();
        self.write_retry_after(response.headers_mut());
        response.extensions_mut().insert(self);
        response
    }
}

pub(crate) fn out_of_time() -> Error {
    Error::caused(
        ErrorKind::Unavailable,
        "the database did not respond in time",
        OutOfTime,
    )
}

/// Marks the errors of our own deadline, after which there is no other attempt.
#[derive(Debug)]
pub(crate) struct OutOfTime;

impl fmt::Display for OutOfTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time for one statement is up")
    }
}

impl StdError for OutOfTime {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_time_heals_ask_the_client_back() {
        for kind in ErrorKind::ALL {
            let response = Error::new(kind, "detail").into_response();
            let seconds = response.headers().get(RETRY_AFTER);
            let expected = match kind {
                ErrorKind::Unavailable => Some("5"),
                ErrorKind::Conflict => Some("1"),
                _ => None,
            };
            let seconds = seconds.map(|value| value.to_str().expect("a number"));
            assert_eq!(seconds, expected, "{kind:?}");
        }
    }

    /// The same request would discard its changes again.
    #[test]
    fn changes_that_their_own_request_discarded_are_not_healed_by_time() {
        let error = Error::discarded();
        assert_eq!(error.retry_after(), None);
        assert!(!error.sentence().contains("many requests"));
        assert!(!error.into_response().headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn each_error_of_a_session_has_a_sentence_of_its_own() {
        let mut sentences: Vec<_> = ErrorKind::ALL
            .map(|kind| Error::new(kind, "detail"))
            .iter()
            .filter(|error| error.status() != StatusCode::INTERNAL_SERVER_ERROR)
            .map(Error::sentence)
            .collect();
        assert_eq!(sentences.len(), 8);
        sentences.sort_unstable();
        sentences.dedup();
        assert_eq!(sentences.len(), 8);
        let unavailable = Error::new(ErrorKind::Unavailable, "detail").sentence();
        assert!(unavailable.contains("store is unavailable"));
    }
}
