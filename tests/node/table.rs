//! The contents of a table, read and changed beside both servers.

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use super::PATIENCE;

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pool: PgPool,
    name: String,
    columns: &'static Columns,
}

/// How a site names its columns.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) id: &'static str,
    pub(crate) expiry: &'static str,
    pub(crate) document: &'static str,
    /// Whether the expiry is a `timestamptz`. Otherwise it is what a clock shows.
    pub(crate) has_zone: bool,
}

impl Table {
    pub(crate) fn new(pool: PgPool, name: &str, columns: &'static Columns) -> Self {
        Self {
            pool,
            name: name.to_owned(),
            columns,
        }
    }

    /// Statements have the words SESSIONS, THE_ID, THE_EXPIRY and THE_DOCUMENT for the
    /// names of the table and its columns.
    pub(crate) async fn execute(&self, sql: &str) {
        let sql = self.named(sql);
        sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn named(&self, sql: &str) -> String {
        sql.replace("SESSIONS", &self.name)
            .replace("THE_ID", self.columns.id)
            .replace("THE_EXPIRY", self.columns.expiry)
            .replace("THE_DOCUMENT", self.columns.document)
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
        self.texts("SELECT THE_ID FROM SESSIONS ORDER BY THE_ID")
            .await
    }

    /// The document of the only session as it is stored.
    pub(crate) async fn text(&self) -> String {
        self.only("SELECT THE_DOCUMENT::text FROM SESSIONS").await
    }

    /// The document of the only session.
    pub(crate) async fn document(&self) -> Value {
        serde_json::from_str(&self.text().await).expect("JSON")
    }

    /// All columns of all rows, in a fixed order.
    pub(crate) async fn dump(&self) -> Vec<String> {
        self.texts("SELECT t::text FROM SESSIONS AS t ORDER BY 1")
            .await
    }

    /// The expiry of the only session as it is stored.
    pub(crate) async fn expiry(&self) -> String {
        self.only("SELECT THE_EXPIRY::text FROM SESSIONS").await
    }

    /// Seconds until the only session expires, on the clock of `zone`.
    pub(crate) async fn seconds_left(&self, zone: &str) -> f64 {
        let expiry = self.across("THE_EXPIRY", zone);
        let sql = format!("SELECT extract(epoch FROM {expiry} - now())::text FROM SESSIONS");
        self.only(&sql).await.parse().expect("a number")
    }

    /// From an instant to what the column stores for it, or back.
    fn across(&self, sql: &str, zone: &str) -> String {
        match self.columns.has_zone {
            true => sql.to_owned(),
            false => format!("({sql} AT TIME ZONE '{zone}')"),
        }
    }

    /// Moves every expiry, instead of waiting.
    pub(crate) async fn age(&self, seconds: f64) {
        self.execute(&format!(
            "UPDATE SESSIONS SET THE_EXPIRY = THE_EXPIRY - interval '{seconds} seconds'"
        ))
        .await;
    }

    /// Sets the expiry of one session, in seconds from now.
    pub(crate) async fn expire(&self, sid: &str, zone: &str, seconds: f64) {
        let now = self.across("now()", zone);
        self.execute(&format!(
            "UPDATE SESSIONS SET THE_EXPIRY = {now} + interval '{seconds} seconds'
             WHERE right(THE_ID, length('{sid}')) = '{sid}'"
        ))
        .await;
    }

    /// Stores a session of this document that lives a day, on the clock of UTC.
    pub(crate) async fn insert(&self, id: &str, document: &str) {
        let sql = format!(
            "INSERT INTO SESSIONS (THE_ID, THE_EXPIRY, THE_DOCUMENT)
             VALUES ($1, {} + interval '1 day', $2::json)
             ON CONFLICT (THE_ID) DO UPDATE SET THE_DOCUMENT = excluded.THE_DOCUMENT",
            self.across("now()", "UTC")
        );
        sqlx::query(AssertSqlSafe(self.named(&sql)))
            .bind(id)
            .bind(document)
            .execute(&self.pool)
            .await
            .expect("a row");
    }

    /// Returns when the row of this session no longer exists.
    pub(crate) async fn loses(&self, sid: &str) {
        let is_there = async || self.ids().await.iter().any(|id| id.ends_with(sid));
        let waiting = async { while is_there().await {} };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("it comes to an end");
    }
}
