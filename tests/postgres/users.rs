//! The sessions of a user: listed, counted, and destroyed by other processes.

use std::time::Duration;

use axum::Router;
use axum_pg_session::{
    Device, Error, ErrorKind, Expiry, Login, PgSessionLayer, PgSessionStore, Session, SessionId,
};
use sqlx::AssertSqlSafe;
use time::OffsetDateTime;

use crate::support::{
    Browser, Site, app, execute,
    express::site_of,
    page::{InFlight, PATIENCE, app_with, until},
    texts, visit,
};

/// The documentation recommends `end_others` for this.
#[tokio::test]
async fn after_destroy_all_a_login_in_the_same_handler_fails() {
    let site = Site::new().await;
    let alice = site.signed_in("alice").await;
    let store = site.store.clone();
    let page = async move |session: Session| {
        store.user("alice").destroy_all().await?;
        session.login("alice")
    };
    let response = alice.at(&site.app_with(page)).peek("/page").await;
    assert_eq!(response.status, 503);
    assert_eq!(site.sessions_of("alice").await, 0);
}

#[tokio::test]
async fn a_list_shows_each_session_with_its_device_and_times() {
    let site = Site::new().await;
    let device = Device::new()
        .with_user_agent("Browser 1.0")
        .with_address("192.0.2.7");
    let first = site
        .signed_in(Login::new("alice").device(device.clone()))
        .await;
    site.rows()
        .execute("UPDATE TABLE SET created = created - interval '1 hour'")
        .await;
    let second = site.signed_in("alice").await;
    site.signed_in("bob").await;
    site.browser().get("/insert/anonymous/1").await;

    let listed = site.store.user("alice").list().await.expect("a list");
    let handles: Vec<_> = listed.iter().map(|session| session.id().clone()).collect();
    assert_eq!(handles, [second.handle().await, first.handle().await]);
    assert_eq!(listed[1].device(), Some(&device));
    assert_eq!(listed[0].device(), None);
    let now = OffsetDateTime::now_utc();
    let near = |instant: Option<OffsetDateTime>, expected: OffsetDateTime| {
        (instant.expect("known") - expected).abs() < time::Duration::minutes(1)
    };
    assert!(near(listed[0].created(), now));
    assert!(near(listed[1].created(), now - Duration::from_secs(3600)));
    assert!(near(listed[1].last_seen(), now));
    assert!(near(
        listed[1].expires_at(),
        now + Duration::from_secs(86_400)
    ));
    assert_eq!(site.sessions_of("alice").await, 2);
}

/// In a process that only administers, no request repeats the statement before.
#[tokio::test]
async fn a_changed_type_of_the_id_costs_no_call_from_outside_of_requests() {
    let site = Site::new().await;
    let store = PgSessionStore::new(crate::support::site::pool(site.database.url(), 2).await);
    let alice = store.user("alice");
    let list = async |_: &Browser| alice.list().await.map(|list| list.len() as u64);
    let destroy_all = async |_: &Browser| alice.destroy_all().await;
    let destroy_others = async |this: &Browser| alice.destroy_others(&this.handle().await).await;
    let destroy_everyone = async |_: &Browser| store.destroy_everyone().await;
    let alter = async |to: &str| {
        execute(
            &site.pool,
            &format!("ALTER TABLE session ALTER id TYPE {to}"),
        )
        .await;
    };
    macro_rules! survives {
        ($call:ident, $sessions:literal) => {
            store.destroy_everyone().await.expect("an end");
            for change in [None, Some("character varying"), Some("text")] {
                site.signed_in("alice").await;
                let this = site.signed_in("alice").await;
                if let Some(to) = change {
                    alter(to).await;
                }
                let sessions = $call(&this).await;
                assert_eq!(sessions.expect(stringify!($call)), $sessions);
                store.destroy_everyone().await.expect("an end");
            }
        };
    }
    survives!(list, 2);
    survives!(destroy_all, 2);
    survives!(destroy_others, 1);
    survives!(destroy_everyone, 2);
}

