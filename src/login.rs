//! What an application says of a login, and how many sessions a user may have.

use std::{fmt, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::{
    CookieLifetime, Error, ErrorKind, Expiry,
    realm::{BEFORE_USER, Realm},
};

/// Characters that are kept of each thing that is remembered of a device: the
/// longest user agents of browsers have about 250.
const MAX_CHARS: usize = 256;
/// Octets of a user's id: an index of Postgres takes no more than 2,704.
const MAX_USER_ID: usize = 1024;

/// Somebody signs in, for [`Session::login`](crate::Session::login). A string
/// is a login too, without any of the options.
///
/// ```
/// use std::time::Duration;
/// use axum_pg_session::{Device, Error, Expiry, Login, Session};
///
/// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
///
/// fn remember_me(session: &Session, user_id: &str, user_agent: &str) -> Result<(), Error> {
///     let login = Login::new(user_id)
///         .device(Device::new().with_user_agent(user_agent))
///         .expiry(Expiry::Timeouts { idle: 30 * DAY, absolute: 365 * DAY });
///     session.login(login)
/// }
/// # assert_eq!(Login::new("alice").user_id(), "alice");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user_id: String,
    device: Option<Device>,
    expiry: Expiry,
    lifetime: Option<CookieLifetime>,
    ends_others: bool,
    pub(crate) data: Data,
}

/// What becomes of the session's values at a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Stays,
    IsDropped,
}

impl Login {
    /// A login of this user, which keeps what an anonymous session holds and
    /// ends as the layer says.
    ///
    /// The id is whatever the application knows its users by and never changes:
    /// one to 1,024 bytes, without U+0000 and U+001F.
    pub fn new(user_id: impl Into<String>) -> Self {
        Self {
            user_id: user_id.into(),
            device: None,
            expiry: Expiry::Default,
            lifetime: None,
            ends_others: false,
            data: Data::Stays,
        }
    }

    /// What is remembered of the visitor's device, for the list of the user's
    /// sessions. Default: nothing.
    ///
    /// It is personal data: it is deleted with the session, and copied when the
    /// session gets a new id, but nobody else deletes it.
    #[must_use]
    pub fn device(self, device: Device) -> Self {
        Self {
            device: Some(device),
            ..self
        }
    }

    /// When this session ends, such as later for a visitor who asks to be
    /// remembered. Default: as the layer says, whatever an earlier
    /// [`set_expiry`](crate::Session::set_expiry) said.
    #[must_use]
    pub fn expiry(self, expiry: Expiry) -> Self {
        Self { expiry, ..self }
    }

    /// How long the browser keeps the cookie of this session, such as only for
    /// the visitor who asks to be remembered. Default: as the layer's
    /// [`cookie_lifetime`](crate::PgSessionLayer::cookie_lifetime) says,
    /// whatever an earlier
    /// [`set_cookie_lifetime`](crate::Session::set_cookie_lifetime) said.
    ///
    /// The choice is stored with the session, so later extensions keep it.
    ///
    /// ```
    /// use axum_pg_session::{CookieLifetime, Error, Login, Session};
    ///
    /// fn sign_in(session: &Session, user_id: &str, remember_me: bool) -> Result<(), Error> {
    ///     let lifetime = match remember_me {
    ///         true => CookieLifetime::Persistent,
    ///         false => CookieLifetime::BrowserSession,
    ///     };
    ///     session.login(Login::new(user_id).cookie_lifetime(lifetime))
    /// }
    /// # assert_eq!(Login::new("alice").user_id(), "alice");
    /// ```
    #[must_use]
    pub fn cookie_lifetime(self, lifetime: CookieLifetime) -> Self {
        Self {
            lifetime: Some(lifetime),
            ..self
        }
    }

    /// Drops what the session holds, also what this request inserted before the
    /// login. Default: it stays, such as a basket, unless another user was
    /// signed in: nobody gets the data of another user.
    #[must_use]
    pub fn discard_data(self) -> Self {
        Self {
            data: Data::IsDropped,
            ..self
        }
    }

    /// Ends all other sessions of the user, in the transaction of the login.
    /// Default: they stay.
    ///
    /// Call this when a user signs in after a reset of the password, or proves
    /// the password again before it is changed (ASVS 5.0 item 7.4.3). When the
    /// response is sent, the new session is the only one. If the login fails,
    /// or the response is a 5xx, no session is ended. The exception: 1,000 or more
    /// other sessions are ended in batches before the login, and stay ended if it
    /// fails. A later login of the same user in the same request ends them, too.
    ///
    /// A session has a new id after a login, so ending the others separately
    /// takes two requests: [`UserSessions::destroy_others`] needs the id of a
    /// session that is stored already.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::Request, routing::post};
    /// use axum_pg_session::{
    ///     Error, Login, PgSessionLayer, PgSessionStore, Session, testing::TestVisitor,
    /// };
    ///
    /// async fn reset_password(session: Session) -> Result<(), Error> {
    ///     // The link from the mail was right, and the new password is stored.
    ///     session.login(Login::new("ada").end_others())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store);
    /// let (desk, phone) = (TestVisitor::new(&layer), TestVisitor::new(&layer));
    /// desk.with_session(|session| session.login("ada")).await?;
    ///
    /// let app = Router::new().route("/reset", post(reset_password)).layer(layer);
    /// phone.send(&app, Request::post("/reset").body(Body::empty())?).await?;
    /// assert!(desk.session().await?.is_new());
    /// assert_eq!(phone.session().await?.user_id().as_deref(), Some("ada"));
    /// # Ok(()) }
    /// ```
    ///
    /// [`UserSessions::destroy_others`]: crate::UserSessions::destroy_others
    #[must_use]
    pub fn end_others(self) -> Self {
        Self {
            ends_others: true,
            ..self
        }
    }

