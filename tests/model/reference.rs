//! What the documentation says that each call returns, and what each response
//! does to a cookie jar, as a state machine without any I/O.
//!
//! Where the documentation leaves a choice, [`Model::either`] takes the first
//! way, or the one that the runner asks for: what happened must be one of them.

use std::collections::BTreeMap;

use axum_pg_session::ErrorKind;
use serde_json::Value;

use crate::{
    program::{
        BAD, BeforeSave, Call, CookieChoice, Deployment, End, ExpiryChoice, FAIL, Format, KEYS,
        Limit, Options, Taking,
    },
    world::Times,
};

/// A row, numbered by the model as it comes into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowNo(pub(crate) usize);

/// What a handler got from a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Done,
    Value(Option<Value>),
    Truth(bool),
    Keys(Vec<String>),
    User(Option<String>),
    Handle(Option<String>),
    Shape(Vec<Option<String>>),
    Number(u64),
    /// Seconds since the login, as far as `authenticated_within` tells.
    Age(Option<f64>),
    Failed(ErrorKind, Option<u64>),
    /// The call waits for itself.
    Stuck,
}

/// What it should get.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    Anything,
    Is(Seen),
    Handle(Option<RowNo>),
    /// Seconds since the login, at least and at the most.
    Age(f64, f64),
    Failed(Failure),
}

/// When something happens, in seconds since the program began: not before, and
/// not after.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moment {
    pub(crate) from: f64,
    pub(crate) until: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    /// The seconds that may be given as `Retry-After`.
    pub(crate) retry: Option<(u64, u64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cookie {
    AsItIs,
    Set(RowNo, Lasting),
    Removed,
    /// The documentation does not say.
    RemovedOrNot,
    /// The cookie that the browser has may come again, to live longer.
    SetOrNot(RowNo, Lasting),
}

/// How long the browser keeps a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    Persistent,
    UntilTheBrowserCloses,
    /// The documentation does not say.
    Unsaid,
}

impl Cookie {
    fn sets(&self, row: RowNo) -> bool {
        matches!(self, Self::Set(known, _) if *known == row)
    }

    /// Whether it sets the token of a row that came after so many.
    pub(crate) fn sets_a_row_since(&self, rows: usize) -> bool {
        matches!(self, Self::Set(row, _) if row.0 >= rows)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) retry: Option<(u64, u64)>,
    pub(crate) cookies: Vec<Cookie>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Live,
    /// Holds nothing but the way to the session under its new id.
    Forwards {
        to: Option<RowNo>,
        age: Age,
    },
    Expired,
    Deleted,
}

/// Of a forwarding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Age {
    /// Requests that arrive under it are told to try again.
    Fresh,
    /// Requests that arrive under it have no session; late saves follow.
    Stale,
    Expired,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    pub(crate) values: BTreeMap<String, Value>,
    pub(crate) expiry: ExpiryChoice,
    pub(crate) cookie: CookieChoice,
}

impl Document {
    fn blank() -> Self {
        Self {
            values: BTreeMap::new(),
            expiry: ExpiryChoice::Default,
            cookie: CookieChoice::Default,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) state: State,
    pub(crate) document: Document,
    pub(crate) user: Option<String>,
    /// Later ones are greater.
    created: u64,
    /// Grows with each commit.
    version: u64,
    /// In the formats of Koa and Express: the row of the new id, which only the process that made
    /// it can find.
    moved_to: Option<RowNo>,
    /// When its user signed in.
    signed_in: Moment,
    /// As they were in the table when it was looked at last.
    pub(crate) times: Option<Times>,
    /// The id in the table, once it was seen there.
    pub(crate) id: Option<String>,
}

/// What a jar holds, or a request carries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Of(RowNo),
    Unknown,
    Malformed,
}

#[derive(Clone, Debug)]
enum Change {
    Insert(String, Value),
    Remove(String),
    Clear,
    Take(String),
    Append(String, String),
    TypedAppend(String, String),
    Expiry(ExpiryChoice, Format),
    Cookie(CookieChoice, Format),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Origin {
    New,
    Stored(RowNo),
    /// The request arrived under a token that was just replaced.
    Moved(RowNo),
    Ambiguous,
    /// The session ended while the request was running.
    Ended,
}

#[derive(Clone, Debug, PartialEq)]
enum Id {
    Stays,
    Cycles,
    LogsIn {
        user: String,
        drops: bool,
        ends_others: bool,
    },
    Ends,
}

/// A session as its request sees it.
#[derive(Clone, Debug)]
struct View {
    origin: Origin,
    base: Document,
    document: Document,
    record: Vec<Change>,
    id: Id,
    keep: bool,
    user: Option<String>,
    /// Of the row, when it was read or written last.
    version: u64,
    /// The row that was the session's last.
    last: Option<RowNo>,
    /// To be deleted as the handler said so, and as what it was.
    doomed: Option<(RowNo, Document, Option<String>)>,
    /// Refused by `valid_if`. Deleted unless it has changed since this version.
    refused: Option<(RowNo, u64)>,
    /// Ended by the timeouts of the request's layer. A new session replaces those that were not
    /// changed since this version.
    outlived: Vec<(RowNo, u64)>,
    /// A refused row that had changed. A `destroy` deletes it all the same.
    spared: Option<(RowNo, u64)>,
    /// The handler called `destroy` or `logout`.
    asked: bool,
    /// And that was saved.
    has_ended: bool,
    is_closed: bool,
    cookie: Cookie,
    had_cookie: bool,
    /// None of the cookies has the form of ours.
    is_foreign: bool,
    in_flight: bool,
    /// The user whose login the save in flight commits.
    user_in_flight: Option<String>,
    /// A touch that is sent with the save of another request shows what that saved.
    may_be_newer: bool,
    /// Why a save failed whose caller did not wait for it, and whether it was to
    /// end a session or an id.
    unheard: Option<(Failure, bool)>,
    /// The session had ended before the handler destroyed it.
    was_lost: bool,
    /// The end also of what the save in flight commits.
    ends_in_flight: bool,
    discards_in_flight: bool,
    /// The record does not fit the row that a save has left. The next save tells.
    is_misfit: bool,
}

#[derive(Clone, Debug)]
struct Debt {
    origin: Origin,
    base: Document,
    document: Document,
    record: Vec<Change>,
    is_misfit: bool,
    id: Id,
    keep: bool,
    user: Option<String>,
    version: u64,
    doomed: Option<(RowNo, Document, Option<String>)>,
    refused: Option<(RowNo, u64)>,
    outlived: Vec<(RowNo, u64)>,
    /// The handler destroyed the session, so what was refused or outlived is deleted even if it has
    /// changed.
    destroys: bool,
    /// Its outcome must be known, so it is compared with the row as it is.
    is_confirmed: bool,
}

struct Settled {
    origin: Origin,
    base: Document,
    user: Option<String>,
    version: u64,
}

/// The outcome of a request's commit that follows `save`.
enum Now {
    Nothing,
    Take(String),
    Append(String, String),
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) jar: u8,
    pub(crate) deployment: Deployment,
    presented: Vec<Vec<Token>>,
    views: Vec<Option<View>>,
    pub(crate) is_open: bool,
    /// Whether there was a response.
    pub(crate) is_served: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    options: Options,
    pub(crate) rows: Vec<Row>,
    /// What each jar holds for each layer's name.
    pub(crate) jars: Vec<Vec<Vec<Token>>>,
    pub(crate) requests: BTreeMap<u8, Request>,
    pub(crate) clock: u64,
    /// What requests are of that begin now.
    pub(crate) deployment: Deployment,
    /// When what is predicted happens.
    pub(crate) moment: Moment,
    choices: Vec<bool>,
    pub(crate) asked: usize,
    /// Whether several requests end at the same moment.
    pub(crate) is_crowded: bool,
    is_crossed: bool,
    /// Whether rows are inserted only after the store has given up.
    pub(crate) is_late: bool,
}

fn failure(kind: ErrorKind) -> Failure {
    let retry = match kind {
        ErrorKind::Conflict => Some((1, 1)),
        ErrorKind::Unavailable => Some((5, 5)),
        _ => None,
    };
    Failure { kind, retry }
}

/// For the rest of the five seconds after a move. The test may be slow.
fn refused_for_now() -> Failure {
    Failure {
        kind: ErrorKind::Ended,
        retry: Some((1, 5)),
    }
}

fn status_of(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Ambiguous => 400,
        ErrorKind::SessionLimit => 403,
        ErrorKind::TooLarge => 507,
        _ => 503,
    }
}

/// The idle timeout that a deployment sets, in seconds.
pub(crate) fn idle_timeout(deployment: Deployment) -> Option<f64> {
    match deployment {
        Deployment::Default | Deployment::ShortAbsolute => None,
        Deployment::ShortIdle => Some(15.0 * 60.0),
        Deployment::Long => Some(30.0 * DAY),
    }
}