#[tokio::test]
async fn an_expired_session_is_neither_listed_nor_counted() {
    let site = Site::new().await;
    site.signed_in("alice").await;
    site.rows().age(86_500.0).await;
    site.signed_in("alice").await;
    let alice = site.store.user("alice");
    assert_eq!(alice.list().await.expect("a list").len(), 1);
    assert_eq!(alice.count().await.expect("a count"), 1);
    assert_eq!(alice.destroy_all().await.expect("an end"), 1);
}

#[tokio::test]
async fn a_listed_handle_opens_nothing() {
    let site = Site::new().await;
    site.signed_in("alice").await;
    for session in site.store.user("alice").list().await.expect("a list") {
        let thief = site
            .browser()
            .with_cookie("__Host-id", session.id().as_str());
        assert_eq!(site.user(&thief).await, "");
    }
}

#[tokio::test]
async fn a_handle_of_another_user_is_refused() {
    let site = Site::new().await;
    let alice = site.signed_in("alice").await;
    let anonymous = site.visitor().await;
    let bob = site.store.user("bob");
    for browser in [&alice, &anonymous] {
        assert!(!bob.destroy(&browser.handle().await).await.expect("no end"));
        let refused = bob.destroy_others(&browser.handle().await).await;
        let refused = refused.expect_err("not his");
        assert_eq!(refused.kind(), ErrorKind::Ended);
        assert!(
            refused.to_string().contains("no live session of this user"),
            "{refused}"
        );
    }
    let ended = alice.handle().await;
    alice.peek("/destroy").await;
    let refused = site.store.user("alice").destroy_others(&ended).await;
    let refused = refused.expect_err("it ended").to_string();
    assert!(
        refused.contains("no live session of this user"),
        "{refused}"
    );
    let alice = site.signed_in("alice").await;
    assert_eq!(site.user(&alice).await, "alice");
    assert_eq!(anonymous.peek("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn a_session_is_ended_by_its_handle_for_every_process_at_once() {
    let site = Site::new().await;
    let browser = site.signed_in("alice").await;
    let other = site.signed_in("alice").await;
    let elsewhere = site.elsewhere().await;
    let id = browser.handle().await;
    assert_eq!(site.user(&browser).await, "alice");
    assert!(elsewhere.user("alice").destroy(&id).await.expect("an end"));
    assert_eq!(site.user(&browser).await, "");
    assert_eq!(site.user(&other).await, "alice");
    assert!(
        !elsewhere.user("alice").destroy(&id).await.expect("no end"),
        "twice"
    );
}

#[tokio::test]
async fn a_handle_from_before_a_new_id_still_ends_the_session() {
    let site = Site::new().await;
    let mut browser = site.signed_in("alice").await;
    let listed = browser.handle().await;
    browser.get("/cycle").await;
    browser.get("/cycle").await;
    assert!(
        !site
            .store
            .user("bob")
            .destroy(&listed)
            .await
            .expect("no end")
    );
    assert!(
        site.store
            .user("alice")
            .destroy(&listed)
            .await
            .expect("an end")
    );
    assert_eq!(site.user(&browser).await, "");
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn destroying_all_of_a_user_spares_other_users() {
    let site = Site::new().await;
    let browsers = [site.signed_in("alice").await, site.signed_in("alice").await];
    let bob = site.signed_in("bob").await;
    let ended = site.elsewhere().await.user("alice").destroy_all().await;
    assert_eq!(ended.expect("an end"), 2);
    for browser in &browsers {
        assert_eq!(site.user(browser).await, "");
    }
    assert_eq!(site.user(&bob).await, "bob");
}

#[tokio::test]
async fn ending_the_others_keeps_this_one() {
    let site = Site::new().await;
    let mut this = site.signed_in("alice").await;
    site.signed_in("alice").await;
    site.signed_in("alice").await;
    let bob = site.signed_in("bob").await;
    let before = this.handle().await;
    this.get("/cycle").await;
    // As in a page that was open before the id changed.
    let ended = site.store.user("alice").destroy_others(&before).await;
    assert_eq!(ended.expect("an end"), 2);
    assert_eq!(site.user(&this).await, "alice");
    assert_eq!(site.user(&bob).await, "bob");
    assert_eq!(site.sessions_of("alice").await, 1);
}

#[tokio::test]
async fn a_session_that_ended_ends_no_others() {
    let site = Site::new().await;
    let mut this = site.signed_in("alice").await;
    let other = site.signed_in("alice").await;
    let id = this.handle().await;
    this.get("/destroy").await;
    let refused = site.store.user("alice").destroy_others(&id).await;
    assert_eq!(refused.expect_err("ended").kind(), ErrorKind::Ended);
    assert_eq!(site.user(&other).await, "alice");
}

#[tokio::test]
async fn ending_everyone_leaves_no_live_session() {
    let site = Site::new().await;
    let mut alice = site.signed_in("alice").await;
    alice.get("/cycle").await;
    let anonymous = site.visitor().await;
    execute(
        &site.pool,
        "INSERT INTO session (id, expiry, session) SELECT 'row ' || n, now() + interval '1 day', '{}'
         FROM generate_series(1, 2345) AS n;
         INSERT INTO session (id, expiry, session) VALUES ('dead', now() - interval '1 day', '{}')",
    )
    .await;
    let ended = site.elsewhere().await.destroy_everyone().await;
    assert_eq!(ended.expect("an end"), 2347, "a forwarding is no session");
    assert_eq!(site.user(&alice).await, "");
    assert_eq!(anonymous.peek("/get/a").await.body, "none");
    assert_eq!(site.store.destroy_everyone().await.expect("an end"), 0);
}

/// It ends last, when it is free; until then it costs an error.
#[tokio::test]
async fn a_row_that_is_locked_keeps_no_other_session_alive_when_everyone_is_ended() {
    let site = Site::new().await;
    let rows = "INSERT INTO session (id, expiry, session)
                SELECT 'row ' || n, now() + interval '1 day', '{}' FROM generate_series(1, 1500) AS n";
    execute(&site.pool, rows).await;
    let lock = site.lock_row("row 77").await;
    let store = site.elsewhere().await.timeout(Duration::from_secs(2));
    let error = store.destroy_everyone().await.expect_err("a locked row");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        texts(&site.pool, "SELECT id FROM session").await,
        ["row 77"]
    );
    // What was given up is canceled.
    until(async || !site.is_blocked().await).await;
    lock.rollback().await.expect("a rollback");
    assert_eq!(store.destroy_everyone().await.expect("an end"), 1);
}

#[tokio::test]
async fn a_row_that_is_locked_keeps_no_other_session_of_its_user_alive() {
    let site = Site::new().await;
    let rows = "INSERT INTO session (id, expiry, session, user_id)
                SELECT 'row ' || n, now() + interval '1 day', '{}', 'ada'
                FROM generate_series(1, 1500) AS n";
    execute(&site.pool, rows).await;
    let lock = site.lock_row("row 77").await;
    let store = site.elsewhere().await.timeout(Duration::from_secs(2));
    let ada = store.user("ada");
    let listed = ada.list().await.expect("a list");
    let this = listed[0].id().clone();
    let error = ada.destroy_others(&this).await.expect_err("a locked row");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(ada.count().await.expect("a number"), 2);
    let error = ada.destroy_all().await.expect_err("a locked row");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        texts(&site.pool, "SELECT id FROM session").await,
        ["row 77"]
    );
    until(async || !site.is_blocked().await).await;
    lock.rollback().await.expect("a rollback");
    assert_eq!(ada.destroy_all().await.expect("an end"), 1);
}

/// Tables without the time at which a session began.
const WITHOUT_BEGINNINGS: [&str; 2] = [
    "CREATE TABLE session (id text PRIMARY KEY, expiry timestamp NOT NULL, session json)",
    "CREATE TABLE session (id text PRIMARY KEY, expiry timestamptz NOT NULL, session json,
         created timestamptz DEFAULT now());
     CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql
     AS $$ BEGIN NEW.created = NULL; RETURN NEW; END $$;
     CREATE TRIGGER forget BEFORE INSERT ON session FOR EACH ROW EXECUTE FUNCTION forget()",
];

