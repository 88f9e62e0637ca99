//! The rows of a table, read without the crate.

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use super::execute;

#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pool: PgPool,
    table: String,
}

impl Rows {
    pub(crate) fn new(pool: PgPool, table: &str) -> Self {
        Self {
            pool,
            table: table.to_owned(),
        }
    }

    fn sql(&self, sql: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(sql.replace("TABLE", &self.table))
    }

    /// Sessions, without the forwardings that cycles leave for a minute.
    pub(crate) async fn count(&self) -> i64 {
        let sql = "SELECT count(*) FROM TABLE WHERE coalesce(session::jsonb #> '{_session,successor}', 'null') = 'null'";
        sqlx::query_scalar(self.sql(sql))
            .fetch_one(&self.pool)
            .await
            .expect("a count")
    }

    /// The document of the only session.
    pub(crate) async fn document(&self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).expect("JSON")
    }

    /// The document of the only session as it is stored.
    pub(crate) async fn text(&self) -> String {
        assert_eq!(self.count().await, 1, "one session");
        let sql = "SELECT session::text FROM TABLE WHERE coalesce(session::jsonb #> '{_session,successor}', 'null') = 'null'";
        sqlx::query_scalar(self.sql(sql))
            .fetch_one(&self.pool)
            .await
            .expect("a row")
    }

    /// Everything of every row, in an order, to be compared.
    pub(crate) async fn dump(&self) -> Vec<String> {
        let sql = "SELECT t::text FROM TABLE AS t ORDER BY 1";
        sqlx::query_scalar(self.sql(sql))
            .fetch_all(&self.pool)
            .await
            .expect("rows")
    }

    /// Seconds until the only session expires.
    pub(crate) async fn seconds_left(&self) -> f64 {
        let sql = "SELECT extract(epoch FROM expiry - now())::float8 FROM TABLE WHERE coalesce(session::jsonb #> '{_session,successor}', 'null') = 'null'";
        sqlx::query_scalar(self.sql(sql))
            .fetch_one(&self.pool)
            .await
            .expect("one row")
    }

    /// The only session expires in so many seconds, give or take a minute.
    pub(crate) async fn assert_left(&self, seconds: f64) {
        let left = self.seconds_left().await;
        assert!(
            (left - seconds).abs() < 60.0,
            "{left} s left, not {seconds}"
        );
    }

    /// Moves every expiry, instead of waiting.
    pub(crate) async fn age(&self, seconds: f64) {
        self.execute(&format!(
            "UPDATE TABLE SET expiry = expiry - interval '{seconds} seconds'"
        ))
        .await;
    }

    /// Moves every creation, instead of waiting.
    pub(crate) async fn age_creation(&self, seconds: f64) {
        self.execute(&format!(
            "UPDATE TABLE SET created = created - interval '{seconds} seconds'"
        ))
        .await;
    }

    pub(crate) async fn execute(&self, sql: &str) {
        execute(&self.pool, &self.sql(sql).0).await;
    }
}
