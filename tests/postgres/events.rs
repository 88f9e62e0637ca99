//! `on_event`: what the hook receives when sessions begin, sign in and end.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, http::Request, routing::get};
use axum_pg_session::{
    Ending, Login, PgSessionLayer, PgSessionStore, Reaper, Session, SessionEvent,
    SessionEventKind::{self, Began, Ended, GotNewId, SignedIn},
    SessionLimitPolicy,
    testing::TestVisitor,
};

use crate::support::{
    Log, Site, app, execute,
    express::{SID, browser_of_express, stored},
    kit::{act, id},
};

/// What was received.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<SessionEvent>>>);

impl Received {
    fn by(&self, store: PgSessionStore) -> PgSessionStore {
        let received = self.clone();
        store.on_event(move |event| {
            received.0.lock().expect("no panic").push(event.clone());
        })
    }

    fn take(&self) -> Vec<SessionEvent> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }

    /// Kind and user of each.
    #[track_caller]
    fn are(&self, expected: &[(SessionEventKind, Option<&str>)]) -> Vec<SessionEvent> {
        let events = self.take();
        let seen: Vec<_> = events
            .iter()
            .map(|event| (event.kind(), event.user_id()))
            .collect();
        assert_eq!(seen, expected);
        events
    }
}

#[tokio::test]
async fn a_hook_receives_the_life_of_a_session() {
    let (site, received) = (Site::new().await, Received::default());
    let store = received.by(site.store.clone());
    let ada = TestVisitor::new(&PgSessionLayer::new(store.clone()));

    act(&ada, |session| session.insert("basket", 1)).await;
    let anonymous = id(&ada).await;
    let began = received.are(&[(Began, None)]);
    assert_eq!(*began[0].id(), anonymous);

    // A save and a load are no events.
    act(&ada, |session| session.insert("basket", 2)).await;
    received.are(&[]);

    act(&ada, Session::cycle_id).await;
    let cycled = received.are(&[(GotNewId, None)]);
    assert_eq!(cycled[0].previous_id(), Some(&anonymous));
    let anonymous = id(&ada).await;
    assert_eq!(*cycled[0].id(), anonymous);

    act(&ada, |session| session.login("ada")).await;
    let events = received.are(&[(Ended(Ending::Replaced), None), (SignedIn, Some("ada"))]);
    assert_eq!(*events[0].id(), anonymous);
    assert_eq!(events[1].previous_id(), None);
    let first = id(&ada).await;
    assert_eq!(*events[1].id(), first);

    act(&ada, |session| session.login("ada")).await;
    let again = received.are(&[(SignedIn, Some("ada"))]);
    assert_eq!(again[0].previous_id(), Some(&first));

    let last = id(&ada).await;
    act(&ada, Session::logout).await;
    let ended = received.are(&[(Ended(Ending::SignedOut), Some("ada"))]);
    assert_eq!(*ended[0].id(), last);

    // The first change of a visitor who signs in is no session of its own.
    act(&ada, |session| session.login("ada")).await;
    received.are(&[(SignedIn, Some("ada"))]);
}

