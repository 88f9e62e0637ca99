//! Layers of other crates in one `ServiceBuilder` with the session layer, with and without a body
//! that has a `Default`.

use std::{future::pending, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, StatusCode, header},
    middleware::map_response,
    response::Response,
    routing::{get, post},
};
use axum_pg_session::{Error, Session};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_http::{
    catch_panic::CatchPanicLayer, cors::CorsLayer, limit::RequestBodyLimitLayer,
    timeout::TimeoutLayer, trace::TraceLayer,
};

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

/// A page of the site's own in place of an error of the session.
async fn error_page(response: Response) -> Response {
    if response.extensions().get::<Error>().is_none() {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from("the site's own page"))
}

#[tokio::test]
async fn layers_that_need_a_default_body_work_outside_of_the_sessions() {
    let site = Site::new().await;
    let limit = Duration::from_millis(500);
    let limit = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, limit);
    let app = Router::new()
        .route("/", post(keep))
        .route("/slow", get(async |_: Session| pending::<()>().await))
        .route("/panic", get(async |_: Session| -> () { panic!("a bug") }))
        .layer(
            ServiceBuilder::new()
                .layer(TraceLayer::new_for_http())
                .layer(CorsLayer::permissive())
                .layer(limit)
                .layer(site.layer())
                .layer(CatchPanicLayer::new()),
        )
        .layer(map_response(error_page));
    let send = async |request: Request<Body>| {
        let response = app.clone().oneshot(request).await.expect("a response");
        let allowed = header::ACCESS_CONTROL_ALLOW_ORIGIN;
        assert_eq!(response.headers()[allowed], "*");
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1000).await;
        (status, body.expect("a body"))
    };
    let visit = |path| Request::get(path).body(Body::empty()).expect("a request");
    let keeping = || Request::post("/").body(Body::from("a text")).expect("one");

    assert_eq!(send(keeping()).await.0, StatusCode::OK);
    let (late, body) = send(visit("/slow")).await;
    assert_eq!((late, body.len()), (StatusCode::GATEWAY_TIMEOUT, 0));
    let (panicked, _) = send(visit("/panic")).await;
    assert_eq!(panicked, StatusCode::INTERNAL_SERVER_ERROR);
    site.refuse("INSERT").await;
    let (failed, body) = send(keeping()).await;
    assert_eq!(failed, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "the site's own page");
}
