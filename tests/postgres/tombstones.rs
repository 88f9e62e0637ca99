//! Tombstones: a late write of another application doesn't revive a destroyed session.

use axum_pg_session::{
    Express, Koa, PgSessionLayer, PgSessionStore, Reaper, Session, testing::TestVisitor,
};
use sqlx::{Executor as _, PgConnection};

use crate::support::{Browser, Site, app, execute, page::until, texts};

const EXPRESS: &str = r#"CREATE TABLE session (
    sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL)"#;
const KOA: &str = "CREATE TABLE session (
    id text PRIMARY KEY, expiry timestamp NOT NULL, session json)";
const KNEX: &str = "CREATE TABLE session (
    sid varchar(255) PRIMARY KEY, sess json NOT NULL, expired timestamptz NOT NULL)";

/// How another application inserts or replaces the row `x`, which lives for `LIFE`.
const EXPRESS_WRITES: &str = "INSERT INTO session (sess, expire, sid)
    VALUES ('{\"cookie\":{}}', now() + interval 'LIFE', 'x')
    ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire RETURNING sid";
const KOA_WRITES: &str = "INSERT INTO session (id, expiry, session)
    VALUES ('x', now() + interval 'LIFE', '{\"cookie\":{}}')
    ON CONFLICT (id) DO UPDATE SET session = excluded.session, expiry = excluded.expiry";
const KNEX_WRITES: &str = "WITH new_values (sid, expired, sess) AS (
        VALUES ('x', now() + interval 'LIFE', '{\"cookie\":{}}'::json)
    ), upsert AS (
        UPDATE session AS m SET sess = n.sess, expired = n.expired
        FROM new_values AS n WHERE m.sid = n.sid RETURNING m.*
    )
    INSERT INTO session (sid, expired, sess) SELECT sid, expired, sess FROM new_values
    WHERE NOT EXISTS (SELECT FROM upsert AS u WHERE u.sid = new_values.sid)";

/// The tables of other applications, guarded, and how these write.
async fn sites() -> Vec<(Site, &'static str)> {
    let express = Express::new(["secret"]);
    let mut sites = Vec::new();
    for (table, writes) in [
        (EXPRESS, EXPRESS_WRITES),
        (KOA, KOA_WRITES),
        (KNEX, KNEX_WRITES),
    ] {
        let mut site = Site::without_table().await;
        execute(&site.pool, table).await;
        let store = site.store.clone().tombstones(true);
        site.store = match table {
            KOA => store.koa(Koa::new(["key"]).prefix("")),
            KNEX => store.express(express.clone().knex()),
            _ => store.express(express.clone()),
        };
        site.store.migrate().await.expect("the owner");
        sites.push((site, writes));
    }
    sites
}

fn write(sql: &str) -> String {
    sql.replace("LIFE", "1 day")
}

fn sid_of(sql: &str) -> &'static str {
    match sql {
        KOA_WRITES => "id",
        _ => "sid",
    }
}

async fn rows(site: &Site) -> String {
    texts(&site.pool, "SELECT count(*)::text FROM session")
        .await
        .remove(0)
}

async fn tombstones(site: &Site) -> Vec<String> {
    texts(&site.pool, "SELECT id FROM session_tombstones ORDER BY id").await
}

#[tokio::test]
async fn a_write_that_comes_after_the_destroy_revives_nothing() {
    for (site, sql) in sites().await {
        execute(&site.pool, &write(sql)).await;
        let delete = format!("DELETE FROM session WHERE {} = 'x'", sid_of(sql));
        execute(&site.pool, &delete).await;
        for _ in 0..2 {
            execute(&site.pool, &write(sql)).await;
            assert_eq!(rows(&site).await, "0", "{sql}");
        }
        assert_eq!(tombstones(&site).await, ["x"]);
        // Another session is not affected.
        execute(&site.pool, &write(sql).replace("'x'", "'y'")).await;
        assert_eq!(rows(&site).await, "1", "{sql}");
    }
}

