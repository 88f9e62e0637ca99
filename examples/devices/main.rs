//! A shop whose customers see where they are signed in, and sign out there.
//!
//! Run with `cargo run --example devices`, then open <http://localhost:3000>
//! in two browsers, sign up in one, and sign in with the other.
//!
//! It starts a Postgres of its own, which ends with it. With `DATABASE_URL`
//! set it uses that one, and accounts and sessions outlive it. `PORT` chooses
//! the port; 0 takes any that is free.
//!
//! The cookie is `Secure`, as it should be where people live. Chromium and
//! Firefox keep such cookies of `http://localhost` too; for Safari add
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

    // Nobody is served any more, so nothing is saved any more either.
    reaper.stop().await;
    // The last store is dropped by now, so the log ends with what is still in the channel.
    drop(tokio::time::timeout(Duration::from_secs(5), audit).await);
    pool.close().await;
    Ok(())
}

/// By Ctrl-C, or as service managers and containers do it.
async fn interrupted() {
    tokio::select! {
        () = ctrl_c() => {}
        () = terminated() => {}
    }
}

async fn ctrl_c() {
    if let Err(error) = signal::ctrl_c().await {
        eprintln!("Ctrl-C will not end it gently: {error}");
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
            eprintln!("SIGTERM will not end it gently: {error}");
            future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
async fn terminated() {
    future::pending().await
}
