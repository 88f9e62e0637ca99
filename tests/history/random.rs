//! Random numbers that a seed determines.

use std::hash::{BuildHasher as _, RandomState};

/// SplitMix64: small, and good enough to choose what to do next.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Different streams of one seed are independent of each other, so that
    /// what one client does never depends on when another one did something.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed ^ stream.wrapping_mul(0xA076_1D64_78BD_642F));
        Self(mixed.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        let index = self.next().checked_rem(among.len() as u64)?;
        among.get(usize::try_from(index).ok()?)
    }

    /// One of the choices, by their weights.
    pub(crate) fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let total = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(total);
        for (weight, choice) in choices {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *choice,
            }
        }
        unreachable!("what is below the sum of all weights falls on one of them")
    }
}

/// A random seed.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().hash_one("a seed") >> 32
}
