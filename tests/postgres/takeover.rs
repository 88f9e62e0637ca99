//! Sessions of tower-sessions that are taken over. `tests/takeover` does the same with rows that
//! tower-sessions itself wrote.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    BoxError, Router,
    http::{Request, StatusCode, header},
    routing::{get, post},
};
use axum_pg_session::{
    Error, ErrorKind, Koa, LazySession, PgSessionLayer, PgSessionStore, Session, Takeover,
};
use cookie::{CookieJar, Key};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinSet;

use crate::support::{
    Browser, Log, Reply, Role, Site, execute,
    page::{InFlight, app_with, dropped_after, patiently, until},
    proxy::Proxy,
    site::pages,
    texts,
};

/// The id of a session of tower-sessions.
const ID: &str = "AAECAwQFBgcICQoLDA0ODw";
const TABLE: &str = r#""tower_sessions"."session""#;
const DAY: f64 = 86_400.0;

/// The table as the other system makes it.
const CREATE: &str = "
    CREATE SCHEMA tower_sessions;
    CREATE TABLE tower_sessions.session (
        id text primary key not null, data bytea not null, expiry_date timestamptz not null
    )";

/// A record as rmp-serde writes it.
fn record(values: &Value) -> Vec<u8> {
    let end = (2026_i32, 333_u16, 12, 30, 15, 0, 0, 0, 0);
    let mut record = vec![0x93, 0xc4, 0x10];
    record.extend(0..16);
    record.extend(rmp_serde::to_vec(values).expect("values"));
    record.extend(rmp_serde::to_vec(&end).expect("a time"));
    record
}

/// Writes the row of [`ID`] into a table, which expires in so many seconds.
async fn write_row(pool: &PgPool, table: &str, data: &[u8], seconds: f64) {
    let sql = format!("INSERT INTO {table} VALUES ($1, $2, now() + make_interval(secs => $3))");
    let insert = sqlx::query(AssertSqlSafe(sql));
    let insert = insert.bind(ID).bind(data).bind(seconds);
    insert.execute(pool).await.expect("a row");
}

/// A site whose visitors come from another system.
async fn site_with(values: Value) -> Site {
    let site = Site::new().await;
    execute(&site.pool, CREATE).await;
    write_row(&site.pool, TABLE, &record(&values), DAY).await;
    site
}

fn layer(store: &PgSessionStore) -> PgSessionLayer {
    PgSessionLayer::new(store.clone()).takeover(Takeover::tower_sessions())
}

fn app(layer: PgSessionLayer) -> Router {
    pages()
        .route(
            "/post",
            post(async |session: Session| session.insert("posted", true)),
        )
        .route("/login/{user}", get(login))
        .route(
            "/user",
            get(async |session: Session| session.user_id().unwrap_or_default()),
        )
        .route("/logout", get(async |session: Session| session.logout()))
        .route("/take", get(take))
        .route("/touch", get(async |session: Session| session.touch()))
        .route("/touch_and/{status}", get(touch_and))
        .route(
            "/has_token",
            get(async |session: LazySession| session.has_token().to_string()),
        )
        .layer(layer)
}

async fn login(
    session: Session,
    axum::extract::Path(user): axum::extract::Path<String>,
) -> Result<(), Error> {
    session.login(user.as_str())
}

/// Its explicit save extends the cookie.
async fn touch_and(
    session: Session,
    axum::extract::Path(status): axum::extract::Path<u16>,
) -> Result<StatusCode, Error> {
    session.touch()?;
    session.save().await?;
    Ok(StatusCode::from_u16(status).expect("a status"))
}

async fn take(session: Session) -> Result<String, Error> {
    let value: Option<Value> = session.take("a").await?;
    Ok(format!("{value:?}"))
}

fn visitor(site: &Site) -> Browser {
    Browser::new(&app(layer(&site.store))).with_cookie("id", ID)
}

/// The rows of the other system.
async fn left(site: &Site) -> usize {
    texts(&site.pool, &format!("SELECT id FROM {TABLE}"))
        .await
        .len()
}

/// Ends the minute in which the other cookie leads to the session.
async fn end_forwarding(site: &Site) {
    let sql = "DELETE FROM session WHERE strpos(session::text, '\"successor\"') > 0";
    execute(&site.pool, sql).await;
}

