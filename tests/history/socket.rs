//! Sockets: what a page sends after its response has begun, until its session has ended.

use std::sync::Arc;

use futures_util::StreamExt as _;

use crate::{
    line::Line,
    record::{Life, Moment, Record, Token},
};

/// A socket, from the request that opened it to its end.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) life: Life,
    /// When the last frame was received.
    pub(crate) last_frame: Moment,
    pub(crate) end: End,
}

/// How a socket ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// By its page, because its session had ended, and why.
    Session(String, Moment),
    /// By a fault, or with the history.
    Lost,
}

/// Opens a socket, and records it when it has ended. It runs in a task.
pub(crate) fn open(record: Arc<Record>, port: u16, token: Token, life: Life) {
    record.socket_opens();
    tokio::spawn(async move {
        if let Some(socket) = attend(&record, port, token, life).await {
            record.keep_socket(socket);
        }
        record.socket_is_over();
    });
}

/// `None` if the page opened none.
async fn attend(record: &Record, port: u16, token: Token, life: Life) -> Option<Socket> {
    let mut line = Line::open(port).await?;
    let opened = record.now();
    let mut frames = line.open_socket(&token).await?.into_data_stream();
    let mut socket = Socket {
        life,
        last_frame: opened,
        end: End::Lost,
    };
    while let Some(Ok(frame)) = frames.next().await {
        // A chunk may have several lines, and the end comes after all frames.
        let frame = String::from_utf8_lossy(&frame);
        match frame.lines().last() {
            Some("frame") | None => socket.last_frame = record.now(),
            Some(why) => socket.end = End::Session(why.to_owned(), record.now()),
        }
    }
    Some(socket)
}
