//! The table is altered while a site runs on it, in ways that make no statement fail by
//! themselves.

use std::{cell::Cell, time::Duration};

use axum_pg_session::{
    ErrorKind, PgSessionLayer, PgSessionStore, Reaper, Session, testing::TestVisitor,
};

use crate::support::{
    Browser, Log, Role, Site, app, execute,
    page::{minutes_later, patiently, until},
    proxy::Proxy,
    texts,
};

const ZONE: &str = "America/Los_Angeles";
const HOUR: Duration = Duration::from_secs(3600);

/// Eight hours to the west: if the column is read in the wrong zone, an hour is over.
const ALTERATIONS: [(&str, &str); 2] = [("timestamptz", "timestamp"), ("timestamp", "timestamptz")];

/// A visitor who is signed in as ann for another hour, before the type of `expiry` changes. The
/// statements of the store were prepared for the former type.
struct Altered {
    site: Site,
    store: PgSessionStore,
    ann: TestVisitor,
}

impl Altered {
    async fn new((before, after): (&str, &str)) -> Self {
        let site = Site::new().await;
        let alter = async |r#type: &str| {
            let using = format!("USING expiry AT TIME ZONE '{ZONE}'");
            let sql = format!("ALTER TABLE session ALTER expiry TYPE {type} {using}");
            execute(&site.pool, &sql).await;
        };
        if before == "timestamp" {
            alter(before).await;
        }
        let store = PgSessionStore::new(site.pool.clone()).time_zone(ZONE);
        let layer = PgSessionLayer::new(store.clone()).idle_timeout(HOUR);
        let ann = TestVisitor::new(&layer);
        ann.with_session(|session| session.login("ann"))
            .await
            .expect("a login");
        // Each statement once.
        Reaper::new(store.clone()).run_once().await.expect("a run");
        assert_eq!(store.user("ann").count().await.expect("a count"), 1);
        assert_eq!(store.user("bob").destroy_all().await.expect("an end"), 0);
        alter(after).await;
        Self { site, store, ann }
    }
}

#[tokio::test]
async fn a_changed_type_of_the_expiry_in_another_zone_deletes_no_live_session() {
    for alteration in ALTERATIONS {
        let Altered { store, ann, site } = Altered::new(alteration).await;
        let reaped = Reaper::new(store.clone()).run_once().await;
        assert_eq!(reaped.expect("a run").deleted, 0, "{alteration:?}");
        assert_eq!(site.rows().count().await, 1, "{alteration:?}");
        let session = ann.session().await.expect("a load");
        assert_eq!(session.user_id().as_deref(), Some("ann"));
    }
}

#[tokio::test]
async fn a_changed_type_of_the_expiry_in_another_zone_signs_no_one_out() {
    for alteration in ALTERATIONS {
        let altered = Altered::new(alteration).await;
        let session = altered.ann.session().await.expect("a load");
        assert_eq!(session.user_id().as_deref(), Some("ann"));
    }
}

#[tokio::test]
async fn a_changed_type_of_the_expiry_in_another_zone_hides_no_session_from_its_end() {
    for alteration in ALTERATIONS {
        for call in [
            "destroy",
            "destroy_all",
            "destroy_others",
            "destroy_everyone",
            "count",
            "list",
        ] {
            let Altered { store, site, .. } = Altered::new(alteration).await;
            let id = texts(&site.pool, "SELECT id FROM session").await.remove(0);
            let id = id.parse().expect("a handle");
            let ann = store.user("ann");
            let found = match call {
                "destroy" => store.destroy(&id).await.map(u64::from),
                "destroy_all" => ann.destroy_all().await,
                // None is another one, but the session must be found.
                "destroy_others" => ann.destroy_others(&id).await.map(|others| others + 1),
                "destroy_everyone" => store.destroy_everyone().await,
                "count" => ann.count().await,
                _ => ann.list().await.map(|sessions| sessions.len() as u64),
            };
            assert_eq!(found.expect("no error"), 1, "{call} after {alteration:?}");
        }
    }
}

/// A new row is converted to the type of the column without an error, too.
#[tokio::test]
async fn a_changed_type_of_the_expiry_in_another_zone_changes_the_end_of_no_session() {
    for alteration in ALTERATIONS {
        for call in ["insert", "login", "save", "cycle_id"] {
            let Altered { site, store, ann } = Altered::new(alteration).await;
            let layer = PgSessionLayer::new(store).idle_timeout(HOUR);
            let visitor = match call {
                "insert" | "login" => TestVisitor::new(&layer),
                _ => ann,
            };
            let changed = visitor.with_session(|session| match call {
                "login" => session.login("bob"),
                "cycle_id" => session.cycle_id(),
                _ => session.insert("a", 1),
            });
            changed.await.expect("a response");
            let left = match alteration.1 {
                "timestamp" => format!("expiry - now() AT TIME ZONE '{ZONE}'"),
                _ => "expiry - now()".into(),
            };
            let wrong = format!(
                "SELECT ({left})::text FROM session \
                 WHERE session::text NOT LIKE '%successor%' \
                 AND {left} NOT BETWEEN interval '58 minutes' AND interval '62 minutes'"
            );
            let wrong = texts(&site.pool, &wrong).await;
            assert!(wrong.is_empty(), "{call} after {alteration:?}: {wrong:?}");
        }
    }
}

