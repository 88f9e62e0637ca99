//! Cookies that a sibling path or host plants: they neither shadow nor end the session of a
//! visitor.

use crate::support::{Chromium, Profile, Site, chromium_or_skip};

/// Well-formed, and unknown.
const UNKNOWN: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

const WWW: &str = "www.shop.localhost";
const SIBLING: &str = "forum.shop.localhost";

/// A visitor with a session on `www`, whose cookie has a name that siblings
/// can set.
async fn visitor_of(site: &Site, chromium: &Chromium) -> Profile {
    let visitor = chromium.profile().await;
    visitor.open(&site.url_on(WWW, "/insert")).await;
    visitor
}

async fn plain_site() -> Site {
    Site::new(|layer| layer.cookie_name("id")).await
}

#[tokio::test]
async fn a_cookie_of_a_sibling_path_neither_shadows_nor_ends_the_session() {
    let chromium = chromium_or_skip!();
    let site = plain_site().await;
    let visitor = visitor_of(&site, &chromium).await;
    // The longer path comes first in the header.
    let planted = format!("/app/set?id={UNKNOWN}; Path=/app");
    visitor.open(&site.url_on(WWW, &planted)).await;
    assert_eq!(visitor.cookies_named("id").await.len(), 2);
    for page in ["/app/pages/keys", "/keys"] {
        assert_eq!(visitor.read(&site.url_on(WWW, page)).await, "keys: a");
    }
}

#[tokio::test]
async fn a_cookie_of_a_sibling_host_neither_shadows_nor_ends_the_session() {
    let chromium = chromium_or_skip!();
    let site = plain_site().await;
    let visitor = visitor_of(&site, &chromium).await;
    let planted = format!("/set?id={UNKNOWN}; Domain=shop.localhost; Path=/app");
    visitor.open(&site.url_on(SIBLING, &planted)).await;
    assert_eq!(visitor.cookies_named("id").await.len(), 2);
    for page in ["/app/pages/keys", "/keys"] {
        assert_eq!(visitor.read(&site.url_on(WWW, page)).await, "keys: a");
    }
}

#[tokio::test]
async fn a_live_session_that_a_sibling_plants_is_not_taken_and_ends_nothing() {
    let chromium = chromium_or_skip!();
    let site = plain_site().await;
    let visitor = visitor_of(&site, &chromium).await;
    let attacker = visitor_of(&site, &chromium).await;
    let theirs = attacker.cookies_named("id").await.remove(0);
    let planted = |rest: &str| format!("/set?id={}; Domain=shop.localhost{rest}", theirs.value());
    visitor.open(&site.url_on(SIBLING, &planted(""))).await;

    // Order proves nothing, so neither is opened, and both stay.
    assert_eq!(visitor.read(&site.url_on(WWW, "/keys")).await, "keys:");
    assert_eq!(visitor.cookies_named("id").await.len(), 2);
    let gone = planted("; Max-Age=0");
    visitor.open(&site.url_on(SIBLING, &gone)).await;
    assert_eq!(visitor.read(&site.url_on(WWW, "/keys")).await, "keys: a");
}

#[tokio::test]
async fn a_cookie_with_the_default_name_can_not_be_planted() {
    let chromium = chromium_or_skip!();
    let site = Site::new(|layer| layer).await;
    let visitor = visitor_of(&site, &chromium).await;
    let real = visitor.default_cookie().await;
    for (host, rest) in [
        (SIBLING, "; Secure; Path=/; Domain=shop.localhost"),
        (SIBLING, "; Secure; Path=/app"),
        (WWW, "; Secure; Path=/app"),
        (WWW, "; Path=/"),
    ] {
        let planted = format!("/app/set?{}={UNKNOWN}{rest}", real.name);
        visitor.open(&site.url_on(host, &planted)).await;
        let kept = visitor.cookies_named(&real.name).await;
        assert_eq!(kept.len(), 1, "{host}{rest}");
        assert_eq!(kept[0].value(), real.value(), "{host}{rest}");
    }
    assert_eq!(visitor.read(&site.url_on(WWW, "/keys")).await, "keys: a");
}
