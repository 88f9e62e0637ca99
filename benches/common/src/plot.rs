//! Plots as SVG. Everything is placed here; plotters only writes the elements.

mod axis;
mod bars;
mod canvas;
mod labels;
mod lines;

use std::{fs, io, path::Path};

pub use axis::{Axis, readable};
pub use bars::Bars;
pub use canvas::Colour;
pub use lines::{Lines, Series};

use canvas::{Area, Canvas, Ink, Side};

const PANEL_WIDTH: i32 = 560;
const PANEL_HEIGHT: i32 = 380;
const ALONE_WIDTH: i32 = 820;
const MARGIN: i32 = 24;
const TITLE: i32 = 34;
const NOTE: i32 = 20;

/// Panels under one title, two beside each other, as one SVG.
///
/// ```
/// use bench_common::{Axis, Figure, Lines, Series};
///
/// let reads = Lines::new("read", Axis::log("connections"), Axis::linear("requests/s"))
///     .series(Series::new("batched", [(1.0, 900.0), (64.0, 30_000.0)]).strong())
///     .series(Series::new("one by one", [(1.0, 880.0), (64.0, 9_000.0)]));
/// let svg = Figure::new("Sessions in Postgres")
///     .note("2 cores, fsync on")
///     .panel(reads)
///     .to_svg()?;
/// assert!(svg.contains("one by one"));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a figure is drawn when it is written"]
pub struct Figure {
    title: String,
    notes: Vec<String>,
    panels: Vec<Panel>,
}

/// One plot of a [`Figure`]: [`Lines`] or [`Bars`].
#[derive(Clone, Debug)]
pub enum Panel {
    /// Lines over an axis of numbers.
    Lines(Lines),
    /// Horizontal bars, each with its name.
    Bars(Bars),
}

impl From<Lines> for Panel {
    fn from(lines: Lines) -> Self {
        Self::Lines(lines)
    }
}

impl From<Bars> for Panel {
    fn from(bars: Bars) -> Self {
        Self::Bars(bars)
    }
}

impl Figure {
    /// A figure without panels.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            notes: Vec::new(),
            panels: Vec::new(),
        }
    }

    /// A line of smaller text under the title, such as the set-up. Each call
    /// adds one.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a plot. One alone is drawn wider than two beside each other.
    pub fn panel(mut self, panel: impl Into<Panel>) -> Self {
        self.panels.push(panel.into());
        self
    }

    /// The figure as the text of an SVG.
    ///
    /// # Errors
    ///
    /// When the library that writes it has one; the numbers that are drawn are
    /// no reason.
    pub fn to_svg(&self) -> io::Result<String> {
        let mut svg = String::new();
        let canvas = Canvas::new(&mut svg, self.width(), self.height())?;
        self.draw_head(&canvas)?;
        for (at, panel) in self.panels.iter().enumerate() {
            let area = self.area_of(at);
            match panel {
                Panel::Lines(lines) => lines.draw(&canvas, area)?,
                Panel::Bars(bars) => bars.draw(&canvas, area)?,
            }
        }
        canvas.finish()?;
        Ok(svg)
    }

    /// Writes the SVG, and the folders that it lies in.
    ///
    /// # Errors
    ///
    /// When the file can't be written.
    pub fn write(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, self.to_svg()?)
    }

    fn draw_head(&self, canvas: &Canvas<'_>) -> io::Result<()> {
        let title = (MARGIN, MARGIN + TITLE / 2);
        canvas.text(&self.title, title, Ink::Title, Side::Right)?;
        for (at, note) in self.notes.iter().enumerate() {
            let line = i32::try_from(at).unwrap_or(0);
            let y = MARGIN + TITLE + NOTE / 2 + NOTE * line;
            canvas.text(note, (MARGIN, y), Ink::Note, Side::Right)?;
        }
        Ok(())
    }

    fn head(&self) -> i32 {
        MARGIN + TITLE + NOTE * count(&self.notes) + MARGIN / 2
    }

    fn columns(&self) -> i32 {
        count(&self.panels).clamp(1, 2)
    }

    fn panel_width(&self) -> i32 {
        match self.columns() {
            1 => ALONE_WIDTH,
            _ => PANEL_WIDTH,
        }
    }

    fn row_height(&self, row: i32) -> i32 {
        let of_panel = |panel: &Panel| match panel {
            Panel::Lines(_) => PANEL_HEIGHT,
            Panel::Bars(bars) => bars.height(),
        };
        let first = usize::try_from(row * self.columns()).unwrap_or(0);
        let columns = usize::try_from(self.columns()).unwrap_or(1);
        let panels = self.panels.iter().skip(first).take(columns);
        panels.map(of_panel).max().unwrap_or(0)
    }

    fn area_of(&self, at: usize) -> Area {
        let at = i32::try_from(at).unwrap_or(0);
        let (row, column) = (at / self.columns(), at % self.columns());
        let above: i32 = (0..row).map(|row| self.row_height(row)).sum();
        let left = MARGIN + column * (self.panel_width() + MARGIN);
        let top = self.head() + above;
        Area {
            left,
            top,
            right: left + self.panel_width(),
            bottom: top + self.row_height(row) - MARGIN,
        }
    }

    fn width(&self) -> i32 {
        MARGIN + self.columns() * (self.panel_width() + MARGIN)
    }

    fn height(&self) -> i32 {
        let rows = (count(&self.panels) + self.columns() - 1) / self.columns();
        let panels: i32 = (0..rows).map(|row| self.row_height(row)).sum();
        self.head() + panels
    }
}

fn count<T>(items: &[T]) -> i32 {
    i32::try_from(items.len()).unwrap_or(i32::MAX)
}
