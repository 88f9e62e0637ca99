//! The operations of the store, for labels and spans.

use super::names::labels;

labels! {
    /// The purpose of a statement or a transaction.
    Operation {
        Load = "load",
        Insert = "insert",
        Save = "save",
        Touch = "touch",
        Destroy = "destroy",
        /// A new id, with or without a login.
        Cycle = "cycle",
        /// A row of another system that is moved into the table.
        Takeover = "takeover",
        Reap = "reap",
        /// A call of the application outside of its requests, such as to list the sessions
        /// of a user.
        Manage = "manage",
        /// A look at the sessions that are watched.
        Watch = "watch",
        /// An inspection of the table before it is used.
        Inspect = "inspect",
    }
}

impl Operation {
    /// Whether it serves many rows with one statement.
    pub(super) fn is_batched(self) -> bool {
        match self {
            Self::Load | Self::Insert | Self::Save | Self::Touch | Self::Destroy => true,
            Self::Cycle
            | Self::Takeover
            | Self::Reap
            | Self::Manage
            | Self::Watch
            | Self::Inspect => false,
        }
    }

    /// Whether it has metrics. An inspection has none: metrics use the recorder that is
    /// installed at the first report, and a table may be inspected before that.
    pub(super) fn is_measured(self) -> bool {
        self != Self::Inspect
    }

    /// The SQL command, if there is only one.
    pub(super) fn command(self) -> Option<&'static str> {
        match self {
            Self::Load | Self::Watch | Self::Inspect => Some("SELECT"),
            Self::Insert => Some("INSERT"),
            Self::Save | Self::Touch => Some("UPDATE"),
            Self::Destroy | Self::Reap => Some("DELETE"),
            Self::Cycle | Self::Takeover | Self::Manage => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Their numbers are places among those of their kind.
    #[test]
    fn what_is_batched_comes_first_and_what_is_not_measured_last() {
        let all = Operation::ALL;
        assert!(all.iter().is_sorted_by_key(|it| !it.is_batched()));
        assert!(all.iter().is_sorted_by_key(|it| !it.is_measured()));
    }
}