#[tokio::test]
async fn ending_everyone_spares_sessions_that_begin_meanwhile_on_a_table_without_beginnings() {
    for table in WITHOUT_BEGINNINGS {
        let site = Site::with_table(table).await;
        let before = site.visitor().await;
        let lock = site.lock_rows().await;
        let elsewhere = site.elsewhere().await.timeout(PATIENCE);
        let ending = tokio::spawn(async move { elsewhere.destroy_everyone().await });
        site.blocked(1).await;
        // Before and after the others by its id.
        let mut begun = Vec::new();
        for _ in 0..10 {
            let browser = site.visitor().await;
            begun.push(browser);
        }
        lock.commit().await.expect("a lock released");
        assert_eq!(ending.await.expect("no panic").expect("an end"), 1);
        assert_eq!(before.peek("/get/a").await.body, "none");
        for browser in &begun {
            assert_eq!(browser.peek("/get/a").await.body, "\"1\"");
        }
    }
}

#[tokio::test]
async fn ending_everyone_ends_a_session_that_gets_a_new_id_meanwhile_on_a_table_without_beginnings()
{
    for table in WITHOUT_BEGINNINGS {
        let site = Site::with_table(table).await;
        let browser = site.visitor().await;
        let lock = site.lock_rows().await;
        let elsewhere = site.elsewhere().await.timeout(PATIENCE);
        let mut cycling = browser.clone();
        let cycle = tokio::spawn(async move {
            cycling.get("/cycle").await;
            cycling
        });
        site.blocked(1).await;
        let ending = tokio::spawn(async move { elsewhere.destroy_everyone().await });
        site.blocked(2).await;
        lock.commit().await.expect("a lock released");
        let cycled = cycle.await.expect("no panic");
        assert_eq!(ending.await.expect("no panic").expect("an end"), 1);
        assert_eq!(cycled.peek("/get/a").await.body, "none");
        assert_eq!(site.rows().count().await, 0);
    }
}

