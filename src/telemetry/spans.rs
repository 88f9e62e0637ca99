//! The spans of a request, of the task that writes for it, and of the statement, and how
//! they are connected. This module doesn't know statements or tasks.

use tracing::{Level, Span, debug_span, span::Id};

/// The span of a request whose work another task executes.
#[derive(Clone, Debug)]
pub(crate) struct Origin(Span);

impl Origin {
    /// The current span, if a subscriber is enabled.
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

/// The parent of a span. Work for one request is its child. Work for several requests has
/// no parent, and follows from each of them.
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

/// The span of a load, which the request waits for.
pub(crate) fn loading() -> Span {
    debug_span!("session.load")
}

/// The span of a save, which the response or an explicit save waits for.
pub(crate) fn saving() -> Span {
    debug_span!("session.save")
}

/// The span of the task that writes a session's row for these requests.
pub(crate) fn writing(origins: &[Origin]) -> Span {
    let requests = origins.len();
    let span = debug_span!(parent: parent(origins), "session.write", session.requests = requests);
    follow(&span, origins);
    span
}
