//! How many rows the statements of one transaction delete, so that it ends in time. It sends
//! no statement itself.
//!
//! A row can be expensive to delete: if another table references it without an index, Postgres
//! reads that table for each row, and a thousand rows would exceed the store's timeout again
//! and again. So a transaction begins with a few rows. Each of its statements deletes more
//! rows than the one before, but no more than fit into the time that is left. Then the next
//! transaction continues.

use std::time::Duration;

use tokio::time::Instant;

/// Rows of the first statement.
const FIRST: usize = 16;
/// Rows of a statement at most.
const MOST: usize = 1000;
const GROWTH: usize = 4;
/// After that long, a transaction deletes no more rows.
const ENOUGH: Duration = Duration::from_millis(250);

/// The sizes of the statements of one transaction.
pub(in crate::store) struct Portions {
    next: usize,
    /// Rows of the statements before.
    rows: usize,
    since: Option<Instant>,
    is_limited: bool,
}

impl Portions {
    pub(in crate::store) fn limited() -> Self {
        Self {
            next: FIRST,
            rows: 0,
            since: None,
            is_limited: true,
        }
    }

    /// For a transaction of the application, which must delete all rows.
    pub(in crate::store) fn unlimited() -> Self {
        Self {
            next: MOST,
            is_limited: false,
            ..Self::limited()
        }
    }

    /// The number of rows of the next statement, if so many are left. `None` if none is left, or
    /// the transaction has taken long enough.
    pub(in crate::store) fn next(&mut self, left: usize) -> Option<usize> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let most = match self.is_limited && self.rows > 0 {
            true => self.that_fit_after(since.elapsed()),
            false => self.next,
        };
        let rows = most.min(left);
        self.next = MOST.min(GROWTH * self.next);
        self.rows += rows;
        (rows > 0).then_some(rows)
    }

    /// How many rows fit into the rest of the time, if they are as expensive as those before.
    fn that_fit_after(&self, took: Duration) -> usize {
        let rest = ENOUGH.saturating_sub(took).as_secs_f64();
        let fit = rest / took.as_secs_f64() * self.rows as f64;
        // A float that is too large becomes the largest number.
        self.next.min(fit as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_grow_while_they_are_fast() {
        let mut portions = Portions::limited();
        let sizes: Vec<_> = [1416, 1400, 1336, 1080, 80, 0]
            .map(|left| portions.next(left))
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(sizes, [16, 64, 256, 1000, 80]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_transaction_stops_and_an_unlimited_one_does_not() {
        for (mut portions, second) in [
            (Portions::limited(), None),
            (Portions::unlimited(), Some(1000)),
        ] {
            assert!(portions.next(2000).is_some());
            tokio::time::advance(ENOUGH).await;
            assert_eq!(portions.next(1000), second);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_has_no_more_rows_than_fit_into_the_time() {
        let mut portions = Portions::limited();
        assert_eq!(portions.next(1000), Some(16));
        tokio::time::advance(ENOUGH / 5).await;
        assert_eq!(portions.next(984), Some(64));
        tokio::time::advance(ENOUGH / 5 * 4).await;
        assert_eq!(portions.next(920), None);
    }
}
