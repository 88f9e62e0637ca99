//! A new id for a session, and a login. It doesn't know whether the response is delivered:
//! [`undo`](super::undo) undoes a new id if it isn't.
//!
//! How it works, in one transaction:
//!
//! 1. A login that ends other sessions, or counts them, locks its user.
//! 2. The old row is locked and read, the changes are replayed on it, and the result is
//!    inserted under the new id. `UPDATE id` is not possible, because Citus refuses it.
//! 3. The old row becomes a forwarding to the new id for a minute, or is deleted, depending
//!    on the format.
//! 4. A login deletes the user's other sessions, or those beyond the limit. If they are too
//!    many for one transaction, it is rolled back, most of them are deleted in batches, and
//!    the login starts again.
//! 5. If the request was canceled meanwhile, the transaction is rolled back. Otherwise its effect
//!    is recorded in [`Commit`], for the undo, and the commit is sent.
//!
//! A transaction that fails with a conflict or a lost connection is repeated a few times. If
//! the connection was lost, a load of the new id shows whether the commit succeeded.
//!
//! Dropped futures: this runs in the task of the session's queue, so a request that stops
//! waiting doesn't drop it. If a runtime that stops drops it, a transaction that was not
//! committed is rolled back. A committed new id then stays, because no task can undo it.

