//! A site that moves from Koa to axum, page by page, while both run on one table of
//! sessions and one port. Users stay signed in.
//!
//! Run with `cargo run --example koa_migration`, then open
//! <http://localhost:3000>, or
//!
//! ```sh
//! curl -c jar -b jar http://localhost:3000/                      # Koa: was at Koa
//! curl -c jar -b jar http://localhost:3000/new                   # axum: was at Koa, axum
//! curl -c jar -b jar http://localhost:3000/                      # Koa: was at Koa, axum, Koa
//! curl -c jar -b jar -X POST http://localhost:3000/new/logout    # axum destroys the session
//! curl -c jar -b jar http://localhost:3000/                      # Koa: a new session, was at Koa
//! ```
//!
//! It starts its own Postgres, or uses the database in `DATABASE_URL`. npm installs
//! Koa's packages into the target folder. If there is no Node, pip installs it there.
//! `PORT` sets the port; with 0, the system chooses one.

#[path = "../migration/mod.rs"]
mod migration;

use std::error::Error;

use axum_pg_session::Koa;

use migration::Old;

/// As `app.keys` in Koa.
const KEYS: &[&str] = &["new key", "old key"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let koa = Old {
        name: "Koa",
        packages: "tests/koa/koa2",
        script: "examples/koa_migration/koa.js",
        // Not `session`, which a database of yours may have.
        table: "koa_session",
        keys: KEYS,
    };
    migration::serve(koa, |store| store.koa(Koa::new(KEYS.iter().copied()))).await
}
