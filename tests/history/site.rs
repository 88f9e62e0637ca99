//! The server of a history. Every page returns what the session held when it was loaded, and then
//! does one thing to it.

use std::{collections::BTreeMap, convert::Infallible, env, io::Read as _, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Reaper, Session};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;

/// The URL of the database, for a process that is to serve.
pub(crate) const SERVES: &str = "HISTORY_SERVES";
/// Milliseconds that its store waits for the database.
pub(crate) const WAITS: &str = "HISTORY_WAITS";
/// Set where every request is to extend its session.
pub(crate) const TOUCHES: &str = "HISTORY_TOUCHES";
/// Milliseconds between two runs of a reaper of the copy's own, where it is to
/// have one.
pub(crate) const REAPS: &str = "HISTORY_REAPS";
/// Of the stores of a history: short, so that some statements are slower.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);
/// How often a copy looks up the sessions of its sockets.
pub(crate) const LOOKS: Duration = Duration::from_millis(100);
/// Between two frames of a socket.
const FRAMES: Duration = Duration::from_millis(50);
/// What a copy prints before the port that it listens on.
pub(crate) const PORT: &str = "listens on port ";

/// What a page does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, PartialOrd, Ord)]
pub(crate) enum Deed {
    Begin,
    Read,
    Increment,
    Append,
    /// Saves inside the handler, by its own call.
    AppendEarly,
    Insert,
    Remove,
    Clear,
    Cycle,
    CycleAndAppend,
    /// A cycle that signs the owner in.
    Login,
    Destroy,
    /// Ends the owner's sessions, of which there is this one, by the store.
    EndUser,
    /// Appends, and returns a server error, which drops that.
    Fail,
}

/// What a session holds.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Seen {
    /// The life that began this session; `None` if the page found no session.
    pub(crate) owner: Option<u64>,
    pub(crate) count: u64,
    pub(crate) list: Vec<u64>,
    pub(crate) values: BTreeMap<String, u64>,
}

impl Seen {
    fn of(session: &Session) -> Result<Self, Error> {
        let mut seen = Self {
            owner: session.get("owner")?,
            count: session.get("count")?.unwrap_or_default(),
            list: session.get("list")?.unwrap_or_default(),
            values: BTreeMap::new(),
        };
        for key in session.keys() {
            if !["owner", "count", "list"].contains(&key.as_str()) {
                seen.values
                    .extend(session.get(&key)?.map(|value| (key, value)));
            }
        }
        Ok(seen)
    }
}

type Asked = Path<(Deed, u64, String, u64)>;

async fn visit(
    State(store): State<PgSessionStore>,
    session: Session,
    Path((deed, number, key, pause)): Asked,
) -> Result<(StatusCode, Json<Seen>), Error> {
    let seen = Seen::of(&session)?;
    tokio::time::sleep(Duration::from_millis(pause)).await;
    let status = match (deed, seen.owner) {
        (Deed::Begin, None) => begin(&session, number)?,
        (Deed::Begin, Some(_)) => StatusCode::CONFLICT,
        (_, None) => StatusCode::GONE,
        (Deed::EndUser, Some(_)) => end_user(&store, &session).await?,
        (_, Some(owner)) => act(&session, deed, number, &key, owner).await?,
    };
    Ok((status, Json(seen)))
}

/// Half of the sessions begin with a login.
fn begin(session: &Session, owner: u64) -> Result<StatusCode, Error> {
    session.insert("owner", owner)?;
    if owner.is_multiple_of(2) {
        session.login(owner.to_string())?;
    }
    Ok(StatusCode::OK)
}

async fn end_user(store: &PgSessionStore, session: &Session) -> Result<StatusCode, Error> {
    match (session.user_id(), session.id()) {
        (Some(user_id), _) => store.user(user_id).destroy_all().await.map(drop)?,
        (None, Some(id)) => store.destroy(&id).await.map(drop)?,
        (None, None) => {}
    }
    Ok(StatusCode::OK)
}

