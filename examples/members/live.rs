//! Server-sent events and a WebSocket. They continue after the request that opened them, and end with
//! its session.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::StatusCode,
    response::{
        Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use axum_pg_session::{Ending, SessionEnd};
use futures_util::{Stream, StreamExt as _, future::select, stream};
use maud::Markup;
use tokio::{
    select,
    sync::watch,
    time::{interval, timeout},
};

use crate::{App, pages, visitor::CurrentUser};

/// How long a client may take to read. One that doesn't read must not keep its socket.
const PATIENCE: Duration = Duration::from_secs(5);

/// The page that opens the stream and the socket.
pub(crate) async fn page(user: CurrentUser) -> Markup {
    pages::live(&user.name)
}

/// The number of the user's devices, until the session or the process ends.
pub(crate) async fn events(
    State(app): State<App>,
    user: CurrentUser,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, StatusCode> {
    let ended = user.session.ended().ok_or(StatusCode::UNAUTHORIZED)?;
    let stopped = Box::pin(stopped(app.ending.clone()));
    let ticks = interval(app.count_every);
    let news = stream::unfold((app, user.name, ticks), async |(app, name, mut ticks)| {
        loop {
            ticks.tick().await;
            // If the database can't be queried, the stream continues without an event.
            if let Ok(devices) = app.store.user(&name).count().await {
                let event = Event::default().data(devices.to_string());
                return Some((Ok(event), (app, name, ticks)));
            }
        }
    });
    let news = Box::pin(news).take_until(select(ended, stopped));
    Ok(Sse::new(news).keep_alive(KeepAlive::default()))
}

pub(crate) async fn talk(
    State(app): State<App>,
    user: CurrentUser,
    upgrade: WebSocketUpgrade,
) -> Result<Response, StatusCode> {
    let ended = user.session.ended().ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(upgrade.on_upgrade(move |socket| echo(socket, app, ended)))
}

/// Echoes each message, until the session or the process ends.
async fn echo(mut socket: WebSocket, app: App, mut ended: SessionEnd) {
    let stopped = stopped(app.ending.clone());
    tokio::pin!(stopped);
    let (code, reason) = loop {
        select! {
            // The end first, so that nothing is accepted after it.
            biased;
            ending = &mut ended => break (code(ending), ending.to_string()),
            () = &mut stopped => break (close_code::AWAY, "the server restarts".to_owned()),
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    // A message is user activity, like a request. If the session has ended, the
                    // branch above closes the socket.
                    drop(app.sessions.touch(&ended.id()).await);
                    let sent = timeout(PATIENCE, socket.send(Message::Text(text)));
                    let Ok(Ok(())) = sent.await else { return };
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    };
    let close = CloseFrame {
        code,
        reason: reason.into(),
    };
    // The client may have disconnected.
    drop(timeout(PATIENCE, socket.send(Message::Close(Some(close)))).await);
}

fn code(ending: Ending) -> u16 {
    match ending {
        // The session may still exist.
        Ending::Unreachable => close_code::AGAIN,
        _ => close_code::POLICY,
    }
}

async fn stopped(mut ending: watch::Receiver<bool>) {
    drop(ending.wait_for(|ends| *ends).await);
}
