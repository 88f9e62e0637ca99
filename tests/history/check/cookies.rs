//! What answers do to a jar: a new cookie is new, a dead one is removed, and
//! one that was replaced a moment ago is left alone.

use std::{collections::HashMap, time::Duration};

use super::{Found, LifeRecord};
use crate::{
    record::{Entry, GivenCookie, Kept, Outcome, Token},
    site::Deed,
};

/// A forwarding lives for a minute; this much of it is certain.
const FORWARDED: Duration = Duration::from_secs(55);

pub(super) fn check(record: &LifeRecord<'_>, found: &mut Found) {
    for entry in &record.entries {
        match &entry.outcome {
            Outcome::Done(_, cookie) => check_done(entry, cookie, found),
            Outcome::Dropped(_, GivenCookie::None) => {}
            Outcome::Dropped(_, cookie) => {
                found.at(entry, format_args!("a cookie with an error: {cookie:?}"));
            }
            Outcome::Nobody(GivenCookie::None) => check_left_alone(record, entry, found),
            Outcome::Nobody(GivenCookie::Removal) => check_removal(record, entry, found),
            Outcome::Nobody(GivenCookie::Token(_)) => found.at(entry, "a cookie for nobody"),
            Outcome::InDoubt(_) | Outcome::Strange(_) => {}
        }
    }
}

fn check_done(entry: &Entry, cookie: &GivenCookie, found: &mut Found) {
    let is_right = match entry.deed {
        Deed::Begin | Deed::Cycle | Deed::CycleAndAppend | Deed::Login => {
            matches!(cookie, GivenCookie::Token(_))
        }
        Deed::Destroy => *cookie == GivenCookie::Removal,
        _ => *cookie == GivenCookie::None,
    };
    if !is_right {
        found.at(entry, format_args!("the wrong cookie: {cookie:?}"));
    }
}

fn check_left_alone(record: &LifeRecord<'_>, entry: &Entry, found: &mut Found) {
    let token = entry.token.as_ref();
    if !token.is_some_and(|token| record.may_have_moved_by(token, entry.ended)) {
        found.at(entry, "a cookie that opens nothing was not removed");
    }
}

fn check_removal(record: &LifeRecord<'_>, entry: &Entry, found: &mut Found) {
    let is_forwarded = entry
        .token
        .iter()
        .flat_map(|token| record.cycles_from(token))
        .all(|cycle| entry.ended.since(cycle.sent) < FORWARDED);
    if is_forwarded && !record.may_be_over_by(entry.ended) {
        found.at(entry, "the cookie of a living session was removed");
    }
}

/// A cookie that nobody was given opens nothing and is removed.
pub(super) fn check_strangers(entries: &[&Entry], found: &mut Found) {
    for entry in entries {
        let is_right = matches!(
            entry.outcome,
            Outcome::Nobody(GivenCookie::Removal) | Outcome::InDoubt(_)
        );
        if !is_right {
            found.at(entry, format_args!("a made-up cookie: {:?}", entry.outcome));
        }
    }
}

/// No token is given twice, or was presented before it was given.
pub(super) fn check_fresh(kept: &Kept, found: &mut Found) {
    let mut presented: HashMap<&Token, &Entry> = HashMap::new();
    for entry in &kept.entries {
        let Some(token) = &entry.token else { continue };
        let first = presented.entry(token).or_insert(entry);
        if entry.sent.is_before(first.sent) {
            *first = entry;
        }
    }
    let mut given: HashMap<&Token, u64> = HashMap::new();
    for entry in &kept.entries {
        let Some(GivenCookie::Token(token)) = entry.cookie() else {
            continue;
        };
        if let Some(number) = given.insert(token, entry.number) {
            found.at(
                entry,
                format_args!("a token that request {number} was given too"),
            );
        }
        if presented
            .get(token)
            .is_some_and(|first| first.sent.is_before(entry.ended))
        {
            found.at(entry, "a token that a visitor chose was adopted");
        }
    }
}
