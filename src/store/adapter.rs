//! The sessions of another session layer, such as that of tower-sessions, in this store's
//! table and batches. It knows no layer: a session is a key, members and a time to live.
//!
//! How it works: such a layer loads a whole document, changes it, and saves it as a whole. So
//! a load also returns the *base*: the text of the row, and its times. A save that presents
//! the base is a three-way merge:
//!
//! 1. The members that differ between the base and the saved document are the changes of the
//!    request. If the request saves again, the members that it saved before count, too,
//!    because it may have set them back. They are remembered for a while, under the number of
//!    the base. A save without a base replaces the whole document.
//! 2. If the changes leave the member that names the user as it was, they are submitted to the
//!    queue of the session, as those of our own layer are, and replayed on the newest row.
//! 3. Otherwise, and for a save without a base, a transaction replays them on the newest row
//!    and writes the user, see `rows/user_change.rs`.
//!
//! A save never inserts, so it doesn't revive a destroyed session.
//!
//! Dropped futures: a load or save that was submitted to a batch or queue is still executed. A
//! transaction is rolled back, unless its commit was sent. A row that was inserted is deleted
//! again, because no client has its key.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;

use crate::{
    Error, ErrorKind, Login, SessionId,
    document::{Document, Json, RESERVED, limits::Limits},
    expiry::{Extent, Times, Written},
    id::{RowId, Token},
    row::{Content, Row},
    state::{
        Record, Saved,
        changes::{Change, Changes},
    },
    store::{PgSessionStore, batch::statements::InsertRow, rows::user_change::UserChange},
    timeouts::{Absolute, Timeouts},
    touch::Touch,
};

/// Stands for the cookie's name in the digest of a key, so no token of our own layer opens
/// such a row.
const AREA: &str = "tower-sessions";
/// The deepest values that a row can be read with: serde_json reads 127 levels, and one is
/// the document.
const MAX_DEPTH: usize = 126;
/// Attempts at a save that only moves the expiry. If others were faster each time, they
/// saved later than this request.
const MAX_TOUCHES: usize = 4;

/// The bases whose saves are remembered, of the requests that saved last. A request that
/// saves again after so many others may not set a member back.
const MAX_REMEMBERED: usize = 16_384;
/// The bytes of a name beside its letters, about.
const OVERHEAD: usize = 64;
/// The most bytes of their names.
const MAX_REMEMBERED_BYTES: usize = 16 << 20;

/// Keeps the sessions of another session layer in the table of a store.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// As the application made it.
    store: PgSessionStore,
    /// For the digests of the keys.
    keyed: PgSessionStore,
    user_path: Arc<[String]>,
    saves: Arc<Mutex<Saves>>,
}

/// The saves of this process, to recognize what a request changed before.
#[derive(Debug, Default)]
struct Saves {
    last_number: u64,
    /// For the number of each base, the members that were saved with it.
    members: HashMap<u64, HashSet<String>>,
    /// The numbers, the oldest first.
    order: VecDeque<u64>,
    bytes: usize,
}

impl Saves {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn remember(&mut self, number: u64, members: HashSet<String>) {
        if members.is_empty() {
            return;
        }
        self.bytes += bytes_of(&members);
        match self.members.insert(number, members) {
            Some(former) => self.bytes -= bytes_of(&former),
            None => self.order.push_back(number),
        }
        while self.order.len() > MAX_REMEMBERED || self.bytes > MAX_REMEMBERED_BYTES {
            let oldest = self.order.pop_front();
            let Some(forgotten) = oldest.and_then(|oldest| self.members.remove(&oldest)) else {
                return;
            };
            self.bytes -= bytes_of(&forgotten);
        }
    }
}

fn bytes_of(members: &HashSet<String>) -> usize {
    members.iter().map(|name| name.len() + OVERHEAD).sum()
}

/// The base of a save.
struct Base {
    number: u64,
    row: Row,
}

/// A session that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// Its members.
    pub members: HashMap<String, Value>,
    /// What a save of these members presents.
    pub base: String,
    /// The rest of its time by the database's clock, in seconds. It may be infinite.
    pub ttl: f64,
}

