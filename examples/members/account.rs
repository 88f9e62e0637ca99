//! Signing in, by password or by an identity provider, and the devices of a
//! user.

use std::collections::HashMap;

use argon2::{
    Argon2,
    password_hash::{self, PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use axum::{
    Form,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header::USER_AGENT},
    response::{IntoResponse, Redirect, Response},
};
use axum_pg_session::{Device, Error, Key, Login, Session, SessionId};
use maud::Markup;
use serde::Deserialize;

use crate::{
    App, pages,
    visitor::{CurrentUser, flash, random},
};

/// A random value that the provider returns, so that visitors can only complete a sign-in that they
/// began.
const OAUTH_STATE: Key<String> = Key::new("oauth_state");
const PROVIDER: &str = "https://id.example.com/authorize?client_id=members&response_type=code";

/// Names and password hashes. A real site has a table.
pub(crate) struct Accounts(HashMap<String, String>);

#[derive(Deserialize)]
pub(crate) struct Credentials {
    name: String,
    password: String,
    /// Whether to sign out everywhere else.
    #[serde(default)]
    alone: bool,
}

#[derive(Deserialize)]
pub(crate) struct Returned {
    code: String,
    state: String,
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    /// Whether the visitor wanted to see a page for members.
    #[serde(default, rename = "members-only")]
    members_only: bool,
}

#[derive(Deserialize)]
pub(crate) struct Chosen {
    id: SessionId,
}

pub(crate) async fn home(session: Session) -> Result<Markup, Error> {
    pages::home(&session)
}

pub(crate) async fn form(session: Session, Query(asked): Query<Asked>) -> Result<Markup, Error> {
    pages::sign_in(&session, asked.members_only)
}

pub(crate) async fn sign_in(
    State(app): State<App>,
    session: Session,
    headers: HeaderMap,
    Form(form): Form<Credentials>,
) -> Result<Redirect, Error> {
    let name = form.name.clone();
    let is_right = tokio::task::spawn_blocking(move || {
        app.accounts.is_password_of(&form.name, &form.password)
    });
    if !is_right.await.unwrap_or(false) {
        flash(&session, "Wrong name or password.")?;
        return Ok(Redirect::to("/sign-in"));
    }
    let login = Login::new(&name).device(device(&headers));
    session.login(match form.alone {
        true => login.end_others(),
        false => login,
    })?;
    flash(&session, &format!("Welcome, {name}."))?;
    Ok(Redirect::to("/members/devices"))
}

pub(crate) async fn sign_out(session: Session) -> Result<Redirect, Error> {
    session.logout()?;
    Ok(Redirect::to("/"))
}

pub(crate) async fn oauth_start(session: Session) -> Result<Redirect, Error> {
    let state = random();
    let address = format!("{PROVIDER}&state={state}");
    session.insert(OAUTH_STATE, state)?;
    Ok(Redirect::to(&address))
}

/// The provider redirects the browser to this page. Browsers send `SameSite=Lax` cookies with such a
/// request from another site.
pub(crate) async fn oauth_callback(
    session: Session,
    headers: HeaderMap,
    Query(returned): Query<Returned>,
) -> Result<Response, Error> {
    // `take` commits at once, so of two callbacks with the state only one gets it.
    if session.take(OAUTH_STATE).await? != Some(returned.state) {
        return Ok(StatusCode::BAD_REQUEST.into_response());
    }
    let Some(name) = user_of(&returned.code).await else {
        return Ok(StatusCode::BAD_GATEWAY.into_response());
    };
    session.login(Login::new(&name).device(device(&headers)))?;
    flash(&session, &format!("Welcome, {name}."))?;
    Ok(Redirect::to("/members/devices").into_response())
}

/// A real site sends the code to the provider, which returns the user.
async fn user_of(code: &str) -> Option<String> {
    code.strip_prefix("code-of-").map(str::to_owned)
}

pub(crate) async fn devices(State(app): State<App>, user: CurrentUser) -> Result<Markup, Error> {
    let devices = app.store.user(&user.name).list().await?;
    pages::devices(&user, &devices)
}

pub(crate) async fn end_device(
    State(app): State<App>,
    user: CurrentUser,
    Form(chosen): Form<Chosen>,
) -> Result<Redirect, Error> {
    // Only sessions of this user, so the handle of another user's session has no effect.
    app.store.user(&user.name).destroy(&chosen.id).await?;
    Ok(Redirect::to("/members/devices"))
}

pub(crate) async fn end_others(
    State(app): State<App>,
    user: CurrentUser,
) -> Result<Redirect, Error> {
    let ended = app.store.user(&user.name).destroy_others(&user.id).await?;
    flash(
        &user.session,
        &format!("{ended} other devices were signed out."),
    )?;
    Ok(Redirect::to("/members/devices"))
}

fn device(headers: &HeaderMap) -> Device {
    let name = headers.get(USER_AGENT).and_then(|name| name.to_str().ok());
    Device::new().with_user_agent(name.unwrap_or("an unknown browser"))
}

impl Accounts {
    pub(crate) fn with(accounts: &[(&str, &str)]) -> Result<Self, password_hash::Error> {
        let hash = |(name, password): &(&str, &str)| {
            let hash = Argon2::default().hash_password(password.as_bytes())?;
            Ok::<_, password_hash::Error>(((*name).to_owned(), hash.to_string()))
        };
        // Unknown names are compared with this one, so that the time doesn't reveal who has an
        // account.
        let unknown = ("", "the password of no account");
        Ok(Self(
            accounts
                .iter()
                .chain([&unknown])
                .map(hash)
                .collect::<Result<_, password_hash::Error>>()?,
        ))
    }

    fn is_password_of(&self, name: &str, password: &str) -> bool {
        let stored = self.0.get(name).unwrap_or(&self.0[""]);
        let is_right = PasswordHash::new(stored).is_ok_and(|stored| {
            Argon2::default()
                .verify_password(password.as_bytes(), &stored)
                .is_ok()
        });
        is_right && !name.is_empty()
    }
}
