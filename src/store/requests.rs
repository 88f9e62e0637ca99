//! The calls that a session makes: load, insert, save, new id, destroy. It doesn't know the
//! request or its response, and no SQL.
//!
//! How it works: a load is submitted to the batch of loads. A write of an existing row is
//! submitted to the queue of its session. The row of a new session has no queue, because no
//! other request knows its id, so it is submitted to the batch of inserts.
//!
//! Dropped futures: what was submitted is still executed. A new token that its caller doesn't
//! receive is worthless, so the first row of a session is deleted again, and a new id is
//! undone, by an [`Undelivered`] that is dropped with the result.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    Error, ErrorKind, Expiry, Login,
    document::Document,
    ending::Ending,
    error::out_of_time,
    expiry::Written,
    format::OldId,
    id::{RowId, Token},
    realm::Realm,
    row::{Content, Row},
    state::{Deletion, NewIdWrite, Record, Saved, Source, ToDelete},
    store::{
        PgSessionStore,
        batch::{
            queue::Receipt,
            statements::{InsertRow, LoadRow},
        },
        rows::{
            orders::{DestroyOrder, NewIdOrder, SaveOrder, Write},
            takeover::TakeoverOrder,
            undo::Undelivered,
        },
        table::{columns::Columns, name::TableName},
        watches::sweep::SessionEnd,
    },
    takeover::{Key, TakenOver, Takeover},
    telemetry::events,
    timeouts::{Absolute, Timeouts},
    touch::Touch,
};

impl PgSessionStore {
    /// The database's time, as far as this process knows it: seconds since the
    /// epoch, or minus infinity before it looked at the table.
    pub(crate) fn now(&self) -> f64 {
        let table = self.table_handle().found();
        table.map_or(f64::NEG_INFINITY, |table| table.clock.now())
    }

    /// Seconds by which a stored expiry may be too late. In a column without a time zone, an
    /// expiry in the hour that is repeated in autumn may be an hour too late.
    pub(crate) fn zone_slack(&self) -> f64 {
        let table = self.table_handle().found();
        match table.is_some_and(|table| !table.columns.expiry_has_time_zone()) {
            true => 3600.0,
            false => 0.0,
        }
    }

