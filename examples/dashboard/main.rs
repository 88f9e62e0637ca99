//! A page that shows the metrics of a site's sessions, and the endpoint that the page and Prometheus
//! read.
//!
//! Run with `cargo run --example dashboard`, then open <http://localhost:3000>. Prometheus reads
//! <http://localhost:3000/metrics>.
//!
//! Two servers of one site and a few simulated visitors run in the same process. The example starts a
//! Postgres, which ends with it. If `DATABASE_URL` is set, it uses that database. `PORT` sets the port;
//! 0 is any free port.

mod chart;
mod exposition;
mod page;
mod recorder;
mod site;
#[cfg(test)]
mod tests;
mod visitors;

use std::{env, error::Error, time::Duration};

use axum_pg_session::{PgSessionStore, Reaper};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Before the first request, because a store looks for its recorder then.
    let metrics = recorder::install()?;
    let url = dev_postgres::database_url()?;
    let store = PgSessionStore::connect(&url).await?;
    store.migrate().await?;
    let reaper = Reaper::new(store.clone())
        .interval(Duration::from_secs(4))
        .spawn();

    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://localhost:{}", listener.local_addr()?.port());
    let elsewhere = PgSessionStore::connect(&url).await?;
    let visitors = visitors::come(site::pages(store), site::pages(elsewhere));
    axum::serve(listener, page::app(metrics))
        .with_graceful_shutdown(interrupted())
        .await?;

    drop(visitors);
    reaper.stop().await;
    Ok(())
}

async fn interrupted() {
    signal::ctrl_c()
        .await
        .expect("a signal handler can be installed");
}
