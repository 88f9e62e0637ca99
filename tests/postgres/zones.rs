//! A session ends at its instant in every time zone of the server, database, role and connection,
//! over both changes of summer time, and with a wrong clock of the application.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::Router;
use axum_pg_session::{PgSessionLayer, PgSessionStore, Reaper, Session};
use dev_postgres::{Server, libfaketime};
use sqlx::AssertSqlSafe;

use crate::support::{
    Browser, Life, Rows, Site, app,
    child::passes,
    execute,
    page::app_with,
    skip::or_skip,
    texts,
    zone::{Place, Zoned},
};

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const ELSEWHERE: &str = "Pacific/Auckland";
const IDLE: f64 = 45.0 * MINUTE;
/// A twentieth of it, and what a loaded machine takes.
const PRECISION: f64 = IDLE / 20.0 + 60.0;

/// How `expiry` is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Timestamp,
    Timestamptz,
}

const KINDS: [Kind; 2] = [Kind::Timestamp, Kind::Timestamptz];

impl Kind {
    async fn create(self, owner: &sqlx::PgPool) {
        let sql = format!(
            "CREATE TABLE {} (id text PRIMARY KEY, expiry {self:?} NOT NULL, session json)",
            self.table()
        );
        execute(owner, &sql).await;
    }

    fn table(self) -> String {
        format!("kept_as_{self:?}").to_lowercase()
    }

    async fn store(self, zoned: &Zoned, zone: &str) -> PgSessionStore {
        self.create(&zoned.site.pool).await;
        let store = PgSessionStore::new(zoned.pool.clone())
            .table(self.table())
            .time_zone(zone);
        store.migrate().await.expect("columns to add");
        store
    }

    /// The instant at which a row ends.
    fn instant(self, zone: &str) -> String {
        match self {
            Self::Timestamp => format!("(expiry AT TIME ZONE '{zone}')"),
            Self::Timestamptz => "expiry".into(),
        }
    }
}

async fn lives_wherever_it_is_configured(zone: &str) {
    let server = Server::start().expect("a server");
    for place in Place::ALL {
        let zoned = Zoned::new(&server, place, zone).await;
        for kind in KINDS {
            let store = kind.store(&zoned, zone).await;
            let life = Life::of(&zoned.site.pool, &kind.table());
            match kind {
                Kind::Timestamp => {
                    life.on_the_clock_of(zone).is_whole(&store).await;
                    // The clock of the table need not be the connection's.
                    let other = store.clone().time_zone(ELSEWHERE);
                    let life = Life::of(&zoned.site.pool, &kind.table());
                    life.on_the_clock_of(ELSEWHERE).is_whole(&other).await;
                }
                Kind::Timestamptz => life.is_whole(&store).await,
            }
            lives_by_what_others_write(&zoned, &store, kind).await;
        }
    }
}

/// Another system on such a connection writes on the clock of its zone.
async fn lives_by_what_others_write(zoned: &Zoned, store: &PgSessionStore, kind: Kind) {
    let browser = Browser::with_session(&app(PgSessionLayer::new(store.clone()))).await;
    for (seconds, body) in [(60, "\"1\""), (-60, "none")] {
        let (table, moved) = (kind.table(), format!("now() + interval '{seconds} s'"));
        execute(&zoned.pool, &format!("UPDATE {table} SET expiry = {moved}")).await;
        let touched = PgSessionLayer::new(store.clone()).touch_if(|_, _| false);
        let response = browser.at(&app(touched)).peek("/get/a").await;
        assert_eq!(response.body, body, "{kind:?}, {seconds} s");
    }
}

#[tokio::test]
async fn sessions_live_in_berlin_wherever_postgres_is_told_so() {
    lives_wherever_it_is_configured("Europe/Berlin").await;
}

#[tokio::test]
async fn sessions_live_in_new_york_wherever_postgres_is_told_so() {
    lives_wherever_it_is_configured("America/New_York").await;
}

#[tokio::test]
async fn sessions_live_in_utc_wherever_postgres_is_told_so() {
    lives_wherever_it_is_configured("UTC").await;
}

#[tokio::test]
async fn sessions_live_in_kathmandu_wherever_postgres_is_told_so() {
    lives_wherever_it_is_configured("Asia/Kathmandu").await;
}

/// The change of the clocks of a zone, in seconds since the epoch.
#[derive(Clone, Copy, Debug)]
enum Change {
    Spring(f64),
    Autumn(f64),
    /// Of the clocks of another zone.
    Elsewhere(f64),
}

const BERLIN: [Change; 2] = [
    Change::Spring(1_806_195_600.0),
    Change::Autumn(1_824_944_400.0),
];
const NEW_YORK: [Change; 2] = [
    Change::Spring(1_805_007_600.0),
    Change::Autumn(1_825_567_200.0),
];

