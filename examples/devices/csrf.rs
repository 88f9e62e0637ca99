//! No other site can make a visitor's browser do something here: every form
//! carries a token that only pages of the same session know.

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

/// The name of the field of every form.
pub(crate) const FIELD: &str = "csrf";
/// Of the session.
const KEY: &str = "csrf";
/// The maximum size of a form, in bytes. The forms of this site are much smaller.
const MAX_FORM: usize = 16 * 1024;

#[derive(Deserialize)]
struct Sent {
    #[serde(default)]
    csrf: String,
}

/// The token of the session. A visitor who is not signed in has one as well,
/// or another site could sign them in to an account of its own. So each page with a form
/// begins a session. On pages that crawlers visit, check `Sec-Fetch-Site` instead, as the
/// example `members` does.
pub(crate) fn token(session: &Session) -> Result<String, PageError> {
    match session.get(KEY)? {
        Some(token) => Ok(token),
        None => renew(session),
    }
}

/// With every login, as with the id of the session.
pub(crate) fn renew(session: &Session) -> Result<String, PageError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure::from(error.to_string()))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    session.insert(KEY, &token)?;
    Ok(token)
}

/// Lets no request pass that changes something and lacks the token. As it is
/// around all pages, no handler can forget to ask.
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

/// In constant time, so that nobody finds the token letter by letter.
fn is_token_of(session: &Session, sent: &str) -> Result<bool, PageError> {
    let token: Option<String> = session.get(KEY)?;
    Ok(token.is_some_and(|token| token.as_bytes().ct_eq(sent.as_bytes()).into()))
}
