use std::io;

use super::{
    axis::readable,
    canvas::{Area, Canvas, Colour, Ink, Side, width_of},
    count,
};

const HEADING: i32 = 34;
const ROW: i32 = 24;
const BAR: i32 = 15;

/// Horizontal bars, one beneath the other, each with its name before it and
/// its value behind it.
///
/// ```
/// use bench_common::{Bars, Colour, Figure};
///
/// let bars = Bars::new("allocations per request")
///     .bar("bare", 4.0, Colour::Grey)
///     .bar("read", 21.0, Colour::Blue);
/// assert!(Figure::new("A request").panel(bars).to_svg()?.contains("read"));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a plot is drawn as a panel of a figure"]
pub struct Bars {
    title: String,
    bars: Vec<Bar>,
    format: fn(f64) -> String,
}

#[derive(Clone, Debug)]
struct Bar {
    name: String,
    value: f64,
    colour: Colour,
}

impl Bars {
    /// A plot without bars; the title says what they measure, and its unit.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            bars: Vec::new(),
            format: readable,
        }
    }

    /// Adds a bar from zero to `value`.
    pub fn bar(mut self, name: impl Into<String>, value: f64, colour: Colour) -> Self {
        self.bars.push(Bar {
            name: name.into(),
            value,
            colour,
        });
        self
    }

    /// How a value is written. Default: [`readable`].
    pub fn format(mut self, format: fn(f64) -> String) -> Self {
        self.format = format;
        self
    }

    pub(super) fn height(&self) -> i32 {
        HEADING + ROW * count(&self.bars) + ROW
    }

    pub(super) fn draw(&self, canvas: &Canvas<'_>, area: Area) -> io::Result<()> {
        let heading = (area.left, area.top + 12);
        canvas.text(&self.title, heading, Ink::Heading, Side::Right)?;
        let names = self.bars.iter().map(|bar| width_of(&bar.name));
        let left = area.left + names.max().unwrap_or(0) + 8;
        let room = f64::from(area.right - left - 70);
        let largest = self.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
        let mut y = area.top + HEADING + ROW / 2;
        for bar in &self.bars {
            let length = bar.value / largest.max(f64::MIN_POSITIVE) * room;
            let right = left + length.round().max(1.0) as i32;
            let corners = [(left, y - BAR / 2), (right, y + BAR / 2)];
            canvas.text(
                &bar.name,
                (left - 8, y),
                Ink::Name(Colour::Grey),
                Side::Left,
            )?;
            canvas.bar(corners, bar.colour)?;
            let value = (self.format)(bar.value);
            canvas.text(&value, (right + 6, y), Ink::Tick, Side::Right)?;
            y += ROW;
        }
        Ok(())
    }
}
