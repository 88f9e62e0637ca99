//! Responses: their headers and cookies, what they report of a failed save, and what is logged.

use std::{env, sync::Arc, time::Duration};

use axum::{
    Router,
    body::to_bytes,
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, SET_COOKIE, VARY},
    },
    response::{AppendHeaders, IntoResponse as _},
};
use axum_pg_session::{
    Error, ErrorKind, Expiry, LazySession, PgSessionLayer, PgSessionStore, Session,
    SessionRejection,
};
use serde_json::json;
use sqlx::postgres::PgPoolOptions;

use crate::support::{
    Browser, Reply, Site, app, child::passes, execute, log::Log, page::app_with, proxy::Proxy,
    site::pages,
};

type Outcome = Result<(), Error>;

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values
        .map(|value| value.to_str().expect("ASCII").to_owned())
        .collect()
}

fn vary(reply: &Reply) -> Vec<String> {
    values(&reply.headers, VARY.as_str())
}

fn caching(reply: &Reply) -> Vec<String> {
    values(&reply.headers, CACHE_CONTROL.as_str())
}

#[tokio::test]
async fn vary_is_set_whenever_the_session_was_looked_at() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    for page in [
        "/keys",
        "/insert/a/2",
        "/insert_and/304/a/3",
        "/insert_and/404/a/4",
        "/insert_and/500/a/5",
        "/cycle",
        "/destroy",
    ] {
        assert_eq!(vary(&browser.get(page).await), ["cookie"], "{page}");
    }
    assert_eq!(vary(&site.browser().get("/keys").await), ["cookie"]);
    let mut browser = site.visitor().await;
    site.rows().age(7200.0).await;
    let touched = browser.get("/keys").await;
    assert_eq!(vary(&touched), ["cookie"], "a touch");
    assert!(touched.sets_no_cookie(), "a touch");
    execute(&site.pool, "ALTER TABLE public.session RENAME TO gone").await;
    let failed = browser.get("/keys").await;
    assert!(failed.status.is_server_error());
    assert_eq!(vary(&failed), ["cookie"], "a load that failed");
}

#[tokio::test]
async fn vary_is_not_set_if_the_session_is_ignored() {
    let site = Site::new().await;
    let reply = site.visitor().await.get("/plain").await;
    assert_eq!(vary(&reply), [""; 0]);
    assert_eq!(caching(&reply), [""; 0]);
}

#[tokio::test]
async fn an_applications_vary_stays() {
    let site = Site::new().await;
    for (own, expected) in [
        ("accept", vec!["accept", "cookie"]),
        ("accept, Cookie", vec!["accept, Cookie"]),
        ("*", vec!["*"]),
    ] {
        let app =
            site.app_with(async move |session: Session| ([(VARY, own)], session.keys().join(",")));
        assert_eq!(vary(&Browser::new(&app).get("/page").await), expected);
    }
}

#[tokio::test]
async fn a_response_with_a_cookie_is_not_stored_by_any_cache() {
    let site = Site::new().await;
    let mut browser = site.browser();
    for page in ["/insert/a/1", "/cycle", "/destroy"] {
        assert_eq!(caching(&browser.get(page).await), ["no-store"], "{page}");
    }
}

#[tokio::test]
async fn a_response_without_a_cookie_keeps_its_caching() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        ([(CACHE_CONTROL, "max-age=60")], session.keys().join(","))
    });
    let mut browser = Browser::with_session(&app).await;
    assert_eq!(caching(&browser.get("/insert/a/2").await), [""; 0]);
    assert_eq!(caching(&browser.get("/page").await), ["max-age=60"]);
}

/// What becomes of the application's own `Cache-Control` beside our cookie.
async fn beside_a_cookie(own: &'static str) -> Vec<String> {
    let site = Site::new().await;
    let app = site.app_with(async move |session: Session| {
        session.insert("a", 1)?;
        Ok::<_, Error>([(CACHE_CONTROL, own)])
    });
    let reply = Browser::new(&app).get("/page").await;
    assert!(reply.token().is_some());
    caching(&reply)
}

