use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    Error,
    document::Document,
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
            .answer()
            .await
        {
            Ok(deleted) => match deleted
                .flatten()
                .as_deref()
                .and_then(|text| self.successor(text))
            {
                Some(successor) => self.submit(successor, Write::Destroy(answer)),
                None => drop(answer.send(Ok(()))),
            },
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    fn successor(&self, text: &str) -> Option<RowId> {
        let document = Document::parse(self.set_up.format.layout(), &text.into()).ok()?;
        document.meta().successor.map(RowId::from)
    }
}
