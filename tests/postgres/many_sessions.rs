//! A user with very many sessions, such as one whose script signs in for every run.

use std::{num::NonZeroU32, time::Duration};

use axum_pg_session::{
    ErrorKind, Login, PgSessionLayer, PgSessionStore, Reaper, Session, SessionLimitPolicy,
    UserSessions,
};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    Browser, Site, execute,
    page::{app_with, login_page, patiently, until},
};

const FIVE: NonZeroU32 = NonZeroU32::new(5).expect("not zero");

/// The user's sessions, signed in one after the other, the last one a second ago.
async fn with_sessions(number: u32) -> Site {
    let site = Site::new().await;
    let sql = format!(
        "INSERT INTO session (id, expiry, session, user_id, created)
         SELECT 'row ' || lpad(n::text, 7, '0'), now() + interval '1 day', '{{}}', 'alice',
                now() - n * interval '1 second'
         FROM generate_series(1, {number}) AS n;
         INSERT INTO session (id, expiry, session, user_id)
         VALUES ('other', now() + interval '1 day', '{{}}', 'bob')"
    );
    execute(&site.pool, &sql).await;
    execute(&site.pool, "ANALYZE session").await;
    site
}

async fn log_in(store: &PgSessionStore) -> Browser {
    let app = login_page(store);
    let mut browser = Browser::new(&app);
    let response = browser.get("/page").await;
    assert_eq!(response.status, 200, "{:?}", response.error);
    browser
}

async fn count(site: &Site) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM session WHERE user_id = 'alice'")
        .fetch_one(&site.pool)
        .await
        .expect("a count")
}

/// How many sessions the users of these tests have.
fn many() -> u32 {
    std::env::var("MANY_SESSIONS").map_or(30_000, |number| number.parse().expect("a number"))
}

#[tokio::test]
async fn a_login_of_a_user_with_very_many_sessions_ends_a_bounded_number() {
    let site = with_sessions(many()).await;
    // Rows that are ended one by one afterwards wait for this lock.
    let mut lock = site.pool.begin().await.expect("a transaction");
    let last = format!(
        "SELECT FROM session WHERE id > 'row {:07}' FOR UPDATE",
        many() / 2
    );
    sqlx::query(AssertSqlSafe(last))
        .execute(&mut *lock)
        .await
        .expect("a lock");
    let store = site.limited(FIVE, SessionLimitPolicy::EndOldest);
    let started = Instant::now();
    let browser = log_in(&store).await;
    println!(
        "a login beside {} sessions took {:?}",
        many(),
        started.elapsed()
    );
    lock.rollback().await.expect("a rollback");
    let started = Instant::now();
    until(async || count(&site).await == 5).await;
    println!("the others had ended {:?} later", started.elapsed());
    assert_eq!(browser.peek("/is_new").await.body, "false");
    let kept = "SELECT id FROM session WHERE user_id = 'alice' AND id LIKE 'row %' ORDER BY id";
    let kept = crate::support::texts(&site.pool, kept).await;
    assert_eq!(
        kept,
        ["row 0000001", "row 0000002", "row 0000003", "row 0000004"]
    );
    assert_eq!(site.sessions_of("bob").await, 1);
}

#[tokio::test]
async fn a_login_of_a_user_with_very_many_sessions_is_refused_at_once() {
    let site = with_sessions(many()).await;
    let store = site.limited(FIVE, SessionLimitPolicy::Refuse);
    let app = login_page(&store);
    let started = Instant::now();
    assert_eq!(Browser::new(&app).get("/page").await.status, 403);
    println!(
        "a refusal beside {} sessions took {:?}",
        many(),
        started.elapsed()
    );
}

#[tokio::test]
async fn very_many_sessions_of_a_user_end_in_batches() {
    let site = with_sessions(many()).await;
    let this = log_in(&site.store).await;
    let id = this.handle().await;
    let alice = site.store.user("alice");
    let ended = alice.destroy_others(&id).await.expect("an end");
    assert_eq!(ended, u64::from(many()));
    assert_eq!(count(&site).await, 1);
    assert_eq!(alice.destroy_all().await.expect("an end"), 1);
    assert_eq!(site.sessions_of("bob").await, 1);
}

/// They find the same batches, and each batch is deleted by one of them.
#[tokio::test]
async fn calls_at_once_that_end_the_same_sessions_all_succeed() {
    for (first, second) in [
        ("user", "user"),
        ("user", "in"),
        ("user", "login"),
        ("external", "external"),
        ("external", "user"),
        ("everyone", "everyone"),
        ("everyone", "login"),
        ("everyone", "in"),
    ] {
        let site = with_sessions(4000).await;
        let sid = "UPDATE session SET external_id = 'sid' WHERE user_id = 'alice'";
        execute(&site.pool, sid).await;
        let mut calls = JoinSet::new();
        for call in [first, second, first, second] {
            let store = site.elsewhere().await;
            let pool = site.pool.clone();
            calls.spawn(async move { (call, end_by(call, store, &pool).await) });
        }
        for (call, outcome) in calls.join_all().await {
            assert_eq!(outcome, Ok(()), "{call}, beside {first} and {second}");
        }
    }
}

