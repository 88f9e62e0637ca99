//! Login and logout.

use std::time::Duration;

use axum::{handler::Handler, http::StatusCode};
use axum_pg_session::{
    ClearSiteData, CookieLifetime, Device, Error, ErrorKind, Expiry, Koa, Login, PgSessionLayer,
    PgSessionStore, Session,
};
use serde_json::json;
use time::OffsetDateTime;

use crate::support::{
    Browser, Reply, Rows, Site, THREE_COLUMNS, app, execute,
    express::site_of,
    page::{InFlight, app_with, until},
    texts, visit,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A value of the only session's row, as text.
async fn column(site: &Site, expression: &str) -> String {
    let sql = format!(
        "SELECT ({expression})::text FROM session WHERE coalesce(session::jsonb #> '{{_session,successor}}', 'null') = 'null'"
    );
    let mut texts = texts(&site.pool, &sql).await;
    assert_eq!(texts.len(), 1, "one session");
    texts.remove(0)
}

#[tokio::test]
async fn a_login_keeps_the_basket_under_a_new_id() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    let before = browser.get("/id").await.body;
    site.sign_in(&mut browser, "alice").await;
    assert_eq!(browser.get("/get/basket").await.body, "\"pear\"");
    assert_ne!(browser.get("/id").await.body, before);
    assert_eq!(site.user(&browser).await, "alice");
    assert_eq!(site.rows().count().await, 1);
}

#[tokio::test]
async fn the_token_from_before_login_opens_nothing() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    let planted = browser.clone();
    site.sign_in(&mut browser, "alice").await;
    let thief = planted.at(&site.app());
    assert_eq!(site.user(&thief).await, "");
    assert_eq!(planted.peek("/get/basket").await.body, "none");
    assert_eq!(planted.peek("/insert/role/admin").await.status, 503);
    assert_eq!(browser.get("/get/role").await.body, "none");
}

#[tokio::test]
async fn a_login_begins_a_session_if_there_is_none() {
    let site = Site::new().await;
    let browser = site.signed_in("alice").await;
    assert_eq!(site.user(&browser).await, "alice");
    assert_eq!(site.rows().text().await, "{}");
    assert_eq!(column(&site, "user_id").await, "alice");
    assert_eq!(column(&site, "created = last_seen").await, "true");
    assert!((site.rows().seconds_left().await - 86_400.0).abs() < 1.0);
}

