//! Changes, applied to what the request sees and recorded for the save.

use std::sync::Arc;

use super::State;
use crate::{
    Error,
    changes::Change,
    document::{Document, Json},
};

impl State {
    /// # Errors
    ///
    /// Where the document would be too large; then nothing is changed.
    pub(crate) fn apply(&mut self, change: Change) -> Result<(), Error> {
        match &change {
            Change::Insert(key, value) => {
                self.limits().check_insert(&self.document, key, value)?;
            }
            Change::Remove(_) | Change::Clear => {}
            Change::Update(..) | Change::Edit(_) | Change::Expiry(..) | Change::Terms(_) => {
                return self.apply_all(vec![change]);
            }
        }
        self.apply_anyway(change)
    }

    pub(super) fn apply_anyway(&mut self, mut change: Change) -> Result<(), Error> {
        change.apply(Arc::make_mut(&mut self.document))?;
        self.changes.record(change);
        Ok(())
    }

    /// All of them or none, and only the outcome must fit.
    ///
    /// # Errors
    ///
    /// As of [`apply`](Self::apply).
    pub(crate) fn apply_all(&mut self, mut changes: Vec<Change>) -> Result<(), Error> {
        let mut draft = Document::clone(&self.document);
        for change in &mut changes {
            if let Some((key, value)) = change.inserted() {
                self.limits().check_depth(key, value)?;
            }
            change.apply(&mut draft)?;
        }
        self.take_on(draft)?;
        changes
            .into_iter()
            .for_each(|change| self.changes.record(change));
        Ok(())
    }

    /// For a change that makes `draft` of the document.
    ///
    /// # Errors
    ///
    /// As of [`apply`](Self::apply).
    pub(crate) fn record_edit(&mut self, change: Change, draft: Document) -> Result<(), Error> {
        self.take_on(draft)?;
        self.changes.record(change);
        Ok(())
    }

    fn take_on(&mut self, mut draft: Document) -> Result<(), Error> {
        draft.measure();
        self.limits().check_growth(&self.document, &draft)?;
        self.document = Arc::new(draft);
        Ok(())
    }

    /// For a change that makes `value` of the key.
    ///
    /// # Errors
    ///
    /// As of [`apply`](Self::apply).
    pub(crate) fn record(&mut self, change: Change, key: &str, value: Json) -> Result<(), Error> {
        self.limits().check_insert(&self.document, key, &value)?;
        Arc::make_mut(&mut self.document).insert(key, value);
        self.changes.record(change);
        Ok(())
    }
}
