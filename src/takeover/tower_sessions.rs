//! The sessions of tower-sessions with the Postgres store of tower-sessions-sqlx-store.
//!
//! The cookie's value is the row's id: 16 bytes as base64url without padding, plain, signed
//! or encrypted by the `cookie` crate. The column `data` is a `Record` of
//! tower-sessions-core, which rmp-serde wrote as an array of three: the id, the map of
//! values, and the expiry. Rows of releases before `Record` look different, and stay.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cookie::{Cookie, CookieJar, Key};
use serde::{Deserialize as _, de::IgnoredAny};
use serde_json::{Map, Value};

use super::{System, TakenExpiry, Takeover, Unfit};
use crate::{
    cookie::CookieConfig,
    id::Token,
    request_tokens::{Reading, Signature},
};

/// Characters of a key: 16 bytes as base64url without padding.
const KEY_CHARS: usize = 22;
/// Characters of a signed key: before it, the 32 bytes of an HMAC as base64.
const SIGNED_CHARS: usize = 44 + KEY_CHARS;
/// Characters of an encrypted key: 12 bytes of a nonce, the key and 16 bytes of a tag, as
/// base64.
const PRIVATE_CHARS: usize = 68;
/// How a record begins: an array of three, and 16 bytes.
const RECORD: [u8; 3] = [0x93, 0xc4, 0x10];
/// The deepest nesting that serde_json can read is 127 levels. The record is one of them.
const MAX_DEPTH: usize = 127;
/// How a number is written if the application turns on serde_json's `arbitrary_precision`.
const NUMBER_AS_TEXT: &str = "$serde_json::private::Number";

/// The expiry of a record: year, day, hour, minute, second, nanosecond, and the offset.
type Instant = (i32, u16, u8, u8, u8, u32, i8, i8, i8);

/// How the cookie's value is protected.
#[derive(Clone)]
enum Protection {
    None,
    Signed(Key),
    Private(Key),
}

#[derive(Clone, Debug)]
struct TowerSessions(Protection);

impl Takeover {
    /// Takes over the sessions of tower-sessions-sqlx-store with a `PostgresStore`, from
    /// version 0.9 on. Needs the feature `takeover`.
    ///
    /// The defaults are those of tower-sessions: a cookie `id` without a signature, and the
    /// table `tower_sessions.session`.
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, Takeover};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let takeover = Takeover::tower_sessions().cookie_name("sid").table("public", "sessions");
    /// let layer = PgSessionLayer::new(store).takeover(takeover);
    /// assert!(layer.check().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn tower_sessions() -> Self {
        let cookie = CookieConfig {
            name: Some("id".into()),
            ..CookieConfig::default()
        };
        Self {
            system: Arc::new(TowerSessions(Protection::None)),
            cookie,
            schema: "tower_sessions".into(),
            table: "session".into(),
            user: Some(("axum-login.data".into(), "user_id".into())),
            expiry: TakenExpiry::IsKept,
            fault: None,
            reported: Arc::default(),
        }
    }

    /// Sets the key of `with_signed`. Default: none, so cookies are not signed.
    ///
    /// The key is the 64 bytes or more that `Key::from` got, or `Key::master` of a key that
    /// was made in another way. [`PgSessionLayer::check`](crate::PgSessionLayer::check)
    /// returns an error if there are fewer.
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, Takeover};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let layer = |key| PgSessionLayer::new(store.clone()).takeover(Takeover::tower_sessions().signed(key));
    /// assert!(layer([7; 64].as_slice()).check().is_ok());
    /// assert!(layer([7; 63].as_slice()).check().is_err());
    /// # Ok(()) }
    /// ```
    pub fn signed(self, key: impl AsRef<[u8]>) -> Self {
        self.protected(key.as_ref(), Protection::Signed)
    }

    /// Sets the key of `with_private`. Default: none, so cookies are not encrypted. The key
    /// is as in [`signed`](Self::signed).
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, Takeover};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let layer = PgSessionLayer::new(store).takeover(Takeover::tower_sessions().private([7; 64]));
    /// assert!(layer.check().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn private(self, key: impl AsRef<[u8]>) -> Self {
        self.protected(key.as_ref(), Protection::Private)
    }

    fn protected(mut self, key: &[u8], protection: impl FnOnce(Key) -> Protection) -> Self {
        match Key::try_from(key) {
            Ok(key) => self.system = Arc::new(TowerSessions(protection(key))),
            Err(_) => self.fault = Some("the key of a takeover needs at least 64 bytes"),
        }
        self
    }
}

