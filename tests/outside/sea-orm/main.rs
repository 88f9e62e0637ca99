//! Sessions on SeaORM's pool, and SeaORM on a pool that both share.

use axum_pg_session::{PgSessionStore, sqlx::PgPool};
use sea_orm::{Database, DatabaseConnection, SqlxPostgresConnector};

fn on_the_pool_of(database: &DatabaseConnection) -> PgSessionStore {
    PgSessionStore::new(database.get_postgres_connection_pool().clone())
}

fn beside(pool: PgPool) -> (PgSessionStore, DatabaseConnection) {
    let store = PgSessionStore::new(pool.clone());
    (store, SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let store = on_the_pool_of(&Database::connect(&url).await?);
    store.migrate().await?;
    let (store, database) = beside(PgPool::connect(&url).await?);
    store.check().await?;
    database.ping().await?;
    Ok(())
}
