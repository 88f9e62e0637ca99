//! What a test needs that not every machine has.

use std::{env, fmt::Display};

/// What was found; `None` where the test is to end as passed.
///
/// # Panics
///
/// On CI, whose machine has it.
pub(crate) fn or_skip<T, E: Display>(found: Result<T, E>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(why) => {
            let is_ci = env::var("CI").is_ok_and(|value| value == "true");
            assert!(!is_ci, "this test can't be run: {why}");
            eprintln!("skipped: {why}");
            None
        }
    }
}
