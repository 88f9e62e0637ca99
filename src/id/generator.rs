//! The system's random number generator. Tests can make it fail.

use getrandom::Error;

/// # Errors
///
/// Those of the system. There is no weaker fallback (CVE-2026-41838).
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    if is_down() {
        return Err(Error::UNEXPECTED);
    }
    getrandom::fill(bytes)
}

#[cfg(not(test))]
const fn is_down() -> bool {
    false
}

#[cfg(test)]
use tests::is_down;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use axum::{Router, body::Body, routing::get};
    use http::{Request, StatusCode, header};
    use tower::ServiceExt as _;

    use crate::{Koa, PgSessionLayer, PgSessionStore, Session};

    thread_local! {
        static IS_DOWN: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn is_down() -> bool {
        IS_DOWN.get()
    }

    /// The status of a page, and the cookies that it sets, for the next one.
    async fn visit(app: &Router, path: &str, cookies: &str) -> (StatusCode, String) {
        let request = Request::get(path)
            .header(header::COOKIE, cookies)
            .body(Body::empty())
            .expect("a request");
        let response = app.clone().oneshot(request).await.expect("a response");
        let cookies = response.headers().get_all(header::SET_COOKIE).iter();
        let pairs: Vec<_> = cookies
            .map(|cookie| cookie.to_str().expect("ASCII"))
            .filter_map(|cookie| cookie.split(';').next())
            .collect();
        (response.status(), pairs.join("; "))
    }

    fn pages(store: PgSessionStore) -> Router {
        Router::new()
            .route(
                "/insert",
                get(async |session: Session| session.insert("a", 1)),
            )
            .route("/cycle", get(async |session: Session| session.cycle_id()))
            .route("/login", get(async |session: Session| session.login("ann")))
            .layer(PgSessionLayer::new(store))
    }

    async fn fails_without_random_bits(store: PgSessionStore) {
        store.migrate().await.expect("a table");
        let app = pages(store);
        IS_DOWN.set(true);
        for path in ["/insert", "/login"] {
            let (status, cookies) = visit(&app, path, "").await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert_eq!(cookies, "", "{path}");
        }
        IS_DOWN.set(false);
        let (status, session) = visit(&app, "/insert", "").await;
        assert_eq!(status, StatusCode::OK);
        IS_DOWN.set(true);
        for path in ["/cycle", "/login"] {
            let (status, cookies) = visit(&app, path, &session).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert_eq!(cookies, "", "{path}");
        }
        IS_DOWN.set(false);
        let (status, cookies) = visit(&app, "/cycle", &session).await;
        assert_eq!(status, StatusCode::OK, "the old token still opens it");
        assert_ne!(cookies, "");
    }

    /// Never a token that could be guessed, and never one that is half done.
    #[tokio::test]
    async fn a_failing_generator_is_an_error() {
        for koa in [None, Some(Koa::new(["key"]))] {
            let database = dev_postgres::test_database().await.expect("a database");
            let pool = sqlx::PgPool::connect(database.url()).await;
            let store = PgSessionStore::new(pool.expect("a connection"));
            let store = match koa {
                Some(koa) => store.koa(koa),
                None => store,
            };
            fails_without_random_bits(store).await;
        }
    }
}