    /// Loads those of these rows that are live. If the future is dropped, the loads that
    /// were submitted are still executed, and their results are dropped.
    pub(crate) async fn load_rows(&self, ids: &[RowId]) -> Result<Vec<Arc<Row>>, Error> {
        let receipts: Vec<_> = ids
            .iter()
            .map(|id| self.shared.batches.load.submit(LoadRow(id.clone())))
            .collect();
        let mut rows = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            rows.extend(receipt.outcome_in_time().await?);
        }
        Ok(rows)
    }

    /// Whether the session still has this id.
    pub(crate) async fn is_live(&self, id: RowId) -> Result<bool, Error> {
        let rows = self.load_rows(&[id]).await?;
        Ok(rows.iter().any(|row| row.successor().is_none()))
    }

    /// Inserts the row of a session that this request began, under a new token.
    ///
    /// If the future is dropped, or the deadline passes, the insert continues in a task, and
    /// the row is then deleted, because no client has its token.
    pub(crate) async fn insert(
        &self,
        document: Arc<Document>,
        timeouts: Arc<Timeouts>,
    ) -> Result<(Token, Arc<Row>), Error> {
        let token = self.format().new_token()?;
        let id = self.row_id(&token);
        let insert = self.clone().insert_new(id.clone(), document, timeouts);
        // If the future is dropped here, `UnsentRow` starts the task.
        let row = self.unsent(id, insert).await?.ok_or_else(id_exists)?;
        Ok((token, row))
    }

    /// Runs the insert of a row that is deleted again if this future is dropped, or if the
    /// deadline passes. `None` if its id exists.
    async fn unsent<T: Send + 'static>(
        &self,
        id: RowId,
        insert: impl Future<Output = Result<Option<T>, Error>> + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let insert = UnsentRow {
            insert: Some(Box::pin(insert)),
            undelivered: Some(Undelivered::row(&self.shared.batches, id)),
        };
        let deadline = self.table_handle().executor.deadline();
        timeout_at(deadline, insert)
            .await
            .unwrap_or_else(|_| Err(out_of_time()))
    }

    /// Inserts the row of a session that another layer began, perhaps with a user. `None` if
    /// its id exists.
    ///
    /// If the future is dropped, or the deadline passes, the insert continues in a task, and
    /// the row is then deleted, because no client has its token.
    pub(in crate::store) async fn insert_unsent(
        &self,
        order: InsertRow,
        user: Option<Arc<str>>,
    ) -> Result<Option<Written>, Error> {
        let (id, store) = (order.id.clone(), self.clone());
        self.unsent(id.clone(), async move {
            let batches = &store.shared.batches;
            let insert = || batches.insert_with_user(order.clone(), user.clone());
            let written = store.insert_row(&id, insert).await?;
            if written.is_some() {
                events::began(store.meter(), &store.format().handle(&id));
                // A login that begins a session is reported already.
                if user.is_none() {
                    batches.watches.began(&id);
                }
            }
            Ok(written)
        })
        .await
    }

    async fn insert_new(
        self,
        id: RowId,
        document: Arc<Document>,
        timeouts: Arc<Timeouts>,
    ) -> Result<Option<Arc<Row>>, Error> {
        let table = self.table_handle().table().await?;
        self.check_timeouts(&timeouts)?;
        let has_created = table.columns.has_created();
        let extent = timeouts.extent_of_new(&document.meta(), has_created);
        let content = Content::from(document);
        let order = InsertRow {
            id: id.clone(),
            text: Arc::clone(&content.text),
            extent,
        };
        let insert = || {
            let insert = self.shared.batches.insert.submit(order.clone());
            insert.outcome()
        };
        let Some(written) = self.insert_row(&id, insert).await? else {
            return Ok(None);
        };
        events::began(self.meter(), &self.format().handle(&id));
        self.shared.batches.watches.began(&id);
        let times = table.columns.times_of_new(written);
        Ok(Some(Arc::new(Row::written(id, content, times))))
    }

    /// Makes the insert, and once more if the server reported that it closed the connection.
    /// No other request has this id, so a row with it was inserted by the first attempt.
    /// Without a report of the server, the first insert may still be in flight. It could
    /// revive the session after its end, so it is not repeated. `None` if the first attempt
    /// found the id in the table.
    async fn insert_row<F>(
        &self,
        id: &RowId,
        insert: impl Fn() -> F,
    ) -> Result<Option<Written>, Error>
    where
        F: Future<Output = Result<Option<Written>, Error>>,
    {
        match insert().await {
            Err(error) if error.kind() == ErrorKind::Unavailable && error.is_of_the_server() => {}
            outcome => return outcome,
        }
        if let Some(written) = insert().await? {
            return Ok(Some(written));
        }
        let rows = self.load_rows(std::slice::from_ref(id)).await?;
        let written = rows.first().map(|row| Written::of(row.times));
        written.map(Some).ok_or_else(Error::ended)
    }

    /// Looks for the session of another system's key, and moves its row into our table. If the
    /// future is dropped, either nothing has changed, or the key leads to the session for a
    /// minute.
    pub(crate) async fn take_over(
        &self,
        key: &Key,
        timeouts: &Arc<Timeouts>,
        deadline: Instant,
    ) -> Result<TakenOver, Error> {
        let token = self.format().new_token()?;
        let order = TakeoverOrder {
            key: key.clone(),
            name: other_table(&key.takeover),
            key_id: self.row_id_of_key(key),
            id: self.row_id(&token),
            token,
            realm: self.own_realm().clone(),
            timeouts: Arc::clone(timeouts),
            deadline,
        };
        self.check_timeouts(timeouts)?;
        self.shared.batches.take_over(&order).await
    }

    /// Deletes the session of another system's key, which no browser sends any more.
    pub(crate) async fn end_other(&self, key: &Key, deadline: Instant) -> Result<(), Error> {
        let name = other_table(&key.takeover);
        self.shared.batches.end_other(key, name, deadline).await
    }

    /// The id of our row for another system's key. It is a digest in a domain of its own, so
    /// no token leads to it.
    pub(crate) fn row_id_of_key(&self, key: &Key) -> RowId {
        let realm = Realm {
            cookie_name: key.takeover.domain().into(),
            ..self.own_realm().clone()
        };
        self.format().row_id(&key.token, &realm)
    }

    /// # Errors
    ///
    /// If the takeover's settings can't be used with this store.
    pub(crate) fn check_takeover(&self, takeover: &Takeover) -> Result<(), Error> {
        takeover.check()?;
        other_table(takeover).check()?;
        match self.table_handle().format.old_id() {
            OldId::Forwards => Ok(()),
            OldId::IsDeleted => Err(Error::new(
                ErrorKind::Setup,
                "a takeover needs this crate's own format, because Koa or Express would read the rows",
            )),
        }
    }

    /// Saves the changes of a request, or only moves the expiry if there are none. If the
    /// future is dropped, the save is still executed.
    pub(crate) async fn save(
        &self,
        base: Arc<Row>,
        record: Record,
        timeouts: Arc<Timeouts>,
        touch: Touch,
    ) -> Result<Saved, Error> {
        let (reply, receipt) = self.receipt();
        let id = base.id.clone();
        let order = SaveOrder {
            base,
            record,
            touch,
            timeouts,
            forwarded: None,
            deadline: receipt.deadline(),
            reply,
        };
        self.shared.queues.submit(id, Write::Save(order));
        receipt.outcome_in_time().await
    }

    /// Gives the session a new token; the old one opens nothing any more.
    pub(crate) async fn new_id(
        &self,
        write: NewIdWrite,
        timeouts: Arc<Timeouts>,
    ) -> Result<(Token, Arc<Row>), Error> {
        let token = self.format().new_token()?;
        let new_id = self.row_id(&token);
        // A session that has a row uses its queue, so that its writes stay in order.
        let queue = match &write.source {
            Source::Row(id) => id.clone(),
            Source::Nothing(_) => new_id.clone(),
        };
        let (reply, receipt) = self.receipt();
        let order = NewIdOrder {
            write,
            timeouts,
            new_id,
            deadline: receipt.deadline(),
            reply,
        };
        self.shared.queues.submit(queue, Write::NewId(order));
        // If the future is dropped here, or the deadline passes, the new id is undone. So
        // it is if the outcome is an error and the commit was sent.
        let (outcome, undelivered) = receipt.outcome_in_time().await?;
        let row = outcome?;
        undelivered.delivered();
        Ok((token, row))
    }

    /// Deletes the row. If there was no live session, that is no error. The deletion is queued
    /// before this returns, so it is executed even if the future is dropped.
    pub(crate) fn destroy_row(
        &self,
        id: RowId,
        target: ToDelete,
        ending: Ending,
    ) -> impl Future<Output = Result<Deletion, Error>> + Send + use<> {
        let (reply, receipt) = self.receipt();
        let order = DestroyOrder {
            target,
            ending,
            reply,
        };
        self.shared.queues.submit(id, Write::Destroy(order));
        receipt.outcome_in_time()
    }

    /// Watches the session of this row, which was live when it was loaded.
    pub(crate) fn watch_row(&self, row: &Row) -> SessionEnd {
        self.shared.batches.watches.watch(row)
    }

    /// A sender for the result of a write, and a receiver with the store's timeout.
    fn receipt<T>(&self) -> (oneshot::Sender<Result<T, Error>>, Receipt<T>) {
        let (reply, receipt) = oneshot::channel();
        (
            reply,
            Receipt::new(receipt, self.table_handle().executor.deadline()),
        )
    }

    pub(crate) fn check_timeouts(&self, timeouts: &Timeouts) -> Result<(), Error> {
        match timeouts.absolute {
            Absolute::After(_) => self.check_found(Columns::check_created),
            Absolute::WherePossible | Absolute::Off => Ok(()),
        }
    }

    pub(crate) fn check_login(&self, login: &Login) -> Result<(), Error> {
        self.check_found(|columns, name| columns.check_login(login, name))
    }

    pub(crate) fn check_expiry(&self, expiry: Expiry) -> Result<(), Error> {
        self.check_found(|columns, name| columns.check_expiry(expiry, name))
    }

    fn check_found(
        &self,
        check: impl FnOnce(&Columns, &TableName) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let found = self.table_handle().found();
        found.map_or(Ok(()), |table| check(&table.columns, &table.name))
    }
}

