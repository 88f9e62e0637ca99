//! What can be asked of the table.

use std::{fmt, sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::sync::{oneshot, watch};

use crate::{
    Error, ErrorKind,
    changes::Changes,
    document::Document,
    expiry::{Absolute, Extent, Timeouts, Times},
    id::{RowId, Token},
    state::MayTouch,
};

mod batch;
#[cfg(test)]
mod checked;
mod cycle;
mod database;
mod destroy;
mod inspect;
mod migrate;
mod reap;
mod row;
mod save;
mod set_up;
mod statements;
mod table;
mod writer;
mod writes;

pub use inspect::TableReport;
pub use migrate::MIGRATOR;
pub(crate) use reap::{Batch as ReapedBatch, WeakStore};
pub(crate) use row::Row;
pub(crate) use save::random_fraction;

use database::Database;
use set_up::SetUp;
use table::TableName;
use writer::{CycleOrder, SaveOrder, Write, Writer};
use writes::InsertRow;

/// How long the database may take for one statement, the wait for a
/// connection included: long enough for a fail-over to a warm standby to be
/// noticed, short enough that visitors are still there.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The table of sessions, in a database of the application's.
///
/// It is cheap to clone; clones share their pool, their batches and what they
/// know of the table. Call [`migrate`](Self::migrate) or
/// [`check`](Self::check) once at start, so that a table that can't serve is
/// told there and not to a visitor; without either, the first statement looks
/// at the table.
///
/// ```
/// use axum_pg_session::PgSessionStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// let pool = sqlx::PgPool::connect(database.url()).await?;
/// let store = PgSessionStore::new(pool).schema("web").table("visits");
/// store.migrate().await?;
///
/// assert_eq!(store.check().await?.to_string(), "every feature is on");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PgSessionStore {
    shared: Arc<Shared>,
}

