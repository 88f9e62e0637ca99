//! Several areas of a site on one table: realms, cookies of several scopes, and sites on localhost.

use axum::{
    Router,
    body::Body,
    http::{HeaderName, HeaderValue, Request, header},
};
use axum_pg_session::{ErrorKind, HeaderTransport, Koa, PgSessionLayer, Session, SigningKeys};

use crate::support::{Browser, Reply, Site, app, execute, log::Log, page::app_with, site::pages};

/// Signs in as user 1 and returns the token.
async fn sign_in(layer: PgSessionLayer) -> Browser {
    let app = app_with(layer, async |session: Session| session.login("1"));
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.status, 200);
    browser
}

async fn user_behind(layer: PgSessionLayer, name: &str, token: &str) -> String {
    let page = async |session: Session| session.user_id().unwrap_or_default();
    let browser = Browser::new(&app_with(layer, page)).with_cookie(name, token);
    browser.peek("/page").await.body
}

#[tokio::test]
async fn a_token_opens_nothing_in_another_area_whatever_its_cookie_is_called() {
    let site = Site::new().await;
    let shop = || site.layer().cookie_name("__Host-shop");
    let admin = || site.layer().cookie_name("__Host-admin");
    let customer = sign_in(shop()).await;
    let token = customer.token();
    assert_eq!(user_behind(shop(), "__Host-shop", token).await, "1");
    assert_eq!(user_behind(admin(), "__Host-admin", token).await, "");
    // Not even under the same name.
    let realm = PgSessionLayer::new(site.store.clone().realm("admin"));
    let realm = realm.cookie_name("__Host-shop");
    assert_eq!(user_behind(realm, "__Host-shop", token).await, "");
}

#[tokio::test]
async fn two_layers_that_share_sessions_by_accident_are_logged_once() {
    let site = Site::new().await;
    let warnings = |layers: &[PgSessionLayer]| {
        let log = Log::keep();
        for layer in layers {
            drop(app(layer.clone()));
        }
        log.text().matches("share their sessions").count()
    };
    let first = site.layer();
    assert_eq!(warnings(&[first.clone(), first.clone()]), 0);
    // Built again, and a changed clone.
    let second = site.layer();
    let shop = first.clone().cookie_name("shop");
    assert_eq!(warnings(&[second.clone(), second, site.layer()]), 1);
    assert_eq!(warnings(&[shop.clone(), shop.http_only(false)]), 1);
    // What makes them two areas.
    let separate = [
        first.cookie_name("__Host-admin"),
        PgSessionLayer::new(site.store.clone().realm("admin")),
        PgSessionLayer::new(site.store.clone().table("other")),
        site.layer().transport(HeaderTransport::new(SHOP)),
        site.layer().transport(HeaderTransport::new(ADMIN)),
    ];
    assert_eq!(warnings(&separate), 0);
    let again = site.layer().transport(HeaderTransport::new(ADMIN));
    assert_eq!(warnings(&[again]), 1);
    // A store that was built anew from this one is the same store.
    let changed = site.store.timeout(std::time::Duration::from_secs(3));
    let changed = PgSessionLayer::new(changed).cookie_name("__Host-admin");
    assert_eq!(warnings(&[changed]), 1);
}

#[tokio::test]
async fn a_layer_that_replaces_one_that_is_gone_is_not_logged() {
    let site = Site::new().await;
    let log = Log::keep();
    drop(site.app());
    drop(site.app());
    assert!(!log.text().contains("share their sessions"));
}

#[tokio::test]
async fn the_default_cookies_of_two_realms_do_not_replace_each_other() {
    let site = Site::new().await;
    let admin = PgSessionLayer::new(site.store.clone().realm("admin"));
    for secure in [true, false] {
        let areas = [site.layer(), admin.clone()].map(|layer| layer.secure(secure));
        let mut browser = Browser::new(&app(areas[0].clone()));
        for (layer, value) in areas.iter().zip(["shop", "admin"]) {
            browser = browser.at(&app(layer.clone()));
            browser.get(&format!("/insert/area/{value}")).await;
        }
        assert_eq!(browser.jar.len(), 2, "{:?}", browser.jar);
        assert!(browser.jar[1].0.ends_with("-admin"), "{:?}", browser.jar);
        for (layer, value) in areas.into_iter().zip(["\"shop\"", "\"admin\""]) {
            assert_eq!(browser.at(&app(layer)).peek("/get/area").await.body, value);
        }
    }
    let name = |layer: PgSessionLayer| async {
        let browser = Browser::with_session(&app(layer)).await;
        browser.jar[0].0.clone()
    };
    assert_eq!(
        name(admin.clone().cookie_path("/admin")).await,
        "id-84a04c24-admin"
    );
    assert_eq!(name(admin.cookie_name("sid")).await, "sid");
}

