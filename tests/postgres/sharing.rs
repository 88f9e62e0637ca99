//! What concurrent requests share: statements, and a part of the application's pool.

use std::num::NonZeroU32;

use axum::Router;
use axum_pg_session::{PgSessionLayer, PgSessionStore};
use sqlx::PgPool;
use tokio::{task::JoinSet, time::timeout};

use crate::support::{
    Browser, Site, app,
    page::{patiently, until},
    proxy::Proxy,
    site::pool,
};

/// A site whose pool is small.
struct Shared {
    site: Site,
    proxy: Proxy,
    pool: PgPool,
    app: Router,
}

impl Shared {
    async fn new(limit: Option<u32>) -> Self {
        let site = Site::new().await;
        let proxy = Proxy::before(site.database.url()).await;
        let pool = proxy.pool().await;
        let mut store = PgSessionStore::new(pool.clone());
        if let Some(limit) = limit.and_then(NonZeroU32::new) {
            store = store.max_connections(limit);
        }
        store.check().await.expect("a table");
        Self {
            app: app(PgSessionLayer::new(store)),
            site,
            proxy,
            pool,
        }
    }

    /// Browsers with a session each, which holds its own number.
    async fn visitors(&self, count: usize) -> Vec<Browser> {
        let mut visitors = Vec::new();
        for at in 0..count {
            let mut browser = Browser::new(&self.app);
            browser.get(&format!("/insert/a/{at}")).await;
            visitors.push(browser);
        }
        self.proxy.take_texts();
        visitors
    }

    fn sent(&self, beginning: &str) -> usize {
        let texts = self.proxy.take_texts();
        let found = texts.iter().filter(|text| text.starts_with(beginning));
        found.count()
    }
}

/// What each of the visitors reads at the same moment.
async fn at_once(visitors: &[Browser], path: &'static str) -> Vec<String> {
    let mut visits = JoinSet::new();
    for (at, visitor) in visitors.iter().enumerate() {
        let visitor = visitor.clone();
        visits.spawn(async move { (at, visitor.peek(path).await) });
    }
    let mut responses = visits.join_all().await;
    responses.sort_by_key(|(at, _)| *at);
    responses
        .into_iter()
        .map(|(_, response)| {
            assert_eq!(response.status, 200, "{}", response.body);
            response.body
        })
        .collect()
}

#[tokio::test]
async fn loads_that_wait_share_a_statement_and_each_gets_its_own_row() {
    let shared = Shared::new(None).await;
    let visitors = shared.visitors(64).await;
    let responses = at_once(&visitors, "/get/a").await;
    let expected: Vec<_> = (0..64).map(|at| format!("\"{at}\"")).collect();
    assert_eq!(responses, expected);
    let statements = shared.sent("SELECT");
    assert!(statements <= 16, "{statements} statements for 64 requests");
}

#[tokio::test]
async fn saves_that_wait_share_a_statement() {
    let shared = Shared::new(None).await;
    let visitors = shared.visitors(64).await;
    let responses = at_once(&visitors, "/increment/n").await;
    assert!(responses.iter().all(|response| response == "1"));
    let statements = shared.sent("UPDATE");
    assert!(statements <= 24, "{statements} statements for 64 requests");
    assert!(
        at_once(&visitors, "/get/n")
            .await
            .iter()
            .all(|response| response == "1")
    );
}

#[tokio::test]
async fn new_sessions_share_a_statement() {
    let shared = Shared::new(None).await;
    let strangers: Vec<_> = (0..64).map(|_| Browser::new(&shared.app)).collect();
    at_once(&strangers, "/insert/a/1").await;
    let statements = shared.sent("INSERT");
    assert!(statements <= 24, "{statements} statements for 64 sessions");
    assert_eq!(shared.site.rows().count().await, 64);
}

#[tokio::test]
async fn requests_with_one_cookie_share_a_response() {
    let shared = Shared::new(None).await;
    let visitor = shared.visitors(1).await.remove(0);
    let same = vec![visitor; 64];
    let responses = at_once(&same, "/get/a").await;
    assert!(responses.iter().all(|response| response == "\"0\""));
    let statements = shared.sent("SELECT");
    assert!(statements <= 16, "{statements} statements for 64 requests");
}

/// The first statement waits for the table, and the others for it.
#[tokio::test]
async fn requests_that_give_up_while_they_wait_harm_no_others() {
    let shared = Shared::new(None).await;
    let visitors = shared.visitors(32).await;
    let lock = shared.site.open_transaction("LOCK TABLE session").await;
    let mut visits: Vec<_> = visitors
        .iter()
        .cloned()
        .map(|visitor| tokio::spawn(async move { visitor.peek("/increment/n").await.body }))
        .collect();
    until(async || shared.site.is_blocked().await).await;
    for visit in visits.iter().step_by(2) {
        visit.abort();
    }
    lock.rollback().await.expect("a rollback");
    for (at, visit) in visits.drain(..).enumerate() {
        let response = visit.await;
        assert!(
            at % 2 == 0 || response.is_ok_and(|body| body == "1"),
            "{at}"
        );
    }
}

