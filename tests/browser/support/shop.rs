//! `examples/devices`, as visitors run it.

use std::process::ExitStatus;

use dev_postgres::TestDatabase;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Chromium, Example, Profile};

const PASSWORD: &str = "correct horse";
const PHONE: &str = "--user-agent=Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 \
                     (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36";

#[derive(Debug)]
pub(crate) struct Shop {
    example: Example,
    pub(crate) pool: PgPool,
    _database: TestDatabase,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let database = dev_postgres::test_database().await.expect("a database");
        Self {
            example: Example::start("devices", database.url()),
            pool: PgPool::connect(database.url()).await.expect("a connection"),
            _database: database,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.example.url(path)
    }

    /// Alice, signed in at her desk and with her phone.
    pub(crate) async fn on_two_devices(&self, chromium: &Chromium) -> (Profile, Profile) {
        let (desk, phone) = tokio::join!(chromium.profile(), chromium.profile_with(&[PHONE]));
        self.sign_up(&desk, "alice").await;
        self.sign_in(&phone, "alice").await;
        (desk, phone)
    }

    pub(crate) async fn assert_is_signed_out(&self, visitor: &Profile) {
        let page = visitor.read(&self.url("/devices")).await;
        assert!(page.contains("Please sign in."), "{page}");
        assert_eq!(visitor.url().await, self.url("/sign-in?required=true"));
    }

    pub(crate) async fn assert_is_signed_in(&self, visitor: &Profile) {
        let page = visitor.read(&self.url("/devices")).await;
        assert!(page.contains("Your devices"), "{page}");
    }

    pub(crate) async fn sign_up(&self, visitor: &Profile, name: &str) {
        visitor.open(&self.url("/sign-up")).await;
        visitor.fill("name", name).await;
        visitor.fill("password", PASSWORD).await;
        visitor.press("Sign up").await;
    }

    pub(crate) async fn sign_in(&self, visitor: &Profile, name: &str) {
        self.fill_in(visitor, name).await;
        visitor.press("Sign in").await;
    }

    pub(crate) async fn sign_in_and_stay(&self, visitor: &Profile, name: &str) {
        self.fill_in(visitor, name).await;
        visitor.choose("remember").await;
        visitor.press("Sign in").await;
    }

    async fn fill_in(&self, visitor: &Profile, name: &str) {
        visitor.open(&self.url("/sign-in")).await;
        visitor.fill("name", name).await;
        visitor.fill("password", PASSWORD).await;
    }

    /// Types the password into the page's field.
    pub(crate) async fn confirm(&self, visitor: &Profile) {
        visitor.fill("password", PASSWORD).await;
        visitor.press("Continue").await;
    }

    /// Status and headers of a response, in small letters, to a client without a
    /// browser.
    pub(crate) async fn head(&self, request: &str) -> String {
        let mut connection = TcpStream::connect(self.example.address())
            .await
            .expect("it listens");
        let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let sent = connection.write_all(request.as_bytes()).await;
        sent.expect("it reads");
        let mut response = String::new();
        let read = connection.read_to_string(&mut response).await;
        read.expect("a response");
        let head = response.split("\r\n\r\n").next().unwrap_or_default();
        head.to_lowercase()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        let executed = sqlx::query(AssertSqlSafe(sql)).execute(&self.pool).await;
        executed.expect("a statement");
    }

    /// Stops it as Ctrl-C does, and returns how it ended.
    pub(crate) fn close(&mut self) -> ExitStatus {
        self.example.close()
    }
}
