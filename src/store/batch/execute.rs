//! Sends one statement for many rows, and gives each row its own result. It doesn't know
//! what the rows mean: an [`Entry`] binds its parameters and reads its result.
//!
//! How it works: a statement for many rows fails as a whole if one row is locked by another
//! transaction for too long, or is damaged. It has changed nothing then. So
//! [`Many::serve`] cuts the batch into [`PARTS`] parts and tries them at the same time, each
//! with a short wait for locks, and cuts the parts that fail again. In the end the row at
//! fault is alone: a damaged row fails, and a locked row waits in a task of its own. Its id
//! is remembered in [`Locked`], and later batches leave it out from the start. Results are
//! matched by id, and a row that was not asked for is an error for the whole statement.
//!
//! Dropped futures: everything here runs in tasks of [`queue`](super::queue) or of this
//! file. A request that stops waiting drops none of them.

use std::{
    marker::PhantomData,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_core::future::BoxFuture;
use sqlx::{
    PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    Error,
    error::out_of_time,
    id::RowId,
    store::{
        batch::{
            queue::{Callers, Statement},
            search::{PARTS, PATIENCE, PATIENCE_IN_SEARCH},
            until_free::{Locked, until_free},
        },
        sql::Sizes,
        table::{handle::TableHandle, statements::Statements},
    },
    telemetry::{Call, Operation, Origin, Origins},
};

/// One row of a statement, as one request submits it.
pub(in crate::store) trait Entry: Clone + Send + Sync + 'static {
    /// The result for its row, if there is one.
    type Output: Send + 'static;

    const OPERATION: Operation;

    /// Whether the statement can be sent again if it is unknown whether it was
    /// executed.
    const SAFE_TO_REPEAT: bool = false;

    /// Whether the rows that it returns hold documents, of any size.
    const RETURNS_DOCUMENTS: bool = false;

    /// Whether the statement looks for rows by their ids, so that one id may
    /// be named more than once.
    const LOOKS_FOR_ROWS: bool = true;

    fn id(&self) -> &RowId;

    /// Bytes that it adds to the statement.
    fn weight(&self) -> usize {
        self.id().as_str().len()
    }

    fn statement(table: &Statements) -> &Sizes;

    /// Binds all after the ids.
    fn bind<'q>(query: Binding<'q>, entries: &'q [Self]) -> Binding<'q>
    where
        Self: Sized;

    /// Binds all after the id.
    fn bind_one<'q>(&'q self, query: Binding<'q>) -> Binding<'q>;

    /// Reads the columns after the id.
    ///
    /// # Errors
    ///
    /// If the columns have other types than the statement selects.
    fn decode(&self, row: &PgRow, table: &Statements) -> Result<Self::Output, sqlx::Error>;

    /// Bytes of the document that it returned.
    fn size(_: &Self::Output) -> usize {
        0
    }

    /// The result for another request of the same row, if they can share it.
    fn share(_: &Self::Output) -> Option<Self::Output> {
        None
    }
}

pub(in crate::store) type Binding<'q> = Query<'q, Postgres, PgArguments>;

/// The length that Postgres assumes for an array whose value it doesn't know when it
/// plans. It switches to a generic plan if plans for known values look no cheaper, and
/// planning costs more than executing a small batch. So no array is shorter than this.
const LENGTH_OF_UNKNOWN_ARRAY: usize = 10;

/// Bytes of documents that the loads in flight may return, estimated from earlier loads.
const MAX_LOADED: f64 = 32.0 * 1024.0 * 1024.0;
/// Rows of loads in flight before the first document was loaded.
const FIRST_ROWS: usize = 64;
/// The share of earlier statements that the estimate forgets at each statement.
const FORGETTING: f64 = 0.125;
/// Attempts at a statement that deadlocked, or that met a table that was just changed.
const MAX_ATTEMPTS: u32 = 4;

fn bound<'q, E: Entry>(sizes: &Sizes, entries: &'q [E], ids: &'q [&str]) -> Binding<'q> {
    match entries {
        [entry] => entry.bind_one(sizes.one.query().bind(ids[0])),
        _ => E::bind(sizes.many.query().bind(ids), entries),
    }
}

/// The statement that serves entries of one kind.
#[derive(Debug)]
pub(in crate::store) struct Many<E> {
    table_handle: TableHandle,
    locked: Arc<Locked>,
    sizes: Arc<Mutex<DocumentSizes>>,
    of: PhantomData<fn(E)>,
}

/// How large the documents are that statements have returned recently.
#[derive(Clone, Copy, Debug, Default)]
struct DocumentSizes {
    rows: f64,
    bytes: f64,
}