async fn end_by(call: &str, store: PgSessionStore, pool: &PgPool) -> Result<(), String> {
    let alice = store.user("alice");
    let ended = match call {
        "user" => alice.destroy_all().await,
        "in" => return in_a_transaction(&alice, pool).await,
        "external" => store.external("sid").destroy_all().await,
        "everyone" => store.destroy_everyone().await,
        _ => {
            let page = async |session: Session| session.login(Login::new("alice").end_others());
            let app = app_with(PgSessionLayer::new(store), page);
            let status = Browser::new(&app).get("/page").await.status;
            return (status == 200).then_some(()).ok_or(status.to_string());
        }
    };
    ended.map(drop).map_err(|error| error.to_string())
}

/// It has the server's default level, and is repeated under a strict one, as the
/// documentation asks.
async fn in_a_transaction(user: &UserSessions, pool: &PgPool) -> Result<(), String> {
    loop {
        let mut transaction = pool.begin().await.expect("a transaction");
        let level: String = sqlx::query_scalar("SELECT current_setting('transaction_isolation')")
            .fetch_one(&mut *transaction)
            .await
            .expect("a level");
        let strict = level != "read committed";
        if let Err(error) = user.destroy_all_in(&mut transaction).await {
            if strict && error.kind() == ErrorKind::Conflict {
                continue;
            }
            return Err(error.to_string());
        }
        match transaction.commit().await {
            Err(sqlx::Error::Database(error))
                if strict && error.code().as_deref() == Some("40001") => {}
            outcome => return outcome.map_err(|error| error.to_string()),
        }
    }
}

/// A row that is locked by another transaction is waited for by its own batch
/// only; what the batches before it ended stays ended.
#[tokio::test]
async fn sessions_of_a_user_that_were_ended_stay_ended_when_a_later_batch_fails() {
    let site = with_sessions(5000).await;
    let lock = site.lock_row("row 0004999").await;
    let store = site.store.clone().timeout(Duration::from_secs(1));
    store
        .user("alice")
        .destroy_all()
        .await
        .expect_err("a locked row");
    lock.rollback().await.expect("a rollback");
    site.idle().await;
    assert!(count(&site).await <= 4000);
}

#[tokio::test]
async fn a_list_goes_on_behind_a_position() {
    let site = with_sessions(2500).await;
    // Two that began at one moment, and some without the time of their beginning.
    execute(
        &site.pool,
        "UPDATE session SET created = now() WHERE id IN ('row 0000001', 'row 0000002');
         UPDATE session SET created = NULL WHERE id > 'row 0002400' AND user_id = 'alice'",
    )
    .await;
    let alice = site.store.user("alice");
    assert_eq!(alice.list().await.expect("a list").len(), 1000);
    for limit in [1, 7, 1000, 5000] {
        let limit = NonZeroU32::new(limit).expect("not zero");
        let mut page = alice.list().limit(limit).await.expect("a page");
        let mut seen = page.clone();
        while let Some(last) = page.last() {
            if limit.get() == 1 && seen.len() == 20 {
                break;
            }
            // A session that has ended is a position too.
            let position = last.position();
            page = alice
                .list()
                .limit(limit)
                .after(position)
                .await
                .expect("a page");
            seen.extend(page.clone());
        }
        let created: Vec<_> = seen
            .iter()
            .map(axum_pg_session::UserSession::created)
            .collect();
        let ordered = created
            .windows(2)
            .all(|two| two[0] >= two[1] || two[0].is_some() && two[1].is_none());
        assert!(ordered, "the last sign-in first");
        let mut ids: Vec<_> = seen.iter().map(|session| session.id().clone()).collect();
        ids.sort();
        ids.dedup();
        let expected = if limit.get() == 1 { 20 } else { 2500 };
        assert_eq!((ids.len(), seen.len()), (expected, expected));
    }
}

/// Handles of these rows are none, but those of sessions that began here are.
#[tokio::test]
async fn a_position_stays_valid_as_text_and_when_its_session_ends() {
    let site = Site::new().await;
    for _ in 0..5 {
        log_in(&site.store).await;
        site.rows().age_creation(60.0).await;
    }
    let alice = site.store.user("alice");
    let all = alice.list().await.expect("a list");
    let text = all[1].position().to_string();
    assert!(alice.destroy(all[1].id()).await.expect("an end"));
    let rest = alice
        .list()
        .after(text.parse().expect("a position"))
        .await
        .expect("a list");
    let ids = |sessions: &[axum_pg_session::UserSession]| -> Vec<_> {
        sessions
            .iter()
            .map(|session| session.id().clone())
            .collect()
    };
    assert_eq!(ids(&rest), ids(&all[2..]));
}

