//! The options of the layer: the default and another value of each.

use std::{panic::AssertUnwindSafe, time::Duration};

use axum_pg_session::{
    CookieLifetime, Error, ErrorKind, PgSessionLayer, PgSessionStore, SameSite, Session,
};
use cookie::Cookie;

use crate::support::{Browser, Site, THREE_COLUMNS, app, page::app_with, unreachable_store};

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

/// The cookie that a new session of this layer gets.
async fn cookie_of(layer: PgSessionLayer) -> Cookie<'static> {
    let response = Browser::new(&app(layer)).get("/insert/a/1").await;
    let mut cookies = response.set_cookies();
    assert_eq!(cookies.len(), 1);
    cookies.remove(0)
}

fn days(cookie: &Cookie<'_>) -> Option<i64> {
    cookie.max_age().map(cookie::time::Duration::whole_days)
}

#[track_caller]
fn assert_refused(layer: &PgSessionLayer, because: &str) {
    let error = layer.check().expect_err("a contradiction");
    assert_eq!(error.kind(), ErrorKind::Setup);
    assert!(error.to_string().contains(because), "{error}");
}

#[tokio::test]
async fn the_default_cookie_is_secure_and_host_prefixed() {
    let site = Site::new().await;
    let cookie = cookie_of(site.layer()).await;
    assert_eq!(cookie.name(), "__Host-id");
    assert_eq!(cookie.path(), Some("/"));
    assert_eq!(cookie.domain(), None);
    assert_eq!(cookie.secure(), Some(true));
    assert_eq!(cookie.http_only(), Some(true));
    assert_eq!(cookie.same_site(), Some(SameSite::Lax));
}

#[tokio::test]
async fn the_cookie_takes_the_name_that_was_chosen() {
    let site = Site::new().await;
    let app = app(site.layer().cookie_name("shop"));
    let mut browser = Browser::with_session(&app).await;
    assert!(browser.cookie("shop").is_some());
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn a_cookie_of_another_name_opens_nothing() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    let shop = Browser::new(&app(site.layer().cookie_name("shop")));
    let shop = shop.with_cookie("__Host-id", browser.token());
    assert_eq!(shop.peek("/get/a").await.body, "none");
}

/// Eight digits tell the sites of one host apart.
fn is_of_the_site(name: &str) -> bool {
    let digits = name.strip_prefix("id-").unwrap_or_default();
    digits.len() == 8 && u32::from_str_radix(digits, 16).is_ok()
}

#[tokio::test]
async fn the_cookie_takes_the_attributes_that_were_chosen() {
    let site = Site::new().await;
    let cookie = cookie_of(site.layer().cookie_path("/shop")).await;
    assert_eq!(cookie.path(), Some("/shop"));
    assert!(is_of_the_site(cookie.name()), "{cookie}");
    let cookie = cookie_of(site.layer().secure(false)).await;
    assert_eq!(cookie.secure(), None);
    assert!(is_of_the_site(cookie.name()), "{cookie}");
    let cookie = cookie_of(site.layer().cookie_domain("example.org")).await;
    let (name, domain) = (cookie.name(), cookie.domain());
    assert_eq!((name, domain), ("id", Some("example.org")));
    let cookie = cookie_of(site.layer().http_only(false)).await;
    assert_eq!(cookie.http_only(), None);
}

#[tokio::test]
async fn same_site_is_always_explicit() {
    let site = Site::new().await;
    for same_site in [SameSite::Strict, SameSite::Lax, SameSite::None] {
        let cookie = cookie_of(site.layer().same_site(same_site)).await;
        assert_eq!(cookie.same_site(), Some(same_site));
    }
}

#[tokio::test]
async fn the_cookie_lives_as_long_as_its_session_can() {
    let site = Site::new().await;
    assert_eq!(days(&cookie_of(site.layer()).await), Some(30));
    let shorter = site.layer().absolute_timeout(Duration::from_hours(8));
    let cookie = cookie_of(shorter).await;
    assert_eq!(cookie.max_age(), Some(cookie::time::Duration::hours(8)));
}

#[tokio::test]
async fn no_cookie_outlives_400_days() {
    let site = Site::new().await;
    let unlimited = site.layer().absolute_timeout(None);
    assert_eq!(days(&cookie_of(unlimited).await), Some(400));
    // Without the column `created`, there is no absolute timeout.
    let site = Site::with_table(THREE_COLUMNS).await;
    assert_eq!(days(&cookie_of(site.layer()).await), Some(400));
}

