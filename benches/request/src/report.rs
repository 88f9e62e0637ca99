use std::{io, path::Path};

use bench_common::{Bars, Colour, Figure, Summary, Table, readable};

use crate::cost::Cost;

const SUMMARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../request.json");
const PLOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plots/request.svg");

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) beside: Option<&'static str>,
    pub(crate) asks_database: bool,
    pub(crate) cost: Cost,
}

pub(crate) struct Rows(pub(crate) Vec<Row>);

impl Rows {
    /// The cost that is not ours, where a row has one.
    fn beside(&self, row: &Row) -> Option<&Cost> {
        let name = row.beside?;
        let found = self.0.iter().find(|other| other.name == name);
        found.map(|other| &other.cost)
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new([
            "request",
            "us",
            "us of CPU",
            "allocations",
            "bytes",
            "beside",
            "us",
            "us of CPU",
            "allocations",
            "bytes",
        ]);
        for row in &self.0 {
            let mut cells = vec![row.name.to_owned()];
            cells.extend(cells_of(&row.cost));
            if let (Some(name), Some(other)) = (row.beside, self.beside(row)) {
                cells.push(name.to_owned());
                cells.extend(cells_of(&more(&row.cost, other)).map(signed));
            }
            table.row(cells);
        }
        table
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for row in &self.0 {
            summary.set(row.name, "allocations", row.cost.allocations.round());
            summary.set(row.name, "bytes", row.cost.bytes.round());
            if let (Some(name), Some(other)) = (row.beside, self.beside(row)) {
                let ratio = row.cost.cpu_micros / other.cpu_micros;
                summary.set(row.name, format!("CPU to that of {name}"), ratio);
            }
        }
        summary
    }

    fn figure(&self) -> Figure {
        let bars = |title, part: fn(&Cost) -> f64, rows: fn(&&Row) -> bool| {
            let rows = self.0.iter().filter(rows);
            rows.fold(Bars::new(title), |bars, row| {
                let colour = match row.beside {
                    Some(_) => Colour::Blue,
                    None => Colour::Grey,
                };
                bars.bar(row.name, part(&row.cost), colour)
            })
        };
        let cpu = |cost: &Cost| cost.cpu_micros;
        Figure::new("What does the layer cost in process?")
            .note(
                "Grey: what there is without it, by hand or by axum. \
                 One request at a time where nothing else is said; lower is better.",
            )
            .panel(bars("allocations", |cost| cost.allocations, |_| true))
            .panel(bars("kB allocated", |cost| cost.bytes / 1e3, |_| true))
            .panel(bars("us of CPU, no database", cpu, |row| {
                !row.asks_database
            }))
            .panel(bars("us of CPU, the database's apart", cpu, |row| {
                row.asks_database
            }))
    }

    /// Says what changed since the last run, and writes the tracked files.
    pub(crate) fn publish(&self) -> io::Result<()> {
        let (last, now) = (Summary::read(SUMMARY)?, self.summary());
        println!("{}", now.against(&last));
        now.write(SUMMARY)?;
        self.figure().write(Path::new(PLOT))
    }
}

fn more(cost: &Cost, other: &Cost) -> Cost {
    Cost {
        micros: cost.micros - other.micros,
        cpu_micros: cost.cpu_micros - other.cpu_micros,
        allocations: cost.allocations - other.allocations,
        bytes: cost.bytes - other.bytes,
    }
}

fn cells_of(cost: &Cost) -> [String; 4] {
    [
        readable(cost.micros),
        readable(cost.cpu_micros),
        format!("{:.1}", cost.allocations),
        format!("{:.0}", cost.bytes),
    ]
}

fn signed(cell: String) -> String {
    match cell.starts_with('-') {
        true => cell,
        false => format!("+{cell}"),
    }
}
