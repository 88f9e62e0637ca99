//! Programs: what several requests do to the sessions of several cookie jars,
//! step by step.
//!
//! A program is a list of events. An event that makes no sense where it
//! stands, such as a call of a request that has not begun, is skipped, so any
//! part of a program is a program too: that keeps shrinking simple.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Requests of a program, at the most.
pub(crate) const REQUESTS: u8 = 5;
/// Cookie jars of a program: a victim, an attacker, a second visitor.
pub(crate) const JARS: u8 = 3;
/// Breaks of a program, at the most.
const BREAKS: u32 = 3;
/// Keys that handlers use freely.
pub(crate) const KEYS: [&str; 3] = ["k0", "k1", "k2"];
/// A session that holds it is refused by `valid_if`, where the layer has one.
pub(crate) const BAD: &str = "bad";
/// A session that holds it is refused by `before_save`, where the layer has
/// one that fails.
pub(crate) const FAIL: &str = "fail";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) options: Options,
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Format {
    Native,
    Koa,
    Express,
    ThreeColumns,
}

impl Format {
    /// Whether the table is one of another application.
    pub(crate) fn is_foreign(self) -> bool {
        matches!(self, Self::Koa | Self::Express)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Limit {
    None,
    EndOldest(u32),
    Refuse(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BeforeSave {
    None,
    /// Fails for a session that holds [`FAIL`].
    Fails,
    /// Writes a key of its own.
    Writes,
}

/// The timeouts that a deployment sets in its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deployment {
    Default,
    /// An idle timeout of a quarter of an hour.
    ShortIdle,
    /// An idle timeout of 30 days, and an absolute one of a year.
    Long,
    /// An absolute timeout of six hours.
    ShortAbsolute,
}

/// How long nobody sends a request. No sum of these comes near a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Break {
    TwentyMinutes,
    SevenHours,
    FiveDays,
}

impl Break {
    pub(crate) fn seconds(self) -> u32 {
        match self {
            Self::TwentyMinutes => 20 * 60,
            Self::SevenHours => 7 * 3600,
            Self::FiveDays => 5 * 24 * 3600,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    pub(crate) format: Format,
    pub(crate) limit: Limit,
    pub(crate) allow_empty: bool,
    /// A touch interval of zero.
    pub(crate) touches_always: bool,
    pub(crate) valid_if: bool,
    pub(crate) before_save: BeforeSave,
    pub(crate) signed: bool,
    /// Saves what a failed handler did.
    pub(crate) saves_on_failure: bool,
    pub(crate) continues_on_failure: bool,
    /// A second layer around the first one, with another cookie.
    pub(crate) two_layers: bool,
    /// Cookies go with the browser, unless a session has another choice.
    pub(crate) browser_cookies: bool,
    /// What is deployed when the program begins.
    pub(crate) deployment: Deployment,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::Native,
            limit: Limit::None,
            allow_empty: false,
            touches_always: false,
            valid_if: false,
            before_save: BeforeSave::None,
            signed: false,
            saves_on_failure: false,
            continues_on_failure: false,
            two_layers: false,
            browser_cookies: false,
            deployment: Deployment::Default,
        }
    }
}

/// How a handler gets its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Taking {
    /// With the extractor, before anything else.
    Extracted,
    /// With `LazySession::load`, at the first call.
    Lazily,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A request of this jar arrives at one of two stores.
    Start {
        request: u8,
        jar: u8,
        store: u8,
        taking: Taking,
        /// A jar whose cookies the request carries too.
        beside: Option<u8>,
    },
    Call {
        request: u8,
        layer: u8,
        call: Call,
    },
    /// `save` while every write of the table waits. The calls are made
    /// meanwhile.
    SaveInFlight {
        request: u8,
        layer: u8,
        /// Whether the handler stops waiting for it.
        gives_up: bool,
        meanwhile: Vec<Call>,
        /// What other requests do meanwhile, and whether this one is cancelled.
        #[serde(default)]
        others: Vec<Event>,
    },
    /// The handler returns while every write of the table waits.
    EndInFlight {
        request: u8,
        /// Whether the request is cancelled while it waits.
        cancels: bool,
        others: Vec<Event>,
    },
    End {
        request: u8,
        end: End,
    },
    /// The handler returns, and what it inserts is committed only after the
    /// store has given up.
    EndTooLate {
        request: u8,
    },
    /// The handlers return at the same moment.
    EndTogether {
        requests: Vec<u8>,
    },
    /// A handle of the session that outlives the response.
    Afterwards {
        request: u8,
        layer: u8,
        call: Call,
    },
    Admin(Admin),
    /// The jar gets another one's cookies: what an attacker plants, or copies.
    Plant {
        from: u8,
        to: u8,
    },
    /// The jar gets a token that opens nothing.
    PlantUnknown {
        jar: u8,
        well_formed: bool,
    },
    /// Requests that begin from now on are those of this deployment.
    Deploy(Deployment),
    /// While no request runs.
    TimePasses(Break),
    /// A moment of the real time, in which requests hold their sessions.
    Wait,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Call {
    Get(u8),
    GetAsNumber(u8),
    GetByKey(u8),
    ContainsKey(u8),
    Keys,
    IsEmpty,
    IsNew,
    Id,
    UserId,
    AuthenticatedWithin,
    ExpiresAt,
    Insert(u8),
    InsertNumber(u8),
    /// A number with as many digits as a float has.
    InsertFloat(u8),
    InsertByKey(u8),
    InsertReserved,
    InsertBad,
    InsertFail,
    Update(u8),
    /// By a closure that uses its own session.
    UpdateInside(u8),
    Remove(u8),
    RemoveBad,
    Clear,
    Replace(u8),
    TypedGet,
    TypedUpdate(u8),
    CycleId,
    Login {
        user: u8,
        discard_data: bool,
        /// Not in the programs of former versions.
        #[serde(default)]
        end_others: bool,
        #[serde(default)]
        keep_settings: bool,
        expiry: ExpiryChoice,
        cookie: CookieChoice,
    },
    Logout,
    Destroy,
    Discard,
    Touch,
    SetExpiry(ExpiryChoice),
    SetCookieLifetime(CookieChoice),
    Save,
    Take(u8),
    UpdateNow(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExpiryChoice {
    Default,
    Idle,
    Timeouts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CookieChoice {
    Default,
    Browser,
    Session,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Ok,
    NotFound,
    ServerError,
    /// The handler returns 408 itself.
    Timeout,
    /// The browser never gets the response.
    Lost,
    /// Caught outside of the session layer.
    PanicOutside,
    /// Caught inside of the session layer, which gets a 500.
    PanicInside,
    /// The future is dropped by a layer inside, which returns 408.
    CancelInside,
    /// The whole request is dropped.
    CancelOutside,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Admin {
    /// Of the session that the jar's token opens.
    Destroy {
        jar: u8,
    },
    UserDestroy {
        user: u8,
        jar: u8,
    },
    UserDestroyAll {
        user: u8,
    },
    UserDestroyOthers {
        user: u8,
        jar: u8,
    },
    DestroyEveryone,
    /// The session of the jar's token expires.
    Expire {
        jar: u8,
    },
    /// Every forwarding becomes older than the time in which writes under it
    /// are refused.
    AgeForwardings,
    /// Every forwarding expires.
    EndForwardings,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = serde_json::to_value(&self.options).map_err(|_| fmt::Error)?;
        let defaults = serde_json::to_value(Options::default()).map_err(|_| fmt::Error)?;
        let chosen: Vec<_> = options
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, value)| defaults.get(name) != Some(value))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        writeln!(f, "  options: {}", chosen.join(", "))?;
        for (at, event) in self.events.iter().enumerate() {
            writeln!(f, "  {at:2}. {event:?}")?;
        }
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "  MODEL_PROGRAM='{json}'")
    }
}

/// What a generator knows of the program so far.
struct Draft<'r> {
    random: &'r mut Random,
    events: Vec<Event>,
    next: u8,
    open: Vec<u8>,
    ended: Vec<u8>,
    breaks: u32,
    layers: u64,
    options: Options,
}

impl Program {
    pub(crate) fn generate(seed: u64, index: u64) -> Self {
        let mut random = Random::new(seed, index);
        let options = options(&mut random);
        let mut draft = Draft {
            random: &mut random,
            events: Vec::new(),
            next: 0,
            open: Vec::new(),
            ended: Vec::new(),
            breaks: 0,
            layers: if options.two_layers { 2 } else { 1 },
            options: options.clone(),
        };
        draft.prologue();
        let steps = 6 + draft.random.below(22);
        for _ in 0..steps {
            draft.step();
        }
        draft.epilogue();
        Self {
            options,
            events: draft.events,
        }
    }
}

fn options(random: &mut Random) -> Options {
    let format = random.weighted(&[
        (8, Format::Native),
        (1, Format::Koa),
        (1, Format::Express),
        (1, Format::ThreeColumns),
    ]);
    // Most programs are about the calls and not the options.
    let mut rare = |n| random.one_in(n);
    Options {
        format,
        allow_empty: rare(12),
        touches_always: rare(4),
        valid_if: rare(6),
        before_save: match (rare(8), rare(12)) {
            (true, _) => BeforeSave::Fails,
            (_, true) => BeforeSave::Writes,
            _ => BeforeSave::None,
        },
        signed: rare(10) && !format.is_foreign(),
        saves_on_failure: rare(16),
        continues_on_failure: rare(16),
        two_layers: rare(12) && !format.is_foreign(),
        browser_cookies: rare(8) && !format.is_foreign(),
        deployment: match rare(6) && !format.is_foreign() {
            true => Deployment::Long,
            false => Deployment::Default,
        },
        limit: match (rare(8), rare(8)) {
            _ if format == Format::ThreeColumns => Limit::None,
            (true, _) => Limit::EndOldest(1 + u32::from(rare(2))),
            (_, true) => Limit::Refuse(1 + u32::from(rare(2))),
            _ => Limit::None,
        },
    }
}

impl Draft<'_> {
    fn below(&mut self, limit: u8) -> u8 {
        u8::try_from(self.random.below(u64::from(limit))).unwrap_or(0)
    }

