//! The member `cookie` of a stored session: its lifetime, and the attributes of its cookie. It
//! does no I/O.
//!
//! Express stores one lifetime for the row and the cookie, `originalMaxAge`. Each request to
//! Express sets the expiry of the row to `originalMaxAge` milliseconds after that request. If the
//! response sets the cookie, it has the same expiry. Without `originalMaxAge`, the browser drops
//! the cookie when it is closed, and the row lives for the store's `ttl`. Express ignores the
//! stored `expires`, and computes it when it writes the session. This crate stores `null`, because
//! it has no clock but the database's.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    CookieLifetime, Error, ErrorKind, Expiry,
    cookie::CookieConfig,
    document::{Document, Json, Layout, NativeLayout, UserMember},
    expiry::Meta,
    format::javascript::{
        COOKIE, attribute, change_cookie, copy, http_date, is_truthy, milliseconds, one_of,
        same_site_of, to_json,
    },
    timeouts::COOKIE_LIMIT,
};

/// The lifetime of a persistent cookie if neither the session nor `Express::max_age` sets one.
const FALLBACK: Duration = Duration::from_hours(24);
/// The longest lifetime that is stored: 1000 years. connect-session-knex sends the expiry to
/// Postgres in JavaScript's format, which Postgres reads only before the year 10000.
const LONGEST: Duration = Duration::from_hours(1000 * 365 * 24);
const ORIGINAL_MAX_AGE: &str = "originalMaxAge";
const EXPIRES: &str = "expires";
/// The most bytes of a user's id in the column `user_id`.
const MAX_USER: usize = 1024;
/// The member in which Passport stores the user.
const PASSPORT: &str = "passport";

/// The names that Express drops from a session that it loads, because its session objects already
/// have a member of this name.
const DROPPED: [&str; 20] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "destroy",
    "hasOwnProperty",
    "id",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "regenerate",
    "reload",
    "req",
    "resetMaxAge",
    "save",
    "toLocaleString",
    "toString",
    "touch",
    "valueOf",
];

/// A document of express-session.
#[derive(Debug)]
pub(super) struct ExpressLayout;

impl Layout for ExpressLayout {
    fn own_key(&self) -> Option<&'static str> {
        Some(COOKIE)
    }

    fn user(&self) -> Option<UserMember> {
        Some(UserMember {
            key: PASSPORT,
            value: passport_of,
            user_in,
            stored: |id| shortened(id.to_owned()),
        })
    }

    fn check_key(&self, key: &str) -> Result<(), Error> {
        if key == PASSPORT {
            return Err(Error::new(
                ErrorKind::ReservedKey,
                "the key passport names the user; Session::login and Session::logout change it",
            ));
        }
        match DROPPED.contains(&key) {
            true => Err(Error::new(
                ErrorKind::ReservedKey,
                format!(
                    "Express drops the key {key} from each session that it loads; choose another"
                ),
            )),
            false => Ok(()),
        }
    }

    fn meta(&self, document: &Document) -> Meta {
        let stored = document.get(COOKIE).and_then(CookieSettings::parse);
        Meta::foreign(stored.and_then(|settings| settings.max_age), None)
    }

    fn check(&self, expiry: Expiry) -> Result<(), Error> {
        match expiry {
            Expiry::Default | Expiry::Idle(_) => Ok(()),
            Expiry::At(_) | Expiry::Timeouts { .. } => Err(Error::new(
                ErrorKind::Setup,
                "Express's format keeps no fixed expiry and no absolute timeout of one session, as \
                 each request to Express extends it; use Expiry::Idle",
            )),
        }
    }

    fn remember(&self, expiry: Expiry, document: &mut Document, blank: &Document) {
        change_cookie(document, blank, |cookie, blank| match expiry {
            Expiry::Idle(idle) | Expiry::Timeouts { idle, .. } => {
                set_max_age(cookie, Some(idle));
            }
            Expiry::Default | Expiry::At(_) => copy_max_age(blank, cookie),
        });
    }

    /// `BrowserSession` clears `originalMaxAge`. `Persistent` sets it if there is none.
    fn remember_cookie_lifetime(
        &self,
        lifetime: Option<CookieLifetime>,
        document: &mut Document,
        blank: &Document,
    ) {
        change_cookie(document, blank, |cookie, blank| match lifetime {
            Some(CookieLifetime::BrowserSession) => set_max_age(cookie, None),
            Some(CookieLifetime::Persistent) if max_age(cookie).is_some() => {}
            Some(CookieLifetime::Persistent) => match max_age(blank) {
                Some(_) => copy_max_age(blank, cookie),
                None => set_max_age(cookie, Some(FALLBACK)),
            },
            None => copy_max_age(blank, cookie),
        });
    }
}

