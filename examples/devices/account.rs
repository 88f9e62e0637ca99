//! Signing up, in and out, and a new password.

use std::time::Duration;

use axum::{
    extract::{Form, Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use axum_pg_session::{Expiry, Login, Session};
use maud::Markup;
use serde::Deserialize;

use crate::{
    csrf,
    error::PageError,
    flash,
    pages::{Frame, account as pages},
    site::Site,
    users::Credentials,
    visitor::{SignedIn, Visitor},
};

const DAY: Duration = Duration::from_hours(24);
/// How recent the login must be for a change of the password.
const RECENTLY: Duration = Duration::from_mins(5);

/// Whether the visitor stays signed in for longer than a day.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Remember {
    #[default]
    No,
    Yes,
}

#[derive(Deserialize)]
pub(crate) struct SignIn {
    #[serde(flatten)]
    credentials: Credentials,
    #[serde(default)]
    remember: Remember,
}

/// In the URL, so that the message needs no session.
#[derive(Deserialize)]
pub(crate) struct Required {
    #[serde(default)]
    required: bool,
}

#[derive(Deserialize)]
pub(crate) struct Password {
    password: String,
}

impl Remember {
    fn expiry(self) -> Expiry {
        match self {
            Self::No => Expiry::Default,
            Self::Yes => Expiry::Timeouts {
                idle: 30 * DAY,
                absolute: 180 * DAY,
            },
        }
    }
}

/// Signs in. The session keeps the basket, and gets a new id and a new token for forms.
fn begin(session: &Session, login: Login) -> Result<(), PageError> {
    session.login(login)?;
    csrf::renew(session)?;
    Ok(())
}

/// Shows the form again, with the reason.
fn refused(page: Markup) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, page).into_response()
}

pub(crate) async fn sign_up_page(session: Session) -> Result<Markup, PageError> {
    Ok(pages::sign_up(&Frame::of(&session)?, None))
}

pub(crate) async fn sign_up(
    State(site): State<Site>,
    session: Session,
    visitor: Visitor,
    Form(credentials): Form<Credentials>,
) -> Result<Response, PageError> {
    let user = credentials.name();
    if let Err(refusal) = site.users.sign_up(credentials).await? {
        let frame = Frame::of(&session)?;
        return Ok(refused(pages::sign_up(&frame, Some(refusal.sentence()))));
    }
    flash::show(&session, format!("Welcome, {user}."))?;
    begin(&session, Login::new(user).device(visitor.device()))?;
    Ok(Redirect::to("/devices").into_response())
}

pub(crate) async fn sign_in_page(
    session: Session,
    Query(query): Query<Required>,
) -> Result<Markup, PageError> {
    let message = query.required.then_some("Please sign in.");
    Ok(pages::sign_in(&Frame::of(&session)?, message))
}

/// A public site must also limit the rate of attempts.
pub(crate) async fn sign_in(
    State(site): State<Site>,
    session: Session,
    visitor: Visitor,
    Form(form): Form<SignIn>,
) -> Result<Response, PageError> {
    let user = form.credentials.name();
    if !site.users.verify(form.credentials).await? {
        // Not which of them is wrong, because that would reveal who has an account.
        let frame = Frame::of(&session)?;
        return Ok(refused(pages::sign_in(
            &frame,
            Some("Wrong name or password."),
        )));
    }
    flash::show(&session, format!("Welcome back, {user}."))?;
    let login = Login::new(user)
        .device(visitor.device())
        .expiry(form.remember.expiry());
    begin(&session, login)?;
    Ok(Redirect::to("/devices").into_response())
}

pub(crate) async fn sign_out(session: Session) -> Result<Redirect, PageError> {
    session.logout()?;
    Ok(Redirect::to("/"))
}

pub(crate) async fn password_page(SignedIn { session, .. }: SignedIn) -> Result<Markup, PageError> {
    let frame = Frame::of(&session)?;
    Ok(match session.authenticated_within(RECENTLY) {
        true => pages::new_password(&frame, None),
        false => pages::confirm(&frame, None),
    })
}

/// Entering the password again is a login that keeps the device and "remember me". The session gets a
/// new id, and its timeouts restart.
pub(crate) async fn confirm(
    State(site): State<Site>,
    SignedIn { session, user, .. }: SignedIn,
    Form(form): Form<Password>,
) -> Result<Response, PageError> {
    if !site.users.is_password_of(&user, form.password).await? {
        let frame = Frame::of(&session)?;
        return Ok(refused(pages::confirm(&frame, Some("Wrong password."))));
    }
    begin(&session, Login::new(user).keep_settings())?;
    Ok(Redirect::to("/password").into_response())
}

/// An attacker who knew the old password may be signed in. So all other devices are signed out, and
/// this session gets a new id, in one transaction.
pub(crate) async fn change_password(
    State(site): State<Site>,
    SignedIn { session, user, .. }: SignedIn,
    Form(form): Form<Password>,
) -> Result<Response, PageError> {
    if !session.authenticated_within(RECENTLY) {
        return Ok(Redirect::to("/password").into_response());
    }
    if let Err(refusal) = site.users.change_password(&user, form.password).await? {
        let frame = Frame::of(&session)?;
        return Ok(refused(pages::new_password(
            &frame,
            Some(refusal.sentence()),
        )));
    }
    begin(&session, Login::new(user).keep_settings().end_others())?;
    let message = "Your password is changed, and all other devices are signed out.";
    flash::show(&session, message)?;
    Ok(Redirect::to("/devices").into_response())
}
