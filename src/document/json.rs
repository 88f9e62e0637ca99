//! Unparsed JSON: values and names are slices of the text that they were read from.
//! It does no I/O and doesn't know the meaning of any member.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use indexmap::{Equivalent, IndexMap};
use serde::{
    Deserializer, Serialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::encode::to_text;

/// The members of an object, in their order.
pub(super) type Members = IndexMap<Key, Json>;

/// A slice of a text that all slices of it share.
#[derive(Clone)]
pub(super) struct Piece {
    text: Arc<str>,
    start: usize,
    end: usize,
}

/// A JSON value as text.
#[derive(Clone, Debug)]
pub(crate) struct Json(Piece);

/// The name of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Text(Piece),
    /// The raw text of a name with a lone surrogate, which can't be a Rust string. The
    /// application can't access this member, but it must not make the session
    /// unreadable.
    Odd(Piece),
}

/// The initial capacity. Most sessions have no more members.
const MEMBERS: usize = 8;

/// # Errors
///
/// If the text is not a JSON object.
pub(super) fn members_of(text: &Arc<str>) -> Result<Members, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(Reader(text))?;
    deserializer.end()?;
    Ok(members)
}

/// Reads the members of an object as pieces of its text.
struct Reader<'t>(&'t Arc<str>);

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members::with_capacity(MEMBERS);
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let value = Json(Piece::of(self.0, value.get()));
            members.insert(Key::of(self.0, key.get()), value);
        }
        Ok(members)
    }
}

impl Piece {
    pub(super) fn whole(text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        Self {
            start: 0,
            end: text.len(),
            text,
        }
    }

    /// `part` is a slice of `text`.
    fn of(text: &Arc<str>, part: &str) -> Self {
        let start = part.as_ptr().addr() - text.as_ptr().addr();
        Self {
            text: Arc::clone(text),
            start,
            end: start + part.len(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text[self.start..self.end]
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }
}

impl PartialEq for Piece {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Piece {}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Json {
    /// # Errors
    ///
    /// If `value` can't be written as JSON, or holds a float that is not finite.
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self(Piece::whole(to_text(value)?)))
    }

    /// Wraps a text that is JSON.
    pub(super) fn encoded(text: String) -> Self {
        Self(Piece::whole(text))
    }

    pub(crate) fn get(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn is_object(&self) -> bool {
        self.get().starts_with('{')
    }
}

impl Key {
    /// `encoded` is a slice of `text`, with its quotation marks.
    fn of(text: &Arc<str>, encoded: &str) -> Self {
        if !encoded.contains('\\') {
            return Self::Text(Piece::of(text, &encoded[1..encoded.len() - 1]));
        }
        match serde_json::from_str::<String>(encoded) {
            Ok(name) => Self::Text(Piece::whole(name)),
            Err(_) => Self::Odd(Piece::of(text, encoded)),
        }
    }

    pub(super) fn piece(&self) -> &Piece {
        match self {
            Self::Text(piece) | Self::Odd(piece) => piece,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            Self::Odd(_) => None,
        }
    }

    pub(super) fn encode(&self, into: &mut String) {
        match self {
            Self::Text(text) if is_plain(text.as_str()) => {
                into.push('"');
                into.push_str(text.as_str());
                into.push('"');
            }
            Self::Text(text) => {
                into.push_str(&serde_json::to_string(text.as_str()).expect("text is JSON"));
            }
            Self::Odd(encoded) => into.push_str(encoded.as_str()),
        }
    }
}

/// Whether the text needs no escapes in JSON.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\')
}

impl Hash for Key {
    /// Hashes as the text itself does, so that a `str` finds the key.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.piece().as_str().hash(state);
    }
}

impl Equivalent<Key> for str {
    fn equivalent(&self, key: &Key) -> bool {
        key.text() == Some(self)
    }
}
