use sqlx::PgPool;

use crate::cases::VISITORS;

/// The statements of an application without this crate: the least that can be done, so this is the
/// cost of the round trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Ping,
    Select,
    Update,
    Insert,
}

const SELECT: &str = "SELECT session::text FROM session WHERE id = $1 AND expiry > now()";
const UPDATE: &str = "UPDATE session SET session = $2::json WHERE id = $1 AND expiry > now()";
const INSERT: &str = "INSERT INTO session (id, expiry, session) \
                      VALUES ($1, now() + interval '1 day', $2::json)";

/// Inserts the rows that are selected and updated, with the document of a visitor.
pub(crate) async fn insert_rows(pool: &PgPool) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO session (id, expiry, session) \
               SELECT 'handwritten ' || n, now() + interval '1 day', session \
               FROM (SELECT session FROM session LIMIT 1) AS visitor, \
                    generate_series(0, $1::int8 - 1) AS n";
    let rows = i64::try_from(VISITORS).unwrap_or(i64::MAX);
    sqlx::query(sql).bind(rows).execute(pool).await.map(drop)
}

impl Statement {
    /// The row of the nth statement.
    pub(crate) fn id(self, at: usize) -> String {
        match self {
            Self::Insert => format!("new {at}"),
            Self::Ping | Self::Select | Self::Update => format!("handwritten {}", at % VISITORS),
        }
    }

    pub(crate) async fn send(self, pool: &PgPool, id: &str) -> Result<(), sqlx::Error> {
        match self {
            Self::Ping => sqlx::query("SELECT 1").execute(pool).await.map(drop),
            Self::Select => select(pool, id).await.map(drop),
            Self::Update => write(pool, UPDATE, id, &select(pool, id).await?).await,
            Self::Insert => write(pool, INSERT, id, r#"{"visits":1}"#).await,
        }
    }
}

async fn select(pool: &PgPool, id: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(SELECT).bind(id).fetch_one(pool).await
}

async fn write(
    pool: &PgPool,
    sql: &'static str,
    id: &str,
    document: &str,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(sql).bind(id).bind(document);
    match query.execute(pool).await?.rows_affected() {
        1 => Ok(()),
        _ => Err(sqlx::Error::RowNotFound),
    }
}