struct Shared {
    writer: Arc<Writer>,
    creation: Creation,
    /// Closed when the last clone is dropped, which ends the reaper.
    alive: watch::Sender<()>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Creation {
    WhenMissing,
    Never,
}

impl PgSessionStore {
    /// A store in `public.session` of the pool's database.
    ///
    /// The pool stays the application's: the store borrows a connection for
    /// each statement and gives it back.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let database = Database {
            pool,
            timeout: TIMEOUT,
        };
        let set_up = SetUp::new(database, TableName::default(), "UTC".into());
        Self::build(set_up, Creation::WhenMissing)
    }

    /// A store with a pool of its own, of sqlx's default size.
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](ErrorKind::Setup) when `url` is not a Postgres URL,
    /// and [`Unavailable`](ErrorKind::Unavailable) when there is no answer.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let options = parse(url)?;
        let pool = sqlx::postgres::PgPoolOptions::new()
            .acquire_timeout(TIMEOUT)
            .connect_with(options)
            .await?;
        Ok(Self::new(pool))
    }

    fn build(set_up: SetUp, creation: Creation) -> Self {
        Self {
            shared: Arc::new(Shared {
                writer: Writer::new(set_up),
                creation,
                alive: watch::Sender::new(()),
            }),
        }
    }

    fn set_up(&self) -> &SetUp {
        &self.shared.writer.set_up
    }

    fn named(self, name: TableName) -> Self {
        let set_up = SetUp::new(
            self.set_up().database.clone(),
            name,
            self.set_up().time_zone.clone(),
        );
        Self::build(set_up, self.shared.creation)
    }

    /// The schema of the table. Default: `public`. It is always quoted, so
    /// capitals stay capitals.
    #[must_use]
    pub fn schema(self, schema: impl Into<String>) -> Self {
        let name = TableName {
            schema: schema.into(),
            ..self.set_up().name.clone()
        };
        self.named(name)
    }

    /// The name of the table. Default: `session`. It is always quoted, so
    /// capitals stay capitals.
    #[must_use]
    pub fn table(self, table: impl Into<String>) -> Self {
        let name = TableName {
            table: table.into(),
            ..self.set_up().name.clone()
        };
        self.named(name)
    }

    /// Whether [`migrate`](Self::migrate) may create and complete the table.
    /// Default: `true`. With `false` it only checks.
    #[must_use]
    pub fn create_table(self, create: bool) -> Self {
        let creation = match create {
            true => Creation::WhenMissing,
            false => Creation::Never,
        };
        Self::build(self.set_up().clone(), creation)
    }

    /// How long the database may take for one statement, the wait for a
    /// connection of the pool included, before a request is answered with
    /// 503. Default: 5 seconds.
    ///
    /// A statement that was sent can't be called back, and one that waited for
    /// a lock may be carried out after its 503, as a whole.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        let database = Database {
            timeout,
            ..self.set_up().database.clone()
        };
        let set_up = SetUp::new(
            database,
            self.set_up().name.clone(),
            self.set_up().time_zone.clone(),
        );
        Self::build(set_up, self.shared.creation)
    }

    /// The zone whose clock an `expiry` of type `timestamp` holds, such as
    /// `Europe/Berlin`. Default: `UTC`. A `timestamptz`, which
    /// [`migrate`](Self::migrate) creates, needs none.
    #[must_use]
    pub fn time_zone(self, zone: impl Into<String>) -> Self {
        let set_up = SetUp::new(
            self.set_up().database.clone(),
            self.set_up().name.clone(),
            zone.into(),
        );
        Self::build(set_up, self.shared.creation)
    }

    /// Creates the table, or what it lacks of columns and indexes, and
    /// [checks](Self::check) it.
    ///
    /// Any number of processes may call it at once. It looks first: where
    /// all is there it needs no right to create anything. A table of another
    /// system that this role may not change is used as it is.
    ///
    /// It takes an advisory lock of its session, so call it on a direct
    /// connection, not through a pooler in transaction mode.
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](ErrorKind::Setup) when a right is missing or the
    /// table that is there can't serve, naming what is wrong.
    pub async fn migrate(&self) -> Result<(), Error> {
        match self.shared.creation {
            Creation::WhenMissing => self.set_up().migrate().await,
            Creation::Never => self.check().await.map(drop),
        }
    }

    /// Looks at the table and says what it can serve.
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](ErrorKind::Setup), naming the column that is missing
    /// or of the wrong type, or the right that this role lacks.
    pub async fn check(&self) -> Result<TableReport, Error> {
        self.set_up().check().await
    }

    /// # Errors
    ///
    /// When the timeouts need a column that the table is known not to have.
    pub(crate) fn check_timeouts(&self, timeouts: &Timeouts) -> Result<(), Error> {
        let lacks_created = self
            .set_up()
            .found()
            .is_some_and(|table| !table.columns.has_created());
        match timeouts.absolute {
            Absolute::After(_) if lacks_created => Err(no_created(&self.set_up().name)),
            _ => Ok(()),
        }
    }

    /// The live rows among these.
    pub(crate) async fn load(&self, ids: &[RowId]) -> Result<Vec<Arc<Row>>, Error> {
        let receipts: Vec<_> = ids
            .iter()
            .map(|id| self.shared.writer.load.submit(id.clone()))
            .collect();
        let mut rows = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            rows.extend(receipt.answer().await?);
        }
        Ok(rows)
    }

    /// A row for a session that this request began, under a token that was
    /// never used before.
    pub(crate) async fn insert(
        &self,
        document: &Document,
        timeouts: &Timeouts,
    ) -> Result<(Token, Arc<Row>), Error> {
        let table = self.set_up().table().await?;
        self.check_timeouts(timeouts)?;
        let token = Token::generate()?;
        let order = InsertRow {
            id: token.row_id(),
            text: document.to_text().into(),
            extent: timeouts.extent_of_new(&document.meta(), table.columns.has_created()),
        };
        let now = self.insert_row(order.clone()).await?;
        let row = Row {
            id: order.id,
            text: Some(order.text),
            times: Times {
                now,
                expires: order.extent.from(now),
                created: table.columns.has_created().then_some(now),
            },
        };
        Ok((token, Arc::new(row)))
    }

    /// Sent once more when the connection was lost: the id is nobody else's,
    /// so a row that is there by then is ours.
    async fn insert_row(&self, order: InsertRow) -> Result<f64, Error> {
        let insert = &self.shared.writer.insert;
        let first = insert.submit(order.clone()).answer().await;
        match first {
            Ok(now) => now.ok_or_else(id_exists),
            Err(error) if error.kind() == ErrorKind::Unavailable && !error.is_out_of_time() => {
                self.insert_again(order).await
            }
            Err(error) => Err(error),
        }
    }

    async fn insert_again(&self, order: InsertRow) -> Result<f64, Error> {
        let id = order.id.clone();
        match self.shared.writer.insert.submit(order).answer().await? {
            Some(now) => Ok(now),
            None => self
                .load(&[id])
                .await?
                .first()
                .map(|row| row.times.now)
                .ok_or_else(Error::ended),
        }
    }

    /// Saves what a request did, or only moves the expiry where it did
    /// nothing.
    pub(crate) async fn save(
        &self,
        base: Arc<Row>,
        changes: Changes,
        timeouts: Arc<Timeouts>,
        may_touch: MayTouch,
    ) -> Result<Arc<Row>, Error> {
        let (answer, receipt) = oneshot::channel();
        let id = base.id.clone();
        let order = SaveOrder {
            base,
            changes,
            may_touch,
            timeouts,
            answer,
        };
        self.shared.writer.submit(id, Write::Save(order));
        receipt.await.unwrap_or_else(|_| Err(Error::abandoned()))
    }

    /// Gives the session a new token; the old one opens nothing any more.
    pub(crate) async fn cycle(
        &self,
        id: RowId,
        changes: Changes,
        timeouts: Arc<Timeouts>,
    ) -> Result<(Token, Arc<Row>), Error> {
        let token = Token::generate()?;
        let (answer, receipt) = oneshot::channel();
        let order = CycleOrder {
            changes,
            timeouts,
            new_id: token.row_id(),
            answer,
        };
        self.shared.writer.submit(id, Write::Cycle(order));
        let row = receipt.await.unwrap_or_else(|_| Err(Error::abandoned()))?;
        Ok((token, row))
    }

    /// Deletes the row; an absent one is as good.
    pub(crate) async fn destroy(&self, id: RowId) -> Result<(), Error> {
        let (answer, receipt) = oneshot::channel();
        self.shared.writer.submit(id, Write::Destroy(answer));
        receipt.await.unwrap_or_else(|_| Err(Error::abandoned()))
    }
}

