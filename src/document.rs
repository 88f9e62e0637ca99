use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    CookieLifetime, Error, ErrorKind,
    format::{Layout, NativeLayout, Terms},
};

mod compare;
mod encode;
mod json;

pub(crate) use json::Json;
use json::{Key, Members, Piece, members_of};

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
    /// Whether it got another user with that id. Then what was known of it before
    /// must not lead a reader to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) login: bool,
    /// How long the browser keeps the cookie: `persistent` or `browser`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
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

const PERSISTENT: &str = "persistent";
const BROWSER_SESSION: &str = "browser";

impl Meta {
    /// A choice of a later version of this crate counts as none.
    pub(crate) fn cookie_lifetime(&self) -> Option<CookieLifetime> {
        match self.cookie.as_deref()? {
            PERSISTENT => Some(CookieLifetime::Persistent),
            BROWSER_SESSION => Some(CookieLifetime::BrowserSession),
            _ => None,
        }
    }

    pub(crate) fn set_cookie_lifetime(&mut self, lifetime: Option<CookieLifetime>) {
        self.cookie = lifetime.map(|lifetime| {
            let name = match lifetime {
                CookieLifetime::Persistent => PERSISTENT,
                CookieLifetime::BrowserSession => BROWSER_SESSION,
            };
            name.to_owned()
        });
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
        Self::forwarding_to(NOWHERE, false)
    }

    /// The row that a session leaves under its old id when it gets a new one, and
    /// perhaps another user.
    pub(crate) fn forwarding_to(successor: &str, login: bool) -> Self {
        let mut document = Self::default();
        document.set_meta(&Meta {
            successor: Some(successor.to_owned()),
            login,
            ..Meta::default()
        });
        document
    }
}

/// # Errors
///
/// For the member that belongs to this crate.
pub(crate) fn check_key(key: &str) -> Result<(), Error> {
    match key {
        RESERVED => Err(Error::new(
            ErrorKind::ReservedKey,
            "the key _session is kept for what the session knows of itself",
        )),
        _ => Ok(()),
    }
}

fn is_kept(key: &str, own: Option<&str>) -> bool {
    key == RESERVED || Some(key) == own
}

/// Of an object's text.
const BRACES: usize = 2;

/// What a member adds to the text, if every octet of its name needs an escape.
pub(crate) fn member_at_most(key: &str, value: &Json) -> usize {
    key.len() * 6 + value.get().len() + 4
}

#[cfg(test)]
mod tests;