/// The settings of the only session: device, external id, seconds to its fixed idle
/// timeout, and whether its cookie ends with the browser.
async fn settings(site: &Site) -> [String; 4] {
    let sql = "SELECT unnest(ARRAY[coalesce(device::text, ''), coalesce(external_id, ''),
                   coalesce(session::jsonb #>> '{_session,idle}', ''),
                   coalesce(session::jsonb #>> '{_session,cookie}', '')])
               FROM session WHERE session::jsonb #> '{_session,successor}' IS NULL";
    let settings = texts(&site.pool, sql).await;
    settings.try_into().expect("one session")
}

fn remembered() -> Login {
    Login::new("alice")
        .device(Device::new().with_label("my phone"))
        .external_id("sid")
        .expiry(Expiry::Idle(30 * DAY))
        .cookie_lifetime(CookieLifetime::BrowserSession)
}

const REMEMBERED: [&str; 4] = [r#"{"label":"my phone"}"#, "sid", "2592000.0", "browser"];
const NOTHING: [&str; 4] = [""; 4];

#[tokio::test]
async fn a_login_keeps_the_settings_of_the_same_users_login_if_asked() {
    let again = || Login::new("alice").keep_settings();
    let tablet = || Device::new().with_label("tablet");
    for (login, expected) in [
        (Login::new("alice"), NOTHING),
        (again(), REMEMBERED),
        (again().discard_data(), REMEMBERED),
        (again().end_others(), REMEMBERED),
        (Login::new("bob").keep_settings(), NOTHING),
        (
            again().device(tablet()).external_id("other"),
            [r#"{"label":"tablet"}"#, "other", "2592000.0", "browser"],
        ),
        (
            again()
                .expiry(Expiry::Default)
                .cookie_lifetime(CookieLifetime::Persistent),
            [REMEMBERED[0], "sid", "", "persistent"],
        ),
    ] {
        let site = Site::new().await;
        let mut browser = site.signed_in(remembered()).await;
        let before = browser.get("/id").await.body;
        assert_eq!(settings(&site).await, REMEMBERED);
        site.sign_in(&mut browser, login.clone()).await;
        assert_ne!(browser.get("/id").await.body, before);
        assert_eq!(settings(&site).await, expected, "{login:?}");
    }
}

#[tokio::test]
async fn a_login_keeps_the_settings_of_a_login_in_the_same_request_if_asked() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        session.login(remembered())?;
        session.login(Login::new("alice").keep_settings())
    })
    .await;
    assert_eq!(settings(&site).await, REMEMBERED);
    visit(&site, &mut browser, async |session: Session| {
        session.login("alice")?;
        session.login(Login::new("alice").keep_settings())
    })
    .await;
    assert_eq!(settings(&site).await, NOTHING);
    site.sign_in(&mut browser, remembered()).await;
    visit(&site, &mut browser, async |session: Session| {
        session.logout()?;
        session.login(Login::new("alice").keep_settings())
    })
    .await;
    assert_eq!(settings(&site).await, NOTHING);
}

/// Such as the second of two clicks: the session has a new id when it is executed.
#[tokio::test]
async fn the_second_of_two_logins_at_once_keeps_the_settings_if_asked() {
    for discards in [false, true] {
        let site = Site::new().await;
        let mut browser = site.signed_in(remembered()).await;
        let again = move || match discards {
            true => Login::new("alice").keep_settings().discard_data(),
            false => Login::new("alice").keep_settings(),
        };
        let second = InFlight::begin(&browser, "/page", |gate| {
            site.app_with(async move |session: Session| {
                gate.pass().await;
                session.login(again().end_others())
            })
        });
        let second = second.await;
        site.sign_in(&mut browser, Login::new("alice").keep_settings())
            .await;
        assert_eq!(settings(&site).await, REMEMBERED);
        second.go_on();
        assert!(second.response().await.token().is_some());
        assert_eq!(settings(&site).await, REMEMBERED, "{discards}");
    }
}

/// Another user has signed in meanwhile under the session's new id.
#[tokio::test]
async fn the_second_of_two_logins_at_once_takes_no_settings_of_another_user() {
    let site = Site::new().await;
    let mut browser = site.signed_in(Login::new("alice")).await;
    let second = InFlight::begin(&browser, "/page", |gate| {
        site.app_with(async move |session: Session| {
            gate.pass().await;
            session.login(Login::new("alice").keep_settings().discard_data())
        })
    });
    let second = second.await;
    let bob = Login::new("bob").device(Device::new().with_label("of bob"));
    site.sign_in(&mut browser, bob.external_id("of bob")).await;
    second.go_on();
    assert!(second.response().await.token().is_some());
    let sql = "SELECT coalesce(device::text, '') || coalesce(external_id, '')
               FROM session WHERE user_id = 'alice'";
    assert_eq!(texts(&site.pool, sql).await, [""]);
}

#[tokio::test]
async fn a_login_that_keeps_settings_begins_a_session_without_any() {
    let site = Site::new().await;
    let mut browser = site.browser();
    site.sign_in(&mut browser, Login::new("alice").keep_settings())
        .await;
    assert_eq!(settings(&site).await, NOTHING);
}

#[tokio::test]
async fn a_login_can_drop_what_was_there() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    visit(&site, &mut browser, async |session: Session| {
        session.insert("before", 1)?;
        session.login(Login::new("alice").discard_data())?;
        session.insert("after", 2)
    })
    .await;
    assert_eq!(site.rows().document().await, json!({"after": 2}));
}

