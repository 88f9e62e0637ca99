//! Rows that other writers left, readable or not, and rows that can't be deleted.

use std::{num::NonZeroU32, time::Duration};

use axum_pg_session::{
    Error, ErrorKind, Expiry, Login, PgSessionLayer, Session, SessionLimitPolicy,
};
use serde_json::{Value, value::RawValue};
use tokio::task::JoinSet;

use crate::support::{
    Browser, Site, THREE_COLUMNS, execute,
    page::{app_with, login_page, patiently, until},
    texts, visit,
};

/// A visitor whose row holds this text, or SQL's NULL.
async fn visitor_with(site: &Site, session: Option<&str>) -> Browser {
    let mut browser = site.visitor().await;
    let id = browser.get("/id").await.body;
    let kind = &texts(
        &site.pool,
        "SELECT pg_typeof(session)::text FROM session LIMIT 1",
    )
    .await[0];
    let value = session.map_or("NULL".into(), |text| format!("$doc${text}$doc$::{kind}"));
    let sql = format!("UPDATE session SET session = {value} WHERE id = '{id}'");
    execute(&site.pool, &sql).await;
    browser
}

/// What the only row holds, letter by letter.
async fn stored(site: &Site) -> String {
    let mut rows = texts(&site.pool, "SELECT session::text FROM session").await;
    assert_eq!(rows.len(), 1, "one row");
    rows.remove(0)
}

/// The row opens nothing and stays as it is. Its visitor begins a new session, and other sessions
/// are not affected.
async fn assert_starts_anew(site: &Site, session: Option<&str>) {
    let mut other = site.browser();
    other.get("/insert/b/2").await;
    let mut browser = visitor_with(site, session).await;
    let before = site.rows().dump().await;
    let looked = browser.peek("/keys").await;
    assert_eq!(
        (looked.status.as_u16(), looked.body.as_str()),
        (200, ""),
        "{session:?}"
    );
    assert!(looked.sets_no_cookie(), "{session:?}");
    assert_begins(&mut browser).await;
    let after = site.rows().dump().await;
    assert!(before.iter().all(|row| after.contains(row)), "{session:?}");
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(other.get("/get/b").await.body, "\"2\"");
}

async fn assert_begins(browser: &mut Browser) {
    let old = browser.token().to_owned();
    assert_eq!(browser.get("/insert/c/3").await.status, 200);
    assert_ne!(browser.token(), old);
    assert_eq!(browser.get("/get/c").await.body, "\"3\"");
}

const NO_OBJECTS: [&str; 8] = [
    "null",
    "[]",
    r#"[{"a":1}]"#,
    r#""text""#,
    r#""{\"a\":1}""#,
    "1",
    "true",
    "[[[[1]]]]",
];

#[tokio::test]
async fn a_row_without_an_object_opens_nothing() {
    for site in [Site::new().await, Site::with_jsonb().await] {
        assert_starts_anew(&site, None).await;
        for session in NO_OBJECTS {
            assert_starts_anew(&site, Some(session)).await;
        }
    }
    assert_starts_anew(&Site::new().await, Some(&nested(10_000))).await;
}

#[tokio::test]
async fn an_unreadable_row_beside_a_live_one_does_not_shadow_it() {
    let site = Site::new().await;
    let bad = visitor_with(&site, Some("[]")).await;
    let mut live = site.browser();
    live.get("/insert/b/2").await;
    let both = format!("{}; __Host-id={}", live.token(), bad.token());
    let visitor = site.browser().with_cookie("__Host-id", &both);
    let response = visitor.peek("/get/b").await;
    assert_eq!(response.body, "\"2\"");
    assert!(response.sets_no_cookie());
}

#[tokio::test]
async fn an_empty_object_is_a_session() {
    for site in [Site::new().await, Site::with_jsonb().await] {
        let mut browser = visitor_with(&site, Some("{}")).await;
        assert_eq!(browser.get("/is_new").await.body, "false");
        assert_eq!(browser.get("/keys").await.body, "");
        assert_eq!(browser.get("/increment/n").await.body, "1");
        let document: Value = serde_json::from_str(&stored(&site).await).expect("JSON");
        assert_eq!(document, serde_json::json!({"n": 1}));
    }
}