    /// Mostly a visitor who has a session, whose token somebody else may know.
    fn prologue(&mut self) {
        if self.random.one_in(8) {
            return;
        }
        let Some(request) = self.start_of(0) else {
            return;
        };
        self.call(request, Call::Insert(0));
        if self.random.one_in(4) {
            let login = self.login();
            self.call(request, login);
        }
        if self.options.valid_if && self.random.one_in(3) {
            self.call(request, Call::InsertBad);
        }
        self.end(request, End::Ok);
        if self.random.one_in(2) {
            self.events.push(Event::Plant { from: 0, to: 1 });
        }
        if self.random.one_in(8) {
            self.time_passes();
        }
    }

    /// Often another deployment is there afterwards.
    fn time_passes(&mut self) {
        if self.breaks == BREAKS {
            return;
        }
        self.breaks += 1;
        let time = self.random.weighted(&[
            (4, Break::TwentyMinutes),
            (3, Break::SevenHours),
            (1, Break::FiveDays),
        ]);
        self.events.push(Event::TimePasses(time));
        if self.random.one_in(2) {
            self.deploy();
        }
    }

    fn deploy(&mut self) {
        if !self.options.format.is_foreign() {
            let deployment = self.random.weighted(&[
                (1, Deployment::Default),
                (2, Deployment::ShortIdle),
                (1, Deployment::Long),
                (2, Deployment::ShortAbsolute),
            ]);
            self.events.push(Event::Deploy(deployment));
        }
    }

