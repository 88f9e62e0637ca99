use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use axum_pg_session::Reaper;
use bench_common::{median, percentile};
use sqlx::PgPool;

use crate::{
    Outcome,
    effort::{Alone, Effort},
    rounds::{Served, Crowd},
    seed::{Life, Rows, insert, vacuum},
    site::{Site, Visit},
};

const SIZE: u64 = 500;
/// Half of those who are there at once read, half of them write.
const FOREGROUND: [Visit; 2] = [Visit::Load, Visit::Save];
/// What goes by before anything counts.
const WARM_UP: Duration = Duration::from_millis(100);

/// What it took to delete so many rows.
#[derive(Clone, Debug)]
pub(crate) struct ReapSummary {
    pub(crate) expired: u64,
    /// Rows of one transaction.
    pub(crate) batch: u32,
    /// The median of some runs, its pauses included.
    pub(crate) micros_per_row: f64,
    /// Of the requests that met the reaper.
    pub(crate) during: P99s,
    /// Of those that met a moment of the same length just before: long ones
    /// meet a short moment more often, with or without a reaper.
    pub(crate) alone: P99s,
}

/// Milliseconds.
pub(crate) type P99s = BTreeMap<Visit, f64>;

struct Run {
    took: Duration,
    alone: Vec<Served>,
    during: Vec<Served>,
}

pub(crate) async fn over_expired(pool: &PgPool, effort: Effort) -> Outcome<Vec<ReapSummary>> {
    let site = Site::new(pool, "reaped".into(), effort.living(), SIZE).await?;
    let mut steps = Vec::new();
    for expired in effort.expired() {
        let mut runs: BTreeMap<u32, Vec<Run>> = BTreeMap::new();
        for _ in 0..effort.reaps(expired) {
            for batch in effort.batches() {
                let run = run(&site, expired, *batch, effort.alone()).await?;
                runs.entry(*batch).or_default().push(run);
            }
        }
        eprintln!("{expired} rows are reaped");
        let of_batches = runs.iter().map(|(batch, runs)| step(expired, *batch, runs));
        steps.extend(of_batches);
    }
    site.check_saves().await?;
    Ok(steps)
}

async fn run(site: &Site, expired: u64, batch: u32, alone: Alone) -> Outcome<Run> {
    let rows = Rows {
        first: site.visitors,
        count: expired,
        size: SIZE,
        life: Life::Expired,
    };
    insert(&site.pool, &site.table, rows).await?;
    vacuum(&site.pool, &site.table).await?;
    let crowd = Crowd::enter(site, &FOREGROUND);
    let entered = Instant::now();
    tokio::time::sleep(alone.length).await;
    let from = Instant::now();
    let rows = NonZeroU32::new(batch).ok_or("a batch of no rows")?;
    let reaper = Reaper::new(site.store.clone()).batch_size(rows);
    let reaped = reaper.run_once().await?;
    let took = from.elapsed();
    let served = crowd.leave().await?;
    if reaped.deleted != expired {
        return Err(format!("{expired} rows were expired: {reaped:?}").into());
    }
    Ok(Run {
        took,
        alone: met(&served, entered + WARM_UP, took.min(alone.watched)),
        during: met(&served, from, took),
    })
}

fn met(served: &[Served], from: Instant, length: Duration) -> Vec<Served> {
    let meets = |response: &&Served| response.from < from + length && response.to > from;
    served.iter().filter(meets).copied().collect()
}

fn step(expired: u64, batch: u32, runs: &[Run]) -> ReapSummary {
    let micros = |run: &Run| run.took.as_secs_f64() * 1e6 / expired as f64;
    ReapSummary {
        expired,
        batch,
        micros_per_row: median(&mut runs.iter().map(micros).collect::<Vec<_>>()),
        during: p99s(runs.iter().flat_map(|run| &run.during)),
        alone: p99s(runs.iter().flat_map(|run| &run.alone)),
    }
}

fn p99s<'a>(served: impl Iterator<Item = &'a Served>) -> P99s {
    let mut millis: BTreeMap<Visit, Vec<f64>> = BTreeMap::new();
    for response in served {
        millis
            .entry(response.visit)
            .or_default()
            .push(response.millis());
    }
    millis
        .into_iter()
        .map(|(visit, mut millis)| (visit, percentile(&mut millis, 0.99)))
        .collect()
}
