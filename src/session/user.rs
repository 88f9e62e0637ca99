//! Who is signed in to a session.

use std::time::Duration;

use super::Session;
use crate::{Error, Expiry, Login};

impl Session {
    /// Signs a user in: all that a login needs, in one transaction when the
    /// session is saved.
    ///
    /// - The session gets a new id, so that a token that somebody planted or
    ///   saw before opens nothing afterwards (ASVS 5.0 item 7.2.4), as by
    ///   [`cycle_id`](Self::cycle_id). An answer of 5xx leaves the old one.
    /// - It belongs to the user: [`PgSessionStore::user`] lists and ends it,
    ///   and [`max_sessions_per_user`] counts it.
    /// - Its clocks start anew: idle and absolute timeout, and
    ///   [`authenticated_within`](Self::authenticated_within).
    /// - What an anonymous session holds stays, such as a basket, or goes by
    ///   [`Login::drop_data`]. What another user left always goes.
    ///
    /// Call it also when a user signs in again, such as before a sensitive
    /// step, and [`cycle_id`](Self::cycle_id) at every other change of
    /// privilege. Checking the password is the application's part.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::Request, routing::post};
    /// use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};
    /// use tower::ServiceExt;
    ///
    /// async fn sign_in(session: Session) -> Result<(), Error> {
    ///     // The password was right.
    ///     session.login("alice")?;
    ///     assert_eq!(session.user_id().as_deref(), Some("alice"));
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let app = Router::new().route("/", post(sign_in)).layer(PgSessionLayer::new(store.clone()));
    /// let response = app.oneshot(Request::post("/").body(Body::empty())?).await?;
    /// assert!(response.status().is_success());
    /// assert_eq!(store.user("alice").count().await?, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](crate::ErrorKind::Setup) where the table lacks a
    /// column that the login needs, [`Serialize`](crate::ErrorKind::Serialize)
    /// for a user's id that is empty, too long or holds U+0000 or U+001F, and
    /// [`ResponseStarted`](crate::ErrorKind::ResponseStarted) when it is too
    /// late. Where as many sessions as allowed exist, and the choice is to
    /// [refuse](crate::AtLimit::Refuse), [`save`](Self::save) answers
    /// [`SessionLimit`](crate::ErrorKind::SessionLimit).
    ///
    /// [`PgSessionStore::user`]: crate::PgSessionStore::user
    /// [`max_sessions_per_user`]: crate::PgSessionStore::max_sessions_per_user
    pub fn login(&self, login: impl Into<Login>) -> Result<(), Error> {
        let login = login.into();
        login.check()?;
        let mut state = self.open_state()?;
        self.store().format().layout().check(login.end())?;
        self.store().check_login(&login)?;
        state.log_in(login.in_realm(self.store().own_realm()))
    }

    /// Signs the user out: ends the session as [`destroy`](Self::destroy)
    /// does, and asks the browser to forget what
    /// [`clear_site_data`](crate::PgSessionLayer::clear_site_data) names.
    ///
    /// The response is sent when the row is deleted and committed; if that
    /// fails it is a 503, whatever the handler answered.
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](crate::ErrorKind::ResponseStarted) when it
    /// is too late.
    pub fn logout(&self) -> Result<(), Error> {
        self.open_state()?.log_out();
        Ok(())
    }

    /// Who is signed in, by [`login`](Self::login) in this request or before.
    #[must_use]
    pub fn user_id(&self) -> Option<String> {
        let state = self.state();
        let user = state.user()?;
        Some(self.store().own_realm().id_of(user).to_owned())
    }

    /// Whether the user signed in, or signed in again, no longer ago than
    /// this at the moment of the call; `false` for a session without a user.
    ///
    /// Ask it before a sensitive step, such as a change of the password, and
    /// let the user sign in again if it says no (ASVS 5.0 items 7.5.1 and
    /// 7.5.3). A session that is used does not make it younger, only
    /// [`login`](Self::login) does. Where the table lacks the column `created`
    /// nobody knows, so it is `false`, but for the request of the login.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_pg_session::Session;
    ///
    /// async fn change_password(session: Session) -> &'static str {
    ///     match session.authenticated_within(Duration::from_secs(5 * 60)) {
    ///         true => "your new password, please",
    ///         false => "your old password, please",
    ///     }
    /// }
    /// # let _ = change_password;
    /// ```
    #[must_use]
    pub fn authenticated_within(&self, duration: Duration) -> bool {
        let now = self.store().now();
        let age = self.state().age_of_login(now);
        age.is_some_and(|age| age <= duration.as_secs_f64())
    }

    pub(super) fn check_expiry(&self, expiry: Expiry) -> Result<(), Error> {
        self.store().format().layout().check(expiry)?;
        self.store().check_expiry(expiry)
    }
}
