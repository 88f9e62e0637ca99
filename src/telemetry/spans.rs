//! How the spans of a request, of the task that writes for it, and of the
//! statement hang together.

use tracing::{Level, Span, debug_span, span::Id};

/// Who asked for something that another task carries out.
#[derive(Clone, Debug)]
pub(crate) struct Origin(Span);

impl Origin {
    /// Whoever asks now, where somebody listens.
    pub(crate) fn current() -> Self {
        match tracing::enabled!(Level::DEBUG) {
            true => Self(Span::current()),
            false => Self(Span::none()),
        }
    }

    pub(super) fn id(&self) -> Option<Id> {
        self.0.id()
    }
}

/// What serves one is its child. What serves several is no child of any of
/// them, but follows from each.
pub(super) fn parent(origins: &[Origin]) -> Option<Id> {
    match origins {
        [one] => one.id(),
        _ => None,
    }
}

pub(super) fn follow(span: &Span, origins: &[Origin]) {
    if origins.len() > 1 && !span.is_disabled() {
        origins.iter().for_each(|origin| {
            span.follows_from(origin.id());
        });
    }
}

/// What a request waits for before its handler has the session.
pub(crate) fn loading() -> Span {
    debug_span!("session.load")
}

/// What a response waits for.
pub(crate) fn saving() -> Span {
    debug_span!("session.save")
}

/// What the worker of a session does for the requests that wait for it.
pub(crate) fn writing(origins: &[Origin]) -> Span {
    let requests = origins.len();
    let span = debug_span!(parent: parent(origins), "session.write", session.requests = requests);
    follow(&span, origins);
    span
}
