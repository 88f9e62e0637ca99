//! The names of all metrics and their labels. All are constants, so a request can't create
//! a series.

/// A metric, as `docs/operations/metrics.md` lists it.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) help: &'static str,
}

#[derive(Clone, Copy)]
pub(super) enum Unit {
    Count,
    Seconds,
}

const fn count(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        unit: Unit::Count,
        help,
    }
}

const fn seconds(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        unit: Unit::Seconds,
        help,
    }
}

pub(super) const LOOKUPS: Family = count("axum_pg_session.lookups", "Session lookups, by outcome");
pub(super) const REJECTED_TOKENS: Family = count(
    "axum_pg_session.tokens.rejected",
    "Rejected tokens, of which one request can carry several",
);
pub(super) const SKIPPED_TOUCHES: Family = count(
    "axum_pg_session.touches.skipped",
    "Requests that did not extend their session, because the last touch was recent",
);
pub(super) const CONFLICTS: Family = count(
    "axum_pg_session.conflicts",
    "Saves that were repeated because another writer had changed the row",
);
pub(super) const REPLAYS: Family = count(
    "axum_pg_session.replays",
    "Requests whose changes were replayed on a newer row than they had loaded",
);
pub(super) const FAILURES: Family = count(
    "axum_pg_session.failures",
    "Loads, saves, touches, runs of the reaper and calls of the store that failed",
);
pub(super) const STARTED: Family = count(
    "axum_pg_session.sessions.started",
    "Sessions that began without a login",
);
pub(super) const CYCLED: Family = count(
    "axum_pg_session.sessions.cycled",
    "Sessions that got a new id without a login",
);
pub(super) const ENDED: Family = count(
    "axum_pg_session.sessions.ended",
    "Sessions that were destroyed before they expired",
);
pub(super) const LOGINS: Family = count("axum_pg_session.logins", "Users who signed in");
pub(super) const LOGOUTS: Family = count("axum_pg_session.logouts", "Users who signed out");
pub(super) const DURATION: Family = seconds(
    "axum_pg_session.operation.duration",
    "Duration of a statement or transaction on its connection",
);
pub(super) const QUEUE_TIME: Family = seconds(
    "axum_pg_session.operation.queue_time",
    "Time that a row waited until its statement was sent",
);
pub(super) const BATCH_SIZE: Family =
    count("axum_pg_session.operation.batch_size", "Rows per statement");
pub(super) const WAIT_TIME: Family = seconds(
    "axum_pg_session.connection.wait_time",
    "Time that a statement waited for a connection",
);
pub(super) const REAPED: Family = count(
    "axum_pg_session.reaper.deleted",
    "Expired rows that the reaper deleted",
);
pub(super) const RUNS: Family = count("axum_pg_session.reaper.runs", "Runs of the reaper");

/// Defines an enumeration whose members are the values of a label.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$of_member:meta])* $member:ident = $value:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$of_member])* $member,)*
        }

        impl $name {
            /// All members, in the order of their discriminants.
            pub(super) const ALL: [Self; [$($value),*].len()] = [$(Self::$member),*];

            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$member => $value,)*
                }
            }
        }
    };
}
pub(super) use labels;

labels! {
    /// The outcome of the lookup of a request's session.
    Lookup {
        Hit = "hit",
        /// The request has no token.
        Anonymous = "anonymous",
        /// Well-formed tokens that open no session.
        Miss = "miss",
        Malformed = "malformed",
        Forged = "forged",
        /// The session got a new id after the request was sent.
        Moved = "moved",
        Ambiguous = "ambiguous",
        /// The application's check refused the session.
        Refused = "refused",
        Failed = "failed",
    }
}

labels! {
    /// Why a token opened no session.
    RejectedToken {
        Unknown = "unknown",
        Malformed = "malformed",
        Forged = "forged",
    }
}

labels! {
    /// How sessions were destroyed.
    End {
        /// One session, by its request or by its handle.
        Single = "single",
        /// All sessions of a user, or of all users.
        Bulk = "bulk",
        /// The oldest sessions of a user over the limit.
        Limit = "limit",
    }
}

labels! {
    /// How a run of the reaper ended.
    Run {
        Drained = "drained",
        OtherReaper = "other_reaper",
        Failed = "failed",
    }
}
