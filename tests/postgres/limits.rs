//! The limits of a session's size: bytes, depth and number of keys.

use std::sync::Arc;

use axum::{Router, extract::Path, routing::get};
use axum_pg_session::{Error, ErrorKind, Expiry, PgSessionLayer, Session};
use serde_json::{Value, json, value::RawValue};
use tokio::sync::Barrier;

use crate::support::{Browser, Site, app, execute, koa, page::app_with, texts, visit};

const MEBIBYTE: usize = 1024 * 1024;

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// A document of so many bytes.
fn filling(bytes: usize) -> String {
    text(bytes - r#"{"x":""}"#.len())
}

fn is_too_large<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    let error = outcome.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
}

/// One page, for requests with this layer.
fn page<H, T>(layer: PgSessionLayer, handler: H) -> Router
where
    H: axum::handler::Handler<T, ()>,
    T: 'static,
{
    app_with(layer, handler)
}

async fn stored(site: &Site) -> String {
    let mut rows = texts(&site.pool, "SELECT session::text FROM public.session").await;
    assert_eq!(rows.len(), 1, "one row");
    rows.remove(0)
}

#[tokio::test]
async fn a_document_at_the_limit_saves_and_one_byte_more_is_a_clear_error() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        session.insert("x", filling(MEBIBYTE))
    })
    .await;
    let before = stored(&site).await;
    assert_eq!(before.len(), MEBIBYTE);
    for more in [
        page(site.layer(), async |session: Session| {
            session.insert("x", filling(MEBIBYTE + 1))
        }),
        page(site.layer(), async |session: Session| {
            let longer = |x: Option<String>| x.unwrap_or_default() + "x";
            session.update("x", longer).map(drop)
        }),
        page(site.layer(), async |session: Session| {
            session.replace(json!({"x": filling(MEBIBYTE + 1)}))
        }),
        page(site.layer(), async |session: Session| {
            session.insert("y", 1)
        }),
    ] {
        let response = browser.at(&more).get("/page").await;
        assert_eq!(response.status, 507);
        assert_eq!(response.body, "Your session is full.");
        assert!(stored(&site).await == before);
    }
}

#[tokio::test]
async fn an_error_names_the_limit_and_the_size() {
    let site = Site::new().await;
    let layer = site.layer().max_document_size(20);
    let app = page(layer, async |session: Session| {
        let error = session.insert("x", filling(21)).expect_err("too large");
        error.to_string()
    });
    assert_eq!(
        Browser::new(&app).get("/page").await.body,
        "the session would have 21 bytes; max_document_size is 20"
    );
}

/// Nothing of a request that returns the error is saved.
#[tokio::test]
async fn what_the_handler_did_before_is_dropped_with_the_error() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    let before = site.rows().dump().await;
    let layer = site.layer().max_document_size(40);
    let app = page(layer, async |session: Session| {
        session.insert("b", 2)?;
        session.insert("c", text(40))
    });
    assert_eq!(browser.at(&app).get("/page").await.status, 507);
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn a_refused_change_leaves_the_session_as_it_is_for_the_handler() {
    let site = Site::new().await;
    let layer = site.layer().max_document_size(40).max_depth(2);
    let app = page(layer, async |session: Session| {
        session.insert("a", 1).expect("it fits");
        is_too_large(session.insert("a", text(40)));
        is_too_large(session.insert("a", json!([[[1]]])));
        is_too_large(session.update("a", |_: Option<u8>| text(40)));
        is_too_large(session.replace(json!({"b": 1, "c": text(40)})));
        is_too_large(session.replace(json!({"b": 1, "c": [[[1]]]})));
        assert_eq!(session.keys(), ["a"]);
        assert_eq!(session.get("a").expect("a number"), Some(1));
    });
    assert_eq!(Browser::new(&app).get("/page").await.status, 200);
    assert_eq!(site.rows().document().await, json!({"a": 1}));
}

