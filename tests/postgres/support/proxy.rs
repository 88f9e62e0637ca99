//! A proxy before Postgres that counts messages, and can drop or change them.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{Notify, watch},
    task::JoinHandle,
};

/// Sits between a pool and the server; understands just enough of the
/// protocol to know where a statement is executed.
pub(crate) struct Proxy {
    port: u16,
    options: PgConnectOptions,
    traffic: Arc<Traffic>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Traffic {
    executed: AtomicUsize,
    texts: Mutex<Vec<String>>,
    /// Every message to the server, one after another.
    sent: Mutex<Vec<u8>>,
    /// While set, responses are dropped and the client's next message finds
    /// the connection closed.
    drops_responses: AtomicBool,
    /// While set, a connection that executes a statement that begins like this does not get its
    /// response.
    withholds: watch::Sender<Option<&'static str>>,
    /// What responses contain, and what replaces it.
    mixed_up: Mutex<Option<(Vec<u8>, Vec<u8>)>>,
    cut: Notify,
    /// While set, a new connection does not send its time zone.
    forgets_zones: AtomicBool,
}

impl Traffic {
    /// Ids are of one length, so no message changes its own.
    fn mix_up(&self, response: &mut [u8]) {
        let mixed_up = self.mixed_up.lock().expect("no panic");
        let Some((id, other)) = &*mixed_up else {
            return;
        };
        for at in 0..response.len().saturating_sub(id.len() - 1) {
            if response[at..].starts_with(id) {
                response[at..at + id.len()].copy_from_slice(other);
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Proxy {
    pub(crate) async fn before(url: &str) -> Self {
        let options: PgConnectOptions = url.parse().expect("a URL");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let traffic = Arc::new(Traffic::default());
        let accepting = tokio::spawn(accept(listener, options.clone(), Arc::clone(&traffic)));
        Self {
            port,
            options,
            traffic,
            accepting,
        }
    }

    /// How to connect through the proxy. Under another isolation level than this
    /// one, a statement is a transaction of three.
    pub(crate) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .options([("default_transaction_isolation", "read committed")])
            .host("127.0.0.1")
            .port(self.port)
            .username(self.options.get_username())
            .database(self.options.get_database().expect("a database"))
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    /// A pool through the proxy that sends nothing on its own account.
    pub(crate) async fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .test_before_acquire(false)
            .connect_with(self.options())
            .await
            .expect("a connection")
    }

    /// Statements executed so far, `BEGIN` and `COMMIT` among them.
    pub(crate) fn executed(&self) -> usize {
        self.traffic.executed.load(Ordering::SeqCst)
    }

    /// The texts of the statements executed since the last call.
    pub(crate) fn take_texts(&self) -> Vec<String> {
        std::mem::take(&mut self.traffic.texts.lock().expect("no panic"))
    }

    /// Of all messages to the server so far.
    pub(crate) fn bytes_sent(&self) -> usize {
        self.traffic.sent.lock().expect("no panic").len()
    }

    /// Whether these bytes were in any message to the server so far.
    pub(crate) fn has_sent(&self, bytes: &[u8]) -> bool {
        self.times_sent(bytes) > 0
    }

    /// How often these bytes were in a message to the server so far.
    pub(crate) fn times_sent(&self, bytes: &[u8]) -> usize {
        let sent = self.traffic.sent.lock().expect("no panic");
        let windows = sent.windows(bytes.len());
        windows.filter(|window| *window == bytes).count()
    }

    /// From now on, requests reach the server and its responses are dropped.
    pub(crate) fn drop_responses(&self, swallow: bool) {
        self.traffic
            .drops_responses
            .store(swallow, Ordering::SeqCst);
    }

    /// From now on each `UPDATE` gets no response, until this is undone; then the
    /// responses arrive. Other connections do not notice.
    pub(crate) fn withhold_responses_of_updates(&self, withhold: bool) {
        self.withhold_responses_of(withhold.then_some("UPDATE"));
    }

    /// Like [`withhold_responses_of_updates`](Self::withhold_responses_of_updates), for statements
    /// that begin with this text.
    pub(crate) fn withhold_responses_of(&self, statement: Option<&'static str>) {
        self.traffic.withholds.send_replace(statement);
    }

    /// From now on responses name the other id instead of this one, as of a
    /// pooler that mixes up two connections.
    pub(crate) fn mix_up(&self, id: &str, other: &str) {
        let pair = (id.as_bytes().to_vec(), other.as_bytes().to_vec());
        *self.traffic.mixed_up.lock().expect("no panic") = Some(pair);
    }

    /// From now on new connections are in the zone of the server, the database
    /// or the role, as behind a pooler that leaves out the one of the client.
    pub(crate) fn forget_zones(&self) {
        self.traffic.forgets_zones.store(true, Ordering::SeqCst);
    }

    /// Closes every connection that is open now.
    pub(crate) fn cut(&self) {
        self.traffic.cut.notify_waiters();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, options: PgConnectOptions, traffic: Arc<Traffic>) {
    while let Ok((client, _)) = listener.accept().await {
        let (options, traffic) = (options.clone(), Arc::clone(&traffic));
        tokio::spawn(async move {
            let Ok(server) = connect(&options).await else {
                return;
            };
            let cut = traffic.cut.notified();
            tokio::select! {
                () = relay(client, server, &traffic) => {}
                () = cut => {}
            }
        });
    }
}

async fn connect(options: &PgConnectOptions) -> io::Result<Box<dyn Stream>> {
    let socket = options.get_socket().cloned().or_else(|| {
        options
            .get_host()
            .starts_with('/')
            .then(|| PathBuf::from(options.get_host()))
    });
    Ok(match socket {
        Some(folder) => {
            let file = folder.join(format!(".s.PGSQL.{}", options.get_port()));
            Box::new(UnixStream::connect(file).await?)
        }
        None => Box::new(TcpStream::connect((options.get_host(), options.get_port())).await?),
    })
}

async fn relay(client: TcpStream, server: Box<dyn Stream>, traffic: &Traffic) {
    client.set_nodelay(true).expect("TCP");
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(server);
    let is_withheld = AtomicBool::new(false);
    tokio::select! {
        _ = questions(from_client, to_server, traffic, &is_withheld) => {}
        _ = responses(from_server, to_client, traffic, &is_withheld) => {}
    }
}

/// Forwards message by message; the first one has no type byte.
async fn questions(
    mut client: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
    traffic: &Traffic,
    is_withheld: &AtomicBool,
) -> io::Result<()> {
    let mut statements = Statements::default();
    let mut start = vec![0; client.read_u32().await? as usize - 4];
    client.read_exact(&mut start).await?;
    if traffic.forgets_zones.load(Ordering::SeqCst) {
        start = without_zone(&start);
    }
    server.write_u32(start.len() as u32 + 4).await?;
    server.write_all(&start).await?;
    server.flush().await?;
    loop {
        let kind = client.read_u8().await?;
        let length = client.read_u32().await?;
        let body = forward(&mut client, &mut server, &[kind], length).await?;
        traffic.sent.lock().expect("no panic").extend(&body);
        if let Some(text) = statements.executes(kind, &body) {
            traffic.executed.fetch_add(1, Ordering::SeqCst);
            // The response comes after the next message, which is not sent yet.
            let withheld = *traffic.withholds.borrow();
            let withholds = withheld.is_some_and(|statement| text.starts_with(statement));
            is_withheld.fetch_or(withholds, Ordering::SeqCst);
            traffic.texts.lock().expect("no panic").push(text);
        }
    }
}

/// The message that begins a connection, as its version and pairs of strings.
fn without_zone(start: &[u8]) -> Vec<u8> {
    let (version, pairs) = start.split_at(4);
    let strings: Vec<_> = pairs.split_inclusive(|byte| *byte == 0).collect();
    let kept = strings.chunks(2).filter(|pair| pair[0] != b"TimeZone\0");
    [
        version,
        &kept.flatten().copied().collect::<Vec<_>>().concat(),
    ]
    .concat()
}

async fn forward(
    client: &mut (impl AsyncRead + Unpin),
    server: &mut (impl AsyncWrite + Unpin),
    kind: &[u8],
    length: u32,
) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length as usize - 4];
    client.read_exact(&mut body).await?;
    let message = [kind, &length.to_be_bytes(), &body].concat();
    server.write_all(&message).await?;
    server.flush().await?;
    Ok(body)
}

async fn responses(
    mut server: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
    traffic: &Traffic,
    is_withheld: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = server.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if traffic.drops_responses.load(Ordering::SeqCst) {
            return Ok(());
        }
        if is_withheld.load(Ordering::SeqCst) {
            let mut withholds = traffic.withholds.subscribe();
            withholds
                .wait_for(Option::is_none)
                .await
                .map_err(io::Error::other)?;
            is_withheld.store(false, Ordering::SeqCst);
        }
        traffic.mix_up(&mut buffer[..read]);
        client.write_all(&buffer[..read]).await?;
        client.flush().await?;
    }
}

/// The prepared statements of a connection, and the one that is bound.
#[derive(Default)]
struct Statements {
    prepared: std::collections::HashMap<Vec<u8>, String>,
    bound: String,
}

impl Statements {
    /// The text that this message executes.
    fn executes(&mut self, kind: u8, body: &[u8]) -> Option<String> {
        match kind {
            b'Q' => {
                let text = text(body.split(|byte| *byte == 0).next()?);
                // A connection from the pool is pinged.
                (!text.starts_with("SELECT pg_catalog.pg_backend_pid()")).then_some(text)
            }
            b'P' => {
                let mut parts = body.split(|byte| *byte == 0);
                let name = parts.next()?.to_vec();
                self.prepared.insert(name, text(parts.next()?));
                None
            }
            b'B' => {
                let name = body.split(|byte| *byte == 0).nth(1)?;
                self.bound = self.prepared.get(name).cloned().unwrap_or_default();
                None
            }
            b'E' => Some(self.bound.clone()),
            _ => None,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
