//! The version of Postgres that the tests run on.

use std::env;

use crate::support::{Site, texts};

/// All other tests ran on the version of `DEV_POSTGRES_VERSION`.
#[tokio::test]
async fn the_server_has_the_version_that_was_asked_for() {
    let site = Site::without_table().await;
    let asked = "SELECT current_setting('server_version_num')";
    let found = texts(&site.pool, asked).await.remove(0);
    println!("Postgres {found}");
    let found: u32 = found.parse().expect("a number");
    assert!(found >= 150_000, "older than what is supported");
    match env::var("DEV_POSTGRES_VERSION") {
        Ok(major) if !major.is_empty() => assert_eq!((found / 10_000).to_string(), major),
        _ => {}
    }
}
