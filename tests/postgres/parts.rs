//! A table with sixteen partitions, and one whose partitions are on two servers.

use std::{num::NonZeroU32, time::Duration};

use axum::Router;
use axum_pg_session::{
    Device, ErrorKind, Login, PgSessionLayer, PgSessionStore, Reaper, Session, SessionId,
    SessionLimitPolicy,
};
use sqlx::AssertSqlSafe;
use tokio::{task::JoinSet, time::timeout};

use crate::support::{
    Browser, Life, Site, app, execute,
    page::login_page,
    parts::{over_two_servers, sixteen},
    site::pool,
    texts,
};

const VISITORS: usize = 40;
const FIVE: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
/// If a part is on another server, other writers hold their locks for longer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Holds on both tables.
async fn in_parts(holds: impl AsyncFn(&Site)) {
    holds(&sixteen().await).await;
    if let Some(foreign) = over_two_servers().await {
        holds(&foreign.site).await;
    }
}

/// The site in as many processes.
async fn processes(site: &Site, count: usize) -> Vec<PgSessionStore> {
    let mut stores = Vec::new();
    for _ in 0..count {
        let store = PgSessionStore::new(pool(site.database.url(), 6).await);
        stores.push(store.timeout(TIMEOUT));
    }
    stores
}

async fn apps(site: &Site) -> Vec<Router> {
    let stores = processes(site, 2).await;
    let layers = stores.into_iter().map(PgSessionLayer::new);
    layers.map(app).collect()
}

/// Rows of sessions that are as good as any other's.
async fn fill(site: &Site, rows: usize, life: &str) {
    let sql = format!(
        "INSERT INTO public.session (id, expiry, session)
         SELECT 'row ' || n, now() + interval '{life}', '{{}}' FROM generate_series(1, {rows}) AS n"
    );
    execute(&site.pool, &sql).await;
}

#[tokio::test]
async fn the_parts_are_where_they_belong() {
    let part = "SELECT tableoid::regclass::text FROM public.session GROUP BY 1";
    let site = sixteen().await;
    fill(&site, 400, "1 day").await;
    assert_eq!(texts(&site.pool, part).await.len(), 16);
    let report = site.store.check().await.expect("a table");
    assert_eq!(report.to_string(), "every feature is on");

    let Some(foreign) = over_two_servers().await else {
        return;
    };
    fill(&foreign.site, 400, "1 day").await;
    for shard in &foreign.shards {
        for table in texts(
            &shard.pool,
            "SELECT relname::text FROM pg_stat_user_tables
            WHERE relname ~ '^session_[0-9]$'",
        )
        .await
        {
            let rows = format!("SELECT count(*)::text FROM {table}");
            let rows: u32 = texts(&shard.pool, &rows).await[0]
                .parse()
                .expect("a number");
            assert!(rows > 50, "{rows} rows in {table}");
        }
    }
    let report = foreign.site.store.check().await.expect("a table");
    assert_eq!(report.to_string(), "the table does not keep id unique");
    let ports = "SELECT count(*)::text FROM pg_foreign_table";
    assert_eq!(texts(&foreign.site.pool, ports).await, ["4"]);
}

