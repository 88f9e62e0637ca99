use std::{fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, ErrorKind,
    document::{Document, Json},
    expiry::Expiry,
};

/// A closure of [`Session::update`](crate::Session::update), its types erased.
pub(crate) type Apply = Box<dyn FnMut(Option<&Json>) -> Result<Json, Error> + Send>;

/// One thing that a request did to its session.
pub(crate) enum Change {
    Insert(String, Json),
    Remove(String),
    Clear,
    Update(String, Apply),
    /// With the document of a new session, which has the defaults.
    Expiry(Expiry, Arc<Document>),
    /// A change of the member that belongs to the document's format.
    Terms(Box<Change>),
}

/// The record of what a request did, in order.
///
/// Saving replays it on the row's document as it is at that moment, which may
/// be newer than the one that the request saw.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<Change>);

impl Changes {
    pub(crate) fn record(&mut self, change: Change) {
        if matches!(change, Change::Clear) {
            self.0.retain(Change::sets_terms);
        }
        self.0.push(change);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn set_expiry(&self) -> bool {
        self.0.iter().any(Change::sets_terms)
    }

    /// Applies the record to `document`, all of it or nothing.
    ///
    /// # Errors
    ///
    /// Those of an update whose value is no longer of the closure's type.
    pub(crate) fn replay(&mut self, document: &mut Document) -> Result<(), Error> {
        if self.can_fail() {
            let mut draft = document.clone();
            self.apply_all(&mut draft)?;
            *document = draft;
            return Ok(());
        }
        self.apply_all(document)
    }

    fn can_fail(&self) -> bool {
        self.0.iter().any(Change::can_fail)
    }

    fn apply_all(&mut self, document: &mut Document) -> Result<(), Error> {
        self.0
            .iter_mut()
            .try_for_each(|change| change.apply(document))
    }
}

impl Change {
    /// Whether it is about the session's life or cookie, not its data.
    fn sets_terms(&self) -> bool {
        matches!(self, Self::Expiry(..) | Self::Terms(_))
    }

    fn can_fail(&self) -> bool {
        match self {
            Self::Update(..) => true,
            Self::Terms(change) => change.can_fail(),
            Self::Insert(..) | Self::Remove(_) | Self::Clear | Self::Expiry(..) => false,
        }
    }

    pub(crate) fn apply(&mut self, document: &mut Document) -> Result<(), Error> {
        match self {
            Self::Insert(key, value) => document.insert(key, value.clone()),
            Self::Remove(key) => document.remove(key),
            Self::Clear => document.clear(),
            Self::Update(key, apply) => {
                let value = apply(document.get(key))?;
                document.insert(key, value);
            }
            Self::Expiry(expiry, blank) => document.layout().remember(*expiry, document, blank),
            Self::Terms(change) => change.apply(document)?,
        }
        Ok(())
    }
}

impl fmt::Debug for Change {
    /// Keys only: the values are the visitor's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert(key, _) => f.debug_tuple("Insert").field(key).finish(),
            Self::Remove(key) => f.debug_tuple("Remove").field(key).finish(),
            Self::Clear => f.write_str("Clear"),
            Self::Update(key, _) => f.debug_tuple("Update").field(key).finish(),
            Self::Expiry(expiry, _) => f.debug_tuple("Expiry").field(expiry).finish(),
            Self::Terms(change) => f.debug_tuple("Terms").field(change).finish(),
        }
    }
}

/// Erases the types of an update, so that it can be replayed.
pub(crate) fn erased<T, U>(
    key: &str,
    mut update: impl FnMut(Option<T>) -> U + Send + 'static,
) -> Apply
where
    T: DeserializeOwned,
    U: Serialize,
{
    let key = key.to_owned();
    Box::new(move |stored| {
        let value = stored.map_or(Ok(None), |raw| decode(&key, raw))?;
        encode(&key, &update(value))
    })
}

pub(crate) fn encode(key: &str, value: &impl Serialize) -> Result<Json, Error> {
    Json::of(value).map_err(|source| {
        Error::caused(
            ErrorKind::Serialize,
            format!("the value for {key:?} can't be written as JSON"),
            source,
        )
    })
}

pub(crate) fn decode<T: DeserializeOwned>(key: &str, raw: &Json) -> Result<T, Error> {
    serde_json::from_str(raw.get()).map_err(|source| {
        Error::caused(
            ErrorKind::Deserialize,
            format!("the value of {key:?} is not of the type that was asked for"),
            // The message of serde_json can quote the value; its place can't.
            Misfit::from(&source),
        )
    })
}

/// What may be told of a value that did not fit: not the value.
#[derive(Debug)]
struct Misfit {
    category: serde_json::error::Category,
    column: usize,
}

impl From<&serde_json::Error> for Misfit {
    fn from(error: &serde_json::Error) -> Self {
        Self {
            category: error.classify(),
            column: error.column(),
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} error at column {} of the value",
            self.category, self.column
        )
    }
}

impl std::error::Error for Misfit {}

#[cfg(test)]
mod tests;
