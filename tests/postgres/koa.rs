//! Koa's format: rows, cookies and settings beside a site on Koa.

use std::time::Duration;

use axum::{Router, routing::get};
use axum_pg_session::{Error, ErrorKind, Koa, PgSessionLayer, Session};
use cookie::Cookie;
use indexmap::IndexMap;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::{
    Browser, Log, Rows, Site, app, execute,
    koa::{DAY, DOCUMENT, KEYS, SID, koa, signature},
    texts, unreachable_store, visit,
};

async fn ids(site: &Site) -> Vec<String> {
    texts(&site.pool, "SELECT id FROM public.session ORDER BY id").await
}

async fn expiry(site: &Site) -> Vec<String> {
    texts(&site.pool, "SELECT expiry::text FROM public.session").await
}

/// When a cookie ends: the date as it is written, and in how many seconds.
fn end_of(line: &str) -> (String, f64) {
    let cookie = Cookie::parse(line).expect("a cookie");
    let end = cookie.expires_datetime().expect("a date");
    let (_, date) = line.split_once("expires=").expect("a date");
    let date = date.split(';').next().unwrap_or_default().to_owned();
    (date, (end - OffsetDateTime::now_utc()).as_seconds_f64())
}

/// The date on which both cookies end, as it is written: when the row expires. It was computed a
/// moment before or after, so the second may be another one.
async fn end_of_both(site: &Site, lines: &[impl AsRef<str>]) -> String {
    let [first, second] = lines else {
        panic!("{} cookies", lines.len());
    };
    let (date, seconds) = end_of(first.as_ref());
    assert_eq!(end_of(second.as_ref()).0, date);
    let left = site.rows().seconds_left().await;
    assert!((left - seconds).abs() < 5.0, "{left} and {seconds}");
    date
}

#[tokio::test]
async fn a_session_of_koas_is_read_and_its_row_stays_as_it_is() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let before = site.rows().dump().await;
    let reply = browser.get("/get/count").await;
    assert_eq!(reply.body, "2");
    assert!(reply.sets_no_cookie());
    assert_eq!(browser.get("/keys").await.body, "count");
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn a_session_of_koas_is_changed_in_its_row() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    assert_eq!(browser.get("/increment/count").await.body, "3");
    browser.get("/insert/name/Ada").await;
    assert_eq!(ids(&site).await, [format!("koa:sess:{SID}")]);
    let expected = DOCUMENT.replace(r#""count":2}"#, r#""count":3,"name":"Ada"}"#);
    assert_eq!(site.rows().text().await, expected);
}