/// The write begins before the deletion is committed, and waits for it.
#[tokio::test]
async fn a_write_that_waits_for_the_destroy_revives_nothing() {
    for level in ["READ COMMITTED", "REPEATABLE READ"] {
        for (site, sql) in sites().await {
            execute(&site.pool, &write(sql)).await;
            let mut destroys = site.pool.begin().await.expect("a transaction");
            let delete = format!("DELETE FROM session WHERE {} = 'x'", sid_of(sql));
            destroys
                .execute(sqlx::AssertSqlSafe(delete))
                .await
                .expect("a deletion");
            let pool = site.pool.clone();
            let writes = write(sql);
            let late = tokio::spawn(async move {
                let mut connection = pool.acquire().await.expect("a connection");
                let level = format!("SET default_transaction_isolation = '{level}'");
                let connection: &mut PgConnection = &mut connection;
                connection
                    .execute(sqlx::AssertSqlSafe(level))
                    .await
                    .expect("a level");
                let written = connection.execute(sqlx::AssertSqlSafe(writes)).await;
                connection
                    .execute("RESET default_transaction_isolation")
                    .await
                    .expect("a level");
                written
            });
            until(|| site.is_blocked()).await;
            destroys.commit().await.expect("a commit");
            let written = late.await.expect("no panic");
            assert!(level != "READ COMMITTED" || written.is_ok(), "{written:?}");
            assert_eq!(rows(&site).await, "0", "{level}: {sql}");
        }
    }
}

#[tokio::test]
async fn a_session_that_this_crate_destroys_or_gives_a_new_id_stays_so() {
    for (site, sql) in sites().await {
        let layer = PgSessionLayer::new(site.store.clone());
        let visitor = TestVisitor::new(&layer);
        visitor
            .with_session(|session| session.insert("a", 1))
            .await
            .expect("a row");
        let id = format!("SELECT {} FROM session", sid_of(sql));
        let mut former = Vec::new();
        former.push(texts(&site.pool, &id).await.remove(0));
        visitor
            .with_session(Session::cycle_id)
            .await
            .expect("a new id");
        former.push(texts(&site.pool, &id).await.remove(0));
        visitor
            .with_session(Session::destroy)
            .await
            .expect("a deletion");
        for former in former {
            let late = write(sql).replace("'x'", &format!("'{former}'"));
            execute(&site.pool, &late).await;
        }
        assert_eq!(rows(&site).await, "0", "{sql}");
        visitor
            .with_session(|session| session.insert("a", 2))
            .await
            .expect("a new session");
        assert_eq!(rows(&site).await, "1", "{sql}");
    }
}

#[tokio::test]
async fn the_reaper_leaves_no_tombstones_and_removes_none() {
    for (site, sql) in sites().await {
        execute(&site.pool, &write(sql)).await;
        let delete = format!("DELETE FROM session WHERE {} = 'x'", sid_of(sql));
        execute(&site.pool, &delete).await;
        let expired = sql.replace("LIFE", "-1 day").replace("'x'", "'expired'");
        execute(&site.pool, &expired).await;
        let reaped = Reaper::new(site.store.clone())
            .run_once()
            .await
            .expect("a run");
        assert_eq!(reaped.deleted, 1);
        assert_eq!(tombstones(&site).await, ["x"]);
        execute(&site.pool, &write(sql)).await;
        assert_eq!(rows(&site).await, "0", "{sql}");
    }
}

#[tokio::test]
async fn a_tombstone_lasts_as_long_as_its_session_could_and_is_then_removed() {
    for (site, sql) in sites().await {
        for (id, life) in [("a", "3 days"), ("b", "1 minute")] {
            let written = sql.replace("LIFE", life).replace("'x'", &format!("'{id}'"));
            execute(&site.pool, &written).await;
        }
        execute(&site.pool, "DELETE FROM session").await;
        let kept = "SELECT round(extract(epoch FROM until - now()) / 3600)::int::text
                    FROM session_tombstones ORDER BY id";
        assert_eq!(texts(&site.pool, kept).await, ["72", "1"], "{sql}");
        execute(
            &site.pool,
            "UPDATE session_tombstones SET until = now() - interval '1 second'",
        )
        .await;
        // It is over, so the id can be used again.
        execute(&site.pool, &write(sql).replace("'x'", "'a'")).await;
        assert_eq!(rows(&site).await, "1", "{sql}");
        // The level under which a deletion removes those that are over.
        let delete = "BEGIN ISOLATION LEVEL READ COMMITTED; DELETE FROM session; COMMIT";
        execute(&site.pool, delete).await;
        assert_eq!(tombstones(&site).await, ["a"], "{sql}");
    }
}

