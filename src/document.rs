use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use indexmap::{Equivalent, IndexMap};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};
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
/// numbers, lone surrogates and U+0000 of another writer survive. Members are
/// pieces of the text that they were read from, so that parsing copies none.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    members: Members,
    /// The text has no more octets; so nobody need look at the members to
    /// know that it fits.
    at_most: usize,
    layout: &'static dyn Layout,
}

type Members = IndexMap<Key, Json>;

/// A part of a text that is shared with the other parts of it.
#[derive(Clone)]
struct Piece {
    text: Arc<str>,
    start: usize,
    end: usize,
}

/// A JSON value as it is spelled.
#[derive(Clone, Debug)]
pub(crate) struct Json(Piece);

/// The name of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Text(Piece),
    /// As it is spelled. A name with a lone surrogate is no Rust string, so
    /// nobody can ask for it; but it must not cost the visitor the session.
    Odd(Piece),
}

/// The successor that no row has as its id.
const NOWHERE: &str = "";

/// What the row remembers of its own life, beside the application's values.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Meta {
    /// Seconds of inactivity after which this session ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<f64>,
    /// Seconds after its beginning at which this session ends at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) absolute: Option<f64>,
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
            at_most: BRACES,
            layout,
        }
    }

    /// # Errors
    ///
    /// When the text is not a JSON object.
    pub(crate) fn parse(
        layout: &'static dyn Layout,
        text: &Arc<str>,
    ) -> Result<Self, serde_json::Error> {
        let members = members_of(text)?;
        Ok(Self {
            members,
            // No name is spelled longer than it was read.
            at_most: text.len(),
            layout,
        })
    }

    /// The members of what is written as an object.
    ///
    /// # Errors
    ///
    /// When it can't be written, or not as an object.
    pub(crate) fn of(
        value: &impl Serialize,
    ) -> Result<impl Iterator<Item = (String, Json)>, Error> {
        let members = serde_json::to_string(value).and_then(|text| members_of(&text.into()));
        let members = members.map_err(|source| {
            Error::caused(ErrorKind::Serialize, "the value is no JSON object", source)
        })?;
        let named = members.into_iter();
        Ok(named.filter_map(|(key, value)| Some((key.text()?.to_owned(), value))))
    }

    pub(crate) fn layout(&self) -> &'static dyn Layout {
        self.layout
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.length());
        text.push('{');
        for (key, value) in &self.members {
            if text.len() > 1 {
                text.push(',');
            }
            key.spell(&mut text);
            text.push(':');
            text.push_str(value.get());
        }
        text.push('}');
        text
    }

    /// As text, without the reserved member.
    pub(crate) fn octets(&self) -> usize {
        let counted = self
            .members
            .iter()
            .filter(|(key, _)| key.text() != Some(RESERVED));
        let mut spelled = String::new();
        let (mut octets, mut members) = (BRACES, 0_usize);
        for (key, value) in counted {
            spelled.clear();
            key.spell(&mut spelled);
            octets += spelled.len() + 1 + value.get().len();
            members += 1;
        }
        octets + members.saturating_sub(1)
    }

    /// No fewer than the text has, told without a look at the members.
    pub(crate) fn octets_at_most(&self) -> usize {
        self.at_most
    }

    /// Forgets what was replaced or removed.
    pub(crate) fn measure(&mut self) {
        let members = self.members.iter();
        let octets = members.map(|(key, value)| member_at_most(key.piece().as_str(), value));
        self.at_most = BRACES + octets.sum::<usize>();
    }

    /// Of the text, but for escapes in names.
    fn length(&self) -> usize {
        let members = self.members.iter();
        let octets = members.map(|(key, value)| key.piece().len() + value.get().len() + 4);
        octets.sum::<usize>() + BRACES
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Json> {
        self.members.get(key)
    }

    pub(crate) fn insert(&mut self, key: &str, value: Json) {
        self.at_most += member_at_most(key, &value);
        match self.members.get_mut(key) {
            Some(place) => *place = value,
            None => drop(self.members.insert(Key::Text(Piece::whole(key)), value)),
        }
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
        self.members().map(|(key, _)| key)
    }

    /// Those of the application.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &Json)> {
        let own = self.layout.own_key();
        self.members
            .iter()
            .filter_map(|(key, value)| Some((key.text()?, value)))
            .filter(move |(key, _)| !is_kept(key, own))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    pub(crate) fn meta(&self) -> Meta {
        self.layout.meta(self)
    }

    /// The member that belongs to the document's format.
    pub(crate) fn terms(&self) -> Terms {
        self.get(self.layout.own_key()?).cloned()
    }

    pub(crate) fn set_meta(&mut self, meta: &Meta) {
        let json = Json::of(meta).expect("numbers and text are JSON");
        match json.get() {
            "{}" => self.remove(RESERVED),
            _ => self.insert(RESERVED, json),
        }
    }

    /// What is left under the id of a session whose data nobody may follow.
    pub(crate) fn forwarding_nowhere() -> Self {
        Self::forwarding_to(NOWHERE)
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

fn is_kept(key: &str, own: Option<&str>) -> bool {
    key == RESERVED || Some(key) == own
}

/// # Errors
///
/// When the text is not a JSON object.
fn members_of(text: &Arc<str>) -> Result<Members, serde_json::Error> {
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

/// Of an object's text.
const BRACES: usize = 2;

/// What a member adds to the text, if every octet of its name needs an escape.
pub(crate) fn member_at_most(key: &str, value: &Json) -> usize {
    key.len() * 6 + value.get().len() + 4
}

/// Room for what most sessions hold.
const MEMBERS: usize = 8;

impl Piece {
    fn whole(text: impl Into<Arc<str>>) -> Self {
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

    fn as_str(&self) -> &str {
        &self.text[self.start..self.end]
    }

    fn len(&self) -> usize {
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
    /// When `value` can't be written as JSON.
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self(Piece::whole(serde_json::to_string(value)?)))
    }

    pub(crate) fn of_object(object: &Document) -> Self {
        Self(Piece::whole(object.to_text()))
    }

    pub(crate) fn get(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn is_object(&self) -> bool {
        self.get().starts_with('{')
    }
}

impl Key {
    /// `spelling` is a slice of `text`, with its quotation marks.
    fn of(text: &Arc<str>, spelling: &str) -> Self {
        if !spelling.contains('\\') {
            return Self::Text(Piece::of(text, &spelling[1..spelling.len() - 1]));
        }
        match serde_json::from_str::<String>(spelling) {
            Ok(name) => Self::Text(Piece::whole(name)),
            Err(_) => Self::Odd(Piece::of(text, spelling)),
        }
    }

    fn piece(&self) -> &Piece {
        match self {
            Self::Text(piece) | Self::Odd(piece) => piece,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            Self::Odd(_) => None,
        }
    }

    fn spell(&self, into: &mut String) {
        match self {
            Self::Text(text) if is_plain(text.as_str()) => {
                into.push('"');
                into.push_str(text.as_str());
                into.push('"');
            }
            Self::Text(text) => {
                into.push_str(&serde_json::to_string(text.as_str()).expect("text is JSON"));
            }
            Self::Odd(spelling) => into.push_str(spelling.as_str()),
        }
    }
}

/// Whether JSON spells the text without escapes.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|octet| octet >= b' ' && octet != b'"' && octet != b'\\')
}

impl Hash for Key {
    /// As the text itself, so that it can be looked up by that.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.piece().as_str().hash(state);
    }
}

impl Equivalent<Key> for str {
    fn equivalent(&self, key: &Key) -> bool {
        key.text() == Some(self)
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        same_members(&self.members, &other.members, LEVELS)
    }
}

/// jsonb spells the same value with other white space, members in another
/// order, and other escapes. Numbers are compared as they are spelled: parsed,
/// two that differ after the seventeenth digit would be one.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        same_value(self.get(), other.get(), LEVELS)
    }
}

