//! A process or one of its runtimes stops while requests are in flight.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    sync::{Arc, mpsc},
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    response::sse::{Event, Sse},
    routing::get,
};
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};
use futures_util::{StreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::{Semaphore, oneshot, watch},
    task::{JoinHandle, JoinSet},
};

use crate::support::{
    Browser, Life, Site, app,
    page::{app_with, patiently, until},
    site::pool,
};

/// A site on a port, until the test stops it.
struct Serving {
    port: u16,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Serving {
    async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (stop, stopped) = oneshot::channel();
        let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
            stopped.await.expect("the test stops it");
        });
        Self {
            port,
            stop,
            task: tokio::spawn(serving.into_future()),
        }
    }

    /// Stops it, and returns when it accepts no new connection.
    async fn stop(self) -> JoinHandle<io::Result<()>> {
        self.stop.send(()).expect("it serves");
        let port = self.port;
        until(async || TcpStream::connect(("127.0.0.1", port)).await.is_err()).await;
        self.task
    }
}

/// The status of the response to a visit over TCP.
async fn visit(port: u16, browser: &Browser, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (name, token) = &browser.jar[0];
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\
         cookie: {name}={token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    let status = reply.split(' ').nth(1).unwrap_or_default();
    status.parse().map_err(io::Error::other)
}

/// A page that counts, and reports that it did.
fn counting(layer: PgSessionLayer) -> (Router, Arc<Semaphore>) {
    let counted = Arc::new(Semaphore::new(0));
    let tell = Arc::clone(&counted);
    let page = async move |session: Session| {
        let n = session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1);
        tell.add_permits(1);
        n.map(|n| n.to_string())
    };
    (app_with(layer, page), counted)
}

async fn visitors(app: &Router, number: usize) -> Vec<Browser> {
    let mut visitors = vec![Browser::new(app); number];
    for visitor in &mut visitors {
        visitor.get("/increment/n").await;
    }
    visitors
}

#[tokio::test]
async fn a_graceful_shutdown_finishes_the_commits_in_flight() {
    let site = Site::new().await;
    let (app, counted) = counting(site.layer());
    let visitors = visitors(&app, 16).await;
    let serving = Serving::start(app).await;
    let lock = site.lock_rows().await;
    let mut visits = JoinSet::new();
    for visitor in visitors {
        let port = serving.port;
        visits.spawn(async move { visit(port, &visitor, "/page").await });
    }
    let all = patiently(counted.acquire_many(16)).await;
    all.expect("never closed").forget();
    let stopping = serving.stop().await;
    assert!(!stopping.is_finished());
    lock.rollback().await.expect("a rollback");
    patiently(stopping)
        .await
        .expect("no panic")
        .expect("an end");
    // Nothing is left to be done after that: the process could end here.
    let counted = "SELECT count(*) FROM session WHERE session ->> 'n' = '2'";
    let counted: i64 = sqlx::query_scalar(counted)
        .fetch_one(&site.pool)
        .await
        .expect("a count");
    assert_eq!(counted, 16);
    let replies = visits.join_all().await;
    assert!(
        replies.iter().all(|reply| matches!(reply, Ok(200))),
        "{replies:?}"
    );
}

#[tokio::test]
async fn a_graceful_shutdown_waits_no_longer_than_the_timeout_of_the_store() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let site = Site::new().await;
    let layer = PgSessionLayer::new(site.store.clone().timeout(TIMEOUT));
    let (app, counted) = counting(layer);
    let visitor = visitors(&app, 1).await.remove(0);
    let serving = Serving::start(app).await;
    let lock = site.lock_rows().await;
    let port = serving.port;
    let visiting = tokio::spawn(async move { visit(port, &visitor, "/page").await });
    let one = patiently(counted.acquire()).await;
    one.expect("never closed").forget();
    let told = Instant::now();
    let stopping = serving.stop().await;
    patiently(stopping)
        .await
        .expect("no panic")
        .expect("an end");
    // Loaded machines are slow, not five times as slow as the timeout.
    assert!(told.elapsed() < TIMEOUT * 5, "{:?}", told.elapsed());
    let reply = visiting.await.expect("no panic");
    assert_eq!(reply.expect("a response"), 503);
    lock.rollback().await.expect("a rollback");
}

