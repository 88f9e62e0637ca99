//! The faults of a soak: each kind once, in an order that the seed determines, and then all of them
//! again.

use std::{sync::Arc, time::Duration};

use dev_postgres::{Server, Shutdown};
use sqlx::PgPool;

use crate::{
    copies::Copies,
    faults::{ANY, LOCK_ROW, LOCK_TABLE, expire, slow_down, terminate},
    random::Random,
    record::{Moment, Record},
    site::TIMEOUT,
};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Blow {
    KilledServer,
    TerminatedConnections,
    LostResponses,
    SlowRow,
    SlowTable,
    ExpiredSessions,
    FastRestart,
    ImmediateRestart,
    KilledPostgres,
}

pub(crate) const ALL: [Blow; 9] = [
    Blow::KilledServer,
    Blow::TerminatedConnections,
    Blow::LostResponses,
    Blow::SlowRow,
    Blow::SlowTable,
    Blow::ExpiredSessions,
    Blow::FastRestart,
    Blow::ImmediateRestart,
    Blow::KilledPostgres,
];
pub(crate) const KINDS: u32 = 9;

/// Copies that are never killed, so that their memory can be watched.
pub(crate) const SPARED: usize = 2;
/// Longer than the servers wait for a statement.
const SLOW: f64 = 1.3;

/// A fault, and from when until when it was there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Struck {
    pub(crate) blow: Blow,
    pub(crate) from: Moment,
    pub(crate) until: Moment,
}

pub(crate) struct Blows {
    pub(crate) random: Random,
    pub(crate) record: Arc<Record>,
    pub(crate) copies: Arc<Copies>,
    pub(crate) pool: PgPool,
    pub(crate) server: Arc<Server>,
    /// What is left of this turn.
    pub(crate) deck: Vec<Blow>,
}

impl Blows {
    /// So many, each after a while of calm, and a while of calm at the end.
    pub(crate) async fn strike(&mut self, number: u32, calm: Duration) -> Vec<Struck> {
        let mut struck = Vec::new();
        for _ in 0..number {
            tokio::time::sleep(calm).await;
            let blow = self.draw();
            let from = self.record.now();
            self.strike_once(blow).await;
            let until = self.record.now();
            struck.push(Struck { blow, from, until });
        }
        tokio::time::sleep(calm).await;
        struck
    }

    fn draw(&mut self) -> Blow {
        if self.deck.is_empty() {
            self.deck.extend(ALL);
        }
        let at = self.random.below(self.deck.len() as u64);
        self.deck
            .swap_remove(usize::try_from(at).expect("few kinds"))
    }

    async fn strike_once(&mut self, blow: Blow) {
        let pool = self.pool.clone();
        match blow {
            Blow::KilledServer => {
                let index = SPARED + self.below(self.copies.number() - SPARED);
                self.copies.kill_and_start_again(index).await;
            }
            Blow::TerminatedConnections => terminate(pool, ANY, i64::MAX).await,
            Blow::LostResponses => {
                let index = self.below(self.copies.number());
                self.copies.lose_responses(index, TIMEOUT).await;
            }
            Blow::SlowRow => slow_down(pool, LOCK_ROW, TIMEOUT.mul_f64(SLOW)).await,
            Blow::SlowTable => slow_down(pool, LOCK_TABLE, TIMEOUT.mul_f64(SLOW)).await,
            Blow::ExpiredSessions => {
                for _ in 0..4 {
                    expire(pool.clone(), Arc::clone(&self.record)).await;
                }
            }
            Blow::FastRestart => self.restart(Shutdown::Fast).await,
            Blow::ImmediateRestart => self.restart(Shutdown::Immediate).await,
            Blow::KilledPostgres => self.restart(Shutdown::Killed).await,
        }
    }

    /// The server keeps its data, and is away for up to two seconds.
    async fn restart(&mut self, how: Shutdown) {
        let server = Arc::clone(&self.server);
        let away = Duration::from_millis(self.random.below(2_000));
        let restarting = tokio::task::spawn_blocking(move || {
            server.stop(how)?;
            std::thread::sleep(away);
            server.start_again()
        });
        let restarted = restarting.await.expect("no panic");
        restarted.expect("a server that starts again");
    }

    fn below(&mut self, limit: usize) -> usize {
        let chosen = self.random.below(limit as u64);
        usize::try_from(chosen).expect("it is below a usize")
    }
}