#[tokio::test]
async fn no_user_gets_what_another_user_left() {
    let site = Site::new().await;
    let mut browser = site.signed_in("alice").await;
    browser.get("/insert/letters/private").await;
    site.sign_in(&mut browser, "alice").await;
    assert_eq!(browser.get("/get/letters").await.body, "\"private\"");
    site.sign_in(&mut browser, "bob").await;
    assert_eq!(browser.get("/keys").await.body, "");
    assert_eq!(site.user(&browser).await, "bob");
    assert_eq!(site.sessions_of("alice").await, 0);
}

#[tokio::test]
async fn a_login_starts_the_clocks_anew() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        session.set_expiry(Expiry::Idle(HOUR))
    })
    .await;
    browser.get("/insert/basket/pear").await;
    site.rows().age_creation(29.5 * 86_400.0).await;
    site.sign_in(&mut browser, "alice").await;
    assert_eq!(
        column(&site, "now() - created < interval '1 minute'").await,
        "true"
    );
    assert!((site.rows().seconds_left().await - 86_400.0).abs() < 1.0);
    assert_eq!(site.rows().document().await, json!({"basket": "pear"}));
}

#[tokio::test]
async fn an_old_authentication_is_not_recent() {
    let site = Site::new().await;
    let mut browser = site.browser();
    let is_recent = async |session: Session| {
        session
            .authenticated_within(Duration::from_secs(300))
            .to_string()
    };
    browser.get("/insert/a/1").await;
    assert_eq!(
        visit(&site, &mut browser, is_recent).await,
        "false",
        "anonymous"
    );
    visit(&site, &mut browser, async |session: Session| {
        session.login("alice")?;
        assert!(session.authenticated_within(Duration::ZERO));
        Ok::<_, Error>(())
    })
    .await;
    assert_eq!(visit(&site, &mut browser, is_recent).await, "true");
    site.rows().age_creation(301.0).await;
    assert_eq!(visit(&site, &mut browser, is_recent).await, "false");
    browser.get("/cycle").await;
    browser.get("/insert/a/2").await;
    assert_eq!(visit(&site, &mut browser, is_recent).await, "false", "used");
    site.sign_in(&mut browser, "alice").await;
    assert_eq!(visit(&site, &mut browser, is_recent).await, "true", "again");
}

#[tokio::test]
async fn a_cycle_keeps_who_is_signed_in_and_the_device() {
    let site = Site::new().await;
    let mut browser = site.browser();
    let device = Device::new().with_label("my phone");
    site.sign_in(&mut browser, Login::new("alice").device(device.clone()))
        .await;
    site.rows()
        .execute("UPDATE TABLE SET created = '2020-02-02Z'")
        .await;
    let layer = site.layer().absolute_timeout(None);
    browser.at(&app(layer)).get("/cycle").await;
    let listed = site.store.user("alice").list().await.expect("a list");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].device(), Some(&device));
    assert_eq!(listed[0].created().map(OffsetDateTime::year), Some(2020));
    let left = texts(&site.pool, "SELECT coalesce(user_id, '') || coalesce(device::text, '') FROM session WHERE session::text LIKE '%successor%'").await;
    assert!(
        !left.is_empty() && left.iter().all(String::is_empty),
        "{left:?}"
    );
}

/// Loads the session, waits at the gate, then does this to it.
async fn overtaken_by_a_login(login: Login) -> (Site, Browser, StatusCode) {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    let late = InFlight::begin(&browser, "/page", |gate| {
        site.app_with(async move |session: Session| {
            gate.pass().await;
            session.insert("late", true)
        })
    })
    .await;
    site.sign_in(&mut browser, login).await;
    let response = late.finish().await;
    assert!(response.sets_no_cookie());
    (site, browser, response.status)
}

