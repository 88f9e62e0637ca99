//! The future of a request: it runs the handler, commits the session, and writes
//! the headers of the response. This module decides what is saved. It doesn't know
//! how, see `session/saving.rs`.
//!
//! The future has two stages:
//!
//! 1. *Handle* polls the handler. When the handler returns a response, the response
//!    has started. If the session was not loaded, the response is sent unchanged.
//! 2. *Commit* saves what `save_if` and `touch_if` allow for this response, and
//!    then writes `Set-Cookie`, `Vary` and `Clear-Site-Data`. If the save failed, an
//!    error replaces the response.
//!
//! If the future is dropped:
//!
//! - In stage 1, nothing is saved or deleted. The session is closed, so that
//!   tasks of the handler can't record changes that no response saves. The same
//!   holds if the handler panics or returns an error.
//! - In stage 2, deletions and queued writes are executed, and a new id is undone. If
//!   the commit still waits for an earlier explicit save, only the deletions are
//!   executed.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use pin_project_lite::pin_project;

use crate::{
    Error, ErrorKind, LazySession, ResponseBody,
    cookie::{forbid_shared_caching, is_set, keep_cookies_of_other_layers},
    format::CookieChange,
    layer::response_headers::{CLEAR_SITE_DATA, clear_site_data, vary, write_cookie},
    session::{Closing, Session},
    touch::Touch,
};

pin_project! {
    /// The future of a [`PgSessionService`](crate::PgSessionService). It
    /// resolves to the handler's response after the changes to the session are
    /// committed.
    ///
    /// ```
    /// use std::{convert::Infallible, future::{Ready, ready}};
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, ResponseFuture};
    /// use http::{Request, Response};
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let pages = service_fn(|_| ready(Ok::<_, Infallible>(Response::new("a page"))));
    /// let mut service = PgSessionLayer::new(store).layer(pages);
    /// let response: ResponseFuture<Ready<_>, _> = service.call(Request::new(()));
    /// let body = response.await?.into_body();
    /// assert_eq!(body.into_inner(), Some("a page"));
    /// # Ok(()) }
    /// ```
    pub struct ResponseFuture<F, B> {
        session: Option<LazySession>,
        #[pin]
        stage: Stage<F, B>,
    }

    impl<F, B> PinnedDrop for ResponseFuture<F, B> {
        /// Closes the session if the handler returned no response, because it was
        /// canceled, panicked or failed. No response would save later changes.
        fn drop(this: Pin<&mut Self>) {
            if let Some(session) = this.project().session.take() {
                session.end_without_response();
            }
        }
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F, B> {
        Handle { #[pin] handler: F },
        Commit {
            response: Option<(LazySession, Response<B>)>,
            commit: BoxFuture<'static, Committed>,
        },
    }
}

/// The cookie change, and whether all writes succeeded.
type Committed = (CookieChange, Result<(), Error>);

impl<F, B> ResponseFuture<F, B> {
    pub(crate) fn new(handler: F, session: LazySession) -> Self {
        Self {
            session: Some(session),
            stage: Stage::Handle { handler },
        }
    }

    /// For a request whose session belongs to an outer layer.
    pub(crate) fn passing_on(handler: F) -> Self {
        Self {
            session: None,
            stage: Stage::Handle { handler },
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    /// If the future is dropped while the handler runs, nothing is saved. If it is
    /// dropped during the commit, deletions and queued writes are still executed.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProjection::Handle { handler } => {
                    // If dropped here, or if the handler fails, the session is still in
                    // `this`, and the drop closes it.
                    let response = ready!(handler.poll(cx))?;
                    let loaded = this.session.clone().filter(LazySession::start_response);
                    let Some(session) = loaded else {
                        *this.session = None;
                        return Poll::Ready(Ok(response.map(ResponseBody::inner)));
                    };
                    // If a hook panics, the drop closes the session, too.
                    let closing = closing(&session, response.status());
                    let commit = commit(session.clone(), closing);
                    *this.session = None;
                    let stage = Stage::Commit {
                        response: Some((session, response)),
                        commit,
                    };
                    this.stage.set(stage);
                }
                StageProjection::Commit { response, commit } => {
                    // If dropped here, the commit is dropped, see `Session::commit`.
                    let committed = ready!(commit.as_mut().poll(cx));
                    let (session, response) = response.take().expect("polled after it was ready");
                    return Poll::Ready(Ok(finish(&session, response, committed)));
                }
            }
        }
    }
}

/// Decides what to save, by the response's status and the application's hooks.
fn closing(session: &LazySession, status: StatusCode) -> Closing {
    let config = session.config();
    Closing {
        keeps_changes: config.hooks.saves(session.head(), status),
        is_failure: status.is_client_error() || status.is_server_error(),
        on_failure: config.on_save_failure,
        touch: match config.hooks.touches(session.head(), status) {
            true => Touch::IfDue,
            false => Touch::Never,
        },
    }
}

