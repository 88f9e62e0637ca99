//! Random pauses. This is not a source of secrets.

use std::hash::{BuildHasher as _, RandomState};

/// A random number from 0 to 1, so that concurrent writers or reapers don't retry at the
/// same moment.
pub(crate) fn random_fraction() -> f64 {
    let bits = RandomState::new().hash_one(0_u8);
    f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