/// Requests that load the session together, and fill it together.
fn filled_by_two(layer: PgSessionLayer, met: &Arc<Barrier>) -> Router {
    let met = Arc::clone(met);
    let fill = async move |session: Session, Path(how): Path<String>| -> Result<(), Error> {
        session.get::<Value>("base")?;
        met.wait().await;
        match how.as_str() {
            "insert" => session.insert("a", text(60)),
            "update" => session.update("b", |_: Option<Value>| text(60)).map(drop),
            "cycle" => {
                session.insert("c", text(60))?;
                session.cycle_id()
            }
            "save" => {
                session.insert("d", text(60))?;
                session.save().await
            }
            _ => session.replace(json!({"base": 1, "e": text(60)})),
        }
    };
    let layer = layer.max_document_size(100);
    Router::new()
        .route("/fill/{how}", get(fill))
        .route(
            "/keys",
            get(async |session: Session| session.keys().len().to_string()),
        )
        .layer(layer)
}

/// Each fits alone, and one of them is saved.
#[tokio::test]
async fn a_merge_that_would_be_too_large_fails_the_later_request_alone() {
    let pairs = [
        ("insert", "update"),
        ("update", "save"),
        ("insert", "cycle"),
        ("save", "insert"),
    ];
    for (one, two) in pairs {
        let site = Site::new().await;
        let met = Arc::new(Barrier::new(2));
        let apps = [site.layer(), PgSessionLayer::new(site.elsewhere().await)]
            .map(|layer| filled_by_two(layer, &met));
        for other in [&apps[0], &apps[1]] {
            let mut browser = site.browser();
            browser.get("/insert/base/1").await;
            let (mut first, mut second) = (browser.at(&apps[0]), browser.at(other));
            let (one, two) = (format!("/fill/{one}"), format!("/fill/{two}"));
            let (left, right) = tokio::join!(first.get(&one), second.get(&two));
            let mut statuses = [left.status.as_u16(), right.status.as_u16()];
            let has_moved = two.ends_with("cycle") && right.status == 200;
            statuses.sort_unstable();
            // A request with the old id does not learn whether its change fits.
            let refused = if has_moved { 503 } else { 507 };
            assert_eq!(statuses, [200, refused], "{one} and {two}");
            let saved = if left.status == 200 { first } else { second };
            let keys = saved.at(&site.app()).get("/keys").await.body;
            assert_eq!(keys.split(',').count(), 2, "{keys}");
        }
    }
}

#[tokio::test]
async fn deep_nesting_is_refused() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        session.insert("deep", nested(64))?;
        is_too_large(session.insert("deep", nested(65)));
        is_too_large(session.update("deep", |deep: Option<Value>| json!([deep])));
        is_too_large(session.update("deep", |deep: Option<Value>| json!({"a": deep})));
        is_too_large(session.replace(json!({"deep": nested(65)})));
        session.insert("text", "[".repeat(1000))
    })
    .await;
    let document = site.rows().document().await;
    assert_eq!(document["deep"], nested(64));
    assert_eq!(document["text"], "[".repeat(1000));
}

fn nested(levels: usize) -> Value {
    (1..levels).fold(json!([]), |inner, _| json!([inner]))
}

/// One level in each request.
#[tokio::test]
async fn nesting_that_grows_from_request_to_request_is_refused() {
    let site = Site::new().await;
    let wrap = page(site.layer().max_depth(3), async |session: Session| {
        session
            .update("n", |inner: Option<Value>| json!([inner]))
            .map(drop)
    });
    let mut browser = Browser::new(&wrap);
    for status in [200, 200, 200, 507, 507] {
        assert_eq!(browser.get("/page").await.status, status);
    }
    assert_eq!(site.rows().document().await, json!({"n": [[[null]]]}));
}

#[tokio::test]
async fn the_number_of_keys_is_not_limited_by_default() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        (0..2000).try_for_each(|n| session.insert(format!("key {n}"), n))
    })
    .await;
    let keys = visit(&site, &mut browser, async |session: Session| {
        session.keys().len().to_string()
    })
    .await;
    assert_eq!(keys, "2000");
}

#[tokio::test]
async fn the_number_of_keys_can_be_limited() {
    let site = Site::new().await;
    let mut browser = Browser::new(&app(site.layer().max_keys(2)));
    for (path, status) in [
        ("/insert/a/1", 200),
        ("/insert/b/2", 200),
        ("/insert/c/3", 507),
        ("/insert/a/4", 200),
        ("/remove/a", 200),
        ("/insert/c/3", 200),
        ("/increment/d", 507),
    ] {
        assert_eq!(browser.get(path).await.status, status, "{path}");
    }
    assert_eq!(browser.get("/keys").await.body, "b,c");
}

