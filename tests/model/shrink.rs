//! Makes a program that breaks a rule as small as it can be.

use crate::{
    play::{Violation, is_slow_to_break, play},
    program::{
        BeforeSave, Break, Call, Deployment, End, Event, Format, Limit, Options, Program, Taking,
    },
    world::Lane,
};

/// Plays of one program, at the most.
const MAX_PLAYS: usize = 600;
/// The same if each of them takes long.
const MAX_SLOW_PLAYS: usize = 12;

struct Shrinking<'l> {
    lane: &'l mut Lane,
    best: Program,
    violation: Violation,
    plays: usize,
    most: usize,
}

/// A smaller program that breaks the same rule, and how.
pub(crate) async fn shrink(
    lane: &mut Lane,
    program: &Program,
    violation: &Violation,
) -> (Program, Violation) {
    let mut shrinking = Shrinking {
        lane,
        best: program.clone(),
        violation: violation.clone(),
        plays: 0,
        most: match is_slow_to_break(violation.rule) {
            true => MAX_SLOW_PLAYS,
            false => MAX_PLAYS,
        },
    };
    // What comes after the violation plays no part.
    let mut cut = program.clone();
    cut.events.truncate(violation.at + 1);
    shrinking.try_this(cut).await;
    loop {
        let before = shrinking.best.clone();
        shrinking.drop_events().await;
        shrinking.simplify_options().await;
        shrinking.simplify_events().await;
        if shrinking.best == before || shrinking.plays >= shrinking.most {
            return (shrinking.best, shrinking.violation);
        }
    }
}

impl Shrinking<'_> {
    async fn try_this(&mut self, candidate: Program) -> bool {
        if candidate == self.best || self.plays >= self.most {
            return false;
        }
        self.plays += 1;
        match play(self.lane, &candidate).await {
            Err(violation) if violation.rule == self.violation.rule => {
                self.best = candidate;
                self.violation = violation;
                true
            }
            _ => false,
        }
    }

    async fn drop_events(&mut self) {
        let mut size = (self.best.events.len() / 2).max(1);
        loop {
            let mut at = 0;
            while at < self.best.events.len() {
                let mut candidate = self.best.clone();
                let end = (at + size).min(candidate.events.len());
                candidate.events.drain(at..end);
                if !self.try_this(candidate).await {
                    at += size;
                }
            }
            if size == 1 {
                return;
            }
            size /= 2;
        }
    }

    async fn simplify_options(&mut self) {
        let simpler: [fn(&mut Options); 12] = [
            |options| *options = Options::default(),
            |options| options.format = Format::Native,
            |options| options.limit = Limit::None,
            |options| options.allow_empty = false,
            |options| options.touches_always = false,
            |options| options.valid_if = false,
            |options| options.before_save = BeforeSave::None,
            |options| {
                options.signed = false;
                options.continues_on_failure = false;
            },
            |options| options.saves_on_failure = false,
            |options| options.two_layers = false,
            |options| options.browser_cookies = false,
            |options| options.deployment = Deployment::Default,
        ];
        for change in simpler {
            let mut candidate = self.best.clone();
            change(&mut candidate.options);
            self.try_this(candidate).await;
        }
    }

    async fn simplify_events(&mut self) {
        for at in 0..self.best.events.len() {
            for simpler in simpler(&self.best.events[at]) {
                let mut candidate = self.best.clone();
                candidate.events[at] = simpler;
                self.try_this(candidate).await;
            }
        }
    }
}

