//! The part of Prometheus's text format that the page needs.

/// The text of `/metrics`.
pub(crate) struct Exposition(String);

impl Exposition {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The sum of the series that match a selector such as `name{label="value"}`.
    pub(crate) fn sum(&self, selector: &str) -> f64 {
        let (name, label) = selector
            .strip_suffix('}')
            .and_then(|selector| selector.split_once('{'))
            .unwrap_or((selector, ""));
        self.0
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| {
                let (series, labels) = series.split_once('{').unwrap_or((series, ""));
                series == name && labels.contains(label)
            })
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_matches_name_and_label() {
        let text = "# HELP a_total of a\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\"} 4\na_total_more 5\nb 6\n";
        let exposition = Exposition::new(text.to_owned());
        let sum = |selector| exposition.sum(selector);
        assert_eq!(sum("a_total") as u8, 7);
        assert_eq!(sum("a_total{x=\"1\"}") as u8, 3);
        assert_eq!(sum("b") as u8, 6);
        assert_eq!(sum("none") as u8, 0);
    }
}
