//! The check of a session may wait, so it is async.

use axum_pg_session::{PgSessionLayer, PgSessionStore};

fn layer(store: PgSessionStore) -> PgSessionLayer {
    PgSessionLayer::new(store).valid_if(|session, _request| session.contains_key("agent"))
    //~ `bool` is not a future
}

fn main() {
    let _ = layer;
}