#[tokio::test]
async fn ending_an_expired_session_among_others_reports_each_as_it_was() {
    let site = Site::new().await;
    let mut handles = Vec::new();
    for _ in 0..20 {
        let browser = site.visitor().await;
        handles.push(browser.handle().await);
    }
    for expired in &handles[..10] {
        let expire =
            format!("UPDATE session SET expiry = now() - interval '1 hour' WHERE id = '{expired}'");
        execute(&site.pool, &expire).await;
    }
    let ends: Vec<_> = handles
        .iter()
        .map(|id| {
            let (store, id) = (site.store.clone(), id.clone());
            tokio::spawn(async move { store.destroy(&id).await })
        })
        .collect();
    for (number, end) in ends.into_iter().enumerate() {
        let ended = end.await.expect("no panic").expect("an end");
        assert_eq!(ended, number >= 10, "{number}");
    }
}

/// A request that loads its session, and does this when it goes on.
async fn begin(site: &Site, browser: &Browser, act: Act) -> InFlight {
    let layer = PgSessionLayer::new(site.store.clone().timeout(PATIENCE));
    let layer = layer.touch_interval(Duration::ZERO);
    InFlight::begin(browser, "/page", |gate| {
        app_with(layer, async move |session: Session| {
            gate.pass().await;
            act(&session)
        })
    })
    .await
}

type Act = fn(&Session) -> Result<(), Error>;

const ACTS: [(&str, Act); 5] = [
    ("save", |session| session.insert("late", true)),
    ("touch", Session::touch),
    ("cycle", Session::cycle_id),
    ("login", |session| session.login("alice")),
    ("login of another", |session| session.login("bob")),
];