/// A new id whose response was lost is undone, which restores the old id.
#[tokio::test]
async fn the_undo_of_a_new_id_restores_the_old_one() {
    for (site, sql) in sites().await {
        let mut browser = Browser::new(&app(PgSessionLayer::new(site.store.clone())));
        browser.get("/insert/a/1").await;
        let id = format!("SELECT {} FROM session", sid_of(sql));
        let before = texts(&site.pool, &id).await;
        site.gives_up(browser, "/cycle").await;
        // In one statement, so that it sees the undo as a whole.
        let state = format!(
            "SELECT concat_ws(' ',
                 (SELECT string_agg(CASE {0} WHEN '{1}' THEN 'old' ELSE 'new' END, ',') FROM session),
                 (SELECT string_agg(CASE id WHEN '{1}' THEN 'old' ELSE 'new' END, ',')
                  FROM session_tombstones))",
            sid_of(sql),
            before[0]
        );
        let expected = "old new";
        until(async || texts(&site.pool, &state).await == [expected]).await;
        // The other application can write the session again.
        let late = write(sql).replace("'x'", &format!("'{}'", before[0]));
        execute(&site.pool, &late).await;
        assert_eq!(texts(&site.pool, &id).await, before, "{sql}");
    }
}

#[tokio::test]
async fn the_clock_of_the_other_application_decides_whether_a_session_lived() {
    for (zone, hours) in [("Asia/Tokyo", 9), ("America/New_York", -5)] {
        let site = Site::without_table().await;
        execute(&site.pool, EXPRESS).await;
        let store: PgSessionStore = site.store.clone().time_zone(zone).tombstones(true);
        store
            .express(Express::new(["secret"]))
            .migrate()
            .await
            .expect("the owner");
        for (id, minutes) in [("dead", -1), ("live", 1)] {
            let sql = format!(
                "INSERT INTO session VALUES ('{id}', '{{}}',
                 now() AT TIME ZONE '{zone}' + interval '{minutes} minutes')"
            );
            execute(&site.pool, &sql).await;
        }
        execute(&site.pool, "DELETE FROM session").await;
        assert_eq!(tombstones(&site).await, ["live"], "{zone}, {hours} hours");
    }
}

#[tokio::test]
async fn a_role_with_the_rights_to_the_table_needs_no_more() {
    use crate::support::Role;
    for (site, sql) in sites().await {
        let role = Role::new(&site.pool).await;
        role.grant("SELECT, INSERT, UPDATE, DELETE ON session")
            .await;
        let pool = role.pool(site.database.url()).await;
        execute(&pool, &write(sql)).await;
        execute(&pool, "DELETE FROM session").await;
        execute(&pool, &write(sql)).await;
        assert_eq!(rows(&site).await, "0", "{sql}");
        pool.close().await;
        role.drop().await;
    }
}

#[tokio::test]
async fn without_the_option_migrate_creates_no_trigger_and_keeps_those_that_exist() {
    let site = Site::without_table().await;
    execute(&site.pool, EXPRESS).await;
    let store = site.store.clone().express(Express::new(["secret"]));
    store.migrate().await.expect("the owner");
    let triggers = "SELECT count(*)::text FROM pg_trigger WHERE tgrelid = 'session'::regclass";
    assert_eq!(texts(&site.pool, triggers).await, ["0"]);
    let guarded = store.clone().tombstones(true);
    assert!(guarded.check().await.is_err());
    guarded.migrate().await.expect("the owner");
    store.migrate().await.expect("nothing to do");
    assert_eq!(texts(&site.pool, triggers).await, ["2"]);
    execute(
        &site.pool,
        "ALTER TABLE session DISABLE TRIGGER session_keep_destroyed",
    )
    .await;
    assert!(guarded.check().await.is_err());
    guarded.migrate().await.expect("the owner");
    assert!(guarded.check().await.expect("a table").tombstones);
}