/// The absolute timeout that a deployment sets.
pub(crate) fn absolute_timeout(deployment: Deployment) -> Option<f64> {
    match deployment {
        Deployment::Default | Deployment::ShortIdle => None,
        Deployment::ShortAbsolute => Some(6.0 * HOUR),
        Deployment::Long => Some(365.0 * DAY),
    }
}

/// The idle and the absolute timeout of a session's own choice.
pub(crate) fn own_timeouts(choice: ExpiryChoice) -> (Option<f64>, Option<f64>) {
    match choice {
        ExpiryChoice::Default => (None, None),
        ExpiryChoice::Idle => (Some(10.0 * HOUR), None),
        ExpiryChoice::Timeouts => (Some(20.0 * HOUR), Some(200.0 * HOUR)),
    }
}

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

/// Whether the layer's timeouts, or the session's own, have ended a session that
/// the table still has.
fn has_timed_out(document: &Document, times: Times, format: Format, layer: Deployment) -> bool {
    let (own_idle, _) = own_timeouts(document.expiry);
    let idle = own_idle.or(idle_timeout(layer)).unwrap_or(DAY);
    match format {
        Format::Native => {
            is_too_old(document, times, layer) || times.unseen.is_some_and(|unseen| unseen >= idle)
        }
        Format::ThreeColumns => times.left > idle + 1.0,
        // The stored session says.
        Format::Koa | Format::Express => false,
    }
}

fn is_too_old(document: &Document, times: Times, layer: Deployment) -> bool {
    let (_, own) = own_timeouts(document.expiry);
    let absolute = own.or(absolute_timeout(layer)).unwrap_or(30.0 * DAY);
    times.age.is_some_and(|age| age >= absolute)
}

pub(crate) fn user_name(user: u8) -> String {
    format!("u{user}")
}

pub(crate) fn key_name(key: u8) -> &'static str {
    KEYS[usize::from(key) % KEYS.len()]
}

fn done() -> Expected {
    Expected::Is(Seen::Done)
}

fn failed(kind: ErrorKind) -> Expected {
    Expected::Failed(failure(kind))
}

fn appended(value: Option<&Value>, tag: &str) -> Result<Value, ErrorKind> {
    match value {
        None => Ok(Value::from(tag)),
        Some(Value::String(text)) => Ok(Value::from(format!("{text}+{tag}"))),
        Some(_) => Err(ErrorKind::Deserialize),
    }
}

fn shape_of(document: &Document) -> Result<Vec<Option<String>>, ErrorKind> {
    KEYS.iter()
        .map(|key| match document.values.get(*key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(ErrorKind::Deserialize),
        })
        .collect()
}

impl Change {
    fn apply(&self, document: &mut Document) -> Result<(), ErrorKind> {
        match self {
            Self::Insert(key, value) => {
                document.values.insert(key.clone(), value.clone());
            }
            Self::Remove(key) => {
                document.values.remove(key);
            }
            Self::Take(key) => {
                if document
                    .values
                    .get(key)
                    .is_some_and(|value| !value.is_string())
                {
                    return Err(ErrorKind::Deserialize);
                }
                document.values.remove(key);
            }
            Self::Clear => document.values.clear(),
            Self::Append(key, tag) => {
                let value = appended(document.values.get(key), tag)?;
                document.values.insert(key.clone(), value);
            }
            Self::TypedAppend(key, tag) => {
                shape_of(document)?;
                let value = appended(document.values.get(key), tag)?;
                document.values.insert(key.clone(), value);
            }
            // The life of a session and of its cookie are one setting, so that the
            // last choice of either kind is the only one.
            Self::Expiry(expiry, Format::Koa | Format::Express) => {
                document.expiry = *expiry;
                document.cookie = CookieChoice::Default;
            }
            Self::Cookie(CookieChoice::Session, Format::Koa | Format::Express)
                if document.cookie != CookieChoice::Browser => {}
            Self::Cookie(cookie, Format::Koa | Format::Express) => {
                document.expiry = ExpiryChoice::Default;
                document.cookie = match cookie {
                    CookieChoice::Browser => CookieChoice::Browser,
                    CookieChoice::Session | CookieChoice::Default => CookieChoice::Default,
                };
            }
            Self::Expiry(expiry, _) => document.expiry = *expiry,
            Self::Cookie(cookie, _) => document.cookie = *cookie,
        }
        Ok(())
    }

    fn is_about_the_cookie(&self) -> bool {
        matches!(self, Self::Expiry(..) | Self::Cookie(..))
    }
}

fn replay(record: &[Change], document: &mut Document) -> Result<(), Failure> {
    let mut draft = document.clone();
    for change in record {
        change.apply(&mut draft).map_err(failure)?;
    }
    *document = draft;
    Ok(())
}

impl View {
    fn new(origin: Origin, base: Document, user: Option<String>, had_cookie: bool) -> Self {
        Self {
            origin,
            document: base.clone(),
            base,
            record: Vec::new(),
            id: Id::Stays,
            keep: false,
            user,
            version: 0,
            last: match origin {
                Origin::Stored(row) => Some(row),
                _ => None,
            },
            doomed: None,
            refused: None,
            spared: None,
            outlived: Vec::new(),
            asked: false,
            has_ended: false,
            is_closed: false,
            cookie: Cookie::AsItIs,
            had_cookie,
            is_foreign: false,
            in_flight: false,
            user_in_flight: None,
            may_be_newer: false,
            unheard: None,
            was_lost: false,
            ends_in_flight: false,
            discards_in_flight: false,
            is_misfit: false,
        }
    }

    fn apply(&mut self, change: Change) -> Result<(), ErrorKind> {
        change.apply(&mut self.document)?;
        if matches!(change, Change::Clear) {
            // What it drops can't fail any more.
            let stays =
                |change: &Change| change.is_about_the_cookie() || matches!(change, Change::Take(_));
            self.record.retain(stays);
        }
        self.record.push(change);
        Ok(())
    }

    fn user(&self) -> Option<String> {
        match &self.id {
            Id::LogsIn { user, .. } => Some(user.clone()),
            _ if self.user_in_flight.is_some() && !self.ends_in_flight => {
                self.user_in_flight.clone()
            }
            _ => self.user.clone(),
        }
    }

    /// Whether a login of this request is not committed yet.
    fn logs_in(&self) -> bool {
        matches!(self.id, Id::LogsIn { .. })
            || (self.user_in_flight.is_some() && !self.ends_in_flight)
    }

    fn forget_changes(&mut self) {
        self.record.clear();
        self.is_misfit = false;
        if self.id != Id::Ends {
            self.id = Id::Stays;
        }
        self.keep = false;
    }

    fn settle(&mut self, settled: Settled) {
        self.origin = settled.origin;
        if let Origin::Stored(row) = self.origin {
            self.last = Some(row);
        }
        self.user = settled.user;
        self.version = settled.version;
        self.document = settled.base.clone();
        self.base = settled.base;
        // One that does not fit is told when it is saved.
        let record = self.record.clone();
        self.is_misfit = replay(&record, &mut self.document).is_err();
    }

    fn destroy(&mut self) {
        if self.origin == Origin::Ended
            && let Some(row) = self.last
        {
            self.was_lost = true;
            self.doomed = Some((row, Document::blank(), None));
            self.origin = Origin::New;
            self.user = None;
        }
        if let Origin::Stored(row) = self.origin {
            self.was_lost = false;
            self.doomed = Some((row, self.base.clone(), self.user.clone()));
            self.origin = Origin::New;
            self.user = None;
        }
        self.base = Document::blank();
        self.document = Document::blank();
        self.forget_changes();
        if matches!(self.origin, Origin::Moved(_) | Origin::Ambiguous) {
            self.id = Id::Ends;
        }
        if self.in_flight {
            self.ends_in_flight = true;
        }
        self.asked = true;
    }

    fn discard(&mut self) {
        self.forget_changes();
        self.id = Id::Stays;
        self.asked = self.has_ended;
        self.ends_in_flight = false;
        self.discards_in_flight = self.in_flight;
        if let Some((row, base, user)) = self.doomed.take() {
            self.origin = match self.was_lost {
                true => Origin::Ended,
                false => Origin::Stored(row),
            };
            self.base = base;
            self.user = user;
        }
        self.go_back();
    }

    /// To what is stored. A save without data stored nothing, so the choices that
    /// it was to save are those of this request alone.
    fn go_back(&mut self) {
        if self.origin == Origin::New {
            self.base = Document::blank();
        }
        self.document = self.base.clone();
    }