/// Every way to end a session from elsewhere, and the number that it ends.
async fn end(how: &str, store: &PgSessionStore, id: &SessionId) -> u64 {
    let alice = store.user("alice");
    match how {
        "one" => alice.destroy(id).await.map(u64::from),
        "all" => alice.destroy_all().await,
        "everyone" => store.destroy_everyone().await,
        other => panic!("no way {other}"),
    }
    .expect("an end")
}

#[tokio::test]
async fn no_request_in_flight_revives_a_session_that_was_ended_elsewhere() {
    for how in ["one", "all", "everyone"] {
        for (what, act) in ACTS {
            let site = Site::new().await;
            let browser = site.signed_in("alice").await;
            let late = begin(&site, &browser, act).await;
            let id = browser.handle().await;
            assert_eq!(
                end(how, &site.elsewhere().await, &id).await,
                1,
                "{how}, {what}"
            );
            let response = late.finish().await;
            // A touch that comes too late is no failure of its request.
            let status = if what == "touch" { 200 } else { 503 };
            assert_eq!(response.status, status, "{how}, {what}");
            assert!(response.sets_no_cookie(), "{how}, {what}");
            assert_eq!(site.rows().count().await, 0, "{how}, {what}");
        }
    }
}

/// The new id is committed while the end waits for the row, so that the
/// statement that ends the session has not seen it.
#[tokio::test]
async fn a_new_id_is_no_escape_from_the_end() {
    for how in ["one", "all", "everyone"] {
        for (what, act) in [ACTS[2], ACTS[3]] {
            let site = Site::new().await;
            let browser = site.signed_in("alice").await;
            let id = browser.handle().await;
            let late = begin(&site, &browser, act).await;
            let held = site.hold_commits().await;
            late.go_on();
            site.blocked(1).await;
            let elsewhere = site.elsewhere().await;
            let ending = tokio::spawn(async move { end(how, &elsewhere, &id).await });
            site.blocked(2).await;
            held.commit().await.expect("no changes");
            let response = late.response().await;
            assert_eq!(response.status, 200, "{how}, {what}");
            let ended = ending.await.expect("no panic");
            let mut visitor = browser.clone();
            visitor.accept(&response);
            // A login that begins after everyone was to end is another one.
            if (how, what) != ("everyone", "login") {
                assert_eq!(ended, 1, "{how}, {what}");
                assert_eq!(site.user(&visitor).await, "", "{how}, {what}");
            }
        }
    }
}

/// The session that stays gets a new id while the others end.
#[tokio::test]
async fn a_new_id_does_not_make_this_session_one_of_the_others() {
    let site = Site::new().await;
    let this = site.signed_in("alice").await;
    let other = site.signed_in("alice").await;
    let id = this.handle().await;
    let late = begin(&site, &this, Session::cycle_id).await;
    let lock = site.lock_row(&other.handle().await).await;
    let alice = site.elsewhere().await.user("alice");
    let ending = tokio::spawn(async move { alice.destroy_others(&id).await });
    site.blocked(1).await;
    late.go_on();
    until(async || late.response.is_finished() || site.is_blocked_twice().await).await;
    lock.commit().await.expect("no changes");
    let response = late.response().await;
    assert_eq!(ending.await.expect("no panic").expect("an end"), 1);
    let mut visitor = this.clone();
    visitor.accept(&response);
    assert_eq!(site.user(&visitor).await, "alice");
    assert_eq!(site.user(&other).await, "");
}

async fn seconds_unseen(site: &Site) -> f64 {
    let listed = site.store.user("alice").list().await.expect("a list");
    let seen = listed[0].last_seen().expect("the column");
    (OffsetDateTime::now_utc() - seen).as_seconds_f64()
}

async fn age_all(site: &Site, interval: &str) {
    let sql = format!(
        "UPDATE session SET expiry = expiry - interval '{interval}',
         created = created - interval '{interval}', last_seen = last_seen - interval '{interval}'"
    );
    execute(&site.pool, &sql).await;
}

