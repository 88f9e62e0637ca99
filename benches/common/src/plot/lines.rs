use std::io;

use super::{
    axis::{Axis, Scale},
    canvas::{Area, Canvas, Colour, Ink, Point, Side, Stroke, width_of},
    labels::spread,
};

const NAME_HEIGHT: i32 = 17;

/// Lines over an axis of numbers, each named at its end.
#[derive(Clone, Debug)]
#[must_use = "a plot is drawn as a panel of a figure"]
pub struct Lines {
    title: String,
    x: Axis,
    y: Axis,
    series: Vec<Series>,
}

/// One line of a plot.
#[derive(Clone, Debug)]
#[must_use = "a series is part of a plot"]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    line: Line,
    colour: Option<Colour>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Solid,
    Strong,
    Dashed,
}

impl Series {
    /// A line through `points`, which are in the order of their `x`.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points: points.into_iter().collect(),
            line: Line::Solid,
            colour: None,
        }
    }

    /// Drawn thicker and named in bold: what the figure is about.
    pub fn strong(mut self) -> Self {
        self.line = Line::Strong;
        self
    }

    /// Drawn with gaps: what promises less, or is only a reference.
    pub fn dashed(mut self) -> Self {
        self.line = Line::Dashed;
        self
    }

    /// Its colour, the same in all figures. Default: by its place in the plot.
    pub fn colour(mut self, colour: Colour) -> Self {
        self.colour = Some(colour);
        self
    }
}

impl Lines {
    /// A plot without lines.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            x,
            y,
            series: Vec::new(),
        }
    }

    /// Adds a line.
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    pub(super) fn draw(&self, canvas: &Canvas<'_>, area: Area) -> io::Result<()> {
        let names = self.series.iter().map(|series| width_of(&series.name));
        let frame = Frame {
            area: Area {
                left: area.left + 52,
                top: area.top + 56,
                right: area.right - names.max().unwrap_or(0) - 22,
                bottom: area.bottom - 46,
            },
            x: self.x.scale(self.values(|(x, _)| x)),
            y: self.y.scale(self.values(|(_, y)| y)),
        };
        let heading = (area.left, area.top + 12);
        canvas.text(&self.title, heading, Ink::Heading, Side::Right)?;
        self.draw_x(canvas, &frame)?;
        self.draw_y(canvas, &frame, area.left)?;
        // What the figure is about lies on top.
        let mut order: Vec<_> = self.series.iter().enumerate().collect();
        order.sort_by_key(|(_, series)| series.line == Line::Strong);
        for (at, series) in order {
            self.draw_line(canvas, &frame, series, series.colour_at(at))?;
        }
        self.draw_names(canvas, &frame)
    }

    fn values(&self, part: fn((f64, f64)) -> f64) -> impl Iterator<Item = f64> {
        let points = self.series.iter().flat_map(|series| &series.points);
        points.map(move |point| part(*point))
    }

    fn draw_x(&self, canvas: &Canvas<'_>, frame: &Frame) -> io::Result<()> {
        let area = frame.area;
        for tick in &frame.x.ticks {
            let x = frame.x_of(*tick);
            canvas.line(&[(x, area.top), (x, area.bottom)], Stroke::Grid)?;
            let text = self.x.text(*tick);
            canvas.text(&text, (x, area.bottom + 7), Ink::Tick, Side::Below)?;
        }
        let ends = [(area.left, area.bottom), (area.right, area.bottom)];
        canvas.line(&ends, Stroke::Axis)?;
        let middle = ((area.left + area.right) / 2, area.bottom + 27);
        canvas.text(&self.x.label, middle, Ink::Note, Side::Below)
    }

    /// The label lies above its axis, where it is read without turning.
    fn draw_y(&self, canvas: &Canvas<'_>, frame: &Frame, left: i32) -> io::Result<()> {
        let area = frame.area;
        for tick in &frame.y.ticks {
            let y = frame.y_of(*tick);
            canvas.line(&[(area.left, y), (area.right, y)], Stroke::Grid)?;
            let text = self.y.text(*tick);
            canvas.text(&text, (area.left - 8, y), Ink::Tick, Side::Left)?;
        }
        canvas.text(&self.y.label, (left, area.top - 22), Ink::Note, Side::Right)
    }

    fn draw_line(
        &self,
        canvas: &Canvas<'_>,
        frame: &Frame,
        series: &Series,
        colour: Colour,
    ) -> io::Result<()> {
        let points = self.shown(frame, series);
        let (stroke, radius) = match series.line {
            Line::Solid => (Stroke::Solid(colour), 3),
            Line::Strong => (Stroke::Strong(colour), 5),
            Line::Dashed => (Stroke::Dashed(colour), 3),
        };
        canvas.line(&points, stroke)?;
        points
            .into_iter()
            .try_for_each(|point| canvas.dot(point, radius, colour))
    }

    fn draw_names(&self, canvas: &Canvas<'_>, frame: &Frame) -> io::Result<()> {
        let ends: Vec<_> = self
            .series
            .iter()
            .enumerate()
            .filter_map(|(at, series)| {
                let end = *self.shown(frame, series).last()?;
                Some((series, series.colour_at(at), end))
            })
            .collect();
        let wanted: Vec<_> = ends.iter().map(|(.., (_, y))| *y).collect();
        let places = spread(&wanted, NAME_HEIGHT, frame.area.top, frame.area.bottom);
        for ((series, colour, end), y) in ends.into_iter().zip(places) {
            let start = (frame.area.right + 18, y);
            let ink = match series.line {
                Line::Strong => Ink::StrongName(colour),
                Line::Solid | Line::Dashed => Ink::Name(colour),
            };
            canvas.line(
                &[(end.0 + 6, end.1), (start.0 - 3, y)],
                Stroke::Leader(colour),
            )?;
            canvas.text(&series.name, start, ink, Side::Right)?;
        }
        Ok(())
    }

    fn shown(&self, frame: &Frame, series: &Series) -> Vec<Point> {
        let points = series.points.iter();
        points
            .filter(|(x, y)| self.x.can_show(*x) && self.y.can_show(*y))
            .map(|(x, y)| (frame.x_of(*x), frame.y_of(*y)))
            .collect()
    }
}

impl Series {
    fn colour_at(&self, at: usize) -> Colour {
        self.colour.unwrap_or_else(|| Colour::nth(at))
    }
}

/// Where values lie on the sheet.
struct Frame {
    area: Area,
    x: Scale,
    y: Scale,
}

impl Frame {
    fn x_of(&self, value: f64) -> i32 {
        let width = f64::from(self.area.right - self.area.left);
        self.area.left + (self.x.place(value) * width).round() as i32
    }

    fn y_of(&self, value: f64) -> i32 {
        let height = f64::from(self.area.bottom - self.area.top);
        self.area.bottom - (self.y.place(value) * height).round() as i32
    }
}
