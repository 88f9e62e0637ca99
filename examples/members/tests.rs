//! The site as its visitors see it, on a Postgres of each test's own.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderName, HeaderValue, Request, StatusCode, header},
    response::Response,
};
use axum_pg_session::{Session, sqlx::PgPool, testing::TestVisitor};
use dev_postgres::TestDatabase;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::frame::coding::CloseCode},
};

use super::*;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

struct Site {
    app: App,
    router: Router,
    end: watch::Sender<bool>,
    _database: TestDatabase,
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Site {
    async fn open() -> Outcome<Self> {
        let database = dev_postgres::test_database().await?;
        let store = PgSessionStore::connect(database.url()).await?;
        store.migrate().await?;
        let (end, ending) = watch::channel(false);
        let app = App {
            sessions: sessions(store.clone()),
            store,
            accounts: Arc::new(Accounts::with(&[("ada", "correct horse")])?),
            count_every: Duration::from_millis(50),
            ending,
        };
        let router = router(app.clone());
        Ok(Self {
            app,
            router,
            end,
            _database: database,
        })
    }

    fn visitor(&self) -> TestVisitor {
        let same_origin = HeaderValue::from_static("same-origin");
        TestVisitor::new(&self.app.sessions).header(SEC_FETCH_SITE, same_origin)
    }

    async fn member(&self) -> Outcome<TestVisitor> {
        let visitor = self.visitor();
        visitor.with_session(|session| session.login("ada")).await?;
        Ok(visitor)
    }

    async fn get(&self, visitor: &TestVisitor, path: &str) -> Outcome<Response> {
        let request = Request::get(path).body(Body::empty())?;
        Ok(visitor.send(&self.router, request).await?)
    }

    async fn post(&self, visitor: &TestVisitor, path: &str, form: String) -> Outcome<Response> {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form))?;
        Ok(visitor.send(&self.router, request).await?)
    }

    /// On a port, for clients that stay connected.
    async fn serve(&self) -> Outcome<(String, JoinHandle<std::io::Result<()>>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let mut ending = self.app.ending.clone();
        let serving = axum::serve(listener, self.router.clone())
            .with_graceful_shutdown(async move { drop(ending.wait_for(|ends| *ends).await) });
        Ok((address, tokio::spawn(serving.into_future())))
    }
}

async fn text(response: Response) -> Outcome<String> {
    let body = to_bytes(response.into_body(), 64 * 1024).await?;
    Ok(String::from_utf8(body.to_vec())?)
}