#[tokio::test]
async fn last_seen_is_as_precise_as_the_touch() {
    let site = Site::new().await;
    let mut browser = site.signed_in("alice").await;
    age_all(&site, "1 hour").await;
    browser.get("/get/a").await;
    assert!(
        (seconds_unseen(&site).await - 3600.0).abs() < 5.0,
        "not due"
    );
    age_all(&site, "1 hour").await;
    browser.get("/get/a").await;
    assert!(seconds_unseen(&site).await < 5.0, "due");
    age_all(&site, "2 hours").await;
    browser.get("/insert/a/1").await;
    assert!(seconds_unseen(&site).await < 5.0, "due with a save");
    age_all(&site, "2 hours").await;
    browser.get("/cycle").await;
    assert!(seconds_unseen(&site).await < 5.0, "a new id");
}

#[tokio::test]
async fn a_user_is_seen_also_if_the_expiry_moves_no_more() {
    let site = Site::new().await;
    let mut browser = site.signed_in("alice").await;
    let end = "UPDATE session SET created = now() - interval '29.5 days', expiry = now() + interval '12 hours',
               last_seen = now() - interval '2 hours'";
    execute(&site.pool, end).await;
    browser.get("/get/a").await;
    assert!(seconds_unseen(&site).await < 5.0);
    assert!((site.rows().seconds_left().await - 43_200.0).abs() < 5.0);
    let fixed = async |session: Session| {
        session.set_expiry(Expiry::At(
            OffsetDateTime::now_utc() + Duration::from_secs(3600),
        ))
    };
    visit(&site, &mut browser, fixed).await;
    execute(
        &site.pool,
        "UPDATE session SET last_seen = now() - interval '2 hours'",
    )
    .await;
    browser.get("/get/a").await;
    assert!(seconds_unseen(&site).await < 5.0, "with an end of its own");
}

#[tokio::test]
async fn a_poll_does_not_make_a_user_seen() {
    let site = Site::new().await;
    let browser = site.signed_in("alice").await;
    age_all(&site, "2 hours").await;
    let layer = site.layer().touch_if(|_, _| false);
    let mut poll = browser.at(&app(layer));
    poll.get("/get/a").await;
    poll.get("/insert/a/1").await;
    assert!((seconds_unseen(&site).await - 7200.0).abs() < 5.0);
}

#[tokio::test]
async fn a_handler_ends_the_other_sessions_of_its_user() {
    let site = Site::new().await;
    let other = site.signed_in("alice").await;
    let mut this = site.signed_in("alice").await;
    let store = site.store.clone();
    let change_password = async move |session: Session| {
        let (user_id, id) = (session.user_id(), session.id());
        let (user_id, id) = user_id.zip(id).expect("signed in");
        let ended = store.user(&user_id).destroy_others(&id).await?;
        session.login(user_id)?;
        Ok::<_, Error>(ended.to_string())
    };
    let app: Router = app_with(PgSessionLayer::new(site.store.clone()), change_password);
    let mut visitor = this.at(&app);
    assert_eq!(visitor.get("/page").await.body, "1");
    this.jar = visitor.jar;
    assert_eq!(site.user(&this).await, "alice");
    assert_eq!(site.user(&other).await, "");
    until(async || site.sessions_of("alice").await == 1).await;
}

/// A page that signs alice in and ends her other sessions.
fn signs_in_alone(layer: PgSessionLayer) -> Router {
    app_with(layer, async |session: Session| {
        session.login(Login::new("alice").end_others())
    })
}

