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
use sqlx::{AssertSqlSafe, PgPool};
use tower::ServiceExt as _;

use crate::{
    Outcome,
    seed::{Life, Rows, bigint, checkpoint, cookie, insert, row_id, vacuum},
};

/// What a visitor asks for.
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

/// So that no load or save is a touch as well, however long the run is.
const SELDOM: Duration = Duration::from_hours(12);

/// A site with a table of its own, and visitors 0 to `visitors`, who have a
/// row each.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) pool: PgPool,
    pub(crate) store: PgSessionStore,
    pub(crate) table: String,
    pub(crate) visitors: u64,
    app: Router,
    touching: Router,
    /// How often each visitor was told that a visit is saved.
    saved: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl Site {
    /// Makes the table and fills it.
    pub(crate) async fn new(pool: &PgPool, table: String, count: u64, size: u64) -> Outcome<Self> {
        let store = PgSessionStore::new(pool.clone()).table(&table);
        store.migrate().await?;
        let rows = Rows {
            first: 0,
            count,
            size,
            life: Life::Living,
        };
        insert(pool, &table, rows).await?;
        vacuum(pool, &table).await?;
        checkpoint(pool).await?;
        let layer = PgSessionLayer::new(store.clone());
        let touching = layer.clone().touch_interval(Duration::ZERO);
        let layer = layer.touch_interval(SELDOM);
        eprintln!("{table} has its rows");
        Ok(Self {
            pool: pool.clone(),
            store,
            table,
            visitors: count,
            app: pages().layer(layer),
            touching: pages().layer(touching),
            saved: Arc::default(),
        })
    }

    /// Fails when the response is not the visitor's.
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

    /// Fails when a visit that got a response is not stored, or one is stored
    /// twice.
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

    /// How many rows live longer than they were made to.
    pub(crate) async fn touched(&self) -> Outcome<i64> {
        let sql = format!(
            "SELECT count(*) FROM {} WHERE expiry > now() + interval '23:35'",
            self.table
        );
        Ok(sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await?)
    }
}

fn pages() -> Router {
    Router::new()
        .route("/read", get(read))
        .route("/write", get(write))
}

/// Whose session it is, by which a response is known to be the right one.
fn owner(session: &Session) -> Result<String, Error> {
    let visitor: Option<u64> = session.get("visitor")?;
    Ok(visitor.map_or_else(|| "nobody".into(), |visitor| visitor.to_string()))
}

async fn read(session: Session) -> Result<String, Error> {
    owner(&session)
}

async fn write(session: Session) -> Result<String, Error> {
    session.update("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)?;
    owner(&session)
}
