use std::{collections::BTreeMap, fs, io, path::Path};

use serde_json::Value;

use crate::Table;

/// The figures of a run that are tracked: counts and ratios, which don't depend on the machine as
/// times do.
///
/// ```
/// use bench_common::Summary;
///
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("summary.json");
/// let mut summary = Summary::default();
/// summary.set("read", "allocations", 40.0);
/// summary.record(&file)?;
/// assert!(std::fs::read_to_string(&file)?.contains("\"allocations\": 40\n"));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Summary(BTreeMap<String, BTreeMap<String, Value>>);

impl Summary {
    /// Adds a figure, rounded to three significant digits or to a whole number. Figures that are not
    /// finite are left out.
    pub fn set(&mut self, subject: impl Into<String>, figure: impl Into<String>, value: f64) {
        if value.is_finite() {
            let figures = self.0.entry(subject.into()).or_default();
            figures.insert(figure.into(), rounded(value));
        }
    }

    /// Prints how far each figure has moved since the run that the file has, and replaces it by
    /// this one.
    ///
    /// # Errors
    ///
    /// When the file is invalid, or can't be read or written.
    pub fn record(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let last = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            text => Self(serde_json::from_str(&text?)?),
        };
        println!("\n{}", self.compared_with(&last));
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        fs::write(path, serde_json::to_string_pretty(&self.0)? + "\n")
    }

    fn compared_with(&self, last: &Self) -> Table {
        let mut table = Table::new(["", "", "last", "now", "change"]);
        let mut all = last.clone();
        for (subject, figures) in self.0.clone() {
            all.0.entry(subject).or_default().extend(figures);
        }
        let of = |run: &Self, subject, figure| {
            let figures: Option<&BTreeMap<String, Value>> = run.0.get(subject);
            figures.and_then(|figures| figures.get(figure)?.as_f64())
        };
        for (subject, figures) in &all.0 {
            for figure in figures.keys() {
                let (before, now) = (of(last, subject, figure), of(self, subject, figure));
                let change = before.zip(now).map(|(before, now)| now / before - 1.0);
                let change = change.map(|change| format!("{:+.0} %", change * 100.0));
                let cells = [before, now].map(|value| value.map(|value| value.to_string()));
                let [before, now] = cells.map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
                let change = change.unwrap_or_else(|| "-".to_owned());
                table.row([subject.clone(), figure.clone(), before, now, change]);
            }
        }
        table
    }
}

fn rounded(value: f64) -> Value {
    let digits = 2 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits.max(0));
    let value = (value * scale).round() / scale;
    match value == value.trunc() {
        true => Value::from(value as i64),
        false => Value::from(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(figures: &[(&str, f64)]) -> Summary {
        let mut summary = Summary::default();
        for (figure, value) in figures {
            summary.set("read", *figure, *value);
        }
        summary
    }

    #[test]
    fn figures_have_three_digits_and_whole_numbers_all_of_theirs() {
        let values = [1.23456, 0.012345, 345.67, 12_345.0].map(rounded);
        assert_eq!(
            values.map(|value| value.to_string()),
            ["1.23", "0.0123", "346", "12345"]
        );
    }

    #[test]
    fn a_comparison_has_changed_removed_and_new_figures() {
        let last = summary(&[("changed", 40.0), ("removed", 1.0)]);
        let table = summary(&[("changed", 30.0), ("new", 2.0)]).compared_with(&last);
        let table = table.to_string();
        assert!(table.contains("-25 %"), "{table}");
        assert!(
            table.contains("removed") && table.contains("new"),
            "{table}"
        );
    }
}