#[tokio::test]
async fn an_applications_own_private_or_no_store_stays() {
    for own in ["private", "no-store", "private, max-age=60", "No-Store"] {
        assert_eq!(beside_a_cookie(own).await, [own]);
    }
}

#[tokio::test]
async fn no_shared_cache_may_store_a_cookie() {
    for own in [
        "public",
        "max-age=60",
        "public, max-age=60",
        "private, s-maxage=60",
        "no-cache=\"set-cookie\"",
        "private=\"set-cookie\"",
    ] {
        assert_eq!(beside_a_cookie(own).await, ["no-store"], "{own}");
    }
}

#[tokio::test]
async fn an_applications_own_cookies_stay() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("a", 1)?;
        let own = [(SET_COOKIE, "theme=dark"), (SET_COOKIE, "size=7")];
        Ok::<_, Error>(AppendHeaders(own))
    });
    let reply = Browser::new(&app).get("/page").await;
    let mut names: Vec<_> = reply
        .set_cookies()
        .iter()
        .map(|c| c.name().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["__Host-id", "size", "theme"]);
}

#[tokio::test]
async fn there_is_one_cookie_whatever_a_request_did() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.destroy()?;
        session.insert("b", 1)?;
        session.save().await?;
        session.cycle_id()?;
        session.save().await?;
        session.set_expiry(Expiry::Idle(Duration::from_hours(1)))?;
        session.save().await?;
        session.cycle_id()
    });
    let mut browser = Browser::with_session(&app).await;
    assert_eq!(browser.get("/page").await.set_cookies().len(), 1);
    assert_eq!(browser.get("/keys").await.body, "b");
}

#[tokio::test]
async fn an_unchanged_session_sets_no_cookie() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    for page in ["/keys", "/get/a", "/insert/a/1", "/insert/b/2", "/clear"] {
        assert!(browser.get(page).await.sets_no_cookie(), "{page}");
    }
}

#[tokio::test]
async fn a_cookie_that_opens_nothing_is_removed_only_by_a_handler_that_ends_the_session() {
    let site = Site::new().await;
    let browser = site.browser().with_cookie("__Host-id", &"A".repeat(43));
    for page in ["/keys", "/clear", "/cycle", "/destroy"] {
        let reply = browser.peek(page).await;
        assert_eq!(reply.removes_the_cookie(), page == "/destroy", "{page}");
        assert_eq!(reply.sets_no_cookie(), page != "/destroy", "{page}");
        assert_eq!(reply.status, 200, "{page}");
    }
}

#[tokio::test]
async fn a_5xx_saves_nothing() {
    let site = Site::new().await;
    let changes: [fn(&Session) -> Outcome; 3] = [
        |session| session.insert("c", 3),
        |session| {
            session.clear()?;
            session.set_expiry(Expiry::Idle(Duration::from_hours(1)))
        },
        |session| session.login("ada"),
    ];
    for change in changes {
        let app = site.app_with(async move |session: Session| {
            change(&session)?;
            Ok::<_, Error>(StatusCode::SERVICE_UNAVAILABLE)
        });
        let mut browser = Browser::with_session(&app).await;
        let before = site.rows().dump().await;
        for browser in [&mut browser, &mut site.browser().at(&app)] {
            let reply = browser.get("/page").await;
            assert_eq!(reply.status, 503);
            assert!(reply.sets_no_cookie());
            assert_eq!(site.rows().dump().await, before);
        }
    }
}

#[tokio::test]
async fn a_5xx_after_cycle_id_loses_nothing() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    let before = site.rows().dump().await;
    let reply = browser.get("/cycle_and/500").await;
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().dump().await, before);
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn a_5xx_after_destroy_ends_the_session_and_begins_no_other() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.destroy()?;
        session.insert("farewell", 1)?;
        Ok::<_, Error>(StatusCode::INTERNAL_SERVER_ERROR)
    });
    let reply = Browser::with_session(&app).await.get("/page").await;
    assert_eq!(reply.status, 500);
    assert!(reply.removes_the_cookie());
    assert_eq!(site.rows().dump().await.len(), 0);
}