impl Timeouts {
    /// A row that is not there yet has no times to reckon from, so the earlier
    /// timeout wins in seconds from now.
    fn extent_of_new(&self, meta: &crate::document::Meta, has_created: bool) -> Extent {
        let from_now = self.extent(meta, has_created.then_some(0.0));
        match meta.until {
            Some(_) => from_now,
            None => Extent {
                ttl: from_now.from(0.0),
                until: None,
            },
        }
    }
}

/// sqlx takes the URL of any server for one of Postgres.
fn parse(url: &str) -> Result<PgConnectOptions, Error> {
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme.to_ascii_lowercase().as_str() {
        "postgres" | "postgresql" => url.parse().map_err(Error::not_a_url),
        _ => Err(Error::not_a_url("its scheme is not postgres")),
    }
}

fn no_created(name: &TableName) -> Error {
    Error::new(
        ErrorKind::Setup,
        format!(
            "an absolute timeout needs the column created in the table {name} (migration 0002)"
        ),
    )
}

fn id_exists() -> Error {
    Error::new(
        ErrorKind::Database,
        "a row with the id of a fresh token exists already",
    )
}

impl fmt::Debug for PgSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSessionStore")
            .field("table", &self.set_up().name.to_string())
            .field("timeout", &self.set_up().database.timeout)
            .finish_non_exhaustive()
    }
}
