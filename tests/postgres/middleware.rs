//! Middleware of others that replaces the body, in one `ServiceBuilder` with the
//! session layer. Such bodies have no `Default`.

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, StatusCode},
    routing::post,
};
use axum_pg_session::{Error, Session};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_http::{limit::RequestBodyLimitLayer, trace::TraceLayer};

use crate::support::Site;

async fn keep(session: Session, body: Bytes) -> Result<(), Error> {
    session.insert("length", body.len())
}

#[tokio::test]
async fn layers_whose_bodies_have_no_default_work_inside_and_outside() {
    let site = Site::new().await;
    let inside = ServiceBuilder::new()
        .layer(site.layer())
        .layer(TraceLayer::new_for_http())
        .layer(RequestBodyLimitLayer::new(8));
    let outside = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(RequestBodyLimitLayer::new(8))
        .layer(site.layer());
    let routes = || Router::new().route("/", post(keep));
    for app in [routes().layer(inside), routes().layer(outside)] {
        site.rows().execute("DELETE FROM TABLE").await;
        let send = async |body: &'static str| {
            let request = Request::post("/").body(Body::from(body));
            let response = app.clone().oneshot(request.expect("a request")).await;
            response.expect("a response")
        };
        let refused = send("nine bytes").await;
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(site.rows().count().await, 0);
        assert_eq!(send("8 bytes.").await.status(), StatusCode::OK);
        assert_eq!(site.rows().document().await["length"], 8);

        // The page of an error of the session is not cut off either.
        site.refuse("INSERT").await;
        let failed = send("8 bytes.").await;
        assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
        site.refuse_no_more("INSERT").await;
        assert_eq!(site.rows().count().await, 1);
    }
}