#[tokio::test]
async fn an_error_of_the_session_as_a_response_saves_nothing() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("c", 3)?;
        session.get::<u64>("a").map(drop)
    });
    let mut browser = Browser::with_session(&app).await;
    let reply = browser.get("/page").await;
    assert_eq!(reply.status, 500);
    assert_eq!(reply.body, "A value of your session can't be read.");
    assert_eq!(browser.get("/keys").await.body, "a");
}

fn assert_not_saved(reply: &Reply) {
    assert_eq!(reply.status, 503);
    assert_ne!(reply.body, "");
    assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert!(reply.sets_no_cookie());
    assert_eq!(vary(reply), ["cookie"]);
}

#[tokio::test]
async fn a_save_that_fails_is_a_503_and_changes_nothing() {
    let site = Site::new().await;
    site.refuse("INSERT").await;
    assert_not_saved(&site.browser().get("/increment/n").await);
    assert_eq!(site.rows().count().await, 0);
    site.refuse_no_more("INSERT").await;
    let mut browser = site.visitor().await;
    for (refused, page) in [
        ("UPDATE", "/increment/n"),
        ("INSERT", "/cycle"),
        ("UPDATE", "/cycle"),
    ] {
        site.refuse(refused).await;
        assert_not_saved(&browser.get(page).await);
        site.refuse_no_more(refused).await;
        assert_eq!(browser.get("/get/a").await.body, "\"1\"");
        assert_eq!(site.rows().dump().await.len(), 1);
    }
    assert_eq!(browser.get("/increment/n").await.body, "1");
}

#[tokio::test]
async fn a_logout_that_was_not_stored_is_a_503() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    site.refuse("DELETE").await;
    for page in ["/destroy", "/destroy_and/500"] {
        assert_not_saved(&browser.get(page).await);
        assert_eq!(browser.get("/get/a").await.body, "\"1\"");
    }
    site.refuse_no_more("DELETE").await;
    assert!(browser.get("/destroy").await.removes_the_cookie());
}

#[tokio::test]
async fn nothing_is_begun_after_a_logout_that_was_not_stored() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.destroy()?;
        session.insert("farewell", 1)
    });
    let mut browser = Browser::with_session(&app).await;
    site.refuse("DELETE").await;
    assert_not_saved(&browser.get("/page").await);
    assert_eq!(site.rows().document().await, json!({"a": "1"}));
}

#[tokio::test]
async fn a_touch_that_fails_does_not_fail_the_request() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    site.rows().age(7200.0).await;
    site.refuse("UPDATE").await;
    let reply = browser.get("/get/a").await;
    reply.assert(200, "\"1\"");
}

#[tokio::test]
async fn a_redirect_target_sees_what_was_saved() {
    let site = Site::new().await;
    let elsewhere = app(PgSessionLayer::new(site.elsewhere().await));
    let mut browser = site.visitor().await;
    for n in 0..1000 {
        browser.get(&format!("/insert_and/303/n/{n}")).await;
        let target = browser.at(&elsewhere).get("/get/n").await;
        assert_eq!(target.body, format!("\"{n}\""));
    }
}

/// A site whose database can be made deaf.
struct Remote {
    site: Site,
    proxy: Arc<Proxy>,
}

impl Remote {
    async fn new() -> Self {
        let site = Site::new().await;
        let proxy = Arc::new(Proxy::before(site.database.url()).await);
        Self { site, proxy }
    }

    fn layer(&self) -> PgSessionLayer {
        let pool = PgPoolOptions::new().connect_lazy_with(self.proxy.options());
        PgSessionLayer::new(PgSessionStore::new(pool).timeout(Duration::from_secs(2)))
    }
}

