//! Koa's side of a site, and axum in Koa's format.

use axum_pg_session::{Koa, PgSessionLayer, PgSessionStore};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Browser, Server, Site, page};
use crate::node::{Columns, Generation, PATIENCE, Table};

/// Generators, on Node 12.
pub(crate) static KOA_1: Generation = Generation::new("tests/koa/koa1");
/// Async functions, on the Node of the machine.
pub(crate) static KOA_2: Generation = Generation::new("tests/koa/koa2");

static COLUMNS: Columns = Columns {
    id: "id",
    expiry: "expiry",
    document: "session",
    has_zone: false,
};

impl Site {
    /// Koa with these options, in addition to the usual ones.
    pub(crate) async fn koa_with(&self, options: Value) -> Server {
        let usual = json!({
            "keys": ["keys", "keykeys"],
            "connection": self.connection(),
            "store": {},
            "session": {},
        });
        self.open(usual, options).await
    }

    /// Koa with the options of the readme, which creates the table.
    pub(crate) async fn koa(&self) -> Server {
        self.koa_with(json!({})).await
    }

    pub(crate) fn rows(&self) -> Table {
        self.rows_of("public.session")
    }

    pub(crate) fn rows_of(&self, table: &str) -> Table {
        self.table(table, &COLUMNS)
    }

    pub(crate) async fn ids(&self) -> Vec<String> {
        self.rows().ids().await
    }

    /// The format of the usual Koa.
    pub(crate) fn format() -> Koa {
        Koa::new(["keys", "keykeys"])
    }

    /// The table as axum sees it, with connections of its own.
    pub(crate) fn store(&self) -> PgSessionStore {
        self.store_with(Self::format())
    }

    pub(crate) fn store_with(&self, format: Koa) -> PgSessionStore {
        Self::store_on(self.new_pool(), format)
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
}

impl Browser {
    /// The session's id, which is the value of Koa's default cookie.
    pub(crate) fn sid(&self) -> &str {
        self.value("koa.sid")
    }
}
