//! What must hold whatever the reference says, told from the table and from
//! what jars and handlers got alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value;

use crate::{reference::Seen, world::TableRow};

/// What was ever in a row.
#[derive(Clone, Debug, Default)]
struct History {
    tags: BTreeSet<String>,
    users: BTreeSet<String>,
}

/// What a request may know.
#[derive(Clone, Debug, Default)]
struct Access {
    rows: HashSet<String>,
    own_tags: BTreeSet<String>,
    own_users: BTreeSet<String>,
}

/// Which sessions each request legitimately held, and what they held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Invariants {
    rows: HashMap<String, History>,
    /// Rows that were in the table once.
    known: HashSet<String>,
    /// Rows that live, by the last look.
    live: HashSet<String>,
    /// Rows that were deleted, or hold no session any more.
    over: HashSet<String>,
    requests: BTreeMap<u8, Access>,
    /// Rows whose token a response carried, also one that was lost.
    reachable: HashSet<String>,
    /// Rows of requests that never got a response.
    excused: HashSet<String>,
}

/// The tags in a value.
fn tags(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text
            .split('+')
            .filter(|tag| tag.starts_with('t'))
            .map(str::to_owned)
            .collect(),
        // A float has its tag before the point.
        Value::Number(number) => {
            let digits = number.to_string();
            let whole = digits.split('.').next().unwrap_or_default();
            vec![format!("t{whole}")]
        }
        _ => Vec::new(),
    }
}

impl Invariants {
    pub(crate) fn start(&mut self, request: u8, ids: &[String]) {
        let opened = ids.iter().filter(|id| self.live.contains(*id)).cloned();
        let access = Access {
            rows: opened.collect(),
            ..Access::default()
        };
        self.requests.insert(request, access);
    }

    pub(crate) fn writes(&mut self, request: u8, tag: u64) {
        let access = self.requests.entry(request).or_default();
        access.own_tags.insert(format!("t{tag}"));
    }

    pub(crate) fn logs_in(&mut self, request: u8, user: &str) {
        let access = self.requests.entry(request).or_default();
        access.own_users.insert(user.to_owned());
    }

    /// What a handler saw must be of a session that its request held.
    pub(crate) fn saw(&self, request: u8, seen: &Seen) -> Result<(), String> {
        let Some(access) = self.requests.get(&request) else {
            return Ok(());
        };
        let seen_tags: Vec<String> = match seen {
            Seen::Value(value) => value.iter().flat_map(tags).collect(),
            Seen::Shape(values) => values
                .iter()
                .flatten()
                .flat_map(|text| tags(&Value::from(text.as_str())))
                .collect(),
            _ => Vec::new(),
        };
        for tag in seen_tags {
            let is_known = access.own_tags.contains(&tag)
                || access
                    .rows
                    .iter()
                    .filter_map(|row| self.rows.get(row))
                    .any(|row| row.tags.contains(&tag));
            if !is_known {
                return Err(format!(
                    "request {request} saw {tag}, of a session that it never held"
                ));
            }
        }
        if let Seen::User(Some(user)) = seen {
            let is_known = access.own_users.contains(user)
                || access
                    .rows
                    .iter()
                    .filter_map(|row| self.rows.get(row))
                    .any(|row| row.users.contains(user));
            if !is_known {
                return Err(format!(
                    "request {request} saw the user {user} of a session that it never held"
                ));
            }
        }
        Ok(())
    }

    /// What is in the table now. New rows are of one of these requests.
    pub(crate) fn look(&mut self, rows: &[TableRow], by: &[u8]) -> Result<(), String> {
        // What they wrote may be gone again, and others of the session saw it.
        for request in by {
            let Some(access) = self.requests.get(request) else {
                continue;
            };
            for row in &access.rows {
                let history = self.rows.entry(row.clone()).or_default();
                history.tags.extend(access.own_tags.iter().cloned());
                history.users.extend(access.own_users.iter().cloned());
            }
        }
        let mut live = HashSet::new();
        for row in rows {
            let is_session = row.is_live && row.successor.is_none();
            let is_known = self.known.contains(&row.id);
            if is_session && self.over.contains(&row.id) {
                return Err("a session that had ended is there again".into());
            }
            if is_session {
                live.insert(row.id.clone());
            }
            let history = self.rows.entry(row.id.clone()).or_default();
            history.tags.extend(row.values.values().flat_map(tags));
            history.users.extend(row.user.clone());
            if !is_known {
                self.known.insert(row.id.clone());
                for request in by {
                    let access = self.requests.entry(*request).or_default();
                    access.rows.insert(row.id.clone());
                }
            }
        }
        for gone in self.live.difference(&live) {
            self.over.insert(gone.clone());
        }
        self.live = live;
        Ok(())
    }

    /// A response carries this token.
    pub(crate) fn sent(&mut self, request: u8, id: &str) -> Result<(), String> {
        self.reachable.insert(id.to_owned());
        let access = self.requests.get(&request);
        if access.is_some_and(|access| access.rows.contains(id)) {
            return Ok(());
        }
        match self.live.contains(id) {
            true => Err(format!(
                "request {request} was given the token of a session that it never held"
            )),
            false => Ok(()),
        }
    }

    /// The request never got a response, so no client has the token of what it
    /// began.
    pub(crate) fn without_response(&mut self, request: u8) {
        let access = self.requests.entry(request).or_default();
        self.excused.extend(access.rows.iter().cloned());
    }

    pub(crate) fn at_the_end(&self) -> Result<(), String> {
        let lost = self
            .live
            .iter()
            .find(|id| !self.reachable.contains(*id) && !self.excused.contains(*id));
        match lost {
            Some(_) => Err("a session lives whose token nobody was ever sent".into()),
            None => Ok(()),
        }
    }
}
