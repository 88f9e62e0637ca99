//! The limit of sessions per user.

use std::num::NonZeroU32;

use axum_pg_session::{
    Error, ErrorKind, Login, PgSessionLayer, PgSessionStore, Session, SessionLimitPolicy,
};

use crate::support::{
    Browser, Reply, Site, execute,
    page::{PATIENCE, app_with, login_page, patiently, until},
    site::pool,
};

const FIVE: NonZeroU32 = NonZeroU32::new(5).expect("not zero");

async fn log_in(store: &PgSessionStore) -> Reply {
    Browser::new(&login_page(store)).get("/page").await
}

async fn count(site: &Site) -> u64 {
    site.sessions_of("alice").await
}

/// A store that refuses the next login.
async fn full(site: &Site) -> PgSessionStore {
    let store = site.limited(FIVE, SessionLimitPolicy::Refuse);
    for _ in 0..5 {
        log_in(&store).await;
    }
    store
}

/// Four processes with room for five logins each at the same moment.
async fn processes(site: &Site, at_limit: SessionLimitPolicy) -> Vec<PgSessionStore> {
    let mut stores = Vec::new();
    for _ in 0..4 {
        let store = PgSessionStore::new(pool(site.database.url(), 7).await);
        // One of the six connections is for loads alone.
        let six = FIVE.saturating_add(1);
        stores.push(
            store
                .max_connections(six)
                .max_sessions_per_user(FIVE, at_limit)
                .timeout(PATIENCE),
        );
    }
    stores
}

/// Twenty visitors log in at once in four processes. The commits are held until more logins wait
/// than the limit allows, in more than one process.
async fn twenty_log_in(site: &Site, at_limit: SessionLimitPolicy) -> Vec<Reply> {
    let stores = processes(site, at_limit).await;
    let commits = site.hold_commits().await;
    let mut logins = Vec::new();
    for n in 0..20 {
        let browser = Browser::new(&login_page(&stores[n % 4]));
        logins.push(tokio::spawn(async move { browser.peek("/page").await }));
    }
    site.blocked_at_least(6).await;
    commits.commit().await.expect("no changes");
    let mut responses = Vec::new();
    for login in logins {
        responses.push(login.await.expect("no panic"));
    }
    responses
}

#[tokio::test]
async fn twenty_logins_at_once_leave_exactly_the_limit() {
    let site = Site::new().await;
    let responses = twenty_log_in(&site, SessionLimitPolicy::EndOldest).await;
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!(count(&site).await, 5);
    assert_eq!(site.rows().count().await, 5);
}

#[tokio::test]
async fn twenty_logins_at_once_are_refused_beyond_the_limit() {
    let site = Site::new().await;
    let responses = twenty_log_in(&site, SessionLimitPolicy::Refuse).await;
    let refused = responses
        .iter()
        .filter(|response| response.status == 403)
        .count();
    let signed_in = responses
        .iter()
        .filter(|response| response.status == 200)
        .count();
    assert_eq!((signed_in, refused), (5, 15));
    assert_eq!(count(&site).await, 5);
}

#[tokio::test]
async fn the_session_that_was_signed_in_longest_ago_ends() {
    let site = Site::new().await;
    let store = site.limited(FIVE, SessionLimitPolicy::EndOldest);
    let mut browsers = Vec::new();
    for _ in 0..7 {
        let mut browser = Browser::new(&login_page(&store));
        browser.get("/page").await;
        browsers.push(browser.at(&site.app()));
        site.rows().age_creation(60.0).await;
    }
    let mut signed_in = Vec::new();
    for browser in &browsers {
        signed_in.push(browser.peek("/is_new").await.body == "false");
    }
    assert_eq!(signed_in, [false, false, true, true, true, true, true]);
}

#[tokio::test]
async fn to_sign_in_again_takes_no_other_place() {
    for at_limit in [SessionLimitPolicy::EndOldest, SessionLimitPolicy::Refuse] {
        let site = Site::new().await;
        let store = site.limited(FIVE, at_limit);
        for _ in 0..4 {
            log_in(&store).await;
        }
        let mut browser = Browser::new(&login_page(&store));
        for _ in 0..3 {
            assert_eq!(browser.get("/page").await.status, 200);
            assert_eq!(count(&site).await, 5);
        }
    }
}

#[tokio::test]
async fn a_thousand_old_sessions_converge_to_the_limit() {
    let site = Site::new().await;
    execute(
        &site.pool,
        "INSERT INTO session (id, expiry, session, user_id, created)
         SELECT 'row ' || n, now() + interval '1 day', '{}', CASE WHEN n % 2 = 0 THEN 'alice' ELSE 'bob' END,
                CASE WHEN n > 10 THEN now() - n * interval '1 minute' END
         FROM generate_series(1, 2000) AS n",
    )
    .await;
    let store = site
        .store
        .clone()
        .timeout(PATIENCE)
        .max_sessions_per_user(FIVE, SessionLimitPolicy::EndOldest);
    assert_eq!(log_in(&store).await.status, 200);
    // A slow machine ends the rest in the background.
    patiently(until(async || count(&site).await == 5)).await;
    let bob = site.sessions_of("bob").await;
    assert_eq!(bob, 1000);
}

#[tokio::test]
async fn a_session_that_expired_takes_no_place() {
    let site = Site::new().await;
    let store = full(&site).await;
    assert_eq!(log_in(&store).await.status, 403);
    site.rows().age(86_500.0).await;
    assert_eq!(log_in(&store).await.status, 200);
}

#[tokio::test]
async fn a_refused_login_changes_nothing_and_can_have_a_response() {
    let site = Site::new().await;
    let store = full(&site).await;
    let page = async |session: Session| {
        session.login(Login::new("alice"))?;
        session.insert("role", "admin")?;
        let refused = session.save().await.expect_err("five sessions");
        assert_eq!(refused.kind(), ErrorKind::SessionLimit);
        assert_eq!(session.user_id(), None);
        session.insert("told", true)?;
        Ok::<_, Error>("You are signed in on five devices.")
    };
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    let mut visitor = browser.at(&app_with(PgSessionLayer::new(store.clone()), page));
    let response = visitor.get("/page").await;
    assert_eq!(
        (response.status.as_u16(), response.body.contains("five")),
        (200, true)
    );
    assert_eq!(browser.get("/keys").await.body, "basket,told");

    let response = browser.at(&login_page(&store)).get("/page").await;
    assert_eq!(response.status, 403);
    assert!(response.sets_no_cookie());
    assert_eq!(browser.get("/keys").await.body, "basket,told");
    assert_eq!(count(&site).await, 5);
}

#[tokio::test]
async fn a_limit_needs_the_columns_by_which_it_counts() {
    let site = Site::with_table("CREATE TABLE session (id text PRIMARY KEY, expiry timestamptz NOT NULL, session json, user_id text)").await;
    site.store.check().await.expect("it serves without a limit");
    let store = site.limited(FIVE, SessionLimitPolicy::EndOldest);
    let refused = store.check().await.expect_err("no created");
    assert_eq!(refused.kind(), ErrorKind::Setup);
    assert!(refused.to_string().contains("created"), "{refused}");
    assert!(refused.to_string().contains("0002"), "{refused}");
}
