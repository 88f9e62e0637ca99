//! Two requests of one session, in both orders, in one process and in two.
//!
//! Both have loaded the session before either writes. In the last place the
//! row is locked meanwhile, so that both statements wait in the database at
//! once, queued in the order in which they came.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use axum::{Router, extract::Path, routing::get};
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Reaper, Session};

use crate::support::{
    Browser, Reply, Site,
    page::{Gate, InFlight, until},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    OneProcess,
    TwoProcesses,
    /// Two processes whose statements wait for the same row lock.
    OneRowLock,
}

const PLACES: [Place; 3] = [Place::OneProcess, Place::TwoProcesses, Place::OneRowLock];

async fn act(session: &Session, action: &str) -> Result<(), Error> {
    match action {
        "save" => session.insert("saved", true),
        "read" => session.get::<String>("base").map(drop),
        "cycle" => session.cycle_id(),
        "destroy" => session.destroy(),
        other => panic!("no action {other}"),
    }
}

fn gated(layer: PgSessionLayer, gate: Gate) -> Router {
    let handler = async move |session: Session, Path(action): Path<String>| {
        session.get::<String>("base")?;
        gate.pass().await;
        act(&session, &action).await
    };
    Router::new().route("/{action}", get(handler)).layer(layer)
}

async fn begin(layer: PgSessionLayer, browser: &Browser, action: &str) -> InFlight {
    InFlight::begin(browser, &format!("/{action}"), |gate| gated(layer, gate)).await
}

struct Race {
    site: Site,
    browser: Browser,
    first: Reply,
    second: Reply,
    /// For the lock of the row.
    waited: Duration,
}

/// A statement that waited for a lock for longer may be sent again, behind the
/// other one.
const KEEPS_ITS_PLACE: Duration = Duration::from_millis(500);

/// Lets `first` and `second` load, then write in this order.
async fn race(place: Place, first: &str, second: &str) -> Race {
    loop {
        let race = race_once(place, first, second).await;
        if race.waited < KEEPS_ITS_PLACE {
            return race;
        }
    }
}

async fn race_once(place: Place, first: &str, second: &str) -> Race {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/base/1").await;
    let here = site.layer().touch_interval(Duration::ZERO);
    let there = match place {
        Place::OneProcess => here.clone(),
        Place::TwoProcesses | Place::OneRowLock => {
            PgSessionLayer::new(site.elsewhere().await).touch_interval(Duration::ZERO)
        }
    };
    let first = begin(here, &browser, first).await;
    let second = begin(there, &browser, second).await;
    let ((first, second), waited) = match place {
        Place::OneRowLock => overlapping(&site, first, second).await,
        Place::OneProcess | Place::TwoProcesses => {
            let responses = (first.finish().await, second.finish().await);
            (responses, Duration::ZERO)
        }
    };
    Race {
        site,
        browser,
        first,
        second,
        waited,
    }
}

async fn overlapping(site: &Site, first: InFlight, second: InFlight) -> ((Reply, Reply), Duration) {
    let lock = site.lock_rows().await;
    let began = Instant::now();
    first.go_on();
    site.blocked(1).await;
    second.go_on();
    site.blocked(2).await;
    lock.commit().await.expect("a lock released");
    let waited = began.elapsed();
    ((first.response().await, second.response().await), waited)
}

impl Race {
    fn statuses(&self) -> (u16, u16) {
        (self.first.status.as_u16(), self.second.status.as_u16())
    }

    async fn is_over(&self) {
        assert_eq!(self.site.rows().count().await, 0, "no session is left");
        assert_eq!(self.browser.peek("/get/base").await.body, "none");
    }

    /// The old token opens nothing, and the browser that follows it is left
    /// alone.
    async fn left_the_old_id(&self) {
        let response = self.browser.peek("/keys").await;
        assert_eq!(response.body, "");
        assert!(response.sets_no_cookie());
    }

    /// What the browser reads with the cookie of this response.
    async fn keys_after(&self, response: &Reply) -> String {
        let mut browser = self.browser.clone();
        browser.accept(response);
        browser.peek("/keys").await.body
    }
}

async fn everywhere<F: Future<Output = ()>>(check: impl Fn(Place) -> F) {
    for place in PLACES {
        check(place).await;
    }
}

