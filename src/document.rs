//! The JSON object that a row holds: its members as text, and the part that belongs
//! to the crate or to the format. It does no I/O, and doesn't know rows, the store or
//! the configuration of an application.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{
    CookieLifetime, Error, ErrorKind,
    expiry::{Expiry, Meta, epoch_seconds},
};

mod compare;
mod encode;
mod json;
pub(crate) mod key;
pub(crate) mod limits;

pub(crate) use json::Json;

use json::{Key, Members, Piece, members_of};

/// The member of the stored object that belongs to this crate.
pub(crate) const RESERVED: &str = "_session";

/// The JSON object of a session, with its members unparsed and in their order.
///
/// Members that no request changes are written back unchanged: large numbers, lone
/// surrogates and U+0000 of another writer survive. Members are slices of the text
/// that they were read from, so that parsing copies none.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    members: Members,
    /// An upper bound for the bytes of the text. If it fits the limit, the members
    /// need not be measured.
    at_most: usize,
    layout: &'static dyn Layout,
}

/// A successor id that no row has.
const NOWHERE: &str = "";

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
            // No name is written longer than it was read.
            at_most: text.len(),
            layout,
        })
    }

    /// The members of a value that serializes to an object.
    ///
    /// # Errors
    ///
    /// If it can't be serialized, or not to an object.
    pub(crate) fn of(
        value: &impl Serialize,
    ) -> Result<impl Iterator<Item = (String, Json)>, Error> {
        let members = encode::to_text(value).and_then(|text| members_of(&text.into()));
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
            key.encode(&mut text);
            text.push(':');
            text.push_str(value.get());
        }
        text.push('}');
        text
    }

    /// As a value of another document.
    pub(crate) fn to_json(&self) -> Json {
        Json::encoded(self.to_text())
    }

    /// The bytes of the text without the reserved member.
    pub(crate) fn size(&self) -> usize {
        let counted = self
            .members
            .iter()
            .filter(|(key, _)| key.text() != Some(RESERVED));
        let mut encoded = String::new();
        let (mut bytes, mut members) = (BRACES, 0_usize);
        for (key, value) in counted {
            encoded.clear();
            key.encode(&mut encoded);
            bytes += encoded.len() + 1 + value.get().len();
            members += 1;
        }
        bytes + members.saturating_sub(1)
    }

    /// An upper bound for the bytes of the text, in constant time.
    pub(crate) fn size_at_most(&self) -> usize {
        self.at_most
    }

    /// Computes the upper bound again, without the members that were replaced or
    /// removed.
    pub(crate) fn measure(&mut self) {
        let members = self.members.iter();
        let bytes = members.map(|(key, value)| member_at_most(key.piece().as_str(), value));
        self.at_most = BRACES + bytes.sum::<usize>();
    }

    /// The bytes of the text if its names need no escapes.
    fn length(&self) -> usize {
        let members = self.members.iter();
        let bytes = members.map(|(key, value)| key.piece().len() + value.get().len() + 4);
        bytes.sum::<usize>() + BRACES
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

    /// Removes the application's members. Those of the crate and the format, and the user,
    /// stay.
    pub(crate) fn clear(&mut self) {
        let layout = self.layout;
        self.members
            .retain(|key, _| key.text().is_some_and(|key| is_kept(key, layout)));
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.members().map(|(key, _)| key)
    }

    /// The application's members.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &Json)> {
        let layout = self.layout;
        self.members
            .iter()
            .filter_map(|(key, value)| Some((key.text()?, value)))
            .filter(move |(key, _)| !is_kept(key, layout))
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

    /// The row that a session leaves under its old id if no request may follow it,
    /// because a login dropped the data.
    pub(crate) fn forwarding_nowhere() -> Self {
        Self::forwarding_to(NOWHERE, false)
    }

    /// The row that a session leaves under its old id when it gets a new one, and
    /// perhaps another user.
    pub(crate) fn forwarding_to(successor: &str, login: bool) -> Self {
        Self::with_meta(&Meta::forwarding_to(successor, login))
    }

    /// The row that leads from another system's key to the session that was taken over. It
    /// names no successor, because no session had the id of this row.
    pub(crate) fn taken_over(sealed: String) -> Self {
        Self::with_meta(&Meta::taken_over(sealed, NOWHERE))
    }

    fn with_meta(meta: &Meta) -> Self {
        let mut document = Self::default();
        document.set_meta(meta);
        document
    }
}

