//! Where programs run: stores on tables of their own, requests whose handlers
//! do one step at a time, and what is in the table afterwards.

use std::{
    collections::{BTreeMap, HashMap},
    future::poll_fn,
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum_pg_session::{
    CookieLifetime, Express, FailurePolicy, Koa, LazySession, PgSessionLayer, PgSessionStore,
    Session, SessionId, SessionLimitPolicy, SigningKeys,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cookie::Cookie;
use http::{Request, Response, StatusCode, header};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::{
    calls,
    program::{
        BAD, BeforeSave, Call, CookieChoice, Deployment, End, ExpiryChoice, Format, Limit, Options,
        Taking,
    },
    reference::{Seen, absolute_timeout, idle_timeout, own_timeouts},
};

/// How long a store waits for the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Patience {
    Long,
    Short,
}

/// Statements and tables of one lane, where one program runs at a time.
pub(crate) struct Lane {
    number: usize,
    pools: [PgPool; 2],
    admin: PgConnection,
    locker: PgConnection,
    stores: HashMap<(Format, Limit, u8, Patience), PgSessionStore>,
    options: PgConnectOptions,
    of_stores: PgConnectOptions,
    has_pooler: bool,
}

/// A row as it is in the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableRow {
    pub(crate) id: String,
    pub(crate) values: BTreeMap<String, Value>,
    /// Empty where the way leads nowhere.
    pub(crate) successor: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) is_live: bool,
    pub(crate) times: Times,
    /// When it expires and how long its cookie lives, by its own choice. `None`
    /// in Koa's format, and for what no program chooses.
    pub(crate) terms: Option<(ExpiryChoice, CookieChoice)>,
}

/// The times of a row, in seconds from now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Times {
    pub(crate) left: f64,
    /// Since it began, if the table tells.
    pub(crate) age: Option<f64>,
    /// Since it was extended, if the table tells.
    pub(crate) unseen: Option<f64>,
}

/// A cookie of a response.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SetCookie {
    pub(crate) name: String,
    /// Empty to remove it.
    pub(crate) value: String,
    /// Whether the browser keeps it when it is closed.
    pub(crate) is_kept: bool,
}

/// What a browser gets.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry: Option<u64>,
    pub(crate) cookies: Vec<SetCookie>,
}

enum Order {
    Load(usize),
    Call(usize, Call, u64),
    BeginSave(usize),
    GiveUpSave,
    AwaitSave,
    End(End),
}

type Sessions = Arc<Mutex<Vec<Option<Session>>>>;

/// A request that was begun.
pub(crate) struct Running {
    orders: mpsc::UnboundedSender<Order>,
    replies: mpsc::UnboundedReceiver<Seen>,
    cancel: Option<oneshot::Sender<StatusCode>>,
    task: JoinHandle<Response<()>>,
    pub(crate) sessions: Sessions,
    own: OwnSessions,
    is_saved: Arc<AtomicBool>,
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Of one process of the application.
fn pool(options: &PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(5)
        .connect_lazy_with(options.clone())
}

impl Lane {
    /// The stores connect `through` a transaction pooler, if there is one.
    pub(crate) async fn new(url: &str, through: Option<&str>, number: usize) -> Self {
        let named = |url: &str| {
            let options: PgConnectOptions = url.parse().expect("a URL");
            options
                .application_name(&format!("model {number}"))
                .statement_cache_capacity(500)
        };
        let options = named(url);
        let of_stores = named(through.unwrap_or(url));
        let connect = || PgConnection::connect_with(&options);
        let admin_options = options.clone().application_name("model admin");
        let mut lane = Self {
            number,
            pools: [pool(&of_stores), pool(&of_stores)],
            admin: PgConnection::connect_with(&admin_options)
                .await
                .expect("a connection"),
            locker: connect().await.expect("a connection"),
            stores: HashMap::new(),
            options: options.clone(),
            of_stores,
            has_pooler: through.is_some(),
        };
        lane.make_tables().await;
        lane
    }

