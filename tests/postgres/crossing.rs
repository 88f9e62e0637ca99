//! The formats of Koa and Express, if a request crosses another one that gives the session a new
//! id, destroys it or writes another user into its row.

use axum_pg_session::{Error, Expiry, Session};
use serde_json::Value;

use crate::support::{
    Site, execute,
    express::{SID, browser_of_express, stored},
    texts,
};

const OF_ADA: &str = r#""cart":1,"passport":{"user":"ada"}"#;
const OF_BOB: &str = r#""iban":"of bob","passport":{"user":"bob"}"#;

async fn koa_site() -> Site {
    let site = Site::of_koa().await;
    site.store.migrate().await.expect("the owner");
    site
}

async fn sids(site: &Site) -> Vec<String> {
    texts(&site.pool, "SELECT sid FROM session").await
}

async fn documents(site: &Site) -> String {
    let documents = texts(&site.pool, "SELECT sess::text FROM session").await;
    documents.concat()
}

// Another user in the row.

/// What a request of ada calls after Passport before 0.6 has signed bob in under the same id.
async fn act_late(session: &Session, call: &str) -> Result<(), Error> {
    match call {
        "insert" => session.insert("address", "of ada"),
        "update" => session
            .update("address", |_: Option<String>| "of ada")
            .map(drop),
        "update_now" => {
            let updated = session.update_now("iban", |iban: Option<String>| iban);
            updated.await.map(drop)
        }
        "take" => session.take::<Value>("iban").await.map(drop),
        "remove" => session.remove::<Value>("cart").map(drop),
        "clear" => session.clear(),
        "expiry" => session.set_expiry(Expiry::Idle(std::time::Duration::from_secs(7))),
        "cycle" => session.cycle_id(),
        "insert and cycle" => {
            session.insert("address", "of ada")?;
            session.cycle_id()
        }
        _ => {
            session.insert("address", "of ada")?;
            session.login("ada")
        }
    }
}

#[tokio::test]
async fn a_late_request_of_ada_neither_changes_nor_reads_the_session_of_bob() {
    for call in [
        "insert",
        "update",
        "update_now",
        "take",
        "remove",
        "clear",
        "expiry",
        "cycle",
        "insert and cycle",
        "login",
    ] {
        for saves in [false, true] {
            let site = Site::of_migrated_express().await;
            site.express_writes(SID, &stored(OF_ADA)).await;
            let browser = browser_of_express(&site.app());
            let late = site
                .late(&browser, move |session: Session| async move {
                    let mut outcome = act_late(&session, call).await;
                    if saves {
                        outcome = outcome.and(session.save().await);
                    }
                    let read = format!("{:?} {:?}", session.user_id(), session.keys());
                    outcome.map_err(|error| (error.status(), read.clone()))?;
                    Ok::<_, (http::StatusCode, String)>(read)
                })
                .await;
            site.express_writes(SID, &stored(OF_BOB)).await;
            let reply = late.finish().await;
            assert_eq!(reply.status, 503, "{call}: {}", reply.body);
            let shows_bob = reply.body.contains("bob") || reply.body.contains("iban");
            assert!(!shows_bob, "{call}: {}", reply.body);
            assert_eq!(documents(&site).await, stored(OF_BOB), "{call}");
            assert_eq!(sids(&site).await, [SID], "{call}");
        }
    }
}

#[tokio::test]
async fn a_late_new_id_in_koas_format_does_not_move_the_session_of_another_user() {
    let site = koa_site().await;
    let browser = site.signed_in("ada").await;
    let late = site
        .late(&browser, async |session: Session| session.cycle_id())
        .await;
    execute(&site.pool, "UPDATE session SET user_id = 'bob'").await;
    assert_eq!(late.finish().await.status, 503);
    assert_eq!(site.user(&browser).await, "bob");
}

#[tokio::test]
async fn a_late_new_id_goes_with_a_change_of_the_same_user() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(OF_ADA)).await;
    let browser = browser_of_express(&site.app());
    let late = site
        .late(&browser, async |session: Session| {
            session.insert("a", 1)?;
            session.cycle_id()
        })
        .await;
    let changed = r#""cart":2,"passport":{"user":"ada"}"#;
    site.express_writes(SID, &stored(changed)).await;
    assert_eq!(late.finish().await.status, 200);
    assert_eq!(
        documents(&site).await,
        stored(&format!(r#"{changed},"a":1"#))
    );
}

/// A request that loaded the session in between is saved at the same time.
#[tokio::test]
async fn a_late_save_of_bob_is_saved_if_bob_is_signed_in_again() {
    let site = Site::of_migrated_express().await;
    let browser = browser_of_express(&site.app());
    let insert = async |session: Session| session.insert("late", 1);
    site.express_writes(SID, &stored(OF_BOB)).await;
    let of_bob = site.late(&browser, insert).await;
    site.express_writes(SID, &stored(OF_ADA)).await;
    let of_ada = site.late(&browser, insert).await;
    site.express_writes(SID, &stored(OF_BOB)).await;
    // Neither waits before its save is queued, so one task takes both.
    of_ada.go_on();
    of_bob.go_on();
    assert_eq!(of_ada.response().await.status, 503);
    assert_eq!(of_bob.response().await.status, 200);
    assert_eq!(
        documents(&site).await,
        stored(&format!(r#"{OF_BOB},"late":1"#))
    );
}
