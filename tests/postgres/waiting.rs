//! How long a request waits for the database, and its response after that.

use std::time::{Duration, Instant};

use axum::http::header::RETRY_AFTER;
use axum_pg_session::{Error, ErrorKind, PgSessionLayer, PgSessionStore, Session, SessionId};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::task::JoinSet;

use crate::support::{
    Browser, Reply, Site, app, execute,
    page::{PATIENCE, app_with, until},
    proxy::Proxy,
    texts,
};

/// Long enough that a busy machine does not come near it by itself.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Under Postgres's own isolation level: under another one each statement is a
/// transaction, which ends with its connection.
async fn impatient(site: &Site) -> PgSessionStore {
    with_connections(site, 4).await.timeout(TIMEOUT)
}

async fn with_connections(site: &Site, connections: u32) -> PgSessionStore {
    PgSessionStore::new(pool_of(site, connections).await)
}

async fn pool_of(site: &Site, connections: u32) -> PgPool {
    let options: PgConnectOptions = site.database.url().parse().expect("a URL");
    PgPoolOptions::new()
        .max_connections(connections)
        .connect_with(options.options([("default_transaction_isolation", "read committed")]))
        .await
        .expect("a connection")
}

/// Four requests of one session, of which the first waits for a lock and the
/// others for the first.
async fn queue_behind_a_lock(site: &Site, browser: &Browser) -> Vec<(u16, Duration)> {
    let mut visits = JoinSet::new();
    for _ in 0..4 {
        let browser = browser.clone();
        visits.spawn(async move {
            let began = Instant::now();
            let status = browser.peek("/increment/n").await.status;
            (status.as_u16(), began.elapsed())
        });
        site.blocked(1).await;
    }
    visits.join_all().await
}

#[tokio::test]
async fn a_request_waits_no_longer_than_the_timeout_whatever_waits_before_it() {
    let site = Site::new().await;
    let mut browser = Browser::new(&app(PgSessionLayer::new(impatient(&site).await)));
    browser.get("/increment/n").await;
    let lock = site.lock_rows().await;
    for (status, waited) in queue_behind_a_lock(&site, &browser).await {
        assert_eq!(status, 503);
        assert!(waited < TIMEOUT.mul_f64(1.75), "{waited:?}");
    }
    lock.rollback().await.expect("a lock released");
}

/// Those that were sent are canceled on the server, and those that waited for them are
/// not sent: their responses were sent, and minutes later would be a surprise. A statement that
/// was sent at the end of its time may still be on its way to the server when its request
/// has its response; its connection returns to the pool when it has ended.
#[tokio::test]
async fn changes_whose_time_is_up_are_not_made_when_the_lock_is_released() {
    let site = Site::new().await;
    let pool = pool_of(&site, 4).await;
    let store = PgSessionStore::new(pool.clone()).timeout(TIMEOUT);
    let mut browser = Browser::new(&app(PgSessionLayer::new(store)));
    browser.get("/increment/n").await;
    let lock = site.lock_rows().await;
    queue_behind_a_lock(&site, &browser).await;
    until(async || pool.num_idle() == pool.size() as usize).await;
    until(async || !site.is_blocked().await).await;
    lock.rollback().await.expect("a lock released");
    assert_eq!(browser.get("/increment/n").await.body, "2");
}

/// On the server, for the statements of a pool of the store's own, as a trigger of
/// the table sees them. The connections were made with the default.
#[tokio::test]
async fn a_longer_timeout_also_raises_the_limits_of_connections_that_are_open() {
    let site = Site::without_table().await;
    site.set_isolation("read committed").await;
    let store = PgSessionStore::connect(site.database.url())
        .await
        .expect("a connection");
    store.migrate().await.expect("a table");
    execute(
        &site.pool,
        "CREATE TABLE seen (limits text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen VALUES (current_setting('statement_timeout') || ' '
                 || current_setting('lock_timeout') || ' '
                 || current_setting('idle_in_transaction_session_timeout'));
             RETURN NEW;
         END $$;
         CREATE TRIGGER see BEFORE INSERT ON session FOR EACH ROW EXECUTE FUNCTION see()",
    )
    .await;
    for (seconds, limit) in [(2, "6s"), (30, "31s"), (45, "46s"), (30, "46s")] {
        let store = store.clone().timeout(Duration::from_secs(seconds));
        let mut browser = Browser::new(&app(PgSessionLayer::new(store)));
        assert_eq!(browser.get("/increment/n").await.status, 200);
        let seen = texts(&site.pool, "DELETE FROM seen RETURNING limits").await;
        assert_eq!(seen, [format!("{limit} {limit} {limit}")]);
    }
}

