//! The faults of a history. The seed determines which, when and how.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sqlx::{Executor as _, PgPool};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    copies::Copies,
    random::Random,
    record::{Expired, Life, Record},
    site::TIMEOUT,
};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fault {
    KilledServer,
    TerminatedConnections,
    LostResponses,
    SlowRow,
    SlowTable,
    /// Not a fault, but it too comes from nowhere.
    ExpiredSession,
}

pub(crate) const FAULTS: [(u64, Fault); 6] = [
    (1, Fault::KilledServer),
    (4, Fault::TerminatedConnections),
    (3, Fault::LostResponses),
    (6, Fault::SlowRow),
    (2, Fault::SlowTable),
    (3, Fault::ExpiredSession),
];

/// How often a statement is slower than the servers wait for.
const TOO_SLOW: u64 = 40;

pub(crate) struct Faults {
    pub(crate) random: Random,
    pub(crate) record: Arc<Record>,
    pub(crate) copies: Arc<Copies>,
    pub(crate) pool: PgPool,
}

impl Faults {
    /// Injects one fault after each few requests until all of them were sent. Returns how many of
    /// each there were.
    pub(crate) async fn inject(mut self, done: watch::Receiver<bool>) -> BTreeMap<Fault, u64> {
        let mut counts = BTreeMap::new();
        let mut in_flight = JoinSet::new();
        let mut next = 0;
        while !*done.borrow() {
            if self.record.sent() < next {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            next += 20 + self.random.below(60);
            let fault = self.choose(counts.len());
            *counts.entry(fault).or_default() += 1;
            self.strike(fault, &mut in_flight).await;
        }
        in_flight.join_all().await;
        counts
    }

    /// Each once, so that no history is without; then by their weights.
    fn choose(&mut self, kinds: usize) -> Fault {
        match FAULTS.get(kinds) {
            Some((_, fault)) => *fault,
            None => self.random.weighted(&FAULTS),
        }
    }

    async fn strike(&mut self, fault: Fault, in_flight: &mut JoinSet<()>) {
        let pool = self.pool.clone();
        let length = self.length();
        match fault {
            Fault::KilledServer => self.kill().await,
            Fault::TerminatedConnections => {
                let number = 1 + i64::try_from(self.random.below(4)).expect("it is small");
                let choice = if self.random.one_in(2) { BUSY } else { ANY };
                in_flight.spawn(terminate(pool, choice, number));
            }
            Fault::LostResponses => {
                let (copies, index) = (Arc::clone(&self.copies), self.copy());
                let length = Duration::from_millis(self.random.below(8));
                in_flight.spawn(async move { copies.lose_responses(index, length).await });
            }
            Fault::SlowRow => drop(in_flight.spawn(slow_down(pool, LOCK_ROW, length))),
            Fault::SlowTable => drop(in_flight.spawn(slow_down(pool, LOCK_TABLE, length))),
            Fault::ExpiredSession => {
                in_flight.spawn(expire(pool, Arc::clone(&self.record)));
            }
        }
    }

    /// One at a time, so that the others can be asked meanwhile.
    async fn kill(&mut self) {
        let index = self.copy();
        self.copies.kill_and_start_again(index).await;
    }

    fn copy(&mut self) -> usize {
        let number = self.copies.number() as u64;
        usize::try_from(self.random.below(number)).expect("few copies")
    }

    fn length(&mut self) -> Duration {
        match self.random.one_in(TOO_SLOW) {
            true => TIMEOUT.mul_f64(1.3),
            false => Duration::from_millis(self.random.below(40)),
        }
    }
}

pub(crate) const ANY: &str = "
    SELECT count(pg_terminate_backend(pid))
    FROM (
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name <> 'checker'
        ORDER BY random()
        LIMIT $1
    ) AS chosen";

/// Those in the middle of a statement or a transaction.
const BUSY: &str = "
    SELECT count(pg_terminate_backend(pid))
    FROM (
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name <> 'checker' AND state <> 'idle'
        ORDER BY random()
        LIMIT $1
    ) AS chosen";

pub(crate) async fn terminate(pool: PgPool, choice: &'static str, number: i64) {
    sqlx::query(choice)
        .bind(number)
        .execute(&pool)
        .await
        .expect("the checker's connections are spared");
}

pub(crate) const LOCK_ROW: &str = "SELECT FROM session ORDER BY random() LIMIT 1 FOR UPDATE";
pub(crate) const LOCK_TABLE: &str = "LOCK TABLE session IN ACCESS EXCLUSIVE MODE";

/// Whatever the lock covers takes as long as this transaction.
pub(crate) async fn slow_down(pool: PgPool, lock: &'static str, length: Duration) {
    let mut transaction = pool.begin().await.expect("a connection");
    transaction.execute(lock).await.expect("a lock");
    tokio::time::sleep(length).await;
    transaction.commit().await.expect("nothing was written");
}

/// Only a row that still is a session: a forwarding is to live its minute.
const EXPIRE: &str = "
    UPDATE session AS t
    SET expiry = now() - interval '1 second'
    WHERE t.id = (
            SELECT id FROM session
            WHERE session ->> 'owner' IS NOT NULL AND expiry > now()
            ORDER BY random()
            LIMIT 1
        )
      AND t.session ->> 'owner' IS NOT NULL
      AND t.expiry > now()
    RETURNING (t.session ->> 'owner')::bigint";

pub(crate) async fn expire(pool: PgPool, record: Arc<Record>) {
    let from = record.now();
    let owner: Option<i64> = sqlx::query_scalar(EXPIRE)
        .fetch_optional(&pool)
        .await
        .expect("the checker's connections are spared");
    if let Some(owner) = owner {
        record.keep_expired(Expired {
            life: Life::try_from(owner).expect("lives are counted from 1"),
            from,
            until: record.now(),
        });
    }
}
