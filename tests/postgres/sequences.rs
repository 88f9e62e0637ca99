//! Races between several calls of one request and other requests, and calls that the handler gave
//! up on. Each test is the regression test of a fixed bug.

use std::{
    future::{Future as _, pending, poll_fn, ready},
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    handler::Handler,
    http::{HeaderName, HeaderValue, StatusCode},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use axum_pg_session::{
    ClearSiteData, CookieLifetime, Error, ErrorKind, Expiry, FailurePolicy, Key, LazySession,
    Login, PgSessionLayer, PgSessionStore, Session, SessionId, SessionLimitPolicy,
};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction, postgres::PgPoolOptions};
use tokio::{
    sync::{Barrier, Semaphore},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::support::{
    Browser, Reply, Site, app, execute,
    page::{Gate, InFlight, app_with, patiently, polled_once, until},
    texts,
};

/// A site, and a browser whose session there has the key `a`.
async fn visited() -> (Site, Browser) {
    let site = Site::new().await;
    let browser = site.visitor().await;
    (site, browser)
}

/// Visits a page that gives its session a new id. The commit is held until the
/// store no longer waits for it.
async fn commits_too_late<H, T>(site: &Site, store: PgSessionStore, browser: &Browser, page: H)
where
    H: Handler<T, ()>,
    T: 'static,
{
    let held = site.hold_commits().await;
    let layer = PgSessionLayer::new(store.timeout(Duration::from_millis(300)));
    let reply = browser.at(&app_with(layer, page)).peek("/page").await;
    assert_eq!(reply.status, 503);
    assert!(reply.sets_no_cookie());
    drop(held);
}

#[tokio::test]
async fn a_save_that_follows_a_new_id_shows_nothing_of_the_new_session() {
    let site = Site::new().await;
    let mut victim = site.browser();
    victim.get("/insert/basket/pear").await;
    let attacker = victim.clone();
    let attack = site
        .late(&attacker, async move |session: Session| {
            session.insert("planted", 1)?;
            session.save().await?;
            session.touch()?;
            Ok::<_, Error>(format!(
                "{:?} {:?} {}",
                session.keys(),
                session.user_id(),
                session.authenticated_within(Duration::from_secs(3600))
            ))
        })
        .await;
    let mut visitor = victim.at(&site.app_with(async |session: Session| {
        session.insert("secret", 1)?;
        session.login("alice")
    }));
    visitor.get("/page").await;
    let reply = attack.finish().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body, r#"["basket", "planted"] None false"#);
    assert!(reply.sets_no_cookie());
    let mut signed_in = visitor.at(&site.app());
    assert_eq!(signed_in.get("/keys").await.body, "basket,secret,planted");
}

#[tokio::test]
async fn a_discard_after_a_save_that_followed_shows_again_what_the_request_saw() {
    let (site, mut browser) = visited().await;
    let late = site
        .late(&browser, async move |session: Session| {
            session.insert("b", 1)?;
            session.save().await?;
            session.destroy()?;
            session.discard()?;
            Ok::<_, Error>(session.keys().join(","))
        })
        .await;
    browser.get("/cycle").await;
    assert_eq!(late.finish().await.body, "a,b");
}

#[tokio::test]
async fn no_token_of_a_session_is_given_to_a_request_under_its_old_id() {
    let site = Site::new().await;
    let mut victim = site.browser();
    victim.get("/insert/basket/pear").await;
    let attacker = victim.clone();
    let attack = site
        .late(&attacker, async move |session: Session| {
            session.insert("planted", 1)?;
            session.save().await?;
            session.cycle_id()?;
            session.save().await
        })
        .await;
    let mut visitor = victim.at(&site.app_with(async |session: Session| session.login("alice")));
    visitor.get("/page").await;
    let reply = attack.finish().await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.headers["retry-after"], "5");
    assert!(reply.sets_no_cookie());
    // The victim's token lives.
    assert_eq!(
        visitor.at(&site.app()).get("/keys").await.body,
        "basket,planted"
    );
}

#[tokio::test]
async fn a_body_that_goes_on_reading_sees_nothing_of_the_new_session() {
    let site = Site::new().await;
    let kept = Arc::new(std::sync::Mutex::new(None));
    let mut victim = site.browser();
    victim.get("/insert/basket/pear").await;
    let attack = InFlight::begin(&victim, "/page", |gate| {
        let kept = Arc::clone(&kept);
        site.app_with(async move |session: Session| {
            gate.pass().await;
            *kept.lock().expect("no panic") = Some(session.clone());
            session.insert("planted", 1)
        })
    })
    .await;
    let mut visitor = victim.at(&site.app_with(async |session: Session| session.login("alice")));
    visitor.get("/page").await;
    assert_eq!(attack.finish().await.status, 200);
    let session = kept.lock().expect("no panic").take().expect("kept");
    assert_eq!(session.keys(), ["basket", "planted"]);
    assert_eq!(session.user_id(), None);
}

#[tokio::test]
async fn a_touch_after_a_save_that_followed_leaves_the_cookie_of_the_other_tab() {
    let (site, mut browser) = visited().await;
    let late = site
        .late(&browser, async move |session: Session| {
            session.insert("b", 1)?;
            session.save().await?;
            session.set_expiry(axum_pg_session::Expiry::Idle(Duration::from_secs(60)))?;
            session.touch()
        })
        .await;
    browser.get("/cycle").await;
    let reply = late.finish().await;
    assert_eq!(reply.status, 200);
    assert!(reply.sets_no_cookie());
}

#[tokio::test]
async fn a_discard_does_not_revive_what_the_check_refused() {
    let site = Site::new().await;
    let layer = site
        .layer()
        .valid_if(async |session, _| !session.contains_key("banned"));
    let mut browser = Browser::new(&app(layer.clone()));
    browser.get("/insert/banned/1").await;
    let discarding = app_with(layer, async |session: Session| {
        session.discard()?;
        Ok::<_, Error>(session.keys().join(","))
    });
    let reply = browser.at(&discarding).get("/page").await;
    reply.assert(200, "");
    assert_eq!(site.rows().count().await, 0);
}

/// A page that does `before`, and gives up on a save that something blocks. When
/// the gate opens, it does `go_on`. Also returns its session.
async fn gives_up_on_a_save<H, Fut>(
    site: &Site,
    browser: &Browser,
    layer: PgSessionLayer,
    before: Act,
    go_on: H,
) -> (InFlight, Session)
where
    H: Fn(Session) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output: IntoResponse> + Send,
{
    let place = Arc::new(std::sync::Mutex::new(None));
    let kept = Arc::clone(&place);
    let visit = InFlight::begin(browser, "/page", |gate| {
        app_with(layer, async move |session: Session| {
            before(&session)?;
            assert!(polled_once(session.save()).await.is_none());
            *kept.lock().expect("no panic") = Some(session.clone());
            gate.pass().await;
            Ok::<_, Error>(go_on(session).await)
        })
    })
    .await;
    patiently(until(|| site.is_blocked())).await;
    let session = place.lock().expect("no panic").take();
    (visit, session.expect("kept"))
}

/// A page that gave up on a save, and has returned while the commit is held.
struct GaveUp {
    visit: InFlight,
    held: Transaction<'static, Postgres>,
}

impl GaveUp {
    async fn on_a_save(site: &Site, browser: &Browser, before: Act, after: Act) -> Self {
        let held = site.hold_commits().await;
        let has_returned = Arc::new(Semaphore::new(0));
        let returns = Arc::clone(&has_returned);
        let go_on = move |session: Session| {
            let outcome = after(&session);
            // The response begins to wait for the save in the same poll.
            returns.add_permits(1);
            ready(outcome)
        };
        let (visit, _) = gives_up_on_a_save(site, browser, site.layer(), before, go_on).await;
        visit.go_on();
        drop(patiently(has_returned.acquire()).await.expect("open"));
        Self { visit, held }
    }

    async fn response(self) -> Reply {
        drop(self.held);
        self.visit.response().await
    }

    async fn visitor_leaves(self) {
        self.visit.response.abort();
        assert!(self.visit.response.await.is_err());
        drop(self.held);
    }
}

type Act = fn(&Session) -> Result<(), Error>;

fn sign_in(session: &Session) -> Result<(), Error> {
    session.insert("secret", "alice's")?;
    session.login(Login::new("alice"))
}

/// Whose session is new, or was stored before.
async fn with_and_without_a_row() -> [(Site, Browser); 2] {
    let site = Site::new().await;
    let browser = site.browser();
    [(site, browser), visited().await]
}

#[tokio::test]
async fn a_logout_also_ends_what_a_save_in_flight_commits() {
    for end in [Session::logout, Session::destroy] {
        for (site, mut browser) in with_and_without_a_row().await {
            let given_up = GaveUp::on_a_save(&site, &browser, sign_in, end).await;
            let reply = given_up.response().await;
            browser.accept(&reply);
            assert_eq!(reply.status, 200);
            assert!(reply.token().is_none());
            assert!(browser.jar.is_empty());
            assert_eq!(site.sessions_of("alice").await, 0);
        }
    }
}

#[tokio::test]
async fn a_logout_whose_visitor_leaves_ends_what_a_save_in_flight_commits() {
    for (site, browser) in with_and_without_a_row().await {
        let given_up = GaveUp::on_a_save(&site, &browser, sign_in, Session::logout).await;
        given_up.visitor_leaves().await;
        patiently(until(async || site.rows().count().await == 0)).await;
    }
}

