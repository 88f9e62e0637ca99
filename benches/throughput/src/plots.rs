//! The plots of the documentation, from the tracked ratios.

use std::{error::Error, fs, io, path::Path};

use plotters::prelude::*;

use crate::{
    load::Route,
    summary::{Summary, commits},
};

// Colors that can be told apart with any color vision, after Okabe and Ito.
const BLUE: RGBColor = RGBColor(0, 98, 168);
const ORANGE: RGBColor = RGBColor(213, 120, 0);
const GREEN: RGBColor = RGBColor(0, 138, 100);
const PURPLE: RGBColor = RGBColor(176, 92, 142);
const RED: RGBColor = RGBColor(196, 60, 30);
const SKY: RGBColor = RGBColor(60, 160, 215);
const GRAY: RGBColor = RGBColor(110, 110, 110);

const PANEL: (u32, u32) = (620, 440);
const HEAD: u32 = 84;
/// Right of a plot, for the names of its lines.
const NAMES: u32 = 190;
const NAME_HEIGHT: i32 = 19;

#[derive(Clone, Copy, PartialEq)]
enum Stroke {
    Bold,
    Solid,
    Dashed,
}

/// A candidate, its name in the plot, and how its line is drawn.
type Line = (&'static str, &'static str, RGBColor, Stroke);

const ALL: [Line; 9] = [
    ("ours", "this crate", BLUE, Stroke::Bold),
    ("tower-sessions", "tower-sessions", ORANGE, Stroke::Solid),
    (
        "tower-sessions-ours",
        "tower-sessions, our store",
        SKY,
        Stroke::Solid,
    ),
    ("bare", "handwritten SQL", GREEN, Stroke::Solid),
    ("memory", "no database", GRAY, Stroke::Dashed),
    (
        "axum-session",
        "axum_session, cached",
        PURPLE,
        Stroke::Dashed,
    ),
    (
        "axum-session-uncached",
        "axum_session, uncached",
        PURPLE,
        Stroke::Solid,
    ),
    ("redis", "Redis, not durable", RED, Stroke::Dashed),
    ("redis-durable", "Redis, durable", RED, Stroke::Solid),
];

const DURABILITY: [Line; 4] = [
    ("ours", "this crate: durable", BLUE, Stroke::Bold),
    (
        "tower-sessions",
        "tower-sessions: durable",
        ORANGE,
        Stroke::Solid,
    ),
    ("redis-durable", "Redis: durable", RED, Stroke::Solid),
    ("redis", "Redis: not durable", RED, Stroke::Dashed),
];

struct Panel {
    title: String,
    route: Route,
    commit_delay: u32,
    lines: &'static [Line],
}

pub(crate) fn write(summary: &Summary, folder: &Path) -> io::Result<()> {
    let panel = |title: &str, route, commit_delay, lines| Panel {
        title: title.to_owned(),
        route,
        commit_delay,
        lines,
    };
    let figures = [
        (
            "redis.svg",
            "Sessions in Postgres and in Redis",
            "durable: an acknowledged write survives a power failure (fsync on; appendfsync always)",
            vec![
                panel("read", Route::Read, 0, DURABILITY.as_slice()),
                panel("read and write", Route::Incr, 0, &DURABILITY),
            ],
        ),
        (
            "read.svg",
            "Requests that read their session",
            "no database: a map in the process, the upper bound",
            vec![panel("", Route::Read, 0, &ALL)],
        ),
        (
            "incr.svg",
            "Requests that read and write their session",
            "durable: an acknowledged write survives a power failure (fsync on; appendfsync always)",
            vec![
                panel(&commits(0), Route::Incr, 0, &ALL),
                panel(&commits(3000), Route::Incr, 3000, &ALL),
            ],
        ),
    ];
    fs::create_dir_all(folder)?;
    for (file, title, note, panels) in figures {
        draw(summary, &folder.join(file), [title, note], &panels).map_err(io::Error::other)?;
    }
    Ok(())
}