use std::{
    collections::hash_map::Entry,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::PgConnection;
use tokio::sync::oneshot;

use crate::{
    Error, ErrorKind,
    document::Document,
    ending::Ending,
    event::SessionEventKind,
    expiry::{Times, Written},
    format::OldId,
    forwarding::{FORWARDING, moved_grace_left},
    id::RowId,
    login::{Data, Login, SessionLimit},
    row::{Content, Row},
    state::{Source, changes::Changes},
    store::{
        batch::{statements::LoadRow, until_free::serve_until_free},
        connection::transaction::{begin as begin_transaction, despite_others, in_transaction},
        rows::{
            Batches, kept_columns,
            orders::{NewId, NewIdOrder},
            steps::{
                Extras, Moves, check_written, delete_locked, insert, lock_live, lock_with_extras,
                of_row,
            },
            undo::{Commit, Made, Undelivered},
            user_limit::{self, Ended, NO_ROW, end_batch},
        },
        table::{statements::Statements, timestamp::Instant},
        watches::{former_ids::Fate, report::EndedRow, sweep::Watches},
    },
    telemetry::{Operation, events},
    timeouts::Timeouts,
};

/// Attempts to commit a new id, in spite of deadlocks and lost connections.
const MAX_ATTEMPTS: usize = 3;

/// The input of each attempt.
pub(in crate::store) struct Plan {
    source: Source,
    /// See [`NewIdWrite`](crate::state::NewIdWrite).
    loaded_user: Option<Arc<str>>,
    pub(in crate::store) new_id: RowId,
    pub(in crate::store) timeouts: Arc<Timeouts>,
    changes: Mutex<Changes>,
    pub(in crate::store) login: Option<Arc<Login>>,
    /// The documents as the request loaded it and as it sees it, see [`begin_separately`].
    loaded: Arc<Document>,
    seen: Arc<Document>,
    /// See [`NewIdWrite`](crate::state::NewIdWrite).
    may_begin_separately: bool,
    limit: Option<SessionLimit>,
    deadline: tokio::time::Instant,
    /// Where the request waits for the outcome.
    reply: Mutex<Option<oneshot::Sender<Result<NewId, Error>>>>,
    watches: Arc<Watches>,
    /// The effect that the transaction may have committed, see [`Undelivered`].
    pub(in crate::store) commit: Arc<Commit>,
}

/// The sessions that a login ended.
#[derive(Clone, Debug, Default)]
struct Ends {
    /// Because of [`Login::end_others`].
    others: Vec<EndedRow>,
    /// Because of the limit, if there is one.
    surplus: Option<Ended>,
}

/// What an attempt did.
enum Cycled {
    Committed(Box<Row>, Ends),
    /// Nothing, because the login has more sessions to delete than one transaction should.
    TooManyOthers,
}

impl Batches {
    pub(in crate::store) async fn cycle_row(self: &Arc<Self>, order: NewIdOrder) {
        let plan = Arc::new(Plan {
            source: order.write.source,
            loaded_user: order.write.loaded_user,
            new_id: order.new_id,
            timeouts: order.timeouts,
            changes: Mutex::new(order.write.changes),
            login: order.write.login,
            loaded: order.write.loaded,
            seen: order.write.seen,
            may_begin_separately: order.write.may_begin_separately,
            limit: self.table_handle.limit,
            deadline: order.deadline,
            reply: Mutex::new(Some(order.reply)),
            watches: Arc::clone(&self.watches),
            commit: Arc::default(),
        });
        // If the future is dropped here, by a runtime that stops, there is no
        // `Undelivered` yet. A new id that was committed stays.
        let outcome = self.cycle_until_settled(&plan).await;
        let outcome = outcome.map(|(row, ends)| {
            self.report(&plan, ends);
            row
        });
        let undelivered = Undelivered::new_id(self, plan.new_id.clone(), Arc::clone(&plan.commit));
        // If the request was canceled, this drops `undelivered`, which undoes the new id.
        if let Some(reply) = plan.reply().take() {
            drop(reply.send(Ok((outcome, undelivered))));
        }
    }

    /// Reports what was committed.
    fn report(self: &Arc<Self>, plan: &Plan, ends: Ends) {
        let (meter, format) = (&self.table_handle.executor.meter, &self.table_handle.format);
        let id = format.handle(&plan.new_id);
        match (&plan.login, &plan.source) {
            (None, Source::Row(old)) => events::got_a_new_id(meter, &format.handle(old), &id),
            (Some(_), _) => events::signed_in(meter, &id),
            (None, Source::Nothing(_)) => events::began(meter, &id),
        }
        self.report_move(plan);
        self.ended_by_a_login(&ends.others);
        if let (Some(ended), Some(limit), Some(user_id)) = (ends.surplus, plan.limit, plan.user()) {
            self.ended_at_the_limit(&ended.sessions, limit);
            if ended.is_a_part {
                self.end_surplus(user_id, limit);
            }
        }
    }

    fn report_move(&self, plan: &Plan) {
        let kind = match (&plan.login, &plan.source) {
            (Some(_), _) => SessionEventKind::SignedIn,
            (None, Source::Row(_)) => SessionEventKind::GotNewId,
            (None, Source::Nothing(_)) => SessionEventKind::Began,
        };
        match plan.commit.made() {
            Some(Made::Moved { before, after, .. }) => {
                // Recorded again: a request may have loaded the old row after the record made before
                // the commit. If the session was destroyed by its old id since, that record stays.
                self.watches
                    .record_unless_deleted(&before.id, plan.fate_of_old_id());
                let leads_on = plan.forwarding(&before).meta().leads_to_the_session();
                let [before, after] =
                    [before, after].map(|row| EndedRow::new(row.id.clone(), row.user));
                self.watches.moved(Some(&before), leads_on, &after, kind);
            }
            _ => {
                let after = EndedRow::new(plan.new_id.clone(), plan.user());
                self.watches.moved(None, false, &after, kind);
            }
        }
    }

    fn ended_by_a_login(&self, sessions: &[EndedRow]) {
        if !sessions.is_empty() {
            let meter = &self.table_handle.executor.meter;
            events::ended_by_a_login(meter, sessions.len() as u64);
            self.watches.ended(sessions, Ending::Revoked);
        }
    }

    pub(super) fn ended_at_the_limit(&self, sessions: &[EndedRow], limit: SessionLimit) {
        if !sessions.is_empty() {
            let meter = &self.table_handle.executor.meter;
            events::ended_at_the_limit(meter, sessions.len() as u64, limit.sessions);
            self.watches.ended(sessions, Ending::Evicted);
        }
    }

    /// Deletes the sessions beyond the limit that a login left, in a task and in batches.
    /// If the process ends before that, the user's next login continues.
    pub(super) fn end_surplus(self: &Arc<Self>, user_id: Arc<str>, limit: SessionLimit) {
        match self.surplus().entry(Arc::clone(&user_id)) {
            Entry::Occupied(mut is_requested_again) => {
                is_requested_again.insert(true);
                return;
            }
            Entry::Vacant(free) => {
                free.insert(false);
            }
        }
        let surplus = Surplus {
            batches: Arc::clone(self),
            user_id,
            limit,
            is_over: false,
        };
        tokio::spawn(surplus.end());
    }

    /// Makes attempts until one is committed or another one is pointless. Returns what was
    /// committed. After a lost connection the number of deleted sessions is unknown.
    async fn cycle_until_settled(&self, plan: &Arc<Plan>) -> Result<(Arc<Row>, Ends), Error> {
        let mut doubt = false;
        for attempt in 1.. {
            let error = match self.attempt_cycle(Arc::clone(plan)).await {
                Ok(Cycled::Committed(row, ends)) => return Ok((Arc::new(*row), ends)),
                // If the future is dropped here, batches that were committed stay deleted.
                Ok(Cycled::TooManyOthers) => match self.end_most_others(plan).await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) => error.of_a_login(plan.login.is_some()),
            };
            if let Source::Row(id) = &plan.source {
                self.watches.restore(id, &plan.new_id);
            }
            doubt |= error.kind() == ErrorKind::Unavailable;
            if doubt && let Some(row) = self.already_cycled(plan).await {
                return Ok((row, Ends::default()));
            }
            let may_pass = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable)
                || error.is_of_a_changed_table();
            if !may_pass || error.is_out_of_time() || attempt >= MAX_ATTEMPTS {
                return Err(error);
            }
        }
        Err(Error::ended())
    }

    /// Loads the row of the new id. If the connection was lost during the
    /// commit, the row shows whether it succeeded: no other process can have
    /// made this id.
    async fn already_cycled(&self, plan: &Plan) -> Option<Arc<Row>> {
        self.load
            .submit(LoadRow(plan.new_id.clone()))
            .outcome()
            .await
            .ok()?
    }

    /// Deletes the user's other sessions in batches, if they are too many for one
    /// transaction. If the login fails after that, they stay deleted, so that the next
    /// login has fewer to delete.
    async fn end_most_others(&self, plan: &Plan) -> Result<(), Error> {
        let Some(user_id) = plan.user() else {
            return Ok(());
        };
        let this = match &plan.source {
            Source::Row(id) => id.as_str().to_owned(),
            Source::Nothing(_) => NO_ROW.to_owned(),
        };
        let key = plan.key();
        loop {
            let batch = serve_until_free(
                &self.table_handle,
                Some(self.locked.key(&key)),
                plan.deadline,
                Operation::Cycle,
                |table, connection| {
                    let (user_id, this) = (Arc::clone(&user_id), this.clone());
                    Box::pin(end_batch_alone(table, connection, user_id, this))
                },
            );
            let ended = batch.await.map_err(Error::of_an_end)?;
            self.ended_by_a_login(&ended.sessions);
            if !ended.is_a_part {
                return Ok(());
            }
        }
    }

    async fn attempt_cycle(&self, plan: Arc<Plan>) -> Result<Cycled, Error> {
        let key = plan.key();
        serve_until_free(
            &self.table_handle,
            Some(self.locked.key(&key)),
            plan.deadline,
            Operation::Cycle,
            |table, connection| Box::pin(cycle(table, connection, Arc::clone(&plan))),
        )
        .await
    }
}

