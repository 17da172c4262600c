//! What the three hooks of the application's connections (`host::hooks`) see: latency and accounting, never correctness.
//!
//! - The update hook sees every row written, in true order. A row of `_logos_log` is a captured change: it remembers the
//!   highest seq and counts. A row of a captured table whose log row does not come (the application's trigger cut ours off
//!   with RAISE, or triggers are switched off) becomes a doubt: table and rowid, to be logged later. A TEMP trigger comes before ours,
//!   and where it ends a statement, a log row that it caused looks like the one that is missing; so what a connection with
//!   anything temporary writes is *guessed* to be missing: sent along with the message that its log rows are in.
//! - The commit hook seals what was seen: it hands seq, counts and doubts to the publisher and wakes it. It runs no SQL,
//!   and the commit is not done yet when it runs; the publisher looks again until a snapshot shows it.
//! - The rollback hook forgets what was seen.
//!
//! Invariants
//! - Nothing here waits: atomics, and mutexes that are held for a moment. A panic never leaves a hook.
//!
//! Doubts are a net for rare cases and may name rows needlessly; a key too many is harmless (DESIGN I2).

use std::ffi::c_int;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rusqlite::ffi;

use super::doubts::{Doubt, Doubts, Silent, DOUBTS_MAX};
use super::signal::Signal;
use crate::host::api::Commits;
use crate::host::hooks::Observer;

/// Inserts of one transaction that wait for their log row; a transaction nests triggers at most 1000 deep.
const WAITING_MAX: usize = 4_096;

/// How the update hook treats a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Log,
    Captured,
    Other,
}

/// State of one connection's hooks. Used only by SQLite's callbacks on that connection, one at a time.
pub struct TransactionObserver {
    signal: Arc<Signal>,
    epoch: u64,
    captured: Arc<Vec<String>>,
    last_table: Vec<u8>,
    last_class: Class,
    transaction: Seen,
    /// The commit that was last noted in the ledger, while it may still fail.
    noted: Option<u32>,
}

/// Tables without capture that are named of one transaction before the ledger is told nothing of it.
const OTHERS_MAX: usize = 256;

/// What one transaction has done so far.
#[derive(Default)]
struct Seen {
    seq: i64,
    rows: u64,
    /// Inserts whose log row (written AFTER) has not come. Triggers nest, so the newest is served first.
    waiting: Vec<(String, i64)>,
    /// What the last event took from `waiting`, if it was a log row.
    served: Option<Option<(String, i64)>>,
    /// Log rows that no UPDATE or DELETE has been counted against.
    unclaimed: u64,
    doubts: Doubts,
    /// Rows of captured tables that a TEMP trigger may have kept from the log.
    guessed: Vec<(String, i64)>,
    /// Whether rows of the main database were written: then its count of commits will move.
    any: bool,
    /// Tables without capture that were written to.
    others: Vec<Vec<u8>>,
    /// Whether something else was written, under a name that we do not know.
    elsewhere: bool,
}

impl TransactionObserver {
    /// The hook state of a new connection.
    pub fn new(signal: Arc<Signal>) -> Self {
        Self {
            signal,
            epoch: u64::MAX,
            captured: Arc::new(Vec::new()),
            last_table: Vec::new(),
            last_class: Class::Other,
            transaction: Seen::default(),
            noted: None,
        }
    }

    /// Looks which tables are under capture, if that has changed; returns whether it has.
    fn refresh(&mut self) -> bool {
        let epoch = self.signal.epoch.load(Ordering::Acquire);
        let changed = epoch != self.epoch;
        if changed {
            self.epoch = epoch;
            self.captured = self.signal.captured.lock().unwrap_or_else(PoisonError::into_inner).clone();
        }
        changed
    }

    fn is_captured(&self, table: &[u8]) -> bool {
        self.captured.iter().any(|name| name.as_bytes() == table)
    }

    fn classify(&mut self, table: &[u8]) -> Class {
        if !self.refresh() && table == self.last_table {
            return self.last_class;
        }
        self.last_class = if table == b"_logos_log" {
            Class::Log
        } else if self.is_captured(table) {
            Class::Captured
        } else {
            Class::Other
        };
        self.last_table.clear();
        self.last_table.extend_from_slice(table);
        self.last_class
    }
}

impl Observer for TransactionObserver {
    fn row(&mut self, op: c_int, table: &[u8], rowid: i64, may_have_temp_triggers: &dyn Fn() -> bool) {
        let class = self.classify(table);
        let seen = &mut self.transaction;
        (seen.any, self.noted) = (true, None);
        let stays = class == Class::Captured && op != ffi::SQLITE_DELETE;
        if stays && seen.guessed.len() < DOUBTS_MAX && may_have_temp_triggers() {
            seen.guessed.push((String::from_utf8_lossy(table).into_owned(), rowid));
        }
        match class {
            Class::Log if op == ffi::SQLITE_INSERT => {
                seen.seq = seen.seq.max(rowid);
                seen.rows += 1;
                seen.unclaimed += 1;
                seen.served = Some(seen.waiting.pop());
            }
            Class::Captured if op == ffi::SQLITE_INSERT => {
                seen.served = None;
                if seen.waiting.len() >= WAITING_MAX {
                    seen.doubt(table, Doubt::Whole);
                } else {
                    seen.waiting.push((String::from_utf8_lossy(table).into_owned(), rowid));
                }
            }
            Class::Captured => {
                // The log row just before was this row's own, written BEFORE: what it took was not meant.
                seen.waiting.extend(seen.served.take().flatten());
                match seen.unclaimed.checked_sub(1) {
                    Some(left) => seen.unclaimed = left,
                    // No log row at all: triggers are switched off on this connection. The key that the row had is not known.
                    None => seen.doubt(table, Doubt::Whole),
                }
            }
            Class::Other if seen.others.len() > OTHERS_MAX => seen.elsewhere = true,
            Class::Other if !seen.others.iter().any(|other| other == table) => seen.others.push(table.to_vec()),
            Class::Log | Class::Other => {}
        }
    }

