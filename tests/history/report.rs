//! The figures of a history.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    check::Violation,
    faults::{FAULTS, Fault},
    record::{Entry, Kept, Outcome},
    site::Deed,
    socket::End,
};

pub(crate) struct Report {
    pub(crate) kept: Kept,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) duration: Duration,
}

/// How many of each.
type Counts<T> = BTreeMap<T, u64>;

impl Report {
    fn counts<T: Ord>(&self, of: impl Fn(&Entry) -> Option<T>) -> Counts<T> {
        let mut counts = Counts::new();
        for found in self.kept.entries.iter().filter_map(of) {
            *counts.entry(found).or_default() += 1;
        }
        counts
    }

    fn done(&self) -> Counts<Deed> {
        self.counts(|entry| entry.is_done().then_some(entry.deed))
    }

    fn without_session(&self) -> Counts<Deed> {
        self.counts(|entry| matches!(entry.outcome, Outcome::NoSession(_)).then_some(entry.deed))
    }

    fn dropped(&self) -> Counts<Deed> {
        self.counts(|entry| matches!(entry.outcome, Outcome::Dropped(..)).then_some(entry.deed))
    }

    /// By what ended them.
    fn sockets(&self) -> Counts<&str> {
        let mut counts = Counts::new();
        for socket in &self.kept.sockets {
            let end = match &socket.end {
                End::Session(why, _) => why.as_str(),
                End::Lost => "Lost",
            };
            *counts.entry(end).or_default() += 1;
        }
        counts
    }

    fn operations(&self) -> usize {
        self.kept.entries.len() + self.kept.reapings.len()
    }

    /// Whether enough happened for the absence of violations to mean much.
    pub(crate) fn says_something(&self) -> bool {
        // All deeds but the one that always fails.
        let has_all = self.done().len() == 13 && self.faults.len() == FAULTS.len();
        let has_sockets = self.sockets().contains_key("Unknown");
        has_all && has_sockets && sum(&self.done()) * 2 > self.kept.entries.len() as u64
    }

    fn figures(&self) -> [(&'static str, String); 10] {
        let doubts = self.counts(|entry| match entry.outcome {
            Outcome::InDoubt(doubt) => Some(doubt),
            _ => None,
        });
        let reapings = self.kept.reapings.iter();
        let reaped = reapings.filter(|status| **status == Some(200)).count();
        [
            ("operations", self.operations().to_string()),
            ("acknowledged", line(&self.done())),
            ("in doubt", line(&doubts)),
            ("found no session", line(&self.without_session())),
            ("dropped", line(&self.dropped())),
            ("reaped", reaped.to_string()),
            ("sockets", line(&self.sockets())),
            ("faults", line(&self.faults)),
            ("duration", format!("{:.1} s", self.duration.as_secs_f64())),
            ("violations", self.violations.len().to_string()),
        ]
    }
}

fn sum<T>(counts: &Counts<T>) -> u64 {
    counts.values().sum()
}

fn line<T: fmt::Debug>(counts: &Counts<T>) -> String {
    format!("{} {counts:?}", sum(counts))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, figure) in self.figures() {
            writeln!(f, "{name:13} {figure}")?;
        }
        for violation in self.violations.iter().take(20) {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}
