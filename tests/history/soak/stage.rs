//! The stage of a soak: a server of Postgres, copies of the site, and new visitors in each round.

use std::{fmt, sync::Arc, time::Duration};

use axum_pg_session::PgSessionStore;
use dev_postgres::Server;
use sqlx::PgPool;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    Script,
    blows::{Blows, Struck},
    figures::Sample,
};
use crate::{
    browser::Browser,
    check::{StoredRow, Violation, violations},
    copies::{Copies, Manner, Reaping},
    history::{checkers_pool, held_by, stored_rows},
    random::Random,
    record::{Kept, Life, Moment, Record},
    site::TIMEOUT,
    visitor::Visitor,
};

const COPIES: usize = 4;
const BROWSERS: usize = 8;
const TABS: usize = 4;
/// So often each copy reaps.
const REAPING: Duration = Duration::from_secs(2);
/// Nothing that is in flight is without a statement for so long.
const STILL: Duration = TIMEOUT.saturating_mul(2);
const LOOK: Duration = Duration::from_millis(20);
/// Something that is in flight for longer has no end.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Stage {
    script: Script,
    record: Arc<Record>,
    copies: Arc<Copies>,
    pool: PgPool,
    blows: Blows,
    visitors: u64,
}

/// What came of a round.
pub(super) struct Round {
    pub(super) kept: Kept,
    pub(super) struck: Vec<Struck>,
    pub(super) violations: Vec<Violation>,
    pub(super) sample: Sample,
}

impl Stage {
    pub(super) async fn set(script: Script) -> Self {
        let starting = tokio::task::spawn_blocking(Server::start);
        let server = starting.await.expect("no panic").expect("a server");
        let pool = checkers_pool(&server.url()).await;
        let store = PgSessionStore::new(pool.clone());
        store.migrate().await.expect("a new table");
        let manner = Manner::of_a_history(Reaping::Every(REAPING));
        let copies = Copies::start(&server.url(), COPIES, manner).await;
        let (record, copies) = (Arc::new(Record::default()), Arc::new(copies));
        let blows = Blows {
            random: Random::new(script.seed, 0),
            record: Arc::clone(&record),
            copies: Arc::clone(&copies),
            pool: pool.clone(),
            server: Arc::new(server),
            deck: Vec::new(),
        };
        Self {
            script,
            record,
            copies,
            pool,
            blows,
            visitors: 0,
        }
    }

    pub(super) async fn clear_away(self) {
        self.copies.kill_all().await;
        self.pool.close().await;
    }

    pub(super) async fn round(&mut self) -> Round {
        let first = self.record.next_life();
        let browsers: Vec<Arc<Browser>> = (0..BROWSERS).map(|_| Arc::default()).collect();
        let (over, is_over) = watch::channel(false);
        let visits = self.visit(&browsers, &is_over);
        let struck = self.blows.strike(self.script.blows, self.script.calm).await;
        over.send_replace(true);
        visits.join_all().await;
        self.all_is_still().await;
        self.look_at_every_jar(&browsers).await;
        self.all_is_still().await;
        let end = self.record.now();
        let rows = stored_rows(&self.pool).await;
        let sample = Sample::take(&self.pool, &self.copies, rows.len()).await;
        let kept = self.record.take();
        let violations = self.violations(&kept, rows, &browsers, first, end);
        self.expire_all().await;
        Round {
            kept,
            struck,
            violations,
            sample,
        }
    }

    fn visit(&mut self, browsers: &[Arc<Browser>], is_over: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut visits = JoinSet::new();
        for browser in browsers.iter().cycle().take(BROWSERS * TABS) {
            let (mut visitor, is_over) = (self.visitor(browser), is_over.clone());
            let pause = self.script.pause;
            visits.spawn(async move { visitor.visit_until(is_over, pause).await });
        }
        visits
    }

    fn visitor(&mut self, browser: &Arc<Browser>) -> Visitor {
        self.visitors += 1;
        Visitor::new(
            Random::new(self.script.seed, self.visitors),
            Arc::clone(&self.record),
            Arc::clone(&self.copies),
            Arc::clone(browser),
        )
    }

    async fn look_at_every_jar(&mut self, browsers: &[Arc<Browser>]) {
        for browser in browsers {
            self.visitor(browser).look_once_more().await;
        }
    }

    /// Returns when no server has anything in flight: what a visitor gave up
    /// on is carried out to its end. A transaction that is never ended, or a
    /// lock that is never released, is found by that.
    async fn all_is_still(&self) {
        let stillness = async {
            let mut still = Duration::ZERO;
            while still < STILL {
                tokio::time::sleep(LOOK).await;
                still = match busy(&self.pool).await[..] {
                    [] => still + LOOK,
                    _ => Duration::ZERO,
                };
            }
        };
        if timeout(PATIENCE, stillness).await.is_err() {
            panic!("in flight without an end: {:?}", busy(&self.pool).await);
        }
    }

    /// What is left of earlier rounds is expired; what is of this one is
    /// checked against its record.
    fn violations(
        &self,
        kept: &Kept,
        rows: Vec<StoredRow>,
        browsers: &[Arc<Browser>],
        first: Life,
        end: Moment,
    ) -> Vec<Violation> {
        let is_old = |row: &StoredRow| row.owner().is_some_and(|life| life < first);
        let (old, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_old);
        let mut found = violations(kept, &rows, held_by(browsers), end);
        found.extend(old.iter().filter(|row| row.is_live).map(|row| Violation {
            number: 0,
            what: format!("a session of an earlier round lives again: {row:?}"),
        }));
        found
    }

    /// Forwardings, too, because no client of the next round has an old token.
    async fn expire_all(&self) {
        let sql = "UPDATE session SET expiry = now() - interval '1 second' WHERE expiry > now()";
        let expired = sqlx::query(sql).execute(&self.pool).await;
        expired.expect("the checker's connections are spared");
    }
}

/// Transactions without a statement count too, but not the reapers', who never
/// rest, unless they last.
async fn busy(pool: &PgPool) -> Vec<String> {
    let sql = "
        SELECT concat_ws(' ', state, clock_timestamp() - xact_start, wait_event, query)
        FROM pg_stat_activity
        WHERE datname = current_database() AND application_name <> 'checker'
          AND state <> 'idle'
          AND NOT (xact_start > clock_timestamp() - interval '1 second'
                   AND (query IN ('BEGIN', 'COMMIT') OR query LIKE '%pg_try_advisory_xact_lock%'
                        OR query LIKE 'WITH dead AS %'))";
    sqlx::query_scalar(sql)
        .fetch_all(pool)
        .await
        .expect("what is in flight")
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blows: Vec<_> = self.struck.iter().map(|struck| struck.blow).collect();
        write!(
            f,
            "{:6} requests, {} violations, {} {blows:?}",
            self.kept.entries.len(),
            self.violations.len(),
            self.sample
        )
    }
}