const SHOP: HeaderName = HeaderName::from_static("x-shop");
const ADMIN: HeaderName = HeaderName::from_static("x-admin");

#[tokio::test]
async fn a_token_of_one_header_opens_nothing_in_another_one() {
    let site = Site::new().await;
    let layers = [SHOP, ADMIN].map(|name| site.layer().transport(HeaderTransport::new(name)));
    let [shop, admin] = layers.map(|layer| Browser::new(&app(layer)));
    let response = shop.get_without_cookies("/insert/a/1", None).await;
    let token = response.headers[SHOP].clone();
    for (browser, header, expected) in [(&shop, SHOP, "\"1\""), (&admin, ADMIN, "none")] {
        let header = Some((header, token.clone()));
        let response = browser.get_without_cookies("/get/a", header).await;
        assert_eq!(response.body, expected);
    }
    // Nor in a cookie, which is another carrier.
    let token = token.to_str().expect("ASCII");
    let cookie = site.browser().with_cookie("__Host-id", token);
    assert_eq!(cookie.peek("/get/a").await.body, "none");
    // With one name they are one carrier.
    let named = |header| {
        let layer = site.layer().transport(HeaderTransport::new(header));
        Browser::new(&app(layer.cookie_name("token")))
    };
    let response = named(SHOP).get_without_cookies("/insert/a/1", None).await;
    let header = Some((ADMIN, response.headers[SHOP].clone()));
    let response = named(ADMIN).get_without_cookies("/get/a", header).await;
    assert_eq!(response.body, "\"1\"");
}

impl Browser {
    async fn get_without_cookies(
        &self,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Reply {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().expect("a path");
        request.headers_mut().extend(header);
        self.send(request).await
    }
}

#[tokio::test]
async fn a_user_of_one_realm_is_not_the_same_user_of_another() {
    let site = Site::new().await;
    let admin = site.store.clone().realm("admin");
    let in_shop = sign_in(site.layer()).await;
    let in_admin = sign_in(PgSessionLayer::new(admin.clone())).await;
    let user = user_behind(
        PgSessionLayer::new(admin.clone()),
        "__Host-id-admin",
        in_admin.token(),
    );
    assert_eq!(user.await, "1");
    let [ours, theirs] = [&site.store, &admin].map(|store| store.user("1"));
    let listed = theirs.list().await.expect("a list");
    assert_eq!((ours.count().await.expect("a count"), listed.len()), (1, 1));
    // A handle is of its realm, too.
    let id = listed[0].id();
    assert!(site.store.load(id).await.expect("a response").is_none());
    assert!(!ours.destroy(id).await.expect("a response"));
    let stored = admin.load(id).await.expect("a response").expect("alive");
    assert_eq!(stored.user_id(), Some("1"));
    assert_eq!(ours.destroy_all().await.expect("an end"), 1);
    assert_eq!(theirs.count().await.expect("a count"), 1);
    assert!(theirs.destroy(id).await.expect("an end"));
    assert_eq!(
        user_behind(site.layer(), "__Host-id", in_shop.token()).await,
        ""
    );
}

#[tokio::test]
async fn a_user_can_not_be_called_as_one_of_another_realm() {
    let site = Site::new().await;
    let page = async |session: Session| {
        let error = session.login("admin\u{1f}1").expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Serialize);
    };
    let app = app_with(site.layer(), page);
    assert_eq!(Browser::new(&app).get("/page").await.status, 200);
    let admin = PgSessionLayer::new(site.store.clone().realm("admin"));
    sign_in(admin).await;
    let theirs = site.store.user("admin\u{1f}1");
    assert_eq!(theirs.count().await.expect("a count"), 0);
}

