//! Koa's cookies, byte by byte as the package `cookies` reads and writes them. It
//! does no I/O and doesn't know signatures.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    cookie::Cookies,
    document::{Document, Json, NativeLayout},
    expiry::epoch_seconds,
    format::{
        Line,
        javascript::{attribute, http_date, is_truthy, one_of},
    },
    timeouts::COOKIE_LIMIT,
};

/// The value of the first cookie of this name, without quotes around it.
pub(super) fn first<'c>(cookies: &'c Cookies, name: &str) -> Option<&'c [u8]> {
    let value = cookies
        .values()
        .iter()
        .flat_map(|header| header.as_bytes().split(|byte| *byte == b';'))
        .find_map(|pair| value_of(pair, name.as_bytes()))?;
    match value.split_first() {
        Some((b'"', rest)) => Some(&rest[..rest.len().saturating_sub(1)]),
        _ => Some(value),
    }
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let blanks = pair.iter().take_while(|byte| **byte == b' ').count();
    pair[blanks..].strip_prefix(name)?.strip_prefix(b"=")
}

/// The text that is signed.
pub(super) fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"=", value].concat()
}

/// The attributes in a stored object, read by the rules of JavaScript.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    path: Option<String>,
    /// Seconds since the epoch.
    pub(super) expires: Option<f64>,
    /// Seconds.
    pub(super) max_age: Option<f64>,
    domain: Option<String>,
    priority: Option<&'static str>,
    same_site: Option<&'static str>,
    secure: Option<bool>,
    http_only: bool,
    partitioned: bool,
}

impl Default for Attributes {
    /// The attributes of a cookie without settings.
    fn default() -> Self {
        Self {
            path: Some("/".into()),
            expires: None,
            max_age: None,
            domain: None,
            priority: None,
            same_site: None,
            secure: None,
            http_only: true,
            partitioned: false,
        }
    }
}

impl Attributes {
    /// `None` if the value is not an object.
    pub(super) fn parse(stored: &Json) -> Option<Self> {
        let object = Document::parse(&NativeLayout, &stored.get().into()).ok()?;
        let value = |key| -> Option<Value> { serde_json::from_str(object.get(key)?.get()).ok() };
        let default = Self::default();
        Some(Self {
            path: value("path").map_or(default.path, attribute),
            expires: value("expires").as_ref().and_then(date),
            max_age: [value("maxage"), value("maxAge")]
                .iter()
                .flatten()
                .find_map(milliseconds),
            domain: value("domain").and_then(attribute),
            priority: value("priority").and_then(|value| one_of(&value, &PRIORITIES)),
            same_site: value("sameSite").and_then(|value| same_site(&value)),
            secure: value("secure").as_ref().map(is_truthy),
            http_only: value("httpOnly").as_ref().is_none_or(is_truthy),
            partitioned: value("partitioned").as_ref().is_some_and(is_truthy),
        })
    }

    /// When a cookie that is set at `now` expires; `None` if it is dropped when the
    /// browser is closed.
    pub(super) fn expiry_after(&self, now: f64) -> Option<f64> {
        let own = self.max_age.map(|seconds| now + seconds).or(self.expires)?;
        Some(own.min(now + COOKIE_LIMIT.as_secs_f64()))
    }

    /// The text of the attributes after the cookie's value.
    pub(super) fn encoded(&self, expires: Option<f64>, line: Line) -> String {
        let secure = self.secure.unwrap_or(line == Line::Encrypted);
        let texts = [
            ("path", self.path.clone()),
            ("expires", expires.and_then(http_date)),
            ("domain", self.domain.clone()),
            ("priority", self.priority.map(str::to_owned)),
            ("samesite", self.same_site.map(str::to_owned)),
        ];
        let flags = [
            ("secure", secure),
            ("httponly", self.http_only),
            ("partitioned", self.partitioned),
        ];
        let mut encoded = String::new();
        for (name, text) in texts {
            if let Some(text) = text {
                encoded.extend(["; ", name, "=", &text]);
            }
        }
        for (name, _) in flags.iter().filter(|(_, is_set)| *is_set) {
            encoded.extend(["; ", name]);
        }
        encoded
    }
}

const PRIORITIES: [&str; 3] = ["low", "medium", "high"];
const SAME_SITES: [&str; 3] = ["lax", "none", "strict"];

fn same_site(value: &Value) -> Option<&'static str> {
    match value {
        Value::Bool(true) => Some("strict"),
        value => one_of(value, &SAME_SITES),
    }
}

/// Milliseconds as seconds; `None` for 0, which is falsy in JavaScript.
fn milliseconds(value: &Value) -> Option<f64> {
    let milliseconds = value.as_f64().filter(|number| *number != 0.0)?;
    Some(milliseconds / 1000.0)
}

/// Parses a `Date` in its JSON form.
fn date(value: &Value) -> Option<f64> {
    let date = OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?;
    Some(epoch_seconds(date))
}
