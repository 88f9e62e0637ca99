//! Visitors who keep coming while something fails.

use std::{
    io::{Write as _, stderr},
    sync::Arc,
    time::Duration,
};

use dev_postgres::Server;
use sqlx::Row as _;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{Site, Visitor, place::connect, visitor::Reply};

const VISITORS: usize = 12;
/// Between two requests of one visitor.
const PAUSE: Duration = Duration::from_millis(5);
/// Successes of each visitor after a recovery, of reading and of writing.
const ENOUGH: u32 = 4;
/// For what is sure to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// What a visitor does besides counting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Habit {
    Count,
    /// Also calls `cycle_id`.
    Cycle,
}

pub(crate) struct Crowd {
    news: Arc<News>,
    coming: JoinSet<Visitor>,
    looking: JoinSet<()>,
}

/// What the visitors report, and when the fault is over.
struct News {
    refused: watch::Sender<u64>,
    served: watch::Sender<u64>,
    /// Requests from then on must be served.
    recovered: watch::Sender<Option<Instant>>,
    first_served: watch::Sender<Option<Instant>>,
}

impl Crowd {
    pub(crate) async fn enter(site: &Site) -> Self {
        Self::with_habit(site, Habit::Count).await
    }

    pub(crate) async fn with_habit(site: &Site, habit: Habit) -> Self {
        let mut visitors = Vec::new();
        for number in 0..VISITORS {
            visitors.push(Visitor::enter(site, format!("visitor-{number}")).await);
        }
        Self::of(visitors, habit)
    }

    /// Visitors who have their sessions already.
    pub(crate) fn of(visitors: Vec<Visitor>, habit: Habit) -> Self {
        let news = Arc::new(News {
            refused: watch::Sender::new(0),
            served: watch::Sender::new(0),
            recovered: watch::Sender::new(None),
            first_served: watch::Sender::new(None),
        });
        let mut looking = JoinSet::new();
        looking.spawn(look(visitors[0].clone()));
        let mut coming = JoinSet::new();
        for visitor in visitors {
            coming.spawn(come(visitor, habit, Arc::clone(&news)));
        }
        Self {
            news,
            coming,
            looking,
        }
    }

    /// The fault has been felt by so many requests.
    pub(crate) async fn refused(&self, more: u64) {
        self.rises(&self.news.refused, more, "no more requests are refused")
            .await;
    }

    pub(crate) async fn served(&self, more: u64) {
        self.rises(&self.news.served, more, "no more requests are served")
            .await;
    }

    /// Requests that were refused and served so far.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (*self.news.refused.borrow(), *self.news.served.borrow())
    }

    async fn rises(&self, count: &watch::Sender<u64>, more: u64, otherwise: &str) {
        let mut count = count.subscribe();
        let goal = *count.borrow() + more;
        let reached = tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= goal));
        drop(reached.await.expect(otherwise));
    }

    /// The fault is over: requests from now on are served. Checks this, prints how long it took, and
    /// checks what is stored.
    pub(crate) async fn recovers(self, fault: &str, server: &Server) {
        let strangers = self.recovers_among_others(fault, server).await;
        assert!(
            strangers.is_empty(),
            "sessions without a visitor: {strangers:?}"
        );
    }

    /// As [`recovers`](Self::recovers), on a server that others use too. Returns
    /// what is stored of them.
    pub(crate) async fn recovers_among_others(
        mut self,
        fault: &str,
        server: &Server,
    ) -> Vec<(String, i64)> {
        let recovered = Instant::now();
        self.news.recovered.send_replace(Some(recovered));
        let visitors = tokio::time::timeout(PATIENCE, visitors_of(&mut self.coming));
        let visitors = visitors.await.expect("all visitors are served again");
        self.looking.abort_all();
        while let Some(looked) = self.looking.join_next().await {
            assert!(looked.is_err_and(|error| error.is_cancelled()));
        }
        let first = self
            .news
            .first_served
            .borrow()
            .expect("a visitor was served");
        let took = (first - recovered).as_millis();
        let refused = self.news.refused.borrow();
        let summary = format!("recovery | {fault} | {took} ms | {} refused", *refused);
        writeln!(stderr(), "{summary}").expect("stderr is open");
        check(&visitors, server).await
    }
}

async fn visitors_of(coming: &mut JoinSet<Visitor>) -> Vec<Visitor> {
    let mut visitors = Vec::new();
    while let Some(visitor) = coming.join_next().await {
        visitors.push(visitor.expect("no panic"));
    }
    visitors
}

async fn come(mut visitor: Visitor, habit: Habit, news: Arc<News>) -> Visitor {
    let mut served_since = 0;
    for turn in 0.. {
        if served_since == ENOUGH {
            break;
        }
        let is_over = news.recovered.borrow().is_some();
        let response = match (turn % 2, habit) {
            (0, _) => visitor.add().await,
            (_, Habit::Count) => visitor.show().await,
            (_, Habit::Cycle) => visitor.cycle().await,
        };
        news.hear(response, is_over);
        served_since += u32::from(is_over);
        tokio::time::sleep(PAUSE).await;
    }
    visitor
}

impl News {
    fn hear(&self, response: Reply, is_over: bool) {
        if is_over {
            assert_eq!(response, Reply::Served, "asked after the recovery");
            self.first_served.send_modify(|first| {
                first.get_or_insert_with(Instant::now);
            });
        }
        let counter = match response {
            Reply::Served => &self.served,
            Reply::Refused => &self.refused,
        };
        counter.send_modify(|count| *count += 1);
    }
}

async fn look(mut visitor: Visitor) {
    loop {
        visitor.look_at_a_plain_page().await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Each visitor has one session, with what the ledger says. Returns what else
/// is stored.
async fn check(visitors: &[Visitor], server: &Server) -> Vec<(String, i64)> {
    let sql = "SELECT session ->> 'name', (session ->> 'count')::bigint \
               FROM session WHERE session ->> 'name' IS NOT NULL";
    let rows = sqlx::query(sql).fetch_all(&mut connect(server).await).await;
    let mut stored: Vec<(String, i64)> = rows
        .expect("rows")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for visitor in visitors {
        let place = stored.iter().position(|(name, _)| *name == visitor.name);
        let (_, count) = stored.swap_remove(place.expect("a session for each visitor"));
        visitor.check(count.try_into().expect("it counts from 0"));
    }
    stored
}