    pub(crate) fn table(&self, format: Format) -> String {
        let letter = match format {
            Format::Native => 'n',
            Format::Koa => 'k',
            Format::Express => 'e',
            Format::ThreeColumns => 't',
        };
        format!("model_{letter}_{}", self.number)
    }

    async fn make_tables(&mut self) {
        let three = self.table(Format::ThreeColumns);
        let sql = format!(
            "CREATE TABLE {three} (id text PRIMARY KEY, expiry timestamptz NOT NULL, session json)"
        );
        execute(&mut self.admin, &sql).await;
        for format in [Format::Native, Format::Koa, Format::Express] {
            let store = self.store_of(format, Limit::None, 0);
            store.migrate().await.expect("a new table");
        }
        for format in FORMATS {
            // What a crash of the server would lose, nobody wants.
            let sql = format!("ALTER TABLE {} SET UNLOGGED", self.table(format));
            execute(&mut self.admin, &sql).await;
        }
    }

    fn store_of(&self, format: Format, limit: Limit, number: u8) -> PgSessionStore {
        let pool = self.pools[usize::from(number % 2)].clone();
        let store = PgSessionStore::new(pool)
            .table(self.table(format))
            .create_table(format != Format::ThreeColumns)
            .behind_transaction_pooler(self.has_pooler)
            .timeout(Duration::from_secs(20));
        let store = match format {
            Format::Koa => store.koa(Koa::unsigned()),
            Format::Express => store
                .express(Express::new(["secret"]).max_age(Duration::from_hours(24)))
                .tombstones(true),
            Format::Native | Format::ThreeColumns => store,
        };
        let sessions = |n| NonZeroU32::new(n).expect("not zero");
        match limit {
            Limit::None => store,
            Limit::EndOldest(n) => {
                store.max_sessions_per_user(sessions(n), SessionLimitPolicy::EndOldest)
            }
            Limit::Refuse(n) => {
                store.max_sessions_per_user(sessions(n), SessionLimitPolicy::Refuse)
            }
        }
    }

    pub(crate) async fn store(
        &mut self,
        options: &Options,
        number: u8,
        patience: Patience,
    ) -> PgSessionStore {
        let key = (options.format, options.limit, number % 2, patience);
        if let Some(store) = self.stores.get(&key) {
            return store.clone();
        }
        let store = match patience {
            Patience::Long => self.store_of(key.0, key.1, key.2),
            Patience::Short => self
                .store_of(key.0, key.1, key.2)
                .timeout(Duration::from_millis(400)),
        };
        store.check().await.expect("a table");
        self.stores.insert(key, store.clone());
        store
    }

    /// Empties the table of this format.
    pub(crate) async fn clear(&mut self, format: Format) {
        let table = self.table(format);
        self.run(&format!("DELETE FROM {table}")).await;
        if format == Format::Express {
            self.run(&format!("DELETE FROM {table}_tombstones")).await;
        }
    }

    pub(crate) async fn vacuum(&mut self) {
        for format in FORMATS {
            let sql = format!("VACUUM {}", self.table(format));
            execute(&mut self.admin, &sql).await;
        }
    }

