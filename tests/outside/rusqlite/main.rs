//! Sessions in Postgres, and something else in SQLite.

use axum_pg_session::PgSessionStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = PgSessionStore::connect(&std::env::var("DATABASE_URL")?).await?;
    store.migrate().await?;
    rusqlite::Connection::open_in_memory()?.execute_batch("SELECT 1")?;
    Ok(())
}
