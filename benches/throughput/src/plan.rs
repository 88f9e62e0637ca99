//! What the driver sends to the load generator, and what that returns.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a request asks of a server.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Route {
    /// Nothing of the session.
    Plain,
    /// One value of a session that exists.
    Read,
    /// Reads a counter and writes it back.
    Incr,
    /// A first value, without a cookie: a new session.
    New,
    /// A document of ordinary size; not measured.
    #[value(skip)]
    Seed,
}

impl Route {
    pub(crate) const MEASURED: [Self; 4] = [Self::Plain, Self::Read, Self::Incr, Self::New];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Read => "read",
            Self::Incr => "incr",
            Self::New => "new",
            Self::Seed => "seed",
        }
    }

    pub(crate) fn makes_a_session(self) -> bool {
        matches!(self, Self::New | Self::Seed)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.name())
    }
}

/// A session and what its counter must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub(crate) cookie: String,
    /// `None` after a request whose outcome is not known.
    pub(crate) count: Option<u64>,
}

/// When a load ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Extent {
    /// A warm-up that counts for nothing, and the time that is measured.
    Milliseconds { warm_up: u64, measured: u64 },
    /// So many requests, none of them a warm-up.
    Requests(u64),
}

/// One load: as many connections, each with one request in flight.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) route: Route,
    pub(crate) connections: usize,
    pub(crate) extent: Extent,
    /// Dealt out to the connections, so that no two share one.
    pub(crate) seats: Vec<Seat>,
}

/// What came of a load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Replies within the measured time.
    pub(crate) requests: u64,
    /// Of all responses, also those outside of the measured time.
    pub(crate) responses: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Replies with another status or content than the right one.
    pub(crate) wrong: u64,
    /// One of them, to look into.
    pub(crate) example: Option<String>,
    /// Where the sessions stand now, or the new ones of `/seed`.
    pub(crate) seats: Vec<Seat>,
}

/// A line of the load generator's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The warm-up is over.
    Begin,
    /// The measured time is over.
    End,
    /// Every request gets a response.
    Done(Box<Outcome>),
    /// The load could not be carried out.
    Failed(String),
}
