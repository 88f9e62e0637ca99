//! A site that moves from Express to axum, page by page, while both run on one table
//! of sessions and one port. Users stay signed in.
//!
//! Run with `cargo run --example express_migration`, then open
//! <http://localhost:3000>, or
//!
//! ```sh
//! curl -c jar -b jar http://localhost:3000/                      # Express: was at Express
//! curl -c jar -b jar http://localhost:3000/new                   # axum: was at Express, axum
//! curl -c jar -b jar http://localhost:3000/                      # Express: was at Express, axum, Express
//! curl -c jar -b jar -X POST http://localhost:3000/new/logout    # axum destroys the session
//! curl -c jar -b jar http://localhost:3000/                      # Express: a new session, was at Express
//! ```
//!
//! It starts its own Postgres, or uses the database in `DATABASE_URL`. npm installs the
//! packages of Express into the target folder. If there is no Node, pip installs it
//! there. `PORT` sets the port; with 0, the system chooses one.

#[path = "../migration/mod.rs"]
mod migration;

use std::error::Error;

use axum_pg_session::Express;

use migration::Old;

/// As `secret` in express-session.
const SECRETS: &[&str] = &["new secret", "old secret"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let express = Old {
        name: "Express",
        packages: "tests/express/express5",
        script: "examples/express_migration/express.js",
        // Not `session`, which a database of yours may have.
        table: "express_session",
        keys: SECRETS,
    };
    let format = Express::new(SECRETS.iter().copied());
    migration::serve(express, |store| store.express(format)).await
}
