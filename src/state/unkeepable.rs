use crate::{Error, ErrorKind};

/// Why a request reads an empty session that it can't change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unkeepable {
    /// The cookie's token was replaced a moment ago; the browser is about to
    /// hold, or holds already, the new one.
    Moved,
    /// The cookies open several sessions, or are too many to tell.
    Ambiguous,
    /// Another site posted the request, so the browser kept its cookie back.
    CrossSite,
    /// The row could not be loaded, and the application goes on without it.
    NotLoaded,
}

impl Unkeepable {
    pub(crate) fn error(self) -> Error {
        match self {
            Self::Moved => Error::new(
                ErrorKind::Ended,
                "the session has a new id since this request was sent; its change is dropped",
            ),
            Self::Ambiguous => Error::new(
                ErrorKind::Ambiguous,
                "the request carries cookies of several sessions",
            ),
            Self::CrossSite => Error::new(
                ErrorKind::CrossSite,
                "another site posted this request, without the cookie, so it can't begin a session",
            ),
            Self::NotLoaded => Error::new(
                ErrorKind::Unavailable,
                "the session could not be loaded, so nothing of it can be changed",
            ),
        }
    }
}
