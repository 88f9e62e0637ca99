//! The tower service: it puts a [`LazySession`] into the extensions of each request
//! and wraps the handler's future. It runs no query.
//!
//! A request that has a session of the same cookie name from an outer layer is
//! passed on unchanged: the outer layer saves that session.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use crate::{
    LazySession, ResponseBody,
    layer::future::ResponseFuture,
    request::{config::Config, lazy::Unread},
};

/// The middleware that [`PgSessionLayer`](crate::PgSessionLayer) makes.
///
/// It only reads the cookie. The first use of the session loads it, and the
/// [`ResponseFuture`] saves it.
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
///     let visits: u64 = session.load().await?.get("visits")?.unwrap_or(0);
///     Ok::<_, axum_pg_session::Error>(Response::new(visits))
/// }));
/// let response = service.oneshot(Request::new(())).await?;
/// assert_eq!(response.into_body().into_inner(), Some(0));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PgSessionService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> PgSessionService<S> {
    pub(crate) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for PgSessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let name = self.config.cookie_name();
        let outer = request.extensions().get::<LazySession>().cloned();
        if let Some(outer) = outer.as_ref().and_then(|outer| outer.named(name)) {
            // One response must not set the same cookie twice.
            self.config.warn_of_a_layer_that_is_ignored(outer.config());
            return ResponseFuture::passing_on(self.inner.call(request));
        }
        let unread = Unread::of(&self.config, request.uri(), request.headers());
        let head = self.config.hooks.head_of(&request);
        let session = LazySession::new(Arc::clone(&self.config), unread, head, outer);
        request.extensions_mut().insert(session.clone());
        ResponseFuture::new(self.inner.call(request), session)
    }
}

impl<S> fmt::Debug for PgSessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSessionService")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