    async fn run(&mut self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&mut self.admin)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(crate) async fn rows(&mut self, format: Format) -> Vec<TableRow> {
        let (user, created, seen) = match format {
            Format::ThreeColumns => ("NULL::text", "NULL::timestamptz", "NULL::timestamptz"),
            Format::Native | Format::Koa | Format::Express => ("user_id", "created", "last_seen"),
        };
        let [id, expiry, session] = columns(format);
        let sql = format!(
            "SELECT {id} AS id, {session}::text AS session, {user} AS user_id,
                    {expiry} > now() AS is_live,
                    extract(epoch FROM {expiry} - now())::float8 AS seconds_left,
                    extract(epoch FROM now() - {created})::float8 AS age,
                    extract(epoch FROM now() - {seen})::float8 AS unseen FROM {}",
            self.table(format)
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&mut self.admin)
            .await
            .expect("rows");
        rows.into_iter()
            .map(|row| {
                let text: String = row.get("session");
                let mut values: BTreeMap<String, Value> =
                    serde_json::from_str(&text).expect("an object");
                let own = match format {
                    Format::Koa | Format::Express => {
                        values.remove("passport");
                        values.remove("cookie")
                    }
                    Format::Native | Format::ThreeColumns => values.remove("_session"),
                };
                let successor = own
                    .as_ref()
                    .and_then(|own| own.get("successor"))
                    .and_then(|successor| successor.as_str());
                TableRow {
                    id: row.get("id"),
                    values,
                    successor: successor.map(str::to_owned),
                    user: row.get("user_id"),
                    is_live: row.get("is_live"),
                    times: Times {
                        left: row.get("seconds_left"),
                        age: row.get("age"),
                        unseen: row.get("unseen"),
                    },
                    terms: match format {
                        Format::Koa | Format::Express => None,
                        Format::Native | Format::ThreeColumns => terms(own.as_ref()),
                    },
                }
            })
            .collect()
    }

    /// The row expires a second ago.
    pub(crate) async fn expire(&mut self, format: Format, id: &str) {
        let [column, expiry, _] = columns(format);
        let sql = format!(
            "UPDATE {} SET {expiry} = now() - interval '1 second' WHERE {column} = '{id}'",
            self.table(format)
        );
        self.run(&sql).await;
    }

    /// So many seconds pass for all rows.
    pub(crate) async fn time_passes(&mut self, format: Format, seconds: u32) {
        let columns: &[&str] = match format {
            Format::ThreeColumns => &["expiry"],
            Format::Native | Format::Koa => &["expiry", "created", "last_seen"],
            Format::Express => &["expire", "created", "last_seen"],
        };
        let changes: Vec<_> = columns
            .iter()
            .map(|column| format!("{column} = {column} - interval '{seconds} seconds'"))
            .collect();
        let sql = format!("UPDATE {} SET {}", self.table(format), changes.join(", "));
        self.run(&sql).await;
    }

    /// Every forwarding is older by so many seconds.
    pub(crate) async fn age_forwardings(&mut self, format: Format, seconds: u32) {
        if format.is_foreign() {
            return;
        }
        let sql = format!(
            "UPDATE {} SET expiry = expiry - interval '{seconds} seconds'
             WHERE session::jsonb #> '{{_session,successor}}' IS NOT NULL",
            self.table(format)
        );
        self.run(&sql).await;
    }

    /// From now on every write of the table waits.
    pub(crate) async fn lock(&mut self, format: Format) {
        let sql = format!("BEGIN; LOCK TABLE {} IN EXCLUSIVE MODE", self.table(format));
        execute(&mut self.locker, &sql).await;
    }

    pub(crate) async fn unlock(&mut self) {
        execute(&mut self.locker, "COMMIT").await;
    }

    /// From now on whoever has inserted a row waits before the commit.
    pub(crate) async fn hold_commits(&mut self, format: Format) {
        let (table, number) = (self.table(format), self.number);
        let sql = format!(
            "CREATE OR REPLACE FUNCTION hold_{number}() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared({number}); RETURN NULL; END $$;
             DROP TRIGGER IF EXISTS hold ON {table};
             CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON {table}
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold_{number}()"
        );
        execute(&mut self.admin, &sql).await;
        let sql = format!("BEGIN; SELECT pg_advisory_xact_lock({number})");
        execute(&mut self.locker, &sql).await;
    }

    pub(crate) async fn release_commits(&mut self, format: Format) {
        self.unlock().await;
        let sql = format!("DROP TRIGGER hold ON {}", self.table(format));
        execute(&mut self.admin, &sql).await;
    }

