//! The calls of a program, made on a real session.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use axum_pg_session::{
    CookieLifetime, Error, ErrorKind, Expiry, Key, LazySession, Login, PgSessionLayer, Session,
    TypedSession,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    program::{BAD, Call, CookieChoice, ExpiryChoice, FAIL},
    reference::{Seen, key_name, own_timeouts, tag_float, tag_text, user_name},
};

/// Far more than a call takes that waits for nothing.
const STUCK: Duration = Duration::from_secs(1);
/// More than any login of a program is ago, in seconds.
const EVER: f64 = 1e9;

/// Whether the crate has `take`, `update_now`, `save_if` and a cookie's
/// lifetime of a session's own.
pub(crate) const HAS_NEW_CALLS: bool = true;

pub(crate) fn is_there(call: &Call) -> bool {
    HAS_NEW_CALLS
        || !matches!(
            call,
            Call::Take(_) | Call::UpdateNow(_) | Call::SetCookieLifetime(_)
        )
}

pub(crate) fn saves_on_failure(layer: PgSessionLayer) -> PgSessionLayer {
    layer.save_if(|_, _| true)
}

const TYPED: [Key<String>; 3] = [Key::new("k0"), Key::new("k1"), Key::new("k2")];

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Shape {
    k0: Option<String>,
    k1: Option<String>,
    k2: Option<String>,
}

impl Shape {
    fn member(&mut self, key: u8) -> &mut Option<String> {
        match key % 3 {
            0 => &mut self.k0,
            1 => &mut self.k1,
            _ => &mut self.k2,
        }
    }
}

pub(crate) fn seen_error(error: &Error) -> Seen {
    let retry = error.retry_after().map(|after| after.as_secs());
    Seen::Failed(error.kind(), retry)
}

fn outcome<T>(outcome: Result<T, Error>, seen: impl FnOnce(T) -> Seen) -> Seen {
    match outcome {
        Ok(value) => seen(value),
        Err(error) => seen_error(&error),
    }
}

pub(crate) fn done(result: Result<(), Error>) -> Seen {
    outcome(result, |()| Seen::Done)
}

fn text(value: Option<String>) -> Seen {
    Seen::Value(value.map(Value::from))
}

fn append(value: Option<String>, tag: &str) -> String {
    match value {
        None => tag.to_owned(),
        Some(value) => format!("{value}+{tag}"),
    }
}

fn expiry(choice: ExpiryChoice) -> Expiry {
    let (idle, absolute) = own_timeouts(choice);
    match (idle, absolute) {
        (Some(idle), Some(absolute)) => Expiry::Timeouts {
            idle: Duration::from_secs_f64(idle),
            absolute: Duration::from_secs_f64(absolute),
        },
        (Some(idle), None) => Expiry::Idle(Duration::from_secs_f64(idle)),
        (None, _) => Expiry::Default,
    }
}

fn lifetime(choice: CookieChoice) -> CookieLifetime {
    match choice {
        CookieChoice::Browser => CookieLifetime::BrowserSession,
        CookieChoice::Default | CookieChoice::Session => CookieLifetime::Persistent,
    }
}

fn with_lifetime(login: Login, choice: CookieChoice) -> Login {
    match choice {
        CookieChoice::Default => login,
        choice => login.cookie_lifetime(lifetime(choice)),
    }
}

/// Seconds since the login, as `authenticated_within` tells of all durations.
fn age_of_login(session: &Session) -> Option<f64> {
    let is_within = |seconds| session.authenticated_within(Duration::from_secs_f64(seconds));
    if !is_within(EVER) {
        return None;
    }
    let (mut less, mut enough) = (0.0, EVER);
    if is_within(less) {
        return Some(less);
    }
    while enough - less > 1e-4 {
        let middle = f64::midpoint(less, enough);
        match is_within(middle) {
            true => enough = middle,
            false => less = middle,
        }
    }
    Some(enough)
}

/// An update whose closure uses its own session, which must be an error there.
fn update_inside(session: &Session, key: &'static str, tag: String) -> Seen {
    let (session, inside) = (session.clone(), Arc::new(Mutex::new(None)));
    let found = Arc::clone(&inside);
    let (sender, receiver) = mpsc::channel();
    // A call that waits for itself would take its thread along.
    thread::spawn(move || {
        let mut own = Some(session.clone());
        let updated = session.update(key, move |value: Option<String>| {
            if let Some(own) = own.take() {
                let used = own.insert(key, "inside").err().map(|error| error.kind());
                found.lock().expect("no panic").replace(used);
            }
            append(value, &tag)
        });
        drop(sender.send(outcome(updated, |value| text(Some(value)))));
    });
    let Ok(seen) = receiver.recv_timeout(STUCK) else {
        return Seen::Stuck;
    };
    let inside = inside.lock().expect("no panic").take();
    match inside {
        None | Some(Some(ErrorKind::Reentrant)) => seen,
        Some(Some(kind)) => Seen::Failed(kind, None),
        Some(None) => Seen::Done,
    }
}

/// Whether a check of `valid_if` may neither save its session nor load it.
pub(crate) async fn refuses_its_check(session: &Session, lazy: Option<LazySession>) -> bool {
    let is_refused =
        |outcome: Result<(), Error>| outcome.is_err_and(|e| e.kind() == ErrorKind::Reentrant);
    let loads = async move {
        match lazy {
            Some(lazy) => is_refused(lazy.load().await.map(drop)),
            None => true,
        }
    };
    let loads = tokio::time::timeout(STUCK, loads).await;
    is_refused(session.save().await) && loads.unwrap_or(false)
}

