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
    /// Deletes the row. Where it only says where the session went, the end
    /// goes there too: the visitor meant this session, not this id.
    pub(super) async fn destroy_row(
        self: &Arc<Self>,
        id: &RowId,
        answer: oneshot::Sender<Result<(), Error>>,
    ) {
        match self
            .destroy
            .submit(DestroyRow { id: id.clone() })
            .outcome()
            .await
        {
            Ok(deleted) => {
                let was_there = deleted.is_some();
                let text = deleted.flatten();
                let layout = self.set_up.format.layout();
                match text.and_then(|text| successor_of(layout, &text)) {
                    Some(successor) => self.submit(successor, Write::Destroy(answer)),
                    None => {
                        if was_there {
                            let meter = &self.set_up.database.meter;
                            events::ended(meter, &self.set_up.format.handle(id));
                        }
                        drop(answer.send(Ok(())));
                    }
                }
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }
}

/// Where the session went that this short document stands for.
pub(super) fn successor_of(layout: &'static dyn Layout, text: &str) -> Option<RowId> {
    let document = Document::parse(layout, &text.into()).ok()?;
    document.meta().successor.map(RowId::from)
}
