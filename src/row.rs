//! A row of the table, as the database last returned it. It does no I/O, and doesn't
//! know columns or SQL.

use std::sync::{Arc, OnceLock};

use crate::{
    document::{Document, Layout},
    expiry::Times,
    id::RowId,
};

/// A row as the database last returned it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: RowId,
    pub(crate) text: Option<Arc<str>>,
    pub(crate) times: Times,
    /// When the database last returned or stored this text. A touch, which compares only the
    /// expiry, changes `times` and not this.
    pub(crate) text_seen: f64,
    /// The user who is signed in.
    pub(crate) user: Option<Arc<str>>,
    layout: &'static dyn Layout,
    /// The text, parsed at the first use; `None` if it is not an object.
    document: OnceLock<Option<Arc<Document>>>,
}

impl Row {
    /// Creates the row of a session without a user.
    pub(crate) fn new(
        id: RowId,
        text: Option<Arc<str>>,
        times: Times,
        layout: &'static dyn Layout,
    ) -> Self {
        Self {
            id,
            text,
            times,
            text_seen: times.now,
            user: None,
            layout,
            document: OnceLock::new(),
        }
    }

    /// `None` if the row holds no JSON object.
    pub(crate) fn document(&self) -> Option<&Arc<Document>> {
        let parsed = self.document.get_or_init(|| {
            let document = Document::parse(self.layout, self.text.as_ref()?).ok()?;
            Some(Arc::new(document))
        });
        parsed.as_ref()
    }

    /// The new id of the session, if this row only forwards to it.
    pub(crate) fn successor(&self) -> Option<RowId> {
        self.document()?.meta().successor.map(RowId::from)
    }

    /// Whether the successor belongs to another user.
    pub(crate) fn has_another_user(&self) -> bool {
        self.document()
            .is_some_and(|document| document.meta().login)
    }

    /// The row after a write.
    pub(crate) fn written(id: RowId, content: Content, times: Times) -> Self {
        Self {
            id,
            text: Some(content.text),
            times,
            text_seen: times.now,
            user: None,
            layout: content.document.layout(),
            document: OnceLock::from(Some(content.document)),
        }
    }

    pub(crate) fn of(self, user: Option<Arc<str>>) -> Self {
        Self { user, ..self }
    }

    /// The row of the user in the column `user_id`, or of the one in the document if the table has
    /// no such column.
    pub(crate) fn of_column(self, user_id: Option<&str>, is_in_document: bool) -> Self {
        let user = match is_in_document {
            true => self.user_in_document(),
            false => user_id.map(Arc::from),
        };
        self.of(user)
    }

    fn user_in_document(&self) -> Option<Arc<str>> {
        let member = self.layout.user()?;
        let user = (member.user_in)(self.document()?.get(member.key)?)?;
        Some(user.into())
    }

    /// Whether another application has written another user into the row since a request loaded
    /// it with this one.
    pub(crate) fn has_lost_user(&self, loaded: Option<&Arc<str>>) -> bool {
        loaded.is_some() && loaded != self.user.as_ref()
    }
}

/// A document and its text.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) text: Arc<str>,
    pub(crate) document: Arc<Document>,
}

impl From<Arc<Document>> for Content {
    fn from(document: Arc<Document>) -> Self {
        Self {
            text: document.to_text().into(),
            document,
        }
    }
}

/// The new id of the session, if this text is the document of a row that forwards.
pub(crate) fn successor_of(layout: &'static dyn Layout, text: &str) -> Option<RowId> {
    let document = Document::parse(layout, &text.into()).ok()?;
    document.meta().successor.map(RowId::from)
}

/// The sealed token, if this text is the document of a row that leads from another system's
/// key to a session that was taken over.
pub(crate) fn sealed_in(layout: &'static dyn Layout, text: &str) -> Option<String> {
    let document = Document::parse(layout, &text.into()).ok()?;
    document.meta().sealed
}
