//! What a response says of cookies and caches.

#[cfg(feature = "testing")]
use cookie::Cookie;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, SET_COOKIE, VARY},
};

use super::request::trim;

/// Adds the cookies, instead of others of their names; no cache may keep a
/// response that carries one of ours.
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
        // Neither printed nor kept in a table of HTTP/2.
        cookie.set_sensitive(true);
        headers.append(SET_COOKIE, cookie);
    }
    forbid_shared_caching(headers);
}

/// The cookies that a response gives or takes, for a browser of a test.
#[cfg(feature = "testing")]
pub(crate) fn set_by(headers: &HeaderMap) -> impl Iterator<Item = Cookie<'_>> {
    let lines = headers.get_all(SET_COOKIE).into_iter();
    lines.filter_map(|line| Cookie::parse(line.to_str().ok()?).ok())
}

/// For a response that replaces the handler's. A session of a layer inside of
/// this one is saved already, and its token is in this response only. Cookies of
/// a session are marked as sensitive.
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
    let octets = set_cookie.as_bytes();
    let end = octets.iter().position(|octet| b"=;".contains(octet));
    trim(&octets[..end.unwrap_or(octets.len())])
}

/// Whether somebody else sets a cookie of this name already.
pub(crate) fn is_set(headers: &HeaderMap, name: &str) -> bool {
    let mut cookies = headers.get_all(SET_COOKIE).iter();
    cookies.any(|cookie| name_of(cookie) == name.as_bytes())
}

pub(crate) fn forbid_shared_caching(headers: &mut HeaderMap) {
    if !forbids_shared_caching(headers) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// `private` with a field list only speaks of those fields (RFC 9111, section
/// 5.2.2.7), so it is not enough.
fn forbids_shared_caching(headers: &HeaderMap) -> bool {
    let mut directives = headers
        .get_all(CACHE_CONTROL)
        .into_iter()
        .flat_map(|header| header.as_bytes().split(|octet| *octet == b','))
        .map(trim);
    let mut strict = false;
    directives.all(|directive| {
        strict |= is_any_of(directive, &["private", "no-store"]);
        !is_any_of(directive, &["public"]) && !starts_with(directive, "s-maxage")
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

/// Says that the response depends on this header, once.
pub(crate) fn vary_by(name: &HeaderName, headers: &mut HeaderMap) {
    let varies = headers
        .get_all(VARY)
        .into_iter()
        .flat_map(|header| header.as_bytes().split(|octet| *octet == b','))
        .map(trim)
        .any(|field| field == b"*" || field.eq_ignore_ascii_case(name.as_str().as_bytes()));
    if !varies {
        headers.append(VARY, HeaderValue::from(name.clone()));
    }
}
