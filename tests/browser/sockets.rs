//! `examples/members`: its WebSocket and its server-sent events end with the session.

use std::time::Duration;

use dev_postgres::TestDatabase;

use crate::support::{Chromium, Example, Profile, chromium_or_skip};

/// More than the interval of the lookups, and less than a page would wait for itself.
const BOUND: Duration = Duration::from_secs(15);

struct Members {
    site: Example,
    /// As a second server of the same site.
    other: Example,
    _database: TestDatabase,
}

impl Members {
    async fn open() -> Self {
        let database = dev_postgres::test_database().await.expect("a database");
        let site = Example::start("members", database.url());
        Self {
            other: Example::start("members", database.url()),
            site,
            _database: database,
        }
    }

    /// Ada, with the page open.
    async fn ada(&self, chromium: &Chromium) -> Profile {
        let ada = chromium.profile().await;
        ada.open(&self.site.url("/sign-in")).await;
        ada.fill("name", "ada").await;
        ada.fill("password", "correct horse").await;
        ada.press("Sign in").await;
        ada.open(&self.site.url("/members/live")).await;
        until(&ada, "Socket: open").await;
        ada
    }
}

async fn until(visitor: &Profile, text: &str) {
    let seen = async {
        while !visitor.text().await.contains(text) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(BOUND, seen).await.is_err() {
        panic!("no {text:?} in {}", visitor.text().await);
    }
}

#[tokio::test]
async fn signing_out_elsewhere_closes_the_socket_and_refuses_another_one() {
    let chromium = chromium_or_skip!();
    let members = Members::open().await;
    let (desk, phone) = (members.ada(&chromium).await, members.ada(&chromium).await);
    until(&phone, "Signed in on 2 devices").await;
    phone.fill("text", "hello").await;
    phone
        .script("document.querySelector('#talk button').click()")
        .await;
    until(&phone, "hello").await;

    desk.press("Sign out all others").await;
    until(
        &phone,
        "closed with 1008: the sessions of the user were revoked; signed out",
    )
    .await;
    desk.open(&members.site.url("/members/live")).await;
    until(&desk, "Socket: open").await;
    until(&desk, "Signed in on 1 devices").await;
}

#[tokio::test]
async fn signing_out_at_another_server_closes_the_socket_too() {
    let chromium = chromium_or_skip!();
    let members = Members::open().await;
    let (desk, phone) = (members.ada(&chromium).await, members.ada(&chromium).await);
    // Cookies don't know ports.
    desk.open(&members.other.url("/members/live")).await;
    until(&desk, "Socket: open").await;
    desk.press("Sign out all others").await;
    until(
        &phone,
        "closed with 1008: the session no longer exists; signed out",
    )
    .await;
    until(&desk, "other devices").await;
}
