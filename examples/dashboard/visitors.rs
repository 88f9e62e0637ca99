//! Simulated visitors, who change the metrics.

use std::time::Duration;

use axum::{Router, body::Body, http::Request, http::header};
use tokio::{task::JoinSet, time::sleep};
use tower::ServiceExt as _;

const NAME: &str = "__Host-id";
const VISITORS: u64 = 24;
/// A token of the right format that opens no session.
const GUESS: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// Starts the visitors. They stop when the set is dropped.
pub(crate) fn come(site: Router, elsewhere: Router) -> JoinSet<()> {
    let mut visitors = JoinSet::new();
    for n in 0..VISITORS {
        let pause = Duration::from_millis(20 + 7 * n);
        visitors.spawn(browse(site.clone(), pause));
    }
    visitors.spawn(share(site.clone(), elsewhere));
    visitors.spawn(leave_cookies_behind(site.clone()));
    visitors.spawn(guess(site));
    visitors
}

/// A browser with at most one cookie.
#[derive(Clone, Debug, Default)]
struct Browser {
    cookie: Option<String>,
}

impl Browser {
    async fn get(&mut self, site: &Router, path: &str) {
        let mut request = Request::get(path);
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = site.clone().oneshot(request).await;
        let headers = response
            .expect("a router never fails")
            .into_parts()
            .0
            .headers;
        if let Some(cookie) = headers.get(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap_or_default();
            let pair = cookie.split(';').next().unwrap_or_default();
            self.cookie = (!pair.ends_with('=')).then(|| pair.to_owned());
        }
    }

    fn with(value: &str) -> Self {
        Self {
            cookie: Some(format!("{NAME}={value}")),
        }
    }
}

/// Visits pages, and signs out at the end.
async fn browse(site: Router, pause: Duration) {
    loop {
        let mut browser = Browser::default();
        for _ in 0..20 {
            for page in ["/count", "/look", "/look"] {
                browser.get(&site, page).await;
                sleep(pause).await;
            }
        }
        browser.get(&site, "/leave").await;
    }
}

/// Sends two requests at once to two servers, which count in the same session.
async fn share(site: Router, elsewhere: Router) {
    let mut one = Browser::default();
    loop {
        one.get(&site, "/count").await;
        let mut other = one.clone();
        tokio::join!(one.get(&site, "/count"), other.get(&elsewhere, "/count"));
        sleep(Duration::from_millis(150)).await;
    }
}

/// Begins sessions and never returns, so that the reaper has rows to delete.
async fn leave_cookies_behind(site: Router) {
    loop {
        Browser::default().get(&site, "/count").await;
        sleep(Duration::from_millis(200)).await;
    }
}

/// Sends an unknown token, and then the cookies of two sessions at once.
async fn guess(site: Router) {
    loop {
        Browser::with(GUESS).get(&site, "/look").await;
        let (mut one, mut two) = (Browser::default(), Browser::default());
        one.get(&site, "/count").await;
        two.get(&site, "/count").await;
        if let (Some(one), Some(two)) = (one.cookie, two.cookie) {
            let cookie = Some(format!("{one}; {two}"));
            Browser { cookie }.get(&site, "/count").await;
        }
        sleep(Duration::from_millis(700)).await;
    }
}
