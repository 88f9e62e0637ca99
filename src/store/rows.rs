//! The writes of one session's row, in order: saves, new ids, deletions, and the undo of a
//! new id.
//!
//! It knows no request and no HTTP: only what to write, and the deadline of the caller. It
//! is the lowest folder that knows what a session is.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::store::{
    batch::{
        execute::{Entry, Many},
        queue::Batch,
        statements::{DestroyRow, InsertRow, InsertUserRow, LoadRow, SaveRow, TouchRow},
        until_free::Locked,
    },
    table::handle::TableHandle,
    watches::sweep::Watches,
};

mod cycle;
pub(in crate::store) mod destroy;
mod kept_columns;
pub(super) mod orders;
mod save;
pub(super) mod session_queue;
pub(super) mod steps;
pub(super) mod takeover;
pub(super) mod undo;
pub(super) mod user_change;
pub(super) mod user_limit;

/// The table and the statements for its rows, shared by all clones of a store.
pub(crate) struct Batches {
    pub(super) table_handle: TableHandle,
    pub(super) load: Arc<Batch<Many<LoadRow>>>,
    pub(super) insert: Arc<Batch<Many<InsertRow>>>,
    pub(super) insert_user: Arc<Batch<Many<InsertUserRow>>>,
    pub(super) save: Arc<Batch<Many<SaveRow>>>,
    pub(super) touch: Arc<Batch<Many<TouchRow>>>,
    pub(super) destroy: Arc<Batch<Many<DestroyRow>>>,
    pub(super) locked: Arc<Locked>,
    pub(super) watches: Arc<Watches>,
    /// Users whose sessions beyond the limit a task deletes.
    /// The value is whether another login has requested that since the task began its last batch.
    surplus: Mutex<HashMap<Arc<str>, bool>>,
    /// One new id at a time is undone.
    pub(super) undoing: tokio::sync::Mutex<()>,
}

fn batch<E: Entry>(table_handle: &TableHandle, locked: &Arc<Locked>) -> Arc<Batch<Many<E>>> {
    Batch::new(Many::new(table_handle.clone(), Arc::clone(locked)))
}

impl Batches {
    pub(crate) fn new(table_handle: TableHandle) -> Arc<Self> {
        let locked = Arc::default();
        Arc::new(Self {
            load: batch(&table_handle, &locked),
            insert: batch(&table_handle, &locked),
            insert_user: batch(&table_handle, &locked),
            save: batch(&table_handle, &locked),
            touch: batch(&table_handle, &locked),
            destroy: batch(&table_handle, &locked),
            watches: Watches::new(table_handle.clone()),
            table_handle,
            locked,
            surplus: Mutex::default(),
            undoing: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn surplus(&self) -> MutexGuard<'_, HashMap<Arc<str>, bool>> {
        self.surplus.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("table", &self.table_handle.name)
            .finish_non_exhaustive()
    }
}
