//! When a session ends: idle and absolute timeout, its own expiry, and the clock of the database.

use std::time::Duration;

use axum::Router;
use axum_pg_session::{Error, Expiry, MIGRATOR, PgSessionLayer, PgSessionStore, Session};
use dev_postgres::{Server, libfaketime};
use sqlx::postgres::PgPoolOptions;
use time::OffsetDateTime;

use crate::support::{
    Browser, Rows, Site, app, page::app_with, proxy::Proxy, site::pool, skip::or_skip,
};

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;

async fn is_alive(browser: &Browser) -> bool {
    browser.peek("/get/a").await.body == "\"1\""
}

/// A page that sets the expiry.
fn expiring(site: &Site, expiry: Expiry) -> Router {
    site.app_with(async move |session: Session| session.set_expiry(expiry))
}

fn in_days(days: u64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::from_hours(24 * days)
}

#[tokio::test]
async fn a_session_may_idle_for_a_day_or_as_long_as_was_chosen() {
    let site = Site::new().await;
    let chosen = site.layer().idle_timeout(Duration::from_mins(15));
    for (layer, timeout) in [(site.layer(), DAY), (chosen, 15.0 * MINUTE)] {
        let browser = Browser::with_session(&app(layer)).await;
        site.rows().assert_left(timeout).await;
        site.rows().age(timeout - MINUTE).await;
        assert!(is_alive(&browser).await);
        site.rows().assert_left(timeout).await;
        site.rows().execute("TRUNCATE TABLE").await;
    }
}

#[tokio::test]
async fn a_session_ends_after_30_days_or_the_absolute_timeout_that_was_chosen() {
    let site = Site::new().await;
    let chosen = site.layer().absolute_timeout(Duration::from_hours(8));
    for (layer, timeout) in [(site.layer(), 30.0 * DAY), (chosen, 8.0 * HOUR)] {
        let browser = Browser::with_session(&app(layer)).await;
        site.rows().age_creation(timeout - HOUR).await;
        assert!(is_alive(&browser).await);
        site.rows().assert_left(HOUR).await;
        site.rows().age_creation(HOUR).await;
        assert!(!is_alive(&browser).await);
        site.rows().execute("TRUNCATE TABLE").await;
    }
}

#[tokio::test]
async fn an_idle_session_is_dead_before_it_is_reaped() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    site.rows().age(DAY).await;
    assert!(!is_alive(&browser).await);
    assert_eq!(site.rows().count().await, 1);
}

#[tokio::test]
async fn without_an_absolute_timeout_only_idleness_ends_a_session() {
    let site = Site::new().await;
    let browser = Browser::with_session(&app(site.layer().absolute_timeout(None))).await;
    site.rows().age_creation(1000.0 * DAY).await;
    assert!(is_alive(&browser).await);
    site.rows().age(DAY).await;
    assert!(!is_alive(&browser).await);
}

#[tokio::test]
async fn neither_activity_nor_cycle_id_extends_the_absolute_timeout() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    for page in ["/get/a", "/cycle", "/insert/b/2", "/cycle", "/increment/n"] {
        site.rows().age_creation(5.0 * DAY).await;
        site.rows().age(12.0 * HOUR).await;
        browser.get(page).await;
        assert!(is_alive(&browser).await, "after {page}");
    }
    site.rows().age_creation(5.0 * DAY - HOUR).await;
    browser.get("/cycle").await;
    site.rows().assert_left(HOUR).await;
    site.rows().age_creation(HOUR).await;
    assert!(!is_alive(&browser).await);
}

#[tokio::test]
async fn a_lowered_absolute_timeout_ends_older_sessions() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    site.rows().age_creation(2.0 * HOUR).await;
    let lowered = app(site.layer().absolute_timeout(Duration::from_hours(1)));
    let mut browser = browser.at(&lowered);
    assert_eq!(browser.get("/get/a").await.body, "none");
}

#[tokio::test]
async fn a_lowered_idle_timeout_holds_from_the_next_request_on() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    let lowered = app(site.layer().idle_timeout(Duration::from_mins(5)));
    let browser = browser.at(&lowered);
    assert!(is_alive(&browser).await);
    site.rows().assert_left(5.0 * MINUTE).await;
    site.rows().age(5.0 * MINUTE).await;
    assert!(!is_alive(&browser).await);
}

#[tokio::test]
async fn a_longer_idle_timeout_leaves_the_absolute_one() {
    let site = Site::new().await;
    let endless = app(site.layer().idle_timeout(Duration::MAX));
    assert!(is_alive(&Browser::with_session(&endless).await).await);
    site.rows().assert_left(30.0 * DAY).await;
    site.rows().execute("TRUNCATE TABLE").await;
    let longer = expiring(&site, Expiry::Idle(Duration::from_hours(24 * 60)));
    Browser::with_session(&longer).await.get("/page").await;
    site.rows().assert_left(30.0 * DAY).await;
}