#[tokio::test]
async fn a_second_login_beside_a_save_of_the_first_drops_the_data_of_the_first_user() {
    for (site, mut browser) in with_and_without_a_row().await {
        let given_up = GaveUp::on_a_save(&site, &browser, sign_in, |session| {
            assert_eq!(session.user_id().as_deref(), Some("alice"));
            session.login("bob")?;
            session.insert("note", "bob's")
        })
        .await;
        let reply = given_up.response().await;
        assert_eq!(reply.status, 200);
        browser.accept(&reply);
        let here = async |session: Session| format!("{:?} {:?}", session.user_id(), session.keys());
        let reply = browser.at(&site.app_with(here)).peek("/page").await;
        assert_eq!(reply.body, r#"Some("bob") ["note"]"#);
    }
}

#[tokio::test]
async fn a_save_that_the_hook_refuses_drops_the_changes() {
    let site = Site::new().await;
    let refusals = Arc::new(AtomicUsize::new(1));
    let layer = site
        .layer()
        .before_save(move |_| match refusals.fetch_sub(1, Ordering::Relaxed) {
            1 => Err(Error::application("not yet")),
            _ => Ok(()),
        });
    let page = app_with(layer, async |session: Session| {
        session.insert("a", 1)?;
        session.login("alice")?;
        let error = session.save().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Application);
        assert_eq!((session.keys().len(), session.user_id()), (0, None));
        session.insert("b", 2)
    });
    Browser::new(&page).get("/page").await;
    assert_eq!(site.rows().text().await, r#"{"b":2}"#);
}

#[tokio::test]
async fn a_poll_under_an_expired_token_leaves_the_cookie_of_a_new_sign_in() {
    let (site, mut browser) = visited().await;
    site.rows()
        .execute("UPDATE TABLE SET expiry = now() - interval '1 s'")
        .await;
    // The poll was sent with the old cookie, and its response arrives last.
    let poll = browser.peek("/keys").await;
    browser.get("/insert/b/2").await;
    browser.accept(&poll);
    assert_eq!(browser.get("/keys").await.body, "b");
}

#[tokio::test]
async fn of_two_logins_in_flight_each_gets_a_session_with_the_basket() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    let login = |gate: Gate| {
        site.app_with(async move |session: Session| {
            drop(session.keys());
            gate.pass().await;
            session.login("alice")
        })
    };
    let first = InFlight::begin(&browser, "/page", login).await;
    let second = InFlight::begin(&browser, "/page", login).await;
    for reply in [first.finish().await, second.finish().await] {
        assert_eq!(reply.status, 200);
        let mut browser = site.browser();
        browser.accept(&reply);
        assert_eq!(browser.get("/keys").await.body, "basket");
    }
    assert_eq!(site.sessions_of("alice").await, 2);
}

#[tokio::test]
async fn a_login_in_flight_brings_nothing_back_of_a_session_that_was_ended() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    let late = site
        .late(&browser, async move |session: Session| {
            session.login("alice")
        })
        .await;
    let mut tab = browser.at(&site.app());
    tab.get("/cycle").await;
    tab.get("/cycle").await;
    tab.get("/destroy").await;
    let reply = late.finish().await;
    assert_eq!(reply.status, 503);
    assert!(reply.sets_no_cookie());
}

#[tokio::test]
async fn a_write_under_an_old_id_is_refused_for_as_long_as_retry_after_says() {
    let (site, mut browser) = visited().await;
    // The response with the new token is lost.
    browser.peek("/cycle").await;
    let refused = browser.peek("/insert/b/2").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "5");
    assert!(refused.sets_no_cookie());
    assert_eq!(browser.peek("/keys").await.body, "");
    assert_eq!(browser.peek("/destroy").await.status, 503);

    let forwarding = "UPDATE TABLE SET expiry = expiry - interval '3500 ms' WHERE session::text LIKE '%successor%'";
    site.rows().execute(forwarding).await;
    let refused = browser.peek("/insert/b/2").await;
    assert_eq!(refused.headers["retry-after"], "2");

    site.rows().execute(forwarding).await;
    let begun = browser.get("/insert/b/2").await;
    assert_eq!(begun.status, 200);
    assert_eq!(browser.get("/keys").await.body, "b");
}

#[tokio::test]
async fn a_new_id_whose_commit_comes_too_late_is_undone() {
    for act in ["cycle", "login", "login that drops the data"] {
        let site = Site::new().await;
        let mut browser = site.visitor().await;
        let before = site.rows().dump().await;
        let page = async move |session: Session| {
            session.insert("b", 2)?;
            match act {
                "cycle" => session.cycle_id(),
                "login" => session.login("alice"),
                _ => session.login(Login::new("alice").discard_data()),
            }
        };
        commits_too_late(&site, site.elsewhere().await, &browser, page).await;
        site.settled().await;
        patiently(until(async || site.rows().dump().await == before)).await;
        assert_eq!(browser.get("/keys").await.body, "a", "{act}");
    }
}

#[tokio::test]
async fn a_new_id_whose_request_was_given_up_is_undone() {
    let (site, mut browser) = visited().await;
    let before = site.rows().dump().await;
    site.gives_up(browser.clone(), "/cycle").await;
    patiently(until(async || site.rows().dump().await == before)).await;
    assert_eq!(browser.get("/keys").await.body, "a");
}

#[tokio::test]
async fn a_first_row_whose_request_was_given_up_is_deleted() {
    let site = Site::new().await;
    site.gives_up(site.browser(), "/insert/a/1").await;
    patiently(until(async || site.rows().count().await == 0)).await;
}

/// All sessions of the former user may have been destroyed while the login of
/// the other one was being committed, and not found this one.
#[tokio::test]
async fn a_login_of_another_user_that_is_undone_ends_the_session_of_the_former_user() {
    let site = Site::new().await;
    let alice = site.visitor().await;
    let mut sign_in = alice.at(&site.app_with(async |session: Session| session.login("alice")));
    sign_in.get("/page").await;
    let page = async |session: Session| session.login("bob");
    commits_too_late(&site, site.elsewhere().await, &sign_in, page).await;
    let live = "SELECT count(*)::text FROM session WHERE user_id IS NOT NULL";
    until(async || texts(&site.pool, live).await == ["0"]).await;
    site.settled().await;
    assert_eq!(texts(&site.pool, live).await, ["0"]);
    assert_eq!(sign_in.peek("/keys").await.body, "");
}

/// As a timeout layer inside of the session layer does.
async fn times_out(request: axum::extract::Request, next: Next) -> Response {
    tokio::select! {
        biased;
        response = next.run(request) => response,
        () = tokio::task::yield_now() => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

#[tokio::test]
async fn a_handler_that_a_timeout_inside_of_the_layer_cancels_saves_nothing() {
    let site = Site::new().await;
    let app = Router::new()
        .route(
            "/",
            get(async |session: Session| {
                session.insert("half", 1)?;
                session.login("alice")?;
                std::future::pending::<()>().await;
                Ok::<_, Error>(())
            }),
        )
        .layer(from_fn(times_out))
        .layer(site.layer());
    let reply = Browser::new(&app).get("/").await;
    assert_eq!(reply.status, 408);
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn the_application_chooses_which_responses_save() {
    let site = Site::new().await;
    let layer = site
        .layer()
        .save_if(|request, status| request.uri.path().ends_with("/b/1") && status == 500);
    let mut browser = Browser::new(&app(layer));
    browser.get("/insert_and/200/b/1").await;
    browser.get("/insert_and/500/c/1").await;
    assert_eq!(site.rows().count().await, 0);
    browser.get("/insert_and/500/b/1").await;
    assert_eq!(site.rows().text().await, r#"{"b":"1"}"#);
}

/// Runs this page for so many requests that have all loaded the session.
async fn at_once(site: &Site, browser: &Browser, requests: usize, page: Page) -> Vec<String> {
    let barrier = Arc::new(Barrier::new(requests));
    let pages = [site.layer(), PgSessionLayer::new(site.elsewhere().await)].map(|layer| {
        let barrier = Arc::clone(&barrier);
        app_with(layer, async move |session: Session| {
            drop(session.keys());
            barrier.wait().await;
            page(session).await
        })
    });
    let mut replies = JoinSet::new();
    for number in 0..requests {
        let browser = browser.at(&pages[number % 2]);
        replies.spawn(async move { browser.peek("/page").await });
    }
    let replies = replies.join_all().await;
    replies
        .into_iter()
        .map(|reply| {
            assert_eq!(reply.status, 200, "{}", reply.body);
            reply.body
        })
        .collect()
}

type Page = fn(Session) -> futures_core::future::BoxFuture<'static, Result<String, Error>>;

#[tokio::test]
async fn of_twenty_requests_that_take_a_value_one_gets_it() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/nonce/8f3a").await;
    let taken = at_once(&site, &browser, 20, |session| {
        Box::pin(async move {
            let taken: Option<String> = session.take("nonce").await?;
            Ok(taken.unwrap_or_default())
        })
    })
    .await;
    assert_eq!(taken.iter().filter(|value| *value == "8f3a").count(), 1);
    assert_eq!(taken.iter().filter(|value| value.is_empty()).count(), 19);
}

#[tokio::test]
async fn of_twenty_attempts_under_a_limit_of_three_three_pass() {
    let (site, browser) = visited().await;
    let numbers = at_once(&site, &browser, 20, |session| {
        Box::pin(async move {
            let number = session
                .update_now("attempts", |n: Option<u32>| n.unwrap_or(0) + 1)
                .await?;
            Ok(number.to_string())
        })
    })
    .await;
    let passed = numbers
        .iter()
        .filter(|n| n.parse::<u32>().expect("a number") <= 3);
    assert_eq!(passed.count(), 3);
    let mut numbers: Vec<u32> = numbers
        .iter()
        .map(|n| n.parse().expect("a number"))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_value_of_another_type_is_not_taken() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/nonce/8f3a").await;
    let page = site.app_with(async |session: Session| {
        let error = session.take::<u64>("nonce").await.expect_err("text");
        assert_eq!(error.kind(), ErrorKind::Deserialize);
        assert_eq!(session.take::<u64>("none").await?, None);
        Ok::<_, Error>(())
    });
    assert_eq!(browser.at(&page).get("/page").await.status, 200);
    assert_eq!(browser.get("/get/nonce").await.body, "\"8f3a\"");
}

#[tokio::test]
async fn nothing_is_taken_from_a_session_under_a_new_id() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/nonce/8f3a").await;
    let late = site
        .late(&browser, async move |session: Session| {
            let error = session.take::<String>("nonce").await.expect_err("moved");
            let another = session
                .update_now("n", |n: Option<u8>| n.unwrap_or(0))
                .await;
            let another = another.expect_err("moved");
            assert_eq!(
                (error.kind(), another.kind()),
                (ErrorKind::Ended, ErrorKind::Ended)
            );
        })
        .await;
    browser.get("/cycle").await;
    assert_eq!(late.finish().await.status, 200);
    assert_eq!(browser.get("/keys").await.body, "nonce");
}

#[tokio::test]
async fn a_logout_after_a_failed_take_ends_the_session_under_its_new_id() {
    for moves in [true, false] {
        let site = Site::new().await;
        let mut browser = site.browser();
        browser.get("/insert/nonce/8f3a").await;
        let late = site
            .late(&browser, async move |session: Session| {
                let error = session.take::<String>("nonce").await.expect_err("ended");
                assert_eq!(error.kind(), ErrorKind::Ended);
                session.logout()?;
                session.discard()?;
                assert!(session.insert("b", 1).is_ok() && session.save().await.is_err());
                session.logout()?;
                assert!(session.is_new() && session.is_empty());
                session.insert("c", 1)
            })
            .await;
        browser.get(if moves { "/cycle" } else { "/destroy" }).await;
        let reply = late.finish().await;
        assert_eq!(reply.status, 200, "{moves}");
        assert_eq!(browser.peek("/keys").await.body, "", "{moves}");
        browser.accept(&reply);
        assert_eq!(browser.get("/keys").await.body, "c", "{moves}");
        let nonce = "SELECT count(*)::text FROM session WHERE session::text LIKE '%8f3a%'";
        assert_eq!(texts(&site.pool, nonce).await, ["0"], "{moves}");
    }
}

#[tokio::test]
async fn of_two_logins_that_take_a_value_one_gets_it() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/nonce/8f3a").await;
    let sign_in = |gate: Gate| {
        site.app_with(async move |session: Session| {
            gate.pass().await;
            session.login("alice")?;
            let taken: Option<String> = session.take("nonce").await?;
            Ok::<_, Error>(taken.unwrap_or_default())
        })
    };
    let first = InFlight::begin(&browser, "/page", sign_in).await;
    let second = InFlight::begin(&browser, "/page", sign_in).await;
    let first = first.finish().await;
    first.assert(200, "8f3a");
    let second = second.finish().await;
    assert_eq!(second.status, 503);
    assert!(second.sets_no_cookie());
}

#[tokio::test]
async fn a_login_after_a_save_that_followed_takes_nothing() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/nonce/8f3a").await;
    let late = site
        .late(&browser, async move |session: Session| {
            session.insert("a", 1)?;
            session.save().await?;
            session.login("alice")?;
            let taken: Option<String> = session.take("nonce").await?;
            Ok::<_, Error>(taken.unwrap_or_default())
        })
        .await;
    browser.get("/cycle").await;
    assert_eq!(late.finish().await.status, 503);
    assert_eq!(browser.get("/get/nonce").await.body, "\"8f3a\"");
}

