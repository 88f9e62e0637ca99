//! What can go wrong, and the page that says so.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use axum_pg_session::SessionRejection;

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
    Session(axum_pg_session::Error),
    Failed(Failure),
}

impl PageError {
    fn status(&self) -> StatusCode {
        match self {
            Self::StaleForm => StatusCode::FORBIDDEN,
            Self::BadForm => StatusCode::BAD_REQUEST,
            Self::Session(error) => error.status(),
            Self::SignedOut | Self::NoSession(_) | Self::Failed(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    fn sentence(&self) -> &'static str {
        match self {
            Self::StaleForm => {
                "This form is out of date, or your browser keeps no cookies of this site. \
                 Please go back, reload the page and try again."
            }
            Self::BadForm => "This is no form of this site.",
            _ => "Something went wrong here. Please try again.",
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match &self {
            Self::SignedOut => return Redirect::to("/sign-in").into_response(),
            Self::NoSession(rejection) => return rejection.clone().into_response(),
            Self::Session(error) if self.status().is_server_error() => eprintln!("{error:?}"),
            Self::Failed(error) => eprintln!("{error}"),
            Self::Session(_) | Self::StaleForm | Self::BadForm => {}
        }
        (self.status(), pages::failure(self.sentence())).into_response()
    }
}

impl From<SessionRejection> for PageError {
    fn from(rejection: SessionRejection) -> Self {
        Self::NoSession(rejection)
    }
}

impl From<axum_pg_session::Error> for PageError {
    fn from(error: axum_pg_session::Error) -> Self {
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