    fn owes_a_document(&self, is_confirmed: bool) -> bool {
        match self.origin {
            Origin::New => {
                self.keep
                    || matches!(self.id, Id::LogsIn { .. })
                    || !(self.record.is_empty() || self.document.values.is_empty())
            }
            Origin::Stored(_) => {
                self.id != Id::Stays
                    || (!self.record.is_empty()
                        && (is_confirmed || self.is_misfit || self.document != self.base))
            }
            Origin::Moved(_) | Origin::Ended => matches!(self.id, Id::LogsIn { .. }),
            Origin::Ambiguous => false,
        }
    }

    fn take_debt(&mut self) -> Debt {
        let destroys = self.asked && self.id != Id::Ends;
        if destroys {
            self.has_ended = true;
            self.refused = self.refused.or(self.spared.take());
        }
        Debt {
            destroys,
            origin: self.origin,
            base: self.base.clone(),
            document: self.document.clone(),
            record: std::mem::take(&mut self.record),
            is_misfit: std::mem::take(&mut self.is_misfit),
            id: {
                let id = match &mut self.id {
                    Id::Ends => Id::Ends,
                    id => std::mem::replace(id, Id::Stays),
                };
                self.user_in_flight = match &id {
                    Id::LogsIn { user, .. } => Some(user.clone()),
                    _ => None,
                };
                id
            },
            keep: std::mem::take(&mut self.keep),
            user: self.user.clone(),
            version: self.version,
            doomed: self.doomed.take(),
            refused: self.refused.take(),
            outlived: self.outlived.clone(),
            is_confirmed: false,
        }
    }
}

impl Model {
    pub(crate) fn new(options: &Options, jars: u8) -> Self {
        let layers = if options.two_layers { 2 } else { 1 };
        Self {
            options: options.clone(),
            rows: Vec::new(),
            jars: vec![vec![Vec::new(); layers]; usize::from(jars)],
            requests: BTreeMap::new(),
            clock: 0,
            deployment: options.deployment,
            moment: Moment::default(),
            choices: Vec::new(),
            asked: 0,
            is_crowded: false,
            is_crossed: false,
            is_late: false,
        }
    }

    /// The same with responses to the questions that the documentation leaves
    /// open.
    pub(crate) fn choosing(&self, choices: &[bool]) -> Self {
        Self {
            choices: choices.to_vec(),
            asked: 0,
            ..self.clone()
        }
    }

    fn either(&mut self) -> bool {
        let choice = self.choices.get(self.asked).copied().unwrap_or(false);
        self.asked += 1;
        choice
    }

    /// Whether no other id is known for what the browser's cookie opens.
    fn may_renew(&self, last: Option<RowNo>) -> bool {
        last.is_some_and(|row| !matches!(self.state(row), State::Forwards { .. }))
    }

    /// The cookie of what was saved.
    fn set_cookie(&self, row: RowNo) -> Cookie {
        Cookie::Set(row, self.lasting_of(row))
    }

    fn lasting_of(&self, row: RowNo) -> Lasting {
        let document = &self.rows[row.0].document;
        match document.cookie {
            // What is saved at the same moment counts already.
            _ if self.is_crowded => Lasting::Unsaid,
            CookieChoice::Default if self.options.browser_cookies => Lasting::UntilTheBrowserCloses,
            CookieChoice::Browser => Lasting::UntilTheBrowserCloses,
            CookieChoice::Default | CookieChoice::Session => Lasting::Persistent,
        }
    }

    /// Whether a session's life and its cookie's are one setting.
    pub(crate) fn has_one_setting(&self) -> bool {
        self.options.format.is_foreign()
    }

    fn has_users(&self) -> bool {
        self.options.format != Format::ThreeColumns
    }

    fn state(&self, row: RowNo) -> &State {
        &self.rows[row.0].state
    }

    // Requests.

    pub(crate) fn start(&mut self, request: u8, jar: u8, beside: Option<u8>) {
        let layers = self.jars[usize::from(jar)].len();
        let presented = (0..layers).map(|layer| {
            let mut tokens = self.jars[usize::from(jar)][layer].clone();
            if let Some(other) = beside {
                for token in &self.jars[usize::from(other)][layer] {
                    if !tokens.contains(token) {
                        tokens.push(token.clone());
                    }
                }
            }
            tokens
        });
        let request_state = Request {
            jar,
            deployment: self.deployment,
            presented: presented.collect(),
            views: vec![None; layers],
            is_open: true,
            is_served: false,
        };
        self.requests.insert(request, request_state);
    }

    pub(crate) fn is_loaded(&self, request: u8, layer: usize) -> bool {
        self.requests[&request].views[layer].is_some()
    }

    pub(crate) fn layers(&self) -> usize {
        self.jars[0].len()
    }

    /// The session is looked up, where it was not yet.
    pub(crate) fn load(&mut self, request: u8, layer: usize) {
        if self.is_loaded(request, layer) {
            return;
        }
        let mut tokens = self.requests[&request].presented[layer].clone();
        if self.options.format.is_foreign() {
            // Of several cookies of one name, Koa and Express take the first.
            tokens.truncate(1);
        }
        let (mut live, mut outlived, mut moved) = (Vec::new(), Vec::new(), None);
        for token in &tokens {
            let Token::Of(row) = token else { continue };
            match self.state(*row) {
                State::Live if self.has_timed_out(*row, request) => {
                    outlived.push((*row, self.rows[row.0].version));
                }
                State::Live => live.push(*row),
                State::Forwards {
                    age: Age::Fresh, ..
                } => moved = Some(*row),
                _ => {}
            }
        }
        let had_cookie = !tokens.is_empty();
        let well_formed = tokens
            .iter()
            .filter(|token| **token != Token::Malformed)
            .count();
        let mut view = match (live.as_slice(), moved) {
            _ if well_formed > 4 => {
                View::new(Origin::Ambiguous, Document::blank(), None, had_cookie)
            }
            ([], None) => View::new(Origin::New, Document::blank(), None, had_cookie),
            ([], Some(row)) => View::new(Origin::Moved(row), Document::blank(), None, had_cookie),
            ([row], _) => {
                let stored = &self.rows[row.0];
                let mut view = View::new(
                    Origin::Stored(*row),
                    stored.document.clone(),
                    stored.user.clone(),
                    had_cookie,
                );
                view.version = stored.version;
                view
            }
            _ => View::new(Origin::Ambiguous, Document::blank(), None, had_cookie),
        };
        view.is_foreign = well_formed == 0;
        if view.origin == Origin::New && self.options.allow_empty {
            view.keep = true;
        }
        if let Origin::Stored(row) = view.origin
            && self.options.valid_if
            && view.document.values.contains_key(BAD)
        {
            view = View::new(Origin::New, Document::blank(), None, had_cookie);
            view.refused = Some((row, self.rows[row.0].version));
        }
        view.outlived = outlived;
        self.view_place(request, layer).replace(view);
    }

    fn has_timed_out(&self, row: RowNo, request: u8) -> bool {
        let row = &self.rows[row.0];
        let layer = self.requests[&request].deployment;
        let has_timed_out = |times| has_timed_out(&row.document, times, self.options.format, layer);
        row.times.is_some_and(has_timed_out)
    }

    /// Whether a save with the timeouts that a layer of this program had ends this
    /// session.
    pub(crate) fn is_too_old(&self, row: usize, times: Times) -> bool {
        let document = &self.rows[row].document;
        let mut requests = self.requests.values();
        requests.any(|request| is_too_old(document, times, request.deployment))
    }

    fn view_place(&mut self, request: u8, layer: usize) -> &mut Option<View> {
        &mut self.requests.get_mut(&request).expect("begun").views[layer]
    }

    fn view(&mut self, request: u8, layer: usize) -> &mut View {
        self.view_place(request, layer).as_mut().expect("loaded")
    }

    /// Whether the model knows what this call does in this state.
    pub(crate) fn knows(&mut self, request: u8, layer: usize, call: &Call) -> bool {
        if !self.is_loaded(request, layer) {
            return true;
        }
        let view = self.view(request, layer);
        let is_change = !matches!(
            call,
            Call::Get(_)
                | Call::GetAsNumber(_)
                | Call::GetByKey(_)
                | Call::ContainsKey(_)
                | Call::Keys
                | Call::IsEmpty
                | Call::IsNew
                | Call::Id
                | Call::UserId
                | Call::AuthenticatedWithin
                | Call::ExpiresAt
                | Call::TypedGet
                | Call::Insert(_)
        );
        let ends = matches!(call, Call::Logout | Call::Destroy) && view.last.is_some();
        view.is_closed || view.origin != Origin::Ended || !is_change || ends
    }