#[tokio::test]
async fn a_realm_of_koas_or_with_a_bad_name_is_refused_at_set_up() {
    let site = Site::without_table().await;
    for store in [
        site.store.clone().realm("a:b"),
        site.store.realm("admin").koa(Koa::new(["key"])),
    ] {
        let layer = PgSessionLayer::new(store.clone());
        for refused in [
            layer.check(),
            store.check().await.map(drop),
            store.migrate().await,
        ] {
            let error = refused.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Setup);
            assert!(error.to_string().contains("realm"), "{error}");
        }
    }
}

/// What the cookies of a response say of their scopes.
fn scopes(response: &Reply) -> Vec<String> {
    let cookies = response.set_cookies();
    let shown = cookies.iter().map(|cookie| {
        let is_over = cookie.expires_datetime() == Some(cookie::time::OffsetDateTime::UNIX_EPOCH);
        let what = if is_over { "removes" } else { "sets" };
        let domain = cookie.domain().unwrap_or("host");
        format!("{what} {domain}{}", cookie.path().unwrap_or_default())
    });
    shown.collect()
}

/// A visitor whose browser holds a live cookie of either scope.
async fn torn(formerly: &PgSessionLayer, now: &PgSessionLayer) -> Browser {
    let mut former = Browser::new(&app(formerly.clone()));
    let mut browser = Browser::new(&app(now.clone()));
    former.get("/insert/a/former").await;
    browser.get("/insert/a/now").await;
    browser.jar.extend(former.jar);
    browser
}

#[tokio::test]
async fn a_visitor_with_cookies_of_two_scopes_is_served_after_one_page() {
    let site = Site::new().await;
    let formerly = site.layer().cookie_name("sid");
    let now = formerly
        .clone()
        .cookie_domain("example.com")
        .former_cookie_scope(None, "/");
    for page in ["/keys", "/insert/b/1", "/destroy", "/cycle"] {
        let mut browser = torn(&formerly, &now).await;
        let response = browser.peek(page).await;
        assert_eq!(scopes(&response), ["removes host/"], "{page}");
        assert_eq!(response.headers[header::CACHE_CONTROL], "no-store");
        // As a browser does.
        browser.jar.truncate(1);
        assert_eq!(browser.get("/get/a").await.body, "\"now\"", "{page}");
        assert_eq!(browser.peek(page).await.status, 200);
    }
}

#[tokio::test]
async fn a_response_that_sets_or_removes_the_cookie_removes_that_of_a_former_scope() {
    let site = Site::new().await;
    let formerly = site.layer().cookie_name("sid").cookie_path("/shop");
    let now = site
        .layer()
        .cookie_name("sid")
        .former_cookie_scope(None, "/shop")
        .former_cookie_scope(Some("example.com"), "/");
    let browser = Browser::with_session(&app(formerly)).await;
    let mut browser = browser.at(&app(now));
    // A visitor who has only the former cookie stays signed in.
    let response = browser.get("/get/a").await;
    assert_eq!(
        (response.body.as_str(), response.sets_no_cookie()),
        ("\"1\"", true)
    );
    let former = ["removes host/shop", "removes example.com/"];
    let cycled = browser.peek("/cycle").await;
    assert_eq!(scopes(&cycled), [former[0], former[1], "sets host/"]);
    browser.jar[0].1 = cycled.token().expect("a new one");
    let ended = browser.get("/destroy").await;
    assert_eq!(scopes(&ended), [former[0], former[1], "removes host/"]);
}

#[tokio::test]
async fn koas_signature_goes_with_the_cookie_of_the_former_scope() {
    let site = Site::new().await;
    let store = site.store.clone().koa(Koa::new(["key"]));
    let layer = PgSessionLayer::new(store)
        .cookie_domain("example.com")
        .former_cookie_scope(None, "/");
    let response = Browser::new(&app(layer)).get("/insert/a/1").await;
    assert_eq!(
        scopes(&response),
        [
            "removes host/",
            "removes host/",
            "sets example.com/",
            "sets example.com/"
        ]
    );
}