#[tokio::test]
async fn a_new_session_is_one_that_koa_would_have_made() {
    let site = Site::of_koa().await;
    let mut browser = site.browser();
    let reply = browser.get("/insert/name/Ada").await;
    let sid = browser.sid().to_owned();
    assert_eq!(sid.len(), 32);
    assert_eq!(ids(&site).await, [format!("koa:sess:{sid}")]);
    let expected = DOCUMENT.replace(r#""count":2"#, r#""name":"Ada""#);
    assert_eq!(site.rows().text().await, expected);
    assert!((site.rows().seconds_left().await - DAY).abs() < 5.0);

    let date = end_of_both(&site, &reply.cookie_lines()).await;
    let signature = signature(KEYS[0], "koa.sid", &sid);
    assert_eq!(
        reply.cookie_lines(),
        [
            format!("koa.sid={sid}; path=/; expires={date}; httponly"),
            format!("koa.sid.sig={signature}; path=/; expires={date}; httponly"),
        ]
    );
}

#[tokio::test]
async fn a_session_that_axum_made_can_be_koas_next() {
    let site = Site::of_koa().await;
    let mut browser = site.browser();
    browser.get("/insert/n/1").await;
    let sid = browser.sid().to_owned();
    let written = site.rows().text().await.replace(r#""1""#, "[2]");
    site.koa_writes(&sid, &written, DAY).await;
    assert_eq!(browser.get("/get/n").await.body, "[2]");
}

#[tokio::test]
async fn an_unknown_id_is_never_adopted() {
    let site = Site::of_koa().await;
    // Even one that the site signed once.
    let mut browser = site.browser().signed(SID, KEYS[0]);
    browser.get("/insert/a/1").await;
    assert_ne!(browser.sid(), SID);
    assert_eq!(ids(&site).await, [format!("koa:sess:{}", browser.sid())]);
}

#[tokio::test]
async fn a_cookie_without_its_signature_costs_no_statement() {
    let browser = Browser::new(&app(PgSessionLayer::new(unreachable_store().koa(koa()))));
    let unsigned = browser.clone().with_cookie("koa.sid", SID);
    let forged = browser.clone().signed(SID, "another key");
    let of_another = unsigned
        .clone()
        .with_cookie("koa.sid.sig", &signature(KEYS[0], "koa.sid", "another"));
    for mut visitor in [unsigned, forged, of_another] {
        let reply = visitor.get("/get/count").await;
        reply.assert(200, "none");
        assert!(
            reply.cookie_lines().is_empty(),
            "{:?}",
            reply.cookie_lines()
        );
    }
    let mut signed = browser.signed(SID, KEYS[0]);
    assert_eq!(signed.get("/get/count").await.status, 503);
}

#[tokio::test]
async fn a_signature_by_a_key_that_is_about_to_go_is_replaced() {
    let site = Site::of_koa().await;
    site.koa_writes(SID, DOCUMENT, DAY).await;
    let mut browser = site.browser().signed(SID, KEYS[1]);
    let reply = browser.get("/get/count").await;
    assert_eq!(reply.body, "2");
    assert!(reply.renews_the_pair(SID), "{:?}", reply.cookie_lines());
    assert!(browser.get("/get/count").await.sets_no_cookie());
}

#[tokio::test]
async fn a_signature_is_not_replaced_for_a_poll() {
    let site = Site::of_koa().await;
    site.koa_writes(SID, DOCUMENT, DAY).await;
    let app = app(site.layer().touch_if(|_, _| false));
    let mut browser = Browser::new(&app).signed(SID, KEYS[1]);
    assert!(browser.get("/get/count").await.sets_no_cookie());
}

#[tokio::test]
async fn the_end_of_a_session_removes_both_cookies_as_they_were_set() {
    let site = Site::of_koa().await;
    let document = r#"{"cookie":{"path":"/app","domain":"example.org","maxAge":86400000}}"#;
    let mut browser = site.visitor_with(document, DAY).await;
    let reply = browser.get("/destroy").await;
    assert!(reply.removes_the_pair(), "{:?}", reply.cookie_lines());
    for line in reply.cookie_lines() {
        assert!(line.contains("; path=/app; "), "{line}");
        assert!(line.contains("; domain=example.org; "), "{line}");
    }
    assert_eq!(ids(&site).await, [""; 0]);
    assert_eq!(browser.jar, []);
}

#[tokio::test]
async fn the_cookie_of_a_session_that_koa_ended_opens_nothing_and_stays() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    execute(&site.pool, "DELETE FROM public.session").await;
    let reply = browser.get("/get/count").await;
    assert_eq!(reply.body, "none");
    assert!(reply.cookie_lines().is_empty());
}

#[tokio::test]
async fn a_new_id_leaves_nothing_under_the_old_one() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let mut old = browser.clone();
    let reply = browser.get("/cycle").await;
    assert!(reply.renews_the_pair(browser.sid()));
    assert_ne!(browser.sid(), SID);
    assert_eq!(ids(&site).await, [format!("koa:sess:{}", browser.sid())]);
    assert_eq!(site.rows().text().await, DOCUMENT);
    assert_eq!(browser.get("/get/count").await.body, "2");
    assert_eq!(old.get("/get/count").await.body, "none");
}

#[tokio::test]
async fn a_late_save_under_the_old_id_is_refused_and_leaves_nothing() {
    let site = Site::of_koa().await;
    let browser = site.visitor_of_koa().await;
    let other = browser.clone();
    let page = async move |session: Session| {
        let mut other = other.clone();
        assert_eq!(other.get("/cycle").await.status, 200);
        session.insert("late", true)
    };
    let slow = browser.at(&site.app_with(page));
    let reply = slow.peek("/page").await;
    assert_eq!(reply.status, 503);
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().text().await, DOCUMENT);
    assert!(!ids(&site).await.contains(&format!("koa:sess:{SID}")));
}

#[tokio::test]
async fn a_late_touch_sets_no_cookie() {
    for (elsewhere, sessions) in [("/cycle", 1), ("/destroy", 0)] {
        let site = Site::of_koa().await;
        let browser = site.visitor_with(DOCUMENT, DAY / 2.0).await;
        let other = browser.clone();
        let page = async move |_: Session| {
            other.clone().get(elsewhere).await;
        };
        let reply = browser.at(&site.app_with(page)).peek("/page").await;
        assert_eq!(reply.status, 200);
        assert!(reply.sets_no_cookie(), "{:?}", reply.cookie_lines());
        assert_eq!(site.rows().count().await, sessions, "{elsewhere}");
    }
}

