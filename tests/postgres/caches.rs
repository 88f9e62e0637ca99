//! A shared cache between the site and its visitors (RFC 9111).

use std::{collections::HashMap, sync::Mutex};

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use axum_pg_session::{Error, Session};

use crate::support::{Browser, Reply, Site};

/// Keeps all that it may keep, for ever: whatever is not forbidden.
#[derive(Default)]
struct Cache(Mutex<HashMap<String, Vec<Stored>>>);

#[derive(Clone)]
struct Stored {
    /// The request's values of the headers that the response varies by.
    chosen_by: Vec<(String, Option<HeaderValue>)>,
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

fn words<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Vec<&'h str> {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.to_str().expect("ASCII").split(','))
        .map(str::trim)
        .collect()
}

impl Cache {
    /// The response to this visitor, and whether it came from the cache.
    async fn visit(&self, browser: &mut Browser, path: &str) -> (Reply, bool) {
        let request = browser.request(path);
        let asked = request.headers().clone();
        if let Some(stored) = self.find(path, &asked) {
            let reply = Reply {
                status: stored.status,
                headers: stored.headers,
                body: stored.body,
                error: None,
            };
            browser.accept(&reply);
            return (reply, true);
        }
        let reply = browser.send(request).await;
        self.keep(path, &asked, &reply);
        browser.accept(&reply);
        (reply, false)
    }

    fn find(&self, path: &str, asked: &HeaderMap) -> Option<Stored> {
        let kept = self.0.lock().expect("no panic");
        let fits = |stored: &&Stored| {
            let mut chosen_by = stored.chosen_by.iter();
            chosen_by.all(|(name, value)| asked.get(name) == value.as_ref())
        };
        kept.get(path)?.iter().find(fits).cloned()
    }

    fn keep(&self, path: &str, asked: &HeaderMap, reply: &Reply) {
        let forbids = |word: &&str| ["no-store", "private"].contains(word);
        let varies_by = words(&reply.headers, &header::VARY);
        let is_forbidden = words(&reply.headers, &header::CACHE_CONTROL)
            .iter()
            .any(forbids);
        if is_forbidden || varies_by.contains(&"*") {
            return;
        }
        let stored = Stored {
            chosen_by: varies_by
                .iter()
                .map(|name| ((*name).to_owned(), asked.get(*name).cloned()))
                .collect(),
            status: reply.status,
            headers: reply.headers.clone(),
            body: reply.body.clone(),
        };
        let mut kept = self.0.lock().expect("no panic");
        kept.entry(path.to_owned()).or_default().push(stored);
    }
}

const PUBLIC: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "public, max-age=60")];

async fn name(session: Session) -> Result<impl IntoResponse, Error> {
    let name: Option<String> = session.get("name")?;
    Ok((PUBLIC, name.unwrap_or_else(|| "nobody".into())))
}

/// The site calls everything public, which is its mistake.
fn site_of_names(site: &Site, lifetime: std::time::Duration) -> Router {
    let enter = |who: &'static str| {
        get(async move |session: Session| {
            session.insert("name", who)?;
            Ok::<_, Error>((PUBLIC, who))
        })
    };
    let touch = async |session: Session| {
        session.touch()?;
        Ok::<_, Error>((PUBLIC, session.get::<String>("name")?.unwrap_or_default()))
    };
    let missing = async |session: Session| {
        let name: Option<String> = session.get("name").expect("text");
        (StatusCode::NOT_FOUND, PUBLIC, name.unwrap_or_default())
    };
    Router::new()
        .route("/ann", enter("ann"))
        .route("/bob", enter("bob"))
        .route("/name", get(name))
        .route("/touch", get(touch))
        .route("/missing", get(missing))
        .route("/about", get(async || (PUBLIC, "about us")))
        .layer(site.layer().absolute_timeout(lifetime))
}

#[tokio::test]
async fn a_shared_cache_never_mixes_two_visitors() {
    let site = Site::new().await;
    // So long that each touch renews the cookie too.
    let app = site_of_names(&site, std::time::Duration::from_secs(500 * 24 * 3600));
    let cache = Cache::default();
    let mut visitors = ["ann", "bob"].map(|name| (name, Browser::new(&app)));
    for round in 0..3 {
        for (name, browser) in &mut visitors {
            let (reply, _) = cache.visit(browser, &format!("/{name}")).await;
            assert_eq!(reply.body, *name);
            for page in ["/name", "/touch", "/missing"] {
                let (reply, is_kept) = cache.visit(browser, page).await;
                assert_eq!(reply.body, *name, "{page} in round {round}");
                assert!(!is_kept || reply.sets_no_cookie(), "{page}");
            }
        }
        let mut stranger = Browser::new(&app);
        assert_eq!(cache.visit(&mut stranger, "/name").await.0.body, "nobody");
        assert_eq!(stranger.jar, []);
        // As the first visitor came, without a cookie.
        cache.visit(&mut stranger, "/ann").await;
        assert_ne!(stranger.token(), visitors[0].1.token());
    }
    let [(_, ann), (_, bob)] = &visitors;
    assert_ne!(ann.token(), bob.token());
}

/// What has nothing to do with sessions is kept for all.
#[tokio::test]
async fn a_shared_cache_keeps_what_ignores_the_session() {
    let site = Site::new().await;
    let app = site_of_names(&site, std::time::Duration::from_secs(3600));
    let cache = Cache::default();
    let mut browser = Browser::new(&app);
    browser.get("/ann").await;
    assert!(!cache.visit(&mut browser, "/about").await.1);
    assert!(cache.visit(&mut Browser::new(&app), "/about").await.1);
}

/// Caches at the edge prefer these to `Cache-Control` (RFC 9213).
#[tokio::test]
async fn no_header_for_one_cache_overrides_what_the_session_forbids() {
    let site = Site::new().await;
    let targeted = [
        "cdn-cache-control",
        "cloudflare-cdn-cache-control",
        "surrogate-control",
        "x-accel-expires",
        "edge-control",
    ];
    for allowed in ["private", "no-store, must-understand", "public"] {
        let headers = targeted.map(|name| (name, "max-age=3600"));
        let app = Router::new()
            .route(
                "/",
                get(async move |session: Session| {
                    session.insert("a", 1)?;
                    Ok::<_, Error>((headers, [("cache-control", allowed)]))
                }),
            )
            .route("/about", get(async move || headers))
            .layer(site.layer());
        let mut browser = Browser::new(&app);
        let reply = browser.get("/").await;
        assert!(!reply.sets_no_cookie());
        for name in targeted {
            assert!(!reply.headers.contains_key(name), "{name}");
        }
        let expected = match allowed {
            "private" => "private",
            _ => "no-store",
        };
        assert_eq!(reply.headers["cache-control"], expected);
        let about = browser.get("/about").await;
        assert_eq!(about.headers["surrogate-control"], "max-age=3600");
    }
}
