//! A body that has no empty form can't be replaced by a 503.

use std::{convert::Infallible, future::Ready};

use axum_pg_session::{PgSessionLayer, PgSessionStore};
use http::{Request, Response};

struct Body;

#[derive(Clone)]
struct Pages;

impl tower_service::Service<Request<()>> for Pages {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        std::future::ready(Ok(Response::new(Body)))
    }
}

fn main() {
    let _ = |store: PgSessionStore| {
        let mut service = tower_layer::Layer::layer(&PgSessionLayer::new(store), Pages);
        drop(tower_service::Service::call(&mut service, Request::new(())));
        //~ is not implemented for `Body`
        //~ ResBody: Default
    };
}
