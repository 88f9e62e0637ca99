//! What sessions ask of the store.

use std::sync::Arc;

use tokio::{sync::oneshot, time::timeout_at};

use crate::{
    Error, ErrorKind,
    document::{Document, Meta},
    events,
    expiry::{Extent, Timeouts, Times},
    id::{RowId, Token},
    state::{MayTouch, Record, Reissue, Source},
    store::{
        PgSessionStore,
        database::out_of_time,
        entries::{InsertRow, LoadRow, Written},
        receipt::Receipt,
        row::{Content, Row},
        writer::{ReissueOrder, SaveOrder, Write},
    },
};

impl PgSessionStore {
    /// The live rows among these.
    pub(crate) async fn load_rows(&self, ids: &[RowId]) -> Result<Vec<Arc<Row>>, Error> {
        let receipts: Vec<_> = ids
            .iter()
            .map(|id| self.shared.writer.load.submit(LoadRow(id.clone())))
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
        document: Arc<Document>,
        timeouts: &Timeouts,
    ) -> Result<(Token, Arc<Row>), Error> {
        let deadline = self.set_up().database.deadline();
        timeout_at(deadline, self.insert_new(document, timeouts))
            .await
            .unwrap_or_else(|_| Err(out_of_time()))
    }

    async fn insert_new(
        &self,
        document: Arc<Document>,
        timeouts: &Timeouts,
    ) -> Result<(Token, Arc<Row>), Error> {
        let table = self.set_up().table().await?;
        self.check_timeouts(timeouts)?;
        let token = self.format().new_token()?;
        let has_created = table.columns.has_created();
        let extent = timeouts.extent_of_new(&document.meta(), has_created);
        let content = Content::from(document);
        let order = InsertRow {
            id: self.row_id(&token),
            text: Arc::clone(&content.text),
            extent,
        };
        let id = order.id.clone();
        let written = self.insert_row(order).await?;
        events::began(self.meter(), &self.format().handle(&id));
        let times = Times::of_new(written, &table.columns);
        Ok((token, Arc::new(Row::written(id, content, times))))
    }

    /// Sent once more when the server ended the connection: the id is nobody
    /// else's, so a row that is there by then is ours. Not without the server's
    /// word: an insert that is still under way could bring the session back
    /// after its end.
    async fn insert_row(&self, order: InsertRow) -> Result<Written, Error> {
        let insert = &self.shared.writer.insert;
        let first = insert.submit(order.clone()).outcome().await;
        match first {
            Ok(written) => written.ok_or_else(id_exists),
            Err(error) if error.kind() == ErrorKind::Unavailable && error.is_of_the_server() => {
                self.insert_again(order).await
            }
            Err(error) => Err(error),
        }
    }

    async fn insert_again(&self, order: InsertRow) -> Result<Written, Error> {
        let id = order.id.clone();
        match self.shared.writer.insert.submit(order).outcome().await? {
            Some(written) => Ok(written),
            None => self
                .load_rows(&[id])
                .await?
                .first()
                .map(|row| Written::of(row.times))
                .ok_or_else(Error::ended),
        }
    }

    /// Saves what a request did, or only moves the expiry where it did
    /// nothing.
    pub(crate) async fn save(
        &self,
        base: Arc<Row>,
        record: Record,
        timeouts: Arc<Timeouts>,
        may_touch: MayTouch,
    ) -> Result<Arc<Row>, Error> {
        let (answer, receipt) = self.receipt();
        let id = base.id.clone();
        let order = SaveOrder {
            base,
            record,
            may_touch,
            timeouts,
            deadline: receipt.deadline(),
            answer,
        };
        self.shared.writer.submit(id, Write::Save(order));
        receipt.answer().await
    }

    /// Gives the session a new token; the old one opens nothing any more.
    pub(crate) async fn reissue(
        &self,
        reissue: Reissue,
        timeouts: Arc<Timeouts>,
    ) -> Result<(Token, Arc<Row>), Error> {
        let token = self.format().new_token()?;
        let new_id = self.row_id(&token);
        // In order with what else is done to the row that there is.
        let queue = match &reissue.source {
            Source::Row(id) => id.clone(),
            Source::Nothing(_) => new_id.clone(),
        };
        let (answer, receipt) = self.receipt();
        let order = ReissueOrder {
            reissue,
            timeouts,
            new_id,
            deadline: receipt.deadline(),
            answer,
        };
        self.shared.writer.submit(queue, Write::Reissue(order));
        Ok((token, receipt.answer().await?))
    }

    /// Deletes the row, and answers whether there was one; none is as good.
    pub(crate) async fn destroy_row(&self, id: RowId) -> Result<bool, Error> {
        let (answer, receipt) = self.receipt();
        self.shared.writer.submit(id, Write::Destroy(answer));
        receipt.answer().await
    }

    /// For what is answered within the timeout, whatever it waits for.
    fn receipt<T>(&self) -> (oneshot::Sender<Result<T, Error>>, Receipt<T>) {
        let (answer, receipt) = oneshot::channel();
        (
            answer,
            Receipt::new(receipt, self.set_up().database.deadline()),
        )
    }
}

impl Timeouts {
    /// A row that is not there yet has no times to reckon from, so the earlier
    /// timeout wins in seconds from now.
    pub(super) fn extent_of_new(&self, meta: &Meta, has_created: bool) -> Extent {
        let from_now = self.extent(meta, has_created.then_some(0.0));
        match self.has_own_end(meta) {
            true => from_now,
            false => Extent {
                ttl: from_now.from(0.0),
                until: None,
            },
        }
    }
}

fn id_exists() -> Error {
    Error::new(
        ErrorKind::Database,
        "a row with the id of a fresh token exists already",
    )
}
