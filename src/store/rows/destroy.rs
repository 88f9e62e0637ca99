//! Deletes the row of a session, also if its id only forwards to a new one. It doesn't know
//! why.
//!
//! How it works: the batch statement deletes a row that can't be a forwarding. If it finds
//! none, a transaction deletes the row and follows the chain of forwardings, and deletes all
//! of them. A row whose document can't be read is deleted without reading it. If nothing was
//! deleted, the row is looked up, because a trigger can keep it without an error.
//!
//! In the formats of other applications there are no forwardings. The session is also deleted under
//! each new id that this process has given it since the request loaded it, even if the old id has
//! a row again, see [`former_ids`](crate::store::watches::former_ids). If the last of these ids has
//! no row, and it is unknown why, the outcome is [`Deletion::Unknown`].
//!
//! Dropped futures: this runs in the task of the session's queue. If a runtime drops it, the
//! transaction is rolled back, unless it was committed already.

use std::sync::Arc;

use sqlx::{PgConnection, Row as _};

use crate::{
    Error,
    ending::Ending,
    format::OldId,
    id::RowId,
    row::{Row, successor_of},
    state::Deletion,
    store::{
        batch::{
            execute::Entry as _,
            statements::{DestroyRow, Destroyed, LoadRow},
            until_free::serve_until_free,
        },
        connection::{
            sqlstate::spared,
            transaction::{despite_others, in_transaction},
        },
        rows::{
            Batches,
            steps::{Moves, delete_locked, lock_as_loaded},
        },
        table::{handle::Work, statements::Statements, timestamp::written},
        watches::{former_ids::Fate, report::EndedRow},
    },
    telemetry::{Operation, events},
};

/// The outcome of a deletion that requires the row to be as it was loaded.
enum Unchanged {
    Deleted,
    Changed,
    NoRow,
}

/// The outcome of the deletion of one id.
enum Found {
    /// A row was deleted. `Some` if its session was alive.
    Row(Option<EndedRow>),
    Nothing,
}

impl Batches {
    /// Deletes the row. If the session got a new id since it was loaded, at this time of the
    /// database, the row of that id is deleted too, because the request means the session, not
    /// the id.
    pub(in crate::store) async fn destroy_row(
        self: &Arc<Self>,
        id: &RowId,
        ending: Ending,
        loaded: f64,
    ) -> Result<Deletion, Error> {
        let (mut visited, mut ended) = (Vec::new(), Vec::new());
        let mut moves = Moves::default();
        let mut is_over = true;
        // The session may have had several new ids, if another application revived the row of its
        // id after each of them.
        let mut starts = vec![id.clone()];
        while let Some(start) = starts.pop() {
            if visited.contains(&start) {
                continue;
            }
            let from = visited.len();
            let follows = self.destroy_moved(start, loaded, &mut moves, &mut visited, &mut ended);
            // If the future is dropped here, or on error, the rows before this one are deleted. A
            // retry follows the same ids.
            is_over &= follows.await?;
            for id in &visited[from..] {
                starts.extend(self.watches.earlier_moves(id, loaded));
            }
        }
        if !is_over && self.table_handle.format.old_id() == OldId::IsDeleted {
            return Ok(Deletion::Unknown);
        }
        for id in &visited {
            self.watches.record(id, Fate::Deleted);
        }
        if ended.is_empty() {
            return Ok(Deletion::WasOver);
        }
        for ended in &ended {
            self.report_end(ended, ending);
        }
        self.watches.end([id], ending);
        Ok(Deletion::Done)
    }

    /// Deletes the row of this id, and of the new id that the session got last, and so on. Returns
    /// whether the session is over.
    async fn destroy_moved(
        self: &Arc<Self>,
        id: RowId,
        loaded: f64,
        moves: &mut Moves,
        visited: &mut Vec<RowId>,
        ended: &mut Vec<EndedRow>,
    ) -> Result<bool, Error> {
        let mut looked_again = false;
        let mut next = id.clone();
        loop {
            visited.push(next.clone());
            moves.follow()?;
            let found = self.destroy_one(&next).await?;
            let was_found = matches!(found, Found::Row(_));
            if let Found::Row(row) = found {
                ended.extend(row);
            }
            // Also if there was a row: another application may have revived it. Only the last
            // row says whether the session is over.
            match self.watches.fate(&next, loaded) {
                Some(Fate::MovedTo(successor)) => next = successor,
                Some(Fate::Deleted | Fate::ReplacedBy(_)) => return Ok(true),
                _ if was_found || looked_again => return Ok(was_found),
                None if next == id => return Ok(false),
                // The new id may have been undone since the row was looked for.
                Some(Fate::Restored) | None => {
                    looked_again = true;
                    next = id.clone();
                }
            }
        }
    }