/// A stream without an end, and a client that reads it.
#[tokio::test]
async fn a_graceful_shutdown_ends_open_streams_that_watch_for_it() {
    let site = Site::new().await;
    let (ends, ending) = watch::channel(false);
    let events = async move |session: Session| {
        let id = session.id().map(|id| Event::default().data(&id));
        let first = stream::iter(id.map(Ok::<_, Infallible>));
        let mut ending = ending.clone();
        let ended = async move { drop(ending.wait_for(|ended| *ended).await) };
        Sse::new(first.chain(stream::pending()).take_until(ended))
    };
    let app = app_with(site.layer(), events);
    let visitor = visitors(&app, 1).await.remove(0);
    let serving = Serving::start(app).await;
    let mut stream = TcpStream::connect(("127.0.0.1", serving.port))
        .await
        .expect("it serves");
    let (name, token) = &visitor.jar[0];
    let request =
        format!("GET /page HTTP/1.1\r\nhost: shop.example\r\ncookie: {name}={token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a way");
    let mut news = String::new();
    while !news.contains("data: ") {
        let mut part = [0; 1024];
        let length = patiently(stream.read(&mut part)).await.expect("news");
        news.push_str(&String::from_utf8_lossy(&part[..length]));
    }
    let stopping = serving.stop().await;
    ends.send_replace(true);
    patiently(stopping)
        .await
        .expect("no panic")
        .expect("an end");
}

#[derive(Clone, Copy, Debug)]
enum Flavour {
    OneThread,
    Threads(usize),
}

const FLAVOURS: [Flavour; 3] = [Flavour::OneThread, Flavour::Threads(1), Flavour::Threads(4)];

impl Flavour {
    fn runtime(self) -> Runtime {
        let mut builder = match self {
            Self::OneThread => Builder::new_current_thread(),
            Self::Threads(_) => Builder::new_multi_thread(),
        };
        if let Self::Threads(threads) = self {
            builder.worker_threads(threads);
        }
        builder.enable_all().build().expect("a runtime")
    }
}

#[test]
fn a_session_lives_its_whole_life_on_every_kind_of_runtime() {
    for flavour in FLAVOURS {
        flavour.runtime().block_on(async {
            let site = Site::new().await;
            let life = Life::of(&site.pool, "public.session");
            life.is_whole(&site.store).await;
            let mut browser = site.browser();
            browser.get("/increment/n").await;
            let mut visits = JoinSet::new();
            for _ in 0..32 {
                let browser = browser.clone();
                visits.spawn(async move { browser.peek("/increment/n").await.status });
            }
            let replies = visits.join_all().await;
            assert!(replies.iter().all(http::StatusCode::is_success));
            let n = browser.get("/get/n").await.body;
            assert_eq!(n, "33", "{flavour:?}");
        });
    }
}

/// A store whose clones are used from two runtimes, and a site beside both.
struct Divided {
    beside: Runtime,
    site: Site,
    store: PgSessionStore,
}

impl Divided {
    /// So that nothing but the end of a runtime ends a wait.
    const NEVER: Duration = Duration::from_secs(600);
    const CONNECTIONS: u32 = 4;

    fn new(runtime: &Runtime) -> Self {
        let beside = Flavour::Threads(1).runtime();
        let site = beside.block_on(Site::new());
        let pool = runtime.block_on(pool(site.database.url(), Self::CONNECTIONS));
        Self {
            store: PgSessionStore::new(pool).timeout(Self::NEVER),
            beside,
            site,
        }
    }

    fn app(&self) -> Router {
        app(PgSessionLayer::new(self.store.clone()))
    }

    /// Returns when a statement of `working` waits for a lock. The other runtime checks this, because
    /// the connections belong to it. A runtime of one thread works only inside of `block_on`.
    fn until_blocked(&self, working: &Runtime) {
        let (seen, is_seen) = oneshot::channel();
        thread::scope(|threads| {
            threads.spawn(|| {
                self.beside.block_on(self.site.blocked(1));
                seen.send(()).expect("the test waits");
            });
            working.block_on(is_seen).expect("no panic");
        });
    }

