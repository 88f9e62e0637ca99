//! A visitor of a server with tower-sessions and axum-login comes back to a server with
//! axum-pg-session on the same database.

use std::{collections::HashMap, convert::Infallible};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::Path,
    response::Response,
    routing::{get, post},
};
use axum_login::{AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend, UserId};
use axum_pg_session::{PgSessionLayer, PgSessionStore, Session, Takeover};
use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use tower_sessions::{
    Expiry, SessionManagerLayer,
    cookie::{Cookie, Key},
    service::CookieController,
};
use tower_sessions_sqlx_store::{PostgresStore, sqlx};

/// A database, and both servers on it.
struct Move {
    database: dev_postgres::TestDatabase,
    theirs: sqlx::PgPool,
    ours: PgSessionStore,
}

impl Move {
    async fn new() -> Self {
        let database = dev_postgres::test_database().await.expect("a database");
        let theirs = sqlx::PgPool::connect(database.url()).await;
        let theirs = theirs.expect("a connection");
        let store = PostgresStore::new(theirs.clone());
        store.migrate().await.expect("their table");
        let ours = PgSessionStore::connect(database.url()).await;
        let ours = ours.expect("a connection");
        ours.migrate().await.expect("our table");
        Self {
            database,
            theirs,
            ours,
        }
    }

    fn layer(&self) -> SessionManagerLayer<PostgresStore> {
        SessionManagerLayer::new(PostgresStore::new(self.theirs.clone()))
    }

    /// Our server.
    fn server(&self, takeover: Takeover) -> Router {
        self.server_with(PgSessionLayer::new(self.ours.clone()).takeover(takeover))
    }

    fn server_with(&self, layer: PgSessionLayer) -> Router {
        Router::new()
            .route("/", get(all))
            .route(
                "/user",
                get(async |session: Session| session.user_id().unwrap_or_default()),
            )
            .route("/logout", post(async |session: Session| session.logout()))
            .route("/insert/{key}", post(insert))
            .layer(layer)
    }

    async fn rows(&self) -> i64 {
        let sql = "SELECT count(*) FROM tower_sessions.session";
        let count = sqlx::query_scalar(sql).fetch_one(&self.theirs).await;
        count.expect("a count")
    }

    /// Ends the minute in which the old cookie leads to the session.
    async fn end_forwarding(&self) {
        let sql = "DELETE FROM public.session WHERE strpos(session::text, '\"successor\"') > 0";
        let deleted = sqlx::query(sql).execute(&self.theirs).await;
        deleted.expect("rows");
    }
}

/// Everything that our session holds.
async fn all(session: Session) -> Json<HashMap<String, Value>> {
    let keys = session.keys().into_iter();
    let values = keys.map(|key| {
        let value: Option<Value> = session.get(&key).expect("a value");
        (key, value.unwrap_or_default())
    });
    Json(values.collect())
}

async fn insert(session: Session, Path(key): Path<String>) -> Result<(), axum_pg_session::Error> {
    session.insert(&key, true)
}

/// A page of their server that stores these values, and sets an expiry.
async fn store(
    session: tower_sessions::Session,
    Json((values, expiry)): Json<(HashMap<String, Value>, Option<i64>)>,
) {
    for (key, value) in values {
        session.insert(&key, value).await.expect("stored");
    }
    if let Some(expiry) = expiry {
        let instant = OffsetDateTime::from_unix_timestamp(expiry).expect("an instant");
        session.set_expiry(Some(Expiry::AtDateTime(instant)));
    }
}

/// A visitor: a cookie jar.
#[derive(Clone, Debug, Default)]
struct Visitor(HashMap<String, String>);

impl Visitor {
    async fn send(
        &mut self,
        app: &Router,
        request: http::request::Builder,
        body: Body,
    ) -> Response {
        let cookies = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        let cookies: Vec<_> = cookies.collect();
        let request = request.header(header::COOKIE, cookies.join("; "));
        let request = request.body(body).expect("a request");
        let response = app.clone().oneshot(request).await;
        let response = response.expect("a router never fails");
        for line in response.headers().get_all(header::SET_COOKIE) {
            let cookie = Cookie::parse(line.to_str().expect("ASCII")).expect("a cookie");
            match cookie.max_age().is_some_and(time::Duration::is_zero) {
                true => self.0.remove(cookie.name()),
                false => {
                    let (name, value) = cookie.name_value();
                    self.0.insert(name.to_owned(), value.to_owned())
                }
            };
        }
        response
    }

