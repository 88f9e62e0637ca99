//! The life of a session, from its first change to its end.

use crate::support::{Browser, Site};

#[tokio::test]
async fn a_visitor_is_counted_by_their_own_session() {
    let site = Site::new().await;
    let app = site.app();
    let (mut ann, mut bob) = (Browser::new(&app), Browser::new(&app));
    for n in 1..=3 {
        assert_eq!(ann.get("/increment/visits").await.body, n.to_string());
    }
    assert_eq!(bob.get("/increment/visits").await.body, "1");
    assert_eq!(site.rows().count().await, 2);
}

#[tokio::test]
async fn a_mere_visit_writes_no_row_and_no_cookie() {
    let site = Site::new().await;
    let mut browser = site.browser();
    assert!(browser.get("/keys").await.sets_no_cookie());
    assert!(browser.get("/get/anything").await.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn destroy_deletes_the_row_and_removes_the_cookie() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    assert!(browser.get("/destroy").await.removes_the_cookie());
    assert_eq!(site.rows().count().await, 0);
    assert!(browser.jar.is_empty());
}

#[tokio::test]
async fn cycle_id_changes_the_token_and_keeps_the_data() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    let old = browser.clone();
    assert!(browser.get("/cycle").await.token().is_some());
    assert_ne!(old.token(), browser.token());
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
    assert_eq!(old.peek("/get/a").await.body, "none");
    assert_eq!(site.rows().count().await, 1);
}
