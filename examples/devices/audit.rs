//! An audit log of logins, logouts and other ends of sessions, in a table of the site.
//!
//! The hook of the store only sends the event to a channel, so no request waits for the log. A task
//! writes it to the table.

use axum_pg_session::{PgSessionStore, SessionEvent, SessionEventKind};
use sqlx::PgPool;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::error::Failure;

/// On a real site, this is a migration.
const CREATE_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS audit (
        at timestamptz NOT NULL DEFAULT now(),
        account text NOT NULL,
        session text NOT NULL,
        event text NOT NULL
    )";

/// Returns the store with the log. The task ends when the store is dropped.
pub(crate) async fn keep(
    store: PgSessionStore,
    pool: PgPool,
) -> Result<(PgSessionStore, JoinHandle<()>), Failure> {
    sqlx::query(CREATE_TABLE).execute(&pool).await?;
    let (sender, events) = mpsc::unbounded_channel();
    let store = store.on_event(move |event| {
        // Anonymous sessions are not logged.
        if event.user_id().is_some() {
            // This fails only at the end of the process.
            drop(sender.send(event.clone()));
        }
    });
    Ok((store, tokio::spawn(write(pool, events))))
}

async fn write(pool: PgPool, mut events: mpsc::UnboundedReceiver<SessionEvent>) {
    while let Some(event) = events.recv().await {
        let written =
            sqlx::query("INSERT INTO audit (account, session, event) VALUES ($1, $2, $3)")
                .bind(event.user_id())
                .bind(event.id().as_str())
                .bind(sentence(event.kind()))
                .execute(&pool)
                .await;
        if let Err(error) = written {
            eprintln!("the audit log could not be written: {error}");
        }
    }
}

fn sentence(kind: SessionEventKind) -> String {
    match kind {
        SessionEventKind::SignedIn => "the user signed in".to_owned(),
        SessionEventKind::Ended(ending) => ending.to_string(),
        _ => "the session has a new id".to_owned(),
    }
}