    /// How many statements wait for the table.
    async fn waiting(&mut self, format: Format) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE relation = '{}'::regclass AND NOT granted",
            self.table(format)
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut self.admin)
            .await
            .expect("a count")
    }

    /// Returns when a statement waits for the table, or the save is over.
    pub(crate) async fn blocked(&mut self, format: Format, running: &Running) {
        while self.waiting(format).await == 0 && !running.is_saved() && !running.is_over() {
            tokio::task::yield_now().await;
        }
    }

    /// Returns when no store of this lane has a statement in flight.
    pub(crate) async fn quiet(&mut self) {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE application_name = $1 AND state <> 'idle'";
        let mut times = 0;
        while times < 3 {
            let busy: i64 = sqlx::query_scalar(sql)
                .bind(format!("model {}", self.number))
                .fetch_one(&mut self.admin)
                .await
                .expect("a count");
            times = if busy == 0 { times + 1 } else { 0 };
            tokio::task::yield_now().await;
        }
    }

    /// For a program that was given up: what it left may hold connections.
    pub(crate) async fn renew(&mut self) {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE application_name = $1";
        sqlx::query(sql)
            .bind(format!("model {}", self.number))
            .execute(&mut self.admin)
            .await
            .expect("a count");
        self.locker = PgConnection::connect_with(&self.options)
            .await
            .expect("a connection");
        self.stores.clear();
        self.pools = [pool(&self.of_stores), pool(&self.of_stores)];
    }
}

pub(crate) fn cookie_name(options: &Options, layer: usize) -> String {
    match (options.format, layer) {
        (Format::Koa, _) => "koa.sid".into(),
        (Format::Express, _) => "connect.sid".into(),
        (_, 0) => "__Host-a".into(),
        _ => "__Host-b".into(),
    }
}

/// The value of a cookie that opens no session. In Express's format it is signed.
pub(crate) fn unknown_token(format: Format) -> String {
    match format {
        Format::Express => format!(
            "s%3A{}.gUf6YqwbkuK79JEKjGAHAllOE30BRjLAyX5FJy7n2q0",
            "A".repeat(43)
        ),
        _ => "A".repeat(43),
    }
}

const FORMATS: [Format; 4] = [
    Format::Native,
    Format::Koa,
    Format::Express,
    Format::ThreeColumns,
];

/// The names of the three columns that every table has.
fn columns(format: Format) -> [&'static str; 3] {
    match format {
        Format::Express => ["sid", "expire", "sess"],
        _ => ["id", "expiry", "session"],
    }
}

/// The id of the row that the cookie opens.
pub(crate) fn row_id(options: &Options, name: &str, cookie: &str) -> String {
    match options.format {
        Format::Koa => return format!("koa:sess:{cookie}"),
        Format::Express => {
            let signed = cookie.strip_prefix("s%3A").unwrap_or_default();
            return signed.split('.').next().unwrap_or_default().to_owned();
        }
        Format::Native | Format::ThreeColumns => {}
    }
    let token = cookie.split('.').next().unwrap_or_default();
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{name}={token}")))
}

pub(crate) fn handle(options: &Options, id: &str) -> SessionId {
    let text = match options.format {
        Format::Koa | Format::Express => URL_SAFE_NO_PAD.encode(Sha256::digest(id)),
        Format::Native | Format::ThreeColumns => id.to_owned(),
    };
    text.parse().expect("a handle")
}

/// What the member of the crate says of the session's own choices.
fn terms(own: Option<&Value>) -> Option<(ExpiryChoice, CookieChoice)> {
    let member = |name| own.and_then(|own| own.get(name));
    let seconds = |name| member(name).and_then(Value::as_f64);
    let chosen = (seconds("idle"), seconds("absolute"));
    let expiry = [
        ExpiryChoice::Default,
        ExpiryChoice::Idle,
        ExpiryChoice::Timeouts,
    ]
    .into_iter()
    .find(|choice| own_timeouts(*choice) == chosen)?;
    let cookie = match member("cookie").map(Value::as_str) {
        None => CookieChoice::Default,
        Some(Some("browser")) => CookieChoice::Browser,
        Some(Some("persistent")) => CookieChoice::Session,
        Some(_) => return None,
    };
    Some((expiry, cookie))
}