impl System for TowerSessions {
    /// Only a value of the right length can have a signature. The `cookie` crate compares it
    /// in constant time.
    fn key(&self, cookie_name: &str, value: &str) -> Reading {
        let cookie = || Cookie::new(cookie_name.to_owned(), value.to_owned());
        let mut jar = CookieJar::new();
        let (chars, opened) = match &self.0 {
            Protection::None => (KEY_CHARS, Some(cookie())),
            Protection::Signed(_) | Protection::Private(_) if value.len() > PRIVATE_CHARS => {
                return Reading::Malformed;
            }
            Protection::Signed(key) => (SIGNED_CHARS, jar.signed_mut(key).verify(cookie())),
            Protection::Private(key) => (PRIVATE_CHARS, jar.private_mut(key).decrypt(cookie())),
        };
        match opened {
            _ if value.len() != chars => Reading::Malformed,
            None => Reading::Forged,
            Some(opened) if is_key(opened.value()) => {
                Reading::Token(Token::new(opened.value()), Signature::UpToDate)
            }
            Some(_) => Reading::Malformed,
        }
    }

    fn members(&self, data: &[u8]) -> Result<Map<String, Value>, Unfit> {
        members_of(data)
    }
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Signed(_) => "Signed(REDACTED)",
            Self::Private(_) => "Private(REDACTED)",
        })
    }
}

fn is_key(value: &str) -> bool {
    let mut bytes = [0; 16];
    let decoded = URL_SAFE_NO_PAD.decode_slice(value, &mut bytes);
    value.len() == KEY_CHARS && decoded == Ok(bytes.len())
}

/// The values of a record.
///
/// # Errors
///
/// If these bytes are not exactly one record, whose values are JSON.
pub(crate) fn members_of(data: &[u8]) -> Result<Map<String, Value>, Unfit> {
    if !data.starts_with(&RECORD) {
        return Err(Unfit("it is not a record of tower-sessions 0.9 or later"));
    }
    let mut record = rmp_serde::Deserializer::new(data);
    record.set_max_depth(MAX_DEPTH);
    let parsed = <(IgnoredAny, Map<String, Value>, Instant)>::deserialize(&mut record);
    let (_, members, _) = parsed.map_err(|_| Unfit("its record can't be read as JSON"))?;
    match record.get_ref().is_empty() {
        _ if members.values().any(has_number_as_text) => Err(Unfit(
            "it has numbers of serde_json's feature arbitrary_precision",
        )),
        true => Ok(members),
        false => Err(Unfit("bytes follow its record")),
    }
}

