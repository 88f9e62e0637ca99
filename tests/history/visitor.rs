//! A client. The seed determines its requests.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::sync::watch;

use crate::{
    browser::Browser,
    copies::Copies,
    line::{Line, Reply},
    random::Random,
    record::{Doubt, Entry, Life, Outcome, Record, Token},
    site::Deed,
    socket,
};

pub(crate) const KEYS: [&str; 3] = ["a", "b", "c"];

/// Longer than any mixture of slow statements and lost attempts.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a visitor with a session does, and how often.
const DEEDS: [(u64, Deed); 13] = [
    (14, Deed::Read),
    (18, Deed::Increment),
    (18, Deed::Append),
    (5, Deed::AppendEarly),
    (18, Deed::Insert),
    (6, Deed::Remove),
    (4, Deed::Clear),
    (5, Deed::Cycle),
    (4, Deed::CycleAndAppend),
    (4, Deed::Login),
    (1, Deed::Destroy),
    (1, Deed::EndUser),
    (4, Deed::Fail),
];

/// What a thief tries with a cookie that a visitor held before.
const THEFTS: [(u64, Deed); 6] = [
    (4, Deed::Read),
    (2, Deed::Append),
    (1, Deed::Insert),
    (1, Deed::Cycle),
    (1, Deed::Login),
    (1, Deed::Destroy),
];

pub(crate) struct Visitor {
    random: Random,
    record: Arc<Record>,
    copies: Arc<Copies>,
    browser: Arc<Browser>,
    lines: Vec<Option<Line>>,
    /// Not where the record is taken in parts: a socket may outlive one.
    opens_sockets: bool,
}

#[derive(Clone, Copy)]
enum Manner {
    /// With the browser's cookie; without one a session is begun.
    Honest,
    Thief,
    /// With an unknown token.
    Stranger,
    Reap,
    /// Of the session of the browser's cookie, in a task of its own.
    Socket,
}

/// What came of a request.
enum Sent {
    Responded(Reply),
    /// By something that was done to it.
    Lost(Doubt),
    /// By the server alone.
    Forgotten(&'static str),
}

/// A request whose copy of the server is not chosen yet.
struct Plan {
    life: Option<Life>,
    token: Option<Token>,
    deed: Deed,
}

impl Visitor {
    pub(crate) fn new(
        random: Random,
        record: Arc<Record>,
        copies: Arc<Copies>,
        browser: Arc<Browser>,
    ) -> Self {
        Self {
            random,
            record,
            lines: (0..copies.number()).map(|_| None).collect(),
            copies,
            browser,
            opens_sockets: false,
        }
    }

    pub(crate) async fn visit(&mut self, times: u64) {
        self.opens_sockets = true;
        for _ in 0..times {
            self.visit_once().await;
        }
    }

    /// With pauses that are this long on average.
    pub(crate) async fn visit_until(&mut self, over: watch::Receiver<bool>, pause: Duration) {
        while !*over.borrow() {
            self.visit_once().await;
            let pause = pause.mul_f64(self.random.below(2_000) as f64 / 1e3);
            tokio::time::sleep(pause).await;
        }
    }

    async fn visit_once(&mut self) {
        let manners = [
            (88, Manner::Honest),
            (6, Manner::Thief),
            (2, Manner::Stranger),
            (2, Manner::Reap),
            (2, Manner::Socket),
        ];
        match self.random.weighted(&manners) {
            Manner::Honest => self.browse().await,
            Manner::Thief => self.steal().await,
            Manner::Stranger => self.send_an_unknown_cookie().await,
            Manner::Reap => self.reap().await,
            Manner::Socket if self.opens_sockets => self.open_a_socket(),
            Manner::Socket => self.browse().await,
        }
    }

    async fn browse(&mut self) {
        let deed = self.random.weighted(&DEEDS);
        let browser = Arc::clone(&self.browser);
        {
            let _page = browser.pages.read().await;
            if browser.current().is_some() {
                return self.act(deed).await;
            }
        }
        let _alone = browser.pages.write().await;
        match browser.current() {
            Some(_) => self.act(deed).await,
            None => self.begin().await,
        }
    }

    /// The jar's cookie is read when the request is sent, as a browser does.
    async fn act(&mut self, deed: Deed) {
        let Some((token, life)) = self.browser.current() else {
            return;
        };
        let plan = Plan {
            deed: allowed(deed, life),
            life: Some(life),
            token: Some(token),
        };
        let entry = self.ask(plan).await;
        self.browser.accept(&entry);
        self.record.keep(entry);
    }

    /// What the jar's cookie opens when all is over.
    pub(crate) async fn look_once_more(&mut self) {
        self.act(Deed::Read).await;
    }

    /// Sometimes with a planted cookie: an unknown one, or one that the
    /// browser held before. The latter may still open its session, for example
    /// if a new id was undone because its response was not delivered. Then the
    /// page begins nothing, and the request is a read of that session.
    async fn begin(&mut self) {
        let (token, owner) = match self.random.below(8) {
            0 => (Some(unknown_token(&mut self.random)), None),
            1 => self.stolen().unzip(),
            _ => (None, None),
        };
        let plan = Plan {
            life: Some(self.record.new_life()),
            token,
            deed: Deed::Begin,
        };
        let mut entry = self.ask(plan).await;
        if entry.seen().is_some_and(|seen| seen.owner.is_some()) {
            entry.deed = Deed::Read;
            entry.life = owner;
        } else {
            self.browser.accept(&entry);
        }
        self.record.keep(entry);
    }