impl DocumentSizes {
    #[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
    fn observe(&mut self, rows: usize, bytes: usize) {
        let kept = 1.0 - FORGETTING;
        self.rows = self.rows * kept + rows as f64;
        self.bytes = self.bytes * kept + bytes as f64;
    }

    /// Rows whose documents may be in flight at once.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates"
    )]
    fn room(self) -> usize {
        if self.rows < 1.0 {
            return FIRST_ROWS;
        }
        let of_one = (self.bytes / self.rows).max(1.0);
        ((MAX_LOADED / of_one) as usize).max(1)
    }
}

/// The results of some entries, each at the index of its entry.
type Outputs<E> = Vec<Result<Option<<E as Entry>::Output>, Error>>;

impl<E> Clone for Many<E> {
    fn clone(&self) -> Self {
        Self {
            table_handle: self.table_handle.clone(),
            locked: Arc::clone(&self.locked),
            sizes: Arc::clone(&self.sizes),
            of: PhantomData,
        }
    }
}

impl<E: Entry> Many<E> {
    pub(in crate::store) fn new(table_handle: TableHandle, locked: Arc<Locked>) -> Self {
        Self {
            table_handle,
            locked,
            sizes: Arc::default(),
            of: PhantomData,
        }
    }

    /// Sends the statement, and sends it again if it failed without an effect and for
    /// a reason that is not in its rows: a deadlock, or a table that was changed since
    /// it was inspected. After a lost connection it is sent once more if that is safe,
    /// because a kept connection may have been dead before.
    ///
    /// If the future is dropped, the statement may still commit, as a whole.
    async fn send(
        &self,
        part: &Part<E>,
        origins: &[Origin],
        patience: Duration,
        until: Option<Instant>,
    ) -> Result<Outputs<E>, Error> {
        let deadline = self.table_handle.executor.deadline();
        let deadline = until.map_or(deadline, |until| deadline.min(until));
        let mut is_lost = false;
        for _ in 1..MAX_ATTEMPTS {
            let outcome = self
                .send_once(part.clone(), origins, deadline, patience)
                .await;
            match outcome {
                Err(error) if error.is_of_other_writers() => {}
                // If the result of a write can't be read, the write is committed.
                Err(error)
                    if error.is_of_a_changed_table()
                        && (E::SAFE_TO_REPEAT || !error.is_of_another_type()) => {}
                Err(error) if is_to_repeat::<E>(&error) && !is_lost => {
                    is_lost = true;
                    self.table_handle.executor.connections.evict_idle();
                }
                outcome => return outcome,
            }
        }
        self.send_once(part.clone(), origins, deadline, patience)
            .await
    }

    async fn send_once(
        &self,
        part: Part<E>,
        origins: &[Origin],
        deadline: Instant,
        patience: Duration,
    ) -> Result<Outputs<E>, Error> {
        let call = Call {
            rows: part.len(),
            origins: Origins::Of(origins),
            ..self.table_handle.call(E::OPERATION)
        };
        // Reads never wait for a lock.
        let patience = (!E::SAFE_TO_REPEAT).then_some(patience);
        self.table_handle
            .serve(deadline, patience, call, |table, connection| {
                Box::pin(ask(table, connection, part))
            })
            .await
    }

