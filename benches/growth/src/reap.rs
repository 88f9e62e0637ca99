use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use axum_pg_session::Reaper;
use bench_common::{Summary, Table, median, percentile, readable};
use sqlx::PgPool;

use crate::{
    Effort, Outcome,
    crowd::{Crowd, Served},
    site::{Life, Site, Visit},
};

const SIZE: u64 = 500;
/// Half of the concurrent requests read, half of them write.
const FOREGROUND: [Visit; 2] = [Visit::Load, Visit::Save];
const WARM_UP: Duration = Duration::from_millis(100);
/// The requests shortly before the reaper starts don't count as undisturbed.
const BEFORE_THE_REAPER: Duration = Duration::from_millis(50);

/// One run of the reaper.
struct Run {
    took: Duration,
    during: Vec<Served>,
    /// The requests of an equally long time before the run: the longer the time, the more slow
    /// requests, with or without a reaper.
    alone: Vec<Served>,
}

pub(crate) async fn measure(pool: &PgPool, effort: &Effort, summary: &mut Summary) -> Outcome<()> {
    let mut table = Table::new([
        "expired",
        "a batch",
        "us per row",
        "load p99 ms alone",
        "reaping",
        "save p99 ms alone",
        "reaping",
    ]);
    let site = Site::new(pool, "reaped".into(), effort.live, SIZE).await?;
    let mut micros = BTreeMap::new();
    for expired in &effort.expired {
        let mut runs: BTreeMap<u32, Vec<Run>> = BTreeMap::new();
        for _ in 0..effort.runs(*expired) {
            for batch in effort.batches {
                let run = run(&site, *expired, *batch, effort.alone).await?;
                runs.entry(*batch).or_default().push(run);
            }
        }
        let subject = readable(*expired as f64);
        for (batch, runs) in runs {
            let took = median(runs.iter().map(|run| run.took.as_secs_f64()));
            micros.insert(*expired, took * 1e6 / *expired as f64);
            let mut cells = vec![
                subject.clone(),
                readable(batch.into()),
                readable(micros[expired]),
            ];
            for visit in FOREGROUND {
                let alone = p99(visit, runs.iter().flat_map(|run| &run.alone));
                let during = p99(visit, runs.iter().flat_map(|run| &run.during));
                cells.extend([readable(alone), readable(during)]);
                let figure = format!("{} p99 to that without", visit.name());
                summary.set(format!("reaping {subject}"), figure, during / alone);
            }
            table.row(cells);
        }
        eprintln!("{subject} rows are deleted");
    }
    // From 1,000 rows on, the batches are full.
    for (expired, row) in &micros {
        let of_batch = micros.get(&1_000).copied().unwrap_or(f64::NAN);
        let subject = format!("reaping {}", readable(*expired as f64));
        summary.set(subject, "time of a row to that of 1k", row / of_batch);
    }
    site.check_saves().await?;
    println!("{table}");
    Ok(())
}

async fn run(site: &Site, expired: u64, batch: u32, alone: Duration) -> Outcome<Run> {
    site.insert(site.visitors, expired, SIZE, Life::Expired)
        .await?;
    let rows = NonZeroU32::new(batch).ok_or("a batch has no rows")?;
    let reaper = Reaper::new(site.store.clone()).batch_size(rows);
    let crowd = Crowd::start(site, &FOREGROUND);
    let started = Instant::now();
    tokio::time::sleep(alone).await;
    let from = Instant::now();
    let reaped = reaper.run_once().await?;
    let took = from.elapsed();
    let served = crowd.stop().await?;
    if reaped.deleted != expired {
        return Err(
            format!("{expired} rows were expired, but the reaper reports {reaped:?}").into(),
        );
    }
    let undisturbed = took.min(alone - WARM_UP - BEFORE_THE_REAPER);
    Ok(Run {
        took,
        during: in_flight(&served, from, took),
        alone: in_flight(&served, started + WARM_UP, undisturbed),
    })
}

/// The requests that were in flight at some point of this time.
fn in_flight(served: &[Served], from: Instant, length: Duration) -> Vec<Served> {
    let overlaps = |request: &&Served| request.from < from + length && request.to > from;
    served.iter().filter(overlaps).copied().collect()
}

/// In milliseconds.
fn p99<'a>(visit: Visit, served: impl Iterator<Item = &'a Served>) -> f64 {
    let of_visit = served.filter(|request| request.visit == visit);
    percentile(of_visit.map(Served::millis), 0.99)
}