/// Saves another key, and looks at the rest of the row.
async fn assert_survives(members: &str) {
    let site = Site::new().await;
    let mut browser = visitor_with(&site, Some(&format!("{{{members},\"n\":1}}"))).await;
    assert_eq!(browser.get("/increment/n").await.body, "2", "{members}");
    assert_eq!(stored(&site).await, format!("{{{members},\"n\":2}}"));
    assert!(browser.get("/cycle").await.token().is_some(), "{members}");
    assert_eq!(browser.get("/increment/n").await.body, "3", "{members}");
    let sql = "SELECT session::text FROM session WHERE session::text LIKE '%\"n\":3}'";
    assert_eq!(
        texts(&site.pool, sql).await,
        [format!("{{{members},\"n\":3}}")]
    );
}

#[tokio::test]
async fn large_integers_survive_letter_by_letter() {
    assert_survives(r#""a":123456789012345678901234567890,"b":-9223372036854775809"#).await;
}

#[tokio::test]
async fn lone_surrogates_survive_letter_by_letter() {
    assert_survives(r#""a":"\ud800","b":["x\udfffy"],"c":"\udc00\ud800""#).await;
}

#[tokio::test]
async fn nul_survives_letter_by_letter() {
    assert_survives(r#""a":"\u0000","b":{"\u0000":"x\u0000y"},"c\u0000":1"#).await;
}

#[tokio::test]
async fn odd_documents_survive_letter_by_letter() {
    let deep = nested(10_000);
    for members in [
        r#""a":1.50,"b":1e400,"c":1E-400,"d":-0.0,"e":0.1000000000000000000001"#,
        r#""\ud800":1,"b":{"\udfff":2}"#,
        "\"a\":{ \"z\" : [ 1 ,\n2 ] , \"\\u0061\":\"\\/\" }",
        r#""_session":{"later":[1,2.50],"x":"\ud800"}"#,
        r#""_session":null"#,
        r#""_session":1"#,
        r#""_session":"text""#,
        r#""_session":[1]"#,
        r#""_session":{}"#,
        r#""_session":{"idle":"x"}"#,
        r#""_session":{"successor":5,"until":[]}"#,
        &format!(r#""_session":{deep}"#),
        &format!(r#""_session":{{"later":{deep}}}"#),
    ] {
        assert_survives(members).await;
    }
}

#[tokio::test]
async fn a_reserved_part_of_another_type_is_no_key() {
    let site = Site::new().await;
    let mut browser = visitor_with(&site, Some(r#"{"_session":[1],"a":1}"#)).await;
    assert_eq!(browser.get("/keys").await.body, "a");
    assert_eq!(browser.get("/get/_session").await.body, "none");
    assert_eq!(browser.get("/clear").await.status, 200);
    assert_eq!(stored(&site).await, r#"{"_session":[1]}"#);
}

#[tokio::test]
async fn set_expiry_keeps_unknown_members_of_the_reserved_part() {
    let site = Site::new().await;
    let mut browser = visitor_with(&site, Some(r#"{"_session":{"later":[1]},"a":1}"#)).await;
    visit(&site, &mut browser, set_idle_hour).await;
    let document: Value = serde_json::from_str(&stored(&site).await).expect("JSON");
    assert_eq!(document["_session"]["later"], serde_json::json!([1]));
    assert_eq!(document["_session"]["idle"], 3600.0);
    assert!((site.rows().seconds_left().await - 3600.0).abs() < 1.0);
}

async fn set_idle_hour(session: Session) -> Result<(), Error> {
    session.set_expiry(Expiry::Idle(Duration::from_secs(3600)))
}

#[tokio::test]
async fn set_expiry_works_beside_an_unreadable_reserved_part() {
    for part in ["null", "1", "[1]", r#"{"idle":"x"}"#] {
        let site = Site::new().await;
        let row = format!(r#"{{"_session":{part},"a":1}}"#);
        let mut browser = visitor_with(&site, Some(&row)).await;
        visit(&site, &mut browser, set_idle_hour).await;
        assert!((site.rows().seconds_left().await - 3600.0).abs() < 1.0);
        assert_eq!(browser.get("/get/a").await.body, "1");
    }
}

/// A number that another writer made up must not break every later save.
#[tokio::test]
async fn an_absurd_life_in_a_row_does_not_break_its_session() {
    for part in [
        r#"{"idle":1e300}"#,
        r#"{"idle":1e15}"#,
        r#"{"idle":-5}"#,
        r#"{"until":1e300}"#,
        r#"{"idle":0}"#,
    ] {
        let site = Site::new().await;
        let row = format!(r#"{{"_session":{part},"a":1}}"#);
        let mut browser = visitor_with(&site, Some(&row)).await;
        let response = browser.get("/insert/b/2").await;
        assert_eq!(response.status, 200, "{part}");
    }
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

#[tokio::test]
async fn deep_nesting_survives_letter_by_letter() {
    // Postgres fails at the end of its stack, at some 6,000 levels of jsonb,
    // but reads 10,000 of json.
    let deep = nested(10_000);
    let site = Site::new().await;
    let row = format!(r#"{{"deep":{deep},"n":1}}"#);
    let mut browser = visitor_with(&site, Some(&row)).await;
    assert_eq!(browser.get("/increment/n").await.body, "2");
    assert_eq!(stored(&site).await, format!(r#"{{"deep":{deep},"n":2}}"#));
    assert_eq!(browser.get("/get/deep").await.status, 500);
    assert_eq!(browser.get("/remove/deep").await.status, 500);
    let same = visit(&site, &mut browser, async |session: Session| {
        let raw: Box<RawValue> = session.get("deep")?.expect("a value");
        Ok::<_, Error>(raw.get().to_owned())
    })
    .await;
    assert_eq!(same, deep);
}

#[tokio::test]
async fn a_key_that_stands_twice_reads_as_the_last() {
    let site = Site::new().await;
    let mut browser = visitor_with(&site, Some(r#"{"a":1,"b":2,"a":3}"#)).await;
    assert_eq!(browser.get("/get/a").await.body, "3");
    assert_eq!(browser.get("/remove/a").await.body, "3");
    assert_eq!(browser.get("/get/a").await.body, "none");
}

#[tokio::test]
async fn a_jsonb_row_keeps_what_jsonb_can_keep() {
    let site = Site::with_jsonb().await;
    let row = r#"{"big": 123456789012345678901234567890, "n": 1, "_session": {"later": 1.50}}"#;
    let mut browser = visitor_with(&site, Some(row)).await;
    let before = stored(&site).await;
    assert_eq!(browser.get("/increment/n").await.body, "2");
    assert_eq!(stored(&site).await, before.replace("\"n\": 1", "\"n\": 2"));
}

/// `jsonb` refuses the value. The other sessions of the same statement are saved.
#[tokio::test]
async fn a_value_that_jsonb_refuses_fails_alone() {
    let site = Site::with_jsonb().await;
    let mut bad = visitor_with(&site, Some(r#"{"a": 1}"#)).await;
    let mut visits = JoinSet::new();
    for _ in 0..40 {
        let mut browser = site.visitor().await;
        visits.spawn(async move { browser.get("/increment/n").await.body });
    }
    assert_eq!(bad.get("/insert/a/%00").await.status, 500);
    assert!(visits.join_all().await.iter().all(|body| body == "1"));
    assert_eq!(bad.get("/get/a").await.body, "1");
}

/// The requests of one session share its statement, too.
#[tokio::test]
async fn a_value_that_jsonb_refuses_fails_alone_among_requests_of_its_session() {
    let site = Site::with_jsonb().await;
    let browser = visitor_with(&site, Some(r#"{"a": 1}"#)).await;
    let lock = site.lock_rows().await;
    let mut visits = JoinSet::new();
    for n in 0..12 {
        let browser = browser.clone();
        visits.spawn(async move {
            let value = if n % 3 == 0 {
                "%00".into()
            } else {
                n.to_string()
            };
            (
                n,
                browser.peek(&format!("/insert/k{n}/{value}")).await.status,
            )
        });
    }
    site.blocked(1).await;
    lock.rollback().await.expect("a lock released");
    for (n, status) in patiently(visits.join_all()).await {
        assert_eq!(status.as_u16(), if n % 3 == 0 { 500 } else { 200 }, "{n}");
        let stored = browser.peek(&format!("/get/k{n}")).await.body;
        assert_eq!(stored == "none", n % 3 == 0, "{n}: {stored}");
    }
}

/// Rows of all kinds in one load, each to its own visitor.
#[tokio::test]
async fn a_corrupt_row_harms_no_one_else() {
    let site = Site::new().await;
    let mut visits = JoinSet::new();
    for n in 0..40 {
        let row = format!(r#"{{"a":{n}}}"#);
        let row = NO_OBJECTS.get(n).copied().or(Some(row.as_str()));
        let browser = visitor_with(&site, row).await;
        visits.spawn(async move { (n, browser.peek("/get/a").await.body) });
    }
    for (n, body) in visits.join_all().await {
        match n < NO_OBJECTS.len() {
            true => assert_eq!(body, "none"),
            false => assert_eq!(body, n.to_string()),
        }
    }
}

/// Such as an application's table that references the session of an order.
#[tokio::test]
async fn a_row_that_can_not_be_deleted_keeps_no_other_session_alive() {
    let site = Site::new().await;
    for _ in 0..20 {
        site.browser().get("/insert/a/1").await;
    }
    site.order("SELECT id FROM session LIMIT 1").await;
    site.store
        .destroy_everyone()
        .await
        .expect_err("a row is left");
    assert_eq!(site.rows().count().await, 1);
    execute(&site.pool, "DROP TABLE orders").await;
    assert_eq!(site.store.destroy_everyone().await.expect("an end"), 1);
}

#[tokio::test]
async fn a_row_that_can_not_be_deleted_keeps_no_other_of_the_user_signed_in() {
    let site = Site::new().await;
    let page = async |session: Session| session.login("alice");
    for _ in 0..20 {
        visit(&site, &mut site.browser(), page).await;
    }
    site.order("SELECT id FROM session LIMIT 1").await;
    let alice = site.store.user("alice");
    alice.destroy_all().await.expect_err("a row is left");
    assert_eq!(site.rows().count().await, 1);
}

/// One session is locked for a moment, and a row of another can't be deleted.
#[tokio::test]
async fn a_session_that_was_locked_ends_beside_one_that_can_not_be_deleted() {
    for of_the_user in [true, false] {
        let site = Site::new().await;
        let page = async |session: Session| session.login("alice");
        let mut browsers = [site.browser(), site.browser()];
        for browser in &mut browsers {
            visit(&site, browser, page).await;
        }
        let [locked, referenced] = [
            browsers[0].peek("/id").await.body,
            browsers[1].peek("/id").await.body,
        ];
        site.order(&format!("VALUES ('{referenced}')")).await;
        let lock = site.lock_row(&locked).await;
        let store = site.elsewhere().await;
        let ending = tokio::spawn(async move {
            match of_the_user {
                true => store.user("alice").destroy_all().await,
                false => store.destroy_everyone().await,
            }
        });
        until(|| site.is_blocked()).await;
        lock.rollback().await.expect("a rollback");
        ending
            .await
            .expect("no panic")
            .expect_err("a row can't be deleted");
        let left = texts(&site.pool, "SELECT id FROM session").await;
        assert_eq!(left, [referenced], "of the user: {of_the_user}");
    }
}

#[tokio::test]
async fn a_login_that_ends_a_session_which_can_not_be_deleted_names_no_user() {
    let site = Site::new().await;
    let store = site.limited(NonZeroU32::MIN, SessionLimitPolicy::EndOldest);
    let app = login_page(&store);
    assert_eq!(Browser::new(&app).get("/page").await.status, 200);
    site.order("SELECT id FROM session").await;
    let response = Browser::new(&app).get("/page").await;
    assert_eq!(response.status, 503);
    let error = response.error.expect("an error");
    assert_eq!(error.kind(), ErrorKind::Database);
    assert!(error.to_string().contains("can't be deleted"), "{error}");
}

async fn many_of_alice(site: &Site, number: usize) {
    let sql = format!(
        "INSERT INTO session (id, expiry, session, user_id, external_id)
         SELECT lpad(n::text, 43, 'A'), now() + interval '1 day', '{{}}', 'alice', 'sid'
         FROM generate_series(1, {number}) AS n"
    );
    execute(&site.pool, &sql).await;
}

/// Each call by which sessions of other requests are destroyed.
async fn each_call_is_an_error(site: &Site) {
    let alice = site.store.user("alice");
    let mut transaction = site.pool.begin().await.expect("a transaction");
    let outcome = patiently(alice.destroy_all_in(&mut transaction)).await;
    transaction.rollback().await.expect("a rollback");
    for outcome in [
        outcome,
        patiently(alice.destroy_all()).await,
        patiently(site.store.external("sid").destroy_all()).await,
        patiently(site.store.destroy_everyone()).await,
    ] {
        let error = outcome.expect_err("rows are left");
        assert!(error.to_string().contains("trigger"), "{error}");
    }
    let page = async |session: Session| session.login(Login::new("alice").end_others());
    let response = patiently(Browser::new(&site.app_with(page)).peek("/page")).await;
    assert_eq!(response.status, 503);
    let error = response.error.expect("sessions are left");
    assert_eq!(error.kind(), ErrorKind::Database, "{error}");
}

#[tokio::test]
async fn rows_that_a_trigger_spares_are_an_error_of_each_call() {
    let site = Site::new().await;
    many_of_alice(&site, 2).await;
    site.spare("true").await;
    each_call_is_an_error(&site).await;
    assert_eq!(site.sessions_of("alice").await, 2);
}

/// The rows move in the table at each attempt, so each search finds others first.
#[tokio::test]
async fn rows_that_are_only_marked_as_deleted_are_an_error_of_each_call() {
    let site = Site::new().await;
    many_of_alice(&site, 1500).await;
    let softly = "ALTER TABLE session ADD COLUMN deleted timestamptz;
        CREATE INDEX ON session (deleted);
        CREATE FUNCTION softly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE session SET deleted = clock_timestamp() WHERE id = OLD.id; RETURN NULL; END $$;
        CREATE TRIGGER softly BEFORE DELETE ON session FOR EACH ROW EXECUTE FUNCTION softly()";
    execute(&site.pool, softly).await;
    each_call_is_an_error(&site).await;
    let expire = "UPDATE session SET expiry = now() - interval '1 hour'";
    execute(&site.pool, expire).await;
    let reaper = axum_pg_session::Reaper::new(site.store.clone());
    let error = patiently(reaper.run_once()).await;
    let error = error.expect_err("rows are left");
    assert_eq!(error.kind(), ErrorKind::Database);
}

#[tokio::test]
async fn a_trigger_that_spares_sessions_beyond_the_limit_refuses_the_login() {
    for number in [2, 1500] {
        let site = Site::new().await;
        many_of_alice(&site, number).await;
        site.spare("true").await;
        let limited = site.limited(NonZeroU32::MIN, SessionLimitPolicy::EndOldest);
        let page = async |session: Session| session.login("alice");
        let browser = Browser::new(&app_with(PgSessionLayer::new(limited), page));
        let response = patiently(browser.peek("/page")).await;
        assert_eq!(response.status, 503, "{number}");
        let error = response.error.expect("sessions are left");
        assert_eq!(error.kind(), ErrorKind::Database, "{number}");
        assert_eq!(site.sessions_of("alice").await, number as u64);
    }
}

#[tokio::test]
async fn undated_sessions_that_a_trigger_spares_are_an_error_too() {
    let site = Site::with_table(THREE_COLUMNS).await;
    let mut browser = site.visitor().await;
    let mut other = site.visitor().await;
    let id = browser.get("/id").await.body;
    site.spare(&format!("OLD.id = '{id}'")).await;
    let outcome = patiently(site.store.destroy_everyone()).await;
    let error = outcome.expect_err("a row is left");
    assert!(error.to_string().contains("trigger"), "{error}");
    assert_ne!(browser.get("/get/a").await.body, "none");
    assert_eq!(other.get("/get/a").await.body, "none");
}

/// Another program may have written it.
#[tokio::test]
async fn a_row_that_leads_to_itself_opens_nothing_and_ends_each_call() {
    let site = Site::new().await;
    let mut browser = site.signed_in("alice").await;
    let handle = browser.handle().await;
    let circle = "UPDATE session SET user_id = NULL,
        session = json_build_object('_session', json_build_object('successor', id))";
    execute(&site.pool, circle).await;
    let (store, alice) = (&site.store, site.store.user("alice"));
    for outcome in [
        patiently(store.load(&handle)).await.map(drop),
        patiently(alice.destroy(&handle)).await.map(drop),
        patiently(alice.destroy_others(&handle)).await.map(drop),
    ] {
        let error = outcome.expect_err("no session");
        assert_eq!(error.kind(), ErrorKind::Database, "{error}");
    }
    assert_eq!(browser.get("/get/a").await.body, "none");
}

/// The trigger is one for all statements, and returns NEW, which is NULL for a DELETE.
#[tokio::test]
async fn a_logout_whose_row_a_trigger_spares_is_an_error() {
    let site = Site::new().await;
    let visitor = site.signed_in("alice").await;
    let id = visitor.handle().await;
    execute(
        &site.pool,
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER audit BEFORE INSERT OR UPDATE OR DELETE ON session
         FOR EACH ROW EXECUTE FUNCTION audit()",
    )
    .await;
    let response = visitor.peek("/destroy").await;
    assert_eq!(response.status, 503);
    assert!(response.sets_no_cookie());
    let alice = site.store.user("alice");
    for outcome in [site.store.destroy(&id).await, alice.destroy(&id).await] {
        let error = outcome.expect_err("the row is left");
        assert!(error.to_string().contains("trigger"), "{error}");
    }
    assert_eq!(alice.count().await.expect("a count"), 1);
    execute(&site.pool, "DROP TRIGGER audit ON session").await;
    assert!(visitor.peek("/destroy").await.removes_the_cookie());
}

/// Otherwise the former id would stay a session of its own, or there would be none.
#[tokio::test]
async fn a_new_id_of_which_a_trigger_drops_a_statement_is_an_error_and_changes_nothing() {
    for (koa, statement) in [
        (false, "UPDATE"),
        (false, "INSERT"),
        (true, "DELETE"),
        (true, "INSERT"),
    ] {
        let site = match koa {
            true => Site::of_koa().await,
            false => Site::new().await,
        };
        site.store.migrate().await.expect("a table");
        let mut visitor = match koa {
            true => site.visitor_of_koa().await,
            false => site.browser(),
        };
        visitor.get("/insert/a/1").await;
        execute(
            &site.pool,
            &format!(
                "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
                 CREATE TRIGGER lose BEFORE {statement} ON session
                 FOR EACH ROW EXECUTE FUNCTION lose()"
            ),
        )
        .await;
        let before = site.rows().dump().await;
        let login = site.app_with(async |session: Session| session.login("alice"));
        for response in [
            visitor.peek("/cycle").await,
            visitor.at(&login).peek("/page").await,
        ] {
            assert_eq!(response.status, 503, "Koa: {koa}, {statement}");
            assert!(response.sets_no_cookie(), "Koa: {koa}, {statement}");
        }
        assert_eq!(site.rows().dump().await, before, "Koa: {koa}, {statement}");
    }
}
