use super::names::labels;

labels! {
    /// What a statement or a transaction is for.
    Operation {
        Load = "load",
        Insert = "insert",
        Save = "save",
        Touch = "touch",
        Destroy = "destroy",
        /// A new id, with a login or without.
        Cycle = "cycle",
        Reap = "reap",
        /// What an application asks outside of its requests, such as the
        /// sessions of a user.
        Manage = "manage",
        /// A look at the table before it is used.
        Inspect = "inspect",
    }
}

impl Operation {
    /// Whether it serves many rows with one statement.
    pub(super) fn is_batched(self) -> bool {
        match self {
            Self::Load | Self::Insert | Self::Save | Self::Touch | Self::Destroy => true,
            Self::Cycle | Self::Reap | Self::Manage | Self::Inspect => false,
        }
    }

    /// Not a look at the table: a recorder is found at the first use, and a
    /// table may be set up before one is installed.
    pub(super) fn is_measured(self) -> bool {
        self != Self::Inspect
    }

    /// The command of SQL, where it is one.
    pub(super) fn command(self) -> Option<&'static str> {
        match self {
            Self::Load | Self::Inspect => Some("SELECT"),
            Self::Insert => Some("INSERT"),
            Self::Save | Self::Touch => Some("UPDATE"),
            Self::Destroy | Self::Reap => Some("DELETE"),
            Self::Cycle | Self::Manage => None,
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