#[tokio::test]
async fn a_whole_new_content_keeps_the_settings_of_the_cookie() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    visit(&site, &mut browser, async |session: Session| {
        session.replace(json!({"name": "Ada"}))
    })
    .await;
    let expected = DOCUMENT.replace(r#""count":2"#, r#""name":"Ada""#);
    assert_eq!(site.rows().text().await, expected);
    browser.get("/clear").await;
    let expected = DOCUMENT.replace(r#","count":2"#, "");
    assert_eq!(site.rows().text().await, expected);
    assert_eq!(browser.get("/keys").await.body, "");
}

#[tokio::test]
async fn the_settings_of_the_cookie_can_be_read_and_not_be_lost() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    visit(&site, &mut browser, async |session: Session| {
        let kind = |outcome: Result<(), Error>| outcome.expect_err("an error").kind();
        let cookie: Option<Value> = session.get("cookie")?;
        assert_eq!(cookie.expect("settings")["maxAge"], 86_400_000);
        assert!(session.contains_key("cookie"));
        let removed = session.remove::<Value>("cookie").map(drop);
        assert_eq!(kind(removed), ErrorKind::ReservedKey);
        let lost = session.insert("cookie", "none");
        assert_eq!(kind(lost), ErrorKind::ReservedKey);
        let lost = session.update("cookie", |_: Option<Value>| 1).map(drop);
        assert_eq!(kind(lost), ErrorKind::ReservedKey);
        let lost = session.replace(json!({"cookie": []}));
        assert_eq!(kind(lost), ErrorKind::ReservedKey);
        Ok::<_, Error>(())
    })
    .await;
    assert_eq!(site.rows().text().await, DOCUMENT);
}