/// The sessions of a request, for the check of a layer.
type OwnSessions = Arc<Mutex<Vec<LazySession>>>;

fn layer(
    store: PgSessionStore,
    options: &Options,
    deployment: Deployment,
    number: usize,
    own: &OwnSessions,
) -> PgSessionLayer {
    let mut layer = PgSessionLayer::new(store).allow_empty(options.allow_empty);
    if !options.format.is_foreign() {
        layer = layer.cookie_name(cookie_name(options, number));
    }
    if options.touches_always {
        layer = layer.touch_interval(Duration::ZERO);
    }
    if options.browser_cookies {
        layer = layer.cookie_lifetime(CookieLifetime::BrowserSession);
    }
    if let Some(idle) = idle_timeout(deployment) {
        layer = layer.idle_timeout(Duration::from_secs_f64(idle));
    }
    if let Some(absolute) = absolute_timeout(deployment)
        && options.format != Format::ThreeColumns
    {
        layer = layer.absolute_timeout(Duration::from_secs_f64(absolute));
    }
    if options.valid_if {
        let own = Arc::clone(own);
        layer =
            layer.valid_if(move |session: Session, _| {
                let lazy = own.lock().expect("no panic").get(number).cloned();
                async move {
                    calls::refuses_its_check(&session, lazy).await && !session.contains_key(BAD)
                }
            });
    }
    layer = match options.before_save {
        BeforeSave::None => layer,
        BeforeSave::Fails => layer.before_save(calls::refuse),
        BeforeSave::Writes => layer.before_save(calls::mark),
    };
    if options.signed {
        layer = layer.signing_keys(SigningKeys::new([[7_u8; 32]]));
    }
    if options.saves_on_failure {
        layer = calls::saves_on_failure(layer);
    }
    if options.continues_on_failure {
        layer = layer
            .on_load_failure(FailurePolicy::Continue)
            .on_save_failure(FailurePolicy::Continue);
    }
    layer
}

/// What a handler holds.
struct Handler {
    lazy: Vec<LazySession>,
    sessions: Sessions,
    saving: Option<Pin<Box<dyn Future<Output = Seen> + Send>>>,
    saved: Option<Seen>,
    is_saved: Arc<AtomicBool>,
    replies: mpsc::UnboundedSender<Seen>,
}

impl Handler {
    fn session(&self, layer: usize) -> impl Future<Output = Result<Session, Seen>> + Send + use<> {
        let (sessions, lazy) = (Arc::clone(&self.sessions), self.lazy[layer].clone());
        async move {
            let known = sessions.lock().expect("no panic")[layer].clone();
            if let Some(session) = known {
                return Ok(session);
            }
            let loaded = lazy.load().await;
            let session = loaded.map_err(|error| calls::seen_error(&error))?;
            sessions.lock().expect("no panic")[layer] = Some(session.clone());
            Ok(session)
        }
    }

