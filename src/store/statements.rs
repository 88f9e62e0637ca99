//! The batched statements: what one row of each is, and what it answers.

use std::{collections::HashMap, future::Future, sync::Arc};

use futures_core::future::BoxFuture;
use sqlx::PgConnection;

use crate::{
    Error,
    expiry::Extent,
    id::RowId,
    store::{
        batch::Statement,
        row::{Loaded, Row},
        set_up::SetUp,
        table::Table,
    },
};

/// The rows that a statement answered, by id.
type Answers<T> = HashMap<String, T>;

/// Loads live rows.
#[derive(Debug)]
pub(super) struct Load(pub(super) SetUp);

/// Inserts rows; answers the database's now, or `None` where the id exists.
#[derive(Debug)]
pub(super) struct Insert(pub(super) SetUp);

/// Writes documents where the row still holds what was loaded; answers the
/// database's now, or `None` where it does not.
#[derive(Debug)]
pub(super) struct Save(pub(super) SetUp);

/// Moves the expiry where it still is what was loaded.
#[derive(Debug)]
pub(super) struct Touch(pub(super) SetUp);

/// Deletes rows; answers what a short row held, which may be a forwarding.
#[derive(Debug)]
pub(super) struct Destroy(pub(super) SetUp);

#[derive(Clone, Debug)]
pub(super) struct InsertRow {
    pub(super) id: RowId,
    pub(super) text: Arc<str>,
    pub(super) extent: Extent,
}

#[derive(Clone, Debug)]
pub(super) struct SaveRow {
    pub(super) id: RowId,
    pub(super) digest: [u8; 32],
    pub(super) text: Arc<str>,
    pub(super) extent: Option<Extent>,
}

#[derive(Clone, Debug)]
pub(super) struct TouchRow {
    pub(super) id: RowId,
    pub(super) expires: f64,
    pub(super) extent: Extent,
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
        .map(|row| (row.0.clone(), Arc::new(Row::from(row))));
    asked_for(&ids, rows.collect())
}

impl Statement for Insert {
    type Row = InsertRow;
    type Answer = Option<f64>;

    async fn run(&self, rows: Vec<InsertRow>) -> Vec<Result<Self::Answer, Error>> {
        by_halves(
            rows,
            |row| &row.id,
            |rows| {
                self.0
                    .run(|table, connection| Box::pin(insert(table, connection, rows)))
            },
        )
        .await
    }

    fn weight(row: &InsertRow) -> usize {
        row.text.len()
    }
}

async fn insert(
    table: Arc<Table>,
    connection: &mut PgConnection,
    rows: Vec<InsertRow>,
) -> Result<Answers<f64>, Error> {
    let ids: Vec<_> = rows.iter().map(|row| row.id.clone()).collect();
    let answers: Vec<(String, f64)> = sqlx::query_as(table.insert.clone())
        .bind(texts(&ids))
        .bind(rows.iter().map(|row| &*row.text).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.extent.ttl).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.extent.until).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    asked_for(&ids, answers.into_iter().collect())
}

impl Statement for Save {
    type Row = SaveRow;
    type Answer = Option<f64>;

    async fn run(&self, rows: Vec<SaveRow>) -> Vec<Result<Self::Answer, Error>> {
        by_halves(
            rows,
            |row| &row.id,
            |rows| {
                self.0
                    .run(|table, connection| Box::pin(save(table, connection, rows)))
            },
        )
        .await
    }

    fn weight(row: &SaveRow) -> usize {
        row.text.len()
    }
}

