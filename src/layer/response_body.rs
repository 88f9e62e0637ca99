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
    /// axum converts it to its own body type, so you only see it outside of a
    /// router.
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