#[tokio::test]
async fn a_cookie_of_the_browser_session_has_no_age() {
    let site = Site::new().await;
    let layer = site.layer().cookie_lifetime(CookieLifetime::BrowserSession);
    let cookie = cookie_of(layer).await;
    assert_eq!((cookie.max_age(), cookie.expires()), (None, None));
}

#[tokio::test]
async fn a_removal_cookie_mirrors_every_attribute() {
    let site = Site::new().await;
    let layer = site
        .layer()
        .cookie_name("shop")
        .cookie_path("/shop")
        .cookie_domain("example.org")
        .same_site(SameSite::Strict);
    let mut browser = Browser::with_session(&app(layer)).await;
    let response = browser.get("/destroy").await;
    assert!(response.removes_the_cookie());
    let removal = response.set_cookies().remove(0);
    assert_eq!(removal.name(), "shop");
    assert_eq!(removal.path(), Some("/shop"));
    assert_eq!(removal.domain(), Some("example.org"));
    assert_eq!(removal.same_site(), Some(SameSite::Strict));
    assert_eq!(removal.secure(), Some(true));
    assert_eq!(removal.http_only(), Some(true));
}

/// A layer without a database, for checks of its options.
fn unconnected() -> PgSessionLayer {
    PgSessionLayer::new(unreachable_store())
}

#[tokio::test]
async fn the_defaults_contradict_nothing() {
    assert!(unconnected().check().is_ok());
}

#[tokio::test]
async fn a_host_prefix_with_a_domain_is_refused_at_set_up() {
    let named = || unconnected().cookie_name("__Host-id");
    assert_refused(&named().cookie_domain("example.org"), "__Host-");
    assert_refused(&named().cookie_path("/shop"), "__Host-");
    assert_refused(&named().secure(false), "__Host-");
    assert_refused(
        &unconnected().cookie_name("__Secure-id").secure(false),
        "__Secure-",
    );
}

#[tokio::test]
async fn a_domain_that_no_browser_takes_is_refused() {
    for domain in [
        "example.com:3000",
        "https://example.com",
        "*.example.com",
        ".example.com",
        "example.com.",
        "example..com",
        "example.com/",
        " example.com",
        "example.com ",
        "exam ple.com",
        "-example.com",
        "[::1]",
        "b\u{fc}cher.example",
        &format!("{}.com", "a".repeat(64)),
    ] {
        let layer = unconnected().cookie_domain(domain);
        assert_eq!(layer.check().expect_err(domain).kind(), ErrorKind::Setup);
        let layer = unconnected()
            .cookie_name("sid")
            .former_cookie_scope(Some(domain), "/");
        assert!(layer.check().is_err(), "{domain}");
    }
    for domain in [
        "example.com",
        "xn--bcher-kva.example",
        "a_b.example",
        "localhost",
        "127.0.0.1",
    ] {
        assert!(
            unconnected().cookie_domain(domain).check().is_ok(),
            "{domain}"
        );
    }
}

#[tokio::test]
async fn a_path_that_no_request_has_is_refused() {
    for path in [
        "", "shop", "/a b", "/a?b", "/a#b", "/a/../b", "/./a", "/a\\b", "/\u{fc}",
    ] {
        let layer = unconnected().cookie_path(path);
        assert_eq!(layer.check().expect_err(path).kind(), ErrorKind::Setup);
    }
    for path in ["/shop", "/shop/", "/a%20b", "/~a/b.c/(d)"] {
        assert!(unconnected().cookie_path(path).check().is_ok(), "{path}");
    }
}

#[tokio::test]
async fn a_prefix_for_http_needs_a_cookie_that_scripts_can_not_see() {
    for name in ["__Http-id", "__http-id", "__Host-Http-id", "__HOST-HTTP-ID"] {
        let named = || unconnected().cookie_name(name);
        assert!(named().check().is_ok(), "{name}");
        assert_refused(&named().http_only(false), "HttpOnly");
        assert_refused(&named().secure(false), "Secure");
    }
    assert_refused(
        &unconnected()
            .cookie_name("__Host-Http-id")
            .cookie_path("/shop"),
        "__Host-",
    );
}

#[tokio::test]
async fn a_former_scope_that_never_was_is_refused() {
    let layer = unconnected().former_cookie_scope(Some("example.com"), "/");
    assert_refused(&layer, "never had another scope");
    let layer = unconnected()
        .cookie_domain("example.com")
        .former_cookie_scope(Some("example.com"), "/");
    assert_refused(&layer, "present one");
}

