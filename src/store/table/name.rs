//! The table's name, and names that are derived from it. It doesn't know whether the table
//! exists.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::{Error, ErrorKind};

/// Postgres silently truncates longer identifiers.
const MAX_IDENTIFIER: usize = 63;

/// The name that all `.sql` files are written for.
const DEFAULT_TABLE: &str = r#""public"."session""#;

/// The name that the files for another system's table are written for.
const DEFAULT_OTHER_TABLE: &str = r#""tower_sessions"."session""#;

/// Schema and table, as the catalog has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) schema: String,
    pub(crate) table: String,
}

impl Default for TableName {
    fn default() -> Self {
        Self {
            schema: "public".into(),
            table: "session".into(),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

impl TableName {
    /// # Errors
    ///
    /// If Postgres could not keep the name unchanged.
    pub(crate) fn check(&self) -> Result<(), Error> {
        [&self.schema, &self.table]
            .into_iter()
            .try_for_each(|name| check_identifier(name))
    }

    /// The name of an object that belongs to this table. It is never too long for Postgres, and
    /// two tables never share one.
    pub(crate) fn derived(&self, prefix: &str, suffix: &str) -> String {
        let name = format!("{prefix}{}{suffix}", self.table);
        if name.len() <= MAX_IDENTIFIER {
            return name;
        }
        let digest = Sha256::digest(&self.table);
        let mark = format!(
            "_{:02x}{:02x}{:02x}{:02x}",
            digest[0], digest[1], digest[2], digest[3]
        );
        let room = MAX_IDENTIFIER - prefix.len() - mark.len() - suffix.len();
        let kept = &self.table[..self.table.floor_char_boundary(room)];
        format!("{prefix}{kept}{mark}{suffix}")
    }

    /// The key of an advisory lock for one purpose of this table. No other crate uses it. If two
    /// purposes have the same key by chance, they only wait for each other.
    pub(in crate::store) fn lock_key(&self, purpose: &str) -> i64 {
        let digest = Sha256::digest(format!("axum-pg-session {purpose} {self}"));
        let (first, _) = digest.split_first_chunk().expect("32 bytes");
        i64::from_be_bytes(*first)
    }

    /// The same statement for this table instead of the default one.
    pub(crate) fn render(&self, sql: &str) -> String {
        sql.replace(DEFAULT_TABLE, &self.to_string())
    }

    /// The same statement for this table and one of another system. Neither name is looked
    /// for in the other one.
    pub(crate) fn render_beside(&self, other: &Self, sql: &str) -> String {
        let parts: Vec<_> = sql
            .split(DEFAULT_OTHER_TABLE)
            .map(|part| self.render(part))
            .collect();
        parts.join(&other.to_string())
    }
}

fn check_identifier(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > MAX_IDENTIFIER || name.contains('\0') {
        return Err(Error::new(
            ErrorKind::Setup,
            format!(
                "{name:?} can't name a schema or table: Postgres wants 1 to 63 bytes without NUL"
            ),
        ));
    }
    Ok(())
}

pub(crate) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(table: &str) -> TableName {
        TableName {
            table: table.into(),
            ..TableName::default()
        }
    }

    #[test]
    fn names_are_quoted_whatever_they_contain() {
        let name = TableName {
            schema: "a.b".into(),
            table: "c\"d; DROP TABLE x".into(),
        };
        assert_eq!(name.to_string(), r#""a.b"."c""d; DROP TABLE x""#);
    }

    #[test]
    fn two_tables_can_each_have_the_default_name_of_the_other() {
        let [ours, other] = ["tower_sessions", "public"].map(|schema| TableName {
            schema: schema.into(),
            ..TableName::default()
        });
        let sql = format!("{DEFAULT_TABLE} {DEFAULT_OTHER_TABLE}");
        let expected = format!("{DEFAULT_OTHER_TABLE} {DEFAULT_TABLE}");
        assert_eq!(ours.render_beside(&other, &sql), expected);
    }

    #[test]
    fn a_name_that_postgres_would_cut_is_refused() {
        assert!(named(&"t".repeat(63)).check().is_ok());
        for table in [String::new(), "t".repeat(64), "a\0b".into(), "ü".repeat(32)] {
            assert!(named(&table).check().is_err(), "{table:?}");
        }
    }

    #[test]
    fn derived_names_of_long_tables_differ() {
        let one = named(&"ü".repeat(31)).derived("", "_expiry_idx");
        let two = named(&format!("{}u", "ü".repeat(31))).derived("", "_expiry_idx");
        assert!(one.len() <= MAX_IDENTIFIER && two.len() <= MAX_IDENTIFIER);
        assert_ne!(one, two);
        assert_eq!(
            named("session").derived("", "_expiry_idx"),
            "session_expiry_idx"
        );
    }
}
