//! Concurrent requests in the formats of Koa and Express: one of them gives the session a new id,
//! destroys it, or writes another user into its row.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use axum_pg_session::{
    Ending, Error, Expiry, Express, Login, PgSessionLayer, PgSessionStore, Session,
    SessionEventKind, SessionId, testing::TestVisitor,
};
use serde_json::Value;

use crate::support::{
    Browser, Role, Site, app, execute,
    express::{SECRET, SID, browser_of_express, site_of, stored, visitor_of_express},
    koa::koa,
    page::{InFlight, app_with, late_in, until},
    proxy::Proxy,
    texts,
};

const CART: &str = r#""cart":1"#;
const OF_ADA: &str = r#""cart":1,"passport":{"user":"ada"}"#;
const OF_BOB: &str = r#""iban":"of bob","passport":{"user":"bob"}"#;

async fn koa_site() -> Site {
    let site = Site::of_koa().await;
    site.store.migrate().await.expect("the owner");
    site
}

/// One of each format.
async fn sites() -> [(&'static str, Site); 3] {
    [
        ("own", Site::new().await),
        ("koa", koa_site().await),
        ("express", Site::of_guarded_express().await),
    ]
}

/// The same site in another process.
async fn elsewhere(site: &Site, format: &str) -> PgSessionStore {
    let store = site.elsewhere().await;
    match format {
        "own" => store,
        "koa" => store.koa(koa()),
        _ => store.express(Express::new([SECRET])),
    }
}

async fn sids(site: &Site) -> Vec<String> {
    texts(&site.pool, "SELECT sid FROM session").await
}

async fn documents(site: &Site) -> String {
    let documents = texts(&site.pool, "SELECT sess::text FROM session").await;
    documents.concat()
}

/// A request that signs out when it goes on.
async fn late_logout(site: &Site, browser: &Browser) -> InFlight {
    site.late(browser, async |session: Session| session.logout())
        .await
}

// Another user in the row.

/// What a request of ada calls after Passport before 0.6 has signed bob in under the same id.
async fn act_late(session: &Session, call: &str) -> Result<(), Error> {
    match call {
        "insert" => session.insert("address", "of ada"),
        "update" => session
            .update("address", |_: Option<String>| "of ada")
            .map(drop),
        "update_now" => {
            let updated = session.update_now("iban", |iban: Option<String>| iban);
            updated.await.map(drop)
        }
        "take" => session.take::<Value>("iban").await.map(drop),
        "remove" => session.remove::<Value>("cart").map(drop),
        "clear" => session.clear(),
        "expiry" => session.set_expiry(Expiry::Idle(std::time::Duration::from_secs(7))),
        "cycle" => session.cycle_id(),
        "insert and cycle" => {
            session.insert("address", "of ada")?;
            session.cycle_id()
        }
        _ => {
            session.insert("address", "of ada")?;
            session.login("ada")
        }
    }
}

#[tokio::test]
async fn a_late_request_of_ada_neither_changes_nor_reads_the_session_of_bob() {
    for call in [
        "insert",
        "update",
        "update_now",
        "take",
        "remove",
        "clear",
        "expiry",
        "cycle",
        "insert and cycle",
        "login",
    ] {
        for saves in [false, true] {
            let site = Site::of_migrated_express().await;
            site.express_writes(SID, &stored(OF_ADA)).await;
            let browser = browser_of_express(&site.app());
            let late = site
                .late(&browser, move |session: Session| async move {
                    let mut outcome = act_late(&session, call).await;
                    if saves {
                        outcome = outcome.and(session.save().await);
                    }
                    let read = format!("{:?} {:?}", session.user_id(), session.keys());
                    outcome.map_err(|error| (error.status(), read.clone()))?;
                    Ok::<_, (http::StatusCode, String)>(read)
                })
                .await;
            site.express_writes(SID, &stored(OF_BOB)).await;
            let reply = late.finish().await;
            assert_eq!(reply.status, 503, "{call}: {}", reply.body);
            let shows_bob = reply.body.contains("bob") || reply.body.contains("iban");
            assert!(!shows_bob, "{call}: {}", reply.body);
            assert_eq!(documents(&site).await, stored(OF_BOB), "{call}");
            assert_eq!(sids(&site).await, [SID], "{call}");
        }
    }
}

#[tokio::test]
async fn a_late_new_id_in_koas_format_does_not_move_the_session_of_another_user() {
    let site = koa_site().await;
    let browser = site.signed_in("ada").await;
    let late = site
        .late(&browser, async |session: Session| session.cycle_id())
        .await;
    execute(&site.pool, "UPDATE session SET user_id = 'bob'").await;
    assert_eq!(late.finish().await.status, 503);
    assert_eq!(site.user(&browser).await, "bob");
}

#[tokio::test]
async fn a_late_new_id_keeps_a_concurrent_change_of_the_same_user() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(OF_ADA)).await;
    let browser = browser_of_express(&site.app());
    let late = site
        .late(&browser, async |session: Session| {
            session.insert("a", 1)?;
            session.cycle_id()
        })
        .await;
    let changed = r#""cart":2,"passport":{"user":"ada"}"#;
    site.express_writes(SID, &stored(changed)).await;
    assert_eq!(late.finish().await.status, 200);
    assert_eq!(
        documents(&site).await,
        stored(&format!(r#"{changed},"a":1"#))
    );
}

/// A request that loaded the session in between is saved at the same time.
#[tokio::test]
async fn a_late_save_of_bob_is_saved_if_bob_is_signed_in_again() {
    let site = Site::of_migrated_express().await;
    let browser = browser_of_express(&site.app());
    let insert = async |session: Session| session.insert("late", 1);
    site.express_writes(SID, &stored(OF_BOB)).await;
    let of_bob = site.late(&browser, insert).await;
    site.express_writes(SID, &stored(OF_ADA)).await;
    let of_ada = site.late(&browser, insert).await;
    site.express_writes(SID, &stored(OF_BOB)).await;
    // Neither waits before its save is queued, so one task takes both.
    of_ada.go_on();
    of_bob.go_on();
    assert_eq!(of_ada.response().await.status, 503);
    assert_eq!(of_bob.response().await.status, 200);
    assert_eq!(
        documents(&site).await,
        stored(&format!(r#"{OF_BOB},"late":1"#))
    );
}

// A logout that crosses a new id.

#[tokio::test]
async fn a_logout_that_crosses_a_new_id_destroys_the_session() {
    for new_id in ["cycle", "login", "twice"] {
        for (format, site) in sites().await {
            let mut browser = site.browser();
            browser.get("/insert/a/1").await;
            let logout = late_logout(&site, &browser).await;
            match new_id {
                "cycle" => drop(browser.get("/cycle").await),
                "login" => site.sign_in(&mut browser, "ada").await,
                _ => {
                    browser.get("/cycle").await;
                    browser.get("/cycle").await;
                }
            }
            assert_eq!(browser.peek("/get/a").await.body, "\"1\"");
            assert_eq!(logout.finish().await.status, 200, "{format}, {new_id}");
            assert_eq!(
                browser.peek("/get/a").await.body,
                "none",
                "{format}, {new_id}"
            );
            let rows = texts(&site.pool, "SELECT count(*)::text FROM session").await;
            assert_eq!(rows, ["0"], "{format}, {new_id}");
        }
    }
}

#[tokio::test]
async fn a_logout_that_crosses_a_new_id_of_another_process_is_no_success_if_the_session_lives() {
    for (format, site) in sites().await {
        let mut browser = site.browser();
        browser.get("/insert/a/1").await;
        let logout = late_logout(&site, &browser).await;
        let there = app(PgSessionLayer::new(elsewhere(&site, format).await));
        let mut browser = browser.at(&there);
        assert_eq!(browser.get("/cycle").await.status, 200);
        let reply = logout.finish().await;
        let lives = browser.peek("/get/a").await.body == "\"1\"";
        let expected = if format == "own" {
            (200, false)
        } else {
            (503, true)
        };
        assert_eq!((reply.status.as_u16(), lives), expected, "{format}");
        // The browser keeps the cookie of the new id, and signs out with it.
        assert_eq!(reply.set_cookies().is_empty(), lives, "{format}");
        assert_eq!(browser.get("/destroy").await.status, 200);
        assert_eq!(browser.peek("/get/a").await.body, "none", "{format}");
    }
}

/// Such as a double click on the button.
#[tokio::test]
async fn the_second_of_two_logouts_at_once_is_a_success() {
    for (format, site) in sites().await {
        let browser = site.signed_in("ada").await;
        let first = late_logout(&site, &browser).await;
        let second = late_logout(&site, &browser).await;
        assert_eq!(first.finish().await.status, 200, "{format}");
        assert_eq!(second.finish().await.status, 200, "{format}");
    }
}

/// The row may be missing because another process gave the session a new id.
#[tokio::test]
async fn a_logout_whose_row_another_application_deleted_is_a_503_and_the_next_one_succeeds() {
    for (format, site) in sites().await {
        let browser = site.signed_in("ada").await;
        let logout = late_logout(&site, &browser).await;
        execute(&site.pool, "DELETE FROM session").await;
        let expected = if format == "own" { 200 } else { 503 };
        assert_eq!(logout.finish().await.status, expected, "{format}");
        assert_eq!(browser.peek("/destroy").await.status, 200, "{format}");
    }
}

/// There are no tombstones.
#[tokio::test]
async fn a_logout_that_crosses_a_new_id_and_a_late_write_of_express_destroys_both_rows() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(OF_ADA)).await;
    let mut browser = browser_of_express(&site.app());
    let logout = late_logout(&site, &browser).await;
    assert_eq!(browser.get("/cycle").await.status, 200);
    site.express_writes(SID, &stored(OF_ADA)).await;
    assert_eq!(sids(&site).await.len(), 2);
    assert_eq!(logout.finish().await.status, 200);
    assert!(sids(&site).await.is_empty());
}

#[tokio::test]
async fn a_handle_destroys_the_session_under_its_new_id() {
    for moves in [1, 2] {
        for (format, site) in sites().await {
            for is_text in [false, true] {
                let visitor = TestVisitor::new(&site.layer());
                let login = |session: &Session| session.login("ada");
                visitor.with_session(login).await.expect("a login");
                let listed = site.store.user("ada").list().await.expect("a list");
                let mut handle = listed[0].id().clone();
                for _ in 0..moves {
                    let moved = visitor.with_session(Session::cycle_id).await;
                    moved.expect("a new id");
                }
                if is_text {
                    let text = handle.to_string();
                    handle = text.parse::<SessionId>().expect("a handle");
                }
                let destroyed = site.store.destroy(&handle).await.expect("a deletion");
                let left = site.sessions_of("ada").await;
                assert_eq!((destroyed, left), (true, 0), "{format}, {moves} new ids");
                let again = site.store.destroy(&handle).await.expect("a deletion");
                assert!(!again, "{format}");
            }
        }
    }
}

// The undo of a new id.

/// The commit of a new id waits for the lock 1, and that of its undo for the lock 2.
async fn hold_two_commits(site: &Site) {
    let sql = format!(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN
             PERFORM pg_advisory_xact_lock_shared(CASE NEW.sid WHEN '{SID}' THEN 2 ELSE 1 END);
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON session
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()"
    );
    execute(&site.pool, &sql).await;
}

fn lock(n: u32) -> String {
    format!("SELECT pg_advisory_xact_lock({n})")
}

#[tokio::test]
async fn the_undo_of_a_new_id_revives_no_session_whose_logout_was_a_success() {
    for process in ["this", "another"] {
        for page in ["/cycle", "/page"] {
            let site = Site::of_guarded_express().await;
            site.express_writes(SID, &stored(CART)).await;
            hold_two_commits(&site).await;
            let new_id = site.open_transaction(&lock(1)).await;
            let undo = site.open_transaction(&lock(2)).await;
            let login = async |session: Session| session.login("ada");
            let browser = browser_of_express(&site.app_with(login));
            let given_up = {
                let browser = browser.clone();
                tokio::spawn(async move { browser.peek(page).await })
            };
            until(|| site.is_blocked()).await;
            let store = match process {
                "this" => site.store.clone(),
                _ => elsewhere(&site, "express").await,
            };
            let logout = InFlight::begin(&browser, "/page", |gate| {
                app_with(PgSessionLayer::new(store), async move |session: Session| {
                    assert!(!session.is_new());
                    gate.pass().await;
                    session.logout()
                })
            })
            .await;
            logout.go_on();
            if process == "another" {
                until(|| site.is_blocked_twice()).await;
            }
            given_up.abort();
            assert!(given_up.await.is_err());
            drop(new_id);
            let status = if process == "this" {
                // It follows the session, so it waits for the undo.
                drop(undo);
                logout.response().await.status
            } else {
                let status = logout.response().await.status;
                drop(undo);
                status
            };
            site.settled().await;
            let left = sids(&site).await;
            let expected = match process {
                "this" => (200, vec![]),
                _ => (503, vec![SID.to_owned()]),
            };
            assert_eq!((status.as_u16(), left), expected, "{process}, {page}");
            // The user signs out again.
            assert_eq!(browser.peek("/destroy").await.status, 200);
            assert!(sids(&site).await.is_empty());
        }
    }
}

/// The request is canceled before its commit is sent.
#[tokio::test]
async fn a_new_id_of_a_canceled_request_is_rolled_back_so_a_deletion_by_the_old_id_succeeds() {
    for page in ["/cycle", "/page"] {
        for (format, site) in sites().await {
            let login = async |session: Session| session.login("ada");
            let mut browser = Browser::new(&site.app_with(login));
            browser.get("/insert/a/1").await;
            let wait = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
                        SET lock_timeout = 0 AS $$ BEGIN
                            PERFORM pg_advisory_xact_lock_shared(1);
                            RETURN NEW;
                        END $$;
                        CREATE TRIGGER wait BEFORE INSERT ON session
                        FOR EACH ROW EXECUTE FUNCTION wait()";
            execute(&site.pool, wait).await;
            let lock = site.hold_advisory_lock().await;
            let given_up = {
                let browser = browser.clone();
                tokio::spawn(async move { browser.peek(page).await })
            };
            until(|| site.is_blocked()).await;
            let pool = site.pool.clone();
            // As another application deletes a session, with the only row.
            let deletion = tokio::spawn(async move { execute(&pool, "DELETE FROM session").await });
            until(|| site.is_blocked_twice()).await;
            given_up.abort();
            assert!(given_up.await.is_err());
            drop(lock);
            deletion.await.expect("no panic");
            site.settled().await;
            let rows = texts(&site.pool, "SELECT count(*)::text FROM session").await;
            assert_eq!(rows, ["0"], "{format}, {page}");
        }
    }
}

#[tokio::test]
async fn an_undone_login_restores_the_columns_of_the_application() {
    for login in [Login::new("ada"), Login::new("ada").discard_data()] {
        for (format, mut site) in sites().await {
            let columns = "ALTER TABLE session ADD note text DEFAULT 'new', ADD tags text[],
                           ADD \"At 1\" timestamptz, ADD extra json, ADD n numeric,
                           ADD copy text GENERATED ALWAYS AS (upper(note)) STORED";
            execute(&site.pool, columns).await;
            // A store inspects its table once.
            site.store = elsewhere(&site, format).await;
            let mut browser = site.browser();
            browser.get("/insert/a/1").await;
            let set = r#"UPDATE session SET note = 'kept', tags = '{a,"b c",NULL}', n = 1.10,
                         "At 1" = '2001-02-03 04:05:06.789012+00', extra = '{"b": 1, "b":"\u0000"}'"#;
            execute(&site.pool, set).await;
            let rows = "SELECT concat_ws('|', note, tags, \"At 1\", extra, n, copy) FROM session";
            let before = texts(&site.pool, rows).await;
            let page = {
                let login = login.clone();
                async move |session: Session| session.login(login.clone())
            };
            let former = browser.at(&site.app_with(page));
            site.gives_up(former, "/page").await;
            until(async || browser.peek("/get/a").await.body == "\"1\"").await;
            assert_eq!(texts(&site.pool, rows).await, before, "{format}, {login:?}");
        }
    }
}

#[tokio::test]
async fn a_destroy_whose_outcome_is_unknown_fails_with_the_explicit_save_and_the_response() {
    let site = Site::of_guarded_express().await;
    site.express_writes(SID, &stored(OF_ADA)).await;
    let browser = browser_of_express(&site.app());
    let late = site
        .late(&browser, async |session: Session| {
            session.destroy()?;
            let first = session.save().await.expect_err("an unknown outcome");
            assert_eq!(first.kind(), axum_pg_session::ErrorKind::Ended);
            session.insert("farewell", 1)
        })
        .await;
    execute(&site.pool, "DELETE FROM session").await;
    let reply = late.finish().await;
    assert_eq!(reply.status, 503);
    assert!(reply.set_cookies().is_empty());
    assert!(sids(&site).await.is_empty());
    let user = visitor_of_express(&site.store).session().await;
    assert!(user.expect("a session").is_new());
}

// Rows that another application or process has changed.

/// Another process gives the session a new id. Then the logout signs it out, or is a 503.
async fn crosses_a_new_id_elsewhere(site: &Site, logout: InFlight, browser: &Browser) {
    let there = app(PgSessionLayer::new(elsewhere(site, "express").await));
    let mut browser = browser.at(&there);
    assert_eq!(browser.get("/cycle").await.status, 200);
    let status = logout.finish().await.status;
    let lives = browser.peek("/get/cart").await.body == "1";
    assert!(
        status == 503 || !lives,
        "the logout is a {status}, and the session lives"
    );
}

/// Without tombstones, Express restores the row of the former id. The deletion of that
/// row doesn't show that the session is over: another process gave it the next id.
#[tokio::test]
async fn a_logout_that_deletes_only_a_revived_row_is_no_success_if_the_session_lives() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(CART)).await;
    let mut browser = browser_of_express(&site.app());
    let logout = late_logout(&site, &browser).await;
    assert_eq!(browser.get("/cycle").await.status, 200);
    site.express_writes(SID, &stored(CART)).await;
    crosses_a_new_id_elsewhere(&site, logout, &browser).await;
}