/// A token is bound to the name, so the former cookie could open nothing.
#[tokio::test]
async fn a_former_scope_whose_default_name_was_another_is_refused() {
    let moved = || unconnected().cookie_path("/admin");
    let widened = || unconnected().cookie_domain("example.com");
    assert_refused(
        &moved().former_cookie_scope(None, "/shop"),
        "another default name",
    );
    assert_refused(
        &widened().former_cookie_scope(None, "/"),
        "another default name",
    );
    for layer in [
        moved()
            .cookie_name("sid")
            .former_cookie_scope(None, "/shop"),
        widened().cookie_name("sid").former_cookie_scope(None, "/"),
        widened().secure(false).former_cookie_scope(None, "/"),
    ] {
        layer.check().expect("the same name");
    }
}

#[tokio::test]
async fn same_site_none_without_secure_is_refused() {
    let layer = unconnected().same_site(SameSite::None).secure(false);
    assert_refused(&layer, "SameSite=None needs Secure");
}

#[tokio::test]
async fn an_oversized_cookie_is_refused_at_set_up() {
    assert_refused(&unconnected().cookie_name("n".repeat(4096)), "4096");
    let path = format!("/{}", "p".repeat(1024));
    assert_refused(&unconnected().cookie_path(path), "1024");
}

#[tokio::test]
async fn a_cookie_that_no_browser_would_keep_is_refused() {
    for name in ["", "a b", "a;b", "a=b", "ä"] {
        assert_refused(&unconnected().cookie_name(name), "name");
    }
    assert_refused(&unconnected().cookie_path("shop"), "slash");
    assert!(unconnected().cookie_path("/a; HttpOnly").check().is_err());
    assert!(unconnected().cookie_domain("a;b").check().is_err());
}

#[tokio::test]
async fn contradictory_timeouts_are_refused() {
    let zero = "a timeout of zero";
    assert_refused(&unconnected().idle_timeout(Duration::ZERO), zero);
    assert_refused(&unconnected().absolute_timeout(Duration::ZERO), zero);
    let hour = Duration::from_hours(1);
    let layer = unconnected().idle_timeout(hour).touch_interval(hour);
    assert_refused(&layer, "touch interval");
}

#[tokio::test]
async fn an_absolute_timeout_without_its_column_is_refused() {
    let site = Site::with_table(THREE_COLUMNS).await;
    site.store.check().await.expect("a usable table");
    let layer = site.layer().absolute_timeout(Duration::from_hours(1));
    assert_refused(&layer, "created");
    assert!(site.layer().check().is_ok());
    assert!(site.layer().absolute_timeout(None).check().is_ok());
}

#[tokio::test]
async fn a_contradiction_panics_when_the_layer_is_added() {
    let layer = unconnected().same_site(SameSite::None).secure(false);
    let adding = std::panic::catch_unwind(AssertUnwindSafe(|| app(layer)));
    let panic = adding.expect_err("a panic");
    let message = panic.downcast_ref::<String>().expect("a formatted panic");
    assert!(message.contains("SameSite=None needs Secure"), "{message}");
}

fn without_polls(site: &Site) -> PgSessionLayer {
    site.layer()
        .touch_if(|request, _| !request.uri.path().starts_with("/increment"))
}

#[tokio::test]
async fn every_request_that_looks_at_the_session_keeps_it_alive() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    for page in ["/keys", "/insert_and/404/a/2", "/insert_and/500/a/3"] {
        site.rows().age(12.0 * HOUR).await;
        browser.get(page).await;
        site.rows().assert_left(DAY).await;
    }
}

#[tokio::test]
async fn a_request_that_ignores_the_session_does_not_keep_it_alive() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    site.rows().age(12.0 * HOUR).await;
    browser.get("/plain").await;
    site.rows().assert_left(12.0 * HOUR).await;
}

#[tokio::test]
async fn a_poll_does_not_keep_the_session_alive() {
    let site = Site::new().await;
    let app = app(site
        .layer()
        .touch_if(|request, _| request.uri.path() != "/keys"));
    let mut browser = Browser::with_session(&app).await;
    site.rows().age(12.0 * HOUR).await;
    assert_eq!(browser.get("/keys").await.body, "a");
    site.rows().assert_left(12.0 * HOUR).await;
    browser.get("/get/a").await;
    site.rows().assert_left(DAY).await;
}