#[tokio::test]
async fn a_take_beside_one_that_fails_returns_what_it_commits() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/nonce/8f3a").await;
    let page = site.app_with(async |session: Session| {
        session.insert("n", "text")?;
        let (number, taken) =
            tokio::join!(session.take::<u64>("n"), session.take::<String>("nonce"),);
        assert_eq!(number.expect_err("text").kind(), ErrorKind::Deserialize);
        assert_eq!(taken?.as_deref(), Some("8f3a"));
        Ok::<_, Error>(())
    });
    assert_eq!(browser.at(&page).get("/page").await.status, 200);
    assert_eq!(browser.get("/get/nonce").await.body, "none");
}

#[tokio::test]
async fn a_hook_that_clears_the_session_leaves_update_now_its_value() {
    let (site, browser) = visited().await;
    let layer = site.layer().before_save(Session::clear);
    let page = async |session: Session| {
        let count = |n: Option<u32>| n.unwrap_or(0) + 1;
        let counted = session.update_now("n", count).await?;
        Ok::<_, Error>(counted.to_string())
    };
    let reply = browser.at(&app_with(layer, page)).peek("/page").await;
    reply.assert(200, "1");
    assert_eq!(browser.peek("/keys").await.body, "");
}

/// The forwarding was deleted on its own, and then nothing led to the session.
#[tokio::test]
async fn a_destroy_under_an_old_id_that_fails_can_be_repeated() {
    let (site, mut browser) = visited().await;
    let old_id: SessionId = browser.handle().await;
    browser.get("/cycle").await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF old.session::text LIKE '%successor%' THEN RETURN old; END IF;
            RAISE EXCEPTION 'not now';
        END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON session FOR EACH ROW EXECUTE FUNCTION refuse()";
    execute(&site.pool, refuse).await;
    assert!(site.store.destroy(&old_id).await.is_err());
    assert_eq!(browser.peek("/keys").await.body, "a");
    execute(&site.pool, "DROP TRIGGER refuse ON session").await;
    assert!(site.store.destroy(&old_id).await.expect("a deletion"));
    assert_eq!(browser.peek("/keys").await.body, "");
    assert_eq!(site.rows().count().await, 0);
    assert!(!site.store.destroy(&old_id).await.expect("a deletion"));
}

/// Its document is short and holds the word by which a forwarding is found.
#[tokio::test]
async fn a_session_that_looks_like_a_forwarding_can_be_destroyed() {
    let site = Site::new().await;
    for key in ["successor", "_session_successor"] {
        let mut browser = site.browser();
        browser.get(&format!("/insert/{key}/successor")).await;
        assert_eq!(site.rows().count().await, 1);
        assert_eq!(browser.get("/destroy").await.status, 200);
        assert_eq!(site.rows().count().await, 0);
    }
}

#[tokio::test]
async fn a_second_login_keeps_the_data_of_the_former_user_apart() {
    let (site, browser) = visited().await;
    let mut bob = browser.at(&site.app_with(async |session: Session| session.login("bob")));
    bob.get("/page").await;
    let late = site
        .late(&bob, async move |session: Session| {
            session.insert("late", 1)
        })
        .await;
    let mut alice = bob.at(&site.app_with(async |session: Session| {
        session.login("alice")?;
        session.login(Login::new("alice").cookie_lifetime(CookieLifetime::BrowserSession))
    }));
    assert_eq!(alice.get("/page").await.status, 200);
    assert_eq!(late.finish().await.status, 503);
    assert_eq!(alice.at(&site.app()).get("/keys").await.body, "");
}

#[tokio::test]
async fn a_new_id_of_koas_whose_commit_comes_too_late_is_undone() {
    let site = Site::of_koa().await;
    let browser = site.visitor().await;
    let page = async |session: Session| session.cycle_id();
    commits_too_late(&site, site.store.clone(), &browser, page).await;
    site.settled().await;
    patiently(until(async || {
        browser.peek("/keys").await.body == "a" && site.rows().count().await == 1
    }))
    .await;
}

#[tokio::test]
async fn a_login_of_koas_that_is_undone_keeps_the_age_of_the_session() {
    let site = Site::of_koa().await;
    let columns = "ALTER TABLE session ADD user_id text, ADD created timestamptz DEFAULT now()";
    execute(&site.pool, columns).await;
    let browser = site.visitor().await;
    let an_hour_ago = "UPDATE TABLE SET created = created - interval '1 hour'";
    site.rows().execute(an_hour_ago).await;
    let created = "SELECT id || created FROM session";
    let before = texts(&site.pool, created).await;
    let page = async |session: Session| session.login("alice");
    commits_too_late(&site, site.store.clone(), &browser, page).await;
    until(async || {
        site.settled().await;
        texts(&site.pool, created).await == before
    })
    .await;
    assert_eq!(browser.peek("/keys").await.body, "a");
}

/// Otherwise the dead token would replace the new one in the browser.
#[tokio::test]
async fn a_cookie_that_a_save_renewed_is_not_sent_after_the_session_got_a_new_id() {
    let (site, mut browser) = visited().await;
    for (moves, seconds) in [(false, 900), (true, 800)] {
        let late = InFlight::begin(&browser, "/page", |gate| {
            site.app_with(async move |session: Session| {
                session.set_expiry(Expiry::Idle(Duration::from_secs(seconds)))?;
                session.save().await?;
                gate.pass().await;
                Ok::<_, Error>(())
            })
        })
        .await;
        if moves {
            browser.get("/cycle").await;
        }
        let reply = late.finish().await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.sets_no_cookie(), moves);
    }
    assert_eq!(browser.get("/keys").await.body, "a");
}

#[tokio::test]
async fn a_logout_that_a_request_cannot_execute_is_an_error_whatever_else_it_does() {
    let (site, browser) = visited().await;
    browser.peek("/cycle").await;
    let saves_nothing = site.layer().save_if(|_, _| false);
    let page = async |session: Session| session.logout();
    assert_eq!(
        browser
            .at(&app_with(saves_nothing, page))
            .peek("/page")
            .await
            .status,
        503
    );
    let page = site.app_with(async |session: Session| {
        session.logout()?;
        drop(session.save().await);
        Ok::<_, Error>(())
    });
    let reply = browser.at(&page).peek("/page").await;
    assert_eq!(reply.status, 503);
    assert!(!reply.headers.contains_key("clear-site-data"));
    let page = site.app_with(async |session: Session| {
        session.logout()?;
        session.login("alice")
    });
    let reply = browser.at(&page).peek("/page").await;
    assert_eq!(reply.status, 503);
    assert!(reply.sets_no_cookie());
    let page = site.app_with(async |session: Session| {
        session.logout()?;
        session.discard()
    });
    assert_eq!(browser.at(&page).peek("/page").await.status, 200);
}

/// It fitted what the request had loaded.
#[tokio::test]
async fn a_change_that_does_not_fit_the_row_of_an_earlier_save_is_an_error() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/increment/n").await;
    let page = site.app_with(async |session: Session| {
        session.insert("a", 1)?;
        let saving = session.clone();
        let save = async move { saving.save().await };
        let update = async {
            tokio::task::yield_now().await;
            session
                .update("n", |n: Option<u64>| n.unwrap_or(0) + 1)
                .map(drop)
        };
        let (saved, updated) = tokio::join!(save, update);
        saved.and(updated)
    });
    let mut lock = site.lock_rows().await;
    let late = browser.at(&page);
    let visit = tokio::spawn(async move { late.peek("/page").await.status });
    site.blocked(1).await;
    let other = "UPDATE session SET session = '{\"n\": \"text\"}'";
    sqlx::query(other).execute(&mut *lock).await.expect("a row");
    lock.commit().await.expect("a commit");
    assert_eq!(visit.await.expect("no panic"), 503);
    assert_eq!(site.rows().document().await["a"], 1);
}

#[tokio::test]
async fn a_second_save_of_a_destroyed_session_is_not_worth_another_attempt() {
    let (site, mut browser) = visited().await;
    let late = site
        .late(&browser, async move |session: Session| {
            session.insert("b", 1)?;
            drop(session.save().await);
            session.insert("c", 1)
        })
        .await;
    browser.get("/destroy").await;
    let reply = late.finish().await;
    assert_eq!(reply.status, 503);
    assert!(!reply.headers.contains_key("retry-after"));
    assert_eq!(site.rows().count().await, 0);
}