    /// A call that waits for nothing.
    pub(crate) fn call(&mut self, request: u8, layer: usize, call: &Call, tag: u64) -> Expected {
        let has_users = self.has_users();
        let format = self.options.format;
        let view = self.view(request, layer);
        let is_lost = view.origin == Origin::Ended;
        let is_newer = view.is_closed && view.may_be_newer;
        let expected = match call {
            Call::AuthenticatedWithin => {
                let view = view.clone();
                self.age_of_login(&view)
            }
            call => view.call(call, tag, has_users, format),
        };
        match (is_lost || is_newer, &expected) {
            // What is seen of a session that ended is not said.
            (true, Expected::Is(_) | Expected::Handle(_) | Expected::Age(..)) => Expected::Anything,
            (true, Expected::Failed(failure)) if failure.kind == ErrorKind::Deserialize => {
                Expected::Anything
            }
            _ => expected,
        }
    }

    /// At the moment of the call.
    fn age_of_login(&self, view: &View) -> Expected {
        match (view.user(), view.origin) {
            (None, _) => Expected::Is(Seen::Age(None)),
            (Some(_), _) if view.logs_in() => Expected::Age(0.0, 0.0),
            (Some(_), Origin::Stored(row)) => {
                let signed_in = self.rows[row.0].signed_in;
                Expected::Age(
                    self.moment.from - signed_in.until,
                    self.moment.until - signed_in.from,
                )
            }
            _ => Expected::Anything,
        }
    }

    // Commits.

    /// `before_save`, where something is about to be saved.
    fn prepare(&mut self, request: u8, layer: usize, is_confirmed: bool) -> Result<(), Failure> {
        let hook = self.options.before_save;
        let view = self.view(request, layer);
        if !view.owes_a_document(is_confirmed) {
            return Ok(());
        }
        match hook {
            BeforeSave::Fails if view.document.values.contains_key(FAIL) => {
                Err(failure(ErrorKind::Deserialize))
            }
            BeforeSave::Writes => view
                .apply(Change::Insert("hook".into(), Value::from("h")))
                .map_err(failure),
            BeforeSave::Fails | BeforeSave::None => Ok(()),
        }
    }

    /// `save`, `take` and `update_now`, from call to return.
    pub(crate) fn save(&mut self, request: u8, layer: usize, call: &Call, tag: u64) -> Expected {
        let now = match call {
            Call::Take(key) => Now::Take(key_name(*key).into()),
            Call::UpdateNow(key) => Now::Append(key_name(*key).into(), tag_text(tag)),
            _ => Now::Nothing,
        };
        if self.view(request, layer).is_closed {
            return failed(ErrorKind::ResponseStarted);
        }
        match self.save_with(request, layer, &now) {
            Ok(seen) => Expected::Is(seen),
            Err(failure) => Expected::Failed(failure),
        }
    }

    fn save_with(&mut self, request: u8, layer: usize, now: &Now) -> Result<Seen, Failure> {
        let change = match now {
            Now::Nothing => None,
            Now::Take(key) => Some(Change::Take(key.clone())),
            Now::Append(key, tag) => Some(Change::Append(key.clone(), tag.clone())),
        };
        if let Some((failure, _)) = self.view(request, layer).unheard.take() {
            self.drop_record(request, layer);
            return Err(failure);
        }
        if let Some(change) = change {
            // An error here leaves all as it was.
            self.view(request, layer).apply(change).map_err(failure)?;
        }
        if let Err(failure) = self.prepare(request, layer, !matches!(now, Now::Nothing)) {
            self.drop_record(request, layer);
            return Err(failure);
        }
        let seen = match now {
            Now::Nothing => Seen::Done,
            Now::Take(key) | Now::Append(key, _) => self.outcome_now(request, layer, now, key)?,
        };
        let mut debt = self.view(request, layer).take_debt();
        debt.is_confirmed = !matches!(now, Now::Nothing);
        self.pay_and_settle(request, layer, debt)?;
        Ok(seen)
    }

    /// What the last change of the record makes of the row as it is.
    fn outcome_now(
        &mut self,
        request: u8,
        layer: usize,
        now: &Now,
        key: &str,
    ) -> Result<Seen, Failure> {
        let view = self.view(request, layer).clone();
        let mut document = match &view.origin {
            Origin::Stored(row) if *self.state(*row) == State::Live => {
                self.rows[row.0].document.clone()
            }
            Origin::Stored(row) if view.id == Id::Stays => {
                let failure = self.ended(*row);
                self.drop_record(request, layer);
                self.view(request, layer).settle(Settled {
                    origin: Origin::Ended,
                    base: Document::blank(),
                    user: None,
                    version: 0,
                });
                return Err(failure);
            }
            _ => view.base.clone(),
        };
        let is_last = |change: &Change| match (now, change) {
            (Now::Take(key), Change::Take(taken)) => key == taken,
            (Now::Append(key, tag), Change::Append(other, known)) => key == other && tag == known,
            _ => false,
        };
        let mut seen = Seen::Value(None);
        for change in &view.record {
            let before = document.values.get(key).cloned();
            if let Err(kind) = change.apply(&mut document) {
                self.drop_record(request, layer);
                return Err(failure(kind));
            }
            if is_last(change) {
                seen = Seen::Value(match now {
                    Now::Take(_) => before,
                    _ => document.values.get(key).cloned(),
                });
            }
        }
        Ok(seen)
    }

    /// What a save that failed does; a pending end stays.
    fn drop_record(&mut self, request: u8, layer: usize) {
        let view = self.view(request, layer);
        view.forget_changes();
        view.go_back();
    }

    fn pay_and_settle(&mut self, request: u8, layer: usize, debt: Debt) -> Result<(), Failure> {
        if let Some((row, ..)) = &debt.doomed
            && self.destroy_if_known(*row).is_none()
        {
            return Err(self.settle_not_destroyed(request, layer, debt));
        }
        if debt.destroys {
            let mut rows = debt.refused.into_iter().chain(debt.outlived.clone());
            if !rows.all(|(row, _)| self.destroy_if_known(row).is_some()) {
                return Err(self.settle_not_destroyed(request, layer, debt));
            }
        }
        let spared = debt.refused.filter(|row| !self.destroy_unchanged(*row));
        let mut cookie = self.view(request, layer).cookie.clone();
        let outcome = self.pay(debt, &mut cookie);
        let view = self.view(request, layer);
        view.spared = view.spared.or(spared);
        view.cookie = cookie;
        view.in_flight = false;
        view.user_in_flight = None;
        let discards = std::mem::take(&mut view.discards_in_flight);
        match outcome {
            Ok(mut settled) => {
                // A save without data stored nothing that could be gone back to.
                if discards && settled.origin == Origin::New {
                    settled.base = Document::blank();
                }
                let ends = std::mem::take(&mut view.ends_in_flight);
                if ends && matches!(settled.origin, Origin::New | Origin::Stored(_)) {
                    if let Origin::Stored(row) = settled.origin {
                        view.doomed = Some((row, settled.base, settled.user));
                    }
                    view.origin = Origin::New;
                    view.user = None;
                    view.base = Document::blank();
                    view.document = Document::blank();
                    let record = view.record.clone();
                    drop(replay(&record, &mut view.document));
                } else if view.doomed.is_none() {
                    view.settle(settled);
                }
                Ok(())
            }
            Err(failure) => {
                let ends = std::mem::take(&mut view.ends_in_flight);
                if ends && failure.kind == ErrorKind::Ended && self.either() {
                    let view = self.view(request, layer);
                    view.origin = Origin::Ended;
                    view.id = Id::Ends;
                    return Err(failure);
                }
                let view = self.view(request, layer);
                if view.doomed.is_none() {
                    let origin = match failure.kind {
                        ErrorKind::Ended if view.origin != Origin::New => match view.origin {
                            Origin::Moved(row) => Origin::Moved(row),
                            _ => Origin::Ended,
                        },
                        _ => view.origin,
                    };
                    let base = match origin {
                        Origin::Ended | Origin::New => Document::blank(),
                        _ => view.base.clone(),
                    };
                    let user = view.user.clone();
                    let version = view.version;
                    view.settle(Settled {
                        origin,
                        base,
                        user,
                        version,
                    });
                }
                Err(failure)
            }
        }
    }

    /// It is unknown whether the session still exists, so its `destroy` stays pending.
    fn settle_not_destroyed(&mut self, request: u8, layer: usize, debt: Debt) -> Failure {
        let view = self.view(request, layer);
        view.refused = debt.refused;
        view.in_flight = false;
        view.user_in_flight = None;
        view.discards_in_flight = false;
        view.ends_in_flight = false;
        view.asked = true;
        view.has_ended = false;
        if view.doomed.is_none() {
            view.doomed = debt.doomed;
        }
        view.document = view.base.clone();
        let record = view.record.clone();
        view.is_misfit = replay(&record, &mut view.document).is_err();
        failure(ErrorKind::Ended)
    }

