//! A shop whose customers see on which devices they are signed in, and can sign out there.
//!
//! Run with `cargo run --example devices`, then open <http://localhost:3000> in two browsers. Sign up
//! in one, and sign in with the other.
//!
//! It starts a Postgres, which ends with the example. If `DATABASE_URL` is set, it uses that database,
//! and accounts and sessions survive a restart. `PORT` sets the port; 0 is any free port.
//!
//! The cookie is `Secure`. Chromium and Firefox keep it on `http://localhost`; for Safari, add
//! `.secure(false)` to the layer in `site.rs`.

mod account;
mod audit;
mod basket;
mod csrf;
mod devices;
mod error;
mod flash;
mod pages;
mod passwords;
mod security;
mod site;
#[cfg(test)]
mod tests;
mod users;
mod visitor;

use std::{env, future, net::SocketAddr, time::Duration};

use axum_pg_session::{PgSessionStore, Reaper};
use sqlx::PgPool;
use tokio::{net::TcpListener, signal};

use crate::{error::Failure, site::Site, users::Users};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let pool = PgPool::connect(&dev_postgres::database_url()?).await?;
    let store = site::limited(PgSessionStore::new(pool.clone()));
    let (store, audit) = audit::keep(store, pool.clone()).await?;
    store.migrate().await?;
    let users = Users::new(pool.clone()).await?;
    let reaper = Reaper::new(store.clone()).spawn();

    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://localhost:{}", listener.local_addr()?.port());
    let app = site::app(Site { store, users });
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(interrupted())
    .await?;

    // The server has ended, so nothing else is saved.
    reaper.stop().await;
    // All stores are dropped, so the task ends when the channel is empty.
    drop(tokio::time::timeout(Duration::from_secs(5), audit).await);
    pool.close().await;
    Ok(())
}

/// By Ctrl-C, or by SIGTERM, which service managers and containers send.
async fn interrupted() {
    tokio::select! {
        () = ctrl_c() => {}
        () = terminated() => {}
    }
}

async fn ctrl_c() {
    if let Err(error) = signal::ctrl_c().await {
        eprintln!("no graceful shutdown on Ctrl-C: {error}");
        future::pending::<()>().await;
    }
}

#[cfg(unix)]
async fn terminated() {
    match signal::unix::signal(signal::unix::SignalKind::terminate()) {
        Ok(mut terminated) => {
            terminated.recv().await;
        }
        Err(error) => {
            eprintln!("no graceful shutdown on SIGTERM: {error}");
            future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
async fn terminated() {
    future::pending().await
}