/// A new id that it saved would be lost if it then failed, and one in flight when
/// it refuses the session would show that session to the handler.
#[tokio::test]
async fn a_check_cannot_save_the_session_that_it_checks() {
    let (site, mut browser) = visited().await;
    let before = site.rows().dump().await;
    let checking = site.layer().valid_if(async |session, _| {
        session.cycle_id()?;
        let saved = session.save().await.expect_err("a check");
        let taken = session.take::<String>("a").await.expect_err("a check");
        assert_eq!(
            (saved.kind(), taken.kind()),
            (ErrorKind::Reentrant, ErrorKind::Reentrant)
        );
        Err::<bool, _>(saved)
    });
    let page = async |session: Session| session.get::<String>("a").map(drop);
    let reply = browser.at(&app_with(checking, page)).peek("/page").await;
    assert_eq!(reply.status, 500);
    assert_eq!(site.rows().dump().await, before);

    let marking = site.layer().valid_if(async |session, _| {
        session.insert("checked", true)?;
        Ok::<_, Error>(true)
    });
    let page = async |session: Session| session.save().await;
    let reply = browser.at(&app_with(marking, page)).get("/page").await;
    assert_eq!(reply.status, 200);
    assert_eq!(browser.get("/keys").await.body, "a,checked");
}

/// A page that gives up on a save, which then fails because its session ended.
async fn gave_up_on_a_save_that_fails<H, Fut>(go_on: H) -> Reply
where
    H: Fn(Session) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output: IntoResponse> + Send,
{
    let (site, browser) = visited().await;
    let mut lock = site.lock_rows().await;
    let pays: Act = |session| session.insert("paid", true);
    let (visit, _) = gives_up_on_a_save(&site, &browser, site.layer(), pays, go_on).await;
    let destroy = "DELETE FROM public.session";
    sqlx::query(destroy)
        .execute(&mut *lock)
        .await
        .expect("rows");
    lock.commit().await.expect("a commit");
    site.settled().await;
    let reply = visit.finish().await;
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
    reply
}

#[tokio::test]
async fn a_save_that_fails_after_the_handler_gave_up_on_it_fails_the_response() {
    let reply = gave_up_on_a_save_that_fails(async |_| ()).await;
    assert_eq!(reply.status, 503);
    // What is changed since is not saved without it.
    let reply = gave_up_on_a_save_that_fails(async |session| session.insert("b", 1)).await;
    assert_eq!(reply.status, 503);
}

