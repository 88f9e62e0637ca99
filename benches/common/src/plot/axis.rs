/// What a direction of a plot measures.
#[derive(Clone, Debug)]
#[must_use = "an axis is part of a plot"]
pub struct Axis {
    pub(super) label: String,
    kind: Kind,
    ticks: Option<Vec<f64>>,
    format: fn(f64) -> String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Linear,
    Log,
}

impl Axis {
    /// An axis from zero to a round number above all values.
    pub fn linear(label: impl Into<String>) -> Self {
        Self::new(label, Kind::Linear)
    }

    /// A logarithmic axis around the values, which must be above zero; others
    /// are left out.
    pub fn log(label: impl Into<String>) -> Self {
        Self::new(label, Kind::Log)
    }

    fn new(label: impl Into<String>, kind: Kind) -> Self {
        Self {
            label: label.into(),
            kind,
            ticks: None,
            format: readable,
        }
    }

    /// The values that are marked, instead of round ones.
    pub fn ticks(mut self, ticks: impl IntoIterator<Item = f64>) -> Self {
        self.ticks = Some(ticks.into_iter().collect());
        self
    }

    /// How a marked value is written. Default: [`readable`].
    pub fn format(mut self, format: fn(f64) -> String) -> Self {
        self.format = format;
        self
    }

    pub(super) fn text(&self, value: f64) -> String {
        (self.format)(value)
    }

    pub(super) fn can_show(&self, value: f64) -> bool {
        value.is_finite() && (self.kind == Kind::Linear || value > 0.0)
    }

    pub(super) fn scale(&self, values: impl Iterator<Item = f64>) -> Scale {
        let given = self.ticks.iter().flatten().copied();
        let (low, high) = values
            .chain(given)
            .filter(|value| self.can_show(*value))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        let scale = match self.kind {
            _ if low > high => Scale::linear(0.0, 1.0),
            Kind::Linear => Scale::linear(low.min(0.0), high),
            Kind::Log => Scale::log(low, high, self.ticks.is_some()),
        };
        match &self.ticks {
            Some(ticks) => Scale {
                ticks: ticks.clone(),
                ..scale
            },
            None => scale,
        }
    }
}

/// From values to places between 0 and 1.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
    pub(super) ticks: Vec<f64>,
}

impl Scale {
    fn linear(low: f64, high: f64) -> Self {
        let step = round_step((high - low).max(f64::MIN_POSITIVE) / 5.0);
        let first = (low / step).floor() as i64;
        let last = (high / step).ceil() as i64;
        Self {
            kind: Kind::Linear,
            low: first as f64 * step,
            high: last.max(first + 1) as f64 * step,
            ticks: (first..=last).map(|at| at as f64 * step).collect(),
        }
    }

    /// Whole decades, or as far as 1, 2 and 5 of one where there are few. Who
    /// gives the ticks gives the limits.
    fn log(low: f64, high: f64, exact: bool) -> Self {
        let marks: &[f64] = match (high / low).log10() {
            decades if decades > 3.0 => &[1.0],
            _ => &[1.0, 2.0, 5.0],
        };
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let all: Vec<f64> = (first..=last)
            .flat_map(|decade| marks.iter().map(move |mark| mark * 10f64.powi(decade)))
            .collect();
        // A hair of tolerance: 0.3 is not below 0.1 + 0.2.
        let below = all.iter().copied().rev().find(|tick| *tick <= low * 1.001);
        let above = all.iter().copied().find(|tick| *tick >= high * 0.999);
        let (low, high) = match exact {
            true => (low, high),
            false => (below.unwrap_or(low), above.unwrap_or(high)),
        };
        let within = |tick: &f64| (low * 0.999..=high * 1.001).contains(tick);
        Self {
            kind: Kind::Log,
            low,
            high: if high > low { high } else { low * 10.0 },
            ticks: all.into_iter().filter(within).collect(),
        }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        match self.kind {
            Kind::Linear => (value - self.low) / (self.high - self.low),
            Kind::Log => (value / self.low).log10() / (self.high / self.low).log10(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let decade = 10f64.powf(least.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].iter().map(|mark| mark * decade);
    round
        .into_iter()
        .find(|step| *step >= least * 0.999)
        .unwrap_or(least)
}

/// A number with three digits at most and a unit of thousands.
///
/// ```
/// use bench_common::readable;
/// let texts = [0.25, 12.0, 1_000.0, 34_500.0, 5e6].map(readable);
/// assert_eq!(texts, ["0.25", "12", "1k", "34.5k", "5M"]);
/// ```
#[must_use]
pub fn readable(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 999.5e6 => (value / 1e9, "G"),
        size if size >= 999.5e3 => (value / 1e6, "M"),
        size if size >= 999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = match scaled.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.1 => 2,
        _ => 3,
    };
    let digits = format!("{scaled:.decimals$}");
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => &digits,
    };
    format!("{digits}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_zero_and_ends_at_a_round_number() {
        let scale = Axis::linear("").scale([300.0, 47_000.0].into_iter());
        assert_eq!(scale.ticks.first(), Some(&0.0));
        assert_eq!(scale.ticks.last(), Some(&50_000.0));
        assert_eq!(scale.place(0.0), 0.0);
        assert_eq!(scale.place(50_000.0), 1.0);
    }

    #[test]
    fn a_logarithmic_axis_gives_each_decade_the_same_room() {
        let scale = Axis::log("").scale([10.0, 100_000.0].into_iter());
        assert_eq!(scale.ticks.len(), 5);
        assert!((scale.place(1_000.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn given_ticks_are_the_limits_and_the_marks() {
        let axis = Axis::log("").ticks([1.0, 4.0, 256.0]);
        let scale = axis.scale([2.0].into_iter());
        assert_eq!(scale.ticks, [1.0, 4.0, 256.0]);
        assert_eq!(scale.place(1.0), 0.0);
        assert_eq!(scale.place(256.0), 1.0);
    }

    #[test]
    fn an_axis_without_values_can_still_be_drawn() {
        let scale = Axis::log("").scale([0.0, f64::NAN].into_iter());
        assert!(scale.place(0.5).is_finite());
    }
}
