//! The functions that the fuzz targets of `fuzz/` call. Each checks what must always hold.
//! They are compiled with `--cfg fuzzing` only, and are not a part of the crate's API.

use std::{collections::HashSet, sync::Arc};

use http::{HeaderMap, HeaderValue, header::COOKIE};
use serde_json::value::RawValue;

#[cfg(feature = "takeover")]
use crate::takeover::tower_sessions::members_of;
use crate::{
    Express, Koa, SigningKeys,
    cookie::{CookieConfig, Cookies},
    document::{Document, Json, NativeLayout, limits::Limits},
    format::{Format, Native},
    id::Token,
    realm::Realm,
    request_tokens::{Reading, RequestTokens},
    state::changes::{Change, Changes, erased},
};

const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
const TOKEN: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

fn signed() -> CookieConfig {
    CookieConfig {
        signing: Some(Arc::new(SigningKeys::new(KEYS))),
        ..CookieConfig::default()
    }
}

/// Each line is a `Cookie` header.
pub fn cookies(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, value);
        }
    }
    let cookies = Cookies::of(&headers);
    let koa = Koa::new(["keys", "keykeys"]);
    let express = Express::new(["keys", "keykeys"]);
    for (format, config) in [
        (&Native as &dyn Format, &CookieConfig::default()),
        (&Native, &signed()),
        (&koa, &CookieConfig::default()),
        (&Koa::unsigned(), &CookieConfig::default()),
        (&express, &CookieConfig::default()),
    ] {
        check(
            &format.presented(&cookies, config),
            &headers,
            format,
            config,
        );
    }
}

