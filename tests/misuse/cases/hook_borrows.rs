//! A hook lives as long as the layer.

use axum_pg_session::{PgSessionLayer, PgSessionStore};

fn layer(store: PgSessionStore, key: &str) -> PgSessionLayer {
    PgSessionLayer::new(store).before_save(|session| session.insert(key, true))
    //~ error[E0521]: borrowed data escapes outside of function
    //~ must outlive `'static`
}

fn main() {
    let _ = layer;
}