    fn row_of_other(&mut self, database: &[u8]) {
        self.transaction.elsewhere |= database != b"temp";
    }

    fn commit(&mut self, commits: Option<Commits>, may_be_silent: &dyn Fn(bool) -> bool) {
        let mut seen = std::mem::take(&mut self.transaction);
        // A table that came under capture meanwhile: its rows were not told from others, and the snapshot that has it whole may be older.
        self.refresh();
        for table in seen.others.clone().iter().filter(|table| self.is_captured(table)) {
            seen.doubt(table, Doubt::Whole);
        }
        let bare = !(seen.waiting.is_empty() && seen.doubts.tables.is_empty());
        if seen.rows == 0 && may_be_silent(bare) {
            seen.doubts.silent = Some(Silent { after: commits, looked: false });
        }
        if let Some(before) = commits.filter(|_| seen.any && !seen.elsewhere) {
            let commit = before.count.wrapping_add(1);
            let others = seen.others.iter().map(|table| String::from_utf8_lossy(table).to_ascii_lowercase());
            self.signal.ledger().note(commit, others);
            self.noted = Some(commit);
        }
        let doubt = if seen.rows == 0 { Doubt::Bare } else { Doubt::Rows };
        for (table, rowid) in std::mem::take(&mut seen.waiting) {
            seen.doubt(table.as_bytes(), doubt(vec![rowid]));
        }
        if !seen.doubts.tables.is_empty() {
            seen.doubts.after = commits;
        }
        if seen.rows > 0 {
            seen.doubts.guessed.extend(seen.guessed.into_iter().map(|(table, rowid)| (table, rowid, seen.seq)));
        }
        self.signal.seq.fetch_max(seen.seq, Ordering::AcqRel);
        self.signal.commits.fetch_add(1, Ordering::Relaxed);
        self.signal.add_doubts(seen.doubts);
        self.signal.notify();
    }

    fn rollback(&mut self) {
        self.transaction = Seen::default();
        // The commit may have failed.
        if let Some(commit) = self.noted.take() {
            self.signal.ledger().withdraw(commit);
        }
    }
}

impl Seen {
    fn doubt(&mut self, table: &[u8], doubt: Doubt) {
        self.doubts.doubt(String::from_utf8_lossy(table).into_owned(), doubt);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const INSERT: c_int = ffi::SQLITE_INSERT;
    const UPDATE: c_int = ffi::SQLITE_UPDATE;
    const DELETE: c_int = ffi::SQLITE_DELETE;

    fn doubts(events: &[(c_int, &str, i64)]) -> HashMap<String, Doubt> {
        let signal = Arc::new(Signal::default());
        signal.set_captured(vec!["t".into(), "u".into()]);
        let mut context = TransactionObserver::new(signal.clone());
        events.iter().for_each(|(op, table, rowid)| context.row(*op, table.as_bytes(), *rowid, &|| false));
        context.commit(None, &|_| false);
        signal.take_doubts().tables
    }

    #[test]
    fn rows_whose_log_row_came_leave_no_doubt() {
        let log = |seq| (INSERT, "_logos_log", seq);
        let events = [
            (INSERT, "t", 1),
            log(1), // AFTER INSERT
            log(2),
            (UPDATE, "t", 1), // BEFORE UPDATE
            log(3),
            (DELETE, "t", 1), // BEFORE DELETE
            (INSERT, "t", 2),
            log(4),
            (UPDATE, "u", 9),
            log(5), // a trigger of t updates u before ours logs t
            (INSERT, "t", 3),
            (INSERT, "u", 4),
            log(6),
            log(7), // nested inserts
            (INSERT, "other", 1),
        ];
        assert_eq!(doubts(&events), HashMap::new());
    }

    #[test]
    fn a_row_without_its_log_row_is_doubted() {
        let events = [(INSERT, "t", 1), (INSERT, "t", 2), (INSERT, "_logos_log", 1)];
        assert_eq!(doubts(&events), HashMap::from([("t".to_string(), Doubt::Rows(vec![1]))]));
        assert_eq!(doubts(&[(INSERT, "t", 7)]), HashMap::from([("t".to_string(), Doubt::Bare(vec![7]))]));
        assert_eq!(doubts(&[(UPDATE, "t", 7)]), HashMap::from([("t".to_string(), Doubt::Whole)]));
        assert_eq!(doubts(&[(DELETE, "t", 7)]), HashMap::from([("t".to_string(), Doubt::Whole)]));
    }

    #[test]
    fn a_table_that_comes_under_capture_during_a_transaction_is_doubted() {
        let signal = Arc::new(Signal::default());
        let mut context = TransactionObserver::new(signal.clone());
        context.row(INSERT, b"t", 1, &|| false);
        context.row(INSERT, b"other", 1, &|| false);
        signal.set_captured(vec!["t".into()]);
        context.commit(None, &|_| false);
        assert_eq!(signal.take_doubts().tables, HashMap::from([("t".to_string(), Doubt::Whole)]));
    }

    #[test]
    fn a_rolled_back_transaction_is_forgotten() {
        let signal = Arc::new(Signal::default());
        signal.set_captured(vec!["t".into()]);
        let mut context = TransactionObserver::new(signal.clone());
        context.row(INSERT, b"t", 1, &|| false);
        context.transaction = Seen::default();
        context.commit(None, &|_| false);
        assert_eq!(signal.take_doubts().tables, HashMap::new());
        assert_eq!(signal.commits.load(Ordering::Relaxed), 1);
    }
}
