use std::{fmt, sync::Arc};

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use crate::{
    Error, ErrorKind,
    format::{Format, Layout, OldId},
    store::{
        clock::Clock,
        columns::{Columns, Document},
        sql::{Pooling, Sql},
        statements::Sizes,
    },
};

/// Postgres cuts longer identifiers off without a word.
const MAX_IDENTIFIER: usize = 63;
/// The name that all `.sql` files are written for.
const DEFAULT_TABLE: &str = r#""public"."session""#;

/// Schema and table, as the catalog spells them.
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
    /// When Postgres could not keep the name as it is.
    pub(crate) fn check(&self) -> Result<(), Error> {
        [&self.schema, &self.table]
            .into_iter()
            .try_for_each(|name| check_identifier(name))
    }

    /// The name of something that belongs to this table, never longer than
    /// Postgres keeps it and never that of another table's.
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

    /// An advisory lock for one purpose at this table, which no other crate
    /// would take. Two purposes that share one by chance only wait for each
    /// other.
    pub(super) fn lock_key(&self, purpose: &str) -> i64 {
        let digest = Sha256::digest(format!("axum-pg-session {purpose} {self}"));
        let (first, _) = digest.split_first_chunk().expect("32 octets");
        i64::from_be_bytes(*first)
    }

    /// The same statement for this table instead of the default one.
    pub(crate) fn render(&self, sql: &str) -> String {
        sql.replace(DEFAULT_TABLE, &self.to_string())
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

/// A table that was looked at, and the statements for it.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: TableName,
    pub(crate) columns: Columns,
    pub(super) clock: Clock,
    pub(crate) layout: &'static dyn Layout,
    pub(crate) old_id: OldId,
    pub(crate) load: Sizes,
    pub(crate) insert: Sizes,
    pub(crate) save: Sizes,
    pub(crate) touch: Sizes,
    pub(crate) destroy: Sizes,
    pub(crate) reissue: ReissueStatements,
    pub(crate) users: UserStatements,
    pub(crate) reap: Sql,
    pub(crate) reap_find: Sql,
    pub(crate) reap_lock: Sql,
    pub(crate) reap_some: Sql,
    pub(crate) find: Sql,
    #[cfg(feature = "testing")]
    pub(crate) age: Sql,
}

/// Those of a session that gets a new id.
#[derive(Debug)]
pub(crate) struct ReissueStatements {
    pub(crate) lock: Sql,
    pub(crate) copy: Sql,
    pub(crate) forward: Sql,
    pub(crate) undo: Sql,
    pub(crate) login_lock: Sql,
    pub(crate) login_copy: Sql,
    pub(crate) login_insert: Sql,
}

impl ReissueStatements {
    fn new(statement: impl Fn(&str) -> Sql) -> Self {
        Self {
            lock: statement(include_str!("sql/cycle_lock.sql")),
            copy: statement(include_str!("sql/cycle_copy.sql")),
            forward: statement(include_str!("sql/cycle_forward.sql")),
            undo: statement(include_str!("sql/undo.sql")),
            login_lock: statement(include_str!("sql/advisory_lock.sql")),
            login_copy: statement(include_str!("sql/login_copy.sql")),
            login_insert: statement(include_str!("sql/login_insert.sql")),
        }
    }
}

/// Those of the sessions of a user, and of everyone.
#[derive(Debug)]
pub(crate) struct UserStatements {
    pub(crate) list: Sql,
    pub(crate) count: Sql,
    pub(crate) some: Sql,
    pub(crate) destroy: Sql,
    pub(crate) everyone: Sql,
    pub(crate) undated: Sql,
}

impl UserStatements {
    fn new(statement: impl Fn(&str) -> Sql) -> Self {
        Self {
            list: statement(include_str!("sql/user_list.sql")),
            count: statement(include_str!("sql/user_count.sql")),
            some: statement(include_str!("sql/user_some.sql")),
            destroy: statement(include_str!("sql/user_destroy.sql")),
            everyone: statement(include_str!("sql/everyone.sql")),
            undated: statement(include_str!("sql/undated.sql")),
        }
    }
}

/// The statements for one row and for many.
macro_rules! both {
    ($sizes:ident, $name:literal) => {
        $sizes(
            include_str!(concat!("sql/", $name, "_one.sql")),
            include_str!(concat!("sql/", $name, ".sql")),
        )
    };
}

impl Table {
    pub(super) fn new(
        name: TableName,
        columns: Columns,
        clock: Clock,
        format: &dyn Format,
        pooling: Pooling,
    ) -> Self {
        // The name comes last, because it can read like a part of a statement.
        let statement = |sql: &str| {
            let sql = format.columns().render(&columns.render(sql));
            Sql::new(safe(name.render(&sql)), pooling)
        };
        let sizes = |one, many| Sizes {
            one: statement(one),
            many: statement(many),
        };
        Self {
            load: both!(sizes, "load"),
            insert: both!(sizes, "insert"),
            save: both!(sizes, "save"),
            touch: both!(sizes, "touch"),
            destroy: both!(sizes, "destroy"),
            reissue: ReissueStatements::new(statement),
            users: UserStatements::new(statement),
            reap: statement(include_str!("sql/reap.sql")),
            reap_find: statement(include_str!("sql/reap_find.sql")),
            reap_lock: statement(include_str!("sql/reap_lock.sql")),
            reap_some: statement(include_str!("sql/reap_some.sql")),
            find: statement(include_str!("sql/find.sql")),
            #[cfg(feature = "testing")]
            age: statement(include_str!("sql/age.sql")),
            layout: format.layout(),
            old_id: format.old_id(),
            name,
            columns,
            clock,
        }
    }

    /// What `sha256(json_send(session))` answers for this text.
    pub(crate) fn digest(&self, text: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        if self.columns.document == Document::Jsonb {
            // jsonb_send puts its version before the text.
            digest.update([1]);
        }
        digest.update(text);
        digest.finalize().into()
    }

    /// Whether the table stores a document letter by letter as it was sent.
    pub(crate) fn keeps_spelling(&self) -> bool {
        self.columns.document == Document::Json
    }
}

/// Identifiers are quoted and values are bound, so no visitor's string gets in.
fn safe(sql: String) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(sql)).into_sql_str()
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