/// What the crate keeps in the document is not the application's.
#[tokio::test]
async fn an_expiry_can_be_set_at_the_limit() {
    let site = Site::new().await;
    let app = page(site.layer().max_document_size(40).max_keys(1), {
        async |session: Session| {
            session.insert("x", filling(40))?;
            session.set_expiry(Expiry::Idle(std::time::Duration::from_secs(60)))
        }
    });
    let mut browser = Browser::new(&app);
    for _ in 0..2 {
        assert_eq!(browser.get("/page").await.status, 200);
    }
    assert!((site.rows().seconds_left().await - 60.0).abs() < 1.0);
}

/// A visitor whose row another writer has filled.
async fn filled(site: &Site, document: &str) -> Browser {
    let browser = site.visitor().await;
    let sql = format!("UPDATE public.session SET session = $doc${document}$doc$::json");
    execute(&site.pool, &sql).await;
    browser
}

#[tokio::test]
async fn a_session_that_is_too_large_already_can_be_read_and_shrink() {
    let site = Site::new().await;
    let row = format!(r#"{{"x":"{}","n":1,"y":2}}"#, text(2 * MEBIBYTE));
    let mut browser = filled(&site, &row).await;
    assert_eq!(browser.get("/keys").await.body, "x,n,y");
    assert_eq!(browser.get("/increment/n").await.body, "2");
    assert_eq!(browser.get("/insert/z/3").await.status, 507);
    assert_eq!(browser.get("/remove/y").await.body, "2");
    assert_eq!(browser.get("/cycle").await.status, 200);
    assert_eq!(browser.get("/insert/x/1").await.status, 200);
    assert_eq!(browser.get("/insert/z/3").await.status, 200);
    assert_eq!(browser.get("/keys").await.body, "x,n,z");
}

#[tokio::test]
async fn a_hundred_thousand_keys_of_another_writer_harm_no_other_session() {
    let site = Site::new().await;
    let members: Vec<_> = (0..100_000).map(|n| format!("\"k{n}\":{n}")).collect();
    let mut browser = filled(&site, &format!("{{{},\"n\":1}}", members.join(","))).await;
    let mut other = site.visitor().await;
    let (wide, small) = tokio::join!(browser.get("/increment/n"), other.get("/increment/n"));
    assert_eq!((wide.body.as_str(), small.body.as_str()), ("2", "1"));
    assert_eq!(browser.get("/get/k99999").await.body, "99999");
}

/// What is deeper than we write, as deep as Postgres reads, and another value
/// of the same shape in its place.
#[tokio::test]
async fn deep_nesting_of_another_writer_harms_no_other_session() {
    let site = Site::new().await;
    let deep = |core: &str| format!("{}{core}{}", "[".repeat(5000), "]".repeat(5000));
    let row = format!(r#"{{"deep":{},"n":1}}"#, deep("1"));
    let mut browser = filled(&site, &row).await;
    let app = page(
        site.layer().max_depth(usize::MAX),
        async |session: Session| {
            let raw: Box<RawValue> = session.get("deep")?.expect("a value");
            let other = RawValue::from_string(raw.get().replace('1', "2")).expect("JSON");
            session.insert("deep", other)
        },
    );
    assert_eq!(browser.at(&app).get("/page").await.status, 200);
    assert_eq!(browser.get("/increment/n").await.body, "2");
    assert_eq!(
        stored(&site).await,
        format!(r#"{{"deep":{},"n":2}}"#, deep("2"))
    );
}

#[tokio::test]
async fn the_limits_hold_in_koas_format_too() {
    let site = Site::of_koa().await;
    site.koa_writes(koa::SID, koa::DOCUMENT, koa::DAY).await;
    let limit = koa::DOCUMENT.len() + r#","a":"1""#.len();
    let layer = site.layer().max_document_size(limit);
    let mut browser = Browser::new(&app(layer)).signed(koa::SID, koa::KEYS[0]);
    assert_eq!(browser.get("/insert/a/12").await.status, 507);
    assert_eq!(browser.get("/insert/a/1").await.status, 200);
    assert_eq!(browser.get("/insert/b/1").await.status, 507);
    assert_eq!(browser.get("/increment/count").await.body, "3");
}
