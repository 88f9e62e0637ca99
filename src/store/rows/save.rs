//! Saving: replay the changes on the newest row, compare and swap, and repeat if another
//! writer was faster. It doesn't know requests: only their changes and deadlines.
//!
//! How it works, for all saves that wait for one session:
//!
//! 1. Take the newest row that is known: the one that was written last, or one that a
//!    request loaded. If there is none, load it.
//! 2. If the row forwards to a new id, the saves move to the queue of that id. If another
//!    application has written another user into the row, the saves of the former user are
//!    refused.
//! 3. Replay the changes of all requests, in order, on the document of the row. A request
//!    whose changes don't fit is left out, and the others continue without it. It gets its
//!    error when they are written: its changes may not fit because of theirs. If changes don't
//!    fit a row that was not loaded just now, load it and replay them again.
//! 4. Write the new document, under the condition that the row still holds the old one. If
//!    only the expiry changes, move it, under the condition that it is still the old one.
//! 5. If another writer was faster, repeat with a fresh row, until no request waits.
//! 6. If the connection was lost, it is unknown whether the write was committed. It is
//!    repeated once, and only if the server itself reported the error and a load shows the
//!    old document. Otherwise a late first write could restore what others removed since.
//! 7. If the database refuses the document of several requests, such as for a character that
//!    it can't store, each request is saved alone. Only the one at fault gets the error.
//!
//! Dropped futures: all of this runs in the task of the session's queue, which only a
//! runtime that stops drops. Each request then gets an error. A statement that was submitted
//! belongs to the task of its batch, and may still commit.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    Error, ErrorKind,
    document::Document,
    error::out_of_time,
    expiry::{Extent, Written},
    format::OldId,
    id::RowId,
    random_fraction::random_fraction,
    row::{Content, Row},
    state::Saved,
    store::{
        batch::statements::{LoadRow, SaveRow, TouchRow},
        rows::{Batches, cycle::moved, orders::SaveOrder},
    },
    telemetry::Meter,
    touch::{Touch, is_touch_due},
};

/// Attempts that follow each other at once. Later ones pause, so that writers in
/// several processes don't run in lockstep.
const EAGER_ATTEMPTS: u32 = 2;
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// How an attempt to write the row ended.
enum Attempt {
    Written(Arc<Row>),
    /// Another writer moved the expiry or deleted the session. Holds the row as it was
    /// known before.
    Untouched(Arc<Row>),
    /// Another writer changed or deleted the row, so the comparison failed.
    Lost,
    /// The connection was lost before the result arrived.
    InDoubt(Error),
    Failed(Error),
}

impl Batches {
    /// Saves all orders with one statement and sends each its result. Returns the row
    /// as it is now, if that is known, and the orders for the queue of the new id, if
    /// the session has one.
    pub(in crate::store) async fn save_all(
        &self,
        id: &RowId,
        latest: Option<Arc<Row>>,
        mut orders: Vec<SaveOrder>,
    ) -> (Option<Arc<Row>>, Vec<(RowId, SaveOrder)>) {
        let base = newest(id, latest, &orders);
        let outcome = self.save_until_won(id, base, &mut orders).await;
        match outcome {
            Ok(Place::Here(row)) => {
                reply_all(orders, &Ok(Saved::Here(Arc::clone(&row))));
                (self.remember(row), Vec::new())
            }
            Ok(Place::Untouched(row)) => {
                reply_all(orders, &Ok(Saved::Untouched(row)));
                (None, Vec::new())
            }
            Ok(Place::Forwarded(row)) => (None, forwarded(&row, orders)),
            Err(error) if orders.len() > 1 && error.is_of_a_value() => {
                // If the future is dropped here, those that were saved stay saved.
                Box::pin(self.save_one_by_one(id, orders)).await
            }
            Err(error) => {
                reply_all(orders, &Err(error));
                (None, Vec::new())
            }
        }
    }

