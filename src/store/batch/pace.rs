//! When another statement is sent beside those in flight. It only computes: it has no
//! queue, no task and no clock.

use std::time::Duration;

/// The cost of a statement for both sides, in seconds, however many rows it has: two
/// schedulers, and the commit's share of a flush. An order of magnitude is enough. This
/// value was measured between two that are clearly too small and too large.
const OVERHEAD: f64 = 0.55e-3;
/// The most rows in flight for each waiting row. With more, statements would have fewer
/// rows and return no sooner.
const MOST: f64 = 6.0;
/// With this many rows in flight, another statement is sent as soon as the same number waits.
const FEW: usize = 4;
/// The weight of a slower statement against the fastest recent one.
const FORGETTING: f64 = 1.0 / 32.0;

/// How fast the statements of one kind are, and whether another one should be sent.
///
/// If the waiting rows wait, each of them loses the time that a statement takes. If they
/// are sent now, each row in flight loses the overhead of one more statement. So another
/// statement is sent if
///
/// ```text
/// waiting rows × time of a statement ≥ rows in flight × overhead
/// ```
///
/// This bounds the number of statements at every load: a few rows are sent at once, and
/// if there are many, each statement takes a large part of them.
///
/// With few rows in flight, it is enough if the same number waits. Otherwise, a few concurrent
/// requests would always share a statement, and the processors of the server and of the
/// database would wait for each other.
///
/// The time is that of the fastest recent statement: the part that is spent waiting for
/// the disk or the network. Slower statements also waited for processors, which more
/// statements would keep even busier.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct Pace {
    /// In seconds; `None` before the first statement.
    quickest: Option<f64>,
}

impl Pace {
    pub(in crate::store) fn observe(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.quickest = Some(match self.quickest {
            Some(quickest) if took >= quickest => quickest + (took - quickest) * FORGETTING,
            _ => took,
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "they are small")]
    pub(in crate::store) fn allows(self, waiting: usize, in_flight: usize) -> bool {
        // With more than a few rows, the ratio has no lower bound. With a bound of one, 8 to 64
        // connections to a server on the same machine took a tenth more CPU.
        let took = self.quickest.unwrap_or(OVERHEAD);
        let is_few = in_flight <= FEW && waiting >= in_flight;
        is_few || waiting as f64 * (took / OVERHEAD).min(MOST) >= in_flight as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(took: Duration) -> Pace {
        let mut pace = Pace::default();
        (0..1000).for_each(|_| pace.observe(took));
        pace
    }

    /// The sizes of the statements in flight if rows are submitted one by one.
    fn batch_sizes(pace: Pace, rows: usize) -> Vec<usize> {
        let (mut waiting, mut in_flight, mut statements) = (0, 0, Vec::new());
        for _ in 0..rows {
            waiting += 1;
            if pace.allows(waiting, in_flight) {
                statements.push(waiting);
                in_flight += waiting;
                waiting = 0;
            }
        }
        statements
    }

    #[test]
    fn the_first_statement_is_sent_at_once() {
        for took in [Duration::ZERO, Duration::from_millis(50)] {
            assert!(at(took).allows(1, 0));
        }
    }

    #[test]
    fn if_commits_are_fast_batches_grow_with_the_rows_in_flight() {
        let pace = at(Duration::from_micros(300));
        assert_eq!(batch_sizes(pace, 64), [1, 1, 2, 4, 15]);
    }

    #[test]
    fn if_commits_are_slow_a_few_requests_go_at_once() {
        let pace = at(Duration::from_millis(4));
        assert_eq!(batch_sizes(pace, 8), [1, 1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn if_commits_are_slow_many_requests_share_few_statements() {
        let pace = at(Duration::from_secs(1));
        assert!(batch_sizes(pace, 256).len() < 32);
        assert!(batch_sizes(pace, 100_000).len() < 80);
    }

    #[test]
    fn a_busy_processor_is_not_taken_for_a_slow_disk() {
        let mut pace = at(Duration::from_micros(300));
        for _ in 0..1000 {
            pace.observe(Duration::from_millis(5));
            pace.observe(Duration::from_micros(300));
        }
        assert!(!pace.allows(9, 10));
    }

    #[test]
    fn a_disk_that_becomes_slow_is_noticed() {
        let mut pace = at(Duration::from_micros(300));
        (0..64).for_each(|_| pace.observe(Duration::from_millis(4)));
        assert!(pace.allows(1, 4));
    }
}
