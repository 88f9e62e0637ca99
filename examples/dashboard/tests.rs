//! The page and its endpoint, with real metrics.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
    response::Response,
};
use axum_pg_session::{PgSessionStore, Reaper};
use tower::ServiceExt as _;

use crate::{chart::CHARTS, exposition::Exposition, page, recorder, site, visitors};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

async fn get(app: &Router, path: &str) -> Outcome<(Response<()>, String)> {
    let request = Request::get(path).body(Body::empty())?;
    let (parts, body) = app.clone().oneshot(request).await?.into_parts();
    let body = to_bytes(body, 1 << 20).await?;
    Ok((
        Response::from_parts(parts, ()),
        String::from_utf8(body.to_vec())?,
    ))
}

/// Returns the page when the visitors have changed every chart.
async fn watched() -> Outcome<Router> {
    let recorder = Box::leak(Box::new(recorder::builder()?.build_recorder()));
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(recorder);
    let database = dev_postgres::test_database().await?;
    let store = PgSessionStore::connect(database.url()).await?;
    store.migrate().await?;
    let elsewhere = PgSessionStore::connect(database.url()).await?;
    let visitors = visitors::come(site::pages(store.clone()), site::pages(elsewhere));
    let reaper = Reaper::new(store)
        .interval(Duration::from_millis(100))
        .spawn();
    let app = page::app(handle.clone());
    let all_moved = async {
        loop {
            let now = Exposition::new(handle.render());
            let still: Vec<_> = CHARTS
                .iter()
                .filter(|chart| now.sum(chart.of) == 0.0)
                .collect();
            if still.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_moved).await?;
    drop(visitors);
    reaper.stop().await;
    Ok(app)
}

/// The names in the first column of the tables of metrics.
fn documented() -> BTreeSet<String> {
    let text = include_str!("../../docs/operations/metrics.md");
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| `axum_pg_session."));
    let names = rows.filter_map(|row| row.split('`').nth(3));
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_simulated_visitors_change_every_chart_and_prometheus_reads_every_name() -> Outcome {
    let app = watched().await?;
    let (reply, text) = get(&app, "/metrics").await?;
    let content_type = reply.headers()[header::CONTENT_TYPE].to_str()?;
    assert!(content_type.starts_with("text/plain; version=0.0.4"));
    let exposed: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE axum_pg_session_"))
        .filter_map(|line| line.split(' ').next())
        .map(|name| format!("axum_pg_session_{name}"))
        .collect();
    assert_eq!(exposed, documented());
    let (_, page) = get(&app, "/").await?;
    for chart in &CHARTS {
        assert!(page.contains(chart.title), "{}", chart.title);
    }
    Ok(())
}

#[tokio::test]
async fn the_page_loads_nothing_from_other_hosts_and_has_no_inline_script() -> Outcome {
    let app = page::app(recorder::builder()?.build_recorder().handle());
    for path in ["/", "/style.css", "/dashboard.js", "/metrics"] {
        let (reply, text) = get(&app, path).await?;
        assert!(reply.status().is_success());
        let policy = reply.headers()[header::CONTENT_SECURITY_POLICY].to_str()?;
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
        assert!(!text.contains("//") || path == "/dashboard.js", "{path}");
        for other in [
            "http:", "https:", "<script>", "style=", "onclick", "@import",
        ] {
            assert!(!text.contains(other), "{other} in {path}");
        }
    }
    Ok(())
}
