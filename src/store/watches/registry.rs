//! The watched rows and their watches. It does no I/O.
//!
//! A row has one entry, whatever number of watches it has. If the session gets a new id, the
//! entry moves there with its watches, and remembers the former id, because the new id may be
//! undone. A watch that is dropped removes itself, and the last one removes the entry.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    sync::Arc,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{ending::Ending, id::RowId};

/// Identifies a watch.
pub(super) type Key = u64;

#[derive(Debug, Default)]
pub(super) struct Registry {
    rows: HashMap<RowId, Entry>,
    /// The row of each watch, or its last one if it has ended.
    places: HashMap<Key, RowId>,
    next: Key,
    sweep: Sweep,
    rounds: usize,
    /// Rows that a write of this process is about to delete or to move.
    busy: HashSet<RowId>,
}

/// Whether a task looks up the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Sweep {
    #[default]
    Off,
    On,
}

/// What the last lookup of a row was.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lookup {
    Succeeded,
    /// A statement for the row and others failed.
    Failed,
    /// A statement for the row alone failed.
    FailedAlone,
}

/// The rows to be looked up, by their last lookup.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Due {
    pub(super) readable: Vec<RowId>,
    /// Those whose statement failed, perhaps because of another row.
    pub(super) missed: Vec<RowId>,
    /// Those that are likely to fail again.
    pub(super) unreadable: Vec<RowId>,
}

#[derive(Debug)]
struct Entry {
    watches: BTreeMap<Key, oneshot::Sender<Ending>>,
    /// The id before this one.
    former: Option<RowId>,
    /// The id after this one, if its row was not found.
    lost: Option<RowId>,
    /// Who is signed in.
    user: Option<Arc<str>>,
    /// Seconds since the epoch, as the database last returned it.
    expires: f64,
    /// When the row was last found.
    found: Instant,
    lookup: Lookup,
}

/// A new watch.
pub(super) struct Added {
    pub(super) key: Key,
    pub(super) ending: oneshot::Receiver<Ending>,
    /// Whether the caller must start the task that looks up the rows.
    pub(super) starts_the_sweep: bool,
}

impl Registry {
    pub(super) fn add(
        &mut self,
        row: RowId,
        user: Option<Arc<str>>,
        expires: f64,
        now: Instant,
    ) -> Added {
        let (sender, ending) = oneshot::channel();
        self.next += 1;
        let key = self.next;
        self.places.insert(key, row.clone());
        // Another process has changed the user since the row was last looked up.
        if self.rows.get(&row).is_some_and(|entry| entry.user != user) {
            self.end(&row, Ending::Replaced);
        }
        let entry = self.rows.entry(row).or_insert_with(|| Entry {
            watches: BTreeMap::new(),
            former: None,
            lost: None,
            user,
            expires,
            found: now,
            lookup: Lookup::Succeeded,
        });
        // The caller has just loaded it.
        entry.found = entry.found.max(now);
        entry.watches.insert(key, sender);
        Added {
            key,
            ending,
            starts_the_sweep: mem::replace(&mut self.sweep, Sweep::On) == Sweep::Off,
        }
    }

    /// Returns whether the row is now marked. A row that isn't watched is marked too, because
    /// a watch may be added before the write has ended.
    pub(super) fn mark_busy(&mut self, row: &RowId) -> bool {
        self.sweep == Sweep::On && self.busy.insert(row.clone())
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
        for watch in entry.watches.into_values() {
            // A watch that is being dropped doesn't receive it.
            let _ = watch.send(ending);
        }
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

    /// Moves the watches that have followed to this new id back, because it was undone.
    pub(super) fn undo(&mut self, from: &RowId, to: &RowId) {
        let has_followed = |entry: &Entry| entry.former.as_ref() == Some(from);
        if self.rows.get(to).is_some_and(has_followed)
            && let Some(entry) = self.rows.remove(to)
        {
            let entry = Entry {
                former: None,
                ..entry
            };
            self.put(from, entry);
        }
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
            entry.lookup = Lookup::Succeeded;
        }
    }

    /// The statement for these rows failed.
    pub(super) fn missed(&mut self, rows: &[RowId]) {
        for row in rows {
            let entry = self.rows.get_mut(row);
            match entry.map(|entry| &mut entry.lookup) {
                Some(lookup) if rows.len() == 1 => *lookup = Lookup::FailedAlone,
                Some(lookup @ Lookup::Succeeded) => *lookup = Lookup::Failed,
                _ => {}
            }
        }
    }

    /// Whether another user is signed in to the session of this row than when its watch began.
    pub(super) fn has_another_user(&self, row: &RowId, user: Option<&str>) -> bool {
        let entry = self.rows.get(row);
        entry.is_some_and(|entry| entry.user.as_deref() != user)
    }

