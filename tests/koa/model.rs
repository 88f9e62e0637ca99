//! What the model does by itself: what the other tests take for granted.

use serde_json::json;

use crate::support::{Browser, Site, with_both_generations};

with_both_generations![a_session_is_a_row_and_two_cookies,];

async fn a_session_is_a_row_and_two_cookies(site: Site) {
    let koa = site.koa().await;
    let mut browser = Browser::new();
    let answer = browser.visit(&koa, json!([["set", "count", 2]])).await;
    let expected = r#"{"cookie":{"httpOnly":true,"path":"/","overwrite":true,"signed":true,"maxAge":86400000},"count":2}"#;
    assert_eq!(answer.body, expected);
    assert_eq!(site.rows().text().await, expected);
    assert_eq!(answer.set_cookies().len(), 2, "{:?}", answer.set_cookies());
    assert_eq!(browser.sid().len(), 32);
    assert_eq!(browser.value("koa.sid.sig").len(), 27);
}
