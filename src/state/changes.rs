//! The record of what a request did to its document, and its replay. It does no I/O
//! and doesn't know rows or the store.
//!
//! A request works on the document that it loaded. Another request may save the same
//! session meanwhile. So a save doesn't write the request's document. It replays the
//! record on the newest one:
//!
//! 1. Each call of the handler records a [`Change`]. An update records its closure, so
//!    that it can run again. A `clear` drops the earlier changes, except those of the
//!    session's lifetime and those whose caller waits for a value.
//! 2. The save takes the record and replays it in order on the row's document. If
//!    another writer is faster, it reads the row and replays the record again.
//! 3. A replay applies all changes or none. If the sizes of the changes are known and
//!    surely fit the limits, they are applied in place: none of them can fail.
//!    Otherwise they are applied to a copy, which replaces the document if it fits.
//!
//! A closure of the application may panic. The replay turns that into an error, so
//! that other requests in the same statement are not affected.

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

/// A closure of [`TypedSession::update`](crate::TypedSession::update), its type erased.
pub(crate) type Edit = Box<dyn FnMut(&mut Document) -> Result<(), Error> + Send>;

/// Reads the value that [`Session::take`](crate::Session::take) removes.
pub(crate) type Take = Box<dyn FnMut(Option<&Json>) -> Result<(), Error> + Send>;

/// One change that a request made to its session.
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
    /// With the same document; `None` is the layer's lifetime.
    CookieLifetime(Option<CookieLifetime>, Arc<Document>),
    /// The time of the login is that of the row again, after a takeover.
    LoginIsKnown,
    /// Removes a key after its value was read.
    Take(String, Take),
    /// A change of the member that belongs to the document's format.
    Terms(Box<Change>),
}

/// The changes of a request, in order.
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

    /// Takes the record so far. Later changes belong to a new one.
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
    /// If an update's value is no longer of the closure's type, or if the document
    /// would be too large.
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

    /// As [`replay`](Self::replay), but a panic in a closure of the application is an
    /// error. It must not affect the requests that are saved in the same statement.
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
        added.is_some_and(|bytes| self.limits.has_room(document, bytes, self.list.len()))
    }

    fn apply_all(&mut self, document: &mut Document) -> Result<(), Error> {
        self.list
            .iter_mut()
            .try_for_each(|change| change.apply(document))
    }
}

impl Change {
    /// Whether it changes the session's lifetime or cookie, not its data.
    fn sets_terms(&self) -> bool {
        matches!(
            self,
            Self::Expiry(..) | Self::CookieLifetime(..) | Self::LoginIsKnown | Self::Terms(_)
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

    /// The most bytes that it adds to a document, if that is known before it is
    /// applied.
    fn adds_at_most(&self) -> Option<usize> {
        match self {
            Self::Insert(key, value) => Some(member_at_most(key, value)),
            Self::Remove(_) | Self::Clear | Self::LoginIsKnown => Some(0),
            Self::Terms(change) => change.adds_at_most(),
            // These depend on the document, and some can fail.
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
            Self::LoginIsKnown => {
                let mut meta = document.meta();
                meta.login_is_unknown = false;
                document.set_meta(&meta);
            }
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
    /// Omits the values, because they can be personal data.
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
            Self::LoginIsKnown => f.write_str("LoginIsKnown"),
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
            // The message of serde_json can quote the value, so only its position is
            // kept.
            Misfit::from(&source),
        )
    })
}

/// The category and position of an error in a value, without the value.
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