    fn stolen(&mut self) -> Option<(Token, Life)> {
        let earlier = self.browser.earlier();
        // Young cookies have forwardings, old ones are forgotten.
        let young = &earlier[earlier.len().saturating_sub(4)..];
        let among = if self.random.one_in(3) {
            &earlier
        } else {
            young
        };
        self.random.pick(among).cloned()
    }

    async fn steal(&mut self) {
        let deed = self.random.weighted(&THEFTS);
        let Some((token, life)) = self.stolen() else {
            return self.browse().await;
        };
        let plan = Plan {
            life: Some(life),
            token: Some(token),
            deed,
        };
        let entry = self.ask(plan).await;
        self.record.keep(entry);
    }

    async fn send_an_unknown_cookie(&mut self) {
        let plan = Plan {
            life: None,
            token: Some(unknown_token(&mut self.random)),
            deed: Deed::Append,
        };
        let entry = self.ask(plan).await;
        self.record.keep(entry);
    }

    fn open_a_socket(&mut self) {
        let number = self.copies.number() as u64;
        let index = usize::try_from(self.random.below(number)).expect("few copies");
        if let (Some((token, life)), Some(port)) = (self.browser.current(), self.copies.port(index))
        {
            socket::open(Arc::clone(&self.record), port, token, life);
        }
    }

    async fn reap(&mut self) {
        let response = self.send("/reap", None, PATIENCE).await;
        self.record.keep_reaping(match response {
            Sent::Responded(response) => Some(response.status),
            Sent::Lost(_) | Sent::Forgotten(_) => None,
        });
    }

    async fn ask(&mut self, plan: Plan) -> Entry {
        let number = self.record.number();
        let key = self.random.pick(&KEYS).expect("there are keys");
        let path = self.path(&plan, number, key);
        let patience = match self.random.one_in(25) {
            true => Duration::from_micros(self.random.below(10_000)),
            false => PATIENCE,
        };
        let sent = self.record.now();
        let response = self.send(&path, plan.token.as_deref(), patience).await;
        Entry {
            number,
            life: plan.life,
            token: plan.token,
            deed: plan.deed,
            key,
            sent,
            ended: self.record.now(),
            outcome: match response {
                Sent::Responded(response) => response.outcome(plan.deed),
                Sent::Lost(doubt) => Outcome::InDoubt(doubt),
                Sent::Forgotten(how) => Outcome::Strange(how.to_owned()),
            },
        }
    }

    /// Half of the pages pause between reading and writing, so that others
    /// come between.
    fn path(&mut self, plan: &Plan, number: u64, key: &str) -> String {
        let deed = plan.deed;
        let value = match deed {
            Deed::Begin => plan.life.unwrap_or_default(),
            _ => number,
        };
        let pause = match self.random.one_in(2) {
            true => self.random.below(6),
            false => 0,
        };
        format!("/{deed:?}/{value}/{key}/{pause}")
    }

    async fn send(&mut self, path: &str, token: Option<&str>, patience: Duration) -> Sent {
        let copy = self.random.next();
        let index = self.connect(copy).await;
        let line = self.lines[index].as_mut().expect("it was just connected");
        let port = line.port;
        let response = line.get(path, token, patience).await;
        if response.is_err() {
            self.lines[index] = None;
        }
        match response {
            Ok(response) => Sent::Responded(response),
            Err(Doubt::Cancelled) if patience == PATIENCE => Sent::Forgotten("no response in time"),
            Err(Doubt::ConnectionLost) if !self.copies.was_killed(port).await => {
                Sent::Forgotten("a server that was not killed closed the connection")
            }
            Err(doubt) => Sent::Lost(doubt),
        }
    }

    /// A line to the copy that was chosen, or to the next one that runs.
    async fn connect(&mut self, chosen: u64) -> usize {
        let number = self.copies.number() as u64;
        for next in chosen % number.. {
            let index = usize::try_from(next % number).expect("few copies");
            if self.reaches(index).await {
                return index;
            }
            tokio::task::yield_now().await;
        }
        unreachable!("one copy at a time is down")
    }

    async fn reaches(&mut self, index: usize) -> bool {
        let Some(port) = self.copies.port(index) else {
            return false;
        };
        if self.lines[index]
            .as_ref()
            .is_none_or(|line| !line.leads_to(port))
        {
            self.lines[index] = Line::open(port).await;
        }
        self.lines[index].is_some()
    }
}

/// A third of the sessions are cleared now and then; in the others every
/// increment can be counted to the end.
fn allowed(deed: Deed, life: Life) -> Deed {
    match deed {
        Deed::Clear if !life.is_multiple_of(3) => Deed::Increment,
        deed => deed,
    }
}

/// Well-formed, and unknown.
fn unknown_token(random: &mut Random) -> Token {
    let bytes = [(); 4].map(|()| random.next().to_be_bytes()).concat();
    URL_SAFE_NO_PAD.encode(bytes).into()
}