    fn sizes(&self) -> MutexGuard<'_, DocumentSizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe_sizes(&self, outputs: &Outputs<E>) {
        if E::RETURNS_DOCUMENTS {
            let found = outputs
                .iter()
                .filter_map(|output| output.as_ref().ok()?.as_ref());
            let (rows, bytes) = found.fold((0, 0), |(rows, bytes), output| {
                (rows + 1, bytes + E::size(output))
            });
            self.sizes().observe(rows, bytes);
        }
    }

    /// Starts a task that waits for this row, so that no other row waits for it.
    fn wait_apart(&self, part: &Part<E>, caller: Callers<Option<E::Output>>) {
        tokio::spawn(self.clone().wait_for_a_row(part.alone(), caller));
    }

    /// Sends one part of a batch. If a row can be at fault, the part is cut, and the
    /// smaller parts are sent at the same time, so that no row waits for the search in
    /// another part.
    fn serve<'s>(
        &'s self,
        part: Part<E>,
        mut callers: Callers<Option<E::Output>>,
        patience: Duration,
    ) -> BoxFuture<'s, ()> {
        Box::pin(async move {
            if callers.deadline() <= Some(Instant::now()) {
                return callers.fail(&out_of_time());
            }
            let until = callers.deadline();
            // If the future is dropped here, the callers are dropped and get an error.
            match self.send(&part, callers.origins(), patience, until).await {
                Err(error) if error.blames_a_row() && part.len() > 1 => {
                    let mut parts = JoinSet::new();
                    for smaller in part.cut() {
                        let begin = smaller.range.start - part.range.start;
                        let callers = callers.take(begin..begin + smaller.len());
                        let many = self.clone();
                        parts.spawn(async move {
                            many.serve(smaller, callers, PATIENCE_IN_SEARCH).await;
                        });
                    }
                    // If the future is dropped here, the set aborts the parts.
                    while parts.join_next().await.is_some() {}
                }
                Err(error) if error.is_held_up() => {
                    self.locked.insert(part.entries()[0].id().as_str());
                    self.wait_apart(&part, callers);
                }
                Err(error) => callers.fail(&error),
                Ok(outputs) => {
                    self.observe_sizes(&outputs);
                    for (row, output) in outputs.into_iter().enumerate() {
                        callers.reply(row, output);
                    }
                }
            }
        })
    }

    /// Tries one row that another transaction has locked until its request stops
    /// waiting. It runs in a task, which only a runtime that stops drops; the caller
    /// gets an error then.
    async fn wait_for_a_row(self, part: Part<E>, mut caller: Callers<Option<E::Output>>) {
        let key = part.entries()[0].id().as_str();
        let deadline = caller.deadline().unwrap_or_else(Instant::now);
        let outcome = until_free(
            &self.table_handle,
            Some(self.locked.key(key)),
            deadline,
            |patience| self.send(&part, caller.origins(), patience, Some(deadline)),
        );
        let outcome = outcome.await;
        caller.reply(0, outcome.and_then(only));
    }
}

/// The result of a statement for one row.
fn only<A>(outputs: Vec<Result<Option<A>, Error>>) -> Result<Option<A>, Error> {
    outputs.into_iter().next().unwrap_or(Ok(None))
}

impl<E: Entry> Statement for Many<E> {
    type Row = E;
    type Output = Option<E::Output>;

    /// Sends rows that were locked recently one by one, and all others together.
    async fn run(&self, entries: Vec<E>, mut callers: Callers<Self::Output>) {
        // Reads never wait for a lock.
        let locked = match E::SAFE_TO_REPEAT {
            true => Vec::new(),
            false => self
                .locked
                .among(entries.iter().map(|entry| entry.id().as_str())),
        };
        if locked.is_empty() {
            return self.serve(Part::of(entries), callers, PATIENCE).await;
        }
        let is_locked = |place: &usize| locked.binary_search(place).is_ok();
        for place in &locked {
            let part = Part::of(vec![entries[*place].clone()]);
            self.wait_apart(&part, callers.take([*place]));
        }
        let others: Vec<_> = (0..entries.len())
            .filter(|place| !is_locked(place))
            .collect();
        if !others.is_empty() {
            let callers = callers.take(others.iter().copied());
            let entries = others.iter().map(|place| entries[*place].clone());
            let part = Part::of(entries.collect());
            self.serve(part, callers, PATIENCE).await;
        }
    }

    fn id(entry: &E) -> &RowId {
        entry.id()
    }

    fn weight(entry: &E) -> usize {
        entry.weight()
    }

    fn room(&self) -> usize {
        match E::RETURNS_DOCUMENTS {
            true => self.sizes().room(),
            false => usize::MAX,
        }
    }

    fn patience(&self) -> Duration {
        self.table_handle.executor.timeout
    }

    fn dispatches(&self, waits: impl Iterator<Item = Duration>) {
        self.table_handle
            .executor
            .meter
            .dispatched(E::OPERATION, waits);
    }
}

/// Whether to send the statement again after a lost connection: if a repetition is
/// harmless, or if the server closed the connection before it got the statement.
fn is_to_repeat<E: Entry>(error: &Error) -> bool {
    error.is_of_an_idle_connection() || E::SAFE_TO_REPEAT && error.is_of_the_connection()
}

/// Some of the entries of a batch, sorted by id. Two statements that lock the same rows
/// in different orders could deadlock.
struct Part<E> {
    all: Arc<[E]>,
    range: Range<usize>,
}

impl<E> Clone for Part<E> {
    fn clone(&self) -> Self {
        Self {
            all: Arc::clone(&self.all),
            range: self.range.clone(),
        }
    }
}

impl<E: Entry> Part<E> {
    fn of(entries: Vec<E>) -> Self {
        Self {
            range: 0..entries.len(),
            all: entries.into(),
        }
    }