    /// `save` begins while no write of the table gets through.
    pub(crate) fn begin_save(&mut self, request: u8, layer: usize) -> Result<InFlight, Failure> {
        if let Some((failure, _)) = self.view(request, layer).unheard.take() {
            self.drop_record(request, layer);
            return Err(failure);
        }
        if let Err(failure) = self.prepare(request, layer, false) {
            self.drop_record(request, layer);
            return Err(failure);
        }
        let view = self.view(request, layer);
        let debt = view.take_debt();
        view.in_flight = true;
        Ok(InFlight(debt))
    }

    pub(crate) fn finish_save(
        &mut self,
        request: u8,
        layer: usize,
        save: InFlight,
        gives_up: bool,
    ) -> Expected {
        let ends_something = save.0.ends_something();
        match self.pay_and_settle(request, layer, save.0) {
            Ok(()) => done(),
            Err(failure) => {
                if gives_up {
                    self.view(request, layer).unheard = Some((failure.clone(), ends_something));
                }
                Expected::Failed(failure)
            }
        }
    }

    fn pay(&mut self, debt: Debt, cookie: &mut Cookie) -> Result<Settled, Failure> {
        if let Some((row, ..)) = &debt.doomed {
            self.destroy_row(*row);
            *cookie = Cookie::Removed;
        }
        match debt.origin {
            Origin::New => self.pay_new(debt, cookie),
            Origin::Stored(row) => self.pay_stored(row, debt, cookie),
            Origin::Moved(row) => self.pay_moved(row, debt, cookie),
            Origin::Ambiguous if debt.record.is_empty() && debt.id == Id::Stays => {
                Ok(debt.unchanged())
            }
            Origin::Ambiguous => Err(failure(ErrorKind::Ambiguous)),
            Origin::Ended if debt.record.is_empty() && debt.id == Id::Stays => Ok(debt.unchanged()),
            Origin::Ended if matches!(debt.id, Id::LogsIn { .. }) && self.either() => {
                self.pay_new(debt, cookie)
            }
            // Only a new id is worth another attempt.
            Origin::Ended if self.either() => Err(failure(ErrorKind::Ended)),
            Origin::Ended => Err(refused_for_now()),
        }
    }

    fn pay_new(&mut self, debt: Debt, cookie: &mut Cookie) -> Result<Settled, Failure> {
        let is_empty = debt.record.is_empty() || debt.document.values.is_empty();
        let logs_in = matches!(debt.id, Id::LogsIn { .. });
        if is_empty && !debt.keep && !logs_in {
            return Ok(debt.unchanged());
        }
        for row in &debt.outlived {
            self.destroy_unchanged(*row);
        }
        if let Id::LogsIn {
            user, ends_others, ..
        } = &debt.id
        {
            // Another login can come between their end and this one.
            self.is_crossed = !debt.outlived.is_empty();
            let begun = self.begin_with_login(debt.document, user, *ends_others, cookie);
            self.is_crossed = false;
            return begun;
        }
        self.in_time()?;
        let row = self.add_row(debt.document.clone(), None, None);
        *cookie = self.set_cookie(row);
        Ok(Settled {
            origin: Origin::Stored(row),
            base: debt.document,
            user: None,
            version: 0,
        })
    }

    fn begin_with_login(
        &mut self,
        document: Document,
        user: &str,
        ends_others: bool,
        cookie: &mut Cookie,
    ) -> Result<Settled, Failure> {
        if !ends_others {
            self.check_limit(user, None)?;
        }
        self.end_if_late(user, ends_others, None);
        self.in_time()?;
        let row = self.add_row(document.clone(), Some(user.to_owned()), None);
        self.end_others_of(user, ends_others, row);
        self.enforce_limit(user, Some(row));
        *cookie = self.set_cookie(row);
        Ok(Settled {
            origin: Origin::Stored(row),
            base: document,
            user: Some(user.to_owned()),
            version: 0,
        })
    }

    /// The request arrived under a token that was just replaced.
    fn pay_moved(
        &mut self,
        row: RowNo,
        debt: Debt,
        cookie: &mut Cookie,
    ) -> Result<Settled, Failure> {
        if matches!(debt.id, Id::LogsIn { .. }) {
            return self.pay_new(debt, cookie);
        }
        let is_fresh = matches!(
            self.state(row),
            State::Forwards {
                age: Age::Fresh,
                ..
            }
        );
        let writes = !debt.record.is_empty() || debt.id != Id::Stays;
        if !writes && debt.keep && self.either() {
            return Err(refused_for_now());
        }
        if !writes {
            return Ok(debt.unchanged());
        }
        // It may be told by the time of its load or that of its save.
        if !is_fresh && self.either() {
            let mut debt = debt;
            debt.id = Id::Stays;
            return self.pay_new(debt, cookie);
        }
        if debt.document == Document::blank() && debt.id == Id::Stays && self.either() {
            return Ok(debt.unchanged());
        }
        Err(refused_for_now())
    }

    fn pay_stored(
        &mut self,
        row: RowNo,
        debt: Debt,
        cookie: &mut Cookie,
    ) -> Result<Settled, Failure> {
        if debt.id != Id::Stays {
            return self.reissue(row, debt, cookie);
        }
        // What was written is as new as the row.
        self.rows[row.0].version += 1;
        self.pay_stay(row, debt, cookie)
    }

    fn pay_stay(
        &mut self,
        row: RowNo,
        debt: Debt,
        cookie: &mut Cookie,
    ) -> Result<Settled, Failure> {
        let is_changed = !debt.record.is_empty()
            && (debt.is_confirmed || debt.is_misfit || debt.document != debt.base);
        if !is_changed {
            if debt.keep && *self.state(row) == State::Live {
                // Unless another request has extended it.
                let is_first = self.rows[row.0].version == debt.version + 1 && !self.is_crowded;
                let lasting = match *cookie {
                    // A touch that comes after another one leaves the cookie of the earlier
                    // save, which another request's lifetime may have followed.
                    Cookie::Set(_, earlier) if !is_first && earlier != self.lasting_of(row) => {
                        Lasting::Unsaid
                    }
                    _ => self.lasting_of(row),
                };
                *cookie = match is_first || cookie.sets(row) {
                    true => Cookie::Set(row, lasting),
                    false => Cookie::SetOrNot(row, lasting),
                };
                // A touch that is sent with the save of another request shows what that
                // saved.
                let stored = self.rows[row.0].document.clone();
                if self.is_crowded && stored != debt.base && self.either() {
                    return Ok(Settled {
                        origin: Origin::Stored(row),
                        base: stored,
                        user: debt.user,
                        version: self.rows[row.0].version,
                    });
                }
            }
            return Ok(debt.unchanged());
        }
        let Some(target) = self.follow(row) else {
            return Err(self.ended(row));
        };
        let mut document = self.rows[target.0].document.clone();
        let replayed = replay(&debt.record, &mut document);
        // Why it does not fit a session that the request does not hold, is not said.
        replayed.map_err(|failure| match target == row {
            true => failure,
            false => self.ended(row),
        })?;
        self.rows[target.0].document = document.clone();
        if target != row {
            // The row was written, as far as the requests are concerned that opened it.
            self.rows[target.0].version += 1;
            // It goes on with what it loaded, and its own changes.
            return Ok(debt.unchanged());
        }
        if debt.keep || debt.record.iter().any(Change::is_about_the_cookie) {
            *cookie = self.set_cookie(row);
        }
        let version = self.rows[row.0].version;
        Ok(Settled {
            origin: Origin::Stored(row),
            base: document,
            user: debt.user,
            version,
        })
    }

    fn reissue(&mut self, row: RowNo, debt: Debt, cookie: &mut Cookie) -> Result<Settled, Failure> {
        let login = match &debt.id {
            Id::LogsIn {
                user,
                drops,
                ends_others,
            } => Some((user.clone(), *drops, *ends_others)),
            _ => None,
        };
        let ends_others = login.as_ref().is_some_and(|(.., ends_others)| *ends_others);
        match (self.state(row).clone(), login) {
            (State::Live, login) => {
                let mut document = self.rows[row.0].document.clone();
                replay(&debt.record, &mut document)?;
                let (user, drops, created) = match login {
                    Some((user, drops, _)) => {
                        if !ends_others {
                            self.check_limit(&user, Some(row))?;
                        }
                        (Some(user), drops, None)
                    }
                    None => (
                        self.rows[row.0].user.clone(),
                        false,
                        Some(self.rows[row.0].created),
                    ),
                };
                if self.is_late && self.rows[row.0].user.is_some() && self.rows[row.0].user != user
                {
                    // It is not restored for its former user.
                    self.move_row(row, None);
                }
                if let (Some(user), None) = (&user, created) {
                    self.end_if_late(user, ends_others, Some(row));
                }
                self.in_time()?;
                let new = self.add_row(document.clone(), user.clone(), created);
                if created.is_some() {
                    self.rows[new.0].signed_in = self.rows[row.0].signed_in;
                }
                self.move_row(row, (!drops).then_some(new));
                if created.is_none()
                    && let Some(user) = &user
                {
                    self.end_others_of(user, ends_others, new);
                    self.enforce_limit(user, Some(new));
                }
                *cookie = self.set_cookie(new);
                Ok(Settled {
                    origin: Origin::Stored(new),
                    base: document,
                    user,
                    version: 0,
                })
            }
            (
                State::Forwards {
                    age: Age::Fresh | Age::Stale,
                    ..
                },
                Some((user, drops, _)),
            ) => {
                // What it would return was committed nowhere.
                if debt.is_confirmed {
                    return Err(self.ended(row));
                }
                match self.fate(row) {
                    // Nothing of what was ended comes back with a login.
                    Fate::Ended if !drops || self.either() => return Err(self.ended(row)),
                    // Nothing follows where the data was dropped; a login may.
                    Fate::Nowhere if self.either() => return Err(self.ended(row)),
                    Fate::Ended | Fate::Nowhere | Fate::Lives => {}
                }
                let document = match self.successor(row) {
                    Some(successor) if !drops => {
                        // Nothing that others have changed since comes back.
                        let now = self.rows[successor.0].document.values.clone();
                        let mut document = debt.base.clone();
                        document
                            .values
                            .retain(|key, value| now.get(key) == Some(value));
                        match document.values.len() == debt.base.values.len() {
                            true => debt.document,
                            false => {
                                replay(&debt.record, &mut document)?;
                                document
                            }
                        }
                    }
                    _ => debt.document,
                };
                self.begin_with_login(document, &user, ends_others, cookie)
            }
            _ => Err(self.ended(row)),
        }
    }

