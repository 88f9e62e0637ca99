use std::{
    borrow::Cow,
    hash::{Hash, Hasher},
};

use indexmap::{Equivalent, IndexMap};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    Error, ErrorKind,
    format::{Layout, NativeLayout, Terms},
};

/// The member of the stored object that belongs to this crate.
pub(crate) const RESERVED: &str = "_session";

/// The JSON object of a session, its members unparsed and in their order.
///
/// What no request asked for goes back to the table letter by letter: large
/// numbers, lone surrogates and U+0000 of another writer survive.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    members: Members,
    layout: &'static dyn Layout,
}

type Members = IndexMap<Key, Box<RawValue>>;

/// The name of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Text(String),
    /// As it is spelled. A name with a lone surrogate is no Rust string, so
    /// nobody can ask for it; but it must not cost the visitor the session.
    Odd(String),
}

/// What the row remembers of its own life, beside the application's values.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Meta {
    /// Seconds of inactivity after which this session ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<f64>,
    /// Seconds since the epoch at which this session ends at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<f64>,
    /// Where the session went when it got a new id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) successor: Option<String>,
    /// Whose rules these are.
    #[serde(skip)]
    pub(crate) reckoning: Reckoning,
    /// Members of a later version of this crate.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Whose rules say how long a session lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reckoning {
    #[default]
    Ours,
    /// Those of another system: an idle timeout that the layer sets beats the
    /// session's own, nothing ends a session that is used unless the layer
    /// says so, and a cookie lives no longer than its session idles.
    Foreign,
}

impl Meta {
    /// The terms of another system's session.
    pub(crate) fn foreign(idle: Option<f64>, until: Option<f64>) -> Self {
        Self {
            idle,
            until,
            reckoning: Reckoning::Foreign,
            ..Self::default()
        }
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::new(&NativeLayout)
    }
}

impl Document {
    pub(crate) fn new(layout: &'static dyn Layout) -> Self {
        Self {
            members: Members::new(),
            layout,
        }
    }

    /// # Errors
    ///
    /// When the text is not a JSON object.
    pub(crate) fn parse(
        layout: &'static dyn Layout,
        text: &str,
    ) -> Result<Self, serde_json::Error> {
        let members = serde_json::from_str(text)?;
        Ok(Self { members, layout })
    }

    /// The members of what is written as an object.
    ///
    /// # Errors
    ///
    /// When it can't be written, or not as an object.
    pub(crate) fn of(
        value: &impl Serialize,
    ) -> Result<impl Iterator<Item = (String, Box<RawValue>)>, Error> {
        let parsed =
            serde_json::to_string(value).and_then(|text| Self::parse(&NativeLayout, &text));
        let document = parsed.map_err(|source| {
            Error::caused(ErrorKind::Serialize, "the value is no JSON object", source)
        })?;
        let members = document.members.into_iter();
        Ok(members.filter_map(|(key, value)| Some((key.text()?.to_owned(), value))))
    }

    pub(crate) fn layout(&self) -> &'static dyn Layout {
        self.layout
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = String::from("{");
        for (key, value) in &self.members {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&key.spelling());
            text.push(':');
            text.push_str(value.get());
        }
        text.push('}');
        text
    }

    pub(crate) fn get(&self, key: &str) -> Option<&RawValue> {
        self.members.get(key).map(AsRef::as_ref)
    }

    pub(crate) fn insert(&mut self, key: &str, value: Box<RawValue>) {
        self.members.insert(Key::Text(key.to_owned()), value);
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.members.shift_remove(key);
    }

    /// Empties the application's part; what the row knows of its own life stays.
    pub(crate) fn clear(&mut self) {
        let own = self.layout.own_key();
        self.members
            .retain(|key, _| key.text().is_some_and(|key| is_kept(key, own)));
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let own = self.layout.own_key();
        self.members
            .keys()
            .filter_map(Key::text)
            .filter(move |key| !is_kept(key, own))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    pub(crate) fn meta(&self) -> Meta {
        self.layout.meta(self)
    }

    /// The member that belongs to the document's format.
    pub(crate) fn terms(&self) -> Terms {
        self.get(self.layout.own_key()?).map(ToOwned::to_owned)
    }

    pub(crate) fn set_meta(&mut self, meta: &Meta) {
        let raw = serde_json::value::to_raw_value(meta).expect("numbers and text are JSON");
        match raw.get() {
            "{}" => self.remove(RESERVED),
            _ => self.insert(RESERVED, raw),
        }
    }

    /// The row that a session leaves under its old id when it gets a new one.
    pub(crate) fn forwarding_to(successor: &str) -> Self {
        let mut document = Self::default();
        document.set_meta(&Meta {
            successor: Some(successor.to_owned()),
            ..Meta::default()
        });
        document
    }
}

pub(crate) fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

fn is_kept(key: &str, own: Option<&str>) -> bool {
    key == RESERVED || Some(key) == own
}

