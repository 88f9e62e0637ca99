//! Sessions on a pool of their own, beside connections of other libraries.

use axum_pg_session::PgSessionStore;
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use tokio_postgres::NoTls;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let store = PgSessionStore::connect(&url).await?;
    store.migrate().await?;
    let mut diesel = AsyncPgConnection::establish(&url).await?;
    diesel::sql_query("SELECT 1").execute(&mut diesel).await?;
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    let driver = tokio::spawn(connection);
    client.simple_query("SELECT 1").await?;
    drop(client);
    driver.await??;
    Ok(())
}