async fn end_batch_alone(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    user_id: Arc<str>,
    this: String,
) -> Result<Ended, Error> {
    in_transaction(connection, |transaction| {
        Box::pin(async move { end_batch(&table, transaction, &user_id, &this).await })
    })
    .await
}

async fn cycle(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    plan: Arc<Plan>,
) -> Result<Cycled, Error> {
    if let Some(login) = &plan.login {
        table.columns.check_login(login, &table.name)?;
    }
    let mut transaction = begin_transaction(connection).await?;
    match cycle_in(&table, &mut transaction, &plan).await {
        Ok(cycled @ Cycled::Committed(..)) => {
            // If the future is dropped here, at the deadline, the outcome is unknown.
            // Either a load finds the new row, or `Undelivered` undoes the commit.
            transaction.commit().await?;
            Ok(cycled)
        }
        // It is rolled back at once, because its locks hold up others. If the future is
        // dropped here, the connection is closed or rolled back before its next use.
        Ok(nothing) => {
            transaction.rollback().await?;
            Ok(nothing)
        }
        Err(error) => {
            drop(transaction.rollback().await);
            Err(error)
        }
    }
}

/// Executes the statements of the transaction. Locks the user before the row, so that two
/// logins of a user can't deadlock. If the future is dropped, nothing is committed.
async fn cycle_in(
    table: &Statements,
    transaction: &mut PgConnection,
    plan: &Plan,
) -> Result<Cycled, Error> {
    let login = plan.login.as_deref();
    let mut made = Made::Begun;
    if let Some(login) = login.filter(|login| plan.limit.is_some() || login.ends_others()) {
        user_limit::lock(table, transaction, login.user_id()).await?;
    }
    let row = match &plan.source {
        Source::Row(id) => move_on(table, transaction, plan, id, &mut made).await?,
        Source::Nothing(document) => {
            let extras = plan.extras(None, &Extras::default());
            begin(table, transaction, plan, Arc::clone(document), &extras).await?
        }
    };
    // These are deleted first, because they would count for the limit.
    let others = match login.filter(|login| login.ends_others()) {
        Some(login) => {
            let (user, this) = (login.user_id(), row.id.as_str());
            let ended = end_batch(table, transaction, user, this).await;
            let ended = ended.map_err(Error::of_an_end)?;
            if ended.is_a_part {
                return Ok(Cycled::TooManyOthers);
            }
            ended.sessions
        }
        None => Vec::new(),
    };
    let surplus = match login.zip(plan.limit) {
        Some((login, limit)) => {
            let user = login.user_id();
            let surplus = user_limit::enforce(table, transaction, limit, user, &row.id).await;
            Some(surplus.map_err(Error::of_an_end)?)
        }
        None => None,
    };
    // Nothing is committed for a request that was canceled meanwhile. If it is canceled from here
    // on, the new id is undone.
    if plan.has_no_receiver() {
        return Err(Error::ended());
    }
    // Before the commit, so that a handle whose row no longer exists leads to the new id.
    if let Made::Moved { before, .. } = &made {
        plan.watches.record(&before.id, plan.fate_of_old_id());
    }
    plan.commit.sent(made);
    Ok(Cycled::Committed(Box::new(row), Ends { others, surplus }))
}

