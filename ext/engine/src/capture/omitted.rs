//! What a primary leaves out for now: tables that cannot be described, put under capture, or read.
//!
//! One such table (a text that is not UTF-8, a loop of generated columns, a module that is not there) must not keep the others
//! from being published. It is left out of the schema that the channel is told, with its indexes and triggers, so replicas drop
//! it; and when it works again, it is a new table there and comes whole.
//!
//! Invariants
//! - What is left out is named in the status with the reason.
//! - It is tried again when the schema changed, and at least about every half minute: what it lacks may come from elsewhere.
//!
//! Not here: what a replica leaves out (`left_out`), which virtual tables are never replicated (`virtuals`).

use std::time::Duration;

use crate::catalog::schema::Object;

/// How soon what is left out is tried again, at least; and how many times the time it takes lie between two attempts.
const AGAIN: Duration = Duration::from_secs(25);
const AGAIN_FACTOR: u32 = 20;

/// What is left out.
#[derive(Debug, Default)]
pub struct Omitted {
    /// What the last survey found, by kind and name.
    found: Vec<Omission>,
    /// Tables that were met since, at this schema cookie.
    met: Vec<(Omission, i64)>,
    /// What else is to be said of a table.
    notes: Vec<String>,
    /// When to try again.
    next: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Omission {
    kind: String,
    name: String,
    reason: String,
}

impl Omitted {
    /// Before a survey at a schema cookie: what was found by the last one is looked at anew.
    pub fn begin(&mut self, cookie: i64) {
        self.found.clear();
        self.notes.clear();
        self.met.retain(|(_, at)| *at == cookie);
    }

    /// A survey found an object that cannot be described.
    pub fn find(&mut self, kind: &str, name: &str, reason: String) {
        self.found.push(Omission { kind: kind.into(), name: name.into(), reason });
    }

    /// A survey has something to say of a table that is replicated all the same.
    pub fn note(&mut self, sentence: String) {
        self.notes.push(sentence);
    }

    /// A table could not be put under capture or read.
    pub fn meet(&mut self, table: &str, reason: String, cookie: i64) {
        self.met.retain(|(o, _)| o.name != table);
        self.met.push((Omission { kind: "table".into(), name: table.into(), reason }, cookie));
    }

    /// Whether an object belongs to what is left out.
    pub fn covers(&self, object: &Object) -> bool {
        let mut all = self.found.iter().chain(self.met.iter().map(|(o, _)| o));
        all.any(|o| {
            (o.kind == object.kind && o.name == object.name) || (o.kind == "table" && same(&o.name, &object.table))
        })
    }

    /// Whether it is time to try again; somewhat after it was first asked.
    pub fn is_due(&mut self, now: Duration) -> bool {
        let any = !(self.found.is_empty() && self.met.is_empty());
        any && *self.next.get_or_insert(now + AGAIN) <= now
    }

    /// Tries everything again from now on.
    pub fn try_again(&mut self) {
        self.met.clear();
        self.next = None;
    }

    /// How long an attempt took: a large table is not read again and again for nothing.
    pub fn took(&mut self, now: Duration, time: Duration) {
        let rest = AGAIN.max(time * AGAIN_FACTOR);
        self.next = Some(now + rest);
    }

    /// Sentences for the status.
    pub fn warnings(&self) -> Vec<String> {
        let all = self.found.iter().chain(self.met.iter().map(|(o, _)| o));
        all.map(|o| format!("{} {} is left out: {}; it is tried again by itself", o.kind, o.name, o.reason))
            .chain(self.notes.clone())
            .collect()
    }
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}