#[tokio::test]
async fn set_expiry_survives_later_saves() {
    let site = Site::new().await;
    let app = expiring(&site, Expiry::Idle(Duration::from_hours(1)));
    let mut browser = Browser::with_session(&app).await;
    browser.get("/page").await;
    site.rows().assert_left(HOUR).await;
    for page in ["/insert/b/2", "/keys", "/clear", "/cycle", "/insert/a/1"] {
        site.rows().age(HOUR / 2.0).await;
        browser.get(page).await;
        site.rows().assert_left(HOUR).await;
    }
    assert!(is_alive(&browser).await);
}

#[tokio::test]
async fn a_session_can_idle_longer_than_the_layer_says() {
    let site = Site::new().await;
    let app = expiring(&site, Expiry::Idle(Duration::from_hours(24 * 7)));
    let mut browser = Browser::with_session(&app).await;
    browser.get("/page").await;
    site.rows().assert_left(7.0 * DAY).await;
    site.rows().age(2.0 * DAY).await;
    assert!(is_alive(&browser).await);
    site.rows().assert_left(7.0 * DAY).await;
}

#[tokio::test]
async fn a_short_life_is_extended_whatever_the_layers_touch_interval() {
    let site = Site::new().await;
    let layer = site.layer().touch_interval(Duration::from_hours(6));
    let app = app_with(layer, async |session: Session| {
        session.set_expiry(Expiry::Idle(Duration::from_hours(1)))
    });
    let mut browser = Browser::with_session(&app).await;
    browser.get("/page").await;
    site.rows().age(HOUR / 2.0).await;
    assert!(is_alive(&browser).await);
    site.rows().assert_left(HOUR).await;
}

#[tokio::test]
async fn a_new_session_can_have_an_expiry_of_its_own() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.set_expiry(Expiry::Idle(Duration::from_hours(2)))?;
        session.insert("a", "1")
    });
    let mut browser = Browser::new(&app);
    browser.get("/page").await;
    site.rows().assert_left(2.0 * HOUR).await;
}

