//! The watched rows and their watches. It does no I/O.
//!
//! A row has one entry, whatever number of watches it has. If the session gets a new id, the
//! entry moves there with its watches, and remembers the former id, because the new id may be
//! undone. A watch that is dropped removes itself, and the last one removes the entry.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{ending::Ending, id::RowId};

/// Identifies a watch.
pub(super) type Key = u64;

#[derive(Debug, Default)]
pub(super) struct Registry {
    rows: HashMap<RowId, Entry>,
    /// The row of each watch.
    places: HashMap<Key, RowId>,
    next: Key,
    sweep: Sweep,
    /// Watched rows that a write of this process is about to delete or to move.
    busy: HashSet<RowId>,
}

/// Whether a task looks up the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Sweep {
    #[default]
    Off,
    On,
}

#[derive(Debug)]
struct Entry {
    watches: BTreeMap<Key, oneshot::Sender<Ending>>,
    /// The id before this one.
    former: Option<RowId>,
    /// The id after this one, if its row was not found.
    lost: Option<RowId>,
    /// Seconds since the epoch, as the database last returned it.
    expires: f64,
    /// When the row was last found.
    found: Instant,
}

/// A new watch.
pub(super) struct Added {
    pub(super) key: Key,
    pub(super) ending: oneshot::Receiver<Ending>,
    /// Whether the caller must start the task that looks up the rows.
    pub(super) starts_the_sweep: bool,
}

impl Registry {
    pub(super) fn add(&mut self, row: RowId, expires: f64, now: Instant) -> Added {
        let (sender, ending) = oneshot::channel();
        self.next += 1;
        let key = self.next;
        self.places.insert(key, row.clone());
        let entry = self.rows.entry(row).or_insert_with(|| Entry {
            watches: BTreeMap::new(),
            former: None,
            lost: None,
            expires,
            found: now,
        });
        entry.watches.insert(key, sender);
        Added {
            key,
            ending,
            starts_the_sweep: mem::replace(&mut self.sweep, Sweep::On) == Sweep::Off,
        }
    }

    /// Returns whether the row is watched, and now marked.
    pub(super) fn mark_busy(&mut self, row: &RowId) -> bool {
        self.rows.contains_key(row) && self.busy.insert(row.clone())
    }

    pub(super) fn is_busy(&self, row: &RowId) -> bool {
        self.busy.contains(row)
    }

    pub(super) fn unmark(&mut self, row: &RowId) {
        self.busy.remove(row);
    }

    pub(super) fn place(&self, key: Key) -> Option<RowId> {
        self.places.get(&key).cloned()
    }

    pub(super) fn remove(&mut self, key: Key) {
        let Some(row) = self.places.remove(&key) else {
            return;
        };
        if let Some(entry) = self.rows.get_mut(&row) {
            entry.watches.remove(&key);
            if entry.watches.is_empty() {
                self.rows.remove(&row);
            }
        }
        self.shrink();
    }

    /// Ends the watches of this row.
    pub(super) fn end(&mut self, row: &RowId, ending: Ending) {
        let Some(entry) = self.rows.remove(row) else {
            return;
        };
        for (key, watch) in entry.watches {
            self.places.remove(&key);
            // A watch that is being dropped doesn't receive it.
            let _ = watch.send(ending);
        }
        self.shrink();
    }

    /// A map keeps its memory when it becomes smaller.
    fn shrink(&mut self) {
        if self.places.is_empty() {
            self.rows = HashMap::new();
            self.places = HashMap::new();
        }
    }

    /// Moves the watches of a row to the new id of its session.
    pub(super) fn follow(&mut self, from: &RowId, to: &RowId) {
        let entry = self.rows.remove(from);
        let Some(entry) = entry.filter(|entry| entry.lost.as_ref() != Some(to)) else {
            return;
        };
        let entry = Entry {
            former: Some(from.clone()),
            lost: None,
            ..entry
        };
        self.put(to, entry);
    }

    /// Moves the watches of a row that was not found to the id before it, to look there.
    /// Returns that id. `None` if there is none.
    pub(super) fn go_back(&mut self, row: &RowId) -> Option<RowId> {
        let former = self.rows.get_mut(row)?.former.take()?;
        let entry = self.rows.remove(row)?;
        let entry = Entry {
            lost: Some(row.clone()),
            ..entry
        };
        self.put(&former, entry);
        Some(former)
    }

    fn put(&mut self, row: &RowId, entry: Entry) {
        for key in entry.watches.keys() {
            self.places.insert(*key, row.clone());
        }
        match self.rows.get_mut(row) {
            Some(there) => there.watches.extend(entry.watches),
            None => drop(self.rows.insert(row.clone(), entry)),
        }
    }

    /// Whether the row at `row` was looked up because its successor `to` was not found.
    pub(super) fn has_lost(&self, row: &RowId, to: &RowId) -> bool {
        let entry = self.rows.get(row);
        entry.is_some_and(|entry| entry.lost.as_ref() == Some(to))
    }

