//! The extractors of axum, and their rejection. They load the session by the
//! [`LazySession`] in the request's extensions, and don't know the store.

use std::{convert::Infallible, fmt};

use axum::extract::MatchedPath;
use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use crate::{Error, ErrorKind, LazySession, Session, TypedSession};

/// Why a handler did not get its [`Session`].
///
/// ```
/// use axum::{body::Body, extract::FromRequestParts, http::Request};
/// use axum_pg_session::{Session, SessionRejection};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // No layer has seen this one.
/// let (mut parts, _) = Request::new(Body::empty()).into_parts();
/// let rejection = Session::from_request_parts(&mut parts, &()).await.unwrap_err();
/// assert!(matches!(rejection, SessionRejection::MissingLayer));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionRejection {
    /// No layer has put a session into the request. The response is a 500 that doesn't
    /// reveal the cause, with an [`Error`] of kind [`Setup`](ErrorKind::Setup) in its
    /// extensions.
    MissingLayer,
    /// The session could not be loaded. The response is that of the [`Error`].
    NotLoaded(Error),
}

impl fmt::Display for SessionRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingLayer => f.write_str(
                "no session layer was found: add `.layer(PgSessionLayer::new(store))` after the \
                 routes and the middleware that take the session",
            ),
            Self::NotLoaded(error) => write!(f, "the session could not be loaded: {error}"),
        }
    }
}

impl std::error::Error for SessionRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::MissingLayer => None,
            Self::NotLoaded(error) => Some(error),
        }
    }
}

impl IntoResponse for SessionRejection {
    fn into_response(self) -> Response {
        match self {
            Self::MissingLayer => {
                let error = Error::new(ErrorKind::Setup, self.to_string());
                // It was logged with the path, see `missing`.
                error.mark_as_logged();
                error.into_response()
            }
            Self::NotLoaded(error) => error.into_response(),
        }
    }
}

impl From<Error> for SessionRejection {
    fn from(error: Error) -> Self {
        Self::NotLoaded(error)
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let lazy = lazy(parts).ok_or_else(|| missing(parts))?;
        Ok(lazy.load().await?)
    }
}

/// `None` only if the layer is missing: a session that can't be loaded is a rejection,
/// never `None`.
impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        match lazy(parts) {
            Some(lazy) => Ok(Some(lazy.load().await?)),
            None => Ok(None),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for LazySession {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        lazy(parts).ok_or_else(|| missing(parts))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for LazySession {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(lazy(parts))
    }
}

/// Logs where the layer is missing. A route's template says that without the visitor's values.
fn missing(parts: &Parts) -> SessionRejection {
    let rejection = SessionRejection::MissingLayer;
    let route = parts.extensions.get::<MatchedPath>();
    tracing::error!(
        http.request.method = %parts.method,
        http.route = route.map_or_else(|| parts.uri.path(), MatchedPath::as_str),
        error = %rejection,
        "a session was requested without its layer"
    );
    rejection
}

fn lazy(parts: &Parts) -> Option<LazySession> {
    parts.extensions.get::<LazySession>().cloned()
}

impl<S: Sync, T> FromRequestParts<S> for TypedSession<T> {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let session = <Session as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        Ok(session.into())
    }
}

/// `None` only if the layer is missing, as for [`Session`].
impl<S: Sync, T> OptionalFromRequestParts<S> for TypedSession<T> {
    type Rejection = SessionRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        let session =
            <Session as OptionalFromRequestParts<S>>::from_request_parts(parts, state).await?;
        Ok(session.map(Into::into))
    }
}