    async fn save_one_by_one(
        &self,
        id: &RowId,
        orders: Vec<SaveOrder>,
    ) -> (Option<Arc<Row>>, Vec<(RowId, SaveOrder)>) {
        let (mut latest, mut forwarded) = (None, Vec::new());
        for order in orders {
            let (row, moved) = self.save_all(id, latest, vec![order]).await;
            latest = row;
            forwarded.extend(moved);
        }
        (latest, forwarded)
    }

    async fn save_until_won(
        &self,
        id: &RowId,
        mut base: Option<Arc<Row>>,
        orders: &mut Vec<SaveOrder>,
    ) -> Result<Place, Error> {
        let mut doubt = None;
        for lost in 1.. {
            drop_expired(orders)?;
            let (row, age) = match base.take() {
                Some(row) => (row, Age::Remembered),
                // If the future is dropped here, no statement with these changes is in flight.
                None => (self.reload(id).await?, Age::Fresh),
            };
            row.document().ok_or_else(unreadable)?;
            if row.successor().is_some() {
                return Ok(Place::Forwarded(row));
            }
            let is_of_another_user =
                |order: &SaveOrder| row.has_lost_user(order.base.user.as_ref());
            let is_shared = self.table_handle.format.old_id() == OldId::IsDeleted;
            if is_shared && orders.iter().any(is_of_another_user) {
                // The user of a remembered row may have changed again.
                if age == Age::Remembered {
                    continue;
                }
                refuse(orders, is_of_another_user, Error::ended)?;
            }
            let (draft, misfits) = match compose(&row, age, orders, self.meter()) {
                Composed::Draft(draft, misfits) => (draft, misfits),
                Composed::Nothing => return Ok(Place::Here(row)),
                Composed::Misfit => continue,
            };
            if age == Age::Remembered && draft.is_undone() {
                continue;
            }
            let until = until(orders);
            // If the future is dropped here, the statement may still commit.
            let attempt = self.attempt(&row, draft, until).await;
            match (attempt, doubt.take()) {
                (Attempt::Written(row), _) => {
                    misfits.refuse();
                    return Ok(Place::Here(row));
                }
                (Attempt::Untouched(row), _) => {
                    misfits.refuse();
                    return Ok(Place::Untouched(row));
                }
                (Attempt::Failed(error), _) => {
                    misfits.put_back(orders);
                    return Err(error);
                }
                (Attempt::InDoubt(error), None) => match self.settle(&row, &error).await {
                    Ok(row) => {
                        misfits.put_back(orders);
                        base = Some(row);
                        doubt = Some(error);
                    }
                    Err(error) => misfits.go_on_without(orders, error)?,
                },
                (Attempt::Lost, Some(error)) | (Attempt::InDoubt(error), Some(_)) => {
                    misfits.go_on_without(orders, error)?;
                }
                (Attempt::Lost, None) => {
                    misfits.put_back(orders);
                    self.try_again(orders)?;
                    pause(lost).await;
                }
            }
        }
        Err(lost_too_often())
    }

    fn meter(&self) -> &Meter {
        &self.table_handle.executor.meter
    }

    /// # Errors
    ///
    /// If no request waits long enough for another attempt.
    fn try_again(&self, orders: &[SaveOrder]) -> Result<(), Error> {
        self.meter().lost_to_another_writer();
        match is_the_last(orders) {
            true => Err(lost_too_often()),
            false => Ok(()),
        }
    }

    async fn reload(&self, id: &RowId) -> Result<Arc<Row>, Error> {
        let row = self.load.submit(LoadRow(id.clone())).outcome().await?;
        row.ok_or_else(Error::ended)
    }

