use std::sync::{Arc, OnceLock};

use crate::{
    document::Document,
    expiry::{Extent, Times},
    format::Layout,
    id::RowId,
    store::instant::Instant,
};

/// A row as the database last answered it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: RowId,
    pub(crate) text: Option<Arc<str>>,
    pub(crate) times: Times,
    layout: &'static dyn Layout,
    /// The text, parsed when somebody first looks; none where it is no object.
    document: OnceLock<Option<Arc<Document>>>,
}

/// The columns of `load.sql` and `cycle_lock.sql`.
pub(super) type Loaded = (String, Option<String>, Instant, Option<Instant>, Instant);

impl Row {
    pub(super) fn loaded(loaded: Loaded, layout: &'static dyn Layout) -> Self {
        let (id, text, expires, created, now) = loaded;
        let times = Times {
            now: now.0,
            expires: expires.0,
            created: created.map(|created| created.0),
        };
        Self::new(id.into(), text.map(Arc::from), times, layout)
    }

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

    /// The row after a write at the database's `now`.
    pub(super) fn written(
        id: RowId,
        content: Content,
        now: f64,
        expiry: Expiring,
        created: Option<f64>,
    ) -> Self {
        let expires = match expiry {
            Expiring::Stays(expires) => expires,
            Expiring::Moves(extent) => extent.from(now),
        };
        let times = Times {
            now,
            expires,
            created,
        };
        Self {
            id,
            text: Some(content.text),
            times,
            layout: content.document.layout(),
            document: OnceLock::from(Some(content.document)),
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

/// What a write does to the expiry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expiring {
    Stays(f64),
    Moves(Extent),
}
