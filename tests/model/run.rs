//! Many programs, several at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dev_postgres::{Lending, Pooler, Server};

use crate::{
    play::{TOO_SLOW, Violation, is_slow_to_break, play},
    program::{Call, End, Event, Program},
    random::fresh_seed,
    shrink::shrink,
    tell,
    world::Lane,
};

/// Seconds for which programs are played when nobody says how many.
const SECONDS: u64 = 30;
/// How often a program that broke a rule is played again to see it twice.
const TRIES: usize = 5;
/// Programs between two clean-ups of a lane's tables.
const VACUUM: u64 = 100;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    seed: u64,
    programs: Option<u64>,
    seconds: Option<u64>,
    lanes: usize,
    one: Option<Which>,
    kinds: usize,
}

#[derive(Clone, Debug)]
enum Which {
    Number(u64),
    Program(Box<Program>),
}

fn number(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value}")),
    )
}

impl Settings {
    pub(crate) fn from_environment() -> Self {
        let one = env::var("MODEL_PROGRAM").ok().map(|text| {
            text.parse().map_or_else(
                |_| {
                    let program = serde_json::from_str(&text).expect("a program");
                    Which::Program(Box::new(program))
                },
                Which::Number,
            )
        });
        let programs = number("MODEL_PROGRAMS");
        let seconds = number("MODEL_SECONDS").or(match programs {
            Some(_) => None,
            None => Some(SECONDS),
        });
        Self {
            seed: number("MODEL_SEED").unwrap_or_else(|| match programs {
                // What a change must pass does not depend on luck.
                None => 1,
                Some(_) => fresh_seed(),
            }),
            programs,
            seconds,
            lanes: usize::try_from(number("MODEL_LANES").unwrap_or(6)).expect("a small number"),
            one,
            kinds: usize::try_from(number("MODEL_VIOLATIONS").unwrap_or(1))
                .expect("a small number"),
        }
    }
}

/// A violation as it is told.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    index: u64,
    /// How many programs broke the rule in the same way.
    times: u64,
    violation: Violation,
    program: Program,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    seed: u64,
    pub(crate) played: u64,
    took: Duration,
    /// By what kind of program broke what rule.
    pub(crate) violations: BTreeMap<String, Found>,
    /// Those that were seen once and not again.
    unsteady: Vec<Found>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "program {} (and {} more like it) broke {}",
            self.index,
            self.times - 1,
            self.violation
        )?;
        write!(f, "{}", self.program)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = self.played as f64 / seconds;
        writeln!(
            f,
            "MODEL_SEED={}: {} programs in {seconds:.1} s ({rate:.0}/s), {} kinds of violations, {} seen once",
            self.seed,
            self.played,
            self.violations.len(),
            self.unsteady.len(),
        )?;
        for (kind, found) in &self.violations {
            writeln!(f, "[{kind}]\n{found}")?;
        }
        for found in &self.unsteady {
            writeln!(f, "[seen once] {found}")?;
        }
        Ok(())
    }
}

/// What lanes share.
struct Shared {
    settings: Settings,
    next: AtomicU64,
    played: AtomicU64,
    stop: AtomicBool,
    began: Instant,
    report: Mutex<Report>,
}

/// The transaction pooler that `DEV_POSTGRES_POOLER=transaction` asks for.
fn pooler(server: &Server) -> Option<Pooler> {
    match env::var("DEV_POSTGRES_POOLER").as_deref() {
        Err(_) | Ok("") => None,
        Ok("transaction") => {
            let pooler = Pooler::before(server, Lending::Transaction, 200);
            Some(pooler.expect("a PgBouncer"))
        }
        Ok(other) => panic!("DEV_POSTGRES_POOLER is {other}"),
    }
}

