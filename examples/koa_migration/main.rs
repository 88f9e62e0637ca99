//! A site that moves from Koa to axum, page by page, while both run on one
//! table of sessions and one port: nobody is signed out.
//!
//! Run with `cargo run --example koa_migration`, then open
//! <http://localhost:3000>, or
//!
//! ```sh
//! curl -c jar -b jar http://localhost:3000/                      # Koa: was at Koa
//! curl -c jar -b jar http://localhost:3000/new                   # axum: was at Koa, axum
//! curl -c jar -b jar http://localhost:3000/                      # Koa: was at Koa, axum, Koa
//! curl -c jar -b jar -X POST http://localhost:3000/new/logout    # axum ends it,
//! curl -c jar -b jar http://localhost:3000/                      # for Koa too: was at Koa
//! ```
//!
//! It starts a Postgres of its own, which ends with it, and a Koa, whose
//! packages npm installs into the target folder; a Node that is missing is
//! installed there too, where there is pip. With `DATABASE_URL` set it uses
//! that database. `PORT` chooses the port; 0 takes any that is free.

#[path = "../../tests/koa/connection.rs"]
mod connection;
#[path = "../../tests/koa/node.rs"]
mod node;
mod old_site;

use std::env;

use axum::{
    Router,
    extract::{Request, State},
    response::{Html, Redirect, Response},
    routing::{get, post},
};
use axum_pg_session::{Error, Koa, PgSessionLayer, PgSessionStore, Reaper, Session};
use tokio::{net::TcpListener, signal};

use old_site::{KoaProcess, OldSite};

/// As `app.keys` in Koa.
const KEYS: [&str; 2] = ["new key", "old key"];
/// Its own, so that a database of the visitor's choice keeps its `session`.
const TABLE: &str = "koa_session";

async fn new_page(session: Session) -> Result<Html<String>, Error> {
    let trail = session.update("trail", |trail: Option<Vec<String>>| {
        let mut trail = trail.unwrap_or_default();
        trail.push("axum".into());
        trail
    })?;
    Ok(Html(format!(
        r#"<!doctype html>
<title>The new page</title>
<h1>The new page, by axum</h1>
<p>This session was at: {}</p>
<p><a href="/">the old page</a> <a href="/new">the new page</a></p>
<form method="post" action="/new/logout"><button>Sign out here</button></form>
"#,
        trail.join(", ")
    )))
}

async fn logout(session: Session) -> Result<Redirect, Error> {
    session.destroy()?;
    Ok(Redirect::to("/new"))
}

async fn old_page(State(old): State<OldSite>, request: Request) -> Response {
    old.forward(request).await
}

fn app(store: PgSessionStore, old: OldSite) -> Router {
    Router::new()
        .route("/new", get(new_page))
        .route("/new/logout", post(logout))
        .fallback(old_page)
        .with_state(old)
        .layer(PgSessionLayer::new(store))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = dev_postgres::database_url()?;
    let store = PgSessionStore::connect(&url).await?;
    let store = store.table(TABLE).koa(Koa::new(KEYS));
    store.migrate().await?;
    let reaper = Reaper::new(store.clone()).spawn();

    eprintln!("Koa starts; at the first time its packages are installed");
    let koa = KoaProcess::start(&connection::parts(&url)?, TABLE, &KEYS)?;
    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://localhost:{}", listener.local_addr()?.port());
    axum::serve(listener, app(store, koa.site()))
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
