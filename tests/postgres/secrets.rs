//! Tokens and keys are in no log, no output and no statement. A dump of the table opens no session.

use std::{error::Error as _, fmt::Write as _, sync::Mutex};

use axum::{
    Router,
    body::Body,
    http::{HeaderName, Request},
    response::IntoResponse as _,
    routing::get,
};
use axum_pg_session::{
    Device, Error, HeaderTransport, Koa, LazySession, Login, PgSessionLayer, PgSessionStore,
    Reaper, Session, SessionId, SigningKeys,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use dev_postgres::Server;
use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use tower::{Layer as _, Service as _};

use crate::support::{
    Browser, Log, Secrets, Site, execute, koa, page::app_with, secrets::forms, texts,
};

const KEY: [u8; 32] = *b"a key that must stay a secret!!!";
const OLD_KEY: [u8; 32] = *b"another key, which is to be gone";

/// A searcher that finds nothing proves nothing.
#[test]
fn the_search_finds_every_form_of_a_planted_secret() {
    let token = "Sl6TkLIYrjsXr0gID8WmG2uCFMgabcdefghijklmnopq";
    let mut secrets = Secrets::default();
    secrets.keep_cookie(token);
    assert!(secrets.found_in("nothing to be seen").is_empty());
    for form in forms(token.as_bytes()) {
        let log = format!("DEBUG something: {form} and more");
        assert!(!secrets.found_in(&log).is_empty(), "{form}");
    }
    for leak in [
        "536c3654",
        "U2w2VGtM",
        "4a5e9390b218",
        "%53%6C%36%54",
        "74, 94, 147, 144, 178, 24",
    ] {
        let found = forms(token.as_bytes());
        assert!(found.iter().any(|form| form.contains(leak)), "{leak}");
    }
}

/// All that the crate and its database say while a test runs.
struct Said {
    log: Log,
    metrics: PrometheusHandle,
    _recorder: LocalRecorderGuard<'static>,
    printed: Mutex<String>,
    server: Server,
}

impl Said {
    fn listen() -> Self {
        let server = Server::builder()
            .setting("log_statement", "all")
            .setting("log_min_duration_statement", "0")
            .setting("log_parameter_max_length", "-1")
            .setting("log_parameter_max_length_on_error", "-1")
            .setting("log_error_verbosity", "verbose")
            .setting("log_min_messages", "debug1")
            .start();
        let recorder: &_ = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
        Self {
            log: Log::keep(),
            metrics: recorder.handle(),
            _recorder: metrics::set_default_local_recorder(recorder),
            printed: Mutex::default(),
            server: server.expect("a server of its own"),
        }
    }

    fn print(&self, thing: impl std::fmt::Debug) {
        let mut printed = self.printed.lock().expect("no panic");
        write!(printed, "{thing:?}\n{thing:#?}\n").expect("a String takes everything");
    }

    /// An error with all that caused it, and as a response.
    async fn print_error(&self, error: &Error) {
        self.print(error);
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            write!(chain, ": {error}").expect("a String takes everything");
            source = error.source();
        }
        self.print(chain);
        let reply = error.clone().into_response();
        self.print(&reply);
        let body = axum::body::to_bytes(reply.into_body(), usize::MAX).await;
        self.print(body.expect("a body"));
    }

    fn ours(&self) -> String {
        let printed = self.printed.lock().expect("no panic");
        format!("{}\n{printed}\n{}", self.log.text(), self.metrics.render())
    }

    fn of_the_server(&self) -> String {
        self.server.log().expect("the server's log")
    }
}

/// A site whose every step is listened to.
struct Listened {
    said: Said,
    pool: PgPool,
    store: PgSessionStore,
    layer: PgSessionLayer,
    app: Router,
    secrets: Secrets,
}

