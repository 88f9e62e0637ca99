use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use bench_common::{Axis, Colour, Figure, Lines, Series, Summary, Table, cores, readable};

use crate::{
    effort::Effort,
    reap::{P99s, ReapSummary},
    rounds::AT_ONCE,
    site::Visit,
    steps::{Step, Time},
};

/// The responses to the three questions.
pub(crate) struct Report {
    pub(crate) rows: Vec<Step>,
    pub(crate) sizes: Vec<Step>,
    pub(crate) reaped: Vec<ReapSummary>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.rows.is_empty() {
            writeln!(f, "{}", table("rows", &self.rows, readable))?;
            writeln!(f, "{}", table("document", &self.sizes, bytes))?;
        }
        write!(f, "{}", table_of_reaper(&self.reaped))
    }
}

impl Report {
    /// Writes plots and ratios, and says what changed since the last run.
    pub(crate) fn publish(&self, effort: Effort) -> io::Result<()> {
        let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (plots, summary) = match effort {
            Effort::Smoke | Effort::Reap(_) => return Ok(()),
            Effort::Quick => {
                let folder = benches.join("target/growth");
                (folder.clone(), folder.join("growth.json"))
            }
            Effort::Full => (benches.join("../docs/plots"), benches.join("growth.json")),
        };
        self.draw(&plots)?;
        let (last, now) = (Summary::read(&summary)?, self.summary());
        println!("\n{}", now.against(&last));
        now.write(&summary)
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        note(&mut summary, "rows", &self.rows, readable);
        note(&mut summary, "size", &self.sizes, bytes);
        // A batch of the reaper is full from there on.
        let batch = self.reaped.iter().find(|reaped| reaped.expired == 1_000);
        let batch = batch.map_or(f64::NAN, |reaped| reaped.micros_per_row);
        for reaped in &self.reaped {
            let subject = format!("reaping {}", readable(reaped.expired as f64));
            for (visit, p99) in &reaped.during {
                let ratio = p99 / reaped.alone.get(visit).unwrap_or(&f64::NAN);
                let figure = format!("{} p99 to that without", visit.name());
                summary.set(&subject, figure, ratio);
            }
            let ratio = reaped.micros_per_row / batch;
            summary.set(&subject, "time of a row to that of 1k", ratio);
        }
        summary
    }

    fn draw(&self, folder: &Path) -> io::Result<()> {
        let file = |name: &str| -> PathBuf { folder.join(format!("growth-{name}.svg")) };
        let rows = Axis::log("rows").ticks(self.rows.iter().map(|step| step.at as f64));
        over(
            "How does the cost grow with the rows?",
            &self.rows,
            &rows,
            Axis::linear,
        )
        .note("Sessions of 100 bytes.")
        .write(file("rows"))?;
        let sizes = self.sizes.iter().map(|step| step.at as f64);
        let sizes = Axis::log("document").ticks(sizes).format(bytes);
        over(
            "How does the cost grow with the document?",
            &self.sizes,
            &sizes,
            Axis::log,
        )
        .note("Documents that do not compress; a save writes all of one.")
        .write(file("size"))?;
        figure_of_reaper(&self.reaped).write(file("reaper"))
    }
}

/// Each time to that of the first step.
fn note(summary: &mut Summary, axis: &str, steps: &[Step], unit: fn(f64) -> String) {
    let Some(first) = steps.first() else { return };
    for step in steps.iter().skip(1) {
        let subject = format!("{axis} {}", unit(step.at as f64));
        for (visit, time) in &step.times {
            let ratio = time.median / first.times[visit].median;
            let figure = format!("{} to that at {}", visit.name(), unit(first.at as f64));
            summary.set(&subject, figure, ratio);
        }
    }
}

fn table(axis: &str, steps: &[Step], unit: fn(f64) -> String) -> Table {
    let mut headings = vec![axis.to_owned()];
    for visit in Visit::ALL {
        headings.push(format!("{} ms", visit.name()));
        headings.push("p99 ms".into());
    }
    let mut table = Table::new(headings);
    for step in steps {
        let mut cells = vec![unit(step.at as f64)];
        for time in step.times.values() {
            cells.push(readable(time.median));
            cells.push(readable(time.p99));
        }
        table.row(cells);
    }
    table
}

fn table_of_reaper(steps: &[ReapSummary]) -> Table {
    let mut headings = vec!["expired".to_owned(), "a batch".into(), "us per row".into()];
    for visit in ["load", "save"] {
        headings.push(format!("{visit} p99 ms alone"));
        headings.push("reaping".into());
    }
    let mut table = Table::new(headings);
    for step in steps {
        let mut cells = vec![
            readable(step.expired as f64),
            readable(step.batch.into()),
            readable(step.micros_per_row),
        ];
        for visit in [Visit::Load, Visit::Save] {
            for p99s in [&step.alone, &step.during] {
                cells.push(p99s.get(&visit).copied().map_or("-".into(), readable));
            }
        }
        table.row(cells);
    }
    table
}

fn over(title: &str, steps: &[Step], x: &Axis, y: fn(&'static str) -> Axis) -> Figure {
    let panel = |title, part: fn(&Time) -> f64| {
        Visit::ALL.into_iter().fold(
            Lines::new(title, x.clone(), y("milliseconds of a request")),
            |lines, visit| {
                let points = steps
                    .iter()
                    .map(|step| (step.at as f64, part(&step.times[&visit])));
                lines.series(Series::new(visit.name(), points).colour(colour(visit)))
            },
        )
    };
    Figure::new(title)
        .note(set_up())
        .panel(panel("median", |time| time.median))
        .panel(panel("p99", |time| time.p99))
}

fn figure_of_reaper(steps: &[ReapSummary]) -> Figure {
    let axis = || Axis::log("expired rows").ticks(steps.iter().map(|step| step.expired as f64));
    let rows = steps
        .iter()
        .map(|step| (step.expired as f64, step.micros_per_row));
    let speed = Lines::new(
        "the reaper",
        axis(),
        Axis::log("microseconds of a deleted row"),
    )
    .series(Series::new("reaper", rows).colour(Colour::Purple));
    let mut p99 = Lines::new(
        "the others' p99",
        axis(),
        Axis::linear("milliseconds of a request"),
    );
    for visit in [Visit::Load, Visit::Save] {
        let line = |part: fn(&ReapSummary) -> &P99s| {
            let points = steps.iter();
            points.filter_map(move |step| Some((step.expired as f64, *part(step).get(&visit)?)))
        };
        let name = visit.name();
        p99 = p99
            .series(Series::new(name, line(|step| &step.during)).colour(colour(visit)))
            .series(
                Series::new(format!("{name}, no reaper"), line(|step| &step.alone))
                    .colour(colour(visit))
                    .dashed(),
            );
    }
    Figure::new("What does the reaper cost?")
        .note(set_up())
        .note("Half of them load, half of them save, while expired rows are deleted.")
        .panel(speed)
        .panel(p99)
}

fn set_up() -> String {
    format!(
        "{AT_ONCE} requests at a time in process; client and server on {} cores; \
         commits flush to disk. Lower is better.",
        cores()
    )
}

fn colour(visit: Visit) -> Colour {
    match visit {
        Visit::Load => Colour::Blue,
        Visit::Touch => Colour::Green,
        Visit::Save => Colour::Orange,
    }
}

fn bytes(size: f64) -> String {
    match size {
        size if size >= 1e6 => format!("{} MB", size / 1e6),
        size if size >= 1e3 => format!("{} kB", size / 1e3),
        size => format!("{size} B"),
    }
}
