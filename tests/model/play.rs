//! Plays a program on a lane, and compares all that happens with the
//! reference and the invariants.

use std::{collections::BTreeMap, fmt, time::Duration};

use tokio::time::{Instant, timeout};

use crate::{
    calls,
    invariants::Invariants,
    program::{Admin, Break, Call, End, Event, Format, JARS, Program, REQUESTS, Taking},
    reference::{
        Age, Cookie, Expected, Failure, InFlight, Lasting, Model, Moment, Response, RowNo, Seen,
        State, Token, user_name,
    },
    world::{
        Lane, Patience, Reply, Running, SetCookie, TableRow, cookie_name, handle, row_id,
        unknown_token,
    },
};

/// Far more than any step takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// A program that took longer says nothing about what happens within five
/// seconds.
pub(crate) const TOO_SLOW: Duration = Duration::from_secs(3);
/// The rule that a step comes to an end.
pub(crate) const HANG: &str = "hang";
/// The rule that what was committed too late is undone.
pub(crate) const LATE: &str = "late";
/// How long an event [`Event::Wait`] takes.
const WAIT: Duration = Duration::from_millis(40);
/// From a commit until the session knows of it, or until it is undone, which nothing
/// outside shows.
const SETTLING: Duration = Duration::from_millis(20);
/// How long that may take at the most.
const PATIENCE_FOR_UNDOING: Duration = Duration::from_millis(500);
/// Seconds by which clocks may differ that go equally fast.
const PRECISION: f64 = 0.005;

/// Whether breaking this rule takes long.
pub(crate) fn is_slow_to_break(rule: &str) -> bool {
    matches!(rule, HANG | LATE)
}

/// What is not as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Which rule was broken, in a word.
    pub(crate) rule: &'static str,
    pub(crate) what: String,
    pub(crate) at: usize,
    pub(crate) took: Duration,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at event {}: {}", self.rule, self.at, self.what)
    }
}

type Broken = (&'static str, String);

/// A save that waits for the table.
struct Save {
    request: u8,
    layer: usize,
    in_flight: Result<InFlight, Failure>,
    gives_up: bool,
    seen: Option<Seen>,
    /// Of its row, afterwards.
    id: Option<String>,
    /// What these calls return afterwards, which tells what came first.
    shows: Vec<(Seen, Call)>,
}

impl Save {
    const SHOWN: [Call; 5] = [
        Call::Keys,
        Call::UserId,
        Call::Get(0),
        Call::Get(1),
        Call::Get(2),
    ];

    fn begin(model: &mut Model, request: u8, layer: usize) -> Self {
        Self {
            request,
            layer,
            in_flight: model.begin_save(request, layer),
            gives_up: false,
            seen: None,
            id: None,
            shows: Vec::new(),
        }
    }

    fn finish(&self, model: &mut Model) -> Expected {
        let Self { request, layer, .. } = *self;
        match &self.in_flight {
            Ok(save) => model.finish_save(request, layer, save.clone(), self.gives_up),
            Err(failure) => Expected::Failed(failure.clone()),
        }
    }
}

struct Play<'l> {
    lane: &'l mut Lane,
    program: &'l Program,
    model: Model,
    invariants: Invariants,
    running: BTreeMap<u8, Running>,
    ended: BTreeMap<u8, Running>,
    /// What each jar really holds, by layer.
    jars: Vec<Vec<Vec<String>>>,
    next_tag: u64,
    began: Instant,
    /// The longest time that an event of each request took, in seconds. Its
    /// store's knowledge of the database's time lags behind by less.
    slowest: BTreeMap<u8, f64>,
}

/// Plays the program from an empty table.
///
/// # Errors
///
/// With the first violation.
pub(crate) async fn play(lane: &mut Lane, program: &Program) -> Result<(), Violation> {
    let began = Instant::now();
    lane.clear(program.options.format).await;
    let layers = if program.options.two_layers { 2 } else { 1 };
    let mut play = Play {
        lane,
        program,
        model: Model::new(&program.options, JARS),
        invariants: Invariants::default(),
        running: BTreeMap::new(),
        ended: BTreeMap::new(),
        jars: vec![vec![Vec::new(); layers]; usize::from(JARS)],
        next_tag: 1000,
        began,
        slowest: BTreeMap::new(),
    };
    let mut at = 0;
    let outcome = timeout(PATIENCE, play.all(&mut at)).await;
    let is_stuck = outcome.is_err();
    let broken = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => Some(broken),
        Err(_) => Some((HANG, "a step never came to an end".to_owned())),
    };
    // The end of a request whose session is locked for good would wait for that lock.
    let is_locked = matches!(&broken, Some((_, what)) if what.contains("Stuck"));
    match is_locked {
        true => std::mem::forget(play),
        false => drop(play),
    }
    let Some((rule, what)) = broken else {
        return Ok(());
    };
    if is_stuck || is_locked {
        lane.renew().await;
    } else {
        lane.unlock().await;
        lane.quiet().await;
    }
    Err(Violation {
        rule,
        what,
        at,
        took: began.elapsed(),
    })
}

