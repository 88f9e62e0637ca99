//! The cookie of a session as the browser stores it, and its removal.

use axum_pg_session::{ClearSiteData, CookieLifetime, CookiePriority, SameSite};

use crate::support::{Cookie, Lifetime, Profile, Site, chromium_or_skip};

mod a_removal_cookie_mirrors_every_attribute {
    use axum_pg_session::Koa;

    use super::*;
    use crate::support::PartitionKey;

    /// Begins a session on the page and ends it, and looks into the jar in
    /// between.
    async fn assert_kept_and_removed(visitor: &Profile, page: &str, promised: &[Cookie]) {
        visitor.open(&format!("{page}/insert")).await;
        assert_eq!(visitor.jar().await, promised);
        assert_eq!(visitor.read(&format!("{page}/keys")).await, "keys: a");
        visitor.open(&format!("{page}/cycle")).await;
        assert_eq!(visitor.jar().await, promised);
        assert_eq!(visitor.read(&format!("{page}/destroy")).await, "destroyed");
        assert_eq!(visitor.jar().await, []);
    }

    #[tokio::test]
    async fn of_the_default_host_cookie() {
        let chromium = chromium_or_skip!();
        let visitor = chromium.profile().await;
        let site = Site::new(|layer| layer).await;
        assert_kept_and_removed(&visitor, &site.url(""), &[Cookie::by_default()]).await;
        assert_eq!(site.rows().await, 1, "the forwarding of the cycle");
    }

    #[tokio::test]
    async fn of_a_plain_name_with_a_path() {
        let chromium = chromium_or_skip!();
        let visitor = chromium.profile().await;
        let site = Site::new(|layer| layer.cookie_name("sid").cookie_path("/app")).await;
        let promised = Cookie {
            name: "sid".into(),
            path: "/app".into(),
            ..Cookie::by_default()
        };
        assert_kept_and_removed(&visitor, &site.url("/app/pages"), &[promised]).await;
    }

    #[tokio::test]
    async fn of_a_domain() {
        let chromium = chromium_or_skip!();
        let visitor = chromium.profile().await;
        let site = Site::new(|layer| layer.cookie_domain("shop.localhost")).await;
        let promised = Cookie {
            name: "id-00000000".into(),
            domain: ".shop.localhost".into(),
            ..Cookie::by_default()
        };
        let page = site.url_on("www.shop.localhost", "");
        assert_kept_and_removed(&visitor, &page, &[promised]).await;
    }

    #[tokio::test]
    async fn of_each_same_site() {
        let chromium = chromium_or_skip!();
        let visitor = chromium.profile().await;
        for (same_site, name) in [(SameSite::None, "None"), (SameSite::Strict, "Strict")] {
            let site = Site::new(|layer| layer.same_site(same_site)).await;
            let promised = Cookie {
                same_site: Some(name.into()),
                ..Cookie::by_default()
            };
            assert_kept_and_removed(&visitor, &site.url(""), &[promised]).await;
        }
    }

    #[tokio::test]
    async fn of_a_partitioned_cookie() {
        let chromium = chromium_or_skip!();
        let visitor = chromium.profile().await;
        let site = Site::new(|layer| layer.cookie_partitioned(true)).await;
        let promised = Cookie {
            partition_key: Some(PartitionKey {
                top_level_site: "http://localhost".into(),
            }),
            ..Cookie::by_default()
        };
        assert_kept_and_removed(&visitor, &site.url(""), &[promised]).await;
    }

    #[tokio::test]
    async fn of_a_cookie_with_little_protection() {
        let chromium = chromium_or_skip!();
        let visitor = chromium.profile().await;
        let site = Site::new(|layer| {
            layer
                .cookie_name("id")
                .secure(false)
                .http_only(false)
                .cookie_priority(CookiePriority::High)
        })
        .await;
        let promised = Cookie {
            name: "id".into(),
            secure: false,
            http_only: false,
            priority: "High".into(),
            ..Cookie::by_default()
        };
        assert_kept_and_removed(&visitor, &site.url(""), &[promised]).await;
    }

    #[tokio::test]
    async fn of_koas_pair() {
        let chromium = chromium_or_skip!();
        let visitor = chromium.profile().await;
        let keys = ["a key that is long enough for anybody"];
        let site = Site::with_store(|store| store.koa(Koa::new(keys)), |layer| layer).await;
        let promised = ["koa.sid", "koa.sid.sig"].map(|name| Cookie {
            name: name.into(),
            secure: false,
            same_site: None,
            ..Cookie::by_default()
        });
        assert_kept_and_removed(&visitor, &site.url(""), &promised).await;
    }
}

