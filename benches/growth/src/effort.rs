use std::{env, time::Duration};

/// How far the benchmark goes, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// To see that every response is right.
    Smoke,
    /// To see where a change leads.
    Quick,
    /// To quote the figures.
    Full,
    /// To see what a long run of the reaper costs: so many expired rows, and
    /// nothing else.
    Reap(u64),
}

impl Effort {
    pub(crate) fn from_arguments() -> Result<Self, String> {
        let arguments: Vec<_> = env::args().skip(1).collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok(Self::Full),
            ["--quick"] => Ok(Self::Quick),
            ["--smoke"] => Ok(Self::Smoke),
            ["--reap", rows] => rows
                .parse()
                .map(Self::Reap)
                .map_err(|error| format!("{rows} rows: {error}")),
            _ => Err(format!(
                "--quick, --smoke, --reap ROWS or nothing, not {arguments:?}"
            )),
        }
    }

    /// How many rows the tables have.
    pub(crate) fn rows(self) -> &'static [u64] {
        match self {
            Self::Smoke => &[100, 1_000],
            Self::Quick => &[10_000, 100_000],
            Self::Full => &[10_000, 100_000, 1_000_000, 5_000_000],
            Self::Reap(_) => &[],
        }
    }

    /// How many bytes the documents have.
    pub(crate) fn sizes(self) -> &'static [u64] {
        match self {
            Self::Smoke => &[100, 100_000],
            Self::Quick | Self::Full => &[100, 1_000, 10_000, 100_000, 1_000_000],
            Self::Reap(_) => &[],
        }
    }

    /// How many rows are expired when the reaper runs.
    pub(crate) fn expired(self) -> Vec<u64> {
        match self {
            Self::Smoke => vec![1, 1_500],
            Self::Quick => vec![1, 10, 100, 1_000, 10_000],
            Self::Full => vec![1, 10, 100, 1_000, 10_000, 100_000],
            Self::Reap(expired) => vec![expired],
        }
    }

    /// How many of them go in one transaction: the default, and others beside
    /// it that show whether it is well chosen, where that takes no hour.
    pub(crate) fn batches(self) -> &'static [u32] {
        match self {
            Self::Smoke | Self::Quick | Self::Full => &[1_000],
            Self::Reap(1_000_000..) => &[1_000],
            Self::Reap(_) => &[250, 1_000, 4_000],
        }
    }

    /// How long the others are alone before each run of the reaper, and what of
    /// that counts at the most: its end, well before the reaper comes, and not
    /// its begin.
    pub(crate) fn alone(self) -> Alone {
        let millis = match self {
            Self::Smoke | Self::Quick | Self::Full => (300, 150),
            Self::Reap(_) => (5_500, 5_000),
        };
        Alone {
            length: Duration::from_millis(millis.0),
            watched: Duration::from_millis(millis.1),
        }
    }

    /// How many rows live on beside them.
    pub(crate) fn living(self) -> u64 {
        match self {
            Self::Smoke => 1_000,
            Self::Quick => 10_000,
            Self::Full | Self::Reap(_) => 100_000,
        }
    }

    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Smoke => 1,
            Self::Quick => 5,
            Self::Full | Self::Reap(_) => 5,
        }
    }

    pub(crate) fn round(self) -> Duration {
        Duration::from_millis(match self {
            Self::Smoke => 50,
            Self::Quick => 250,
            Self::Full | Self::Reap(_) => 1_000,
        })
    }

    /// How often that many are reaped: the fewer, the sooner it is over, and
    /// the more often for a p99.
    pub(crate) fn reaps(self, expired: u64) -> u64 {
        match self {
            Self::Smoke => 1,
            Self::Quick => (20_000 / expired).clamp(2, 10),
            Self::Full => (300_000 / expired).clamp(3, 40),
            Self::Reap(_) => 3,
        }
    }
}

/// The time before the reaper comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone {
    pub(crate) length: Duration,
    pub(crate) watched: Duration,
}
