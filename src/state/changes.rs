use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    CookieLifetime, Error, ErrorKind,
    document::{Document, Json, limits::Limits, member_at_most},
    expiry::Expiry,
};

/// A closure of [`Session::update`](crate::Session::update), its types erased.
pub(crate) type Apply = Box<dyn FnMut(Option<&Json>) -> Result<Json, Error> + Send>;

/// A closure of [`TypedSession::update`](crate::TypedSession::update), likewise.
pub(crate) type Edit = Box<dyn FnMut(&mut Document) -> Result<(), Error> + Send>;

/// Reads the value that [`Session::take`](crate::Session::take) removes.
pub(crate) type Take = Box<dyn FnMut(Option<&Json>) -> Result<(), Error> + Send>;

/// One thing that a request did to its session.
pub(crate) enum Change {
    Insert(String, Json),
    Remove(String),
    Clear,
    Update(String, Apply),
    /// As `Update`, for a caller that waits for the committed value.
    UpdateNow(String, Apply),
    Edit(Edit),
    /// With the document of a new session, which has the defaults.
    Expiry(Expiry, Arc<Document>),
    /// Likewise; `None` means as the layer says.
    CookieLifetime(Option<CookieLifetime>, Arc<Document>),
    /// Removes a key whose value was read at once.
    Take(String, Take),
    /// A change of the member that belongs to the document's format.
    Terms(Box<Change>),
}

/// The record of what a request did, in order.
///
/// Saving replays it on the row's document as it is at that moment, which may
/// be newer than the one that the request saw.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    list: Vec<Change>,
    limits: Limits,
}

impl Changes {
    pub(crate) fn within(limits: Limits) -> Self {
        let list = Vec::new();
        Self { list, limits }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The record so far; what follows goes into a new one.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Self::within(self.limits);
        std::mem::replace(self, empty)
    }

    pub(crate) fn record(&mut self, change: Change) {
        if matches!(change, Change::Clear) {
            self.list
                .retain(|change| change.sets_terms() || change.is_awaited());
        }
        self.list.push(change);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn set_terms(&self) -> bool {
        self.list.iter().any(Change::sets_terms)
    }

    /// Applies the record to `document`, all of it or nothing.
    ///
    /// # Errors
    ///
    /// Those of an update whose value is no longer of the closure's type, and
    /// where the document would be too large.
    pub(crate) fn replay(&mut self, document: &mut Document) -> Result<(), Error> {
        if self.fits_for_sure(document) {
            return self.apply_all(document);
        }
        let mut draft = document.clone();
        self.apply_all(&mut draft)?;
        draft.measure();
        self.limits.check_growth(document, &draft)?;
        *document = draft;
        Ok(())
    }

    /// As [`replay`](Self::replay). A closure of an application that panics
    /// must not take the requests along that are saved together with its own.
    ///
    /// # Errors
    ///
    /// Those of the replay, and if a closure panics.
    pub(crate) fn replay_caught(&mut self, document: &mut Document) -> Result<(), Error> {
        let replayed = catch_unwind(AssertUnwindSafe(|| self.replay(document)));
        replayed.unwrap_or_else(|_| Err(Error::panicked()))
    }

    fn fits_for_sure(&self, document: &Document) -> bool {
        let added: Option<usize> = self.list.iter().map(Change::adds_at_most).sum();
        added.is_some_and(|octets| self.limits.has_room(document, octets, self.list.len()))
    }

    fn apply_all(&mut self, document: &mut Document) -> Result<(), Error> {
        self.list
            .iter_mut()
            .try_for_each(|change| change.apply(document))
    }
}

impl Change {
    /// Whether it is about the session's life or cookie, not its data.
    fn sets_terms(&self) -> bool {
        matches!(
            self,
            Self::Expiry(..) | Self::CookieLifetime(..) | Self::Terms(_)
        )
    }

    /// Whether its caller waits for the value that it finds in the newest row.
    fn is_awaited(&self) -> bool {
        match self {
            Self::Take(..) | Self::UpdateNow(..) => true,
            Self::Terms(change) => change.is_awaited(),
            _ => false,
        }
    }

    /// The octets that it adds to a document, where that is known before it
    /// is applied.
    fn adds_at_most(&self) -> Option<usize> {
        match self {
            Self::Insert(key, value) => Some(member_at_most(key, value)),
            Self::Remove(_) | Self::Clear => Some(0),
            Self::Terms(change) => change.adds_at_most(),
            // These may also fail, and then no change is made.
            Self::Take(..)
            | Self::Update(..)
            | Self::UpdateNow(..)
            | Self::Edit(_)
            | Self::Expiry(..)
            | Self::CookieLifetime(..) => None,
        }
    }

    pub(crate) fn inserted(&self) -> Option<(&str, &Json)> {
        match self {
            Self::Insert(key, value) => Some((key, value)),
            Self::Terms(change) => change.inserted(),
            _ => None,
        }
    }

    pub(crate) fn apply(&mut self, document: &mut Document) -> Result<(), Error> {
        match self {
            Self::Insert(key, value) => document.insert(key, value.clone()),
            Self::Remove(key) => document.remove(key),
            Self::Clear => document.clear(),
            Self::Update(key, apply) | Self::UpdateNow(key, apply) => {
                let value = apply(document.get(key))?;
                document.insert(key, value);
            }
            Self::Edit(edit) => edit(document)?,
            Self::Expiry(expiry, blank) => document.layout().remember(*expiry, document, blank),
            Self::CookieLifetime(lifetime, blank) => document
                .layout()
                .remember_cookie_lifetime(*lifetime, document, blank),
            Self::Take(key, take) => {
                take(document.get(key))?;
                document.remove(key);
            }
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
            Self::UpdateNow(key, _) => f.debug_tuple("UpdateNow").field(key).finish(),
            Self::Edit(_) => f.write_str("Edit"),
            Self::Expiry(expiry, _) => f.debug_tuple("Expiry").field(expiry).finish(),
            Self::CookieLifetime(lifetime, _) => {
                f.debug_tuple("CookieLifetime").field(lifetime).finish()
            }
            Self::Take(key, _) => f.debug_tuple("Take").field(key).finish(),
            Self::Terms(change) => f.debug_tuple("Terms").field(change).finish(),
        }
    }
}

/// Erases the types of an update, so that it can be replayed. `keep` gets the
/// value of each replay.
pub(crate) fn erased<T, U>(
    key: &str,
    limits: Limits,
    mut update: impl FnMut(Option<T>) -> U + Send + 'static,
    mut keep: impl FnMut(U) + Send + 'static,
) -> Apply
where
    T: DeserializeOwned,
    U: Serialize + 'static,
{
    let key = key.to_owned();
    Box::new(move |stored| {
        let value = update(stored.map_or(Ok(None), |raw| decode(&key, raw))?);
        let json = encode(&key, &value)?;
        limits.check_depth(&key, &json)?;
        keep(value);
        Ok(json)
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
pub(crate) struct Misfit {
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
