//! Tests of the shop with the test visitors of axum-pg-session:
//! <https://docs.rs/axum-pg-session/latest/axum_pg_session/testing>.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::connect_info::MockConnectInfo,
    http::{Request, StatusCode, header},
    response::Response,
};
use axum_pg_session::{
    Expiry, Login, PgSessionLayer, PgSessionStore, Session, SessionId, testing::TestVisitor,
};
use dev_postgres::TestDatabase;
use sqlx::PgPool;

use crate::{
    audit,
    basket::{Basket, Item},
    error::Failure,
    site::{self, Site},
    users::Users,
};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const TOKEN: &str = "the token of the forms";

type Outcome<T = ()> = Result<T, Failure>;

struct Shop {
    app: Router,
    sessions: PgSessionLayer,
    store: PgSessionStore,
    pool: PgPool,
    _database: TestDatabase,
}

impl Shop {
    async fn open() -> Outcome<Self> {
        let database = dev_postgres::test_database().await?;
        let pool = PgPool::connect(database.url()).await?;
        let store = site::limited(PgSessionStore::new(pool.clone()));
        let (store, _log) = audit::keep(store, pool.clone()).await?;
        store.migrate().await?;
        let users = Users::new(pool.clone()).await?;
        let app = site::app(Site {
            store: store.clone(),
            users,
        });
        let address = SocketAddr::from(([192, 0, 2, 7], 40_000));
        Ok(Self {
            app: app.layer(MockConnectInfo(address)),
            sessions: site::sessions(store.clone()),
            store,
            pool,
            _database: database,
        })
    }

    /// A visitor who has opened a page.
    async fn visitor(&self) -> Outcome<TestVisitor> {
        let visitor = TestVisitor::new(&self.sessions);
        visitor
            .with_session(|session| session.insert("csrf", TOKEN))
            .await?;
        Ok(visitor)
    }

    async fn customer(&self, login: impl Into<Login> + Send) -> Outcome<TestVisitor> {
        let visitor = self.visitor().await?;
        visitor.with_session(|session| session.login(login)).await?;
        Ok(visitor)
    }

    async fn page(&self, visitor: &TestVisitor, path: &str) -> Outcome<String> {
        let response = self.get(visitor, path).await?;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let body = to_bytes(response.into_body(), 64 * 1024).await?;
        Ok(String::from_utf8(body.to_vec())?)
    }

    async fn get(&self, visitor: &TestVisitor, path: &str) -> Outcome<Response> {
        let request = Request::get(path).body(Body::empty())?;
        Ok(visitor.send(&self.app, request).await?)
    }

    /// Sends a form of the shop.
    async fn post(&self, visitor: &TestVisitor, path: &str, form: &str) -> Outcome<Response> {
        let form = format!("csrf={}&{form}", TOKEN.replace(' ', "+"));
        self.post_bare(visitor, path, form).await
    }

    /// Sends a form without the token.
    async fn post_bare(
        &self,
        visitor: &TestVisitor,
        path: &str,
        form: impl Into<String>,
    ) -> Outcome<Response> {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.into()))?;
        Ok(visitor.send(&self.app, request).await?)
    }
}

fn leads_to(response: &Response) -> Option<&str> {
    response.headers().get(header::LOCATION)?.to_str().ok()
}

#[tokio::test]
async fn an_item_is_in_the_basket_and_its_message_is_shown_once() -> Outcome {
    let shop = Shop::open().await?;
    let visitor = shop.visitor().await?;
    let basket = Basket::from([(Item::Tea, 1)]);
    visitor
        .with_session(|session| session.insert("basket", &basket))
        .await?;

    shop.post(&visitor, "/basket", "item=tea").await?;
    let basket: Option<Basket> = visitor.session().await?.get("basket")?;
    assert_eq!(basket, Some(BTreeMap::from([(Item::Tea, 2)])));
    assert!(
        shop.page(&visitor, "/")
            .await?
            .contains("is in your basket")
    );
    assert!(
        !shop
            .page(&visitor, "/")
            .await?
            .contains("is in your basket")
    );
    Ok(())
}

