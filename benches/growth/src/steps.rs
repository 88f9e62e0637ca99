use std::collections::BTreeMap;

use bench_common::{median, percentile};
use sqlx::PgPool;

use crate::{
    Outcome,
    effort::Effort,
    rounds::round,
    site::{Site, Visit},
};

/// How many visitors have a document of each size: enough that two who are
/// there at once seldom share one.
const OF_EACH_SIZE: u64 = 128;
const SMALL: u64 = 100;

/// What a visit took at a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    /// Milliseconds, the median of the rounds' medians.
    pub(crate) median: f64,
    /// Milliseconds, of all requests.
    pub(crate) p99: f64,
}

/// One place on the axis along which the cost grows.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) at: u64,
    pub(crate) times: BTreeMap<Visit, Time>,
}

pub(crate) async fn over_rows(pool: &PgPool, effort: Effort) -> Outcome<Vec<Step>> {
    let mut sites = Vec::new();
    for rows in effort.rows() {
        let table = format!("rows_{rows}");
        sites.push((*rows, Site::new(pool, table, *rows, SMALL).await?));
    }
    in_turns(&sites, effort).await
}

pub(crate) async fn over_sizes(pool: &PgPool, effort: Effort) -> Outcome<Vec<Step>> {
    let mut sites = Vec::new();
    for size in effort.sizes() {
        let table = format!("size_{size}");
        sites.push((*size, Site::new(pool, table, OF_EACH_SIZE, *size).await?));
    }
    in_turns(&sites, effort).await
}

async fn in_turns(sites: &[(u64, Site)], effort: Effort) -> Outcome<Vec<Step>> {
    let mut samples: BTreeMap<(u64, Visit), Vec<Vec<f64>>> = BTreeMap::new();
    for number in 0..=effort.rounds() {
        for visit in Visit::ALL {
            for (at, site) in sites {
                let millis = round(site, visit, effort.round()).await?;
                // The first one is for plans, caches and connections.
                if number > 0 {
                    samples.entry((*at, visit)).or_default().push(millis);
                }
            }
        }
    }
    for (_, site) in sites {
        site.check_saves().await?;
        if site.touched().await? == 0 {
            return Err(format!("{}: no touch was due", site.table).into());
        }
    }
    Ok(sites.iter().map(|(at, _)| step(*at, &samples)).collect())
}

fn step(at: u64, samples: &BTreeMap<(u64, Visit), Vec<Vec<f64>>>) -> Step {
    let time = |visit| {
        let rounds = &samples[&(at, visit)];
        let medians = rounds.iter().map(|round| median(&mut round.clone()));
        Time {
            median: median(&mut medians.collect::<Vec<_>>()),
            p99: percentile(&mut rounds.concat(), 0.99),
        }
    };
    let times = Visit::ALL.map(|visit| (visit, time(visit)));
    Step {
        at,
        times: times.into(),
    }
}