    async fn follow(mut self, mut orders: mpsc::UnboundedReceiver<Order>) -> Response<String> {
        loop {
            let order = match &mut self.saving {
                None => orders.recv().await,
                Some(saving) => tokio::select! {
                    biased;
                    seen = saving => {
                        self.saving = None;
                        self.saved = Some(seen);
                        self.is_saved.store(true, Ordering::SeqCst);
                        continue;
                    }
                    order = orders.recv() => order,
                },
            };
            let Some(order) = order else {
                return reply(500);
            };
            let seen = match order {
                Order::End(end) => return end_with(end),
                Order::Load(layer) => match self.session(layer).await {
                    Ok(_) => Seen::Done,
                    Err(seen) => seen,
                },
                Order::Call(layer, call, tag) => match self.session(layer).await {
                    Ok(session) if calls::commits(&call) => {
                        calls::commit(&session, &call, tag).await
                    }
                    Ok(session) => calls::perform(&session, &call, tag),
                    Err(seen) => seen,
                },
                Order::BeginSave(layer) => match self.session(layer).await {
                    Ok(session) => {
                        self.saved = None;
                        self.is_saved.store(false, Ordering::SeqCst);
                        self.saving =
                            Some(Box::pin(async move { calls::done(session.save().await) }));
                        Seen::Done
                    }
                    Err(seen) => seen,
                },
                Order::GiveUpSave => {
                    self.saving = None;
                    Seen::Done
                }
                Order::AwaitSave => match (self.saved.take(), self.saving.take()) {
                    (Some(seen), _) => seen,
                    (None, Some(saving)) => saving.await,
                    (None, None) => Seen::Done,
                },
            };
            if self.replies.send(seen).is_err() {
                return reply(500);
            }
        }
    }
}

fn reply(status: u16) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

fn end_with(end: End) -> Response<String> {
    match end {
        End::Ok | End::Lost | End::CancelInside | End::CancelOutside => reply(200),
        End::NotFound => reply(404),
        End::ServerError => reply(500),
        End::Timeout => reply(408),
        // Without the words of a panic hook.
        End::PanicInside => resume_unwind(Box::new(Inside)),
        End::PanicOutside => resume_unwind(Box::new(Outside)),
    }
}

struct Inside;
struct Outside;

/// Catches what should be caught inside of the session layer, and lets it be
/// cancelled there.
async fn guarded(
    handler: impl Future<Output = Response<String>>,
    cancel: oneshot::Receiver<StatusCode>,
) -> Response<String> {
    let mut handler = Box::pin(handler);
    let mut cancel = Box::pin(cancel);
    let response = poll_fn(|context| {
        use std::task::Poll;
        if let Poll::Ready(Ok(status)) = cancel.as_mut().poll(context) {
            return Poll::Ready(reply(status.as_u16()));
        }
        match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context))) {
            Ok(polled) => polled,
            Err(panic) if panic.is::<Inside>() => Poll::Ready(reply(500)),
            Err(panic) => resume_unwind(panic),
        }
    });
    let response = response.await;
    drop(handler);
    response
}