    fn step(&mut self) {
        let may_start = self.next < REQUESTS && self.open.len() < 4;
        let has_open = !self.open.is_empty();
        let has_ended = !self.ended.is_empty();
        let choices = [
            (u64::from(may_start) * 6, 0),
            (u64::from(has_open) * 24, 1),
            (u64::from(has_open) * 6, 2),
            (u64::from(has_open), 3),
            (u64::from(has_ended), 4),
            (2, 5),
            (u64::from(self.open.len() > 1), 6),
            (1, 7),
            (u64::from(!has_open), 8),
            (u64::from(self.random.one_in(8)), 9),
            (u64::from(has_open && self.random.one_in(4)), 10),
        ];
        match self.random.weighted(&choices) {
            0 => {
                let jar = self.jar();
                self.start_of(jar);
            }
            1 => {
                let request = self.an_open_one();
                let call = self.any_call();
                self.call(request, call);
            }
            2 => {
                let request = self.an_open_one();
                let end = self.any_end();
                self.end(request, end);
            }
            3 => {
                let request = self.an_open_one();
                let layer = self.layer();
                let calls = self.below(3);
                let meanwhile = (0..calls).map(|_| self.sync_call()).collect();
                let gives_up = self.random.one_in(2);
                let others = self.others(request, true);
                self.events.push(Event::SaveInFlight {
                    request,
                    layer,
                    gives_up,
                    meanwhile,
                    others,
                });
            }
            4 => {
                let at = usize::from(self.below(self.ended.len().try_into().unwrap_or(1)));
                let (request, layer) = (self.ended[at], self.layer());
                let call = self.any_call();
                self.events.push(Event::Afterwards {
                    request,
                    layer,
                    call,
                });
            }
            5 => {
                let admin = self.admin();
                self.events.push(Event::Admin(admin));
            }
            6 => {
                let requests: Vec<_> = self.open.iter().copied().take(3).collect();
                for request in &requests {
                    self.forget(*request);
                }
                self.events.push(Event::EndTogether { requests });
            }
            8 => self.time_passes(),
            9 => self.deploy(),
            10 => {
                self.events.push(Event::Wait);
                let request = self.an_open_one();
                self.call(request, Call::AuthenticatedWithin);
            }
            _ => {
                let (from, to) = (self.jar(), self.jar());
                let event = match self.random.one_in(4) {
                    true => Event::PlantUnknown {
                        jar: to,
                        well_formed: self.random.one_in(2),
                    },
                    false => Event::Plant { from, to },
                };
                self.events.push(event);
            }
        }
    }

