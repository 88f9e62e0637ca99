//! Counts the visits of each browser.
//!
//! Run with `cargo run --example counter`, then
//!
//! ```sh
//! curl -c jar -b jar http://localhost:3000/     # visit 1
//! curl -c jar -b jar http://localhost:3000/     # visit 2
//! ```
//!
//! It starts a Postgres, which ends with the example. If `DATABASE_URL` is set, it uses that database,
//! and the counts survive a restart. `PORT` sets the port; 0 is any free port.

use std::env;

use axum::{Router, routing::get};
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Reaper, Session};
use tokio::{net::TcpListener, signal};

async fn visits(session: Session) -> Result<String, Error> {
    let n = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(format!("visit {n}"))
}

fn sessions(store: PgSessionStore) -> PgSessionLayer {
    // Browsers other than Chromium and Firefox drop `Secure` cookies of http://localhost. Remove this
    // option if the site has TLS.
    PgSessionLayer::new(store).secure(false)
}

fn app(sessions: PgSessionLayer) -> Router {
    Router::new().route("/", get(visits)).layer(sessions)
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
    axum::serve(listener, app(sessions(store)))
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

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use axum_pg_session::testing::TestVisitor;

    use super::*;

    type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

    async fn visit(app: &Router, visitor: &TestVisitor) -> Outcome<String> {
        let request = Request::get("/").body(Body::empty())?;
        let response = visitor.send(app, request).await?;
        let body = to_bytes(response.into_body(), 1024).await?;
        Ok(String::from_utf8(body.to_vec())?)
    }

    #[tokio::test]
    async fn each_browser_has_its_own_count() -> Outcome {
        let database = dev_postgres::test_database().await?;
        let store = PgSessionStore::connect(database.url()).await?;
        store.migrate().await?;
        let sessions = sessions(store);
        let app = app(sessions.clone());

        let regular = TestVisitor::new(&sessions);
        regular
            .with_session(|session| session.insert("visits", 41))
            .await?;
        assert_eq!(visit(&app, &regular).await?, "visit 42");
        assert_eq!(visit(&app, &TestVisitor::new(&sessions)).await?, "visit 1");
        assert_eq!(regular.session().await?.get("visits")?, Some(42));
        Ok(())
    }
}
