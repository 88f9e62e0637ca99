//! Contents of a session: everything that was acknowledged, nothing twice, and nothing of another
//! session.

use std::collections::{HashMap, HashSet};

use super::{Books, Found, LifeRecord};
use crate::{
    record::{Entry, Life, Moment},
    site::{Deed, Seen},
    visitor::KEYS,
};

pub(super) fn check(books: &Books<'_>, life: Life, record: &LifeRecord<'_>, found: &mut Found) {
    let page = Pages::new(books, life, record);
    for entry in &record.entries {
        if record.may_be_split_by(entry.ended) {
            continue;
        }
        if let Some(seen) = entry.seen() {
            page.check(entry, seen, found);
        }
    }
}

/// The writes of one session, and who may have seen them.
pub(super) struct Pages<'a> {
    books: &'a Books<'a>,
    life: Life,
    appends: Vec<&'a Entry>,
    increments: Vec<&'a Entry>,
    clears: Vec<&'a Entry>,
    /// By key.
    inserts: HashMap<&'static str, Vec<&'a Entry>>,
    removes: HashMap<&'static str, Vec<&'a Entry>>,
    /// From when on an append is known to have happened: its response arrived, or another request
    /// read it.
    known: HashMap<u64, Moment>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(books: &'a Books<'a>, life: Life, record: &LifeRecord<'a>) -> Self {
        let of = |wanted: &dyn Fn(&Entry) -> bool| -> Vec<&'a Entry> {
            let happened = record
                .entries
                .iter()
                .filter(|entry| entry.may_have_happened());
            happened.copied().filter(|entry| wanted(entry)).collect()
        };
        let by_key =
            |deed: Deed| KEYS.map(|key| (key, of(&|entry| entry.deed == deed && entry.key == key)));
        Self {
            books,
            life,
            appends: of(&Entry::appends),
            increments: of(&|entry| entry.deed == Deed::Increment),
            clears: of(&|entry| entry.deed == Deed::Clear),
            inserts: by_key(Deed::Insert).into(),
            removes: by_key(Deed::Remove).into(),
            known: known(record),
        }
    }

    pub(super) fn check(&self, read: &Entry, seen: &Seen, found: &mut Found) {
        self.check_list(read, seen, found);
        self.check_count(read, seen, found);
        for key in KEYS {
            self.check_value(read, key, seen.values.get(key).copied(), found);
        }
        for key in seen
            .values
            .keys()
            .filter(|key| !KEYS.contains(&key.as_str()))
        {
            found.at(read, format_args!("a key that was never written: {key}"));
        }
    }

    /// The write that made a value, if it can have been read.
    fn writer(
        &self,
        number: u64,
        read: &Entry,
        is_fit: impl Fn(&Entry) -> bool,
    ) -> Result<&'a Entry, String> {
        let writer = self.books.by_number.get(&number).copied();
        let writer = writer.ok_or_else(|| format!("{number}, which was never written"))?;
        if writer.life != Some(self.life) {
            return Err(format!(
                "{number}, which was written in session {:?}",
                writer.life
            ));
        }
        let may_be_seen =
            writer.may_have_happened() && is_fit(writer) && writer.sent.is_before(read.ended);
        match may_be_seen && number != read.number {
            true => Ok(writer),
            false => Err(format!("{number}, which was not written: {writer:?}")),
        }
    }

    fn check_list(&self, read: &Entry, seen: &Seen, found: &mut Found) {
        let mut there = HashSet::new();
        for number in &seen.list {
            if !there.insert(*number) {
                found.at(read, format_args!("{number} was appended twice"));
            }
            match self.writer(*number, read, Entry::appends) {
                Err(what) => found.at(read, format_args!("the list has {what}")),
                Ok(append) if self.was_cleared_before(append, read) => {
                    found.at(read, format_args!("{number} outlived a clear"));
                }
                Ok(_) => {}
            }
        }
        for append in &self.appends {
            if self.must_be_there(append, read) && !there.contains(&append.number) {
                found.at(
                    read,
                    format_args!("the append of {} was lost", append.number),
                );
            }
        }
    }

    fn was_cleared_before(&self, write: &Entry, read: &Entry) -> bool {
        self.clears
            .iter()
            .any(|clear| write.precedes(clear) && clear.precedes(read))
    }

    fn must_be_there(&self, append: &Entry, read: &Entry) -> bool {
        let known = self.known.get(&append.number);
        known.is_some_and(|known| known.is_before(read.sent)) && !self.may_be_cleared(append, read)
    }

    fn may_be_cleared(&self, write: &Entry, read: &Entry) -> bool {
        self.clears
            .iter()
            .any(|clear| clear.sent.is_before(read.ended) && !clear.precedes(write))
    }

    fn check_count(&self, read: &Entry, seen: &Seen, found: &mut Found) {
        let increments = self.increments.iter();
        let most = increments
            .clone()
            .filter(|increment| increment.sent.is_before(read.ended))
            .filter(|increment| increment.number != read.number)
            .count() as u64;
        let least = increments
            .filter(|increment| increment.precedes(read) && !self.may_be_cleared(increment, read))
            .count() as u64;
        if seen.count < least {
            found.at(
                read,
                format_args!("{least} increments, counted {}", seen.count),
            );
        }
        if seen.count > most {
            found.at(
                read,
                format_args!("at most {most} increments, counted {}", seen.count),
            );
        }
    }

    fn check_value(&self, read: &Entry, key: &'static str, value: Option<u64>, found: &mut Found) {
        let is_insert = |entry: &Entry| entry.deed == Deed::Insert && entry.key == key;
        let Some(number) = value else {
            if !self.may_be_absent(read, key) {
                found.at(read, format_args!("the value of {key} was lost"));
            }
            return;
        };
        match self.writer(number, read, is_insert) {
            Err(what) => found.at(read, format_args!("{key} has {what}")),
            Ok(insert) if self.was_overwritten(insert, read, key) => {
                found.at(
                    read,
                    format_args!("{key} has {number}, which was overwritten"),
                );
            }
            Ok(_) => {}
        }
    }

    fn erasers(&self, key: &str) -> impl Iterator<Item = &'a Entry> {
        let removes = self.removes.get(key).into_iter().flatten();
        removes.chain(&self.clears).copied()
    }

    fn inserts(&self, key: &str) -> impl Iterator<Item = &'a Entry> {
        self.inserts.get(key).into_iter().flatten().copied()
    }

    fn was_overwritten(&self, insert: &Entry, read: &Entry, key: &str) -> bool {
        self.erasers(key)
            .chain(self.inserts(key))
            .any(|later| insert.precedes(later) && later.precedes(read))
    }

    /// There was no value at first, or a request erased it, and none was inserted after that.
    fn may_be_absent(&self, read: &Entry, key: &str) -> bool {
        let since_begin = !self.inserts(key).any(|insert| insert.precedes(read));
        since_begin
            || self
                .erasers(key)
                .filter(|eraser| eraser.sent.is_before(read.ended))
                .any(|eraser| {
                    !self
                        .inserts(key)
                        .any(|insert| eraser.precedes(insert) && insert.precedes(read))
                })
    }
}

fn known(record: &LifeRecord<'_>) -> HashMap<u64, Moment> {
    let mut known = HashMap::new();
    let mut learn = |number, moment: Moment| {
        let first = known.entry(number).or_insert(moment);
        if moment.is_before(*first) {
            *first = moment;
        }
    };
    for entry in &record.entries {
        if entry.is_done() {
            learn(entry.number, entry.ended);
        }
        for number in entry.seen().into_iter().flat_map(|seen| &seen.list) {
            learn(*number, entry.ended);
        }
    }
    known
}