#[tokio::test]
async fn a_visitor_of_tower_sessions_keeps_the_session_and_gets_our_cookie() {
    let site = site_with(json!({"a": {"deep": [1, 2.5, null, "ü"]}, "n": u64::MAX})).await;
    let mut browser = visitor(&site);
    let response = browser.get("/get/a").await;
    assert_eq!(response.body, r#"{"deep":[1,2.5,null,"ü"]}"#);
    let [removed, set] = &response.set_cookies()[..] else {
        panic!("two cookies in {response:?}")
    };
    assert_eq!((removed.name(), removed.value()), ("id", ""));
    assert_eq!((removed.path(), removed.secure()), (Some("/"), Some(true)));
    assert_eq!((set.name(), set.value().len()), ("__Host-id", 43));
    assert_eq!(response.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(left(&site).await, 0);
    assert_eq!(browser.jar.len(), 1);
    assert_eq!(browser.get("/get/n").await.body, u64::MAX.to_string());
    assert_eq!(browser.get("/keys").await.body, "a,n");
    assert_eq!(site.rows().count().await, 1);
    // The old cookie opens nothing once the minute is over.
    end_forwarding(&site).await;
    let old = visitor(&site).get("/keys").await;
    old.assert(200, "");
    assert!(old.sets_no_cookie());
}

#[tokio::test]
async fn signed_and_encrypted_cookies_are_taken_over() {
    let bytes: Vec<u8> = (0..64).collect();
    let key = Key::from(&bytes);
    let mut jar = CookieJar::new();
    jar.signed_mut(&key).add(("signed", ID));
    jar.private_mut(&key).add(("private", ID));
    for name in ["signed", "private"] {
        let site = site_with(json!({"a": name})).await;
        let takeover = Takeover::tower_sessions().cookie_name(name);
        let takeover = match name {
            "signed" => takeover.signed(&bytes),
            _ => takeover.private(&bytes),
        };
        let value = jar.get(name).expect("added").value();
        let app = app(site.layer().takeover(takeover));
        let mut browser = Browser::new(&app).with_cookie(name, value);
        assert_eq!(browser.get("/get/a").await.body, format!("{name:?}"));
        assert_eq!(browser.cookie(name), None);
        assert_eq!(browser.get("/get/a").await.body, format!("{name:?}"));
        // The bare id, which a dump of the table shows, opens nothing.
        assert_eq!(visitor_of(&app, name, ID).get("/get/a").await.body, "none");
    }
}

fn visitor_of(app: &Router, name: &str, value: &str) -> Browser {
    Browser::new(app).with_cookie(name, value)
}

#[tokio::test]
async fn a_forged_cookie_costs_no_statement_and_an_unknown_one_costs_one() {
    let site = site_with(json!({"a": 1})).await;
    let proxy = Proxy::before(site.database.url()).await;
    let store = PgSessionStore::new(proxy.pool().await);
    store.check().await.expect("a table");
    let layer = |takeover| app(PgSessionLayer::new(store.clone()).takeover(takeover));
    let plain = layer(Takeover::tower_sessions());
    let signed = layer(Takeover::tower_sessions().signed([7; 64]));
    let private = layer(Takeover::tower_sessions().private([7; 64]));
    let before = proxy.executed();
    for (app, value) in [
        (&plain, "x".to_owned()),
        (&plain, "A".repeat(23)),
        (&signed, ID.to_owned()),
        (&signed, format!("{}{ID}", "A".repeat(44))),
        (&private, ID.to_owned()),
        (&private, "A".repeat(68)),
    ] {
        let response = visitor_of(app, "id", &value).get("/keys").await;
        response.assert(200, "");
        assert!(response.sets_no_cookie());
    }
    // A page that doesn't use its session runs no query either.
    let mut known = visitor_of(&plain, "id", ID);
    assert_eq!(known.get("/plain").await.body, "plain");
    assert_eq!(known.get("/has_token").await.body, "true");
    assert_eq!(proxy.executed(), before);
    let unknown = "A".repeat(22);
    visitor_of(&plain, "id", &unknown).get("/keys").await;
    assert_eq!(proxy.executed(), before + 1);
    assert_eq!(left(&site).await, 1);
    let counters = store.counters();
    assert_eq!((counters.forged, counters.unknown), (2, 1));
}

#[tokio::test]
async fn an_expired_row_opens_nothing_and_stays() {
    let site = site_with(json!({"a": 1})).await;
    let sql = format!("UPDATE {TABLE} SET expiry_date = now() - interval '1 second'");
    execute(&site.pool, &sql).await;
    assert_eq!(visitor(&site).get("/keys").await.body, "");
    assert_eq!(left(&site).await, 1);
}

#[tokio::test]
async fn a_row_in_another_form_stays_and_is_logged_once() {
    for (data, reason) in [
        (b"\x91\x01".to_vec(), "not a record"),
        (record(&json!({"a": 1}))[..20].to_vec(), "can't be read"),
        (record(&json!({"_session": 1})), "reserved"),
        (
            record(&json!({"a": {"$serde_json::private::Number": "1"}})),
            "arbitrary_precision",
        ),
    ] {
        let site = site_with(json!({})).await;
        let update = sqlx::query("UPDATE tower_sessions.session SET data = $1").bind(&data);
        update.execute(&site.pool).await.expect("a row");
        let log = Log::keep();
        let browser = visitor(&site);
        for _ in 0..2 {
            let response = browser.peek("/keys").await;
            response.assert(200, "");
        }
        let text = log.text();
        assert_eq!(text.matches("can't be taken over").count(), 1, "{text}");
        assert!(text.contains(reason), "{reason} in {text}");
        assert!(!text.contains(ID));
        assert_eq!(left(&site).await, 1);
        // The visitor is a new one.
        let mut browser = browser;
        assert_eq!(browser.get("/insert/b/2").await.status, 200);
        assert_eq!(browser.get("/keys").await.body, "b");
    }
}

#[tokio::test]
async fn a_float_stays_a_float_in_a_jsonb_column() {
    let site = site_with(json!({"a": [1e17, 1.0, 1e300, 0.1]})).await;
    let sql = "ALTER TABLE session ALTER session TYPE jsonb USING session::jsonb";
    execute(&site.pool, sql).await;
    let mut browser = visitor(&site);
    for _ in 0..2 {
        let body = browser.get("/get/a").await.body;
        let floats: Vec<Value> = serde_json::from_str(&body).expect("an array");
        assert!(floats.iter().all(Value::is_f64), "{body}");
    }
}

/// `jsonb` has no U+0000.
#[tokio::test]
async fn a_row_that_the_table_cannot_store_stays() {
    let site = site_with(json!({"a": "\0"})).await;
    let sql = "ALTER TABLE session ALTER session TYPE jsonb USING session::jsonb";
    execute(&site.pool, sql).await;
    let response = visitor(&site).get("/keys").await;
    response.assert(200, "");
    assert_eq!(left(&site).await, 1);
}

/// Sends eight requests at once, each of which inserts a value.
fn eight_inserts(browser: &Browser) -> JoinSet<Reply> {
    let insert = |n| {
        let browser = browser.clone();
        async move { browser.peek(&format!("/insert/{n}/x")).await }
    };
    (0..8).map(insert).collect()
}

#[tokio::test]
async fn requests_at_once_all_find_the_session_and_get_the_same_token() {
    let site = site_with(json!({"a": 1})).await;
    let browser = visitor(&site);
    // All wait for the row, and the first one to lock it moves it.
    let lock = site
        .open_transaction("SELECT 1 FROM tower_sessions.session FOR UPDATE")
        .await;
    let visits = eight_inserts(&browser);
    until(|| site.is_blocked()).await;
    lock.commit().await.expect("a lock released");
    let responses = patiently(visits.join_all()).await;
    assert!(
        responses.iter().all(|response| response.status == 200),
        "{responses:?}"
    );
    let mut tokens: Vec<_> = responses.iter().filter_map(Reply::token).collect();
    assert_eq!(tokens.len(), 8);
    tokens.dedup();
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    let mut browser = browser;
    responses
        .iter()
        .for_each(|response| browser.accept(response));
    let keys = browser.get("/keys").await.body;
    let mut keys: Vec<_> = keys.split(',').collect();
    keys.sort_unstable();
    assert_eq!(keys, ["0", "1", "2", "3", "4", "5", "6", "7", "a"]);
    assert_eq!((site.rows().count().await, left(&site).await), (1, 0));
}

/// A page sends several requests, and some arrive after the response to the first.
#[tokio::test]
async fn a_late_request_with_the_old_cookie_gets_the_same_token() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = visitor(&site);
    let late = browser.clone();
    browser.get("/keys").await;
    let token = browser.token().to_owned();
    for (path, body) in [
        ("/get/a", "1"),
        ("/insert/b/2", ""),
        ("/get/b", r#""2""#),
        ("/take", "Some(Number(1))"),
    ] {
        let response = late.peek(path).await;
        assert_eq!(
            (response.status.as_u16(), &*response.body),
            (200, body),
            "{path}"
        );
        let [removed, set] = &response.set_cookies()[..] else {
            panic!("two cookies in {response:?}")
        };
        assert_eq!((removed.name(), removed.value()), ("id", ""));
        assert_eq!((set.name(), set.value()), ("__Host-id", &*token));
    }
    assert_eq!(browser.get("/keys").await.body, "b");
    // A minute later it opens nothing.
    end_forwarding(&site).await;
    assert_eq!(late.peek("/get/b").await.body, "none");
}

/// The browser lost the first response, and sends the other cookie again.
#[tokio::test]
async fn after_a_response_that_was_lost_the_next_request_has_the_session() {
    for first in [
        "/keys",
        "/insert/b/2",
        "/touch",
        "/touch_and/200",
        "/touch_and/500",
        "/insert_and/500/b/2",
        "/insert_and/408/b/2",
    ] {
        let site = site_with(json!({"a": 1})).await;
        let mut browser = visitor(&site);
        let lost = browser.peek(first).await;
        let token = lost.token().expect("a token");
        assert_eq!(token.len(), 43, "{first}");
        let response = browser.get("/get/a").await;
        assert_eq!((&*response.body, response.token()), ("1", Some(token)));
        assert_eq!(browser.cookie("id"), None);
        end_forwarding(&site).await;
        assert_eq!(browser.get("/get/a").await.body, "1", "{first}");
    }
}

#[tokio::test]
async fn the_table_shows_no_token_to_one_who_lacks_the_old_cookie() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = visitor(&site);
    browser.get("/keys").await;
    let sql = "SELECT session::jsonb #>> '{_session,sealed}' FROM session \
               WHERE strpos(session::text, '\"sealed\"') > 0";
    let sealed = texts(&site.pool, sql).await;
    let [sealed] = &sealed[..] else {
        panic!("one sealed token in {sealed:?}")
    };
    let dump = site.rows().dump().await;
    assert_eq!(dump.len(), 2, "the session, and what leads to it");
    assert!(!dump.iter().any(|row| row.contains(browser.token())));
    let mut thief = Browser::new(&app(layer(&site.store))).with_cookie("__Host-id", sealed);
    assert_eq!(thief.get("/keys").await.body, "");
    let other = format!("B{}", &ID[1..]);
    assert_eq!(
        visitor_of(&app(layer(&site.store)), "id", &other)
            .get("/keys")
            .await
            .body,
        ""
    );
}

/// It has loaded the session when another response sends the token.
#[tokio::test]
async fn a_request_in_flight_is_saved_to_the_same_session() {
    for signs_out in [false, true] {
        let site = site_with(json!({"a": 1})).await;
        let mut browser = visitor(&site);
        let page = InFlight::begin(&browser, "/page", |gate| {
            let page = async move |session: Session| {
                gate.pass().await;
                match signs_out {
                    true => session.logout(),
                    false => session.insert("b", session.get::<u64>("a")?),
                }
            };
            app_with(layer(&site.store), page)
        })
        .await;
        browser.get("/keys").await;
        let response = page.finish().await;
        let token = (!signs_out).then(|| browser.token().to_owned());
        assert_eq!((response.status.as_u16(), response.token()), (200, token));
        let expected = if signs_out { "" } else { "a,b" };
        assert_eq!(browser.get("/keys").await.body, expected);
    }
}

/// A page that has taken the session over, and waits.
async fn taken_over_by_a_page(site: &Site, browser: &Browser) -> InFlight {
    InFlight::begin(browser, "/page", |gate| {
        let page = async move |_: Session| gate.pass().await;
        app_with(layer(&site.store), page)
    })
    .await
}

/// Its token would replace that of the login in the browser.
#[tokio::test]
async fn a_request_in_flight_does_not_send_its_token_after_a_login() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = visitor(&site);
    let page = taken_over_by_a_page(&site, &browser).await;
    browser.get("/login/ann").await;
    let response = page.finish().await;
    assert!(response.sets_no_cookie(), "{response:?}");
    browser.accept(&response);
    assert_eq!(browser.get("/user").await.body, "ann");
}

