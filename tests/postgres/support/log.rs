//! A subscriber that keeps every event and span of this thread.

use std::{
    error::Error,
    fmt::{self, Write as _},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};

/// Keeps every event and span of this thread, of all levels and targets.
pub(crate) struct Log {
    text: Arc<Mutex<String>>,
    _guard: DefaultGuard,
}

impl Log {
    pub(crate) fn keep() -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let keeper = Keeper(Arc::clone(&text));
        Self {
            text,
            _guard: tracing::subscriber::set_default(keeper),
        }
    }

    pub(crate) fn text(&self) -> String {
        self.text.lock().expect("no panic").clone()
    }
}

struct Keeper(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{field}={value:?} ").expect("a String takes everything");
    }

    /// With all that caused it, as subscribers print it.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
        let mut source = value.source();
        while let Some(error) = source {
            self.record_debug(field, &format_args!("{error}"));
            source = error.source();
        }
    }
}

impl Subscriber for Keeper {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = self.0.lock().expect("no panic");
        let metadata = span.metadata();
        let (level, target, name) = (metadata.level(), metadata.target(), metadata.name());
        write!(text, "span of {level} {target} {name} ").expect("a String takes everything");
        span.record(&mut Line(&mut text));
        text.push('\n');
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut text = self.0.lock().expect("no panic");
        values.record(&mut Line(&mut text));
        text.push('\n');
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = self.0.lock().expect("no panic");
        write!(
            text,
            "{} {} ",
            event.metadata().level(),
            event.metadata().target()
        )
        .expect("a String takes everything");
        event.record(&mut Line(&mut text));
        text.push('\n');
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
