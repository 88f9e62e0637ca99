//! A cookie jar that several visitors share, as the tabs of a browser do.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::RwLock;

use crate::record::{Entry, GivenCookie, Life, Outcome, Token};

#[derive(Debug, Default)]
pub(crate) struct Browser {
    jar: Mutex<Jar>,
    /// Read by every page that is in flight, written by the one that begins a
    /// session: a response to a page of the last session may remove the cookie,
    /// and what a browser then loses is not the crate's to keep.
    pub(crate) pages: RwLock<()>,
}

#[derive(Debug, Default)]
struct Jar {
    current: Option<(Token, Life)>,
    earlier: Vec<(Token, Life)>,
}

impl Browser {
    fn jar(&self) -> MutexGuard<'_, Jar> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn current(&self) -> Option<(Token, Life)> {
        self.jar().current.clone()
    }

    /// Cookies that this browser held before: what a thief may have.
    pub(crate) fn earlier(&self) -> Vec<(Token, Life)> {
        self.jar().earlier.clone()
    }

    /// Does with the jar what a browser does, in the order of the responses.
    pub(crate) fn accept(&self, entry: &Entry) {
        match (entry.cookie(), entry.life) {
            (Some(GivenCookie::Token(token)), Some(life)) => {
                self.jar().hold(Some((token.clone(), life)));
            }
            (Some(GivenCookie::Removal), _) => self.jar().hold(None),
            _ if matches!(entry.outcome, Outcome::NoSession(_)) => self.give_up(entry),
            _ => {}
        }
    }

    /// The response that held the new cookie was lost, so the visitor begins
    /// anew. Not where it may still come: then the jar holds it soon.
    fn give_up(&self, entry: &Entry) {
        let mut jar = self.jar();
        if jar.current.as_ref().map(|(token, _)| token) == entry.token.as_ref() {
            jar.hold(None);
        }
    }
}

impl Jar {
    fn hold(&mut self, cookie: Option<(Token, Life)>) {
        let last = std::mem::replace(&mut self.current, cookie);
        self.earlier.extend(last);
    }
}