/// The client that sent the first request has left, and another one saved meanwhile.
#[tokio::test]
async fn what_others_saved_while_the_first_response_was_lost_stays() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = visitor(&site);
    let page = taken_over_by_a_page(&site, &browser).await;
    let second = browser.peek("/insert/b/2").await;
    page.response.abort();
    assert!(page.response_or_cancelled().await);
    site.settled().await;
    assert_eq!(second.status, 200);
    assert_eq!(browser.get("/keys").await.body, "a,b");
    assert_eq!(second.token().as_deref(), Some(browser.token()));
}

#[tokio::test]
async fn a_check_that_fails_leaves_the_session_to_the_visitor() {
    let site = site_with(json!({"a": 1})).await;
    let is_broken = Arc::new(AtomicBool::new(true));
    let breaks = Arc::clone(&is_broken);
    let layer = layer(&site.store).valid_if(move |session, _| {
        let is_broken = breaks.load(Ordering::Relaxed);
        async move {
            session.insert("checked", true)?;
            match is_broken {
                true => Err::<_, BoxError>("the accounts can't be read".into()),
                false => Ok(true),
            }
        }
    });
    let mut browser = visitor_of(&app(layer), "id", ID);
    let response = browser.get("/insert/b/2").await;
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(browser.token().len(), 43);
    let stored = site.rows().document().await;
    assert_eq!((&stored["a"], stored.get("checked")), (&json!(1), None));
    end_forwarding(&site).await;
    is_broken.store(false, Ordering::Relaxed);
    assert_eq!(browser.get("/get/a").await.body, "1");
}