impl Running {
    pub(crate) fn begin(
        store: &PgSessionStore,
        options: &Options,
        deployment: Deployment,
        cookies: &[(String, String)],
        taking: Taking,
    ) -> Self {
        let (order_sender, orders) = mpsc::unbounded_channel();
        let (reply_sender, replies) = mpsc::unbounded_channel();
        let (cancel, cancelled) = oneshot::channel();
        let layers = if options.two_layers { 2 } else { 1 };
        let sessions: Sessions = Arc::new(Mutex::new(vec![None; layers]));
        let is_saved = Arc::new(AtomicBool::new(false));
        let own = OwnSessions::default();
        let names: Vec<_> = (0..layers).map(|n| cookie_name(options, n)).collect();
        let mut parts = Some((
            orders,
            reply_sender,
            cancelled,
            Arc::clone(&sessions),
            Arc::clone(&is_saved),
            Arc::clone(&own),
            names,
        ));
        let service = service_fn(move |request: Request<()>| {
            let (orders, replies, cancelled, sessions, is_saved, own, names) =
                parts.take().expect("one request");
            let lazy: LazySession = request
                .extensions()
                .get()
                .cloned()
                .expect("put there by the layer");
            let lazy: Vec<_> = names
                .iter()
                .map(|name| lazy.named(name).expect("the layer of this name"))
                .collect();
            own.lock().expect("no panic").clone_from(&lazy);
            let handler = Handler {
                lazy,
                sessions,
                saving: None,
                saved: None,
                is_saved,
                replies,
            };
            async move {
                let response = guarded(handler.follow(orders), cancelled).await;
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let mut request = Request::new(());
        if !cookies.is_empty() {
            let pairs: Vec<_> = cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let header = pairs.join("; ").parse().expect("a header");
            request.headers_mut().insert(header::COOKIE, header);
        }
        let of = |number| layer(store.clone(), options, deployment, number, &own);
        let inner = of(0).layer(service);
        let task = match options.two_layers {
            false => tokio::spawn(respond(inner, request)),
            true => {
                let outer = of(1).layer(inner);
                tokio::spawn(respond(outer, request))
            }
        };
        let running = Self {
            orders: order_sender,
            replies,
            cancel: Some(cancel),
            task,
            sessions,
            own,
            is_saved,
        };
        if taking.is_eager() {
            running.order(Order::Load(0));
        }
        running
    }

    fn order(&self, order: Order) {
        // A handler that is gone is noticed by the missing reply.
        drop(self.orders.send(order));
    }

    pub(crate) async fn reply(&mut self) -> Option<Seen> {
        self.replies.recv().await
    }

    pub(crate) async fn call(&mut self, layer: usize, call: &Call, tag: u64) -> Option<Seen> {
        self.order(Order::Call(layer, call.clone(), tag));
        self.reply().await
    }

    pub(crate) async fn begin_save(&mut self, layer: usize) -> Option<Seen> {
        self.order(Order::BeginSave(layer));
        self.reply().await
    }

    /// Whether the save that was begun is over.
    pub(crate) fn is_saved(&self) -> bool {
        self.is_saved.load(Ordering::SeqCst)
    }

    /// Whether it returns a response, or was cancelled.
    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    pub(crate) async fn give_up_save(&mut self) -> Option<Seen> {
        self.order(Order::GiveUpSave);
        self.reply().await
    }

    pub(crate) async fn await_save(&mut self) -> Option<Seen> {
        self.order(Order::AwaitSave);
        self.reply().await
    }

    /// Lets the handler return, or takes its future away.
    pub(crate) fn let_end(&mut self, end: End) {
        match end {
            End::CancelInside => {
                let cancel = self.cancel.take().expect("ends once");
                let is_sent = cancel.send(StatusCode::REQUEST_TIMEOUT).is_ok();
                debug_assert!(is_sent, "the handler waits");
            }
            End::CancelOutside => self.task.abort(),
            _ => self.order(Order::End(end)),
        }
    }

    /// `None` where there is none.
    pub(crate) async fn response(&mut self) -> Option<Reply> {
        let response = (&mut self.task).await.ok()?;
        let retry = response.headers().get(header::RETRY_AFTER);
        let retry = retry.map(|retry| retry.to_str().expect("ASCII").parse().expect("seconds"));
        let cookies = response
            .headers()
            .get_all(header::SET_COOKIE)
            .iter()
            .map(|line| {
                let cookie = Cookie::parse(line.to_str().expect("ASCII")).expect("a cookie");
                let expires = cookie.expires_datetime();
                let is_over = expires == Some(cookie::time::OffsetDateTime::UNIX_EPOCH);
                let value = if is_over { "" } else { cookie.value() };
                SetCookie {
                    name: cookie.name().to_owned(),
                    value: value.to_owned(),
                    is_kept: cookie.max_age().is_some() || expires.is_some(),
                }
            })
            .collect();
        Some(Reply {
            status: response.status().as_u16(),
            retry,
            cookies,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The layer's check holds them, and they hold the layer.
        self.own.lock().expect("no panic").clear();
        self.task.abort();
    }
}

async fn respond<S, B>(service: S, request: Request<()>) -> Response<()>
where
    S: tower::Service<Request<()>, Response = Response<B>, Error = std::convert::Infallible>,
{
    match service.oneshot(request).await {
        Ok(response) => response.map(drop),
        Err(never) => match never {},
    }
}
