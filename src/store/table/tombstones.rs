//! The triggers that keep a late write of another application from reviving a destroyed session.
//! It renders them, and decides whether those of a table are up to date. It sends no statement.

use crate::{
    format::ColumnNames,
    store::table::{
        columns::Instant,
        name::{TableName, quoted},
    },
};

const SQL: &str = include_str!("../../../migrations/shared/0009_tombstones.sql");
/// What encloses the functions in that file.
const QUOTES: &str = "$axum_pg_session$";

/// The names of the triggers, in the order of [`functions`].
pub(in crate::store) fn triggers(name: &TableName) -> [String; 2] {
    ["_leave_tombstone", "_keep_destroyed"].map(|suffix| name.derived("", suffix))
}

/// The names of the table of destroyed ids and of its index.
pub(in crate::store) fn relations(name: &TableName) -> [String; 2] {
    ["_tombstones", "_tombstones_until_idx"].map(|suffix| name.derived("", suffix))
}

/// Renders the statements that create the table, the functions and the triggers. They convert a
/// `timestamp` as the other statements do.
pub(in crate::store) fn render(name: &TableName, columns: ColumnNames, expiry: &Instant) -> String {
    let expiry_of_row = format!("OLD.{}", quoted(columns.expiry));
    let expiry_of_row = match expiry {
        Instant::Zoned => expiry_of_row,
        Instant::Local(zone) => {
            let zone = zone.replace('\'', "''");
            format!("({expiry_of_row} AT TIME ZONE '{zone}')")
        }
    };
    // The names come last, because they can read like a part of a statement.
    columns.render_migration(name, &SQL.replace("OLD.expiry", &expiry_of_row))
}

/// The bodies of the functions of both triggers, as the catalog has them. They differ by time zone
/// and by version of this crate.
pub(in crate::store) fn functions(
    name: &TableName,
    columns: ColumnNames,
    expiry: &Instant,
) -> Vec<String> {
    let sql = render(name, columns, expiry);
    let quoted = sql.split(QUOTES).skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_differ_by_zone_and_table() {
        let name = TableName::default();
        let zone = |zone: &str| Instant::Local(zone.into());
        let of = |expiry| functions(&name, ColumnNames::OURS, &expiry);
        assert_eq!(of(Instant::Zoned).len(), 2);
        assert!(of(zone("Asia/Tokyo"))[0].contains("AT TIME ZONE 'Asia/Tokyo'"));
        assert_ne!(of(zone("UTC")), of(zone("Asia/Tokyo")));
        let strange = TableName {
            table: "OLD.expiry\"t.id".into(),
            ..TableName::default()
        };
        let rendered = render(&strange, ColumnNames::OURS, &zone("UTC"));
        assert!(
            rendered.contains(r#""OLD.expiry""t.id_tombstones""#),
            "{rendered}"
        );
    }
}
