//! Destroying a user's sessions in a transaction of the application.

use axum_pg_session::ErrorKind;
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    Browser, Role, Site, execute,
    page::{PATIENCE, patiently},
};

async fn is_signed_in(browser: &Browser) -> bool {
    browser.peek("/is_new").await.body == "false"
}

async fn with_accounts() -> Site {
    let site = Site::new().await;
    execute(
        &site.pool,
        "CREATE TABLE account (name text PRIMARY KEY, password text);
         INSERT INTO account VALUES ('alice', 'old')",
    )
    .await;
    site
}

async fn passwords(site: &Site) -> Vec<String> {
    crate::support::texts(&site.pool, "SELECT password FROM account").await
}

#[tokio::test]
async fn a_new_password_and_the_end_of_the_other_sessions_are_committed_together() {
    for commits in [true, false] {
        let site = with_accounts().await;
        let (mut this, other) = (site.signed_in("alice").await, site.signed_in("alice").await);
        let before = this.handle().await;
        this.get("/cycle").await;
        let bob = site.signed_in("bob").await;
        let mut transaction = site
            .open_transaction("UPDATE account SET password = 'new'")
            .await;
        let alice = site.store.user("alice");
        let ended = alice.destroy_others_in(&mut transaction, &before).await;
        assert_eq!(ended.expect("an end"), 1);
        assert!(is_signed_in(&other).await, "not yet");
        match commits {
            true => transaction.commit().await.expect("a commit"),
            false => transaction.rollback().await.expect("a rollback"),
        }
        assert_eq!(is_signed_in(&other).await, !commits);
        assert!(is_signed_in(&this).await && is_signed_in(&bob).await);
        let password = if commits { "new" } else { "old" };
        assert_eq!(passwords(&site).await, [password]);
    }
}

#[tokio::test]
async fn an_account_and_its_sessions_are_deleted_together() {
    let site = with_accounts().await;
    execute(
        &site.pool,
        "ALTER TABLE session ADD FOREIGN KEY (user_id) REFERENCES account",
    )
    .await;
    let browsers = [site.signed_in("alice").await, site.signed_in("alice").await];
    let mut transaction = site.pool.begin().await.expect("a transaction");
    let alice = site.store.user("alice");
    let ended = alice.destroy_all_in(&mut transaction);
    assert_eq!(ended.await.expect("an end"), 2);
    sqlx::query("DELETE FROM account")
        .execute(&mut *transaction)
        .await
        .expect("nothing refers to it");
    transaction.commit().await.expect("a commit");
    for browser in &browsers {
        assert!(!is_signed_in(browser).await);
    }
    assert!(passwords(&site).await.is_empty());
}

/// Rows that the transaction has deleted are still in its indexes. Without
/// statistics, as after a bulk load, Postgres expects few rows of each user.
#[tokio::test]
async fn the_end_of_many_sessions_reads_each_of_them_a_few_times() {
    assert_reads_at_most(7, "; ANALYZE session").await;
    // Seven searches, which read two indexes, and the deletion.
    assert_reads_at_most(16, "").await;
}

async fn assert_reads_at_most(times: i64, and_then: &str) {
    const SESSIONS: i64 = 40_000;
    let site = Site::new().await;
    let insert = format!(
        "ALTER TABLE session SET (autovacuum_enabled = false);
         INSERT INTO session (id, expiry, session, user_id)
         SELECT md5(n::text), now() + interval '1 hour', '{{}}', 'alice'
         FROM generate_series(1, {SESSIONS}) AS n{and_then}"
    );
    execute(&site.pool, &insert).await;
    let read =
        "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'session')
                    || ' ' || n_tup_del FROM pg_stat_user_tables WHERE relname = 'session'";
    let read = async || {
        let read = crate::support::texts(&site.pool, read).await.remove(0);
        let (read, deleted) = read.split_once(' ').expect("two numbers");
        let number = |text: &str| text.parse::<i64>().expect("a number");
        (number(read), number(deleted))
    };
    let (before, _) = read().await;
    let mut transaction = site
        .open_transaction("SET LOCAL enable_seqscan = off")
        .await;
    let alice = site.store.user("alice");
    let ended = alice.destroy_all_in(&mut transaction);
    assert_eq!(ended.await.expect("an end"), SESSIONS.unsigned_abs());
    transaction.commit().await.expect("a commit");
    crate::support::page::until(async || read().await.1 >= SESSIONS).await;
    let (after, _) = read().await;
    assert!(after - before <= times * SESSIONS, "{}", after - before);
}

