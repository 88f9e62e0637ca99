//! `docs/operations/metrics.md` is true of the code. `tests/postgres` checks its table of metrics.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false => found.push(path),
        }
    }
    found.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    found
}

/// The cells of the rows below this heading.
fn table(guide: &str, heading: &str) -> Vec<Vec<String>> {
    let section = guide.split(&format!("\n## {heading}\n")).nth(1);
    let section = section.expect("a section").split("\n## ").next();
    let rows = section
        .unwrap_or_default()
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    // A bar in a query is escaped.
    let cells = |row: &str| -> Vec<_> {
        row.replace("\\|", "\u{0}")
            .split('|')
            .map(|cell| cell.replace('\u{0}', "|").trim().to_owned())
            .collect()
    };
    rows.map(cells).collect()
}

/// What stands between back-ticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Level and message of each event of the code.
fn events() -> BTreeSet<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut events = BTreeSet::new();
    for file in sources(&src) {
        let text = fs::read_to_string(&file).expect("text");
        for level in ["error", "warn", "info", "debug", "trace"] {
            for call in text.split(&format!("tracing::{level}!(")).skip(1) {
                let message = last_literal(call);
                let lines: Vec<_> = message.split("\\\n").map(str::trim_start).collect();
                let message = lines.concat();
                // A rejection's own sentence, which names the mistake.
                if message != "{self}" {
                    events.insert((level.to_owned(), message));
                }
            }
        }
    }
    events
}

/// Of the arguments that `call` begins with.
fn last_literal(call: &str) -> String {
    let mut depth = 1;
    let mut literals = Vec::new();
    for (place, part) in call.split('"').enumerate() {
        if place % 2 == 1 {
            literals.push(part);
            continue;
        }
        for it in part.chars() {
            depth += i32::from(it == '(') - i32::from(it == ')');
            if depth == 0 {
                return literals.last().copied().unwrap_or_default().to_owned();
            }
        }
    }
    panic!("a macro without an end: {call:.100}");
}

#[test]
fn the_guide_lists_every_event() {
    let guide = read("docs/operations/metrics.md");
    let listed: BTreeSet<_> = table(&guide, "The log")
        .iter()
        .map(|row| (row[1].clone(), row[2].trim_matches(['`', ' ']).to_owned()))
        .collect();
    assert_eq!(listed, events());
}

#[test]
fn each_rule_of_an_alarm_is_that_of_the_guide() {
    let (guide, rules) = (
        read("docs/operations/metrics.md"),
        read("docs/operations/prometheus-alerts.yml"),
    );
    let alarms = table(&guide, "Alarms");
    let listed: Vec<_> = alarms
        .iter()
        .map(|row| (quoted(&row[1])[0], quoted(&row[2])[0]))
        .collect();
    let of = |key: &str| -> Vec<String> {
        let lines = rules
            .lines()
            .map(|line| line.trim_start_matches([' ', '-']));
        lines
            .filter_map(|line| line.strip_prefix(key))
            .map(str::to_owned)
            .collect()
    };
    let (names, queries) = (of("alert: "), of("expr: "));
    let rules: Vec<_> = names.iter().zip(&queries).collect();
    let rules: Vec<_> = rules
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    assert!(rules.len() >= 14);
    assert_eq!(listed, rules);
}

#[test]
fn every_query_asks_for_a_metric_and_a_label_that_there_is() {
    let guide = read("docs/operations/metrics.md");
    let metrics = table(&guide, "Metrics");
    let known: Vec<_> = metrics.iter().map(|row| quoted(&row[2])[0]).collect();
    let mut asked = 0;
    for document in [
        "docs/operations/metrics.md",
        "docs/operations/prometheus-alerts.yml",
    ] {
        let text = read(document);
        let is_of_a_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
        for part in text.split("axum_pg_session_").skip(1) {
            let name: String = part.chars().take_while(|it| is_of_a_name(*it)).collect();
            let name = format!("axum_pg_session_{name}");
            let bare = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(&name);
            let row = known.iter().position(|known| *known == bare);
            let row = row.unwrap_or_else(|| panic!("{name} in {document}"));
            let rest = &part[name.len() - "axum_pg_session_".len()..];
            if let Some(selector) = rest.strip_prefix('{') {
                let values = selector.split('"').nth(1).expect("a value");
                for value in values.split(['|', '\\']).filter(|value| !value.is_empty()) {
                    assert!(metrics[row][4].contains(value), "{value} of {name}");
                }
            }
            asked += 1;
        }
    }
    assert!(asked > 30, "{asked} names");
}