    /// Deletes a refused row unless it has changed since it was loaded. It doesn't follow a new id:
    /// a request must load the session under that id to refuse it.
    ///
    /// If the future is dropped, the transaction is rolled back unless its commit was sent.
    pub(in crate::store) async fn destroy_unchanged(
        &self,
        row: &Arc<Row>,
        ending: Ending,
    ) -> Result<Deletion, Error> {
        let deleted = self.destroy_alone(&row.id, |table, connection| {
            let row = Arc::clone(row);
            Box::pin(in_transaction(connection, move |transaction| {
                Box::pin(async move { delete_unchanged(&table, transaction, &row, ending).await })
            }))
        });
        match deleted.await {
            Ok(Unchanged::Deleted) => {
                // Recorded for rows that exceeded the timeouts, too: a late logout may follow.
                self.watches.record(&row.id, Fate::Deleted);
                let ended = EndedRow::new(row.id.clone(), row.user.clone());
                self.report_end(&ended, ending);
                Ok(Deletion::Done)
            }
            Ok(Unchanged::Changed) => Ok(Deletion::Spared),
            Ok(Unchanged::NoRow) => {
                let is_deleted = self.watches.fate(&row.id, row.times.now) == Some(Fate::Deleted);
                let may_live = self.table_handle.format.old_id() == OldId::IsDeleted && !is_deleted;
                Ok(match may_live {
                    true => Deletion::Spared,
                    false => Deletion::WasOver,
                })
            }
            // Another client has written a document that can't be read.
            Err(error) if error.is_of_a_document() => Ok(Deletion::Spared),
            Err(error) => Err(error),
        }
    }

