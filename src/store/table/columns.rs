//! The columns of a table, as far as the statements depend on them. It sends no query:
//! [`inspect`](super::inspect) finds them.

use crate::{
    expiry::{Times, Written},
    store::TableReport,
};

/// The type of the column `session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Json,
    Jsonb,
}

/// The type of the column `expiry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Instant {
    /// `timestamptz`
    Zoned,
    /// `timestamp`, in the local time of this zone
    Local(String),
}

/// The properties of a table that the statements depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) document: Document,
    pub(crate) expiry: Instant,
    /// All columns that are copied when a session gets a new id, except `id`, `expiry` and
    /// `session`.
    pub(crate) carried: Vec<String>,
    /// Those of [`OPTIONAL`] that exist with a type that the store can use.
    pub(crate) optional: Vec<&'static str>,
    pub(crate) has_unique_id: bool,
    pub(crate) has_expiry_index: bool,
    pub(crate) has_user_id_index: bool,
    pub(crate) has_external_id_index: bool,
    pub(crate) has_handle_index: bool,
    /// Whether the role may read each column, including those of the application.
    pub(crate) may_read_all: bool,
    pub(crate) has_tombstones: bool,
    /// Whether this role may add columns and indexes.
    pub(crate) may_be_altered: bool,
    /// Whether the database can store every character.
    pub(crate) encodes_all_text: bool,
}

impl Columns {
    pub(crate) fn expiry_has_time_zone(&self) -> bool {
        self.expiry == Instant::Zoned
    }

    pub(crate) fn has_created(&self) -> bool {
        self.has("created")
    }

    pub(crate) fn has_user_id(&self) -> bool {
        self.has("user_id")
    }

    pub(crate) fn has_last_seen(&self) -> bool {
        self.has("last_seen")
    }

    /// The times of a row that was inserted.
    pub(in crate::store) fn times_of_new(&self, written: Written) -> Times {
        let Written { now, expires } = written;
        Times {
            now,
            expires,
            created: self.has_created().then_some(now),
            seen: self.has_last_seen().then_some(now),
        }
    }

    pub(crate) fn has(&self, optional: &str) -> bool {
        self.optional.contains(&optional)
    }

    /// Whether the table has the result of every migration.
    pub(crate) fn are_complete(&self) -> bool {
        let has_columns = OPTIONAL.iter().all(|(column, _)| self.has(column));
        let has_indexes =
            self.has_expiry_index && self.has_user_id_index && self.has_external_id_index;
        has_columns && has_indexes
    }

    pub(crate) fn report(&self) -> TableReport {
        TableReport {
            absolute_timeout: self.has_created(),
            per_user_sessions: self.has_user_id(),
            last_seen: self.has_last_seen(),
            device: self.has("device"),
            external_id: self.has("external_id"),
            expiry_index: self.has_expiry_index,
            unique_id: self.has_unique_id,
            expiry_has_time_zone: self.expiry_has_time_zone(),
            encodes_all_text: self.encodes_all_text,
            tombstones: self.has_tombstones,
        }
    }
}

/// The columns that a table may lack, in the order of the statements.
pub(in crate::store) const OPTIONAL: [(&str, &str); 5] = [
    ("created", "timestamptz"),
    ("user_id", "text"),
    ("last_seen", "timestamptz"),
    ("device", "json"),
    ("external_id", "text"),
];