#[tokio::test]
async fn a_session_lives_its_whole_life_in_parts() {
    in_parts(async |site| {
        Life::of(&site.pool, "public.session")
            .is_whole(&site.store)
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_over_all_parts_gives_each_visitor_its_own() {
    in_parts(async |site| {
        let apps = apps(site).await;
        let mut visits = JoinSet::new();
        for at in 0..VISITORS {
            let mut browser = Browser::new(&apps[at % 2]);
            visits.spawn(async move {
                browser.get(&format!("/insert/a/{at}")).await;
                for n in 1..=3 {
                    assert_eq!(browser.get("/increment/n").await.body, n.to_string());
                }
                assert_eq!(browser.get("/get/a").await.body, format!("\"{at}\""));
                assert_eq!(browser.get("/cycle").await.status, 200);
                assert_eq!(browser.get("/get/a").await.body, format!("\"{at}\""));
            });
        }
        visits.join_all().await;
        assert_eq!(site.rows().count().await, VISITORS as i64);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_session_merge_in_parts() {
    in_parts(async |site| {
        let apps = apps(site).await;
        let mut browser = Browser::new(&apps[0]);
        browser.get("/insert/begun/1").await;
        let mut visits = JoinSet::new();
        for at in 0..200 {
            let browser = browser.at(&apps[at % 2]);
            let page = match at % 10 {
                0 => format!("/insert/key{at}/{at}"),
                _ => "/increment/n".into(),
            };
            visits.spawn(async move { browser.peek(&page).await.status });
        }
        let responses = visits.join_all().await;
        assert!(
            responses.iter().all(|status| *status == 200),
            "{responses:?}"
        );
        let document = site.rows().document().await;
        assert_eq!(document["n"], 180);
        assert_eq!(document.as_object().expect("an object").len(), 22);
    })
    .await;
}

#[tokio::test]
async fn a_late_save_follows_to_the_new_id_in_another_part() {
    in_parts(async |site| {
        let mut browser = site.visitor().await;
        let late = site
            .late(&browser, async move |session: Session| {
                session.insert("late", 1)
            })
            .await;
        let old = browser.clone();
        assert_eq!(browser.get("/cycle").await.status, 200);
        assert_eq!(late.finish().await.status, 200);
        assert_eq!(browser.get("/keys").await.body, "a,late");
        assert_eq!(old.peek("/keys").await.body, "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_at_once_leave_exactly_the_limit_in_parts() {
    in_parts(async |site| {
        let mut logins = JoinSet::new();
        for store in processes(site, 4).await {
            let store = store.max_sessions_per_user(FIVE, SessionLimitPolicy::EndOldest);
            let app = login_page(&store);
            for _ in 0..5 {
                let browser = Browser::new(&app);
                logins.spawn(async move { browser.peek("/page").await.status });
            }
        }
        let responses = logins.join_all().await;
        assert!(
            responses.iter().all(|status| *status == 200),
            "{responses:?}"
        );
        let count = site.store.user("alice").count().await;
        assert_eq!(count.expect("a count"), 5);
    })
    .await;
}

#[tokio::test]
async fn the_sessions_of_a_user_are_found_in_all_parts() {
    in_parts(async |site| {
        let device = Device::new().with_user_agent("Browser 1.0");
        let mut browsers = Vec::new();
        for _ in 0..8 {
            let login = Login::new("alice").device(device.clone());
            browsers.push(site.signed_in(login).await);
        }
        let bob = site.signed_in("bob").await;
        let alice = site.store.user("alice");
        let listed = alice.list().await.expect("a list");
        assert_eq!(listed.len(), 8);
        assert!(
            listed
                .iter()
                .all(|session| session.device() == Some(&device))
        );

        assert!(
            alice
                .destroy(&browsers[7].handle().await)
                .await
                .expect("an end")
        );
        let of_bob = site
            .store
            .user("bob")
            .destroy(&browsers[0].handle().await)
            .await;
        assert!(!of_bob.expect("no end"));
        let this = browsers[0].handle().await;
        assert_eq!(alice.destroy_others(&this).await.expect("an end"), 6);
        assert_eq!(alice.count().await.expect("a count"), 1);
        assert_eq!(alice.destroy_all().await.expect("an end"), 1);
        assert_eq!(browsers[0].peek("/is_new").await.body, "true");
        assert_eq!(bob.peek("/is_new").await.body, "false");
        let refused = alice.destroy_others(&this).await.expect_err("it ended");
        assert_eq!(refused.kind(), ErrorKind::Ended);
    })
    .await;
}

#[tokio::test]
async fn the_reaper_finds_what_expired_in_all_parts() {
    in_parts(async |site| {
        let mut browser = site.visitor().await;
        fill(site, 2500, "-1 minute").await;
        let reaper = Reaper::new(site.store.clone());
        let run = reaper.run_once().await.expect("rights");
        assert_eq!(run.deleted, 2500);
        assert_eq!(browser.get("/get/a").await.body, "\"1\"");
        assert_eq!(site.rows().count().await, 1);
    })
    .await;
}

#[tokio::test]
async fn everyone_is_ended_in_all_parts() {
    in_parts(async |site| {
        let alice = site.signed_in("alice").await;
        fill(site, 2500, "1 day").await;
        let ended = site.store.destroy_everyone().await.expect("an end");
        assert_eq!(ended, 2501);
        assert_eq!(alice.peek("/is_new").await.body, "true");
        assert_eq!(site.rows().count().await, 0);
    })
    .await;
}

/// If a part is gone, only requests whose sessions are in it get a 503.
#[tokio::test]
async fn a_part_that_is_gone_is_missed_by_its_sessions_alone() {
    let Some(foreign) = over_two_servers().await else {
        return;
    };
    let mut browsers = Vec::new();
    for at in 0..16 {
        let mut browser = foreign.site.browser();
        browser.get(&format!("/insert/a/{at}")).await;
        let id = browser.handle().await;
        browsers.push((part_of(&foreign.site, &id).await % 2, browser));
    }
    let socket =
        "SELECT split_part(option, '=', 2) FROM pg_foreign_server, unnest(srvoptions) AS option
                  WHERE srvname = 'shard_1' AND option LIKE 'host=%'";
    let socket = texts(&foreign.site.pool, socket).await.remove(0);
    let move_to = async |place: &str| {
        let sql = format!("ALTER SERVER shard_1 OPTIONS (SET host '{place}')");
        execute(&foreign.site.pool, &sql).await;
    };
    move_to("/nowhere").await;
    let mut served = 0;
    for (shard, browser) in &browsers {
        let response = browser.peek("/increment/n").await;
        assert_eq!(response.status, [200, 503][*shard]);
        served += usize::from(*shard == 0);
    }
    let count = foreign.site.store.user("alice").count().await;
    assert_eq!(
        count.expect_err("a part is gone").kind(),
        ErrorKind::Unavailable
    );
    move_to(&socket).await;
    for (_, browser) in &browsers {
        assert_eq!(browser.peek("/increment/n").await.status, 200);
    }
    assert!(
        (1..16).contains(&served),
        "{served} are on the first server"
    );
}

/// By the hash of the id.
async fn part_of(site: &Site, id: &SessionId) -> usize {
    let sql = format!(
        "SELECT part::text FROM generate_series(0, 3) AS part
         WHERE satisfies_hash_partition('public.session'::regclass, 4, part, '{id}'::text)"
    );
    texts(&site.pool, &sql).await[0].parse().expect("a number")
}

/// Through postgres_fdw a writer that waited for another one gets
/// 40001 instead of no row.
#[tokio::test]
async fn a_conflict_on_another_server_is_tried_again() {
    let Some(foreign) = over_two_servers().await else {
        return;
    };
    for page in ["/insert/b/2", "/increment/n", "/cycle"] {
        let mut browser = foreign.site.browser();
        browser.get("/insert/a/1").await;
        let id = browser.handle().await;
        let part = part_of(&foreign.site, &id).await;
        let shard = &foreign.shards[part % 2];
        let mut other = shard.pool.begin().await.expect("a transaction");
        let sql = format!(
            r#"UPDATE session_{part} SET session = '{{"a":"1","other":"1"}}' WHERE id = '{id}'"#
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut *other)
            .await
            .expect("a row");
        let waiting = browser.clone();
        let waiting = tokio::spawn(async move { waiting.peek(page).await });
        shard.blocked(1).await;
        other.commit().await.expect("no conflict");
        let response = waiting.await.expect("no panic");
        assert_eq!(response.status, 200, "{page}");
        browser.accept(&response);
        let keys = browser.peek("/keys").await.body;
        assert!(keys.starts_with("a,other"), "{page}: {keys}");
    }
}

/// The server here can't tell that the statement waits for a lock there.
#[tokio::test]
async fn a_lock_timeout_of_another_server_keeps_its_locked_row_apart() {
    let Some(foreign) = over_two_servers().await else {
        return;
    };
    for at in 0..2 {
        let sql = format!("ALTER SERVER shard_{at} OPTIONS (ADD options '-c lock_timeout=200')");
        execute(&foreign.site.pool, &sql).await;
    }
    let store = PgSessionStore::new(pool(foreign.site.database.url(), 4).await);
    let app = app(PgSessionLayer::new(store.timeout(TIMEOUT)));
    let mut browsers = Vec::new();
    for _ in 0..16 {
        let mut browser = Browser::new(&app);
        browser.get("/increment/n").await;
        browsers.push(browser);
    }
    let locked = browsers.remove(0);
    let id = locked.handle().await;
    let part = part_of(&foreign.site, &id).await;
    let shard = &foreign.shards[part % 2].pool;
    let mut lock = shard.begin().await.expect("a transaction");
    sqlx::query(AssertSqlSafe(format!(
        "SELECT id FROM session_{part} WHERE id = '{id}' FOR UPDATE"
    )))
    .fetch_one(&mut *lock)
    .await
    .expect("a lock");
    let visit = |browser: Browser| async move { browser.peek("/increment/n").await.status };
    let waiting = tokio::spawn(visit(locked));
    let mut others = JoinSet::new();
    for browser in browsers {
        others.spawn(visit(browser));
    }
    let others = timeout(TIMEOUT / 3, others.join_all()).await;
    let others = others.expect("none waits for the locked row");
    assert!(others.iter().all(|status| *status == 200), "{others:?}");
    lock.rollback().await.expect("a lock released");
    assert_eq!(waiting.await.expect("no panic"), 200);
}
