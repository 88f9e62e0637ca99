//! The site whose sessions are shown: it counts the visits.

use std::time::Duration;

use axum::{Router, routing::get};
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};

/// So short that sessions expire while you watch.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);

pub(crate) fn pages(store: PgSessionStore) -> Router {
    let sessions = PgSessionLayer::new(store).idle_timeout(IDLE_TIMEOUT);
    Router::new()
        .route("/look", get(look))
        .route("/count", get(count))
        .route("/leave", get(async |session: Session| session.destroy()))
        .layer(sessions)
}

async fn look(session: Session) -> Result<String, Error> {
    let n: Option<u64> = session.get("n")?;
    Ok(format!("{}", n.unwrap_or(0)))
}

async fn count(session: Session) -> Result<String, Error> {
    let n = session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(n.to_string())
}
