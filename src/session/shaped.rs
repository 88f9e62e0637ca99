//! The session as one struct.

use serde::{Serialize, de::DeserializeOwned};

use super::Session;
use crate::{Error, changes::Change, document::Document, shape};

impl Session {
    pub(crate) fn read<T>(&self) -> Result<T, Error>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        shape::read(self.try_state()?.document())
    }

    pub(crate) fn edit<T, R>(
        &self,
        mut edit: impl FnMut(&mut T) -> R + Send + 'static,
    ) -> Result<R, Error>
    where
        T: Default + Serialize + DeserializeOwned + 'static,
    {
        let mut state = self.open_state()?;
        let limits = state.limits();
        let mut draft = Document::clone(state.document());
        let outcome = shape::edit(&mut draft, limits, &mut edit)?;
        let again =
            move |document: &mut Document| shape::edit(document, limits, &mut edit).map(drop);
        state.record_edit(Change::Edit(Box::new(again)), draft)?;
        Ok(outcome)
    }
}