impl Adapter {
    /// Creates an adapter on this store, with its table and realm.
    #[must_use]
    pub fn new(store: PgSessionStore) -> Self {
        Self {
            keyed: store.clone().for_cookie(AREA),
            store,
            user_path: Arc::default(),
            saves: Arc::default(),
        }
    }

    /// Sets where a document names its user: a member, a member of that one, and so on.
    /// Default: nowhere.
    #[must_use]
    pub fn user_path(self, path: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let path: Vec<_> = path.into_iter().map(Into::into).collect();
        Self {
            user_path: path.into(),
            ..self
        }
    }

    /// Returns the store that the adapter was created on.
    #[must_use]
    pub fn store(&self) -> &PgSessionStore {
        &self.store
    }

    /// Returns the public handle of the session with this key.
    #[must_use]
    pub fn handle(&self, key: &str) -> SessionId {
        self.store.format().handle(&self.row_id(key))
    }

    fn row_id(&self, key: &str) -> RowId {
        self.keyed.row_id(&Token::new(key))
    }

    /// Loads a live session.
    ///
    /// # Errors
    ///
    /// Those of the database, and if the row holds no JSON object.
    pub async fn load(&self, key: &str) -> Result<Option<Loaded>, Error> {
        self.check()?;
        // If the future is dropped here, the load is executed and its result is dropped.
        let rows = self.store.load_rows(&[self.row_id(key)]).await?;
        let Some(row) = rows.first().filter(|row| row.successor().is_none()) else {
            return Ok(None);
        };
        Ok(Some(Loaded {
            members: members_of(row)?,
            base: self.base_of(row),
            ttl: row.times.expires - row.times.now,
        }))
    }

