//! `TypedSession` and typed keys.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    routing::get,
};
use axum_pg_session::{Error, Key, PgSessionLayer, Session, TypedSession};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::support::{
    Browser, Reply, Site,
    page::{Gate, InFlight, until},
};

#[derive(Default, Deserialize, Serialize)]
struct Visitor {
    name: Option<String>,
    basket: Vec<u32>,
    visits: u64,
}

async fn name(visitor: TypedSession<Visitor>) -> Result<(), Error> {
    visitor.update(|visitor| visitor.name = Some("Ada".into()))
}

async fn put(visitor: TypedSession<Visitor>) -> Result<(), Error> {
    visitor.update(|visitor| visitor.basket.push(7))
}

async fn visit(visitor: TypedSession<Visitor>) -> Result<String, Error> {
    let visits = visitor.update(|visitor| {
        visitor.visits += 1;
        visitor.visits
    })?;
    Ok(visits.to_string())
}

async fn show(visitor: TypedSession<Visitor>) -> Result<String, Error> {
    let Visitor {
        name,
        basket,
        visits,
    } = visitor.get()?;
    Ok(format!("{name:?} {basket:?} {visits}"))
}

fn pages() -> Router {
    Router::new()
        .route("/name", get(name))
        .route("/put", get(put))
        .route("/visit", get(visit))
        .route("/show", get(show))
}

fn app(layer: PgSessionLayer) -> Router {
    pages().layer(layer)
}

/// Its requests wait between loading their session and their handler.
fn gated(layer: PgSessionLayer, gate: Gate) -> Router {
    let waits = from_fn(move |_: Session, request: Request, next: Next| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            next.run(request).await
        }
    });
    pages().layer(waits).layer(layer)
}

/// Both requests have loaded their session before either saves it.
async fn together(layers: [PgSessionLayer; 2], browser: &Browser, pages: [&str; 2]) -> [Reply; 2] {
    let [here, there] = layers;
    let first = InFlight::begin(browser, pages[0], |gate| gated(here, gate)).await;
    let second = InFlight::begin(browser, pages[1], |gate| gated(there, gate)).await;
    [first.finish().await, second.finish().await]
}

async fn layers_of_two_processes(site: &Site) -> [PgSessionLayer; 2] {
    [site.layer(), PgSessionLayer::new(site.elsewhere().await)]
}

#[tokio::test]
async fn two_requests_that_change_different_fields_keep_both() {
    let site = Site::new().await;
    let mut browser = Browser::new(&app(site.layer()));
    browser.get("/visit").await;
    let layers = layers_of_two_processes(&site).await;
    let responses = together(layers, &browser, ["/name", "/put"]).await;
    assert!(
        responses
            .iter()
            .all(|response| response.status.is_success())
    );
    let stored = json!({"visits": 1, "name": "Ada", "basket": [7]});
    assert_eq!(site.rows().document().await, stored);
}

#[tokio::test]
async fn an_update_is_made_again_on_what_another_request_saved() {
    let site = Site::new().await;
    let mut browser = Browser::new(&app(site.layer()));
    browser.get("/visit").await;
    let layers = layers_of_two_processes(&site).await;
    let responses = together(layers, &browser, ["/visit", "/visit"]).await;
    assert!(responses.iter().all(|response| response.body == "2"));
    assert_eq!(site.rows().document().await, json!({"visits": 3}));
}