/// The task that deletes a user's sessions beyond the limit. There is one for each user in
/// this process; other processes may do the same. If its runtime drops it, the batches that
/// were committed stay deleted, and the next login starts another task.
struct Surplus {
    batches: Arc<Batches>,
    user_id: Arc<str>,
    limit: SessionLimit,
    /// Whether the user's next login may start another task.
    is_over: bool,
}

impl Surplus {
    async fn end(mut self) {
        loop {
            match self.end_batch().await {
                Ok(ended) => {
                    self.batches.ended_at_the_limit(&ended.sessions, self.limit);
                    if !ended.is_a_part && self.is_over() {
                        return;
                    }
                }
                // The cause may last for long. The next login tries again.
                Err(error) => {
                    return tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the sessions of a user beyond the limit could not be ended"
                    );
                }
            }
        }
    }

    /// Whether no login has requested a deletion since. Then the next one starts another task.
    fn is_over(&mut self) -> bool {
        let mut surplus = self.batches.surplus();
        let is_requested_again = surplus.get_mut(&self.user_id).is_some_and(std::mem::take);
        if !is_requested_again {
            surplus.remove(&self.user_id);
            self.is_over = true;
        }
        self.is_over
    }

    async fn end_batch(&self) -> Result<Ended, Error> {
        let (table_handle, limit) = (&self.batches.table_handle, self.limit);
        despite_others(|| {
            let deadline = table_handle.executor.deadline();
            serve_until_free(
                table_handle,
                None,
                deadline,
                Operation::Manage,
                move |table, connection| {
                    let user_id = Arc::clone(&self.user_id);
                    // One transaction, so that each deletion is reported or undone.
                    Box::pin(in_transaction(connection, move |transaction| {
                        Box::pin(user_limit::end_surplus(table, transaction, limit, user_id))
                    }))
                },
            )
        })
        .await
    }
}