#[tokio::test]
async fn a_login_that_ends_the_others_is_the_only_session_of_its_user() {
    let site = Site::new().await;
    let app = signs_in_alone(site.layer());
    for who in [
        "a stranger",
        "with a basket",
        "signed in",
        "as another",
        "moved",
    ] {
        let mut this = match who {
            "signed in" | "moved" => site.signed_in("alice").await,
            "as another" => site.signed_in("bob").await,
            _ => site.browser(),
        };
        match who {
            "with a basket" => drop(this.get("/insert/basket/tea").await),
            // Its token is replaced, so that its login begins a session of its own.
            "moved" => drop(this.clone().get("/cycle").await),
            _ => {}
        }
        let other = site.signed_in("alice").await;
        let bob = site.signed_in("bob").await;
        let mut this = this.at(&app);
        assert_eq!(this.get("/page").await.status, 200, "{who}");
        assert_eq!(site.user(&this).await, "alice", "{who}");
        assert_eq!(site.user(&other).await, "", "{who}");
        assert_eq!(site.user(&bob).await, "bob", "{who}");
        assert_eq!(site.sessions_of("alice").await, 1, "{who}");
    }
}

#[tokio::test]
async fn a_later_login_of_the_request_still_ends_the_others() {
    let site = Site::new().await;
    for (first, others_of_bob) in [("alice", "bob"), ("bob", "bob")] {
        let mut this = site.browser();
        let other = site.signed_in("alice").await;
        let bob = site.signed_in("bob").await;
        visit(&site, &mut this, async move |session: Session| {
            session.login(Login::new(first).end_others())?;
            session.login("alice")
        })
        .await;
        assert_eq!(site.user(&this).await, "alice");
        // The login of another user is void, and so is what it was to end.
        let expected = if first == "alice" { "" } else { "alice" };
        assert_eq!(site.user(&other).await, expected, "{first}");
        assert_eq!(site.user(&bob).await, others_of_bob);
        site.store
            .user("alice")
            .destroy_all()
            .await
            .expect("an end");
    }
}

#[tokio::test]
async fn a_login_that_fails_ends_no_other_session() {
    let site = Site::new().await;
    let other = site.signed_in("alice").await;
    let page = async |session: Session| {
        session.login(Login::new("alice").end_others())?;
        Ok::<_, Error>(axum::http::StatusCode::INTERNAL_SERVER_ERROR)
    };
    let response = site.browser().at(&site.app_with(page)).get("/page").await;
    assert_eq!(response.status, 500);
    assert_eq!(site.user(&other).await, "alice");

    // After all statements, by the commit.
    site.refuse_commits().await;
    let app = signs_in_alone(site.layer());
    assert_eq!(site.browser().at(&app).get("/page").await.status, 503);
    assert_eq!(site.user(&other).await, "alice");
}

#[tokio::test]
async fn of_two_logins_that_end_each_other_one_survives() {
    let site = Site::new().await;
    let commits = site.hold_commits().await;
    let mut logins = Vec::new();
    for _ in 0..2 {
        let layer = PgSessionLayer::new(site.elsewhere().await);
        let browser = Browser::new(&signs_in_alone(layer));
        logins.push(tokio::spawn(async move { browser.peek("/page").await }));
    }
    site.blocked(2).await;
    commits.commit().await.expect("no changes");
    for login in logins {
        assert_eq!(login.await.expect("no panic").status, 200);
    }
    assert_eq!(site.sessions_of("alice").await, 1);
}

/// The other session gets its new id while the login waits for the row of the old one.
#[tokio::test]
async fn a_new_id_is_no_escape_from_a_login_that_ends_the_others() {
    // A statement that has waited for long queues again, behind the other one. Then the login
    // comes first, and the race is repeated.
    while !gets_a_new_id_before_a_login_ends_it().await {}
}

async fn gets_a_new_id_before_a_login_ends_it() -> bool {
    let site = Site::new().await;
    let mut other = site.signed_in("alice").await;
    let id = other.handle().await;
    let late = begin(&site, &other, Session::cycle_id).await;
    let lock = site.lock_row(&id).await;
    late.go_on();
    site.blocked(1).await;
    let store = site.elsewhere().await.timeout(PATIENCE);
    let mut this = Browser::new(&signs_in_alone(PgSessionLayer::new(store)));
    let login = tokio::spawn(async move {
        let response = this.get("/page").await;
        (this, response)
    });
    site.blocked(2).await;
    lock.commit().await.expect("no changes");
    let response = late.response().await;
    let (this, login) = login.await.expect("no panic");
    assert_eq!(login.status, 200, "{:?}", login.error);
    other.accept(&response);
    assert_eq!(site.user(&other).await, "");
    assert_eq!(site.user(&this.at(&site.app())).await, "alice");
    assert_eq!(site.sessions_of("alice").await, 1);
    response.status == 200
}

