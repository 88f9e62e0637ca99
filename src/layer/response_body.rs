//! The body of a response: the handler's, or a short text in its place. It doesn't
//! know sessions.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a response from
    /// [`PgSessionService`](crate::PgSessionService): the handler's body, or a
    /// short text in its place if the session could not be saved.
    ///
    /// [`Router::layer`](axum::Router::layer) converts it to axum's own body type.
    /// So each middleware that has a `.layer` call of its own gets axum's body.
    ///
    /// In one `ServiceBuilder`, nothing converts it. The middleware that stands
    /// before the session layer there gets this type:
    ///
    /// - It must be generic over the body, as the layers of `tower-http` are.
    ///   `CorsLayer` and `TimeoutLayer` need a [`Default`], which this type has if
    ///   the handler's body has it.
    /// - A `map_response` with a function of axum's
    ///   [`Response`](axum_core::response::Response) doesn't compile there. Add it by a
    ///   `.layer` call of its own, after the one of the `ServiceBuilder`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum::{Router, http::StatusCode, middleware::map_response, response::Response, routing::get};
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// use tower::ServiceBuilder;
    /// use tower_http::{cors::CorsLayer, timeout::TimeoutLayer};
    ///
    /// async fn error_page(response: Response) -> Response {
    ///     response
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let limit = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(30));
    /// let app: Router = Router::new()
    ///     .route("/", get(async || "a page"))
    ///     .layer(
    ///         ServiceBuilder::new()
    ///             .layer(CorsLayer::permissive())
    ///             .layer(limit)
    ///             .layer(PgSessionLayer::new(store)),
    ///     )
    ///     // Outside of all of these.
    ///     .layer(map_response(error_page));
    /// # Ok(()) }
    /// ```
    ///
    /// Without a router:
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let page = service_fn(async |_| Ok::<_, std::convert::Infallible>(Response::new("a page")));
    /// let response = PgSessionLayer::new(store).layer(page).oneshot(Request::new(())).await?;
    /// assert_eq!(response.into_body().into_inner(), Some("a page"));
    /// # Ok(()) }
    /// ```
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum Kind<B> {
        Inner { #[pin] body: B },
        Sentence { text: Option<Bytes> },
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        let kind = Kind::Inner { body };
        Self { kind }
    }

    pub(crate) fn sentence(text: &'static str) -> Self {
        let text = Some(Bytes::from_static(text.as_bytes()));
        let kind = Kind::Sentence { text };
        Self { kind }
    }

    /// Returns the handler's body, or `None` if the layer replaced it.
    #[must_use]
    pub fn into_inner(self) -> Option<B> {
        match self.kind {
            Kind::Inner { body } => Some(body),
            Kind::Sentence { .. } => None,
        }
    }
}

/// The default body of the handler's type.
impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::inner(B::default())
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            Projected::Inner { body } => body.poll_frame(cx),
            Projected::Sentence { text } => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(text))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Sentence { text } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Sentence { text } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
        }
    }
}