impl Drop for Surplus {
    fn drop(&mut self) {
        if !self.is_over {
            self.batches.surplus().remove(&self.user_id);
        }
    }
}

async fn move_on(
    table: &Statements,
    connection: &mut PgConnection,
    plan: &Plan,
    id: &RowId,
    made: &mut Made,
) -> Result<Row, Error> {
    let (row, mut extras) = lock_with_extras(table, connection, id).await?;
    if row.successor().is_some() {
        return begin_separately(table, connection, plan, &row).await;
    }
    if plan.is_of_another_user(&row, table.old_id) {
        return Err(Error::ended());
    }
    let document = plan.replay(row.document().ok_or_else(Error::ended)?)?;
    let new_extras = plan.extras(row.user.as_deref(), &extras);
    let copied = match &plan.login {
        None => copy(table, connection, plan, &row, document).await?,
        // The application's own columns are data too, so they are not copied either.
        Some(login) if login.data == Data::IsDropped => {
            begin(table, connection, plan, Arc::new(document), &new_extras).await?
        }
        Some(_) => copy_for(&new_extras, table, connection, plan, &row, document).await?,
    };
    match table.old_id {
        OldId::Forwards => forward(table, connection, plan, &row).await?,
        OldId::IsDeleted => {
            if plan.drops_data() {
                extras.row_as_text = kept_columns::read(table, connection, id).await?;
            }
            delete_locked(table, connection, id)
                .await
                .map_err(Error::of_an_end)?;
        }
    }
    *made = Made::Moved {
        before: Box::new(row),
        extras,
        after: Box::new(copied.clone()),
        external_id: new_extras.external_id,
    };
    Ok(copied)
}

/// Begins a separate session for a login whose session got a new id since the
/// request loaded it.
///
/// Only another response carries the token of that id, and it may be lost: if a
/// browser submits a login form twice, it drops the first response. So the
/// login begins a session with what its request saw. It never restores data of a session that
/// was destroyed since, nor a value that another request has changed or removed since, such as
/// one that was taken. The request can't read the newer value, so its session has none. The
/// device and the external id that it keeps are those of the session under its new id, if the
/// same user is signed in there. The request can't read them, either.
///
/// # Errors
///
/// If the request is not a login, if its changes fit the row alone or it returns
/// what they make of it, or if the session was destroyed.
async fn begin_separately(
    table: &Statements,
    connection: &mut PgConnection,
    plan: &Plan,
    old: &Row,
) -> Result<Row, Error> {
    let Some(login) = plan.login.as_ref().filter(|_| plan.may_begin_separately) else {
        return Err(moved(old.times));
    };
    let successor = old.successor().ok_or_else(Error::ended)?;
    let keeps_data = login.data != Data::IsDropped;
    let session = match keeps_data || login.keeps_settings() {
        true => lock_if_it_exists(table, connection, successor).await?,
        false => None,
    };
    if keeps_data && session.is_none() {
        return Err(moved(old.times));
    }
    let extras = match &session {
        Some((row, extras)) => plan.extras(row.user.as_deref(), extras),
        None => plan.extras(None, &Extras::default()),
    };
    let document = match &session {
        Some((row, _)) if keeps_data => {
            plan.seen_and_unchanged(row.document().ok_or_else(Error::ended)?)?
        }
        _ => Arc::clone(&plan.seen),
    };
    begin(table, connection, plan, document, &extras).await
}

