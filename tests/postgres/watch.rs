//! Watched sessions: a watch is ready at once if this process destroyed the session, and after the
//! next lookup otherwise.

use std::{future::Future, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use axum_pg_session::{
    Ending, Login, PgSessionLayer, PgSessionStore, Reaper, Session, SessionEnd, SessionId,
    SessionLimitPolicy, testing::TestVisitor,
};
use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;

use crate::support::{
    Site, execute,
    express::{SID, TABLE, site_of, stored, visitor_of_express},
    kit::{act, id},
    koa::koa,
    page::{PATIENCE, patiently, polled_once, until},
    parts::{over_two_servers, sixteen},
    proxy::Proxy,
    site::pool,
    texts,
};

/// Longer than any test waits, so only the process itself can have reported an end.
const NEVER: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_millis(50);

/// A visitor who is signed in, with a second session in another browser.
struct Ada {
    store: PgSessionStore,
    layer: PgSessionLayer,
    here: TestVisitor,
    there: TestVisitor,
}

impl Ada {
    async fn at(store: PgSessionStore) -> Self {
        let layer = PgSessionLayer::new(store.clone());
        let [there, here] = [&layer, &layer].map(TestVisitor::new);
        for visitor in [&there, &here] {
            act(visitor, |session| session.login("ada")).await;
        }
        Self {
            store,
            layer,
            here,
            there,
        }
    }

    async fn id(&self) -> SessionId {
        id(&self.here).await
    }
}

async fn watch(visitor: &TestVisitor) -> SessionEnd {
    let session = visitor.session().await.expect("a database");
    session.ended().expect("it is stored")
}

fn limit(sessions: u32) -> NonZeroU32 {
    NonZeroU32::new(sessions).expect("not zero")
}

/// The site as another process runs it, which can count its statements and be cut off.
struct Elsewhere {
    proxy: Proxy,
    store: PgSessionStore,
}

impl Elsewhere {
    async fn of(site: &Site, set_up: impl FnOnce(PgSessionStore) -> PgSessionStore) -> Self {
        let proxy = Proxy::before(site.database.url()).await;
        let store = PgSessionStore::new(proxy.pool().await).watch_interval(SOON);
        let store = set_up(store);
        store.check().await.expect("a table");
        Self { proxy, store }
    }

    async fn watch(&self, id: &SessionId) -> SessionEnd {
        self.store.watch(id).await.expect("a database")
    }

    /// Returns when a lookup that began after this call has ended.
    async fn looks(&self) {
        let before = self.proxy.executed();
        until(async || self.proxy.executed() >= before + 4).await;
    }
}

async fn ends_here_with<F: Future<Output = ()>>(
    expected: Ending,
    set_up: impl FnOnce(PgSessionStore) -> PgSessionStore,
    end: impl FnOnce(Arc<Ada>) -> F,
) {
    let site = Site::new().await;
    let ada = Ada::at(set_up(site.store.clone().watch_interval(NEVER))).await;
    let (one, two) = (watch(&ada.here).await, watch(&ada.here).await);
    let mut other = watch(&ada.there).await;
    end(Arc::new(ada)).await;
    let ended = tokio::time::timeout(NEVER / 2, async { (one.await, two.await) }).await;
    assert_eq!(ended.expect("at once"), (expected, expected));
    if expected != Ending::Revoked {
        assert_eq!(polled_once(&mut other).await, None, "{expected}");
    }
}

#[tokio::test]
async fn a_watch_ends_at_once_if_this_process_ends_the_session() {
    let as_it_is = |store| store;
    ends_here_with(Ending::SignedOut, as_it_is, async |ada: Arc<Ada>| {
        act(&ada.here, Session::logout).await;
    })
    .await;
    ends_here_with(Ending::Destroyed, as_it_is, async |ada: Arc<Ada>| {
        act(&ada.here, Session::destroy).await;
    })
    .await;
    ends_here_with(Ending::Destroyed, as_it_is, async |ada: Arc<Ada>| {
        let ended = ada.store.destroy(&ada.id().await).await;
        assert!(ended.expect("a database"));
    })
    .await;
    ends_here_with(Ending::Replaced, as_it_is, async |ada: Arc<Ada>| {
        act(&ada.here, |session| session.login("bob")).await;
    })
    .await;
    ends_here_with(Ending::Replaced, as_it_is, async |ada: Arc<Ada>| {
        act(&ada.here, |session| {
            session.login(Login::new("ada").discard_data())
        })
        .await;
    })
    .await;
    ends_here_with(Ending::Evicted, two_at_most, async |ada: Arc<Ada>| {
        // The oldest is the other one, and then this one.
        act(&ada.there, |session| session.login("ada")).await;
        act(&TestVisitor::new(&ada.layer), |session| {
            session.login("ada")
        })
        .await;
    })
    .await;
    ends_here_with(Ending::Rejected, as_it_is, async |ada: Arc<Ada>| {
        let layer = PgSessionLayer::new(ada.store.clone()).valid_if(async |_: Session, _| false);
        let app = Router::new()
            .route("/", get(async |_: Session| {}))
            .layer(layer);
        let request = axum::http::Request::get("/").body(axum::body::Body::empty());
        let response = ada.here.send(&app, request.expect("a request")).await;
        response.expect("a database");
    })
    .await;
}

fn two_at_most(store: PgSessionStore) -> PgSessionStore {
    store.max_sessions_per_user(limit(2), SessionLimitPolicy::EndOldest)
}

#[tokio::test]
async fn a_watch_ends_at_once_if_this_process_revokes_the_sessions_of_a_user() {
    let as_it_is = |store| store;
    ends_here_with(Ending::Revoked, as_it_is, async |ada: Arc<Ada>| {
        let ended = ada.store.user("ada").destroy(&ada.id().await).await;
        assert!(ended.expect("a database"));
    })
    .await;
    ends_here_with(Ending::Revoked, as_it_is, async |ada: Arc<Ada>| {
        let ended = ada.store.user("ada").destroy_all().await;
        assert_eq!(ended.expect("a database"), 2);
    })
    .await;
    ends_here_with(Ending::Revoked, as_it_is, async |ada: Arc<Ada>| {
        let kept = id(&ada.there).await;
        let ended = ada.store.user("ada").destroy_others(&kept).await;
        assert_eq!(ended.expect("a database"), 1);
    })
    .await;
    ends_here_with(Ending::Revoked, as_it_is, async |ada: Arc<Ada>| {
        let ended = ada.store.destroy_everyone().await;
        assert_eq!(ended.expect("a database"), 2);
    })
    .await;
    ends_here_with(Ending::Revoked, as_it_is, async |ada: Arc<Ada>| {
        let login = Login::new("ada").end_others();
        act(&ada.there, |session| session.login(login)).await;
    })
    .await;
}

#[tokio::test]
async fn a_watch_ends_after_the_interval_if_another_process_ends_the_session() {
    let site = Site::new().await;
    let elsewhere = Elsewhere::of(&site, |store| store).await;
    let ada = Ada::at(site.store.clone()).await;
    let mut ended = elsewhere.watch(&ada.id().await).await;
    let mut other = elsewhere.watch(&id(&ada.there).await).await;
    elsewhere.looks().await;
    assert_eq!(polled_once(&mut ended).await, None);

    act(&ada.here, Session::logout).await;
    let since = Instant::now();
    assert_eq!(patiently(&mut ended).await, Ending::Unknown);
    // Far less than the default interval, also on a busy machine.
    assert!(
        since.elapsed() < Duration::from_secs(4),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(polled_once(&mut other).await, None);
    // It stays ready.
    assert_eq!(ended.await, Ending::Unknown);
}

#[tokio::test]
async fn a_session_that_expires_ends_its_watches() {
    for reaps in [false, true] {
        let site = Site::new().await;
        let ada = Ada::at(site.store.clone().watch_interval(SOON)).await;
        let ended = watch(&ada.here).await;
        // Before the lookup of an expiry that is only known from the watch.
        site.rows().age(86_400.0 * 2.0).await;
        if reaps {
            let reaped = Reaper::new(site.store.clone()).run_once().await;
            assert!(reaped.expect("a database").deleted >= 2);
        }
        let ending = patiently(ended).await;
        // The test moved the row, so a process that finds none does not know why.
        assert!(
            ending == Ending::Expired || (reaps && ending == Ending::Unknown),
            "{ending}"
        );
    }
}

#[tokio::test]
async fn a_watch_follows_its_session_to_new_ids() {
    let site = Site::new().await;
    let elsewhere = Elsewhere::of(&site, |store| store).await;
    let ada = Ada::at(site.store.clone().watch_interval(NEVER)).await;
    let mut here = watch(&ada.here).await;
    let mut there = elsewhere.watch(&ada.id().await).await;
    for _ in 0..2 {
        act(&ada.here, Session::cycle_id).await;
        act(&ada.here, |session| session.login("ada")).await;
        elsewhere.looks().await;
    }
    // The forwardings are no longer needed.
    let forwardings = "DELETE FROM session WHERE session::text LIKE '%successor%'";
    execute(&site.pool, forwardings).await;
    elsewhere.looks().await;
    assert_eq!(polled_once(&mut here).await, None);
    assert_eq!(polled_once(&mut there).await, None);
    act(&ada.here, Session::logout).await;
    assert_eq!(patiently(here).await, Ending::SignedOut);
    assert_eq!(patiently(there).await, Ending::Unknown);
}

/// A planted token would otherwise lead the attacker's socket to the user's session.
#[tokio::test]
async fn a_watch_does_not_follow_a_session_to_another_user() {
    let site = Site::new().await;
    let elsewhere = Elsewhere::of(&site, |store| store).await;
    let layer = site.layer();
    let logins: [fn() -> Login; 2] = [|| Login::new("bob"), || Login::new("ada").discard_data()];
    for login in logins {
        let ada = TestVisitor::new(&layer);
        act(&ada, |session| session.insert("basket", 1)).await;
        let anonymous = elsewhere.store.watch(&id(&ada).await).await;
        act(&ada, |session| session.login("ada")).await;
        assert_eq!(
            patiently(anonymous.expect("a database")).await,
            Ending::Replaced
        );
        let signed_in = elsewhere.store.watch(&id(&ada).await).await;
        act(&ada, |session| session.login(login())).await;
        assert_eq!(
            patiently(signed_in.expect("a database")).await,
            Ending::Replaced
        );
    }
}

#[tokio::test]
async fn a_watch_goes_back_to_the_former_id_if_the_new_one_is_undone() {
    let site = Site::new().await;
    let elsewhere = Elsewhere::of(&site, |store| store).await;
    let ada = Ada::at(site.store.clone()).await;
    let mut ended = elsewhere.watch(&ada.id().await).await;
    execute(&site.pool, "CREATE TABLE before AS TABLE session").await;
    act(&ada.here, Session::cycle_id).await;
    elsewhere.looks().await;
    let undo = "BEGIN; DELETE FROM session; INSERT INTO session SELECT * FROM before; COMMIT";
    execute(&site.pool, undo).await;
    elsewhere.looks().await;
    assert_eq!(polled_once(&mut ended).await, None);
    execute(&site.pool, "DELETE FROM session").await;
    assert_eq!(patiently(ended).await, Ending::Unknown);
}

#[tokio::test]
async fn a_watch_ends_if_a_new_id_was_undone_and_the_session_with_it() {
    let site = Site::new().await;
    let elsewhere = Elsewhere::of(&site, |store| store).await;
    let ada = Ada::at(site.store.clone()).await;
    let ended = elsewhere.watch(&ada.id().await).await;
    act(&ada.here, Session::cycle_id).await;
    elsewhere.looks().await;
    // What is left still leads to the id that is not there.
    let delete = "DELETE FROM session WHERE session::text NOT LIKE '%successor%'";
    execute(&site.pool, delete).await;
    assert_eq!(patiently(ended).await, Ending::Unknown);
}

#[tokio::test]
async fn a_watch_changes_nothing_in_the_table() {
    let site = Site::new().await;
    let elsewhere = Elsewhere::of(&site, |store| store).await;
    let ada = Ada::at(site.store.clone()).await;
    site.rows().age(7200.0).await;
    let before = site.rows().dump().await;
    let ended = elsewhere.watch(&ada.id().await).await;
    elsewhere.looks().await;
    drop(ended);
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn no_statement_is_sent_for_watches_that_were_dropped() {
    let site = Site::new().await;
    let elsewhere = Elsewhere::of(&site, |store| store).await;
    let ada = Ada::at(site.store.clone()).await;
    let id = ada.id().await;
    for _ in 0..2 {
        let watches = try_join_all((0..100).map(|_| elsewhere.store.watch(&id)));
        let watches = watches.await.expect("a database");
        elsewhere.looks().await;
        drop(watches);
        // One may be in flight. The task of the watches ends with its next turn.
        tokio::time::sleep(SOON * 3).await;
        let before = elsewhere.proxy.executed();
        tokio::time::sleep(SOON * 10).await;
        assert_eq!(elsewhere.proxy.executed(), before);
    }
}

#[tokio::test]
async fn a_session_that_has_ended_before_is_no_watch() {
    let site = Site::new().await;
    let ada = Ada::at(site.store.clone().watch_interval(NEVER)).await;
    let id = ada.id().await;
    act(&ada.here, Session::logout).await;
    let mut ended = ada.store.watch(&id).await.expect("a database");
    assert_eq!(polled_once(&mut ended).await, Some(Ending::Unknown));
    let session = TestVisitor::new(&ada.layer)
        .session()
        .await
        .expect("a database");
    assert!(session.ended().is_none());
}

#[tokio::test]
async fn watches_outlast_a_database_that_is_away_as_long_as_is_chosen() {
    let site = Site::new().await;
    let ada = Ada::at(site.store.clone()).await;
    let id = ada.id().await;
    let timeout = |store: PgSessionStore| store.timeout(Duration::from_millis(500));
    let closes = Elsewhere::of(&site, |store| timeout(store).watch_outage(Duration::ZERO)).await;
    let stays = Elsewhere::of(&site, |store| timeout(store).watch_outage(Duration::MAX)).await;
    let waits = Elsewhere::of(&site, timeout).await;
    let mut ends = Vec::new();
    for elsewhere in [&closes, &stays, &waits] {
        ends.push(elsewhere.watch(&id).await);
        elsewhere.looks().await;
        elsewhere.proxy.drop_responses(true);
    }
    let [first, second, third] = &mut ends[..] else {
        unreachable!("three")
    };
    assert_eq!(patiently(first).await, Ending::Unreachable);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The default is a minute.
    for (ended, elsewhere) in [(&mut *second, &stays), (&mut *third, &waits)] {
        assert_eq!(polled_once(&mut *ended).await, None);
        elsewhere.proxy.drop_responses(false);
        elsewhere.proxy.cut();
        elsewhere.looks().await;
        assert_eq!(polled_once(ended).await, None);
    }
    act(&ada.here, Session::logout).await;
    assert_eq!(patiently(second).await, Ending::Unknown);
    assert_eq!(patiently(third).await, Ending::Unknown);
}

#[tokio::test]
async fn thousands_of_watches_end_together() {
    const SESSIONS: usize = 2_500;
    let site = Site::new().await;
    let elsewhere = Elsewhere::of(&site, |store| store).await;
    let layer = site.layer();
    let ada = TestVisitor::new(&layer);
    act(&ada, |session| session.login("ada")).await;
    let copies = format!(
        "INSERT INTO session (id, expiry, session, created, user_id)
         SELECT left(translate(encode(sha256(n::text::bytea), 'base64'), '+/', '-_'), 43),
                expiry, session, created, user_id
         FROM session, generate_series(1, {SESSIONS}) AS n"
    );
    execute(&site.pool, &copies).await;
    let listed = site.store.user("ada").list().limit(limit(5000)).await;
    let listed = listed.expect("a database");
    let watches = try_join_all(
        listed
            .iter()
            .map(|session| elsewhere.store.watch(session.id())),
    );
    let watches = watches.await.expect("a database");
    assert_eq!(watches.len(), SESSIONS + 1);
    let before = elsewhere.proxy.executed();
    until(async || elsewhere.proxy.executed() >= before + 6).await;

    site.store
        .user("ada")
        .destroy_all()
        .await
        .expect("a database");
    for ending in patiently(join_all(watches)).await {
        assert_eq!(ending, Ending::Unknown);
    }
}

#[tokio::test]
async fn a_realm_watches_its_own_sessions() {
    let site = Site::new().await;
    let store = site.store.clone().watch_interval(SOON);
    let admin = Ada::at(store.clone().realm("admin")).await;
    let shop = Ada::at(store).await;
    let [mut in_shop, in_admin] = [watch(&shop.here).await, watch(&admin.here).await];
    act(&admin.here, Session::cycle_id).await;
    let id = admin.id().await;
    admin
        .store
        .user("ada")
        .destroy_all()
        .await
        .expect("a database");
    assert_eq!(patiently(in_admin).await, Ending::Revoked);
    let foreign = shop.store.watch(&id).await.expect("a database");
    assert_eq!(patiently(foreign).await, Ending::Unknown);
    assert_eq!(polled_once(&mut in_shop).await, None);
}

#[tokio::test]
async fn a_session_of_koas_format_is_watched_too() {
    let site = Site::of_koa().await;
    let store = site.store.clone().watch_interval(SOON);
    let layer = PgSessionLayer::new(store.clone());
    let elsewhere = Elsewhere::of(&site, |store| store.koa(koa())).await;
    let ada = TestVisitor::new(&layer);
    act(&ada, |session| session.insert("count", 1)).await;
    let mut here = watch(&ada).await;
    // As text, the handle leads to no row without a query.
    let text: SessionId = id(&ada).await.as_str().parse().expect("a handle");
    let there = elsewhere.watch(&text).await;
    act(&ada, Session::cycle_id).await;
    // Nothing leads another process to the new id.
    assert_eq!(patiently(there).await, Ending::Unknown);
    let there = elsewhere.watch(&id(&ada).await).await;
    tokio::time::sleep(SOON * 4).await;
    assert_eq!(polled_once(&mut here).await, None);
    act(&ada, Session::destroy).await;
    assert_eq!(patiently(here).await, Ending::Destroyed);
    assert_eq!(patiently(there).await, Ending::Unknown);
}

/// Otherwise a socket of another runtime would wait for an end that is never reported.
#[test]
fn watches_end_if_the_runtime_that_looks_up_their_sessions_stops() {
    let runtime = || tokio::runtime::Runtime::new().expect("a runtime");
    let (first, second) = (runtime(), runtime());
    let (site, ada) = second.block_on(async {
        let site = Site::new().await;
        let ada = Ada::at(site.store.clone().watch_interval(NEVER)).await;
        (site, ada)
    });
    let session = second.block_on(ada.here.session()).expect("a database");
    let watched = |runtime: &tokio::runtime::Runtime| {
        let _runtime = runtime.enter();
        session.ended().expect("it is stored")
    };
    let ended = watched(&first);
    drop(first);
    let ending = second.block_on(async { tokio::time::timeout(PATIENCE, ended).await });
    assert_eq!(ending.expect("at once"), Ending::Unknown);
    // And the next watch starts another task.
    let ended = watched(&second);
    second.block_on(async {
        act(&ada.here, Session::logout).await;
        assert_eq!(patiently(ended).await, Ending::SignedOut);
        drop(site);
    });
}

#[tokio::test]
async fn watches_take_a_place_that_no_request_needs() {
    let site = Site::new().await;
    let small = PgSessionStore::new(pool(site.database.url(), 1).await).watch_interval(SOON);
    let ada = Ada::at(small).await;
    let ended = watch(&ada.here).await;
    for _ in 0..20 {
        act(&ada.there, |session| {
            session
                .update("n", |n: Option<u32>| n.unwrap_or(0) + 1)
                .map(drop)
        })
        .await;
        tokio::time::sleep(SOON / 5).await;
    }
    act(&ada.here, Session::logout).await;
    assert_eq!(patiently(ended).await, Ending::SignedOut);
}

/// Such as streams that count the sessions of their users, on a table that is slow.
#[tokio::test]
async fn queries_of_the_application_do_not_delay_the_lookup() {
    let site = sixteen().await;
    let ada = Ada::at(site.store.clone()).await;
    let id = ada.id().await;
    let elsewhere = Elsewhere::of(&site, |store| store.timeout(Duration::from_secs(3600))).await;
    let ended = elsewhere.watch(&id).await;
    let part = format!("SELECT tableoid::regclass::text FROM session WHERE id = '{id}'");
    let part = texts(&site.pool, &part).await.remove(0);
    let other = match part.ends_with("_3") {
        true => "session_4",
        false => "session_3",
    };
    let mut locked = site.pool.begin().await.expect("a transaction");
    sqlx::query(sqlx::AssertSqlSafe(format!("LOCK TABLE {other}")))
        .execute(&mut *locked)
        .await
        .expect("a lock");
    let counts: Vec<_> = (0..20)
        .map(|_| {
            let user = elsewhere.store.user("ada");
            tokio::spawn(async move { user.count().await })
        })
        .collect();
    until(|| site.is_blocked_twice()).await;

    execute(&site.pool, &format!("DELETE FROM {part} WHERE id = '{id}'")).await;
    assert_eq!(patiently(ended).await, Ending::Unknown);
    assert!(counts.iter().all(|count| !count.is_finished()));
    counts.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_part_that_is_gone_ends_no_watch_of_the_others() {
    let Some(foreign) = over_two_servers().await else {
        return;
    };
    let site = &foreign.site;
    let elsewhere = Elsewhere::of(site, |store| store.watch_outage(Duration::ZERO)).await;
    let layer = site.layer();
    let mut watches = [Vec::new(), Vec::new()];
    for _ in 0..40 {
        let visitor = TestVisitor::new(&layer);
        act(&visitor, |session| session.login("ada")).await;
        let id = id(&visitor).await;
        let part = format!("SELECT tableoid::regclass::text FROM session WHERE id = '{id}'");
        let is_second = ["session_1", "session_3"].contains(&&*texts(&site.pool, &part).await[0]);
        watches[usize::from(is_second)].push((visitor, elsewhere.watch(&id).await));
    }
    let [here, gone] = watches;
    assert!(here.len() > 1 && gone.len() > 1);
    let away = "ALTER SERVER shard_1 OPTIONS (SET host '/nowhere')";
    execute(&site.pool, away).await;
    for (_, ended) in gone {
        assert_eq!(patiently(ended).await, Ending::Unreachable);
    }
    let mut here = here.into_iter();
    let (first, ended) = here.next().expect("some");
    act(&first, Session::logout).await;
    assert_eq!(patiently(ended).await, Ending::Unknown);
    for (_, mut ended) in here {
        assert_eq!(polled_once(&mut ended).await, None);
    }
}

/// Each of them could be damaged.
#[tokio::test]
async fn the_lookup_reads_no_document_of_a_session_that_goes_on() {
    let site = Site::new().await;
    let elsewhere = Elsewhere::of(&site, |store| store).await;
    let ada = Ada::at(site.store.clone()).await;
    // It stands for a forwarding, which a session that goes on is not.
    act(&ada.here, |session| session.insert("a", ["successor"])).await;
    let mut ended = elsewhere.watch(&ada.id().await).await;
    let soon = "SELECT date_part('epoch', now() + interval '2 minutes')::text";
    let seconds: f64 = texts(&site.pool, soon).await[0].parse().expect("seconds");
    let looks = include_str!("../../src/store/sql/watch.sql");
    let row = sqlx::query(looks)
        .bind(vec![ada.id().await.as_str().to_owned()])
        .bind(seconds)
        .fetch_one(&site.pool)
        .await
        .expect("a row");
    assert_eq!(sqlx::Row::get::<Option<String>, _>(&row, 1), None);
    elsewhere.looks().await;
    assert_eq!(polled_once(&mut ended).await, None);
}

/// In that zone, local times are half a day ahead.
#[tokio::test]
async fn a_watch_follows_its_session_on_a_table_with_local_times() {
    const ZONE: &str = "Pacific/Auckland";
    let site = Site::with_table(
        "CREATE TABLE session (id text PRIMARY KEY, expiry timestamp NOT NULL, session json)",
    )
    .await;
    let store = site.store.clone().time_zone(ZONE);
    store.migrate().await.expect("columns to add");
    let elsewhere = Elsewhere::of(&site, |store| store.time_zone(ZONE)).await;
    let ada = Ada::at(store).await;
    let mut ended = elsewhere.watch(&ada.id().await).await;
    act(&ada.here, Session::cycle_id).await;
    elsewhere.looks().await;
    assert_eq!(polled_once(&mut ended).await, None);
    assert_eq!(ended.id(), ada.id().await);
    act(&ada.here, Session::logout).await;
    assert_eq!(patiently(ended).await, Ending::Unknown);
}

#[tokio::test]
async fn a_watch_that_has_ended_keeps_the_last_id_of_its_session() {
    let site = Site::new().await;
    let ada = Ada::at(site.store.clone().watch_interval(NEVER)).await;
    let mut ended = watch(&ada.here).await;
    act(&ada.here, Session::cycle_id).await;
    let last = ada.id().await;
    act(&ada.here, Session::logout).await;
    assert_eq!(ended.id(), last);
    assert_eq!(patiently(&mut ended).await, Ending::SignedOut);
    assert_eq!(ended.id(), last);
}

/// As another session layer can write it.
#[tokio::test]
async fn another_user_in_the_same_row_ends_the_watch() {
    let site = Site::new().await;
    let elsewhere = Elsewhere::of(&site, |store| store).await;
    let ada = Ada::at(site.store.clone()).await;
    let mut other = elsewhere.watch(&id(&ada.there).await).await;
    for user in ["'bob'", "NULL"] {
        let id = ada.id().await;
        let ended = elsewhere.watch(&id).await;
        let sql = format!("UPDATE session SET user_id = {user} WHERE id = '{id}'");
        execute(&site.pool, &sql).await;
        assert_eq!(patiently(ended).await, Ending::Replaced);
    }
    assert_eq!(polled_once(&mut other).await, None);
}

#[test]
fn an_interval_that_could_miss_a_new_id_is_refused() {
    for seconds in [0, 31] {
        let refused = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let _runtime = runtime.enter();
            let pool = sqlx::PgPool::connect_lazy("postgres:///").expect("a URL");
            drop(PgSessionStore::new(pool).watch_interval(Duration::from_secs(seconds)));
        });
        assert!(refused.is_err(), "{seconds}");
    }
}

/// Seconds of the processor that these processes have used, and this one.
fn used(backends: &[i32]) -> (f64, f64) {
    let of = |process: &str| -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // After the name, which may have spaces: user and system time, in hundredths.
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        let fields = rest.split(' ').skip(11).take(2);
        fields
            .filter_map(|field| field.parse::<f64>().ok())
            .sum::<f64>()
            / 100.0
    };
    let database = backends.iter().map(|pid| of(&pid.to_string())).sum();
    (of("self"), database)
}

/// `cargo test --release --test postgres -- --ignored --exact --nocapture watch::what_ten_thousand_watches_cost`
#[tokio::test]
#[ignore = "it measures for a minute"]
async fn what_ten_thousand_watches_cost() {
    const SESSIONS: u32 = 10_000;
    const WINDOW: Duration = Duration::from_secs(60);
    let site = Site::new().await;
    let ada = TestVisitor::new(&site.layer());
    let fill = "x".repeat(1000);
    act(&ada, |session| {
        session.insert("data", fill)?;
        session.login("ada")
    })
    .await;
    let copies = format!(
        "INSERT INTO session (id, expiry, session, created, user_id)
         SELECT left(translate(encode(sha256(n::text::bytea), 'base64'), '+/', '-_'), 43),
                expiry, session, created, user_id
         FROM session, generate_series(2, {SESSIONS}) AS n"
    );
    execute(&site.pool, &copies).await;
    execute(&site.pool, "VACUUM ANALYZE session").await;
    let all = NonZeroU32::new(SESSIONS).expect("not zero");
    let listed = site.store.user("ada").list().limit(all).await;
    let listed = listed.expect("a database");
    let watches = listed.iter().map(|one| site.store.watch(one.id()));
    let watches = try_join_all(watches).await.expect("a database");
    assert_eq!(watches.len(), SESSIONS as usize);

    let backends: Vec<i32> =
        sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
            .fetch_all(&site.pool)
            .await
            .expect("a list");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (process, database) = used(&backends);
    tokio::time::sleep(WINDOW).await;
    let after = used(&backends);
    let share = |before: f64, after: f64| 100.0 * (after - before) / WINDOW.as_secs_f64();
    println!(
        "{SESSIONS} watched sessions: {:.2} % of a core here, {:.2} % of one at the database",
        share(process, after.0),
        share(database, after.1),
    );
    drop(watches);
}

/// Before `migrate`, the store reads the user from the document.
#[tokio::test]
async fn a_watch_of_a_user_of_express_lasts_before_the_migration() {
    for document in [r#""cart":1"#, r#""passport":{"user":"ada"}"#] {
        let site = Site::of_express(TABLE).await;
        let store = site
            .store
            .clone()
            .watch_interval(Duration::from_millis(100));
        site.express_writes(SID, &stored(document)).await;
        let visitor = visitor_of_express(&store);
        let session = visitor.session().await.expect("a session");
        let mut ended = session.ended().expect("it is stored");
        let outcome = tokio::time::timeout(Duration::from_secs(2), &mut ended).await;
        assert!(outcome.is_err(), "{document}: {outcome:?}");
    }
}

/// An earlier new id was undone after the watch's last lookup.
#[tokio::test]
async fn a_watch_follows_a_new_id_after_one_that_was_undone() {
    for format in ["own", "express"] {
        let interval = Duration::from_secs(4);
        let (site, store, mut browser) = site_of(format, interval).await;
        let handle = browser.handle().await;
        let mut ended = store.watch(&handle).await.expect("a watch");
        site.gives_up(browser.clone(), "/cycle").await;
        until(async || browser.peek("/get/a").await.body == "\"1\"").await;
        assert_eq!(browser.get("/cycle").await.status, 200);
        let outcome = tokio::time::timeout(2 * interval, &mut ended).await;
        assert!(outcome.is_err(), "{format}: {outcome:?}");
        assert_eq!(browser.peek("/get/a").await.body, "\"1\"");
    }
}

#[tokio::test]
async fn a_logout_ends_a_watch_at_once_after_a_new_id_was_undone() {
    for format in ["own", "express"] {
        let (site, store, mut browser) = site_of(format, Duration::from_secs(20)).await;
        let handle = browser.handle().await;
        let mut ended = store.watch(&handle).await.expect("a watch");
        site.gives_up(browser.clone(), "/cycle").await;
        until(async || browser.peek("/get/a").await.body == "\"1\"").await;
        assert_eq!(browser.get("/destroy").await.status, 200);
        let outcome = tokio::time::timeout(Duration::from_secs(5), &mut ended).await;
        assert!(
            matches!(outcome, Ok(Ending::Destroyed)),
            "{format}: {outcome:?}"
        );
    }
}
