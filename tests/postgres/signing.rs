//! The signature of a token, in this crate's own format.

use axum::{
    Router,
    http::{HeaderName, HeaderValue},
};
use axum_pg_session::{
    ErrorKind, HeaderTransport, Koa, PgSessionLayer, PgSessionStore, Session, SigningKeys,
    UnsignedTokens,
};

use crate::support::{Browser, Reply, Site, app, browser::send, koa, proxy::Proxy};

const NEW: [u8; 32] = [1; 32];
const OLD: [u8; 32] = [2; 32];
const NAME: &str = "__Host-id";
const X_SESSION: HeaderName = HeaderName::from_static("x-session");

fn keys(keys: &[[u8; 32]]) -> SigningKeys {
    SigningKeys::new(keys)
}

fn signed(site: &Site, keys: SigningKeys) -> Router {
    app(site.layer().signing_keys(keys))
}

async fn reads_on(browser: &mut Browser, app: &Router) -> Reply {
    let mut elsewhere = browser.at(app);
    let response = elsewhere.get("/get/a").await;
    browser.jar = elsewhere.jar;
    response
}

/// The session opens, and its cookie stays as it is.
async fn is_at_home(browser: &mut Browser, app: &Router) {
    let response = reads_on(browser, app).await;
    assert_eq!(response.body, "\"1\"");
    assert!(response.sets_no_cookie(), "{response:?}");
}

/// The session opens, and its cookie is replaced by another of its token.
async fn is_signed_anew(browser: &mut Browser, app: &Router) {
    let before = browser.token().to_owned();
    let response = reads_on(browser, app).await;
    assert_eq!(response.body, "\"1\"");
    assert_ne!(browser.token(), before);
    assert_eq!(bare(browser.token()), bare(&before));
    is_at_home(browser, app).await;
}

fn bare(value: &str) -> &str {
    value.split('.').next().unwrap_or_default()
}

#[tokio::test]
async fn a_token_is_not_signed_by_default() {
    let site = Site::new().await;
    assert_eq!(site.visitor().await.token().len(), 43);
}

#[tokio::test]
async fn a_signed_token_has_a_whole_life() {
    let site = Site::new().await;
    let app = signed(&site, keys(&[NEW]));
    let mut browser = Browser::with_session(&app).await;
    let first = browser.token().to_owned();
    assert_eq!(first.len(), 87);
    is_at_home(&mut browser, &app).await;
    assert_eq!(browser.get("/increment/n").await.body, "1");
    browser.get("/cycle").await;
    assert_eq!(browser.token().len(), 87);
    assert_ne!(bare(browser.token()), bare(&first));
    is_at_home(&mut browser, &app).await;
    assert!(browser.get("/destroy").await.removes_the_cookie());
    assert_eq!(site.rows().count().await, 0);
}

/// As well-formed as the token: its last character holds four bits, and the
/// two that it leaves are zero in both.
fn with_another_end(token: &str) -> String {
    let (start, end) = token.split_at(token.len() - 1);
    let another = if end == "A" { "Q" } else { "A" };
    format!("{start}{another}")
}

/// An attacker without the key causes no query.
#[tokio::test]
async fn a_forged_token_costs_no_statement() {
    let site = Site::new().await;
    let proxy = Proxy::before(site.database.url()).await;
    let store = PgSessionStore::new(proxy.pool().await);
    store.check().await.expect("a table");
    let app = app(PgSessionLayer::new(store).signing_keys(keys(&[NEW, OLD])));
    let (mine, other) = (
        Browser::with_session(&app).await,
        Browser::with_session(&app).await,
    );
    let strange = Browser::with_session(&signed(&site, keys(&[[3; 32]]))).await;
    let token = mine.token();
    for forged in [
        bare(token).to_owned(),
        format!("{}{}", bare(token), &other.token()[43..]),
        format!("{}.{}", bare(token), "A".repeat(43)),
        with_another_end(token),
        strange.token().to_owned(),
        "A".repeat(43),
    ] {
        let before = proxy.executed();
        let browser = Browser::new(&app).with_cookie(NAME, &forged);
        let response = browser.peek("/get/a").await;
        assert_eq!(response.body, "none", "{forged}");
        assert!(response.sets_no_cookie());
        assert_eq!(proxy.executed(), before, "{forged}");
    }
    assert_eq!(mine.peek("/get/a").await.body, "\"1\"");
}

