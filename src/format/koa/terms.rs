//! The member `cookie` of a stored session: its lifetime, and the attributes of its
//! cookie. It does no I/O.
//!
//! Koa stores one lifetime for the row and the cookie: `maxAge`, an idle time, or
//! `expires`, a fixed time. Without either, the browser drops the cookie when it is
//! closed, and the row lives for 45 minutes.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    CookieLifetime, Error, ErrorKind, Expiry,
    cookie::CookieConfig,
    document::{Document, Layout},
    expiry::Meta,
    format::{
        javascript::{COOKIE, change_cookie, copy, milliseconds, same_site_of, to_json},
        koa::header::Attributes,
    },
};

/// The lifetime of a row whose cookie has none.
const FALLBACK: Duration = Duration::from_mins(45);

/// A document of koa-generic-session.
#[derive(Debug)]
pub(super) struct KoaLayout;

impl Layout for KoaLayout {
    fn own_key(&self) -> Option<&'static str> {
        Some(COOKIE)
    }

    /// The row prefers `expires`, as koa-generic-session does.
    fn meta(&self, document: &Document) -> Meta {
        let stored = document.get(COOKIE).and_then(Attributes::parse);
        let attributes = stored.unwrap_or_default();
        let idle = attributes.max_age.unwrap_or(FALLBACK.as_secs_f64());
        let idle = attributes.expires.is_none().then_some(idle);
        Meta::foreign(idle, attributes.expires)
    }

    fn check(&self, expiry: Expiry) -> Result<(), Error> {
        match expiry {
            Expiry::Timeouts { .. } => Err(Error::new(
                ErrorKind::Setup,
                "Koa's format keeps no absolute timeout of one session; \
                 Expiry::Idle and Expiry::At it keeps",
            )),
            _ => Ok(()),
        }
    }

    fn remember(&self, expiry: Expiry, document: &mut Document, blank: &Document) {
        change_cookie(document, blank, |cookie, blank| match expiry {
            Expiry::Default => {
                copy("maxAge", blank, cookie);
                copy("expires", blank, cookie);
            }
            Expiry::Idle(idle) | Expiry::Timeouts { idle, .. } => {
                cookie.insert("maxAge", to_json(&milliseconds(idle)));
                cookie.remove("expires");
            }
            Expiry::At(instant) => {
                cookie.insert("maxAge", to_json(&Value::Null));
                cookie.insert("expires", to_json(&iso_date(instant)));
            }
        });
    }

    /// `BrowserSession` clears `maxAge` and `expires`. `Persistent` sets a lifetime if
    /// there is none.
    fn remember_cookie_lifetime(
        &self,
        lifetime: Option<CookieLifetime>,
        document: &mut Document,
        blank: &Document,
    ) {
        change_cookie(document, blank, |cookie, blank| match lifetime {
            Some(CookieLifetime::BrowserSession) => {
                cookie.insert("maxAge", to_json(&Value::Null));
                cookie.remove("expires");
            }
            Some(CookieLifetime::Persistent) if has_a_life(cookie) => {}
            Some(CookieLifetime::Persistent) => {
                copy("maxAge", blank, cookie);
                copy("expires", blank, cookie);
                if !has_a_life(cookie) {
                    cookie.insert("maxAge", to_json(&milliseconds(FALLBACK)));
                }
            }
            None => {
                copy("maxAge", blank, cookie);
                copy("expires", blank, cookie);
            }
        });
    }
}

/// Whether the cookie has a lifetime.
fn has_a_life(cookie: &Document) -> bool {
    let is_set = |key| cookie.get(key).is_some_and(|value| value.get() != "null");
    is_set("maxAge") || is_set("expires")
}

/// The document of a new session. The options of the layer come first, as in
/// koa-generic-session.
pub(super) fn blank(config: &CookieConfig, max_age: Option<Duration>, is_signed: bool) -> Document {
    let mut cookie = Document::default();
    for (key, value) in chosen(config) {
        cookie.insert(key, to_json(&value));
    }
    let defaults = [
        ("httpOnly", json!(true)),
        ("path", json!("/")),
        ("overwrite", json!(true)),
        ("signed", json!(is_signed)),
        (
            "maxAge",
            max_age.map_or(Value::Null, |max_age| json!(milliseconds(max_age))),
        ),
    ];
    for (key, value) in defaults {
        if cookie.get(key).is_none() {
            cookie.insert(key, to_json(&value));
        }
    }
    let cookie = cookie.to_json();
    let mut document = Document::new(&KoaLayout);
    document.insert(COOKIE, cookie);
    document
}

fn chosen(config: &CookieConfig) -> impl Iterator<Item = (&'static str, Value)> {
    let same_site = same_site_of(config);
    [
        ("path", config.path.as_ref().map(|path| json!(path))),
        ("domain", config.domain.as_ref().map(|domain| json!(domain))),
        (
            "priority",
            config.priority.map(|priority| json!(priority.as_str())),
        ),
        ("sameSite", same_site.map(|same_site| json!(same_site))),
        ("secure", config.secure.map(|secure| json!(secure))),
        (
            "httpOnly",
            config.http_only.map(|http_only| json!(http_only)),
        ),
        ("partitioned", config.partitioned.then_some(json!(true))),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
}

/// Formats a time as JavaScript's `toISOString`.
fn iso_date(instant: OffsetDateTime) -> String {
    let utc = instant.to_offset(time::UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        utc.year(),
        u8::from(utc.month()),
        utc.day(),
        utc.hour(),
        utc.minute(),
        utc.second(),
        utc.millisecond()
    )
}