#[tokio::test]
async fn a_failed_load_never_overwrites_the_row() {
    let remote = Remote::new().await;
    let mut browser = Browser::with_session(&app(remote.layer())).await;
    let before = remote.site.rows().dump().await;
    remote.proxy.drop_responses(true);
    for page in ["/insert/a/2", "/clear", "/cycle", "/destroy", "/keys"] {
        let reply = browser.get(page).await;
        assert_eq!(reply.status, 503, "{page}");
        assert!(reply.sets_no_cookie(), "{page}");
        assert_eq!(vary(&reply), ["cookie"], "{page}");
    }
    remote.proxy.drop_responses(false);
    assert_eq!(remote.site.rows().dump().await, before);
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn a_page_that_goes_on_without_its_session_leaves_the_cookie() {
    let remote = Remote::new().await;
    let app = app_with(
        remote.layer(),
        async |session: Result<Session, SessionRejection>| match session {
            Ok(_) => "with",
            Err(SessionRejection::NotLoaded(_)) => "without",
            Err(_) => "no layer",
        },
    );
    let browser = Browser::with_session(&app).await;
    remote.proxy.drop_responses(true);
    let reply = browser.peek("/page").await;
    reply.assert(200, "without");
    assert!(reply.sets_no_cookie());
}

#[tokio::test]
async fn a_connection_lost_before_the_save_is_a_503() {
    let remote = Remote::new().await;
    let proxy = Arc::clone(&remote.proxy);
    let app = app_with(remote.layer(), async move |session: Session| {
        proxy.drop_responses(true);
        session.insert("b", 2)
    });
    let mut browser = Browser::with_session(&app).await;
    assert_not_saved(&browser.get("/page").await);
    remote.proxy.drop_responses(false);
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn a_logout_that_the_database_never_confirmed_is_a_503() {
    let remote = Remote::new().await;
    let proxy = Arc::clone(&remote.proxy);
    let app = app_with(remote.layer(), async move |session: Session| {
        proxy.drop_responses(true);
        session.destroy()
    });
    let mut browser = Browser::with_session(&app).await;
    assert_not_saved(&browser.get("/page").await);
}

#[tokio::test]
async fn without_a_layer_the_log_names_the_route_and_the_visitor_sees_no_detail() {
    let log = Log::keep();
    let pages = pages().route("/of/{user}", axum::routing::get(async |_: LazySession| ()));
    let browser = Browser::new(&pages);
    assert_eq!(browser.peek("/of/ada").await.status, 500);
    let text = log.text();
    assert!(
        text.contains("/of/{user}") && !text.contains("ada"),
        "{text}"
    );
    let reply = browser.peek("/keys").await;
    assert_eq!(reply.status, 500);
    assert_eq!(reply.body, "The session store can't be used.");
    let error = reply.error.expect("for a page of the application's own");
    assert_eq!(error.kind(), ErrorKind::Setup);
    let what_to_do = "add `.layer(PgSessionLayer::new(store))`";
    assert!(error.to_string().contains(what_to_do), "{error}");
    let text = log.text();
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains(what_to_do))
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[1].contains("ERROR axum_pg_session"), "{text}");
    assert!(
        lines[1].contains("GET") && lines[1].contains("/keys"),
        "{text}"
    );
}

#[tokio::test]
async fn an_outage_is_logged_once_with_its_cause() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    let pool = sqlx::PgPool::connect_lazy(&format!("postgres://{address}/none")).expect("a URL");
    let store = PgSessionStore::new(pool).timeout(Duration::from_millis(300));
    let browser = Browser::new(&app(PgSessionLayer::new(store)));
    let log = Log::keep();
    for _ in 0..3 {
        assert_eq!(browser.peek("/insert/a/1").await.status, 503);
    }
    let text = log.text();
    let warnings: Vec<_> = text
        .lines()
        .filter(|line| line.contains("WARN axum_pg_session"))
        .collect();
    assert_eq!(warnings.len(), 1, "{text}");
    assert!(warnings[0].contains("can't be reached"), "{text}");
    let port = format!("server.port={}", address.port());
    assert!(warnings[0].contains(&port), "{text}");
}

#[tokio::test]
async fn without_a_layer_an_optional_session_is_none() {
    let page = async |session: Option<Session>| session.is_none().to_string();
    let app: Router = Router::new().route("/", axum::routing::get(page));
    assert_eq!(Browser::new(&app).get("/").await.body, "true");
    let site = Site::new().await;
    assert_eq!(
        Browser::new(&site.app_with(page)).get("/page").await.body,
        "false"
    );
}

