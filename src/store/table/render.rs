//! The statements, written for the default table, as another table needs them.

use crate::{
    format::ColumnNames,
    store::table::{
        columns::{Columns, Document, Instant, OPTIONAL},
        name::quoted,
    },
};

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

impl Columns {
    /// The same statement for the columns that this table has.
    pub(in crate::store) fn render(&self, sql: &str) -> String {
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
            Document::Jsonb => sql.replace("pg_catalog.json_send(", "pg_catalog.jsonb_send("),
        }
    }

    /// All columns but the three that every statement names are optional, and
    /// go along when a session gets a new id, the application's own among them.
    fn render_optional(&self, sql: &str) -> String {
        let mut sql = self.render_copied(sql);
        for (column, r#type) in OPTIONAL {
            if !self.has(column) {
                sql = without_assignment(&sql, column)
                    .replace(&format!("t.{column}"), &format!("NULL::{type}"));
            }
        }
        sql
    }

    /// The columns of a new row and the values for them, where the statement
    /// names the optional ones.
    fn render_copied(&self, sql: &str) -> String {
        let names = OPTIONAL.map(|(column, _)| column).join(", ");
        let Some((head, rest)) = sql.split_once(&format!(", {names})")) else {
            return sql.to_owned();
        };
        let (between, values) = rest.split_once(DOCUMENT_VALUE).expect("as it is written");
        let (values, tail) = values.split_once('\n').expect("as it is written");
        let copies = tail.contains(" AS t");
        let (mut columns, mut copied) = (String::new(), String::new());
        for column in &self.carried {
            let value = match position(column) {
                Some(at) if self.has(column) => values.split(", ").nth(at).map(str::to_owned),
                _ => copies.then(|| format!("t.{}", quoted(column))),
            };
            if let Some(value) = value {
                columns += &format!(", {}", quoted(column));
                copied += &format!(", {value}");
            }
        }
        format!("{head}{columns}){between}::json{copied}\n{tail}")
    }
}

/// What precedes the values of the optional columns.
const DOCUMENT_VALUE: &str = "::json,\n       ";

fn position(column: &str) -> Option<usize> {
    OPTIONAL.iter().position(|(name, _)| *name == column)
}

/// The statement without what it sets the column to.
fn without_assignment(sql: &str, column: &str) -> String {
    let Some((before, rest)) = sql.split_once(&format!(",\n    {column} = ")) else {
        return sql.to_owned();
    };
    let (line, tail) = rest.split_once('\n').unwrap_or((rest, ""));
    let comma = if line.ends_with(',') { "," } else { "" };
    format!("{before}{comma}\n{tail}")
}

/// A `timestamp` holds the clock of `zone`. It is compared as the instant that
/// it stands for: in the hour that is repeated in autumn a comparison of clocks
/// would end a session early, and bring it back. The reaper compares the clocks
/// too, so that an index on the column serves. The column `created` always has a
/// time zone.
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
            "t.expiry AS expires",
            &format!("t.expiry{local} AS expires"),
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

    /// As connect-pg-simple calls them.
    const EXPRESS: ColumnNames = ColumnNames {
        id: "sid",
        expiry: "expire",
        session: "sess",
    };

    #[test]
    fn columns_of_other_names_are_named_in_every_statement() {
        for sql in [
            include_str!("../sql/load.sql"),
            include_str!("../sql/load_one.sql"),
            include_str!("../sql/insert.sql"),
            include_str!("../sql/insert_one.sql"),
            include_str!("../sql/save.sql"),
            include_str!("../sql/save_one.sql"),
            include_str!("../sql/touch.sql"),
            include_str!("../sql/touch_one.sql"),
            include_str!("../sql/destroy.sql"),
            include_str!("../sql/destroy_one.sql"),
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
            include_str!("../sql/everyone.sql"),
            include_str!("../sql/undated.sql"),
            include_str!("../sql/reap.sql"),
            include_str!("../sql/find.sql"),
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
