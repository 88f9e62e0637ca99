//! What the requests that wait for a save make of its row.

use std::sync::Arc;

use crate::{
    Error,
    document::Document,
    expiry::Extent,
    state::Touch,
    store::{
        row::{Content, Row},
        writer::SaveOrder,
    },
    telemetry::Meter,
};

/// What the orders make of a row.
pub(super) struct Draft {
    pub(super) content: Content,
    pub(super) is_changed: bool,
    pub(super) has_changes: bool,
    pub(super) extent: Option<Extent>,
}

impl Draft {
    /// Changes that leave the row as it is write nothing, so no comparison
    /// tells whether it still is so: that takes a row that was read just now.
    pub(super) fn is_undone(&self) -> bool {
        self.has_changes && !self.is_changed
    }
}

/// Whether a row was read while the requests were waiting for their save.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Age {
    Fresh,
    /// Another process may have written it since.
    Remembered,
}

/// What became of the orders.
pub(super) enum Composed {
    Draft(Draft),
    /// All of them were refused.
    Nothing,
    /// The remembered row does not fit them, and a fresh one may.
    Misfit,
}

/// What the orders, replayed one after the other, make of the row. An order that
/// does not fit it is answered and leaves no trace.
pub(super) fn compose(
    row: &Arc<Row>,
    age: Age,
    orders: &mut Vec<SaveOrder>,
    meter: &Meter,
) -> Composed {
    let Some(loaded) = row.document() else {
        return Composed::Nothing;
    };
    let document = match known_outcome(row, orders) {
        Some(outcome) => outcome,
        None => {
            meter.replayed(replays(row, orders));
            let (document, misfits) = replay_all(Document::clone(loaded), orders);
            if age == Age::Remembered && !misfits.is_empty() {
                return Composed::Misfit;
            }
            refuse(orders, misfits);
            Arc::new(document)
        }
    };
    if orders.is_empty() {
        return Composed::Nothing;
    }
    let extent = extent(row, &document, orders);
    Composed::Draft(Draft {
        is_changed: document != *loaded,
        has_changes: orders.iter().any(|order| !order.record.changes.is_empty()),
        content: document.into(),
        extent,
    })
}

/// A request that is alone with the row that it loaded has replayed its record
/// on it already.
fn known_outcome(row: &Arc<Row>, orders: &[SaveOrder]) -> Option<Arc<Document>> {
    let [order] = orders else {
        return None;
    };
    let outcome = order.record.outcome.as_ref()?;
    Arc::ptr_eq(row, &order.base).then(|| Arc::clone(outcome))
}

/// How many of the records are replayed on another row than they were made of.
fn replays(row: &Arc<Row>, orders: &[SaveOrder]) -> usize {
    let orders = orders
        .iter()
        .filter(|order| !order.record.changes.is_empty() && !Arc::ptr_eq(row, &order.base));
    orders.count()
}

/// Also returns the places of the orders that do not fit, with the reasons.
fn replay_all(mut document: Document, orders: &mut [SaveOrder]) -> (Document, Vec<(usize, Error)>) {
    let mut misfits = Vec::new();
    for (place, order) in orders.iter_mut().enumerate() {
        if let Err(error) = order.record.changes.replay_caught(&mut document) {
            misfits.push((place, error));
        }
    }
    (document, misfits)
}

fn refuse(orders: &mut Vec<SaveOrder>, misfits: Vec<(usize, Error)>) {
    for (place, error) in misfits.into_iter().rev() {
        orders.remove(place).answer(Err(error));
    }
}

fn extent(row: &Row, document: &Document, orders: &[SaveOrder]) -> Option<Extent> {
    let meta = document.meta();
    orders
        .iter()
        .rev()
        .find(|order| {
            order.record.changes.set_terms()
                || order.touch == Touch::Always
                || (order.touch == Touch::IfDue && order.timeouts.is_touch_due(&meta, row.times))
        })
        .map(|order| order.timeouts.extent(&meta, row.times.created))
}