/// A process of the other system writes the row while it is taken over.
#[tokio::test]
async fn a_row_that_changes_meanwhile_is_taken_over_as_it_is_then() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = visitor(&site);
    let mut lock = site.pool.begin().await.expect("a transaction");
    let update = sqlx::query("UPDATE tower_sessions.session SET data = $1");
    let update = update.bind(record(&json!({"a": 2})));
    update.execute(&mut *lock).await.expect("a row");
    let visit = tokio::spawn(async move {
        let response = browser.get("/get/a").await;
        (response, browser)
    });
    until(|| site.is_blocked()).await;
    lock.commit().await.expect("a lock released");
    let (response, mut browser) = patiently(visit).await.expect("no panic");
    assert_eq!(response.body, "2");
    assert_eq!(browser.get("/get/a").await.body, "2");
    assert_eq!((site.rows().count().await, left(&site).await), (1, 0));
}

#[tokio::test]
async fn a_takeover_needs_no_isolation_level() {
    for level in ["repeatable read", "serializable"] {
        let site = site_with(json!({"a": 1})).await;
        site.set_isolation(level).await;
        let app = app(layer(&site.elsewhere().await));
        let browser = visitor_of(&app, "id", ID);
        let responses = patiently(eight_inserts(&browser).join_all()).await;
        assert!(
            responses.iter().all(|response| response.status == 200),
            "{level}: {responses:?}"
        );
        let mut tokens: Vec<_> = responses.iter().filter_map(Reply::token).collect();
        tokens.dedup();
        assert_eq!(tokens.len(), 1, "{level}");
        let document = site.rows().document().await;
        let kept = (0..8).filter(|n| document[n.to_string()] == "x").count();
        assert_eq!((kept, &document["a"]), (8, &json!(1)), "{level}");
    }
}

#[tokio::test]
async fn a_session_that_is_too_large_is_taken_over_and_can_shrink() {
    let site = site_with(json!({"a": "x".repeat(200), "b": "x".repeat(200)})).await;
    let layer = layer(&site.store).max_document_size(300);
    let mut browser = visitor_of(&app(layer), "id", ID);
    assert_eq!(browser.get("/insert/c/1").await.status, 507);
    assert_eq!(browser.get("/keys").await.body, "a,b");
    assert_eq!(browser.get("/remove/a").await.status, 200);
    assert_eq!(browser.get("/keys").await.body, "b");
}