#[tokio::test]
async fn an_optional_session_that_cannot_be_loaded_is_no_absent_one() {
    let remote = Remote::new().await;
    let page = async |session: Option<Session>| session.is_none().to_string();
    let browser = Browser::with_session(&app_with(remote.layer(), page)).await;
    remote.proxy.drop_responses(true);
    assert_eq!(browser.peek("/page").await.status, 503);
}

#[tokio::test]
async fn an_error_as_a_response_shows_no_detail() {
    let url = "postgres://bob:sesame@127.0.0.1:1/none";
    let nowhere = sqlx::PgPool::connect_lazy(url).expect("a URL");
    let store = PgSessionStore::new(nowhere).timeout(Duration::from_millis(100));
    for (error, kind, status, expected) in [
        (
            store.check().await.expect_err("no server listens"),
            ErrorKind::Unavailable,
            503,
            "The session store is unavailable. Please try again.",
        ),
        (
            PgSessionStore::connect("sesame").await.expect_err("no URL"),
            ErrorKind::Setup,
            500,
            "The session store can't be used.",
        ),
    ] {
        assert_eq!(error.kind(), kind);
        assert!(std::error::Error::source(&error).is_some());
        let response = error.into_response();
        assert_eq!(response.status(), status);
        let body = to_bytes(response.into_body(), usize::MAX).await;
        assert_eq!(body.expect("a whole body"), expected);
    }
}

/// A page whose session ends before it saves.
fn ended_meanwhile(site: &Site) -> Router {
    let rows = site.rows();
    site.app_with(async move |session: Session| {
        rows.execute("DELETE FROM TABLE").await;
        session.insert("b", 2)?;
        session.save().await?;
        Outcome::Ok(())
    })
}

// What is logged of errors that become responses.

const BECAME_A_RESPONSE: &str = "a handler returned an error of a session";

#[tokio::test]
async fn an_error_that_a_handler_returns_is_logged_once_without_the_value() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| session.get::<u64>("a").map(drop));
    let mut browser = Browser::new(&app);
    browser.get("/insert/a/secret").await;
    let log = Log::keep();
    assert_eq!(browser.get("/page").await.status, 500);
    let text = log.text();
    let errors: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("ERROR"))
        .collect();
    assert_eq!(errors.len(), 1, "{text}");
    for part in [BECAME_A_RESPONSE, "deserialize", "status_code=500"] {
        assert!(errors[0].contains(part), "{text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

/// An error that is the visitor's, or of a session that ended, is no fault of
/// the site.
#[tokio::test]
async fn only_faults_of_the_site_are_logged_as_errors() {
    let log = Log::keep();
    let site = Site::new().await;
    let app = ended_meanwhile(&site);
    assert_eq!(
        Browser::with_session(&app).await.get("/page").await.status,
        503
    );
    let text = log.text();
    assert!(!text.contains("ERROR axum_pg_session"), "{text}");
    let refused = "a change to a session was refused";
    assert_eq!(text.matches(refused).count(), 1, "{text}");
    assert!(text.contains("DEBUG axum_pg_session::error"), "{text}");
}

#[tokio::test]
async fn an_error_that_is_logged_already_is_not_logged_again() {
    let site = Site::without_table().await;
    let log = Log::keep();
    let lookup = site.browser().with_cookie("__Host-id", &"A".repeat(43));
    assert_eq!(lookup.peek("/keys").await.status, 500);
    assert_eq!(site.browser().peek("/insert/a/1").await.status, 503);
    let app = site.app_with(async |session: Session| {
        session.insert("a", 1)?;
        session.save().await
    });
    assert_eq!(Browser::new(&app).peek("/page").await.status, 500);
    let text = log.text();
    let errors: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("ERROR"))
        .collect();
    let events = [
        "a session could not be loaded; the caller gets the error",
        "a session could not be saved",
        BECAME_A_RESPONSE,
    ];
    assert_eq!(errors.len(), events.len(), "{text}");
    for (line, event) in errors.iter().zip(events) {
        assert!(line.contains(event), "{line}");
    }
}

// What the visitor reads.

#[tokio::test]
async fn a_failed_save_says_that_the_changes_were_not_saved_whatever_the_cause() {
    let nothing = Site::without_table().await;
    let site = Site::new().await;
    let layer = site.layer();
    let failing = layer.before_save(|_| Err(Error::application("the hook failed")));
    for app in [nothing.app(), app(failing)] {
        let reply = Browser::new(&app).peek("/insert/a/1").await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.body, "Your changes could not be saved.");
    }
}