    /// Decides whether a statement whose outcome is unknown can be sent again, and
    /// returns the row for that.
    ///
    /// It can, once, if the server reported that the statement failed and the row still
    /// holds what it was compared with. Without a report of the server, the statement may
    /// still wait for a lock there. It would be executed as soon as the row holds the
    /// same text again, and restore what others removed meanwhile. If the row holds
    /// another text, the outcome stays unknown. That includes the new text, which may be
    /// an equal change of another request.
    async fn settle(&self, row: &Row, error: &Error) -> Result<Arc<Row>, Error> {
        if !error.is_of_the_server() {
            return Err(error.clone());
        }
        match self.load.submit(LoadRow(row.id.clone())).outcome().await {
            Ok(Some(now)) if now.text == row.text => Ok(now),
            _ => Err(error.clone()),
        }
    }

    async fn attempt(&self, row: &Row, draft: Draft, until: Instant) -> Attempt {
        let outcome = match (draft.is_changed, draft.extent) {
            (true, extent) => self.write(row, &draft.content.text, extent, until).await,
            (false, Some(extent)) => return self.move_expiry(row, extent, until).await,
            (false, None) => return Attempt::Written(Arc::new(row.clone())),
        };
        match outcome {
            Ok(Some(written)) => {
                let times = match draft.extent {
                    Some(_) => row.times.moved(written),
                    None => row.times.kept(written),
                };
                let written = Row::written(row.id.clone(), draft.content, times);
                Attempt::Written(Arc::new(written.of(row.user.clone())))
            }
            Ok(None) => Attempt::Lost,
            Err(error) => failed(error),
        }
    }

    async fn write(
        &self,
        row: &Row,
        text: &Arc<str>,
        extent: Option<Extent>,
        until: Instant,
    ) -> Result<Option<Written>, Error> {
        let table = self.table_handle.table().await?;
        let order = SaveRow {
            id: row.id.clone(),
            digest: table.digest(row.text.as_deref().unwrap_or_default()),
            text: Arc::clone(text),
            extent,
        };
        self.save.submit_until(until, order).outcome().await
    }

    /// Moves the expiry. If another writer moved it first, nothing is repeated,
    /// because that writer knew the newer row.
    async fn move_expiry(&self, row: &Row, extent: Extent, until: Instant) -> Attempt {
        let order = TouchRow {
            id: row.id.clone(),
            expires: row.times.expires,
            extent,
        };
        match self.touch.submit_until(until, order).outcome().await {
            Ok(Some(written)) => {
                let mut row = row.clone();
                row.times = row.times.moved(written);
                Attempt::Written(Arc::new(row))
            }
            Ok(None) => Attempt::Untouched(Arc::new(row.clone())),
            Err(error) => Attempt::Failed(error),
        }
    }

    /// Returns the row as the base for the next save, if the table stores the text of a
    /// document unchanged.
    fn remember(&self, row: Arc<Row>) -> Option<Arc<Row>> {
        self.table_handle.found()?.keeps_the_text().then_some(row)
    }
}

/// Redirects the orders to the successor row, for a session that got a new id while the
/// requests were running. Their cookies stay as they are. An order whose result would show
/// what the successor holds gets an error instead.
fn forwarded(old: &Row, orders: Vec<SaveOrder>) -> Vec<(RowId, SaveOrder)> {
    let mut forwarded = Vec::with_capacity(orders.len());
    for mut order in orders {
        // After a login that discards the data there is no successor to follow.
        let successor = old.successor().filter(|id| !id.as_str().is_empty());
        match successor {
            Some(successor) if order.record.may_follow() => {
                // Whether the client can try again depends on its first id.
                order.forwarded.get_or_insert_with(|| moved(old.times));
                forwarded.push((successor, order));
            }
            _ => order.reply(Err(moved(old.times))),
        }
    }
    forwarded
}

/// Returns an error to the requests whose time is up. Their changes are not sent.
///
/// # Errors
///
/// When no request is left.
fn drop_expired(orders: &mut Vec<SaveOrder>) -> Result<(), Error> {
    let now = Instant::now();
    refuse(orders, |order| order.deadline <= now, out_of_time)
}