    async fn get(&mut self, app: &Router, path: &str) -> String {
        let response = self.send(app, Request::get(path), Body::empty()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let body = to_bytes(response.into_body(), usize::MAX).await;
        String::from_utf8(body.expect("a body").to_vec()).expect("text")
    }

    async fn post(&mut self, app: &Router, path: &str) {
        let response = self.send(app, Request::post(path), Body::empty()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }

    async fn all(&mut self, app: &Router) -> Value {
        serde_json::from_str(&self.get(app, "/").await).expect("JSON")
    }

    /// Stores these values at their server.
    async fn store(&mut self, app: &Router, values: &Value, expiry: Option<i64>) {
        let body = serde_json::to_vec(&(values, expiry)).expect("JSON");
        let request = Request::post("/store").header(header::CONTENT_TYPE, "application/json");
        let response = self.send(app, request, body.into()).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
}

/// One value of each kind.
fn values() -> Value {
    let long = "x".repeat(70_000);
    let many: HashMap<_, _> = (0..70_000).map(|n| (n.to_string(), n)).collect();
    json!({
        "null": null, "true": true, "false": false,
        "integers": [0, 127, 128, 255, 256, 65_535, 65_536, 4_294_967_295_u64, 4_294_967_296_u64, u64::MAX,
            -1, -32, -33, -128, -129, -32_768, -32_769, -2_147_483_648_i64, -2_147_483_649_i64, i64::MIN],
        "floats": [0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, f64::MAX, f64::MIN_POSITIVE, 1.7976931348623157e308],
        "text": ["", "ü", "日本", "🦀", "\u{0}\u{1f}\u{7f}\"\\/", &long[..31], &long[..32], &long[..255], &long[..256], &long[..65_536]],
        "": "an empty key", "ключ": "a key of several bytes",
        "empty": [{}, []],
        "nested": {"a": {"b": [{"c": [[[{"d": null}]]]}]}},
        "long": (0..70_000).collect::<Vec<_>>(), "wide": many,
        "fifteen": (0..15).collect::<Vec<_>>(), "sixteen": (0..16).collect::<Vec<_>>(),
    })
}

fn their_app(layer: SessionManagerLayer<PostgresStore, impl CookieController + Sync>) -> Router {
    Router::new().route("/store", post(store)).layer(layer)
}

async fn nothing_is_lost(app: &Router, moved: &Move, takeover: Takeover) {
    let mut visitor = Visitor::default();
    visitor.store(app, &values(), None).await;
    assert_eq!(moved.rows().await, 1);
    let old = visitor.clone();
    let ours = moved.server(takeover);
    assert_eq!(visitor.all(&ours).await, values());
    assert_eq!(moved.rows().await, 0);
    let names: Vec<_> = visitor.0.keys().collect();
    assert_eq!(names, ["__Host-id"]);
    assert_eq!(visitor.all(&ours).await, values());
    // Their server knows the old cookie no more, and after a minute ours doesn't.
    moved.end_forwarding().await;
    assert_eq!(old.clone().all(&ours).await, json!({}));
    assert_eq!(moved.rows().await, 0);
    visitor.post(&ours, "/logout").await;
    assert!(visitor.0.is_empty());
    assert_eq!(old.clone().all(&ours).await, json!({}));
}

#[tokio::test]
async fn nothing_is_lost_behind_a_plain_cookie() {
    let moved = Move::new().await;
    let app = their_app(moved.layer());
    nothing_is_lost(&app, &moved, Takeover::tower_sessions()).await;
}

#[tokio::test]
async fn nothing_is_lost_behind_a_signed_cookie() {
    for key in [Key::generate(), Key::derive_from(&[7; 32])] {
        let moved = Move::new().await;
        let app = their_app(moved.layer().with_signed(key.clone()));
        let takeover = Takeover::tower_sessions().signed(key.master());
        nothing_is_lost(&app, &moved, takeover).await;
    }
}

#[tokio::test]
async fn nothing_is_lost_behind_an_encrypted_cookie() {
    for key in [Key::generate(), Key::derive_from(&[7; 32])] {
        let moved = Move::new().await;
        let app = their_app(moved.layer().with_private(key.clone()).with_name("sid"));
        let takeover = Takeover::tower_sessions().cookie_name("sid");
        nothing_is_lost(&app, &moved, takeover.private(key.master())).await;
    }
}

#[tokio::test]
async fn a_session_with_its_own_expiry_keeps_it() {
    let moved = Move::new().await;
    let app = their_app(moved.layer());
    let in_an_hour = OffsetDateTime::now_utc().unix_timestamp() + 3600;
    let mut visitor = Visitor::default();
    visitor
        .store(&app, &json!({"a": 1}), Some(in_an_hour))
        .await;
    let ours = moved.server(Takeover::tower_sessions());
    for _ in 0..2 {
        assert_eq!(visitor.all(&ours).await, json!({"a": 1}));
        let sql = "SELECT extract(epoch FROM expiry)::float8 FROM public.session \
                   WHERE strpos(session::text, '\"successor\"') = 0";
        let expiry: f64 = sqlx::query_scalar(sql)
            .fetch_one(&moved.theirs)
            .await
            .expect("one row");
        assert!((expiry - in_an_hour as f64).abs() < 0.001, "{expiry}");
    }
}

#[tokio::test]
async fn a_session_that_has_expired_is_not_taken_over() {
    let moved = Move::new().await;
    let app = their_app(moved.layer());
    let mut visitor = Visitor::default();
    let a_minute_ago = OffsetDateTime::now_utc().unix_timestamp() - 60;
    visitor.store(&app, &json!({"a": 1}), None).await;
    let mut late = visitor.clone();
    visitor
        .store(&app, &json!({"a": 1}), Some(a_minute_ago))
        .await;
    let ours = moved.server(Takeover::tower_sessions());
    assert_eq!(late.all(&ours).await, json!({}));
    assert_eq!(moved.rows().await, 1);
}

#[tokio::test]
async fn requests_at_once_lose_no_change() {
    let moved = Move::new().await;
    let app = their_app(moved.layer());
    let mut visitor = Visitor::default();
    visitor.store(&app, &json!({"a": 1}), None).await;
    let ours = moved.server(Takeover::tower_sessions());
    let mut visits = JoinSet::new();
    for n in 0..20 {
        let (mut visitor, ours) = (visitor.clone(), ours.clone());
        visits.spawn(async move {
            visitor.post(&ours, &format!("/insert/{n}")).await;
            visitor
        });
    }
    let visitors = visits.join_all().await;
    assert!(visitors.iter().all(|it| it.0 == visitors[0].0));
    assert!(visitors[0].0.contains_key("__Host-id"));
    let all = visitors[0].clone().all(&ours).await;
    assert_eq!(all.as_object().expect("an object").len(), 21);
    assert_eq!(moved.rows().await, 0);
}

#[derive(Clone, Debug)]
struct User(i64);

impl AuthUser for User {
    type Id = i64;

    fn id(&self) -> i64 {
        self.0
    }

    fn session_auth_hash(&self) -> &[u8] {
        b"the hash of a password"
    }
}

#[derive(Clone, Debug)]
struct Users;

impl AuthnBackend for Users {
    type User = User;
    type Credentials = i64;
    type Error = Infallible;

    async fn authenticate(&self, id: i64) -> Result<Option<User>, Infallible> {
        Ok(Some(User(id)))
    }

    async fn get_user(&self, id: &UserId<Self>) -> Result<Option<User>, Infallible> {
        Ok(Some(User(*id)))
    }
}

#[tokio::test]
async fn a_user_of_axum_login_stays_signed_in() {
    let moved = Move::new().await;
    let login = async |mut auth: AuthSession<Users>| {
        auth.login(&User(i64::MAX)).await.expect("signed in");
    };
    let app = Router::new()
        .route("/login", post(login))
        .layer(AuthManagerLayerBuilder::new(Users, moved.layer()).build());
    let mut visitor = Visitor::default();
    visitor.post(&app, "/login").await;
    let ours = moved.server(Takeover::tower_sessions());
    let id = i64::MAX.to_string();
    assert_eq!(visitor.get(&ours, "/user").await, id);
    let user = moved.ours.user(&*id);
    assert_eq!(user.count().await.expect("a count"), 1);
    let data = &visitor.all(&ours).await["axum-login.data"];
    assert_eq!(data["user_id"], i64::MAX);
    assert_eq!(data["auth_hash"].as_array().expect("bytes").len(), 22);
    assert_eq!(user.destroy_all().await.expect("destroyed"), 1);
    assert_eq!(visitor.get(&ours, "/user").await, "");
    drop(moved.database);
}

/// The check of docs/moving/from-tower-sessions.md, for one user.
async fn is_accepted(session: Session, hash: &[u8]) -> Result<bool, axum_pg_session::Error> {
    let data: Option<Value> = session.get("axum-login.data")?;
    Ok(data.is_none_or(|data| data["user_id"] == 7 && data["auth_hash"] == json!(hash)))
}

#[tokio::test]
async fn a_session_from_before_a_new_password_can_be_refused() {
    let moved = Move::new().await;
    let login = async |mut auth: AuthSession<Users>| {
        auth.login(&User(7)).await.expect("signed in");
    };
    let app = Router::new()
        .route("/login", post(login))
        .layer(AuthManagerLayerBuilder::new(Users, moved.layer()).build());
    for (hash, expected) in [
        ("the hash of a password", "7"),
        ("that of the next one", ""),
    ] {
        let mut visitor = Visitor::default();
        visitor.post(&app, "/login").await;
        let old = visitor.clone();
        let layer = PgSessionLayer::new(moved.ours.clone())
            .takeover(Takeover::tower_sessions())
            .valid_if(move |session, _| is_accepted(session, hash.as_bytes()));
        let ours = moved.server_with(layer);
        for mut visitor in [visitor, old] {
            assert_eq!(visitor.get(&ours, "/user").await, expected);
        }
        assert_eq!(moved.rows().await, 0);
        let count = moved.ours.user("7").count().await.expect("a count");
        assert_eq!(count, u64::from(!expected.is_empty()));
        moved.ours.user("7").destroy_all().await.expect("destroyed");
    }
}