#[tokio::test]
async fn a_takeover_needs_two_rights_on_the_other_table() {
    let site = site_with(json!({"a": 1})).await;
    let role = Role::new(&site.pool).await;
    role.grant("SELECT, INSERT, UPDATE, DELETE ON public.session")
        .await;
    role.grant("USAGE ON SCHEMA tower_sessions").await;
    role.grant("SELECT ON tower_sessions.session").await;
    let app = app(layer(&role.store(site.database.url()).await));
    let mut browser = visitor_of(&app, "id", ID);
    let response = browser.get("/get/a").await;
    assert_eq!(response.status, 500);
    let error = response.error.expect("the layer's error").to_string();
    assert!(error.contains("grant SELECT and DELETE"), "{error}");
    assert_eq!(left(&site).await, 1);
    role.grant("DELETE ON tower_sessions.session").await;
    assert_eq!(browser.get("/get/a").await.body, "1");
    assert_eq!(browser.get("/get/a").await.body, "1");
    role.drop().await;
}

#[tokio::test]
async fn a_write_that_the_database_refuses_loses_nothing() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = visitor(&site);
    site.refuse("INSERT").await;
    let response = browser.get("/get/a").await;
    assert_eq!(response.status, 500, "{response:?}");
    assert_eq!(left(&site).await, 1);
    site.refuse_no_more("INSERT").await;
    // A change that fails doesn't hold up the token.
    site.refuse("UPDATE").await;
    let response = browser.peek("/insert/b/2").await;
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(response.token().map(|token| token.len()), Some(43));
    site.refuse_no_more("UPDATE").await;
    assert_eq!(browser.get("/get/a").await.body, "1");
    assert_eq!(browser.cookie("id"), None);
    assert_eq!(browser.get("/get/a").await.body, "1");
}

#[tokio::test]
async fn after_a_logout_the_old_cookie_opens_nothing() {
    for first in ["/keys", "/plain"] {
        let site = site_with(json!({"a": 1})).await;
        let mut browser = visitor(&site);
        browser.get(first).await;
        let response = browser.get("/logout").await;
        assert_eq!(response.status, 200);
        assert!(browser.jar.is_empty(), "{:?}", browser.jar);
        let old = visitor(&site).peek("/keys").await;
        old.assert(200, "");
        assert_eq!((site.rows().count().await, left(&site).await), (0, 0));
    }
}

#[tokio::test]
async fn a_late_request_with_the_old_cookie_signs_out() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = visitor(&site);
    let late = browser.clone();
    browser.get("/keys").await;
    assert_eq!(late.peek("/logout").await.status, 200);
    assert_eq!(browser.get("/keys").await.body, "");
    assert_eq!(site.rows().count().await, 0);
}

/// An attacker may have planted the old cookie in the visitor's browser.
#[tokio::test]
async fn after_a_login_the_old_cookie_opens_nothing() {
    for first in ["/keys", "/plain"] {
        for change in ["/login/ann", "/cycle"] {
            let site = site_with(json!({"a": 1})).await;
            let mut browser = visitor(&site);
            let attacker = browser.clone();
            browser.get(first).await;
            assert_eq!(browser.get(change).await.status, 200);
            assert_eq!(browser.get("/get/a").await.body, "1");
            let response = attacker.peek("/get/a").await;
            assert_eq!(response.body, "none", "{first} {change}");
            assert!(response.sets_no_cookie());
            assert_eq!(attacker.peek("/user").await.body, "");
        }
    }
}

#[tokio::test]
async fn a_handler_that_is_cancelled_leaves_the_old_cookie_working() {
    let site = site_with(json!({"a": 1})).await;
    let browser = visitor(&site);
    let page = InFlight::begin(&browser, "/page", |gate| {
        let page = async move |session: Session| {
            session.insert("b", 2)?;
            gate.pass().await;
            Ok::<_, Error>(())
        };
        app_with(layer(&site.store), page)
    })
    .await;
    page.response.abort();
    assert!(page.response_or_cancelled().await);
    let mut browser = browser;
    assert_eq!(browser.get("/keys").await.body, "a");
    assert_eq!(browser.get("/get/a").await.body, "1");
    assert_eq!(browser.cookie("id"), None);
}

/// The row is in one of both tables, and the old cookie or the new one opens it.
#[tokio::test]
async fn a_takeover_that_is_dropped_at_any_await_loses_nothing() {
    let mut delivered = 0;
    for polls in 1.. {
        let site = site_with(json!({"a": 1})).await;
        site.store.check().await.expect("a table");
        let mut browser = visitor(&site);
        let response = dropped_after(browser.peek("/insert/b/2"), polls).await;
        site.settled().await;
        let is_delivered = response.is_some();
        if let Some(response) = response {
            browser.accept(&response);
        }
        assert_eq!(browser.peek("/get/a").await.body, "1", "{polls} polls");
        assert_eq!(site.rows().count().await, 1, "{polls} polls");
        assert_eq!(left(&site).await, 0, "{polls} polls");
        delivered += i32::from(is_delivered);
        if delivered == 2 {
            break;
        }
    }
}

