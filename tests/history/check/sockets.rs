//! A socket receives frames as long as its session exists, and none later than the bound after its
//! end.

use std::time::Duration;

use super::{Found, LifeRecord};
use crate::{
    record::Moment,
    site::{Deed, LOOKS, TIMEOUT},
    socket::{End, Socket},
};

/// A lookup may be about to end when the session does, the next may meet a fault and wait for the
/// store's timeout, and the one after that finds the end. The rest is for a busy machine, which may
/// also receive a frame late.
const BOUND: Duration =
    Duration::from_millis((3 * LOOKS.as_millis() + 2 * TIMEOUT.as_millis() + 3_000) as u64);

impl LifeRecord<'_> {
    /// Whether a login may have given the session another user by then.
    fn may_be_replaced_by(&self, moment: Moment) -> bool {
        self.entries.iter().any(|entry| {
            entry.deed == Deed::Login && entry.may_have_happened() && entry.sent.is_before(moment)
        })
    }
}

pub(super) fn check(socket: &Socket, record: &LifeRecord<'_>, found: &mut Found) {
    let ends = record
        .entries
        .iter()
        .filter(|entry| matches!(entry.deed, Deed::Destroy | Deed::EndUser) && entry.is_done());
    let ends = ends.map(|entry| entry.ended);
    let ends = ends.chain(record.expired.map(|expired| expired.until));
    if let Some(end) = ends.min_by_key(|end| end.tick)
        && !record.may_be_split_by(socket.last_frame)
        && socket.last_frame.since(end) > BOUND
    {
        let late = socket.last_frame.since(end);
        found.at_the_end(format!(
            "a socket of session {} received a frame {late:?} after its end",
            socket.life
        ));
    }
    let End::Session(why, ended) = &socket.end else {
        return;
    };
    let has_reason = record.may_be_over_by(*ended)
        || record.may_be_split_by(*ended)
        || (why == "Replaced" && record.may_be_replaced_by(*ended));
    if !has_reason {
        found.at_the_end(format!(
            "a socket of session {} was ended without a reason: {why}",
            socket.life
        ));
    }
}
