//! What the requests that wait for a save make of its row.

use std::sync::Arc;

use crate::{
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

/// What the orders, replayed one after the other, make of the row. `None` when
/// no order is left.
pub(super) fn compose(row: &Arc<Row>, orders: &mut Vec<SaveOrder>, meter: &Meter) -> Option<Draft> {
    let loaded = row.document()?;
    let document = match known_outcome(row, orders) {
        Some(outcome) => outcome,
        None => {
            meter.replayed(replays(row, orders));
            replay_all(Document::clone(loaded), orders)
        }
    };
    let extent = extent(row, &document, orders);
    (!orders.is_empty()).then(|| Draft {
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

/// One that fails is answered and leaves no trace.
fn replay_all(mut document: Document, orders: &mut Vec<SaveOrder>) -> Arc<Document> {
    let mut failures = Vec::new();
    let mut index = 0;
    while index < orders.len() {
        match orders[index].record.changes.replay_caught(&mut document) {
            Ok(()) => index += 1,
            Err(error) => failures.push((orders.remove(index), error)),
        }
    }
    for (order, error) in failures {
        order.answer(Err(error));
    }
    Arc::new(document)
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
