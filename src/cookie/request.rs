//! The cookies of a request. It does no I/O and doesn't know the form of a token.

use std::fmt;

use http::{HeaderMap, HeaderValue, header::COOKIE};

use crate::request_tokens::{Reading, RequestTokens};

/// The `Cookie` headers of a request, not parsed yet, because most requests don't use
/// the session.
#[derive(Clone, Default)]
pub(crate) enum Cookies {
    #[default]
    None,
    One(HeaderValue),
    Several(Vec<HeaderValue>),
}

impl Cookies {
    /// Shares the bytes of the headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(COOKIE).into_iter();
        match (values.next(), values.next()) {
            (None, _) => Self::None,
            (Some(one), None) => Self::One(one.clone()),
            (Some(_), Some(_)) => Self::Several(headers.get_all(COOKIE).iter().cloned().collect()),
        }
    }

    pub(crate) fn values(&self) -> &[HeaderValue] {
        match self {
            Self::None => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookies(REDACTED)")
    }
}

/// Reads the tokens from all `Cookie` headers, as bytes. The name must match exactly. The
/// order of cookies is not reliable (RFC 6265bis, section 5.8.3).
pub(crate) fn presented(
    cookies: &Cookies,
    name: &str,
    read: impl Fn(&[u8]) -> Reading,
) -> RequestTokens {
    let mut presented = RequestTokens::default();
    for value in values_of(cookies, name) {
        presented.add(read(value));
    }
    presented
}

/// The value of the first cookie with this name.
pub(crate) fn first_value<'c>(cookies: &'c Cookies, name: &str) -> Option<&'c [u8]> {
    values_of(cookies, name).next()
}

/// The value of the last cookie with this name.
pub(crate) fn last_value<'c>(cookies: &'c Cookies, name: &str) -> Option<&'c [u8]> {
    values_of(cookies, name).last()
}

/// The values of the cookies with this name.
fn values_of<'c>(cookies: &'c Cookies, name: &str) -> impl Iterator<Item = &'c [u8]> {
    let headers = cookies.values().iter();
    let pairs = headers.flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| value_of(pair, name.as_bytes()))
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = trim(pair).split_at_checked(name.len())?;
    let value = trim_start(value).strip_prefix(b"=")?;
    (found == name).then(|| trim(value))
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|byte| is_blank(**byte)).count();
    &bytes[blanks..]
}

pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let bytes = trim_start(bytes);
    let blanks = bytes
        .iter()
        .rev()
        .take_while(|byte| is_blank(**byte))
        .count();
    &bytes[..bytes.len() - blanks]
}