#[tokio::test]
async fn a_takeover_whose_connection_is_cut_loses_nothing() {
    for held in ["theirs", "ours"] {
        let site = site_with(json!({"a": 1})).await;
        let proxy = Proxy::before(site.database.url()).await;
        let store = PgSessionStore::new(proxy.pool().await);
        store.check().await.expect("a table");
        let browser = Browser::new(&app(layer(&store))).with_cookie("id", ID);
        let mut lock = match held {
            "theirs" => site.pool.begin().await.expect("a transaction"),
            _ => site.hold_commits().await,
        };
        let sql = "SELECT 1 FROM tower_sessions.session FOR UPDATE";
        if held == "theirs" {
            sqlx::query(sql).execute(&mut *lock).await.expect("a lock");
        }
        let visit = {
            let browser = browser.clone();
            tokio::spawn(async move { browser.peek("/get/a").await })
        };
        until(|| site.is_blocked()).await;
        proxy.cut();
        lock.commit().await.expect("a lock released");
        let response = patiently(visit).await.expect("no panic");
        let mut browser = browser;
        browser.accept(&response);
        assert!(
            [200, 503].contains(&response.status.as_u16()),
            "{held}: {response:?}"
        );
        site.settled().await;
        assert_eq!(browser.get("/get/a").await.body, "1", "{held}");
        assert_eq!((site.rows().count().await, left(&site).await), (1, 0));
    }
}

#[tokio::test]
async fn the_user_of_axum_login_is_the_user_of_the_session() {
    for (user_id, expected) in [
        (json!("ann"), "ann"),
        (json!(7), "7"),
        (json!(-7), "-7"),
        (json!(1.5), ""),
        (json!(""), ""),
        (json!(null), ""),
    ] {
        let site = site_with(json!({"axum-login.data": {"user_id": user_id, "auth_hash": [1]}}));
        let site = site.await;
        let mut browser = visitor(&site);
        assert_eq!(browser.get("/user").await.body, expected);
        assert_eq!(browser.get("/user").await.body, expected);
        assert_eq!(browser.get("/keys").await.body, "axum-login.data");
        let sessions = match expected {
            "" => 0,
            _ => site.store.user(expected).count().await.expect("a count"),
        };
        assert_eq!(sessions, u64::from(!expected.is_empty()));
    }
}

#[tokio::test]
async fn another_key_can_name_the_user_and_a_realm_separates_users() {
    let site = site_with(json!({"auth": {"id": "ann"}})).await;
    let store = site.store.clone().realm("shop");
    let takeover = Takeover::tower_sessions().user_from("auth", "id");
    let app = app(PgSessionLayer::new(store.clone()).takeover(takeover));
    let mut browser = visitor_of(&app, "id", ID);
    assert_eq!(browser.get("/user").await.body, "ann");
    assert_eq!(store.user("ann").count().await.expect("a count"), 1);
    assert_eq!(site.sessions_of("ann").await, 0);
}

#[tokio::test]
async fn a_session_ends_when_it_would_have_ended() {
    let site = site_with(json!({"a": 1})).await;
    let sql = format!("UPDATE {TABLE} SET expiry_date = '2100-01-02 03:04:05.678901+00'");
    execute(&site.pool, &sql).await;
    let layer = layer(&site.store).touch_interval(Duration::ZERO);
    let mut browser = visitor_of(&app(layer), "id", ID);
    for _ in 0..3 {
        assert_eq!(browser.get("/get/a").await.body, "1");
        let sql = "SELECT round(extract(epoch FROM expiry), 5)::text FROM session \
                   WHERE strpos(session::text, 'successor') = 0";
        assert_eq!(texts(&site.pool, sql).await, ["4102542245.67890"]);
    }
}

#[tokio::test]
async fn the_timeouts_of_the_layer_apply_if_they_are_chosen() {
    let site = site_with(json!({"a": 1})).await;
    let takeover = Takeover::tower_sessions().layer_timeouts(true);
    let layer = site.layer().takeover(takeover);
    let layer = layer.idle_timeout(Duration::from_secs(600));
    let mut browser = visitor_of(&app(layer), "id", ID);
    browser.get("/insert/b/2").await;
    let left = site.rows().seconds_left().await;
    assert!((500.0..=600.0).contains(&left), "{left}");
    assert_eq!(site.rows().document().await, json!({"a": 1, "b": "2"}));
}

#[tokio::test]
async fn a_session_that_the_check_refuses_is_deleted() {
    let site = site_with(json!({"a": 1})).await;
    let layer = layer(&site.store).valid_if(async |session, _| !session.contains_key("a"));
    let mut browser = visitor_of(&app(layer), "id", ID);
    assert_eq!(browser.get("/keys").await.body, "");
    assert_eq!((site.rows().count().await, left(&site).await), (0, 0));
}

#[tokio::test]
async fn a_visitor_with_our_cookie_keeps_that_session() {
    let site = site_with(json!({"a": 1})).await;
    let app = app(layer(&site.store));
    let mut browser = Browser::new(&app);
    browser.get("/insert/b/2").await;
    let mut browser = browser.with_cookie("id", ID);
    assert_eq!(browser.get("/keys").await.body, "b");
    assert_eq!(left(&site).await, 1);
    // Its cookie is removed with ours, so no one could end it any more.
    browser.get("/destroy").await;
    assert!(browser.jar.is_empty());
    assert_eq!((site.rows().count().await, left(&site).await), (0, 0));
}

#[tokio::test]
async fn a_cookie_of_ours_that_opens_nothing_is_replaced() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = visitor(&site).with_cookie("__Host-id", &"A".repeat(43));
    assert_eq!(browser.get("/keys").await.body, "a");
    assert_eq!(left(&site).await, 0);
    assert_eq!(browser.get("/keys").await.body, "a");
}

/// As docs/guide/databases.md proposes.
const USERS: &str = "
    CREATE TABLE account (id text PRIMARY KEY);
    ALTER TABLE session ADD FOREIGN KEY (user_id) REFERENCES account ON DELETE CASCADE";

