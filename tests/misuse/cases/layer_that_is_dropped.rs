//! A setter returns the layer that it sets.

#![deny(unused_must_use)]

use std::time::Duration;

use axum_pg_session::{PgSessionLayer, PgSessionStore};

fn layer(store: PgSessionStore) -> PgSessionLayer {
    let layer = PgSessionLayer::new(store);
    layer.clone().idle_timeout(Duration::from_secs(60));
    //~ unused `PgSessionLayer` that must be used
    //~ a layer does nothing until it is added to a router or service
    layer
}

fn main() {
    let _ = layer;
}