#[tokio::test]
async fn a_save_that_fails_after_the_handler_gave_up_on_it_fails_the_next_save() {
    let reply = gave_up_on_a_save_that_fails(async |session| {
        let error = session.save().await.expect_err("the change is lost");
        assert_eq!(error.kind(), ErrorKind::Ended);
        // It is reported once.
        session.save().await
    })
    .await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn an_error_page_of_the_handlers_own_reports_a_save_that_it_gave_up_on() {
    let own = async |_| (StatusCode::GATEWAY_TIMEOUT, "try again later");
    let reply = gave_up_on_a_save_that_fails(own).await;
    reply.assert(504, "try again later");
}

/// Readers are not blocked.
const LOCK_TABLE: &str = "LOCK TABLE public.session IN SHARE ROW EXCLUSIVE MODE";

async fn refuse_rows_with(transaction: &mut PgConnection, word: &str) {
    let refuse = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW::text LIKE '%{word}%' THEN RAISE 'refused by the test'; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON public.session
         FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    sqlx::raw_sql(AssertSqlSafe(refuse))
        .execute(transaction)
        .await
        .expect("a trigger");
}

/// A page that gives up on a save of what `before` does, which the database then
/// refuses, because `refused` is a part of the row. The response may conceal that.
async fn gave_up_on_what_is_refused(refused: &str, before: Act, after: Act) -> (Site, Reply) {
    let (site, browser) = visited().await;
    let mut lock = site.open_transaction(LOCK_TABLE).await;
    let layer = site.layer().on_save_failure(FailurePolicy::Continue);
    let go_on = move |session: Session| ready(after(&session));
    let (visit, _) = gives_up_on_a_save(&site, &browser, layer, before, go_on).await;
    refuse_rows_with(&mut lock, refused).await;
    lock.commit().await.expect("a commit");
    site.settled().await;
    let reply = visit.finish().await;
    (site, reply)
}

#[tokio::test]
async fn a_login_after_a_save_that_was_given_up_on_and_failed_is_made() {
    let change: Act = |session| session.insert("paid", true);
    let login: Act = |session| session.login("alice");
    let (site, reply) = gave_up_on_what_is_refused("paid", change, login).await;
    assert_eq!(reply.status, 200);
    assert!(reply.token().is_some());
    assert_eq!(site.sessions_of("alice").await, 1);
}

#[tokio::test]
async fn a_login_that_was_given_up_on_and_failed_is_never_concealed() {
    let login: Act = |session| session.login("alice");
    let change: Act = |session| session.insert("note", 1);
    let (site, reply) = gave_up_on_what_is_refused("alice", login, change).await;
    assert_eq!(reply.status, 503);
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().text().await, r#"{"a":"1"}"#);
}

#[tokio::test]
async fn what_a_handler_gives_up_on_at_once_is_committed_before_its_response() {
    let (site, mut browser) = visited().await;
    let page = site.app_with(async |session: Session| {
        let count = |n: Option<u8>| n.unwrap_or(0) + 1;
        assert!(polled_once(session.update_now("n", count)).await.is_none());
    });
    assert_eq!(browser.at(&page).get("/page").await.status, 200);
    assert_eq!(browser.get("/get/n").await.body, "1");
}

/// A save that waits for the response, which waits for a save that the handler gave
/// up on. That one is through when this returns.
async fn saves_behind_the_response<R>(
    site: &Site,
    browser: &Browser,
    end: fn(&Session) -> R,
) -> (InFlight, JoinHandle<Result<(), Error>>)
where
    R: IntoResponse + Send + 'static,
{
    let lock = site.lock_rows().await;
    let change: Act = |session| session.insert("b", 1);
    let go_on = move |session: Session| ready(end(&session));
    let (visit, session) = gives_up_on_a_save(site, browser, site.layer(), change, go_on).await;
    visit.go_on();
    tokio::task::yield_now().await;
    session.insert("c", 1).expect("still open");
    let late = tokio::spawn(async move { session.save().await });
    tokio::task::yield_now().await;
    lock.commit().await.expect("a commit");
    (visit, late)
}

#[tokio::test]
async fn a_save_that_comes_after_a_failed_response_is_an_error() {
    let (site, browser) = visited().await;
    let fails = |_: &Session| StatusCode::INTERNAL_SERVER_ERROR;
    let (visit, late) = saves_behind_the_response(&site, &browser, fails).await;
    assert_eq!(visit.response().await.status, 500);
    let error = late.await.expect("no panic").expect_err("dropped");
    assert_eq!(error.kind(), ErrorKind::ResponseStarted);
    assert_eq!(site.rows().text().await, r#"{"a":"1","b":1}"#);
}

#[tokio::test]
async fn a_save_behind_a_response_that_was_given_up_is_an_error() {
    let (site, browser) = visited().await;
    let held = site.hold_commits().await;
    let signs_in = |session: &Session| session.login("alice");
    let (visit, late) = saves_behind_the_response(&site, &browser, signs_in).await;
    // Those of other tests are in other databases.
    let waits = "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    patiently(until(async || texts(&site.pool, waits).await == ["1"])).await;
    visit.response.abort();
    assert!(visit.response.await.is_err());
    drop(held);
    late.await.expect("no panic").expect_err("undone");
    let before = r#"{"a":"1","b":1}"#;
    patiently(until(async || site.rows().text().await == before)).await;
}

#[tokio::test]
async fn a_token_that_died_after_its_save_is_not_sent() {
    let (site, browser) = visited().await;
    let first = InFlight::begin(&browser, "/page", |gate| {
        site.app_with(async move |session: Session| {
            session.login(Login::new("alice").end_others())?;
            session.save().await?;
            gate.pass().await;
            Ok::<_, Error>(())
        })
    })
    .await;
    // The second click.
    let page = async |session: Session| session.login(Login::new("alice").end_others());
    let mut browser = browser.at(&site.app_with(page));
    browser.get("/page").await;
    let reply = first.finish().await;
    assert_eq!(reply.status, 200);
    assert!(reply.sets_no_cookie());
    browser.accept(&reply);
    let here = async |session: Session| session.user_id().unwrap_or_default();
    let here = browser.at(&site.app_with(here));
    assert_eq!(here.peek("/page").await.body, "alice");
}

/// It fits the document that the save was to insert.
#[tokio::test]
async fn a_change_that_does_not_fit_a_new_session_is_an_error() {
    let site = Site::new().await;
    let mut lock = site.open_transaction(LOCK_TABLE).await;
    let visit = InFlight::begin(&site.browser(), "/page", |gate| {
        site.app_with(async move |session: Session| {
            session.insert("n", 5)?;
            let update = async {
                gate.pass().await;
                session.update("n", |n: Option<u32>| n.expect("a number") + 1)
            };
            let (saved, updated) = tokio::join!(session.save(), update);
            assert!(saved.is_err());
            updated.map(drop)
        })
    })
    .await;
    patiently(until(|| site.is_blocked())).await;
    visit.go_on();
    let refuse = "
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE 'refused by the test'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON public.session
        FOR EACH ROW EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(refuse)
        .execute(&mut *lock)
        .await
        .expect("a trigger");
    lock.commit().await.expect("a commit");
    assert_eq!(visit.response().await.status, 500);
}

#[tokio::test]
async fn a_change_that_does_not_fit_the_new_session_says_nothing_about_it() {
    for is_late in [false, true] {
        let (site, mut browser) = visited().await;
        let late = site
            .late(&browser, async move |session: Session| {
                session.update("a", |a: Option<String>| a.unwrap_or_default() + "1")?;
                let error = session.save().await.expect_err("it does not fit");
                Ok::<_, Error>(format!("{:?} {:?}", error.kind(), error.retry_after()))
            })
            .await;
        browser.get("/cycle").await;
        let page = async |session: Session| session.insert("a", 1);
        browser.at(&site.app_with(page)).get("/page").await;
        if is_late {
            site.rows().execute("UPDATE TABLE SET expiry = expiry - interval '6 s' WHERE session::text LIKE '%successor%'").await;
        }
        let body = late.finish().await.body;
        match is_late {
            true => assert_eq!(body, "Ended None"),
            false => assert!(body.starts_with("Ended Some("), "{body}"),
        }
    }
}

/// An undone id is not there any more when it is followed.
#[tokio::test]
async fn a_new_id_that_is_undone_while_it_is_looked_up_leads_back_to_the_session() {
    let site = Site::new().await;
    for act in ["load", "touch", "destroy"] {
        site.rows().execute("DELETE FROM TABLE").await;
        let mut browser = site.browser();
        let mut sign_in = browser.at(&site.app_with(async |session: Session| session.login("ada")));
        sign_in.get("/page").await;
        let id: SessionId = sign_in
            .at(&site.app())
            .get("/id")
            .await
            .body
            .parse()
            .expect("an id");
        execute(&site.pool, "CREATE TABLE before AS SELECT * FROM session").await;
        browser = sign_in.at(&site.app());
        browser.get("/cycle").await;

        // The new id is undone once the only connection is released, which is
        // before the next statement.
        let is_armed = Arc::new(AtomicBool::new(false));
        let (armed, undoing) = (Arc::clone(&is_armed), site.pool.clone());
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .after_release(move |_, _| {
                let is_armed = armed.swap(false, Ordering::SeqCst);
                let undoing = undoing.clone();
                Box::pin(async move {
                    if is_armed {
                        let undo = "TRUNCATE session; INSERT INTO session SELECT * FROM before";
                        sqlx::raw_sql(undo).execute(&undoing).await?;
                    }
                    Ok(true)
                })
            })
            .connect(site.database.url())
            .await
            .expect("a connection");
        let store = PgSessionStore::new(pool.clone());
        store.check().await.expect("a table");
        let layer = PgSessionLayer::new(store.clone());
        until(async || pool.num_idle() == 1).await;
        is_armed.store(true, Ordering::SeqCst);
        let is_found = match act {
            "load" => store.load(&id).await.expect("no error").is_some(),
            "touch" => layer.touch(&id).await.expect("no error"),
            _ => store.user("ada").destroy(&id).await.expect("no error"),
        };
        assert!(is_found, "{act}");
        assert!(!is_armed.load(Ordering::SeqCst), "{act}");
        execute(&site.pool, "DROP TABLE before").await;
    }
}

#[tokio::test]
async fn what_was_recorded_before_is_committed_with_what_is_taken() {
    let site = Site::new().await;
    let page = site.app_with(async |session: Session| {
        session.insert("a", 1)?;
        session.insert("nonce", 2)?;
        assert_eq!(session.take::<u8>("nonce").await?, Some(2));
        assert_eq!(
            session
                .update_now("n", |n: Option<u8>| n.unwrap_or(6) + 1)
                .await?,
            7
        );
        Ok::<_, Error>(StatusCode::INTERNAL_SERVER_ERROR)
    });
    Browser::new(&page).get("/page").await;
    assert_eq!(site.rows().text().await, r#"{"a":1,"n":7}"#);
}

#[tokio::test]
async fn the_age_of_a_login_grows_while_its_request_runs() {
    let site = Site::new().await;
    let mut browser = site.browser();
    let mut sign_in = browser.at(&site.app_with(async |session: Session| session.login("alice")));
    sign_in.get("/page").await;
    browser.jar = sign_in.jar;
    let page = site.app_with(async |session: Session| {
        let limit = Duration::from_millis(400);
        let before = session.authenticated_within(Duration::from_secs(3600));
        until(async || !session.authenticated_within(limit)).await;
        (before && !session.authenticated_within(limit)).to_string()
    });
    assert_eq!(browser.at(&page).get("/page").await.body, "true");
}

#[tokio::test]
async fn a_login_decides_how_long_the_browser_keeps_the_cookie() {
    let site = Site::new().await;
    let sign_in = |lifetime: CookieLifetime| {
        site.app_with(async move |session: Session| {
            session.login(Login::new("alice").cookie_lifetime(lifetime))
        })
    };
    let browser = site.browser();
    for (lifetime, is_kept) in [
        (CookieLifetime::BrowserSession, false),
        (CookieLifetime::Persistent, true),
    ] {
        let mut browser = browser.at(&sign_in(lifetime));
        let reply = browser.get("/page").await;
        assert_eq!(reply.set_cookies()[0].max_age().is_some(), is_kept);
        // Extensions and a new id keep the choice, whatever the layer's is.
        let layer = site.layer().cookie_lifetime(match lifetime {
            CookieLifetime::Persistent => CookieLifetime::BrowserSession,
            _ => CookieLifetime::Persistent,
        });
        let mut later = browser.at(&app(layer.clone()));
        let cycled = later.get("/cycle").await;
        assert_eq!(cycled.set_cookies()[0].max_age().is_some(), is_kept);
        // A login without one takes the layer's.
        let anew = app_with(layer, async |session: Session| session.login("alice"));
        let anew = later.at(&anew).get("/page").await;
        assert_eq!(anew.set_cookies()[0].max_age().is_some(), !is_kept);
    }
}

#[tokio::test]
async fn a_login_in_koas_format_decides_how_long_the_browser_keeps_the_cookie() {
    let two_hours = Expiry::Idle(Duration::from_secs(7200));
    for layers in [CookieLifetime::Persistent, CookieLifetime::BrowserSession] {
        for expiry in [Expiry::Default, two_hours] {
            for (lifetime, is_kept) in [
                (CookieLifetime::BrowserSession, false),
                (CookieLifetime::Persistent, true),
            ] {
                let site = Site::of_koa().await;
                let columns =
                    "ALTER TABLE session ADD user_id text, ADD created timestamptz DEFAULT now()";
                execute(&site.pool, columns).await;
                let login = Login::new("alice").expiry(expiry).cookie_lifetime(lifetime);
                let page = app_with(
                    site.layer().cookie_lifetime(layers),
                    async move |session: Session| session.login(login),
                );
                let reply = site.browser().at(&page).peek("/page").await;
                assert_eq!(reply.status, 200);
                let cookie = &reply.set_cookies()[0];
                assert_eq!(
                    cookie.expires().is_some(),
                    is_kept,
                    "{layers:?} {lifetime:?}"
                );
                if is_kept && expiry == two_hours {
                    let maximum = texts(
                        &site.pool,
                        "SELECT session #>> '{cookie,maxAge}' FROM session",
                    );
                    assert_eq!(maximum.await, ["7200000"]);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_session_decides_how_long_the_browser_keeps_the_cookie() {
    let (site, mut browser) = visited().await;
    let page = site.app_with(async |session: Session| {
        session.set_cookie_lifetime(CookieLifetime::BrowserSession)
    });
    let reply = browser.at(&page).get("/page").await;
    assert_eq!(reply.set_cookies()[0].max_age(), None);
    assert_eq!(browser.get("/keys").await.body, "a");
}

#[tokio::test]
async fn a_lowered_idle_timeout_ends_sessions_that_have_idled_for_longer() {
    const THREE_COLUMNS: &str = "ALTER TABLE session DROP COLUMN created, DROP COLUMN user_id,
                                 DROP COLUMN last_seen, DROP COLUMN device";
    for columns in ["all", "three"] {
        let site = Site::new().await;
        if columns == "three" {
            execute(&site.pool, THREE_COLUMNS).await;
        }
        let day = Duration::from_secs(24 * 60 * 60);
        let store = site.elsewhere().await;
        let long = PgSessionLayer::new(store.clone()).idle_timeout(30 * day);
        let browser = Browser::with_session(&app(long.clone())).await;
        let ten_days = match columns {
            "three" => "UPDATE TABLE SET expiry = expiry - interval '10 days'",
            _ => {
                "UPDATE TABLE SET expiry = expiry - interval '10 days',
                                   last_seen = last_seen - interval '10 days'"
            }
        };
        site.rows().execute(ten_days).await;
        let short = PgSessionLayer::new(store).idle_timeout(Duration::from_secs(15 * 60));
        assert_eq!(
            browser.at(&app(short)).get("/keys").await.body,
            "",
            "{columns}"
        );
        assert_eq!(browser.peek("/keys").await.body, "a", "{columns}");
    }
}

#[tokio::test]
async fn a_closure_that_uses_its_own_session_is_an_error() {
    let site = Site::new().await;
    let page = site.app_with(async |session: Session| {
        let own = session.clone();
        let kind = session.update("a", move |_: Option<u8>| {
            let inner = own
                .insert("b", 1)
                .expect_err("the session waits for this closure");
            assert_eq!(inner.kind(), ErrorKind::Reentrant);
            assert_eq!(
                own.get::<u8>("b").expect_err("likewise").kind(),
                ErrorKind::Reentrant
            );
            1
        })?;
        Ok::<_, Error>(kind.to_string())
    });
    let reply = patiently(Browser::new(&page).get("/page")).await;
    reply.assert(200, "1");
}

#[tokio::test]
async fn a_check_that_loads_the_session_that_it_checks_is_an_error() {
    let (site, browser) = visited().await;
    let shared = Arc::new(std::sync::Mutex::new(None::<LazySession>));
    let seen = Arc::clone(&shared);
    let layer = site.layer().valid_if(move |_, _| {
        let lazy = seen.lock().expect("no panic").clone().expect("kept");
        async move { lazy.load().await.map(|_| true) }
    });
    let page = app_with(layer, async move |lazy: LazySession| {
        *shared.lock().expect("no panic") = Some(lazy.clone());
        let error = lazy.load().await.expect_err("it waits for itself");
        format!("{}", error.kind() == ErrorKind::Reentrant)
    });
    let reply = patiently(browser.at(&page).get("/page")).await;
    reply.assert(200, "true");
}

#[tokio::test]
async fn a_check_that_fails_leaves_the_session() {
    let (site, mut browser) = visited().await;
    let layers = [
        site.layer()
            .valid_if(async |_, _| Err::<bool, _>("the list of banned users is away")),
        site.layer()
            .valid_if(async |_, _| Err::<bool, _>(Error::application("it is away"))),
    ];
    for layer in layers {
        let reply = browser.at(&app(layer)).get("/keys").await;
        assert_eq!(reply.status, 503);
        assert!(reply.sets_no_cookie());
        assert_eq!(browser.get("/keys").await.body, "a");
    }
}

/// Time heals no missing table. If a pool is closed, its process stops, and the next request
/// reaches another one.
#[tokio::test]
async fn a_check_that_can_never_succeed_asks_no_client_back() {
    let (site, mut browser) = visited().await;
    let closed = crate::support::site::pool(site.database.url(), 1).await;
    closed.close().await;
    let check_by = async |pool: sqlx::PgPool| {
        let layer = site.layer().valid_if(move |_, _| {
            let pool = pool.clone();
            async move {
                let ask = sqlx::query_scalar::<_, bool>("SELECT is_banned FROM banned");
                ask.fetch_one(&pool).await
            }
        });
        browser.at(&app(layer)).get("/keys").await
    };
    for (pool, may_heal) in [(site.pool.clone(), false), (closed, true)] {
        let reply = check_by(pool).await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.body.ends_with("Please try again."), may_heal);
        assert_eq!(reply.headers.contains_key("retry-after"), may_heal);
        assert!(reply.sets_no_cookie());
    }
    assert_eq!(browser.get("/keys").await.body, "a");
}

#[tokio::test]
async fn a_check_that_hangs_is_cut_off_at_the_timeout_and_leaves_the_session() {
    let (site, mut browser) = visited().await;
    let store = site.store.clone().timeout(Duration::from_millis(500));
    let layer = PgSessionLayer::new(store).valid_if(async |session: Session, _| {
        session.insert("marked", 1)?;
        pending::<()>().await;
        Ok::<_, Error>(false)
    });
    let page = app_with(layer, async |session: LazySession| {
        let error = session.load().await.expect_err("the check hangs");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let cause = std::error::Error::source(&error).expect("a cause");
        assert!(cause.to_string().contains("`timeout`"), "{cause}");
        let again = session.load().await.expect_err("it is checked once");
        assert_eq!(again.to_string(), error.to_string());
        Err::<(), _>(error)
    });
    let reply = patiently(browser.at(&page).peek("/page")).await;
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.body,
        "Your session could not be checked. Please try again."
    );
    assert!(reply.headers.contains_key("retry-after"));
    assert!(reply.sets_no_cookie());
    assert_eq!(browser.get("/keys").await.body, "a");
}

#[tokio::test]
async fn the_timeout_bounds_the_load_and_the_check_together() {
    let (site, browser) = visited().await;
    let store = site.store.clone().timeout(Duration::from_secs(3));
    let layer = PgSessionLayer::new(store).valid_if(async |_, _| {
        sleep(Duration::from_millis(1500)).await;
        true
    });
    let page = app_with(layer, async |session: Session| session.keys().join(","));
    let quick = patiently(browser.at(&page).peek("/page")).await;
    quick.assert(200, "a");

    let lock = site
        .open_transaction("LOCK TABLE session IN ACCESS EXCLUSIVE MODE")
        .await;
    let slow = async {
        sleep(Duration::from_secs(2)).await;
        lock.rollback().await.expect("it is open");
    };
    let late = browser.at(&page);
    let (late, ()) = tokio::join!(patiently(late.peek("/page")), slow);
    assert_eq!(late.status, 503);
}

#[tokio::test]
#[should_panic(expected = "a hook that panics")]
async fn a_panic_in_a_hook_of_a_save_is_the_handlers() {
    let site = Site::new().await;
    let layer = site.layer().before_save(|_| panic!("a hook that panics"));
    let page = app_with(layer, async |session: Session| {
        session.insert("a", 1)?;
        session.save().await
    });
    Browser::new(&page).get("/page").await;
}

#[tokio::test]
async fn in_a_nested_router_the_hooks_see_the_uri_of_the_client() {
    let site = Site::new().await;
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let layer = site.layer().touch_if(move |request, _| {
        noted
            .lock()
            .expect("no panic")
            .push(request.uri.path().to_owned());
        true
    });
    let nested = Router::new().nest("/api", app(layer));
    Browser::new(&nested).get("/api/keys").await;
    assert_eq!(*seen.lock().expect("no panic"), ["/api/keys"]);
}

#[tokio::test]
async fn a_failed_save_keeps_the_headers_of_other_layers_and_has_its_error_in_the_extensions() {
    const ORIGIN: HeaderName = HeaderName::from_static("access-control-allow-origin");
    let site = Site::new().await;
    site.refuse("INSERT").await;
    let cors = async |request: axum::extract::Request, next: Next| {
        let mut response = next.run(request).await;
        response
            .headers_mut()
            .insert(ORIGIN, HeaderValue::from_static("*"));
        response
    };
    let own_page = async |response: Response| match response.extensions().get::<Error>() {
        Some(error) => (
            response.status(),
            format!("our page for {:?}", error.kind()),
        )
            .into_response(),
        None => response,
    };
    let app = Router::new()
        .route(
            "/",
            get(async |session: Session| {
                session.insert("a", 1)?;
                Ok::<_, Error>([
                    ("etag", "\"1\""),
                    ("content-type", "text/html"),
                    ("hx-redirect", "/welcome"),
                    ("x-inertia", "true"),
                    ("upgrade", "websocket"),
                    ("connection", "upgrade"),
                    ("sec-websocket-accept", "AAAA"),
                    ("x-accel-expires", "3600"),
                    ("surrogate-control", "max-age=3600"),
                    ("cloudflare-cdn-cache-control", "max-age=3600"),
                    ("x-accel-redirect", "/files/1"),
                    ("content-digest", "sha-256=:AAAA:"),
                    ("digest", "sha-256=AAAA"),
                    ("content-md5", "AAAA"),
                    ("trailer", "x-checksum"),
                    ("retry-after", "3600"),
                    ("clear-site-data", "\"cookies\""),
                ])
            }),
        )
        .layer(from_fn(cors))
        .layer(site.layer());
    let reply = Browser::new(&app).get("/").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.headers[ORIGIN], "*");
    for header in [
        "etag",
        "hx-redirect",
        "x-inertia",
        "upgrade",
        "connection",
        "sec-websocket-accept",
        "x-accel-expires",
        "surrogate-control",
        "cloudflare-cdn-cache-control",
        "x-accel-redirect",
        "content-digest",
        "digest",
        "content-md5",
        "trailer",
        "retry-after",
        "clear-site-data",
    ] {
        assert!(!reply.headers.contains_key(header), "{header}");
    }
    assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(reply.headers["cache-control"], "no-store");
    let app = app.layer(axum::middleware::map_response(own_page));
    let reply = Browser::new(&app).get("/").await;
    assert_eq!(reply.body, "our page for Database");
}

#[tokio::test]
async fn a_typed_key_can_be_taken() {
    const NONCE: Key<String> = Key::new("nonce");
    let site = Site::new().await;
    let page = site.app_with(async |State(()): State<()>, session: Session| {
        session.insert(NONCE, "8f3a".to_owned())?;
        Ok::<_, Error>(session.take(NONCE).await?.unwrap_or_default())
    });
    assert_eq!(Browser::new(&page).get("/page").await.body, "8f3a");
}

#[tokio::test]
async fn a_session_that_is_not_loaded_yet_shows_no_cookie_when_it_is_printed() {
    let site = Site::new().await;
    let layer = site.layer().valid_if(async |_, _| true);
    let page = app_with(layer, async |lazy: LazySession| format!("{lazy:?}"));
    let browser = Browser::new(&page).with_cookie("__Host-id", &"secret".repeat(8)[..43]);
    let printed = browser.peek("/page").await.body;
    assert!(
        printed.contains("valid_if") && !printed.contains("secret"),
        "{printed}"
    );
}

#[tokio::test]
async fn of_two_touches_of_a_session_that_was_ended_none_sends_its_token() {
    let (site, browser) = visited().await;
    let layer = site.layer().touch_interval(Duration::ZERO);
    let touch = |gate: Gate| {
        app_with(layer.clone(), async move |session: Session| {
            gate.pass().await;
            session.touch()
        })
    };
    let first = InFlight::begin(&browser, "/page", touch).await;
    let second = InFlight::begin(&browser, "/page", touch).await;
    let elsewhere = app(PgSessionLayer::new(site.elsewhere().await));
    browser.at(&elsewhere).peek("/destroy").await;
    let held = site.pool.begin().await.expect("a transaction");
    first.go_on();
    second.go_on();
    drop(held);
    assert!(first.response().await.sets_no_cookie());
    assert!(second.response().await.sets_no_cookie());
}

/// Visits a page while a trigger refuses to delete rows.
async fn while_nothing_is_deleted<H, T>(site: &Site, browser: &Browser, page: H) -> Reply
where
    H: Handler<T, ()>,
    T: 'static,
{
    refuse_deletions(&site.pool).await;
    let reply = browser.at(&site.app_with(page)).peek("/page").await;
    execute(&site.pool, "DROP TRIGGER refuse ON session").await;
    reply
}

async fn refuse_deletions(pool: &PgPool) {
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'not now'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON session FOR EACH ROW EXECUTE FUNCTION refuse()";
    execute(pool, refuse).await;
}

#[tokio::test]
async fn a_destroy_that_failed_and_is_discarded_leaves_the_cookie_of_an_earlier_save() {
    for (site, mut browser) in with_and_without_a_row().await {
        let page = async |session: Session| {
            session.login("alice")?;
            session.save().await?;
            session.destroy()?;
            session.save().await.expect_err("refused");
            session.discard()
        };
        let reply = while_nothing_is_deleted(&site, &browser, page).await;
        assert_eq!(reply.status, 200);
        assert!(reply.token().is_some());
        browser.accept(&reply);
        let page = async |session: Session| session.user_id().unwrap_or_default();
        let reply = browser.at(&site.app_with(page)).get("/page").await;
        assert_eq!(reply.body, "alice");
    }
}

#[tokio::test]
async fn a_destroy_that_failed_sends_no_cookie_of_an_earlier_save() {
    for (site, browser) in with_and_without_a_row().await {
        let page = async |session: Session| {
            session.login("alice")?;
            session.save().await?;
            session.destroy()
        };
        let reply = while_nothing_is_deleted(&site, &browser, page).await;
        assert_eq!(reply.status, 503);
        assert!(reply.sets_no_cookie());
    }
}

#[tokio::test]
async fn a_destroy_under_an_old_id_that_failed_and_is_discarded_leaves_what_was_saved() {
    let (site, browser) = visited().await;
    let other_tab = (browser.clone(), site.app());
    let page = move |session: Session| {
        let (browser, app) = other_tab.clone();
        async move {
            browser.at(&app).get("/cycle").await;
            session.insert("a", 2)?;
            session.save().await?;
            session.destroy()?;
            session.save().await.expect_err("refused");
            session.discard()?;
            assert_eq!(session.get::<u8>("a")?, Some(2));
            session.insert("a", 1)
        }
    };
    let reply = while_nothing_is_deleted(&site, &browser, page).await;
    assert_eq!(reply.status, 200);
    let live = "SELECT session->>'a' FROM session WHERE session->>'a' IS NOT NULL";
    assert_eq!(texts(&site.pool, live).await, ["1"]);
}

#[tokio::test]
async fn a_destroy_that_was_executed_before_it_is_discarded_removes_the_cookie() {
    for is_refused in [false, true] {
        let (site, mut browser) = visited().await;
        let lock = site.lock_rows().await;
        let layer = site
            .layer()
            .clear_site_data([ClearSiteData::Storage])
            .valid_if(move |_, _| ready(!is_refused));
        let ends: Act = Session::logout;
        let (visit, session) = gives_up_on_a_save(&site, &browser, layer, ends, async |_| ()).await;
        session.discard().expect("open");
        lock.commit().await.expect("a commit");
        site.settled().await;
        let reply = visit.finish().await;
        assert_eq!(reply.status, 200);
        browser.accept(&reply);
        assert!(browser.jar.is_empty());
        assert!(reply.headers.contains_key("clear-site-data"));
    }
}

/// Its turn comes after that of a save, and then it does not fit.
#[tokio::test]
async fn an_update_that_was_given_up_on_and_refused_fails_the_response() {
    for panics in [false, true] {
        let (site, browser) = visited().await;
        let lock = site.lock_rows().await;
        let pays: Act = |session| session.insert("paid", true);
        let (visit, session) =
            gives_up_on_a_save(&site, &browser, site.layer(), pays, async |_| ()).await;
        let add = move |n: Option<u8>| {
            assert!(!panics, "of the test");
            n.unwrap_or(0) + 1
        };
        let key = if panics { "n" } else { "a" };
        assert!(polled_once(session.update_now(key, add)).await.is_none());
        lock.commit().await.expect("a commit");
        site.settled().await;
        assert!(visit.finish().await.status.is_server_error());
        assert_eq!(site.rows().text().await, r#"{"a":"1","paid":true}"#);
    }
}

/// No browser has a token of the new id. A change there would be lost, and would keep the new id
/// from being undone.
#[tokio::test]
async fn after_a_new_id_in_doubt_no_change_follows_to_it() {
    for acts in [Session::cycle_id, (|session| session.login("alice")) as Act] {
        let (site, mut browser) = visited().await;
        if site.database.pooled().is_some() {
            // There the limits of the transaction end it, so none comes too late.
            return;
        }
        let before = site.rows().dump().await;
        refuse_deletions(&site.pool).await;
        let held = site.hold_commits().await;
        let commits_when_canceled = "CREATE OR REPLACE FUNCTION hold() RETURNS trigger
            LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN
                PERFORM pg_advisory_xact_lock_shared(1);
                RETURN NULL;
            EXCEPTION WHEN query_canceled THEN
                RETURN NULL;
            END $$";
        execute(&site.pool, commits_when_canceled).await;
        let store = site.elsewhere().await.timeout(Duration::from_millis(300));
        let visit = InFlight::begin(&browser, "/page", |gate| {
            app_with(PgSessionLayer::new(store), async move |session: Session| {
                acts(&session)?;
                session.save().await.expect_err("too late");
                gate.pass().await;
                session.insert("flash", 1)
            })
        })
        .await;
        patiently(until(async || site.rows().dump().await.len() == 2)).await;
        drop(held);
        let reply = visit.finish().await;
        assert_eq!(reply.status, 503);
        assert!(reply.headers.contains_key("retry-after"));
        execute(&site.pool, "DROP TRIGGER refuse ON session").await;
        patiently(until(async || site.rows().dump().await == before)).await;
        assert_eq!(browser.get("/keys").await.body, "a");
    }
}

#[tokio::test]
async fn a_load_in_the_background_leaves_the_session_open_for_the_hook_of_its_response() {
    let (site, mut browser) = visited().await;
    let lock = site.lock_rows().await;
    let layer = site
        .layer()
        .before_save(|session| session.insert("saved", true));
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let visit = InFlight::begin(&browser, "/page", |gate| {
        app_with(layer, async move |lazy: LazySession| {
            let session = lazy.load().await?;
            session.insert("b", 1)?;
            assert!(polled_once(session.save()).await.is_none());
            sender.send(lazy).expect("open");
            gate.pass().await;
            session.insert("c", 1)
        })
    })
    .await;
    let lazy = receiver.recv().await.expect("sent");
    patiently(until(|| site.is_blocked())).await;
    visit.go_on();
    tokio::task::yield_now().await;
    lazy.load().await.expect("loaded");
    lock.commit().await.expect("a commit");
    assert_eq!(visit.response().await.status, 200);
    assert_eq!(browser.get("/keys").await.body, "a,b,saved,c");
}

/// Also if `save_if` excludes the response.
#[tokio::test]
async fn a_page_that_saves_nothing_reports_a_save_that_its_handler_gave_up_on() {
    let (site, browser) = visited().await;
    let mut lock = site.lock_rows().await;
    let pays: Act = |session| session.insert("paid", true);
    let layer = site.layer().save_if(|_, _| false);
    let (visit, _) = gives_up_on_a_save(&site, &browser, layer, pays, async |_| ()).await;
    sqlx::query("DELETE FROM public.session")
        .execute(&mut *lock)
        .await
        .expect("rows");
    lock.commit().await.expect("a commit");
    site.settled().await;
    assert_eq!(visit.finish().await.status, 503);
}

/// A failure of the database may be concealed, and a refusal by the application not.
#[tokio::test]
async fn of_two_saves_that_were_given_up_on_the_refused_one_is_reported() {
    let (site, browser) = visited().await;
    let mut lock = site.open_transaction(LOCK_TABLE).await;
    let layer = site
        .layer()
        .on_save_failure(FailurePolicy::Continue)
        .before_save(|session| match session.contains_key("bad") {
            true => Err(Error::application("bad")),
            false => Ok(()),
        });
    let visit = InFlight::begin(&browser, "/page", |gate| {
        app_with(layer, async move |session: Session| {
            session.insert("paid", true)?;
            let mut save = Box::pin(session.save());
            assert!(polled_once(&mut save).await.is_none());
            let mut update = Box::pin(session.update_now("bad", |_: Option<u8>| 1));
            assert!(polled_once(&mut update).await.is_none());
            gate.pass().await;
            Ok::<_, Error>(())
        })
    })
    .await;
    patiently(until(|| site.is_blocked())).await;
    refuse_rows_with(&mut lock, "paid").await;
    lock.commit().await.expect("a commit");
    site.settled().await;
    assert_eq!(visit.finish().await.status, 503);
    assert_eq!(site.rows().text().await, r#"{"a":"1"}"#);
}

/// Two requests are saved together. One does not fit beside the other, but where
/// they go that is not to be told.
#[tokio::test]
async fn a_change_that_an_older_row_refuses_follows_the_session() {
    let (site, browser) = visited().await;
    let inserts: Act = |session| session.insert("n", "text");
    let counts: Act = |session| {
        session
            .update("n", |n: Option<u8>| n.unwrap_or(0))
            .map(drop)
    };
    let mut visits = Vec::new();
    for act in [inserts, counts] {
        let visit = InFlight::begin(&browser, "/page", |gate| {
            app_with(site.layer(), async move |session: Session| {
                act(&session)?;
                gate.pass().await;
                Ok::<_, Error>(())
            })
        });
        visits.push(visit.await);
    }
    let elsewhere = app(PgSessionLayer::new(site.elsewhere().await));
    browser.at(&elsewhere).peek("/cycle").await;
    visits.iter().for_each(InFlight::go_on);
    let mut replies = Vec::new();
    for visit in visits {
        replies.push(visit.response().await);
    }
    assert_eq!(replies[0].status, 200);
    assert_eq!(replies[1].status, 503);
    assert!(replies[1].headers.contains_key("retry-after"));
}

const FIFTEEN_MINUTES: Duration = Duration::from_mins(15);

/// No session was used for this long.
async fn idle(site: &Site, time: &str) {
    let sql = format!(
        "UPDATE TABLE SET expiry = expiry - interval '{time}',
                          last_seen = last_seen - interval '{time}'"
    );
    site.rows().execute(&sql).await;
}

#[tokio::test]
async fn a_session_that_a_lowered_timeout_ended_does_not_count_for_the_users_limit() {
    let site = Site::new().await;
    let store = site.elsewhere().await;
    let store = store.max_sessions_per_user(NonZeroU32::MIN, SessionLimitPolicy::Refuse);
    let sign_in = async |session: Session| session.login("alice");
    let long = PgSessionLayer::new(store.clone()).idle_timeout(Duration::from_hours(30 * 24));
    let mut browser = Browser::new(&app_with(long, sign_in));
    assert_eq!(browser.get("/page").await.status, 200);
    idle(&site, "10 days").await;

    let short = PgSessionLayer::new(store).idle_timeout(FIFTEEN_MINUTES);
    let mut browser = browser.at(&app_with(short, sign_in));
    assert_eq!(browser.get("/keys").await.body, "");
    assert_eq!(site.rows().count().await, 1, "a visit alone ends nothing");
    assert_eq!(browser.get("/page").await.status, 200);
    assert_eq!(site.rows().count().await, 1, "the new session replaces it");
}

#[tokio::test]
async fn a_session_that_a_lowered_timeout_ended_leaves_no_row_that_nothing_opens() {
    let site = Site::new().await;
    let browser = Browser::with_session(&app(site.layer())).await;
    idle(&site, "1 hour").await;
    let short = site.layer().idle_timeout(FIFTEEN_MINUTES);
    browser.at(&app(short)).get("/insert/b/2").await;
    assert_eq!(site.rows().text().await, r#"{"b":"2"}"#);
}

/// A visitor leaves, or the handler fails, while a task of it still holds the
/// session.
#[tokio::test]
async fn a_change_by_a_task_that_outlives_its_canceled_request_is_an_error() {
    for is_loaded_before in [true, false] {
        let (site, browser) = visited().await;
        let left = Arc::new(Mutex::new(None));
        let handed_over = Arc::clone(&left);
        let visit = InFlight::begin(&browser, "/page", |gate| {
            site.app_with(async move |session: LazySession| {
                if is_loaded_before {
                    session.load().await.expect("a session");
                }
                *handed_over.lock().expect("no panic") = Some(session);
                gate.pass().await;
            })
        })
        .await;
        visit.response.abort();
        assert!(visit.response.await.is_err());
        let session = left
            .lock()
            .expect("no panic")
            .take()
            .expect("the handler ran");
        let session = session.load().await.expect("a load");
        let late = [
            session.insert("b", 2),
            session.login("mallory"),
            session.logout(),
            session.save().await,
            session.take::<u8>("a").await.map(drop),
        ];
        for outcome in late {
            let kind = outcome.expect_err("nothing saves it").kind();
            assert_eq!(kind, ErrorKind::ResponseStarted);
        }
        assert_eq!(browser.peek("/keys").await.body, "a");
    }
}

/// The client leaves while the response waits for a save that its handler gave up on.
/// Returns the session.
async fn leaves_during_a_save(site: &Site, browser: &Browser, change: Act) -> Session {
    let go_on = |_| ready(());
    let (visit, session) = gives_up_on_a_save(site, browser, site.layer(), change, go_on).await;
    visit.go_on();
    tokio::task::yield_now().await;
    visit.response.abort();
    assert!(visit.response.await.is_err());
    session
}

#[tokio::test]
async fn a_client_that_leaves_while_its_response_waits_for_a_save_closes_the_session() {
    let (site, browser) = visited().await;
    let lock = site.lock_rows().await;
    let session = leaves_during_a_save(&site, &browser, |session| session.insert("b", 2)).await;
    let late = [
        session.insert("c", 3),
        session.logout(),
        session.save().await,
    ];
    for outcome in late {
        let kind = outcome.expect_err("nothing saves it").kind();
        assert_eq!(kind, ErrorKind::ResponseStarted);
    }
    lock.rollback().await.expect("a lock released");
    until(async || browser.peek("/keys").await.body == "a,b").await;
}

/// The save that failed had taken the logout, and no response tries it again.
#[tokio::test]
async fn a_logout_that_fails_after_the_client_left_is_tried_again() {
    let (site, browser) = visited().await;
    let refusing_once = "
        CREATE SEQUENCE deletions;
        CREATE FUNCTION refuse_once() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0
        AS $$ BEGIN
            PERFORM pg_advisory_xact_lock_shared(1);
            IF nextval('deletions') = 1 THEN RAISE 'refused by the test'; END IF;
            RETURN OLD;
        END $$;
        CREATE TRIGGER refuse_once BEFORE DELETE ON TABLE
        FOR EACH ROW EXECUTE FUNCTION refuse_once()";
    site.rows().execute(refusing_once).await;
    let held = site.hold_advisory_lock().await;
    leaves_during_a_save(&site, &browser, Session::logout).await;
    held.rollback().await.expect("a lock released");
    until(async || site.rows().count().await == 0).await;
}

#[tokio::test]
async fn a_hook_of_the_response_that_panics_closes_the_session() {
    let layers: [fn(PgSessionLayer) -> PgSessionLayer; 3] = [
        |layer| layer.save_if(|_, _| panic!("by the test")),
        |layer| layer.touch_if(|_, _| panic!("by the test")),
        |layer| layer.before_save(|_| panic!("by the test")),
    ];
    for panics in layers {
        let (site, browser) = visited().await;
        let left = Arc::new(Mutex::new(None));
        let handed_over = Arc::clone(&left);
        let page = async move |session: Session| {
            session.insert("b", 2)?;
            *handed_over.lock().expect("no panic") = Some(session);
            Ok::<_, Error>(())
        };
        let browser = browser.at(&app_with(panics(site.layer()), page));
        let visit = tokio::spawn(async move { browser.peek("/page").await });
        assert!(visit.await.is_err_and(|error| error.is_panic()));
        let session: Session = left.lock().expect("no panic").take().expect("a session");
        let late = session.insert("c", 3).expect_err("nothing saves it");
        assert_eq!(late.kind(), ErrorKind::ResponseStarted);
        assert_eq!(site.rows().text().await, r#"{"a":"1"}"#);
    }
}

#[tokio::test]
async fn data_of_a_user_whose_session_ended_does_not_enter_the_login_of_another() {
    let site = Site::new().await;
    let mut browser = Browser::new(&site.app_with(async |session: Session| session.login("alice")));
    browser.get("/page").await;
    let visit = InFlight::begin(&browser, "/page", |gate| {
        site.app_with(async move |session: Session| {
            session.insert("a", 1)?;
            gate.pass().await;
            let mut save = Box::pin(session.save());
            let is_in_flight =
                poll_fn(|context| Poll::Ready(save.as_mut().poll(context).is_pending()));
            assert!(is_in_flight.await);
            session.insert("draft", "alice's")?;
            let error = save.await.expect_err("the session ended");
            assert_eq!(error.kind(), ErrorKind::Ended);
            session.login("bob")
        })
    })
    .await;
    site.store
        .user("alice")
        .destroy_all()
        .await
        .expect("an end");
    assert_eq!(visit.finish().await.status, 200);
    assert_eq!(site.rows().text().await, "{}");
}

/// They are written together. The last one doesn't fit the number, which the database refuses.
/// Only the request with the number gets an error.
#[tokio::test]
async fn a_save_is_not_refused_for_a_change_that_was_not_written() {
    let (site, browser) = visited().await;
    execute(
        &site.pool,
        r#"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
           AS $$ BEGIN RAISE 'no number'; END $$;
           CREATE TRIGGER refuse BEFORE UPDATE ON session FOR EACH ROW
           WHEN (strpos(NEW.session::text, '"b":1') > 0) EXECUTE FUNCTION refuse()"#,
    )
    .await;
    let mut visits = Vec::new();
    for key in ["first", "number", "text"] {
        let change = move |session: &Session| match key {
            "first" => session.insert("first", true),
            "number" => session.insert("b", 1),
            _ => session
                .update("b", |text: Option<String>| text.unwrap_or_default())
                .map(drop),
        };
        let visit = InFlight::begin(&browser, "/page", |gate| {
            site.app_with(async move |session: Session| {
                gate.pass().await;
                change(&session)?;
                let outcome = session.save().await;
                Ok::<_, Error>(format!("{:?}", outcome.map_err(|error| error.kind())))
            })
        });
        visits.push(visit.await);
    }
    let lock = site.lock_rows().await;
    for (place, visit) in visits.iter().enumerate() {
        visit.go_on();
        match place {
            0 => site.blocked(1).await,
            // They queue for the session, without I/O.
            _ => yield_often().await,
        }
    }
    lock.rollback().await.expect("a lock released");
    let mut outcomes = Vec::new();
    for visit in visits {
        outcomes.push(visit.response().await.body);
    }
    assert_eq!(outcomes, ["Ok(())", "Err(Database)", "Ok(())"]);
}

async fn yield_often() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The last one doesn't fit the number of the second, whose save takes all of its time.
#[tokio::test]
async fn a_save_that_does_not_fit_another_one_has_its_own_time() {
    let (mut site, browser) = visited().await;
    const TIMEOUT: Duration = Duration::from_secs(4);
    site.store = site.store.clone().timeout(TIMEOUT);
    let mut visits = Vec::new();
    for key in ["first", "number", "text"] {
        let visit = InFlight::begin(&browser, "/page", |gate| {
            site.app_with(async move |session: Session| {
                gate.pass().await;
                match key {
                    "first" => session.insert("first", true)?,
                    "number" => session.insert("b", 1)?,
                    _ => {
                        let own = |text: Option<String>| text.unwrap_or_default();
                        session.update("b", own).map(drop)?;
                    }
                }
                let outcome = session.save().await;
                Ok::<_, Error>(format!("{:?}", outcome.map_err(|error| error.kind())))
            })
        });
        visits.push(visit.await);
    }
    let lock = site.lock_rows().await;
    visits[0].go_on();
    site.blocked(1).await;
    visits[1].go_on();
    tokio::time::sleep(TIMEOUT * 3 / 4).await;
    visits[2].go_on();
    let [first, number, text] = visits.try_into().ok().expect("three");
    for late in [first, number] {
        assert_eq!(late.response().await.body, "Err(Unavailable)");
    }
    lock.rollback().await.expect("a lock released");
    assert_eq!(text.response().await.body, "Ok(())");
}

#[tokio::test]
async fn a_hook_that_panics_in_a_save_whose_caller_has_left_refuses_the_response() {
    for policy in [FailurePolicy::Refuse, FailurePolicy::Continue] {
        for signs_in in [false, true] {
            let site = Site::new().await;
            let layer = site.layer().on_save_failure(policy).before_save(|session| {
                let is_second = session.contains_key("b") || session.user_id().is_some();
                assert!(!is_second, "a bug in the hook");
                Ok(())
            });
            let page = app_with(layer, async move |session: Session| {
                session.insert("a", 1)?;
                assert!(polled_once(session.save()).await.is_none());
                match signs_in {
                    true => session.login("alice")?,
                    false => session.insert("b", 1)?,
                }
                assert!(polled_once(session.save()).await.is_none());
                Ok::<_, Error>(())
            });
            let response = Browser::new(&page).get("/page").await;
            assert_eq!(response.status, 500, "{policy:?} {signs_in}");
            assert_eq!(site.rows().text().await, r#"{"a":1}"#);
        }
    }
}

/// The policy for failed saves is for the database, not for the application's hook.
#[tokio::test]
async fn a_hook_that_refuses_a_save_whose_caller_has_left_refuses_the_response() {
    let site = Site::new().await;
    let layer = site
        .layer()
        .on_save_failure(FailurePolicy::Continue)
        .before_save(|session| match session.contains_key("b") {
            true => Err(sqlx::Error::PoolTimedOut.into()),
            false => Ok(()),
        });
    let page = app_with(layer, async |session: Session| {
        for key in ["a", "b"] {
            session.insert(key, 1)?;
            // The second one waits for the first.
            assert!(polled_once(session.save()).await.is_none());
        }
        Ok::<_, Error>(())
    });
    assert_eq!(Browser::new(&page).get("/page").await.status, 503);
    assert_eq!(site.rows().text().await, r#"{"a":1}"#);
}

#[tokio::test]
async fn a_hook_that_panics_drops_the_changes_of_its_save() {
    let (site, browser) = visited().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let layer = site.layer().before_save(move |_| {
        assert!(
            calls.fetch_add(1, Ordering::Relaxed) > 0,
            "the first one panics"
        );
        Ok(())
    });
    let page = app_with(layer, async |session: Session| {
        let taking = tokio::spawn(async move { session.take::<String>("a").await });
        assert!(taking.await.expect_err("a panic").is_panic());
    });
    assert_eq!(browser.at(&page).peek("/page").await.status, 200);
    assert_eq!(browser.peek("/keys").await.body, "a");
}

/// A touch compares no document, so the row that it returns may be older than what another
/// request has saved meanwhile.
#[tokio::test]
async fn a_touch_of_another_request_hides_nothing_that_was_saved() {
    let (site, browser) = visited().await;
    let (sender, mut sessions) = tokio::sync::mpsc::unbounded_channel();
    let mut begin = async || {
        let sender = sender.clone();
        let visit = InFlight::begin(&browser, "/page", |gate| {
            site.app_with(async move |session: Session| {
                sender.send(session).expect("open");
                gate.pass().await;
            })
        })
        .await;
        (visit, sessions.recv().await.expect("a session"))
    };
    let (reader, reading) = begin().await;
    let (writer, writing) = begin().await;
    writing.insert("a", 2).expect("a change");
    writing.save().await.expect("a save");

    let lock = site.lock_rows().await;
    reading.touch().expect("a touch");
    let mut first = Box::pin(reading.save());
    assert!(polled_once(&mut first).await.is_none());
    patiently(until(|| site.is_blocked())).await;
    writing.touch().expect("a touch");
    let mut second = Box::pin(writing.save());
    assert!(polled_once(&mut second).await.is_none());
    lock.rollback().await.expect("a rollback");
    first.await.expect("a save");
    second.await.expect("a save");
    assert_eq!(writing.get::<u8>("a").expect("a number"), Some(2));

    for visit in [reader, writer] {
        assert_eq!(visit.finish().await.status, 200);
    }
}