#[tokio::test]
async fn a_stored_session_has_the_user() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    let load = async |browser: &Browser| {
        let id = browser.handle().await;
        let loaded = site.store.load(&id).await.expect("a response");
        loaded.expect("it lives").user_id().map(str::to_owned)
    };
    assert_eq!(load(&browser).await, None);
    site.sign_in(&mut browser, "alice").await;
    assert_eq!(load(&browser).await.as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_late_save_under_the_old_id_follows_the_login() {
    let (_site, mut browser, status) = overtaken_by_a_login(Login::new("alice")).await;
    assert_eq!(status, 200);
    assert_eq!(browser.get("/keys").await.body, "basket,late");
}

#[tokio::test]
async fn a_late_save_does_not_follow_a_login_that_dropped_the_data() {
    let login = Login::new("alice").discard_data();
    let (site, mut browser, status) = overtaken_by_a_login(login).await;
    assert_eq!(status, 503);
    assert_eq!(browser.get("/keys").await.body, "");
    assert_eq!(site.rows().text().await, "{}");
}

#[tokio::test]
async fn the_second_of_two_logins_at_once_begins_a_session_of_its_own() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    let mut second = browser.at(&site.app_with(async |session: Session| session.login("alice")));
    site.sign_in(&mut browser, "alice").await;
    let response = second.get("/page").await;
    assert_eq!(response.status, 200);
    assert_ne!(second.token(), browser.token());
    assert_eq!(site.sessions_of("alice").await, 2);
    // It was sent when the session had its new id already, so it reads nothing.
    assert_eq!(second.at(&site.app()).get("/keys").await.body, "");
    assert_eq!(browser.get("/keys").await.body, "basket");
}

#[tokio::test]
async fn a_remembered_session_keeps_its_own_timeouts() {
    let site = Site::new().await;
    let mut browser = site.browser();
    let app = site.app_with(async |session: Session| {
        let (idle, absolute) = (30 * DAY, 90 * DAY);
        session.login(Login::new("alice").expiry(Expiry::Timeouts { idle, absolute }))
    });
    let mut visitor = browser.at(&app);
    let response = visitor.get("/page").await;
    let max_age = response.set_cookies()[0].max_age().expect("a life");
    assert_eq!(max_age.whole_days(), 90);
    browser.jar = visitor.jar;
    assert!((site.rows().seconds_left().await - 30.0 * 86_400.0).abs() < 1.0);
    site.rows().age(29.0 * 86_400.0).await;
    assert_eq!(site.user(&browser).await, "alice");
    assert!(
        (site.rows().seconds_left().await - 30.0 * 86_400.0).abs() < 1.0,
        "touched"
    );
    site.rows().age_creation(80.0 * 86_400.0).await;
    browser.get("/cycle").await;
    assert!(
        (site.rows().seconds_left().await - 10.0 * 86_400.0).abs() < 1.0,
        "absolute"
    );
    site.rows().age_creation(10.1 * 86_400.0).await;
    assert_eq!(site.user(&browser).await, "");
}

#[tokio::test]
async fn the_next_login_forgets_that_the_last_one_was_remembered() {
    let site = Site::new().await;
    let mut browser = site.browser();
    let remembered = Expiry::Timeouts {
        idle: 30 * DAY,
        absolute: 90 * DAY,
    };
    site.sign_in(&mut browser, Login::new("alice").expiry(remembered))
        .await;
    site.sign_in(&mut browser, "alice").await;
    assert_eq!(site.rows().text().await, "{}");
    assert!((site.rows().seconds_left().await - 86_400.0).abs() < 1.0);
}

