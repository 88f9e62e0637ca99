//! One statement for many rows, and an answer for each of them.

use std::{marker::PhantomData, ops::Range, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use sqlx::{
    PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::time::Instant;

use crate::{
    Error,
    id::RowId,
    store::{batch::Statement, set_up::SetUp, sql::Sql, table::Table},
    telemetry::{Call, Operation, Origin, Origins},
};

/// What one request adds to a statement.
pub(super) trait Entry: Send + Sync + 'static {
    /// What the statement answers for its row, if there is one.
    type Answer: Send + 'static;

    const OPERATION: Operation;

    /// Whether the statement can be sent again when nobody knows whether it
    /// was carried out.
    const SAFE_TO_REPEAT: bool = false;

    /// Whether the statement looks for rows by their ids, so that one id may
    /// be named more than once.
    const LOOKS_FOR_ROWS: bool = true;

    fn id(&self) -> &RowId;

    /// Bytes that it adds to the statement.
    fn weight(&self) -> usize {
        self.id().as_str().len()
    }

    fn statement(table: &Table) -> &Sizes;

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
    /// When they are not what the statement says.
    fn answer(&self, row: &PgRow, table: &Table) -> Result<Self::Answer, sqlx::Error>;

    /// The answer for another request that asked for the same row, where they
    /// can share one.
    fn share(_: &Self::Answer) -> Option<Self::Answer> {
        None
    }
}

pub(super) type Binding<'q> = Query<'q, Postgres, PgArguments>;

/// What Postgres takes an array for that it does not know. It goes over to a
/// plan for all arrays when those for known ones look no cheaper, and to plan
/// costs more than to carry out a small batch; so no array is shorter.
const LENGTH_OF_UNKNOWN_ARRAY: usize = 10;

/// Of a statement that deadlocked.
const MAX_ATTEMPTS: u32 = 4;

/// A statement for one row, which is planned once, and for many.
#[derive(Debug)]
pub(crate) struct Sizes {
    pub(super) one: Sql,
    pub(super) many: Sql,
}

impl Sizes {
    fn query<'q, E: Entry>(&self, entries: &'q [E], ids: &'q [&str]) -> Binding<'q> {
        match entries {
            [entry] => entry.bind_one(self.one.query().bind(ids[0])),
            _ => E::bind(self.many.query().bind(ids), entries),
        }
    }
}

/// The statement that serves entries of one kind.
#[derive(Debug)]
pub(super) struct Many<E> {
    set_up: SetUp,
    of: PhantomData<fn(E)>,
}

/// The answers of a part of the entries, each at the place of its entry.
type Answers<E> = Vec<Option<<E as Entry>::Answer>>;

impl<E: Entry> Many<E> {
    pub(super) fn new(set_up: SetUp) -> Self {
        Self {
            set_up,
            of: PhantomData,
        }
    }

    /// What failed without an effect, and not for a reason of its rows, is sent
    /// again. Where nothing can be lost by it, a connection that was lost is no
    /// failure yet either: one that was kept may have died before it was asked.
    async fn send(
        &self,
        part: Part<E>,
        origins: &[Origin],
        deadline: Instant,
    ) -> Result<Answers<E>, Error> {
        let mut is_lost = false;
        for _ in 1..MAX_ATTEMPTS {
            match self.send_once(part.clone(), origins, deadline).await {
                Err(error) if error.is_of_other_writers() => {}
                Err(error) if is_to_repeat::<E>(&error) && !is_lost => {
                    is_lost = true;
                    self.set_up.database.connections.forget();
                }
                outcome => return outcome,
            }
        }
        self.send_once(part, origins, deadline).await
    }

    async fn send_once(
        &self,
        part: Part<E>,
        origins: &[Origin],
        deadline: Instant,
    ) -> Result<Answers<E>, Error> {
        let call = Call {
            rows: part.len(),
            origins: Origins::Of(&origins[part.range.clone()]),
            ..self.set_up.call(E::OPERATION)
        };
        self.set_up
            .serve(deadline, call, |table, connection| {
                Box::pin(ask(table, connection, part))
            })
            .await
    }
}

impl<E: Entry> Statement for Many<E> {
    type Row = E;
    type Answer = Option<E::Answer>;

    /// Where one row can be at fault, the halves are tried on their own, so
    /// that it fails alone: the failed statement has changed nothing.
    async fn run(&self, entries: Vec<E>, origins: Vec<Origin>) -> Vec<Result<Self::Answer, Error>> {
        let all = Part::of(entries);
        let mut outcomes = Vec::with_capacity(all.len());
        let mut pending = vec![all];
        while let Some(part) = pending.pop() {
            let deadline = self.set_up.database.deadline();
            match self.send(part.clone(), &origins, deadline).await {
                Err(error) if error.blames_a_row() && part.len() > 1 => {
                    let (low, high) = part.halves();
                    pending.extend([high, low]);
                }
                Err(error) => outcomes.extend(part.entries().iter().map(|_| Err(error.clone()))),
                Ok(answers) => outcomes.extend(answers.into_iter().map(Ok)),
            }
        }
        outcomes
    }

    fn id(entry: &E) -> &RowId {
        entry.id()
    }

    fn weight(entry: &E) -> usize {
        entry.weight()
    }

    fn patience(&self) -> Duration {
        self.set_up.database.timeout
    }

    fn departs(&self, waits: impl Iterator<Item = Duration>) {
        self.set_up.database.meter.departed(E::OPERATION, waits);
    }
}

/// Whether a lost connection is no failure yet: if nothing can be lost by another
/// attempt, or the server has ended the connection before it got the statement.
fn is_to_repeat<E: Entry>(error: &Error) -> bool {
    error.is_of_an_idle_connection() || E::SAFE_TO_REPEAT && error.is_of_the_connection()
}

/// Some of the entries of a batch, sorted by id: unsorted statements deadlock.
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

    fn halves(&self) -> (Self, Self) {
        let Range { start, end } = self.range;
        let middle = start + self.len() / 2;
        let part = |range| Self {
            all: Arc::clone(&self.all),
            range,
        };
        (part(start..middle), part(middle..end))
    }
}

