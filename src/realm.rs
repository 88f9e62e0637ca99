//! The realm: the area of a site that a session belongs to. It does no I/O.
//!
//! A token must not open a session in another area, even if a client sends it under
//! another cookie name. A user of one area is not the user with the same id in another
//! one. So the row's id is a digest of the cookie's name and the token, and the realm's
//! name precedes that digest and the user's id.

use std::sync::Arc;

use crate::{Error, ErrorKind};

/// Separates a realm's name from the digest of a token.
const BEFORE_DIGEST: char = ':';
/// Separates a realm's name from the id of a user, which can't contain it.
pub(crate) const BEFORE_USER: char = '\u{1f}';
const MAX_NAME: usize = 63;

/// The area that a store, or the layer that uses it, works in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Realm {
    pub(crate) name: Option<Arc<str>>,
    /// The cookie name of the layer; empty for a store that the application calls
    /// itself, which handles no tokens.
    pub(crate) cookie_name: Arc<str>,
}

impl Realm {
    /// # Errors
    ///
    /// If the name can't precede an id.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_valid = |name: &str| {
            (1..=MAX_NAME).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        match self.name.as_deref().filter(|name| !is_valid(name)) {
            None => Ok(()),
            Some(name) => Err(Error::new(
                ErrorKind::Setup,
                format!(
                    "invalid realm {name:?}; use 1 to 63 ASCII letters, digits, `-`, `.` or `_`"
                ),
            )),
        }
    }

    /// The id of the row with this digest.
    pub(crate) fn row(&self, digest: &str) -> String {
        self.with_prefix(BEFORE_DIGEST, digest)
    }

    /// The digest in a row's id, in any realm.
    pub(crate) fn digest_of(row: &str) -> &str {
        row.rsplit_once(BEFORE_DIGEST)
            .map_or(row, |(_, digest)| digest)
    }

    /// The user's id with the realm, as it is stored. An id with the separator, which no
    /// login accepts, gets an empty realm name. No realm has one, so it matches no user.
    pub(crate) fn user(&self, id: &str) -> String {
        match id.contains(BEFORE_USER) {
            true => format!("{BEFORE_USER}{id}"),
            false => self.with_prefix(BEFORE_USER, id),
        }
    }

    /// The user's id without the realm.
    pub(crate) fn id_of<'u>(&self, user: &'u str) -> &'u str {
        let own = self.name.as_deref();
        own.and_then(|name| user.strip_prefix(name)?.strip_prefix(BEFORE_USER))
            .unwrap_or(user)
    }

    fn with_prefix(&self, separator: char, text: &str) -> String {
        match &self.name {
            Some(name) => format!("{name}{separator}{text}"),
            None => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm(name: &str) -> Realm {
        Realm {
            name: Some(name.into()),
            ..Realm::default()
        }
    }

    #[test]
    fn no_user_of_one_realm_is_a_user_of_another() {
        let (none, admin) = (Realm::default(), realm("admin"));
        assert_eq!(none.user("1"), "1");
        let stored = admin.user("1");
        assert_eq!(admin.id_of(&stored), "1");
        for other in [
            none.user(&stored),
            realm("a").user("dmin\u{1f}1"),
            none.user("1"),
        ] {
            assert_ne!(other, stored);
        }
    }

    #[test]
    fn a_name_that_could_be_taken_for_another_is_refused() {
        for name in ["", "a:b", "a\u{1f}b", "ä", "a b", &"a".repeat(64)] {
            assert!(realm(name).check().is_err(), "{name:?}");
        }
        for name in ["admin", "shop-2.eu_1", &"a".repeat(63)] {
            assert!(realm(name).check().is_ok(), "{name:?}");
        }
        assert!(Realm::default().check().is_ok());
    }
}