#[tokio::test]
async fn a_table_of_three_columns_says_which_migration_a_login_needs() {
    let site = Site::with_table(THREE_COLUMNS).await;
    let report = site.store.check().await.expect("it serves");
    assert!(!report.per_user_sessions && !report.last_seen && !report.device);
    assert!(!report.external_id);
    let mut browser = site.visitor().await;
    visit(&site, &mut browser, async |session: Session| {
        let refused = session.login("alice").expect_err("no column");
        assert_eq!(refused.kind(), ErrorKind::Setup);
        assert!(refused.to_string().contains("user_id"), "{refused}");
        assert!(refused.to_string().contains("0002"), "{refused}");
        let (idle, absolute) = (HOUR, DAY);
        let refused = session.set_expiry(Expiry::Timeouts { idle, absolute });
        let refused = refused.expect_err("no column");
        assert!(refused.to_string().contains("created"), "{refused}");
    })
    .await;
    let refused = site
        .store
        .user("alice")
        .list()
        .await
        .expect_err("no column");
    assert_eq!(refused.kind(), ErrorKind::Setup);
    assert!(refused.to_string().contains("0002"), "{refused}");
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

/// Before the first inspection of the table, the save is the first call that can fail.
#[tokio::test]
async fn a_login_on_a_table_without_users_is_refused_at_its_save_if_it_was_not_inspected() {
    let site = Site::with_table(THREE_COLUMNS).await;
    let app = site.app_with(async |session: Session| {
        session.login("alice")?;
        let refused = session.save().await.expect_err("no column");
        assert_eq!(refused.kind(), ErrorKind::Setup);
        assert_eq!(session.user_id(), None);
        Ok::<_, Error>(())
    });
    assert_eq!(Browser::new(&app).get("/page").await.status, 200);
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_device_needs_its_column() {
    let site = Site::new().await;
    execute(&site.pool, "ALTER TABLE session DROP COLUMN device").await;
    site.store.check().await.expect("it serves");
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        let login = Login::new("alice").device(Device::new().with_label("my phone"));
        let refused = session.login(login).expect_err("no column");
        assert!(refused.to_string().contains("0005"), "{refused}");
        session.login("alice")
    })
    .await;
    let listed = site.store.user("alice").list().await.expect("a list");
    assert_eq!(listed[0].device(), None);
}

/// What belongs to the application keeps its value, whatever it is called.
#[tokio::test]
async fn a_login_carries_the_applications_own_columns_along() {
    let site = Site::with_table("CREATE TABLE session (id varchar(128) PRIMARY KEY, expiry timestamp NOT NULL, session jsonb,
         created timestamptz DEFAULT now(), user_id varchar, device text DEFAULT 'theirs', \"Team\" int DEFAULT 7)").await;
    let store = site.store.clone().time_zone("Asia/Kathmandu");
    assert!(!store.check().await.expect("it serves").device);
    let site = Site { store, ..site };
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    execute(
        &site.pool,
        "UPDATE session SET device = 'kept', \"Team\" = 8",
    )
    .await;
    site.sign_in(&mut browser, "alice").await;
    assert_eq!(browser.get("/get/basket").await.body, "\"pear\"");
    assert_eq!(
        column(&site, "user_id || device || \"Team\"").await,
        "alicekept8"
    );
    let left = "extract(epoch FROM expiry AT TIME ZONE 'Asia/Kathmandu' - now())::int BETWEEN 86390 AND 86400";
    assert_eq!(column(&site, left).await, "true");
    site.signed_in("alice").await;
    assert_eq!(
        site.store.user("alice").list().await.expect("a list").len(),
        2
    );
    assert_eq!(
        site.store
            .user("alice")
            .destroy_all()
            .await
            .expect("an end"),
        2
    );
}

#[tokio::test]
async fn a_user_without_a_proper_id_is_refused() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        let refused = session.login("").expect_err("no id");
        assert_eq!(refused.kind(), ErrorKind::Serialize);
        assert_eq!(session.user_id(), None);
    })
    .await;
    assert_eq!(site.rows().count().await, 0);
}

fn with_site_data(site: &Site) -> PgSessionLayer {
    site.layer()
        .clear_site_data([ClearSiteData::Cache, ClearSiteData::Storage])
}

/// Visits a page of a layer that clears site data.
async fn on_a_site_with_data<H, T>(site: &Site, browser: &Browser, page: H) -> Reply
where
    H: Handler<T, ()>,
    T: 'static,
{
    let app = app_with(with_site_data(site), page);
    browser.at(&app).get("/page").await
}