    fn end(self) {
        let Self {
            beside,
            site,
            store,
        } = self;
        beside.block_on(async move { drop((site, store)) });
    }
}

/// Whether a new visitor is served three times, each time with what was saved.
async fn counts_to_three(app: &Router) -> bool {
    let mut browser = Browser::new(app);
    for n in ["1", "2", "3"] {
        let reply = patiently(browser.get("/increment/n")).await;
        if reply.status == 503 {
            return false;
        }
        assert_eq!(reply.body, n);
    }
    true
}

/// Whatever the first one had begun is as if its process had been killed.
#[test]
fn a_store_is_of_use_after_the_runtime_that_it_was_first_used_from() {
    for flavour in FLAVOURS {
        let first = flavour.runtime();
        let divided = Divided::new(&first);
        let app = divided.app();
        let browser = first.block_on(visitors(&app, 1)).remove(0);
        let lock = divided.beside.block_on(divided.site.lock_rows());
        for page in ["/increment/n", "/cycle", "/increment/n"] {
            let visiting = browser.clone();
            first.spawn(async move { visiting.peek(page).await });
        }
        divided.until_blocked(&first);
        drop(first);
        divided.beside.block_on(async {
            lock.rollback().await.expect("a rollback");
            divided.site.settled().await;
        });
        let document = divided.beside.block_on(divided.site.rows().document());
        // The statement that was in flight is carried out, with as many of the
        // increments as were there by then; what waited is not.
        assert!([1, 2, 3].contains(&document["n"].as_i64().expect("a number")));
        let second = Flavour::OneThread.runtime();
        // The pool's look at an idle connection of a runtime that has ended can
        // succeed by luck, so each can cost one request.
        second.block_on(async {
            let mut failures = 0;
            while !counts_to_three(&app).await {
                failures += 1;
                assert!(failures <= Divided::CONNECTIONS, "{flavour:?}");
            }
        });
        drop((app, browser));
        divided.end();
        drop(second);
    }
}

/// Runs the work on a runtime of a thread of its own, which the test stops while requests are in
/// flight.
struct Elsewhere {
    end: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Elsewhere {
    fn run<F: Future<Output = ()>>(
        flavour: Flavour,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        let (end, is_to_end) = oneshot::channel();
        let (begun, has_begun) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = flavour.runtime();
            runtime.block_on(async {
                work().await;
                begun.send(()).expect("the test waits");
                is_to_end.await.expect("the test stops it");
            });
        });
        has_begun.recv().expect("no panic");
        Self { end, thread }
    }

    fn end(self) {
        self.end.send(()).expect("it runs");
        self.thread.join().expect("no panic");
    }
}

/// Their statement would have been sent by the lane of the other runtime, which
/// is of one thread, so that it is known what its first statement takes along.
#[test]
fn requests_that_wait_for_another_runtime_get_a_response_when_it_ends() {
    let runtime = Flavour::OneThread.runtime();
    let divided = Divided::new(&runtime);
    let beside = divided.beside.handle().clone();
    // Connections that are dropped here are released there.
    let _context = beside.enter();
    let app = divided.app();
    let browsers = runtime.block_on(visitors(&app, 17));
    let lock = beside.block_on(lock_table(&divided.site));
    let (crowd, last) = (browsers[1..].to_vec(), browsers[0].clone());
    let elsewhere = Elsewhere::run(Flavour::OneThread, async move || {
        for visitor in crowd {
            spawn_polled(async move { visitor.peek("/get/n").await }).await;
        }
    });
    // The connections are this runtime's, so it has to be at work.
    runtime.block_on(until(async || divided.site.is_blocked().await));
    let waiting = runtime.block_on(spawn_polled(async move { last.peek("/get/n").await }));
    elsewhere.end();
    let reply = runtime.block_on(patiently(waiting)).expect("no panic");
    assert_eq!(reply.status, 503);
    beside.block_on(lock.rollback()).expect("a rollback");
    let reply = runtime.block_on(patiently(browsers[0].peek("/get/n")));
    assert_eq!(reply.body, "1");
    drop((app, browsers));
    divided.end();
}

