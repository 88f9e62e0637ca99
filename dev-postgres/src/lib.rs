//! A real Postgres for examples, tests and benches, brought by cargo.
use sqlx::Connection as _;
use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A database.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
}
impl TestDatabase {
    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}
/// A new database.
/// # Errors
/// No.
pub async fn test_database() -> io::Result<TestDatabase> {
    let name = format!(
        "t_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let mut c = sqlx::PgConnection::connect(&server())
        .await
        .map_err(io::Error::other)?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut c)
        .await
        .map_err(io::Error::other)?;
    Ok(TestDatabase {
        url: server().replacen("/postgres?", &format!("/{name}?"), 1),
    })
}

fn server() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL")
}
