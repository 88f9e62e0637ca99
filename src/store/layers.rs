//! The layers of this process, to find two that share sessions by accident. It knows a layer
//! only as an address.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak, atomic::AtomicBool},
};

use crate::id::RowId;

/// Those of all stores: an application may connect twice to one table.
pub(crate) static LAYERS: LazyLock<Layers> = LazyLock::new(Layers::default);

/// For each area of a site, the layer that was added first.
///
/// Two layers share sessions if they lead the same token to the same row and
/// read it from a cookie, or a header, of the same name. A layer is known by a
/// value that only its clones share. The value is weak: a layer that was dropped
/// with all its services shares nothing any more.
#[derive(Default)]
pub(crate) struct Layers(Mutex<HashMap<Area, Known>>);

#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Area {
    /// The folder of the socket, if there is one, the host and the port.
    pub(crate) server: (Option<PathBuf>, String, u16),
    /// With the database.
    pub(crate) table: String,
    pub(crate) cookie_name: Arc<str>,
    /// Where a certain token leads: it depends on the realm, or on what precedes
    /// the ids in the formats of Koa and Express.
    pub(crate) row: RowId,
}

struct Known {
    layer: Weak<AtomicBool>,
    is_shared: bool,
}

impl Layers {
    /// Registers a layer whose clones share `layer`. Returns whether it is the first
    /// one to share the sessions of another layer.
    pub(crate) fn is_first_to_share(&self, area: Area, layer: &Arc<AtomicBool>) -> bool {
        let mut areas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        areas.retain(|_, known| known.layer.strong_count() > 0);
        let known = areas.entry(area).or_insert_with(|| Known {
            layer: Arc::downgrade(layer),
            is_shared: false,
        });
        let is_another = known.layer.as_ptr() != Arc::as_ptr(layer);
        is_another && !std::mem::replace(&mut known.is_shared, is_another)
    }
}