/// Each attempt at a row that is still locked keeps the others waiting for a moment
/// only.
#[tokio::test]
async fn a_row_that_is_free_again_is_not_kept_waiting_by_rows_that_are_still_locked() {
    const SOON: Duration = Duration::from_secs(2);
    let site = Site::new().await;
    let store = with_connections(&site, 10).await.timeout(PATIENCE);
    let app = app(PgSessionLayer::new(store));
    let mut first = Browser::new(&app);
    first.get("/increment/n").await;
    let its_lock = site.lock_rows().await;
    let visitor = first.clone();
    let visit = tokio::spawn(async move { visitor.peek("/increment/n").await.status });
    site.blocked(1).await;
    // Its first attempt was held up.
    site.blocked(0).await;
    let mut others = Vec::new();
    for _ in 0..60 {
        let mut other = Browser::new(&app);
        other.get("/increment/n").await;
        others.push(other);
    }
    let lock = site
        .open_transaction(
            "SELECT id FROM session WHERE created > (SELECT min(created) FROM session) FOR UPDATE",
        )
        .await;
    let mut visits = JoinSet::new();
    for other in others {
        visits.spawn(async move { other.peek("/increment/n").await.status });
    }
    site.blocked(2).await;
    // Saves that share a statement with locked rows come last.
    let mut free = Browser::new(&app);
    for _ in 0..3 {
        assert_eq!(free.get("/increment/n").await.status, 200);
    }
    site.blocked(2).await;
    its_lock.rollback().await.expect("a lock released");
    let released = Instant::now();
    assert_eq!(visit.await.expect("no panic"), 200);
    let recovery = released.elapsed();
    println!("recovery of a locked row behind 60 others: {recovery:?}");
    assert!(recovery < SOON, "{recovery:?}");
    lock.rollback().await.expect("a lock released");
    let statuses = visits.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

fn seconds(response: &Reply) -> &str {
    let header = response.headers.get(RETRY_AFTER);
    header.map_or("none", |value| value.to_str().expect("a number"))
}

#[tokio::test]
async fn a_503_says_when_to_come_back_if_time_heals_it() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    let nowhere = sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none").expect("a URL");
    let store = PgSessionStore::new(nowhere).timeout(Duration::from_millis(100));
    let away = browser.at(&app(PgSessionLayer::new(store)));
    let not_loaded = away.peek("/get/a").await;
    assert_eq!(
        (not_loaded.status.as_u16(), seconds(&not_loaded)),
        (503, "5")
    );

    site.refuse("UPDATE").await;
    let not_saved = browser.peek("/increment/n").await;
    // What refuses it is no fault of the moment.
    assert_eq!(
        (not_saved.status.as_u16(), seconds(&not_saved)),
        (503, "none")
    );

    let rows = site.rows();
    let page = async move |session: Session| {
        session.insert("b", 2)?;
        rows.execute("DELETE FROM TABLE").await;
        session.save().await
    };
    let ended = browser.at(&site.app_with(page)).peek("/page").await;
    assert_eq!((ended.status.as_u16(), seconds(&ended)), (503, "none"));
    assert!(ended.body.contains("session has ended"), "{}", ended.body);
}

#[tokio::test]
async fn a_response_that_time_does_not_change_has_no_retry_after() {
    let site = Site::without_table().await;
    let known = site.browser().with_cookie("__Host-id", &"A".repeat(43));
    let response = known.peek("/get/a").await;
    assert_eq!(
        (response.status.as_u16(), seconds(&response)),
        (500, "none")
    );
}

