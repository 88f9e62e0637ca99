//! What the examples that move a site from Node have in common: the new page on axum,
//! and the old site, to which axum forwards the other requests.

#[path = "../../tests/node/connection.rs"]
mod connection;
#[path = "../../tests/node/npm.rs"]
mod npm;
mod old_site;

use std::{env, error::Error};

use axum::{
    Router,
    extract::{Request, State},
    response::{Html, Redirect, Response},
    routing::{get, post},
};
use axum_pg_session::{PgSessionLayer, PgSessionStore, Reaper, Session};
use serde_json::json;
use tokio::{net::TcpListener, signal};

use old_site::{NodeProcess, OldSite};

/// A site on Node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Old {
    pub(crate) name: &'static str,
    /// The folder of its `package-lock.json`, from the root of the repository.
    pub(crate) packages: &'static str,
    /// From the root of the repository.
    pub(crate) script: &'static str,
    pub(crate) table: &'static str,
    pub(crate) keys: &'static [&'static str],
}

async fn new_page(session: Session) -> Result<Html<String>, axum_pg_session::Error> {
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

async fn logout(session: Session) -> Result<Redirect, axum_pg_session::Error> {
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

/// Runs both sites behind one port until it is interrupted. `format` chooses the
/// format of the store.
///
/// # Errors
///
/// If the database, the old site or the port can't be used.
pub(crate) async fn serve(
    old: Old,
    format: impl FnOnce(PgSessionStore) -> PgSessionStore,
) -> Result<(), Box<dyn Error>> {
    let url = dev_postgres::database_url()?;
    let store = format(PgSessionStore::connect(&url).await?)
        .table(old.table)
        .tombstones(true);
    store.migrate().await?;
    let reaper = Reaper::new(store.clone()).spawn();

    eprintln!(
        "{} starts; the first time, npm installs its packages",
        old.name
    );
    let connection = connection::parts(&url)?;
    let options = json!({ "connection": connection, "table": old.table, "keys": old.keys });
    let node = NodeProcess::start(&old, &options)?;
    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://localhost:{}", listener.local_addr()?.port());
    axum::serve(listener, app(store, node.site()))
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
