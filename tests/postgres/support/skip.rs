//! Skips tests that need what the machine doesn't have. On CI they fail.

use std::{env, fmt::Display};

use dev_postgres::Server;
use sqlx::{Connection as _, PgConnection};

/// A server whose timeouts work. The one that cargo installs has none.
pub(crate) async fn server_with_timeouts() -> Option<Server> {
    let server = Server::builder().extension("postgres_fdw").tcp("127.0.0.1");
    let server = server.start().expect("a server");
    let mut connection = PgConnection::connect(&server.url())
        .await
        .expect("a connection");
    let sleep = "SET statement_timeout = 20; SELECT pg_sleep(0.5)";
    let slept = sqlx::raw_sql(sleep).execute(&mut connection).await;
    or_skip(match slept {
        Ok(_) => Err("this Postgres has no timeouts"),
        Err(_) => Ok(server),
    })
}

/// What was found; `None` if the test is to be skipped.
///
/// # Panics
///
/// On CI, whose machine has it.
pub(crate) fn or_skip<T, E: Display>(found: Result<T, E>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(why) => {
            let is_ci = env::var("CI").is_ok_and(|value| value == "true");
            assert!(!is_ci, "this test can't be run: {why}");
            eprintln!("skipped: {why}");
            None
        }
    }
}