/// The error for a request whose id only forwards. The client can try again as soon as
/// that id counts as unknown.
pub(in crate::store) fn moved(old: Times) -> Error {
    moved_grace_left(old).map_or_else(Error::ended, Error::moved)
}

/// Follows a session from id to id, and locks its row. `None` if it no longer exists.
///
/// Until the end of the transaction no other one ends the session. So a login that ends it with
/// the user's others waits, and then also finds the session that begins here.
async fn lock_if_it_exists(
    table: &Statements,
    connection: &mut PgConnection,
    mut id: RowId,
) -> Result<Option<(Row, Extras)>, Error> {
    let mut moves = Moves::default();
    loop {
        moves.follow()?;
        let Some((row, extras)) = lock_live(table, connection, &id).await? else {
            return Ok(None);
        };
        match row.successor() {
            Some(successor) => id = successor,
            None => return Ok(Some((row, extras))),
        }
    }
}

impl Plan {
    fn reply(&self) -> MutexGuard<'_, Option<oneshot::Sender<Result<NewId, Error>>>> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what to record for the old id, so that a later destroy finds the session.
    fn fate_of_old_id(&self) -> Fate {
        let to = self.new_id.clone();
        match self.drops_data() {
            true => Fate::ReplacedBy(to),
            false => Fate::MovedTo(to),
        }
    }