impl Listened {
    async fn new(format: Option<Koa>) -> Self {
        let said = Said::listen();
        let pool = PgPool::connect(&said.server.url())
            .await
            .expect("a connection");
        let store = PgSessionStore::new(pool.clone());
        let store = match &format {
            Some(koa) => store.koa(koa.clone()),
            None => store,
        };
        store.migrate().await.expect("a table");
        // Postgres quotes the whole row if a constraint is violated.
        let constraint = "ALTER TABLE public.session ADD CHECK (session::jsonb ->> 'bad' IS NULL)";
        execute(&pool, constraint).await;
        let layer = PgSessionLayer::new(store.clone());
        let layer = match format {
            Some(_) => layer,
            None => layer.signing_keys(SigningKeys::new([KEY, OLD_KEY])),
        };
        let app = talkative_pages(&layer);
        let mut secrets = Secrets::default();
        secrets.keep(KEY);
        secrets.keep(OLD_KEY);
        koa_keys().iter().for_each(|key| secrets.keep(key));
        Self {
            said,
            pool,
            store,
            layer,
            app,
            secrets,
        }
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.app)
    }

    async fn visit(&mut self, browser: &mut Browser, page: &str) -> u16 {
        let reply = browser.get(page).await;
        self.said
            .print((&reply.status, &reply.headers, &reply.body));
        for cookie in reply.set_cookies() {
            self.secrets.keep_cookie(cookie.value());
        }
        reply.status.as_u16()
    }

    async fn lives(&mut self) -> Browser {
        let mut browser = self.browser();
        for page in [
            "/insert/a/1",
            "/page",
            "/increment/n",
            "/cycle",
            "/login",
            "/page",
            "/get/a",
            "/insert_and/500/b/2",
            "/remove/a",
            "/clear",
            "/insert/c/3",
        ] {
            self.visit(&mut browser, page).await;
        }
        execute(
            &self.pool,
            "UPDATE public.session SET expiry = expiry - interval '2 hours'",
        )
        .await;
        self.visit(&mut browser, "/page").await;
        browser
    }

    /// Two browsers with one cookie, in two processes.
    async fn competes(&mut self, browser: &Browser) {
        let store = PgSessionStore::new(self.pool.clone());
        self.said.print(&store);
        let (mut one, mut two) = (browser.clone(), browser.clone());
        let visits = (0..8).map(|n| (format!("/insert/k{n}/{n}"), format!("/increment/n{n}")));
        for (left, right) in visits {
            tokio::join!(one.get(&left), two.get(&right));
        }
    }

    /// What a client makes up, or sends too late.
    async fn is_lied_to(&mut self, browser: &Browser) {
        let lies: Vec<_> = browser
            .jar
            .iter()
            .flat_map(|(name, value)| {
                let other = value.chars().rev().collect::<String>();
                [
                    (name.clone(), other),
                    (name.clone(), format!("{value}x")),
                    (name.clone(), "x".repeat(43)),
                ]
            })
            .collect();
        for (name, lie) in lies {
            let mut liar = browser.clone().with_cookie(&name, &lie);
            self.visit(&mut liar, "/page").await;
        }
        let mut twice = self.browser();
        self.visit(&mut twice, "/insert/a/1").await;
        for (name, value) in &browser.jar {
            let second = twice.cookie(name).expect("as many cookies").to_owned();
            twice = twice.with_cookie(name, &format!("{second}; {name}={value}"));
        }
        let reply = twice.peek("/insert/a/2").await;
        self.said.print((&reply.headers, &reply.body));
    }

    async fn fails(&mut self, browser: &mut Browser) {
        assert_eq!(self.visit(browser, "/fail").await, 503);
        let mut panicking = browser.clone();
        let outcome = tokio::spawn(async move { panicking.get("/panic").await }).await;
        self.said.print(outcome.expect_err("a panic"));
        let id = browser.get("/id").await.body;
        let id: SessionId = id.parse().expect("a handle");
        self.said.print((&id, id.to_string()));
        self.said
            .print(self.store.load(&id).await.expect("a database"));
        let users = self.store.user("ann");
        self.said
            .print((&users, users.list().await.expect("a list")));
        let closed = PgSessionStore::new(self.pool.clone()).table("none");
        self.said
            .print_error(&closed.check().await.expect_err("no table"))
            .await;
        let sql = "ALTER TABLE public.session RENAME TO gone";
        execute(&self.pool, sql).await;
        for page in ["/page", "/insert/a/1"] {
            self.visit(&mut browser.clone(), page).await;
        }
        self.said
            .print_error(&self.store.load(&id).await.expect_err("no table"))
            .await;
        execute(&self.pool, "ALTER TABLE public.gone RENAME TO session").await;
    }

    async fn ends(&mut self, browser: &mut Browser) {
        self.visit(browser, "/destroy").await;
        let mut late = self.browser();
        self.visit(&mut late, "/insert/a/1").await;
        execute(&self.pool, "UPDATE public.session SET expiry = now()").await;
        self.visit(&mut late, "/page").await;
        self.said.print(
            Reaper::new(self.store.clone())
                .run_once()
                .await
                .expect("a table"),
        );
        self.said.print(self.store.counters());
    }

    /// What is printed although no request needs it.
    async fn is_printed(&mut self) {
        let layer = self.layer.clone().touch_if(|_, status| {
            tracing::trace!(%status, "a response");
            true
        });
        let mut service = layer.layer(
            Router::new().route("/id", get(async |session: Session| format!("{session:?}"))),
        );
        self.said.print((
            &layer,
            &service,
            &self.store,
            Reaper::new(self.store.clone()),
        ));
        let request = Request::get("/id").body(Body::empty()).expect("a request");
        let future = service.call(request);
        self.said.print(&future);
        self.said.print(future.await.expect("a response"));
        let transport = HeaderTransport::bearer(HeaderName::from_static("x-token"));
        self.said.print(self.layer.clone().transport(transport));
        self.said
            .print((SigningKeys::new([KEY]), Koa::new(koa_keys())));
    }

    fn assert_nothing_is_said(&self) {
        let (ours, servers) = (self.said.ours(), self.said.of_the_server());
        assert!(self.secrets.len() > 6, "{} secrets", self.secrets.len());
        for (expected, said) in [
            ("a session began", &ours),
            ("could not be saved", &ours),
            ("could not be loaded", &ours),
            (" statement otel.name=", &ours),
            ("db.response.status_code=\"23514\"", &ours),
            (" session.write ", &ours),
            ("axum_pg_session_lookups{outcome=\"forged\"}", &ours),
            ("axum_pg_session_operation_duration", &ours),
            ("INSERT INTO", &servers),
            ("$1 = '", &servers),
            ("violates check constraint", &servers),
        ] {
            assert!(said.contains(expected), "{expected} was listened to");
        }
        assert_eq!(self.secrets.found_in(&ours), [""; 0]);
    }

    /// The search finds a token in the log, in what is printed, and in what is sent to the server.
    async fn assert_a_leak_is_found(&self) {
        let token = self.browser().get("/insert/a/1").await.token();
        let token = token.expect("a new session");
        let mut planted = Secrets::default();
        planted.keep_cookie(&token);
        assert_eq!(planted.found_in(&self.said.ours()), [""; 0]);
        tracing::trace!(token);
        assert!(!planted.found_in(&self.said.log.text()).is_empty());
        self.said.print(&token);
        let printed = self.said.printed.lock().expect("no panic").clone();
        assert!(!planted.found_in(&printed).is_empty());
        let bound = sqlx::query_scalar::<_, String>("SELECT $1::text").bind(&token);
        bound.fetch_one(&self.pool).await.expect("a response");
        assert!(!planted.found_in(&self.said.of_the_server()).is_empty());
    }
}

