//! Enough randomness to keep writers or reapers out of step.

use std::hash::{BuildHasher as _, RandomState};

/// Enough randomness to keep writers or reapers out of step.
pub(crate) fn random_fraction() -> f64 {
    let bits = RandomState::new().hash_one(0_u8);
    f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