/// An insert that continues in a task if it is dropped. Then its row is deleted. If it is
/// dropped outside of a runtime, there is no task, and a row that was inserted stays.
///
/// An insert that found its id in the table has inserted nothing, and deletes nothing.
struct UnsentRow<T: Send + 'static> {
    insert: Option<BoxFuture<'static, Result<Option<T>, Error>>>,
    undelivered: Option<Undelivered>,
}

impl<T: Send + 'static> Future for UnsentRow<T> {
    type Output = Result<Option<T>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let insert = self.insert.as_mut().expect("not polled after it was ready");
        let outcome = ready!(insert.as_mut().poll(cx));
        self.insert = None;
        let is_open = outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Unavailable);
        if let (false, Some(undelivered)) = (is_open, self.undelivered.take()) {
            undelivered.delivered();
        }
        Poll::Ready(outcome)
    }
}

impl<T: Send + 'static> Drop for UnsentRow<T> {
    fn drop(&mut self) {
        let (insert, undelivered) = (self.insert.take(), self.undelivered.take());
        if let (Some(insert), Some(undelivered), Ok(runtime)) =
            (insert, undelivered, Handle::try_current())
        {
            runtime.spawn(async move {
                match insert.await {
                    Ok(None) => undelivered.delivered(),
                    _ => drop(undelivered),
                }
            });
        }
    }
}

fn other_table(takeover: &Takeover) -> TableName {
    let (schema, table) = takeover.schema_and_table();
    TableName {
        schema: schema.to_owned(),
        table: table.to_owned(),
    }
}

fn id_exists() -> Error {
    Error::new(
        ErrorKind::Database,
        "a row with the id of a fresh token exists already",
    )
}
