//! The member of a session that belongs to its format, not to the application.

use super::Session;
use crate::{
    Error, ErrorKind,
    changes::{Apply, Change},
    document::Json,
};

impl Session {
    fn is_own(&self, key: &str) -> bool {
        self.store().format().layout().own_key() == Some(key)
    }

    /// The change as it is recorded. A change of the format's own member
    /// concerns the session's lifetime and cookie, so it is wrapped in
    /// `Change::Terms`.
    pub(super) fn about(&self, key: &str, change: Change) -> Change {
        match self.is_own(key) {
            true => Change::Terms(Box::new(change)),
            false => change,
        }
    }

    pub(super) fn check_value(&self, key: &str, value: &Json) -> Result<(), Error> {
        match self.is_own(key) && !value.is_object() {
            true => Err(no_object(key)),
            false => Ok(()),
        }
    }

    pub(super) fn check_removal(&self, key: &str) -> Result<(), Error> {
        match self.is_own(key) {
            true => Err(no_object(key)),
            false => Ok(()),
        }
    }

    /// The closure for later replays, with the same check.
    pub(super) fn checked(&self, key: &str, mut apply: Apply) -> Apply {
        if !self.is_own(key) {
            return apply;
        }
        let key = key.to_owned();
        Box::new(move |stored| {
            let value = apply(stored)?;
            match value.is_object() {
                true => Ok(value),
                false => Err(no_object(&key)),
            }
        })
    }
}

fn no_object(key: &str) -> Error {
    Error::new(
        ErrorKind::ReservedKey,
        format!("the key {key} holds the cookie's attributes and must stay an object"),
    )
}
