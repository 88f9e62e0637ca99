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
    cookie::{is_set, keep_cookies_of_other_layers},
    format::CookieChange,
    session::{Closing, Session},
    state::Touch,
};

pin_project! {
    /// The response of a [`PgSessionService`](crate::PgSessionService): the
    /// handler's, once what it did to the session is committed.
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

/// What happens to the cookie, and whether all was saved.
type Committed = (CookieChange, Result<(), Error>);

impl<F, B> ResponseFuture<F, B> {
    pub(crate) fn new(handler: F, session: LazySession) -> Self {
        Self {
            session: Some(session),
            stage: Stage::Handle { handler },
        }
    }

    /// If a layer further out has the session.
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

    /// Dropped while the handler runs, nothing is saved. Dropped while the
    /// session is saved, what was sent is still committed.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProjection::Handle { handler } => {
                    let response = ready!(handler.poll(cx))?;
                    let Some(session) = this.session.take().and_then(end_of_changes) else {
                        return Poll::Ready(Ok(response.map(ResponseBody::inner)));
                    };
                    let closing = closing(&session, response.status());
                    let commit = commit(session.clone(), closing);
                    let stage = Stage::Commit {
                        response: Some((session, response)),
                        commit,
                    };
                    this.stage.set(stage);
                }
                StageProjection::Commit { response, commit } => {
                    let committed = ready!(commit.as_mut().poll(cx));
                    let (session, response) = response.take().expect("polled after it was ready");
                    return Poll::Ready(Ok(finish(&session, response, committed)));
                }
            }
        }
    }
}

/// The session, if it was asked for before the response started.
fn end_of_changes(session: LazySession) -> Option<LazySession> {
    session.start_response();
    session.looked_at().is_some().then_some(session)
}

/// What the response's status and the application's choices leave of the
/// request's record.
fn closing(session: &LazySession, status: StatusCode) -> Closing {
    let config = session.config();
    Closing {
        keeps_changes: config.hooks.saves(session.head(), status),
        on_failure: config.on_save_failure,
        touch: match config.hooks.touches(session.head(), status) {
            true => Touch::IfDue,
            false => Touch::Never,
        },
    }
}

/// A session that could not be loaded owes nothing: its rejection is the
/// response already.
fn commit(session: LazySession, closing: Closing) -> BoxFuture<'static, Committed> {
    Box::pin(async move {
        match session.looked_at() {
            Some(Ok(session)) => session.commit(closing).await,
            Some(Err(_)) | None => (CookieChange::None, Ok(())),
        }
    })
}

fn finish<B>(
    session: &LazySession,
    response: Response<B>,
    (cookie, outcome): Committed,
) -> Response<ResponseBody<B>> {
    let is_saved = outcome.is_ok();
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
    config.write_cookie(&cookie, session.line(), response.headers_mut());
    if is_saved && opened(session).is_some_and(Session::signs_out) {
        config.clear_site_data(&cookie, response.headers_mut());
    }
    config.vary(response.headers_mut());
    response
}

fn opened(session: &LazySession) -> Option<&Session> {
    session.looked_at()?.as_ref().ok()
}

/// Whether the handler ended a session whose cookie opened nothing. A cookie
/// that only expired stays: the browser may have got a new one meanwhile, and
/// RFC 6265 has no way to remove a cookie only if it still has a certain
/// value. An application behind a proxy that shares the table may have
/// replaced the cookie already.
fn ends_a_dead_cookie(session: &LazySession, headers: &HeaderMap) -> bool {
    session.has_cookie()
        && opened(session).is_some_and(Session::removes_cookie)
        && !is_set(headers, session.config().cookie_name())
}

/// Headers that describe the body that is replaced, or that hand out what a
/// handler meant for a request that succeeded.
const OF_THE_BODY: [HeaderName; 14] = [
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
];

/// The handler's response would claim what was not stored. What other layers
/// added to it, such as CORS headers and a request id, stays. The error is in
/// the response's extensions, for an application that shows its own page.
fn not_saved<B>(response: Response<B>, error: &Error) -> Response<ResponseBody<B>> {
    log(error);
    let (mut parts, _) = response.into_parts();
    for name in &OF_THE_BODY {
        parts.headers.remove(name);
    }
    keep_cookies_of_other_layers(&mut parts.headers);
    parts.headers.remove(header::TRANSFER_ENCODING);
    let headers = &mut parts.headers;
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    parts.status = status_of(error);
    error.write_retry_after(headers);
    parts.extensions.insert(error.clone());
    Response::from_parts(parts, ResponseBody::sentence(error.sentence()))
}

fn status_of(error: &Error) -> StatusCode {
    match error.status() {
        status if status.is_client_error() => status,
        StatusCode::INSUFFICIENT_STORAGE => StatusCode::INSUFFICIENT_STORAGE,
        // Another attempt would be refused as well.
        status if error.kind() == ErrorKind::Serialize => status,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A user who signs out while another request runs, or a planted cookie, is no
/// fault of the site's.
fn log(error: &Error) {
    let (kind, status) = (error.kind(), status_of(error).as_u16());
    let error = error as &dyn std::error::Error;
    match kind {
        ErrorKind::Ended
        | ErrorKind::Ambiguous
        | ErrorKind::CrossSite
        | ErrorKind::SessionLimit => {
            tracing::debug!(
                error,
                error.type = kind.name(),
                http.response.status_code = status,
                "a change to a session was refused"
            );
        }
        ErrorKind::TooLarge => {
            tracing::warn!(
                error,
                error.type = kind.name(),
                http.response.status_code = status,
                "a session would be too large to be saved"
            );
        }
        _ => tracing::error!(
            error,
            error.type = kind.name(),
            http.response.status_code = status,
            "a session could not be saved; its request is answered with 503"
        ),
    }
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
