//! A transport is more than the name of a header.

use axum_pg_session::{PgSessionLayer, PgSessionStore};

fn layer(store: PgSessionStore) -> PgSessionLayer {
    PgSessionLayer::new(store).transport("x-session")
    //~ `&str` does not say where a session's token travels
    //~ the trait `Transport` is not implemented for `&str`
    //~ `HeaderTransport::new(name)`
}

fn main() {
    let _ = layer;
}