#[tokio::test]
async fn a_hook_receives_each_session_that_another_call_ends() {
    let (site, received) = (Site::new().await, Received::default());
    let two = NonZeroU32::new(2).expect("not zero");
    let store = received.by(site.store.clone());
    let store = store.max_sessions_per_user(two, SessionLimitPolicy::EndOldest);
    let layer = PgSessionLayer::new(store.clone());
    let visitors = [(); 3].map(|()| TestVisitor::new(&layer));
    let [a, b, c] = &visitors;
    let signed_in = (SignedIn, Some("ada"));
    for visitor in [a, b] {
        act(visitor, |session| session.login("ada")).await;
        received.are(&[signed_in]);
    }
    let oldest = id(a).await;
    act(c, |session| session.login("ada")).await;
    let events = received.are(&[signed_in, (Ended(Ending::Evicted), Some("ada"))]);
    assert_eq!(*events[1].id(), oldest);

    let revoked = (Ended(Ending::Revoked), Some("ada"));
    act(c, |session| session.login(Login::new("ada").end_others())).await;
    received.are(&[signed_in, revoked]);
    let c = id(c).await;
    assert!(store.user("ada").destroy(&c).await.expect("a database"));
    let events = received.are(&[revoked]);
    assert_eq!(*events[0].id(), c);

    for visitor in [a, b] {
        act(visitor, |session| session.login("ada")).await;
    }
    received.take();
    store.user("ada").destroy_all().await.expect("a database");
    received.are(&[revoked, revoked]);
    for visitor in [a, b] {
        act(visitor, |session| session.insert("basket", 1)).await;
    }
    received.take();
    store.destroy_everyone().await.expect("a database");
    received.are(&[
        (Ended(Ending::Revoked), None),
        (Ended(Ending::Revoked), None),
    ]);
    store.destroy(&c).await.expect("a database");
    received.are(&[]);
}

#[tokio::test]
async fn an_expiry_is_reported_once_by_the_reaper_that_deletes_the_row() {
    let site = Site::new().await;
    let received = [Received::default(), Received::default()];
    let stores = [
        received[0].by(site.store.clone()),
        received[1].by(site.elsewhere().await),
    ];
    let ada = TestVisitor::new(&PgSessionLayer::new(stores[0].clone()));
    act(&ada, |session| session.login("ada")).await;
    act(&ada, Session::cycle_id).await;
    let last = id(&ada).await;
    let bob = TestVisitor::new(&PgSessionLayer::new(stores[0].clone()));
    act(&bob, |session| session.insert("a", "\"successor\"")).await;
    received[0].take();
    site.rows().age(86_400.0 * 40.0).await;

    let [here, there] = stores.map(Reaper::new);
    let (here, there) = tokio::join!(here.run_once(), there.run_once());
    here.and(there).expect("a database");
    // One of them finds the lock taken, or nothing left.
    let mut events: Vec<_> = received.iter().flat_map(Received::take).collect();
    events.sort_by_key(|event| event.user_id().map(str::to_owned));
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.kind(), event.user_id()))
        .collect();
    let expired = Ended(Ending::Expired);
    // The row of the old id was no session any more.
    assert_eq!(seen, [(expired, None), (expired, Some("ada"))]);
    assert_eq!(*events[1].id(), last);
}

#[tokio::test]
async fn an_event_names_the_realm_of_its_user() {
    let (site, received) = (Site::new().await, Received::default());
    let admin = received.by(site.store.clone()).realm("admin");
    let ada = TestVisitor::new(&PgSessionLayer::new(admin));
    act(&ada, |session| session.login("1")).await;
    let events = received.are(&[(SignedIn, Some("1"))]);
    assert_eq!(events[0].realm(), Some("admin"));
    assert_eq!(*events[0].id(), id(&ada).await);
}

#[tokio::test]
async fn a_hook_that_panics_changes_nothing() {
    let (site, log) = (Site::new().await, Log::keep());
    let store = site.store.clone().on_event(|_| panic!("of the hook"));
    let ada = TestVisitor::new(&PgSessionLayer::new(store.clone()));
    act(&ada, |session| session.login("ada")).await;
    assert_eq!(store.user("ada").count().await.expect("a database"), 1);
    act(&ada, Session::logout).await;
    assert_eq!(store.user("ada").count().await.expect("a database"), 0);
    let said = "the hook for events of sessions panicked";
    assert_eq!(log.text().matches(said).count(), 2);
}

/// The list of devices shows it, and it expires before the user ends it there.
#[tokio::test]
async fn an_expired_session_that_its_user_ends_is_reported_by_the_reaper() {
    let (site, received) = (Site::new().await, Received::default());
    let store = received.by(site.store.clone());
    let ada = TestVisitor::new(&PgSessionLayer::new(store.clone()));
    act(&ada, |session| session.login("ada")).await;
    let expired = id(&ada).await;
    site.rows().age(86_400.0 * 40.0).await;
    received.take();

    let ended = store.user("ada").destroy(&expired).await;
    assert!(!ended.expect("a database"));
    received.are(&[]);
    let reaped = Reaper::new(store).run_once().await;
    assert_eq!(reaped.expect("a database").deleted, 1);
    received.are(&[(Ended(Ending::Expired), Some("ada"))]);
}

