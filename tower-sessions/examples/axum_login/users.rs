//! The users, and what they may do.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
};

use argon2::{
    Argon2,
    password_hash::{self, PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use axum_login::{AuthUser, AuthnBackend, AuthzBackend};
use serde::Deserialize;

#[derive(Clone, Debug)]
pub(crate) struct User {
    id: i64,
    pub(crate) name: String,
    password_hash: String,
    permissions: HashSet<&'static str>,
}

impl AuthUser for User {
    type Id = i64;

    fn id(&self) -> i64 {
        self.id
    }

    /// A new password signs out every session of the user. It is stored with the session, so
    /// a site may rather use a digest of it.
    fn session_auth_hash(&self) -> &[u8] {
        self.password_hash.as_bytes()
    }
}

#[derive(Clone, Deserialize)]
pub(crate) struct Credentials {
    name: String,
    password: String,
    pub(crate) next: Option<String>,
}

/// In memory, where a site would have a table.
#[derive(Clone, Debug)]
pub(crate) struct Users(Arc<HashMap<i64, User>>);

impl Users {
    pub(crate) fn with(
        users: &[(&str, &str, &[&'static str])],
    ) -> Result<Self, password_hash::Error> {
        let users = (1..).zip(users).map(|(id, (name, password, permissions))| {
            let user = User {
                id,
                name: (*name).to_owned(),
                password_hash: Argon2::default()
                    .hash_password(password.as_bytes())?
                    .to_string(),
                permissions: permissions.iter().copied().collect(),
            };
            Ok::<_, password_hash::Error>((id, user))
        });
        Ok(Self(Arc::new(
            users.collect::<Result<_, password_hash::Error>>()?,
        )))
    }

    fn verified(&self, credentials: &Credentials) -> Option<User> {
        let mut users = self.0.values();
        let user = users.find(|user| user.name == credentials.name)?;
        let hash = PasswordHash::new(&user.password_hash).ok()?;
        let verified = Argon2::default().verify_password(credentials.password.as_bytes(), &hash);
        verified.ok().map(|()| user.clone())
    }
}

impl AuthnBackend for Users {
    type User = User;
    type Credentials = Credentials;
    type Error = Infallible;

    async fn authenticate(&self, credentials: Credentials) -> Result<Option<User>, Infallible> {
        let users = self.clone();
        // A password takes long enough to hold up other requests of this thread.
        let verifying = tokio::task::spawn_blocking(move || users.verified(&credentials));
        Ok(verifying.await.expect("no panic"))
    }

    async fn get_user(&self, id: &i64) -> Result<Option<User>, Infallible> {
        Ok(self.0.get(id).cloned())
    }
}

impl AuthzBackend for Users {
    type Permission = &'static str;

    async fn get_user_permissions(&self, user: &User) -> Result<HashSet<&'static str>, Infallible> {
        Ok(user.permissions.clone())
    }
}
