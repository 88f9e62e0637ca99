//! Protection against cross-site requests: every form has a token, which only pages of the same
//! session know.

use axum::{
    body::{Body, to_bytes},
    extract::{Form, FromRequest as _, Request},
    middleware::Next,
    response::Response,
};
use axum_pg_session::Session;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use crate::error::{Failure, PageError};

/// The name of the form field.
pub(crate) const FIELD: &str = "csrf";
/// The key in the session.
const KEY: &str = "csrf";
/// The maximum size of a form, in bytes. The forms of this site are much smaller.
const MAX_FORM: usize = 16 * 1024;

#[derive(Deserialize)]
struct Sent {
    #[serde(default)]
    csrf: String,
}

/// Returns the token of the session. Visitors who aren't signed in have one, too. Otherwise another
/// site could sign them in to its own account. So each page with a form begins a session. On pages
/// that crawlers visit, check `Sec-Fetch-Site` instead, as the example `members` does.
pub(crate) fn token(session: &Session) -> Result<String, PageError> {
    match session.get(KEY)? {
        Some(token) => Ok(token),
        None => renew(session),
    }
}

/// Creates a new token. Like the id of the session, it changes with every login.
pub(crate) fn renew(session: &Session) -> Result<String, PageError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure::from(error.to_string()))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    session.insert(KEY, &token)?;
    Ok(token)
}

/// Rejects unsafe requests without the token. It wraps all pages, so no handler can omit the check.
pub(crate) async fn guard(
    session: Session,
    request: Request,
    next: Next,
) -> Result<Response, PageError> {
    if request.method().is_safe() {
        return Ok(next.run(request).await);
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_FORM)
        .await
        .map_err(|_| PageError::BadForm)?;
    let copy = Request::from_parts(parts.clone(), Body::from(body.clone()));
    let Form(sent) = Form::<Sent>::from_request(copy, &())
        .await
        .map_err(|_| PageError::BadForm)?;
    if !is_token_of(&session, &sent.csrf)? {
        return Err(PageError::StaleForm);
    }
    let request = Request::from_parts(parts, Body::from(body));
    Ok(next.run(request).await)
}

/// Compares in constant time, so that the time reveals no prefix of the token.
fn is_token_of(session: &Session, sent: &str) -> Result<bool, PageError> {
    let token: Option<String> = session.get(KEY)?;
    Ok(token.is_some_and(|token| token.as_bytes().ct_eq(sent.as_bytes()).into()))
}
