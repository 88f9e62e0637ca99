//! What the saves of one request share: they follow each other.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{Error, format::CookieChange};

/// What the saves of one request leave for the next one, and for the response.
#[derive(Debug)]
pub(super) struct Saving {
    /// The cookie change of the response.
    pub(super) cookie: CookieChange,
    pub(super) failed: Vec<Failed>,
    /// The outcome of the response's save.
    pub(super) closed: Option<Result<(), Error>>,
}

/// A save that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) caller: Caller,
    /// See [`State::ends_something`](crate::state::State::ends_something).
    pub(super) ends_something: bool,
}

/// Who waits for a save. A handler can stop waiting, for example because of a
/// timeout of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    has_left: Arc<AtomicBool>,
}

impl Caller {
    /// The caller has left if this is dropped.
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

    /// A save that failed after its caller had left. It stands for all of them, so
    /// it is one that no failure policy covers, if there is any.
    pub(super) fn take_unreported(&mut self) -> Option<Failed> {
        let unreported = self.failed.extract_if(.., |save| save.caller.has_left());
        unreported.reduce(|first, next| {
            let ends_something = first.ends_something || next.ends_something;
            let is_covered = |save: &Failed| save.error.is_of_the_database();
            let save = match is_covered(&first) && !is_covered(&next) {
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
