use std::error::Error;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tower::Service as _;

use crate::{
    cost::{Cost, Meter},
    handwritten::Statement,
    pages::Site,
};

/// The number of visitors, and of requests in flight. Concurrent requests are of different visitors.
pub(crate) const VISITORS: usize = 64;

/// One row of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The row that this one is compared with.
    pub(crate) beside: Option<&'static str>,
    /// How many times as often it is measured as one request with a round trip.
    pub(crate) repetitions: usize,
    work: Work,
    done: usize,
}

enum Work {
    Page(Page),
    Statement(Statement, PgPool),
}

struct Page {
    app: Router,
    path: &'static str,
    cookies: Vec<String>,
    in_flight: usize,
}

impl Case {
    /// Does the work so many times and returns the cost of one.
    pub(crate) async fn round(&mut self, times: usize) -> Result<Cost, Box<dyn Error>> {
        let before = self.done;
        self.done += times;
        match &self.work {
            Work::Page(page) => page.visit(times).await,
            Work::Statement(statement, pool) => {
                let ids: Vec<_> = (before..self.done).map(|at| statement.id(at)).collect();
                let meter = Meter::start();
                for id in &ids {
                    statement.send(pool, id).await?;
                }
                Ok(meter.stop(times))
            }
        }
    }

    /// The number of visits that the rows of the sessions must have counted.
    pub(crate) fn visits_written(&self) -> usize {
        match &self.work {
            Work::Page(page) if page.path == "/write" => self.done,
            _ => 0,
        }
    }

    fn at_once(mut self) -> Self {
        if let Work::Page(page) = &mut self.work {
            page.in_flight = VISITORS;
        }
        self.repetitions = 5;
        self
    }

    fn without_database(mut self) -> Self {
        self.repetitions = 50;
        self
    }
}

impl Page {
    fn request(&self, at: usize) -> Request<Body> {
        let mut request = Request::get(self.path);
        if let Some(cookie) = self.cookies.get(at % VISITORS) {
            request = request.header(header::COOKIE, cookie);
        }
        request.body(Body::empty()).expect("a valid request")
    }

    /// Sends the requests in as many tasks as may be in flight, like the connections of a server.
    async fn visit(&self, times: usize) -> Result<Cost, Box<dyn Error>> {
        let mut queues: Vec<Vec<_>> = (0..self.in_flight).map(|_| Vec::new()).collect();
        for at in 0..times {
            queues[at % self.in_flight].push(self.request(at));
        }
        let sets_cookie = self.path == "/new";
        let mut connections = JoinSet::new();
        let meter = Meter::start();
        for queue in queues {
            let mut app = self.app.clone();
            connections.spawn(async move {
                for request in queue {
                    let Ok(response) = app.call(request).await;
                    let has_cookie = response.headers().contains_key(header::SET_COOKIE);
                    if response.status() != StatusCode::OK || has_cookie != sets_cookie {
                        return Err(format!("unexpected response: {response:?}"));
                    }
                }
                Ok(())
            });
        }
        while let Some(connection) = connections.join_next().await {
            connection??;
        }
        Ok(meter.stop(times))
    }
}

/// All rows, each after the one that it is compared with.
pub(crate) fn all(site: &Site) -> Vec<Case> {
    let row = |name, beside, work| Case {
        name,
        beside,
        repetitions: 1,
        work,
        done: 0,
    };
    let page = |name, beside, app: &Router, path, cookies: &[String]| {
        let page = Page {
            app: app.clone(),
            path,
            cookies: cookies.to_vec(),
            in_flight: 1,
        };
        row(name, beside, Work::Page(page))
    };
    let handwritten = |name, statement| {
        let work = Work::Statement(statement, site.pool.clone());
        row(name, None, work)
    };
    let (readers, writers) = (site.readers.as_slice(), site.writers.as_slice());
    let (offline, app, recorded) = (&site.without_database, &site.with_database, &site.recorded);
    let idle = Some("idle layer");
    let (select, update) = (Some("handwritten select"), Some("handwritten update"));
    let insert = Some("handwritten insert");
    vec![
        page("bare", None, &site.bare, "/plain", readers).without_database(),
        page("idle layer", None, &site.idle, "/plain", readers).without_database(),
        page("plain", idle, offline, "/plain", readers).without_database(),
        page("stranger", idle, offline, "/read", &[]).without_database(),
        handwritten("handwritten ping", Statement::Ping),
        handwritten("handwritten select", Statement::Select),
        page("untouched", select, app, "/untouched", readers),
        page("read", select, app, "/read", readers),
        page("read, 64 at once", select, app, "/read", readers).at_once(),
        page("read, recorded", Some("read"), recorded, "/read", readers),
        page(
            "read, recorded, 64 at once",
            Some("read, 64 at once"),
            recorded,
            "/read",
            readers,
        )
        .at_once(),
        handwritten("handwritten update", Statement::Update),
        page("write", update, app, "/write", writers),
        page("write, 64 at once", update, app, "/write", writers).at_once(),
        page(
            "write, recorded",
            Some("write"),
            recorded,
            "/write",
            writers,
        ),
        handwritten("handwritten insert", Statement::Insert),
        page("new", insert, app, "/new", &[]),
        page("new, 64 at once", insert, app, "/new", &[]).at_once(),
    ]
}
