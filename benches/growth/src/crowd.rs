use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::task::JoinSet;

use crate::{
    Outcome,
    site::{Site, Visit},
};

/// The number of requests in flight.
const AT_ONCE: usize = 8;

/// A request whose response was right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) visit: Visit,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

impl Served {
    pub(crate) fn millis(&self) -> f64 {
        (self.to - self.from).as_secs_f64() * 1e3
    }
}

/// Tasks that send one request after the other until [`stop`](Self::stop).
pub(crate) struct Crowd {
    stopped: Arc<AtomicBool>,
    tasks: JoinSet<Outcome<Vec<Served>>>,
}

impl Crowd {
    /// The tasks take the kinds of `visits` in turns.
    pub(crate) fn start(site: &Site, visits: &[Visit]) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for visit in visits.iter().copied().cycle().take(AT_ONCE) {
            tasks.spawn(visit_until(Arc::clone(&stopped), site.clone(), visit));
        }
        Self { stopped, tasks }
    }

    pub(crate) async fn stop(mut self) -> Outcome<Vec<Served>> {
        self.stopped.store(true, Ordering::Relaxed);
        let mut served = Vec::new();
        while let Some(task) = self.tasks.join_next().await {
            served.extend(task??);
        }
        Ok(served)
    }
}

async fn visit_until(stopped: Arc<AtomicBool>, site: Site, visit: Visit) -> Outcome<Vec<Served>> {
    let mut served = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        let visitor = random(site.visitors);
        let from = Instant::now();
        site.visit(visit, visitor).await?;
        let to = Instant::now();
        served.push(Served { visit, from, to });
    }
    Ok(served)
}

/// A number below `count`, the same sequence in each run (SplitMix64).
fn random(count: u64) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = NEXT.fetch_add(STEP, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % count
}
