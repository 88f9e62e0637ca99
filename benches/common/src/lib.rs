//! What the benchmarks share.
//!
//! - [`Figure`], [`Lines`] and [`Bars`] draw SVG plots: white ground, axes
//!   linear or logarithmic, each line named at its end rather than in a legend.
//! - [`Table`] is the same figures as text.
//! - [`Summary`] is what of it is tracked: counts and ratios, set against those
//!   of the last run.
//! - [`median`] and [`percentile`] sum up rounds.
//! - [`postgres`] is the server of a benchmark, which flushes to disk as one in
//!   production does.
//!
//! Nothing here is published or built by the users of the crate.

mod plot;
mod server;
mod stats;
mod summary;
mod table;

pub use plot::{Axis, Bars, Colour, Figure, Lines, Panel, Series, readable};
pub use server::{cores, postgres};
pub use stats::{median, percentile};
pub use summary::Summary;
pub use table::Table;