/// The depth is limited, so this can't overflow the stack.
fn has_number_as_text(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            members.contains_key(NUMBER_AS_TEXT) || members.values().any(has_number_as_text)
        }
        Value::Array(values) => values.iter().any(has_number_as_text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with this map, as rmp-serde writes it.
    fn record(map: &[u8]) -> Vec<u8> {
        let end = [
            0x99, 0xcd, 0x07, 0xea, 0xcd, 0x01, 0x4d, 12, 30, 15, 0, 0, 0, 0,
        ];
        [&RECORD, [9; 16].as_slice(), map, &end].concat()
    }

    fn json(map: &[u8]) -> Result<String, Unfit> {
        members_of(&record(map)).map(|members| Value::from(members).to_string())
    }

    #[test]
    fn a_record_is_read_with_all_types() {
        let map = b"\x86\xa1a\xc0\xa1b\xc3\xa1c\xcf\xff\xff\xff\xff\xff\xff\xff\xff\
                    \xa1d\xd3\x80\x00\x00\x00\x00\x00\x00\x00\xa1e\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\
                    \xa1f\x92\x80\xa2\xc3\xbc";
        let expected = r#"{"a":null,"b":true,"c":18446744073709551615,"d":-9223372036854775808,"e":1.5,"f":[{},"ü"]}"#;
        assert_eq!(json(map).as_deref(), Ok(expected));
        assert_eq!(json(b"\x80").as_deref(), Ok("{}"));
        // NaN, as tower-sessions reads it.
        let nan = json(b"\x81\xa1a\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00");
        assert_eq!(nan.as_deref(), Ok(r#"{"a":null}"#));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (map, reason) in [
            (b"\x81\xa1a\xc4\x01x".as_slice(), "binary data"),
            (b"\x81\x01\x01", "a key that is a number"),
            (b"\x81\xa1a\xd4\x01x", "an extension"),
            (b"\x81\xa1a\xa1\xff", "a string that is not UTF-8"),
            (b"\x90", "an array in place of the map"),
            (b"\x82\xa1a\x01", "a map that is too short"),
            (
                b"\x81\xa1a\x81\xbc$serde_json::private::Number\xa11",
                "arbitrary precision",
            ),
        ] {
            assert!(json(map).is_err(), "{reason}");
        }
        let record = record(b"\x80");
        for cut in 0..record.len() {
            assert!(members_of(&record[..cut]).is_err(), "{cut}");
        }
        assert!(members_of(&[record, vec![0]].concat()).is_err());
    }

    #[test]
    fn a_value_that_is_nested_too_deep_is_refused() {
        let nested = |levels| [b"\x81\xa1a".to_vec(), vec![0x91; levels], vec![1]].concat();
        assert!(json(&nested(100)).is_ok());
        assert!(json(&nested(200)).is_err());
        assert!(json(&nested(100_000)).is_err());
    }

    #[test]
    fn only_a_verified_key_is_read() {
        const KEY: &str = "AAECAwQFBgcICQoLDA0ODw";
        let plain = TowerSessions(Protection::None);
        let is_key =
            |reading| matches!(reading, Reading::Token(token, _) if token == Token::new(KEY));
        assert!(is_key(plain.key("id", KEY)));
        for other in [
            "",
            "AAECAwQFBgcICQoLDA0OD",
            "AAECAwQFBgcICQoLDA0ODx",
            "AAECAwQFBgcICQoLDA0OD/",
        ] {
            assert_eq!(plain.key("id", other), Reading::Malformed, "{other}");
        }
        let (key, other) = (Key::from(&[1; 64]), Key::from(&[2; 64]));
        let mut jar = CookieJar::new();
        jar.signed_mut(&key).add(("signed", KEY));
        jar.private_mut(&key).add(("private", KEY));
        let value = |name| jar.get(name).expect("added").value().to_owned();
        for (name, protection) in [
            ("signed", Protection::Signed as fn(Key) -> _),
            ("private", Protection::Private),
        ] {
            let (value, system) = (value(name), TowerSessions(protection(key.clone())));
            assert!(is_key(system.key(name, &value)), "{name}");
            let forged = TowerSessions(protection(other.clone()));
            assert_eq!(forged.key(name, &value), Reading::Forged, "{name}");
            assert_eq!(system.key(name, KEY), Reading::Malformed, "{name}");
            assert_eq!(system.key(name, &format!("{value}=")), Reading::Malformed);
            for place in 0..value.len() {
                let mut changed = value.clone().into_bytes();
                changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(changed).expect("ASCII");
                assert!(!is_key(system.key(name, &changed)), "{name} {place}");
            }
        }
        // An encrypted cookie belongs to its name, a signed one does not.
        let system = TowerSessions(Protection::Private(key));
        assert_eq!(system.key("other", &value("private")), Reading::Forged);
    }
}
