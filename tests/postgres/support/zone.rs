//! The places in which a time zone can be configured, on a server of the test's own.

use dev_postgres::Server;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Site, execute, page::until, proxy::Proxy, texts};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Server,
    Database,
    Role,
    Connection,
}

impl Place {
    pub(crate) const ALL: [Self; 4] = [Self::Server, Self::Database, Self::Role, Self::Connection];

    /// As `pg_settings` names it.
    fn source(self) -> &'static str {
        match self {
            Self::Server => "configuration file",
            Self::Database => "database",
            Self::Role => "user",
            Self::Connection => "session",
        }
    }
}

/// A database, and a pool whose connections have their zone from one place.
pub(crate) struct Zoned {
    pub(crate) site: Site,
    pub(crate) pool: PgPool,
    /// Kept for as long as the pool is in use.
    _proxy: Proxy,
}

impl Zoned {
    pub(crate) async fn new(server: &Server, place: Place, zone: &str) -> Self {
        let database = server.test_database().await.expect("a database");
        let site = Site::on(database).await;
        let proxy = Proxy::before(site.database.url()).await;
        let options = configure(&site.pool, &proxy, place, zone).await;
        let pool = pool(options, (place == Place::Connection).then_some(zone)).await;
        let found = "SELECT setting || ' of ' || source FROM pg_settings WHERE name = 'TimeZone'";
        let expected = format!("{zone} of {}", place.source());
        // A server reads its configuration when it comes to it.
        until(async || place != Place::Server || texts(&pool, found).await == [&*expected]).await;
        assert_eq!(texts(&pool, found).await, [expected]);
        Self {
            site,
            pool,
            _proxy: proxy,
        }
    }
}

/// Configures the zone, and returns how to connect.
async fn configure(owner: &PgPool, proxy: &Proxy, place: Place, zone: &str) -> PgConnectOptions {
    proxy.forget_zones();
    match place {
        Place::Server => {
            execute(owner, &format!("ALTER SYSTEM SET timezone = '{zone}'")).await;
            execute(owner, "SELECT pg_reload_conf()").await;
        }
        Place::Database => {
            let sql = format!(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = %L',
                 current_database(), '{zone}'); END $$"
            );
            execute(owner, &sql).await;
        }
        Place::Role => {
            let sql = format!(
                "CREATE ROLE traveller LOGIN SUPERUSER;
                 ALTER ROLE traveller SET timezone = '{zone}'"
            );
            execute(owner, &sql).await;
            return proxy.options().username("traveller");
        }
        Place::Connection => {}
    }
    proxy.options()
}

async fn pool(options: PgConnectOptions, zone: Option<&str>) -> PgPool {
    let zone = zone.map(|zone| format!("SET TIME ZONE '{zone}'"));
    PgPoolOptions::new()
        .max_connections(3)
        .after_connect(move |connection, _| {
            let zone = zone.clone();
            Box::pin(async move {
                if let Some(zone) = zone {
                    sqlx::raw_sql(sqlx::AssertSqlSafe(zone))
                        .execute(connection)
                        .await?;
                }
                Ok(())
            })
        })
        .connect_with(options)
        .await
        .expect("a connection")
}
