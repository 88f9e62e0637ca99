use std::io;

use plotters::{
    coord::Shift,
    element::DashedPathElement,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

pub(super) type Point = (i32, i32);

/// Colours that people with any colour vision tell apart, after Okabe and Ito.
/// By default series take them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// For what the figure is about.
    Blue,
    /// Next after it.
    Orange,
    /// Third.
    Green,
    /// Fourth.
    Purple,
    /// Fifth.
    Red,
    /// Sixth.
    Sky,
    /// For a bound or a reference.
    Grey,
}

impl Colour {
    const ORDER: [Self; 7] = [
        Self::Blue,
        Self::Orange,
        Self::Green,
        Self::Purple,
        Self::Red,
        Self::Sky,
        Self::Grey,
    ];

    pub(super) fn nth(at: usize) -> Self {
        Self::ORDER[at % Self::ORDER.len()]
    }

    fn rgb(self) -> RGBColor {
        match self {
            Self::Blue => RGBColor(0, 98, 168),
            Self::Orange => RGBColor(213, 120, 0),
            Self::Green => RGBColor(0, 138, 100),
            Self::Purple => RGBColor(176, 92, 142),
            Self::Red => RGBColor(196, 60, 30),
            Self::Sky => RGBColor(60, 160, 215),
            Self::Grey => RGBColor(110, 110, 110),
        }
    }
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) left: i32,
    pub(super) top: i32,
    pub(super) right: i32,
    pub(super) bottom: i32,
}

/// What a text is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ink {
    Title,
    Heading,
    Note,
    Tick,
    Name(Colour),
    StrongName(Colour),
}

/// Where a text lies as seen from its point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Right,
    Left,
    Below,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stroke {
    Grid,
    Axis,
    Leader(Colour),
    Solid(Colour),
    Strong(Colour),
    Dashed(Colour),
}

/// A white sheet.
pub(super) struct Canvas<'a>(DrawingArea<SVGBackend<'a>, Shift>);

impl<'a> Canvas<'a> {
    pub(super) fn new(svg: &'a mut String, width: i32, height: i32) -> io::Result<Self> {
        let size = (width.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::with_string(svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(io::Error::other)?;
        Ok(Self(area))
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.0.present().map_err(io::Error::other)
    }

    pub(super) fn text(&self, text: &str, at: Point, ink: Ink, side: Side) -> io::Result<()> {
        let (size, style, colour) = match ink {
            Ink::Title => (25, FontStyle::Bold, RGBColor(20, 20, 20)),
            Ink::Heading => (20, FontStyle::Bold, RGBColor(20, 20, 20)),
            Ink::Note => (17, FontStyle::Normal, RGBColor(90, 90, 90)),
            Ink::Tick => (16, FontStyle::Normal, RGBColor(60, 60, 60)),
            Ink::Name(colour) => (17, FontStyle::Normal, colour.rgb()),
            Ink::StrongName(colour) => (17, FontStyle::Bold, colour.rgb()),
        };
        let position = match side {
            Side::Right => Pos::new(HPos::Left, VPos::Center),
            Side::Left => Pos::new(HPos::Right, VPos::Center),
            Side::Below => Pos::new(HPos::Center, VPos::Top),
        };
        let font = ("sans-serif", size).into_font().style(style);
        let style = font.color(&colour).pos(position);
        let element = Text::new(text.to_owned(), at, style);
        self.0.draw(&element).map_err(io::Error::other)
    }

    pub(super) fn line(&self, points: &[Point], stroke: Stroke) -> io::Result<()> {
        let (colour, width) = match stroke {
            Stroke::Grid => (RGBColor(228, 228, 228), 1),
            Stroke::Axis => (RGBColor(120, 120, 120), 1),
            Stroke::Leader(colour) => (colour.rgb(), 1),
            Stroke::Solid(colour) | Stroke::Dashed(colour) => (colour.rgb(), 2),
            Stroke::Strong(colour) => (colour.rgb(), 4),
        };
        let style = colour.stroke_width(width);
        let drawn = if let Stroke::Dashed(_) = stroke {
            let points = points.iter().copied();
            self.0.draw(&DashedPathElement::new(points, 7, 5, style))
        } else {
            self.0.draw(&PathElement::new(points.to_vec(), style))
        };
        drawn.map_err(io::Error::other)
    }

    pub(super) fn dot(&self, at: Point, radius: i32, colour: Colour) -> io::Result<()> {
        let dot = Circle::new(at, radius, colour.rgb().filled());
        self.0.draw(&dot).map_err(io::Error::other)
    }

    pub(super) fn bar(&self, corners: [Point; 2], colour: Colour) -> io::Result<()> {
        let bar = Rectangle::new(corners, colour.rgb().filled());
        self.0.draw(&bar).map_err(io::Error::other)
    }
}

/// About how wide a text of [`Ink::Name`] is, in whatever font it is shown.
pub(super) fn width_of(text: &str) -> i32 {
    let characters = i32::try_from(text.chars().count()).unwrap_or(0);
    characters * 8
}
