//! The totals of all rounds of a soak.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    blows::{ALL, Blow, Struck},
    stage::Round,
};
use crate::{
    record::{Doubt, Entry, Moment, Outcome},
    site::Deed,
};

#[derive(Default)]
pub(super) struct Totals {
    pub(super) rounds: u32,
    requests: u64,
    acknowledged: BTreeMap<Deed, u64>,
    without_session: u64,
    dropped: u64,
    in_doubt: BTreeMap<Doubt, u64>,
    /// Runs of the reaper that a visitor requested, and whose response arrived.
    reaped: u64,
    blows: BTreeMap<Blow, Vec<Recovery>>,
    pub(super) violations: Vec<String>,
}

/// How a fault was got over.
#[derive(Clone, Copy, Debug)]
struct Recovery {
    /// From the end of the fault to the first acknowledgement of a request
    /// that was sent after it.
    served: Option<Duration>,
    /// From the end of the fault to the last read before the next one that was
    /// refused with 503. Nothing else delays a read; a change
    /// may also have come too late for its session.
    refusing: Duration,
    /// Reads from the begin of the fault to the next one that got a response
    /// with 503.
    refused: u64,
}

impl Totals {
    pub(super) fn add(&mut self, round: &Round) {
        self.rounds += 1;
        self.requests += round.kept.entries.len() as u64;
        round
            .kept
            .entries
            .iter()
            .for_each(|entry| self.count(entry));
        let reapings = round.kept.reapings.iter();
        self.reaped += reapings.filter(|status| **status == Some(200)).count() as u64;
        for (at, struck) in round.struck.iter().enumerate() {
            let next = round.struck.get(at + 1).map(|next| next.from);
            let recovery = Recovery::of(*struck, next, &round.kept.entries);
            self.blows.entry(struck.blow).or_default().push(recovery);
        }
        let violations = round.violations.iter().map(ToString::to_string);
        self.violations.extend(violations);
    }

    fn count(&mut self, entry: &Entry) {
        match &entry.outcome {
            Outcome::Done(..) => *self.acknowledged.entry(entry.deed).or_default() += 1,
            Outcome::NoSession(_) => self.without_session += 1,
            Outcome::Dropped(..) => self.dropped += 1,
            Outcome::InDoubt(doubt) => *self.in_doubt.entry(*doubt).or_default() += 1,
            Outcome::Strange(_) => {}
        }
    }

    /// The faults that never happened, or after which no request was served.
    pub(super) fn missing(&self) -> Vec<Blow> {
        let was_outlived = |blow: &Blow| {
            let recoveries = self.blows.get(blow).into_iter().flatten();
            recoveries.clone().next().is_some()
                && recoveries.clone().all(|recovery| recovery.served.is_some())
        };
        let blows = ALL.into_iter();
        blows.filter(|blow| !was_outlived(blow)).collect()
    }
}

impl Recovery {
    fn of(struck: Struck, next: Option<Moment>, entries: &[Entry]) -> Self {
        let is_before_next =
            |moment: Moment| next.is_none_or(|next: Moment| moment.is_before(next));
        let served = entries
            .iter()
            .filter(|entry| entry.is_done() && struck.until.is_before(entry.sent))
            .map(|entry| entry.ended.since(struck.until))
            .min();
        let refusals = entries
            .iter()
            .filter(|entry| is_refused_read(entry))
            .filter(|entry| struck.from.is_before(entry.ended) && is_before_next(entry.ended));
        let refusing = refusals
            .clone()
            .map(|entry| entry.ended.since(struck.until));
        Self {
            served,
            refusing: refusing.max().unwrap_or_default(),
            refused: refusals.count() as u64,
        }
    }
}

fn is_refused_read(entry: &Entry) -> bool {
    let is_refused = matches!(entry.outcome, Outcome::InDoubt(Doubt::Unavailable));
    is_refused && entry.deed == Deed::Read
}

fn sum<T>(counts: &BTreeMap<T, u64>) -> u64 {
    counts.values().sum()
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (acknowledged, in_doubt) = (&self.acknowledged, &self.in_doubt);
        writeln!(f, "{:20} {}", "rounds", self.rounds)?;
        writeln!(f, "{:20} {}", "requests", self.requests)?;
        writeln!(
            f,
            "{:20} {} {acknowledged:?}",
            "acknowledged",
            sum(acknowledged)
        )?;
        writeln!(f, "{:20} {} {in_doubt:?}", "in doubt", sum(in_doubt))?;
        writeln!(f, "{:20} {}", "found no session", self.without_session)?;
        writeln!(f, "{:20} {}", "dropped", self.dropped)?;
        writeln!(f, "{:20} {}", "reaped on request", self.reaped)?;
        for (blow, recoveries) in &self.blows {
            line_of(*blow, recoveries, f)?;
        }
        writeln!(f, "{:20} {}", "violations", self.violations.len())?;
        for violation in self.violations.iter().take(20) {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}

fn line_of(blow: Blow, recoveries: &[Recovery], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut served: Vec<_> = recoveries
        .iter()
        .filter_map(|recovery| recovery.served)
        .collect();
    served.sort();
    let millis = |duration: Option<&Duration>| duration.map_or(0, Duration::as_millis);
    let refusing = recoveries.iter().map(|recovery| recovery.refusing).max();
    let refused: u64 = recoveries.iter().map(|recovery| recovery.refused).sum();
    writeln!(
        f,
        "{:21} {:2} times, served again after {} ms (median), {} ms (most); \
         {refused} reads refused, the last after {} ms",
        format!("{blow:?}"),
        recoveries.len(),
        millis(served.get(served.len() / 2)),
        millis(served.last()),
        millis(refusing.as_ref()),
    )
}