#[tokio::test]
async fn a_list_goes_on_in_the_format_of_koa_too() {
    let site = Site::new().await;
    let store = site.store.clone().koa(axum_pg_session::Koa::new(["key"]));
    for _ in 0..5 {
        log_in(&store).await;
    }
    let alice = store.user("alice");
    let all = alice.list().await.expect("a list");
    let two = NonZeroU32::new(2).expect("not zero");
    let mut seen: Vec<axum_pg_session::UserSession> = Vec::new();
    loop {
        let mut page = alice.list().limit(two);
        if let Some(last) = seen.last() {
            page = page.after(last.position().to_string().parse().expect("a position"));
        }
        let page = page.await.expect("a page");
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    let ids = |sessions: &[axum_pg_session::UserSession]| -> Vec<_> {
        sessions
            .iter()
            .map(|session| session.id().clone())
            .collect()
    };
    assert_eq!(ids(&seen), ids(&all));
}

/// The login fails for a locked row, and what was ended by then is less to do for
/// the next one.
#[tokio::test]
async fn a_login_ends_very_many_others_in_batches_of_their_own() {
    let site = with_sessions(5000).await;
    let lock = site.lock_row("row 0004999").await;
    let store = site.store.clone().timeout(Duration::from_secs(2));
    let page = async |session: Session| session.login(Login::new("alice").end_others());
    let app = app_with(PgSessionLayer::new(store), page);
    assert_eq!(Browser::new(&app).get("/page").await.status, 503);
    site.idle().await;
    assert!(count(&site).await <= 4000, "nothing was ended");
    lock.rollback().await.expect("a rollback");
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.status, 200);
    assert_eq!(count(&site).await, 1);
}

/// One can't be deleted, so the others are ended around it.
#[tokio::test]
async fn no_statement_ends_more_than_a_batch_around_a_row_that_can_not_be_deleted() {
    let site = with_sessions(20_000).await;
    site.order("VALUES ('row 0000007')").await;
    execute(
        &site.pool,
        "CREATE TABLE deleted (rows bigint);
         CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql
         AS $$ BEGIN INSERT INTO deleted SELECT count(*) FROM old; RETURN NULL; END $$;
         CREATE TRIGGER counts AFTER DELETE ON session REFERENCING OLD TABLE AS old
         FOR EACH STATEMENT EXECUTE FUNCTION counts()",
    )
    .await;
    let alice = site.store.user("alice");
    alice.destroy_all().await.expect_err("a row is left");
    assert_eq!(alice.count().await.expect("a count"), 1);
    let most: i64 = sqlx::query_scalar("SELECT max(rows) FROM deleted")
        .fetch_one(&site.pool)
        .await
        .expect("a count");
    assert!(most <= 1000, "{most} rows in one statement");
}

/// As if another table referenced each row without an index on its column.
#[tokio::test]
async fn sessions_whose_rows_take_long_to_delete_end_in_spite_of_the_timeout() {
    for call in ["user", "external", "everyone", "reaper", "login", "limit"] {
        let site = with_sessions(130).await;
        execute(
            &site.pool,
            "UPDATE session SET external_id = 'sid' WHERE user_id = 'alice';
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN OLD; END $$;
             CREATE TRIGGER slow BEFORE DELETE ON session FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
        let store = site.elsewhere().await.timeout(Duration::from_secs(1));
        let others_end = async |session: Session| session.login(Login::new("alice").end_others());
        match call {
            "user" => assert_eq!(store.user("alice").destroy_all().await.expect(call), 130),
            "external" => assert_eq!(store.external("sid").destroy_all().await.expect(call), 130),
            "everyone" => assert_eq!(store.destroy_everyone().await.expect(call), 131),
            "reaper" => {
                site.rows().age(100_000.0).await;
                let reaped = Reaper::new(store).run_once().await.expect(call);
                assert_eq!(reaped.deleted, 131);
            }
            "login" => {
                // Each attempt leaves fewer for the next.
                let app = app_with(PgSessionLayer::new(store), others_end);
                let mut statuses = Vec::new();
                while statuses.last() != Some(&200) && statuses.len() < 10 {
                    statuses.push(Browser::new(&app).get("/page").await.status.as_u16());
                }
                assert_eq!(statuses.last(), Some(&200), "{statuses:?}");
                assert_eq!(count(&site).await, 1);
            }
            _ => {
                let limit = SessionLimitPolicy::EndOldest;
                log_in(&store.max_sessions_per_user(FIVE, limit)).await;
                patiently(until(async || count(&site).await == 5)).await;
            }
        }
    }
}