/// Returns an error to these requests.
///
/// # Errors
///
/// When no request is left.
fn refuse(
    orders: &mut Vec<SaveOrder>,
    is_refused: impl Fn(&SaveOrder) -> bool,
    error: fn() -> Error,
) -> Result<(), Error> {
    for order in orders.extract_if(.., |order| is_refused(order)) {
        order.reply(Err(error()));
    }
    match orders.is_empty() {
        true => Err(error()),
        false => Ok(()),
    }
}

/// The time when the last of the requests stops waiting. A statement that is sent later
/// would change a session after its request got the response that it could not be saved.
fn until(orders: &[SaveOrder]) -> Instant {
    let latest = orders.iter().map(|order| order.deadline).max();
    latest.unwrap_or_else(Instant::now)
}

/// Whether all deadlines pass before another attempt can end.
fn is_the_last(orders: &[SaveOrder]) -> bool {
    let latest = orders.iter().map(|order| order.deadline).max();
    latest.is_none_or(|deadline| deadline <= Instant::now() + MAX_PAUSE)
}

/// Where the orders were saved.
enum Place {
    Here(Arc<Row>),
    /// In this row, but its expiry was not moved.
    Untouched(Arc<Row>),
    Forwarded(Arc<Row>),
}

/// The newest document and the newest times, of the row that was written last and those that
/// the requests loaded, by the database's clock. A touch changes only the times. Rows with an
/// earlier id of the session are ignored.
fn newest(id: &RowId, latest: Option<Arc<Row>>, orders: &[SaveOrder]) -> Option<Arc<Row>> {
    let loaded = orders.iter().map(|order| Arc::clone(&order.base));
    let known: Vec<_> = loaded.chain(latest).filter(|row| row.id == *id).collect();
    let newest = known
        .iter()
        .max_by(|a, b| a.text_seen.total_cmp(&b.text_seen))?;
    let touched = known
        .iter()
        .max_by(|a, b| a.times.now.total_cmp(&b.times.now))?;
    match touched.times.now > newest.times.now {
        true => {
            let mut row = Row::clone(newest);
            row.times = touched.times;
            Some(Arc::new(row))
        }
        false => Some(Arc::clone(newest)),
    }
}

fn reply_all(orders: Vec<SaveOrder>, outcome: &Result<Saved, Error>) {
    for order in orders {
        order.reply(outcome.clone());
    }
}

fn failed(error: Error) -> Attempt {
    match error.kind() {
        ErrorKind::Conflict => Attempt::Lost,
        ErrorKind::Unavailable => Attempt::InDoubt(error),
        _ => Attempt::Failed(error),
    }
}

fn lost_too_often() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "other writers of this session were faster until the time was up",
    )
}

pub(super) fn unreadable() -> Error {
    Error::new(
        ErrorKind::Database,
        "the row of this session no longer holds a JSON object",
    )
}

async fn pause(lost: u32) {
    if lost > EAGER_ATTEMPTS {
        let longest = Duration::from_millis(1 << lost.min(10)).min(MAX_PAUSE);
        tokio::time::sleep(longest.mul_f64(random_fraction())).await;
    }
}

/// The result of replaying the orders on a row.
struct Draft {
    content: Content,
    is_changed: bool,
    has_changes: bool,
    extent: Option<Extent>,
}

impl Draft {
    /// Whether the changes leave the row as it is. Then no statement compares the row
    /// with what is stored, so the changes must be replayed on a fresh row.
    fn is_undone(&self) -> bool {
        self.has_changes && !self.is_changed
    }
}

/// Whether a row was loaded while the requests were waiting for their save.
#[derive(Clone, Copy, PartialEq)]
enum Age {
    Fresh,
    /// Another process may have written it since.
    Remembered,
}

/// The result of replaying the orders on a row, or why there is none.
enum Composed {
    Draft(Draft, Misfits),
    /// Each of them was refused.
    Nothing,
    /// They don't fit the remembered row, but may fit a fresh one.
    Misfit,
}

/// Orders that were left out because they don't fit, with their errors and their former places,
/// in order.
#[derive(Default)]
struct Misfits(Vec<(usize, SaveOrder, Error)>);