#[tokio::test]
async fn a_form_without_the_token_of_its_session_changes_nothing() -> Outcome {
    let shop = Shop::open().await?;
    let visitor = shop.visitor().await?;
    for form in ["item=tea", "csrf=another&item=tea"] {
        let response = shop.post_bare(&visitor, "/basket", form).await?;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
    assert!(!visitor.session().await?.contains_key("basket"));
    Ok(())
}

#[tokio::test]
async fn a_basket_survives_the_login_and_the_old_cookie_does_not() -> Outcome {
    let shop = Shop::open().await?;
    let visitor = shop.visitor().await?;
    let account = "name=Ada&password=correct+horse";
    shop.post(&visitor, "/basket", "item=honey").await?;
    let planted = visitor.clone_cookies();

    let response = shop.post(&visitor, "/sign-up", account).await?;
    assert_eq!(leads_to(&response), Some("/devices"));
    let session = visitor.session().await?;
    assert_eq!(session.user_id().as_deref(), Some("ada"));
    assert!(session.contains_key("basket"));
    let of_the_forms: Option<String> = session.get("csrf")?;
    assert_ne!(of_the_forms.as_deref(), Some(TOKEN));
    assert!(planted.session().await?.is_new());
    Ok(())
}

#[tokio::test]
async fn visitors_who_are_not_signed_in_are_redirected_to_the_login() -> Outcome {
    let shop = Shop::open().await?;
    let visitor = shop.visitor().await?;
    for path in ["/devices", "/password"] {
        let response = shop.get(&visitor, path).await?;
        assert_eq!(
            leads_to(&response),
            Some("/sign-in?required=true"),
            "{path}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_change_of_the_password_needs_a_recent_login() -> Outcome {
    let shop = Shop::open().await?;
    let ada = shop.customer("ada").await?;
    let asks_again = |page: &str| page.contains(r#"action="/confirm""#);
    assert!(!asks_again(&shop.page(&ada, "/password").await?));

    ada.signed_in_ago(6 * MINUTE).await?;
    assert!(asks_again(&shop.page(&ada, "/password").await?));
    let response = shop
        .post(&ada, "/password", "password=correct+horse")
        .await?;
    assert_eq!(leads_to(&response), Some("/password"));
    Ok(())
}

#[tokio::test]
async fn a_remembered_user_stays_signed_in() -> Outcome {
    let shop = Shop::open().await?;
    let forgotten = shop.customer("ada").await?;
    let remembered = Login::new("ada").expiry(Expiry::Timeouts {
        idle: 30 * 24 * HOUR,
        absolute: 180 * 24 * HOUR,
    });
    let remembered = shop.customer(remembered).await?;
    forgotten.idle_for(3 * HOUR).await?;
    remembered.idle_for(20 * 24 * HOUR).await?;
    assert!(forgotten.session().await?.is_new());
    assert_eq!(
        shop.get(&remembered, "/devices").await?.status(),
        StatusCode::OK
    );
    Ok(())
}

#[tokio::test]
async fn other_devices_are_signed_out_and_this_one_is_not() -> Outcome {
    let shop = Shop::open().await?;
    let (desk, phone) = (shop.customer("ada").await?, shop.customer("ada").await?);
    let bob = shop.customer("bob").await?;
    shop.post(&desk, "/devices/end-others", "").await?;
    assert!(phone.session().await?.is_new());
    assert_eq!(desk.session().await?.user_id().as_deref(), Some("ada"));
    assert!(!bob.session().await?.is_new());
    assert_eq!(shop.store.user("ada").count().await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_user_can_not_end_the_session_of_another_user() -> Outcome {
    let shop = Shop::open().await?;
    let (ada, bob) = (shop.customer("ada").await?, shop.customer("bob").await?);
    let id: Option<SessionId> = bob.session().await?.id();
    let form = format!("id={}", id.expect("a stored session"));
    shop.post(&ada, "/devices/end", &form).await?;
    assert!(!bob.session().await?.is_new());
    assert!(
        shop.page(&ada, "/devices")
            .await?
            .contains("was signed out already")
    );
    Ok(())
}

#[tokio::test]
async fn a_new_password_signs_out_all_other_devices_at_once() -> Outcome {
    let shop = Shop::open().await?;
    let desk = shop.visitor().await?;
    shop.post(&desk, "/sign-up", "name=Ada&password=correct+horse")
        .await?;
    desk.with_session(|session| session.insert("csrf", TOKEN))
        .await?;
    let (thief, phone) = (desk.clone_cookies(), shop.customer("ada").await?);

    let response = shop
        .post(&desk, "/password", "password=battery+staple")
        .await?;
    assert_eq!(leads_to(&response), Some("/devices"));
    assert_eq!(desk.session().await?.user_id().as_deref(), Some("ada"));
    assert!(phone.session().await?.is_new());
    assert!(thief.session().await?.is_new());
    assert_eq!(shop.store.user("ada").count().await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_session_that_is_not_loaded_or_not_saved_is_a_page_of_the_shop() -> Outcome {
    let shop = Shop::open().await?;
    let (known, unknown) = (shop.visitor().await?, TestVisitor::new(&shop.sessions));
    shop.pool.close().await;
    for (visitor, what) in [(known, "not loaded"), (unknown, "not saved")] {
        let response = shop.get(&visitor, "/").await?;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{what}");
        let headers = response.headers().clone();
        assert!(headers.contains_key(header::RETRY_AFTER), "{what}");
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let body = to_bytes(response.into_body(), 64 * 1024).await?;
        if let Some(length) = headers.get(header::CONTENT_LENGTH) {
            assert_eq!(length.to_str()?, body.len().to_string(), "{what}");
        }
        let page = String::from_utf8(body.to_vec())?;
        assert!(page.contains("Corner shop"), "{what}: {page}");
        assert!(page.contains("Nothing was saved"), "{what}: {page}");
    }
    Ok(())
}

/// Waits until the log has this many lines of the customer.
async fn audited(shop: &Shop, account: &str, lines: usize) -> Outcome<Vec<String>> {
    loop {
        let sql = "SELECT event FROM audit WHERE account = $1 ORDER BY at, event";
        let log: Vec<String> = sqlx::query_scalar(sql)
            .bind(account)
            .fetch_all(&shop.pool)
            .await?;
        if log.len() >= lines {
            return Ok(log);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_log_has_sign_ins_and_why_sessions_ended() -> Outcome {
    let shop = Shop::open().await?;
    let (desk, phone) = (shop.customer("ada").await?, shop.customer("ada").await?);
    drop(phone);
    desk.with_session(Session::logout).await?;
    shop.store.user("ada").destroy_all().await?;
    let log = audited(&shop, "ada", 4).await?;
    assert_eq!(log[..2], ["the user signed in"; 2]);
    assert_eq!(
        log[2..],
        [
            "the user signed out",
            "the sessions of the user were revoked"
        ]
    );
    Ok(())
}
