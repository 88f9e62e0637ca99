use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    Error,
    document::Document,
    events,
    format::Layout,
    id::RowId,
    store::{
        entries::DestroyRow,
        writer::{Write, Writer},
    },
};

impl Writer {
    /// Deletes the row, and returns whether there was a live session. If the row
    /// is a forwarding, the successor is deleted: the visitor meant this session,
    /// not this id.
    pub(super) async fn destroy_row(
        self: &Arc<Self>,
        id: &RowId,
        answer: oneshot::Sender<Result<bool, Error>>,
    ) {
        let order = DestroyRow { id: id.clone() };
        let deleted = match self.destroy.submit(order).outcome().await {
            Ok(deleted) => deleted,
            Err(error) => return drop(answer.send(Err(error))),
        };
        let was_alive = deleted.as_ref().is_some_and(|row| row.was_alive);
        let layout = self.set_up.format.layout();
        let successor = deleted
            .and_then(|row| row.text)
            .and_then(|text| successor_of(layout, &text));
        if let Some(successor) = successor {
            return self.submit(successor, Write::Destroy(answer));
        }
        if was_alive {
            let meter = &self.set_up.database.meter;
            events::ended(meter, &self.set_up.format.handle(id));
        }
        drop(answer.send(Ok(was_alive)));
    }
}

/// Where the session went that this short document stands for.
pub(super) fn successor_of(layout: &'static dyn Layout, text: &str) -> Option<RowId> {
    let document = Document::parse(layout, &text.into()).ok()?;
    document.meta().successor.map(RowId::from)
}