impl Key {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Odd(_) => None,
        }
    }

    fn spelling(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => serde_json::to_string(text).expect("text is JSON").into(),
            Self::Odd(spelling) => spelling.into(),
        }
    }
}

impl Hash for Key {
    /// As the text itself, so that it can be looked up by that.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Text(text) | Self::Odd(text) => text.hash(state),
        }
    }
}

impl Equivalent<Key> for str {
    fn equivalent(&self, key: &Key) -> bool {
        key.text() == Some(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spelling = <&RawValue>::deserialize(deserializer)?.get();
        let text = serde_json::from_str(spelling).map(Self::Text);
        Ok(text.unwrap_or_else(|_| Self::Odd(spelling.to_owned())))
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        same_members(&self.members, &other.members)
    }
}

fn same_members(left: &Members, right: &Members) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .all(|(key, value)| right.get(key).is_some_and(|twin| same_value(value, twin)))
}

/// jsonb spells the same value with other white space, members in another
/// order, and other escapes. Numbers are compared as they are spelled: parsed,
/// two that differ after the seventeenth digit would be one.
fn same_value(left: &RawValue, right: &RawValue) -> bool {
    left.get() == right.get() || Shape::of(left).is_some_and(|shape| shape.fits(right))
}

/// A value whose spelling can differ from that of an equal one.
enum Shape {
    Object(Members),
    Array(Vec<Box<RawValue>>),
    Text(String),
}

impl Shape {
    /// `None` also for text that no `String` can hold, such as a lone surrogate.
    fn of(value: &RawValue) -> Option<Self> {
        let text = value.get();
        match text.as_bytes().first()? {
            b'{' => serde_json::from_str(text).ok().map(Self::Object),
            b'[' => serde_json::from_str(text).ok().map(Self::Array),
            b'"' => serde_json::from_str(text).ok().map(Self::Text),
            _ => None,
        }
    }

    fn fits(&self, value: &RawValue) -> bool {
        match (self, Self::of(value)) {
            (Self::Object(left), Some(Self::Object(right))) => same_members(left, &right),
            (Self::Array(left), Some(Self::Array(right))) => same_values(left, &right),
            (Self::Text(left), Some(Self::Text(right))) => *left == right,
            _ => false,
        }
    }
}

fn same_values(left: &[Box<RawValue>], right: &[Box<RawValue>]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(value, twin)| same_value(value, twin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Document, serde_json::Error> {
        Document::parse(&NativeLayout, text)
    }

    fn round_trip(text: &str) -> String {
        parse(text).expect("an object").to_text()
    }

    #[test]
    fn what_was_not_touched_keeps_its_spelling_and_its_place() {
        for text in [
            r#"{"b":1,"a":{"z":1.50,"y":[ 1 ]}}"#,
            r#"{"big":123456789012345678901234567890,"tiny":1e-400}"#,
            r#"{"nul":"\u0000","lone":"\ud800"}"#,
            r#"{"\u0000":1,"\ud800":2,"x\udfff\"y":3}"#,
        ] {
            assert_eq!(round_trip(text), text);
        }
    }

    #[test]
    fn only_an_object_is_a_document() {
        for text in ["null", "[]", "\"text\"", "1", "{", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn clear_keeps_what_the_row_knows_of_its_own_life() {
        let mut document = parse(r#"{"a":1,"_session":{"idle":5.0}}"#).expect("object");
        document.clear();
        assert!(document.is_empty());
        assert_eq!(document.meta().idle, Some(5.0));
    }

    #[test]
    fn unknown_members_of_the_reserved_part_survive() {
        let mut document = parse(r#"{"_session":{"later":[1]}}"#).expect("object");
        let meta = Meta {
            idle: Some(1.0),
            ..document.meta()
        };
        document.set_meta(&meta);
        assert_eq!(
            document.to_text(),
            r#"{"_session":{"idle":1.0,"later":[1]}}"#
        );
    }

    #[test]
    fn the_spelling_of_a_value_makes_no_difference() {
        let spaced = parse(r#"{"a": {"x": 1, "y": [1, 2]}, "b": 2}"#).expect("object");
        let tight = parse(r#"{"b":2,"a":{"y":[1,2],"x":1}}"#).expect("object");
        assert_eq!(spaced, tight);
        assert_ne!(spaced, Document::default());
    }

    #[test]
    fn values_that_differ_in_their_last_digit_or_kind_differ() {
        let differ = |left: &str, right: &str| {
            let document = |value| parse(&format!(r#"{{"a":{value}}}"#));
            document(left).expect("object") != document(right).expect("object")
        };
        assert!(differ(
            "123456789012345678901234567890",
            "123456789012345678901234567891"
        ));
        assert!(differ("[0.10000000000000000001]", "[0.1]"));
        assert!(differ("1", "1.0"));
        assert!(differ("[1, 2]", "[1]"));
        assert!(differ(r#""\ud800""#, r#""\ud801""#));
        assert!(!differ(r#""\u00e9""#, "\"é\""));
    }
}
