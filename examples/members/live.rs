//! Server-sent events and a WebSocket, which outlive the request that opened
//! them.

use std::convert::Infallible;

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    response::{
        Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use axum_pg_session::SessionId;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{select, sync::watch, time::interval};

use crate::{App, visitor::CurrentUser};

/// The number of the user's devices, until the session or the process ends.
pub(crate) async fn events(
    State(app): State<App>,
    user: CurrentUser,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ending = ended(app.ending.clone());
    let ticks = interval(app.check_every);
    let news = stream::unfold((app, user.id, ticks), |(app, id, mut ticks)| async move {
        loop {
            ticks.tick().await;
            // Without the database nothing is known, so the stream goes on.
            let Ok(session) = app.store.load(&id).await else {
                continue;
            };
            let session = session?;
            let user = session.user_id()?;
            if let Ok(devices) = app.store.user(user).count().await {
                let event = Event::default().data(devices.to_string());
                return Some((Ok(event), (app, session.id().clone(), ticks)));
            }
        }
    });
    Sse::new(news.take_until(ending)).keep_alive(KeepAlive::default())
}

pub(crate) async fn talk(
    State(app): State<App>,
    user: CurrentUser,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.on_upgrade(move |socket| answer(socket, app, user.id))
}

/// Says everything back, until the session or the process ends.
async fn answer(mut socket: WebSocket, app: App, mut id: SessionId) {
    let mut ticks = interval(app.check_every);
    let ending = ended(app.ending.clone());
    tokio::pin!(ending);
    let (code, reason) = loop {
        select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    // Who writes is active, as by a request.
                    if let Ok(false) = app.sessions.touch(&id).await {
                        break (close_code::POLICY, "signed out");
                    }
                    if socket.send(Message::Text(text)).await.is_err() {
                        return;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            _ = ticks.tick() => match app.store.load(&id).await {
                Ok(Some(session)) => id = session.id().clone(),
                Ok(None) => break (close_code::POLICY, "signed out"),
                Err(_) => {}
            },
            () = &mut ending => break (close_code::AWAY, "the server restarts"),
        }
    };
    let close = CloseFrame {
        code,
        reason: reason.into(),
    };
    // The client may have gone.
    drop(socket.send(Message::Close(Some(close))).await);
}

async fn ended(mut ending: watch::Receiver<bool>) {
    drop(ending.wait_for(|ends| *ends).await);
}