/// The rotation replaces each cookie once.
#[tokio::test]
async fn keys_are_rotated_without_signing_anyone_out() {
    let site = Site::new().await;
    let steps: [&[[u8; 32]]; 4] = [&[OLD], &[OLD, NEW], &[NEW, OLD], &[NEW]];
    let [old, announced, rotated, done] = steps.map(|step| signed(&site, keys(step)));
    let mut browser = Browser::with_session(&old).await;
    is_at_home(&mut browser, &announced).await;
    is_signed_anew(&mut browser, &rotated).await;
    // A process that still runs the version of the last step.
    is_signed_anew(&mut browser, &announced).await;
    is_signed_anew(&mut browser, &rotated).await;
    is_at_home(&mut browser, &done).await;
}

#[tokio::test]
async fn a_key_that_was_taken_out_opens_nothing() {
    let site = Site::new().await;
    let mut browser = Browser::with_session(&signed(&site, keys(&[OLD]))).await;
    let response = reads_on(&mut browser, &signed(&site, keys(&[NEW]))).await;
    assert_eq!(response.body, "none");
    assert!(response.sets_no_cookie());
}

#[tokio::test]
async fn a_save_replaces_an_old_signature_too() {
    let site = Site::new().await;
    let browser = Browser::with_session(&signed(&site, keys(&[OLD]))).await;
    let rotated = signed(&site, keys(&[NEW, OLD]));
    for page in ["/increment/n", "/insert/b/2", "/cycle"] {
        let mut browser = browser.at(&rotated);
        let response = browser.get(page).await;
        assert_eq!(response.set_cookies().len(), 1, "{page}");
        is_at_home(&mut browser, &rotated).await;
        is_at_home(&mut browser, &signed(&site, keys(&[NEW]))).await;
    }
}

