//! The connection between a copy of the server and its database, which can lose responses.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
};

pub(crate) struct Wire {
    url: String,
    loses_responses: Arc<AtomicBool>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Wire {
    /// It lasts as long as the runtime.
    pub(crate) async fn to(url: &str) -> Self {
        let database: PgConnectOptions = url.parse().expect("a URL");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let through = over_tcp(&database).host("127.0.0.1").port(port);
        let loses_responses = Arc::new(AtomicBool::new(false));
        tokio::spawn(accept(listener, database, Arc::clone(&loses_responses)));
        Self {
            url: through.to_url_lossy().to_string(),
            loses_responses,
        }
    }

    /// Of the database, through the wire.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// No response of this time arrives, and its connection ends. The statement is executed
    /// nevertheless.
    pub(crate) async fn lose_responses(&self, length: Duration) {
        self.loses_responses.store(true, Ordering::SeqCst);
        tokio::time::sleep(length).await;
        self.loses_responses.store(false, Ordering::SeqCst);
    }
}

/// Options with a socket can't be told to forget it.
fn over_tcp(database: &PgConnectOptions) -> PgConnectOptions {
    if database.get_socket().is_none() {
        return database.clone();
    }
    PgConnectOptions::new_without_pgpass()
        .username(database.get_username())
        .database(database.get_database().expect("a test database has a name"))
        .ssl_mode(PgSslMode::Disable)
}

async fn accept(
    listener: TcpListener,
    database: PgConnectOptions,
    loses_responses: Arc<AtomicBool>,
) {
    while let Ok((copy, _)) = listener.accept().await {
        let (database, loses_responses) = (database.clone(), Arc::clone(&loses_responses));
        tokio::spawn(async move {
            // A connection that broke is what the copy has to cope with.
            drop(relay(copy, &database, &loses_responses).await);
        });
    }
}

async fn relay(
    copy: TcpStream,
    database: &PgConnectOptions,
    loses_responses: &AtomicBool,
) -> io::Result<()> {
    copy.set_nodelay(true)?;
    let (mut from_copy, to_copy) = copy.into_split();
    let (from_database, mut to_database) = tokio::io::split(connect(database).await?);
    tokio::select! {
        asked = tokio::io::copy(&mut from_copy, &mut to_database) => asked.map(drop),
        served = responses(from_database, to_copy, loses_responses) => served,
    }
}

async fn connect(database: &PgConnectOptions) -> io::Result<Box<dyn Stream>> {
    let (host, port) = (database.get_host(), database.get_port());
    let socket = database.get_socket().cloned();
    let folder = socket.or_else(|| host.starts_with('/').then(|| PathBuf::from(host)));
    Ok(match folder {
        Some(folder) => {
            let socket = folder.join(format!(".s.PGSQL.{port}"));
            Box::new(UnixStream::connect(socket).await?)
        }
        None => Box::new(TcpStream::connect((host, port)).await?),
    })
}

async fn responses(
    mut database: impl AsyncRead + Unpin,
    mut copy: impl AsyncWrite + Unpin,
    loses_responses: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = database.read(&mut buffer).await?;
        if read == 0 || loses_responses.load(Ordering::SeqCst) {
            return Ok(());
        }
        copy.write_all(&buffer[..read]).await?;
    }
}
