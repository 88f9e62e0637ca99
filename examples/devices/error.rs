//! Errors, and the page that shows them.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use axum_pg_session::{Error, ErrorKind, SessionRejection};

use crate::pages;

/// An error that the visitor can't fix.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) enum PageError {
    /// The page is only for users who are signed in.
    SignedOut,
    /// The form has another token than its session.
    StaleForm,
    /// The form is not one of this site.
    BadForm,
    NoSession(SessionRejection),
    Session(Error),
    Failed(Failure),
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, sentence) = match self {
            Self::SignedOut => return Redirect::to("/sign-in?required=true").into_response(),
            // `session_page` shows a page for the error in the extensions.
            Self::NoSession(rejection) => return rejection.into_response(),
            Self::Session(error) => return error.into_response(),
            Self::StaleForm => (
                StatusCode::FORBIDDEN,
                "This form is out of date, or your browser keeps no cookies of this site. \
                 Please go back, reload the page and try again.",
            ),
            Self::BadForm => (
                StatusCode::BAD_REQUEST,
                "This form is not one of this site.",
            ),
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

/// Shows the shop's own page for each error of a session. If a session could not be loaded, the
/// handler returns the error. If it could not be saved, only the layer knows, so this wraps the layer.
/// Status and headers stay, such as `Retry-After` and `Set-Cookie`.
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
    // The length of the former body.
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
