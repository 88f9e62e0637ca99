//! The list of the user's devices.

use axum::{
    extract::{Form, State},
    response::Redirect,
};
use axum_pg_session::SessionId;
use maud::Markup;
use serde::Deserialize;

use crate::{
    error::PageError,
    flash,
    pages::{Frame, devices as pages},
    site::Site,
    visitor::SignedIn,
};

#[derive(Deserialize)]
pub(crate) struct Chosen {
    id: String,
}

pub(crate) async fn list(
    State(site): State<Site>,
    SignedIn {
        session,
        user,
        this,
    }: SignedIn,
) -> Result<Markup, PageError> {
    let devices = site.store.user(&user).list().await?;
    let frame = Frame::of(&session)?;
    Ok(pages::list(&frame, &this, &devices))
}

/// Signs out one device. Only sessions of this user are searched, so the handle of another user's
/// session has no effect.
pub(crate) async fn end(
    State(site): State<Site>,
    SignedIn {
        session,
        user,
        this,
    }: SignedIn,
    Form(chosen): Form<Chosen>,
) -> Result<Redirect, PageError> {
    let id: SessionId = chosen.id.parse().map_err(|_| PageError::BadForm)?;
    if id == this {
        session.logout()?;
        return Ok(Redirect::to("/"));
    }
    let message = match site.store.user(&user).destroy(&id).await? {
        true => "That device is signed out.",
        false => "That device was signed out already.",
    };
    flash::show(&session, message)?;
    Ok(Redirect::to("/devices"))
}

pub(crate) async fn end_others(
    State(site): State<Site>,
    SignedIn {
        session,
        user,
        this,
    }: SignedIn,
) -> Result<Redirect, PageError> {
    let message = match site.store.user(&user).destroy_others(&this).await? {
        0 => "You were signed in on no other device.".to_owned(),
        1 => "One other device is signed out.".to_owned(),
        ended => format!("{ended} other devices are signed out."),
    };
    flash::show(&session, message)?;
    Ok(Redirect::to("/devices"))
}