#[tokio::test]
async fn a_session_that_lowered_timeouts_ended_is_reported_as_expired() {
    let (site, received) = (Site::new().await, Received::default());
    let store = received.by(site.store.clone());
    let before = TestVisitor::new(&PgSessionLayer::new(store.clone()));
    act(&before, |session| session.login("ada")).await;
    site.rows().age_creation(7200.0).await;
    received.take();
    let page = get(async |session: Session| session.insert("basket", 1));
    let request = || Request::get("/").body(Body::empty()).expect("a request");

    let lowered = PgSessionLayer::new(store.clone()).absolute_timeout(Duration::from_hours(1));
    let app = Router::new().route("/", page.clone()).layer(lowered);
    before.send(&app, request()).await.expect("a database");
    let events = received.take();
    let kinds: Vec<_> = events.iter().map(SessionEvent::kind).collect();
    assert!(kinds.contains(&Ended(Ending::Expired)), "{kinds:?}");

    let refusing = PgSessionLayer::new(store).valid_if(async |_: Session, _| false);
    let app = Router::new().route("/", page).layer(refusing);
    before.send(&app, request()).await.expect("a database");
    let events = received.take();
    let kinds: Vec<_> = events.iter().map(SessionEvent::kind).collect();
    assert!(kinds.contains(&Ended(Ending::Rejected)), "{kinds:?}");
}

/// The statement is cut, and its last part fails with an error that is not of a row.
#[tokio::test]
async fn sessions_are_reported_although_a_later_part_of_the_same_call_fails() {
    let (site, received) = (Site::new().await, Received::default());
    let store = received.by(site.store.clone());
    let layer = PgSessionLayer::new(store.clone());
    for _ in 0..8 {
        act(&TestVisitor::new(&layer), |session| {
            session.insert("basket", 1)
        })
        .await;
    }
    received.take();
    execute(
        &site.pool,
        "CREATE SEQUENCE deleted;
         CREATE TABLE last AS SELECT max(id) AS id FROM session;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('public.deleted') = 1 THEN RAISE 'a row'; END IF;
             IF OLD.id = (SELECT id FROM public.last) THEN
                 RAISE 'no memory' USING ERRCODE = '53200';
             END IF;
             RETURN OLD;
         END $$;
         CREATE TRIGGER refuse BEFORE DELETE ON session FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    store.destroy_everyone().await.expect_err("a part failed");
    let left = site.rows().count().await;
    assert!((1..8).contains(&left), "{left}");
    let ended: Vec<_> = received.take().iter().map(SessionEvent::kind).collect();
    assert_eq!(ended, vec![Ended(Ending::Revoked); 8 - left as usize]);
}

/// Express doesn't refuse the character that separates a realm from a user.
#[tokio::test]
async fn an_event_of_a_user_of_express_names_no_other_user() {
    let site = Site::of_migrated_express().await;
    let users = Arc::new(Mutex::new(Vec::new()));
    let received = Arc::clone(&users);
    let store = site.store.clone().on_event(move |event| {
        let user = event.user_id().map(str::to_owned);
        received.lock().expect("no panic").push(user);
    });
    site.express_writes(SID, &stored(r#""passport":{"user":"x\u001fada"}"#))
        .await;
    let mut browser = browser_of_express(&app(PgSessionLayer::new(store)));
    assert_eq!(site.user(&browser).await, "x\u{1f}ada");
    browser.get("/cycle").await;
    browser.get("/destroy").await;
    let users = users.lock().expect("no panic").clone();
    let expected = Some("x\u{1f}ada".to_owned());
    assert_eq!(users, [expected.clone(), expected]);
}
