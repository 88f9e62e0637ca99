//! A subscriber that keeps the spans of this thread, with their parents.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};
use tracing_core::span::Current;

/// Keeps every span of the crate from `level` up.
pub(crate) struct Spans {
    kept: Arc<Mutex<Kept>>,
    _guard: DefaultGuard,
}

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) name: &'static str,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) parent: Option<usize>,
    pub(crate) follows: Vec<usize>,
}

#[derive(Default)]
struct Kept {
    spans: Vec<(&'static Metadata<'static>, Seen)>,
    entered: Vec<Id>,
}

impl Spans {
    pub(crate) fn keep(level: Level) -> Self {
        let kept = Arc::<Mutex<Kept>>::default();
        let keeper = Keeper {
            level,
            kept: Arc::clone(&kept),
        };
        Self {
            kept,
            _guard: tracing::subscriber::set_default(keeper),
        }
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        let kept = self.kept.lock().expect("no panic");
        kept.spans.iter().map(|(_, span)| span.clone()).collect()
    }

    /// The places of the spans of this name.
    pub(crate) fn named(&self, name: &str) -> Vec<usize> {
        let all = self.all().into_iter().enumerate();
        all.filter(|(_, span)| span.name == name)
            .map(|(place, _)| place)
            .collect()
    }

    /// The one span of this name that has these fields.
    #[track_caller]
    pub(crate) fn only(&self, name: &str, fields: &[(&str, &str)]) -> (usize, Seen) {
        let all = self.all().into_iter().enumerate();
        let has = |span: &Seen| {
            span.name == name
                && fields
                    .iter()
                    .all(|(field, value)| span.fields.get(*field).is_some_and(|it| it == value))
        };
        let found: Vec<_> = all.filter(|(_, span)| has(span)).collect();
        match <[_; 1]>::try_from(found) {
            Ok([found]) => found,
            Err(found) => panic!(
                "{} spans {name} {fields:?} in {:#?}",
                found.len(),
                self.all()
            ),
        }
    }

    /// Forgets what was kept; its places are used no more.
    pub(crate) fn forget(&self) {
        let mut kept = self.kept.lock().expect("no panic");
        kept.spans.iter_mut().for_each(|(_, span)| span.name = "");
    }
}

struct Keeper {
    level: Level,
    kept: Arc<Mutex<Kept>>,
}

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.0.insert(field.name().to_owned(), value.to_string());
    }
}

fn place(id: &Id) -> usize {
    usize::try_from(id.into_u64()).expect("few spans") - 1
}

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("axum_pg_session") && *metadata.level() <= self.level
            || metadata.target().starts_with("postgres::")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut kept = self.kept.lock().expect("no panic");
        let parent = match span.parent() {
            Some(parent) => Some(place(parent)),
            None if span.is_contextual() => kept.entered.last().map(place),
            None => None,
        };
        let mut fields = BTreeMap::new();
        span.record(&mut Fields(&mut fields));
        let metadata = span.metadata();
        let span = Seen {
            name: metadata.name(),
            fields,
            parent,
            follows: Vec::new(),
        };
        kept.spans.push((metadata, span));
        Id::from_u64(kept.spans.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut kept = self.kept.lock().expect("no panic");
        values.record(&mut Fields(&mut kept.spans[place(id)].1.fields));
    }

    fn record_follows_from(&self, id: &Id, follows: &Id) {
        let mut kept = self.kept.lock().expect("no panic");
        kept.spans[place(id)].1.follows.push(place(follows));
    }

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, id: &Id) {
        self.kept.lock().expect("no panic").entered.push(id.clone());
    }

    fn exit(&self, id: &Id) {
        let mut kept = self.kept.lock().expect("no panic");
        if let Some(at) = kept.entered.iter().rposition(|entered| entered == id) {
            kept.entered.remove(at);
        }
    }

    fn current_span(&self) -> Current {
        let kept = self.kept.lock().expect("no panic");
        match kept.entered.last() {
            Some(id) => Current::new(id.clone(), kept.spans[place(id)].0),
            None => Current::none(),
        }
    }
}
