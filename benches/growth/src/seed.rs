use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, PgPool};

/// Of a document without its filling, about.
const FRAME: u64 = 48;

/// The cookie of the nth visitor, as the browser sends it.
pub(crate) fn cookie(visitor: u64) -> String {
    let token = Sha256::digest(format!("visitor {visitor}"));
    format!("__Host-id={}", URL_SAFE_NO_PAD.encode(token))
}

/// The digest of the cookie. [`insert`] computes the same in SQL, as it makes
/// millions of rows.
pub(crate) fn row_id(visitor: u64) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(cookie(visitor)))
}

/// Rows of visitors from `first` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Bytes of each document.
    pub(crate) size: u64,
    pub(crate) life: Life,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Somewhat shorter than a touch would make it.
    Living,
    Expired,
}

impl Life {
    fn sql(self) -> &'static str {
        match self {
            Self::Living => "now() + interval '23:30' - random() * interval '0:20'",
            Self::Expired => "now() - interval '1:00' - random() * interval '0:20'",
        }
    }
}

pub(crate) async fn insert(pool: &PgPool, table: &str, rows: Rows) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO {table} (id, expiry, session)
         SELECT {id},
                {expiry},
                json_build_object('visitor', n, 'visits', 0, 'filling', left(
                    (SELECT string_agg(md5(n || ' ' || part), '')
                     FROM generate_series(0, $3::int8 / 32) AS part),
                    $3::int4))
         FROM generate_series($1::int8, $2::int8) AS n",
        id = base64url(&format!(
            "sha256(convert_to('__Host-id=' || {token}, 'UTF8'))",
            token = base64url("sha256(convert_to('visitor ' || n, 'UTF8'))"),
        )),
        expiry = rows.life.sql(),
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(bigint(rows.first))
        .bind(bigint(rows.first + rows.count) - 1)
        .bind(bigint(rows.size.saturating_sub(FRAME)))
        .execute(pool)
        .await
        .map(drop)
}

fn base64url(bytes: &str) -> String {
    format!("translate(rtrim(encode({bytes}, 'base64'), '='), '+/', '-_')")
}

/// As autovacuum would, had it the time.
pub(crate) async fn vacuum(pool: &PgPool, table: &str) -> Result<(), sqlx::Error> {
    let sql = format!("VACUUM ANALYZE {table}");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(pool)
        .await
        .map(drop)
}

/// From here on the first change of a page logs all of it, as it does for most
/// changes of a large table in production.
pub(crate) async fn checkpoint(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("CHECKPOINT").execute(pool).await.map(drop)
}

pub(crate) fn bigint(number: u64) -> i64 {
    i64::try_from(number).expect("less than a bigint holds")
}