async fn save(
    table: Arc<Table>,
    connection: &mut PgConnection,
    rows: Vec<SaveRow>,
) -> Result<Answers<f64>, Error> {
    let ids: Vec<_> = rows.iter().map(|row| row.id.clone()).collect();
    let extents = || rows.iter().map(|row| row.extent);
    let answers: Vec<(String, f64)> = sqlx::query_as(table.save.clone())
        .bind(texts(&ids))
        .bind(
            rows.iter()
                .map(|row| row.digest.as_slice())
                .collect::<Vec<_>>(),
        )
        .bind(rows.iter().map(|row| &*row.text).collect::<Vec<_>>())
        .bind(
            extents()
                .map(|extent| Some(extent?.ttl))
                .collect::<Vec<_>>(),
        )
        .bind(extents().map(|extent| extent?.until).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    asked_for(&ids, answers.into_iter().collect())
}

impl Statement for Touch {
    type Row = TouchRow;
    type Answer = Option<f64>;

    async fn run(&self, rows: Vec<TouchRow>) -> Vec<Result<Self::Answer, Error>> {
        by_halves(
            rows,
            |row| &row.id,
            |rows| {
                self.0
                    .run(|table, connection| Box::pin(touch(table, connection, rows)))
            },
        )
        .await
    }

    fn weight(row: &TouchRow) -> usize {
        row.id.as_str().len()
    }
}

async fn touch(
    table: Arc<Table>,
    connection: &mut PgConnection,
    rows: Vec<TouchRow>,
) -> Result<Answers<f64>, Error> {
    let ids: Vec<_> = rows.iter().map(|row| row.id.clone()).collect();
    let answers: Vec<(String, f64)> = sqlx::query_as(table.touch.clone())
        .bind(texts(&ids))
        .bind(rows.iter().map(|row| row.expires).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.extent.ttl).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.extent.until).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    asked_for(&ids, answers.into_iter().collect())
}

impl Statement for Destroy {
    type Row = RowId;
    type Answer = Option<Option<String>>;

    async fn run(&self, rows: Vec<RowId>) -> Vec<Result<Self::Answer, Error>> {
        by_halves(
            rows,
            |id| id,
            |ids| {
                self.0
                    .run(|table, connection| Box::pin(destroy(table, connection, ids)))
            },
        )
        .await
    }

    fn weight(id: &RowId) -> usize {
        id.as_str().len()
    }
}

async fn destroy(
    table: Arc<Table>,
    connection: &mut PgConnection,
    ids: Vec<RowId>,
) -> Result<Answers<Option<String>>, Error> {
    let answers: Vec<(String, Option<String>)> = sqlx::query_as(table.destroy.clone())
        .bind(texts(&ids))
        .fetch_all(connection)
        .await?;
    asked_for(&ids, answers.into_iter().collect())
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

/// Runs the rows as one statement, in the order of their ids: unsorted batches
/// deadlock. Where one row can be at fault, the halves are tried on their own,
/// so that it fails alone: the failed statement has changed nothing.
async fn by_halves<R, T, F>(
    rows: Vec<R>,
    id: impl Fn(&R) -> &RowId + Copy,
    run: impl Fn(Vec<R>) -> F,
) -> Vec<Result<Option<T>, Error>>
where
    R: Clone,
    F: Future<Output = Result<Answers<T>, Error>>,
{
    let mut outcomes: HashMap<RowId, Result<Option<T>, Error>> = HashMap::with_capacity(rows.len());
    let mut pending = vec![sorted(rows.clone(), id)];
    while let Some(part) = pending.pop() {
        match run(part.clone()).await {
            Err(error) if error.blames_a_row() && part.len() > 1 => {
                let (low, high) = part.split_at(part.len() / 2);
                pending.extend([high.to_vec(), low.to_vec()]);
            }
            answers => {
                let answers = answered(&part, id, answers, Answers::remove);
                outcomes.extend(part.iter().map(|row| id(row).clone()).zip(answers));
            }
        }
    }
    rows.iter()
        .map(|row| {
            outcomes
                .remove(id(row))
                .unwrap_or_else(|| Err(Error::abandoned()))
        })
        .collect()
}

fn sorted<R>(mut rows: Vec<R>, id: impl Fn(&R) -> &RowId) -> Vec<R> {
    rows.sort_by(|a, b| id(a).cmp(id(b)));
    rows
}

type Work<'c, T> = BoxFuture<'c, Result<T, Error>>;

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