async fn ask<E: Entry>(
    table: Arc<Table>,
    connection: &mut PgConnection,
    part: Part<E>,
) -> Result<Answers<E>, Error> {
    let entries = part.entries();
    let ids = ids(entries);
    let query = E::statement(&table).query(entries, &ids);
    let rows = query.fetch_all(connection).await?;
    if rows.len() > entries.len() {
        return Err(Error::not_asked_for());
    }
    let mut answers: Answers<E> = entries.iter().map(|_| None).collect();
    for row in &rows {
        let place = place_of(row.try_get(0)?, &ids).ok_or_else(Error::not_asked_for)?;
        answers[place] = Some(entries[place].answer(row, &table)?);
    }
    share(entries, &mut answers);
    Ok(answers)
}

/// The ids, in order. The last one is repeated where that makes a plan last;
/// the other parameters are none there, which no row equals.
fn ids<E: Entry>(entries: &[E]) -> Vec<&str> {
    let mut ids: Vec<_> = entries.iter().map(|entry| entry.id().as_str()).collect();
    if let (Some(last), true) = (ids.last().copied(), E::LOOKS_FOR_ROWS) {
        ids.resize(ids.len().max(LENGTH_OF_UNKNOWN_ARRAY), last);
    }
    ids
}

/// The first place of the id among those that were asked for. Behind a
/// transaction pooler one statement's rows can reach another: better an error
/// for all than one visitor's session for another.
fn place_of(id: &str, ids: &[&str]) -> Option<usize> {
    let place = ids.partition_point(|asked| *asked < id);
    (ids.get(place) == Some(&id)).then_some(place)
}

/// Requests for the same row stand beside each other.
fn share<E: Entry>(entries: &[E], answers: &mut Answers<E>) {
    for place in 1..entries.len() {
        if entries[place].id() == entries[place - 1].id() {
            answers[place] = answers[place - 1].as_ref().and_then(E::share);
        }
    }
}

/// One parameter of a statement: the same member of every entry.
pub(super) fn column<'e, E, T>(entries: &'e [E], member: impl Fn(&'e E) -> T) -> Vec<T> {
    entries.iter().map(member).collect()
}

pub(super) type Work<'c, T> = BoxFuture<'c, Result<T, Error>>;

impl SetUp {
    /// Lends the table and a connection to one statement.
    pub(super) async fn serve<T>(
        &self,
        deadline: Instant,
        call: Call<'_>,
        statement: impl for<'c> FnOnce(Arc<Table>, &'c mut PgConnection) -> Work<'c, T> + Send,
    ) -> Result<T, Error> {
        let table = self.table().await?;
        let outcome = self
            .database
            .serve(deadline, call, |connection| statement(table, connection))
            .await;
        self.learn_from(outcome)
    }
}