#[tokio::test]
async fn a_late_save_leaves_no_row_and_no_live_cookie() {
    everywhere(async |place| {
        let race = race(place, "destroy", "save").await;
        assert_eq!(race.statuses(), (200, 503), "{place:?}");
        assert!(race.second.sets_no_cookie(), "{place:?}");
        race.is_over().await;
    })
    .await;
}

#[tokio::test]
async fn a_save_before_destroy_ends_with_it() {
    everywhere(async |place| {
        let race = race(place, "save", "destroy").await;
        assert_eq!(race.statuses(), (200, 200), "{place:?}");
        assert!(
            race.first.sets_no_cookie() && race.second.removes_the_cookie(),
            "{place:?}"
        );
        race.is_over().await;
    })
    .await;
}

#[tokio::test]
async fn a_late_touch_leaves_no_row_and_no_live_cookie() {
    everywhere(async |place| {
        let race = race(place, "destroy", "read").await;
        assert_eq!(race.second.status.as_u16(), 200, "{place:?}");
        assert!(race.second.sets_no_cookie(), "{place:?}");
        race.is_over().await;
    })
    .await;
}

#[tokio::test]
async fn a_touch_before_destroy_ends_with_it() {
    everywhere(async |place| {
        let race = race(place, "read", "destroy").await;
        assert!(race.second.removes_the_cookie(), "{place:?}");
        race.is_over().await;
    })
    .await;
}

#[tokio::test]
async fn a_save_under_the_old_id_is_neither_lost_nor_revives_it() {
    everywhere(async |place| {
        let race = race(place, "cycle", "save").await;
        assert_eq!(race.second.status.as_u16(), 200, "{place:?}");
        assert!(race.second.sets_no_cookie(), "{place:?}");
        assert_eq!(
            race.keys_after(&race.first).await,
            "base,saved",
            "{place:?}"
        );
        race.left_the_old_id().await;
        assert_eq!(race.site.rows().count().await, 1, "{place:?}");
    })
    .await;
}

#[tokio::test]
async fn a_save_before_cycle_goes_along_with_it() {
    everywhere(async |place| {
        let race = race(place, "save", "cycle").await;
        assert_eq!(race.statuses(), (200, 200), "{place:?}");
        assert_eq!(
            race.keys_after(&race.second).await,
            "base,saved",
            "{place:?}"
        );
        race.left_the_old_id().await;
        assert_eq!(race.site.rows().count().await, 1, "{place:?}");
    })
    .await;
}

#[tokio::test]
async fn two_cycles_at_once_leave_one_session() {
    everywhere(async |place| {
        let race = race(place, "cycle", "cycle").await;
        assert_eq!(race.statuses(), (200, 503), "{place:?}");
        assert!(race.second.sets_no_cookie(), "{place:?}");
        assert_eq!(race.keys_after(&race.first).await, "base", "{place:?}");
        race.left_the_old_id().await;
        assert_eq!(race.site.rows().count().await, 1, "{place:?}");
    })
    .await;
}

#[tokio::test]
async fn a_late_cycle_leaves_no_row_and_no_live_cookie() {
    everywhere(async |place| {
        let race = race(place, "destroy", "cycle").await;
        assert_eq!(race.second.status.as_u16(), 503, "{place:?}");
        assert!(race.second.sets_no_cookie(), "{place:?}");
        race.is_over().await;
    })
    .await;
}

#[tokio::test]
async fn a_destroy_under_the_old_id_ends_the_session_that_cycled() {
    everywhere(async |place| {
        let race = race(place, "cycle", "destroy").await;
        assert_eq!(race.second.status.as_u16(), 200, "{place:?}");
        assert!(race.second.removes_the_cookie(), "{place:?}");
        assert_eq!(race.keys_after(&race.first).await, "", "{place:?}");
        race.is_over().await;
    })
    .await;
}

#[tokio::test]
async fn a_touch_before_cycle_and_after_it_leaves_one_session() {
    everywhere(async |place| {
        for (first, second) in [("read", "cycle"), ("cycle", "read")] {
            let race = race(place, first, second).await;
            assert_eq!(race.statuses(), (200, 200), "{place:?}");
            race.left_the_old_id().await;
            assert_eq!(race.site.rows().count().await, 1, "{place:?}");
        }
    })
    .await;
}

/// The store of the same table as this process or another one knows it.
async fn store_in(place: Place, site: &Site) -> PgSessionStore {
    match place {
        Place::OneProcess => site.store.clone(),
        Place::TwoProcesses | Place::OneRowLock => site.elsewhere().await,
    }
}

