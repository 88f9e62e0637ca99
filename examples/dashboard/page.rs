//! The page, the endpoint that it reads, and the security headers of both.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use maud::{DOCTYPE, Markup, html};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    chart::{CHARTS, Chart, Per},
    exposition::Exposition,
};

/// The page loads everything from this site, and no other site can show it in a frame.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
             form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// On a real site, only operators should have access: put it on another port, or behind a login.
pub(crate) fn app(metrics: PrometheusHandle) -> Router {
    let exported = metrics.clone();
    Router::new()
        .route(
            "/",
            get(async move || dashboard(&Exposition::new(metrics.render()))),
        )
        .route("/metrics", get(async move || exposed(exported.render())))
        .route("/style.css", get(style))
        .route("/dashboard.js", get(script))
        .layer(map_response(async |mut response: Response| {
            response.headers_mut().extend(HEADERS);
            response
        }))
}

fn exposed(text: String) -> impl IntoResponse {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], text)
}

async fn style() -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (content_type, include_str!("style.css"))
}

async fn script() -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (content_type, include_str!("dashboard.js"))
}

fn dashboard(now: &Exposition) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Sessions" }
                link rel="stylesheet" href="/style.css";
                script src="/dashboard.js" defer {}
            }
            body {
                header {
                    h1 { "Sessions" }
                    p #state role="status" { "Totals since the start. The charts need scripts." }
                    a href="/metrics" { "/metrics" }
                }
                main {
                    @for chart in &CHARTS { (figure(chart, now)) }
                }
            }
        }
    }
}

/// A chart with its total so far, which the script then updates.
fn figure(chart: &Chart, now: &Exposition) -> Markup {
    let total = now.sum(chart.of);
    let (per, factor, shown, unit) = match chart.per {
        Per::Second => (None, 1, format!("{total:.0}"), "in all"),
        Per::Other(per, factor) => {
            let mean = total / now.sum(per).max(1.0) * f64::from(factor);
            (Some(per), factor, format!("{mean:.2}"), chart.unit)
        }
    };
    html! {
        figure data-of=(chart.of) data-per=[per] data-factor=(factor) data-unit=(chart.unit) {
            figcaption { (chart.title) }
            p.now { span.value { (shown) } " " span.unit { (unit) } }
            svg viewBox="0 0 120 32" preserveAspectRatio="none" aria-hidden="true" {
                polyline points="" {}
            }
            p.about { (chart.about) }
        }
    }
}