    async fn destroy_one(&self, id: &RowId) -> Result<Found, Error> {
        let order = DestroyRow {
            id: id.clone(),
            even_forwarding: false,
        };
        match self.destroy.submit(order).outcome().await {
            Ok(Some(deleted)) => Ok(Found::Row(self.if_it_was_alive(id, deleted))),
            // There is no row, or one that may be a forwarding.
            Ok(None) => self.destroy_where_it_leads(id).await,
            Err(error) if error.is_of_a_document() => {
                let ended = self.destroy_unread(id).await?;
                Ok(ended.map_or(Found::Nothing, |ended| Found::Row(Some(ended))))
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a row that can't be a forwarding, because another layer's session has no
    /// successor. Returns whether there was a live session.
    ///
    /// The deletion needs no place in the session's queue: a save that is executed after it
    /// finds no row.
    pub(in crate::store) async fn destroy_only(&self, id: &RowId) -> Result<bool, Error> {
        let order = DestroyRow {
            id: id.clone(),
            even_forwarding: true,
        };
        // If the future is dropped here, the deletion is executed.
        let ended = match self.destroy.submit(order).outcome().await {
            Ok(Some(deleted)) => self.if_it_was_alive(id, deleted),
            Ok(None) => match self.load.submit(LoadRow(id.clone())).outcome().await? {
                Some(_) => return Err(spared()),
                None => None,
            },
            Err(error) if error.is_of_a_document() => self.destroy_unread(id).await?,
            Err(error) => return Err(error),
        };
        if let Some(ended) = &ended {
            self.report_end(ended, Ending::Destroyed);
        }
        Ok(ended.is_some())
    }

    fn if_it_was_alive(&self, id: &RowId, deleted: Destroyed) -> Option<EndedRow> {
        let row = EndedRow::new(id.clone(), deleted.user);
        if !deleted.was_alive {
            self.watches.ended([&row], Ending::Expired);
        }
        deleted.was_alive.then_some(row)
    }

    fn report_end(&self, ended: &EndedRow, ending: Ending) {
        let meter = &self.table_handle.executor.meter;
        events::ended(meter, &self.table_handle.format.handle(&ended.id));
        self.watches.ended([ended], ending);
    }

    async fn destroy_unread(&self, id: &RowId) -> Result<Option<EndedRow>, Error> {
        self.destroy_alone(id, |table, connection| {
            let id = id.as_str().to_owned();
            Box::pin(async move {
                let ended = destroy_unread(Arc::clone(&table), connection, id.clone()).await?;
                if ended.is_none() && is_live(&table, connection, &id).await? {
                    return Err(spared());
                }
                Ok(ended)
            })
        })
        .await
    }

    async fn destroy_where_it_leads(&self, id: &RowId) -> Result<Found, Error> {
        self.destroy_alone(id, |table, connection| {
            Box::pin(destroy_chain(table, connection, id.clone()))
        })
        .await
    }

    /// Deletes this row by a statement or transaction of its own, when the row is free.
    async fn destroy_alone<T: Send + 'static>(
        &self,
        id: &RowId,
        work: impl for<'c> Fn(Arc<Statements>, &'c mut PgConnection) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        let deadline = self.table_handle.executor.deadline();
        despite_others(|| {
            serve_until_free(
                &self.table_handle,
                Some(self.locked.key(id.as_str())),
                deadline,
                Operation::Destroy,
                &work,
            )
        })
        .await
    }
}

/// Compares the row with what was loaded, and deletes it if it is the same. A touch doesn't count as
/// a change if the application's check refused the row. It does if the row exceeded the timeouts.
async fn delete_unchanged(
    table: &Statements,
    connection: &mut PgConnection,
    row: &Row,
    ending: Ending,
) -> Result<Unchanged, Error> {
    let Some(now) = lock_as_loaded(table, connection, &row.id).await? else {
        return Ok(Unchanged::NoRow);
    };
    let has_same_document = now.text == row.text || now.document() == row.document();
    let times = |row: &Row| (row.times.expires, row.times.seen);
    let is_touched = ending == Ending::Expired && times(&now) != times(row);
    if !has_same_document || is_touched || now.user != row.user {
        return Ok(Unchanged::Changed);
    }
    delete_locked(table, connection, &row.id).await?;
    Ok(Unchanged::Deleted)
}

/// Deletes a forwarding and its successors in one transaction. If the forwarding were
/// deleted alone and the successor then failed, the next attempt would not find the
/// successor, and the session would stay alive.
async fn destroy_chain(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    id: RowId,
) -> Result<Found, Error> {
    in_transaction(connection, |transaction| {
        Box::pin(destroy_chain_in(table, transaction, id))
    })
    .await
}

async fn destroy_chain_in(
    table: Arc<Statements>,
    transaction: &mut PgConnection,
    id: RowId,
) -> Result<Found, Error> {
    let (mut found, mut ended) = (false, None);
    let mut next = Some(id);
    while let Some(id) = next {
        let order = DestroyRow {
            id,
            even_forwarding: true,
        };
        let delete = || order.bind_one(table.destroy.one.query().bind(order.id.as_str()));
        let mut row = delete().fetch_optional(&mut *transaction).await?;
        if row.is_none() && is_live(&table, transaction, order.id.as_str()).await? {
            // An undo may have restored it in between.
            row = delete().fetch_optional(&mut *transaction).await?;
            if row.is_none() {
                return Err(spared());
            }
        }
        let Some(row) = row else {
            break;
        };
        found = true;
        let deleted = order.decode(&row, &table)?;
        next = deleted
            .text
            .and_then(|text| successor_of(table.layout, &text));
        if next.is_none() && deleted.was_alive {
            ended = Some(EndedRow::new(order.id, deleted.user));
        }
    }
    Ok(match found {
        true => Found::Row(ended),
        false => Found::Nothing,
    })
}

/// Whether there is a live row with this id.
async fn is_live(
    table: &Statements,
    connection: &mut PgConnection,
    id: &str,
) -> Result<bool, Error> {
    let found = table.load.one.query().bind(id);
    Ok(found.fetch_optional(connection).await?.is_some())
}

/// Deletes a row whose document can't be read, and returns the session if it was alive. A
/// forwarding is never such a row: it is short ASCII text.
pub(in crate::store) async fn destroy_unread(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    id: String,
) -> Result<Option<EndedRow>, Error> {
    let deleted = table.destroy_unread.query().bind(id.clone());
    let Some(row) = deleted.fetch_optional(connection).await? else {
        return Ok(None);
    };
    let (expires, user): (_, Option<String>) = (written(&row, 0)?, row.try_get(1)?);
    let was_alive = expires.0 > table.clock.now();
    Ok(was_alive.then(|| EndedRow::new(RowId::from(id), user)))
}