#[tokio::test]
async fn the_visitor_of_a_user_that_was_deleted_is_a_new_one() {
    for schema in [
        USERS.to_owned(),
        format!("{USERS} DEFERRABLE INITIALLY DEFERRED"),
        "ALTER TABLE session ALTER user_id TYPE varchar(2)".to_owned(),
        "ALTER TABLE session ADD CHECK (user_id <> 'anna')".to_owned(),
    ] {
        let site = site_with(json!({"axum-login.data": {"user_id": "anna"}})).await;
        execute(&site.pool, &schema).await;
        let log = Log::keep();
        let mut browser = visitor(&site);
        for _ in 0..2 {
            let response = browser.peek("/user").await;
            assert_eq!(
                (response.status.as_u16(), &*response.body),
                (200, ""),
                "{schema}"
            );
        }
        let text = log.text();
        assert_eq!(text.matches("can't be taken over").count(), 1, "{text}");
        assert!(text.contains("constraint"), "{text}");
        drop(log);
        assert_eq!(browser.get("/insert/b/2").await.status, 200);
        assert_eq!(browser.get("/keys").await.body, "b");
        assert_eq!(left(&site).await, 1);
    }
}

#[tokio::test]
async fn a_cookie_with_our_name_is_replaced_and_not_removed() {
    let site = site_with(json!({"a": 1})).await;
    let layer = layer(&site.store).cookie_name("id");
    let mut browser = visitor_of(&app(layer), "id", ID);
    let response = browser.get("/get/a").await;
    assert_eq!(
        (response.body.as_str(), response.set_cookies().len()),
        ("1", 1)
    );
    assert_eq!(browser.token().len(), 43);
    assert_eq!(browser.get("/get/a").await.body, "1");
}

/// The name is quoted wherever it is used.
#[tokio::test]
async fn the_table_can_have_any_name() {
    let (schema, table) = ("a.b\"c", "t;\" DROP TABLE session; --");
    let site = Site::new().await;
    let name = [schema, table].map(crate::support::quoted).join(".");
    let sql = format!(
        "CREATE SCHEMA {}; CREATE TABLE {name} (
             id text primary key not null, data bytea not null, expiry_date timestamptz not null
         )",
        crate::support::quoted(schema)
    );
    execute(&site.pool, &sql).await;
    write_row(&site.pool, &name, &record(&json!({"a": 1})), DAY).await;
    let takeover = Takeover::tower_sessions().table(schema, table);
    let app = app(site.layer().takeover(takeover));
    assert_eq!(visitor_of(&app, "id", ID).get("/get/a").await.body, "1");
}

#[tokio::test]
async fn a_missing_table_is_an_error_that_names_it() {
    let site = Site::new().await;
    let response = visitor(&site).get("/keys").await;
    assert_eq!(response.status, 500);
    let error = response.error.expect("the layer's error");
    assert_eq!(error.kind(), ErrorKind::Setup);
    assert!(error.to_string().contains(TABLE), "{error}");
    // Visitors without such a cookie don't notice.
    let mut other = Browser::new(&app(layer(&site.store)));
    assert_eq!(other.get("/insert/a/1").await.status, 200);
}

#[tokio::test]
async fn a_takeover_that_cannot_work_is_refused_at_set_up() {
    let site = Site::new().await;
    let koa = site.store.clone().koa(Koa::new(["key"]));
    let transport =
        axum_pg_session::HeaderTransport::new(header::HeaderName::from_static("x-token"));
    for layer in [
        layer(&koa),
        layer(&site.store).transport(transport),
        site.layer()
            .takeover(Takeover::tower_sessions().signed("short")),
        site.layer()
            .takeover(Takeover::tower_sessions().cookie_name("a b")),
        site.layer()
            .takeover(Takeover::tower_sessions().table("", "t")),
    ] {
        let error = layer.check().expect_err("it can't work");
        assert_eq!(error.kind(), ErrorKind::Setup, "{error}");
    }
}

/// A process of the other system saves the session that it loaded before.
#[tokio::test]
async fn a_row_that_is_written_again_is_not_taken_over_while_ours_is_there() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = visitor(&site);
    let old = browser.clone();
    browser.get("/insert/b/2").await;
    write_row(&site.pool, TABLE, &record(&json!({"a": 0})), DAY).await;
    assert_eq!(old.peek("/get/a").await.body, "1");
    assert_eq!(browser.get("/get/a").await.body, "1");
    assert_eq!(left(&site).await, 1);
}

/// The minute is over, and the reaper has not deleted the row that led to the session.
#[tokio::test]
async fn a_row_that_is_written_again_later_is_a_session_of_its_own() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = visitor(&site);
    let mut old = browser.clone();
    browser.get("/insert/b/2").await;
    let expire =
        "UPDATE session SET expiry = now() WHERE strpos(session::text, '\"successor\"') > 0";
    execute(&site.pool, expire).await;
    write_row(&site.pool, TABLE, &record(&json!({"a": 0})), DAY).await;
    assert_eq!(old.get("/get/a").await.body, "0");
    assert_eq!(old.get("/get/a").await.body, "0");
    assert_eq!(browser.get("/get/a").await.body, "1");
    assert_eq!(left(&site).await, 0);
}