/// Tokens are parts of what was sent, few, and each once.
fn check(
    presented: &RequestTokens,
    headers: &HeaderMap,
    format: &dyn Format,
    config: &CookieConfig,
) {
    assert!(presented.tokens.len() <= 4);
    assert!(presented.tokens.is_empty() || presented.named);
    let sent = |text: &[u8]| {
        let values = headers.get_all(COOKIE).iter();
        values
            .map(HeaderValue::as_bytes)
            .any(|value| contains(value, text))
    };
    let mut seen = HashSet::new();
    for token in &presented.tokens {
        // Express's is percent-encoded.
        let encoded = format.encode(token, config);
        assert!(sent(token.as_str().as_bytes()) || encoded.contains('%'));
        assert!(seen.insert(token.as_str()));
        format.row_id(token, &Realm::default());
    }
    assert!(!presented.named || sent(format.cookie_name(config).as_bytes()));
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// A value that is accepted as a token has the encoding of one, and is read again from
/// its own text.
pub fn tokens(data: &[u8]) {
    let koa = Koa::new(["keys"]);
    let express = Express::new(["keys"]);
    for (format, config) in [
        (&Native as &dyn Format, &CookieConfig::default()),
        (&Native, &signed()),
        (&koa, &CookieConfig::default()),
        (&express, &CookieConfig::default()),
    ] {
        if let Reading::Token(token, _) = format.read(data, config) {
            let encoded = format.encode(&token, config);
            HeaderValue::from_str(&encoded).expect("a header can carry it");
            let again = format.read(encoded.as_bytes(), config);
            assert!(matches!(again, Reading::Token(read, _) if read == token));
            format.row_id(&token, &Realm::default());
        }
    }
    if let Some(token) = Native.token(data) {
        assert_eq!(token.as_str().as_bytes(), data);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(handle) = text.parse::<crate::SessionId>()
    {
        assert_eq!(handle.as_str(), text);
    }
}

/// No value but the one that was signed opens anything; the input is where a
/// true one is changed, and how.
pub fn signature(data: &[u8]) {
    let keys = SigningKeys::new(KEYS);
    let token = Token::new(TOKEN);
    let encoded = [
        keys.encode("__Host-id", &token),
        SigningKeys::new([KEYS[1]]).encode("__Host-id", &token),
    ];
    let mut value = encoded[0].clone().into_bytes();
    for change in data.chunks_exact(2) {
        let at = usize::from(change[0]) % value.len();
        value[at] = change[1];
    }
    for value in [value.as_slice(), data] {
        let reading = keys.read("__Host-id", value, |value| Native.token(value));
        let is_one_of_ours = encoded.iter().any(|encoded| encoded.as_bytes() == value);
        if let Reading::Token(read, _) = &reading {
            let by_either = KEYS.map(|key| SigningKeys::new([key]).encode("__Host-id", read));
            assert!(by_either.iter().any(|encoded| encoded.as_bytes() == value));
        }
        assert!(!is_one_of_ours || matches!(reading, Reading::Token(..)));
        let elsewhere = keys.read("__Host-other", value, |value| Native.token(value));
        assert!(!matches!(elsewhere, Reading::Token(..)));
    }
}

/// What is read as a document is written as one that is equal, and then as the
/// same text for ever.
pub fn document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(document) = Document::parse(&NativeLayout, &text.into()) else {
        return;
    };
    let written = document.to_text();
    assert!(document.size() <= written.len() && written.len() <= document.size_at_most());
    let again = Document::parse(&NativeLayout, &written.as_str().into()).expect("our own text");
    assert!(again == document);
    assert_eq!(again.to_text(), written);
    let keys: Vec<_> = document.keys().map(str::to_owned).collect();
    assert!(keys.iter().all(|key| document.get(key).is_some()));
    document.meta();
    let mut cleared = document.clone();
    cleared.clear();
    assert!(cleared.is_empty());
}

/// A record of tower-sessions, or the rest of one. What is read is an object that can be stored and read again.
#[cfg(feature = "takeover")]
pub fn record(data: &[u8]) {
    let begin = [0x93, 0xc4, 0x10].iter().chain(&[0; 16]);
    let begun: Vec<_> = begin.chain(data).copied().collect();
    for data in [data, &begun] {
        let Ok(members) = members_of(data) else {
            continue;
        };
        let text = serde_json::to_string(&members).expect("JSON");
        let document = Document::parse(&NativeLayout, &text.as_str().into());
        assert!(document.is_ok(), "{text}");
        let again: serde_json::Map<_, _> = serde_json::from_str(&text).expect("not too deep");
        assert_eq!(again, members);
    }
}

/// The lines are documents and values: the first two lines are what was loaded
/// and what is stored by now, the others are changes.
pub fn replay(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let mut next = || Document::parse(&NativeLayout, &lines.next()?.into()).ok();
    let (Some(loaded), Some(stored)) = (next(), next()) else {
        return;
    };
    let mut changes = Changes::within(Limits::default());
    let mut seen = loaded.clone();
    for mut change in lines.take(64).filter_map(change) {
        if change.apply(&mut seen).is_err() {
            return;
        }
        changes.record(change);
    }
    let mut replayed = loaded.clone();
    changes.replay(&mut replayed).expect("as it was recorded");
    assert!(replayed == seen, "the request's own replay");
    let mut saved = stored.clone();
    match changes.replay(&mut saved) {
        Ok(()) => {
            let again = Document::parse(&NativeLayout, &saved.to_text().into());
            assert!(again.expect("our own text") == saved);
        }
        Err(_) => assert!(saved == stored, "all of a record or nothing"),
    }
}

/// `+key value`, `-key`, `*key` (a number that grows) or `!`.
fn change(line: &str) -> Option<Change> {
    let key = line.get(1..)?.split(' ').next()?.to_owned();
    match line.as_bytes().first()? {
        b'+' => {
            let raw: &RawValue = serde_json::from_str(line.split_once(' ')?.1).ok()?;
            Some(Change::Insert(key, Json::of(&raw).ok()?))
        }
        b'-' => Some(Change::Remove(key)),
        b'*' => {
            let grow = |n: Option<u32>| n.unwrap_or(0).wrapping_add(1);
            let apply = erased(&key, Limits::default(), grow, drop);
            Some(Change::Update(key, apply))
        }
        b'!' => Some(Change::Clear),
        _ => None,
    }
}
