//! Counts the visits of each browser.
//!
//! Run with `cargo run --example counter`, then
//!
//! ```sh
//! curl -c jar -b jar http://localhost:3000/     # visit 1
//! curl -c jar -b jar http://localhost:3000/     # visit 2
//! ```
//!
//! It starts a Postgres of its own, which ends with it. With `DATABASE_URL`
//! set it uses that one, and the counts outlive it. `PORT` chooses the port;
//! 0 takes any that is free.

use std::env;

use axum::{Router, routing::get};
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Reaper, Session};
use tokio::{net::TcpListener, signal};

async fn visits(session: Session) -> Result<String, Error> {
    let n = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(format!("visit {n}"))
}

fn app(store: PgSessionStore) -> Router {
    // Browsers other than Chromium and Firefox keep `Secure` cookies off
    // http://localhost. Leave this line out where there is TLS.
    let layer = PgSessionLayer::new(store).secure(false);
    Router::new().route("/", get(visits)).layer(layer)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = dev_postgres::database_url()?;
    let store = PgSessionStore::connect(&url).await?;
    store.migrate().await?;
    let reaper = Reaper::new(store.clone()).spawn();

    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://localhost:{}", listener.local_addr()?.port());
    axum::serve(listener, app(store))
        .with_graceful_shutdown(interrupted())
        .await?;
    reaper.stop().await;
    Ok(())
}

async fn interrupted() {
    signal::ctrl_c()
        .await
        .expect("a signal handler can be installed");
}
