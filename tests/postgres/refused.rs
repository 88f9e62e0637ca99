//! Requests that sign out, and whose session the application's check or the timeouts of their layer
//! refused.

use std::time::Duration;

use axum_pg_session::{Error, PgSessionLayer, Session};

use crate::support::{
    Browser, Site, execute,
    express::{SID, browser_of_express, site_of, stored},
    koa::DOCUMENT,
    page::{InFlight, app_with},
    texts,
};

const HOUR: Duration = Duration::from_secs(3600);
const AGE: &str = "UPDATE session SET created = created - interval '2 hours'";

#[tokio::test]
async fn a_logout_during_a_save_ends_a_refused_session_that_another_request_has_changed() {
    let mut faults = Vec::new();
    for by in ["check", "timeout"] {
        for save in ["insert", "login", "none"] {
            for format in ["own", "express"] {
                for other in ["insert", "cycle"] {
                    let (site, store, browser) = site_of(format, Duration::from_secs(30)).await;
                    let layer = PgSessionLayer::new(store);
                    let layer = if by == "check" {
                        layer.valid_if(async |_, _| false)
                    } else {
                        execute(&site.pool, AGE).await;
                        layer.absolute_timeout(HOUR)
                    };
                    let refused = InFlight::begin(&browser, "/page", |gate| {
                        app_with(layer, async move |session: Session| {
                            assert!(session.is_new());
                            gate.pass().await;
                            match save {
                                "insert" => session.insert("seen", 1)?,
                                "login" => session.login("ada")?,
                                _ => {}
                            }
                            let (saved, ended) =
                                tokio::join!(session.save(), async { session.logout() });
                            saved.and(ended)
                        })
                    })
                    .await;
                    let mut visitor = browser
                        .at(&site.app_with(async |session: Session| session.insert("b", "2")));
                    let path = if other == "insert" { "/page" } else { "/cycle" };
                    assert_eq!(visitor.get(path).await.status, 200, "{format}");
                    let status = refused.finish().await.status;
                    let value = visitor.peek("/get/a").await.body;
                    if status == 200 && value != "none" {
                        faults.push(format!("{by}, {save}, {format}, {other}: {value}"));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test]
async fn a_logout_after_a_save_that_began_a_session_ends_the_refused_session_too() {
    let mut faults = Vec::new();
    for by in ["check", "timeout"] {
        for format in ["own", "express"] {
            let (site, store, browser) = site_of(format, Duration::from_secs(30)).await;
            let layer = PgSessionLayer::new(store);
            let layer = if by == "check" {
                layer.valid_if(async |_, _| false)
            } else {
                execute(&site.pool, AGE).await;
                layer.absolute_timeout(HOUR)
            };
            let refused = InFlight::begin(&browser, "/page", |gate| {
                app_with(layer, async move |session: Session| {
                    gate.pass().await;
                    session.insert("seen", 1)?;
                    session.save().await?;
                    session.logout()
                })
            })
            .await;
            let mut visitor = browser.at(&site.app());
            assert_eq!(visitor.get("/insert/b/2").await.status, 200, "{format}");
            let status = refused.finish().await.status;
            let value = visitor.peek("/get/a").await.body;
            if status == 200 && value != "none" {
                faults.push(format!("{by}, {format}: {value}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Express stores the path with the session.
#[tokio::test]
async fn a_logout_of_a_refused_session_removes_the_cookie_that_the_browser_has() {
    let mut faults = Vec::new();
    for by in ["nothing", "check", "timeout"] {
        for saves in [false, true] {
            let site = Site::of_guarded_express().await;
            let document = stored(r#""a":"1""#).replace(r#""path":"/""#, r#""path":"/shop""#);
            site.express_writes(SID, &document).await;
            let layer = site.layer();
            let layer = match by {
                "check" => layer.valid_if(async |_, _| false),
                "timeout" => {
                    execute(&site.pool, AGE).await;
                    layer.absolute_timeout(HOUR)
                }
                _ => layer,
            };
            let logout = app_with(layer, async move |session: Session| {
                session.logout()?;
                if saves {
                    session.save().await?;
                }
                Ok::<_, Error>(())
            });
            let reply = browser_of_express(&logout).peek("/page").await;
            assert_eq!(reply.status, 200);
            let rows = texts(&site.pool, "SELECT count(*)::text FROM session").await;
            assert_eq!(rows, ["0"]);
            let paths: Vec<_> = reply
                .set_cookies()
                .iter()
                .map(|cookie| cookie.path().unwrap_or_default().to_owned())
                .collect();
            if paths != ["/shop"] {
                faults.push(format!("{by}, saves: {saves}: {paths:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The browser has cookies of two scopes. One of them has outlived the layer.
#[tokio::test]
async fn a_logout_ends_each_session_that_the_request_has_loaded() {
    let (site, store, outlived) = site_of("own", Duration::from_secs(30)).await;
    execute(&site.pool, AGE).await;
    let live = Browser::with_session(&site.app()).await;
    let name = outlived.request("/keys").headers()["cookie"].clone();
    let name = name.to_str().expect("ASCII");
    let name = name.split_once('=').expect("a cookie").0.to_owned();
    let layer = PgSessionLayer::new(store).absolute_timeout(HOUR);
    let logout = app_with(layer, async |session: Session| session.logout());
    let mut request = live.at(&logout).request("/page");
    let both = format!("{name}={}; {name}={}", live.token(), outlived.token());
    request
        .headers_mut()
        .insert("cookie", both.parse().expect("a header"));
    assert_eq!(live.at(&logout).send(request).await.status, 200);
    assert_eq!(live.peek("/get/a").await.body, "none");
    let value = outlived.at(&site.app()).peek("/get/a").await.body;
    assert_eq!(value, "none", "the outlived session");
}

/// Koa has a second cookie for the signature.
#[tokio::test]
async fn a_logout_of_a_refused_session_of_koa_removes_the_cookies_that_the_browser_has() {
    let site = Site::of_koa().await;
    site.store.migrate().await.expect("the owner");
    let document = DOCUMENT.replace(r#""path":"/""#, r#""path":"/shop""#);
    let visitor = site.visitor_with(&document, 3600.0).await;
    let layer = site.layer().valid_if(async |_, _| false);
    let logout = app_with(layer, async |session: Session| session.logout());
    let reply = visitor.at(&logout).peek("/page").await;
    let cookies = reply.set_cookies();
    let paths: Vec<_> = cookies.iter().map(|cookie| cookie.path()).collect();
    assert_eq!(paths, [Some("/shop"); 2]);
}
