//! The routes and the layers of the site.

use std::{num::NonZeroU32, time::Duration};

use axum::{
    Router,
    http::{HeaderName, header},
    middleware::{from_fn, map_response},
    routing::{get, post},
};
use axum_pg_session::{ClearSiteData, PgSessionLayer, PgSessionStore, SessionLimitPolicy};

use crate::{account, basket, csrf, devices, error, security, users::Users};

/// A login on one more device signs out the device with the oldest login.
const MAX_DEVICES: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
/// For visitors who don't choose "remember me".
const IDLE_TIMEOUT: Duration = Duration::from_hours(2);
const ABSOLUTE_TIMEOUT: Duration = Duration::from_hours(24);

/// The state of the handlers.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) store: PgSessionStore,
    pub(crate) users: Users,
}

pub(crate) fn limited(store: PgSessionStore) -> PgSessionStore {
    store.max_sessions_per_user(MAX_DEVICES, SessionLimitPolicy::EndOldest)
}

pub(crate) fn app(site: Site) -> Router {
    let sessions = sessions(site.store.clone());
    pages()
        // Inside of the session layer, because the token is in the session.
        .route_layer(from_fn(csrf::guard))
        .layer(sessions)
        // Outside of the session layer, because it shows errors of loading and saving.
        .layer(map_response(error::session_page))
        // Outside of the session layer, so that these can be cached.
        .merge(files())
        .layer(map_response(security::headers))
        .with_state(site)
}

pub(crate) fn sessions(store: PgSessionStore) -> PgSessionLayer {
    PgSessionLayer::new(store)
        .idle_timeout(IDLE_TIMEOUT)
        .absolute_timeout(ABSOLUTE_TIMEOUT)
        .clear_site_data([ClearSiteData::Cache, ClearSiteData::Storage])
}

fn pages() -> Router<Site> {
    Router::new()
        .route("/", get(basket::shop))
        .route("/basket", post(basket::add))
        .route(
            "/sign-up",
            get(account::sign_up_page).post(account::sign_up),
        )
        .route(
            "/sign-in",
            get(account::sign_in_page).post(account::sign_in),
        )
        .route("/sign-out", post(account::sign_out))
        .route("/confirm", post(account::confirm))
        .route(
            "/password",
            get(account::password_page).post(account::change_password),
        )
        .route("/devices", get(devices::list))
        .route("/devices/end", post(devices::end))
        .route("/devices/end-others", post(devices::end_others))
}

fn files() -> Router<Site> {
    let style = file("text/css; charset=utf-8", include_str!("style.css"));
    let icon = file("image/svg+xml", include_str!("icon.svg"));
    Router::new()
        .route("/style.css", get(async move || style))
        .route("/icon.svg", get(async move || icon))
}

type File = ([(HeaderName, &'static str); 2], &'static str);

/// The same for all visitors, so caches can keep it.
fn file(content_type: &'static str, content: &'static str) -> File {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, content)
}
