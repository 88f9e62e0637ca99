//! Cookies of responses: a new one is new, and a dead one stays unless the page destroyed the
//! session.

use std::collections::HashMap;

use super::{Found, LifeRecord};
use crate::{
    record::{Entry, GivenCookie, Kept, Outcome, Token},
    site::Deed,
};

pub(super) fn check(record: &LifeRecord<'_>, found: &mut Found) {
    for entry in &record.entries {
        match &entry.outcome {
            Outcome::Done(_, cookie) => check_done(entry, cookie, found),
            Outcome::Dropped(_, GivenCookie::None) => {}
            Outcome::Dropped(_, cookie) => {
                found.at(entry, format_args!("a cookie with an error: {cookie:?}"));
            }
            Outcome::NoSession(GivenCookie::None) => {}
            Outcome::NoSession(cookie) => {
                found.at(
                    entry,
                    format_args!("a cookie without a session: {cookie:?}"),
                );
            }
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

/// An unknown token opens nothing, and its cookie stays.
pub(super) fn check_strangers(entries: &[&Entry], found: &mut Found) {
    for entry in entries {
        let is_right = matches!(
            entry.outcome,
            Outcome::NoSession(GivenCookie::None) | Outcome::InDoubt(_)
        );
        if !is_right {
            found.at(
                entry,
                format_args!("an unknown cookie: {:?}", entry.outcome),
            );
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
