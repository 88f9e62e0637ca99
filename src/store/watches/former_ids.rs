//! The sessions that this process gave a new id or deleted, by their former ids. It does no I/O
//! and reads no clock.
//!
//! In the formats of other applications, no row leads from the former id to the new one. So only
//! this record leads there, and another process can't find the new id.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use crate::{
    forwarding::FORWARDING,
    id::{RowId, SessionId},
};

/// If there are more in a minute, the oldest are dropped.
const MOST: usize = 100_000;

/// The fate of a row.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) enum Fate {
    MovedTo(RowId),
    /// A login dropped its data. A destroy doesn't follow it, as in our own format.
    ReplacedBy(RowId),
    /// The session moved to a new id, and back when that was undone.
    Restored,
    Deleted,
}

#[derive(Debug, Default)]
pub(super) struct FormerIds(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    fates: HashMap<SessionId, Former>,
    /// The oldest first. An id that was recorded again has two places.
    order: VecDeque<(Instant, SessionId)>,
}

#[derive(Debug)]
struct Former {
    id: RowId,
    fate: Fate,
    at: Instant,
    /// By the database's clock, in seconds since the epoch.
    database_time: f64,
    /// The new ids before this fate, with their times, if another application revived the row after
    /// each of them.
    earlier_moves: Vec<(RowId, f64)>,
}

impl FormerIds {
    /// Records what happened to the session of this row, whose handle this is.
    pub(super) fn record(&self, handle: SessionId, id: RowId, fate: Fate, at: (Instant, f64)) {
        self.ids().record(handle, id, fate, at);
    }

    /// Records a fate, unless the session was deleted since the last record.
    pub(super) fn record_unless_deleted(
        &self,
        handle: SessionId,
        id: RowId,
        fate: Fate,
        at: (Instant, f64),
    ) {
        let mut ids = self.ids();
        let former = ids.fates.get(&handle);
        if former.is_none_or(|former| former.fate != Fate::Deleted) {
            ids.record(handle, id, fate, at);
        }
    }

    /// The fate of a session that was loaded at this time of the database. Ignores
    /// earlier records: another application has revived the row since.
    pub(super) fn fate(&self, handle: &SessionId, loaded: f64, now: Instant) -> Option<Fate> {
        let mut ids = self.ids();
        ids.drop_old(now, MOST);
        let former = ids.fates.get(handle);
        let former = former.filter(|former| former.database_time >= loaded)?;
        Some(former.fate.clone())
    }

    /// The new ids that a session got since this time of the database, except that of its last fate.
    pub(super) fn earlier_moves(&self, handle: &SessionId, loaded: f64) -> Vec<RowId> {
        let ids = self.ids();
        let Some(former) = ids.fates.get(handle) else {
            return Vec::new();
        };
        let moves = former.earlier_moves.iter();
        let moves = moves.filter(|(_, at)| *at >= loaded);
        moves.map(|(id, _)| id.clone()).collect()
    }

    /// Records that the move to this id was undone. Returns whether the session was deleted
    /// meanwhile. If so, that record stays.
    pub(super) fn restore(
        &self,
        handle: &SessionId,
        to: &RowId,
        (at, database_time): (Instant, f64),
    ) -> bool {
        let mut ids = self.ids();
        let Some(former) = ids.fates.get_mut(handle) else {
            return false;
        };
        match &former.fate {
            Fate::Deleted => return true,
            Fate::MovedTo(id) | Fate::ReplacedBy(id) if id == to => {}
            _ => return false,
        }
        former.fate = Fate::Restored;
        former.at = at;
        former.database_time = database_time;
        ids.order.push_back((at, handle.clone()));
        false
    }

