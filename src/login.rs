//! The options of a login, and the limit of sessions per user. This module only holds
//! them: the state records a login, and the store executes it.

use std::{fmt, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::{CookieLifetime, Error, ErrorKind, Expiry, realm::BEFORE_USER};

/// The most characters of each text of a device. The longest user agents of browsers
/// have about 250.
const MAX_CHARS: usize = 256;
/// The most bytes of a user's id. An index of Postgres accepts 2,704.
const MAX_USER_ID: usize = 1024;

/// A login of a user, for [`Session::login`](crate::Session::login). A string is a login
/// without options.
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
    external_id: Option<String>,
    expiry: Option<Expiry>,
    lifetime: Option<CookieLifetime>,
    keeps_settings: bool,
    ends_others: bool,
    pub(crate) data: Data,
}

/// Whether a login keeps the session's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Stays,
    IsDropped,
}

impl Login {
    /// Creates a login of this user. By default, it keeps the data of an anonymous
    /// session, and the layer's timeouts apply. The settings of an earlier login are dropped,
    /// unless you call [`keep_settings`](Self::keep_settings).
    ///
    /// The id must identify the user permanently. It has 1 to 1,024 bytes, without U+0000
    /// and U+001F.
    pub fn new(user_id: impl Into<String>) -> Self {
        Self {
            user_id: user_id.into(),
            device: None,
            external_id: None,
            expiry: None,
            lifetime: None,
            keeps_settings: false,
            ends_others: false,
            data: Data::Stays,
        }
    }

    /// Stores a description of the visitor's device with the session, for the list of the
    /// user's sessions. Default: none.
    ///
    /// It is personal data. It is copied when the session gets a new id, and deleted only
    /// with the session.
    #[must_use]
    pub fn device(self, device: Device) -> Self {
        Self {
            device: Some(device),
            ..self
        }
    }

    /// Stores the id that another system has for this session, such as the `sid` of an OpenID
    /// Connect provider. [`PgSessionStore::external`] finds the sessions with this id, for
    /// the provider's back-channel logout. Default: none, even after an earlier login.
    ///
    /// It has 1 to 1,024 bytes, without U+0000 and U+001F. Several sessions may have the same
    /// one. It needs the column `external_id` (migration 0006).
    ///
    /// ```
    /// use axum_pg_session::{Login, PgSessionLayer, PgSessionStore, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let ada = TestVisitor::new(&PgSessionLayer::new(store.clone()));
    /// ada.with_session(|session| session.login(Login::new("ada").external_id("sid-1"))).await?;
    /// assert_eq!(store.external("sid-1").destroy_all().await?, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// [`PgSessionStore::external`]: crate::PgSessionStore::external
    #[must_use]
    pub fn external_id(self, external_id: impl Into<String>) -> Self {
        Self {
            external_id: Some(external_id.into()),
            ..self
        }
    }

    /// Sets when this session expires, for example later for a visitor who chooses "remember
    /// me". Default: the layer's timeouts, even after an earlier
    /// [`set_expiry`](crate::Session::set_expiry).
    #[must_use]
    pub fn expiry(self, expiry: Expiry) -> Self {
        Self {
            expiry: Some(expiry),
            ..self
        }
    }

    /// Sets how long the browser keeps the cookie of this session, for example longer for a
    /// visitor who chooses "remember me". Default: the layer's
    /// [`cookie_lifetime`](crate::PgSessionLayer::cookie_lifetime), even after an earlier
    /// [`set_cookie_lifetime`](crate::Session::set_cookie_lifetime).
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