    /// What happens while a save of this request waits.
    fn others(&mut self, request: u8, is_explicit: bool) -> Vec<Event> {
        let mut others = Vec::new();
        let mut saves = is_explicit;
        for _ in 0..self.below(4) {
            let open: Vec<u8> = self
                .open
                .iter()
                .copied()
                .filter(|r| *r != request)
                .collect();
            let other = match open.len() {
                0 => None,
                n => Some(open[usize::from(self.below(u8::try_from(n).unwrap_or(1)))]),
            };
            match (self.below(4), other) {
                (0, Some(request)) if saves => {
                    saves = false;
                    let layer = self.layer();
                    others.push(Event::Call {
                        request,
                        layer,
                        call: Call::Save,
                    });
                }
                (0 | 1, _) if self.next < REQUESTS && self.open.len() < 4 => {
                    let jar = self.jar();
                    self.start_of(jar);
                    others.extend(self.events.pop());
                }
                (_, Some(request)) => {
                    let (layer, call) = (self.layer(), self.sync_call());
                    others.push(Event::Call {
                        request,
                        layer,
                        call,
                    });
                }
                _ => {}
            }
        }
        if is_explicit && self.random.one_in(6) {
            self.forget(request);
            others.push(Event::End {
                request,
                end: End::CancelOutside,
            });
        }
        others
    }

    fn epilogue(&mut self) {
        while let Some(request) = self.open.first().copied() {
            let end = self.any_end();
            self.end(request, end);
        }
    }

    fn jar(&mut self) -> u8 {
        self.random.weighted(&[(6, 0), (3, 1), (1, 2)])
    }

    fn layer(&mut self) -> u8 {
        u8::try_from(self.random.below(self.layers)).unwrap_or(0)
    }

    fn an_open_one(&mut self) -> u8 {
        let at = self.random.below(self.open.len() as u64);
        self.open[usize::try_from(at).unwrap_or(0)]
    }

    fn start_of(&mut self, jar: u8) -> Option<u8> {
        let request = self.next;
        if request == REQUESTS {
            return None;
        }
        self.next += 1;
        self.open.push(request);
        let beside = self.random.one_in(24).then(|| self.jar());
        self.events.push(Event::Start {
            request,
            jar,
            store: u8::from(self.random.one_in(3)),
            taking: match self.random.one_in(6) {
                true => Taking::Lazily,
                false => Taking::Extracted,
            },
            beside,
        });
        Some(request)
    }

    fn call(&mut self, request: u8, call: Call) {
        let layer = self.layer();
        self.events.push(Event::Call {
            request,
            layer,
            call,
        });
    }

    fn forget(&mut self, request: u8) {
        self.open.retain(|open| *open != request);
        self.ended.push(request);
    }

    fn end(&mut self, request: u8, end: End) {
        self.forget(request);
        if end == End::Ok && self.random.one_in(500) {
            self.events.push(Event::EndTooLate { request });
            return;
        }
        if end == End::Ok && self.random.one_in(12) {
            let cancels = self.random.one_in(3);
            let others = self.others(request, false);
            self.events.push(Event::EndInFlight {
                request,
                cancels,
                others,
            });
            return;
        }
        self.events.push(Event::End { request, end });
    }

    fn any_end(&mut self) -> End {
        self.random.weighted(&[
            (12, End::Ok),
            (1, End::NotFound),
            (2, End::ServerError),
            (1, End::Timeout),
            (2, End::Lost),
            (1, End::PanicOutside),
            (1, End::PanicInside),
            (1, End::CancelInside),
            (1, End::CancelOutside),
        ])
    }