    /// The former id whose handle this is.
    pub(super) fn row_of(&self, handle: &SessionId) -> Option<RowId> {
        self.ids().fates.get(handle).map(|former| former.id.clone())
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ids {
    fn record(
        &mut self,
        handle: SessionId,
        id: RowId,
        fate: Fate,
        (at, database_time): (Instant, f64),
    ) {
        self.drop_old(at, MOST - 1);
        let mut earlier_moves = Vec::new();
        if let Some(former) = self.fates.remove(&handle) {
            earlier_moves = former.earlier_moves;
            if let Fate::MovedTo(to) = former.fate
                && fate != Fate::MovedTo(to.clone())
            {
                earlier_moves.push((to, former.database_time));
            }
        }
        let former = Former {
            id,
            fate,
            at,
            database_time,
            earlier_moves,
        };
        self.order.push_back((at, handle.clone()));
        self.fates.insert(handle, former);
    }

    /// Drops those that are older than a forwarding lasts, and the oldest beyond `most`.
    fn drop_old(&mut self, now: Instant, most: usize) {
        while let Some((at, _)) = self.order.front()
            && (now.duration_since(*at) > FORWARDING || self.order.len() > most)
            && let Some((at, handle)) = self.order.pop_front()
        {
            if self
                .fates
                .get(&handle)
                .is_some_and(|former| former.at == at)
            {
                self.fates.remove(&handle);
            }
        }
        // The memory of a peak is not kept.
        if self.order.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(id: &str) -> (SessionId, RowId) {
        let row = RowId::from(id.to_owned());
        (SessionId::digest_of(&row), row)
    }

    fn record(ids: &FormerIds, id: &str, fate: Fate, now: Instant) {
        let (handle, row) = row(id);
        ids.record(handle, row, fate, (now, 10.0));
    }

    #[test]
    fn an_id_is_forgotten_a_minute_after_it_was_recorded_last() {
        let (ids, start) = (FormerIds::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let moved = Fate::MovedTo(row("new").1);
        record(&ids, "a", moved.clone(), start);
        record(&ids, "b", moved.clone(), start);
        record(&ids, "a", Fate::Deleted, after(50));
        let fate = |id, seconds| ids.fate(&row(id).0, 10.0, after(seconds));
        assert_eq!(fate("a", 60), Some(Fate::Deleted));
        assert_eq!(fate("b", 60), Some(moved));
        assert_eq!(ids.row_of(&row("b").0), Some(row("b").1));
        assert_eq!(fate("a", 61), Some(Fate::Deleted));
        assert_eq!(fate("b", 61), None);
        assert_eq!(fate("a", 111), None);
        assert_eq!(ids.ids().fates.capacity(), 0);
    }

    #[test]
    fn a_session_that_was_loaded_after_the_record_has_no_fate() {
        let (ids, now) = (FormerIds::default(), Instant::now());
        record(&ids, "a", Fate::Deleted, now);
        assert_eq!(ids.fate(&row("a").0, 10.5, now), None);
        assert_eq!(ids.fate(&row("a").0, 9.5, now), Some(Fate::Deleted));
    }

    #[test]
    fn a_second_record_of_a_move_keeps_a_deletion() {
        let (ids, now) = (FormerIds::default(), Instant::now());
        record(&ids, "a", Fate::Deleted, now);
        record(&ids, "b", Fate::MovedTo(row("new").1), now);
        for id in ["a", "b"] {
            let (handle, row_id) = row(id);
            let fate = Fate::MovedTo(row("newer").1);
            ids.record_unless_deleted(handle, row_id, fate, (now, 11.0));
        }
        let fate = |id| ids.fate(&row(id).0, 10.0, now);
        assert_eq!(fate("a"), Some(Fate::Deleted));
        assert_eq!(fate("b"), Some(Fate::MovedTo(row("newer").1)));
    }

    #[test]
    fn a_later_fate_of_a_revived_id_hides_no_earlier_move() {
        let (ids, now) = (FormerIds::default(), Instant::now());
        let moved = |to| Fate::MovedTo(row(to).1);
        for fate in [moved("b"), moved("b"), moved("c"), Fate::Deleted] {
            record(&ids, "a", fate, now);
        }
        let moves = ids.earlier_moves(&row("a").0, 10.0);
        assert_eq!(moves, [row("b").1, row("c").1]);
        assert!(ids.earlier_moves(&row("a").0, 10.5).is_empty());
    }

    #[test]
    fn a_move_can_be_undone_unless_the_session_was_deleted() {
        let (ids, now) = (FormerIds::default(), Instant::now());
        record(&ids, "a", Fate::MovedTo(row("new").1), now);
        record(&ids, "b", Fate::Deleted, now);
        record(&ids, "c", Fate::MovedTo(row("another").1), now);
        record(&ids, "e", Fate::ReplacedBy(row("new").1), now);
        let deleted =
            ["a", "b", "c", "d", "e"].map(|id| ids.restore(&row(id).0, &row("new").1, (now, 11.0)));
        assert_eq!(deleted, [false, true, false, false, false]);
        let fate = |id, loaded| ids.fate(&row(id).0, loaded, now);
        for id in ["a", "e"] {
            assert_eq!(fate(id, 10.5), Some(Fate::Restored));
        }
        assert_eq!(fate("b", 10.0), Some(Fate::Deleted));
        assert_eq!(fate("c", 10.0), Some(Fate::MovedTo(row("another").1)));
        assert_eq!(fate("d", 10.0), None);
    }

    #[test]
    fn the_oldest_are_forgotten_if_there_are_too_many() {
        let (ids, now) = (FormerIds::default(), Instant::now());
        for n in 0..=MOST {
            record(&ids, &n.to_string(), Fate::Deleted, now);
        }
        assert_eq!(ids.fate(&row("0").0, 10.0, now), None);
        assert_eq!(ids.fate(&row("1").0, 10.0, now), Some(Fate::Deleted));
        assert_eq!(ids.ids().order.len(), MOST);
    }
}