    fn has_no_receiver(&self) -> bool {
        let reply = self.reply();
        reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// What the request sees, without what other requests have changed or removed since.
    fn seen_and_unchanged(&self, now: &Document) -> Result<Arc<Document>, Error> {
        let members = self.loaded.members();
        let changed: Vec<_> = members
            .filter(|(key, value)| now.get(key) != Some(*value))
            .map(|(key, _)| key)
            .collect();
        if changed.is_empty() {
            return Ok(Arc::clone(&self.seen));
        }
        let mut unchanged = Document::clone(&self.loaded);
        changed.into_iter().for_each(|key| unchanged.remove(key));
        self.replay(&unchanged).map(Arc::new)
    }

    fn replay(&self, document: &Document) -> Result<Document, Error> {
        let mut document = document.clone();
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.replay_caught(&mut document)?;
        Ok(document)
    }

    /// The key of the row or user that another transaction may have locked. A login
    /// locks its user first.
    fn key(&self) -> String {
        match (&self.login, &self.source) {
            (Some(login), _) => format!("user {}", login.user_id()),
            (None, Source::Row(id)) => id.as_str().to_owned(),
            (None, Source::Nothing(_)) => self.new_id.as_str().to_owned(),
        }
    }

    pub(in crate::store) fn user(&self) -> Option<Arc<str>> {
        Some(self.login.as_ref()?.user_id().into())
    }

    /// Whether another application has written another user into the row since the request loaded
    /// it. The request must not change or obtain the session of that user. A login that drops the
    /// data does neither.
    fn is_of_another_user(&self, row: &Row, old_id: OldId) -> bool {
        let is_shared = old_id == OldId::IsDeleted;
        match &self.login {
            Some(_) if self.drops_data() => false,
            Some(login) => row
                .user
                .as_deref()
                .is_some_and(|user| user != login.user_id()),
            None => is_shared && row.has_lost_user(self.loaded_user.as_ref()),
        }
    }

    /// What is stored with the new row, if the old one has this user and these.
    fn extras(&self, user: Option<&str>, old: &Extras) -> Extras {
        let Some(login) = &self.login else {
            return old.clone();
        };
        let stays = login.keeps_settings() && user == Some(login.user_id());
        let kept = stays.then_some(old);
        let external_id = login.external().map(str::to_owned);
        Extras {
            device: login.device_text().or_else(|| kept?.device.clone()),
            external_id: external_id.or_else(|| kept?.external_id.clone()),
            row_as_text: None,
        }
    }

    /// The document that forwards late saves from the old id. If the login
    /// dropped the data, it forwards nowhere: late changes belong to the
    /// dropped data.
    pub(in crate::store) fn forwarding(&self, old: &Row) -> Document {
        if self.drops_data() {
            return Document::forwarding_nowhere();
        }
        let is_another = |login: &Arc<Login>| old.user.as_deref() != Some(login.user_id());
        let gets_another = self.login.as_ref().is_some_and(is_another);
        Document::forwarding_to(self.new_id.as_str(), gets_another)
    }

    fn drops_data(&self) -> bool {
        let login = self.login.as_ref();
        login.is_some_and(|login| login.data == Data::IsDropped)
    }
}

pub(in crate::store) async fn copy(
    table: &Statements,
    connection: &mut PgConnection,
    plan: &Plan,
    row: &Row,
    document: Document,
) -> Result<Row, Error> {
    let extent = plan.timeouts.extent(&document.meta(), row.times.created);
    let content = Content::from(Arc::new(document));
    insert(table, connection, &row.id, &plan.new_id, &content, extent).await?;
    let times = row.times.moved(Written::at(row.times.now, extent));
    Ok(Row::written(plan.new_id.clone(), content, times).of(row.user.clone()))
}

/// Copies the row for a login: the data stays, and the times start again.
pub(in crate::store) async fn copy_for(
    extras: &Extras,
    table: &Statements,
    connection: &mut PgConnection,
    plan: &Plan,
    row: &Row,
    document: Document,
) -> Result<Row, Error> {
    let now = row.times.now;
    let created = table.columns.has_created().then_some(now);
    let extent = plan.timeouts.extent(&document.meta(), created);
    let content = Content::from(Arc::new(document));
    let copied = of_row(
        &table.cycle.login_copy,
        &row.id,
        &plan.new_id,
        &content,
        extent,
    )
    .bind(plan.user())
    .bind(extras.device.as_deref())
    .bind(extras.external_id.as_deref())
    .execute(connection)
    .await?;
    check_written(&copied)?;
    let times = table.columns.times_of_new(Written::at(now, extent));
    Ok(Row::written(plan.new_id.clone(), content, times).of(plan.user()))
}

/// Inserts the row of a session that begins with its login.
pub(in crate::store) async fn begin(
    table: &Statements,
    connection: &mut PgConnection,
    plan: &Plan,
    document: Arc<Document>,
    extras: &Extras,
) -> Result<Row, Error> {
    let login = plan.login.as_deref().ok_or_else(Error::ended)?;
    let has_created = table.columns.has_created();
    let extent = plan.timeouts.extent_of_new(&document.meta(), has_created);
    let content = Content::from(document);
    let expires: Instant = table
        .cycle
        .login_insert
        .query_scalar()
        .bind(plan.new_id.as_str())
        .bind(&*content.text)
        .bind(extent.ttl)
        .bind(extent.until)
        .bind(login.user_id())
        .bind(extras.device.as_deref())
        .bind(extras.external_id.as_deref())
        .fetch_one(connection)
        .await?;
    let written = Written {
        now: table.clock.now(),
        expires: expires.0,
    };
    let times = table.columns.times_of_new(written);
    Ok(Row::written(plan.new_id.clone(), content, times).of(plan.user()))
}

pub(in crate::store) async fn forward(
    table: &Statements,
    connection: &mut PgConnection,
    plan: &Plan,
    row: &Row,
) -> Result<(), Error> {
    let forwarded = table
        .cycle
        .forward
        .query()
        .bind(row.id.as_str())
        .bind(plan.forwarding(row).to_text())
        .bind(FORWARDING.as_secs_f64())
        .execute(connection)
        .await?;
    check_written(&forwarded)
}