/// The application's transaction can't be repeated here.
#[tokio::test]
async fn a_changed_type_of_the_expiry_is_a_conflict_in_a_transaction_of_the_application() {
    for alteration in ALTERATIONS {
        let Altered { store, site, .. } = Altered::new(alteration).await;
        let ann = store.user("ann");
        let mut transaction = site.pool.begin().await.expect("a connection");
        let error = ann.destroy_all_in(&mut transaction).await;
        let error = error.expect_err("the statement is of the former table");
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        transaction.rollback().await.expect("no commit");
        let mut transaction = site.pool.begin().await.expect("a connection");
        let ended = ann.destroy_all_in(&mut transaction).await;
        assert_eq!(ended.expect("the new table"), 1);
        transaction.commit().await.expect("a commit");
    }
}

/// The end of everyone's sessions compares their beginnings in the database.
#[tokio::test]
async fn a_changed_type_of_the_beginning_spares_no_session_without_an_error() {
    let site = Site::new().await;
    let ann = TestVisitor::new(&site.layer());
    ann.with_session(|session| session.login("ann"))
        .await
        .expect("a login");
    let alter =
        "ALTER TABLE session ALTER created TYPE timestamp USING created AT TIME ZONE 'Asia/Tokyo'";
    execute(&site.pool, alter).await;
    let error = site.store.destroy_everyone().await;
    let error = error.expect_err("the column can't be used");
    assert!(error.to_string().contains("created"), "{error}");
    let back = "ALTER TABLE session ALTER created TYPE timestamptz USING created AT TIME ZONE 'Asia/Tokyo'";
    execute(&site.pool, back).await;
    assert_eq!(site.store.destroy_everyone().await.expect("an end"), 1);
}

/// Only new ids fail, and all other calls succeed.
#[tokio::test]
async fn a_change_that_hinders_some_calls_is_logged_once_and_leaves_the_others() {
    let site = Site::new().await;
    let log = Log::keep();
    let mut visitor = site.browser();
    assert_eq!(visitor.get("/insert/a/1").await.status, 200);
    execute(&site.pool, "ALTER TABLE session ADD shop text UNIQUE").await;
    let logged = || log.text().matches("some calls will fail").count();
    for minutes in [1, 1, 3, 1] {
        minutes_later(minutes).await;
        assert_eq!(visitor.get("/insert/a/2").await.status, 200);
        assert_eq!(visitor.get("/get/a").await.body, "\"2\"");
        patiently(until(async || logged() > 0)).await;
    }
    assert_eq!(logged(), 1);
    let error = site
        .store
        .check()
        .await
        .expect_err("an id could not change");
    assert!(error.to_string().contains("shop"), "{error}");
}

/// A right that is missing makes some calls fail. Then the table is inspected at once.
#[tokio::test]
async fn a_right_that_is_revoked_fails_only_the_calls_that_need_it() {
    for right in ["INSERT", "UPDATE", "DELETE"] {
        let site = Site::new().await;
        let role = Role::new(&site.pool).await;
        role.grant("SELECT, INSERT, UPDATE, DELETE ON session")
            .await;
        let store = role.store(site.database.url()).await;
        let app = app(PgSessionLayer::new(store));
        let [mut ann, mut bob] = [Browser::new(&app), Browser::new(&app)];
        for visitor in [&mut ann, &mut bob] {
            assert_eq!(visitor.get("/insert/a/1").await.status, 200);
        }
        let statuses = async || {
            let mut statuses = Vec::new();
            for page in ["/insert/b/2", "/destroy"] {
                statuses.push(bob.peek(page).await.status == 200);
                assert_eq!(ann.peek("/get/a").await.body, "\"1\"", "{right}");
            }
            let stranger = Browser::new(&app);
            statuses.push(stranger.peek("/insert/a/1").await.status == 200);
            statuses
        };
        role.revoke(&format!("{right} ON session")).await;
        let needed = match right {
            "INSERT" => [true, true, false],
            "UPDATE" => [false, true, true],
            _ => [true, false, true],
        };
        assert_eq!(statuses().await, needed, "{right}");
        role.grant(&format!("{right} ON session")).await;
        assert_eq!(ann.get("/insert/b/2").await.status, 200, "{right}");
        assert_eq!(ann.get("/destroy").await.status, 200, "{right}");
        assert_eq!(ann.get("/insert/a/1").await.status, 200, "{right}");
        drop((ann, bob, app));
        role.drop().await;
    }
}