/// A call that waits for nothing.
pub(crate) fn perform(session: &Session, call: &Call, tag: u64) -> Seen {
    let tag_text = tag_text(tag);
    match call {
        Call::Get(key) => outcome(session.get::<Value>(key_name(*key)), Seen::Value),
        Call::GetAsNumber(key) => outcome(session.get::<u64>(key_name(*key)), |number| {
            Seen::Value(number.map(Value::from))
        }),
        Call::GetByKey(key) => outcome(session.get(TYPED[usize::from(*key % 3)]), text),
        Call::ContainsKey(key) => Seen::Truth(session.contains_key(key_name(*key))),
        Call::Keys => {
            let mut keys = session.keys();
            keys.sort();
            Seen::Keys(keys)
        }
        Call::IsEmpty => Seen::Truth(session.is_empty()),
        Call::IsNew => Seen::Truth(session.is_new()),
        Call::Id => Seen::Handle(session.id().map(|id| id.to_string())),
        Call::UserId => Seen::User(session.user_id()),
        Call::AuthenticatedWithin => Seen::Age(age_of_login(session)),
        Call::ExpiresAt => Seen::Truth(session.expires_at().is_some()),
        Call::Insert(key) => done(session.insert(key_name(*key), tag_text)),
        Call::InsertNumber(key) => done(session.insert(key_name(*key), tag)),
        Call::InsertFloat(key) => done(session.insert(key_name(*key), tag_float(tag))),
        Call::InsertByKey(key) => done(session.insert(TYPED[usize::from(*key % 3)], tag_text)),
        Call::InsertReserved => done(session.insert("_session", tag_text)),
        Call::InsertBad => done(session.insert(BAD, tag_text)),
        Call::InsertFail => done(session.insert(FAIL, tag_text)),
        Call::Update(key) => {
            let updated = session.update(key_name(*key), move |value: Option<String>| {
                append(value, &tag_text)
            });
            outcome(updated, |value| text(Some(value)))
        }
        Call::UpdateInside(key) => update_inside(session, key_name(*key), tag_text),
        Call::Remove(key) => outcome(session.remove::<String>(key_name(*key)), text),
        Call::RemoveBad => outcome(session.remove::<String>(BAD), text),
        Call::Clear => done(session.clear()),
        Call::Replace(key) => {
            let object = Value::from_iter([(key_name(*key).to_owned(), Value::from(tag_text))]);
            done(session.replace(object))
        }
        Call::TypedGet => {
            let typed: TypedSession<Shape> = session.clone().into();
            outcome(typed.get(), |shape| {
                Seen::Shape(vec![shape.k0, shape.k1, shape.k2])
            })
        }
        Call::TypedUpdate(key) => {
            let key = *key;
            let typed: TypedSession<Shape> = session.clone().into();
            let updated = typed.update(move |shape: &mut Shape| {
                let member = shape.member(key);
                *member = Some(append(member.take(), &tag_text));
                member.clone()
            });
            outcome(updated, text)
        }
        Call::CycleId => done(session.cycle_id()),
        Call::Login {
            user,
            discard_data,
            end_others,
            keep_settings,
            expiry: end,
            cookie,
        } => {
            let mut login = Login::new(user_name(*user));
            if *end != ExpiryChoice::Default || !keep_settings {
                login = login.expiry(expiry(*end));
            }
            if *keep_settings {
                login = login.keep_settings();
            }
            if *discard_data {
                login = login.discard_data();
            }
            if *end_others {
                login = login.end_others();
            }
            done(session.login(with_lifetime(login, *cookie)))
        }
        Call::Logout => done(session.logout()),
        Call::Destroy => done(session.destroy()),
        Call::Discard => done(session.discard()),
        Call::Touch => done(session.touch()),
        Call::SetExpiry(end) => done(session.set_expiry(expiry(*end))),
        Call::SetCookieLifetime(choice) => done(session.set_cookie_lifetime(lifetime(*choice))),
        Call::Save | Call::Take(_) | Call::UpdateNow(_) => Seen::Failed(ErrorKind::Setup, None),
    }
}

/// A call that commits.
pub(crate) async fn commit(session: &Session, call: &Call, tag: u64) -> Seen {
    match call {
        Call::Take(key) => outcome(session.take::<String>(key_name(*key)).await, text),
        Call::UpdateNow(key) => {
            let tag = tag_text(tag);
            let updated = session.update_now(key_name(*key), move |value: Option<String>| {
                append(value, &tag)
            });
            outcome(updated.await, |value| text(Some(value)))
        }
        Call::Save => done(session.save().await),
        _ => Seen::Failed(ErrorKind::Setup, None),
    }
}

pub(crate) fn commits(call: &Call) -> bool {
    matches!(call, Call::Save | Call::Take(_) | Call::UpdateNow(_))
}

/// Fails for a session that holds [`FAIL`].
pub(crate) fn refuse(session: &Session) -> Result<(), Error> {
    session.get::<u64>(FAIL).map(drop)
}

pub(crate) fn mark(session: &Session) -> Result<(), Error> {
    session.insert("hook", "h")
}
