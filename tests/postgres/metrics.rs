//! Each metric: when it moves, and when it doesn't.

use std::{num::NonZeroU32, time::Duration};

use axum::Router;
use axum_pg_session::{
    FailurePolicy, PgSessionLayer, PgSessionStore, Reaper, Session, SessionLimitPolicy, SigningKeys,
};
use tokio::task::JoinSet;

use crate::support::{
    Browser, Meters, Site, app, execute,
    meters::Registered,
    page::{app_with, login_page, until},
    site::pool,
    texts, unreachable_store, visit,
};

const HOUR: f64 = 3600.0;
/// Unknown tokens.
const GUESSES: [&str; 2] = [
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
    "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA",
];

/// A site whose metrics are read.
struct Watched {
    meters: Meters,
    site: Site,
}

impl Watched {
    async fn new() -> Self {
        let meters = Meters::install();
        let site = Site::new().await;
        Self { meters, site }
    }

    /// A browser whose session holds `a`; nothing has moved since.
    async fn visitor(&self) -> Browser {
        let mut browser = self.site.browser();
        browser.get("/insert/a/1").await;
        self.meters.moved();
        browser
    }

    async fn visit(&self, app: &Router, browser: &Browser, path: &str, status: u16) {
        assert_eq!(browser.at(app).peek(path).await.status, status);
    }
}

/// What a statement of one row moves beside what it is about.
fn statement(operation: &str) -> [String; 3] {
    [
        format!("operation.batch_size{{operation={operation}}} [1]"),
        format!("operation.duration{{operation={operation}}} ×1"),
        format!("operation.queue_time{{operation={operation}}} ×1"),
    ]
}

