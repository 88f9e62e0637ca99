//! One statement for many rows, and an answer for each of them.

use std::{collections::HashMap, marker::PhantomData, sync::Arc};

use futures_core::future::BoxFuture;
use sqlx::PgConnection;

use crate::{
    Error,
    id::RowId,
    store::{
        batch::Statement,
        row::{Loaded, Row},
        set_up::SetUp,
        table::Table,
    },
};

/// The rows that a statement answered, by id.
pub(super) type Answers<T> = HashMap<String, T>;

/// Loads live rows.
#[derive(Debug)]
pub(super) struct Load(pub(super) SetUp);

/// Writes rows, each of which can fail alone.
#[derive(Debug)]
pub(super) struct Writing<R> {
    set_up: SetUp,
    of: PhantomData<fn(R)>,
}

/// What one request adds to a statement that writes.
pub(super) trait WriteRow: Clone + Send + 'static {
    /// What the statement answers for a row that it wrote.
    type Answer: Send + 'static;

    fn id(&self) -> &RowId;

    fn weight(&self) -> usize {
        self.id().as_str().len()
    }

    /// Runs the statement for `rows`, which are sorted by id.
    fn write(
        table: Arc<Table>,
        connection: &mut PgConnection,
        rows: Vec<Self>,
    ) -> Work<'_, Answers<Self::Answer>>;
}

impl Statement for Load {
    type Row = RowId;
    type Answer = Option<Arc<Row>>;

    async fn run(&self, rows: Vec<RowId>) -> Vec<Result<Self::Answer, Error>> {
        let mut ids = rows.clone();
        ids.sort();
        ids.dedup();
        let loaded = self
            .0
            .run(|table, connection| Box::pin(load(table, connection, ids)))
            .await;
        answered(
            &rows,
            |id| id,
            loaded,
            |answers, id| answers.get(id).cloned(),
        )
    }

    fn weight(id: &RowId) -> usize {
        id.as_str().len()
    }
}

async fn load(
    table: Arc<Table>,
    connection: &mut PgConnection,
    ids: Vec<RowId>,
) -> Result<Answers<Arc<Row>>, Error> {
    let rows: Vec<Loaded> = sqlx::query_as(table.load.clone())
        .bind(texts(&ids))
        .fetch_all(connection)
        .await?;
    let rows = rows
        .into_iter()
        .map(|row| (row.0.clone(), Arc::new(Row::loaded(row, table.layout))));
    asked_for(&ids, rows.collect())
}

impl<R: WriteRow> Writing<R> {
    pub(super) fn new(set_up: SetUp) -> Self {
        Self {
            set_up,
            of: PhantomData,
        }
    }

    async fn write(&self, rows: Vec<R>) -> Result<Answers<R::Answer>, Error> {
        let ids = ids(&rows);
        let answers = self
            .set_up
            .run(|table, connection| R::write(table, connection, rows))
            .await?;
        asked_for(&ids, answers)
    }
}

impl<R: WriteRow> Statement for Writing<R> {
    type Row = R;
    type Answer = Option<R::Answer>;

    /// Runs the rows as one statement, in the order of their ids: unsorted
    /// batches deadlock. Where one row can be at fault, the halves are tried
    /// on their own, so that it fails alone: the failed statement has changed
    /// nothing.
    async fn run(&self, rows: Vec<R>) -> Vec<Result<Self::Answer, Error>> {
        let mut outcomes = HashMap::with_capacity(rows.len());
        let mut pending = vec![sorted(rows.clone())];
        while let Some(part) = pending.pop() {
            match self.write(part.clone()).await {
                Err(error) if error.blames_a_row() && part.len() > 1 => {
                    let (low, high) = part.split_at(part.len() / 2);
                    pending.extend([high.to_vec(), low.to_vec()]);
                }
                answers => {
                    let answers = answered(&part, R::id, answers, Answers::remove);
                    outcomes.extend(ids(&part).into_iter().zip(answers));
                }
            }
        }
        rows.iter()
            .map(|row| outcomes.remove(row.id()).expect("every row is in one part"))
            .collect()
    }

    fn weight(row: &R) -> usize {
        row.weight()
    }
}

fn sorted<R: WriteRow>(mut rows: Vec<R>) -> Vec<R> {
    rows.sort_by(|a, b| a.id().cmp(b.id()));
    rows
}

fn ids<R: WriteRow>(rows: &[R]) -> Vec<RowId> {
    rows.iter().map(|row| row.id().clone()).collect()
}

fn texts(ids: &[RowId]) -> Vec<&str> {
    ids.iter().map(RowId::as_str).collect()
}

/// Behind a transaction pooler one statement's rows can reach another: better
/// an error for all than one visitor's session for another. `ids` are sorted.
fn asked_for<T>(ids: &[RowId], answers: Answers<T>) -> Result<Answers<T>, Error> {
    let asked = |id: &String| ids.binary_search_by(|asked| asked.as_str().cmp(id)).is_ok();
    if answers.len() <= ids.len() && answers.keys().all(asked) {
        return Ok(answers);
    }
    Err(Error::not_asked_for())
}

/// Gives each row its own answer, or all the one error.
fn answered<R, T, A>(
    rows: &[R],
    id: impl Fn(&R) -> &RowId,
    answers: Result<Answers<T>, Error>,
    mut pick: impl FnMut(&mut Answers<T>, &str) -> Option<A>,
) -> Vec<Result<Option<A>, Error>> {
    match answers {
        Ok(mut answers) => rows
            .iter()
            .map(|row| Ok(pick(&mut answers, id(row).as_str())))
            .collect(),
        Err(error) => rows.iter().map(|_| Err(error.clone())).collect(),
    }
}

pub(super) type Work<'c, T> = BoxFuture<'c, Result<T, Error>>;

impl SetUp {
    /// Lends the table and a connection to one statement.
    async fn run<T>(
        &self,
        statement: impl for<'c> FnOnce(Arc<Table>, &'c mut PgConnection) -> Work<'c, T> + Send,
    ) -> Result<T, Error> {
        let table = self.table().await?;
        let outcome = self
            .database
            .run(|connection| statement(table, connection))
            .await;
        self.learn_from(outcome)
    }
}
