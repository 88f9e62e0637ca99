use std::{fmt, sync::Arc};

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use crate::{
    Error, ErrorKind,
    format::{ColumnNames, Format, Layout, OldId},
    store::{
        inspect::{Columns, Document, Instant},
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
    pub(crate) layout: &'static dyn Layout,
    pub(crate) old_id: OldId,
    pub(crate) load: Sizes,
    pub(crate) insert: Sizes,
    pub(crate) save: Sizes,
    pub(crate) touch: Sizes,
    pub(crate) destroy: Sizes,
    pub(crate) cycle_lock: SqlStr,
    pub(crate) cycle_copy: SqlStr,
    pub(crate) cycle_forward: SqlStr,
    pub(crate) reap: SqlStr,
    pub(crate) find: SqlStr,
}

impl Table {
    pub(crate) fn new(name: TableName, columns: Columns, format: &dyn Format) -> Self {
        // The name comes last, because it can read like a part of a statement.
        let statement = |sql| {
            let sql = format.columns().render(&columns.render(sql));
            safe(name.render(&sql))
        };
        let sizes = |one, many| Sizes {
            one: statement(one),
            many: statement(many),
        };
        Self {
            load: sizes(
                include_str!("sql/load_one.sql"),
                include_str!("sql/load.sql"),
            ),
            insert: sizes(
                include_str!("sql/insert_one.sql"),
                include_str!("sql/insert.sql"),
            ),
            save: sizes(
                include_str!("sql/save_one.sql"),
                include_str!("sql/save.sql"),
            ),
            touch: sizes(
                include_str!("sql/touch_one.sql"),
                include_str!("sql/touch.sql"),
            ),
            destroy: sizes(
                include_str!("sql/destroy_one.sql"),
                include_str!("sql/destroy.sql"),
            ),
            cycle_lock: statement(include_str!("sql/cycle_lock.sql")),
            cycle_copy: statement(include_str!("sql/cycle_copy.sql")),
            cycle_forward: statement(include_str!("sql/cycle_forward.sql")),
            reap: statement(include_str!("sql/reap.sql")),
            find: statement(include_str!("sql/find.sql")),
            layout: format.layout(),
            old_id: format.old_id(),
            name,
            columns,
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

impl ColumnNames {
    /// The same statement for a table whose three columns have these names.
    fn render(&self, sql: &str) -> String {
        if *self == Self::OURS {
            return sql.to_owned();
        }
        let [id, expiry, session] = [self.id, self.expiry, self.session].map(quoted);
        sql.replace(
            "(id, expiry, session",
            &format!("({id}, {expiry}, {session}"),
        )
        .replace("SELECT t.id\n", &format!("SELECT t.{id} AS id\n"))
        .replace("t.id", &format!("t.{id}"))
        .replace("t.expiry", &format!("t.{expiry}"))
        .replace("t.session", &format!("t.{session}"))
        .replace("SET expiry =", &format!("SET {expiry} ="))
        .replace("SET session =", &format!("SET {session} ="))
        .replace("    expiry =", &format!("    {expiry} ="))
    }
}

/// Identifiers are quoted and values are bound, so no visitor's string gets in.
fn safe(sql: String) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(sql)).into_sql_str()
}

impl Columns {
    /// The same statement for the columns that this table has.
    fn render(&self, sql: &str) -> String {
        let sql = self.render_document(sql);
        let sql = match &self.expiry {
            Instant::Zoned => sql,
            Instant::Local(zone) => render_local_expiry(&sql, zone),
        };
        self.render_optional(&sql)
    }

    fn render_document(&self, sql: &str) -> String {
        match self.document {
            Document::Json => sql.to_owned(),
            Document::Jsonb => sql.replace("json_send(", "jsonb_send("),
        }
    }

    /// All columns but the three that every statement names go along when a
    /// session gets a new id, the application's own among them.
    fn render_optional(&self, sql: &str) -> String {
        let list = |of: &str| -> String {
            self.carried
                .iter()
                .map(|column| format!(", {of}{}", quoted(column)))
                .collect()
        };
        let mut sql = sql
            .replace(
                "session, created, user_id)",
                &format!("session{})", list("")),
            )
            .replace(",\n       t.created, t.user_id", &list("t."));
        if !self.has_created() {
            sql = sql.replace("t.created AS created", "NULL::timestamptz AS created");
        }
        if !self.has_user_id() {
            sql = sql.replace(",\n    user_id = NULL", "");
        }
        sql
    }
}

/// A `timestamp` holds the clock of `zone`: compare and write in its terms, so
/// that an index on the column still serves.
fn render_local_expiry(sql: &str, zone: &str) -> String {
    let local = format!(" AT TIME ZONE '{}'", zone.replace('\'', "''"));
    let sql = sql
        .replace("t.expiry > now()", &format!("t.expiry > (now(){local})"))
        .replace("t.expiry <= now()", &format!("t.expiry <= (now(){local})"))
        .replace(
            "t.expiry AS expires",
            &format!("t.expiry{local} AS expires"),
        );
    let mut parts = sql.split("to_timestamp(");
    let mut rendered = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (argument, rest) = part.split_at(end_of_argument(part));
        rendered += &format!("(to_timestamp({argument}){local}){}", &rest[1..]);
    }
    rendered
}

/// Where the parenthesis closes that was opened before `sql`.
fn end_of_argument(sql: &str) -> usize {
    let mut depth = 1_u32;
    let closes = |(_, octet): &(usize, u8)| {
        match octet {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        depth == 0
    };
    let end = sql.bytes().enumerate().find(closes);
    end.map_or(sql.len(), |(at, _)| at)
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

    /// As connect-pg-simple calls them.
    const EXPRESS: ColumnNames = ColumnNames {
        id: "sid",
        expiry: "expire",
        session: "sess",
    };

    #[test]
    fn columns_of_other_names_are_named_in_every_statement() {
        for sql in [
            include_str!("sql/load.sql"),
            include_str!("sql/load_one.sql"),
            include_str!("sql/insert.sql"),
            include_str!("sql/insert_one.sql"),
            include_str!("sql/save.sql"),
            include_str!("sql/save_one.sql"),
            include_str!("sql/touch.sql"),
            include_str!("sql/touch_one.sql"),
            include_str!("sql/destroy.sql"),
            include_str!("sql/destroy_one.sql"),
            include_str!("sql/cycle_lock.sql"),
            include_str!("sql/cycle_copy.sql"),
            include_str!("sql/cycle_forward.sql"),
            include_str!("sql/reap.sql"),
            include_str!("sql/find.sql"),
        ] {
            let rendered = EXPRESS.render(sql);
            for ours in [
                "t.id",
                "t.expiry",
                "t.session",
                "(id, expiry",
                "SET session",
                "SET expiry",
            ] {
                assert!(!rendered.contains(ours), "{ours} in {rendered}");
            }
            assert!(!rendered.contains("\n    expiry ="), "{rendered}");
        }
        let reap = EXPRESS.render(include_str!("sql/reap.sql"));
        assert!(
            reap.contains(r#"SELECT t."sid" AS id"#) && reap.contains("dead.id"),
            "{reap}"
        );
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