/// The request has loaded the session while it lived; it expires and is
/// reaped before the request is through.
async fn reaped_before(place: Place, action: &str) -> (Site, Reply) {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/base/1").await;
    let layer = site.layer().touch_interval(Duration::ZERO);
    let request = begin(layer, &browser, action).await;
    site.rows().age(1e6).await;
    let reaper = Reaper::new(store_in(place, &site).await);
    assert_eq!(reaper.run_once().await.expect("a run").deleted, 1);
    (site, request.finish().await)
}

#[tokio::test]
async fn nothing_after_the_reaper_revives_the_session() {
    for place in [Place::OneProcess, Place::TwoProcesses] {
        for (action, status) in [
            ("read", 200),
            ("save", 503),
            ("cycle", 503),
            ("destroy", 200),
        ] {
            let (site, response) = reaped_before(place, action).await;
            assert_eq!(response.status.as_u16(), status, "{place:?} {action}");
            assert!(response.token().is_none(), "{place:?} {action}");
            assert_eq!(site.rows().count().await, 0, "{place:?} {action}");
        }
    }
}

#[tokio::test]
async fn a_touch_before_the_reaper_saves_the_session() {
    for place in [Place::OneProcess, Place::TwoProcesses] {
        let site = Site::new().await;
        let mut browser = site.browser();
        browser.get("/insert/base/1").await;
        site.rows().age(86_300.0).await;
        let request = begin(site.layer(), &browser, "read").await;
        assert_eq!(request.finish().await.status.as_u16(), 200);
        site.rows().age(1000.0).await;
        let reaper = Reaper::new(store_in(place, &site).await);
        assert_eq!(reaper.run_once().await.expect("a run").deleted, 0);
        assert_eq!(browser.get("/keys").await.body, "base");
    }
}

/// A touch and the reaper wait for the same row: whichever comes first, a
/// session that was extended is not reaped.
#[tokio::test]
async fn a_touch_that_waits_beside_the_reaper_decides_by_the_clock() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/base/1").await;
    site.rows().age(86_300.0).await;
    let request = begin(site.layer(), &browser, "read").await;
    let lock = site.lock_rows().await;
    request.go_on();
    site.blocked(1).await;
    let reaper = Reaper::new(site.elsewhere().await);
    let reaping = tokio::spawn(async move { reaper.run_once().await });
    lock.commit().await.expect("a lock released");
    assert_eq!(request.response().await.status.as_u16(), 200);
    assert_eq!(reaping.await.expect("no panic").expect("a run").deleted, 0);
    assert_eq!(browser.get("/keys").await.body, "base");
}

#[tokio::test]
async fn a_request_that_is_cancelled_in_its_handler_saves_nothing_and_leaves_nothing() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/base/1").await;
    let before = site.rows().dump().await;
    for action in ["save", "cycle", "destroy"] {
        let request = begin(site.layer(), &browser, action).await;
        request.response.abort();
        assert!(request.response.await.expect_err("aborted").is_cancelled());
    }
    assert_eq!(site.rows().dump().await, before);
    until(async || site.pool.num_idle() == site.pool.size() as usize).await;
    assert_eq!(browser.get("/keys").await.body, "base");
}

#[tokio::test]
async fn every_earlier_id_of_a_chain_is_dead() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/base/1").await;
    let mut earlier = Vec::new();
    for _ in 0..5 {
        earlier.push(browser.clone());
        assert!(browser.get("/cycle").await.token().is_some());
    }
    for old in earlier {
        let response = old.peek("/keys").await;
        assert_eq!(
            (response.body.as_str(), response.sets_no_cookie()),
            ("", true)
        );
        assert_eq!(old.peek("/insert/intruder/1").await.status.as_u16(), 503);
        assert_eq!(old.peek("/destroy").await.status.as_u16(), 503);
    }
    assert_eq!(browser.get("/keys").await.body, "base");
    assert_eq!(site.rows().count().await, 1);
}

#[tokio::test]
async fn a_late_save_follows_a_chain_of_cycles() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/base/1").await;
    let request = begin(site.layer(), &browser, "save").await;
    for _ in 0..3 {
        browser.get("/cycle").await;
    }
    assert_eq!(request.finish().await.status.as_u16(), 200);
    assert_eq!(browser.get("/keys").await.body, "base,saved");
}
