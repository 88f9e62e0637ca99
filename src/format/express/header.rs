//! The value of Express's cookie, byte by byte as the packages `cookie` and `cookie-signature`
//! read and write it: `s:`, the session id, a dot and its HMAC-SHA-256, percent-encoded. It does
//! no I/O and doesn't know the attributes of the cookie.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use hmac::Hmac;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use sha2::Sha256;

use crate::format::hmac_keys::HmacKeys;

/// The longest id, as in the table of connect-session-knex.
pub(super) const MAX_SID: usize = 255;
/// The characters of a SHA-256 in base64 without padding.
const SIGNATURE: usize = 43;
/// The most bytes of a value: each of its characters can be encoded as three.
pub(super) const MAX_VALUE: usize = 3 * ("s:".len() + MAX_SID + ".".len() + SIGNATURE);

/// The characters that JavaScript's `encodeURIComponent` encodes.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// The value of the cookie of this session.
pub(super) fn encode(secrets: &HmacKeys, sid: &str) -> String {
    let signature = STANDARD_NO_PAD.encode(secrets.sign::<Hmac<Sha256>>(sid.as_bytes()));
    let value = format!("s:{sid}.{signature}");
    utf8_percent_encode(&value, ENCODED).to_string()
}

/// The session id in the value of a cookie, and its signature. `None` if the value is not a
/// signed one.
pub(super) fn parse(value: &[u8]) -> Option<(String, String)> {
    let value = decode(unquoted(value))?;
    // An id may contain dots, a signature doesn't.
    let (sid, signature) = value.strip_prefix("s:")?.rsplit_once('.')?;
    Some((sid.to_owned(), signature.to_owned()))
}

/// The position of the secret that signed the session id. The signature must have the encoding
/// that Express compares it with.
pub(super) fn verify(secrets: &HmacKeys, sid: &str, signature: &str) -> Option<usize> {
    let signature = STANDARD_NO_PAD.decode(signature).ok()?;
    secrets.verify::<Hmac<Sha256>>(sid.as_bytes(), &signature)
}

/// The value without the quotes around it.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

/// Decodes as `decodeURIComponent`. A value that `decodeURIComponent` refuses stays undecoded.
fn decode(value: &[u8]) -> Option<Cow<'_, str>> {
    let raw = std::str::from_utf8(value).ok()?;
    match has_broken_escape(value) {
        true => Some(raw.into()),
        false => Some(percent_decode(value).decode_utf8().unwrap_or(raw.into())),
    }
}

fn has_broken_escape(value: &[u8]) -> bool {
    let mut rest = value.iter();
    while let Some(byte) = rest.next() {
        let mut is_digit = || rest.next().is_some_and(u8::is_ascii_hexdigit);
        if *byte == b'%' && !(is_digit() && is_digit()) {
            return true;
        }
    }
    false
}
