//! The record that the saves of one request share: the cookie change so far, and
//! the saves that failed. It is guarded by the mutex that orders the saves. It does
//! no I/O and doesn't know the store.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{Error, format::CookieChange};

/// What a save passes to the next one, and to the response.
#[derive(Debug)]
pub(super) struct Saving {
    /// The cookie change of the response.
    pub(super) cookie: CookieChange,
    /// The failed saves. The response reports one whose caller has left.
    pub(super) failed: Vec<Failed>,
    /// The outcome of the response's save; `None` until it has taken the changes.
    pub(super) closed: Option<Result<(), Error>>,
}

/// A save that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) caller: Caller,
    /// See [`State::ends_something`](crate::state::State::ends_something).
    pub(super) ends_something: bool,
    /// Whether the application's hook caused the error.
    pub(super) is_of_the_hook: bool,
}

impl Failed {
    /// Whether a failure policy covers the error.
    pub(super) fn is_covered(&self) -> bool {
        self.error.is_of_the_database() && !self.is_of_the_hook
    }
}

/// Who waits for a save. A handler can stop waiting, for example because of a
/// timeout of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    has_left: Arc<AtomicBool>,
}

impl Caller {
    /// Returns a guard. If it is dropped without
    /// [`got_the_outcome`](WaitingCaller::got_the_outcome), the caller has left.
    pub(super) fn waits(&self) -> WaitingCaller {
        WaitingCaller(Some(self.clone()))
    }

    fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Relaxed)
    }
}

pub(super) struct WaitingCaller(Option<Caller>);

impl WaitingCaller {
    pub(super) fn got_the_outcome(mut self) {
        self.0 = None;
    }
}

impl Drop for WaitingCaller {
    fn drop(&mut self) {
        if let Some(caller) = &self.0 {
            caller.has_left.store(true, Ordering::Relaxed);
        }
    }
}

impl Saving {
    pub(super) fn new(cookie: CookieChange) -> Self {
        Self {
            cookie,
            failed: Vec::new(),
            closed: None,
        }
    }

    /// Takes the saves that failed and whose callers have left, and returns one of
    /// them for all. It prefers an error that no failure policy covers.
    pub(super) fn take_unreported(&mut self) -> Option<Failed> {
        let unreported = self.failed.extract_if(.., |save| save.caller.has_left());
        unreported.reduce(|first, next| {
            let ends_something = first.ends_something || next.ends_something;
            let save = match first.is_covered() && !next.is_covered() {
                true => next,
                false => first,
            };
            Failed {
                ends_something,
                ..save
            }
        })
    }
}
