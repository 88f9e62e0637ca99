//! The number of statements of each request, `BEGIN` and `COMMIT` included.

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
async fn a_request_that_stores_nothing_is_free() {
    let counted = Counted::new().await;
    for path in [
        "/plain",
        "/keys",
        "/get/a",
        "/is_new",
        "/id",
        "/destroy",
        "/remove/a",
        "/clear",
        "/insert_and_remove",
    ] {
        counted.is_free_for(&mut counted.stranger(), path).await;
    }
    let mut browser = counted.visitor().await;
    for path in ["/plain", "/look_away"] {
        let (response, cost) = counted.cost(&mut browser, path).await;
        assert_eq!(cost, 0, "statements of {path}");
        assert!(response.sets_no_cookie());
    }
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
async fn a_load_and_a_save_cost_one_statement_each() {
    let counted = Counted::new().await;
    let unknown = counted.stranger().with_cookie("__Host-id", &"A".repeat(43));
    let visitor = counted.visitor().await;
    for (browser, path, expected) in [
        (&unknown, "/keys", 1),
        (&counted.stranger(), "/insert/a/1", 1),
        (&visitor, "/get/a", 1),
        (&visitor, "/many_extractors", 1),
        (&visitor, "/insert/a/2", 2),
        (&visitor, "/insert/b/1", 2),
        (&visitor, "/increment/n", 2),
        (&visitor, "/remove/b", 2),
        (&visitor, "/destroy", 2),
    ] {
        let (response, cost) = counted.cost(&mut browser.clone(), path).await;
        assert_eq!(cost, expected, "statements of {path}");
        assert!(expected == 2 || response.token().is_some() == (path == "/insert/a/1"));
    }
}

#[tokio::test]
async fn an_equal_value_is_not_saved() {
    for site in [Site::new().await, Site::with_jsonb().await] {
        let counted = Counted::on(site).await;
        let mut browser = counted.visitor().await;
        let before = counted.site.rows().dump().await;
        let (response, cost) = counted.cost(&mut browser, "/insert/a/1").await;
        assert_eq!(cost, 1);
        assert!(response.sets_no_cookie());
        assert_eq!(counted.site.rows().dump().await, before);
    }
}

#[tokio::test]
async fn a_touch_costs_a_statement_if_it_is_due_and_nothing_is_saved() {
    let counted = Counted::new().await;
    let mut browser = counted.visitor().await;
    counted.site.rows().age(HOUR).await;
    let before = counted.site.rows().dump().await;
    assert_eq!(counted.cost(&mut browser, "/keys").await.1, 1);
    assert_eq!(counted.site.rows().dump().await, before);
    for path in ["/keys", "/insert/a/2"] {
        counted.site.rows().age(2.0 * HOUR).await;
        assert_eq!(counted.cost(&mut browser, path).await.1, 2, "{path}");
        assert!(counted.site.rows().seconds_left().await > 23.0 * HOUR);
        assert_eq!(counted.cost(&mut browser, path).await.1, 1, "{path}");
    }
}

#[tokio::test]
async fn a_touch_never_writes_the_document() {
    for site in [Site::new().await, Site::with_jsonb().await] {
        let counted = Counted::on(site).await;
        let mut browser = counted.visitor().await;
        let rows = counted.site.rows();
        // As another writer would format it.
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
