//! The plots that the README shows.

use std::io;

use bench_common::{Axis, Colour, Figure, Lines, Series};

use crate::{candidates::REFERENCE, plan::Route, results::Results, summary::plots};

/// How a candidate is drawn, the same in every plot.
struct Style {
    candidate: &'static str,
    name: &'static str,
    colour: Colour,
    line: Line,
}

#[derive(Clone, Copy)]
enum Line {
    Strong,
    Solid,
    Dashed,
}

const STYLES: [Style; 8] = [
    style("ours", "this crate", Colour::Blue, Line::Strong),
    style(
        "tower-sessions",
        "tower-sessions",
        Colour::Orange,
        Line::Solid,
    ),
    style("bare", "by hand", Colour::Green, Line::Solid),
    style("memory", "no database", Colour::Grey, Line::Dashed),
    style(
        "axum-session",
        "axum_session, cached",
        Colour::Purple,
        Line::Dashed,
    ),
    style(
        "axum-session-uncached",
        "axum_session, uncached",
        Colour::Purple,
        Line::Solid,
    ),
    style("redis", "Redis, not kept", Colour::Red, Line::Dashed),
    style("redis-durable", "Redis, durable", Colour::Red, Line::Solid),
];

/// Sessions in Postgres and in Redis, and which of them outlive a power cut.
const HEADLINE: [Style; 4] = [
    style("ours", "this crate: durable", Colour::Blue, Line::Strong),
    style(
        "tower-sessions",
        "tower-sessions: durable",
        Colour::Orange,
        Line::Solid,
    ),
    style("redis-durable", "Redis: durable", Colour::Red, Line::Solid),
    style("redis", "Redis: not durable", Colour::Red, Line::Dashed),
];

const fn style(candidate: &'static str, name: &'static str, colour: Colour, line: Line) -> Style {
    Style {
        candidate,
        name,
        colour,
        line,
    }
}

/// One panel, still without its lines.
struct View<'a> {
    results: &'a Results,
    commit_delay: u32,
    route: Route,
    /// Whose requests per second are 1, and its name.
    one: (&'static str, &'static str),
}

const TOWER_SESSIONS: (&str, &str) = (REFERENCE, "tower-sessions on Postgres");
const BARE: (&str, &str) = ("bare", "axum without a session");

/// Writes all that the results are enough for.
pub(crate) fn write(results: &Results) -> io::Result<()> {
    if results.candidates().contains(&"redis") {
        headline(results).write(plots().join("redis.svg"))?;
    }
    for route in results.routes() {
        of_route(results, route).write(plots().join(format!("{}.svg", route.name())))?;
    }
    Ok(())
}

fn headline(results: &Results) -> Figure {
    let panel = |route: Route, title: &str| {
        let view = View {
            results,
            commit_delay: 0,
            route,
            one: TOWER_SESSIONS,
        };
        view.panel(title, &HEADLINE)
    };
    Figure::new("Sessions in Postgres against sessions in Redis")
        .note("durable: an acknowledged write outlives a power cut (fsync on; appendfsync always)")
        .note(note(results))
        .panel(panel(Route::Read, "read"))
        .panel(panel(Route::Incr, "read and write"))
}

fn of_route(results: &Results, route: Route) -> Figure {
    let title = match route {
        Route::Plain => "A request that does not use its session",
        Route::Read => "A request that reads its session",
        Route::Incr => "A request that reads and writes its session",
        Route::New | Route::Seed => "A request that begins a session",
    };
    let figure = Figure::new(title).note(note(results));
    let delays = results.commit_delays(route);
    delays.into_iter().fold(figure, |figure, commit_delay| {
        let title = match commit_delay {
            0 => "commits as fast as the disk".to_owned(),
            delay => format!("each flush of commits waits {delay} µs more"),
        };
        let one = match route {
            Route::Plain => BARE,
            _ => TOWER_SESSIONS,
        };
        let view = View {
            results,
            commit_delay,
            route,
            one,
        };
        figure.panel(view.panel(&title, &STYLES))
    })
}

fn note(results: &Results) -> String {
    let set_up = &results.set_up;
    format!(
        "{} cores for load, server and database; PostgreSQL {}, fsync={}; medians of {} rounds",
        set_up.cores,
        set_up.postgres_version(),
        set_up.fsync,
        set_up.rounds
    )
}

impl View<'_> {
    fn panel(&self, title: &str, styles: &[Style]) -> Lines {
        let ticks = self.results.connections();
        let ticks = ticks.iter().map(|connections| *connections as f64);
        let x = Axis::log("connections").ticks(ticks);
        let y = Axis::linear(format!("requests/s, {} = 1", self.one.1));
        styles.iter().fold(Lines::new(title, x, y), |lines, style| {
            let points = self.points(style.candidate);
            match points.is_empty() {
                true => lines,
                false => lines.series(series(style, points)),
            }
        })
    }

    /// A map in the process writes so fast that beside it no difference
    /// between the others could be seen, and its plain route is axum's.
    fn points(&self, candidate: &str) -> Vec<(f64, f64)> {
        if candidate == "memory" && self.route != Route::Read {
            return Vec::new();
        }
        let line = self.results.line(self.commit_delay, self.route, candidate);
        let points = line.into_iter().filter_map(|one| {
            let ratio = self.results.ratio_to(one, self.one.0)?;
            Some((one.connections as f64, ratio))
        });
        points.collect()
    }
}

fn series(style: &Style, mut points: Vec<(f64, f64)>) -> Series {
    points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let series = Series::new(style.name, points).colour(style.colour);
    match style.line {
        Line::Strong => series.strong(),
        Line::Solid => series,
        Line::Dashed => series.dashed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{SetUp, tests::measured};

    #[test]
    fn a_plot_names_its_lines_and_leaves_out_what_was_not_measured() {
        let measured = [("ours", 3.0), ("tower-sessions", 1.0)]
            .map(|(candidate, rate)| measured(candidate, 64, rate));
        let results = Results::new(SetUp::default(), measured.to_vec());
        let svg = of_route(&results, Route::Read)
            .to_svg()
            .expect("it is drawn");
        assert!(svg.contains("this crate"));
        assert!(!svg.contains("axum_session"));
    }
}
