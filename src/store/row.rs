use std::sync::Arc;

use crate::{
    document::Document,
    expiry::{Extent, Times},
    id::RowId,
};

/// A row as the database last answered it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: RowId,
    pub(crate) text: Option<Arc<str>>,
    pub(crate) times: Times,
}

/// The columns of `load.sql` and `cycle_lock.sql`.
pub(super) type Loaded = (String, Option<String>, f64, Option<f64>, f64);

impl From<Loaded> for Row {
    fn from((id, text, expires, created, now): Loaded) -> Self {
        Self {
            id: id.into(),
            text: text.map(Arc::from),
            times: Times {
                now,
                expires,
                created,
            },
        }
    }
}

impl Row {
    /// `None` where the row holds no JSON object.
    pub(crate) fn document(&self) -> Option<Document> {
        Document::parse(self.text.as_deref()?).ok()
    }

    /// The row after a write at the database's `now`.
    pub(super) fn written(
        id: RowId,
        text: Arc<str>,
        now: f64,
        expiry: Expiring,
        created: Option<f64>,
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
                created,
            },
        }
    }
}

/// What a write does to the expiry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expiring {
    Stays(f64),
    Moves(Extent),
}