    /// Inserts a session, and returns the base of its next save. `None` if the key exists.
    ///
    /// # Errors
    ///
    /// Those of the database, and if the members can't be stored.
    pub async fn create<'m>(
        &self,
        key: &str,
        members: impl IntoIterator<Item = (&'m String, &'m Value)>,
        ttl: Duration,
    ) -> Result<Option<String>, Error> {
        self.check()?;
        let document = Arc::new(document_of(members)?);
        let user = self.user_of(&document)?;
        let content = Content::from(Arc::clone(&document));
        let order = InsertRow {
            id: self.row_id(key),
            text: Arc::clone(&content.text),
            extent: extent(ttl),
        };
        // If the future is dropped here, the row is deleted after its insert.
        let written = self.store.insert_unsent(order, user).await?;
        Ok(written.map(|written: Written| {
            let times = Times {
                now: written.now,
                expires: written.expires,
                created: None,
                seen: None,
            };
            self.base_of(&Row::written(self.row_id(key), content, times))
        }))
    }

    /// Saves the members of a session and its time to live. Without a session, it does
    /// nothing.
    ///
    /// # Errors
    ///
    /// Those of the database, and if the members can't be stored.
    pub async fn save<'m>(
        &self,
        key: &str,
        members: impl IntoIterator<Item = (&'m String, &'m Value)>,
        base: Option<&str>,
        ttl: Duration,
    ) -> Result<(), Error> {
        self.check()?;
        let document = document_of(members)?;
        let user = self.user_of(&document)?;
        let id = self.row_id(key);
        let base = base.and_then(|base| parse_base(base, id.clone()));
        let changed = base.as_ref().map(|base| self.changed(base, &document));
        let outcome = match base.zip(changed) {
            Some((base, changed)) if !self.changes_user(&changed) => {
                self.merge(base.row, &changed, &document, ttl).await
            }
            based => {
                let changed = based.map(|(_, changed)| changed);
                let changes = changes(changed.as_ref(), &document);
                let change = UserChange::new(id, changes, user, extent(ttl));
                self.store.shared.batches.save_with_user(change).await
            }
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::Ended => Ok(()),
            outcome => outcome,
        }
    }

    /// Saves changes that don't change the user.
    async fn merge(
        &self,
        base: Row,
        changed: &HashSet<String>,
        document: &Document,
        ttl: Duration,
    ) -> Result<(), Error> {
        let timeouts = Arc::new(Timeouts {
            idle: Some(ttl),
            absolute: Absolute::Off,
            ..Timeouts::default()
        });
        let mut row = Arc::new(base);
        for _ in 0..MAX_TOUCHES {
            let record = Record {
                changes: changes(Some(changed), document),
                ..Record::default()
            };
            let id = row.id.clone();
            let timeouts = Arc::clone(&timeouts);
            // If the future is dropped here, the save is still executed.
            match self
                .store
                .save(row, record, timeouts, Touch::Always)
                .await?
            {
                // Another request moved the expiry since the load.
                Saved::Untouched(_) => {}
                Saved::Here(_) | Saved::Moved => break,
            }
            match self.store.load_rows(&[id]).await?.pop() {
                Some(newest) => row = newest,
                None => break,
            }
        }
        Ok(())
    }

    /// Deletes a session, and returns whether it was alive. The deletion is executed even if
    /// the future is dropped.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn destroy(&self, key: &str) -> Result<bool, Error> {
        self.check()?;
        let batches = &self.store.shared.batches;
        batches.destroy_only(&self.row_id(key)).await
    }

    /// # Errors
    ///
    /// If the store has a format whose rows another application reads, or an invalid realm.
    fn check(&self) -> Result<(), Error> {
        let format = self.store.format();
        if format.layout().own_key().is_some() {
            return Err(Error::new(
                ErrorKind::Setup,
                "a store with `koa` can't hold the sessions of another layer; use another table",
            ));
        }
        format.check_realm(self.store.own_realm())
    }

    /// The user that the document names, as it is stored.
    ///
    /// # Errors
    ///
    /// If the user's id can't be stored.
    fn user_of(&self, document: &Document) -> Result<Option<Arc<str>>, Error> {
        let Some(id) = self.named_user(document) else {
            return Ok(None);
        };
        let login = Login::new(id);
        login.check()?;
        let login = self.store.as_stored(login);
        Ok(Some(login.user_id().into()))
    }

    /// The members that the request has changed, in this save or in an earlier one. Those of
    /// a save that fails are among them, because it may be committed all the same.
    fn changed(&self, base: &Base, document: &Document) -> HashSet<String> {
        let before = base.row.document();
        let value = |key: &str| before.and_then(|before| before.get(key));
        let mut saves = self.saves();
        let mut changed = saves.members.get(&base.number).cloned().unwrap_or_default();
        let keys = before.into_iter().flat_map(|before| before.keys());
        let keys = keys.chain(document.keys());
        let differing = keys.filter(|key| value(key) != document.get(key));
        changed.extend(differing.map(str::to_owned));
        saves.remember(base.number, changed.clone());
        changed
    }

    fn saves(&self) -> MutexGuard<'_, Saves> {
        self.saves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the base, the row's times and its text: all that a save needs.
    fn base_of(&self, row: &Row) -> String {
        let number = self.saves().next_number();
        let (now, expires) = (row.times.now.to_bits(), row.times.expires.to_bits());
        let text = row.text.as_deref().unwrap_or_default();
        format!("{number:016x}{now:016x}{expires:016x}{text}")
    }

    /// Whether the member that names the user is among those that the request changed. If it
    /// is the same user, another request may have changed the user since.
    fn changes_user(&self, changed: &HashSet<String>) -> bool {
        let first = self.user_path.first();
        first.is_some_and(|first| changed.contains(&stored_key(first)))
    }

    /// Text, or an integer as text. No user has an empty id.
    fn named_user(&self, document: &Document) -> Option<String> {
        let (first, rest) = self.user_path.split_first()?;
        let member = document.get(&stored_key(first))?;
        let mut value: Value = serde_json::from_str(member.get()).ok()?;
        for key in rest {
            value = value.get_mut(key)?.take();
        }
        match value {
            Value::String(id) => Some(id).filter(|id| !id.is_empty()),
            Value::Number(id) if id.is_i64() || id.is_u64() => Some(id.to_string()),
            _ => None,
        }
    }
}

