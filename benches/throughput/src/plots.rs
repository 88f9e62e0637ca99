//! The plots that the README shows.

use std::io;

use bench_common::{Axis, Colour, Figure, Lines, Series};

use crate::{plan::Route, results::Results, summary::plots};

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
    style(
        "ours",
        "this crate, Postgres: durable",
        Colour::Blue,
        Line::Strong,
    ),
    style(
        "tower-sessions",
        "tower-sessions, Postgres: durable",
        Colour::Orange,
        Line::Solid,
    ),
    style(
        "redis-durable",
        "Redis, appendfsync always: durable",
        Colour::Red,
        Line::Solid,
    ),
    style(
        "redis",
        "Redis, no persistence: not durable",
        Colour::Red,
        Line::Dashed,
    ),
];

const fn style(candidate: &'static str, name: &'static str, colour: Colour, line: Line) -> Style {
    Style {
        candidate,
        name,
        colour,
        line,
    }
}

const RATIO: &str = "requests/s, tower-sessions on Postgres = 1";

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
    let panel = |route: Route, title: &str| panel(results, 0, route, title, &HEADLINE);
    Figure::new("Sessions in Postgres against sessions in Redis")
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
    let delays = results.commit_delays();
    delays.into_iter().fold(figure, |figure, delay| {
        let title = match delay {
            0 => "commits as fast as the disk".to_owned(),
            delay => format!("each flush of commits waits {delay} µs more"),
        };
        figure.panel(panel(results, delay, route, &title, &STYLES))
    })
}

fn note(results: &Results) -> String {
    let set_up = &results.set_up;
    format!(
        "{} cores for load, server and database; PostgreSQL {}, fsync {}; medians of {} rounds",
        set_up.cores, set_up.postgres, set_up.fsync, set_up.rounds
    )
}

fn panel(results: &Results, delay: u32, route: Route, title: &str, styles: &[Style]) -> Lines {
    let ticks = results.connections();
    let x = Axis::log("connections, each with one request under way")
        .ticks(ticks.iter().map(|connections| *connections as f64));
    let lines = Lines::new(title, x, Axis::linear(RATIO));
    styles.iter().fold(lines, |lines, style| {
        let points: Vec<_> = results
            .line(delay, route, style.candidate)
            .into_iter()
            .filter_map(|one| Some((one.connections as f64, results.ratio(one)?)))
            .collect();
        match points.is_empty() {
            true => lines,
            false => lines.series(series(style, points)),
        }
    })
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