/// Also where the session gets a new id, or a request of it saves, while the
/// transaction is open.
#[tokio::test]
async fn requests_in_flight_bring_no_session_back_that_ends_in_a_transaction() {
    for page in ["/cycle", "/insert/a/1", "/keys"] {
        let site = with_accounts().await;
        let mut browser = site.signed_in("alice").await;
        let mut transaction = site.pool.begin().await.expect("a transaction");
        let alice = site.store.user("alice");
        let ended = alice.destroy_all_in(&mut transaction);
        assert_eq!(ended.await.expect("an end"), 1);
        let app = crate::support::app(axum_pg_session::PgSessionLayer::new(
            site.store.clone().timeout(PATIENCE),
        ));
        let visitor = browser.at(&app);
        let visit = tokio::spawn(async move { visitor.peek(page).await });
        if page != "/keys" {
            site.blocked(1).await;
        }
        transaction.commit().await.expect("a commit");
        let response = patiently(visit).await.expect("no panic");
        browser.accept(&response);
        assert!(!is_signed_in(&browser).await, "{page}");
        assert_eq!(site.rows().count().await, 0, "{page}");
    }
}

#[tokio::test]
async fn a_handle_of_another_user_ends_nothing_in_a_transaction() {
    let site = with_accounts().await;
    let (alice, bob) = (site.signed_in("alice").await, site.signed_in("bob").await);
    let mut transaction = site.pool.begin().await.expect("a transaction");
    let refused = site
        .store
        .user("bob")
        .destroy_others_in(&mut transaction, &alice.handle().await)
        .await
        .expect_err("another user's");
    assert_eq!(refused.kind(), ErrorKind::Ended);
    transaction.commit().await.expect("a commit");
    assert!(is_signed_in(&alice).await && is_signed_in(&bob).await);
}

/// As with a driver of its own, or a pool that the store does not know.
#[tokio::test]
async fn a_transaction_of_another_connection_serves_too() {
    let site = with_accounts().await;
    let browser = site.signed_in("alice").await;
    let mut connection = PgConnection::connect(site.database.url())
        .await
        .expect("a connection");
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let mut transaction = connection.begin().await.expect("a transaction");
        let sql = format!("SET TRANSACTION ISOLATION LEVEL {level}");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut *transaction)
            .await
            .expect("a level");
        let alice = site.store.user("alice");
        let ended = alice.destroy_all_in(&mut transaction);
        assert_eq!(ended.await.expect("an end"), 1, "{level}");
        transaction.rollback().await.expect("a rollback");
        assert!(is_signed_in(&browser).await, "{level}");
    }
}

/// The application's connection may be a pooler's, which does not keep what was
/// prepared.
#[tokio::test]
async fn nothing_is_prepared_on_the_connection_of_the_application() {
    let site = Site::new().await;
    let this = site.signed_in("alice").await;
    let this = this.handle().await;
    let mut connection = PgConnection::connect(site.database.url())
        .await
        .expect("a connection");
    let alice = site.store.user("alice");
    let mut transaction = connection.begin().await.expect("a transaction");
    let ended = alice.destroy_others_in(&mut transaction, &this).await;
    assert_eq!(ended.expect("an end"), 0);
    let ended = alice.destroy_all_in(&mut transaction).await;
    assert_eq!(ended.expect("an end"), 1);
    let prepared: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_prepared_statements")
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await
        .expect("a count");
    assert_eq!(prepared, 0);
}

#[tokio::test]
async fn a_changed_table_fails_one_transaction_of_the_application() {
    let site = Site::new().await;
    site.signed_in("alice").await;
    let alice = site.store.user("alice");
    execute(&site.pool, "ALTER TABLE session DROP COLUMN created").await;
    let mut transaction = site.pool.begin().await.expect("a transaction");
    let outcome = alice.destroy_all_in(&mut transaction).await;
    outcome.expect_err("the column is gone");
    drop(transaction);
    let mut transaction = site.pool.begin().await.expect("a transaction");
    let outcome = alice.destroy_all_in(&mut transaction).await;
    assert_eq!(outcome.expect("an end"), 1);
}

/// The store's own role sees every row, and the application's doesn't.
#[tokio::test]
async fn row_level_security_of_the_role_of_the_transaction_is_an_error() {
    let site = Site::new().await;
    let this = site.signed_in("alice").await;
    site.signed_in("alice").await;
    execute(&site.pool, "ALTER TABLE session ENABLE ROW LEVEL SECURITY").await;
    site.store.check().await.expect("it applies to others only");
    let role = Role::new(&site.pool).await;
    role.grant("SELECT, INSERT, UPDATE, DELETE ON session")
        .await;
    let alice = site.store.user("alice");
    let this = this.handle().await;
    for others_only in [false, true] {
        let mut transaction = site.pool.begin().await.expect("a transaction");
        sqlx::query(sqlx::AssertSqlSafe(format!("SET LOCAL ROLE {}", role.name)))
            .execute(&mut *transaction)
            .await
            .expect("a role");
        let ended = match others_only {
            true => alice.destroy_others_in(&mut transaction, &this).await,
            false => alice.destroy_all_in(&mut transaction).await,
        };
        let error = ended.expect_err("no row can be seen");
        assert_eq!(error.kind(), ErrorKind::Setup, "{error}");
        assert!(error.to_string().contains("row level security"), "{error}");
        transaction.rollback().await.expect("a rollback");
    }
    assert_eq!(alice.count().await.expect("a count"), 2);
    role.drop().await;
}