#[tokio::test]
async fn two_sites_on_ports_of_localhost_keep_their_sessions() {
    let chromium = chromium_or_skip!();
    let visitor = chromium.profile().await;
    let sites = [
        Site::new(|layer| layer).await,
        Site::new(|layer| layer).await,
    ];
    for site in &sites {
        visitor.open(&site.url("/insert")).await;
    }
    for site in &sites {
        assert_eq!(visitor.read(&site.url("/keys")).await, "keys: a");
    }
    visitor.open(&sites[0].url("/logout")).await;
    assert_eq!(visitor.read(&sites[0].url("/keys")).await, "keys:");
    assert_eq!(visitor.read(&sites[1].url("/keys")).await, "keys: a");
    assert_eq!(visitor.jar().await, [Cookie::by_default()]);
}

#[tokio::test]
async fn after_logout_the_browser_jar_is_empty() {
    let chromium = chromium_or_skip!();
    let visitor = chromium.profile().await;
    let site = Site::new(|layer| layer).await;
    visitor.open(&site.url("/login")).await;
    assert_eq!(visitor.jar().await, [Cookie::by_default()]);
    assert_eq!(visitor.read(&site.url("/logout")).await, "signed out");
    assert!(visitor.cookies().await.is_empty());
    assert_eq!(site.rows().await, 0);
    assert_eq!(visitor.read(&site.url("/keys")).await, "keys:");
    assert!(visitor.cookies().await.is_empty());
}

#[tokio::test]
async fn a_logout_makes_the_browser_forget_what_the_layer_names() {
    let chromium = chromium_or_skip!();
    let visitor = chromium.profile().await;
    let stored = "localStorage.getItem('draft')";
    for (named, left) in [(vec![], "private"), (vec![ClearSiteData::Storage], "")] {
        let site = Site::new(|layer| layer.clear_site_data(named)).await;
        visitor.open(&site.url("/login")).await;
        visitor
            .script("localStorage.setItem('draft', 'private')")
            .await;
        visitor.open(&site.url("/logout")).await;
        visitor.open(&site.url("/keys")).await;
        assert_eq!(visitor.script(&format!("{stored} ?? ''")).await, left);
    }
}

#[tokio::test]
async fn a_cookie_lives_as_long_as_its_session_can() {
    let chromium = chromium_or_skip!();
    let visitor = chromium.profile().await;
    let site = Site::new(|layer| layer).await;
    visitor.open(&site.url("/insert")).await;
    let cookie = visitor.default_cookie().await;
    assert_eq!(cookie.lifetime(), Lifetime::Days(30));
    visitor.forget_cookies().await;

    let site = Site::new(|layer| layer.absolute_timeout(None)).await;
    visitor.open(&site.url("/insert")).await;
    let cookie = visitor.default_cookie().await;
    assert_eq!(cookie.lifetime(), Lifetime::Days(400));
    visitor.forget_cookies().await;

    let site = Site::new(|layer| layer.cookie_lifetime(CookieLifetime::BrowserSession)).await;
    visitor.open(&site.url("/insert")).await;
    let cookie = visitor.default_cookie().await;
    assert_eq!(cookie.lifetime(), Lifetime::Browser);
}

#[tokio::test]
async fn no_script_reads_the_cookie_or_replaces_it() {
    let chromium = chromium_or_skip!();
    let visitor = chromium.profile().await;
    let site = Site::new(|layer| layer).await;
    visitor.open(&site.url("/insert")).await;
    let before = visitor.default_cookie().await;
    let name = &before.name;
    let planted = format!("document.cookie = '{name}=planted; Path=/; Secure'");
    visitor.script(&planted).await;
    assert_eq!(visitor.script("document.cookie").await, "");
    assert_eq!(visitor.default_cookie().await.value(), before.value());
    assert_eq!(visitor.read(&site.url("/keys")).await, "keys: a");

    visitor.forget_cookies().await;
    let readable = Site::new(|layer| layer.http_only(false)).await;
    visitor.open(&readable.url("/insert")).await;
    let cookie = visitor.default_cookie().await;
    let seen = format!("{}={}", cookie.name, cookie.value());
    assert_eq!(visitor.script("document.cookie").await, seen);
}
