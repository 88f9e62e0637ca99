use std::collections::BTreeMap;

use bench_common::{Summary, Table, median, percentile, readable};
use sqlx::PgPool;

use crate::{
    Effort, Outcome,
    crowd::{Crowd, Served},
    site::{Site, Visit},
};

/// The number of visitors for each size: enough that concurrent requests rarely share one.
const OF_EACH_SIZE: u64 = 128;
const SMALL: u64 = 100;

pub(crate) async fn rows(pool: &PgPool, effort: &Effort, summary: &mut Summary) -> Outcome<()> {
    let mut sites = Vec::new();
    for rows in effort.rows {
        let site = Site::new(pool, format!("rows_{rows}"), *rows, SMALL).await?;
        sites.push((readable(*rows as f64), site));
    }
    measure("rows", &sites, effort, summary).await
}

pub(crate) async fn sizes(pool: &PgPool, effort: &Effort, summary: &mut Summary) -> Outcome<()> {
    let mut sites = Vec::new();
    for size in effort.sizes {
        let site = Site::new(pool, format!("size_{size}"), OF_EACH_SIZE, *size).await?;
        sites.push((bytes(*size), site));
    }
    measure("size", &sites, effort, summary).await
}

/// Prints the times of each site, and adds the ratios to the first one.
async fn measure(
    axis: &str,
    sites: &[(String, Site)],
    effort: &Effort,
    summary: &mut Summary,
) -> Outcome<()> {
    let Some((first, _)) = sites.first() else {
        return Ok(());
    };
    let mut rounds: BTreeMap<(Visit, &str), Vec<Vec<f64>>> = BTreeMap::new();
    // The first round fills caches and opens connections.
    for number in 0..=effort.rounds {
        for visit in Visit::ALL {
            for (at, site) in sites {
                let crowd = Crowd::start(site, &[visit]);
                tokio::time::sleep(effort.round).await;
                let millis = crowd.stop().await?.iter().map(Served::millis).collect();
                if number > 0 {
                    rounds.entry((visit, at)).or_default().push(millis);
                }
            }
        }
    }
    let headings = Visit::ALL.map(|visit| [format!("{} ms", visit.name()), "p99 ms".to_owned()]);
    let mut table = Table::new([axis.to_owned()].into_iter().chain(headings.concat()));
    let time = |visit, at| {
        let rounds: &Vec<Vec<f64>> = &rounds[&(visit, at)];
        median(rounds.iter().map(|round| median(round.iter().copied())))
    };
    for (at, site) in sites {
        site.check_saves().await?;
        site.check_touches().await?;
        let mut cells = vec![at.clone()];
        for visit in Visit::ALL {
            let p99 = percentile(rounds[&(visit, at.as_str())].concat(), 0.99);
            cells.extend([readable(time(visit, at)), readable(p99)]);
            if at != first {
                let figure = format!("{} to that at {first}", visit.name());
                summary.set(
                    format!("{axis} {at}"),
                    figure,
                    time(visit, at) / time(visit, first),
                );
            }
        }
        table.row(cells);
    }
    println!("{table}");
    Ok(())
}

fn bytes(size: u64) -> String {
    match size {
        1_000_000.. => format!("{} MB", size / 1_000_000),
        1_000.. => format!("{} kB", size / 1_000),
        _ => format!("{size} B"),
    }
}
