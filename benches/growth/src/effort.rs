use std::{env, time::Duration};

/// How far the benchmark goes, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// To see that every answer is right.
    Smoke,
    /// To see where a change leads.
    Quick,
    /// To quote the figures.
    Full,
}

impl Effort {
    pub(crate) fn from_arguments() -> Result<Self, String> {
        let arguments: Vec<_> = env::args().skip(1).collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok(Self::Full),
            ["--quick"] => Ok(Self::Quick),
            ["--smoke"] => Ok(Self::Smoke),
            _ => Err(format!("--quick, --smoke or nothing, not {arguments:?}")),
        }
    }

    /// How many rows the tables have.
    pub(crate) fn rows(self) -> &'static [u64] {
        match self {
            Self::Smoke => &[100, 1_000],
            Self::Quick => &[10_000, 100_000],
            Self::Full => &[10_000, 100_000, 1_000_000, 5_000_000],
        }
    }

    /// How many bytes the documents have.
    pub(crate) fn sizes(self) -> &'static [u64] {
        match self {
            Self::Smoke => &[100, 100_000],
            Self::Quick | Self::Full => &[100, 1_000, 10_000, 100_000, 1_000_000],
        }
    }

    /// How many rows are expired when the reaper runs.
    pub(crate) fn expired(self) -> &'static [u64] {
        match self {
            Self::Smoke => &[1, 1_500],
            Self::Quick => &[1, 10, 100, 1_000, 10_000],
            Self::Full => &[1, 10, 100, 1_000, 10_000, 100_000],
        }
    }

    /// How many rows live on beside them.
    pub(crate) fn living(self) -> u64 {
        match self {
            Self::Smoke => 1_000,
            Self::Quick => 10_000,
            Self::Full => 100_000,
        }
    }

    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Smoke => 1,
            Self::Quick => 5,
            Self::Full => 5,
        }
    }

    pub(crate) fn round(self) -> Duration {
        Duration::from_millis(match self {
            Self::Smoke => 50,
            Self::Quick => 250,
            Self::Full => 1_000,
        })
    }

    /// How often that many are reaped: the fewer, the sooner it is over, and
    /// the more often for a p99.
    pub(crate) fn reaps(self, expired: u64) -> u64 {
        match self {
            Self::Smoke => 1,
            Self::Quick => (20_000 / expired).clamp(2, 10),
            Self::Full => (300_000 / expired).clamp(3, 40),
        }
    }
}