/// The member of Passport for this user. If the stored user is the same, keeps the stored value:
/// it may be a number.
pub(super) fn passport_of(stored: Option<&Json>, user: &str) -> Json {
    let stored = stored.filter(|stored| user_in(stored).as_deref() == Some(user));
    stored
        .cloned()
        .unwrap_or_else(|| to_json(&json!({ "user": user })))
}

/// The user in the member of Passport, as the column `user_id` has it: text as it is, and other
/// values as JSON.
pub(super) fn user_in(passport: &Json) -> Option<String> {
    let passport = Document::parse(&NativeLayout, &passport.get().into()).ok()?;
    let stored = without_unstorable_escapes(passport.get("user")?.get());
    match &*stored {
        "null" | "false" | r#""""# => None,
        text if text.starts_with('"') => Some(shortened(serde_json::from_str(text).ok()?)),
        _ => Some(shortened(stored)),
    }
}

/// The same JSON text with U+FFFD and the digits instead of each escape that Postgres can't convert
/// to text: that of U+0000, or half of a pair of surrogates.
fn without_unstorable_escapes(json: &str) -> String {
    let mut clean = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        clean.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match (code_unit(rest), rest.get(6..).and_then(code_unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0 | 0xd800..=0xdfff), _) => {
                clean.push_str(r"\ufffd");
                clean.push_str(&rest[2..6]);
                rest = &rest[6..];
                continue;
            }
            // Another escape, which can be that of a backslash.
            _ => rest.len().min(2),
        };
        clean.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    clean.push_str(rest);
    clean
}

