//! A struct as the members of a document. It does no I/O and doesn't know sessions or
//! the store.
//!
//! *Reading*: serde reads the struct from the unparsed members. If serde reports a
//! missing field, its value of `T::default()` is added to a copy of the document, and
//! serde reads again, until no field is missing. If a field is stored under its name and
//! under a former one (`#[serde(alias)]`), the former one is ignored.
//!
//! *Editing*: the struct is serialized before and after the edit. Only the fields that
//! differ are written, so concurrent requests that edit different fields keep each
//! other's changes, and members without a field stay. The former names of the changed
//! fields are removed: those that are ignored now, and those from which the document would
//! still be read as before the edit.

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
        Err(unfit @ (Unfit::Missing(_) | Unfit::Duplicate(_))) => {
            read_after(unfit, document.clone()).map(|(value, _)| value)
        }
        outcome => outcome,
    }
}

/// Reads the document in spite of fields that are missing or stored twice. Also returns the
/// members that were ignored.
fn read_after<T>(mut unfit: Unfit, mut document: Document) -> Result<(T, Vec<String>), Unfit>
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut defaults = fields(&T::default()).unwrap_or_default();
    let mut ignored = Vec::new();
    loop {
        match unfit {
            Unfit::Missing(field) => {
                // The default is removed, so that a field can't be missing twice.
                let default = defaults.swap_remove(field);
                document.insert(field, default.ok_or(Unfit::Missing(field))?);
            }
            Unfit::Duplicate(field) => {
                let former = other_name::<T>(&document, field).ok_or(Unfit::Duplicate(field))?;
                document.remove(&former);
                ignored.push(former);
            }
            other => return Err(other),
        }
        unfit = match deserialize(&document) {
            Ok(value) => return Ok((value, ignored)),
            Err(unfit) => unfit,
        };
    }
}

/// A former name under which this field is stored, too.
fn other_name<T>(document: &Document, field: &str) -> Option<String>
where
    T: Default + Serialize + DeserializeOwned,
{
    let own = document.get(field)?;
    // With this and one member more, no other field is missing or stored twice.
    let mut alone = Document::new(document.layout());
    for (name, default) in fields(&T::default()).ok()? {
        alone.insert(&name, default);
    }
    alone.insert(field, own.clone());
    let is_former = |(name, value): &(&str, &Json)| {
        let mut both = alone.clone();
        both.insert(name, Json::clone(value));
        matches!(deserialize::<T>(&both), Err(Unfit::Duplicate(twice)) if twice == field)
    };
    let mut others = document.members().filter(|(name, _)| *name != field);
    others.find(is_former).map(|(name, _)| name.to_owned())
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
        *document = edited::<T>(document, &before, &after, limits)?;
    }
    Ok(outcome)
}

fn edited<T>(
    document: &Document,
    before: &Fields,
    after: &Fields,
    limits: Limits,
) -> Result<Document, Error>
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut draft = document.clone();
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    let written = after
        .keys()
        .filter(|name| before.get(*name) != after.get(*name));
    let changed: Vec<&str> = removed.chain(written).map(String::as_str).collect();
    for field in &changed {
        match after.get(*field) {
            None => draft.remove(field),
            Some(value) => {
                check_field(document, field)?;
                limits.check_depth(field, value)?;
                draft.insert(field, value.clone());
            }
        }
    }
    if let Err(unfit @ (Unfit::Missing(_) | Unfit::Duplicate(_))) = deserialize::<T>(&draft)
        && let Ok((_, ignored)) = read_after::<T>(unfit, draft.clone())
    {
        ignored.iter().for_each(|name| draft.remove(name));
    }
    if read::<T>(&draft).is_err() {
        let former = former_names::<T>(document, before, &changed);
        former.iter().for_each(|name| draft.remove(name));
    }
    let read_again = fields(&read::<T>(&draft)?)?;
    let mut removed = changed.iter().filter(|field| !after.contains_key(**field));
    if removed.clone().any(|field| read_again.contains_key(*field)) {
        let former = former_names::<T>(&draft, &read_again, &changed);
        former.iter().for_each(|name| draft.remove(name));
        let read_again = fields(&read::<T>(&draft)?)?;
        if let Some(field) = removed.find(|field| read_again.contains_key(**field)) {
            return Err(Error::new(
                ErrorKind::Serialize,
                format!("{field:?} is not stored with this value, and would have another one"),
            ));
        }
    }
    Ok(draft)
}

/// The members from which the struct reads one of these fields under a former name
/// (`#[serde(alias)]`): without such a member, no other field has another value.
fn former_names<T>(document: &Document, now: &Fields, of: &[&str]) -> Vec<String>
where
    T: Default + Serialize + DeserializeOwned,
{
    let is_read = |name: &&str| {
        let mut without = document.clone();
        without.remove(name);
        let Ok(left) = read::<T>(&without).and_then(|value| fields(&value)) else {
            return false;
        };
        let mut names = now.keys().chain(left.keys());
        let differs = |name: &&String| now.get(*name) != left.get(*name);
        let is_changed = names.clone().any(|name| differs(&name));
        is_changed && names.all(|name| !differs(&name) || of.contains(&name.as_str()))
    };
    let others = document.keys().filter(|name| !now.contains_key(*name));
    others.filter(is_read).map(str::to_owned).collect()
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