#[tokio::test]
async fn what_a_poll_changes_is_saved_and_extends_nothing() {
    let site = Site::new().await;
    let mut browser = Browser::with_session(&app(without_polls(&site))).await;
    site.rows().age(12.0 * HOUR).await;
    assert_eq!(browser.get("/increment/n").await.body, "1");
    assert_eq!(browser.get("/increment/n").await.body, "2");
    site.rows().assert_left(12.0 * HOUR).await;
    assert_eq!(site.rows().document().await["n"], 2);
}

#[tokio::test]
async fn an_explicit_save_keeps_the_session_alive_unless_the_request_is_a_poll() {
    let site = Site::new().await;
    let poll = site
        .layer()
        .touch_if(|request, _| request.uri.path() != "/page");
    for (layer, left) in [(poll, 12.0 * HOUR), (site.layer(), DAY)] {
        let app = app_with(layer, async |session: Session| {
            session.insert("saved", true)?;
            session.save().await
        });
        let mut browser = Browser::with_session(&app).await;
        site.rows().age(12.0 * HOUR).await;
        assert_eq!(browser.get("/page").await.status, 200);
        assert_eq!(site.rows().document().await["saved"], true);
        site.rows().assert_left(left).await;
        site.rows().execute("TRUNCATE TABLE").await;
    }
}

#[tokio::test]
async fn a_refused_attempt_does_not_keep_the_session_alive() {
    let site = Site::new().await;
    let app = app(site.layer().touch_if(|_, status| status.is_success()));
    let mut browser = Browser::with_session(&app).await;
    site.rows().age(12.0 * HOUR).await;
    browser.get("/insert_and/403/tries/1").await;
    site.rows().assert_left(12.0 * HOUR).await;
    browser.get("/insert_and/204/tries/2").await;
    site.rows().assert_left(DAY).await;
}

#[tokio::test]
async fn the_predicate_sees_the_request_and_the_status() {
    let site = Site::new().await;
    let app = app(site.layer().touch_if(|request, status| {
        request.method == "GET"
            && request.uri.path() == "/insert_and/418/b/2"
            && request.headers.contains_key("cookie")
            && status == 418
    }));
    let mut browser = Browser::with_session(&app).await;
    site.rows().age(12.0 * HOUR).await;
    browser.get("/insert_and/418/b/2").await;
    site.rows().assert_left(DAY).await;
}

#[tokio::test]
async fn a_session_is_extended_after_a_twentieth_of_its_idle_timeout_or_as_chosen() {
    let site = Site::new().await;
    let chosen = site.layer().touch_interval(Duration::from_hours(6));
    for (layer, interval) in [(site.layer(), DAY / 20.0), (chosen, 6.0 * HOUR)] {
        let mut browser = Browser::with_session(&app(layer)).await;
        site.rows().age(interval - 60.0).await;
        browser.get("/keys").await;
        site.rows().assert_left(DAY - interval + 60.0).await;
        site.rows().age(60.0).await;
        browser.get("/keys").await;
        site.rows().assert_left(DAY).await;
        site.rows().execute("TRUNCATE TABLE").await;
    }
}

#[tokio::test]
async fn a_touch_interval_of_zero_extends_at_every_request() {
    let site = Site::new().await;
    let mut browser =
        Browser::with_session(&app(site.layer().touch_interval(Duration::ZERO))).await;
    let before = site.rows().dump().await;
    browser.get("/keys").await;
    assert_ne!(site.rows().dump().await, before);
}

#[tokio::test]
async fn a_data_save_leaves_the_expiry_alone_until_a_touch_is_due() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    site.rows().age(HOUR).await;
    browser.get("/insert/a/2").await;
    site.rows().assert_left(DAY - HOUR).await;
    site.rows().age(HOUR).await;
    browser.get("/insert/a/3").await;
    site.rows().assert_left(DAY).await;
}

#[tokio::test]
async fn a_layer_says_what_it_is_in_its_debug_output() {
    let text = format!("{:?}", unconnected().cookie_name("shop"));
    assert!(text.contains("shop") && text.contains("idle"), "{text}");
}

#[test]
fn an_error_can_travel_between_tasks() {
    fn travels<T: Send + Sync + Clone + 'static>() {}
    travels::<Error>();
    travels::<PgSessionLayer>();
    travels::<PgSessionStore>();
    travels::<Session>();
}