    fn any_call(&mut self) -> Call {
        match self.random.below(12) {
            0 | 1 => Call::Save,
            2 if self.random.one_in(2) => {
                let key = self.key();
                match self.random.one_in(2) {
                    true => Call::Take(key),
                    false => Call::UpdateNow(key),
                }
            }
            _ => self.sync_call(),
        }
    }

    fn key(&mut self) -> u8 {
        self.random.weighted(&[(4, 0), (2, 1), (1, 2)])
    }

    fn expiry(&mut self) -> ExpiryChoice {
        self.random.weighted(&[
            (1, ExpiryChoice::Default),
            (2, ExpiryChoice::Idle),
            (1, ExpiryChoice::Timeouts),
        ])
    }

    fn cookie(&mut self) -> CookieChoice {
        self.random.weighted(&[
            (6, CookieChoice::Default),
            (1, CookieChoice::Browser),
            (1, CookieChoice::Session),
        ])
    }

    fn login(&mut self) -> Call {
        Call::Login {
            user: self.random.weighted(&[(4, 0), (1, 1)]),
            discard_data: self.random.one_in(5),
            end_others: self.random.one_in(6),
            keep_settings: self.random.one_in(4),
            expiry: match self.random.one_in(6) {
                true => self.expiry(),
                false => ExpiryChoice::Default,
            },
            cookie: self.cookie(),
        }
    }

    /// One that waits for nothing.
    fn sync_call(&mut self) -> Call {
        let key = self.key();
        let choice = self.random.weighted(&[
            (5, 0),
            (1, 1),
            (2, 2),
            (2, 3),
            (1, 4),
            (1, 5),
            (1, 6),
            (8, 7),
            (1, 8),
            (5, 9),
            (4, 10),
            (1, 11),
            (1, 12),
            (2, 13),
            (5, 14),
            (6, 15),
            (3, 16),
            (3, 17),
            (3, 18),
            (3, 19),
            (2, 20),
            (1, 21),
            (1, 22),
        ]);
        match choice {
            0 => Call::Get(key),
            1 => Call::GetAsNumber(key),
            2 => Call::Keys,
            3 => Call::UserId,
            4 => match self.random.below(4) {
                0 => Call::IsEmpty,
                1 => Call::IsNew,
                2 => Call::ExpiresAt,
                _ => Call::AuthenticatedWithin,
            },
            5 => Call::Id,
            6 => Call::ContainsKey(key),
            7 => Call::Insert(key),
            8 => match self.random.one_in(2) {
                true => Call::InsertNumber(key),
                false => Call::InsertFloat(key),
            },
            9 => match self.random.one_in(16) {
                true => Call::UpdateInside(key),
                false => Call::Update(key),
            },
            10 => Call::Remove(key),
            11 => Call::Clear,
            12 => Call::Replace(key),
            13 => match self.random.below(4) {
                0 => Call::TypedGet,
                1 => Call::GetByKey(key),
                2 => Call::InsertByKey(key),
                _ => Call::TypedUpdate(key),
            },
            14 => Call::CycleId,
            15 => self.login(),
            16 => Call::Logout,
            17 => Call::Destroy,
            18 => Call::Discard,
            19 => Call::Touch,
            20 => Call::SetExpiry(self.expiry()),
            21 => match self.random.below(6) {
                0 => Call::InsertReserved,
                1 | 2 if self.options.before_save == BeforeSave::Fails => Call::InsertFail,
                3 | 4 if self.options.valid_if => Call::InsertBad,
                5 => Call::RemoveBad,
                // There it is another name for the idle timeout.
                _ if self.options.format.is_foreign() => Call::RemoveBad,
                _ => Call::SetCookieLifetime(self.cookie()),
            },
            _ if self.options.before_save == BeforeSave::Fails => Call::InsertFail,
            _ if self.options.valid_if => Call::InsertBad,
            _ => Call::Insert(key),
        }
    }

    fn admin(&mut self) -> Admin {
        let (jar, user) = (self.jar(), self.below(2));
        match self.random.below(12) {
            0 | 1 => Admin::Destroy { jar },
            2 => Admin::UserDestroy { user, jar },
            3 => Admin::UserDestroyAll { user },
            4 => Admin::UserDestroyOthers { user, jar },
            5 => Admin::DestroyEveryone,
            6 | 7 => Admin::Expire { jar },
            8..=10 => Admin::AgeForwardings,
            _ => Admin::EndForwardings,
        }
    }
}
