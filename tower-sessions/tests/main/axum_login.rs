//! axum-login 0.18 on the store: what its users count on.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    routing::{get, post},
};
use axum_login::{
    AuthManagerLayerBuilder, AuthUser, AuthnBackend, AuthzBackend, login_required,
    permission_required,
    tower_sessions::{SessionManagerLayer, cookie::Key},
};
use axum_pg_session_tower_sessions::PostgresStore;
use http::StatusCode;

use crate::support::{Browser, Site, site};

#[derive(Clone, Debug)]
struct User {
    id: String,
    password: Vec<u8>,
}

impl AuthUser for User {
    type Id = String;

    fn id(&self) -> String {
        self.id.clone()
    }

    fn session_auth_hash(&self) -> &[u8] {
        &self.password
    }
}

/// Everyone is a user, and has the same password.
#[derive(Clone)]
struct Backend {
    password: Arc<Mutex<Vec<u8>>>,
}

impl AuthnBackend for Backend {
    type User = User;
    type Credentials = String;
    type Error = Infallible;

    async fn authenticate(&self, name: String) -> Result<Option<User>, Infallible> {
        self.get_user(&name).await
    }

    async fn get_user(&self, id: &String) -> Result<Option<User>, Infallible> {
        let password = self.password.lock().expect("no panic").clone();
        Ok(Some(User {
            id: id.clone(),
            password,
        }))
    }
}

impl AuthzBackend for Backend {
    type Permission = &'static str;

    async fn get_user_permissions(&self, user: &User) -> Result<HashSet<&'static str>, Infallible> {
        Ok(HashSet::from_iter((user.id == "ada").then_some("admin")))
    }
}

type AuthSession = axum_login::AuthSession<Backend>;

