//! Renders the statements for a table with other columns. The files in `sql/` are written for
//! the default table; nothing here knows which statement it renders.
//!
//! How it works, in this order:
//!
//! 1. The type of the document column selects `json_send` or `jsonb_send`.
//! 2. Each statement that reads `expiry` fails if the column has another type by now.
//! 3. If `expiry` is a `timestamp`, each comparison and each new value is converted to its
//!    time zone.
//! 4. Marks at the ends of lines remove or replace lines for columns that the table lacks, or
//!    add columns of the application.
//! 5. The names of the three required columns are replaced.
//!
//! All of this replaces text, so the files in `sql/` must use the forms that are named here.
//! Unit tests check each statement.

use crate::{
    format::ColumnNames,
    store::table::{
        columns::{Columns, Document, Instant, OPTIONAL},
        name::{TableName, quoted},
    },
};

/// The ends of the names of what the migrations create, after the name of the table.
const SUFFIXES: [&str; 9] = [
    "_expiry_idx",
    "_user_id_idx",
    "_external_id_idx",
    "_user_in",
    "_handle_idx",
    "_tombstones",
    "_tombstones_until_idx",
    "_leave_tombstone",
    "_keep_destroyed",
];

impl ColumnNames {
    /// The same statement for a table whose three columns have these names.
    pub(in crate::store) fn render(&self, sql: &str) -> String {
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

impl ColumnNames {
    /// The same migration for this table, whose three columns have these names.
    pub(in crate::store) fn render_migration(&self, name: &TableName, sql: &str) -> String {
        let schema = quoted(&name.schema);
        let named = SUFFIXES
            .iter()
            .fold(self.render_columns(sql), |sql, suffix| {
                let derived = quoted(&name.derived("", suffix));
                sql.replace(
                    &format!("\"public\".\"session{suffix}\""),
                    &format!("{schema}.{derived}"),
                )
                .replace(&format!("\"session{suffix}\""), &derived)
            });
        // This comes last, because a table can have the name of an index.
        name.render(&named)
    }

    fn render_columns(&self, sql: &str) -> String {
        if *self == Self::OURS {
            return sql.to_owned();
        }
        let [id, expiry, session] = [self.id, self.expiry, self.session].map(quoted);
        sql.replace(
            "    id text PRIMARY KEY,\n    expiry timestamptz NOT NULL,\n    session json\n",
            &format!(
                "    {id} text PRIMARY KEY,\n    {expiry} timestamptz NOT NULL,\n    \
                 {session} json NOT NULL\n"
            ),
        )
        .replace("(expiry)", &format!("({expiry})"))
        .replace("(session::json)", &format!("({session}::json)"))
        .replace("replace(id,", &format!("replace({id},"))
        .replace("t.id", &format!("t.{id}"))
        .replace("OLD.id", &format!("OLD.{id}"))
        .replace("NEW.id", &format!("NEW.{id}"))
    }
}

impl Columns {
    /// The same statement for the columns that this table has.
    pub(in crate::store) fn render(&self, sql: &str) -> String {
        let sql = self.render_document(sql);
        let sql = self.render_expiry(&sql);
        self.render_optional(&sql)
    }

    fn render_document(&self, sql: &str) -> String {
        match self.document {
            Document::Json => sql.to_owned(),
            Document::Jsonb => sql.replace("pg_catalog.json_send(", "pg_catalog.jsonb_send("),
        }
    }

    fn render_expiry(&self, sql: &str) -> String {
        let zone = match &self.expiry {
            Instant::Zoned => None,
            Instant::Local(zone) => Some(&**zone),
        };
        let sql = check_type_of_expiry(sql, zone.map_or("tstzrange", |_| "tsrange"));
        match zone {
            None => sql,
            Some(zone) => render_local_expiry(&sql, zone),
        }
    }

    /// Applies the marks at the ends of lines:
    ///
    /// - A line with `-- if created` is left out if the table lacks the column.
    /// - A line with `-- if carried created` also if a new row must not set it, such
    ///   as a generated column.
    /// - `-- carried columns` and `-- carried values` stand for the columns of the
    ///   application, which keep their values when a session gets a new id.
    ///
    /// In the remaining lines, the value of a missing column is NULL.
    fn render_optional(&self, sql: &str) -> String {
        let mut rendered = String::new();
        for line in sql.lines() {
            let (text, mark) = line.rsplit_once("-- ").unwrap_or((line, ""));
            let words: Vec<_> = mark.split(' ').collect();
            let text = match words[..] {
                ["carried", "columns"] => self.carry(""),
                ["carried", "values"] => self.carry("t."),
                ["if", column] if !self.has(column) => continue,
                ["if", "carried", column] if !self.has(column) || !self.carries(column) => continue,
                ["if", _] | ["if", "carried", _] => self.without_missing(text),
                _ => self.without_missing(line),
            };
            rendered += text.trim_end();
            rendered.push('\n');
        }
        rendered
    }

    fn without_missing(&self, sql: &str) -> String {
        let mut sql = sql.to_owned();
        for (column, r#type) in OPTIONAL {
            if !self.has(column) {
                sql = sql.replace(&format!("t.{column}"), &format!("NULL::{type}"));
            }
        }
        sql
    }

    pub(in crate::store) fn carries(&self, column: &str) -> bool {
        self.carried.iter().any(|carried| carried == column)
    }

    /// The columns that the statements don't name, with this prefix.
    fn carry(&self, prefix: &str) -> String {
        let unnamed = self.carried.iter().filter(|column| !self.has(column));
        unnamed
            .map(|column| format!("    , {prefix}{}", quoted(column)))
            .collect()
    }
}

/// Makes the statement fail if `expiry` no longer has the type of this range's bounds, or if
/// `created`, where it is compared, is no `timestamptz`.
///
/// If the type changes while a process runs, Postgres converts every comparison by the time
/// zone of the connection, without an error. In another zone, live sessions would count as
/// expired, and be deleted. Only a range never converts its element: the statement fails when
/// Postgres analyzes it, before it reads a row. Because of `true OR`, the planner drops the
/// check, so that it costs nothing.
fn check_type_of_expiry(sql: &str, range: &str) -> String {
    let check = format!("true OR t.expiry OPERATOR(pg_catalog.<@) NULL::pg_catalog.{range}");
    let mut checked = sql.to_owned();
    for comparison in [
        "t.expiry > pg_catalog.now()",
        "t.expiry <= pg_catalog.now()",
    ] {
        checked = checked.replace(comparison, &format!("{comparison} AND ({check})"));
    }
    checked = checked.replace(
        "t.expiry AS expires",
        &format!("CASE WHEN {check} THEN t.expiry END AS expires"),
    );
    let check = "true OR t.created OPERATOR(pg_catalog.<@) NULL::pg_catalog.tstzrange";
    for comparison in [
        "pg_catalog.date_part('epoch', t.created) <= $2",
        "pg_catalog.date_part('epoch', t.created) > $1",
    ] {
        checked = checked.replace(comparison, &format!("{comparison} AND ({check})"));
    }
    checked
}

/// Converts a `timestamp`, which holds the local time of `zone`, to the instant that it
/// means before it is compared. In the hour that is repeated in autumn, a comparison of local
/// times would end a session early and then revive it. The reaper also compares the local
/// times, so that it can use an index on the column. The column `created` always has a time
/// zone.
fn render_local_expiry(sql: &str, zone: &str) -> String {
    let local = format!(" AT TIME ZONE '{}'", zone.replace('\'', "''"));
    let sql = sql
        .replace(
            "t.expiry > pg_catalog.now()",
            &format!("(t.expiry{local}) > pg_catalog.now()"),
        )
        .replace(
            "t.expiry <= pg_catalog.now()",
            &format!(
                "t.expiry <= (pg_catalog.now(){local}) AND (t.expiry{local}) <= pg_catalog.now()"
            ),
        )
        .replace(
            "THEN t.expiry END AS expires",
            &format!("THEN t.expiry{local} END AS expires"),
        )
        .replace(
            "pg_catalog.date_part('epoch', t.expiry)",
            &format!("pg_catalog.date_part('epoch', t.expiry{local})"),
        );
    let mut parts = sql.split("pg_catalog.to_timestamp(");
    let mut rendered = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if rendered.ends_with("created = ") {
            rendered += &format!("pg_catalog.to_timestamp({part}");
            continue;
        }
        let (argument, rest) = part.split_at(end_of_argument(part));
        rendered += &format!("(pg_catalog.to_timestamp({argument}){local}){}", &rest[1..]);
    }
    rendered
}

/// The position in `sql` of the parenthesis that closes one that was opened before it.
fn end_of_argument(sql: &str) -> usize {
    let mut depth = 1_u32;
    let closes = |(_, byte): &(usize, u8)| {
        match byte {
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

    /// The column names of connect-pg-simple.
    const EXPRESS: ColumnNames = ColumnNames {
        id: "sid",
        expiry: "expire",
        session: "sess",
    };

    #[test]
    fn a_statement_names_the_columns_that_the_table_has() {
        let columns = |optional: &[&'static str], carried: &[&str]| Columns {
            document: Document::Json,
            expiry: Instant::Local("-- if created".into()),
            carried: carried.iter().map(|&name| name.to_owned()).collect(),
            optional: optional.to_vec(),
            has_unique_id: true,
            has_expiry_index: true,
            has_user_id_index: true,
            has_external_id_index: true,
            has_handle_index: true,
            may_read_all: true,
            has_tombstones: false,
            may_be_altered: true,
            encodes_all_text: true,
        };
        let sql = "SELECT t.created AS created\n\
                   FROM t WHERE t.expiry > pg_catalog.now()\n\
                   , created = $1 -- if created\n\
                   , created -- if carried created\n-- carried columns\n-- carried values\n";
        let expiry = "FROM t WHERE (t.expiry AT TIME ZONE '-- if created') > pg_catalog.now() \
                      AND (true OR t.expiry OPERATOR(pg_catalog.<@) NULL::pg_catalog.tsrange)\n";
        for (optional, carried, expected) in [
            (
                &["created"][..],
                &["created", "t.created"][..],
                [
                    "t.created AS created",
                    ", created = $1\n, created\n",
                    r#"    , "t.created""#,
                    r#"    , t."t.created""#,
                ],
            ),
            (
                &["created"],
                &["x"],
                [
                    "t.created AS created",
                    ", created = $1\n",
                    r#"    , "x""#,
                    r#"    , t."x""#,
                ],
            ),
            (
                &[],
                &["created"],
                [
                    "NULL::timestamptz AS created",
                    "",
                    r#"    , "created""#,
                    r#"    , t."created""#,
                ],
            ),
        ] {
            let [created, lines, column, value] = expected;
            let expected = format!("SELECT {created}\n{expiry}{lines}{column}\n{value}\n");
            assert_eq!(columns(optional, carried).render(sql), expected);
        }
    }

    #[test]
    fn columns_of_other_names_are_named_in_every_statement() {
        for sql in [
            include_str!("../sql/load.sql"),
            include_str!("../sql/load_one.sql"),
            include_str!("../sql/insert.sql"),
            include_str!("../sql/insert_one.sql"),
            include_str!("../sql/insert_user.sql"),
            include_str!("../sql/insert_user_one.sql"),
            include_str!("../sql/save.sql"),
            include_str!("../sql/save_one.sql"),
            include_str!("../sql/save_user.sql"),
            include_str!("../sql/touch.sql"),
            include_str!("../sql/touch_one.sql"),
            include_str!("../sql/destroy.sql"),
            include_str!("../sql/destroy_one.sql"),
            include_str!("../sql/lock.sql"),
            include_str!("../sql/cycle_lock.sql"),
            include_str!("../sql/cycle_copy.sql"),
            include_str!("../sql/cycle_forward.sql"),
            include_str!("../sql/undo.sql"),
            include_str!("../sql/login_copy.sql"),
            include_str!("../sql/login_insert.sql"),
            include_str!("../sql/user_list.sql"),
            include_str!("../sql/user_count.sql"),
            include_str!("../sql/user_some.sql"),
            include_str!("../sql/user_destroy.sql"),
            include_str!("../sql/external_some.sql"),
            include_str!("../sql/external_destroy.sql"),
            include_str!("../sql/everyone.sql"),
            include_str!("../sql/undated.sql"),
            include_str!("../sql/reap.sql"),
            include_str!("../sql/reap_unread.sql"),
            include_str!("../sql/find.sql"),
            include_str!("../sql/watch.sql"),
            include_str!("../sql/age.sql"),
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
        let reap = EXPRESS.render(include_str!("../sql/reap.sql"));
        assert!(
            reap.contains(r#"SELECT t."sid" AS id"#) && reap.contains("dead.id"),
            "{reap}"
        );
    }
}