/// A form of an identity provider, without the cookie.
fn form_post(origin: Option<&str>, site: &str) -> Request<Body> {
    let mut request = Request::get("/insert/state/1").header("sec-fetch-site", site);
    if let Some(origin) = origin {
        request = request.header(header::ORIGIN, origin);
    }
    request.body(Body::empty()).expect("a request")
}

#[tokio::test]
async fn a_cross_site_post_without_the_cookie_replaces_no_session_if_the_layer_says_so() {
    let site = Site::new().await;
    let layer = site.layer().begin_on_cross_site_post(false);
    let browser = Browser::new(&app(layer.clone()));
    for origin in ["https://appleid.apple.com", "null"] {
        let response = browser.send(form_post(Some(origin), "cross-site")).await;
        assert_eq!(response.status, 403);
        assert!(response.sets_no_cookie());
    }
    assert_eq!(site.rows().count().await, 0);
    // A link, a form of the site's own, and one that brings the cookie.
    for request in [
        form_post(None, "cross-site"),
        form_post(Some("https://example.com"), "same-origin"),
    ] {
        assert!(browser.send(request).await.token().is_some());
    }
    let known = Browser::with_session(&app(layer)).await;
    let mut request = form_post(Some("null"), "cross-site");
    let cookie = format!("__Host-id={}", known.token());
    request
        .headers_mut()
        .insert(header::COOKIE, cookie.parse().expect("a cookie"));
    let response = known.send(request).await;
    assert_eq!(
        (response.status.as_u16(), response.sets_no_cookie()),
        (200, true)
    );
    // By default it is as any other request.
    let response = site
        .browser()
        .send(form_post(Some("null"), "cross-site"))
        .await;
    assert!(response.token().is_some());
}

/// Safari before 16.4, and browsers on plain HTTP.
#[tokio::test]
async fn a_cross_site_post_is_known_by_its_origin_without_fetch_metadata() {
    let site = Site::new().await;
    let browser = Browser::new(&app(site.layer().begin_on_cross_site_post(false)));
    for (host, origin, status) in [
        ("shop.example", "https://evil.example", 403),
        ("shop.example", "null", 403),
        ("shop.example", "https://shop.example.evil.example", 403),
        ("shop.example", "https://shop.example", 200),
        ("SHOP.example", "http://shop.example", 200),
        ("shop.example:443", "https://shop.example", 200),
        ("shop.example:80", "http://shop.example", 200),
        ("localhost:3000", "http://localhost:3000", 200),
        // Another port is the same site. A proxy may pass on its own.
        ("localhost:3000", "http://localhost:4000", 200),
        ("shop.example:8080", "https://shop.example", 200),
        ("[::1]:3000", "http://[::1]:4000", 200),
        ("[::1]:3000", "http://[::2]:3000", 403),
    ] {
        let request = Request::get("/insert/state/1")
            .header(header::HOST, host)
            .header(header::ORIGIN, origin);
        let request = request.body(Body::empty()).expect("a request");
        let response = browser.send(request).await;
        assert_eq!(response.status, status, "{host}, {origin}");
    }
    // HTTP/2 has the host in the URI.
    for (origin, status) in [("https://shop.example", 200), ("https://a.example", 403)] {
        let request = Request::get("https://shop.example/insert/state/1");
        let request = request.header(header::ORIGIN, origin);
        let request = request.body(Body::empty()).expect("a request");
        assert_eq!(browser.send(request).await.status, status, "{origin}");
    }
    // Nothing to compare with.
    let request = Request::get("/insert/state/1").header(header::ORIGIN, "https://a.example");
    let request = request.body(Body::empty()).expect("a request");
    assert_eq!(browser.send(request).await.status, 403);
}

#[tokio::test]
async fn a_cross_site_logout_ends_nothing_and_is_a_403_if_the_layer_says_so() {
    let site = Site::new().await;
    let mut visitor = site.visitor().await;
    for (begins, expected) in [(true, 200), (false, 403)] {
        let layer = site.layer().begin_on_cross_site_post(begins);
        let page = app_with(layer, async |session: Session| session.logout());
        let mut request = form_post(Some("null"), "cross-site");
        *request.uri_mut() = "/page".parse().expect("a path");
        let response = Browser::new(&page).send(request).await;
        assert_eq!(response.status, expected);
        assert!(response.sets_no_cookie());
    }
    assert_eq!(visitor.get("/keys").await.body, "a");
}