#[tokio::test]
async fn an_expiry_alone_begins_no_session() {
    let site = Site::new().await;
    let app = expiring(&site, Expiry::Idle(Duration::from_hours(2)));
    assert!(Browser::new(&app).get("/page").await.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_session_ends_at_its_instant_whatever_the_timeouts() {
    let site = Site::new().await;
    let mut browser = Browser::with_session(&expiring(&site, Expiry::At(in_days(60)))).await;
    browser.get("/page").await;
    site.rows().assert_left(60.0 * DAY).await;
    site.rows().age_creation(59.0 * DAY).await;
    for page in ["/insert/b/2", "/keys", "/cycle"] {
        browser.get(page).await;
        site.rows().assert_left(60.0 * DAY).await;
    }
    assert!(is_alive(&browser).await);
}

#[tokio::test]
async fn a_session_with_its_own_instant_is_never_touched() {
    let site = Site::new().await;
    let proxy = Proxy::before(site.database.url()).await;
    let pool = PgPoolOptions::new().connect_lazy_with(proxy.options());
    let layer = PgSessionLayer::new(PgSessionStore::new(pool));
    let until = in_days(60)
        .replace_nanosecond(123_456_789)
        .expect("below a second");
    let app = app_with(layer, async move |session: Session| {
        session.set_expiry(Expiry::At(until))
    });
    let mut browser = Browser::with_session(&app).await;
    browser.get("/page").await;
    proxy.take_texts();
    assert!(is_alive(&browser).await);
    let texts = proxy.take_texts();
    assert!(
        !texts.iter().any(|text| text.contains("UPDATE")),
        "{texts:?}"
    );
}

#[tokio::test]
async fn an_instant_in_the_past_ends_the_session_at_once() {
    let site = Site::new().await;
    let mut browser =
        Browser::with_session(&expiring(&site, Expiry::At(OffsetDateTime::UNIX_EPOCH))).await;
    let stolen = browser.clone();
    let response = browser.get("/page").await;
    let cookie = response.set_cookies().remove(0);
    assert_eq!(cookie.max_age(), Some(cookie::time::Duration::ZERO));
    assert!(!is_alive(&stolen).await);
}

#[tokio::test]
async fn an_idle_time_of_zero_ends_the_session_at_once() {
    let site = Site::new().await;
    let mut browser = Browser::with_session(&expiring(&site, Expiry::Idle(Duration::ZERO))).await;
    browser.get("/page").await;
    assert!(!is_alive(&browser).await);
}

#[tokio::test]
async fn the_default_expiry_takes_back_another() {
    let site = Site::new().await;
    let long = expiring(&site, Expiry::At(in_days(60)));
    let mut browser = Browser::with_session(&long).await;
    browser.get("/page").await;
    let mut browser = browser.at(&expiring(&site, Expiry::Default));
    let cookie = browser.get("/page").await.set_cookies().remove(0);
    assert_eq!(
        cookie.max_age().map(time::Duration::whole_hours),
        Some(30 * 24 - 1)
    );
    site.rows().assert_left(DAY).await;
    assert_eq!(site.rows().text().await, r#"{"a":"1"}"#);
}

#[tokio::test]
async fn a_longer_life_renews_the_cookie() {
    let site = Site::new().await;
    let mut browser = Browser::with_session(&expiring(&site, Expiry::At(in_days(60)))).await;
    let token = browser.token().to_owned();
    let cookie = browser.get("/page").await.set_cookies().remove(0);
    assert_eq!(cookie.value(), token);
    assert_eq!(
        cookie.max_age().map(time::Duration::whole_hours),
        Some(60 * 24 - 1)
    );
    assert!(browser.get("/keys").await.sets_no_cookie());
}

/// A page that returns `expires_at` in microseconds since the epoch.
async fn expires_at(session: Session) -> String {
    session.expires_at().map_or_else(
        || "never".into(),
        |instant| (instant.unix_timestamp_nanos() / 1000).to_string(),
    )
}

async fn stored_expiry(site: &Site) -> String {
    let sql = "SELECT (extract(epoch FROM expiry) * 1000000)::bigint::text FROM session";
    let stored = sqlx::query_scalar(sql).fetch_one(&site.pool).await;
    stored.expect("one row")
}

fn assert_same_microsecond(served: &str, stored: &str) {
    let [served, stored] = [served, stored].map(|text| text.parse::<i64>().expect("a number"));
    // A double holds this century's instants to a quarter of a microsecond.
    assert!((served - stored).abs() <= 1, "{served} is not {stored}");
}

#[tokio::test]
async fn expires_at_is_what_the_row_says() {
    let site = Site::new().await;
    let mut browser = Browser::with_session(&site.app_with(expires_at)).await;
    let served = browser.get("/page").await.body;
    assert_same_microsecond(&served, &stored_expiry(&site).await);
}

#[tokio::test]
async fn expires_at_is_what_the_row_says_right_after_a_save() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        assert_eq!(session.expires_at(), None);
        session.insert("a", 1)?;
        assert_eq!(session.expires_at(), None);
        session.save().await?;
        Ok::<_, Error>(expires_at(session).await)
    });
    let served = Browser::new(&app).get("/page").await.body;
    assert_same_microsecond(&served, &stored_expiry(&site).await);
}

#[tokio::test]
async fn a_row_that_never_expires_is_a_session_without_an_end() {
    let site = Site::new().await;
    let app = app_with(site.layer().touch_if(|_, _| false), expires_at);
    let mut browser = Browser::with_session(&app).await;
    site.rows()
        .execute("UPDATE TABLE SET expiry = 'infinity'")
        .await;
    assert_eq!(browser.get("/page").await.body, "never");
    browser.get("/insert/b/2").await;
    assert_eq!(browser.get("/page").await.body, "never");
    assert!(is_alive(&browser).await);
}

#[tokio::test]
async fn the_timeouts_hold_for_a_row_that_another_writer_made_endless() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    site.rows()
        .execute("UPDATE TABLE SET expiry = 'infinity'")
        .await;
    assert!(is_alive(&browser).await);
    site.rows().assert_left(DAY).await;
}

#[tokio::test]
async fn an_expired_token_is_replaced_and_its_row_stays() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    let token = browser.token().to_owned();
    site.rows().age(2.0 * DAY).await;
    let dead = site.rows().dump().await;
    browser.get("/insert/b/2").await;
    assert_ne!(browser.token(), token);
    assert_eq!(browser.get("/keys").await.body, "b");
    let rows = site.rows().dump().await;
    assert_eq!(rows.len(), 2);
    assert!(rows.contains(&dead[0]), "the dead row is as it was");
}

#[tokio::test]
async fn no_page_revives_an_expired_row() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    site.rows().age(2.0 * DAY).await;
    let dead = site.rows().dump().await;
    for page in ["/keys", "/cycle", "/clear", "/destroy", "/remove/a"] {
        let response = browser.peek(page).await;
        assert_eq!(response.removes_the_cookie(), page == "/destroy", "{page}");
        assert_eq!(site.rows().dump().await, dead, "{page}");
    }
}

