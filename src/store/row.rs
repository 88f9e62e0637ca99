use std::sync::{Arc, OnceLock};

use crate::{
    document::Document,
    expiry::Times,
    format::Layout,
    id::RowId,
    store::{columns::Columns, entries::Written, instant::Instant},
};

/// A row as the database last answered it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: RowId,
    pub(crate) text: Option<Arc<str>>,
    pub(crate) times: Times,
    /// Who is signed in.
    pub(crate) user: Option<Arc<str>>,
    layout: &'static dyn Layout,
    /// The text, parsed when somebody first looks; none where it is no object.
    document: OnceLock<Option<Arc<Document>>>,
}

/// The columns of `cycle_lock.sql`.
pub(super) type Loaded = (
    String,
    Option<String>,
    Instant,
    Option<Instant>,
    Instant,
    Option<Instant>,
    Option<String>,
    Option<String>,
);

impl Row {
    pub(super) fn loaded(loaded: Loaded, layout: &'static dyn Layout) -> Self {
        let (id, text, expires, created, now, seen, user, _) = loaded;
        let times = Times {
            now: now.0,
            expires: expires.0,
            created: created.map(|created| created.0),
            seen: seen.map(|seen| seen.0),
        };
        Self {
            user: user.map(Arc::from),
            ..Self::new(id.into(), text.map(Arc::from), times, layout)
        }
    }

    /// The row of a session that nobody is signed in to.
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
            user: None,
            layout,
            document: OnceLock::new(),
        }
    }

    /// `None` where the row holds no JSON object.
    pub(crate) fn document(&self) -> Option<&Arc<Document>> {
        let parsed = self.document.get_or_init(|| {
            let document = Document::parse(self.layout, self.text.as_ref()?).ok()?;
            Some(Arc::new(document))
        });
        parsed.as_ref()
    }

    /// Where the session went, where this row only says so.
    pub(super) fn successor(&self) -> Option<RowId> {
        self.document()?.meta().successor.map(RowId::from)
    }

    /// Whether the successor belongs to another user.
    pub(super) fn has_another_user(&self) -> bool {
        self.document()
            .is_some_and(|document| document.meta().login)
    }

    /// The row after a write.
    pub(super) fn written(id: RowId, content: Content, times: Times) -> Self {
        Self {
            id,
            text: Some(content.text),
            times,
            user: None,
            layout: content.document.layout(),
            document: OnceLock::from(Some(content.document)),
        }
    }

    pub(super) fn of(self, user: Option<Arc<str>>) -> Self {
        Self { user, ..self }
    }
}

impl Times {
    /// Those of a row that was inserted.
    pub(super) fn of_new(written: Written, columns: &Columns) -> Self {
        let Written { now, expires } = written;
        Self {
            now,
            expires,
            created: columns.has_created().then_some(now),
            seen: columns.has_last_seen().then_some(now),
        }
    }

    /// Those after a write that moved the expiry.
    pub(super) fn moved(self, written: Written) -> Self {
        let seen = self.seen.map(|_| written.now);
        Self {
            seen,
            ..self.kept(written)
        }
    }

    /// Those after a write that left it as it was.
    pub(super) fn kept(self, written: Written) -> Self {
        let Written { now, expires } = written;
        Self {
            now,
            expires,
            ..self
        }
    }
}

/// A document and its text.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) text: Arc<str>,
    pub(super) document: Arc<Document>,
}

impl From<Arc<Document>> for Content {
    fn from(document: Arc<Document>) -> Self {
        Self {
            text: document.to_text().into(),
            document,
        }
    }
}