#[tokio::test]
async fn a_logout_ends_the_session_and_clears_what_the_layer_names() {
    let site = Site::new().await;
    let browser = site.signed_in("alice").await;
    let logout = async |session: Session| {
        session.logout()?;
        assert_eq!(session.user_id(), None);
        Ok::<_, Error>(())
    };
    let response = on_a_site_with_data(&site, &browser, logout).await;
    assert_eq!(response.status, 200);
    assert!(response.removes_the_cookie());
    assert_eq!(response.headers["clear-site-data"], r#""cache", "storage""#);
    assert_eq!(site.rows().count().await, 0);
    assert_eq!(site.user(&browser).await, "");
}

#[tokio::test]
async fn a_logout_that_was_saved_clears_site_data_in_spite_of_a_discard() {
    let site = Site::new().await;
    let browser = site.signed_in("alice").await;
    let logout = async |session: Session| {
        session.logout()?;
        session.save().await?;
        session.discard()?;
        session.destroy()?;
        session.discard()
    };
    let response = on_a_site_with_data(&site, &browser, logout).await;
    assert!(response.removes_the_cookie());
    assert_eq!(response.headers["clear-site-data"], r#""cache", "storage""#);
}

#[tokio::test]
async fn a_login_that_drops_the_data_leaves_the_applications_own_columns_behind() {
    for next in [Login::new("bob"), Login::new("alice").discard_data()] {
        let site = Site::new().await;
        let mut browser = site.browser();
        let sql = "ALTER TABLE session ADD COLUMN team int DEFAULT 7";
        execute(&site.pool, sql).await;
        // One that knows the column.
        let store = site.elsewhere().await;
        let site = Site { store, ..site };
        site.sign_in(&mut browser, "alice").await;
        execute(&site.pool, "UPDATE session SET team = 8").await;
        site.sign_in(&mut browser, "alice").await;
        let teams = "SELECT team::text FROM session WHERE user_id IS NOT NULL";
        assert_eq!(texts(&site.pool, teams).await, ["8"]);
        site.sign_in(&mut browser, next).await;
        assert_eq!(texts(&site.pool, teams).await, ["7"]);
    }
}

#[tokio::test]
async fn a_logout_clears_site_data_even_if_the_next_session_cannot_begin() {
    let site = Site::new().await;
    let browser = site.signed_in("alice").await;
    site.refuse("INSERT").await;
    let logout = async |session: Session| {
        session.logout()?;
        session.insert("message", "good-bye")
    };
    let response = on_a_site_with_data(&site, &browser, logout).await;
    assert_eq!(response.status, 503);
    assert!(response.removes_the_cookie());
    assert_eq!(response.headers["clear-site-data"], r#""cache", "storage""#);
}

#[tokio::test]
async fn a_logout_whose_refused_row_stays_clears_no_site_data() {
    let site = Site::new().await;
    let browser = site.signed_in("alice").await;
    site.refuse("DELETE").await;
    let layer = with_site_data(&site).valid_if(async |_, _| false);
    for page in [
        app_with(layer.clone(), async |session: Session| session.logout()),
        app_with(layer, async |session: Session| {
            session.logout()?;
            session.save().await.expect_err("refused");
            session.discard()
        }),
    ] {
        let response = browser.at(&page).peek("/page").await;
        assert_eq!(response.status, 503);
        assert!(!response.headers.contains_key("clear-site-data"));
    }
}

#[tokio::test]
async fn only_a_logout_clears_site_data() {
    let site = Site::new().await;
    let clears = async |handler: fn(&Session) -> Result<(), Error>| {
        let browser = site.visitor().await;
        let page = async move |session: Session| handler(&session);
        let response = on_a_site_with_data(&site, &browser, page).await;
        assert_eq!(response.status, 200);
        response.headers.contains_key("clear-site-data")
    };
    assert!(clears(Session::logout).await);
    assert!(!clears(Session::destroy).await);
    assert!(!clears(|session| session.insert("a", 2)).await);
    let begins_another = |session: &Session| {
        session.logout()?;
        session.insert("farewell", true)
    };
    assert!(!clears(begins_another).await, "the new cookie must stay");
}

#[tokio::test]
async fn a_logout_that_failed_clears_no_site_data() {
    let site = Site::new().await;
    let browser = site.signed_in("alice").await;
    site.refuse("DELETE").await;
    let page = async |session: Session| session.logout();
    let response = on_a_site_with_data(&site, &browser, page).await;
    assert_eq!(response.status, 503);
    assert!(response.sets_no_cookie());
    assert!(!response.headers.contains_key("clear-site-data"));
    assert_eq!(site.user(&browser).await, "alice");
}

#[tokio::test]
async fn a_user_signs_in_to_koas_table_too() {
    let site = Site::new().await;
    let koa = Koa::new(["key"]);
    let store: PgSessionStore = site.store.clone().koa(koa);
    let site = Site { store, ..site };
    let mut browser = site.browser();
    browser.get("/insert/basket/pear").await;
    let old = browser.cookie("koa.sid").expect("a token").to_owned();
    site.sign_in(&mut browser, "alice").await;
    assert_ne!(browser.cookie("koa.sid").expect("a token"), old);
    assert_eq!(site.user(&browser).await, "alice");
    assert_eq!(browser.get("/get/basket").await.body, "\"pear\"");
    let rows = Rows::new(site.pool.clone(), "session");
    assert_eq!(rows.count().await, 1, "nothing under the old id");
    visit(&site, &mut browser, async |session: Session| {
        let (idle, absolute) = (HOUR, DAY);
        let refused = session.set_expiry(Expiry::Timeouts { idle, absolute });
        assert_eq!(
            refused.expect_err("no place for it").kind(),
            ErrorKind::Setup
        );
    })
    .await;
    let alice = site.store.user("alice");
    let listed = alice.list().await.expect("a list");
    assert!(!listed[0].id().as_str().contains(&old));
    let text: axum_pg_session::SessionId = listed[0].id().as_str().parse().expect("a handle");
    assert!(!site.store.user("bob").destroy(&text).await.expect("no end"));
    assert!(alice.destroy(&text).await.expect("an end"));
    assert_eq!(site.user(&browser).await, "");
}

/// With a foreign key to the application's users, also one that is checked at
/// the commit.
#[tokio::test]
async fn a_login_of_a_user_who_does_not_exist_is_refused() {
    for check in ["", "DEFERRABLE INITIALLY DEFERRED"] {
        let site = Site::new().await;
        execute(
            &site.pool,
            &format!(
                "CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('alice');
                 ALTER TABLE session ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE
                 {check}"
            ),
        )
        .await;
        let page = async |session: Session| session.login("alice");
        let app = site.app_with(page);
        let (mut new, mut known) = (Browser::new(&app), site.browser());
        known.get("/insert/basket/pear").await;
        let mut known = known.at(&app);
        assert_eq!(new.get("/page").await.status, 200);
        execute(&site.pool, "DELETE FROM users").await;
        assert_eq!(new.get("/keys").await.body, "", "it ended with the user");
        for browser in [&mut Browser::new(&app), &mut known] {
            let refused = browser.get("/page").await;
            assert_eq!(refused.status, 403, "{check}: {:?}", refused.error);
            assert!(!refused.headers.contains_key("retry-after"));
            assert!(refused.sets_no_cookie());
        }
        assert_eq!(known.get("/keys").await.body, "basket");
        assert_eq!(site.rows().count().await, 1);
    }
}

/// A double click on "sign in" has left a page with the former id.
#[tokio::test]
async fn a_login_that_ends_others_finds_one_that_begins_separately_meanwhile() {
    let site = Site::new().await;
    let mut browser = Browser::new(&site.app());
    site.sign_in(&mut browser, "alice").await;
    browser.get("/insert/a/1").await;
    let again = site
        .late(&browser, async move |session: Session| {
            session.login("alice")
        })
        .await;
    browser.get("/cycle").await;
    // It has found that its session still exists, and inserts its own.
    execute(
        &site.pool,
        r#"CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql
           AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$;
           CREATE TRIGGER pause BEFORE INSERT ON session FOR EACH ROW
           WHEN (strpos(NEW.session::text, '"a"') > 0) EXECUTE FUNCTION pause()"#,
    )
    .await;
    let pause = site.hold_advisory_lock().await;
    let again = tokio::spawn(again.finish());
    site.blocked(1).await;
    let page =
        site.app_with(async |session: Session| session.login(Login::new("alice").end_others()));
    let ending = tokio::spawn(async move { Browser::new(&page).get("/page").await.status });
    until(async || ending.is_finished() || site.is_blocked_twice().await).await;
    pause.rollback().await.expect("a rollback");
    assert_eq!(ending.await.expect("no panic"), 200);
    again.await.expect("no panic");
    assert_eq!(site.sessions_of("alice").await, 1);
}

/// Each late login has loaded the session with the coupon.
#[tokio::test]
async fn a_value_that_was_taken_since_does_not_come_back_by_late_logins() {
    for new_id in ["cycle", "login"] {
        for is_taken_before in [true, false] {
            let site = Site::new().await;
            let mut browser = site.browser();
            browser.get("/insert/coupon/x").await;
            browser.get("/insert/basket/pear").await;
            let login = async |session: Session| session.login("alice");
            let late = [
                site.late(&browser, login).await,
                site.late(&browser, login).await,
            ];
            let take = async |session: Session| {
                let taken = session.take::<String>("coupon").await;
                taken.map(|coupon| coupon.is_some().to_string())
            };
            let taking = site.app_with(take);
            let mut there = browser.clone().at(&taking);
            if is_taken_before {
                assert_eq!(there.get("/page").await.body, "true");
            }
            let mut there = there.at(&site.app());
            match new_id {
                "cycle" => drop(there.get("/cycle").await),
                _ => site.sign_in(&mut there, "alice").await,
            }
            let mut there = there.at(&taking);
            let taken_there = (!is_taken_before).to_string();
            assert_eq!(there.get("/page").await.body, taken_there);
            for late in late {
                let mut other = browser.clone();
                other.accept(&late.finish().await);
                assert_eq!(other.peek("/get/basket").await.body, "\"pear\"");
                assert_eq!(other.at(&taking).get("/page").await.body, "false");
            }
        }
    }
}

#[tokio::test]
async fn a_late_login_keeps_its_own_changes_and_brings_back_no_change_of_others() {
    let site = Site::new().await;
    let mut browser = site.signed_in("alice").await;
    for insert in [
        "/insert/admin/yes",
        "/insert/theme/light",
        "/insert/visits/7",
    ] {
        browser.get(insert).await;
    }
    let again = async |session: Session| {
        session.update("visits", |visits: Option<String>| visits.is_some())?;
        session.insert("theme", "own")?;
        session.login(Login::new("alice").keep_settings())
    };
    let late = site.late(&browser, again).await;
    let drops = async |session: Session| {
        session.delete("admin")?;
        session.insert("theme", "dark")?;
        session.insert("visits", "8")?;
        session.cycle_id()
    };
    let reply = browser.clone().at(&site.app_with(drops)).get("/page").await;
    assert_eq!(reply.status, 200);
    browser.accept(&late.finish().await);
    assert_eq!(browser.peek("/keys").await.body, "visits,theme");
    assert_eq!(browser.peek("/get/theme").await.body, "\"own\"");
    assert_eq!(browser.peek("/get/visits").await.body, "false");
}

/// The clock of the database was set back since the login.
#[tokio::test]
async fn a_login_in_the_future_is_not_recent() {
    for format in ["own", "express"] {
        let (site, _, mut browser) = site_of(format, Duration::from_secs(5)).await;
        site.sign_in(&mut browser, "ada").await;
        execute(
            &site.pool,
            "UPDATE session SET created = now() + interval '1 hour'",
        )
        .await;
        let page = async |session: Session| {
            let minute = Duration::from_secs(60);
            session.authenticated_within(minute).to_string()
        };
        let recent = browser.at(&site.app_with(page)).peek("/page").await.body;
        assert_eq!(recent, "false", "{format}");
    }
}
