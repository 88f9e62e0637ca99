//! Passwords, of which only slow hashes are kept.

use std::sync::Arc;

use argon2::{
    Argon2,
    password_hash::{self, PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task};

use crate::error::Failure;

/// Each takes 19 MiB and a processor for a while.
const MAX_AT_ONCE: usize = 4;

/// Hashes passwords and compares them, away from the threads that serve.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    places: Arc<Semaphore>,
    /// Of a password that nobody knows.
    nobodys: Arc<str>,
}

impl Passwords {
    pub(crate) async fn new() -> Result<Self, Failure> {
        let mut unknown = [0; 32];
        getrandom::fill(&mut unknown).map_err(|error| error.to_string())?;
        let nobodys = task::spawn_blocking(move || hash(&unknown)).await??;
        Ok(Self {
            places: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            nobodys: nobodys.into(),
        })
    }

    pub(crate) async fn hash(&self, password: String) -> Result<String, Failure> {
        let _place = self.places.acquire().await;
        Ok(task::spawn_blocking(move || hash(password.as_bytes())).await??)
    }

    /// Takes as long where there is no such user, so that the time of an
    /// response does not tell who has an account.
    pub(crate) async fn verify(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, Failure> {
        let _place = self.places.acquire().await;
        let is_known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.nobodys.to_string());
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
