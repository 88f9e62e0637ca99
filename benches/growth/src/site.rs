use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
    routing::get,
};
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, PgPool};
use tower::ServiceExt as _;

use crate::Outcome;

/// The bytes of a document beside its filling, about.
const FRAME: u64 = 48;
/// So long that no load and no save is a touch as well.
const RARELY: Duration = Duration::from_hours(12);

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Visit {
    Load,
    Touch,
    Save,
}

impl Visit {
    pub(crate) const ALL: [Self; 3] = [Self::Load, Self::Touch, Self::Save];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Touch => "touch",
            Self::Save => "save",
        }
    }
}

/// Whether rows are expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// No: they expire somewhat earlier than after a touch.
    Live,
    Expired,
}

/// A site with a table of its own, which has a row for each of its visitors.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) pool: PgPool,
    pub(crate) store: PgSessionStore,
    pub(crate) table: String,
    pub(crate) visitors: u64,
    app: Router,
    touching: Router,
    /// The number of acknowledged saves of each visitor.
    saved: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl Site {
    /// Creates the table and fills it.
    pub(crate) async fn new(pool: &PgPool, table: String, count: u64, size: u64) -> Outcome<Self> {
        let store = PgSessionStore::new(pool.clone()).table(&table);
        store.migrate().await?;
        let layer = PgSessionLayer::new(store.clone());
        let touching = layer.clone().touch_interval(Duration::ZERO);
        let site = Self {
            pool: pool.clone(),
            store,
            table,
            visitors: count,
            app: pages().layer(layer.touch_interval(RARELY)),
            touching: pages().layer(touching),
            saved: Arc::default(),
        };
        site.insert(0, count, size, Life::Live).await?;
        // From here on, the first change of each page is logged as a whole page, as it is for most
        // changes of a large table in production.
        sqlx::raw_sql("CHECKPOINT").execute(pool).await?;
        eprintln!("{} has its rows", site.table);
        Ok(site)
    }

    /// Inserts rows for `count` visitors from `first` on. The ids are those of [`row_id`], computed
    /// in SQL, because there are millions.
    pub(crate) async fn insert(
        &self,
        first: u64,
        count: u64,
        size: u64,
        life: Life,
    ) -> Outcome<()> {
        let base64url =
            |bytes: &str| format!("translate(rtrim(encode({bytes}, 'base64'), '='), '+/', '-_')");
        let token = base64url("sha256(convert_to('visitor ' || n, 'UTF8'))");
        let sql = format!(
            "INSERT INTO {table} (id, expiry, session)
             SELECT {id},
                    now() + {expiry} - random() * interval '0:20',
                    json_build_object('visitor', n, 'visits', 0, 'filling', left(
                        (SELECT string_agg(md5(n || ' ' || part), '')
                         FROM generate_series(0, $3::int8 / 32) AS part),
                        $3::int4))
             FROM generate_series($1::int8, $2::int8) AS n",
            table = self.table,
            id = base64url(&format!(
                "sha256(convert_to('__Host-id=' || {token}, 'UTF8'))"
            )),
            expiry = match life {
                Life::Live => "interval '23:30'",
                Life::Expired => "interval '-1:00'",
            },
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(bigint(first))
            .bind(bigint(first + count) - 1)
            .bind(bigint(size.saturating_sub(FRAME)))
            .execute(&self.pool)
            .await?;
        // As autovacuum would, if it had the time.
        let sql = format!("VACUUM ANALYZE {}", self.table);
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Fails if the response is not that visitor's.
    pub(crate) async fn visit(&self, visit: Visit, visitor: u64) -> Outcome<()> {
        let (app, path) = match visit {
            Visit::Load => (&self.app, "/read"),
            Visit::Touch => (&self.touching, "/read"),
            Visit::Save => (&self.app, "/write"),
        };
        let request = Request::get(path).header(header::COOKIE, cookie(visitor));
        let Ok(response) = app.clone().oneshot(request.body(Body::empty())?).await;
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await?;
        if !status.is_success() || *body != *visitor.to_string().as_bytes() {
            let path = visit.name();
            return Err(format!("{path} of visitor {visitor}: {status}, {body:?}").into());
        }
        if visit == Visit::Save {
            let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
            *saved.entry(visitor).or_default() += 1;
        }
        Ok(())
    }

    /// Fails unless each acknowledged save is stored exactly once.
    pub(crate) async fn check_saves(&self) -> Outcome<()> {
        let (ids, served) = {
            let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
            let ids: Vec<_> = saved.keys().map(|visitor| row_id(*visitor)).collect();
            (ids, saved.values().sum())
        };
        let sql = format!(
            "SELECT COALESCE(sum((session->>'visits')::int8), 0)::int8 \
             FROM {} WHERE id = ANY($1)",
            self.table
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(ids);
        let stored: i64 = query.fetch_one(&self.pool).await?;
        if stored != bigint(served) {
            let table = &self.table;
            return Err(format!("{table}: {served} saves acknowledged, {stored} stored").into());
        }
        Ok(())
    }

    /// Fails if no touch has extended a session.
    pub(crate) async fn check_touches(&self) -> Outcome<()> {
        let table = &self.table;
        let sql =
            format!("SELECT EXISTS (SELECT FROM {table} WHERE expiry > now() + interval '23:35')");
        let is_touched = sqlx::query_scalar(AssertSqlSafe(sql));
        match is_touched.fetch_one(&self.pool).await? {
            true => Ok(()),
            false => Err(format!("{table}: no session was touched").into()),
        }
    }
}

/// The visitor's cookie, as the browser sends it.
fn cookie(visitor: u64) -> String {
    let token = Sha256::digest(format!("visitor {visitor}"));
    format!("__Host-id={}", URL_SAFE_NO_PAD.encode(token))
}

/// The digest of the cookie.
fn row_id(visitor: u64) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(cookie(visitor)))
}

fn bigint(number: u64) -> i64 {
    i64::try_from(number).expect("less than a bigint holds")
}

fn pages() -> Router {
    Router::new()
        .route("/read", get(read))
        .route("/write", get(write))
}

/// The visitor whose session it is.
fn owner(session: &Session) -> Result<String, Error> {
    let visitor: Option<u64> = session.get("visitor")?;
    Ok(visitor.map_or_else(|| "no visitor".into(), |visitor| visitor.to_string()))
}

async fn read(session: Session) -> Result<String, Error> {
    owner(&session)
}

async fn write(session: Session) -> Result<String, Error> {
    session.update("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)?;
    owner(&session)
}