/// Long enough that no ordinary word is one.
const KOA_PADDING: &str = "-which-is-a-secret-of-the-site";

fn koa_keys() -> Vec<String> {
    koa::KEYS
        .iter()
        .map(|key| format!("{key}{KOA_PADDING}"))
        .collect()
}

/// Handlers print what they hold.
fn talkative_pages(layer: &PgSessionLayer) -> Router {
    let look = async |lazy: LazySession, session: Session| {
        format!("{lazy:?} {session:?} {:?}", session.id())
    };
    let login = async |session: Session| {
        session.login(Login::new("ann").device(Device::new().with_label("a device")))
    };
    let fail = async |session: Session| session.insert("bad", true);
    let panics = async |session: Session| -> () { panic!("in the hands of {session:?}") };
    let more = Router::new()
        .route("/login", get(login))
        .route("/fail", get(fail))
        .route("/panic", get(panics))
        .layer(layer.clone());
    app_with(layer.clone(), look).merge(more)
}

async fn listened_life(format: Option<Koa>) -> Listened {
    let mut site = Listened::new(format).await;
    let mut browser = site.lives().await;
    site.competes(&browser).await;
    site.is_lied_to(&browser).await;
    site.fails(&mut browser).await;
    site.is_printed().await;
    site.ends(&mut browser).await;
    site.assert_nothing_is_said();
    site
}

