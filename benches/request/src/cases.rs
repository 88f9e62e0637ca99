use std::{
    error::Error,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::{
    by_hand::ByHand,
    cost::{Cost, Meter},
    pages::{Cookie, Site, VISITORS, visit},
};

/// One row of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The row whose cost is not ours.
    pub(crate) beside: Option<&'static str>,
    task: Task,
    done: AtomicUsize,
}

enum Task {
    OneByOne(Page),
    AtOnce(Page),
    ByHand(ByHand, PgPool),
}

#[derive(Clone)]
struct Page {
    app: Router,
    path: &'static str,
    cookies: Vec<String>,
    response: Cookie,
    database: Database,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Database {
    None,
    Asked,
}

impl Page {
    fn requests(&self, times: usize) -> Vec<Request<Body>> {
        let request = |at: usize| {
            let mut request = Request::get(self.path);
            if let Some(cookie) = self.cookies.get(at % self.cookies.len().max(1)) {
                request = request.header(header::COOKIE, cookie);
            }
            request.body(Body::empty()).expect("a valid request")
        };
        (0..times).map(request).collect()
    }
}

impl Case {
    fn one_by_one(name: &'static str, beside: Option<&'static str>, page: Page) -> Self {
        Self::new(name, beside, Task::OneByOne(page))
    }

    fn at_once(name: &'static str, beside: Option<&'static str>, page: Page) -> Self {
        Self::new(name, beside, Task::AtOnce(page))
    }

    fn new(name: &'static str, beside: Option<&'static str>, task: Task) -> Self {
        Self {
            name,
            beside,
            task,
            done: AtomicUsize::new(0),
        }
    }

    /// How many times as often it is done as what asks the database.
    pub(crate) fn repetitions(&self) -> usize {
        match &self.task {
            Task::AtOnce(_) => 5,
            Task::OneByOne(_) | Task::ByHand(..) if self.asks_database() => 1,
            Task::OneByOne(_) | Task::ByHand(..) => 50,
        }
    }

    pub(crate) fn asks_database(&self) -> bool {
        match &self.task {
            Task::OneByOne(page) | Task::AtOnce(page) => page.database == Database::Asked,
            Task::ByHand(..) => true,
        }
    }

    pub(crate) fn visits_written(&self) -> usize {
        match &self.task {
            Task::OneByOne(page) | Task::AtOnce(page) if page.path == "/write" => {
                self.done.load(Ordering::Relaxed)
            }
            _ => 0,
        }
    }

    /// Does it some times and returns what one took. What is asked is made
    /// before, and is no part of that.
    pub(crate) async fn round(&self, times: usize) -> Result<Cost, Box<dyn Error>> {
        let before = self.done.fetch_add(times, Ordering::Relaxed);
        match &self.task {
            Task::OneByOne(page) => one_by_one(page, times).await,
            Task::AtOnce(page) => at_once(page, times).await,
            Task::ByHand(statement, pool) => {
                let ids: Vec<_> = (before..before + times)
                    .map(|at| statement.id(at))
                    .collect();
                let meter = Meter::start();
                for id in &ids {
                    statement.send(pool, id).await?;
                }
                Ok(meter.stop(times))
            }
        }
    }
}

async fn one_by_one(page: &Page, times: usize) -> Result<Cost, Box<dyn Error>> {
    let (mut app, requests) = (page.app.clone(), page.requests(times));
    let meter = Meter::start();
    for request in requests {
        visit(&mut app, request, page.response).await?;
    }
    Ok(meter.stop(times))
}

/// As many tasks as visitors, each with one request after the other, as the
/// connections of a server.
async fn at_once(page: &Page, times: usize) -> Result<Cost, Box<dyn Error>> {
    let mut queues: Vec<Vec<_>> = (0..VISITORS).map(|_| Vec::new()).collect();
    for (at, request) in page.requests(times).into_iter().enumerate() {
        queues[at % VISITORS].push(request);
    }
    let response = page.response;
    let mut connections = JoinSet::new();
    let meter = Meter::start();
    for queue in queues {
        let mut app = page.app.clone();
        connections.spawn(async move {
            for request in queue {
                visit(&mut app, request, response).await?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(connection) = connections.join_next().await {
        connection??;
    }
    Ok(meter.stop(times))
}

/// Each after the one that it is set beside.
pub(crate) fn all(site: &Site) -> Vec<Case> {
    let by_hand = |name, statement| {
        let task = Task::ByHand(statement, site.pool.clone());
        Case::new(name, None, task)
    };
    let mut cases = without_database(site);
    cases.push(by_hand("ping by hand", ByHand::Ping));
    cases.push(by_hand("select by hand", ByHand::Select));
    cases.extend(reading(site));
    cases.push(by_hand("update by hand", ByHand::Update));
    cases.extend(writing(site));
    cases.push(by_hand("insert by hand", ByHand::Insert));
    cases.extend(beginning(site));
    cases
}

fn without_database(site: &Site) -> Vec<Case> {
    let plain = |app: &Router| Page {
        app: app.clone(),
        path: "/plain",
        cookies: site.readers.clone(),
        response: Cookie::None,
        database: Database::None,
    };
    let stranger = Page {
        path: "/read",
        cookies: Vec::new(),
        ..plain(&site.without_database)
    };
    let (known, idle) = (plain(&site.without_database), Some("idle layer"));
    vec![
        Case::one_by_one("bare", None, plain(&site.bare)),
        Case::one_by_one("idle layer", None, plain(&site.idle)),
        Case::one_by_one("plain", idle, known),
        Case::one_by_one("stranger", idle, stranger),
    ]
}

fn page(site: &Site, path: &'static str, cookies: &[String]) -> Page {
    Page {
        app: site.with_database.clone(),
        path,
        cookies: cookies.to_vec(),
        response: Cookie::None,
        database: Database::Asked,
    }
}

fn recorded(site: &Site, path: &'static str, cookies: &[String]) -> Page {
    Page {
        app: site.recorded.clone(),
        ..page(site, path, cookies)
    }
}

fn reading(site: &Site) -> [Case; 5] {
    let untouched = page(site, "/untouched", &site.readers);
    let (read, select) = (page(site, "/read", &site.readers), Some("select by hand"));
    [
        Case::one_by_one("untouched", select, untouched),
        Case::one_by_one("read", select, read.clone()),
        Case::at_once("read, 64 at once", select, read),
        Case::one_by_one(
            "read, recorded",
            Some("read"),
            recorded(site, "/read", &site.readers),
        ),
        Case::at_once(
            "read, recorded, 64 at once",
            Some("read, 64 at once"),
            recorded(site, "/read", &site.readers),
        ),
    ]
}

fn writing(site: &Site) -> [Case; 3] {
    let (write, update) = (page(site, "/write", &site.writers), Some("update by hand"));
    [
        Case::one_by_one("write", update, write.clone()),
        Case::at_once("write, 64 at once", update, write),
        Case::one_by_one(
            "write, recorded",
            Some("write"),
            recorded(site, "/write", &site.writers),
        ),
    ]
}

fn beginning(site: &Site) -> [Case; 2] {
    let insert = Some("insert by hand");
    let new = Page {
        response: Cookie::Made,
        ..page(site, "/new", &[])
    };
    [
        Case::one_by_one("new", insert, new.clone()),
        Case::at_once("new, 64 at once", insert, new),
    ]
}