/// The lines of one statement for each operation, with others.
fn with_statements(operations: &[&str], others: &[&str]) -> Vec<String> {
    let mut lines: Vec<_> = operations
        .iter()
        .flat_map(|operation| statement(operation))
        .chain(others.iter().map(|line| (*line).to_owned()))
        .collect();
    if !operations.is_empty() {
        lines.push(format!("connection.wait_time ×{}", operations.len()));
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn setting_up_a_table_moves_nothing() {
    let watched = Watched::new().await;
    watched.site.store.check().await.expect("a table");
    watched.meters.have_moved(&[]);
    // So that a recorder that is installed then is in time.
    assert!(watched.meters.registered().is_empty());
}

#[tokio::test]
async fn a_request_moves_what_it_is_counted_by() {
    let watched = Watched::new().await;
    let [app, polled] = [
        watched.site.app(),
        app(watched.site.layer().touch_if(|_, _| false)),
    ];
    let stranger = watched.site.browser();
    let visitor = watched.visitor().await;
    let hit = "lookups{outcome=hit} +1";
    let anonymous = "lookups{outcome=anonymous} +1";
    let began = [anonymous, "sessions.started +1"];
    let skipped = [hit, "touches.skipped +1"];
    for (browser, app, path, hours, statements, others) in [
        (
            &stranger,
            &app,
            "/keys",
            0.0,
            [].as_slice(),
            [anonymous].as_slice(),
        ),
        (&stranger, &app, "/insert/a/1", 0.0, &["insert"], &began),
        (&visitor, &app, "/plain", 0.0, &[], &[]),
        (&visitor, &app, "/keys", 0.0, &["load"], &skipped),
        (
            &visitor,
            &app,
            "/insert/a/2",
            0.0,
            &["load", "save"],
            &[hit],
        ),
        (&visitor, &polled, "/keys", 0.0, &["load"], &[hit]),
        (&visitor, &app, "/keys", 2.0, &["load", "touch"], &[hit]),
    ] {
        watched.site.rows().age(hours * HOUR).await;
        watched.visit(app, browser, path, 200).await;
        let expected = with_statements(statements, others);
        assert_eq!(watched.meters.moved(), expected, "{path}");
    }
}

#[tokio::test]
async fn a_new_id_and_an_end_are_counted() {
    let watched = Watched::new().await;
    let mut browser = watched.visitor().await;
    let old = browser.clone();
    browser.get("/cycle").await;
    watched.meters.have_moved(&[
        "connection.wait_time ×2",
        "lookups{outcome=hit} +1",
        "operation.batch_size{operation=load} [1]",
        "operation.duration{operation=cycle} ×1",
        "operation.duration{operation=load} ×1",
        "operation.queue_time{operation=load} ×1",
        "sessions.cycled +1",
    ]);
    old.peek("/keys").await;
    let expected = with_statements(&["load"], &["lookups{outcome=moved} +1"]);
    assert_eq!(watched.meters.moved(), expected);
    browser.get("/destroy").await;
    let expected = with_statements(
        &["load", "destroy"],
        &["lookups{outcome=hit} +1", "sessions.ended{how=single} +1"],
    );
    assert_eq!(watched.meters.moved(), expected);
}

#[tokio::test]
async fn tokens_that_open_nothing_are_counted_by_reason() {
    let watched = Watched::new().await;
    let signed = app(watched
        .site
        .layer()
        .signing_keys(SigningKeys::new([[1; 32]])));
    let app = watched.site.app();
    let with = |value: &str| Browser::new(&app).with_cookie("__Host-id", value);
    let two = GUESSES.join("; __Host-id=");

    watched.visit(&app, &with(&two), "/keys", 200).await;
    watched.meters.have_moved(&[
        "connection.wait_time ×1",
        "lookups{outcome=miss} +1",
        "operation.batch_size{operation=load} [2]",
        "operation.duration{operation=load} ×1",
        "operation.queue_time{operation=load} ×2",
        "tokens.rejected{reason=unknown} +2",
    ]);
    watched.visit(&app, &with("none"), "/keys", 200).await;
    watched.meters.have_moved(&[
        "lookups{outcome=malformed} +1",
        "tokens.rejected{reason=malformed} +1",
    ]);
    watched
        .visit(&signed, &with(GUESSES[0]), "/keys", 200)
        .await;
    watched.meters.have_moved(&[
        "lookups{outcome=forged} +1",
        "tokens.rejected{reason=forged} +1",
    ]);
}

#[tokio::test]
async fn two_sessions_at_once_are_ambiguous_and_a_change_of_them_fails() {
    let watched = Watched::new().await;
    let (one, two) = (watched.visitor().await, watched.visitor().await);
    let both = format!("{}; __Host-id={}", one.token(), two.token());
    let both = watched.site.browser().with_cookie("__Host-id", &both);
    assert_eq!(both.peek("/insert/a/1").await.status, 400);
    watched.meters.have_moved(&[
        "connection.wait_time ×1",
        "failures{error.type=ambiguous} +1",
        "lookups{outcome=ambiguous} +1",
        "operation.batch_size{operation=load} [2]",
        "operation.duration{operation=load} ×1",
        "operation.queue_time{operation=load} ×2",
    ]);
}

#[tokio::test]
async fn a_session_that_the_application_refuses_is_no_hit() {
    let watched = Watched::new().await;
    let browser = watched.visitor().await;
    let strict = app(watched.site.layer().valid_if(async |_, _| false));
    watched.visit(&strict, &browser, "/keys", 200).await;
    // The deletion is a transaction of its own, because it compares the row.
    watched.meters.have_moved(&[
        "connection.wait_time ×2",
        "lookups{outcome=refused} +1",
        "operation.batch_size{operation=load} [1]",
        "operation.duration{operation=destroy} ×1",
        "operation.duration{operation=load} ×1",
        "operation.queue_time{operation=load} ×1",
        "sessions.ended{how=single} +1",
    ]);
}

#[tokio::test]
async fn a_save_that_another_writer_overtook_is_a_conflict_and_a_replay() {
    let watched = Watched::new().await;
    let browser = watched.visitor().await;
    let late = watched
        .site
        .late(&browser, async move |session: Session| {
            session.insert("b", 2)
        })
        .await;
    let rows = watched.site.rows();
    rows.execute(r#"UPDATE TABLE SET session = '{"a":"3"}'"#)
        .await;
    assert_eq!(late.finish().await.status, 200);
    assert_eq!(rows.document().await["b"], 2);
    watched.meters.have_moved(&[
        "conflicts +1",
        "connection.wait_time ×4",
        "lookups{outcome=hit} +1",
        "operation.batch_size{operation=load} [1, 1]",
        "operation.batch_size{operation=save} [1, 1]",
        "operation.duration{operation=load} ×2",
        "operation.duration{operation=save} ×2",
        "operation.queue_time{operation=load} ×2",
        "operation.queue_time{operation=save} ×2",
        "replays +1",
    ]);
}

#[tokio::test]
async fn a_save_that_the_database_refuses_is_a_failure_of_its_kind() {
    let watched = Watched::new().await;
    let mut browser = watched.visitor().await;
    watched.site.refuse("UPDATE").await;
    assert_eq!(browser.get("/insert/a/2").await.status, 503);
    watched.meters.have_moved(&[
        "connection.wait_time ×2",
        "failures{error.type=database} +1",
        "lookups{outcome=hit} +1",
        "operation.batch_size{operation=load} [1]",
        "operation.batch_size{operation=save} [1]",
        "operation.duration{operation=load} ×1",
        "operation.duration{operation=save,error.type=database} ×1",
        "operation.queue_time{operation=load} ×1",
        "operation.queue_time{operation=save} ×1",
    ]);
}

#[tokio::test]
async fn a_touch_that_the_database_refuses_is_a_failure_although_the_page_is_served() {
    let watched = Watched::new().await;
    let mut browser = watched.visitor().await;
    watched.site.rows().age(2.0 * HOUR).await;
    watched.site.refuse("UPDATE").await;
    assert_eq!(browser.get("/keys").await.status, 200);
    let failed = watched.meters.moved_by("failures{error.type=database}");
    assert_eq!(failed.as_deref(), Some("+1"));
}

#[tokio::test]
async fn a_missing_database_is_a_failed_lookup_for_each_response() {
    let meters = Meters::install();
    let store = unreachable_store();
    for (policy, status) in [(FailurePolicy::Refuse, 503), (FailurePolicy::Continue, 200)] {
        let layer = PgSessionLayer::new(store.clone()).on_load_failure(policy);
        let browser = Browser::new(&app(layer)).with_cookie("__Host-id", GUESSES[0]);
        assert_eq!(browser.peek("/keys").await.status, status);
        meters.have_moved(&[
            "failures{error.type=unavailable} +1",
            "lookups{outcome=failed} +1",
            "operation.batch_size{operation=load} [1]",
            "operation.queue_time{operation=load} ×1",
        ]);
    }
}

#[tokio::test]
async fn logins_and_logouts_are_counted_and_what_ended_by_how() {
    let watched = Watched::new().await;
    let limit = NonZeroU32::MIN;
    let limited = |at_limit| {
        let store = watched.site.store.clone();
        let layer = PgSessionLayer::new(store.max_sessions_per_user(limit, at_limit));
        app_with(layer, async |session: Session| session.login("ann"))
    };
    let sign_in = limited(SessionLimitPolicy::EndOldest);
    let counted = |prefix: &str| -> Vec<String> {
        let moved = watched.meters.moved();
        let kept = |line: &String| line.starts_with(prefix) || line.starts_with("sessions");
        moved.into_iter().filter(kept).collect()
    };

    let mut first = Browser::new(&sign_in);
    assert_eq!(first.get("/page").await.status, 200);
    assert_eq!(counted("log"), ["logins +1"]);
    let mut second = Browser::new(&sign_in);
    assert_eq!(second.get("/page").await.status, 200);
    assert_eq!(
        counted("log"),
        ["logins +1", "sessions.ended{how=limit} +1"]
    );
    let third = Browser::new(&limited(SessionLimitPolicy::Refuse));
    assert_eq!(third.peek("/page").await.status, 403);
    assert_eq!(counted("fail"), ["failures{error.type=session_limit} +1"]);
    visit(&watched.site, &mut second, async |session: Session| {
        session.logout()
    })
    .await;
    assert_eq!(
        counted("log"),
        ["logouts +1", "sessions.ended{how=single} +1"]
    );
    assert_eq!(first.get("/page").await.status, 200);
    watched.meters.moved();
    let ended = watched.site.store.user("ann").destroy_all().await;
    assert_eq!(ended.expect("a database"), 1);
    watched.meters.have_moved(&[
        "connection.wait_time ×1",
        "operation.duration{operation=manage} ×1",
        "sessions.ended{how=bulk} +1",
    ]);
}

#[tokio::test]
async fn runs_of_the_reaper_are_counted_by_their_ending() {
    let watched = Watched::new().await;
    let reaper = Reaper::new(watched.site.store.clone());
    for _ in 0..3 {
        watched.visitor().await;
    }
    watched.site.rows().age(48.0 * HOUR).await;
    reaper.run_once().await.expect("a table");
    watched.meters.have_moved(&[
        "operation.duration{operation=reap} ×1",
        "reaper.deleted +3",
        "reaper.runs{outcome=drained} +1",
    ]);
    execute(
        &watched.site.pool,
        "ALTER TABLE public.session RENAME TO gone",
    )
    .await;
    reaper.run_once().await.expect_err("no table");
    watched.meters.have_moved(&[
        "failures{error.type=setup} +1",
        "operation.duration{operation=reap,error.type=setup} ×1",
        "reaper.runs{outcome=failed} +1",
    ]);
}

/// A thousand bytes or a million: the store knows from the loads before.
#[tokio::test]
async fn large_documents_are_loaded_a_few_at_a_time() {
    let watched = Watched::new().await;
    let rows = "INSERT INTO session (id, expiry, session)
        SELECT left(translate(encode(sha256(n::text::bytea), 'base64'), '+/', '-_'), 43),
               now() + interval '1 day', json_build_object('a', repeat('x', 1000000))
        FROM generate_series(1, 80) AS n";
    execute(&watched.site.pool, rows).await;
    let ids = texts(&watched.site.pool, "SELECT id FROM session").await;
    let store = PgSessionStore::new(pool(watched.site.database.url(), 1).await)
        .timeout(Duration::from_secs(60));
    store.check().await.expect("a table");
    watched.meters.moved();
    let first = ids[0].parse().expect("a handle");
    assert!(store.load(&first).await.expect("a load").is_some());
    let mut loads = JoinSet::new();
    for id in &ids[1..] {
        let (store, id) = (store.clone(), id.parse().expect("a handle"));
        loads.spawn(async move { store.load(&id).await.map(|session| session.is_some()) });
    }
    for found in loads.join_all().await {
        assert!(found.expect("a load"), "a session");
    }
    let sizes = watched
        .meters
        .moved_by("operation.batch_size{operation=load}")
        .expect("loads");
    let sizes: Vec<u32> = sizes
        .split(|other: char| !other.is_ascii_digit())
        .filter_map(|size| size.parse().ok())
        .collect();
    assert_eq!(sizes.iter().sum::<u32>(), 80, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 33), "{sizes:?}");
}

/// The other one is held in the middle of its batch.
#[tokio::test]
async fn a_run_beside_another_reaper_is_counted_as_such() {
    let watched = Watched::new().await;
    watched.visitor().await;
    watched.site.rows().age(48.0 * HOUR).await;
    let lock = watched.site.lock_rows().await;
    let elsewhere = watched.site.elsewhere().await;
    let other = tokio::spawn(async move { Reaper::new(elsewhere).run_once().await });
    until(async || watched.site.is_blocked().await || other.is_finished()).await;
    let outcome = Reaper::new(watched.site.store.clone()).run_once().await;
    outcome.expect("a table");
    let moved = watched.meters.moved_by("reaper.runs{outcome=other_reaper}");
    assert_eq!(moved.as_deref(), Some("+1"));
    lock.commit().await.expect("a lock released");
    other.await.expect("no panic").expect("a table");
}

/// Of low cardinality: nothing that a visitor, a user or a session has is one.
#[tokio::test]
async fn every_series_is_there_from_the_first_request_on() {
    let watched = Watched::new().await;
    watched.site.browser().get("/keys").await;
    let before = watched.meters.registered();
    assert_eq!(before.len(), 64, "{before:#?}");
    let mut browser = watched.visitor().await;
    for page in ["/keys", "/insert/b/2", "/cycle", "/clear", "/destroy"] {
        browser.get(page).await;
    }
    Reaper::new(watched.site.store.clone())
        .run_once()
        .await
        .expect("a table");
    assert_eq!(watched.meters.registered(), before);
}

/// A row of the table of metrics, for all series of one name.
fn row(series: &[&Registered]) -> String {
    let Registered {
        name,
        kind,
        unit,
        help,
        ..
    } = series[0];
    let exposed = name.replace('.', "_");
    let (exposed, kind) = match (*kind, *unit) {
        ("counter", _) => (format!("{exposed}_total"), "counter".to_owned()),
        (kind, "seconds") => (format!("{exposed}_seconds"), format!("{kind} of seconds")),
        (kind, _) => (exposed, format!("{kind} of rows")),
    };
    let values: Vec<_> = series
        .iter()
        .flat_map(|series| &series.labels)
        .map(|(_, value)| value.as_str())
        .collect();
    let labels = match series[0].labels.first() {
        Some((label, _)) => format!("`{label}`: {}", values.join(", ")),
        None => String::new(),
    };
    format!("| `{name}` | `{exposed}` | {kind} | {labels} | {help} |")
}

#[tokio::test]
async fn the_guide_for_operations_lists_what_is_registered() {
    let watched = Watched::new().await;
    watched.site.browser().get("/keys").await;
    let registered: Vec<_> = watched.meters.registered();
    let registered: Vec<_> = registered.iter().collect();
    let rows: Vec<_> = registered
        .chunk_by(|one, next| one.name == next.name)
        .map(row)
        .collect();
    let guide = include_str!("../../docs/operations/metrics.md");
    let listed: Vec<_> = guide
        .lines()
        .filter(|line| line.starts_with("| `axum_pg_session."))
        .collect();
    assert_eq!(listed, rows, "{}", rows.join("\n"));
}

/// Behind a pooler, the commit is the last of several steps.
#[tokio::test]
async fn ends_at_the_limit_are_counted_once_they_are_committed() {
    for is_behind_a_pooler in [false, true] {
        let meters = Meters::install();
        let site = Site::new().await;
        let store =
            PgSessionStore::new(site.pool.clone()).behind_transaction_pooler(is_behind_a_pooler);
        let store = store.max_sessions_per_user(NonZeroU32::MIN, SessionLimitPolicy::EndOldest);
        let app = login_page(&store);
        assert_eq!(Browser::new(&app).get("/page").await.status, 200);
        site.refuse_commits().await;
        meters.moved();
        assert_eq!(Browser::new(&app).get("/page").await.status, 503);
        assert_eq!(meters.moved_by("sessions.ended{how=limit}"), None);
        assert_eq!(site.rows().count().await, 1);
    }
}