    pub(super) fn found(&mut self, row: &RowId, expires: f64, at: Instant) {
        if let Some(entry) = self.rows.get_mut(row) {
            entry.expires = expires;
            entry.found = at;
            entry.lost = None;
        }
    }

    /// When the session expires, as far as is known.
    pub(super) fn expires(&self, row: &RowId) -> Option<f64> {
        self.rows.get(row).map(|entry| entry.expires)
    }

    /// The rows to be looked up. `None` if there is none; then the task has to end.
    pub(super) fn ids(&mut self) -> Option<Vec<RowId>> {
        if self.rows.is_empty() {
            self.sweep = Sweep::Off;
            return None;
        }
        // The memory of a peak is not kept for a day.
        if self.rows.capacity() / 4 > self.rows.len() {
            self.rows.shrink_to_fit();
            self.places.shrink_to_fit();
        }
        Some(self.rows.keys().cloned().collect())
    }

    /// Ends the watches of all rows that were last found before `then`. Returns how many rows.
    pub(super) fn end_before(&mut self, then: Instant, ending: Ending) -> usize {
        let rows = self.rows.iter().filter(|(_, entry)| entry.found < then);
        let rows: Vec<_> = rows.map(|(row, _)| row.clone()).collect();
        rows.iter().for_each(|row| self.end(row, ending));
        rows.len()
    }

    /// Ends all watches, because no task looks up their rows any more.
    pub(super) fn stop(&mut self, ending: Ending) {
        self.sweep = Sweep::Off;
        self.places.clear();
        for (_, entry) in mem::take(&mut self.rows) {
            for watch in entry.watches.into_values() {
                let _ = watch.send(ending);
            }
        }
        self.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str) -> RowId {
        RowId::from(id.to_owned())
    }

    #[test]
    fn a_million_watches_that_are_dropped_leave_nothing() {
        let mut registry = Registry::default();
        let now = Instant::now();
        let keys: Vec<_> = (0..1_000_000)
            .map(|n| registry.add(row(&format!("{}", n / 2)), 0.0, now).key)
            .collect();
        assert_eq!(registry.rows.len(), 500_000);
        keys.into_iter().for_each(|key| registry.remove(key));
        assert_eq!((registry.rows.len(), registry.places.len()), (0, 0));
        assert_eq!(
            (registry.rows.capacity(), registry.places.capacity()),
            (0, 0)
        );
        assert_eq!(registry.ids(), None);
    }

    #[test]
    fn watches_of_one_session_share_an_entry_and_an_end() {
        let mut registry = Registry::default();
        let now = Instant::now();
        let mut old = registry.add(row("old"), 0.0, now);
        let mut new = registry.add(row("new"), 0.0, now);
        assert!(old.starts_the_sweep && !new.starts_the_sweep);

        registry.follow(&row("old"), &row("new"));
        assert_eq!(registry.ids(), Some(vec![row("new")]));
        registry.end(&row("old"), Ending::Destroyed);
        assert!(old.ending.try_recv().is_err());
        registry.end(&row("new"), Ending::SignedOut);
        assert_eq!(old.ending.try_recv(), Ok(Ending::SignedOut));
        assert_eq!(new.ending.try_recv(), Ok(Ending::SignedOut));
        assert_eq!(registry.ids(), None);
    }

    #[test]
    fn a_new_id_that_is_not_found_is_looked_up_under_the_former_one_once() {
        let mut registry = Registry::default();
        let mut watch = registry.add(row("old"), 0.0, Instant::now());
        registry.follow(&row("old"), &row("new"));
        assert_eq!(registry.go_back(&row("new")), Some(row("old")));
        assert!(registry.has_lost(&row("old"), &row("new")));
        assert_eq!(registry.go_back(&row("old")), None);
        registry.found(&row("old"), 0.0, Instant::now());
        assert!(!registry.has_lost(&row("old"), &row("new")));
        registry.end(&row("old"), Ending::Expired);
        assert_eq!(watch.ending.try_recv(), Ok(Ending::Expired));
    }

    #[test]
    fn a_row_that_was_not_found_for_too_long_ends_its_watches() {
        let mut registry = Registry::default();
        let start = Instant::now();
        let later = start + std::time::Duration::from_secs(1);
        let mut stale = registry.add(row("stale"), 0.0, start);
        let mut fresh = registry.add(row("fresh"), 0.0, start);
        registry.found(&row("fresh"), 0.0, later);
        assert_eq!(registry.end_before(later, Ending::Unreachable), 1);
        assert_eq!(stale.ending.try_recv(), Ok(Ending::Unreachable));
        assert!(fresh.ending.try_recv().is_err());
        registry.stop(Ending::Unknown);
        assert_eq!(fresh.ending.try_recv(), Ok(Ending::Unknown));
        assert!(registry.add(row("next"), 0.0, later).starts_the_sweep);
    }
}