async fn read_only(site: &Site) {
    let name = site
        .database
        .url()
        .split(['/', '?'])
        .find(|part| part.starts_with("test_"));
    let sql = format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        name.expect("a name")
    );
    site.rows().execute(&sql).await;
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_an_error_at_set_up() {
    let site = Site::new().await;
    read_only(&site).await;
    let store = impatient(&site).await;
    for outcome in [store.migrate().await, store.check().await.map(drop)] {
        let error = outcome.expect_err("no writes");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("takes no writes"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_not_asked_again_and_again() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/increment/n").await;
    read_only(&site).await;
    let proxy = Proxy::before(site.database.url()).await;
    let store = PgSessionStore::new(proxy.pool().await);
    let page = async |session: Session| -> Result<(), Error> {
        session.insert("b", 2)?;
        session.save().await
    };
    let here = browser.at(&app_with(PgSessionLayer::new(store), page));
    assert_eq!(here.peek("/page").await.status, 503);
    let texts = proxy.take_texts();
    let writes = texts.iter().filter(|text| text.starts_with("UPDATE"));
    assert_eq!(writes.count(), 2, "{texts:?}");
    assert_eq!(here.peek("/get/n").await.body, "1");
}

/// What many visitors ask for at once while another transaction has locked the
/// rows of all of them.
#[derive(Clone, Copy)]
enum Asked {
    InARequest(fn(&Session) -> Result<(), Error>),
    /// By the old id, which leads to the locked row.
    Destroy,
    /// From outside of a request.
    EndForUser,
}

async fn locked_rows_of(asked: Asked) {
    let site = Site::new().await;
    let pool = crate::support::site::pool(site.database.url(), 8).await;
    let store = PgSessionStore::new(pool).timeout(Duration::from_secs(6));
    let app = app_with(
        PgSessionLayer::new(store.clone().timeout(Duration::from_secs(3))),
        async |session: Session| session.insert("a", 1),
    );
    let (mut browsers, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let mut browser = site.signed_in("alice").await;
        let id = browser.peek("/id").await.body.parse::<SessionId>();
        ids.push(id.expect("a handle"));
        if matches!(asked, Asked::Destroy) {
            browser.get("/cycle").await;
        }
        browsers.push(browser);
    }
    let lock = site.lock_rows().await;
    let layer = PgSessionLayer::new(store.clone());
    let mut asking = JoinSet::new();
    for (browser, id) in browsers.into_iter().zip(ids) {
        let (store, layer) = (store.clone(), layer.clone());
        asking.spawn(async move {
            match asked {
                Asked::InARequest(act) => {
                    let page = app_with(layer, async move |session: Session| act(&session));
                    drop(browser.at(&page).peek("/page").await);
                }
                Asked::Destroy => drop(store.destroy(&id).await),
                Asked::EndForUser => drop(store.user("alice").destroy(&id).await),
            }
        });
    }
    until(|| site.is_blocked()).await;
    let mut others = JoinSet::new();
    for _ in 0..16 {
        let app = app.clone();
        others.spawn(async move { Browser::new(&app).get("/page").await.status });
    }
    let bob = store.clone().timeout(Duration::from_secs(3)).user("bob");
    assert_eq!(bob.count().await.expect("no row is waited for"), 0);
    for status in others.join_all().await {
        assert_eq!(status, 200);
    }
    asking.abort_all();
    lock.rollback().await.expect("a lock released");
}

#[tokio::test]
async fn new_ids_of_locked_rows_leave_a_place_to_others() {
    locked_rows_of(Asked::InARequest(Session::cycle_id)).await;
}

#[tokio::test]
async fn logins_under_locked_rows_leave_a_place_to_others() {
    locked_rows_of(Asked::InARequest(|session| session.login("bob"))).await;
}

#[tokio::test]
async fn deletions_of_locked_rows_leave_a_place_to_others() {
    locked_rows_of(Asked::Destroy).await;
}

#[tokio::test]
async fn ends_of_a_users_locked_sessions_leave_a_place_to_others() {
    locked_rows_of(Asked::EndForUser).await;
}
