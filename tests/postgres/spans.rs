//! Spans of statements, by OpenTelemetry's conventions, and their links to the requests.

use axum_pg_session::Session;
use sqlx::postgres::PgConnectOptions;
use tracing::{Instrument as _, Level, info_span};

use crate::support::{
    Browser, Site, execute,
    page::{Gate, polled_once},
    spans::{Seen, Spans},
};

/// A site and a browser whose session holds `a`; no span of theirs is kept.
async fn visited() -> (Site, Browser, Spans) {
    let site = Site::new().await;
    let browser = site.visitor().await;
    (site, browser, Spans::keep(Level::DEBUG))
}

fn field<'s>(span: &'s Seen, name: &str) -> Option<&'s str> {
    span.fields.get(name).map(String::as_str)
}

#[tokio::test]
async fn a_statement_is_described_as_the_conventions_for_databases_ask() {
    let (site, mut browser, spans) = visited().await;
    browser.get("/get/a").await;
    let (_, load) = spans.only("statement", &[]);
    // As the store reaches it.
    let pooled = site.database.pooled().map(|(url, _)| url);
    let url = pooled.unwrap_or(site.database.url());
    let options: PgConnectOptions = url.parse().expect("a URL");
    let server = options.get_socket().map_or_else(
        || options.get_host().to_owned(),
        |socket| socket.display().to_string(),
    );
    let namespace = format!("{}|public", options.get_database().expect("a database"));
    let port = options.get_port().to_string();
    let expected = [
        ("db.collection.name", "public.session"),
        ("db.namespace", &namespace),
        ("db.operation.name", "SELECT"),
        ("db.query.summary", "load session"),
        ("db.system.name", "postgresql"),
        ("otel.kind", "client"),
        ("otel.name", "load session"),
        ("server.address", &server),
        ("server.port", &port),
    ];
    let fields: Vec<_> = load.fields.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn a_request_its_wait_and_the_statement_hang_together() {
    let (_site, mut browser, spans) = visited().await;
    let request = info_span!("request");
    browser.get("/insert/b/2").instrument(request).await;
    let (request, _) = spans.only("request", &[]);

    let (load, seen) = spans.only("session.load", &[]);
    assert_eq!(seen.parent, Some(request));
    let (_, statement) = spans.only("statement", &[("db.query.summary", "load session")]);
    assert_eq!((statement.parent, statement.follows.len()), (Some(load), 0));

    let (save, seen) = spans.only("session.save", &[]);
    assert_eq!(seen.parent, Some(request));
    let (write, seen) = spans.only("session.write", &[("session.requests", "1")]);
    assert_eq!(seen.parent, Some(save));
    let (_, statement) = spans.only("statement", &[("db.query.summary", "save session")]);
    assert_eq!(statement.parent, Some(write));
    assert_eq!(field(&statement, "db.operation.name"), Some("UPDATE"));
}

/// Also if it waits for an earlier save and is finished by a task.
#[tokio::test]
async fn an_explicit_save_belongs_to_the_span_of_its_handler() {
    for changes in [
        |session: &Session| session.insert("b", 2),
        |session: &Session| session.cycle_id(),
        |session: &Session| session.destroy(),
    ] {
        let (site, browser, spans) = visited().await;
        let page = site.app_with(async move |session: Session| {
            session.insert("a", 2)?;
            assert!(polled_once(session.save()).await.is_none());
            let save = async {
                changes(&session)?;
                session.save().await
            };
            save.instrument(info_span!("handler")).await
        });
        let browser = browser.at(&page);
        let lock = site.lock_rows().await;
        let visit = tokio::spawn(async move { browser.peek("/page").await.status });
        site.blocked(1).await;
        site.blocked(0).await;
        lock.rollback().await.expect("a lock released");
        assert_eq!(visit.await.expect("no panic"), 200);
        let (handler, _) = spans.only("handler", &[]);
        let all = spans.all();
        let is_inside = |seen: &Seen| {
            let mut parent = seen.parent;
            while let Some(id) = parent {
                if id == handler {
                    return true;
                }
                parent = all[id].parent;
            }
            false
        };
        let mut statements = all.iter().filter(|seen| seen.name == "statement");
        assert!(statements.any(is_inside), "{all:#?}");
    }
}

/// Which has several, is a child of none of them.
#[tokio::test]
async fn a_statement_of_several_requests_follows_from_each() {
    let (_site, browser, spans) = visited().await;
    let visits = ["one", "two", "three"].map(|name| {
        let browser = browser.clone();
        let span = info_span!("request", name);
        async move { browser.peek("/get/a").await.status }.instrument(span)
    });
    let [one, two, three] = visits;
    let statuses = tokio::join!(one, two, three);
    assert_eq!(statuses.0.as_u16(), 200);
    let waits = spans.named("session.load");
    assert_eq!(waits.len(), 3);
    let (_, batch) = spans.only("statement", &[("db.operation.batch.size", "3")]);
    assert_eq!(batch.parent, None);
    let mut follows = batch.follows.clone();
    follows.sort_unstable();
    assert_eq!(follows, waits);
    assert_eq!(field(&batch, "db.operation.name"), Some("BATCH SELECT"));
    assert_eq!(field(&batch, "otel.name"), Some("BATCH load session"));
}

/// What the worker of a session does for several follows from each, too.
#[tokio::test]
async fn a_write_for_several_requests_follows_from_each() {
    let (site, browser, spans) = visited().await;
    let gate = Gate::closed();
    let page = {
        let gate = gate.clone();
        site.app_with(async move |session: Session| {
            gate.pass().await;
            session.update("n", |n: Option<u32>| n.unwrap_or(0) + 1)?;
            Ok::<_, axum_pg_session::Error>(())
        })
    };
    let browser = browser.at(&page);
    let visits = [(); 3].map(|()| {
        let browser = browser.clone();
        tokio::spawn(async move { browser.peek("/page").await.status })
    });
    for _ in &visits {
        gate.reached().await;
    }
    visits.iter().for_each(|_| gate.open());
    for visit in visits {
        assert_eq!(visit.await.expect("no panic"), 200);
    }
    let saves = spans.named("session.save");
    let (_, write) = spans.only("session.write", &[("session.requests", "3")]);
    assert_eq!((write.parent, write.follows), (None, saves));
}

#[tokio::test]
async fn a_statement_that_failed_says_its_kind_and_its_sqlstate() {
    let (site, mut browser, spans) = visited().await;
    execute(&site.pool, "ALTER TABLE public.session RENAME TO gone").await;
    assert_eq!(browser.get("/get/a").await.status, 500);
    let (_, failed) = spans.only("statement", &[("db.query.summary", "load session")]);
    assert_eq!(field(&failed, "error.type"), Some("setup"));
    assert_eq!(field(&failed, "db.response.status_code"), Some("42P01"));
    assert_eq!(field(&failed, "otel.status_code"), Some("ERROR"));
}

#[tokio::test]
async fn a_visit_that_waits_for_nothing_has_no_span() {
    let (_site, mut browser, spans) = visited().await;
    browser.get("/plain").await;
    assert!(spans.all().is_empty());
    browser.get("/get/a").await;
    assert_eq!(spans.named("session.save"), [0; 0], "nothing is owed");
    spans.forget();
    browser.get("/insert/b/1").await;
    assert_eq!(spans.named("session.save").len(), 1);
}

/// Where spans of this level are off none is made, and no request's is held.
#[tokio::test]
async fn no_span_has_the_level_info() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    let spans = Spans::keep(Level::INFO);
    let request = info_span!("request");
    browser.get("/insert/b/2").instrument(request).await;
    let names: Vec<_> = spans.all().iter().map(|span| span.name).collect();
    assert_eq!(names, ["request"]);
}
