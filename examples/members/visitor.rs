//! The user of a request, and checks before the handler.

use axum::{
    extract::{FromRequestParts, Request},
    http::{
        HeaderMap, StatusCode,
        header::{HOST, ORIGIN},
        request::Parts,
    },
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use axum_pg_session::{Error, Key, Session, SessionId, SessionRejection};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

const FLASH: Key<String> = Key::new("flash");

/// The user who is signed in.
pub(crate) struct CurrentUser {
    pub(crate) name: String,
    /// The handle of this session.
    pub(crate) id: SessionId,
    pub(crate) session: Session,
}

impl<S: Sync> FromRequestParts<S> for CurrentUser {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let session = Session::from_request_parts(parts, state).await;
        let session = session.map_err(SessionRejection::into_response)?;
        match (session.user_id(), session.id()) {
            (Some(name), Some(id)) => Ok(Self { name, id, session }),
            _ => Err(Redirect::to("/sign-in").into_response()),
        }
    }
}

/// Redirects visitors who aren't signed in, before their handler runs.
pub(crate) async fn members_only(
    session: Session,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    if session.user_id().is_some() {
        return Ok(next.run(request).await);
    }
    // The message is in the URL, not in the session, so that a crawler that follows every link begins
    // no session.
    Ok(Redirect::to("/sign-in?members-only=true").into_response())
}

/// Rejects requests from other sites that change something.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    match request.method().is_safe() || is_same_origin(request.headers()) {
        true => next.run(request).await,
        false => StatusCode::FORBIDDEN.into_response(),
    }
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (headers.get("sec-fetch-site"), origin, host) {
        (Some(site), ..) => site == "same-origin",
        (None, Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, of)| of == host)
        }
        _ => false,
    }
}

/// A message for the next page, shown once.
pub(crate) fn flash(session: &Session, message: &str) -> Result<(), Error> {
    session.insert(FLASH, message.to_owned())
}

pub(crate) fn take_flash(session: &Session) -> Result<Option<String>, Error> {
    session.remove(FLASH)
}

pub(crate) fn random() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    URL_SAFE_NO_PAD.encode(bytes)
}