    fn move_row(&mut self, row: RowNo, to: Option<RowNo>) {
        self.rows[row.0].moved_to = to.filter(|_| self.options.format.is_foreign());
        self.rows[row.0].state = match self.options.format {
            Format::Koa | Format::Express => State::Deleted,
            Format::Native | Format::ThreeColumns => State::Forwards {
                to,
                age: Age::Fresh,
            },
        };
        self.rows[row.0].user = None;
        self.rows[row.0].document = Document::blank();
    }

    /// What became of the session that had this id.
    /// The row of the session under its newest id.
    fn successor(&self, row: RowNo) -> Option<RowNo> {
        match self.state(row) {
            State::Live => Some(row),
            State::Forwards { to: Some(to), .. } => self.successor(*to),
            State::Forwards { to: None, .. } | State::Expired | State::Deleted => None,
        }
    }

    fn fate(&self, row: RowNo) -> Fate {
        match self.state(row) {
            State::Live => Fate::Lives,
            State::Forwards { to: None, .. } => Fate::Nowhere,
            State::Forwards {
                to: Some(to),
                age: Age::Fresh | Age::Stale,
            } => self.fate(*to),
            State::Forwards { .. } | State::Expired | State::Deleted => Fate::Ended,
        }
    }

    /// The session is not there any more, at least not under this id.
    fn ended(&mut self, row: RowNo) -> Failure {
        // The forwarding that led there may be gone at the same moment.
        if self.is_crowded && self.either() {
            return refused_for_now();
        }
        match self.state(row) {
            State::Forwards {
                age: Age::Fresh, ..
            } => refused_for_now(),
            // A forwarding that is older is an unknown token.
            _ => failure(ErrorKind::Ended),
        }
    }

    /// Where a late save of this row goes.
    fn follow(&self, row: RowNo) -> Option<RowNo> {
        match self.state(row) {
            State::Live => Some(row),
            State::Forwards {
                age: Age::Expired, ..
            }
            | State::Expired
            | State::Deleted => None,
            State::Forwards { to, .. } => self.follow((*to)?),
        }
    }

    /// What is committed too late is taken back.
    fn in_time(&self) -> Result<(), Failure> {
        match self.is_late {
            true => Err(failure(ErrorKind::Unavailable)),
            false => Ok(()),
        }
    }

    fn add_row(&mut self, document: Document, user: Option<String>, created: Option<u64>) -> RowNo {
        self.clock += 1;
        self.rows.push(Row {
            state: State::Live,
            document,
            user,
            created: created.unwrap_or(self.clock),
            version: 0,
            moved_to: None,
            signed_in: self.moment,
            times: None,
            id: None,
        });
        RowNo(self.rows.len() - 1)
    }

    /// Orders the rows that were made since then by what the table says: of two logins
    /// at once, the one that commits first may have begun last.
    pub(crate) fn order_since(&mut self, clock: u64) {
        let age = |row: &Row| row.times.and_then(|times| times.age);
        let mut made: Vec<_> = (0..self.rows.len())
            .filter(|at| self.rows[*at].created > clock && age(&self.rows[*at]).is_some())
            .collect();
        let mut places: Vec<_> = made.iter().map(|at| self.rows[*at].created).collect();
        places.sort_unstable();
        made.sort_by(|one, other| {
            let ages = [*other, *one].map(|at| age(&self.rows[at]).unwrap_or_default());
            ages[0].total_cmp(&ages[1])
        });
        for (at, created) in made.into_iter().zip(places) {
            self.rows[at].created = created;
        }
    }

    /// As [`destroy_row`](Self::destroy_row). `None` if the session may exist under another id,
    /// which only the process that made it can find.
    fn destroy_if_known(&mut self, row: RowNo) -> Option<bool> {
        let was_live = self.destroy_row(row);
        if was_live || !self.options.format.is_foreign() {
            return Some(was_live);
        }
        let moved_to = self.rows[row.0].moved_to;
        match moved_to {
            Some(to) if self.either() => self.destroy_if_known(to),
            Some(_) => None,
            None => self.either().then_some(false),
        }
    }

    /// Whether a live session was ended.
    fn destroy_row(&mut self, row: RowNo) -> bool {
        let state = std::mem::replace(&mut self.rows[row.0].state, State::Deleted);
        match state {
            State::Live => true,
            State::Forwards {
                to: Some(to),
                age: Age::Fresh | Age::Stale,
            } => self.destroy_row(to),
            State::Forwards {
                to: Some(to),
                age: Age::Expired,
            } if self.either() => self.destroy_row(to),
            _ => false,
        }
    }

    /// Deletes the row if it is as it was loaded. Returns whether its session is over. In a foreign
    /// format, a row that is missing may live under another id.
    fn destroy_unchanged(&mut self, (row, version): (RowNo, u64)) -> bool {
        let stored = &mut self.rows[row.0];
        if stored.state == State::Live && stored.version == version {
            stored.state = State::Deleted;
            return true;
        }
        stored.state == State::Deleted && !self.options.format.is_foreign()
    }