fn draw(
    summary: &Summary,
    file: &Path,
    [title, note]: [&str; 2],
    panels: &[Panel],
) -> Result<(), Box<dyn Error + Send + Sync>> {
    // A single panel is wider.
    let width = PANEL.0 * u32::try_from(panels.len())? + if panels.len() == 1 { 280 } else { 0 };
    let root = SVGBackend::new(file, (width, HEAD + PANEL.1)).into_drawing_area();
    root.fill(&WHITE)?;
    let set_up = summary.set_up();
    let measured = format!(
        "requests per second, tower-sessions on Postgres = 1; {} cores for load, server and database; PostgreSQL {}",
        set_up.cores,
        set_up.postgres_version()
    );
    for (at, (text, size)) in [(title, 25), (note, 17), (&measured, 17)]
        .into_iter()
        .enumerate()
    {
        let style = match at {
            0 => FontStyle::Bold,
            _ => FontStyle::Normal,
        };
        let font = ("sans-serif", size).into_font().style(style);
        let y = [12, 44, 65][at];
        root.draw(&Text::new(text, (24, y), font.color(&RGBColor(40, 40, 40))))?;
    }
    let (_, below) = root.split_vertically(HEAD);
    let areas = below.split_evenly((1, panels.len()));
    for (panel, area) in panels.iter().zip(areas) {
        panel.draw(summary, &root, &area)?;
    }
    Ok(root.present()?)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Panel {
    fn draw(
        &self,
        summary: &Summary,
        root: &Area<'_>,
        area: &Area<'_>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        // The axis is logarithmic: 1, 2, 4 … connections have the same distance.
        let x_of = |connections: usize| (connections as f64).log2();
        // A map in the process writes so fast that the plot would show no other difference.
        let is_shown = |line: &&Line| self.route == Route::Read || line.0 != "memory";
        let lines = self.lines.iter().filter(is_shown).map(|line| {
            let points = summary.requests_of(self.route, self.commit_delay, line.0);
            let points = points.into_iter().map(|(at, ratio)| (x_of(at), ratio));
            (line, points.collect::<Vec<_>>())
        });
        let lines: Vec<_> = lines.filter(|(_, points)| !points.is_empty()).collect();
        let points = lines.iter().flat_map(|(_, points)| points);
        let top = points.map(|(_, ratio)| *ratio).fold(1.0, f64::max);
        let last = x_of(summary.connections().last().copied().unwrap_or(2));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(16)
            .margin_right(NAMES)
            .set_label_area_size(LabelAreaPosition::Left, 36)
            .set_label_area_size(LabelAreaPosition::Bottom, 48)
            .build_cartesian_2d(0.0..last, 0.0..top * 1.05)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(228, 228, 228))
            .label_style(("sans-serif", 16))
            .x_labels(last as usize + 1)
            .x_label_formatter(&|x| x.exp2().to_string())
            .y_label_formatter(&|y| y.to_string())
            .x_desc("connections")
            .draw()?;
        let mut ends = Vec::new();
        // Reversed, so that the first line is on top.
        for ((_, name, color, stroke), points) in lines.iter().rev() {
            let width = if *stroke == Stroke::Bold { 4 } else { 2 };
            let style = color.stroke_width(width);
            let through = points.iter().copied();
            match stroke {
                Stroke::Dashed => chart.draw_series(DashedLineSeries::new(through, 7, 5, style))?,
                _ => chart.draw_series(LineSeries::new(through, style))?,
            };
            let dots = points
                .iter()
                .map(|at| Circle::new(*at, width + 1, color.filled()));
            chart.draw_series(dots)?;
            let end = points.last().map(|at| chart.backend_coord(at));
            ends.extend(end.map(|(x, y)| (x, y, *name, color)));
        }
        // Names that would overlap move down, and up again from the lower edge.
        ends.sort_by_key(|(_, y, ..)| *y);
        let mut least = 0;
        for (_, y, ..) in &mut ends {
            *y = (*y).max(least);
            least = *y + NAME_HEIGHT;
        }
        let (_, mut most) = chart.backend_coord(&(last, 0.0));
        for (x, y, name, color) in ends.into_iter().rev() {
            let y = y.min(most);
            most = y - NAME_HEIGHT;
            let font = ("sans-serif", 17).into_font().color(color);
            root.draw(&Text::new(name, (x + 10, y - NAME_HEIGHT / 2), font))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plots_name_what_was_recorded() {
        let folder = tempfile::tempdir().expect("a folder");
        let summary = Summary::read().expect("a recorded run");
        write(&summary, folder.path()).expect("plots");
        let read = fs::read_to_string(folder.path().join("read.svg")).expect("a plot");
        assert!(read.contains("this crate") && read.contains("no database"));
        let incr = fs::read_to_string(folder.path().join("incr.svg")).expect("a plot");
        assert!(incr.contains("this crate") && !incr.contains("no database"));
    }
}
