use std::sync::Arc;

use crate::{
    document::Document,
    expiry::{Extent, Times},
    format::Layout,
    id::RowId,
};

/// A row as the database last answered it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: RowId,
    pub(crate) text: Option<Arc<str>>,
    pub(crate) times: Times,
    pub(crate) layout: &'static dyn Layout,
}

/// The columns of `load.sql` and `cycle_lock.sql`.
pub(super) type Loaded = (String, Option<String>, f64, Option<f64>, f64);

impl Row {
    pub(super) fn loaded(loaded: Loaded, layout: &'static dyn Layout) -> Self {
        let (id, text, expires, created, now) = loaded;
        Self {
            id: id.into(),
            text: text.map(Arc::from),
            times: Times {
                now,
                expires,
                created,
            },
            layout,
        }
    }

    /// `None` where the row holds no JSON object.
    pub(crate) fn document(&self) -> Option<Document> {
        Document::parse(self.layout, self.text.as_deref()?).ok()
    }

    /// The row `before` after a write at the database's `now`.
    pub(super) fn written(
        before: &Self,
        id: RowId,
        text: Arc<str>,
        now: f64,
        expiry: Expiring,
    ) -> Self {
        let expires = match expiry {
            Expiring::Stays(expires) => expires,
            Expiring::Moves(extent) => extent.from(now),
        };
        Self {
            id,
            text: Some(text),
            times: Times {
                now,
                expires,
                created: before.times.created,
            },
            layout: before.layout,
        }
    }
}

/// What a write does to the expiry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expiring {
    Stays(f64),
    Moves(Extent),
}