    fn len(&self) -> usize {
        self.range.len()
    }

    fn entries(&self) -> &[E] {
        &self.all[self.range.clone()]
    }

    /// The same entries in an array of their own, which doesn't keep the batch in memory.
    fn alone(&self) -> Self {
        Self::of(self.entries().to_vec())
    }

    /// `None` if the range is empty.
    fn part(&self, range: Range<usize>) -> Option<Self> {
        (!range.is_empty()).then(|| Self {
            all: Arc::clone(&self.all),
            range,
        })
    }

    /// The parts, in order.
    fn cut(&self) -> Vec<Self> {
        let Range { start, end } = self.range;
        let length = self.len().div_ceil(PARTS);
        let starts = (start..end).step_by(length);
        starts
            .filter_map(|start| self.part(start..end.min(start + length)))
            .collect()
    }
}

async fn ask<E: Entry>(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    part: Part<E>,
) -> Result<Outputs<E>, Error> {
    let entries = part.entries();
    let ids = ids(entries);
    let query = bound(E::statement(&table), entries, &ids);
    let rows = query.fetch_all(connection).await?;
    if rows.len() > entries.len() {
        return Err(Error::not_asked_for());
    }
    let mut outputs: Outputs<E> = entries.iter().map(|_| Ok(None)).collect();
    for row in &rows {
        let place = place_of(row.try_get(0)?, &ids).ok_or_else(Error::not_asked_for)?;
        // A row that can't be read fails alone.
        outputs[place] = match entries[place].decode(row, &table).map_err(Error::from) {
            Err(error) if error.is_of_another_type() => return Err(error),
            output => output.map(Some),
        };
    }
    share(entries, &mut outputs);
    Ok(outputs)
}

/// The ids, in order. The last one is repeated up to [`LENGTH_OF_UNKNOWN_ARRAY`]. The
/// other parameters are NULL for the repetitions, which match no row.
fn ids<E: Entry>(entries: &[E]) -> Vec<&str> {
    let mut ids: Vec<_> = entries.iter().map(|entry| entry.id().as_str()).collect();
    if let (Some(last), true) = (ids.last().copied(), E::LOOKS_FOR_ROWS) {
        ids.resize(ids.len().max(LENGTH_OF_UNKNOWN_ARRAY), last);
    }
    ids
}

/// The first index of the id among those that were asked for. Behind a transaction
/// pooler the rows of one statement can reach another one. Then all rows must fail, so
/// that no visitor gets the session of another.
fn place_of(id: &str, ids: &[&str]) -> Option<usize> {
    let place = ids.partition_point(|asked| *asked < id);
    (ids.get(place) == Some(&id)).then_some(place)
}

/// Copies the result of a row to other requests of the same row, which are next to each
/// other.
fn share<E: Entry>(entries: &[E], outputs: &mut Outputs<E>) {
    for place in 1..entries.len() {
        if entries[place].id() == entries[place - 1].id() {
            outputs[place] = match &outputs[place - 1] {
                Ok(output) => Ok(output.as_ref().and_then(E::share)),
                Err(error) => Err(error.clone()),
            };
        }
    }
}

/// One array parameter of a statement: the same member of every entry.
pub(in crate::store) fn column<'e, E, T>(entries: &'e [E], member: impl Fn(&'e E) -> T) -> Vec<T> {
    entries.iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    fn room_after(statements: &[(usize, usize)]) -> usize {
        let mut sizes = DocumentSizes::default();
        for (rows, of_one) in statements {
            sizes.observe(*rows, rows * of_one);
        }
        sizes.room()
    }

    #[test]
    fn documents_of_a_megabyte_are_loaded_32_at_a_time() {
        assert_eq!(room_after(&[(64, MB)]), 32);
        assert_eq!(room_after(&[(1, MB), (32, MB)]), 32);
    }

    #[test]
    fn a_document_of_any_size_is_loaded() {
        assert_eq!(room_after(&[(1, 100 * MB)]), 1);
    }

    #[test]
    fn small_documents_share_statements_as_large_as_any() {
        assert!(room_after(&[(512, 1000)]) > 6 * 512);
    }

    #[test]
    fn one_large_document_among_small_ones_narrows_no_statement() {
        assert!(room_after(&[(100, 1000), (100, 1000), (1, MB)]) > 512);
    }

    #[test]
    fn before_any_document_was_seen_a_statement_takes_few() {
        assert_eq!(room_after(&[]), FIRST_ROWS);
        assert_eq!(room_after(&[(0, 0)]), FIRST_ROWS);
    }
}
