//! What a record must satisfy, whatever happened at the same moment.
//!
//! A request with a response took effect between the moment in which it was
//! sent and the response; one in doubt took effect later than it was sent, once
//! or never. Nothing else is known, and nothing else is assumed.

mod contents;
mod cookies;
mod rows;
mod sockets;
mod whereabouts;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use crate::{
    record::{Entry, Expired, Kept, Life, Moment, Outcome, Token},
    site::Deed,
};

pub(crate) use rows::StoredRow;

/// Something that must not happen.
#[derive(Debug)]
pub(crate) struct Violation {
    /// Of the request that shows it; 0 for the table at the end.
    pub(crate) number: u64,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(f, "at the end: {}", self.what),
            number => write!(f, "request {number}: {}", self.what),
        }
    }
}

/// All that is known of one session.
#[derive(Default)]
struct LifeRecord<'a> {
    /// In the order in which they were sent.
    entries: Vec<&'a Entry>,
    expired: Option<Expired>,
    /// From when on there may be two sessions of this life: a login that meets
    /// another new id of its token begins one of its own, and a copy of what it
    /// saw goes on there. Which of the two a later cookie opens is not known.
    split: Option<Moment>,
}

impl LifeRecord<'_> {
    fn find_split(&mut self) {
        let moved = |entry: &&&Entry| entry.cycles() && entry.may_have_happened();
        let cycles: Vec<_> = self.entries.iter().filter(moved).collect();
        let splits = cycles.iter().filter(|login| {
            login.deed == Deed::Login
                && cycles.iter().any(|other| {
                    other.number != login.number
                        && other.token == login.token
                        && other.sent.is_before(login.ended)
                })
        });
        let first = splits.map(|login| login.sent).min_by_key(|sent| sent.tick);
        self.split = first;
    }

    fn may_be_split_by(&self, moment: Moment) -> bool {
        self.split.is_some_and(|split| split.is_before(moment))
    }
}

/// The record, arranged for the rules.
struct Books<'a> {
    lives: BTreeMap<Life, LifeRecord<'a>>,
    strangers: Vec<&'a Entry>,
    by_number: HashMap<u64, &'a Entry>,
    /// The cookies that the browsers hold at the end.
    held: HashSet<Token>,
}

impl<'a> Books<'a> {
    fn new(kept: &'a Kept, held: HashSet<Token>) -> Self {
        let mut books = Self {
            lives: BTreeMap::new(),
            strangers: Vec::new(),
            by_number: kept
                .entries
                .iter()
                .map(|entry| (entry.number, entry))
                .collect(),
            held,
        };
        let mut entries: Vec<_> = kept.entries.iter().collect();
        entries.sort_by_key(|entry| entry.sent.tick);
        for entry in entries {
            books.enter(entry);
        }
        for expired in &kept.expired {
            books.lives.entry(expired.life).or_default().expired = Some(*expired);
        }
        books.lives.values_mut().for_each(LifeRecord::find_split);
        books
    }

    fn enter(&mut self, entry: &'a Entry) {
        match entry.life {
            Some(life) => self.lives.entry(life).or_default().entries.push(entry),
            None => self.strangers.push(entry),
        }
    }
}

/// Every violation, the earliest request first.
pub(crate) fn violations(
    kept: &Kept,
    rows: &[StoredRow],
    held: HashSet<Token>,
    end: Moment,
) -> Vec<Violation> {
    let books = Books::new(kept, held);
    let mut found = Found::default();
    found.strange_responses(kept);
    for (life, record) in &books.lives {
        whereabouts::check(*life, record, &mut found);
        contents::check(&books, *life, record, &mut found);
        cookies::check(record, &mut found);
    }
    for socket in &kept.sockets {
        if let Some(record) = books.lives.get(&socket.life) {
            sockets::check(socket, record, &mut found);
        }
    }
    cookies::check_strangers(&books.strangers, &mut found);
    cookies::check_fresh(kept, &mut found);
    rows::check(&books, rows, end, &mut found);
    found.0.sort_by_key(|violation| match violation.number {
        0 => u64::MAX,
        number => number,
    });
    found.0
}

#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn at(&mut self, entry: &Entry, what: impl fmt::Display) {
        let (number, deed, life) = (entry.number, entry.deed, entry.life.unwrap_or_default());
        let what = format!("{what} ({deed:?} in session {life})");
        self.0.push(Violation { number, what });
    }

    fn at_the_end(&mut self, what: String) {
        self.0.push(Violation { number: 0, what });
    }

    fn strange_responses(&mut self, kept: &Kept) {
        for entry in &kept.entries {
            if let Outcome::Strange(response) = &entry.outcome {
                self.at(
                    entry,
                    format_args!("a response that no page gives: {response}"),
                );
            }
        }
        for status in kept.reapings.iter().flatten() {
            if ![200, 503].contains(status) {
                self.at_the_end(format!("the reaper returned {status}"));
            }
        }
    }
}
