//! What can go wrong, and the page that says so.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use axum_pg_session::{Error, ErrorKind, SessionRejection};

use crate::pages;

/// What no visitor can do anything about.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) enum PageError {
    /// The page is for somebody who is signed in.
    SignedOut,
    /// A form without the token of its session.
    StaleForm,
    /// No form of this site.
    BadForm,
    NoSession(SessionRejection),
    Session(Error),
    Failed(Failure),
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, sentence) = match self {
            Self::SignedOut => return Redirect::to("/sign-in?required=true").into_response(),
            // With the error in its extensions, of which `session_page` makes a
            // page.
            Self::NoSession(rejection) => return rejection.into_response(),
            Self::Session(error) => return error.into_response(),
            Self::StaleForm => (
                StatusCode::FORBIDDEN,
                "This form is out of date, or your browser keeps no cookies of this site. \
                 Please go back, reload the page and try again.",
            ),
            Self::BadForm => (StatusCode::BAD_REQUEST, "This is no form of this site."),
            Self::Failed(error) => {
                eprintln!("{error}");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Something went wrong here. Please try again.",
                )
            }
        };
        (status, pages::failure(sentence)).into_response()
    }
}

/// The shop's own page for each error of a session: one that could not be
/// loaded, which a handler passed on, and one that could not be saved, which
/// only the layer knows. So it stands outside of the layer. Status and headers
/// stay, as `Retry-After` and `Set-Cookie` are among them.
pub(crate) async fn session_page(response: Response) -> Response {
    let Some(error) = response.extensions().get::<Error>() else {
        return response;
    };
    if error.status() == StatusCode::INTERNAL_SERVER_ERROR {
        eprintln!("{error:?}");
    }
    let page = pages::failure(match error.kind() {
        ErrorKind::Ended => {
            "You were signed out, or this page is out of date. Please reload it; \
             nothing was saved."
        }
        ErrorKind::Unavailable | ErrorKind::Conflict => {
            "The shop is busy. Nothing was saved. Please try again."
        }
        _ => "Something went wrong here. Please try again.",
    });
    let (mut parts, _) = response.into_parts();
    // Of the body that is replaced.
    parts.headers.remove(header::CONTENT_LENGTH);
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    parts.headers.insert(header::CONTENT_TYPE, html);
    Response::from_parts(parts, Body::from(page.into_string()))
}

impl From<SessionRejection> for PageError {
    fn from(rejection: SessionRejection) -> Self {
        Self::NoSession(rejection)
    }
}

impl From<Error> for PageError {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl From<sqlx::Error> for PageError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Failure> for PageError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
