//! A new id for the same session: copy the row, leave a forwarding under the
//! old id, in one transaction. Never `UPDATE id`: Citus refuses it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection};

use crate::{
    Error, ErrorKind,
    changes::Changes,
    document::Document,
    expiry::Timeouts,
    format::OldId,
    id::RowId,
    store::{
        entries::LoadRow,
        row::{Content, Expiring, Loaded, Row},
        save::panicked,
        table::Table,
        writer::{CycleOrder, Writer},
    },
};

/// How long the old id tells late requests where their session went. It opens
/// nothing meanwhile. Longer than any answer should be under way.
const FORWARDING: Duration = Duration::from_secs(60);
/// Deadlocks and lost connections that a cycle outlives.
const MAX_ATTEMPTS: usize = 3;

/// What each attempt needs; the record is replayed on the locked row.
struct Plan {
    id: RowId,
    new_id: RowId,
    timeouts: Arc<Timeouts>,
    changes: Mutex<Changes>,
}

impl Writer {
    pub(super) async fn cycle_row(&self, id: &RowId, order: CycleOrder) {
        let plan = Arc::new(Plan {
            id: id.clone(),
            new_id: order.new_id,
            timeouts: order.timeouts,
            changes: Mutex::new(order.changes),
        });
        let outcome = self.cycle_until_settled(&plan).await;
        // Nobody waits for the answer of a cancelled request.
        drop(order.answer.send(outcome));
    }

    async fn cycle_until_settled(&self, plan: &Arc<Plan>) -> Result<Arc<Row>, Error> {
        let mut doubt = false;
        for attempt in 1.. {
            let error = match self.attempt_cycle(Arc::clone(plan)).await {
                Ok(row) => return Ok(Arc::new(row)),
                Err(error) => error,
            };
            doubt |= error.kind() == ErrorKind::Unavailable;
            if doubt && let Some(row) = self.already_cycled(plan).await {
                return Ok(row);
            }
            let may_pass = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable);
            if !may_pass || error.is_out_of_time() || attempt == MAX_ATTEMPTS {
                return Err(error);
            }
        }
        Err(Error::ended())
    }

    /// A connection lost in mid-commit leaves open whether the new id exists;
    /// nobody else can have made it.
    async fn already_cycled(&self, plan: &Plan) -> Option<Arc<Row>> {
        self.load
            .submit(LoadRow(plan.new_id.clone()))
            .answer()
            .await
            .ok()?
    }

    async fn attempt_cycle(&self, plan: Arc<Plan>) -> Result<Row, Error> {
        let deadline = self.set_up.database.deadline();
        self.set_up
            .serve(deadline, |table, connection| {
                Box::pin(cycle(table, connection, plan))
            })
            .await
    }
}

async fn cycle(
    table: Arc<Table>,
    connection: &mut PgConnection,
    plan: Arc<Plan>,
) -> Result<Row, Error> {
    let mut transaction = connection.begin().await?;
    let row = lock(&table, &mut transaction, &plan).await?;
    let document = plan.replay(&row)?;
    let copied = copy(&table, &mut transaction, &plan, &row, document).await?;
    match table.old_id {
        OldId::Forwards => forward(&table, &mut transaction, &plan).await?,
        OldId::IsDeleted => delete(&table, &mut transaction, &plan).await?,
    }
    transaction.commit().await?;
    Ok(copied)
}

/// Waits for whoever writes the row now, and reads what they wrote.
async fn lock(table: &Table, connection: &mut PgConnection, plan: &Plan) -> Result<Row, Error> {
    let row: Option<Loaded> = sqlx::query_as(table.cycle_lock.clone())
        .bind(plan.id.as_str())
        .fetch_optional(connection)
        .await?;
    match row {
        Some(row) if row.0 == plan.id.as_str() => Ok(Row::loaded(row, table.layout)),
        Some(_) => Err(Error::not_asked_for()),
        None => Err(Error::ended()),
    }
}

impl Plan {
    /// A session that has a new id already is not this request's to move: the
    /// token of that id is known to another answer only.
    fn replay(&self, row: &Row) -> Result<Document, Error> {
        let mut document = Document::clone(row.document().ok_or_else(Error::ended)?);
        if document.meta().successor.is_some() {
            return Err(Error::ended());
        }
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        catch_unwind(AssertUnwindSafe(|| changes.replay(&mut document)))
            .unwrap_or_else(|_| Err(panicked()))?;
        Ok(document)
    }
}

async fn copy(
    table: &Table,
    connection: &mut PgConnection,
    plan: &Plan,
    row: &Row,
    document: Document,
) -> Result<Row, Error> {
    let extent = plan.timeouts.extent(&document.meta(), row.times.created);
    let content = Content::from(Arc::new(document));
    sqlx::query(table.cycle_copy.clone())
        .bind(plan.id.as_str())
        .bind(plan.new_id.as_str())
        .bind(&*content.text)
        .bind(extent.ttl)
        .bind(extent.until)
        .execute(connection)
        .await?;
    Ok(Row::written(
        plan.new_id.clone(),
        content,
        row.times.now,
        Expiring::Moves(extent),
        row.times.created,
    ))
}

async fn delete(table: &Table, connection: &mut PgConnection, plan: &Plan) -> Result<(), Error> {
    sqlx::query(table.destroy.one.clone())
        .bind(plan.id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn forward(table: &Table, connection: &mut PgConnection, plan: &Plan) -> Result<(), Error> {
    sqlx::query(table.cycle_forward.clone())
        .bind(plan.id.as_str())
        .bind(Document::forwarding_to(plan.new_id.as_str()).to_text())
        .bind(FORWARDING.as_secs_f64())
        .execute(connection)
        .await?;
    Ok(())
}
