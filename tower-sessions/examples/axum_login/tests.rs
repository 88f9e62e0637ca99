//! The site as its visitors see it, on a Postgres of each test's own.

use axum::{body::Body, http::Request};
use dev_postgres::TestDatabase;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

struct Site {
    router: Router,
    store: PgSessionStore,
    _database: TestDatabase,
}

/// A browser with the cookie of one session.
#[derive(Default)]
struct Visitor {
    cookie: Option<String>,
}

struct Page {
    status: StatusCode,
    location: Option<String>,
    text: String,
}

impl Site {
    async fn open() -> Outcome<Self> {
        let database = dev_postgres::test_database().await?;
        let store = PgSessionStore::connect(database.url()).await?;
        store.migrate().await?;
        let users = Users::with(&[("ada", "hunter42", &["admin"]), ("ferris", "hunter42", &[])])?;
        Ok(Self {
            router: router(sessions(store.clone()), users),
            store,
            _database: database,
        })
    }

    async fn signed_in(&self, name: &str) -> Outcome<Visitor> {
        let mut visitor = Visitor::default();
        let page = visitor.login(self, name, "hunter42").await?;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        Ok(visitor)
    }

    /// How many sessions a user has: ada is 1, ferris 2.
    async fn count(&self, user: &str) -> Outcome<u64> {
        Ok(self.store.user(user).count().await?)
    }
}

impl Visitor {
    async fn get(&mut self, site: &Site, path: &str) -> Outcome<Page> {
        self.send(site, Request::get(path), String::new()).await
    }

    async fn post(&mut self, site: &Site, path: &str, form: String) -> Outcome<Page> {
        let form_type = "application/x-www-form-urlencoded";
        self.send(
            site,
            Request::post(path).header("content-type", form_type),
            form,
        )
        .await
    }

    async fn login(&mut self, site: &Site, name: &str, password: &str) -> Outcome<Page> {
        let form = format!("name={name}&password={password}");
        self.post(site, "/login", form).await
    }

    async fn send(
        &mut self,
        site: &Site,
        request: http::request::Builder,
        body: String,
    ) -> Outcome<Page> {
        let request = match &self.cookie {
            Some(cookie) => request.header(COOKIE, cookie),
            None => request,
        };
        let response = site
            .router
            .clone()
            .oneshot(request.body(Body::from(body))?)
            .await?;
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(value.to_str().expect("ASCII").to_owned())
        };
        if let Some(line) = header(SET_COOKIE) {
            let pair = line.split(';').next().map(str::to_owned);
            self.cookie = pair.filter(|_| !line.contains("Max-Age=0"));
        }
        Ok(Page {
            status: response.status(),
            location: header(LOCATION),
            text: String::from_utf8(response.into_body().collect().await?.to_bytes().into())?,
        })
    }
}

#[tokio::test]
async fn a_visitor_is_sent_to_the_login_and_gets_no_cookie() -> Outcome {
    let site = Site::open().await?;
    let mut visitor = Visitor::default();
    let page = visitor.get(&site, "/sessions").await?;
    assert_eq!(page.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(page.location.as_deref(), Some("/login?next=%2Fsessions"));
    let page = visitor.login(&site, "ferris", "bogus").await?;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert_eq!(visitor.cookie, None);
    Ok(())
}

#[tokio::test]
async fn a_member_signs_in_and_out() -> Outcome {
    let site = Site::open().await?;
    let mut ferris = site.signed_in("ferris").await?;
    assert!(ferris.get(&site, "/").await?.text.contains("Hello, ferris"));
    assert_eq!(site.count("2").await?, 1);

    let old = ferris.cookie.clone();
    assert_eq!(
        ferris.post(&site, "/logout", String::new()).await?.status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(ferris.cookie, None);
    assert_eq!(site.count("2").await?, 0);
    // The cookie that a thief has kept opens nothing.
    let mut thief = Visitor { cookie: old };
    assert_eq!(
        thief.get(&site, "/").await?.status,
        StatusCode::TEMPORARY_REDIRECT
    );
    Ok(())
}

#[tokio::test]
async fn permissions_guard_their_routes() -> Outcome {
    let site = Site::open().await?;
    for (name, status) in [("ferris", StatusCode::FORBIDDEN), ("ada", StatusCode::OK)] {
        let mut member = site.signed_in(name).await?;
        assert_eq!(member.get(&site, "/admin").await?.status, status, "{name}");
    }
    assert_eq!(
        Visitor::default().get(&site, "/admin").await?.status,
        StatusCode::FORBIDDEN
    );
    Ok(())
}

#[tokio::test]
async fn a_login_leads_back_within_the_site_only() -> Outcome {
    let site = Site::open().await?;
    for (next, leads_to) in [
        ("%2Fsessions", "/sessions"),
        ("%2F%2Fevil.example", "/"),
        ("https%3A%2F%2Fevil.example", "/"),
    ] {
        let form = format!("name=ada&password=hunter42&next={next}");
        let page = Visitor::default().post(&site, "/login", form).await?;
        assert_eq!(page.location.as_deref(), Some(leads_to));
    }
    Ok(())
}

#[tokio::test]
async fn a_member_ends_the_other_sessions() -> Outcome {
    let site = Site::open().await?;
    let (mut desk, mut phone) = (site.signed_in("ada").await?, site.signed_in("ada").await?);
    let mut ferris = site.signed_in("ferris").await?;
    let list = desk.get(&site, "/sessions").await?.text;
    assert_eq!(
        (
            list.matches("this one").count(),
            list.matches("another one").count()
        ),
        (1, 1)
    );

    desk.post(&site, "/sessions/others", String::new()).await?;
    assert_eq!(desk.get(&site, "/").await?.status, StatusCode::OK);
    assert_eq!(
        phone.get(&site, "/").await?.status,
        StatusCode::TEMPORARY_REDIRECT
    );
    assert_eq!(ferris.get(&site, "/").await?.status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn the_fourth_login_ends_the_first_session() -> Outcome {
    let site = Site::open().await?;
    let mut first = site.signed_in("ada").await?;
    let mut second = site.signed_in("ada").await?;
    for _ in 0..2 {
        site.signed_in("ada").await?;
    }
    assert_eq!(site.count("1").await?, 3);
    assert_eq!(
        first.get(&site, "/").await?.status,
        StatusCode::TEMPORARY_REDIRECT
    );
    assert_eq!(second.get(&site, "/").await?.status, StatusCode::OK);
    Ok(())
}
