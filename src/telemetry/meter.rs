//! The metrics of a store. Callers report events; only this file maps them to metrics.

use std::time::Duration;

use crate::{Error, ErrorKind};

use super::{
    End, Lookup, Operation, RejectedToken, Run,
    facade::{Counter, Histogram, Lazy, Stopwatch},
    names::{
        BATCH_SIZE, CONFLICTS, CYCLED, DURATION, ENDED, FAILURES, Family, LOGINS, LOGOUTS, LOOKUPS,
        QUEUE_TIME, REAPED, REJECTED_TOKENS, REPLAYS, RUNS, SKIPPED_TOUCHES, STARTED, WAIT_TIME,
    },
};

/// The metrics of a store and its clones. They use the recorder that is installed when
/// the first one is reported.
#[derive(Debug, Default)]
pub(crate) struct Meter(Lazy<Instruments>);

/// All instruments. They are registered at once, so that each series has a value before
/// its first failure. Otherwise the first increase would not be visible.
struct Instruments {
    lookups: [Counter; Lookup::ALL.len()],
    rejected_tokens: [Counter; RejectedToken::ALL.len()],
    skipped_touches: Counter,
    conflicts: Counter,
    replays: Counter,
    failures: Vec<(ErrorKind, Counter)>,
    started: Counter,
    cycled: Counter,
    ended: [Counter; End::ALL.len()],
    logins: Counter,
    logouts: Counter,
    durations: Vec<Histogram>,
    queue_times: Vec<Histogram>,
    batch_sizes: Vec<Histogram>,
    wait_time: Histogram,
    reaped: Counter,
    runs: [Counter; Run::ALL.len()],
}

impl Instruments {
    fn register() -> Self {
        describe();
        let of_kind = |kind: ErrorKind| FAILURES.counter(&[("error.type", kind.name())]);
        Self {
            lookups: Lookup::ALL.map(|it| LOOKUPS.counter(&[("outcome", it.name())])),
            rejected_tokens: RejectedToken::ALL
                .map(|it| REJECTED_TOKENS.counter(&[("reason", it.name())])),
            skipped_touches: SKIPPED_TOUCHES.counter(&[]),
            conflicts: CONFLICTS.counter(&[]),
            replays: REPLAYS.counter(&[]),
            failures: ErrorKind::ALL.map(|it| (it, of_kind(it))).into(),
            started: STARTED.counter(&[]),
            cycled: CYCLED.counter(&[]),
            ended: End::ALL.map(|it| ENDED.counter(&[("how", it.name())])),
            logins: LOGINS.counter(&[]),
            logouts: LOGOUTS.counter(&[]),
            durations: of(&DURATION, Operation::is_measured),
            queue_times: of(&QUEUE_TIME, Operation::is_batched),
            batch_sizes: of(&BATCH_SIZE, Operation::is_batched),
            wait_time: WAIT_TIME.histogram(&[]),
            reaped: REAPED.counter(&[]),
            runs: Run::ALL.map(|it| RUNS.counter(&[("outcome", it.name())])),
        }
    }
}

/// One histogram for each operation, at the operation's index.
fn of(family: &Family, has_one: impl Fn(Operation) -> bool) -> Vec<Histogram> {
    Operation::ALL
        .into_iter()
        .filter(|operation| has_one(*operation))
        .map(|operation| family.histogram(&[("operation", operation.name())]))
        .collect()
}

fn describe() {
    let counters = [
        LOOKUPS,
        REJECTED_TOKENS,
        SKIPPED_TOUCHES,
        CONFLICTS,
        REPLAYS,
        FAILURES,
        STARTED,
        CYCLED,
        ENDED,
        LOGINS,
        LOGOUTS,
        REAPED,
        RUNS,
    ];
    counters.iter().for_each(Family::describe_counter);
    let histograms = [DURATION, QUEUE_TIME, BATCH_SIZE, WAIT_TIME];
    histograms.iter().for_each(Family::describe_histogram);
}

impl Meter {
    fn record(&self, act: impl FnOnce(&Instruments)) {
        self.0.with(Instruments::register, act);
    }

    pub(crate) fn looked_up(&self, lookup: Lookup) {
        self.record(|all| all.lookups[lookup as usize].increment(1));
    }

    pub(crate) fn rejected(&self, reason: RejectedToken, tokens: u64) {
        self.record(|all| all.rejected_tokens[reason as usize].increment(tokens));
    }

    pub(crate) fn skipped_a_touch(&self) {
        self.record(|all| all.skipped_touches.increment(1));
    }

    pub(crate) fn lost_to_another_writer(&self) {
        self.record(|all| all.conflicts.increment(1));
    }

    pub(crate) fn replayed(&self, records: usize) {
        self.record(|all| all.replays.increment(records as u64));
    }

    pub(crate) fn failed(&self, error: &Error) {
        self.record(|all| {
            let mut failures = all.failures.iter();
            if let Some((_, counter)) = failures.find(|(kind, _)| *kind == error.kind()) {
                counter.increment(1);
            }
        });
    }

    pub(crate) fn session_began(&self) {
        self.record(|all| all.started.increment(1));
    }

    pub(crate) fn session_got_a_new_id(&self) {
        self.record(|all| all.cycled.increment(1));
    }

    pub(crate) fn user_signed_in(&self) {
        self.record(|all| all.logins.increment(1));
    }

    pub(crate) fn user_signed_out(&self) {
        self.record(|all| all.logouts.increment(1));
    }

    pub(crate) fn sessions_ended(&self, how: End, sessions: u64) {
        self.record(|all| all.ended[how as usize].increment(sessions));
    }

    /// Records a batch, with the time that each of its rows waited.
    pub(crate) fn dispatched(&self, operation: Operation, waits: impl Iterator<Item = Duration>) {
        self.record(|all| {
            let queue_time = &all.queue_times[operation as usize];
            let rows = waits.map(|wait| queue_time.record(wait)).count();
            all.batch_sizes[operation as usize]
                .record(f64::from(u32::try_from(rows).unwrap_or(u32::MAX)));
        });
    }

    pub(crate) fn waited_for_a_connection(&self, since: Stopwatch) {
        self.record(|all| all.wait_time.record(since.elapsed()));
    }

    pub(super) fn ended(&self, operation: Operation, since: Stopwatch, error: Option<&Error>) {
        if !operation.is_measured() {
            return;
        }
        self.record(|all| match error {
            None => all.durations[operation as usize].record(since.elapsed()),
            Some(error) => DURATION
                .histogram(&[
                    ("operation", operation.name()),
                    ("error.type", error.kind().name()),
                ])
                .record(since.elapsed()),
        });
    }

    pub(crate) fn reaped(&self, rows: u64) {
        self.record(|all| all.reaped.increment(rows));
    }

    pub(crate) fn reaper_ran(&self, run: Run) {
        self.record(|all| all.runs[run as usize].increment(1));
    }
}