impl Change {
    fn at(self) -> f64 {
        match self {
            Self::Spring(at) | Self::Autumn(at) | Self::Elsewhere(at) => at,
        }
    }

    fn elsewhere(self) -> Self {
        Self::Elsewhere(self.at())
    }

    /// Whether a clock shows this instant's time once more, an hour later.
    fn will_repeat(self, instant: f64) -> bool {
        matches!(self, Self::Autumn(at) if (at - HOUR..at).contains(&instant))
    }
}

/// A visitor who comes once, and when that session is to end.
struct Leaver {
    browser: Browser,
    end: f64,
    has_ended: bool,
}

/// A table with a visitor who comes every half an hour, and others who leave.
struct Visited {
    name: String,
    rows: Rows,
    left: String,
    kind: Kind,
    store: PgSessionStore,
    app: Router,
    /// Looks without keeping anything alive.
    watch: Router,
    visitor: Browser,
    leavers: Vec<Leaver>,
    visits: u64,
    /// Kept for as long as its pools are in use.
    zoned: Arc<Zoned>,
}

impl Visited {
    async fn new(zoned: &Arc<Zoned>, place: Place, kind: Kind, zone: &str) -> Self {
        let store = kind.store(zoned, zone).await;
        let layer = || {
            PgSessionLayer::new(store.clone())
                .idle_timeout(Duration::from_secs_f64(IDLE))
                .absolute_timeout(None)
        };
        let app = app(layer());
        Self {
            name: format!("{kind:?} in {zone} by the {place:?}"),
            rows: Rows::new(zoned.site.pool.clone(), &kind.table()),
            left: format!(
                "SELECT extract(epoch FROM {} - now())::float8 FROM {} WHERE id = ",
                kind.instant(zone),
                kind.table()
            ),
            kind,
            watch: crate::support::app(layer().touch_if(|_, _| false)),
            visitor: Browser::new(&app),
            app,
            leavers: Vec::new(),
            visits: 0,
            store,
            zoned: zoned.clone(),
        }
    }

    async fn begin(&mut self) {
        self.visits = 0;
        self.visitor = Browser::new(&self.app);
        self.visitor.get("/insert/a/1").await;
    }

    /// What all visitors see half an hour later.
    async fn half_an_hour_later(&mut self, now: f64, change: Change) {
        self.visit(now, change).await;
        self.watch_the_leavers(now, change).await;
        let mut browser = Browser::new(&self.app);
        assert_eq!(browser.get("/insert/a/1").await.status, 200);
        assert_eq!(browser.peek("/get/a").await.body, "\"1\"", "{}", self.name);
        self.leavers.push(Leaver {
            browser: browser.at(&self.watch),
            end: now + IDLE,
            has_ended: false,
        });
        self.reap(now, change).await;
    }

    async fn visit(&mut self, now: f64, change: Change) {
        let name = format!("{} at {now}", self.name);
        assert_eq!(self.visitor.get("/get/a").await.body, "\"1\"", "{name}");
        self.visits += 1;
        let n = self.visitor.get("/increment/n").await.body;
        assert_eq!(n, self.visits.to_string(), "{name}");
        let handle = self.visitor.get("/id").await.body;
        let sql = format!("{}'{handle}'", self.left);
        let left: f64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.zoned.site.pool)
            .await
            .expect("its row");
        let may_repeat = change.will_repeat(now + left - HOUR) || change.will_repeat(now + left);
        let longest = match self.kind {
            Kind::Timestamp if may_repeat => IDLE + HOUR,
            _ => IDLE,
        };
        assert!(left > IDLE - PRECISION, "{name}: {left} s are left");
        assert!(left < longest + PRECISION, "{name}: {left} s are left");
        if self.visits.is_multiple_of(3) {
            assert_eq!(self.visitor.get("/cycle").await.status, 200, "{name}");
        }
    }

    async fn watch_the_leavers(&mut self, now: f64, change: Change) {
        self.leavers.retain(|leaver| now < leaver.end + 2.0 * HOUR);
        for leaver in &mut self.leavers {
            let late = match self.kind {
                Kind::Timestamp if change.will_repeat(leaver.end) => HOUR,
                _ => 0.0,
            };
            let is_alive = leaver.browser.peek("/get/a").await.body == "\"1\"";
            let name = format!("{} that ends at {}, at {now}", self.name, leaver.end);
            assert!(is_alive || now > leaver.end, "{name}: it ended early");
            assert!(!is_alive || now < leaver.end + late, "{name}: it lives on");
            assert!(!is_alive || !leaver.has_ended, "{name}: it came back");
            leaver.has_ended = !is_alive;
        }
    }

    /// All whose expiry has passed, and nothing else. An expiry in the hour that
    /// comes twice may be taken for the later one.
    async fn reap(&self, now: f64, change: Change) {
        let reaper = Reaper::new(self.store.clone());
        reaper.run_once().await.expect("rights");
        let stays = |leaver: &&Leaver| match self.kind {
            Kind::Timestamp if change.will_repeat(leaver.end) => now < leaver.end + HOUR,
            _ => false,
        };
        let leavers = self.leavers.iter();
        let (ended, alive): (Vec<_>, Vec<_>) = leavers.partition(|leaver| leaver.has_ended);
        let least = i64::try_from(alive.len()).expect("few") + 1;
        let most = least + i64::try_from(ended.iter().filter(|l| stays(l)).count()).expect("few");
        let rows = self.rows.count().await;
        assert!((least..=most).contains(&rows), "{}: {rows} rows", self.name);
    }

    async fn end(&mut self) {
        self.leavers.clear();
        self.rows.execute("DELETE FROM TABLE").await;
    }
}