pub(crate) fn run(settings: &Settings) -> Report {
    tell(&format!("MODEL_SEED={}", settings.seed));
    let server = Server::builder()
        .setting("max_connections", "400")
        .setting("autovacuum", "off")
        .setting("synchronous_commit", "off")
        .setting("deadlock_timeout", "50ms")
        .start()
        .expect("a server");
    let pooler = pooler(&server);
    let through = pooler.as_ref().map(|pooler| pooler.url_of("postgres"));
    let shared = Arc::new(Shared {
        settings: settings.clone(),
        next: AtomicU64::new(0),
        played: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        began: Instant::now(),
        report: Mutex::new(Report {
            seed: settings.seed,
            ..Report::default()
        }),
    });
    let lanes = match settings.one {
        Some(_) => 1,
        None => settings.lanes,
    };
    let threads: Vec<_> = (0..lanes)
        .map(|number| {
            let (shared, url) = (Arc::clone(&shared), server.url());
            let through = through.clone();
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(shared.lane(number, &url, through.as_deref()));
                // The process ends soon. Its tasks may hold a session that is locked for good.
                std::mem::forget(runtime);
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    let shared = Arc::into_inner(shared).expect("all lanes have ended");
    let mut report = shared.report.into_inner().expect("no panic");
    report.played = shared.played.into_inner();
    report.took = shared.began.elapsed();
    report
}

impl Shared {
    async fn lane(&self, number: usize, url: &str, through: Option<&str>) {
        let mut lane = Lane::new(url, through, number).await;
        if let Some(one) = &self.settings.one {
            return self.one(&mut lane, one).await;
        }
        let mut since_vacuum = 0;
        while let Some(index) = self.take() {
            let program = Program::generate(self.settings.seed, index);
            if let Err(violation) = play(&mut lane, &program).await {
                self.broken(&mut lane, index, &program, violation).await;
            }
            self.played(1);
            since_vacuum += 1;
            if since_vacuum == VACUUM {
                since_vacuum = 0;
                lane.vacuum().await;
            }
        }
    }

    async fn one(&self, lane: &mut Lane, which: &Which) {
        let (index, program) = match which {
            Which::Number(index) => (*index, Program::generate(self.settings.seed, *index)),
            Which::Program(program) => (0, Program::clone(program)),
        };
        tell(&format!("{program}"));
        if let Err(violation) = play(lane, &program).await {
            tell(&format!("{violation}"));
            self.broken(lane, index, &program, violation).await;
        }
        self.played(1);
    }

    fn take(&self) -> Option<u64> {
        let seconds = self.settings.seconds.map(Duration::from_secs);
        if self.stop.load(Ordering::Relaxed)
            || seconds.is_some_and(|seconds| self.began.elapsed() >= seconds)
        {
            return None;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        match self.settings.programs {
            Some(programs) if index >= programs => None,
            _ => Some(index),
        }
    }

    fn played(&self, more: u64) {
        let played = self.played.fetch_add(more, Ordering::Relaxed) + more;
        if played.is_multiple_of(10_000) {
            let report = self.report.lock().expect("no panic");
            tell(&format!(
                "{played} programs after {} s, {} kinds of violations, {} seen once",
                self.began.elapsed().as_secs(),
                report.violations.len(),
                report.unsteady.len()
            ));
        }
    }

    /// A violation counts if it comes again.
    async fn broken(&self, lane: &mut Lane, index: u64, program: &Program, violation: Violation) {
        let mut again = None;
        for _ in 0..TRIES {
            if let Err(second) = play(lane, program).await
                && (second.took < TOO_SLOW || is_slow_to_break(second.rule))
            {
                again = Some(second);
                break;
            }
        }
        let Some(again) = again else {
            let found = Found {
                index,
                times: 1,
                violation,
                program: program.clone(),
            };
            tell(&format!("[seen once] {found}"));
            self.report.lock().expect("no panic").unsteady.push(found);
            return;
        };
        let (program, violation) = shrink(lane, program, &again).await;
        let kind = kind_of(&program, &violation);
        let mut report = self.report.lock().expect("no panic");
        let known = report.violations.get_mut(&kind);
        if let Some(known) = known {
            known.times += 1;
            if index < known.index {
                known.index = index;
            }
            return;
        }
        let found = Found {
            index,
            times: 1,
            violation,
            program,
        };
        tell(&format!("[{kind}] {found}"));
        report.violations.insert(kind, found);
        if report.violations.len() >= self.settings.kinds {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Violations are of one kind when programs with the same kinds of calls break
/// the same rule.
fn kind_of(program: &Program, violation: &Violation) -> String {
    let mut words = BTreeSet::new();
    for event in &program.events {
        match event {
            Event::Call { call, .. } => words.extend(word(call)),
            Event::SaveInFlight {
                meanwhile, others, ..
            } => {
                words.insert("SaveInFlight".into());
                words.extend(meanwhile.iter().filter_map(word));
                words.extend((!others.is_empty()).then(|| "Others".into()));
            }
            Event::EndInFlight { .. } => {
                words.insert("EndInFlight".into());
            }
            Event::Afterwards { call, .. } => {
                words.insert("Afterwards".into());
                words.extend(word(call));
            }
            Event::End { end, .. } if *end != End::Ok => {
                words.insert(format!("{end:?}"));
            }
            Event::EndTooLate { .. } => {
                words.insert("TooLate".into());
            }
            Event::Admin(admin) => words.extend(first_word(&format!("Admin::{admin:?}"))),
            Event::PlantUnknown { .. } => {
                words.insert("PlantUnknown".into());
            }
            Event::Deploy(_) | Event::TimePasses(_) | Event::Wait => {
                words.extend(first_word(&format!("{event:?}")));
            }
            Event::Start {
                beside: Some(_), ..
            } => {
                words.insert("Beside".into());
            }
            Event::End { .. }
            | Event::Plant { .. }
            | Event::EndTogether { .. }
            | Event::Start { .. } => {}
        }
    }
    let words: Vec<_> = words.into_iter().collect();
    format!("{}: {}", violation.rule, words.join(" "))
}

fn first_word(text: &str) -> Option<String> {
    text.split(['(', ' ', '{']).next().map(str::to_owned)
}

/// The name of a call, but for those that stand for no more than a session.
fn word(call: &Call) -> Option<String> {
    match call {
        Call::Insert(_) | Call::Get(_) | Call::Keys | Call::UserId => None,
        Call::Logout => Some("Destroy".into()),
        call => first_word(&format!("{call:?}")),
    }
}
