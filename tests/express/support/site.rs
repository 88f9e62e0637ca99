//! Express's side of a site, and axum in Express's format.

use std::time::Duration;

use axum_pg_session::{Express, PgSessionLayer, PgSessionStore};
use cookie::time::{OffsetDateTime, format_description::well_known::Rfc3339};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Browser, Reply, Server, Site, page};
use crate::node::{Columns, Generation, PATIENCE, Table};

/// connect-pg-simple 9.
pub(crate) static EXPRESS_4: Generation = Generation::new("tests/express/express4");
/// connect-pg-simple 10.
pub(crate) static EXPRESS_5: Generation = Generation::new("tests/express/express5");
/// connect-session-knex 5, on Express 5.
pub(crate) static KNEX: Generation = Generation::new("tests/express/knex");

static OF_CONNECT_PG_SIMPLE: Columns = Columns {
    id: "sid",
    expiry: "expire",
    document: "sess",
    has_zone: false,
};
static OF_KNEX: Columns = Columns {
    id: "sid",
    expiry: "expired",
    document: "sess",
    has_zone: true,
};

const SECRETS: [&str; 2] = ["keys", "keykeys"];

impl Site {
    pub(crate) fn is_of_knex(&self) -> bool {
        self.host.name() == "knex"
    }

    /// Express with these options, in addition to the usual ones: those of `site.js`
    /// and of the store.
    pub(crate) async fn express_with(&self, options: Value) -> Server {
        let usual = json!({
            "secret": SECRETS,
            "connection": self.connection(),
            "store": {},
            "session": {},
        });
        self.open(usual, options).await
    }

    /// Express without `resave` and `saveUninitialized`, which creates the table.
    pub(crate) async fn express(&self) -> Server {
        self.express_with(json!({})).await
    }

    /// The options of a store that deletes expired rows ten times a second.
    pub(crate) fn quick_cleanup(&self) -> Value {
        match self.is_of_knex() {
            true => json!({ "cleanupInterval": 100 }),
            false => json!({
                "pruneSessionInterval": 0.1,
                "pruneSessionRandomizedInterval": false,
            }),
        }
    }

    /// The option of a store that doesn't create its table.
    pub(crate) fn without_creation(&self) -> Value {
        match self.is_of_knex() {
            true => json!({ "createTable": false }),
            false => json!({ "createTableIfMissing": false }),
        }
    }

    /// The store's default name of the table.
    pub(crate) fn table_name(&self) -> &'static str {
        match self.is_of_knex() {
            true => "sessions",
            false => "session",
        }
    }

    pub(crate) fn rows(&self) -> Table {
        self.rows_in("public")
    }

    /// The table in this schema.
    pub(crate) fn rows_in(&self, schema: &str) -> Table {
        let columns = match self.is_of_knex() {
            true => &OF_KNEX,
            false => &OF_CONNECT_PG_SIMPLE,
        };
        self.table(&format!("{schema}.{}", self.table_name()), columns)
    }

    pub(crate) async fn ids(&self) -> Vec<String> {
        self.rows().ids().await
    }

    /// The format of this store with these secrets.
    pub(crate) fn format_with(&self, secrets: &[&str]) -> Express {
        let format = Express::new(secrets.iter().copied());
        match self.is_of_knex() {
            true => format.knex(),
            false => format,
        }
    }

    /// The format of the usual Express.
    pub(crate) fn format(&self) -> Express {
        self.format_with(&SECRETS)
    }

    /// The table as axum sees it, with connections of its own.
    pub(crate) fn store(&self) -> PgSessionStore {
        self.store_with(self.format())
    }

    pub(crate) fn store_with(&self, format: Express) -> PgSessionStore {
        self.store_on(self.new_pool(), format)
    }

    /// With patience for a machine that is busy.
    pub(crate) fn store_on(&self, pool: PgPool, format: Express) -> PgSessionStore {
        let store = PgSessionStore::new(pool).express(format);
        store.table(self.table_name()).timeout(PATIENCE)
    }

    /// axum on the table that Express made.
    pub(crate) fn axum(&self) -> Server {
        self.axum_with(self.format())
    }

    pub(crate) fn axum_with(&self, format: Express) -> Server {
        page::server(PgSessionLayer::new(self.store_with(format)))
    }

    /// Both, as most scenarios want them.
    pub(crate) async fn both(&self) -> (Server, Server) {
        (self.express().await, self.axum())
    }

    /// The response of `server` to a request with this step. While it is between its
    /// load and its save, `meanwhile` happens.
    pub(crate) async fn during(
        &self,
        browser: &Browser,
        server: &Server,
        step: Value,
        meanwhile: impl Future<Output = ()>,
    ) -> Reply {
        let gate = self.gate();
        let mut steps = vec![json!(["wait", gate.name])];
        steps.extend(Some(step).filter(|step| *step != NOTHING));
        let meanwhile = async {
            gate.arrived().await;
            meanwhile.await;
            gate.open().await;
        };
        tokio::join!(browser.peek(server, json!(steps)), meanwhile).0
    }
}

/// A step that changes nothing.
pub(crate) const NOTHING: Value = Value::Null;

/// The instant so many seconds from now, as JavaScript writes it.
pub(crate) fn in_seconds(seconds: f64) -> String {
    let at = OffsetDateTime::now_utc() + Duration::from_secs_f64(seconds);
    let at = at.replace_nanosecond(0).expect("a second");
    let text = at.format(&Rfc3339).expect("a text");
    text.replace('Z', ".250Z")
}

impl Browser {
    /// The session's id, in the value of Express's default cookie.
    pub(crate) fn sid(&self) -> &str {
        sid(self.value("connect.sid"))
    }
}

impl Reply {
    /// The user that the page found.
    pub(crate) fn user(&self) -> Option<&str> {
        let user = self.headers.get("x-user")?;
        Some(user.to_str().expect("ASCII"))
    }
}

/// The id in the value of a cookie.
pub(crate) fn sid(value: &str) -> &str {
    let signed = value.strip_prefix("s%3A").expect("a signed value");
    signed.rsplit_once('.').expect("a signature").0
}