/// The same id was destroyed here before, and Express revived it.
#[tokio::test]
async fn a_logout_of_a_revived_session_that_moved_elsewhere_is_no_success_if_the_session_lives() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(CART)).await;
    let browser = browser_of_express(&site.app());
    assert_eq!(browser.peek("/destroy").await.status, 200);
    site.express_writes(SID, &stored(CART)).await;
    let logout = late_logout(&site, &browser).await;
    crosses_a_new_id_elsewhere(&site, logout, &browser).await;
}

/// An attacker planted the id, and a request that Express executed during the login revived it.
#[tokio::test]
async fn a_request_that_arrives_with_a_replaced_token_does_not_sign_the_session_out() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(CART)).await;
    let attacker = browser_of_express(&site.app());
    let mut victim = attacker.clone();
    site.sign_in(&mut victim, "ada").await;
    site.express_writes(SID, &stored(CART)).await;
    assert_eq!(attacker.peek("/destroy").await.status, 200);
    assert_eq!(site.user(&victim).await, "ada");
}

#[tokio::test]
async fn a_logout_is_a_success_if_this_process_destroyed_or_replaced_the_session() {
    let mut faults = Vec::new();
    for end in [
        "destroy_all",
        "external",
        "everyone",
        "end_others",
        "discard_data",
    ] {
        for (format, site) in [
            ("own", Site::new().await),
            ("koa", koa_site().await),
            ("express", Site::of_migrated_express().await),
        ] {
            let mut browser = site
                .signed_in(Login::new("ada").external_id("of ada"))
                .await;
            let logout = late_logout(&site, &browser).await;
            match end {
                "destroy_all" => drop(site.store.user("ada").destroy_all().await.expect("an end")),
                "external" => drop(
                    site.store
                        .external("of ada")
                        .destroy_all()
                        .await
                        .expect("an end"),
                ),
                "everyone" => drop(site.store.destroy_everyone().await.expect("an end")),
                "end_others" => drop(site.signed_in(Login::new("ada").end_others()).await),
                _ => {
                    site.sign_in(&mut browser, Login::new("ada").discard_data())
                        .await;
                }
            }
            let status = logout.finish().await.status;
            if status != 200 {
                faults.push(format!("{format}, {end}: {status}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A handle that was read from text is looked up before the destroy has its turn. The new id is
/// committed then, but this process has not received that yet.
#[tokio::test]
async fn a_handle_from_text_destroys_a_session_that_is_getting_a_new_id() {
    let site = koa_site().await;
    let proxy = Proxy::before(site.database.url()).await;
    let store = PgSessionStore::new(proxy.pool().await).koa(koa());
    let layer = PgSessionLayer::new(store.clone());
    let ids = "SELECT id FROM session";
    for is_text in [false, true] {
        let mut browser = Browser::new(&app(layer.clone()));
        let login = app_with(layer.clone(), async |session: Session| session.login("ada"));
        browser = browser.at(&login);
        assert_eq!(browser.get("/page").await.status, 200);
        let listed = store.user("ada").list().await.expect("a list");
        let mut handle = listed[0].id().clone();
        if is_text {
            handle = handle.to_string().parse().expect("a handle");
        }
        let former = texts(&site.pool, ids).await;
        proxy.withhold_responses_of(Some("COMMIT"));
        drop(proxy.take_texts());
        let cycle = tokio::spawn(async move { browser.get("/cycle").await.status });
        until(async || texts(&site.pool, ids).await != former).await;
        let destroy = {
            let store = store.clone();
            tokio::spawn(async move { store.destroy(&handle).await })
        };
        let looked_up = async || {
            let texts = proxy.take_texts();
            texts.iter().any(|text| text.contains("sha256("))
        };
        if is_text {
            until(looked_up).await;
        }
        // The lookup is done. If the destroy waits for the session's queue, it waits now.
        site.settled().await;
        proxy.withhold_responses_of(None);
        assert_eq!(cycle.await.expect("no panic"), 200);
        let destroyed = destroy.await.expect("no panic");
        let left = site.sessions_of("ada").await;
        assert!(
            matches!(destroyed, Ok(true)) && left == 0,
            "from text: {is_text}, {destroyed:?}, {left} sessions"
        );
    }
}

/// The store doesn't use the column `words`, and `check` says that the rights suffice.
#[tokio::test]
async fn a_login_that_drops_the_data_needs_no_right_to_a_column_that_is_not_copied() {
    let site = koa_site().await;
    let columns = "ALTER TABLE session ADD note text,
                   ADD words text GENERATED ALWAYS AS (upper(note)) STORED";
    execute(&site.pool, columns).await;
    let role = Role::new(&site.pool).await;
    let columns = "id, expiry, session, created, user_id, last_seen, device, external_id";
    let changed = columns.replace("id, expiry", "expiry");
    role.grant(&format!(
        "SELECT ({columns}, note), INSERT ({columns}, note), UPDATE ({changed}), DELETE ON session"
    ))
    .await;
    let pool = role.pool(site.database.url()).await;
    let store = PgSessionStore::new(pool.clone())
        .koa(koa())
        .create_table(false);
    let checked = store.check().await.map(|report| report.to_string());
    let visitor = TestVisitor::new(&PgSessionLayer::new(store));
    let mut outcomes = Vec::new();
    for login in [
        Login::new("ada"),
        Login::new("ada").discard_data(),
        // Another user, so the data is dropped.
        Login::new("bob"),
    ] {
        let login = |session: &Session| session.login(login.clone());
        outcomes.push(visitor.with_session(login).await);
    }
    pool.close().await;
    role.drop().await;
    assert!(
        outcomes.iter().all(Result::is_ok),
        "check: {checked:?}, logins: {outcomes:#?}"
    );
}

/// The migration of the application waits for the login, and the undo waits for the migration.
#[tokio::test]
async fn an_undone_login_restores_the_session_if_the_table_got_a_column_meanwhile() {
    for login in [Login::new("ada"), Login::new("ada").discard_data()] {
        let site = koa_site().await;
        execute(
            &site.pool,
            "ALTER TABLE session ADD note text DEFAULT 'new'",
        )
        .await;
        let site = Site {
            store: site.elsewhere().await.koa(koa()),
            ..site
        };
        let mut browser = site.browser();
        browser.get("/insert/a/1").await;
        let held = site.hold_commits().await;
        let page = {
            let login = login.clone();
            async move |session: Session| session.login(login.clone())
        };
        let former = browser.at(&site.app_with(page));
        let given_up = tokio::spawn(async move { former.peek("/page").await });
        until(|| site.is_blocked()).await;
        let migration = {
            let pool = site.pool.clone();
            tokio::spawn(async move { execute(&pool, "ALTER TABLE session ADD other text").await })
        };
        until(|| site.is_blocked_twice()).await;
        given_up.abort();
        assert!(given_up.await.is_err());
        drop(held);
        migration.await.expect("no panic");
        let is_restored = until(async || browser.peek("/get/a").await.body == "\"1\"");
        let restored = tokio::time::timeout(std::time::Duration::from_secs(20), is_restored).await;
        let rows = texts(&site.pool, "SELECT count(*)::text FROM session").await;
        assert!(restored.is_ok(), "{login:?}: {rows:?} rows");
    }
}

/// A login that drops the data, and whose response is lost. A logout comes between its commit and
/// its undo.
#[tokio::test]
async fn the_undo_of_a_login_that_drops_the_data_revives_no_session_whose_logout_was_a_success() {
    for document in [CART, OF_ADA] {
        for end in ["logout", "handle"] {
            let site = Site::of_guarded_express().await;
            site.express_writes(SID, &stored(document)).await;
            hold_two_commits(&site).await;
            let new_id = site.open_transaction(&lock(1)).await;
            let undo = site.open_transaction(&lock(2)).await;
            let login = async |session: Session| session.login(Login::new("ada").discard_data());
            let browser = browser_of_express(&site.app_with(login));
            let handle = browser.handle().await;
            let given_up = {
                let browser = browser.clone();
                tokio::spawn(async move { browser.peek("/page").await })
            };
            until(|| site.is_blocked()).await;
            let logout = late_logout(&site, &browser).await;
            if end == "logout" {
                logout.go_on();
            }
            given_up.abort();
            assert!(given_up.await.is_err());
            drop(new_id);
            if end == "logout" {
                assert_eq!(logout.response().await.status, 200);
            } else {
                until(|| site.is_blocked()).await;
                // The login has replaced that session.
                assert!(!site.store.destroy(&handle).await.expect("an end"));
            }
            drop(undo);
            // The undo restores the session, and deletes it again.
            until(async || sids(&site).await.is_empty()).await;
        }
    }
}

/// The undo restored the session, and then another process gave it a new id.
#[tokio::test]
async fn a_logout_after_an_undone_login_is_no_success_if_the_session_lives() {
    let site = Site::of_guarded_express().await;
    site.express_writes(SID, &stored(CART)).await;
    let browser = browser_of_express(&site.app());
    let logout = late_logout(&site, &browser).await;
    let login = async |session: Session| session.login(Login::new("ada").discard_data());
    site.gives_up(browser.at(&site.app_with(login)), "/page")
        .await;
    until(async || sids(&site).await == [SID]).await;
    site.settled().await;
    crosses_a_new_id_elsewhere(&site, logout, &browser).await;
}

struct Pause {
    reached: Mutex<Receiver<()>>,
    go_on: std::sync::mpsc::Sender<()>,
}

/// A store whose hook waits when a session is replaced by a login.
fn with_slow_hook(store: PgSessionStore) -> (PgSessionStore, Arc<Pause>) {
    let (reach, reached) = channel();
    let (go_on, going) = channel();
    let going = Mutex::new(going);
    let store = store.on_event(move |event| {
        if event.kind() == SessionEventKind::Ended(Ending::Replaced) {
            reach.send(()).expect("a test");
            let going = going.lock().expect("no panic");
            going.recv_timeout(Duration::from_secs(20)).expect("a test");
        }
    });
    let reached = Mutex::new(reached);
    (store, Arc::new(Pause { reached, go_on }))
}

/// The hook of the login runs while the request signs out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_logout_that_crosses_a_login_and_its_hook_destroys_the_session() {
    let site = Site::of_guarded_express().await;
    let (store, pause) = with_slow_hook(site.store.clone());
    site.express_writes(SID, &stored(CART)).await;
    let layer = PgSessionLayer::new(store.clone());
    let mut browser = browser_of_express(&app(layer.clone()));
    let logout = InFlight::begin(&browser, "/page", |gate| {
        app_with(layer.clone(), async move |session: Session| {
            gate.pass().await;
            session.logout()
        })
    })
    .await;
    assert_eq!(browser.get("/cycle").await.status, 200);
    let mut login = browser.at(&app_with(layer.clone(), async |session: Session| {
        session.login("ada")
    }));
    let login = tokio::spawn(async move {
        assert_eq!(login.get("/page").await.status, 200);
        login
    });
    let waits = Arc::clone(&pause);
    tokio::task::spawn_blocking(move || {
        let reached = waits.reached.lock().expect("no panic");
        reached
            .recv_timeout(Duration::from_secs(20))
            .expect("an event");
    })
    .await
    .expect("no panic");
    let status = logout.finish().await.status;
    pause.go_on.send(()).expect("the hook waits");
    let browser = login.await.expect("no panic");
    let user = site.user(&browser).await;
    assert!(
        status == 503 || user.is_empty(),
        "the logout is a {status}, and {user} is signed in"
    );
}

/// The login has loaded the session before its absolute timeout passed, and the other request
/// after that.
#[tokio::test]
async fn a_request_that_begins_a_session_after_a_timeout_leaves_a_concurrent_login_alone() {
    let mut faults = Vec::new();
    for format in ["own", "express"] {
        let (site, store, browser) = site_of(format, Duration::from_secs(5)).await;
        let layer = PgSessionLayer::new(store).absolute_timeout(Duration::from_secs(3600));
        let login = async |session: Session| session.login("ada");
        let login = late_in(layer.clone(), &browser, login).await;
        execute(
            &site.pool,
            "UPDATE session SET created = created - interval '2 hours'",
        )
        .await;
        let insert = async |session: Session| session.insert("seen", 1);
        let insert = late_in(layer, &browser, insert).await;
        let signed_in = login.finish().await;
        assert_eq!(signed_in.status, 200, "{format}");
        let mut visitor = browser.at(&site.app());
        visitor.accept(&signed_in);
        assert_eq!(site.user(&visitor).await, "ada", "{format}");
        let inserted = insert.finish().await.status;
        let user = site.user(&visitor).await;
        if user != "ada" {
            faults.push(format!("{format}: the other request is a {inserted}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A change of the password, which the check compares, beside a request of another tab. It loads
/// the session after the new password was stored and before the session has it.
#[tokio::test]
async fn a_refused_session_stays_if_it_was_changed_or_got_a_new_id() {
    let mut faults = Vec::new();
    for format in ["own", "express"] {
        for gets_a_new_id in [false, true] {
            let (site, store, browser) = site_of(format, Duration::from_secs(5)).await;
            let password = Arc::new(Mutex::new("1".to_owned()));
            let known = Arc::clone(&password);
            let layer = PgSessionLayer::new(store).valid_if(move |session, _| {
                let is_valid = session.get::<String>("a").ok().flatten()
                    == Some(known.lock().expect("no panic").clone());
                async move { is_valid || session.is_new() }
            });
            let change = InFlight::begin(&browser, "/page", |gate| {
                app_with(layer.clone(), async move |session: Session| {
                    "2".clone_into(&mut password.lock().expect("no panic"));
                    gate.pass().await;
                    session.insert("a", "2")?;
                    if gets_a_new_id {
                        session.cycle_id()?;
                    }
                    Ok::<_, axum_pg_session::Error>(())
                })
            })
            .await;
            let other = InFlight::begin(&browser, "/page", |gate| {
                app_with(layer.clone(), async move |session: Session| {
                    gate.pass().await;
                    session.is_new().to_string()
                })
            })
            .await;
            let changed = change.finish().await;
            assert_eq!(changed.status, 200, "{format}");
            let mut visitor = browser.at(&site.app());
            visitor.accept(&changed);
            assert_eq!(visitor.peek("/get/a").await.body, "\"2\"", "{format}");
            assert_eq!(other.finish().await.body, "true", "{format}");
            let value = visitor.peek("/get/a").await.body;
            if value != "\"2\"" {
                faults.push(format!("{format}, new id: {gets_a_new_id}: {value}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test]
async fn a_handler_that_deletes_an_account_signs_its_user_out_first() {
    for (format, site) in sites().await {
        let browser = site.signed_in("ada").await;
        let (pool, store) = (site.pool.clone(), site.store.clone());
        let page = async move |session: Session| {
            session.logout()?;
            session.save().await?;
            let mut transaction = pool.begin().await.expect("a transaction");
            store.user("ada").destroy_all_in(&mut transaction).await?;
            transaction.commit().await.expect("a commit");
            Ok::<_, Error>(())
        };
        let status = browser.at(&site.app_with(page)).peek("/page").await.status;
        assert_eq!(status, 200, "{format}");
    }
}

// Refused and outlived rows.

/// Where a response was a success although the refused session lives, if another request changes it
/// or gives it a new id meanwhile.
async fn survivors<F, Fut>(refusing: fn(PgSessionLayer) -> PgSessionLayer, act: F) -> Vec<String>
where
    F: Fn(Session) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut survivors = Vec::new();
    for format in ["own", "express"] {
        for other in ["/insert/b/2", "/cycle"] {
            let (site, store, browser) = site_of(format, Duration::from_secs(30)).await;
            let layer = refusing(PgSessionLayer::new(store));
            let refused = late_in(layer, &browser, act).await;
            let mut visitor = browser.at(&site.app());
            assert_eq!(visitor.get(other).await.status, 200, "{format}");
            let status = refused.finish().await.status;
            let value = visitor.peek("/get/a").await.body;
            if status == 200 && value != "none" {
                survivors.push(format!("{format}, {other}: {value}"));
            }
        }
    }
    survivors
}

/// `logout` destroys the session, even if its row has changed.
#[tokio::test]
async fn a_session_that_the_check_signed_out_stays_destroyed_if_another_request_changes_it() {
    let refusing = |layer: PgSessionLayer| {
        layer.valid_if(async |session: Session, _| {
            session.logout()?;
            Ok::<_, Error>(false)
        })
    };
    let faults = survivors(refusing, async |_: Session| Ok(())).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A link that signs out, beside a request of another tab.
#[tokio::test]
async fn a_logout_of_a_refused_session_is_no_success_if_the_session_lives() {
    let refusing = |layer: PgSessionLayer| layer.valid_if(async |_, _| false);
    let faults = survivors(refusing, async |session: Session| session.logout()).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The save finds that another request has changed the row, and leaves it.
#[tokio::test]
async fn a_logout_after_a_save_ends_a_refused_session_that_another_request_has_changed() {
    let refusing = |layer: PgSessionLayer| layer.valid_if(async |_, _| false);
    let act = async |session: Session| {
        session.save().await?;
        session.logout()
    };
    let faults = survivors(refusing, act).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Another layer of the application has no such timeout.
#[tokio::test]
async fn a_logout_ends_a_session_that_has_outlived_the_timeouts_of_its_layer() {
    let mut faults = Vec::new();
    for format in ["own", "express"] {
        let (site, store, browser) = site_of(format, Duration::from_secs(30)).await;
        let sql = "UPDATE session SET created = created - interval '2 hours'";
        execute(&site.pool, sql).await;
        let layer = PgSessionLayer::new(store).absolute_timeout(Duration::from_secs(3600));
        let logout = app_with(layer, async |session: Session| session.logout());
        assert_eq!(browser.at(&logout).peek("/page").await.status, 200);
        let value = browser.at(&site.app()).peek("/get/a").await.body;
        if value != "none" {
            faults.push(format!("{format}: {value}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A touch changes nothing but times.
#[tokio::test]
async fn a_refused_session_is_deleted_even_if_another_request_has_extended_it() {
    let mut faults = Vec::new();
    for format in ["own", "express"] {
        let (site, store, browser) = site_of(format, Duration::from_secs(30)).await;
        let layer = PgSessionLayer::new(store).valid_if(async |_, _| false);
        let refused = late_in(layer, &browser, async |_| ()).await;
        let touch = site.app_with(async |session: Session| session.touch());
        assert_eq!(browser.at(&touch).peek("/page").await.status, 200);
        assert_eq!(refused.finish().await.status, 200, "{format}");
        let value = browser.at(&site.app()).peek("/get/a").await.body;
        if value != "none" {
            faults.push(format!("{format}: {value}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Another layer has a longer idle timeout. The absolute timeout bounds the expiry, so a touch changes
/// only the time of the last request.
#[tokio::test]
async fn a_session_that_outlived_its_layer_stays_if_another_layer_has_touched_it_meanwhile() {
    let (site, store, browser) = site_of("own", Duration::from_secs(30)).await;
    let hour = Duration::from_secs(3600);
    let layer = PgSessionLayer::new(store).absolute_timeout(hour);
    let long = layer.clone().touch_interval(Duration::ZERO);
    let mut visitor = browser.at(&app(long));
    assert_eq!(visitor.get("/insert/b/2").await.status, 200);
    let sql = "UPDATE session SET last_seen = last_seen - interval '20 minutes'";
    execute(&site.pool, sql).await;
    let short = layer.idle_timeout(hour / 4);
    let act = async |session: Session| {
        assert!(session.is_new());
        session.insert("seen", 1)
    };
    let outlived = late_in(short, &browser, act).await;
    assert_eq!(visitor.get("/keys").await.status, 200);
    assert_eq!(outlived.finish().await.status, 200);
    visitor.peek("/get/b").await.assert(200, "\"2\"");
}

/// The handler discards the destroy that failed.
#[tokio::test]
async fn a_destroy_that_was_discarded_deletes_no_session_that_outlived_its_layer() {
    let (site, store, browser) = site_of("own", Duration::from_secs(30)).await;
    let sql = "UPDATE session SET created = created - interval '2 hours'";
    execute(&site.pool, sql).await;
    let sql = "
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'refused'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON session FOR EACH ROW EXECUTE FUNCTION refuse()";
    execute(&site.pool, sql).await;
    let layer = PgSessionLayer::new(store).absolute_timeout(Duration::from_secs(3600));
    let pool = site.pool.clone();
    let page = app_with(layer, async move |session: Session| {
        session.destroy()?;
        assert!(session.save().await.is_err());
        execute(&pool, "DROP TRIGGER refuse ON session").await;
        session.discard()
    });
    assert_eq!(browser.at(&page).peek("/page").await.status, 200);
    browser
        .at(&site.app())
        .peek("/get/a")
        .await
        .assert(200, "\"1\"");
}

/// Both have loaded the session before its absolute timeout passed.
#[tokio::test]
async fn a_logout_beside_a_request_that_deletes_the_outlived_session_is_a_success() {
    let mut faults = Vec::new();
    for format in ["own", "express"] {
        let (site, store, browser) = site_of(format, Duration::from_secs(30)).await;
        let layer = PgSessionLayer::new(store).absolute_timeout(Duration::from_secs(3600));
        let logout = async |session: Session| session.logout();
        let logout = late_in(layer.clone(), &browser, logout).await;
        let sql = "UPDATE session SET created = created - interval '2 hours'";
        execute(&site.pool, sql).await;
        let insert = async |session: Session| session.insert("seen", 1);
        let insert = late_in(layer, &browser, insert).await;
        assert_eq!(insert.finish().await.status, 200, "{format}");
        let status = logout.finish().await.status;
        if status != 200 {
            faults.push(format!("{format}: the logout is a {status}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The login is committed, and this process has not received that yet. The request that signs out
/// loaded the session under the id before.
#[tokio::test]
async fn the_undo_of_a_login_revives_no_session_that_an_earlier_id_destroyed_meanwhile() {
    let site = Site::of_guarded_express().await;
    let proxy = Proxy::before(site.database.url()).await;
    let store = PgSessionStore::new(proxy.pool().await)
        .express(Express::new([SECRET]))
        .tombstones(true);
    site.express_writes(SID, &stored(CART)).await;
    let layer = PgSessionLayer::new(store);
    let mut browser = browser_of_express(&app(layer.clone()));
    let logout = async |session: Session| session.logout();
    let logout = late_in(layer.clone(), &browser, logout).await;
    assert_eq!(browser.get("/cycle").await.status, 200);
    let sids = async || texts(&site.pool, "SELECT sid FROM session").await;
    let before = sids().await;
    proxy.withhold_responses_of(Some("COMMIT"));
    let login = browser.at(&app_with(layer, async |session: Session| {
        session.login(Login::new("ada").discard_data())
    }));
    let login = tokio::spawn(async move { login.peek("/page").await });
    until(async || sids().await != before).await;
    let after = sids().await;
    login.abort();
    assert!(login.await.is_err());
    // The response of that commit is still withheld, and no other one.
    proxy.withhold_responses_of(Some("no statement"));
    let status = logout.finish().await.status;
    proxy.withhold_responses_of(None);
    until(async || sids().await != after).await;
    let left = sids().await;
    assert!(
        status == 503 || left.is_empty(),
        "the logout is a {status}, and {left:?} lives"
    );
}

/// There are no tombstones, so Express revives the former id. A second fate of that id must not hide
/// the first one, which the request that signs out means.
#[tokio::test]
async fn a_logout_ends_the_session_that_moved_although_its_revived_id_moved_or_ended_since() {
    let mut faults = Vec::new();
    for format in ["express", "koa"] {
        for then in ["nothing", "cycle", "login", "destroy", "refused", "fails"] {
            let site = match format {
                "express" => Site::of_migrated_express().await,
                _ => koa_site().await,
            };
            let revive = async || match format {
                "express" => site.express_writes(SID, &stored(r#""count":2"#)).await,
                _ => drop(site.visitor_of_koa().await),
            };
            revive().await;
            let mut browser = match format {
                "express" => browser_of_express(&site.app()),
                _ => site.visitor_of_koa().await,
            };
            let logout = site
                .late(&browser, async |session: Session| session.logout())
                .await;
            let mut former = browser.clone();
            assert_eq!(browser.get("/cycle").await.status, 200);
            revive().await;
            match then {
                "cycle" => assert_eq!(former.get("/cycle").await.status, 200),
                "login" => site.sign_in(&mut former, "ada").await,
                "destroy" => assert_eq!(former.get("/destroy").await.status, 200),
                "refused" => {
                    let layer = site.layer().valid_if(async |_, _| false);
                    assert_eq!(former.at(&app(layer)).peek("/keys").await.status, 200);
                }
                "fails" => {
                    let trigger = "
                        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                        AS $$ BEGIN RAISE 'refused by the test'; END $$;
                        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON session
                        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()";
                    execute(&site.pool, trigger).await;
                    assert_ne!(former.get("/cycle").await.status, 200);
                    execute(&site.pool, "DROP TRIGGER refuse ON session").await;
                }
                _ => {}
            }
            let status = logout.finish().await.status;
            let value = browser.peek("/get/count").await.body;
            if status == 200 && value != "none" {
                faults.push(format!(
                    "{format}, {then}: the logout is a {status}, {value}"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
