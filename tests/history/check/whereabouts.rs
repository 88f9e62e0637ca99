//! A destroyed session stays destroyed, no other is lost, and only the newest id of a session opens
//! it.

use super::{Found, LifeRecord};
use crate::{
    record::{Entry, Life, Moment, Outcome, Token},
    site::Deed,
};

impl LifeRecord<'_> {
    fn destroys(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.iter().copied();
        entries.filter(|entry| matches!(entry.deed, Deed::Destroy | Deed::EndUser))
    }

    /// Whether it may have ended by then.
    pub(super) fn may_be_over_by(&self, moment: Moment) -> bool {
        let destroyed = self
            .destroys()
            .any(|destroy| destroy.may_have_happened() && destroy.sent.is_before(moment));
        destroyed
            || self
                .expired
                .is_some_and(|expired| expired.from.is_before(moment))
    }

    pub(super) fn is_destroyed_by(&self, moment: Moment) -> bool {
        self.destroys()
            .any(|destroy| destroy.is_done() && destroy.ended.is_before(moment))
    }

    pub(super) fn is_expired_by(&self, moment: Moment) -> bool {
        self.expired
            .is_some_and(|expired| expired.until.is_before(moment))
    }

    /// The requests that may have given the session another id than this.
    pub(super) fn cycles_from(&self, token: &Token) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.iter().copied();
        entries.filter(move |entry| {
            entry.cycles() && entry.may_have_happened() && entry.token.as_ref() == Some(token)
        })
    }

    pub(super) fn may_have_moved_by(&self, token: &Token, moment: Moment) -> bool {
        self.cycles_from(token)
            .any(|cycle| cycle.sent.is_before(moment))
    }

    fn has_moved_by(&self, token: &Token, moment: Moment) -> bool {
        self.cycles_from(token)
            .any(|cycle| cycle.is_done() && cycle.ended.is_before(moment))
    }
}

pub(super) fn check(life: Life, record: &LifeRecord<'_>, found: &mut Found) {
    for entry in &record.entries {
        if entry.deed == Deed::Begin || record.may_be_split_by(entry.ended) {
            continue;
        }
        match &entry.outcome {
            Outcome::NoSession(_) => check_absence(record, entry, found),
            Outcome::Done(..) | Outcome::Dropped(..) => check_presence(life, record, entry, found),
            Outcome::InDoubt(_) | Outcome::Strange(_) => {}
        }
    }
}

fn check_absence(record: &LifeRecord<'_>, entry: &Entry, found: &mut Found) {
    let token = entry.token.as_ref();
    let has_reason = record.may_be_over_by(entry.ended)
        || token.is_some_and(|token| record.may_have_moved_by(token, entry.ended));
    if !has_reason {
        found.at(entry, "the session was lost");
    }
}

fn check_presence(life: Life, record: &LifeRecord<'_>, entry: &Entry, found: &mut Found) {
    let owner = entry.seen().and_then(|seen| seen.owner);
    if owner != Some(life) {
        found.at(entry, format_args!("the page showed session {owner:?}"));
    }
    if record.is_destroyed_by(entry.sent) {
        found.at(entry, "a destroyed session was there again");
    }
    if record.is_expired_by(entry.sent) {
        found.at(entry, "an expired session was there again");
    }
    let token = entry.token.as_ref();
    if token.is_some_and(|token| record.has_moved_by(token, entry.sent)) {
        found.at(entry, "an id that was replaced opened the session");
    }
}