#[tokio::test]
async fn a_session_that_expires_while_its_request_runs_is_not_revived() {
    let site = Site::new().await;
    let rows = site.rows();
    let app = site.app_with(async move |session: Session| {
        rows.age(2.0 * DAY).await;
        session.insert("b", 2)
    });
    let browser = Browser::with_session(&app).await;
    assert_eq!(browser.peek("/page").await.status, 503);
    assert!(!is_alive(&browser).await);
    assert_eq!(site.rows().text().await, r#"{"a":"1"}"#);
}

const HOURS: i64 = 3600;
const DAYS: i64 = 24 * HOURS;
const YEARS: i64 = 365 * DAYS;

/// A server whose clock the test sets.
struct Clock {
    server: Server,
    pool: sqlx::PgPool,
}

impl Clock {
    /// With a clock that is this many seconds ahead of the machine's; `None`
    /// where there can't be one.
    async fn new(ahead: i64) -> Option<Self> {
        or_skip(libfaketime())?;
        let server = Server::builder().own_clock();
        let server = server.start().expect("a server");
        server.set_clock(ahead).expect("a server");
        let pool = pool(&server.url(), 5).await;
        MIGRATOR.run(&pool).await.expect("a new table");
        Some(Self { server, pool })
    }

    fn set(&self, ahead: i64) {
        self.server.set_clock(ahead).expect("a server");
    }

    fn layer(&self) -> PgSessionLayer {
        PgSessionLayer::new(PgSessionStore::new(self.pool.clone()))
    }

    fn rows(&self) -> Rows {
        Rows::new(self.pool.clone(), "public.session")
    }
}

#[tokio::test]
async fn only_the_clock_of_the_database_decides() {
    for ahead in [10 * YEARS, -10 * YEARS] {
        let Some(clock) = Clock::new(ahead).await else {
            return;
        };
        let mut browser = Browser::new(&app(clock.layer()));
        let cookie = browser.get("/insert/a/1").await.set_cookies().remove(0);
        assert_eq!(cookie.max_age(), Some(cookie::time::Duration::days(30)));
        assert!(is_alive(&browser).await);
        let left = clock.rows().seconds_left().await;
        assert!((left - DAY).abs() < MINUTE, "{left} s left, {ahead}");
        clock.set(ahead + 23 * HOURS + 59 * 60);
        assert!(is_alive(&browser).await);
    }
}

#[tokio::test]
async fn time_that_passes_in_the_database_ends_a_session() {
    let Some(clock) = Clock::new(0).await else {
        return;
    };
    let browser = Browser::with_session(&app(clock.layer())).await;
    clock.set(23 * HOURS);
    assert!(is_alive(&browser).await);
    clock.set(46 * HOURS);
    assert!(is_alive(&browser).await);
    clock.set(71 * HOURS);
    assert!(!is_alive(&browser).await);
}

#[tokio::test]
async fn a_visitor_of_every_day_is_signed_out_after_30() {
    let Some(clock) = Clock::new(0).await else {
        return;
    };
    let mut browser = Browser::with_session(&app(clock.layer())).await;
    for hours in (20..30 * 24).step_by(20) {
        clock.set(hours * HOURS);
        browser.get("/cycle").await;
        assert!(is_alive(&browser).await, "after {hours} hours");
    }
    clock.set(30 * DAYS);
    assert!(!is_alive(&browser).await);
}

#[tokio::test]
async fn a_cookie_of_the_longest_life_is_renewed_by_a_touch_and_by_a_save_that_extends() {
    let site = Site::new().await;
    for page in ["/keys", "/increment/n"] {
        let app = app(site.layer().absolute_timeout(None));
        let mut browser = Browser::with_session(&app).await;
        assert!(browser.get(page).await.sets_no_cookie());
        site.rows().age(HOUR * 2.0).await;
        let cookie = browser.get(page).await.set_cookies().remove(0);
        assert_eq!(cookie.value(), browser.token());
        assert_eq!(cookie.max_age(), Some(cookie::time::Duration::days(400)));
    }
}

#[tokio::test]
async fn a_touch_that_comes_too_late_renews_no_cookie() {
    let site = Site::new().await;
    let other = Browser::new(&app(site.layer().absolute_timeout(None)));
    let ender = site.app();
    let app = app_with(
        site.layer().absolute_timeout(None),
        async move |cookie: axum::http::HeaderMap, session: Session| {
            let cookie = cookie["cookie"].to_str().expect("ASCII").to_owned();
            let (name, token) = cookie.split_once('=').expect("a pair");
            let other = other.at(&ender).with_cookie(name, token);
            assert_eq!(other.peek("/cycle").await.status, 200);
            session.keys().join(",")
        },
    );
    let browser = Browser::with_session(&app).await;
    site.rows().age(HOUR * 2.0).await;
    let response = browser.peek("/page").await;
    assert_eq!(response.body, "a");
    assert!(
        response.sets_no_cookie(),
        "the old token would replace the new"
    );
}
