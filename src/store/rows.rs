//! One session's row, in order: saves, new ids and deletions, and what takes them back.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::store::{
    batch::{
        execute::{Entry, Many},
        lone::Locked,
        queue::Batch,
        statements::{DestroyRow, InsertRow, LoadRow, SaveRow, TouchRow},
    },
    table::handle::SetUp,
};

mod cycle;
pub(in crate::store) mod destroy;
pub(super) mod orders;
pub(super) mod queue;
mod save;
pub(super) mod steps;
pub(super) mod undo;
pub(super) mod user_limit;

/// Everything that reads and writes rows, shared by all clones of a store.
pub(crate) struct Writer {
    pub(super) set_up: SetUp,
    pub(super) load: Arc<Batch<Many<LoadRow>>>,
    pub(super) insert: Arc<Batch<Many<InsertRow>>>,
    pub(super) save: Arc<Batch<Many<SaveRow>>>,
    pub(super) touch: Arc<Batch<Many<TouchRow>>>,
    pub(super) destroy: Arc<Batch<Many<DestroyRow>>>,
    pub(super) locked: Arc<Locked>,
    /// Users whose sessions beyond the limit a task is ending.
    surplus: Mutex<HashSet<Arc<str>>>,
    /// One new id at a time is undone.
    pub(super) undoing: tokio::sync::Mutex<()>,
}

fn batch<E: Entry>(set_up: &SetUp, locked: &Arc<Locked>) -> Arc<Batch<Many<E>>> {
    Batch::new(Many::new(set_up.clone(), Arc::clone(locked)))
}

impl Writer {
    pub(crate) fn new(set_up: SetUp) -> Arc<Self> {
        let locked = Arc::default();
        Arc::new(Self {
            load: batch(&set_up, &locked),
            insert: batch(&set_up, &locked),
            save: batch(&set_up, &locked),
            touch: batch(&set_up, &locked),
            destroy: batch(&set_up, &locked),
            set_up,
            locked,
            surplus: Mutex::default(),
            undoing: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn surplus(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.surplus.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("table", &self.set_up.name)
            .finish_non_exhaustive()
    }
}