/// Saves the session. If it could not be loaded, nothing is saved: the rejection
/// already is the response.
fn commit(session: LazySession, closing: Closing) -> BoxFuture<'static, Committed> {
    Box::pin(async move {
        // After a logout, the cookie of another system must not sign the visitor in again.
        let ends = opened(&session).is_some_and(Session::is_to_be_deleted);
        let deletion = if ends { session.end_other() } else { None };
        let (cookie, outcome) = match (session.looked_at(), session.unchecked()) {
            (Some(Ok(opened)), _) => opened.commit(closing).await,
            (Some(Err(_)), Some(unchecked)) => {
                let closing = Closing {
                    keeps_changes: false,
                    touch: Touch::Never,
                    ..closing
                };
                unchecked.commit(closing).await
            }
            (Some(Err(_)), None) | (None, _) => (CookieChange::None, Ok(())),
        };
        // No `await` after a commit of a new id: its response must not be dropped in between.
        if matches!(cookie, CookieChange::Set(_)) {
            if !ends {
                drop(session.end_other());
            }
            return (cookie, outcome);
        }
        if let Some(deletion) = deletion {
            // If dropped here, all other writes are done, and the task executes the deletion.
            let deleted = deletion
                .await
                .unwrap_or_else(|_| Err(Error::without_outcome()));
            if deleted.is_err() {
                // So that the visitor can repeat the logout.
                session.keep_other_cookie();
            }
            return (cookie, outcome.and(deleted));
        }
        if !ends && matches!(cookie, CookieChange::Remove(_)) {
            drop(session.end_other());
        }
        (cookie, outcome)
    })
}

/// Writes the headers of the session, and replaces a response whose save failed.
fn finish<B>(
    session: &LazySession,
    response: Response<B>,
    (cookie, outcome): Committed,
) -> Response<ResponseBody<B>> {
    let (mut response, cookie) = match outcome {
        Ok(()) => {
            let cookie = match cookie {
                CookieChange::None if ends_a_dead_cookie(session, response.headers()) => {
                    CookieChange::Remove(None)
                }
                cookie => cookie,
            };
            (response.map(ResponseBody::inner), cookie)
        }
        Err(error) => (not_saved(response, &error), cookie),
    };
    let config = session.config();
    if matches!(cookie, CookieChange::Set(_)) && session.may_have_a_cookie_of_another_port() {
        config.warn_of_another_application();
    }
    write_cookie(session, &cookie, response.headers_mut());
    if opened(session).is_some_and(Session::has_signed_out) {
        clear_site_data(config, &cookie, response.headers_mut());
    }
    vary(config, response.headers_mut());
    response
}

fn opened(session: &LazySession) -> Option<&Session> {
    session.looked_at()?.as_ref().ok()
}

/// Whether the handler destroyed a session whose cookie opened nothing, so the
/// cookie must be removed.
///
/// An expired cookie alone is not removed: the browser may have a new one by
/// now, and RFC 6265 can't remove a cookie on the condition that it has a
/// certain value. A cookie that the response already sets is kept: behind a
/// proxy, another application on the same table may have set it.
fn ends_a_dead_cookie(session: &LazySession, headers: &HeaderMap) -> bool {
    let format = session.config().store.format();
    session.has_cookie()
        && opened(session).is_some_and(Session::removes_cookie)
        && !is_set(headers, format.cookie_name(session.cookie()))
}

/// Headers that describe or replace the body, or that belong to the handler's own
/// response only.
const OF_THE_BODY: [HeaderName; 24] = [
    header::ACCEPT_RANGES,
    header::AGE,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::LOCATION,
    header::REFRESH,
    // The error sets its own.
    header::RETRY_AFTER,
    header::TRAILER,
    // For example from a logout that was not saved.
    CLEAR_SITE_DATA,
    // RFC 9530, and the headers that it replaced.
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    // A proxy would send the named file instead of the body.
    HeaderName::from_static("x-accel-redirect"),
    HeaderName::from_static("x-sendfile"),
];

/// Replaces the handler's response, because it reports a change that was not
/// stored. The headers of htmx and Inertia are removed, because their clients act on them with
/// any status, and those of an upgrade. The headers of other layers stay, such as CORS and the
/// request id. The error is in the response's extensions, for applications that show their own
/// page.
fn not_saved<B>(response: Response<B>, error: &Error) -> Response<ResponseBody<B>> {
    error.log_failed_save(status_of(error));
    let (mut parts, _) = response.into_parts();
    for name in &OF_THE_BODY {
        parts.headers.remove(name);
    }
    let of_the_page: Vec<_> = parts
        .headers
        .keys()
        .filter(|name| {
            let prefixes = ["hx-", "x-inertia", "sec-websocket-"];
            prefixes
                .iter()
                .any(|prefix| name.as_str().starts_with(prefix))
        })
        .cloned()
        .collect();
    for name in of_the_page {
        parts.headers.remove(name);
    }
    if parts.headers.remove(header::UPGRADE).is_some() {
        parts.headers.remove(header::CONNECTION);
    }
    keep_cookies_of_other_layers(&mut parts.headers);
    parts.headers.remove(header::TRANSFER_ENCODING);
    let headers = &mut parts.headers;
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    forbid_shared_caching(headers);
    parts.status = status_of(error);
    error.write_retry_after(headers);
    parts.extensions.insert(error.clone());
    Response::from_parts(
        parts,
        ResponseBody::sentence(error.sentence_of_a_failed_save()),
    )
}

fn status_of(error: &Error) -> StatusCode {
    match error.status() {
        status if status.is_client_error() => status,
        StatusCode::INSUFFICIENT_STORAGE => StatusCode::INSUFFICIENT_STORAGE,
        // Another attempt would fail, too.
        status if error.kind() == ErrorKind::Serialize => status,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
