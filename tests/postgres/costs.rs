//! What each request costs, in statements. `BEGIN` and `COMMIT` count too.

use axum::{Router, routing::get};
use axum_pg_session::{Error, LazySession, PgSessionLayer, PgSessionStore, Session};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::support::{Browser, Reply, Site, app, proxy::Proxy};

const HOUR: f64 = 3600.0;

/// A site behind a proxy that counts.
struct Counted {
    site: Site,
    proxy: Proxy,
    app: Router,
}

impl Counted {
    async fn new() -> Self {
        Self::on(Site::new().await).await
    }

    /// Looks at the table in advance, as an application does at its start.
    async fn on(site: Site) -> Self {
        let proxy = Proxy::before(site.database.url()).await;
        let store = PgSessionStore::new(proxy.pool().await);
        store.check().await.expect("a table");
        let app = app(PgSessionLayer::new(store.clone()))
            .merge(more_pages().layer(PgSessionLayer::new(store)));
        Self { site, proxy, app }
    }

    fn stranger(&self) -> Browser {
        Browser::new(&self.app)
    }

    /// A browser whose session holds `a`.
    async fn visitor(&self) -> Browser {
        let mut browser = self.stranger();
        browser.get("/insert/a/1").await;
        assert_eq!(browser.jar.len(), 1);
        self.proxy.take_texts();
        browser
    }

    async fn cost(&self, browser: &mut Browser, path: &str) -> (Reply, usize) {
        let before = self.proxy.executed();
        let response = browser.get(path).await;
        assert!(response.status.is_success(), "{path}: {}", response.status);
        (response, self.proxy.executed() - before)
    }

    async fn is_free_for(&self, browser: &mut Browser, path: &str) {
        let (response, cost) = self.cost(browser, path).await;
        assert_eq!(cost, 0, "statements of {path}");
        assert!(response.sets_no_cookie());
        assert_eq!(self.site.rows().count().await, 0);
    }
}

async fn with_jsonb() -> Site {
    let site = Site::new().await;
    let sql = r#"ALTER TABLE "public"."session" ALTER session TYPE jsonb USING session::jsonb"#;
    sqlx::raw_sql(sql)
        .execute(&site.pool)
        .await
        .expect("jsonb holds these documents");
    site
}

fn more_pages() -> Router {
    Router::new()
        .route("/many_extractors", get(many_extractors))
        .route("/look_away", get(async |_: LazySession| "unseen"))
        .route("/insert_and_remove", get(insert_and_remove))
}

async fn many_extractors(
    one: Session,
    _: Session,
    _: Option<Session>,
    lazy: LazySession,
) -> Result<String, Error> {
    assert_eq!(lazy.load().await?.id(), one.id());
    Ok(one.keys().join(","))
}

async fn insert_and_remove(session: Session) -> Result<(), Error> {
    session.insert("a", 1)?;
    session.remove::<u8>("a").map(drop)
}

#[tokio::test]
async fn a_route_without_a_session_is_free() {
    let counted = Counted::new().await;
    counted.is_free_for(&mut counted.stranger(), "/plain").await;
}

#[tokio::test]
async fn a_route_without_a_session_is_free_with_a_cookie_too() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    for path in ["/plain", "/look_away"] {
        let (response, cost) = counted.cost(&mut browser, path).await;
        assert_eq!(cost, 0, "statements of {path}");
        assert!(response.sets_no_cookie());
    }
}

#[tokio::test]
async fn an_anonymous_reader_is_free() {
    let counted = Counted::new().await;
    for path in ["/keys", "/get/a", "/is_new", "/remove/a", "/clear"] {
        counted.is_free_for(&mut counted.stranger(), path).await;
    }
}

#[tokio::test]
async fn a_key_that_comes_and_goes_in_a_new_session_is_free() {
    let counted = Counted::new().await;
    let mut browser = counted.stranger();
    counted
        .is_free_for(&mut browser, "/insert_and_remove")
        .await;
}

#[tokio::test]
async fn a_malformed_cookie_costs_no_statement() {
    let counted = Counted::new().await;
    let values = ["x", "\"\"", "%00", &"+".repeat(43), &"A".repeat(44)];
    for value in values {
        let mut browser = counted.stranger().with_cookie("__Host-id", value);
        let (response, cost) = counted.cost(&mut browser, "/keys").await;
        assert_eq!(cost, 0, "statements for {value}");
        assert_eq!(response.body, "");
    }
    assert_eq!(counted.site.rows().count().await, 0);
}

#[tokio::test]
async fn a_read_costs_one_statement() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    let (response, cost) = counted.cost(&mut browser, "/get/a").await;
    assert_eq!((response.body.as_str(), cost), ("\"1\"", 1));
    assert!(response.sets_no_cookie());
}

#[tokio::test]
async fn a_read_before_a_touch_is_due_changes_nothing() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    counted.site.rows().age(HOUR).await;
    let before = counted.site.rows().dump().await;
    let (_, cost) = counted.cost(&mut browser, "/keys").await;
    assert_eq!(cost, 1);
    assert_eq!(counted.site.rows().dump().await, before);
}

#[tokio::test]
async fn many_extractors_of_one_request_share_one_statement() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    let (response, cost) = counted.cost(&mut browser, "/many_extractors").await;
    assert_eq!((response.body.as_str(), cost), ("a", 1));
}