    /// The live sessions of the user but for this one, the newest first.
    fn others(&self, user: &str, but: Option<RowNo>) -> Vec<RowNo> {
        let mut rows: Vec<_> = (0..self.rows.len())
            .map(RowNo)
            .filter(|row| Some(*row) != but && *self.state(*row) == State::Live)
            .filter(|row| self.rows[row.0].user.as_deref() == Some(user))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(self.rows[row.0].created));
        rows
    }

    fn check_limit(&mut self, user: &str, moved: Option<RowNo>) -> Result<(), Failure> {
        // Another login can come between a refused row's end and this login.
        let is_crossed = self.is_crossed || self.options.valid_if;
        let is_crossed = self.is_crowded && is_crossed;
        if is_crossed && matches!(self.options.limit, Limit::Refuse(_)) && self.either() {
            return Err(failure(ErrorKind::SessionLimit));
        }
        match self.options.limit {
            Limit::Refuse(limit) if self.others(user, moved).len() >= limit as usize => {
                Err(failure(ErrorKind::SessionLimit))
            }
            _ => Ok(()),
        }
    }

    fn end_others_of(&mut self, user: &str, ends_others: bool, but: RowNo) {
        if ends_others {
            for row in self.others(user, Some(but)) {
                self.rows[row.0].state = State::Deleted;
            }
        }
    }

    /// What a login that is undone has ended does not come back.
    fn end_if_late(&mut self, user: &str, ends_others: bool, but: Option<RowNo>) {
        if self.is_late && ends_others && self.either() {
            for row in self.others(user, but) {
                self.rows[row.0].state = State::Deleted;
            }
            return;
        }
        if self.is_late && matches!(self.options.limit, Limit::EndOldest(_)) && self.either() {
            self.enforce_limit(user, but);
        }
    }

    fn enforce_limit(&mut self, user: &str, new: Option<RowNo>) {
        if let Limit::EndOldest(limit) = self.options.limit {
            let surplus = self.others(user, new);
            for row in surplus.into_iter().skip(limit as usize - 1) {
                self.rows[row.0].state = State::Deleted;
            }
        }
    }

    // Responses.

    /// The request ends without a response.
    pub(crate) fn vanish(&mut self, request: u8) {
        self.requests.get_mut(&request).expect("begun").is_open = false;
        for layer in 0..self.layers() {
            if self.is_loaded(request, layer) {
                self.view(request, layer).is_closed = true;
            }
        }
    }

    /// The inner layer saves and the outer one does not.
    pub(crate) fn end_inside(&mut self, request: u8, is_late: bool) -> Cookie {
        self.is_late = is_late;
        let (cookie, _) = self.close(request, 0, 200);
        self.is_late = false;
        self.vanish(request);
        cookie
    }

    /// Its response was never sent, whatever it saved.
    pub(crate) fn without_response(&mut self, request: u8) {
        let state = self.requests.get_mut(&request).expect("begun");
        state.is_served = false;
        for view in state.views.iter_mut().flatten() {
            view.may_be_newer = true;
        }
    }

    /// The session of this request is of this row.
    pub(crate) fn bind(&mut self, request: u8, layer: usize, id: &str) {
        let is_known = self.rows.iter().any(|row| row.id.as_deref() == Some(id));
        if let Origin::Stored(row) = self.view(request, layer).origin
            && !is_known
        {
            self.rows[row.0].id.get_or_insert_with(|| id.to_owned());
        }
    }

    pub(crate) fn end_too_late(&mut self, request: u8) -> Response {
        self.is_late = true;
        let response = self.end(request, End::Ok);
        self.is_late = false;
        response
    }

    pub(crate) fn end(&mut self, request: u8, end: End) -> Response {
        let mut response = Self::returned(end);
        for layer in 0..self.layers() {
            self.pass(request, layer, &mut response);
        }
        response
    }

    /// What the handler returns, to the first layer.
    pub(crate) fn returned(end: End) -> Response {
        Response {
            status: match end {
                End::NotFound => 404,
                End::ServerError | End::PanicInside => 500,
                End::Timeout | End::CancelInside => 408,
                End::Ok | End::Lost | End::PanicOutside | End::CancelOutside => 200,
            },
            retry: None,
            cookies: Vec::new(),
        }
    }

    /// What this layer makes of the response.
    pub(crate) fn pass(&mut self, request: u8, layer: usize, response: &mut Response) {
        let (cookie, outcome) = self.close(request, layer, response.status);
        if let Err(failure) = outcome {
            response.status = status_of(failure.kind);
            response.retry = match response.status {
                503 => failure.retry,
                _ => None,
            };
        }
        response.cookies.push(cookie);
        if layer + 1 == self.layers() {
            let state = self.requests.get_mut(&request).expect("begun");
            state.is_open = false;
            state.is_served = true;
        }
    }

    /// A response that is sent at the same moment as others need not set the token of a
    /// session that one of them ended.
    pub(crate) fn spare_dead_tokens(&self, response: &mut Response) {
        for cookie in &mut response.cookies {
            if let Cookie::Set(row, lasting) = *cookie
                && *self.state(row) != State::Live
            {
                *cookie = Cookie::SetOrNot(row, lasting);
            }
        }
    }

    fn close(&mut self, request: u8, layer: usize, status: u16) -> (Cookie, Result<(), Failure>) {
        if !self.is_loaded(request, layer) {
            return (Cookie::AsItIs, Ok(()));
        }
        let is_failure = status >= 500 || status == 408;
        let drops = is_failure && !self.options.saves_on_failure;
        let unheard = self.view(request, layer).unheard.take();
        // A response that drops its changes reports no change.
        let unheard = unheard.filter(|(_, ends_something)| !drops || *ends_something);
        let unheard = unheard.map(|(failure, _)| failure);
        if unheard.is_some() || drops {
            self.drop_record(request, layer);
        }
        let prepared = self.prepare(request, layer, false);
        if prepared.is_err() {
            self.drop_record(request, layer);
        }
        let debt = self.view(request, layer).take_debt();
        let earlier = self.view(request, layer).cookie.clone();
        let paid = self.pay_and_settle(request, layer, debt);
        let outcome = paid.and(prepared).and(unheard.map_or(Ok(()), Err));
        // A cookie that can end before its session is sent with each touch.
        let touches = self.options.format != Format::Native;
        let is_crowded = self.is_crowded;
        let view = self.view(request, layer);
        view.is_closed = true;
        view.may_be_newer = is_crowded;
        let removes = view.asked && view.had_cookie && view.origin == Origin::New;
        let is_foreign = view.is_foreign;
        let last = view.last;
        let view_cookie = view.cookie.clone();
        let cookie = match (view_cookie, &outcome) {
            (Cookie::AsItIs, _) if touches && self.may_renew(last) => match last {
                Some(row) => Cookie::SetOrNot(row, self.lasting_of(row)),
                None => Cookie::AsItIs,
            },
            // From an earlier save. A token that died since must not replace another,
            // and it may die after this commit, before the response looks.
            // The touch may set it again, as another request has saved it meanwhile.
            (Cookie::Set(row, lasting), _)
                if (self.is_crowded || self.is_late) && earlier.sets(row) =>
            {
                Cookie::SetOrNot(row, if touches { Lasting::Unsaid } else { lasting })
            }
            (Cookie::Set(row, _), _) if *self.state(row) != State::Live => Cookie::AsItIs,
            // The touch may set it again.
            (Cookie::Set(row, lasting), _) if touches && self.lasting_of(row) != lasting => {
                Cookie::Set(row, Lasting::Unsaid)
            }
            // What is not of our form may be another program's.
            (Cookie::AsItIs, Ok(())) if removes && is_foreign => Cookie::RemovedOrNot,
            (Cookie::AsItIs, Ok(())) if removes && is_failure => Cookie::RemovedOrNot,
            (Cookie::AsItIs, Ok(())) if removes => Cookie::Removed,
            (Cookie::AsItIs, Err(_)) if removes => Cookie::RemovedOrNot,
            (cookie, _) => cookie,
        };
        (cookie, outcome)
    }

    /// What a browser does with the response.
    pub(crate) fn deliver(&mut self, request: u8, cookies: &[Cookie]) {
        let jar = usize::from(self.requests[&request].jar);
        for (layer, cookie) in cookies.iter().enumerate() {
            match cookie {
                Cookie::Set(row, _) => self.jars[jar][layer] = vec![Token::Of(*row)],
                Cookie::Removed => self.jars[jar][layer].clear(),
                Cookie::AsItIs | Cookie::RemovedOrNot | Cookie::SetOrNot(..) => {}
            }
        }
    }

    // The administration.

    pub(crate) fn row_of_jar(&self, jar: u8) -> Option<RowNo> {
        self.jars[usize::from(jar)][0]
            .iter()
            .find_map(|token| match token {
                Token::Of(row) => Some(*row),
                _ => None,
            })
    }

    pub(crate) fn destroy(&mut self, row: RowNo) -> Expected {
        let destroyed = self.destroy_if_known(row);
        Expected::Is(Seen::Truth(destroyed.unwrap_or(false)))
    }

    fn without_users(&self) -> Option<Expected> {
        (!self.has_users()).then(|| failed(ErrorKind::Setup))
    }

    pub(crate) fn user_destroy(&mut self, user: &str, row: RowNo) -> Expected {
        if let Some(refused) = self.without_users() {
            return refused;
        }
        let Some(target) = self.follow(row) else {
            return Expected::Is(Seen::Truth(false));
        };
        let is_theirs = self.rows[target.0].user.as_deref() == Some(user);
        if is_theirs {
            self.rows[target.0].state = State::Deleted;
        }
        Expected::Is(Seen::Truth(is_theirs))
    }

    pub(crate) fn user_destroy_all(&mut self, user: &str) -> Expected {
        if let Some(refused) = self.without_users() {
            return refused;
        }
        let ended = self.others(user, None);
        for row in &ended {
            self.rows[row.0].state = State::Deleted;
        }
        Expected::Is(Seen::Number(ended.len() as u64))
    }

    pub(crate) fn user_destroy_others(&mut self, user: &str, row: RowNo) -> Expected {
        if let Some(refused) = self.without_users() {
            return refused;
        }
        let this = self
            .follow(row)
            .filter(|this| self.rows[this.0].user.as_deref() == Some(user));
        let Some(this) = this else {
            return failed(ErrorKind::Ended);
        };
        let ended = self.others(user, Some(this));
        for row in &ended {
            self.rows[row.0].state = State::Deleted;
        }
        Expected::Is(Seen::Number(ended.len() as u64))
    }

    pub(crate) fn destroy_everyone(&mut self) -> Expected {
        let mut ended = 0;
        for row in &mut self.rows {
            match row.state {
                State::Live => {
                    ended += 1;
                    row.state = State::Deleted;
                }
                State::Forwards {
                    age: Age::Fresh | Age::Stale,
                    ..
                } => row.state = State::Deleted,
                _ => {}
            }
        }
        Expected::Is(Seen::Number(ended))
    }

    pub(crate) fn expire(&mut self, row: RowNo) -> bool {
        let is_live = *self.state(row) == State::Live;
        if is_live {
            self.rows[row.0].state = State::Expired;
        }
        is_live
    }

    /// So many seconds pass. What has expired by then, the table says.
    pub(crate) fn time_passes(&mut self, seconds: f64, is_live: impl Fn(&str) -> bool) {
        self.age_forwardings(Age::Expired);
        for row in &mut self.rows {
            row.signed_in.from -= seconds;
            row.signed_in.until -= seconds;
            let has_expired = row.id.as_deref().is_some_and(|id| !is_live(id));
            if row.state == State::Live && has_expired {
                row.state = State::Expired;
            }
        }
    }

    pub(crate) fn age_forwardings(&mut self, to: Age) {
        for row in &mut self.rows {
            if let State::Forwards { age, .. } = &mut row.state
                && *age != Age::Expired
            {
                *age = to;
            }
        }
    }
}