#[tokio::test]
async fn a_handler_that_only_looks_is_served_on_a_cross_site_post() {
    let site = Site::new().await;
    let layer = site
        .layer()
        .begin_on_cross_site_post(false)
        .allow_empty(true);
    let app: Router = pages().layer(layer);
    let mut request = form_post(Some("null"), "cross-site");
    *request.uri_mut() = "/keys".parse().expect("a path");
    let response = Browser::new(&app).send(request).await;
    assert_eq!(
        (response.status.as_u16(), response.sets_no_cookie()),
        (200, true)
    );
}

/// Two developers' sites on two ports, which are one host to a browser.
#[tokio::test]
async fn two_sites_on_ports_of_localhost_do_not_sign_each_other_out() {
    let sites = [Site::new().await, Site::new().await];
    let apps = sites.each_ref().map(|site| app(site.layer().secure(false)));
    let mut browser = Browser::new(&apps[0]);
    for app in &apps {
        browser = browser.at(app);
        browser.get("/insert/a/1").await;
    }
    assert_eq!(browser.jar.len(), 2);
    for app in &apps {
        browser = browser.at(app);
        assert_eq!(browser.get("/get/a").await.body, "\"1\"");
    }
    // Another process of the same site knows the cookie.
    let elsewhere = PgSessionLayer::new(sites[1].elsewhere().await).secure(false);
    assert_eq!(
        browser.at(&app(elsewhere)).peek("/get/a").await.body,
        "\"1\""
    );
}

/// A visit of a host, with the cookies that the browser has of it.
async fn visit(browser: &mut Browser, app: &Router, host: &str, path: &str) -> Reply {
    let mut next = browser.at(app);
    let mut request = next.request(path);
    let host = HeaderValue::from_str(host).expect("a host");
    request.headers_mut().insert(header::HOST, host);
    let response = next.send(request).await;
    next.accept(&response);
    *browser = next;
    response
}

fn names(browser: &Browser) -> Vec<&str> {
    browser.jar.iter().map(|(name, _)| name.as_str()).collect()
}