#[tokio::test]
async fn the_settings_of_a_session_rule_its_row_and_its_cookies() {
    let site = Site::of_koa().await;
    let page = async |session: Session| {
        session.update("cookie", |cookie: Option<IndexMap<String, Value>>| {
            let mut cookie = cookie.unwrap_or_default();
            cookie["maxAge"] = json!(3_600_000);
            cookie["httpOnly"] = json!(false);
            cookie
        })?;
        Ok::<_, Error>(())
    };
    let mut browser = site.visitor_of_koa().await.at(&site.app_with(page));
    let reply = browser.get("/page").await;
    let date = end_of_both(&site, &reply.cookie_lines()).await;
    assert!((site.rows().seconds_left().await - 3600.0).abs() < 5.0);
    for line in reply.cookie_lines() {
        let attributes = format!("; path=/; expires={date}");
        assert!(line.ends_with(&attributes), "{line}");
    }
    let settings =
        r#"{"httpOnly":false,"path":"/","overwrite":true,"signed":true,"maxAge":3600000}"#;
    assert_eq!(
        site.rows().text().await,
        format!(r#"{{"cookie":{settings},"count":2}}"#)
    );
}

async fn set_expiry(
    site: &Site,
    browser: &mut Browser,
    expiry: axum_pg_session::Expiry,
) -> Vec<String> {
    let page = async move |session: Session| session.set_expiry(expiry);
    let mut visitor = browser.at(&site.app_with(page));
    let reply = visitor.get("/page").await;
    assert_eq!(reply.status, 200);
    browser.jar = visitor.jar;
    let lines = reply.cookie_lines().into_iter();
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn an_expiry_is_stored_where_koa_reads_it() {
    use axum_pg_session::Expiry;
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let hour = Duration::from_secs(3600);
    let lines = set_expiry(&site, &mut browser, Expiry::Idle(hour)).await;
    assert!((site.rows().seconds_left().await - 3600.0).abs() < 5.0);
    end_of_both(&site, &lines).await;
    assert_eq!(site.rows().document().await["cookie"]["maxAge"], 3_600_000);

    let end = OffsetDateTime::from_unix_timestamp(4_102_444_800).expect("in the year 2100");
    let lines = set_expiry(&site, &mut browser, Expiry::At(end)).await;
    assert_eq!(expiry(&site).await, ["2100-01-01 00:00:00"]);
    let cookie = site.rows().document().await["cookie"].take();
    assert_eq!(cookie["expires"], "2100-01-01T00:00:00.000Z");
    assert_eq!(cookie["maxAge"], Value::Null);
    // No browser keeps a cookie for more than 400 days.
    let days = end_of(&lines[0]).1 / DAY;
    assert!((days - 400.0).abs() < 0.01, "{days}");

    set_expiry(&site, &mut browser, Expiry::Default).await;
    assert_eq!(site.rows().text().await, DOCUMENT);
}

#[tokio::test]
async fn a_session_without_an_age_lives_for_45_minutes_and_its_cookie_with_the_browser() {
    let site = Site::with_format(koa().max_age(None)).await;
    let mut browser = site.browser();
    let reply = browser.get("/insert/a/1").await;
    assert!((site.rows().seconds_left().await - 2700.0).abs() < 5.0);
    for line in reply.cookie_lines() {
        assert!(!line.contains("expires"), "{line}");
    }
}

#[tokio::test]
async fn an_idle_timeout_of_the_layer_is_koas_ttl() {
    let site = Site::of_koa().await;
    let layer = site.layer().idle_timeout(Duration::from_secs(600));
    let mut browser = site.visitor_of_koa().await.at(&app(layer));
    let reply = browser.get("/insert/a/1").await;
    assert!((site.rows().seconds_left().await - 600.0).abs() < 5.0);
    // The cookie keeps to the session's own settings, as in Koa.
    assert!(reply.renews_the_pair(SID));
    let seconds = end_of(reply.cookie_lines()[0]).1;
    assert!((seconds - DAY).abs() < 5.0, "{seconds}");
}

#[tokio::test]
async fn nothing_ends_a_session_that_is_used_unless_the_layer_says_so() {
    let site = Site::of_koa().await;
    site.store
        .migrate()
        .await
        .expect("a table that can be completed");
    let mut browser = site.visitor_of_koa().await;
    site.rows().age_creation(40.0 * DAY).await;
    assert_eq!(browser.get("/get/count").await.body, "2");
    let month = Duration::from_secs(30 * 86_400);
    let mut limited = browser.at(&app(site.layer().absolute_timeout(month)));
    assert_eq!(limited.get("/get/count").await.body, "none");
}

#[tokio::test]
async fn a_touch_renews_the_row_and_both_cookies() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_with(DOCUMENT, DAY / 2.0).await;
    let reply = browser.get("/get/count").await;
    assert!(reply.renews_the_pair(SID), "{:?}", reply.cookie_lines());
    assert!((site.rows().seconds_left().await - DAY).abs() < 5.0);
    assert_eq!(site.rows().text().await, DOCUMENT);
}

#[tokio::test]
async fn a_session_with_a_date_is_left_alone_by_readers() {
    let site = Site::of_koa().await;
    let page = async |session: Session| {
        let end = OffsetDateTime::from_unix_timestamp(4_102_444_800).expect("a date");
        session.set_expiry(axum_pg_session::Expiry::At(end))
    };
    let mut browser = site.visitor_of_koa().await.at(&site.app_with(page));
    browser.get("/page").await;
    // Koa rounds to milliseconds by its own clock.
    execute(
        &site.pool,
        "UPDATE public.session SET expiry = expiry + interval '0.4 seconds'",
    )
    .await;
    let before = site.rows().dump().await;
    assert!(browser.get("/get/count").await.sets_no_cookie());
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn a_session_without_settings_gets_them_with_its_next_change() {
    for document in [
        r#"{"count":2}"#,
        r#"{"cookie":null,"count":2}"#,
        r#"{"cookie":"x","count":2}"#,
    ] {
        let site = Site::of_koa().await;
        let mut browser = site.visitor_with(document, DAY / 2.0).await;
        assert_eq!(browser.get("/get/count").await.body, "2");
        assert_eq!(site.rows().text().await, document);
        let reply = browser.get("/increment/count").await;
        assert!(reply.renews_the_pair(SID), "{:?}", reply.cookie_lines());
        let stored = site.rows().document().await;
        assert_eq!(stored["count"], 3);
        assert_eq!(stored["cookie"]["maxAge"], 86_400_000, "{document}");
    }
}

#[tokio::test]
async fn what_is_no_object_is_no_session_and_stays() {
    let site = Site::of_koa().await;
    for document in ["[]", "[1]", "null", "0", "false", r#""""#, r#""text""#] {
        let mut browser = site.visitor_with(document, DAY).await;
        assert_eq!(browser.get("/get/count").await.body, "none", "{document}");
        browser.get("/insert/a/1").await;
        let sql = format!("SELECT session::text FROM public.session WHERE id = 'koa:sess:{SID}'");
        assert_eq!(texts(&site.pool, &sql).await, [document]);
    }
}

#[tokio::test]
async fn odd_values_of_koas_survive_a_change_letter_by_letter() {
    let odd = [
        r#""\ud800""#,
        r#""\u0000""#,
        "12345678901234567890",
        "1e-400",
        "1.50",
        r#""2026-11-24T08:48:45.000Z""#,
        r#"{"b":[{}],"a":{"\ud800":"\ud800"}}"#,
    ];
    let site = Site::of_koa().await;
    for value in odd {
        let own = format!(
            r#"{{"z":{value},"cookie":{{"own":{value},"maxAge":86400000,"path":"/"}},"n":2}}"#
        );
        let mut browser = site.visitor_with(&own, DAY).await;
        assert_eq!(browser.get("/increment/n").await.body, "3", "{value}");
        assert_eq!(
            texts(&site.pool, "SELECT session::text FROM public.session").await,
            [own.replace(r#""n":2"#, r#""n":3"#)]
        );
    }
}

#[tokio::test]
async fn a_session_row_that_looks_like_a_forwarding_is_a_session() {
    let site = Site::of_koa().await;
    let document = r#"{"_session":{"successor":"koa:sess:x"},"count":2}"#;
    let mut browser = site.visitor_with(document, DAY).await;
    assert_eq!(browser.get("/get/count").await.body, "2");
    site.koa_writes("x", DOCUMENT, DAY).await;
    assert!(browser.get("/destroy").await.removes_the_pair());
    assert_eq!(ids(&site).await, ["koa:sess:x"]);
}

#[tokio::test]
async fn key_prefix_and_digest_can_be_chosen() {
    use axum_pg_session::KeygripDigest;
    let format = koa().prefix("shop:").digest(KeygripDigest::Sha256);
    let site = Site::with_format(format).await;
    let app = app(site.layer().cookie_name("shop").cookie_path("/shop"));
    let mut browser = Browser::new(&app);
    let reply = browser.get("/insert/a/1").await;
    let sid = browser.cookie("shop").expect("a session").to_owned();
    assert_eq!(ids(&site).await, [format!("shop:{sid}")]);
    assert_eq!(browser.cookie("shop.sig").expect("signed").len(), 43);
    assert!(reply.cookie_lines()[1].contains("; path=/shop; "));
    assert_eq!(site.rows().document().await["cookie"]["path"], "/shop");
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn without_signing_the_bare_cookie_opens_the_session() {
    let site = Site::with_format(Koa::unsigned()).await;
    site.koa_writes(SID, DOCUMENT, DAY).await;
    let mut browser = site.browser().with_cookie("koa.sid", SID);
    assert_eq!(browser.get("/increment/count").await.body, "3");
}

#[tokio::test]
async fn a_cookie_behind_a_trusted_proxy_is_secure() {
    let site = Site::with_format(koa().trust_proxy(true)).await;
    let browser = site.browser();
    let mut request = browser.request("/insert/a/1");
    let https = "https".parse().expect("a value");
    request.headers_mut().insert("x-forwarded-proto", https);
    let reply = browser.send(request).await;
    for line in reply.cookie_lines() {
        assert!(line.contains("; secure; httponly"), "{line}");
    }
    let plain = browser.peek("/insert/a/1").await;
    assert!(!plain.cookie_lines()[0].contains("secure"));
}

#[tokio::test]
async fn a_cookie_that_koa_sets_in_the_same_response_is_not_removed() {
    let site = Site::of_koa().await;
    let behind = get(async |session: Session| {
        assert!(session.is_new());
        [("set-cookie", "koa.sid=fresh; path=/; httponly")]
    });
    let app = Router::new().route("/", behind).layer(site.layer());
    let stale = Browser::new(&app).signed(SID, KEYS[0]);
    let reply = stale.peek("/").await;
    assert_eq!(reply.cookie_lines(), ["koa.sid=fresh; path=/; httponly"]);
}

#[tokio::test]
async fn the_sessions_own_cookie_replaces_one_of_the_same_name() {
    let site = Site::of_koa().await;
    let page = get(async |session: Session| {
        session.insert("a", 1).map(|()| {
            let own = ("set-cookie", "other=1");
            axum::response::AppendHeaders([own, ("set-cookie", "koa.sid=stale; path=/")])
        })
    });
    let app = Router::new().route("/", page).layer(site.layer());
    let reply = Browser::new(&app).peek("/").await;
    let names: Vec<_> = reply
        .cookie_lines()
        .iter()
        .map(|line| line.split('=').next().expect("a name").to_owned())
        .collect();
    assert_eq!(names, ["other", "koa.sid", "koa.sid.sig"]);
    assert!(!reply.cookie_lines()[1].contains("stale"));
}

#[tokio::test]
async fn the_handle_is_none_of_the_row_s_id() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let handle = browser.get("/id").await.body;
    assert_eq!(handle.len(), 43);
    assert!(!handle.contains(SID) && !handle.contains("koa:sess:"));
    let mut thief = site.browser().signed(&handle, KEYS[0]);
    assert_eq!(thief.get("/get/count").await.body, "none");
}

#[tokio::test]
async fn a_handle_that_was_kept_as_text_leads_to_its_session() {
    let site = Site::of_koa().await;
    let browser = site.visitor_of_koa().await;
    let id = browser.handle().await;
    let stored = site
        .store
        .load(&id)
        .await
        .expect("a database")
        .expect("a session");
    assert_eq!(stored.id(), &id);
    assert_eq!(stored.get::<u64>("count").expect("a number"), Some(2));
    assert_eq!(stored.keys(), ["count"]);
    site.store.destroy(&id).await.expect("a database");
    assert_eq!(ids(&site).await, [""; 0]);
    assert!(site.store.load(&id).await.expect("a database").is_none());
}

#[tokio::test]
async fn a_handle_keeps_a_session_alive_and_ends_with_its_id() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let id = browser.handle().await;
    let rows = Rows::new(site.pool.clone(), "public.session");
    let before = rows.seconds_left().await;
    rows.age(before / 2.0).await;
    let document = rows.text().await;
    assert!(site.layer().touch(&id).await.expect("a touch"));
    assert!((rows.seconds_left().await - before).abs() < 60.0);
    assert_eq!(rows.text().await, document);

    // Koa would take a forwarding for a session, so nothing follows.
    browser.get("/cycle").await;
    assert!(site.store.load(&id).await.expect("a database").is_none());
    assert!(!site.layer().touch(&id).await.expect("a response"));
}

/// Goes through the life of a session, mistakes included.
async fn whole_life(site: &Site) -> Vec<String> {
    let page = async |session: Session| {
        let id = session.id();
        let shown = format!("{session:?} {id:?}");
        session.insert("shown", shown)?;
        session.save().await?;
        session.insert("bad", 1)?;
        let error = session.save().await.expect_err("refused by the table");
        session.insert("error", format!("{error:?} {error}"))
    };
    let mut browser = Browser::new(&site.app_with(page)).signed(SID, KEYS[0]);
    let mut secrets = vec![SID.to_owned()];
    for path in [
        "/page",
        "/cycle",
        "/get/error",
        "/insert/bad/1",
        "/increment/shown",
        "/destroy",
    ] {
        let reply = browser.get(path).await;
        assert!(!reply.body.contains(SID), "{}", reply.body);
        secrets.extend(browser.cookie("koa.sid").map(str::to_owned));
    }
    browser.signed(SID, "forged").get("/get/count").await;
    secrets
}

#[tokio::test]
async fn no_token_is_logged_or_printed() {
    let log = Log::keep();
    let site = Site::of_koa().await;
    site.koa_writes(SID, DOCUMENT, DAY).await;
    site.koa_writes("odd", "[]", DAY).await;
    // Postgres quotes the whole row in the detail of such an error.
    let constraint = "ALTER TABLE public.session ADD CHECK (session::jsonb ->> 'bad' IS NULL)";
    execute(&site.pool, constraint).await;
    let mut secrets = whole_life(&site).await;
    site.browser().signed("odd", KEYS[0]).get("/get/a").await;
    secrets.push("koa:sess".into());
    secrets.push(signature(KEYS[0], "koa.sid", SID));
    let printed = format!("{:?} {:?} {}", site.layer(), site.store, log.text());
    assert!(printed.contains("ERROR"), "the constraint was met");
    for secret in secrets {
        assert!(!printed.contains(&secret), "{secret} in {printed}");
    }
    let rows = Rows::new(site.pool.clone(), "public.session");
    assert_eq!(rows.dump().await.len(), 1);
}
