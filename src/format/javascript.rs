//! What the formats of Koa and Express have in common: JavaScript's rules for values, and
//! changes of the member `cookie`. It does no I/O and doesn't know which format uses it.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use serde::Serialize;
use serde_json::Value;

use crate::{
    SameSite,
    cookie::{CookieConfig, is_attribute_byte},
    document::{Document, Json, NativeLayout},
    expiry::instant,
};

/// The member of a stored session that has the settings of its cookie.
pub(super) const COOKIE: &str = "cookie";

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// About half of the largest time of a JavaScript `Date`.
const MAX_MILLISECONDS: u128 = 4_000_000_000_000_000;

/// The first entry of `X-Forwarded-Proto`, which the proxy at the edge sets.
pub(super) fn forwarded_proto(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(FORWARDED_PROTO)?;
    let first = value.as_bytes().split(|byte| *byte == b',').next()?;
    Some(first.trim_ascii())
}

pub(super) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_true) => *is_true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// A string without characters that end the attribute of a cookie.
pub(super) fn attribute(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() && text.bytes().all(is_attribute_byte) => {
            Some(text)
        }
        _ => None,
    }
}

/// The entry of `known` that equals the value, ignoring case.
pub(super) fn one_of(value: &Value, known: &[&'static str; 3]) -> Option<&'static str> {
    let text = value.as_str()?;
    known
        .iter()
        .copied()
        .find(|known| known.eq_ignore_ascii_case(text))
}

/// The stored `sameSite` of a layer's choice.
pub(super) fn same_site_of(config: &CookieConfig) -> Option<&'static str> {
    config.same_site.map(|same_site| match same_site {
        SameSite::Strict => "strict",
        SameSite::Lax => "lax",
        SameSite::None => "none",
    })
}

/// Formats a time as JavaScript's `toUTCString`.
pub(super) fn http_date(seconds: f64) -> Option<String> {
    let date = instant(seconds)?;
    let (weekday, month) = (date.weekday().to_string(), date.month().to_string());
    Some(format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        &weekday[..3],
        date.day(),
        &month[..3],
        date.year(),
        date.hour(),
        date.minute(),
        date.second()
    ))
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    let milliseconds = duration.as_millis().min(MAX_MILLISECONDS);
    u64::try_from(milliseconds).expect("it is at most MAX_MILLISECONDS")
}

pub(super) fn to_json(value: &impl Serialize) -> Json {
    Json::of(value).expect("numbers and text are JSON")
}

/// Changes the document's member `cookie`. If it has none, starts from the `cookie` of a new
/// document.
pub(super) fn change_cookie(
    document: &mut Document,
    blank: &Document,
    change: impl FnOnce(&mut Document, &Document),
) {
    let settings = |document: &Document| -> Option<Document> {
        Document::parse(&NativeLayout, &document.get(COOKIE)?.get().into()).ok()
    };
    let blank = settings(blank).unwrap_or_default();
    let mut cookie = settings(document).unwrap_or_else(|| blank.clone());
    // Koa reads this name, too.
    cookie.remove("maxage");
    change(&mut cookie, &blank);
    document.insert(COOKIE, cookie.to_json());
}

pub(super) fn copy(key: &str, from: &Document, to: &mut Document) {
    match from.get(key) {
        Some(value) => to.insert(key, value.clone()),
        None => to.remove(key),
    }
}
