//! The figures on the page of `examples/dashboard`.

use std::time::{Duration, Instant};

use crate::support::{Chromium, Example, Profile, Window, chromium_or_skip};

const PATIENCE: Duration = Duration::from_secs(60);

/// Titles of the figures whose line has more than one point, and a number.
const DRAWN: &str = "[...document.querySelectorAll('figure')]
    .filter(figure => figure.querySelector('polyline').points.length > 1)
    .filter(figure => figure.dataset.per || /^[0-9.]+$/.test(figure.querySelector('.value').textContent))
    .map(figure => figure.querySelector('figcaption').textContent)";
/// What was loaded beside the page, and whether anything was refused.
const ASKED: &str =
    "performance.getEntriesByType('resource').map(entry => new URL(entry.name).origin)";

async fn watches(chromium: &Chromium, dashboard: &Example) -> Profile {
    let operator = chromium.profile().await;
    operator.open(&dashboard.url("/")).await;
    let began = Instant::now();
    while operator.script(DRAWN).await.as_array().map_or(0, Vec::len) < 12 {
        assert!(began.elapsed() < PATIENCE, "{}", operator.text().await);
    }
    operator
}

#[tokio::test]
async fn every_figure_is_drawn_without_another_host() {
    let chromium = chromium_or_skip!();
    let database = dev_postgres::test_database().await.expect("a database");
    let dashboard = Example::start("dashboard", database.url());
    let operator = watches(&chromium, &dashboard).await;
    let page = operator.text().await;
    assert!(page.contains("the last two minutes"), "{page}");
    let origins = operator.script(ASKED).await;
    let origins = origins.as_array().expect("a list");
    assert!(origins.len() > 3, "{origins:?}");
    assert!(
        origins.iter().all(|it| *it == dashboard.url("")),
        "{origins:?}"
    );
    operator.resize(Window::PHONE).await;
    let overflows = "document.documentElement.scrollWidth > innerWidth";
    assert_eq!(operator.script(overflows).await, false);
}
