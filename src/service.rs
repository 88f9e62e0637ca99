use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use tower_service::Service;

use crate::{LazySession, config::Config, future::ResponseFuture};

/// The middleware that [`PgSessionLayer`](crate::PgSessionLayer) makes.
///
/// It only reads the cookie: the session is loaded by whoever asks for it,
/// and saved by the [`ResponseFuture`].
///
/// It is a tower middleware, with axum or without:
///
/// ```
/// use axum_pg_session::{LazySession, PgSessionLayer, PgSessionStore};
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// let service = PgSessionLayer::new(store).layer(service_fn(async |request: Request<()>| {
///     let session = request.extensions().get::<LazySession>().expect("put there by the layer");
///     let visits = session.load().await?.get("visits")?.unwrap_or(0);
///     Ok::<_, axum_pg_session::Error>(Response::new(visits))
/// }));
/// let response = service.oneshot(Request::new(())).await?;
/// assert_eq!(*response.body(), 0);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PgSessionService<S> {
    inner: S,
    config: Arc<Config>,
}

/// A request and the status of its answer, for
/// [`PgSessionLayer::touch_if`](crate::PgSessionLayer::touch_if).
///
/// ```
/// use axum_pg_session::{Exchange, PgSessionLayer, PgSessionStore};
///
/// /// A page that asks for news by itself keeps nobody signed in.
/// fn is_activity(exchange: &Exchange) -> bool {
///     exchange.uri.path() != "/poll" && exchange.status.is_success()
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// let layer = PgSessionLayer::new(store).touch_if(is_activity);
/// assert!(layer.check().is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Exchange {
    /// The method of the request.
    pub method: Method,
    /// The address that was asked for.
    pub uri: Uri,
    /// The headers of the request.
    pub headers: HeaderMap,
    /// The status that the handler answered.
    pub status: StatusCode,
}

impl Exchange {
    fn of<B>(request: &Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            status: StatusCode::OK,
        }
    }
}

impl fmt::Debug for Exchange {
    /// Without the headers, which hold the cookies, and the query, which may
    /// hold as much.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl<S> PgSessionService<S> {
    pub(crate) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for PgSessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let name = self.config.cookie_name();
        let outer = request.extensions().get::<LazySession>().cloned();
        if outer
            .as_ref()
            .is_some_and(|outer| outer.named(name).is_some())
        {
            // Two answers for one cookie would contradict each other.
            return ResponseFuture::passing_on(self.inner.call(request));
        }
        let unread = self.config.unread(request.uri(), request.headers());
        let head = self.config.hooks.head_of(&request);
        let session = LazySession::new(Arc::clone(&self.config), unread, head, outer);
        let exchange = self
            .config
            .touch_if
            .as_ref()
            .map(|_| Exchange::of(&request));
        request.extensions_mut().insert(session.clone());
        ResponseFuture::new(self.inner.call(request), session, exchange)
    }
}

impl<S> fmt::Debug for PgSessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSessionService")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
