//! The headers of a response about cookies and caches. It does no I/O and doesn't know
//! sessions.

#[cfg(feature = "testing")]
use cookie::Cookie;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, SET_COOKIE, VARY},
};

use super::request::trim;

/// Adds the cookies and removes others with their names. A shared cache must not store a
/// response with one of ours.
pub(crate) fn attach(headers: &mut HeaderMap, cookies: Vec<HeaderValue>) {
    let others: Vec<_> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    let is_replaced = |other: &HeaderValue| {
        cookies
            .iter()
            .any(|cookie| name_of(cookie) == name_of(other))
    };
    for other in others.into_iter().filter(|other| !is_replaced(other)) {
        headers.append(SET_COOKIE, other);
    }
    for mut cookie in cookies {
        // Sensitive values are not printed, and HTTP/2 doesn't index them.
        cookie.set_sensitive(true);
        headers.append(SET_COOKIE, cookie);
    }
    forbid_shared_caching(headers);
}

/// The cookies that a response sets or removes, for the browser of a test.
#[cfg(feature = "testing")]
pub(crate) fn set_by(headers: &HeaderMap) -> impl Iterator<Item = Cookie<'_>> {
    let lines = headers.get_all(SET_COOKIE).into_iter();
    lines.filter_map(|line| Cookie::parse(line.to_str().ok()?).ok())
}

/// Removes the handler's cookies from a response that replaces the handler's. A layer
/// inside of this one has saved its session already, and its token is only in this
/// response. So cookies of sessions, which are marked as sensitive, stay.
pub(crate) fn keep_cookies_of_other_layers(headers: &mut HeaderMap) {
    let cookies = headers.get_all(SET_COOKIE).iter();
    let kept: Vec<_> = cookies
        .filter(|cookie| cookie.is_sensitive())
        .cloned()
        .collect();
    headers.remove(SET_COOKIE);
    for cookie in kept {
        headers.append(SET_COOKIE, cookie);
    }
}

fn name_of(set_cookie: &HeaderValue) -> &[u8] {
    let bytes = set_cookie.as_bytes();
    let end = bytes.iter().position(|byte| b"=;".contains(byte));
    trim(&bytes[..end.unwrap_or(bytes.len())])
}

/// Whether the response already sets a cookie with this name.
pub(crate) fn is_set(headers: &HeaderMap, name: &str) -> bool {
    let mut cookies = headers.get_all(SET_COOKIE).iter();
    cookies.any(|cookie| name_of(cookie) == name.as_bytes())
}

/// Caches at the edge prefer a header of their own to `Cache-Control` (RFC 9213), so these are
/// removed.
pub(crate) fn forbid_shared_caching(headers: &mut HeaderMap) {
    let targeted: Vec<_> = headers
        .keys()
        .filter(|name| is_targeted(name))
        .cloned()
        .collect();
    for name in targeted {
        headers.remove(name);
    }
    if !forbids_shared_caching(headers) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Such as `CDN-Cache-Control`, and those of Varnish, nginx and Akamai.
fn is_targeted(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("-cache-control")
        || ["surrogate-control", "x-accel-expires", "edge-control"].contains(&name)
}

/// `private` with a list of fields applies only to those fields (RFC 9111, section
/// 5.2.2.7), so it is not enough. A cache that knows the status ignores `no-store` if there is
/// `must-understand` (section 5.2.2.3).
fn forbids_shared_caching(headers: &HeaderMap) -> bool {
    let mut directives = headers
        .get_all(CACHE_CONTROL)
        .into_iter()
        .flat_map(|header| header.as_bytes().split(|byte| *byte == b','))
        .map(trim);
    let mut strict = false;
    directives.all(|directive| {
        strict |= is_any_of(directive, &["private", "no-store"]);
        !is_any_of(directive, &["public", "must-understand"]) && !starts_with(directive, "s-maxage")
    }) && strict
}

fn is_any_of(directive: &[u8], names: &[&str]) -> bool {
    names
        .iter()
        .any(|name| directive.eq_ignore_ascii_case(name.as_bytes()))
}

fn starts_with(directive: &[u8], name: &str) -> bool {
    directive
        .get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
}

/// Adds the header's name to `Vary`, unless it is there already.
pub(crate) fn vary_by(name: &HeaderName, headers: &mut HeaderMap) {
    let varies = headers
        .get_all(VARY)
        .into_iter()
        .flat_map(|header| header.as_bytes().split(|byte| *byte == b','))
        .map(trim)
        .any(|field| field == b"*" || field.eq_ignore_ascii_case(name.as_str().as_bytes()));
    if !varies {
        headers.append(VARY, HeaderValue::from(name.clone()));
    }
}