fn extent(ttl: Duration) -> Extent {
    let timeouts = Timeouts {
        idle: Some(ttl),
        absolute: Absolute::Off,
        ..Timeouts::default()
    };
    timeouts.extent(&Document::default().meta(), None)
}

/// The changes that give these members what the document has; `None` makes any document this
/// one.
fn changes(members: Option<&HashSet<String>>, document: &Document) -> Changes {
    let mut changes = Changes::within(LIMITS);
    match members {
        None => changes.record(Change::Clear),
        Some(members) => {
            let removed = members.iter().filter(|key| document.get(key).is_none());
            removed.for_each(|key| changes.record(Change::Remove(key.clone())));
        }
    }
    for (key, value) in document.members() {
        if members.is_none_or(|members| members.contains(key)) {
            changes.record(Change::Insert(key.to_owned(), value.clone()));
        }
    }
    changes
}

const LIMITS: Limits = Limits {
    size: usize::MAX,
    keys: None,
    depth: MAX_DEPTH,
};

/// # Errors
///
/// If a value is nested too deeply to be read again.
fn document_of<'m>(
    members: impl IntoIterator<Item = (&'m String, &'m Value)>,
) -> Result<Document, Error> {
    let mut members: Vec<_> = members.into_iter().collect();
    members.sort_unstable_by_key(|(key, _)| *key);
    let mut document = Document::default();
    for (key, value) in members {
        let json = Json::of(value).map_err(|source| {
            let message = format!("the value for {key:?} can't be written as JSON");
            Error::caused(ErrorKind::Serialize, message, source)
        })?;
        LIMITS.check_depth(key, &json)?;
        document.insert(&stored_key(key), json);
    }
    Ok(document)
}

/// # Errors
///
/// If the row holds no JSON object, or text that is not Unicode.
fn members_of(row: &Row) -> Result<HashMap<String, Value>, Error> {
    let text = row.text.as_deref().unwrap_or_default();
    let members: HashMap<String, Value> = serde_json::from_str(text).map_err(|source| {
        let message = "the row of this session no longer holds a JSON object";
        // The message of serde_json can quote the value.
        let place = format!(
            "{:?} error at column {}",
            source.classify(),
            source.column()
        );
        Error::caused(ErrorKind::Deserialize, message, place)
    })?;
    let members = members.into_iter().filter(|(key, _)| key != RESERVED);
    Ok(members
        .map(|(key, value)| (original_key(key), value))
        .collect())
}

/// The member `_session` of a row belongs to this crate. A key of that name, or of one that
/// this makes of it, gets another underscore.
fn stored_key(key: &str) -> String {
    match is_like_reserved(key) {
        true => format!("_{key}"),
        false => key.to_owned(),
    }
}

fn original_key(key: String) -> String {
    match is_like_reserved(&key) {
        true => key[1..].to_owned(),
        false => key,
    }
}

fn is_like_reserved(key: &str) -> bool {
    let reserved = RESERVED.trim_start_matches('_');
    key.starts_with('_') && key.trim_start_matches('_') == reserved
}

/// The digits of a number or a time in a base.
const DIGITS: usize = 16;

/// `None` if it is not what [`Adapter::base_of`] returned.
fn parse_base(base: &str, id: RowId) -> Option<Base> {
    let bits = |at: usize| {
        let digits = base.get(at * DIGITS..(at + 1) * DIGITS)?;
        u64::from_str_radix(digits, 16).ok()
    };
    let time = |at: usize| bits(at).map(f64::from_bits);
    let times = Times {
        now: time(1)?,
        expires: time(2)?,
        created: None,
        seen: None,
    };
    let text = base.get(3 * DIGITS..)?;
    let layout = Document::default().layout();
    let row = Row::new(id, Some(text.into()), times, layout);
    row.document()?;
    let number = bits(0)?;
    Some(Base { number, row })
}
