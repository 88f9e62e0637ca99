//! The handler of a request that brings a session into a known state.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use crate::{Error, LazySession, Session};

/// The closure's result, and its session.
type Outcome<T> = Option<(T, Session)>;

/// Runs the closure on the session of one request, and saves it explicitly, because the
/// response doesn't contain the cause of a failed save.
pub(super) struct Act<'a, A, T> {
    /// Taken by the request.
    once: Option<(A, &'a mut Outcome<T>)>,
    cookie_name: String,
}

impl<'a, A, T> Act<'a, A, T> {
    pub(super) fn new(act: A, outcome: &'a mut Outcome<T>, cookie_name: String) -> Self {
        Self {
            once: Some((act, outcome)),
            cookie_name,
        }
    }
}

impl<'a, A, T> Service<Request<()>> for Act<'a, A, T>
where
    A: FnOnce(&Session) -> Result<T, Error> + Send + 'a,
    T: Send + 'a,
{
    type Response = Response<()>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<()>, Error>> + Send + 'a>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let lazy = request.extensions().get::<LazySession>();
        let lazy = lazy.and_then(|lazy| lazy.named(&self.cookie_name));
        let once = self.once.take();
        Box::pin(async move {
            if let (Some(lazy), Some((act, outcome))) = (lazy, once) {
                let session = lazy.load().await?;
                let value = act(&session)?;
                session.save().await?;
                *outcome = Some((value, session));
            }
            Ok(Response::new(()))
        })
    }
}