async fn act(
    session: &Session,
    deed: Deed,
    number: u64,
    key: &str,
    owner: u64,
) -> Result<StatusCode, Error> {
    match deed {
        Deed::Begin | Deed::Read | Deed::EndUser => {}
        Deed::Increment => increment(session)?,
        Deed::Append | Deed::AppendEarly | Deed::Fail => append(session, number)?,
        Deed::Insert => session.insert(key, number)?,
        Deed::Remove => session.remove::<u64>(key).map(drop)?,
        Deed::Clear => {
            session.clear()?;
            session.insert("owner", owner)?;
        }
        Deed::Cycle => session.cycle_id()?,
        Deed::CycleAndAppend => {
            append(session, number)?;
            session.cycle_id()?;
        }
        Deed::Login => session.login(owner.to_string())?,
        Deed::Destroy => session.destroy()?,
    }
    if deed == Deed::AppendEarly {
        session.save().await?;
    }
    Ok(match deed {
        Deed::Fail => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    })
}

fn increment(session: &Session) -> Result<(), Error> {
    let count = session.update("count", |count: Option<u64>| count.unwrap_or_default() + 1);
    count.map(drop)
}

fn append(session: &Session, number: u64) -> Result<(), Error> {
    let list = session.update("list", move |list: Option<Vec<u64>>| {
        let mut list = list.unwrap_or_default();
        list.push(number);
        list
    });
    list.map(drop)
}

/// Sends frames until the session has ended, as a socket does. The last one says why.
async fn socket(session: Session) -> Result<Response, Error> {
    let Some(ended) = session.ended() else {
        return Ok(StatusCode::GONE.into_response());
    };
    let ticks = tokio::time::interval(FRAMES);
    let frames = stream::unfold(Some((ticks, ended)), async |socket| {
        let (mut ticks, mut ended) = socket?;
        let (frame, socket) = tokio::select! {
            biased;
            why = &mut ended => (format!("{why:?}\n"), None),
            _ = ticks.tick() => ("frame\n".to_owned(), Some((ticks, ended))),
        };
        Some((Ok::<_, Infallible>(frame), socket))
    });
    Ok(Body::from_stream(frames).into_response())
}

async fn reap(State(store): State<PgSessionStore>) -> Result<(), Error> {
    Reaper::new(store).run_once().await.map(drop)
}

fn app(store: PgSessionStore, touches: bool) -> Router {
    let layer = PgSessionLayer::new(store.clone());
    let layer = match touches {
        true => layer.touch_interval(Duration::ZERO),
        false => layer,
    };
    Router::new()
        .route("/{deed}/{number}/{key}/{pause}", get(visit))
        .route("/socket", get(socket))
        .layer(layer)
        .route("/reap", get(reap))
        .with_state(store)
}

/// Ends when the other end of its standard input is closed.
fn end_with_the_checker() {
    std::thread::spawn(|| {
        // However the input ended, it has.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
}

async fn serve(url: &str) {
    let timeout = duration(WAITS).expect("it is set with the URL");
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .acquire_timeout(timeout)
        .connect_lazy(url)
        .expect("the checker's URL");
    let store = PgSessionStore::new(pool)
        .timeout(timeout)
        .watch_interval(LOOKS);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    println!("{PORT}{port}");
    if let Some(interval) = duration(REAPS) {
        drop(Reaper::new(store.clone()).interval(interval).spawn());
    }
    let app = app(store, env::var_os(TOUCHES).is_some());
    axum::serve(listener, app).await.expect("it never ends");
}

fn duration(variable: &str) -> Option<Duration> {
    let millis = env::var(variable).ok()?;
    Some(Duration::from_millis(millis.parse().expect("a number")))
}

/// Not a test of its own: a copy of the server is this program, told to run
/// nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_in_a_child_process() {
    let Ok(url) = env::var(SERVES) else {
        return;
    };
    end_with_the_checker();
    serve(&url).await;
}