/// Every half an hour from before the change until all that began before it
/// has ended.
async fn lives_through(server: &Server, tables: &mut [Visited], change: Change) {
    let set_clock = |minutes: i32| {
        let now = change.at() + f64::from(minutes) * MINUTE;
        let ahead = now - since_the_epoch();
        server.set_clock(ahead as i64).expect("a server");
        now
    };
    set_clock(-150);
    for table in tables.iter_mut() {
        table.begin().await;
    }
    for minutes in (-120..=180).step_by(30) {
        let now = set_clock(minutes);
        for table in tables.iter_mut() {
            table.half_an_hour_later(now, change).await;
        }
    }
    for table in tables {
        table.end().await;
    }
}

fn since_the_epoch() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs_f64()
}

async fn lives_through_the_changes(zone: &str, changes: [Change; 2]) {
    if or_skip(libfaketime()).is_none() {
        return;
    }
    let server = Server::builder().own_clock().start().expect("a server");
    let mut tables = Vec::new();
    for place in Place::ALL {
        let zoned = Arc::new(Zoned::new(&server, place, zone).await);
        for kind in KINDS {
            tables.push(Visited::new(&zoned, place, kind, zone).await);
        }
    }
    for change in changes {
        lives_through(&server, &mut tables, change).await;
    }
}

#[tokio::test]
async fn sessions_of_berlin_end_in_time_over_both_changes() {
    lives_through_the_changes("Europe/Berlin", BERLIN).await;
}

#[tokio::test]
async fn sessions_of_new_york_end_in_time_over_both_changes() {
    lives_through_the_changes("America/New_York", NEW_YORK).await;
}

#[tokio::test]
async fn sessions_of_utc_end_in_time_when_berlin_changes() {
    lives_through_the_changes("UTC", BERLIN.map(Change::elsewhere)).await;
}

#[tokio::test]
async fn sessions_of_kathmandu_end_in_time_when_new_york_changes() {
    lives_through_the_changes("Asia/Kathmandu", NEW_YORK.map(Change::elsewhere)).await;
}

/// The application's clock may be hours off that of the database.
#[tokio::test]
async fn an_application_whose_clock_is_wrong_ends_its_sessions_in_time() {
    let Some(library) = or_skip(libfaketime()) else {
        return;
    };
    let library = library.to_str().expect("a path of UTF-8");
    for wrong in ["+9h", "-9h", "+400d"] {
        passes(
            "zones::a_life_under_a_wrong_clock",
            [
                ("LD_PRELOAD", library),
                ("FAKETIME", wrong),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                ("FAKETIME_DISABLE_SHM", "1"),
            ],
        );
    }
}

#[tokio::test]
#[ignore = "a child of an_application_whose_clock_is_wrong_ends_its_sessions_in_time"]
async fn a_life_under_a_wrong_clock() {
    let site = Site::new().await;
    let now = texts(&site.pool, "SELECT extract(epoch FROM now())::text").await;
    let now: f64 = now[0].parse().expect("a number");
    let wrong = (since_the_epoch() - now).abs();
    assert!(wrong > 8.0 * HOUR, "the clock is wrong by {wrong} s only");
    Life::of(&site.pool, "session").is_whole(&site.store).await;

    let kind = Kind::Timestamp;
    kind.create(&site.pool).await;
    let store = site
        .store
        .clone()
        .table(kind.table())
        .time_zone("Europe/Berlin");
    let life = Life::of(&site.pool, &kind.table());
    life.on_the_clock_of("Europe/Berlin").is_whole(&store).await;

    let page = async |session: Session| {
        session.login("alice")?;
        session.save().await?;
        let is_recent = session.authenticated_within(Duration::from_mins(1));
        Ok::<_, axum_pg_session::Error>(is_recent.to_string())
    };
    let response = Browser::new(&app_with(site.layer(), page))
        .get("/page")
        .await;
    assert_eq!(response.body, "true");
    let cookie = &response.set_cookies()[0];
    assert_eq!(cookie.max_age(), Some(cookie::time::Duration::days(30)));
}