#[tokio::test]
async fn a_logout_under_an_old_signature_begins_no_session() {
    let site = Site::new().await;
    let browser = Browser::with_session(&signed(&site, keys(&[OLD]))).await;
    let response = browser
        .at(&signed(&site, keys(&[NEW, OLD])))
        .peek("/destroy")
        .await;
    assert!(response.removes_the_cookie(), "{response:?}");
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_session_that_is_refused_under_an_old_signature_is_not_begun_anew() {
    let site = Site::new().await;
    let browser = Browser::with_session(&signed(&site, keys(&[OLD]))).await;
    let layer = site.layer().signing_keys(keys(&[NEW, OLD]));
    let checked = app(layer.valid_if(async |_: Session, _| false));
    let response = browser.at(&checked).peek("/get/a").await;
    assert!(response.sets_no_cookie(), "{response:?}");
    assert_eq!(site.rows().count().await, 0);
}

/// It would keep the session alive.
#[tokio::test]
async fn a_poll_replaces_no_signature() {
    let site = Site::new().await;
    let mut browser = Browser::with_session(&signed(&site, keys(&[OLD]))).await;
    let layer = site.layer().signing_keys(keys(&[NEW, OLD]));
    is_at_home(&mut browser, &app(layer.touch_if(|_, _| false))).await;
}

#[tokio::test]
async fn a_signature_counts_for_its_own_cookie_only() {
    let site = Site::new().await;
    let [web, admin] = ["__Host-web", "__Host-admin"].map(|name| {
        let layer = site.layer().cookie_name(name);
        app(layer.signing_keys(keys(&[NEW])))
    });
    let browser = Browser::with_session(&web).await;
    let planted = Browser::new(&admin).with_cookie("__Host-admin", browser.token());
    assert_eq!(planted.peek("/get/a").await.body, "none");
    assert_eq!(browser.peek("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn of_duplicates_the_one_that_is_signed_opens() {
    let site = Site::new().await;
    let app = signed(&site, keys(&[NEW]));
    let (mine, other) = (
        Browser::with_session(&app).await,
        Browser::with_session(&app).await,
    );
    let header = format!("{}; {NAME}={}", bare(other.token()), mine.token());
    let response = Browser::new(&app)
        .with_cookie(NAME, &header)
        .peek("/get/a")
        .await;
    assert_eq!(response.body, "\"1\"");
    assert!(response.sets_no_cookie());
}

async fn with_header(app: &Router, path: &str, token: &HeaderValue) -> Reply {
    let mut request = Browser::new(app).request(path);
    request.headers_mut().insert(X_SESSION, token.clone());
    send(app.clone(), request).await
}

#[tokio::test]
async fn a_token_in_a_header_is_signed_and_replaced_like_one_in_a_cookie() {
    let site = Site::new().await;
    let [old, rotated] = [keys(&[OLD]), keys(&[NEW, OLD])].map(|keys| {
        let transport = HeaderTransport::new(X_SESSION);
        app(site.layer().transport(transport).signing_keys(keys))
    });
    let first = Browser::new(&old).get("/insert/a/1").await.headers[X_SESSION].clone();
    assert_eq!(first.len(), 87);
    let response = with_header(&rotated, "/get/a", &first).await;
    assert_eq!(response.body, "\"1\"");
    let renewed = response.headers[X_SESSION].clone();
    assert_ne!(renewed, first);
    assert_eq!(
        with_header(&rotated, "/get/a", &renewed).await.body,
        "\"1\""
    );
    let unsigned = HeaderValue::from_bytes(&first.as_bytes()[..43]).expect("ASCII");
    let response = with_header(&old, "/get/a", &unsigned).await;
    assert_eq!(response.body, "none");
    assert!(!response.headers.contains_key(X_SESSION));
}

/// Each step beside the one before it, as processes are replaced one by one.
#[tokio::test]
async fn a_live_site_can_switch_signing_on() {
    let site = Site::new().await;
    let step = |unsigned| signed(&site, keys(&[NEW]).unsigned(unsigned));
    let (plain, signs) = (site.app(), step(UnsignedTokens::Reject));
    let (reads, replaces) = (step(UnsignedTokens::Issue), step(UnsignedTokens::Accept));
    let mut early = Browser::with_session(&plain).await;
    is_at_home(&mut early, &reads).await;
    is_at_home(&mut Browser::with_session(&reads).await, &plain).await;

    let mut new = Browser::with_session(&replaces).await;
    is_at_home(&mut new, &reads).await;
    is_signed_anew(&mut early, &replaces).await;
    is_at_home(&mut early, &reads).await;

    is_at_home(&mut early, &signs).await;
    is_at_home(&mut new, &signs).await;
}

#[tokio::test]
async fn weak_keys_are_refused_at_set_up() {
    let site = Site::new().await;
    for weak in [vec![], vec![vec![1; 31]], vec![vec![1; 32], vec![]]] {
        let layer = site.layer().signing_keys(SigningKeys::new(&weak));
        let error = layer.check().expect_err("a weak key");
        assert_eq!(error.kind(), ErrorKind::Setup, "{weak:?}");
    }
}

#[tokio::test]
async fn keys_for_koas_format_are_refused_at_set_up() {
    let site = Site::new().await;
    for format in [koa::koa(), Koa::unsigned()] {
        let store = site.store.clone().koa(format);
        let layer = PgSessionLayer::new(store).signing_keys(keys(&[NEW]));
        let error = layer.check().expect_err("two kinds of signatures");
        assert_eq!(error.kind(), ErrorKind::Setup);
    }
}

/// The name and the signature share the 4,096 bytes with the token.
#[tokio::test]
async fn a_signature_counts_for_the_size_of_the_cookie() {
    let site = Site::new().await;
    let layer = |bytes| site.layer().cookie_name("n".repeat(bytes));
    assert!(layer(4096 - 43).check().is_ok());
    let signed = |bytes| layer(bytes).signing_keys(keys(&[NEW])).check();
    assert!(signed(4096 - 87).is_ok());
    assert!(signed(4096 - 86).is_err());
}
