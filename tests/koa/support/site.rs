//! A site of two processes, Koa and axum, on one table.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use dev_postgres::TestDatabase;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgConnectOptions};

use super::{Generation, Rows, Server, koa::Host};
use crate::connection;

/// Far more than anything takes here; a wait that is this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Site {
    pub(crate) generation: Generation,
    host: &'static Host,
    pub(crate) database: TestDatabase,
    pub(crate) pool: PgPool,
}

impl Site {
    /// A database of its own; `None` where there is no Node.
    pub(crate) async fn of(generation: Generation) -> Option<Self> {
        let host = generation.host()?;
        let database = dev_postgres::test_database().await.expect("a database");
        let pool = PgPool::connect_lazy(database.url()).expect("a URL");
        Some(Self {
            generation,
            host,
            database,
            pool,
        })
    }

    /// Koa with these options, on top of the usual ones.
    pub(crate) async fn koa_with(&self, options: Value) -> Server {
        let mut all = json!({
            "keys": ["keys", "keykeys"],
            "connection": connection::parts(self.database.url()).expect("a URL"),
            "store": {},
            "session": {},
        });
        for (name, value) in options.as_object().expect("options") {
            all[name] = value.clone();
        }
        self.host.open(all).await
    }

    /// Koa with the options of the readme, which creates the table.
    pub(crate) async fn koa(&self) -> Server {
        self.koa_with(json!({})).await
    }

    pub(crate) fn rows(&self) -> Rows {
        Rows::new(self.pool.clone(), "public.session")
    }

    /// The zone of every connection from now on that asks for none.
    pub(crate) async fn set_zone(&self, zone: &str) {
        let options: PgConnectOptions = self.database.url().parse().expect("a URL");
        let name = options.get_database().expect("a name");
        self.rows()
            .execute(&format!("ALTER DATABASE {name} SET timezone = '{zone}'"))
            .await;
    }

    /// The ids of all rows.
    pub(crate) async fn ids(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT id FROM public.session ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .expect("ids")
    }

    /// Returns when the row of this session is gone.
    pub(crate) async fn loses_row(&self, sid: &str) {
        let is_there = async || self.ids().await.iter().any(|id| id.ends_with(sid));
        let waiting = async { while is_there().await {} };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("it comes to an end");
    }

    /// How long the only session of a table of Koa's lives, where its clock is
    /// that of `zone`.
    pub(crate) async fn seconds_left(&self, table: &str, zone: &str) -> f64 {
        let sql = format!(
            "SELECT extract(epoch FROM expiry AT TIME ZONE '{zone}' - now())::float8 FROM {table}"
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .expect("one row")
    }

    /// A name for a gate of `host.js`, which all tests share.
    pub(crate) fn gate(&self) -> Gate {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Gate {
            name: format!("gate {}", NEXT.fetch_add(1, Ordering::Relaxed)),
            host: self.host,
        }
    }
}

/// Where a request to Koa waits, by the step `wait`.
pub(crate) struct Gate {
    pub(crate) name: String,
    host: &'static Host,
}

impl Gate {
    /// Returns when a request waits.
    pub(crate) async fn arrived(&self) {
        self.host.order(json!({ "arrived": self.name })).await;
    }

    pub(crate) async fn open(&self) {
        self.host.order(json!({ "release": self.name })).await;
    }
}