impl Play<'_> {
    async fn all(&mut self, at: &mut usize) -> Result<(), Broken> {
        let program = self.program;
        for (number, event) in program.events.iter().enumerate() {
            *at = number;
            self.event(event).await?;
        }
        *at = program.events.len();
        let open: Vec<_> = self.running.keys().copied().collect();
        for request in open {
            self.end(request, End::Ok).await?;
        }
        self.probe().await?;
        self.invariants.at_the_end().map_err(|what| ("reach", what))
    }

    fn format(&self) -> Format {
        self.program.options.format
    }

    async fn event(&mut self, event: &Event) -> Result<(), Broken> {
        match event {
            Event::Start {
                request,
                jar,
                store,
                taking,
                beside,
            } => self.start(*request, *jar, *store, *taking, *beside).await,
            Event::Call {
                request,
                layer,
                call,
            } => self.call(*request, usize::from(*layer), call).await,
            Event::SaveInFlight {
                request,
                layer,
                gives_up,
                meanwhile,
                others,
            } => {
                self.save_in_flight(*request, usize::from(*layer), *gives_up, meanwhile, others)
                    .await
            }
            Event::EndInFlight {
                request,
                cancels,
                others,
            } => self.end_in_flight(*request, *cancels, others).await,
            Event::End { request, end } => match self.running.contains_key(request) {
                true => self.end(*request, *end).await,
                false => Ok(()),
            },
            Event::EndTooLate { request } => self.end_too_late(*request).await,
            Event::EndTogether { requests } => self.end_together(requests).await,
            Event::Afterwards {
                request,
                layer,
                call,
            } => self.afterwards(*request, usize::from(*layer), call).await,
            Event::Admin(admin) => self.admin(admin).await,
            Event::Plant { from, to } => {
                let (from, to) = (usize::from(*from), usize::from(*to));
                self.jars[to] = self.jars[from].clone();
                self.model.jars[to] = self.model.jars[from].clone();
                Ok(())
            }
            Event::Deploy(deployment) => {
                self.model.deployment = *deployment;
                Ok(())
            }
            Event::TimePasses(time) => self.time_passes(*time).await,
            Event::Wait => {
                tokio::time::sleep(WAIT).await;
                Ok(())
            }
            Event::PlantUnknown { jar, well_formed } => {
                let jar = usize::from(*jar);
                let (value, token) = match well_formed {
                    true => (unknown_token(self.format()), Token::Unknown),
                    false => ("no\"token".to_owned(), Token::Malformed),
                };
                self.jars[jar][0] = vec![value];
                self.model.jars[jar][0] = vec![token];
                Ok(())
            }
        }
    }

    /// Nobody sends a request for a while.
    async fn time_passes(&mut self, time: Break) -> Result<(), Broken> {
        if !self.running.is_empty() {
            return Ok(());
        }
        self.lane.time_passes(self.format(), time.seconds()).await;
        let rows = self.look(&[]).await?;
        let is_live = |id: &str| rows.iter().any(|row| row.id == id && row.is_live);
        self.model.time_passes(f64::from(time.seconds()), is_live);
        match_table(&mut self.model, &rows)
    }

    /// Seconds since the program began.
    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// What is predicted next has happened since then, for this request.
    fn since(&mut self, from: f64, request: u8) {
        let until = self.now();
        self.model.moment = Moment { from, until };
        let slowest = self.slowest.entry(request).or_default();
        *slowest = slowest.max(until - from);
    }

    // Requests.

    async fn start(
        &mut self,
        request: u8,
        jar: u8,
        store: u8,
        taking: Taking,
        beside: Option<u8>,
    ) -> Result<(), Broken> {
        if self.model.requests.contains_key(&request) {
            return Ok(());
        }
        let options = &self.program.options;
        let mut cookies = Vec::new();
        for (layer, values) in self.jars[usize::from(jar)].iter().enumerate() {
            let more = beside.map(|other| &self.jars[usize::from(other)][layer]);
            for value in values.iter().chain(more.into_iter().flatten()) {
                let pair = (cookie_name(options, layer), value.clone());
                if !cookies.contains(&pair) {
                    cookies.push(pair);
                }
            }
        }
        let ids: Vec<_> = cookies
            .iter()
            .map(|(name, value)| row_id(options, name, value))
            .collect();
        self.invariants.start(request, &ids);
        let is_late = Event::EndTooLate { request };
        let patience = match self.program.events.contains(&is_late) {
            true => Patience::Short,
            false => Patience::Long,
        };
        let from = self.now();
        let store = self.lane.store(options, store, patience).await;
        let deployment = self.model.deployment;
        let mut running = Running::begin(&store, options, deployment, &cookies, taking);
        self.model.start(request, jar, beside);
        if taking.is_eager() {
            self.model.load(request, 0);
            let seen = running.reply().await;
            self.running.insert(request, running);
            self.since(from, request);
            return match seen {
                Some(Seen::Done) => Ok(()),
                seen => Err(("load", format!("the session was not loaded: {seen:?}"))),
            };
        }
        self.running.insert(request, running);
        Ok(())
    }

    fn tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }

    async fn call(&mut self, request: u8, layer: usize, call: &Call) -> Result<(), Broken> {
        if !self.running.contains_key(&request)
            || layer >= self.model.layers()
            || !calls::is_there(call)
            || !self.model.knows(request, layer, call)
        {
            return Ok(());
        }
        self.model.load(request, layer);
        let tag = self.tag();
        self.invariants.writes(request, tag);
        if let Call::Login { user, .. } = call {
            self.invariants.logs_in(request, &user_name(*user));
        }
        let from = self.now();
        let running = self.running.get_mut(&request).expect("open");
        let seen = running.call(layer, call, tag).await;
        let seen = seen.ok_or_else(|| ("panic", format!("{call:?} ended the handler")))?;
        self.since(from, request);
        if calls::commits(call) {
            let rows = self.look(&[request]).await?;
            self.settle(
                |model| model.save(request, layer, call, tag),
                |model, expected| {
                    check_seen(model, &expected, &seen)
                        .map_err(|what| ("returned", format!("{call:?} {what}")))?;
                    match_table(model, &rows)
                },
            )?;
        } else {
            let expected = self.model.call(request, layer, call, tag);
            let expected = self.with_slack(request, expected);
            self.check_call(call, &expected, &seen)?;
        }
        self.invariants
            .saw(request, &seen)
            .map_err(|what| ("flow", format!("by {call:?} {what}")))
    }

    /// A store knows the database's time from the responses to its requests.
    fn with_slack(&self, request: u8, expected: Expected) -> Expected {
        let slack = self.slowest.get(&request).copied().unwrap_or_default();
        match expected {
            Expected::Age(least, most) if most > 0.0 => {
                Expected::Age(least - slack - PRECISION, most + PRECISION)
            }
            expected => expected,
        }
    }

    fn check_call(&self, call: &Call, expected: &Expected, seen: &Seen) -> Result<(), Broken> {
        let handles = |row: RowNo| {
            let id = self.model.rows[row.0].id.as_deref();
            id.map(|id| handle(&self.program.options, id).to_string())
        };
        if let (Expected::Handle(row), Seen::Handle(handle)) = (expected, seen) {
            // Another request may have deleted it before the table was looked at.
            let is_unknown = |row: &RowNo| {
                let row = &self.model.rows[row.0];
                row.id.is_none() && row.state == State::Deleted
            };
            if row.as_ref().is_some_and(is_unknown) {
                return Ok(());
            }
            let expected = row.and_then(handles);
            return match expected == *handle {
                true => Ok(()),
                false => Err((
                    "returned",
                    format!("{call:?} returned another session's handle, or none"),
                )),
            };
        }
        check_seen(&self.model, expected, seen)
            .map_err(|what| ("returned", format!("{call:?} {what}")))
    }

    async fn save_in_flight(
        &mut self,
        request: u8,
        layer: usize,
        gives_up: bool,
        meanwhile: &[Call],
        others: &[Event],
    ) -> Result<(), Broken> {
        if !self.running.contains_key(&request)
            || layer >= self.model.layers()
            || !self.model.knows(request, layer, &Call::Save)
        {
            return Ok(());
        }
        self.model.load(request, layer);
        let format = self.format();
        let began_save = self.now();
        // The load comes first.
        let running = self.running.get_mut(&request).expect("open");
        let loaded = running.call(layer, &Call::Keys, 0).await;
        loaded.ok_or_else(|| ("panic", "a load ended the handler".to_owned()))?;
        self.since(began_save, request);
        self.lane.lock(format).await;
        let running = self.running.get_mut(&request).expect("open");
        running
            .begin_save(layer)
            .await
            .ok_or_else(|| ("panic", "save ended the handler".to_owned()))?;
        self.lane
            .blocked(format, self.running.get(&request).expect("open"))
            .await;
        let save = Save::begin(&mut self.model, request, layer);
        // One that has nothing to write, or may not, waits for nobody.
        let is_over = self.running.get(&request).expect("open").is_saved();
        if is_over {
            let running = self.running.get_mut(&request).expect("open");
            let seen = running.await_save().await;
            self.since(began_save, request);
            self.settle(
                |model| save.finish(model),
                |model, expected| match &seen {
                    Some(seen) => check_seen(model, &expected, seen)
                        .map_err(|what| ("returned", format!("save {what}"))),
                    None => Ok(()),
                },
            )?;
        }
        for call in meanwhile {
            if calls::commits(call) || !calls::is_there(call) {
                continue;
            }
            // What a handle shows in the meantime is not said.
            if matches!(call, Call::Id | Call::IsNew | Call::ExpiresAt) {
                continue;
            }
            let tag = self.tag();
            self.invariants.writes(request, tag);
            if let Call::Login { user, .. } = call {
                self.invariants.logs_in(request, &user_name(*user));
            }
            let from = self.now();
            let running = self.running.get_mut(&request).expect("open");
            let seen = running.call(layer, call, tag).await;
            let seen = seen.ok_or_else(|| ("panic", format!("{call:?} ended the handler")))?;
            self.since(from, request);
            let expected = self.model.call(request, layer, call, tag);
            let expected = self.with_slack(request, expected);
            self.check_call(call, &expected, &seen)?;
            self.invariants
                .saw(request, &seen)
                .map_err(|what| ("flow", format!("by {call:?} {what}")))?;
        }
        let mut saves = Vec::new();
        if !is_over {
            saves.push(Save { gives_up, ..save });
        }
        // Which came first would only show later, if this outcome is not awaited.
        let (second, is_cancelled) = self.others(request, others, !gives_up).await?;
        saves.extend(second);
        if is_cancelled {
            let mut running = self.running.remove(&request).expect("open");
            running.let_end(End::CancelOutside);
            if running.response().await.is_some() {
                return Err(("status", "a cancelled request returned a response".into()));
            }
            self.ended.insert(request, running);
        } else if gives_up {
            let running = self.running.get_mut(&request).expect("open");
            running.give_up_save().await;
        }
        self.lane.unlock().await;
        for save in &mut saves {
            save.gives_up |= is_cancelled && save.request == request;
            if !save.gives_up {
                let running = self.running.get_mut(&save.request).expect("open");
                save.seen = running.await_save().await;
            }
        }
        self.finish_saves(began_save, &mut saves).await?;
        if is_cancelled {
            self.model.vanish(request);
            self.invariants.without_response(request);
        }
        Ok(())
    }

    /// Others' calls, while a save of this request waits. A save of theirs waits, too,
    /// and the request itself may be cancelled.
    async fn others(
        &mut self,
        request: u8,
        events: &[Event],
        may_save: bool,
    ) -> Result<(Option<Save>, bool), Broken> {
        let (mut save, mut is_cancelled) = (None::<Save>, false);
        for event in events {
            match event {
                Event::Start { .. } => Box::pin(self.event(event)).await?,
                Event::Call {
                    request: other,
                    layer,
                    call: Call::Save,
                } => {
                    let layer = usize::from(*layer);
                    if !may_save
                        || save.is_some()
                        || *other == request
                        || !self.running.contains_key(other)
                        || layer >= self.model.layers()
                        || !self.model.knows(*other, layer, &Call::Save)
                    {
                        continue;
                    }
                    self.model.load(*other, layer);
                    let running = self.running.get_mut(other).expect("open");
                    let begun = running.begin_save(layer).await;
                    begun.ok_or_else(|| ("panic", "save ended the handler".to_owned()))?;
                    save = Some(Save::begin(&mut self.model, *other, layer));
                }
                Event::Call {
                    request: other,
                    layer,
                    call,
                } => {
                    let is_busy = *other == request
                        || save.as_ref().is_some_and(|save| save.request == *other);
                    if !is_busy && !calls::commits(call) {
                        self.call(*other, usize::from(*layer), call).await?;
                    }
                }
                Event::End {
                    request: ending,
                    end: End::CancelOutside,
                } => is_cancelled |= *ending == request,
                _ => {}
            }
        }
        Ok((save, is_cancelled))
    }

    fn look_at_session_of(&self, save: &mut Save, rows: &[TableRow]) {
        let running = self.running.get(&save.request);
        let session = running
            .and_then(|running| running.sessions.lock().expect("no panic")[save.layer].clone());
        let Some(session) = session else {
            return;
        };
        save.id = session.id().and_then(|id| {
            let is_this = |row: &&TableRow| handle(&self.program.options, &row.id) == id;
            rows.iter().find(is_this).map(|row| row.id.clone())
        });
        save.shows = Vec::new();
        if !save.gives_up {
            let show = |call: Call| (calls::perform(&session, &call, 0), call);
            save.shows.extend(Save::SHOWN.map(show));
        }
    }

    /// In whatever order they were committed.
    async fn finish_saves(&mut self, began_saves: f64, saves: &mut [Save]) -> Result<(), Broken> {
        if saves.is_empty() {
            return self.unchanged().await;
        }
        let requests: Vec<_> = saves.iter().map(|save| save.request).collect();
        let gives_up = saves.iter().any(|save| save.gives_up);
        let began = Instant::now();
        loop {
            if gives_up {
                self.lane.quiet().await;
                tokio::time::sleep(SETTLING).await;
            }
            for request in &requests {
                self.since(began_saves, *request);
            }
            let rows = self.lane.rows(self.format()).await;
            for save in &mut *saves {
                self.look_at_session_of(save, &rows);
            }
            let saves = &*saves;
            let mut before = self.model.clone();
            before.is_crowded = saves.len() > 1;
            let mut first = None;
            for order in interleavings(saves.len(), 1) {
                self.model = before.clone();
                let outcome = self.settle(
                    |model| {
                        let finish = |at: &usize| (*at, saves[*at].finish(model));
                        order.iter().map(finish).collect::<Vec<_>>()
                    },
                    |model, expected| {
                        for save in saves {
                            if let Some(id) = &save.id {
                                model.bind(save.request, save.layer, id);
                            }
                        }
                        for (at, expected) in expected {
                            if let Some(seen) = &saves[at].seen {
                                check_seen(model, &expected, seen)
                                    .map_err(|what| ("returned", format!("save {what}")))?;
                            }
                        }
                        match_table(model, &rows)?;
                        for save in saves {
                            for (seen, call) in &save.shows {
                                let expected = model.call(save.request, save.layer, call, 0);
                                check_seen(model, &expected, seen).map_err(|what| {
                                    ("returned", format!("after a save {call:?} {what}"))
                                })?;
                            }
                        }
                        Ok(())
                    },
                );
                match outcome {
                    Ok(()) => {
                        first = None;
                        break;
                    }
                    Err(broken) => {
                        first.get_or_insert(broken);
                    }
                }
            }
            self.model.is_crowded = false;
            if saves.len() > 1 {
                self.model.order_since(before.clock);
            }
            match first {
                // Not before what is given up is settled.
                None => return self.look(&requests).await.map(drop),
                Some(_) if gives_up && began.elapsed() < PATIENCE_FOR_UNDOING => {
                    before.is_crowded = false;
                    self.model = before;
                }
                Some(broken) => return Err(broken),
            }
        }
    }

    /// A request that is cancelled then may have saved, or not.
    async fn end_in_flight(
        &mut self,
        request: u8,
        cancels: bool,
        others: &[Event],
    ) -> Result<(), Broken> {
        if !self.running.contains_key(&request) {
            return Ok(());
        }
        let format = self.format();
        let from = self.now();
        self.lane.lock(format).await;
        let mut running = self.running.remove(&request).expect("open");
        running.let_end(End::Ok);
        self.lane.blocked(format, &running).await;
        let is_over = running.is_over();
        self.others(request, others, false).await?;
        if cancels && !is_over {
            running.let_end(End::CancelOutside);
        }
        self.lane.unlock().await;
        let reply = running.response().await;
        self.ended.insert(request, running);
        self.since(from, request);
        if let Some(reply) = reply {
            return self.responded(request, End::Ok, &reply).await;
        }
        // Whether the row of each new token is undone is only known a moment later.
        let predictions: [fn(&mut Model, u8) -> bool; 5] = [
            |model, request| {
                let known = model.rows.len();
                let cookies = model.end(request, End::Ok).cookies;
                !cookies.iter().any(|cookie| cookie.sets_a_row_since(known))
            },
            |model, request| {
                model.end_too_late(request);
                true
            },
            |model, request| {
                let known = model.rows.len();
                !model.end_inside(request, false).sets_a_row_since(known)
            },
            |model, request| {
                model.end_inside(request, true);
                true
            },
            |model, request| {
                model.vanish(request);
                true
            },
        ];
        let before = self.model.clone();
        let began = Instant::now();
        loop {
            self.lane.quiet().await;
            tokio::time::sleep(SETTLING).await;
            self.lane.quiet().await;
            let rows = self.lane.rows(format).await;
            let mut first = None;
            for predict in predictions {
                self.model = before.clone();
                let outcome = self.settle(
                    |model| predict(model, request),
                    |model, is_final| match is_final {
                        true => match_table(model, &rows),
                        false => Err(("table", "an undelivered token is not undone".into())),
                    },
                );
                let Err(broken) = outcome else {
                    // Not before the undo: what it restores was not over.
                    self.look(&[request]).await?;
                    self.invariants.without_response(request);
                    self.model.without_response(request);
                    return Ok(());
                };
                first.get_or_insert(broken);
            }
            if began.elapsed() > PATIENCE_FOR_UNDOING {
                return Err(first.expect("tried"));
            }
        }
    }

    async fn end(&mut self, request: u8, end: End) -> Result<(), Broken> {
        let from = self.now();
        let mut running = self.running.remove(&request).expect("open");
        running.let_end(end);
        let reply = running.response().await;
        self.ended.insert(request, running);
        self.since(from, request);
        if matches!(end, End::PanicOutside | End::CancelOutside) {
            let rows = self.look(&[request]).await?;
            self.model.vanish(request);
            self.invariants.without_response(request);
            return match reply {
                Some(_) => Err((
                    "status",
                    "a request that panicked returned a response".into(),
                )),
                None => match_table(&mut self.model, &rows),
            };
        }
        let reply = reply.ok_or_else(|| ("panic", format!("no reply to {end:?}")))?;
        self.responded(request, end, &reply).await
    }

    async fn responded(&mut self, request: u8, end: End, reply: &Reply) -> Result<(), Broken> {
        let rows = self.look(&[request]).await?;
        let options = &self.program.options;
        let mut expected = self.settle(
            |model| model.end(request, end),
            |model, expected| {
                bind(options, model, &expected, reply);
                match_table(model, &rows)?;
                check_response(options, model, &expected, reply)?;
                Ok(expected)
            },
        )?;
        self.sent(request, reply)?;
        if end != End::Lost {
            self.deliver(request, &mut expected, reply);
        }
        Ok(())
    }

    /// What is committed after the store has given up must be as if it was not.
    async fn end_too_late(&mut self, request: u8) -> Result<(), Broken> {
        if !self.running.contains_key(&request) || self.program.options.continues_on_failure {
            return Ok(());
        }
        let format = self.format();
        self.lane.hold_commits(format).await;
        let mut running = self.running.remove(&request).expect("open");
        running.let_end(End::Ok);
        let reply = running.response().await;
        self.ended.insert(request, running);
        self.lane.release_commits(format).await;
        let reply = reply.ok_or_else(|| ("panic", "no reply".to_owned()))?;
        let options = &self.program.options;
        let began = Instant::now();
        loop {
            let rows = self.lane.rows(format).await;
            let outcome = self.settle(
                |model| model.end_too_late(request),
                |model, expected| {
                    bind(options, model, &expected, &reply);
                    match_table(model, &rows)?;
                    check_response(options, model, &expected, &reply)?;
                    Ok(expected)
                },
            );
            match outcome {
                Err(("table", _)) if began.elapsed() < Duration::from_secs(5) => {
                    tokio::task::yield_now().await;
                }
                Err(("table", what)) => return Err((LATE, what)),
                Err(broken) => return Err(broken),
                Ok(mut expected) => {
                    self.look(&[request]).await?;
                    self.sent(request, &reply)?;
                    self.deliver(request, &mut expected, &reply);
                    return Ok(());
                }
            }
        }
    }

    async fn end_together(&mut self, requests: &[u8]) -> Result<(), Broken> {
        let open: Vec<u8> = requests
            .iter()
            .copied()
            .filter(|request| self.running.contains_key(request))
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        let from = self.now();
        let mut all = Vec::new();
        for request in &open {
            let running = self.running.remove(request).expect("open");
            let mut running = running;
            running.let_end(End::Ok);
            all.push(running);
        }
        let mut replies = Vec::new();
        for running in &mut all {
            let reply = running.response().await;
            replies.push(reply.ok_or_else(|| ("panic", "no reply".to_owned()))?);
        }
        self.ended.extend(open.iter().copied().zip(all));
        for request in &open {
            self.since(from, *request);
        }
        let rows = self.look(&open).await?;
        let options = &self.program.options;
        let mut before = self.model.clone();
        before.is_crowded = open.len() > 1;
        let mut first = None;
        let mut found = None;
        for order in interleavings(open.len(), self.model.layers()) {
            self.model = before.clone();
            let outcome = self.settle(
                |model| {
                    let mut expected = vec![Model::returned(End::Ok); open.len()];
                    for at in &order {
                        let layer = expected[*at].cookies.len();
                        model.pass(open[*at], layer, &mut expected[*at]);
                    }
                    for response in &mut expected {
                        model.spare_dead_tokens(response);
                    }
                    expected
                },
                |model, expected| {
                    for (expected, reply) in expected.iter().zip(&replies) {
                        bind(options, model, expected, reply);
                    }
                    match_table(model, &rows)?;
                    for (expected, reply) in expected.iter().zip(&replies) {
                        check_response(options, model, expected, reply)?;
                    }
                    Ok(expected)
                },
            );
            match outcome {
                Ok(expected) => {
                    found = Some(expected);
                    break;
                }
                Err(broken) => {
                    first.get_or_insert(broken);
                }
            }
        }
        self.model.is_crowded = false;
        self.model.order_since(before.clock);
        let Some(mut expected) = found else {
            let (_, what) = first.expect("at least one order");
            return Err(("together", format!("no order explains it, such as: {what}")));
        };
        for (at, request) in open.iter().enumerate() {
            self.sent(*request, &replies[at])?;
            self.deliver(*request, &mut expected[at], &replies[at]);
        }
        Ok(())
    }

    fn sent(&mut self, request: u8, reply: &Reply) -> Result<(), Broken> {
        for cookie in &reply.cookies {
            if !cookie.value.is_empty() {
                let id = row_id(&self.program.options, &cookie.name, &cookie.value);
                self.invariants
                    .sent(request, &id)
                    .map_err(|what| ("flow", what))?;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, request: u8, expected: &mut Response, reply: &Reply) {
        let jar = usize::from(self.model.requests[&request].jar);
        for layer in 0..self.model.layers() {
            let name = cookie_name(&self.program.options, layer);
            let value = reply
                .cookies
                .iter()
                .find(|cookie| cookie.name == name)
                .map(|cookie| cookie.value.clone());
            let cookie = &mut expected.cookies[layer];
            *cookie = match (cookie.clone(), &value) {
                (Cookie::RemovedOrNot, Some(_)) => Cookie::Removed,
                (Cookie::SetOrNot(row, lasting), Some(_)) => Cookie::Set(row, lasting),
                (Cookie::RemovedOrNot | Cookie::SetOrNot(..), None) => Cookie::AsItIs,
                (cookie, _) => cookie,
            };
            match value {
                None => {}
                Some(value) if value.is_empty() => self.jars[jar][layer].clear(),
                Some(value) => self.jars[jar][layer] = vec![value],
            }
        }
        self.model.deliver(request, &expected.cookies);
    }

    /// A handle that outlives its response reads, and changes nothing.
    async fn afterwards(&mut self, request: u8, layer: usize, call: &Call) -> Result<(), Broken> {
        let Some(running) = self.ended.get(&request) else {
            return Ok(());
        };
        if layer >= self.model.layers()
            || !calls::is_there(call)
            || !self.model.is_loaded(request, layer)
        {
            return Ok(());
        }
        let session = running.sessions.lock().expect("no panic")[layer].clone();
        let Some(session) = session else {
            return Ok(());
        };
        let tag = self.tag();
        self.invariants.writes(request, tag);
        let (seen, expected) = match calls::commits(call) {
            true => (
                calls::commit(&session, call, tag).await,
                self.model.save(request, layer, call, tag),
            ),
            false => (
                calls::perform(&session, call, tag),
                self.model.call(request, layer, call, tag),
            ),
        };
        // What a handle reads by then may be older or newer, of its own session.
        if matches!(expected, Expected::Failed(_)) || matches!(seen, Seen::Failed(..)) {
            self.check_call(call, &expected, &seen)
                .map_err(|(_, what)| ("afterwards", what))?;
        }
        self.invariants
            .saw(request, &seen)
            .map_err(|what| ("flow", format!("after the response, by {call:?} {what}")))
    }

    // The administration.

    async fn admin(&mut self, admin: &Admin) -> Result<(), Broken> {
        let options = self.program.options.clone();
        let format = options.format;
        let store = self.lane.store(&options, 1, Patience::Long).await;
        let id_of = |model: &Model, jar: u8| {
            let row = model.row_of_jar(jar)?;
            Some((row, model.rows[row.0].id.clone()?))
        };
        let number = |outcome: Result<u64, _>| match outcome {
            Ok(number) => Seen::Number(number),
            Err(error) => calls::seen_error(&error),
        };
        let truth = |outcome: Result<bool, _>| match outcome {
            Ok(truth) => Seen::Truth(truth),
            Err(error) => calls::seen_error(&error),
        };
        let (seen, predict): (Seen, Prediction) = match admin {
            Admin::Destroy { jar } => {
                let Some((row, id)) = id_of(&self.model, *jar) else {
                    return Ok(());
                };
                let seen = truth(store.destroy(&handle(&options, &id)).await);
                (seen, Box::new(move |model| model.destroy(row)))
            }
            Admin::UserDestroy { user, jar } => {
                let Some((row, id)) = id_of(&self.model, *jar) else {
                    return Ok(());
                };
                let user = user_name(*user);
                let seen = truth(store.user(&user).destroy(&handle(&options, &id)).await);
                (seen, Box::new(move |model| model.user_destroy(&user, row)))
            }
            Admin::UserDestroyAll { user } => {
                let user = user_name(*user);
                let seen = number(store.user(&user).destroy_all().await);
                (seen, Box::new(move |model| model.user_destroy_all(&user)))
            }
            Admin::UserDestroyOthers { user, jar } => {
                let Some((row, id)) = id_of(&self.model, *jar) else {
                    return Ok(());
                };
                let user = user_name(*user);
                let others = store.user(&user);
                let seen = number(others.destroy_others(&handle(&options, &id)).await);
                (
                    seen,
                    Box::new(move |model| model.user_destroy_others(&user, row)),
                )
            }
            Admin::DestroyEveryone => {
                let seen = number(store.destroy_everyone().await);
                (seen, Box::new(Model::destroy_everyone))
            }
            Admin::Expire { jar } => {
                let Some((row, id)) = id_of(&self.model, *jar) else {
                    return Ok(());
                };
                if !self.model.expire(row) {
                    return Ok(());
                }
                self.lane.expire(format, &id).await;
                return self.unchanged().await;
            }
            Admin::AgeForwardings => {
                self.lane.age_forwardings(format, 6).await;
                self.model.age_forwardings(Age::Stale);
                return self.unchanged().await;
            }
            Admin::EndForwardings => {
                self.lane.age_forwardings(format, 70).await;
                self.model.age_forwardings(Age::Expired);
                return self.unchanged().await;
            }
        };
        let rows = self.look(&[]).await?;
        self.settle(
            |model| predict(model),
            |model, expected| {
                check_seen(model, &expected, &seen)
                    .map_err(|what| ("admin", format!("{admin:?} {what}")))?;
                match_table(model, &rows)
            },
        )
    }

    async fn unchanged(&mut self) -> Result<(), Broken> {
        let rows = self.look(&[]).await?;
        match_table(&mut self.model, &rows)
    }

    // The end.

    /// Once five seconds have passed no jar is locked out.
    async fn probe(&mut self) -> Result<(), Broken> {
        self.lane.age_forwardings(self.format(), 6).await;
        self.model.age_forwardings(Age::Stale);
        self.unchanged().await?;
        let used: std::collections::BTreeSet<_> = self
            .model
            .requests
            .values()
            .map(|request| request.jar)
            .collect();
        for jar in used {
            let request = REQUESTS + jar;
            self.start(request, jar, 0, Taking::Extracted, None).await?;
            self.call(request, 0, &Call::Insert(0)).await?;
            self.end(request, End::Ok)
                .await
                .map_err(|(rule, what)| match rule {
                    "status" => ("lock-out", what),
                    rule => (rule, what),
                })?;
        }
        Ok(())
    }

    // Checks.

    /// What is in the table now.
    async fn look(&mut self, by: &[u8]) -> Result<Vec<TableRow>, Broken> {
        let rows = self.lane.rows(self.format()).await;
        self.invariants
            .look(&rows, by)
            .map_err(|what| ("revived", what))?;
        Ok(rows)
    }

    /// Finds the responses to open questions with which the prediction fits what
    /// happened, and goes on with them.
    fn settle<E, T>(
        &mut self,
        mut predict: impl FnMut(&mut Model) -> E,
        mut check: impl FnMut(&mut Model, E) -> Result<T, Broken>,
    ) -> Result<T, Broken> {
        let mut first = None;
        let mut open = vec![Vec::new()];
        while let Some(choices) = open.pop() {
            let mut model = self.model.choosing(&choices);
            let expected = predict(&mut model);
            match check(&mut model, expected) {
                Ok(outcome) => {
                    self.model = model;
                    return Ok(outcome);
                }
                Err(broken) => {
                    first.get_or_insert(broken);
                }
            }
            for at in choices.len()..model.asked.min(6) {
                let mut more = choices.clone();
                more.resize(at, false);
                more.push(true);
                open.push(more);
            }
        }
        Err(first.expect("tried once"))
    }
}

/// The orders in which so many requests pass so many layers each.
fn interleavings(requests: usize, layers: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..requests * layers {
        let may_follow = |so_far: &Vec<usize>| {
            let passed = |at: &usize| so_far.iter().filter(|passed| *passed == at).count();
            let next = (0..requests).filter(|at| passed(at) < layers);
            next.map(|at| [&so_far[..], &[at]].concat()).collect()
        };
        all = all
            .iter()
            .flat_map(|so_far| -> Vec<Vec<usize>> { may_follow(so_far) })
            .collect();
    }
    all
}

fn fits(failure: &Failure, retry: Option<u64>) -> bool {
    match (failure.retry, retry) {
        (None, None) => true,
        (Some((least, most)), Some(retry)) => (least..=most).contains(&retry),
        _ => false,
    }
}

fn check_seen(model: &Model, expected: &Expected, seen: &Seen) -> Result<(), String> {
    let is_right = match (expected, seen) {
        (Expected::Anything, _) => true,
        (Expected::Is(expected), seen) => expected == seen,
        (Expected::Age(least, most), Seen::Age(Some(age))) => (*least..=*most).contains(age),
        (Expected::Failed(failure), Seen::Failed(kind, retry)) => {
            failure.kind == *kind && fits(failure, *retry)
        }
        (Expected::Handle(row), Seen::Handle(handle)) => {
            let id = row.and_then(|row| model.rows[row.0].id.clone());
            id.is_some() == handle.is_some()
        }
        _ => false,
    };
    match is_right {
        true => Ok(()),
        false => Err(format!("returned {seen:?} instead of {expected:?}")),
    }
}

fn check_response(
    options: &crate::program::Options,
    model: &Model,
    expected: &Response,
    reply: &Reply,
) -> Result<(), Broken> {
    if reply.status != expected.status {
        return Err((
            "status",
            format!("status {} instead of {}", reply.status, expected.status),
        ));
    }
    let retry_fits = match (expected.retry, reply.retry) {
        (None, None) => true,
        (Some((least, most)), Some(retry)) => (least..=most).contains(&retry),
        _ => false,
    };
    if !retry_fits {
        return Err((
            "retry",
            format!(
                "Retry-After {:?} instead of {:?}",
                reply.retry, expected.retry
            ),
        ));
    }
    for (layer, cookie) in expected.cookies.iter().enumerate() {
        let name = cookie_name(options, layer);
        let sent: Vec<_> = reply
            .cookies
            .iter()
            .filter(|cookie| cookie.name == name)
            .collect();
        let is_right = match (cookie, sent.as_slice()) {
            (Cookie::AsItIs | Cookie::RemovedOrNot | Cookie::SetOrNot(..), []) => true,
            (Cookie::Removed | Cookie::RemovedOrNot, [sent]) => sent.value.is_empty(),
            (Cookie::Set(row, lasting) | Cookie::SetOrNot(row, lasting), [sent])
                if !sent.value.is_empty() =>
            {
                let id = row_id(options, &name, &sent.value);
                let row = &model.rows[row.0];
                row.id.as_deref().is_none_or(|known| known == id) && lasts(sent, *lasting)
            }
            _ => false,
        };
        if !is_right {
            let what = match sent.as_slice() {
                [] => "no cookie",
                [sent] if sent.value.is_empty() => "a removal",
                [sent] if sent.is_kept => "a persistent token",
                _ => "a token",
            };
            return Err(("cookie", format!("{what} instead of {cookie:?}")));
        }
    }
    Ok(())
}

fn lasts(cookie: &SetCookie, lasting: Lasting) -> bool {
    match lasting {
        Lasting::Persistent => cookie.is_kept,
        Lasting::UntilTheBrowserCloses => !cookie.is_kept,
        Lasting::Unsaid => true,
    }
}

/// What the reference says that an administrative call returns.
type Prediction = Box<dyn Fn(&mut Model) -> Expected>;

/// Of several new rows that hold the same, the cookies tell which is which.
fn bind(options: &crate::program::Options, model: &mut Model, expected: &Response, reply: &Reply) {
    for (layer, cookie) in expected.cookies.iter().enumerate() {
        let name = cookie_name(options, layer);
        let sent = reply.cookies.iter().find(|cookie| cookie.name == name);
        if let (Cookie::Set(row, _), Some(sent)) = (cookie, sent)
            && !sent.value.is_empty()
        {
            let id = row_id(options, &name, &sent.value);
            let is_bound = model.rows.iter().any(|row| row.id.as_deref() == Some(&id));
            if !is_bound {
                model.rows[row.0].id.get_or_insert(id);
            }
        }
    }
}

/// Whether the table holds what the model says, and which of its rows is which
/// of the model's.
fn match_table(model: &mut Model, rows: &[TableRow]) -> Result<(), Broken> {
    let mut unknown: Vec<&TableRow> = rows
        .iter()
        .filter(|row| {
            !model
                .rows
                .iter()
                .any(|known| known.id.as_deref() == Some(&row.id))
        })
        .collect();
    for at in 0..model.rows.len() {
        let row = &model.rows[at];
        if row.id.is_some() || row.state == State::Deleted {
            continue;
        }
        let twin = unknown
            .iter()
            .position(|found| says_the_same(model, at, found));
        // A save can set an end that has passed, also of a row that it begins.
        let is_over = |found: &&TableRow| !found.is_live && model.is_too_old(at, found.times);
        let over = unknown.iter().position(is_over);
        let Some(twin) = twin.or(over) else {
            let found: Vec<_> = unknown.iter().map(|row| short(row)).collect();
            return Err((
                "table",
                format!("no row {:?} {:?}, but {found:?}", row.state, row.document),
            ));
        };
        let found = unknown.swap_remove(twin);
        model.rows[at].id = Some(found.id.clone());
        if !found.is_live {
            model.rows[at].state = State::Expired;
        }
    }
    if let Some(row) = unknown.iter().find(|row| row.is_live) {
        return Err(("table", format!("there should be no row {}", short(row))));
    }
    for at in 0..model.rows.len() {
        let Some(id) = &model.rows[at].id else {
            continue;
        };
        let found = rows.iter().find(|found| found.id == *id);
        let times = found.map(|found| found.times);
        // A save can set an end that has passed.
        let is_over = |found: &TableRow| !found.is_live && model.is_too_old(at, found.times);
        if model.rows[at].state == State::Live && found.is_some_and(is_over) {
            model.rows[at].state = State::Expired;
        }
        let row = &model.rows[at];
        let is_right = match (&row.state, found) {
            (State::Deleted, found) => found.is_none_or(|found| !found.is_live),
            (
                State::Expired
                | State::Forwards {
                    age: Age::Expired, ..
                },
                found,
            ) => found.is_none_or(|found| !found.is_live),
            (_, Some(found)) => says_the_same(model, at, found),
            (_, None) => false,
        };
        if !is_right {
            let found = found.map_or("nothing".to_owned(), short);
            return Err((
                "table",
                format!(
                    "row {at} should be {:?} {:?} {:?}, and is {found}",
                    row.state, row.document, row.user
                ),
            ));
        }
        model.rows[at].times = times;
    }
    Ok(())
}

fn short(row: &TableRow) -> String {
    match (&row.successor, row.is_live) {
        (_, false) => "an expired one".into(),
        (Some(successor), _) if successor.is_empty() => "a way to nowhere".into(),
        (Some(_), _) => "a way to another one".into(),
        (None, _) => format!("{:?} {:?} {:?}", row.values, row.terms, row.user),
    }
}

fn says_the_same(model: &Model, at: usize, found: &TableRow) -> bool {
    let row = &model.rows[at];
    let terms = (row.document.expiry, row.document.cookie);
    match &row.state {
        State::Live => {
            found.is_live
                && (model.has_one_setting() || found.terms == Some(terms))
                && found.successor.is_none()
                && found.values == row.document.values
                && found.user == row.user
        }
        State::Forwards { to, .. } => {
            let leads_right = match (to, &found.successor) {
                (None, Some(successor)) => successor.is_empty(),
                (Some(to), Some(successor)) => {
                    let known = model.rows[to.0].id.as_deref();
                    !successor.is_empty() && known.is_none_or(|known| known == successor)
                }
                (_, None) => false,
            };
            found.is_live && leads_right && found.user.is_none()
        }
        State::Expired | State::Deleted => !found.is_live,
    }
}