#[tokio::test]
async fn two_layers_that_take_over_from_one_table_are_logged() {
    let site = Site::new().await;
    let log = Log::keep();
    let warnings = || log.text().matches("two session layers take over").count();
    let shop = layer(&site.store);
    let _shop = [app(shop.clone()), app(shop)];
    assert_eq!(warnings(), 0);
    let other = Takeover::tower_sessions().table("public", "other");
    let _other = app(site.layer().cookie_name("other").takeover(other));
    assert_eq!(warnings(), 0);
    let _admin = app(layer(&site.store.clone().realm("admin")));
    let _third = app(layer(&site.store).cookie_name("third"));
    assert_eq!(warnings(), 1);
}

#[tokio::test]
async fn another_site_that_posts_the_cookie_reaches_the_session() {
    let site = site_with(json!({"a": 1})).await;
    let app = app(layer(&site.store).begin_on_cross_site_post(false));
    let request = |cookie: &str| {
        Request::post("/post")
            .header(header::ORIGIN, "https://other.example")
            .header("sec-fetch-site", "cross-site")
            .header(header::COOKIE, cookie)
            .body(axum::body::Body::empty())
            .expect("a request")
    };
    let browser = Browser::new(&app);
    let unknown = format!("id={}", "A".repeat(22));
    assert_eq!(browser.send(request(&unknown)).await.status, 403);
    let known = format!("id={ID}");
    assert_eq!(browser.send(request(&known)).await.status, 200);
}

/// A browser can have both: a session of ours, and a cookie of the other system.
#[tokio::test]
async fn a_new_id_beside_the_other_cookie_is_undone_if_its_response_is_dropped() {
    let mut delivered = 0;
    for polls in 1.. {
        let site = site_with(json!({"a": 1})).await;
        site.store.check().await.expect("a table");
        let mut browser = Browser::new(&app(layer(&site.store)));
        browser.get("/insert/b/2").await;
        let mut browser = browser.with_cookie("id", ID);
        let response = dropped_after(browser.peek("/cycle"), polls).await;
        site.settled().await;
        let is_delivered = response.is_some();
        if let Some(response) = response {
            browser.accept(&response);
        }
        assert_eq!(browser.peek("/get/b").await.body, "\"2\"", "{polls} polls");
        delivered += i32::from(is_delivered);
        if delivered == 2 {
            break;
        }
    }
}

#[tokio::test]
async fn a_logout_beside_the_other_cookie_ends_both_sessions() {
    let site = site_with(json!({"a": 1})).await;
    let mut browser = Browser::new(&app(layer(&site.store)));
    browser.get("/insert/b/2").await;
    let mut browser = browser.with_cookie("id", ID);
    assert_eq!(browser.get("/destroy").await.status, 200);
    assert_eq!((site.rows().count().await, left(&site).await), (0, 0));
}

/// Its response can't send the token any more.
#[tokio::test]
async fn a_load_after_the_response_takes_nothing_over() {
    let site = site_with(json!({"a": 1})).await;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let page = async move |lazy: LazySession| sender.send(lazy).expect("open");
    let late = Browser::new(&app_with(layer(&site.store), page)).with_cookie("id", ID);
    assert_eq!(late.peek("/page").await.status, 200);
    let lazy = receiver.recv().await.expect("sent");
    assert!(lazy.load().await.expect("a database").is_new());
    assert_eq!(left(&site).await, 1);
    assert_eq!(visitor(&site).get("/get/a").await.body, "1");
}

#[tokio::test]
async fn a_session_that_a_constraint_or_a_unique_key_refuses_stays() {
    for rule in [
        "ALTER TABLE session ADD CHECK (session->>'a' <> '1')",
        "CREATE UNIQUE INDEX single ON session ((session->>'a'))",
    ] {
        let site = site_with(json!({"a": 1})).await;
        if rule.contains("UNIQUE") {
            site.browser().get("/insert/a/1").await;
        }
        execute(&site.pool, rule).await;
        let response = visitor(&site).peek("/keys").await;
        response.assert(200, "");
        assert_eq!(left(&site).await, 1);
    }
}

#[tokio::test]
async fn a_takeover_is_no_recent_login() {
    let site = site_with(json!({"axum-login.data": {"user_id": "anna"}})).await;
    let day = Duration::from_secs(86_400);
    let page = async move |session: Session| {
        let user = session.user_id().unwrap_or_default();
        format!("{user} {}", session.authenticated_within(day))
    };
    let asking = app_with(layer(&site.store), page);
    let mut browser = visitor(&site);
    for (path, is_recent) in [
        ("/keys", false),
        ("/insert/b/2", false),
        ("/cycle", false),
        ("/login/anna", true),
    ] {
        assert_eq!(browser.get(path).await.status, 200, "{path}");
        let response = browser.at(&asking).peek("/page").await;
        assert_eq!(response.body, format!("anna {is_recent}"), "{path}");
    }
}

#[tokio::test]
async fn a_logout_beside_a_takeover_ends_a_session_that_has_outlived_its_layer() {
    let site = site_with(json!({"a": 1})).await;
    let visitor = Browser::with_session(&site.app()).await;
    let age = "UPDATE session SET created = created - interval '2 hours'";
    execute(&site.pool, age).await;
    let layer = layer(&site.store).absolute_timeout(Duration::from_secs(3600));
    let logout = app_with(layer, async |session: Session| session.logout());
    let logout = visitor.at(&logout).with_cookie("id", ID);
    assert_eq!(logout.peek("/page").await.status, 200);
    assert_eq!((site.rows().count().await, left(&site).await), (0, 0));
}
