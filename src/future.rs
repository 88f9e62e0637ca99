use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::future::BoxFuture;
use http::{HeaderMap, Response, StatusCode};
use pin_project_lite::pin_project;

use crate::{
    Error, ErrorKind, LazySession,
    cookie::is_set,
    service::Exchange,
    session::{Closing, Pending, Session},
    state::MayTouch,
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
    /// assert_eq!(*response.await?.body(), "a page");
    /// # Ok(()) }
    /// ```
    pub struct ResponseFuture<F, B> {
        session: Option<LazySession>,
        exchange: Option<Exchange>,
        #[pin]
        stage: Stage<F, B>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F, B> {
        Handle { #[pin] handler: F },
        Commit {
            answer: Option<(LazySession, Response<B>)>,
            commit: BoxFuture<'static, Committed>,
        },
    }
}

/// The cookie that is owed, and whether all was saved.
type Committed = (Pending, Result<(), Error>);

impl<F, B> ResponseFuture<F, B> {
    pub(crate) fn new(handler: F, session: LazySession, exchange: Option<Exchange>) -> Self {
        Self {
            session: Some(session),
            exchange,
            stage: Stage::Handle { handler },
        }
    }

    /// Where a layer further out looks after the session.
    pub(crate) fn passing_on(handler: F) -> Self {
        Self {
            session: None,
            exchange: None,
            stage: Stage::Handle { handler },
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProjection::Handle { handler } => {
                    let response = ready!(handler.poll(cx))?;
                    let Some(session) = this.session.take().and_then(end_of_changes) else {
                        return Poll::Ready(Ok(response));
                    };
                    let closing = closing(&session, this.exchange.take(), response.status());
                    let commit = commit(session.clone(), closing);
                    let stage = Stage::Commit {
                        answer: Some((session, response)),
                        commit,
                    };
                    this.stage.set(stage);
                }
                StageProjection::Commit { answer, commit } => {
                    let committed = ready!(commit.as_mut().poll(cx));
                    let (session, response) = answer.take().expect("polled after it was ready");
                    return Poll::Ready(Ok(finish(&session, response, committed)));
                }
            }
        }
    }
}

/// The session, where anybody looked at it before the response started.
fn end_of_changes(session: LazySession) -> Option<LazySession> {
    session.start_response();
    session.looked_at().is_some().then_some(session)
}

/// What the answer's status and the application's choices leave of the
/// request's record.
fn closing(session: &LazySession, exchange: Option<Exchange>, status: StatusCode) -> Closing {
    let config = session.config();
    let touches = match (&config.touch_if, exchange) {
        (Some(touch_if), Some(exchange)) => touch_if(&Exchange { status, ..exchange }),
        _ => true,
    };
    Closing {
        keeps_changes: config.save_on_server_error || !status.is_server_error(),
        on_failure: config.on_save_failure,
        may_touch: if touches { MayTouch::Yes } else { MayTouch::No },
    }
}

/// A session that could not be loaded owes nothing: its rejection is the
/// answer already.
fn commit(session: LazySession, closing: Closing) -> BoxFuture<'static, Committed> {
    Box::pin(async move {
        match session.looked_at() {
            Some(Ok(session)) => session.commit(closing).await,
            Some(Err(_)) | None => (Pending::AsItIs, Ok(())),
        }
    })
}

fn finish<B: Default>(
    session: &LazySession,
    mut response: Response<B>,
    (pending, outcome): Committed,
) -> Response<B> {
    let is_saved = outcome.is_ok();
    let pending = match (outcome, pending) {
        (Ok(()), Pending::AsItIs) if has_a_dead_cookie(session, response.headers()) => {
            Pending::Removed(None)
        }
        (Ok(()), pending) => pending,
        (Err(error), pending) => {
            response = not_saved(&error);
            pending
        }
    };
    let config = session.config();
    config.tell(&pending, session.line(), response.headers_mut());
    if is_saved && signs_out(session) {
        config.clear_site_data(&pending, response.headers_mut());
    }
    config.vary(response.headers_mut());
    response
}

/// One that opened nothing. Whoever handled the request may have replaced it
/// already, as an application behind a proxy does that shares the table.
fn has_a_dead_cookie(session: &LazySession, headers: &HeaderMap) -> bool {
    let opened = session
        .looked_at()
        .and_then(|session| session.as_ref().ok());
    session.has_cookie()
        && opened.is_some_and(Session::has_no_use_for_a_cookie)
        && !is_set(headers, session.config().cookie_name())
}

fn signs_out(session: &LazySession) -> bool {
    let session = session
        .looked_at()
        .and_then(|session| session.as_ref().ok());
    session.is_some_and(Session::signs_out)
}

/// The handler's answer would claim what was not stored.
fn not_saved<B: Default>(error: &Error) -> Response<B> {
    log(error);
    let mut response = Response::new(B::default());
    *response.status_mut() = status_of(error);
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        error.ask_back(response.headers_mut());
    }
    response
}

fn status_of(error: &Error) -> StatusCode {
    match error.status() {
        status if status.is_client_error() => status,
        StatusCode::INSUFFICIENT_STORAGE => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// That a visitor signs out while another request runs, or sends what somebody
/// planted, is no fault of the site's.
fn log(error: &Error) {
    let (kind, status) = (error.kind(), status_of(error).as_u16());
    let error = error as &dyn std::error::Error;
    match kind {
        ErrorKind::Ended | ErrorKind::Ambiguous | ErrorKind::SessionLimit => {
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
