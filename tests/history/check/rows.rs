//! The table at the end has the sessions of the browsers, those whose cookie was in a lost
//! response, and no others.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use std::collections::{BTreeMap, HashSet};

use super::{Books, Found, LifeRecord, contents::Pages};
use crate::{
    record::{Entry, GivenCookie, Life, Moment, Outcome},
    site::{Deed, Seen},
};

#[derive(Debug)]
pub(crate) struct StoredRow {
    pub(crate) id: String,
    pub(crate) document: Map<String, Value>,
    pub(crate) is_live: bool,
}

impl StoredRow {
    /// The life that began it; `None` for a forwarding.
    pub(crate) fn owner(&self) -> Option<Life> {
        self.number("owner")
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.document.get(key)?.as_u64()
    }

    fn seen(&self) -> Seen {
        let list = self.document.get("list").and_then(Value::as_array);
        let values = self.document.iter().filter(|(key, _)| key.len() == 1);
        Seen {
            owner: self.owner(),
            count: self.number("count").unwrap_or_default(),
            list: list
                .into_iter()
                .flatten()
                .filter_map(Value::as_u64)
                .collect(),
            values: values
                .filter_map(|(key, value)| Some((key.clone(), value.as_u64()?)))
                .collect(),
        }
    }

    fn is_forwarding(&self) -> bool {
        self.document.len() == 1 && self.document.contains_key("_session")
    }
}

/// `end` is when the table was read, with nothing in flight any more.
pub(super) fn check(books: &Books<'_>, rows: &[StoredRow], end: Moment, found: &mut Found) {
    let held: HashSet<_> = books.held.iter().map(|token| row_id(token)).collect();
    let mut by_life: BTreeMap<Life, Vec<&StoredRow>> = BTreeMap::new();
    for row in rows {
        match row.owner() {
            Some(life) => by_life.entry(life).or_default().push(row),
            None if row.is_forwarding() => {}
            None => found.at_the_end(format!("a row without an owner: {row:?}")),
        }
    }
    for (life, record) in &books.lives {
        let rows = by_life.remove(life).unwrap_or_default();
        if record.may_be_split_by(end) {
            continue;
        }
        check_number(*life, record, &rows, end, found);
        for row in rows {
            let is_held = held.contains(&row.id);
            check_place(*life, record, row, is_held, end, found);
            let read = as_read(*life, row, end);
            Pages::new(books, *life, record).check(&read, &row.seen(), found);
        }
    }
    for (life, rows) in by_life {
        found.at_the_end(format!(
            "rows of a session that no request began, {life}: {rows:?}"
        ));
    }
}

fn check_number(
    life: Life,
    record: &LifeRecord<'_>,
    rows: &[&StoredRow],
    end: Moment,
    found: &mut Found,
) {
    if rows.len() > 1 {
        found.at_the_end(format!("session {life} has several rows: {rows:?}"));
    }
    let is_begun = record
        .entries
        .iter()
        .any(|entry| entry.deed == Deed::Begin && entry.is_done());
    if rows.is_empty() && is_begun && !record.may_be_over_by(end) {
        found.at_the_end(format!("session {life} has lost its row"));
    }
}

fn check_place(
    life: Life,
    record: &LifeRecord<'_>,
    row: &StoredRow,
    is_held: bool,
    end: Moment,
    found: &mut Found,
) {
    if record.is_destroyed_by(end) {
        found.at_the_end(format!("a row of the destroyed session {life}: {row:?}"));
    }
    if record.is_expired_by(end) && row.is_live {
        found.at_the_end(format!("the expired session {life} lives: {row:?}"));
    }
    if row.is_live && !is_held && !record.may_have_lost_its_cookie() {
        found.at_the_end(format!("an orphan of session {life}: {row:?}"));
    }
}

/// The row as a request at the end would read it.
fn as_read(life: Life, row: &StoredRow, end: Moment) -> Entry {
    Entry {
        number: 0,
        life: Some(life),
        token: None,
        deed: Deed::Read,
        key: "",
        sent: end,
        ended: end,
        outcome: Outcome::Done(row.seen(), GivenCookie::None),
    }
}

impl LifeRecord<'_> {
    /// Whether a response was lost that gave the session its first or another
    /// cookie, or that took it.
    fn may_have_lost_its_cookie(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| {
            let moves = entry.cycles() || matches!(entry.deed, Deed::Begin | Deed::Destroy);
            moves && matches!(entry.outcome, Outcome::InDoubt(_))
        })
    }
}

/// The documented form: the digest of the cookie as a browser sends it.
fn row_id(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("__Host-id={token}")))
}