/// The code unit of the escape at the beginning of this JSON text.
fn code_unit(json: &str) -> Option<u32> {
    u32::from_str_radix(json.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

fn shortened(user: String) -> String {
    match user.len() > MAX_USER {
        true => digest(&user),
        false => user,
    }
}

/// The value of `user_id` if the user's id is too long for an index.
fn digest(user: &str) -> String {
    let digest = Sha256::digest(user);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

fn max_age(cookie: &Document) -> Option<f64> {
    let value: Value = serde_json::from_str(cookie.get(ORIGINAL_MAX_AGE)?.get()).ok()?;
    value.as_f64()
}

fn set_max_age(cookie: &mut Document, max_age: Option<Duration>) {
    cookie.insert(ORIGINAL_MAX_AGE, to_json(&max_age.map(stored_age)));
    cookie.insert(EXPIRES, to_json(&Value::Null));
}

fn stored_age(max_age: Duration) -> u64 {
    milliseconds(max_age.min(LONGEST))
}

fn copy_max_age(from: &Document, to: &mut Document) {
    copy(ORIGINAL_MAX_AGE, from, to);
    copy(EXPIRES, from, to);
}

/// The document of a new session, with its members in Express's order.
pub(super) fn blank(
    config: &CookieConfig,
    max_age: Option<Duration>,
    secure: Option<bool>,
) -> Document {
    let same_site = same_site_of(config);
    let members = [
        (ORIGINAL_MAX_AGE, Some(json!(max_age.map(stored_age)))),
        ("partitioned", config.partitioned.then_some(json!(true))),
        (
            "priority",
            config.priority.map(|priority| json!(priority.as_str())),
        ),
        (EXPIRES, Some(Value::Null)),
        ("secure", secure.map(|secure| json!(secure))),
        ("httpOnly", Some(json!(config.http_only.unwrap_or(true)))),
        ("domain", config.domain.as_ref().map(|domain| json!(domain))),
        ("path", Some(json!(config.path()))),
        ("sameSite", same_site.map(|same_site| json!(same_site))),
    ];
    let mut cookie = Document::default();
    for (key, value) in members {
        if let Some(value) = value {
            cookie.insert(key, to_json(&value));
        }
    }
    let mut document = Document::new(&ExpressLayout);
    document.insert(COOKIE, cookie.to_json());
    document
}

/// The settings of a cookie in a stored object, read by the rules of JavaScript.
#[derive(Clone, Debug)]
pub(super) struct CookieSettings {
    /// Seconds.
    max_age: Option<f64>,
    domain: Option<String>,
    path: Option<String>,
    http_only: bool,
    secure: bool,
    partitioned: bool,
    priority: Option<&'static str>,
    same_site: Option<&'static str>,
}

impl Default for CookieSettings {
    /// Those of an empty object.
    fn default() -> Self {
        Self {
            max_age: None,
            domain: None,
            path: Some("/".into()),
            http_only: true,
            secure: false,
            partitioned: false,
            priority: None,
            same_site: None,
        }
    }
}

impl CookieSettings {
    /// `None` if the value is not an object.
    pub(super) fn parse(stored: &Json) -> Option<Self> {
        let object = Document::parse(&NativeLayout, &stored.get().into()).ok()?;
        let value = |key| -> Option<Value> { serde_json::from_str(object.get(key)?.get()).ok() };
        let is_set = |key| value(key).as_ref().map(is_truthy);
        let default = Self::default();
        Some(Self {
            max_age: max_age(&object).map(|milliseconds| milliseconds / 1000.0),
            domain: value("domain").and_then(attribute),
            path: value("path").map_or(default.path, attribute),
            http_only: is_set("httpOnly").unwrap_or(default.http_only),
            secure: is_set("secure").unwrap_or_default(),
            partitioned: is_set("partitioned").unwrap_or_default(),
            priority: value("priority").and_then(|value| one_of(&value, &PRIORITIES)),
            same_site: value("sameSite").as_ref().and_then(same_site),
        })
    }

    /// When a cookie that is set at `now` expires; `None` if it is dropped when the
    /// browser is closed.
    pub(super) fn expiry_after(&self, now: f64) -> Option<f64> {
        Some(now + self.max_age?.min(COOKIE_LIMIT.as_secs_f64()))
    }

    /// The text of the attributes after the cookie's value, in Express's order.
    pub(super) fn encode(&self, expires: Option<f64>) -> String {
        let flag = |is_set: bool, name| is_set.then(|| String::from(name));
        let attributes = [
            self.domain
                .as_ref()
                .map(|domain| format!("Domain={domain}")),
            self.path.as_ref().map(|path| format!("Path={path}")),
            expires
                .and_then(http_date)
                .map(|date| format!("Expires={date}")),
            flag(self.http_only, "HttpOnly"),
            flag(self.secure, "Secure"),
            flag(self.partitioned, "Partitioned"),
            self.priority.map(|priority| format!("Priority={priority}")),
            self.same_site
                .map(|same_site| format!("SameSite={same_site}")),
        ];
        let attributes = attributes.into_iter().flatten();
        attributes
            .map(|attribute| format!("; {attribute}"))
            .collect()
    }
}

const PRIORITIES: [&str; 3] = ["Low", "Medium", "High"];
const SAME_SITES: [&str; 3] = ["Strict", "Lax", "None"];

fn same_site(value: &Value) -> Option<&'static str> {
    match value {
        Value::Bool(true) => Some("Strict"),
        value => one_of(value, &SAME_SITES),
    }
}
