use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use serde_json::{Number, Value};

use crate::Table;

/// The figures of a run that are tracked: counts and ratios, which mean the
/// same on the next machine. Times do not.
///
/// ```
/// use bench_common::Summary;
///
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("summary.json");
/// let mut last = Summary::default();
/// last.set("read", "allocations", 40.0);
/// last.write(&file)?;
///
/// let mut now = Summary::default();
/// now.set("read", "allocations", 30.0);
/// let changes = now.against(&Summary::read(&file)?).to_string();
/// assert!(changes.contains("-25 %"));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    figures: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Summary {
    /// The summary in a file; an empty one where there is no file yet.
    ///
    /// # Errors
    ///
    /// When the file can't be read, or is something else.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text?,
        };
        let figures = serde_json::from_str(&text)?;
        Ok(Self { figures })
    }

    /// Notes a figure, with three significant digits; whole numbers as they
    /// are. What is not finite is left out.
    pub fn set(&mut self, subject: impl Into<String>, figure: impl Into<String>, value: f64) {
        if value.is_finite() {
            let figures = self.figures.entry(subject.into()).or_default();
            figures.insert(figure.into(), rounded(value));
        }
    }

    /// Writes it as JSON, ordered by name.
    ///
    /// # Errors
    ///
    /// When the file can't be written.
    pub fn write(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let json: BTreeMap<_, _> = self
            .figures
            .iter()
            .map(|(subject, figures)| {
                let figures = figures.iter().map(|(name, value)| (name, number(*value)));
                (subject, figures.collect::<BTreeMap<_, _>>())
            })
            .collect();
        fs::write(path, serde_json::to_string_pretty(&json)? + "\n")
    }

    /// A table of each figure beside the one of `last`, and how far it moved.
    #[must_use]
    pub fn against(&self, last: &Self) -> Table {
        let mut table = Table::new(["", "", "last", "now", "change"]);
        for (subject, figure) in self.names().union(&last.names()) {
            let (before, now) = (last.get(subject, figure), self.get(subject, figure));
            let text = |value: Option<f64>| value.map_or("-".into(), |value| value.to_string());
            let change = match (before, now) {
                (Some(before), Some(now)) if before != 0.0 => {
                    format!("{:+.0} %", (now / before - 1.0) * 100.0)
                }
                _ => "-".into(),
            };
            table.row([
                subject.to_string(),
                figure.to_string(),
                text(before),
                text(now),
                change,
            ]);
        }
        table
    }

    fn names(&self) -> BTreeSet<(&str, &str)> {
        let figures = self.figures.iter();
        figures
            .flat_map(|(subject, figures)| {
                figures
                    .keys()
                    .map(move |name| (subject.as_str(), name.as_str()))
            })
            .collect()
    }

    fn get(&self, subject: &str, figure: &str) -> Option<f64> {
        self.figures.get(subject)?.get(figure).copied()
    }
}

fn rounded(value: f64) -> f64 {
    if value == value.trunc() {
        return value;
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits.max(0));
    (value * scale).round() / scale
}

fn number(value: f64) -> Value {
    if value == value.trunc() {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_whole_ones_all_of_theirs() {
        assert_eq!(
            [1.23456, 0.012345, 345.67, 12_345.0].map(rounded),
            [1.23, 0.0123, 346.0, 12_345.0]
        );
    }

    #[test]
    fn what_is_gone_and_what_is_new_is_shown_too() {
        let (mut last, mut now) = (Summary::default(), Summary::default());
        last.set("old", "count", 1.0);
        now.set("new", "count", 2.0);
        let table = now.against(&last).to_string();
        assert!(table.contains("old") && table.contains("new"), "{table}");
    }
}