/// A task that has been polled once already, so that what it asks for is
/// submitted.
async fn spawn_polled<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut future = Box::pin(future);
    poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        assert!(polled.is_pending(), "it does not wait");
        Poll::Ready(())
    })
    .await;
    tokio::spawn(future)
}

async fn lock_table(site: &Site) -> sqlx::Transaction<'static, sqlx::Postgres> {
    site.open_transaction("LOCK TABLE session").await
}

/// The worker of their session ends with its runtime.
#[test]
fn a_change_that_waits_for_a_worker_of_another_runtime_gets_a_response_when_it_ends() {
    for flavour in FLAVOURS {
        let runtime = Flavour::OneThread.runtime();
        let divided = Divided::new(&runtime);
        let beside = divided.beside.handle().clone();
        let _context = beside.enter();
        let (app, counted) = counting(PgSessionLayer::new(divided.store.clone()));
        let browser = runtime.block_on(visitors(&app, 1)).remove(0);
        let lock = beside.block_on(divided.site.lock_rows());
        let visiting = browser.clone();
        let elsewhere = Elsewhere::run(flavour, async move || {
            tokio::spawn(async move { visiting.peek("/increment/n").await });
        });
        runtime.block_on(divided.site.blocked(1));
        let visiting = browser.clone();
        let waiting = runtime.spawn(async move { visiting.peek("/page").await });
        runtime.block_on(async {
            counted.acquire().await.expect("never closed").forget();
            tokio::task::yield_now().await;
        });
        elsewhere.end();
        let reply = runtime.block_on(patiently(waiting)).expect("no panic");
        assert_eq!(reply.status, 503, "{flavour:?}");
        beside.block_on(lock.rollback()).expect("a rollback");
        let reply = runtime.block_on(patiently(browser.peek("/page")));
        assert_eq!(reply.status, 200, "{flavour:?}");
        drop((app, browser));
        divided.end();
    }
}

/// Works when it is called first, and panics when it is replayed.
fn works_once(session: &Session) -> Result<(), Error> {
    let mut calls = 0;
    let update = move |_: Option<u64>| {
        calls += 1;
        assert!(calls < 2, "by the test");
        0_u64
    };
    session.update("poison", update).map(drop)
}

async fn replayed(session: Session) -> Result<(), Error> {
    works_once(&session)
}

async fn replayed_and_cycled(session: Session) -> Result<(), Error> {
    works_once(&session)?;
    session.cycle_id()
}

/// While the first save waits for its lock, others come, which are replayed on
/// what it wrote, all in one save.
#[tokio::test]
async fn a_panic_in_a_replayed_update_harms_no_other_request_of_the_same_save() {
    let site = Site::new().await;
    let (app, counted) = counting(site.layer());
    let panics = Router::new()
        .route("/replayed", get(replayed))
        .route("/replayed_and_cycled", get(replayed_and_cycled))
        .layer(site.layer());
    let browser = visitors(&app, 1).await.remove(0);
    let lock = site.lock_rows().await;
    let mut saves = JoinSet::new();
    let go = |page: &'static str, app: &Router| {
        let browser = browser.at(app);
        async move { (page, browser.peek(page).await.status.as_u16()) }
    };
    saves.spawn(go("/page", &app));
    site.blocked(1).await;
    for _ in 0..3 {
        saves.spawn(go("/page", &app));
        saves.spawn(go("/replayed", &panics));
    }
    let all = patiently(counted.acquire_many(4)).await;
    all.expect("never closed").forget();
    lock.rollback().await.expect("a rollback");
    for (page, status) in saves.join_all().await {
        assert_eq!(status, if page == "/page" { 200 } else { 500 }, "{page}");
    }
    let cycled = go("/replayed_and_cycled", &panics);
    assert_eq!(cycled.await.1, 500);
    // Neither the queue of the session nor any lock of the process is lost.
    assert_eq!(browser.peek("/page").await.body, "6");
    let expected = serde_json::json!({"n": 6});
    assert_eq!(site.rows().document().await, expected);
}