/// The unique column hinders new ids, and the changed type each statement.
#[tokio::test]
async fn a_changed_type_beside_a_change_that_hinders_some_calls_costs_no_request() {
    let site = Site::new().await;
    let log = Log::keep();
    let mut visitor = site.browser();
    // The second time prepares the statements that return an id.
    for _ in 0..2 {
        assert_eq!(visitor.get("/insert/a/1").await.status, 200);
    }
    execute(
        &site.pool,
        "ALTER TABLE session ADD shop text UNIQUE;
         UPDATE session SET shop = 'north';
         ALTER TABLE session ALTER id TYPE varchar(64)",
    )
    .await;
    for n in ["2", "3"] {
        let page = format!("/insert/a/{n}");
        assert_eq!(visitor.get(&page).await.status, 200);
        assert_eq!(visitor.get("/get/a").await.body, format!("\"{n}\""));
    }
    // Behind a pooler no statement is prepared, so none fails before the next inspection.
    let logged = log.text().matches("some calls will fail").count();
    assert!(logged <= 1, "{}", log.text());
    if logged == 1 {
        assert_ne!(visitor.get("/cycle").await.status, 200);
    }
}

/// A site whose table hides its rows from the site's role. Ann signed in before that.
struct Hidden {
    site: Site,
    role: Role,
    store: PgSessionStore,
    ann: TestVisitor,
}

impl Hidden {
    async fn new() -> Self {
        let site = Site::new().await;
        let role = Role::new(&site.pool).await;
        role.grant("SELECT, INSERT, UPDATE, DELETE ON session")
            .await;
        let store = role.store(site.database.url()).await;
        let ann = TestVisitor::new(&PgSessionLayer::new(store.clone()));
        ann.with_session(|session| session.login("ann"))
            .await
            .expect("a login");
        execute(&site.pool, "ALTER TABLE session ENABLE ROW LEVEL SECURITY").await;
        Self {
            site,
            role,
            store,
            ann,
        }
    }
}

/// As a program that deletes an account once a day.
#[tokio::test]
async fn after_a_pause_the_first_call_sees_row_level_security() {
    let Hidden {
        site: _site,
        role,
        store,
        ann,
    } = Hidden::new().await;
    minutes_later(3).await;
    let error = store.user("ann").destroy_all().await;
    let error = error.expect_err("no row can be seen");
    assert!(error.to_string().contains("row level security"), "{error}");
    drop((ann, store));
    role.drop().await;
}

/// It hides rows and makes no statement fail that reads.
#[tokio::test]
async fn row_level_security_that_is_enabled_while_a_site_only_reads_is_noticed_within_a_minute() {
    let Hidden {
        site,
        role,
        store,
        ann,
    } = Hidden::new().await;
    minutes_later(1).await;
    patiently(until(async || store.user("ann").count().await.is_err())).await;
    for error in [
        ann.session().await.err(),
        store.user("ann").destroy_all().await.err(),
        store.destroy_everyone().await.err(),
        Reaper::new(store.clone()).run_once().await.err(),
    ] {
        let error = error.expect("no row can be seen");
        assert!(error.to_string().contains("row level security"), "{error}");
    }
    execute(&site.pool, "ALTER TABLE session DISABLE ROW LEVEL SECURITY").await;
    assert_eq!(
        store.user("ann").count().await.expect("the owner's wish"),
        1
    );
    drop((ann, store));
    role.drop().await;
}

#[tokio::test]
async fn a_column_that_is_added_while_a_site_runs_is_copied_to_a_new_id_after_a_minute() {
    let site = Site::new().await;
    let ann = TestVisitor::new(&site.layer());
    ann.with_session(|session| session.insert("a", 1))
        .await
        .expect("a session");
    execute(&site.pool, "ALTER TABLE session ADD shop text").await;
    execute(&site.pool, "UPDATE session SET shop = 'north'").await;
    minutes_later(1).await;
    // The inspection runs beside the load that starts it.
    let copied = async || {
        ann.with_session(Session::cycle_id).await.expect("a new id");
        let new =
            "SELECT coalesce(shop, '') FROM session WHERE session::text NOT LIKE '%successor%'";
        let shop = texts(&site.pool, new).await;
        execute(&site.pool, "UPDATE session SET shop = 'north'").await;
        shop == ["north"]
    };
    patiently(until(copied)).await;
}

/// Without requests, the table is not inspected.
#[tokio::test]
async fn a_table_is_inspected_again_once_for_many_requests() {
    let site = Site::new().await;
    let ann = TestVisitor::new(&site.layer());
    ann.with_session(|session| session.insert("a", 1))
        .await
        .expect("a session");
    let proxy = Proxy::before(site.database.url()).await;
    let store = PgSessionStore::new(proxy.pool().await);
    let inspections = || {
        let texts = proxy.take_texts();
        texts
            .iter()
            .filter(|sql| sql.contains("row_security_active"))
            .count()
    };
    store.check().await.expect("a table");
    assert_eq!(inspections(), 1);
    for _ in 0..20 {
        store.user("ann").count().await.expect("a count");
    }
    assert_eq!(inspections(), 0);
    minutes_later(1).await;
    assert_eq!(inspections(), 0);
    for _ in 0..20 {
        store.user("ann").count().await.expect("a count");
    }
    let inspected = Cell::new(0);
    patiently(until(async || {
        inspected.set(inspected.get() + inspections());
        inspected.get() > 0
    }))
    .await;
    for _ in 0..20 {
        store.user("ann").count().await.expect("a count");
    }
    assert_eq!(inspected.get() + inspections(), 1);
}
