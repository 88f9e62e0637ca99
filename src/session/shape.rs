//! A struct as the members of a document. It does no I/O and doesn't know sessions or
//! the store.
//!
//! *Reading*: serde reads the struct from the unparsed members. If serde reports a
//! missing field, its value of `T::default()` is added to a copy of the document, and
//! serde reads again, until no field is missing.
//!
//! *Editing*: the struct is serialized before and after the edit. Only the fields that
//! differ are written, so concurrent requests that edit different fields keep each
//! other's changes, and members without a field stay. If the document can't be read
//! afterwards, a changed field may also be stored under a former name
//! (`#[serde(alias)]`). Then the members with former names are removed.

use std::fmt;

use indexmap::IndexMap;
use serde::{
    Serialize,
    de::{
        self, DeserializeOwned, DeserializeSeed, IntoDeserializer as _, MapAccess,
        value::MapAccessDeserializer,
    },
};

use crate::{
    Error, ErrorKind,
    document::{Document, Json, check_key, limits::Limits},
    state::changes::Misfit,
};

type Fields = IndexMap<String, Json>;

/// Reads the document's members as a `T`. A missing field, such as one that was added to
/// the struct later, has its default.
///
/// # Errors
///
/// Of kind `Deserialize` if a value is not of its field's type.
pub(crate) fn read<T>(document: &Document) -> Result<T, Error>
where
    T: Default + Serialize + DeserializeOwned,
{
    read_members(document).map_err(|unfit| {
        Error::caused(
            ErrorKind::Deserialize,
            "the session does not have the shape that was asked for",
            unfit,
        )
    })
}

fn read_members<T>(document: &Document) -> Result<T, Unfit>
where
    T: Default + Serialize + DeserializeOwned,
{
    match deserialize(document) {
        Err(Unfit::Missing(field)) => read_with_defaults(document.clone(), field),
        outcome => outcome,
    }
}

fn read_with_defaults<T>(mut document: Document, mut missing: &'static str) -> Result<T, Unfit>
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut defaults = fields(&T::default()).unwrap_or_default();
    loop {
        // The default is removed, so that a field can't be missing twice.
        let default = defaults.swap_remove(missing);
        document.insert(missing, default.ok_or(Unfit::Missing(missing))?);
        missing = match deserialize(&document) {
            Err(Unfit::Missing(field)) => field,
            outcome => return outcome,
        };
    }
}

/// Runs `edit` on the struct, and writes only the fields that it changed.
///
/// # Errors
///
/// If the document can't be read before or after the edit, or if a field must not be
/// written. Then nothing is changed.
pub(crate) fn edit<T, R>(
    document: &mut Document,
    limits: Limits,
    edit: &mut impl FnMut(&mut T) -> R,
) -> Result<R, Error>
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut value: T = read(document)?;
    let before = fields(&value)?;
    let outcome = edit(&mut value);
    let after = fields(&value)?;
    if before != after {
        *document = edited::<T>(document, &before, after, limits)?;
    }
    Ok(outcome)
}

fn edited<T>(
    document: &Document,
    before: &Fields,
    after: Fields,
    limits: Limits,
) -> Result<Document, Error>
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut draft = document.clone();
    for field in before.keys().filter(|field| !after.contains_key(*field)) {
        draft.remove(field);
    }
    for (field, value) in after {
        if before.get(&field) != Some(&value) {
            check_field(document, &field)?;
            limits.check_depth(&field, &value)?;
            draft.insert(&field, value);
        }
    }
    if read::<T>(&draft).is_err() {
        let former: Vec<_> = former_names::<T>(document, before).collect();
        former.iter().for_each(|name| draft.remove(name));
        read::<T>(&draft)?;
    }
    Ok(draft)
}

/// The members that the struct reads under a former name (`#[serde(alias)]`): without
/// such a member, the struct would have another value.
fn former_names<'d, T>(document: &'d Document, fields_now: &Fields) -> impl Iterator<Item = &'d str>
where
    T: Default + Serialize + DeserializeOwned,
{
    let is_read = |name: &str| {
        let mut without = document.clone();
        without.remove(name);
        let left = read::<T>(&without).and_then(|value| fields(&value));
        left.ok().as_ref() != Some(fields_now)
    };
    let others = document
        .keys()
        .filter(|name| !fields_now.contains_key(*name));
    others.filter(move |name| is_read(name))
}

fn fields(value: &impl Serialize) -> Result<Fields, Error> {
    Ok(Document::of(value)?.collect())
}

fn check_field(document: &Document, field: &str) -> Result<(), Error> {
    check_key(document.layout(), field)?;
    match document.layout().own_key() == Some(field) {
        true => Err(Error::new(
            ErrorKind::ReservedKey,
            format!("a field can't be named {field}, which is kept for the cookie's attributes"),
        )),
        false => Ok(()),
    }
}

fn deserialize<T: DeserializeOwned>(document: &Document) -> Result<T, Unfit> {
    let members = Reader {
        members: document.members(),
        value: None,
    };
    T::deserialize(MapAccessDeserializer::new(members))
}

struct Reader<'d, M> {
    members: M,
    /// The key that was read last, and its value.
    value: Option<(&'d str, &'d Json)>,
}

impl<'d, M> MapAccess<'d> for Reader<'d, M>
where
    M: Iterator<Item = (&'d str, &'d Json)>,
{
    type Error = Unfit;

    fn next_key_seed<K: DeserializeSeed<'d>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unfit> {
        self.value = self.members.next();
        let key = self.value.map(|(key, _)| key);
        key.map(|key| seed.deserialize(key.into_deserializer()))
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'d>>(&mut self, seed: V) -> Result<V::Value, Unfit> {
        let (key, value) = self
            .value
            .take()
            .expect("a value is asked for after its key");
        let mut json = serde_json::Deserializer::from_str(value.get());
        seed.deserialize(&mut json).map_err(|error| Unfit::Value {
            key: key.to_owned(),
            misfit: Misfit::from(&error),
        })
    }
}

/// Why the members can't be read as a `T`. It omits the values, because they can be
/// personal data.
#[derive(Debug)]
enum Unfit {
    Missing(&'static str),
    Duplicate(&'static str),
    Unknown(String),
    Value { key: String, misfit: Misfit },
    Other,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(field) => write!(f, "there is no {field:?}, and no default of it"),
            Self::Duplicate(field) => write!(f, "there is more than one member for {field:?}"),
            Self::Unknown(key) => write!(f, "the type has no field {key:?}"),
            Self::Value { key, misfit } => write!(f, "the value of {key:?}: {misfit}"),
            Self::Other => f.write_str("the members are not those of the type"),
        }
    }
}

impl std::error::Error for Unfit {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Value { misfit, .. } => Some(misfit),
            _ => None,
        }
    }
}

impl de::Error for Unfit {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self::Other
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::Duplicate(field)
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown(field.to_owned())
    }
}

#[cfg(test)]
mod tests;
