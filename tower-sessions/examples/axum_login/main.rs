//! A site on axum-login: a sign-in by password, pages for members and for administrators,
//! and a list of one's sessions with a button that ends the others.
//!
//! Run with `cargo run -p axum-pg-session-tower-sessions --example axum_login`, then open
//! <http://localhost:3000> and sign in as `ada` or `ferris` with the password `hunter42`. The
//! tests have the rest: `cargo test -p axum-pg-session-tower-sessions --example axum_login`.
//!
//! Everything but [`sessions`] and the pages of the list is as with any other store. It starts a
//! Postgres of its own. With `DATABASE_URL` set it uses that one. `PORT` chooses the port; 0
//! takes any that is free.
//!
//! The cookie is `Secure`. Chromium and Firefox keep it on `http://localhost`; for Safari add
//! `.with_secure(false)` to the layer in `router`.

#[cfg(test)]
mod tests;
mod users;

use std::{env, error::Error, num::NonZeroU32};

use axum::{
    Form, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{Html, IntoResponse as _, Redirect, Response},
    routing::{get, post},
};
use axum_login::{
    AuthManagerLayerBuilder, AuthUser as _, login_required, permission_required,
    tower_sessions::{Expiry, SessionManagerLayer, cookie::time::Duration},
};
use axum_pg_session::{PgSessionStore, Reaper, SessionLimitPolicy};
use axum_pg_session_tower_sessions::PostgresStore;
use serde::Deserialize;
use tokio::{net::TcpListener, signal};

use crate::users::{Credentials, Users};

type AuthSession = axum_login::AuthSession<Users>;

/// At most three sessions of a user: the next login ends the oldest one.
const MOST: NonZeroU32 = NonZeroU32::new(3).expect("not zero");

/// The store for tower-sessions, and by it for axum-login.
fn sessions(store: PgSessionStore) -> PostgresStore {
    PostgresStore::new(store.max_sessions_per_user(MOST, SessionLimitPolicy::EndOldest))
}

fn router(sessions: PostgresStore, users: Users) -> Router {
    let layer = SessionManagerLayer::new(sessions.clone())
        .with_expiry(Expiry::OnInactivity(Duration::days(1)));
    let auth = AuthManagerLayerBuilder::new(users, layer).build();
    let admin = Router::new()
        .route("/admin", get(async || "for administrators"))
        .route_layer(permission_required!(Users, "admin"));
    Router::new()
        .route("/", get(home))
        .route("/sessions", get(list))
        .route("/sessions/others", post(end_others))
        .route_layer(login_required!(Users, login_url = "/login"))
        .merge(admin)
        .route("/login", get(form).post(login))
        .route("/logout", post(logout))
        .layer(auth)
        .with_state(sessions)
}

async fn home(auth: AuthSession) -> Html<String> {
    let name = auth.user.map(|user| user.name).unwrap_or_default();
    Html(format!(
        "<p>Hello, {name}. <a href=/sessions>Your sessions</a></p>\
         <form method=post action=/logout><button>Sign out</button></form>"
    ))
}

#[derive(Deserialize)]
struct Next {
    next: Option<String>,
}

/// Another site must not choose where a login leads.
fn is_here(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("//") && !path.contains('\\')
}

async fn form(Query(Next { next }): Query<Next>) -> Html<String> {
    let next = next.filter(|path| is_here(path)).unwrap_or_default();
    let next = next.replace('&', "&amp;").replace('"', "&quot;");
    Html(format!(
        "<form method=post><input name=name><input name=password type=password>\
         <input name=next type=hidden value=\"{next}\"><button>Sign in</button></form>"
    ))
}

async fn login(mut auth: AuthSession, Form(credentials): Form<Credentials>) -> Response {
    let next = credentials.next.clone().filter(|path| is_here(path));
    match auth.authenticate(credentials).await {
        Ok(Some(user)) => match auth.login(&user).await {
            Ok(()) => Redirect::to(&next.unwrap_or("/".to_owned())).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
        Ok(None) => (StatusCode::UNAUTHORIZED, "Wrong name or password.").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn logout(mut auth: AuthSession) -> Response {
    match auth.logout().await {
        Ok(_) => Redirect::to("/login").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// By the store of axum-pg-session, to which the user of axum-login is a user.
async fn list(
    auth: AuthSession,
    State(sessions): State<PostgresStore>,
) -> Result<Html<String>, axum_pg_session::Error> {
    let Some(user) = auth.user else {
        return Ok(Html(String::new()));
    };
    let this = auth.session.id().map(|id| sessions.handle(id));
    let user = sessions.store().user(user.id().to_string());
    let rows = user.list().await?.into_iter().map(|session| {
        let mark = if this.as_ref() == Some(session.id()) {
            "this one"
        } else {
            "another one"
        };
        format!("<li>{mark}, until {:?}</li>", session.expires_at())
    });
    let rows: String = rows.collect();
    Ok(Html(format!(
        "<ul>{rows}</ul><form method=post action=/sessions/others><button>End the others</button></form>"
    )))
}

async fn end_others(
    auth: AuthSession,
    State(sessions): State<PostgresStore>,
) -> Result<Redirect, axum_pg_session::Error> {
    if let (Some(user), Some(id)) = (auth.user, auth.session.id()) {
        let user = sessions.store().user(user.id().to_string());
        user.destroy_others(&sessions.handle(id)).await?;
    }
    Ok(Redirect::to("/sessions"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = PgSessionStore::connect(&dev_postgres::database_url()?).await?;
    store.migrate().await?;
    let reaper = Reaper::new(store.clone()).spawn();

    let users = Users::with(&[("ada", "hunter42", &["admin"]), ("ferris", "hunter42", &[])])?;
    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://localhost:{}", listener.local_addr()?.port());
    axum::serve(listener, router(sessions(store), users))
        .with_graceful_shutdown(async { drop(signal::ctrl_c().await) })
        .await?;
    reaper.stop().await;
    Ok(())
}