impl Misfits {
    /// Takes them from the orders.
    fn take_out(orders: &mut Vec<SaveOrder>, misfits: Vec<(usize, Error)>) -> Self {
        let taken = misfits.into_iter().rev();
        let mut taken: Vec<_> = taken
            .map(|(place, error)| (place, orders.remove(place), error))
            .collect();
        taken.reverse();
        Self(taken)
    }

    fn refuse(self) {
        for (_, order, error) in self.0 {
            order.reply(Err(error));
        }
    }

    /// Fails the other requests, because the outcome of their write is unknown. The misfits were
    /// not part of that write, so they are tried again.
    ///
    /// # Errors
    ///
    /// `error`, if there is no misfit.
    fn go_on_without(self, orders: &mut Vec<SaveOrder>, error: Error) -> Result<(), Error> {
        if self.0.is_empty() {
            return Err(error);
        }
        reply_all(std::mem::take(orders), &Err(error));
        self.put_back(orders);
        Ok(())
    }

    fn put_back(self, orders: &mut Vec<SaveOrder>) {
        for (place, order, _) in self.0 {
            orders.insert(place.min(orders.len()), order);
        }
    }
}

/// Replays the orders one after the other on the row. An order that doesn't fit it is left out.
fn compose(row: &Arc<Row>, age: Age, orders: &mut Vec<SaveOrder>, meter: &Meter) -> Composed {
    let Some(loaded) = row.document() else {
        return Composed::Nothing;
    };
    let mut left_out = Misfits::default();
    let document = match known_outcome(row, orders) {
        Some(outcome) => outcome,
        None => {
            meter.replayed(replays(row, orders));
            let (document, misfits) = replay_all(Document::clone(loaded), orders);
            if age == Age::Remembered && !misfits.is_empty() {
                return Composed::Misfit;
            }
            left_out = Misfits::take_out(orders, misfits);
            Arc::new(document)
        }
    };
    if orders.is_empty() {
        left_out.refuse();
        return Composed::Nothing;
    }
    let extent = extent(row, &document, orders);
    let draft = Draft {
        is_changed: document != *loaded,
        has_changes: orders.iter().any(|order| !order.record.changes.is_empty()),
        content: document.into(),
        extent,
    };
    Composed::Draft(draft, left_out)
}

/// The document that a single request has already computed, if it is saved on the row that
/// the request loaded.
fn known_outcome(row: &Arc<Row>, orders: &[SaveOrder]) -> Option<Arc<Document>> {
    let [order] = orders else {
        return None;
    };
    let outcome = order.record.outcome.as_ref()?;
    Arc::ptr_eq(row, &order.base).then(|| Arc::clone(outcome))
}

/// How many of the records are replayed on another row than they were made of.
fn replays(row: &Arc<Row>, orders: &[SaveOrder]) -> usize {
    let orders = orders
        .iter()
        .filter(|order| !order.record.changes.is_empty() && !Arc::ptr_eq(row, &order.base));
    orders.count()
}

/// Also returns the indexes of the orders that don't fit, with their errors.
fn replay_all(mut document: Document, orders: &mut [SaveOrder]) -> (Document, Vec<(usize, Error)>) {
    let mut misfits = Vec::new();
    for (place, order) in orders.iter_mut().enumerate() {
        if let Err(error) = order.record.changes.replay_caught(&mut document) {
            misfits.push((place, error));
        }
    }
    (document, misfits)
}

fn extent(row: &Row, document: &Document, orders: &[SaveOrder]) -> Option<Extent> {
    let meta = document.meta();
    orders
        .iter()
        .rev()
        .find(|order| {
            order.record.changes.set_terms()
                || order.touch == Touch::Always
                || (order.touch == Touch::IfDue && is_touch_due(&order.timeouts, &meta, row.times))
        })
        .map(|order| order.timeouts.extent(&meta, row.times.created))
}