#[tokio::test]
async fn a_login_that_ends_the_others_is_not_refused_at_the_limit() {
    let site = Site::new().await;
    site.signed_in("alice").await;
    let one = std::num::NonZeroU32::MIN;
    let store = site.limited(one, axum_pg_session::SessionLimitPolicy::Refuse);
    let app = signs_in_alone(PgSessionLayer::new(store));
    assert_eq!(Browser::new(&app).get("/page").await.status, 200);
    assert_eq!(site.sessions_of("alice").await, 1);
}

#[tokio::test]
async fn what_is_remembered_of_a_device_is_in_no_debug() {
    let site = Site::new().await;
    let device = Device::new().with_label("secret label");
    site.signed_in(Login::new("alice").device(device)).await;
    let listed = site.store.user("alice").list().await.expect("a list");
    assert!(!format!("{listed:?}").contains("secret"));
    let texts = texts(&site.pool, "SELECT device::text FROM session").await;
    assert_eq!(texts, [r#"{"label":"secret label"}"#]);
}

/// The clock of the database was set back, or a standby with another clock was promoted.
#[tokio::test]
async fn destroy_everyone_destroys_a_session_that_began_in_the_future() {
    for format in ["own", "express"] {
        let (site, store, browser) = site_of(format, Duration::from_secs(5)).await;
        execute(
            &site.pool,
            "UPDATE session SET created = now() + interval '1 hour'",
        )
        .await;
        let ended = store.destroy_everyone().await.expect("an end");
        let value = browser.peek("/get/a").await.body;
        assert_eq!((ended, value.as_str()), (1, "none"), "{format}");
    }
}

/// The clock of the database was set back by less than a second.
#[tokio::test]
async fn destroy_everyone_destroys_a_session_that_began_a_moment_in_the_future() {
    let mut faults = Vec::new();
    for format in ["own", "express"] {
        let (site, store, browser) = site_of(format, Duration::from_secs(30)).await;
        store.check().await.expect("a table");
        let sql = "UPDATE session SET created = now() + interval '0.9 seconds'";
        execute(&site.pool, sql).await;
        let ended = store.destroy_everyone().await.expect("an end");
        let value = browser.peek("/get/a").await.body;
        if (ended, value.as_str()) != (1, "none") {
            faults.push(format!("{format}: {ended} ended, {value}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The statement that reads the ids waits for a lock of the table.
#[tokio::test]
async fn destroy_everyone_leaves_alone_a_session_that_begins_while_it_waits() {
    let mut faults = Vec::new();
    for format in ["own", "express"] {
        let (site, store, _) = site_of(format, Duration::from_secs(30)).await;
        store.check().await.expect("a table");
        let (columns, id) = match format {
            "own" => ("expiry, session", "id"),
            _ => ("expire, sess", "sid"),
        };
        let lock = "LOCK TABLE session IN ACCESS EXCLUSIVE MODE";
        let mut locked = site.open_transaction(lock).await;
        let everyone = tokio::spawn(async move { store.destroy_everyone().await });
        site.blocked(1).await;
        let begins = format!(
            "INSERT INTO session ({id}, {columns}, created)
             SELECT 'new', {columns}, clock_timestamp() FROM session"
        );
        sqlx::query(AssertSqlSafe(begins))
            .execute(&mut *locked)
            .await
            .expect("a session");
        locked.commit().await.expect("a commit");
        let ended = everyone.await.expect("no panic").expect("an end");
        let left = texts(&site.pool, &format!("SELECT {id} FROM session")).await;
        if (ended, &left[..]) != (1, &["new".to_owned()]) {
            faults.push(format!("{format}: {ended} ended, {left:?}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
