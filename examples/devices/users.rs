//! The accounts, in a table of the site.

use serde::Deserialize;
use sqlx::PgPool;

use crate::{
    error::{Failure, PageError},
    passwords::Passwords,
};

/// On a real site, this is a migration.
const CREATE_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS account (
        name text PRIMARY KEY,
        password_hash text NOT NULL
    )";
const MAX_NAME: usize = 32;
/// NIST SP 800-63B requires at least eight characters, and advises against other rules.
const MIN_PASSWORD: usize = 8;
const MAX_PASSWORD: usize = 256;

/// The input of a form. It has no `Debug`, so that no log contains it.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    name: String,
    password: String,
}

/// Why an account or a password was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Name,
    NameTaken,
    Password,
}

#[derive(Clone, Debug)]
pub(crate) struct Users {
    pool: PgPool,
    passwords: Passwords,
}

impl Credentials {
    /// The name as it is stored, in lower case, because users don't remember the case.
    pub(crate) fn name(&self) -> String {
        self.name.trim().to_lowercase()
    }
}

impl Refusal {
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Name => "A name has 1 to 32 letters and digits.",
            Self::NameTaken => "This name is taken.",
            Self::Password => "A password has 8 to 256 characters.",
        }
    }
}

impl Users {
    pub(crate) async fn new(pool: PgPool) -> Result<Self, Failure> {
        sqlx::query(CREATE_TABLE).execute(&pool).await?;
        let passwords = Passwords::new().await?;
        Ok(Self { pool, passwords })
    }

    pub(crate) async fn sign_up(
        &self,
        credentials: Credentials,
    ) -> Result<Result<(), Refusal>, PageError> {
        let name = credentials.name();
        if !is_name(&name) {
            return Ok(Err(Refusal::Name));
        }
        if !is_password(&credentials.password) {
            return Ok(Err(Refusal::Password));
        }
        let hash = self.passwords.hash(credentials.password).await?;
        let sql =
            "INSERT INTO account (name, password_hash) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let inserted = sqlx::query(sql)
            .bind(name)
            .bind(hash)
            .execute(&self.pool)
            .await?;
        Ok(match inserted.rows_affected() {
            0 => Err(Refusal::NameTaken),
            _ => Ok(()),
        })
    }

    /// Whether an account has this name and password.
    pub(crate) async fn verify(&self, credentials: Credentials) -> Result<bool, PageError> {
        let name = credentials.name();
        self.is_password_of(&name, credentials.password).await
    }

    pub(crate) async fn is_password_of(
        &self,
        name: &str,
        password: String,
    ) -> Result<bool, PageError> {
        let stored = sqlx::query_scalar("SELECT password_hash FROM account WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        Ok(self.passwords.verify(password, stored).await?)
    }

    pub(crate) async fn change_password(
        &self,
        name: &str,
        password: String,
    ) -> Result<Result<(), Refusal>, PageError> {
        if !is_password(&password) {
            return Ok(Err(Refusal::Password));
        }
        let hash = self.passwords.hash(password).await?;
        sqlx::query("UPDATE account SET password_hash = $2 WHERE name = $1")
            .bind(name)
            .bind(hash)
            .execute(&self.pool)
            .await?;
        Ok(Ok(()))
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.chars().count()) && name.chars().all(char::is_alphanumeric)
}

fn is_password(password: &str) -> bool {
    (MIN_PASSWORD..=MAX_PASSWORD).contains(&password.chars().count())
}