#[tokio::test]
async fn a_visitor_who_changes_nothing_costs_no_row_and_no_cookie() {
    let site = Site::new().await;
    let response = Browser::new(&app(site.layer())).get("/show").await;
    assert_eq!(response.body, "None [] 0");
    assert!(response.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn keys_of_others_survive_an_update_of_the_struct() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/theirs/1").await;
    browser = browser.at(&app(site.layer()));
    browser.get("/visit").await;
    let stored = json!({"theirs": "1", "visits": 1});
    assert_eq!(site.rows().document().await, stored);
}

#[tokio::test]
async fn a_value_that_no_longer_fits_its_field_is_an_error_and_stays() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/visits/1").await;
    site.rows()
        .execute(r#"UPDATE TABLE SET session = '{"visits":"many"}'"#)
        .await;
    browser = browser.at(&app(site.layer()));
    for page in ["/show", "/put"] {
        assert_eq!(browser.get(page).await.status, 500);
    }
    assert_eq!(site.rows().document().await, json!({"visits": "many"}));
}

/// The closure finds no number in what another writer left meanwhile.
#[tokio::test]
async fn an_update_that_fits_no_longer_when_it_is_saved_is_an_error() {
    let site = Site::new().await;
    let mut browser = Browser::new(&app(site.layer()));
    browser.get("/visit").await;
    let mut lock = site.lock_rows().await;
    let late = browser.clone();
    let late = tokio::spawn(async move { late.peek("/visit").await });
    until(async || site.is_blocked().await).await;
    sqlx::query(r#"UPDATE public.session SET session = '{"visits":"many"}'"#)
        .execute(&mut *lock)
        .await
        .expect("a row");
    lock.commit().await.expect("a commit");
    let response = late.await.expect("no panic");
    assert!(response.status.is_server_error());
    assert_eq!(site.rows().document().await, json!({"visits": "many"}));
}

#[tokio::test]
async fn the_layers_limit_holds_for_the_struct_too() {
    let site = Site::new().await;
    let many = async |visitor: TypedSession<Visitor>| {
        visitor.update(|visitor| visitor.basket = (0..1000).collect())
    };
    let app = Router::new()
        .route("/page", get(many))
        .layer(site.layer().max_document_size(1000));
    let response = Browser::new(&app).get("/page").await;
    assert_eq!(response.status, 507);
    assert_eq!(site.rows().count().await, 0);
}

const VISITS: Key<u64> = Key::new("visits");

#[tokio::test]
async fn a_key_with_its_type_takes_and_gives_values_of_that_type() {
    let site = Site::new().await;
    let page = async |session: Session| -> Result<String, Error> {
        session.insert(VISITS, 1)?;
        let two = session.update(VISITS, |visits| visits.unwrap_or_default() + 1)?;
        let there = session.contains_key(VISITS);
        let removed = session.remove(VISITS)?;
        let left = session.get(VISITS)?;
        session.insert(VISITS, 5)?;
        Ok(format!("{two} {there} {removed:?} {left:?}"))
    };
    let app = site.app_with(page);
    let response = Browser::new(&app).get("/page").await;
    assert_eq!(response.body, "2 true Some(2) None");
    assert_eq!(site.rows().document().await, json!({"visits": 5}));
}

#[tokio::test]
async fn in_koas_format_the_cookies_member_is_no_field() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let count = async |all: TypedSession<BTreeMap<String, u64>>| {
        all.update(|all| *all.entry("count".into()).or_default() += 1)
    };
    browser = browser.at(&site.app_with(count));
    assert_eq!(browser.get("/page").await.status, 200);
    let stored = site.rows().document().await;
    assert_eq!(stored["count"], 3);
    assert!(stored["cookie"].is_object());
}

#[derive(Default, Deserialize, Serialize)]
struct Rights {
    #[serde(
        default,
        alias = "is_admin",
        skip_serializing_if = "std::ops::Not::not"
    )]
    admin: bool,
}

/// An older version of the site writes the former name while a request withdraws the right.
#[tokio::test]
async fn a_right_is_withdrawn_although_its_former_name_is_stored_again() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/other/1").await;
    let grant = async |rights: TypedSession<Rights>| rights.update(|rights| rights.admin = true);
    let grants = browser.clone().at(&site.app_with(grant)).get("/page").await;
    assert_eq!(grants.status, 200);
    let withdraws = site
        .late(&browser, async |session: Session| {
            TypedSession::<Rights>::from(session).update(|rights| rights.admin = false)
        })
        .await;
    let old = async |session: Session| {
        session.delete("admin")?;
        session.insert("is_admin", true)
    };
    let writes = browser.clone().at(&site.app_with(old)).get("/page").await;
    assert_eq!(writes.status, 200);
    assert_eq!(withdraws.finish().await.status, 200);
    let read = async |rights: TypedSession<Rights>| {
        let rights = rights.get()?;
        Ok::<_, Error>(rights.admin.to_string())
    };
    let reply = browser.at(&site.app_with(read)).get("/page").await;
    assert_eq!(reply.body, "false");
}