    /// When the session expires, as far as is known.
    pub(super) fn expires(&self, row: &RowId) -> Option<f64> {
        self.rows.get(row).map(|entry| entry.expires)
    }

    /// The rows to be looked up. Each call begins those that were not read with another one,
    /// because there may not be time for all of them. `None` if there is no row; then the task
    /// has to end.
    pub(super) fn due(&mut self) -> Option<Due> {
        if self.rows.is_empty() {
            self.sweep = Sweep::Off;
            return None;
        }
        // The memory of a peak is not kept for a day.
        if self.rows.capacity() / 4 > self.rows.len() {
            self.rows.shrink_to_fit();
            self.places.shrink_to_fit();
        }
        let mut due = Due::default();
        for (row, entry) in &self.rows {
            let rows = match entry.lookup {
                Lookup::Succeeded => &mut due.readable,
                Lookup::Failed => &mut due.missed,
                Lookup::FailedAlone => &mut due.unreadable,
            };
            rows.push(row.clone());
        }
        self.rounds = self.rounds.wrapping_add(1);
        for rows in [&mut due.missed, &mut due.unreadable] {
            let step = rows.len() / 3 + 1;
            let first = self.rounds.wrapping_mul(step) % rows.len().max(1);
            rows.rotate_left(first);
        }
        Some(due)
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
        for (_, entry) in mem::take(&mut self.rows) {
            for watch in entry.watches.into_values() {
                let _ = watch.send(ending);
            }
        }
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
            .map(|n| registry.add(row(&format!("{}", n / 2)), None, 0.0, now).key)
            .collect();
        assert_eq!(registry.rows.len(), 500_000);
        keys.into_iter().for_each(|key| registry.remove(key));
        assert_eq!((registry.rows.len(), registry.places.len()), (0, 0));
        assert_eq!(
            (registry.rows.capacity(), registry.places.capacity()),
            (0, 0)
        );
        assert_eq!(registry.due(), None);
    }

    #[test]
    fn watches_of_one_session_share_an_entry_and_an_end() {
        let mut registry = Registry::default();
        let now = Instant::now();
        let mut old = registry.add(row("old"), None, 0.0, now);
        let mut new = registry.add(row("new"), None, 0.0, now);
        assert!(old.starts_the_sweep && !new.starts_the_sweep);

        registry.follow(&row("old"), &row("new"));
        let due = registry.due().expect("a row");
        assert_eq!(due.readable, [row("new")]);
        registry.end(&row("old"), Ending::Destroyed);
        assert!(old.ending.try_recv().is_err());
        registry.end(&row("new"), Ending::SignedOut);
        assert_eq!(old.ending.try_recv(), Ok(Ending::SignedOut));
        assert_eq!(new.ending.try_recv(), Ok(Ending::SignedOut));
        assert_eq!(registry.due(), None);
    }

    #[test]
    fn a_new_id_that_is_not_found_is_looked_up_under_the_former_one_once() {
        let mut registry = Registry::default();
        let mut watch = registry.add(row("old"), None, 0.0, Instant::now());
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
        let mut stale = registry.add(row("stale"), None, 0.0, start);
        let mut fresh = registry.add(row("fresh"), None, 0.0, start);
        registry.found(&row("fresh"), 0.0, later);
        assert_eq!(registry.end_before(later, Ending::Unreachable), 1);
        assert_eq!(stale.ending.try_recv(), Ok(Ending::Unreachable));
        assert!(fresh.ending.try_recv().is_err());
        registry.stop(Ending::Unknown);
        assert_eq!(fresh.ending.try_recv(), Ok(Ending::Unknown));
        assert!(registry.add(row("next"), None, 0.0, later).starts_the_sweep);
    }

    #[test]
    fn rows_whose_lookup_failed_are_looked_up_apart_until_one_succeeds() {
        let mut registry = Registry::default();
        let now = Instant::now();
        let _watches = ["a", "b", "c"].map(|id| registry.add(row(id), None, 0.0, now));
        registry.missed(&[row("a"), row("b")]);
        registry.missed(&[row("a")]);
        // The statement for all that failed.
        registry.missed(&[row("a"), row("b")]);
        let due = registry.due().expect("three rows");
        let expected = Due {
            readable: vec![row("c")],
            missed: vec![row("b")],
            unreadable: vec![row("a")],
        };
        assert_eq!(due, expected);
        for id in ["a", "b"] {
            registry.found(&row(id), 0.0, now);
        }
        assert_eq!(registry.due().expect("three rows").readable.len(), 3);
    }
}
