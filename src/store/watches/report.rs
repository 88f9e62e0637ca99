//! Reports what happened to sessions: to their watches, and to the application's hook. It is
//! called when the transaction is committed, in the task that committed it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use sqlx::{Row as _, postgres::PgRow};
use tokio::time::Instant;

use crate::{
    Error, SessionId,
    ending::Ending,
    event::{SessionEvent, SessionEventKind},
    format::OldId,
    id::RowId,
    store::{
        table::{statements::Statements, timestamp::written},
        watches::{former_ids::Fate, sweep::Watches},
    },
};

/// A session whose row was deleted.
#[derive(Clone, Debug)]
pub(in crate::store) struct EndedRow {
    pub(in crate::store) id: RowId,
    pub(in crate::store) user: Option<Arc<str>>,
}

impl EndedRow {
    pub(in crate::store) fn new(id: RowId, user: Option<impl Into<Arc<str>>>) -> Self {
        Self {
            id,
            user: user.map(Into::into),
        }
    }
}

/// Those of these deleted rows that had not expired. Their first columns are the id, the expiry
/// and the user.
///
/// # Errors
///
/// If a column has another type.
pub(in crate::store) fn alive(table: &Statements, rows: &[PgRow]) -> Result<Vec<EndedRow>, Error> {
    let (now, mut alive) = (table.clock.now(), Vec::new());
    for row in rows {
        if written(row, 1)?.0 > now {
            let id = RowId::from(row.try_get::<String, _>(0)?);
            alive.push(EndedRow::new(id, row.try_get::<Option<String>, _>(2)?));
        }
    }
    Ok(alive)
}

impl Watches {
    /// These sessions have ended.
    pub(in crate::store) fn ended<'r>(
        &self,
        rows: impl IntoIterator<Item = &'r EndedRow> + Clone,
        ending: Ending,
    ) {
        // Expired sessions are not recorded: the reaper deletes many, and a logout needs no record
        // of them.
        if ending != Ending::Expired {
            for row in rows.clone() {
                self.record(&row.id, Fate::Deleted);
            }
        }
        self.report(rows, ending);
    }

    fn report<'r>(&self, rows: impl IntoIterator<Item = &'r EndedRow> + Clone, ending: Ending) {
        self.end(rows.clone().into_iter().map(|row| &row.id), ending);
        if self.table_handle.hook.is_some() {
            for row in rows {
                let event = self.event(&row.id, SessionEventKind::Ended(ending));
                self.call_hook(&event.of(row.user.clone()));
            }
        }
    }

    /// A session began without a login.
    pub(in crate::store) fn began(&self, id: &RowId) {
        if self.table_handle.hook.is_some() {
            self.call_hook(&self.event(id, SessionEventKind::Began));
        }
    }

    /// A session got a new id, or a user signed in. `before` is the row of the session before
    /// that, and `None` if the session began.
    pub(in crate::store) fn moved(
        &self,
        before: Option<&EndedRow>,
        goes_on: bool,
        after: &EndedRow,
        kind: SessionEventKind,
    ) {
        let previous = before.filter(|_| goes_on);
        match (previous, before) {
            (Some(previous), _) => self.follow(&previous.id, &after.id),
            // The new id may still be undone, so it is not recorded as deleted.
            (None, Some(replaced)) => self.report([replaced], Ending::Replaced),
            (None, None) => {}
        }
        if self.table_handle.hook.is_some() {
            let event = self.event(&after.id, kind).of(after.user.clone());
            self.call_hook(&match previous {
                Some(previous) => event.after(self.table_handle.format.handle(&previous.id)),
                None => event,
            });
        }
    }

    /// Records what happened to a session, in formats whose old ids leave no row.
    pub(in crate::store) fn record(&self, id: &RowId, fate: Fate) {
        if let Some(handle) = self.former_handle(id) {
            self.former_ids.record(handle, id.clone(), fate, self.now());
        }
    }

    /// Records a fate, unless the session was deleted since the last record.
    pub(in crate::store) fn record_unless_deleted(&self, id: &RowId, fate: Fate) {
        if let Some(handle) = self.former_handle(id) {
            self.former_ids
                .record_unless_deleted(handle, id.clone(), fate, self.now());
        }
    }

    /// `None` in formats whose old ids leave a row.
    fn former_handle(&self, id: &RowId) -> Option<SessionId> {
        let format = &self.table_handle.format;
        (format.old_id() == OldId::IsDeleted).then(|| format.handle(id))
    }

    /// What happened to a session since it was loaded, at this time of the database.
    pub(in crate::store) fn fate(&self, id: &RowId, loaded: f64) -> Option<Fate> {
        let handle = self.table_handle.format.handle(id);
        self.former_ids.fate(&handle, loaded, Instant::now())
    }

    /// The new ids that a session got since it was loaded, except the one of its last fate.
    pub(in crate::store) fn earlier_moves(&self, id: &RowId, loaded: f64) -> Vec<RowId> {
        let handle = self.table_handle.format.handle(id);
        self.former_ids.earlier_moves(&handle, loaded)
    }

    /// Records that a new id was not committed, or was undone. Returns whether the session was
    /// destroyed meanwhile by its former id, because a login had dropped the data.
    pub(in crate::store) fn restore(&self, from: &RowId, to: &RowId) -> bool {
        self.follow_back(from, to);
        let handle = self.table_handle.format.handle(from);
        self.former_ids.restore(&handle, to, self.now())
    }

    fn now(&self) -> (Instant, f64) {
        let table = self.table_handle.found();
        let database_time = table.map_or(f64::INFINITY, |table| table.clock.now());
        (Instant::now(), database_time)
    }

    /// The former id of a session whose handle this is.
    pub(in crate::store) fn former_row_of(&self, handle: &SessionId) -> Option<RowId> {
        self.former_ids.row_of(handle)
    }

    fn event(&self, id: &RowId, kind: SessionEventKind) -> SessionEvent {
        let format = &self.table_handle.format;
        SessionEvent::new(format.handle(id), kind, format.has_realms())
    }

    /// The session is committed, so a panic of the hook must not look like a failure.
    fn call_hook(&self, event: &SessionEvent) {
        let Some(hook) = &self.table_handle.hook else {
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| hook.call(event))).is_err() {
            tracing::error!(session.id = %event.id(), "the hook for events of sessions panicked");
        }
    }
}
