//! A server with timers, which cancels statements and finds deadlocks. The one that cargo installs
//! has none.

use std::io;

use dev_postgres::{Prefer, Server};

use super::{Site, site::pool, skip::or_skip};

/// A site on such a server of its own, which lives as long; `None` where the
/// machine has none.
pub(crate) async fn site_with_timers(settings: &[(&str, &str)]) -> Option<(Site, Server)> {
    let mut server = Server::builder().prefer(Prefer::Machine);
    for (name, value) in settings {
        server = server.setting(name, value);
    }
    let server = server.start().expect("a server");
    or_skip(has_timers(&server).await)?;
    let database = server.test_database().await.expect("a database");
    let site = Site::on(database).await;
    site.store.migrate().await.expect("a new table");
    Some((site, server))
}

async fn has_timers(server: &Server) -> io::Result<()> {
    let sleep = "SET statement_timeout = 20; SELECT pg_sleep(0.5)";
    let slept = sqlx::raw_sql(sleep)
        .execute(&pool(&server.url(), 1).await)
        .await;
    match slept {
        Ok(_) => Err(io::Error::other("this Postgres knows no timeouts")),
        Err(_) => Ok(()),
    }
}