/// How deep values are compared; below they are equal if they are spelled
/// alike. Each level costs stack and another look at the rest, which another
/// writer's row must not exhaust.
const LEVELS: usize = 64;

fn same_value(left: &str, right: &str, levels: usize) -> bool {
    left == right
        || (levels > 0 && Shape::of(left).is_some_and(|shape| shape.fits(right, levels - 1)))
}

fn same_members(left: &Members, right: &Members, levels: usize) -> bool {
    left.len() == right.len()
        && left.iter().all(|(key, value)| {
            let twin = right.get(key);
            twin.is_some_and(|twin| same_value(value.get(), twin.get(), levels))
        })
}

/// A value whose spelling can differ from that of an equal one.
enum Shape<'v> {
    Object(Members),
    Array(Vec<&'v RawValue>),
    Text(String),
}

impl<'v> Shape<'v> {
    /// `None` also for text that no `String` can hold, such as a lone surrogate.
    fn of(value: &'v str) -> Option<Self> {
        match value.as_bytes().first()? {
            b'{' => members_of(&value.into()).ok().map(Self::Object),
            b'[' => serde_json::from_str(value).ok().map(Self::Array),
            b'"' => serde_json::from_str(value).ok().map(Self::Text),
            _ => None,
        }
    }

    fn fits(&self, value: &str, levels: usize) -> bool {
        match (self, Shape::of(value)) {
            (Self::Object(left), Some(Shape::Object(right))) => same_members(left, &right, levels),
            (Self::Array(left), Some(Shape::Array(right))) => same_values(left, &right, levels),
            (Self::Text(left), Some(Shape::Text(right))) => *left == right,
            _ => false,
        }
    }
}

fn same_values(left: &[&RawValue], right: &[&RawValue], levels: usize) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(value, twin)| same_value(value.get(), twin.get(), levels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Document, serde_json::Error> {
        Document::parse(&NativeLayout, &text.into())
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
