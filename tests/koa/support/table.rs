//! What a table holds, seen from beside both servers.

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use super::PATIENCE;

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pool: PgPool,
    name: String,
}

impl Table {
    pub(crate) fn new(pool: PgPool, name: &str) -> Self {
        Self {
            pool,
            name: name.to_owned(),
        }
    }

    /// Statements say SESSIONS for this table.
    pub(crate) async fn execute(&self, sql: &str) {
        let sql = self.named(sql);
        sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn named(&self, sql: &str) -> String {
        sql.replace("SESSIONS", &self.name)
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = self.named(sql);
        sqlx::query_scalar(AssertSqlSafe(sql.clone()))
            .fetch_all(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn only(&self, sql: &str) -> String {
        let mut texts = self.texts(sql).await;
        assert_eq!(texts.len(), 1, "one session");
        texts.remove(0)
    }

    pub(crate) async fn ids(&self) -> Vec<String> {
        self.texts("SELECT id FROM SESSIONS ORDER BY id").await
    }

    /// The document of the only session as it is stored.
    pub(crate) async fn text(&self) -> String {
        self.only("SELECT session::text FROM SESSIONS").await
    }

    /// The document of the only session.
    pub(crate) async fn document(&self) -> Value {
        serde_json::from_str(&self.text().await).expect("JSON")
    }

    /// Everything of every row, in an order, to be compared.
    pub(crate) async fn dump(&self) -> Vec<String> {
        self.texts("SELECT t::text FROM SESSIONS AS t ORDER BY 1")
            .await
    }

    /// The expiry of the only session as its clock shows it.
    pub(crate) async fn expiry(&self) -> String {
        self.only("SELECT expiry::text FROM SESSIONS").await
    }

    /// Seconds until the only session expires, on the clock of `zone`.
    pub(crate) async fn seconds_left(&self, zone: &str) -> f64 {
        let sql = format!(
            "SELECT extract(epoch FROM expiry AT TIME ZONE '{zone}' - now())::text FROM SESSIONS"
        );
        self.only(&sql).await.parse().expect("a number")
    }

    /// Moves every expiry, instead of waiting.
    pub(crate) async fn age(&self, seconds: f64) {
        self.execute(&format!(
            "UPDATE SESSIONS SET expiry = expiry - interval '{seconds} seconds'"
        ))
        .await;
    }

    /// Moves the expiry of one session so far from now.
    pub(crate) async fn expire(&self, sid: &str, zone: &str, seconds: f64) {
        self.execute(&format!(
            "UPDATE SESSIONS SET expiry = now() AT TIME ZONE '{zone}' + interval '{seconds} seconds'
             WHERE right(id, length('{sid}')) = '{sid}'"
        ))
        .await;
    }

    /// A session of this document that lives a day, on the clock of UTC.
    pub(crate) async fn insert(&self, sid: &str, document: &str) {
        let sql = "INSERT INTO SESSIONS (id, expiry, session)
                   VALUES ('koa:sess:' || $1, now() AT TIME ZONE 'UTC' + interval '1 day', $2::json)
                   ON CONFLICT (id) DO UPDATE SET session = excluded.session";
        sqlx::query(AssertSqlSafe(sql.replace("SESSIONS", &self.name)))
            .bind(sid)
            .bind(document)
            .execute(&self.pool)
            .await
            .expect("a row");
    }

    /// Returns when the row of this session is gone.
    pub(crate) async fn loses(&self, sid: &str) {
        let is_there = async || self.ids().await.iter().any(|id| id.ends_with(sid));
        let waiting = async { while is_there().await {} };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("it comes to an end");
    }
}
