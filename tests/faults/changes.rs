//! The table changes, or is damaged, while a site runs.

use std::{
    fs::OpenOptions,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
};

use dev_postgres::{Server, Shutdown};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, pool::PoolConnection};

use crate::{
    settings::text,
    support::{
        Crowd, Place, Visitor,
        crowd::Habit,
        place::{CONNECTIONS, execute},
        visitor::Reply,
    },
};

/// Each connection of the pool has prepared the statements for the table as it
/// was.
async fn outlived(change: &str) {
    let place = Place::new().await;
    let crowd = Crowd::enter(&place.app()).await;
    crowd.served(200).await;
    let before = crowd.so_far().0;
    place.execute(change).await;
    crowd.served(100).await;
    let refused = crowd.so_far().0 - before;
    assert_eq!(refused, 0, "{change}");
    crowd.recovers(change, &place.server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_type_of_the_id_costs_no_request() {
    outlived("ALTER TABLE session ALTER id TYPE varchar(100)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_type_of_the_expiry_costs_no_request() {
    let change = "ALTER TABLE session ALTER expiry TYPE timestamp USING expiry AT TIME ZONE 'UTC'";
    outlived(change).await;
}

/// Nothing was written yet on the only connection, so the statement that saves
/// is first prepared for the changed table.
#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_changes_before_the_first_save_costs_nothing() {
    let change = "ALTER TABLE session ALTER expiry TYPE timestamp USING expiry AT TIME ZONE 'UTC'";
    for path in ["/enter/visitor-0", "/add", "/cycle"] {
        let place = Place::new().await;
        let visitor = Visitor::enter(&place.app(), "visitor-0".into()).await;
        // Connections that have prepared nothing.
        place.stop(Shutdown::Fast);
        place.start_again();
        let _held = hold_all_but_one(&place.pool).await;
        let mut during = visitor.at(&place.app_with(change));
        assert_eq!(during.status_of(path).await, 200, "{path}");
        assert_eq!(during.at(&place.app()).status_of("/show").await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_changes_before_the_first_end_hides_no_end() {
    for how in ["one", "of the user", "everyone"] {
        let place = Place::new().await;
        Visitor::enter(&place.app(), "visitor-0".into()).await;
        place.execute("UPDATE session SET user_id = 'ann'").await;
        place
            .execute(
                "ALTER TABLE session ALTER expiry TYPE timestamp USING expiry AT TIME ZONE 'UTC'",
            )
            .await;
        let id = text(&place.server, "SELECT id FROM session").await;
        let ended = match how {
            "one" => place
                .store
                .destroy(&id.parse().expect("a handle"))
                .await
                .map(u64::from),
            "of the user" => place.store.user("ann").destroy_all().await,
            _ => place.store.destroy_everyone().await,
        };
        assert_eq!(ended.expect("an end"), 1, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_type_of_the_user_costs_no_new_id() {
    let place = Place::new().await;
    let crowd = Crowd::with_habit(&place.app(), Habit::Cycle).await;
    crowd.served(200).await;
    let before = crowd.so_far().0;
    place
        .execute("ALTER TABLE session ALTER user_id TYPE varchar(100)")
        .await;
    crowd.served(100).await;
    assert_eq!(crowd.so_far().0 - before, 0);
    crowd
        .recovers("type of user_id changed", &place.server)
        .await;
}

/// A page of the disk came back as zeros: all that one large document consists
/// of is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_document_fails_only_the_requests_of_its_session() {
    let place = Place::new().await;
    let mut unlucky = Visitor::enter(&place.app(), "unlucky".into()).await;
    unlucky.carry_much().await;
    let toast = toast_of_sessions(&place.server).await;
    execute(&place.server, "CHECKPOINT").await;
    place.stop(Shutdown::Fast);
    overwrite_with_zeros(&toast);
    place.start_again();
    let (crowd, _together) = fails_alone(&place, &mut unlucky).await;
    let id = text(
        &place.server,
        "SELECT id FROM session ORDER BY created LIMIT 1",
    )
    .await;
    let id = id.parse().expect("a handle");
    assert!(place.store.destroy(&id).await.expect("an end"));
    crowd.recovers("damaged document", &place.server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_document_keeps_no_user_signed_in() {
    let place = Place::new().await;
    let mut unlucky = Visitor::enter(&place.app(), "unlucky".into()).await;
    unlucky.carry_much().await;
    for number in 0..12 {
        Visitor::enter(&place.app(), format!("visitor-{number}")).await;
    }
    let toast = toast_of_sessions(&place.server).await;
    execute(&place.server, "CHECKPOINT").await;
    place.stop(Shutdown::Fast);
    overwrite_with_zeros(&toast);
    place.start_again();
    assert_eq!(place.store.destroy_everyone().await.expect("an end"), 13);
}

/// Sees that the requests of others succeed, which share statements with those of
/// this visitor as long as the connections are held.
async fn fails_alone(
    place: &Place,
    unlucky: &mut Visitor,
) -> (Crowd, Vec<PoolConnection<Postgres>>) {
    let mut others = Vec::new();
    for number in 0..12 {
        others.push(Visitor::enter(&place.app(), format!("visitor-{number}")).await);
    }
    let together = hold_all_but_one(&place.pool).await;
    let crowd = Crowd::of(others, Habit::Count);
    for _ in 0..20 {
        assert_eq!(unlucky.status_of("/show").await, 500);
    }
    assert_eq!(crowd.so_far().0, 0, "others were refused");
    crowd.served(10).await;
    (crowd, together)
}

/// So that the visitors share statements.
async fn hold_all_but_one(pool: &PgPool) -> Vec<PoolConnection<Postgres>> {
    let mut held = Vec::new();
    for _ in 1..CONNECTIONS {
        held.push(pool.acquire().await.expect("a connection"));
    }
    held
}

async fn toast_of_sessions(server: &Server) -> String {
    let file = "SELECT current_setting('data_directory') || '/' || pg_relation_filepath(reltoastrelid) \
                FROM pg_class WHERE oid = 'session'::regclass";
    text(server, file).await
}

fn overwrite_with_zeros(file: &str) {
    let mut file = OpenOptions::new()
        .write(true)
        .open(Path::new(file))
        .expect("the file");
    let length = file.metadata().expect("a length").len();
    assert!(length > 0, "nothing was written");
    file.seek(SeekFrom::Start(0)).expect("a file");
    let zeros = vec![0; usize::try_from(length).expect("it is small")];
    file.write_all(&zeros).expect("room");
}

/// A database without an encoding keeps what no text of ours is.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_fail_only_the_requests_of_their_session() {
    let place = Place::new().await;
    let name =
        "CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'";
    execute(&place.server, name).await;
    let place = place.in_database("bytes").await;
    let mut unlucky = Visitor::enter(&place.app(), "unlucky".into()).await;
    let sql = r"SET client_encoding = 'SQL_ASCII'; UPDATE session SET session = convert_from('\x7b226e616d65223a22ff227d', 'SQL_ASCII')::json";
    let mut writing = PgConnection::connect(&place.server.url_of("bytes"))
        .await
        .expect("a connection");
    sqlx::raw_sql(sql)
        .execute(&mut writing)
        .await
        .expect("a row");
    fails_alone(&place, &mut unlucky).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_is_served_after_the_table_was_altered_on_a_pool_of_one() {
    let place = Place::new().await;
    let _held = hold_all_but_one(&place.pool).await;
    let mut visitor = Visitor::enter(&place.app(), "visitor-0".into()).await;
    for new_type in ["varchar(100)", "text"] {
        place
            .execute(&format!("ALTER TABLE session ALTER id TYPE {new_type}"))
            .await;
        assert_eq!(visitor.show().await, Reply::Served);
        assert_eq!(visitor.add().await, Reply::Served);
    }
}