#[tokio::test]
async fn a_token_that_opens_nothing_costs_one_statement() {
    let counted = Counted::new().await;
    let mut browser = counted.stranger().with_cookie("__Host-id", &"A".repeat(43));
    let (response, cost) = counted.cost(&mut browser, "/keys").await;
    assert_eq!(cost, 1);
    assert!(response.sets_no_cookie());
}

async fn saves_nothing_for_an_equal_value(counted: &Counted) {
    let mut browser = counted.visitor().await;
    let before = counted.site.rows().dump().await;
    let (response, cost) = counted.cost(&mut browser, "/insert/a/1").await;
    assert_eq!(cost, 1);
    assert!(response.sets_no_cookie());
    assert_eq!(counted.site.rows().dump().await, before);
}

#[tokio::test]
async fn an_equal_value_is_not_saved() {
    saves_nothing_for_an_equal_value(&Counted::new().await).await;
}

#[tokio::test]
async fn an_equal_value_is_not_saved_in_a_table_with_jsonb() {
    saves_nothing_for_an_equal_value(&Counted::on(with_jsonb().await).await).await;
}

#[tokio::test]
async fn a_new_session_costs_one_statement() {
    let counted = Counted::new().await;
    let (response, cost) = counted.cost(&mut counted.stranger(), "/insert/a/1").await;
    assert_eq!(cost, 1);
    assert!(response.token().is_some());
}

#[tokio::test]
async fn a_change_costs_two_statements() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    for path in ["/insert/a/2", "/insert/b/1", "/increment/n", "/remove/b"] {
        let (_, cost) = counted.cost(&mut browser, path).await;
        assert_eq!(cost, 2, "statements of {path}");
    }
}

#[tokio::test]
async fn a_touch_costs_two_statements() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    counted.site.rows().age(2.0 * HOUR).await;
    let (_, cost) = counted.cost(&mut browser, "/keys").await;
    assert_eq!(cost, 2);
    assert!(counted.site.rows().seconds_left().await > 23.0 * HOUR);
    let (_, cost) = counted.cost(&mut browser, "/keys").await;
    assert_eq!(cost, 1, "a touch is not due twice");
}

async fn touches_without_the_document(counted: &Counted) {
    let mut browser = counted.visitor().await;
    let rows = counted.site.rows();
    // As another writer would spell it.
    rows.execute(r#"UPDATE TABLE SET session = '{ "a" : "1" }'"#)
        .await;
    rows.age(2.0 * HOUR).await;
    let before = rows.text().await;
    counted.cost(&mut browser, "/keys").await;
    let texts = counted.proxy.take_texts();
    let [load, touch] = texts.as_slice() else {
        panic!("two statements: {texts:?}");
    };
    assert!(load.starts_with("SELECT"));
    assert!(touch.contains("SET expiry =") && !touch.contains("session ="));
    assert_eq!(rows.text().await, before);
}

#[tokio::test]
async fn a_touch_never_writes_the_document() {
    touches_without_the_document(&Counted::new().await).await;
}

#[tokio::test]
async fn a_touch_never_writes_the_document_of_a_table_with_jsonb() {
    touches_without_the_document(&Counted::on(with_jsonb().await).await).await;
}

#[tokio::test]
async fn a_save_that_is_due_a_touch_is_one_statement() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    counted.site.rows().age(2.0 * HOUR).await;
    let (_, cost) = counted.cost(&mut browser, "/insert/a/2").await;
    assert_eq!(cost, 2);
    assert!(counted.site.rows().seconds_left().await > 23.0 * HOUR);
}

#[tokio::test]
async fn an_end_costs_at_most_two_statements() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    let (response, cost) = counted.cost(&mut browser, "/destroy").await;
    assert!(cost <= 2, "{cost} statements");
    assert!(response.removes_the_cookie());
}

#[tokio::test]
async fn a_new_id_costs_one_transaction_of_three_statements() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    counted.cost(&mut browser, "/cycle").await;
    let texts = counted.proxy.take_texts();
    let verbs: Vec<_> = texts
        .iter()
        .filter_map(|text| text.split_whitespace().next())
        .collect();
    assert_eq!(
        verbs,
        ["SELECT", "BEGIN", "SELECT", "INSERT", "UPDATE", "COMMIT"]
    );
}

/// A compare that trusted a short checksum would take the second value for
/// the first.
#[tokio::test]
async fn a_change_with_an_equal_crc32_is_saved() {
    let counted = Counted::new().await;
    let mut browser = counted.stranger();
    browser.get("/insert/name/htpqwklvynl").await;
    let (_, cost) = counted.cost(&mut browser, "/insert/name/pojqhnulnxu").await;
    assert_eq!(cost, 2);
    let document = counted.site.rows().document().await;
    assert_eq!(document["name"], "pojqhnulnxu");
}

#[tokio::test]
async fn the_statement_binds_a_digest() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    let mut tokens = vec![browser.token().to_owned()];
    counted.site.rows().age(2.0 * HOUR).await;
    for path in ["/keys", "/insert/b/1", "/cycle"] {
        browser.get(path).await;
    }
    tokens.push(browser.token().to_owned());
    let id = browser.get("/id").await.body;
    browser.get("/destroy").await;
    assert!(counted.proxy.has_sent(id.as_bytes()));
    for token in tokens {
        let bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64url");
        assert!(!counted.proxy.has_sent(token.as_bytes()));
        assert!(!counted.proxy.has_sent(&bytes));
    }
}
