//! A site of two processes, Node and axum, on one table.

use std::sync::atomic::{AtomicU32, Ordering};

use dev_postgres::TestDatabase;
use serde_json::{Value, json};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Columns, Generation, Host, PATIENCE, Server, Table, connection, page};

pub(crate) struct Site {
    pub(crate) host: &'static Host,
    database: TestDatabase,
    pub(crate) pool: PgPool,
}

impl Site {
    /// A database of its own, or `None` if there is no Node.
    pub(crate) async fn of(generation: &'static Generation) -> Option<Self> {
        let host = generation.host()?;
        let database = dev_postgres::test_database().await.expect("a database");
        let pool = pool(database.url());
        let site = Self {
            host,
            database,
            pool,
        };
        // Not that of the machine.
        site.set_zone("UTC").await;
        Some(site)
    }

    pub(crate) fn url(&self) -> &str {
        self.database.url()
    }

    /// The database, as pg takes it.
    pub(crate) fn connection(&self) -> Value {
        connection::parts(self.url()).expect("a URL")
    }

    /// Connections of axum's own.
    pub(crate) fn new_pool(&self) -> PgPool {
        pool(self.url())
    }

    pub(crate) fn table(&self, name: &str, columns: &'static Columns) -> Table {
        Table::new(self.pool.clone(), name, columns)
    }

    /// Opens the Node site with these options, in addition to the usual ones.
    pub(crate) async fn open(&self, mut usual: Value, options: Value) -> Server {
        for (name, value) in options.as_object().expect("options") {
            usual[name] = value.clone();
        }
        self.host.open(usual).await
    }

    /// Both sides, each as the first.
    pub(crate) async fn both_orders(&self) -> [(Server, Server); 2] {
        let (node, axum) = self.both().await;
        [(node.clone(), axum.clone()), (axum, node)]
    }

    /// Sets the zone of each later connection that chooses none.
    pub(crate) async fn set_zone(&self, zone: &str) {
        let options: PgConnectOptions = self.url().parse().expect("a URL");
        let name = options.get_database().expect("a name");
        let sql = format!("ALTER DATABASE {name} SET timezone = '{zone}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&self.pool)
            .await
            .expect("a zone");
    }

    /// A gate with a name that no other test has.
    pub(crate) fn gate(&self) -> Gate {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Gate {
            name: format!("gate {}", NEXT.fetch_add(1, Ordering::Relaxed)),
            host: self.host,
        }
    }
}

fn pool(url: &str) -> PgPool {
    PgPoolOptions::new()
        .acquire_timeout(PATIENCE)
        .connect_lazy(url)
        .expect("a URL")
}

/// A place where a request to either server waits, by the step `wait`.
pub(crate) struct Gate {
    pub(crate) name: String,
    host: &'static Host,
}

impl Gate {
    /// Returns when a request waits.
    pub(crate) async fn arrived(&self) {
        tokio::select! {
            _ = self.host.order(json!({ "arrived": self.name })) => {}
            () = page::arrived(&self.name) => {}
        }
    }

    pub(crate) async fn open(&self) {
        page::release(&self.name);
        self.host.order(json!({ "release": self.name })).await;
    }
}