/// # Errors
///
/// For the member that belongs to this crate, and for those that the format can't keep.
pub(crate) fn check_key(layout: &dyn Layout, key: &str) -> Result<(), Error> {
    match key {
        RESERVED => Err(Error::new(
            ErrorKind::ReservedKey,
            "the key _session is kept for what the session knows of itself",
        )),
        _ => layout.check_key(key),
    }
}

fn is_kept(key: &str, layout: &dyn Layout) -> bool {
    let user = layout.user().map(|user| user.key);
    key == RESERVED || [layout.own_key(), user].contains(&Some(key))
}

/// The bytes of an empty object.
const BRACES: usize = 2;

/// The most bytes that a member adds to the text: every byte of its name may need an
/// escape.
pub(crate) fn member_at_most(key: &str, value: &Json) -> usize {
    key.len() * 6 + value.get().len() + 4
}

/// The part of a document that belongs to its format. Each document has a reference
/// to it, so it is static and doesn't know the configuration of an application.
pub(crate) trait Layout: fmt::Debug + Send + Sync + 'static {
    /// The member of the format that the application may read.
    fn own_key(&self) -> Option<&'static str>;

    /// The member that names the user, if the format stores the user in the document.
    fn user(&self) -> Option<UserMember> {
        None
    }

    /// # Errors
    ///
    /// If the other application would lose a member of this name.
    fn check_key(&self, _key: &str) -> Result<(), Error> {
        Ok(())
    }

    /// The lifetime and the successor that are stored with the session.
    fn meta(&self, document: &Document) -> Meta;

    /// # Errors
    ///
    /// If a document of this format can't store such an expiry.
    fn check(&self, expiry: Expiry) -> Result<(), Error>;

    /// Writes the choice into the document; `blank` has the defaults.
    fn remember(&self, expiry: Expiry, document: &mut Document, blank: &Document);

    /// Writes the cookie's lifetime into the document; `None` is that of `blank` or of
    /// the layer.
    fn remember_cookie_lifetime(
        &self,
        lifetime: Option<CookieLifetime>,
        document: &mut Document,
        blank: &Document,
    );
}

/// The member of a document that names its user. A login writes it, and `clear` keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserMember {
    pub(crate) key: &'static str,
    /// Its new value for a user, given the stored value, if there is one.
    pub(crate) value: fn(Option<&Json>, &str) -> Json,
    /// The user in such a value, as the column `user_id` has it.
    pub(crate) user_in: fn(&Json) -> Option<String>,
    /// A user's id as the column has it.
    pub(crate) stored: fn(&str) -> String,
}

/// The member of a document that belongs to its format.
pub(crate) type Terms = Option<Json>;

/// The crate's own data is in one reserved member.
#[derive(Debug)]
pub(crate) struct NativeLayout;

impl Layout for NativeLayout {
    fn own_key(&self) -> Option<&'static str> {
        None
    }

    /// An unreadable member counts as none, because another writer stored it.
    fn meta(&self, document: &Document) -> Meta {
        document
            .get(RESERVED)
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default()
    }

    fn check(&self, _: Expiry) -> Result<(), Error> {
        Ok(())
    }

    fn remember(&self, expiry: Expiry, document: &mut Document, _: &Document) {
        let mut meta = self.meta(document);
        (meta.idle, meta.absolute, meta.until) = match expiry {
            Expiry::Default => (None, None, None),
            Expiry::Idle(idle) => (Some(idle.as_secs_f64()), None, None),
            Expiry::At(instant) => (None, None, Some(epoch_seconds(instant))),
            Expiry::Timeouts { idle, absolute } => {
                (Some(idle.as_secs_f64()), Some(absolute.as_secs_f64()), None)
            }
        };
        document.set_meta(&meta);
    }

    fn remember_cookie_lifetime(
        &self,
        lifetime: Option<CookieLifetime>,
        document: &mut Document,
        _: &Document,
    ) {
        let mut meta = self.meta(document);
        meta.set_cookie_lifetime(lifetime);
        document.set_meta(&meta);
    }
}

#[cfg(test)]
mod tests;