enum Fate {
    Lives,
    Ended,
    /// Its data was dropped with a new id.
    Nowhere,
}

/// A debt that a save has taken, and not paid yet.
#[derive(Clone, Debug)]
pub(crate) struct InFlight(Debt);

impl Debt {
    fn ends_something(&self) -> bool {
        let ends_outlived = self.destroys && !self.outlived.is_empty();
        self.id != Id::Stays || self.doomed.is_some() || self.refused.is_some() || ends_outlived
    }

    fn unchanged(self) -> Settled {
        Settled {
            origin: self.origin,
            base: self.document,
            user: self.user,
            version: self.version,
        }
    }
}

pub(crate) fn tag_text(tag: u64) -> String {
    format!("t{tag}")
}

/// The tag with a fraction that takes all digits of a float.
pub(crate) fn tag_float(tag: u64) -> f64 {
    let scrambled = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let whole = u32::try_from(tag).expect("there are few tags");
    let fraction = u32::try_from(scrambled).expect("32 bits");
    f64::from(whole) + f64::from(fraction) / f64::from(u32::MAX)
}

impl View {
    fn call(&mut self, call: &Call, tag: u64, has_users: bool, format: Format) -> Expected {
        use Expected::Is;
        let text = tag_text(tag);
        match call {
            Call::Get(key) | Call::GetByKey(key) => {
                match self.document.values.get(key_name(*key)) {
                    Some(value) if matches!(call, Call::GetByKey(_)) && !value.is_string() => {
                        failed(ErrorKind::Deserialize)
                    }
                    value => Is(Seen::Value(value.cloned())),
                }
            }
            Call::GetAsNumber(key) => match self.document.values.get(key_name(*key)) {
                Some(value) if !value.is_u64() => failed(ErrorKind::Deserialize),
                value => Is(Seen::Value(value.cloned())),
            },
            Call::ContainsKey(key) => Is(Seen::Truth(
                self.document.values.contains_key(key_name(*key)),
            )),
            Call::Keys => Is(Seen::Keys(self.document.values.keys().cloned().collect())),
            Call::IsEmpty => Is(Seen::Truth(self.document.values.is_empty())),
            Call::IsNew => Is(Seen::Truth(!matches!(self.origin, Origin::Stored(_)))),
            Call::ExpiresAt => Is(Seen::Truth(matches!(self.origin, Origin::Stored(_)))),
            Call::Id => Expected::Handle(match self.origin {
                Origin::Stored(row) => Some(row),
                _ => None,
            }),
            Call::UserId => Is(Seen::User(self.user())),
            Call::TypedGet => match shape_of(&self.document) {
                Ok(shape) => Is(Seen::Shape(shape)),
                Err(kind) => failed(kind),
            },
            Call::InsertReserved => failed(ErrorKind::ReservedKey),
            _ if self.is_closed => failed(ErrorKind::ResponseStarted),
            Call::Insert(key) | Call::InsertByKey(key) => {
                self.insert(key_name(*key), Value::from(text))
            }
            Call::InsertNumber(key) => self.insert(key_name(*key), Value::from(tag)),
            Call::InsertFloat(key) => self.insert(key_name(*key), Value::from(tag_float(tag))),
            Call::InsertBad => self.insert(BAD, Value::from(text)),
            Call::InsertFail => self.insert(FAIL, Value::from(text)),
            Call::Update(key) | Call::UpdateInside(key) => {
                let key = key_name(*key);
                match appended(self.document.values.get(key), &text) {
                    Ok(value) => {
                        self.document.values.insert(key.into(), value.clone());
                        self.record.push(Change::Append(key.into(), text));
                        Is(Seen::Value(Some(value)))
                    }
                    Err(kind) => failed(kind),
                }
            }
            Call::Remove(key) => self.remove(key_name(*key)),
            Call::RemoveBad => self.remove(BAD),
            Call::Clear => {
                self.change(Change::Clear);
                done()
            }
            Call::Replace(key) => {
                self.change(Change::Clear);
                self.insert(key_name(*key), Value::from(text))
            }
            Call::TypedUpdate(key) => {
                let key = key_name(*key);
                let change = Change::TypedAppend(key.into(), text);
                match self.apply(change) {
                    Ok(()) => Is(Seen::Value(self.document.values.get(key).cloned())),
                    Err(kind) => failed(kind),
                }
            }
            Call::CycleId => {
                if self.id == Id::Stays {
                    self.id = Id::Cycles;
                }
                done()
            }
            Call::Login {
                user,
                discard_data,
                end_others,
                keep_settings,
                expiry,
                cookie,
            } => {
                let options = (*discard_data, *end_others, *keep_settings);
                self.log_in(*user, options, *expiry, *cookie, has_users, format)
            }
            Call::Logout | Call::Destroy => {
                self.destroy();
                done()
            }
            Call::Discard => {
                self.discard();
                done()
            }
            Call::Touch => {
                self.keep = true;
                done()
            }
            Call::SetExpiry(expiry) => match can_keep(*expiry, format) {
                true => {
                    self.change(Change::Expiry(*expiry, format));
                    done()
                }
                false => failed(ErrorKind::Setup),
            },
            Call::SetCookieLifetime(cookie) => {
                // The layer's choice can't be asked for.
                let cookie = match cookie {
                    CookieChoice::Default => CookieChoice::Session,
                    chosen => *chosen,
                };
                self.change(Change::Cookie(cookie, format));
                done()
            }
            Call::AuthenticatedWithin | Call::Save | Call::Take(_) | Call::UpdateNow(_) => {
                Expected::Anything
            }
        }
    }

    fn change(&mut self, change: Change) {
        self.apply(change).expect("fits any document");
    }

    fn insert(&mut self, key: &str, value: Value) -> Expected {
        self.change(Change::Insert(key.into(), value));
        done()
    }

    /// As text.
    fn remove(&mut self, key: &str) -> Expected {
        match self.document.values.get(key).cloned() {
            None => Expected::Is(Seen::Value(None)),
            Some(value) if !value.is_string() => failed(ErrorKind::Deserialize),
            value => {
                self.change(Change::Remove(key.into()));
                Expected::Is(Seen::Value(value))
            }
        }
    }

    fn log_in(
        &mut self,
        user: u8,
        (discard_data, end_others, keep_settings): (bool, bool, bool),
        expiry: ExpiryChoice,
        cookie: CookieChoice,
        has_users: bool,
        format: Format,
    ) -> Expected {
        if !has_users || !can_keep(expiry, format) {
            return failed(ErrorKind::Setup);
        }
        let user = user_name(user);
        let is_dropped = matches!(self.id, Id::LogsIn { drops: true, .. });
        let ends_others = match &self.id {
            Id::LogsIn {
                user: pending,
                ends_others: true,
                ..
            } if *pending == user => true,
            _ => end_others,
        };
        let users = [self.user(), self.user.clone()];
        let may_log_in = self.id != Id::Ends;
        let is_signed_in = self.user().is_some_and(|known| known == user);
        let is_another = users.into_iter().flatten().any(|known| known != user);
        let drops = discard_data || is_dropped || is_another;
        if drops {
            self.change(Change::Clear);
        }
        let keeps_settings = keep_settings && is_signed_in && !is_another;
        if !keeps_settings {
            self.change(Change::Cookie(CookieChoice::Default, format));
        }
        if !keeps_settings || expiry != ExpiryChoice::Default {
            self.change(Change::Expiry(expiry, format));
        }
        if cookie != CookieChoice::Default {
            self.change(Change::Cookie(cookie, format));
        }
        // The logout that this request can't execute stays.
        if may_log_in {
            self.id = Id::LogsIn {
                user,
                drops,
                ends_others,
            };
        }
        done()
    }
}

fn can_keep(expiry: ExpiryChoice, format: Format) -> bool {
    expiry != ExpiryChoice::Timeouts || format == Format::Native
}

impl Taking {
    pub(crate) fn is_eager(self) -> bool {
        self == Self::Extracted
    }
}
