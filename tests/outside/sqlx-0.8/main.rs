//! Sessions on a pool of their own, beside one of another sqlx.

use axum_pg_session::PgSessionStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let pool = sqlx::PgPool::connect(&url).await?;
    let store = PgSessionStore::connect(&url).await?;
    store.migrate().await?;
    sqlx::raw_sql("SELECT 1").execute(&pool).await?;
    Ok(())
}