/// One of the rows of a statement breaks a rule of the table.
#[tokio::test]
async fn a_row_that_a_constraint_refuses_fails_alone() {
    let shared = Shared::new(None).await;
    let rule = "alter table TABLE add check (session::text NOT LIKE '%forbidden%')";
    shared.site.rows().execute(rule).await;
    let visitors = shared.visitors(16).await;
    let mut visits = JoinSet::new();
    for (at, visitor) in visitors.iter().cloned().enumerate() {
        let page = match at {
            7 => "/insert/b/forbidden",
            _ => "/insert/b/allowed",
        };
        visits.spawn(async move { (at, visitor.peek(page).await.status) });
    }
    for (at, status) in visits.join_all().await {
        assert_eq!(status.is_success(), at != 7, "{at}: {status}");
    }
    for (at, visitor) in visitors.iter().enumerate() {
        let expected = if at == 7 { "none" } else { "\"allowed\"" };
        assert_eq!(visitor.peek("/get/b").await.body, expected);
    }
}

#[tokio::test]
async fn sessions_leave_the_application_its_part_of_the_pool() {
    let shared = Shared::new(Some(2)).await;
    let visitors = shared.visitors(3).await;
    let lock = shared.site.lock_rows().await;
    let mut visits = JoinSet::new();
    for (visitor, page) in visitors
        .iter()
        .cloned()
        .zip(["/cycle", "/destroy", "/increment/n"])
    {
        visits.spawn(async move { visitor.peek(page).await.status });
    }
    shared.site.blocked(2).await;
    let own = patiently(sqlx::query("SELECT").execute(&shared.pool)).await;
    assert!(own.is_ok());
    shared.site.blocked(2).await;
    lock.rollback().await.expect("a rollback");
    let responses = visits.join_all().await;
    assert!(
        responses.iter().all(http::StatusCode::is_success),
        "{responses:?}"
    );
}

#[tokio::test]
async fn three_quarters_of_the_pool_are_the_default() {
    let site = Site::new().await;
    for (of_pool, expected) in [(1, 1), (2, 2), (3, 3), (4, 3), (10, 8), (20, 15)] {
        let pool = pool(site.database.url(), of_pool).await;
        let store = PgSessionStore::new(pool);
        assert_eq!(store.connections().get(), expected, "of {of_pool}");
        let all = store.max_connections(NonZeroU32::MAX);
        assert_eq!(all.connections().get(), of_pool);
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request_and_then_given_back() {
    let shared = Shared::new(None).await;
    let visitor = shared.visitors(1).await.remove(0);
    // On a busy machine the moment may be over when the response is here.
    until(async || {
        visitor.peek("/get/a").await;
        shared.pool.num_idle() + 1 == shared.pool.size() as usize
    })
    .await;
    until(async || shared.pool.num_idle() == shared.pool.size() as usize).await;
    assert_eq!(visitor.peek("/get/a").await.body, "\"0\"");
}

#[tokio::test]
async fn no_connection_is_kept_if_sessions_may_use_the_whole_pool() {
    let shared = Shared::new(Some(u32::MAX)).await;
    let visitor = shared.visitors(1).await.remove(0);
    visitor.peek("/get/a").await;
    let connection = timeout(std::time::Duration::from_millis(200), shared.pool.acquire());
    assert!(connection.await.is_ok());
}

#[tokio::test]
async fn a_pool_that_is_closed_gets_its_connections_at_once() {
    let shared = Shared::new(None).await;
    let visitor = shared.visitors(1).await.remove(0);
    visitor.peek("/get/a").await;
    patiently(shared.pool.close()).await;
    assert_eq!(shared.pool.size(), 0);
    assert_eq!(visitor.peek("/get/a").await.status, 503);
}

/// As every connection is after the database was restarted.
#[tokio::test]
async fn a_connection_that_died_while_it_was_kept_fails_no_request() {
    let site = Site::new().await;
    let app = site.app();
    let mut visitors = vec![Browser::new(&app); 4];
    for visitor in &mut visitors {
        visitor.get("/insert/a/1").await;
    }
    let apart = pool(site.database.url(), 1).await;
    for round in 1..=3 {
        at_once(&visitors, "/get/a").await;
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        sqlx::query(terminate)
            .execute(&apart)
            .await
            .expect("a superuser");
        let responses = at_once(&visitors, "/increment/n").await;
        assert!(
            responses
                .iter()
                .all(|response| *response == round.to_string())
        );
    }
}

/// Postgres plans a statement anew for each execution as long as that looks
/// cheaper than a plan for all.
#[tokio::test]
async fn a_statement_for_a_few_rows_is_planned_for_good() {
    let site = Site::new().await;
    let one = pool(site.database.url(), 1).await;
    let app = app(PgSessionLayer::new(PgSessionStore::new(one.clone())));
    let mut visitors = Vec::new();
    for _ in 0..3 {
        let visitor = Browser::with_session(&app).await;
        visitors.push(visitor);
    }
    site.rows().execute("ANALYZE TABLE").await;
    for _ in 0..20 {
        at_once(&visitors, "/increment/n").await;
    }
    let plans: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements
         WHERE statement LIKE '%ANY(%' AND generic_plans + custom_plans > 6",
    )
    .fetch_all(&one)
    .await
    .expect("prepared statements");
    assert!(!plans.is_empty());
    for (statement, for_good, anew) in plans {
        assert!(anew <= 5 && for_good > 0, "{anew} plans for {statement}");
    }
}
