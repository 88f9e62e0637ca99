//! A network between the servers and Postgres: it forwards the bytes of each connection, and delays
//! them in both directions. Each direction has two threads, because a timer of tokio is too coarse.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Listens on a port of this machine, and connects to the socket. The threads end with the process.
pub(crate) fn between(socket: PathBuf, round_trip: Duration) -> io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || -> io::Result<()> {
        for client in listener.incoming() {
            let (client, server) = (client?, UnixStream::connect(&socket)?);
            client.set_nodelay(true)?;
            let (to_client, to_server) = (client.try_clone()?, server.try_clone()?);
            delay(client, to_server, round_trip / 2);
            delay(server, to_client, round_trip / 2);
        }
        Ok(())
    });
    Ok(port)
}

trait Close {
    fn close(&self);
}

impl Close for TcpStream {
    fn close(&self) {
        drop(self.shutdown(Shutdown::Write));
    }
}

impl Close for UnixStream {
    fn close(&self) {
        drop(self.shutdown(Shutdown::Write));
    }
}

fn delay(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Close + Send + 'static,
    delay: Duration,
) {
    let (sender, packets) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let due = Instant::now() + delay;
            if sender.send((due, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in packets {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        to.close();
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_round_trip_takes_as_long_as_it_should() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).expect("a socket");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() {
                stream.write_all(&byte).expect("a client");
            }
        });
        let port = between(socket, Duration::from_millis(20)).expect("a port");
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let begin = Instant::now();
        for n in 0..3 {
            client.write_all(&[n]).expect("a server");
            let mut byte = [0];
            client.read_exact(&mut byte).expect("a response");
            assert_eq!(byte, [n]);
        }
        assert!(begin.elapsed() >= Duration::from_millis(60));
    }
}
