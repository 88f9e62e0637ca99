//! Partitioned tables: sixteen partitions here, or partitions on two servers.

use std::{io, sync::OnceLock};

use axum_pg_session::PgSessionStore;
use dev_postgres::{Server, TestDatabase};

use super::{Site, execute, skip::or_skip};

/// The parts of a table over two servers; more than servers, as one grows so.
const FOREIGN: usize = 4;

/// Sixteen hash partitions of the three columns, completed by `migrate`.
pub(crate) async fn sixteen() -> Site {
    let site = Site::without_table().await;
    execute(
        &site.pool,
        "CREATE TABLE public.session (id text PRIMARY KEY, expiry timestamptz NOT NULL, session json)
         PARTITION BY HASH (id);
         DO $$ BEGIN FOR part IN 0..15 LOOP EXECUTE format(
             'CREATE TABLE public.session_%s PARTITION OF public.session
              FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
         END LOOP; END $$",
    )
    .await;
    site.store.migrate().await.expect("columns to add");
    site
}

/// A site whose table has its parts elsewhere.
pub(crate) struct Foreign {
    pub(crate) site: Site,
    /// One on each server, with half of the parts.
    pub(crate) shards: [Site; 2],
}

/// `None` without a Postgres with postgres_fdw.
pub(crate) async fn over_two_servers() -> Option<Foreign> {
    let servers = or_skip(servers().as_ref())?;
    let site = Site::on(database(&servers[0]).await).await;
    let shards = [
        Site::on(database(&servers[0]).await).await,
        Site::on(database(&servers[1]).await).await,
    ];
    execute(
        &site.pool,
        "CREATE EXTENSION postgres_fdw;
         CREATE TABLE public.session (
             id text NOT NULL, expiry timestamptz NOT NULL, session json,
             created timestamptz DEFAULT now(), user_id text,
             last_seen timestamptz DEFAULT now(), device json,
             external_id text
         ) PARTITION BY HASH (id)",
    )
    .await;
    for (at, shard) in shards.iter().enumerate() {
        attach(&site, shard, at).await;
    }
    site.store.migrate().await.expect("indexes to add");
    Some(Foreign { site, shards })
}

async fn database(server: &Server) -> TestDatabase {
    server.test_database().await.expect("a database")
}

/// Makes the parts of this shard there, and makes them known here.
async fn attach(site: &Site, shard: &Site, at: usize) {
    let options = shard.pool.connect_options();
    let sql = format!(
        "CREATE SERVER shard_{at} FOREIGN DATA WRAPPER postgres_fdw
         OPTIONS (host '{}', dbname '{}');
         CREATE USER MAPPING FOR CURRENT_USER SERVER shard_{at} OPTIONS (user 'postgres')",
        folder(shard),
        options.get_database().expect("a database"),
    );
    execute(&site.pool, &sql).await;
    for part in (at..FOREIGN).step_by(2) {
        let name = format!("session_{part}");
        let store = PgSessionStore::new(shard.pool.clone()).table(&name);
        store.migrate().await.expect("a new table");
        let sql = format!(
            "CREATE FOREIGN TABLE public.{name} PARTITION OF public.session
             FOR VALUES WITH (MODULUS {FOREIGN}, REMAINDER {part})
             SERVER shard_{at} OPTIONS (schema_name 'public', table_name '{name}')"
        );
        execute(&site.pool, &sql).await;
    }
}

/// Of the socket.
fn folder(site: &Site) -> String {
    let options = site.pool.connect_options();
    let socket = options
        .get_socket()
        .map(|folder| folder.display().to_string());
    socket.unwrap_or_else(|| options.get_host().to_owned())
}

/// Of this process; they end with it.
fn servers() -> &'static io::Result<[Server; 2]> {
    static SERVERS: OnceLock<io::Result<[Server; 2]>> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let start = || Server::builder().extension("postgres_fdw").start();
        Ok([start()?, start()?])
    })
}
