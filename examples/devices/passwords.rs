//! Passwords, which are stored as slow hashes.

use std::sync::Arc;

use argon2::{
    Argon2,
    password_hash::{self, PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task};

use crate::error::Failure;

/// Each hash takes 19 MiB and some CPU time.
const MAX_AT_ONCE: usize = 4;

/// Hashes passwords and compares them, on threads that handle no requests.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    places: Arc<Semaphore>,
    /// The hash of a random password, for names without an account.
    unknown: Arc<str>,
}

impl Passwords {
    pub(crate) async fn new() -> Result<Self, Failure> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let unknown = task::spawn_blocking(move || hash(&random)).await??;
        Ok(Self {
            places: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            unknown: unknown.into(),
        })
    }

    pub(crate) async fn hash(&self, password: String) -> Result<String, Failure> {
        let _place = self.places.acquire().await;
        Ok(task::spawn_blocking(move || hash(password.as_bytes())).await??)
    }

    /// Takes equally long if there is no such user, so that the time doesn't reveal who has an
    /// account.
    pub(crate) async fn verify(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, Failure> {
        let _place = self.places.acquire().await;
        let is_known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.unknown.to_string());
        let is_right = task::spawn_blocking(move || verify(&password, &stored)).await??;
        Ok(is_right && is_known)
    }
}

fn hash(password: &[u8]) -> Result<String, password_hash::Error> {
    let hash = Argon2::default().hash_password(password)?;
    Ok(hash.to_string())
}

fn verify(password: &str, stored: &str) -> Result<bool, password_hash::Error> {
    let stored = PasswordHash::new(stored)?;
    match Argon2::default().verify_password(password.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(error),
    }
}
