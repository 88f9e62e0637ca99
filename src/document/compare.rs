//! Compares documents by their values, not by their text. It does no I/O.
//!
//! Equal texts are equal values. Otherwise, objects, arrays and strings are parsed one
//! level at a time, and their parts are compared in the same way.

use serde_json::value::RawValue;

use super::{
    Document,
    json::{Json, Members, members_of},
};

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        same_members(&self.members, &other.members, LEVELS)
    }
}

/// `jsonb` returns the same value with other white space, another order of members, and
/// other escapes. Numbers are compared as text: as floats, two numbers that differ after
/// the seventeenth digit would be equal.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        same_value(self.get(), other.get(), LEVELS)
    }
}

/// How deep values are compared. Below, they are equal if their texts are. Each level
/// uses stack and parses the rest again, and another writer's row must not exhaust
/// either.
const LEVELS: usize = 64;

fn same_value(left: &str, right: &str, levels: usize) -> bool {
    left == right
        || (levels > 0 && Shape::of(left).is_some_and(|shape| shape.fits(right, levels - 1)))
}

fn same_members(left: &Members, right: &Members, levels: usize) -> bool {
    // Most documents are changed copies, with the same order. Then no key is hashed.
    let at_the_same_place = |place, key| {
        let (other, value) = right.get_index(place)?;
        (other == key).then_some(value)
    };
    left.len() == right.len()
        && left.iter().enumerate().all(|(place, (key, value))| {
            let other = at_the_same_place(place, key).or_else(|| right.get(key));
            other.is_some_and(|other| same_value(value.get(), other.get(), levels))
        })
}

/// A value whose text can differ from that of an equal one.
enum Shape<'v> {
    Object(Members),
    Array(Vec<&'v RawValue>),
    Text(String),
}

impl<'v> Shape<'v> {
    /// `None` for other values, and for a string that no `String` can hold, such as a
    /// lone surrogate.
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
            .all(|(value, other)| same_value(value.get(), other.get(), levels))
}