// Several applications on one host.

const TWO_APPLICATIONS: &str = "another application on this host may have set";

/// They are logged once in a process, so each of these tests needs one of its own.
#[test]
fn warnings_of_the_cookies_of_a_host_are_logged_in_processes_of_their_own() {
    for test in [
        "responses::two_applications_that_replace_each_others_cookie_are_warned_of_once",
        "responses::a_secure_cookie_on_plain_http_is_warned_of_once",
    ] {
        passes(test, [(ALONE, "1")]);
    }
}

const ALONE: &str = "WARNS_IN_ITS_OWN_PROCESS";

#[tokio::test]
async fn two_applications_that_replace_each_others_cookie_are_warned_of_once() {
    if env::var_os(ALONE).is_none() {
        return;
    }
    let (one, other) = (Site::new().await, Site::new().await);
    let log = Log::keep();
    let visit = async |browser: &mut Browser, app: &Router, host: &'static str| {
        let mut next = browser.at(app);
        let mut request = next.request("/insert/a/1");
        let host = axum::http::HeaderValue::from_static(host);
        request.headers_mut().insert("host", host);
        let reply = next.send(request).await;
        next.accept(&reply);
        *browser = next;
    };
    let warnings = || log.text().matches(TWO_APPLICATIONS).count();
    // The default names differ on localhost.
    let mut browser = Browser::new(&one.app());
    for app in [one.app(), other.app(), one.app()] {
        visit(&mut browser, &app, "localhost:3000").await;
        assert_eq!(warnings(), 0, "{}", log.text());
    }
    let chosen = [&one, &other].map(|site| app(site.layer().cookie_name("__Host-app")));
    let [one, other] = &chosen;
    let mut browser = Browser::new(one);
    for (app, host) in [
        (one, "localhost:3000"),
        // The cookie is the application's own.
        (one, "localhost:3000"),
        (other, "shop.example:3001"),
        (one, "localhost.example"),
    ] {
        visit(&mut browser, app, host).await;
        assert_eq!(warnings(), 0, "{host}");
    }
    for (app, host) in [
        (other, "localhost:3001"),
        (one, "localhost:3000"),
        (other, "127.0.0.1:3001"),
    ] {
        visit(&mut browser, app, host).await;
    }
    assert_eq!(warnings(), 1, "{}", log.text());
    let text = log.text();
    let line = text.lines().find(|line| line.contains(TWO_APPLICATIONS));
    let line = line.expect("a warning");
    assert!(line.starts_with("WARN axum_pg_session"), "{line}");
    assert!(line.contains("cookie.name=\"__Host-app\""), "{line}");
}

#[tokio::test]
async fn a_secure_cookie_on_plain_http_is_warned_of_once() {
    if env::var_os(ALONE).is_none() {
        return;
    }
    let site = Site::new().await;
    let log = Log::keep();
    let post = async |layer: PgSessionLayer, host: &'static str, origin: &'static str| {
        let browser = Browser::new(&app(layer));
        let mut request = browser.request("/insert/a/1");
        for (name, value) in [("host", host), ("origin", origin)] {
            let value = axum::http::HeaderValue::from_static(value);
            request.headers_mut().insert(name, value);
        }
        assert_eq!(browser.send(request).await.status, 200);
        log.text().matches("over plain HTTP").count()
    };
    let not_secure = site.layer().secure(false).cookie_name("id");
    for (layer, host, origin, warnings) in [
        (site.layer(), "shop.test", "https://shop.test", 0),
        (site.layer(), "shop.test", "http://evil.test", 0),
        (site.layer(), "localhost:3000", "http://localhost:3000", 0),
        (not_secure, "shop.test", "http://shop.test", 0),
        (site.layer(), "shop.test:3000", "http://shop.test:3000", 1),
        (site.layer(), "shop.test:3000", "http://shop.test:3000", 1),
    ] {
        assert_eq!(post(layer, host, origin).await, warnings, "{host} {origin}");
    }
}