    /// Keeps the device, the external id, the expiry and the cookie's lifetime of the session
    /// if this user is already signed in. Default: they are dropped.
    ///
    /// Call this when a user enters the password again, for example before it is changed.
    /// Without it, a user who chose "remember me" is not remembered any more, and the list of
    /// the user's sessions has no device. What you set on this login replaces the earlier
    /// setting. If no user or another one is signed in, it has no effect.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::Request, routing::post};
    /// use axum_pg_session::{
    ///     Device, Error, Login, PgSessionLayer, PgSessionStore, Session, testing::TestVisitor,
    /// };
    ///
    /// async fn password_changed(session: Session) -> Result<(), Error> {
    ///     session.login(Login::new("ada").keep_settings().end_others())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store.clone());
    /// let ada = TestVisitor::new(&layer);
    /// let device = Device::new().with_label("my phone");
    /// ada.with_session(|session| session.login(Login::new("ada").device(device.clone()))).await?;
    ///
    /// let app = Router::new().route("/", post(password_changed)).layer(layer);
    /// ada.send(&app, Request::post("/").body(Body::empty())?).await?;
    /// let sessions = store.user("ada").list().await?;
    /// assert_eq!(sessions[0].device(), Some(&device));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn keep_settings(self) -> Self {
        Self {
            keeps_settings: true,
            ..self
        }
    }

    /// Drops the session's data, including inserts of this request before the login.
    /// Default: the data stays, such as a basket, unless another user was signed in. The
    /// data of another user is always dropped.
    #[must_use]
    pub fn discard_data(self) -> Self {
        Self {
            data: Data::IsDropped,
            ..self
        }
    }

    /// Destroys all other sessions of the user, in the transaction of the login.
    /// Default: they stay.
    ///
    /// Call this when a user signs in after a password reset, or enters the password again
    /// before it is changed (ASVS 5.0 item 7.4.3). When the response is sent, the new
    /// session is the only one. If the login fails, or the response is a 5xx or a 408, no
    /// session is destroyed.
    ///
    /// There is one exception: if the user has 1,000 or more other sessions, or their deletion
    /// takes longer than a quarter of a second, they are deleted in batches before the login.
    /// Then they stay deleted if the login fails.
    ///
    /// A later login of the same user in the same request keeps this setting, unless a
    /// `destroy` or `logout` in between discards this login.
    ///
    /// A session has a new id after a login, so without this call it takes two requests to
    /// destroy the others: [`UserSessions::destroy_others`] needs the id of a session that
    /// is already stored.
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

    /// Returns the id of the user.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    pub(crate) fn external(&self) -> Option<&str> {
        self.external_id.as_deref()
    }

    pub(crate) fn end(&self) -> Option<Expiry> {
        self.expiry
    }

    pub(crate) fn keeps_settings(&self) -> bool {
        self.keeps_settings
    }

    /// Without the settings of the session, which belongs to another user or to none.
    pub(crate) fn without_settings(self) -> Self {
        Self {
            keeps_settings: false,
            ..self
        }
    }

    /// Follows a login of the same request and the same user that was not executed.
    pub(crate) fn after(self, pending: &Self) -> Self {
        let kept = self.keeps_settings.then_some(pending);
        Self {
            ends_others: self.ends_others || pending.ends_others,
            device: self.device.or_else(|| kept?.device.clone()),
            external_id: self.external_id.or_else(|| kept?.external_id.clone()),
            keeps_settings: self.keeps_settings && pending.keeps_settings,
            ..self
        }
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
    /// If the user's id or the external id can't be stored.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !is_storable(&self.user_id) {
            return Err(Error::new(
                ErrorKind::Serialize,
                "the id of a user has 1 to 1,024 bytes, none of them U+0000 or U+001F",
            ));
        }
        if !self.external().is_none_or(is_storable) {
            return Err(Error::new(
                ErrorKind::Serialize,
                "an external id has 1 to 1,024 bytes, none of them U+0000 or U+001F",
            ));
        }
        Ok(())
    }

    /// Replaces the ids with those that are stored.
    pub(crate) fn with_ids(
        self,
        user: impl FnOnce(&str) -> String,
        external: impl FnOnce(&str) -> String,
    ) -> Self {
        Self {
            user_id: user(&self.user_id),
            external_id: self.external_id.as_deref().map(external),
            ..self
        }
    }
}

fn is_storable(id: &str) -> bool {
    (1..=MAX_USER_ID).contains(&id.len()) && !id.contains(['\0', BEFORE_USER])
}

impl fmt::Debug for Login {
    /// Omits the device, because it is personal data.
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

/// A description of the device that a user signed in with, so that users recognize it in a
/// list of their sessions.
///
/// It is personal data, and the client can send any text. The first 256 characters of each
/// text are stored, without control characters.
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
    /// Creates an empty description.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the user agent, from the header `User-Agent`.
    #[must_use]
    pub fn with_user_agent(self, user_agent: impl AsRef<str>) -> Self {
        Self {
            user_agent: Some(kept(user_agent.as_ref())),
            ..self
        }
    }

    /// Sets the client's address, or a place that was derived from it.
    #[must_use]
    pub fn with_address(self, address: impl AsRef<str>) -> Self {
        Self {
            address: Some(kept(address.as_ref())),
            ..self
        }
    }

    /// Sets the name that the user or the application gave to the device.
    #[must_use]
    pub fn with_label(self, label: impl AsRef<str>) -> Self {
        Self {
            label: Some(kept(label.as_ref())),
            ..self
        }
    }

    /// Returns the user agent, if there is one.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// Returns the address, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// Returns the label, if there is one.
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

/// What happens when a user with the maximum number of sessions signs in, for
/// [`PgSessionStore::max_sessions_per_user`](crate::PgSessionStore::max_sessions_per_user).
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
    /// The sessions with the oldest logins are destroyed.
    EndOldest,
    /// The login is refused: [`Session::save`](crate::Session::save) returns an error, or
    /// the response is a 403. All changes of the request are dropped.
    Refuse,
}

/// The maximum number of sessions of a user, and the policy at the limit.
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
        assert!(
            Login::new("u")
                .external_id("s".repeat(1024))
                .check()
                .is_ok()
        );
        for external_id in ["", "a\0b", "a\u{1f}b"] {
            let login = Login::new("u").external_id(external_id);
            let error = login.check().expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Serialize);
        }
    }
}