    /// Who signs in.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    pub(crate) fn end(&self) -> Expiry {
        self.expiry
    }

    pub(crate) fn lifetime(&self) -> Option<CookieLifetime> {
        self.lifetime
    }

    pub(crate) fn ends_others(&self) -> bool {
        self.ends_others
    }

    pub(crate) fn has_device(&self) -> bool {
        self.device.is_some()
    }

    /// The device as it is stored.
    pub(crate) fn device_text(&self) -> Option<String> {
        let device = self.device.as_ref()?;
        Some(serde_json::to_string(device).expect("text is JSON"))
    }

    /// # Errors
    ///
    /// When the user's id can't be stored.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let length = self.user_id.len();
        if length == 0 || length > MAX_USER_ID || self.user_id.contains(['\0', BEFORE_USER]) {
            return Err(Error::new(
                ErrorKind::Serialize,
                "the id of a user has 1 to 1,024 bytes, none of them U+0000 or U+001F",
            ));
        }
        Ok(())
    }

    /// Of the user as it is stored.
    pub(crate) fn in_realm(self, realm: &Realm) -> Self {
        Self {
            user_id: realm.user(&self.user_id),
            ..self
        }
    }
}

impl fmt::Debug for Login {
    /// Without what is remembered of the device, which is personal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user_id", &self.user_id)
            .field("expiry", &self.expiry)
            .field("data", &self.data)
            .field("ends_others", &self.ends_others)
            .finish_non_exhaustive()
    }
}

impl From<String> for Login {
    fn from(user_id: String) -> Self {
        Self::new(user_id)
    }
}

impl From<&String> for Login {
    fn from(user_id: &String) -> Self {
        Self::new(user_id)
    }
}

impl From<&str> for Login {
    fn from(user_id: &str) -> Self {
        Self::new(user_id)
    }
}

/// What an application chose to remember of the device that a user signed in
/// with: so much that users know it again in a list of their sessions.
///
/// All of it is personal data, and what a visitor sent is not proved by being
/// stored. Of each text the first 256 characters are kept, without control
/// characters.
///
/// ```
/// use axum_pg_session::Device;
///
/// let device = Device::new().with_label("my phone").with_address("192.0.2.7");
/// assert_eq!(device.label(), Some("my phone"));
/// assert_eq!(device.user_agent(), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, Hash)]
#[serde(default)]
pub struct Device {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
}

impl Device {
    /// Nothing remembered yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the browser calls itself, from the header `User-Agent`.
    #[must_use]
    pub fn with_user_agent(self, user_agent: impl AsRef<str>) -> Self {
        Self {
            user_agent: Some(kept(user_agent.as_ref())),
            ..self
        }
    }

    /// Where the visitor came from: an address, or a place that was found by
    /// it.
    #[must_use]
    pub fn with_address(self, address: impl AsRef<str>) -> Self {
        Self {
            address: Some(kept(address.as_ref())),
            ..self
        }
    }

    /// A name that the user or the application gave to the device.
    #[must_use]
    pub fn with_label(self, label: impl AsRef<str>) -> Self {
        Self {
            label: Some(kept(label.as_ref())),
            ..self
        }
    }

    /// What [`user_agent`](Self::user_agent) was given, if anything.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// What [`address`](Self::address) was given, if anything.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// What [`label`](Self::label) was given, if anything.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }
}

fn kept(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(MAX_CHARS)
        .collect()
}

/// What happens when somebody signs in who has as many sessions as allowed,
/// for [`PgSessionStore::max_sessions_per_user`](crate::PgSessionStore::max_sessions_per_user).
///
/// ```
/// use std::num::NonZeroU32;
/// use axum_pg_session::{SessionLimitPolicy, ErrorKind, PgSessionLayer, PgSessionStore, testing::TestVisitor};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// let store = store.max_sessions_per_user(NonZeroU32::MIN, SessionLimitPolicy::Refuse);
/// let layer = PgSessionLayer::new(store);
/// let (desk, phone) = (TestVisitor::new(&layer), TestVisitor::new(&layer));
/// desk.with_session(|session| session.login("ada")).await?;
///
/// let refused = phone.with_session(|session| session.login("ada")).await;
/// assert_eq!(refused.unwrap_err().kind(), ErrorKind::SessionLimit);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionLimitPolicy {
    /// The sessions end that were signed in longest ago.
    EndOldest,
    /// The login is refused: [`Session::save`](crate::Session::save), or the
    /// response with 403. All that the request did to its session is dropped.
    Refuse,
}

/// How many sessions a user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionLimit {
    pub(crate) sessions: NonZeroU32,
    pub(crate) at_limit: SessionLimitPolicy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_device_is_bounded() {
        let device = Device::new()
            .with_user_agent("ü".repeat(10_000))
            .with_label("a\n\0b");
        let login = Login::new("alice").device(device.clone());
        let text = login.device_text().expect("a device");
        assert!(text.len() < 700, "{}", text.len());
        assert_eq!(serde_json::from_str::<Device>(&text).expect("JSON"), device);
        assert_eq!(device.label(), Some("ab"));
        assert!(!format!("{login:?}").contains('ü'));
    }

    #[test]
    fn a_user_needs_an_id_that_can_be_stored() {
        assert!(Login::new("u".repeat(1024)).check().is_ok());
        for user_id in [
            String::new(),
            "u".repeat(1025),
            "a\0b".into(),
            "a\u{1f}b".into(),
        ] {
            let error = Login::new(user_id).check().expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Serialize);
        }
    }
}
