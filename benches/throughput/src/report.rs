//! Medians, and the table of them.

use std::fmt::Write as _;

use crate::{candidates::REFERENCE, measure::Measured};

/// The rounds of each point and candidate as one, in their order.
pub(crate) fn medians(measured: &[Measured]) -> Vec<Measured> {
    let mut found: Vec<Measured> = Vec::new();
    for one in measured {
        if !found.iter().any(|other| is_same(one, other)) {
            let rounds: Vec<_> = measured
                .iter()
                .filter(|other| is_same(one, other))
                .collect();
            found.push(median_of(one, &rounds));
        }
    }
    found
}

fn is_same_point(one: &Measured, other: &Measured) -> bool {
    (one.commit_delay, one.route, one.connections)
        == (other.commit_delay, other.route, other.connections)
}

fn is_same(one: &Measured, other: &Measured) -> bool {
    is_same_point(one, other) && one.candidate == other.candidate
}

fn median_of(one: &Measured, rounds: &[&Measured]) -> Measured {
    let median_by = |of: fn(&Measured) -> f64| median(rounds.iter().map(|round| of(round)));
    Measured {
        requests_per_second: median_by(|of| of.requests_per_second),
        p50_us: median_by(|of| of.p50_us),
        p99_us: median_by(|of| of.p99_us),
        commits_per_request: median_by(|of| of.commits_per_request),
        server_us_per_request: median_by(|of| of.server_us_per_request),
        database_us_per_request: median_by(|of| of.database_us_per_request),
        load_us_per_request: median_by(|of| of.load_us_per_request),
        wrong: rounds.iter().map(|round| round.wrong).sum(),
        ..one.clone()
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Requests per second as a multiple of the reference's at the same point.
pub(crate) fn ratio(one: &Measured, medians: &[Measured]) -> Option<f64> {
    let reference = medians
        .iter()
        .find(|other| is_same_point(one, other) && other.candidate == REFERENCE)?;
    Some(one.requests_per_second / reference.requests_per_second)
}

/// Wrong answers, one of each candidate and point.
pub(crate) fn examples(measured: &[Measured]) -> Vec<String> {
    let examples = measured.iter().filter_map(|one| {
        let example = one.example.as_ref()?;
        Some(format!(
            "{} {} {}: {example}",
            one.candidate, one.route, one.connections
        ))
    });
    examples.collect()
}

pub(crate) fn table(medians: &[Measured]) -> String {
    let width = medians
        .iter()
        .map(|one| one.candidate.len())
        .max()
        .unwrap_or(0);
    let mut text = format!(
        "{:<6} {:>4} {:<width$} {:>9} {:>6} {:>8} {:>8} {:>7} {:>7} {:>7} {:>7} {:>7}\n",
        "route",
        "conn",
        "candidate",
        "req/s",
        "ratio",
        "p50 us",
        "p99 us",
        "stmt/r",
        "commit/r",
        "srv us",
        "db us",
        "load us",
    );
    for one in medians {
        let _ = writeln!(
            text,
            "{:<6} {:>4} {:<width$} {:>9.0} {:>6} {:>8.0} {:>8.0} {:>7} {:>8.3} {:>7.1} {:>7.1} {:>7.1}{}",
            one.route.to_string(),
            one.connections,
            one.candidate,
            one.requests_per_second,
            or_dash(ratio(one, medians), 2),
            one.p50_us,
            one.p99_us,
            or_dash(one.statements_per_request, 3),
            one.commits_per_request,
            one.server_us_per_request,
            one.database_us_per_request,
            one.load_us_per_request,
            if one.wrong > 0 {
                format!(" {} WRONG", one.wrong)
            } else {
                String::new()
            },
        );
    }
    text
}

fn or_dash(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0].into_iter()) - 2.5).abs() < 1e-9);
    }
}
