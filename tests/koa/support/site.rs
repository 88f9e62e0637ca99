//! A site of two processes, Koa and axum, on one table.

use std::sync::atomic::{AtomicU32, Ordering};

use axum_pg_session::{Koa, PgSessionLayer, PgSessionStore};
use dev_postgres::TestDatabase;
use serde_json::{Value, json};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Generation, PATIENCE, Server, Table, koa::Host, page};
use crate::connection;

pub(crate) struct Site {
    host: &'static Host,
    pub(crate) database: TestDatabase,
    pub(crate) pool: PgPool,
}

impl Site {
    /// A database of its own; `None` where there is no Node.
    pub(crate) async fn of(generation: Generation) -> Option<Self> {
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

    pub(crate) fn rows(&self) -> Table {
        self.rows_of("public.session")
    }

    pub(crate) fn rows_of(&self, table: &str) -> Table {
        Table::new(self.pool.clone(), table)
    }

    pub(crate) async fn ids(&self) -> Vec<String> {
        self.rows().ids().await
    }

    /// The zone of every connection from now on that asks for none.
    pub(crate) async fn set_zone(&self, zone: &str) {
        let options: PgConnectOptions = self.database.url().parse().expect("a URL");
        let name = options.get_database().expect("a name");
        self.rows()
            .execute(&format!("ALTER DATABASE {name} SET timezone = '{zone}'"))
            .await;
    }

    /// The format that the usual Koa keeps to.
    pub(crate) fn format() -> Koa {
        Koa::new(["keys", "keykeys"])
    }

    /// The table as axum sees it, with connections of its own.
    pub(crate) fn store(&self) -> PgSessionStore {
        self.store_with(Self::format())
    }

    pub(crate) fn store_with(&self, format: Koa) -> PgSessionStore {
        let pool = pool(self.database.url());
        Self::store_on(pool, format)
    }

    /// With patience for a machine that is busy.
    pub(crate) fn store_on(pool: PgPool, format: Koa) -> PgSessionStore {
        PgSessionStore::new(pool).koa(format).timeout(PATIENCE)
    }

    /// axum on the table that Koa made.
    pub(crate) fn axum(&self) -> Server {
        page::server(PgSessionLayer::new(self.store()))
    }

    /// Both, as most scenarios want them.
    pub(crate) async fn both(&self) -> (Server, Server) {
        (self.koa().await, self.axum())
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

/// Where a request to either server waits, by the step `wait`.
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
