//! The figures that must not grow: memory of the servers, connections, rows.

use std::{fmt, fs};

use sqlx::PgPool;

use super::blows::SPARED;
use crate::copies::Copies;

/// How much more than in the first third the last one may show, and how many
/// units beside that, so that small figures have room.
const GROWTH: f64 = 1.1;

/// Taken at the end of a round, when nothing is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// MiB that are resident, of the servers that are never killed.
    memory: f64,
    connections: f64,
    rows: f64,
    /// MiB of the table and its indexes, with what a vacuum has not taken yet.
    table: f64,
}

/// One figure over all rounds.
struct Course {
    name: &'static str,
    /// How much it may grow beside the tenth.
    slack: f64,
    values: Vec<f64>,
}

#[derive(Default)]
pub(super) struct Figures(Vec<Sample>);

impl Sample {
    pub(super) async fn take(pool: &PgPool, copies: &Copies, rows: usize) -> Self {
        let (connections, table) = ask(pool).await;
        let mut memory = 0.0;
        for index in 0..SPARED {
            let process = copies.process(index).await.expect("it is never killed");
            memory += resident(process);
        }
        Self {
            memory,
            connections,
            rows: rows as f64,
            table,
        }
    }
}

async fn ask(pool: &PgPool) -> (f64, f64) {
    let sql = "
        SELECT count(*)::float8, pg_total_relation_size('session')::float8 / 1048576
        FROM pg_stat_activity
        WHERE datname = current_database() AND application_name <> 'checker'";
    sqlx::query_as(sql).fetch_one(pool).await.expect("figures")
}

/// In MiB; 0 if the system does not report it.
fn resident(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes.map_or(0.0, |number| {
        number.parse::<f64>().expect("a number") / 1024.0
    })
}

impl Course {
    /// Medians of the first and of the last third.
    fn thirds(&self) -> (f64, f64) {
        let third = self.values.len().div_ceil(3);
        let first = median(&self.values[..third]);
        (first, median(&self.values[self.values.len() - third..]))
    }

    fn has_grown(&self) -> bool {
        let (first, last) = self.thirds();
        last > first * GROWTH + self.slack
    }

    fn most(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Figures {
    pub(super) fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    fn courses(&self) -> [Course; 4] {
        let course = |name, slack, part: fn(&Sample) -> f64| Course {
            name,
            slack,
            values: self.0.iter().map(part).collect(),
        };
        [
            course("MiB of two servers", 4.0, |sample| sample.memory),
            course("connections", 4.0, |sample| sample.connections),
            course("rows", 100.0, |sample| sample.rows),
            course("MiB of the table", 4.0, |sample| sample.table),
        ]
    }

    /// What is not flat.
    pub(super) fn grown(&self) -> Vec<&'static str> {
        let courses = self.courses();
        let grown = courses.iter().filter(|course| course.has_grown());
        grown.map(|course| course.name).collect()
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} MiB, {} connections, {} rows, table {:.1} MiB",
            self.memory, self.connections, self.rows, self.table
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for course in self.courses() {
            let ((first, last), most) = (course.thirds(), course.most());
            writeln!(
                f,
                "{:20} first third {first:.1}, last third {last:.1}, most {most:.1}",
                course.name
            )?;
        }
        Ok(())
    }
}

#[test]
fn a_figure_that_grows_is_reported_and_one_that_wavers_is_not() {
    let sample = |memory: f64, rows: f64| Sample {
        memory,
        connections: 8.0,
        rows,
        table: 1.0,
    };
    let mut figures = Figures::default();
    for round in 0..30 {
        let round = f64::from(round);
        figures.add(sample(20.0 + round / 2.0, 1_000.0 + 90.0 * (round % 2.0)));
    }
    assert_eq!(figures.grown(), ["MiB of two servers"]);
}