fn is_marked(name: &str, default: &str) -> bool {
    let mark = name
        .strip_prefix(default)
        .and_then(|rest| rest.strip_prefix('-'));
    mark.is_some_and(|mark| mark.len() == 8 && mark.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[tokio::test]
async fn two_applications_with_default_options_on_localhost_keep_their_sessions() {
    let sites = [Site::new().await, Site::new().await];
    for signed in [false, true] {
        let keys = || SigningKeys::new([b"a key of 32 bytes, or longer than that"]);
        let app_of = |layer: PgSessionLayer| match signed {
            true => app(layer.signing_keys(keys())),
            false => app(layer),
        };
        let apps = sites.each_ref().map(|site| app_of(site.layer()));
        let at = [(&apps[0], "localhost:3000"), (&apps[1], "localhost:4000")];
        let mut browser = Browser::new(&apps[0]);
        for ((app, host), value) in at.into_iter().zip(["1", "2"]) {
            visit(&mut browser, app, host, &format!("/insert/a/{value}")).await;
        }
        assert_eq!(browser.jar.len(), 2, "{:?}", browser.jar);
        assert_ne!(names(&browser)[0], names(&browser)[1]);
        for name in names(&browser) {
            assert!(is_marked(name, "__Host-id"), "{name}");
        }
        for ((app, host), value) in at.into_iter().zip(["1", "2"]) {
            let response = visit(&mut browser, app, host, "/get/a").await;
            assert_eq!(response.body, format!("\"{value}\""), "{host}");
        }

        // Another process, behind the proxy of a development server.
        let elsewhere = app_of(PgSessionLayer::new(sites[1].elsewhere().await));
        for host in [
            "localhost:5173",
            "shop.localhost",
            "127.0.0.1:4001",
            "[::1]:4000",
        ] {
            let response = visit(&mut browser, &elsewhere, host, "/get/a").await;
            assert_eq!(response.body, "\"2\"", "{host}");
        }

        // A logout removes its own cookie.
        let kept = browser.jar[0].clone();
        let response = visit(&mut browser, &apps[1], "localhost:4000", "/destroy").await;
        assert!(response.removes_the_cookie(), "{response:?}");
        assert_eq!(browser.jar, [kept]);
        let response = visit(&mut browser, &apps[1], "localhost:4000", "/keys").await;
        assert_eq!(response.body, "");
        let response = visit(&mut browser, &apps[0], "localhost:3000", "/get/a").await;
        assert_eq!(response.body, "\"1\"");
    }
}

#[tokio::test]
async fn only_the_default_name_is_longer_and_only_on_this_machine() {
    let site = Site::new().await;
    let insert = async |layer: PgSessionLayer, host: &str| {
        let app = app(layer);
        let mut browser = Browser::new(&app);
        visit(&mut browser, &app, host, "/insert/a/1").await;
        let response = visit(&mut browser, &app, host, "/get/a").await;
        assert_eq!(response.body, "\"1\"", "{host}");
        names(&browser)[0].to_owned()
    };
    for host in ["shop.example", "localhost.example:3000", "192.0.2.7:3000"] {
        assert_eq!(insert(site.layer(), host).await, "__Host-id", "{host}");
    }
    let local = "localhost:3000";
    let realm = PgSessionLayer::new(site.store.clone().realm("admin"));
    let name = insert(realm, local).await;
    assert!(is_marked(&name, "__Host-id-admin"), "{name}");
    let chosen = site.layer().cookie_name("__Host-id");
    assert_eq!(insert(chosen, local).await, "__Host-id");
    let insecure = insert(site.layer().secure(false), local).await;
    assert!(is_marked(&insecure, "id"), "{insecure}");
    let koa = PgSessionLayer::new(site.store.clone().koa(Koa::unsigned()));
    assert_eq!(insert(koa, local).await, "koa.sid");
}

/// As in production.
#[tokio::test]
async fn two_tables_of_one_application_share_the_cookie_on_localhost() {
    let site = Site::new().await;
    execute(
        &site.pool,
        "CREATE TABLE admin (LIKE session INCLUDING ALL)",
    )
    .await;
    let admin = site.elsewhere().await.table("admin");
    let apps = [app(site.layer()), app(PgSessionLayer::new(admin))];
    let mut browser = Browser::new(&apps[0]);
    for app in &apps {
        visit(&mut browser, app, "localhost:3000", "/insert/a/1").await;
    }
    assert_eq!(browser.jar.len(), 1, "{:?}", browser.jar);
}

/// The token is bound to the default name, so the session is the same on each host.
#[tokio::test]
async fn a_token_of_localhost_is_bound_to_the_default_name() {
    let site = Site::new().await;
    let app = site.app();
    let mut browser = Browser::new(&app);
    visit(&mut browser, &app, "localhost:3000", "/insert/a/1").await;
    let (name, token) = browser.jar[0].clone();
    let mut elsewhere = Browser::new(&app).with_cookie("__Host-id", &token);
    let response = visit(&mut elsewhere, &app, "shop.example", "/get/a").await;
    assert_eq!(response.body, "\"1\"");
    let chosen = Browser::new(&pages().layer(site.layer().cookie_name("__Host-id")));
    let chosen = chosen.with_cookie("__Host-id", &token);
    assert_eq!(chosen.peek("/get/a").await.body, "\"1\"");
    // Each host reads the cookie of its own name only.
    let mut elsewhere = Browser::new(&app).with_cookie(&name, &token);
    let response = visit(&mut elsewhere, &app, "shop.example", "/get/a").await;
    assert_eq!(response.body, "none");
    let mut local = Browser::new(&app).with_cookie("__Host-id", &token);
    let response = visit(&mut local, &app, "localhost:3000", "/get/a").await;
    assert_eq!(response.body, "none");
}

/// A page may destroy a session whose cookie opens none. On localhost that cookie has the
/// longer name.
#[tokio::test]
async fn a_dead_cookie_of_localhost_is_removed_by_its_name_there() {
    let site = Site::new().await;
    let app = site.app();
    let mut browser = Browser::new(&app);
    visit(&mut browser, &app, "localhost:3000", "/insert/a/1").await;
    let name = browser.jar[0].0.clone();
    let named = name.clone();
    let dead = |app: &Router| Browser::new(app).with_cookie(&named, &"A".repeat(43));
    let mut browser = dead(&app);
    let response = visit(&mut browser, &app, "localhost:3000", "/destroy").await;
    assert!(response.removes_the_cookie(), "{response:?}");
    assert!(browser.jar.is_empty(), "{:?}", browser.jar);

    // Not if the response sets that cookie already.
    let page = async move |session: Session| {
        session.destroy()?;
        let cookie = format!("{name}=of-another-process");
        Ok::<_, axum_pg_session::Error>([(header::SET_COOKIE, cookie)])
    };
    let app = app_with(site.layer(), page);
    browser = dead(&app);
    let response = visit(&mut browser, &app, "localhost:3000", "/page").await;
    let cookies = response.set_cookies();
    assert_eq!(cookies[0].value(), "of-another-process");
}

/// Whose database has the name of its user, as in libpq.
#[tokio::test]
async fn a_site_without_a_database_in_its_url_is_marked_by_its_user() {
    if std::env::var_os("PGDATABASE").is_some() {
        return;
    }
    let warnings = async |[inner, outer]: [&str; 2]| {
        let layer = |user: &str| {
            let url = format!("postgres://{user}@127.0.0.1:1");
            let pool = sqlx::PgPool::connect_lazy(&url).expect("a URL");
            let store = axum_pg_session::PgSessionStore::new(pool);
            PgSessionLayer::new(store).secure(false)
        };
        let log = Log::keep();
        let app = pages().layer(layer(inner)).layer(layer(outer));
        Browser::new(&app).peek("/plain").await;
        // Of one name, the inner layer has no effect.
        log.text().matches("has no effect").count()
    };
    assert_eq!(warnings(["shop", "shop"]).await, 1);
    assert_eq!(warnings(["shop", "blog"]).await, 0);
}

#[tokio::test]
async fn a_value_of_another_program_under_our_name_is_left_alone() {
    let site = Site::new().await;
    let app = app(site.layer().secure(false).cookie_name("id"));
    for value in ["42", "s%3Aabc.def", "eyJhbGciOiJIUzI1NiJ9.e30.x"] {
        let browser = Browser::new(&app).with_cookie("id", value);
        assert!(browser.peek("/keys").await.sets_no_cookie(), "{value}");
    }
}

/// A path alone separates nothing, because a client can send its cookie to another path. The
/// default names do.
#[tokio::test]
async fn two_areas_with_paths_of_their_own_share_no_sessions() {
    let site = Site::new().await;
    for secure in [true, false] {
        let area = |path: &str| site.layer().secure(secure).cookie_path(path);
        let [shop, admin] = ["/shop", "/admin"].map(area);
        let visitor = sign_in(shop).await;
        let (name, token) = visitor.jar[0].clone();
        assert_eq!(user_behind(area("/shop"), &name, &token).await, "1");
        let admins = Browser::with_session(&app(admin.clone())).await;
        let other = admins.jar[0].0.clone();
        assert_ne!(name, other);
        for name in [&name, &other] {
            assert_eq!(user_behind(admin.clone(), name, &token).await, "");
        }
    }
}

/// As an application that connects twice.
#[tokio::test]
async fn layers_of_two_stores_for_one_table_that_share_sessions_are_logged_once() {
    let site = Site::new().await;
    let log = Log::keep();
    let _first = app(site.layer());
    let second = PgSessionLayer::new(site.elsewhere().await);
    drop(app(second.clone().cookie_name("sid")));
    assert_eq!(log.text().matches("share their sessions").count(), 0);
    drop(app(second.clone()));
    drop(app(second));
    assert_eq!(log.text().matches("share their sessions").count(), 1);
    // The same table of another database.
    let other = Site::new().await;
    let log = Log::keep();
    drop(app(other.layer()));
    assert_eq!(log.text().matches("share their sessions").count(), 0);
}
