//! The network between a site and its server, which can fail.

use std::{
    fs,
    future::pending,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dev_postgres::Server;
use socket2::SockRef;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, UnixStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// More than a site ever opens at once.
const BACKLOG: u32 = 1024;
/// More than a connection takes that is made at all.
const LAST_PLACE: Duration = Duration::from_millis(300);

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Condition {
    Open,
    /// As open, but this late in either direction.
    Slow(Duration),
    /// Connections are accepted and closed at once, as by a proxy without a
    /// server behind it.
    Unserved,
    /// No server listens.
    Refusing,
    /// Nothing arrives, and no connection is made. Those that were there stay
    /// dead ever after, as behind a firewall that has forgotten them.
    BlackHole,
}

/// A port that leads to a server.
pub(crate) struct Network {
    address: SocketAddr,
    wire: Arc<Wire>,
    accepting: JoinHandle<()>,
}

struct Wire {
    socket: PathBuf,
    condition: watch::Sender<Condition>,
    /// What the port has been made to do.
    reached: watch::Sender<Condition>,
    resets: watch::Sender<u64>,
    /// Counts the black holes.
    losses: watch::Sender<u64>,
    accepted: AtomicUsize,
}

impl Network {
    pub(crate) fn before(server: &Server) -> Self {
        let options: PgConnectOptions = server.url().parse().expect("a URL");
        let wire = Arc::new(Wire {
            socket: socket_of(&options),
            condition: watch::Sender::new(Condition::Open),
            reached: watch::Sender::new(Condition::Open),
            resets: watch::Sender::new(0),
            losses: watch::Sender::new(0),
            accepted: AtomicUsize::new(0),
        });
        let listener = listen("127.0.0.1:0".parse().expect("an address"));
        Self {
            address: listener.local_addr().expect("an address"),
            accepting: tokio::spawn(accept(listener, Arc::clone(&wire))),
            wire,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port())
            .username("postgres")
            .database("postgres")
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    /// Connections that were made so far.
    pub(crate) fn accepted(&self) -> usize {
        self.wire.accepted.load(Ordering::SeqCst)
    }

    /// Connections that are being made now, which get no response. The list is
    /// read in pieces, and shows one that ends meanwhile beside its successor.
    pub(crate) fn hanging(&self) -> usize {
        const SYN_SENT: &str = "02";
        let remote = format!("0100007F:{:04X} {SYN_SENT}", self.port());
        let count = |_| {
            let sockets = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
            let is_ours = |line: &&str| line.contains(&remote);
            sockets.lines().filter(is_ours).count()
        };
        (0..3).map(count).min().unwrap_or_default()
    }

    /// When it returns, the network is as told.
    pub(crate) async fn turn(&self, condition: Condition) {
        if condition == Condition::BlackHole {
            self.wire.losses.send_modify(|losses| *losses += 1);
        }
        self.wire.condition.send_replace(condition);
        let mut reached = self.wire.reached.subscribe();
        let reached = reached.wait_for(|reached| *reached == condition);
        drop(reached.await.expect("the port is there"));
        if matches!(condition, Condition::Unserved | Condition::Refusing) {
            self.reset();
        }
    }

    /// Resets every connection, as a router does that lost its state.
    pub(crate) fn reset(&self) {
        self.wire.resets.send_modify(|resets| *resets += 1);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

fn socket_of(options: &PgConnectOptions) -> PathBuf {
    let folder = options.get_socket().expect("a socket");
    folder.join(format!(".s.PGSQL.{}", options.get_port()))
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("TCP");
    socket.bind(address).expect("a port");
    socket.listen(BACKLOG).expect("it listens")
}

async fn accept(mut listener: TcpListener, wire: Arc<Wire>) {
    let address = listener.local_addr().expect("an address");
    let mut condition = wire.condition.subscribe();
    loop {
        let now = *condition.borrow_and_update();
        match now {
            Condition::BlackHole => {
                let filler = fill(&listener).await;
                until_it_changes(now, &wire, &mut condition).await;
                drop(filler);
                set_backlog(&listener, BACKLOG);
            }
            Condition::Refusing => {
                drop(listener);
                until_it_changes(now, &wire, &mut condition).await;
                listener = listen(address);
            }
            _ => {
                wire.reached.send_replace(now);
                serve(&listener, now, &wire, &mut condition).await;
            }
        }
    }
}

async fn until_it_changes(now: Condition, wire: &Wire, condition: &mut watch::Receiver<Condition>) {
    wire.reached.send_replace(now);
    condition.changed().await.expect("the network is there");
}

/// If the queue is full, the system drops new connections. If another connection has the last
/// place, it is full already.
async fn fill(listener: &TcpListener) -> Option<TcpStream> {
    set_backlog(listener, 0);
    let address = listener.local_addr().expect("an address");
    let filler = timeout(LAST_PLACE, TcpStream::connect(address))
        .await
        .ok()?;
    Some(filler.expect("a last place"))
}

fn set_backlog(listener: &TcpListener, backlog: u32) {
    let backlog = i32::try_from(backlog).expect("it is small");
    SockRef::from(listener)
        .listen(backlog)
        .expect("it listens already");
}

async fn serve(
    listener: &TcpListener,
    now: Condition,
    wire: &Arc<Wire>,
    condition: &mut watch::Receiver<Condition>,
) {
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted.expect("a client").0,
            _ = condition.changed() => return,
        };
        wire.accepted.fetch_add(1, Ordering::SeqCst);
        if now != Condition::Unserved {
            tokio::spawn(connect(client, Arc::clone(wire)));
        }
    }
}

/// Lasts as long as both ends, or until the connection is reset.
async fn connect(client: TcpStream, wire: Arc<Wire>) {
    client.set_nodelay(true).expect("TCP");
    let mut resets = wire.resets.subscribe();
    let Ok(server) = UnixStream::connect(&wire.socket).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let ends = tokio::select! {
        _ = forward(&mut from_client, &mut to_server, &wire) => End::Closed,
        _ = forward(&mut from_server, &mut to_client, &wire) => End::Closed,
        _ = resets.changed() => End::Reset,
    };
    let client = from_client.reunite(to_client).expect("the same one");
    if ends == End::Reset {
        client.set_zero_linger().expect("TCP");
    }
}

#[derive(PartialEq)]
enum End {
    Closed,
    Reset,
}

async fn forward(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    wire: &Wire,
) -> io::Result<()> {
    let mut losses = wire.losses.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            _ = losses.changed() => pending().await,
            read = from.read(&mut buffer) => read?,
        };
        if read == 0 {
            return Ok(());
        }
        let now = *wire.condition.borrow();
        if let Condition::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