fn simpler(event: &Event) -> Vec<Event> {
    match event {
        Event::Start {
            request,
            jar,
            store,
            taking,
            beside,
        } => {
            let plain = |jar: u8, store: u8, beside: Option<u8>| Event::Start {
                request: *request,
                jar,
                store,
                taking: Taking::Extracted,
                beside,
            };
            let mut simpler = vec![plain(*jar, 0, *beside), plain(*jar, *store, None)];
            if *taking == Taking::Extracted && *jar != 0 {
                simpler.push(plain(0, *store, *beside));
            }
            simpler
        }
        Event::SaveInFlight {
            request,
            layer,
            gives_up,
            meanwhile,
            others,
        } => {
            let mut simpler = vec![Event::Call {
                request: *request,
                layer: *layer,
                call: Call::Save,
            }];
            for at in 0..meanwhile.len() {
                let mut fewer = meanwhile.clone();
                fewer.remove(at);
                simpler.push(Event::SaveInFlight {
                    request: *request,
                    layer: *layer,
                    gives_up: *gives_up,
                    meanwhile: fewer,
                    others: others.clone(),
                });
            }
            for others in fewer(others) {
                simpler.push(Event::SaveInFlight {
                    request: *request,
                    layer: *layer,
                    gives_up: *gives_up,
                    meanwhile: meanwhile.clone(),
                    others,
                });
            }
            simpler
        }
        Event::EndInFlight {
            request,
            cancels,
            others,
        } => {
            let mut simpler = vec![Event::End {
                request: *request,
                end: End::Ok,
            }];
            simpler.extend(fewer(others).map(|others| Event::EndInFlight {
                request: *request,
                cancels: *cancels,
                others,
            }));
            simpler
        }
        Event::EndTogether { requests } => requests
            .iter()
            .map(|request| Event::EndTogether {
                requests: requests
                    .iter()
                    .copied()
                    .filter(|other| other != request)
                    .collect(),
            })
            .collect(),
        Event::EndTooLate { request } => vec![Event::End {
            request: *request,
            end: End::Ok,
        }],
        Event::End { request, end } if *end != End::Ok => vec![Event::End {
            request: *request,
            end: End::Ok,
        }],
        Event::TimePasses(time) if *time != Break::TwentyMinutes => {
            vec![Event::TimePasses(Break::TwentyMinutes)]
        }
        Event::Call {
            request,
            layer,
            call,
        } => simpler_calls(call)
            .into_iter()
            .map(|call| Event::Call {
                request: *request,
                layer: *layer,
                call,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Without one of these, each.
fn fewer(events: &[Event]) -> impl Iterator<Item = Vec<Event>> {
    (0..events.len()).map(|at| {
        let mut fewer = events.to_vec();
        fewer.remove(at);
        fewer
    })
}

fn simpler_calls(call: &Call) -> Vec<Call> {
    match call {
        Call::Login {
            user,
            discard_data,
            end_others,
            keep_settings,
            expiry,
            cookie,
        } => {
            let plain = Call::Login {
                user: *user,
                discard_data: false,
                end_others: false,
                keep_settings: false,
                expiry: crate::program::ExpiryChoice::Default,
                cookie: crate::program::CookieChoice::Default,
            };
            let without_options = Call::Login {
                user: *user,
                discard_data: *discard_data,
                end_others: *end_others,
                keep_settings: *keep_settings,
                expiry: crate::program::ExpiryChoice::Default,
                cookie: *cookie,
            };
            let first = Call::Login {
                user: 0,
                discard_data: *discard_data,
                end_others: *end_others,
                keep_settings: *keep_settings,
                expiry: *expiry,
                cookie: *cookie,
            };
            vec![
                plain,
                without_options,
                first,
                Call::CycleId,
                Call::Insert(0),
            ]
        }
        Call::InsertByKey(key)
        | Call::InsertNumber(key)
        | Call::InsertFloat(key)
        | Call::Update(key)
        | Call::TypedUpdate(key)
        | Call::Replace(key) => vec![Call::Insert(*key)],
        Call::UpdateInside(key) => vec![Call::Update(*key)],
        Call::Insert(key) if *key != 0 => vec![Call::Insert(0)],
        Call::GetByKey(key) | Call::GetAsNumber(key) => vec![Call::Get(*key)],
        Call::Get(key) if *key != 0 => vec![Call::Get(0)],
        Call::Logout => vec![Call::Destroy],
        _ => Vec::new(),
    }
}
