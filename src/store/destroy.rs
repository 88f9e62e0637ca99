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
    /// Deletes the row, and answers whether there was one. Where it only says
    /// where the session went, the end goes there too: the visitor meant this
    /// session, not this id.
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
        let was_there = deleted.is_some();
        let layout = self.set_up.format.layout();
        let successor = deleted
            .flatten()
            .and_then(|text| successor_of(layout, &text));
        if let Some(successor) = successor {
            return self.submit(successor, Write::Destroy(answer));
        }
        if was_there {
            let meter = &self.set_up.database.meter;
            events::ended(meter, &self.set_up.format.handle(id));
        }
        drop(answer.send(Ok(was_there)));
    }
}

/// Where the session went that this short document stands for.
pub(super) fn successor_of(layout: &'static dyn Layout, text: &str) -> Option<RowId> {
    let document = Document::parse(layout, &text.into()).ok()?;
    document.meta().successor.map(RowId::from)
}
