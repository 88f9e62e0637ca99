use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Outcome,
    site::{Site, Visit},
};

/// How many requests are in flight at a moment.
pub(crate) const AT_ONCE: usize = 8;

/// A request that got the right response.
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

/// Visitors who come until they are sent home.
pub(crate) struct Crowd {
    open: Arc<AtomicBool>,
    visitors: JoinSet<Outcome<Vec<Served>>>,
}

impl Crowd {
    /// The nth of those who are there at once asks for the nth of `visits`.
    pub(crate) fn enter(site: &Site, visits: &[Visit]) -> Self {
        let open = Arc::new(AtomicBool::new(true));
        let mut visitors = JoinSet::new();
        for visit in visits.iter().copied().cycle().take(AT_ONCE) {
            visitors.spawn(come_again(site.clone(), visit, Arc::clone(&open)));
        }
        Self { open, visitors }
    }

    pub(crate) async fn leave(mut self) -> Outcome<Vec<Served>> {
        self.open.store(false, Ordering::Relaxed);
        let mut served = Vec::new();
        while let Some(visitor) = self.visitors.join_next().await {
            served.extend(visitor??);
        }
        Ok(served)
    }
}

async fn come_again(site: Site, visit: Visit, open: Arc<AtomicBool>) -> Outcome<Vec<Served>> {
    let mut served = Vec::new();
    while open.load(Ordering::Relaxed) {
        let visitor = somebody(site.visitors);
        let from = Instant::now();
        site.visit(visit, visitor).await?;
        let to = Instant::now();
        served.push(Served { visit, from, to });
    }
    Ok(served)
}

/// A round of one kind of visits.
pub(crate) async fn round(site: &Site, visit: Visit, length: Duration) -> Outcome<Vec<f64>> {
    let crowd = Crowd::enter(site, &[visit]);
    tokio::time::sleep(length).await;
    let served = crowd.leave().await?;
    Ok(served.iter().map(Served::millis).collect())
}

/// One of `count`, each as likely; the same ones in each run (SplitMix64).
fn somebody(count: u64) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = NEXT.fetch_add(STEP, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % count
}