async fn login(mut auth: AuthSession, name: String) -> StatusCode {
    let user = auth.authenticate(name).await.expect("a backend in memory");
    match auth.login(&user.expect("everyone is a user")).await {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn routes() -> Router {
    let members = Router::new()
        .route("/members", get(async || "members"))
        .route_layer(login_required!(Backend));
    let admins = Router::new()
        .route("/admins", get(async || "admins"))
        .route_layer(permission_required!(Backend, "admin"));
    Router::new()
        .route("/login", post(login))
        .route(
            "/logout",
            post(async |mut auth: AuthSession| drop(auth.logout().await.expect("a deletion"))),
        )
        .route(
            "/basket",
            get(async |auth: AuthSession| {
                let basket = auth.session.get::<u32>("basket").await;
                format!("{:?}", basket.expect("a load"))
            }),
        )
        .route(
            "/buy",
            post(async |auth: AuthSession| {
                auth.session.insert("basket", 1).await.expect("a load");
            }),
        )
        .merge(members)
        .merge(admins)
}

struct Members {
    site: Site,
    app: Router,
    password: Arc<Mutex<Vec<u8>>>,
}

impl Members {
    async fn open() -> Self {
        Self::with(|sessions| sessions, None).await
    }

    async fn with(
        change: impl FnOnce(PostgresStore) -> PostgresStore,
        data_key: Option<&'static str>,
    ) -> Self {
        let site = site().await;
        let password = Arc::new(Mutex::new(b"hunter42".to_vec()));
        let backend = Backend {
            password: Arc::clone(&password),
        };
        let layer =
            SessionManagerLayer::new(change(site.sessions())).with_signed(Key::from(&[1; 64]));
        let auth = AuthManagerLayerBuilder::new(backend, layer);
        let auth = match data_key {
            Some(key) => auth.with_data_key(key),
            None => auth,
        };
        Self {
            app: routes().layer(auth.build()),
            site,
            password,
        }
    }

    async fn users(&self) -> Vec<Option<String>> {
        let stored = self.site.stored().await;
        stored.into_iter().map(|(_, user)| user).collect()
    }

    async fn status(&self, browser: &mut Browser, path: &str) -> StatusCode {
        browser.get(&self.app, path).await.status
    }

    async fn login(&self, browser: &mut Browser, name: &'static str) {
        let page = browser.post(&self.app, "/login", name).await;
        assert_eq!(page.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_login_opens_the_routes_of_members_and_a_logout_closes_them() {
    let members = Members::open().await;
    let mut eve = Browser::default();
    assert_eq!(
        members.status(&mut eve, "/members").await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(eve.cookie, None);
    members.login(&mut eve, "eve").await;
    assert_eq!(members.status(&mut eve, "/members").await, StatusCode::OK);
    assert_eq!(members.users().await, [Some("eve".to_owned())]);

    let mut stolen = eve.clone();
    eve.post(&members.app, "/logout", "").await;
    assert_eq!(eve.cookie, None);
    assert_eq!(
        members.status(&mut stolen, "/members").await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(members.site.rows().await, 0);
}

#[tokio::test]
async fn permissions_are_those_of_the_user_of_the_session() {
    let members = Members::open().await;
    for (name, status) in [("eve", StatusCode::FORBIDDEN), ("ada", StatusCode::OK)] {
        let mut browser = Browser::default();
        members.login(&mut browser, name).await;
        assert_eq!(
            members.status(&mut browser, "/admins").await,
            status,
            "{name}"
        );
    }
}

/// The cookie that an attacker has planted before the login opens nothing after it.
#[tokio::test]
async fn a_login_gives_the_visitor_a_new_id_and_keeps_the_basket() {
    let members = Members::open().await;
    let mut ada = Browser::default();
    ada.post(&members.app, "/buy", "").await;
    let mut planted = ada.clone();
    members.login(&mut ada, "ada").await;
    assert_ne!(ada.cookie, planted.cookie);
    assert_eq!(ada.get(&members.app, "/basket").await.text, "Some(1)");
    assert_eq!(
        members.status(&mut planted, "/members").await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(planted.get(&members.app, "/basket").await.text, "None");
    assert_eq!(members.users().await, [Some("ada".to_owned())]);
}

/// axum-login keeps the id then.
#[tokio::test]
async fn a_login_as_another_user_changes_the_user_of_the_row() {
    let members = Members::open().await;
    let mut browser = Browser::default();
    members.login(&mut browser, "ada").await;
    members.login(&mut browser, "eve").await;
    assert_eq!(members.users().await, [Some("eve".to_owned())]);
    assert_eq!(
        members.status(&mut browser, "/admins").await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        members
            .site
            .store
            .user("ada")
            .count()
            .await
            .expect("a number"),
        0
    );
}

#[tokio::test]
async fn a_new_password_ends_every_session_at_its_next_request() {
    let members = Members::open().await;
    let (mut desk, mut phone) = (Browser::default(), Browser::default());
    members.login(&mut desk, "ada").await;
    members.login(&mut phone, "ada").await;
    *members.password.lock().expect("no panic") = b"hunter43".to_vec();
    for browser in [&mut desk, &mut phone] {
        assert_eq!(
            members.status(browser, "/members").await,
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(members.site.rows().await, 0);
}

#[tokio::test]
async fn sessions_that_were_ended_by_user_are_signed_out() {
    let members = Members::open().await;
    let (mut ada, mut eve) = (Browser::default(), Browser::default());
    members.login(&mut ada, "ada").await;
    members.login(&mut eve, "eve").await;
    let ended = members.site.store.user("ada").destroy_all().await;
    assert_eq!(ended.expect("a deletion"), 1);
    assert_eq!(
        members.status(&mut ada, "/members").await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(members.status(&mut eve, "/members").await, StatusCode::OK);
}

#[tokio::test]
async fn another_data_key_has_another_path() {
    let path = |sessions: PostgresStore| sessions.user_path(["auth", "user_id"]);
    let members = Members::with(path, Some("auth")).await;
    members.login(&mut Browser::default(), "ada").await;
    assert_eq!(members.users().await, [Some("ada".to_owned())]);
}