#[tokio::test]
async fn no_log_line_holds_a_token() {
    let site = listened_life(None).await;
    let servers = site.said.of_the_server();
    assert_eq!(site.secrets.found_in(&servers), [""; 0]);
    site.assert_a_leak_is_found().await;
}

/// The table and its server know the tokens there, as Koa needs them; our log
/// does not.
#[tokio::test]
async fn no_log_line_holds_a_token_in_koas_format() {
    let site = listened_life(Some(Koa::new(koa_keys()))).await;
    site.assert_a_leak_is_found().await;
}

/// Every text of every row: the columns, and what the documents hold.
async fn dump(pool: &PgPool) -> Vec<String> {
    let sql = "SELECT DISTINCT coalesce(v #>> '{}', 'null')
               FROM public.session AS t, jsonb_path_query(to_jsonb(t), 'strict $.**') AS v
               UNION SELECT t::text FROM public.session AS t";
    texts(pool, sql).await
}

/// As an attacker may try them, with or without knowledge of the crate.
fn attempts(column: &str) -> Vec<String> {
    let bare = column.rsplit(':').next().unwrap_or_default();
    let mut attempts = vec![
        column.to_uppercase(),
        column.to_lowercase(),
        column.chars().rev().collect(),
        format!("\"{column}\""),
        column.chars().take(43).collect(),
        bare.to_owned(),
        format!("{column}.{column}"),
        format!("{column}.{}", "A".repeat(43)),
    ];
    attempts.extend(forms(column.as_bytes()));
    let digest = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(Sha256::digest(bytes));
    attempts.push(digest(column.as_bytes()));
    attempts.push(digest(format!("__Host-id={column}").as_bytes()));
    attempts.extend(
        URL_SAFE_NO_PAD
            .decode(column)
            .iter()
            .map(|bytes| digest(bytes)),
    );
    attempts.retain(|value| value.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    attempts
}

/// A site with one session that signed in and got new ids, and what of its
/// rows is in a dump.
async fn assert_a_dump_opens_nothing(site: &Site, layer: PgSessionLayer) {
    let app = crate::support::app(layer.clone());
    let mut browser = Browser::with_session(&app).await;
    let login = app_with(layer, async |session: Session| {
        session.login(Login::new("ann").device(Device::new().with_label("a device")))
    });
    let mut signing_in = browser.at(&login);
    signing_in.get("/page").await;
    browser.jar = signing_in.jar;
    browser.get("/cycle").await;
    assert_eq!(browser.peek("/get/a").await.body, "\"1\"");

    let name = browser.jar[0].0.clone();
    let columns = dump(&site.pool).await;
    assert!(columns.len() > 8, "{columns:?}");
    for value in columns.iter().flat_map(|column| attempts(column)) {
        let thief = Browser::new(&app).with_cookie(&name, &value);
        for thief in [
            thief.clone().with_cookie(&format!("{name}.sig"), &value),
            thief,
        ] {
            let reply = thief.peek("/get/a").await;
            assert_eq!(
                (reply.status.as_u16(), reply.body.as_str()),
                (200, "none"),
                "{value}"
            );
        }
    }
}

#[tokio::test]
async fn a_dump_opens_no_session() {
    let site = Site::new().await;
    assert_a_dump_opens_nothing(&site, site.layer()).await;
    let site = Site::new().await;
    let keys = SigningKeys::new([KEY]);
    assert_a_dump_opens_nothing(&site, site.layer().signing_keys(keys)).await;
}

/// The ids are the tokens there, but an attacker can't sign them.
#[tokio::test]
async fn a_dump_opens_no_session_where_koas_cookies_are_signed() {
    let site = Site::without_table().await;
    let store = site.store.clone().koa(koa::koa());
    store.migrate().await.expect("a table");
    assert_a_dump_opens_nothing(&site, PgSessionLayer::new(store)).await;
}
