//! A site for members: login by password or by an identity provider, flash messages, a list of
//! devices, server-sent events, a WebSocket, and an error page of its own.
//!
//! Run with `cargo run --example members`, then open <http://localhost:3000> and sign in as `ada` with
//! the password `correct horse`. The tests show the rest: `cargo test --example members`.
//!
//! It starts a Postgres. If `DATABASE_URL` is set, it uses that database. If that server requires TLS,
//! enable the crate's feature `tls-rustls`. `PORT` sets the port; 0 is any free port.
//!
//! The cookie is `Secure`. Chromium and Firefox keep it on `http://localhost`; for Safari, add
//! `.secure(false)` to the layer in `sessions`.

mod account;
mod live;
mod pages;
#[cfg(test)]
mod tests;
mod visitor;

use std::{env, error::Error, sync::Arc, time::Duration};

use axum::{
    Router,
    middleware::{from_fn, map_response},
    routing::{get, post},
};
use axum_pg_session::{PgSessionLayer, PgSessionStore, Reaper};
use tokio::{net::TcpListener, signal, sync::watch};

use crate::account::Accounts;

/// The state of the handlers.
#[derive(Clone)]
struct App {
    store: PgSessionStore,
    sessions: PgSessionLayer,
    accounts: Arc<Accounts>,
    /// How often a stream counts the devices.
    count_every: Duration,
    /// Becomes true when the server shuts down.
    ending: watch::Receiver<bool>,
}

fn sessions(store: PgSessionStore) -> PgSessionLayer {
    PgSessionLayer::new(store)
        .idle_timeout(Duration::from_secs(2 * 60 * 60))
        .absolute_timeout(Duration::from_secs(24 * 60 * 60))
}

fn router(app: App) -> Router {
    let members = Router::new()
        .route("/devices", get(account::devices).post(account::end_device))
        .route("/devices/others", post(account::end_others))
        .route("/live", get(live::page))
        .route("/events", get(live::events))
        .route("/talk", get(live::talk))
        .route_layer(from_fn(visitor::members_only));
    Router::new()
        .route("/", get(account::home))
        .route("/sign-in", get(account::form).post(account::sign_in))
        .route("/sign-out", post(account::sign_out))
        .route("/oauth/start", get(account::oauth_start))
        .route("/oauth/callback", get(account::oauth_callback))
        .nest("/members", members)
        .layer(from_fn(visitor::same_origin))
        .layer(app.sessions.clone())
        // Outside of the session layer, so that it sees its errors.
        .layer(map_response(pages::error_page))
        .with_state(app)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = PgSessionStore::connect(&dev_postgres::database_url()?).await?;
    store.migrate().await?;
    let reaper = Reaper::new(store.clone()).spawn();

    let (end, ending) = watch::channel(false);
    let app = App {
        sessions: sessions(store.clone()),
        store,
        accounts: Arc::new(Accounts::with(&[("ada", "correct horse")])?),
        count_every: Duration::from_secs(2),
        ending,
    };
    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://localhost:{}", listener.local_addr()?.port());
    axum::serve(listener, router(app))
        .with_graceful_shutdown(async move {
            interrupted().await;
            // The server waits for open streams and sockets, so they must end.
            end.send_replace(true);
        })
        .await?;
    reaper.stop().await;
    Ok(())
}

/// By Ctrl-C, or by SIGTERM, which service managers and containers send.
async fn interrupted() {
    #[cfg(unix)]
    let mut terminated = signal::unix::signal(signal::unix::SignalKind::terminate())
        .expect("a signal handler can be installed");
    #[cfg(unix)]
    let terminated = terminated.recv();
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        interrupted = signal::ctrl_c() => interrupted.expect("a signal handler can be installed"),
        _ = terminated => {}
    }
}
