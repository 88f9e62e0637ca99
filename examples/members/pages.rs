//! The pages, and the one for errors of the session.

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use axum_pg_session::{Error, ErrorKind, Session, UserSession};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::visitor::{CurrentUser, take_flash};

fn page(message: Option<&str>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        title { "Members" }
        @if let Some(message) = message { p role="status" { (message) } }
        (content)
    }
}

pub(crate) fn home(session: &Session) -> Result<Markup, Error> {
    let message = take_flash(session)?;
    Ok(page(
        message.as_deref(),
        &html! {
            @match session.user_id() {
                Some(name) => {
                    p { "Hello, " (name) ". " a href="/members/devices" { "Your devices" } " " a href="/members/live" { "Live" } }
                    form method="post" action="/sign-out" { button { "Sign out" } }
                }
                None => p { a href="/sign-in" { "Sign in" } }
            }
        },
    ))
}

pub(crate) fn sign_in(session: &Session, is_members_only: bool) -> Result<Markup, Error> {
    let message = take_flash(session)?;
    let reason = is_members_only.then_some("Please sign in.");
    Ok(page(
        message.as_deref().or(reason),
        &html! {
            form method="post" {
                input name="name" autocomplete="username";
                input name="password" type="password" autocomplete="current-password";
                label { input name="alone" type="checkbox" value="true"; "Sign out everywhere else" }
                button { "Sign in" }
            }
            a href="/oauth/start" { "Sign in with Example" }
        },
    ))
}

pub(crate) fn devices(user: &CurrentUser, devices: &[UserSession]) -> Result<Markup, Error> {
    let message = take_flash(&user.session)?;
    Ok(page(
        message.as_deref(),
        &html! {
            ul {
                @for device in devices {
                    li {
                        (device.device().and_then(|device| device.user_agent()).unwrap_or("?"))
                        @if *device.id() == user.id { " (this one)" }
                        form method="post" {
                            input type="hidden" name="id" value=(device.id());
                            button { "Sign out" }
                        }
                    }
                }
            }
            form method="post" action="/members/devices/others" { button { "Sign out all others" } }
        },
    ))
}

/// A counter by server-sent events, and a WebSocket that echoes each message. If the server closes
/// the socket, the page shows the reason, and opens another one, until the user is signed out.
pub(crate) fn live(name: &str) -> Markup {
    page(
        None,
        &html! {
            p { "Hello, " (name) ". Signed in on " output id="devices" { "?" } " devices." }
            p { "Socket: " output id="socket" { "opening" } }
            form id="talk" { input name="text" autocomplete="off"; button { "Say" } }
            ul id="said" {}
            form method="post" action="/members/devices/others" { button { "Sign out all others" } }
            form method="post" action="/sign-out" { button { "Sign out" } }
            script { (PreEscaped(include_str!("live.js"))) }
        },
    )
}

/// The site's own page for a session that could not be loaded or saved.
pub(crate) async fn error_page(response: Response) -> Response {
    let Some(error) = response.extensions().get::<Error>() else {
        return response;
    };
    let sentence = match error.kind() {
        ErrorKind::Ended => "You were signed out, or this page is out of date. Please reload it.",
        ErrorKind::Unavailable | ErrorKind::Conflict => {
            "The members' area is closed for a moment. Please try again."
        }
        _ => "Something went wrong here. Please try again.",
    };
    let content = page(Some(sentence), &html! {});
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    Response::from_parts(parts, Body::from(content.into_string()))
}
