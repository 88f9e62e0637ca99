//! A store takes a pool, or connects to a URL.

use axum_pg_session::PgSessionStore;

fn store() -> PgSessionStore {
    PgSessionStore::new("postgres://localhost/app")
    //~ error[E0308]: mismatched types
    //~ expected `Pool<Postgres>`
}

fn main() {
    let _ = store;
}