fn location(response: &Response) -> &str {
    let location = response.headers().get(header::LOCATION);
    location
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

async fn user(visitor: &TestVisitor) -> Outcome<Option<String>> {
    Ok(visitor.session().await?.user_id())
}

#[tokio::test]
async fn a_password_signs_in_and_can_sign_out_everywhere_else() -> Outcome {
    let site = Site::open().await?;
    let (desk, phone) = (site.member().await?, site.visitor());
    let wrong = "name=ada&password=wrong".to_owned();
    assert_eq!(
        location(&site.post(&phone, "/sign-in", wrong).await?),
        "/sign-in"
    );
    assert!(
        text(site.get(&phone, "/sign-in").await?)
            .await?
            .contains("Wrong name")
    );
    assert!(
        !text(site.get(&phone, "/sign-in").await?)
            .await?
            .contains("Wrong name")
    );
    assert_eq!(user(&desk).await?.as_deref(), Some("ada"));

    let right = "name=ada&password=correct+horse&alone=true".to_owned();
    assert_eq!(
        location(&site.post(&phone, "/sign-in", right).await?),
        "/members/devices"
    );
    assert_eq!(user(&phone).await?.as_deref(), Some("ada"));
    assert_eq!(user(&desk).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_provider_signs_in_the_visitor_who_began_it_once() -> Outcome {
    let site = Site::open().await?;
    let visitor = site.visitor();
    let started = site.get(&visitor, "/oauth/start").await?;
    let (_, state) = location(&started).split_once("state=").ok_or("no state")?;
    let callback = format!("/oauth/callback?code=code-of-ada&state={state}");

    // A link that an attacker sent, with a state of their own.
    let victim = site.visitor();
    assert_eq!(
        site.get(&victim, &callback).await?.status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(user(&victim).await?, None);

    // The provider's page sends the browser back.
    let visitor = visitor.header(SEC_FETCH_SITE, HeaderValue::from_static("cross-site"));
    assert_eq!(
        location(&site.get(&visitor, &callback).await?),
        "/members/devices"
    );
    assert_eq!(user(&visitor).await?.as_deref(), Some("ada"));
    assert_eq!(
        site.get(&visitor, &callback).await?.status(),
        StatusCode::BAD_REQUEST
    );
    Ok(())
}

#[tokio::test]
async fn only_members_see_their_devices_and_end_them() -> Outcome {
    let site = Site::open().await?;
    let stranger = site.visitor();
    let refused = site.get(&stranger, "/members/devices").await?;
    assert_eq!(location(&refused), "/sign-in?members-only=true");
    // A robot that tries every link begins no session.
    assert!(!refused.headers().contains_key(header::SET_COOKIE));
    let page = text(site.get(&stranger, location(&refused)).await?).await?;
    assert!(page.contains("Please sign in"));

    let (desk, phone, bob) = (site.member().await?, site.member().await?, site.visitor());
    bob.with_session(|session| session.login("bob")).await?;
    let page = text(site.get(&desk, "/members/devices").await?).await?;
    assert_eq!(page.matches("<li>").count(), 2);
    for ended in [&bob, &phone] {
        let id = ended.session().await?.id().ok_or("not stored")?;
        site.post(&desk, "/members/devices", format!("id={id}"))
            .await?;
    }
    assert_eq!(user(&phone).await?, None);
    assert_eq!(user(&bob).await?.as_deref(), Some("bob"));

    let tablet = site.member().await?;
    site.post(&desk, "/members/devices/others", String::new())
        .await?;
    assert_eq!(user(&tablet).await?, None);
    assert!(
        text(site.get(&desk, "/").await?)
            .await?
            .contains("1 other devices")
    );
    Ok(())
}

#[tokio::test]
async fn another_site_posts_nothing_here() -> Outcome {
    let site = Site::open().await?;
    let member = TestVisitor::new(&site.app.sessions);
    member.with_session(|session| session.login("ada")).await?;
    for name in ["sec-fetch-site", "origin"] {
        let request = Request::post("/sign-out")
            .header(header::HOST, "members.example.com")
            .header(name, "https://elsewhere.example.com")
            .body(Body::empty())?;
        let response = member.send(&site.router, request).await?;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(user(&member).await?.as_deref(), Some("ada"));
    Ok(())
}

#[tokio::test]
async fn a_session_that_is_not_loaded_or_saved_is_a_page_of_the_site() -> Outcome {
    let site = Site::open().await?;
    let (member, stranger) = (site.member().await?, site.visitor());
    // Nothing listens there.
    let pool = PgPool::connect_lazy("postgres://127.0.0.1:1/none")?;
    let store = PgSessionStore::new(pool).timeout(Duration::from_millis(200));
    let down = router(App {
        sessions: sessions(store.clone()),
        store,
        ..site.app.clone()
    });

    for (visitor, path) in [(member, "/members/devices"), (stranger, "/oauth/start")] {
        let request = Request::get(path).body(Body::empty())?;
        let response = visitor.send(&down, request).await?;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(
            response.headers().contains_key(header::RETRY_AFTER),
            "{path}"
        );
        assert!(
            text(response).await?.contains("closed for a moment"),
            "{path}"
        );
    }
    Ok(())
}

async fn connect(member: &TestVisitor, address: &str) -> Outcome<WebSocketStream<TcpStream>> {
    let mut request = format!("ws://{address}/members/talk").into_client_request()?;
    request.headers_mut().extend(member.headers("/"));
    let stream = TcpStream::connect(address).await?;
    Ok(client_async(request, stream).await?.0)
}

async fn close_code(socket: &mut WebSocketStream<TcpStream>) -> Outcome<CloseCode> {
    while let Some(message) = socket.next().await {
        if let Message::Close(Some(frame)) = message? {
            return Ok(frame.code);
        }
    }
    Err("it was cut off".into())
}

#[tokio::test]
async fn a_socket_lives_as_long_as_its_session() -> Outcome {
    let site = Site::open().await?;
    let (address, _serving) = site.serve().await?;
    let member = site.member().await?;
    let mut socket = connect(&member, &address).await?;

    // A new id is no end.
    member.with_session(Session::cycle_id).await?;
    socket.send(Message::text("hello")).await?;
    assert_eq!(
        socket.next().await.ok_or("closed")??,
        Message::text("hello")
    );

    member.with_session(Session::logout).await?;
    assert_eq!(close_code(&mut socket).await?, CloseCode::Policy);
    Ok(())
}

#[tokio::test]
async fn sockets_and_streams_end_with_the_process() -> Outcome {
    let site = Site::open().await?;
    let (address, serving) = site.serve().await?;
    let member = site.member().await?;
    let mut socket = connect(&member, &address).await?;
    let events = site.get(&member, "/members/events").await?;

    site.end.send_replace(true);
    assert_eq!(close_code(&mut socket).await?, CloseCode::Away);
    drop(to_bytes(events.into_body(), 64 * 1024).await?);
    serving.await??;
    Ok(())
}

#[tokio::test]
async fn events_count_the_devices_until_the_user_signs_out() -> Outcome {
    let site = Site::open().await?;
    let member = site.member().await?;
    let events = site.get(&member, "/members/events").await?;
    let mut events = events.into_body().into_data_stream();
    let first = events.next().await.ok_or("no event")??;
    assert_eq!(first, "data: 1\n\n");
    member.with_session(Session::logout).await?;
    while events.next().await.transpose()?.is_some() {}
    Ok(())
}
