//! What the three hooks of the application's connections (`hosthooks`) see: latency and accounting, never correctness.
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

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use rusqlite::ffi;

use super::api::Commits;
use super::stamps::Ledger;

/// Doubts remembered for one table before it is simply sent whole.
const DOUBTS_MAX: usize = 10_000;

/// Inserts of one transaction that wait for their log row; a transaction nests triggers at most 1000 deep.
const WAITING_MAX: usize = 4_096;

/// Rows that were written and may not be in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// These rowids.
    Rows(Vec<i64>),
    /// These rowids were inserted by a transaction that logged nothing: triggers are switched off on its connection, and
    /// if it replaced rows, nobody knows which.
    Bare(Vec<i64>),
    /// Too many to name, or rows that are gone and whose key nobody knows.
    Whole,
}

impl Doubt {
    /// Takes another doubt about the same table in.
    fn merge(&mut self, other: Doubt) {
        use Doubt::{Bare, Rows, Whole};
        let bare = matches!((&*self, &other), (Bare(_), _) | (_, Bare(_)));
        *self = match (std::mem::replace(self, Whole), other) {
            (Rows(mut rows) | Bare(mut rows), Rows(more) | Bare(more)) if rows.len() + more.len() <= DOUBTS_MAX => {
                rows.extend(more);
                if bare {
                    Bare(rows)
                } else {
                    Rows(rows)
                }
            }
            _ => Whole,
        };
    }
}

/// Doubts that the next message must settle.
///
/// A hook tells of a doubt before the commit that it is about can be seen by anybody. So each is settled by the message of the next
/// snapshot, and again by later ones until one is known to show that commit.
#[derive(Debug, Default)]
pub struct Doubts {
    tables: HashMap<String, Doubt>,
    /// Rows that are sent along, each with a row of the log that was written in the same transaction.
    guessed: Vec<(String, i64, i64)>,
    /// A connection has committed with triggers switched off. SQLite tells hooks nothing of rows without a rowid, nor of rows deleted
    /// all at once, so that anything may have been written.
    silent: Option<Silent>,
    /// The count before the last of the commits that they are about; `None`: not known.
    after: Option<Commits>,
    /// Whether they were in a message already.
    once_more: bool,
    everything: bool,
}

/// A commit of which only that much is known.
#[derive(Debug, Clone, Copy)]
struct Silent {
    /// The count before it.
    after: Option<Commits>,
    /// Whether a snapshot was taken since.
    looked: bool,
}

impl Doubts {
    /// Takes in what the hooks have told since.
    pub fn add(&mut self, more: Self) {
        self.guessed.extend(more.guessed);
        self.guessed.truncate(DOUBTS_MAX);
        self.silent = more.silent.or(self.silent);
        if more.tables.is_empty() {
            return;
        }
        (self.after, self.once_more) = (more.after, false);
        for (table, doubt) in more.tables {
            self.doubt(table, doubt);
        }
    }

    fn doubt(&mut self, table: String, doubt: Doubt) {
        self.tables.entry(table).or_insert_with(|| Doubt::Rows(Vec::new())).merge(doubt);
    }

    /// Doubts every table, as far as the next message goes.
    pub fn doubt_everything(&mut self) {
        self.everything = true;
    }

    /// Whether every table is doubted.
    pub fn everything(&self) -> bool {
        self.everything
    }

    /// What is doubted of a table of these names.
    pub fn of(&self, names: &[&str]) -> Option<Doubt> {
        let mut doubts = names.iter().filter_map(|name| self.tables.get(*name)).cloned();
        let mut doubt = doubts.next()?;
        doubts.for_each(|more| doubt.merge(more));
        Some(doubt)
    }

    /// Whether a snapshot shows a commit that was made with triggers switched off, for the first time.
    pub fn shows_silent(&mut self, snapshot: Option<Commits>) -> bool {
        let Some(silent) = &mut self.silent else { return false };
        let shown = match silent.after.zip(snapshot) {
            Some((before, now)) => now != before,
            None => std::mem::replace(&mut silent.looked, true),
        };
        if shown {
            self.silent = None;
        }
        shown
    }

    /// Rows of a table of these names that are sent along, if the log ends with this row.
    pub fn guessed(&self, names: &[&str], last: i64) -> Vec<i64> {
        let rows = self.guessed.iter().filter(|(of, _, seq)| names.contains(&of.as_str()) && *seq <= last);
        rows.map(|(_, rowid, _)| *rowid).collect()
    }

    /// The tables that a hook saw written past the log.
    pub fn tables(&self) -> impl Iterator<Item = &String> {
        self.tables.keys()
    }

    /// A message has settled them, as far as its snapshot shows the commits that they are about. `last`: the last row of its log.
    pub fn covered(&mut self, snapshot: Option<Commits>, last: i64) {
        self.everything = false;
        self.guessed.retain(|(_, _, seq)| *seq > last);
        let landed = match self.after.zip(snapshot) {
            // Where it is less, counting began anew, and that is later too.
            Some((before, now)) => now.wal == before.wal && now.count != before.count,
            None => self.once_more,
        };
        if landed {
            self.tables.clear();
        }
        self.once_more = !self.tables.is_empty();
    }
}

/// What the hooks of all connections to one database tell its publisher.
#[derive(Debug, Default)]
pub struct Signal {
    /// Highest log seq of a commit that was seen coming.
    pub seq: AtomicI64,
    /// Commits seen.
    pub commits: AtomicU64,
    /// Connections whose hooks could not be taken.
    pub untaken: AtomicU64,
    /// What commits wrote besides captured tables.
    ledger: Mutex<Ledger>,
    doubts: Mutex<Doubts>,
    has_doubts: AtomicBool,
    dirty: AtomicBool,
    idle: AtomicBool,
    thread: Mutex<Option<Thread>>,
    captured: Mutex<Arc<Vec<String>>>,
    epoch: AtomicU64,
    /// See `connected`.
    opened_late: Mutex<Arc<Vec<String>>>,
}

impl Signal {
    /// Tells the publisher of a commit. It is woken only if it waits for one; while commits gather, this is one store.
    pub fn notify(&self) {
        // Sequentially consistent, as in `wait`: of the two, one sees what the other has just stored.
        self.dirty.store(true, Ordering::SeqCst);
        if self.idle.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Wakes the publisher whatever it waits for, if there is one.
    pub fn wake(&self) {
        self.dirty.store(true, Ordering::SeqCst);
        // Held for the copying of a handle only, by whoever wakes or attaches.
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).clone();
        thread.iter().for_each(Thread::unpark);
    }

    /// Makes the calling thread the one that `wake` wakes.
    pub fn attach(&self) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
    }

    /// Waits to be woken, at most for `timeout`; by commits only if `commits` says so.
    pub fn wait(&self, timeout: std::time::Duration, commits: bool) {
        self.idle.store(commits, Ordering::SeqCst);
        if !(commits && self.dirty.load(Ordering::SeqCst)) {
            std::thread::park_timeout(timeout);
        }
        self.idle.store(false, Ordering::SeqCst);
        self.dirty.store(false, Ordering::SeqCst);
    }

    /// Tells the hooks which tables are under capture.
    pub fn set_captured(&self, tables: Vec<String>) {
        *self.captured.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tables);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Tells later connections which virtual tables to open at once (`connected`).
    pub fn set_opened_late(&self, tables: Vec<String>) {
        *self.opened_late.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tables);
    }

    /// Those virtual tables.
    pub fn opened_late(&self) -> Arc<Vec<String>> {
        self.opened_late.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ledger; held for the noting of a commit or one question.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are doubts.
    pub fn has_doubts(&self) -> bool {
        self.has_doubts.load(Ordering::Acquire)
    }

    /// Takes the doubts collected so far.
    pub fn take_doubts(&self) -> Doubts {
        if !self.has_doubts.swap(false, Ordering::AcqRel) {
            return Doubts::default();
        }
        std::mem::take(&mut *self.doubts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds doubts.
    fn add_doubts(&self, more: Doubts) {
        if more.tables.is_empty() && more.guessed.is_empty() && more.silent.is_none() {
            return;
        }
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).add(more);
        self.has_doubts.store(true, Ordering::Release);
    }
}

/// How the update hook treats a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Log,
    Captured,
    Other,
}

/// State of one connection's hooks. Used only by SQLite's callbacks on that connection, one at a time.
pub struct Context {
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

impl Context {
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

    /// A row was written. `may_have_temp_triggers`: asked about the connection only where it matters.
    pub(super) fn row(&mut self, op: c_int, table: &[u8], rowid: i64, may_have_temp_triggers: impl FnOnce() -> bool) {
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

    /// A row of another database was written.
    pub(super) fn row_of(&mut self, database: &[u8]) {
        self.transaction.elsewhere |= database != b"temp";
    }

    /// The transaction is about to be committed. `commits`: the count of commits before it, if all rows that it wrote were shown to us.
    /// `may_be_silent`: whether triggers are switched off on the connection, or may have been if (given true) rows came without log rows.
    pub(super) fn commit(&mut self, commits: Option<Commits>, may_be_silent: impl FnOnce(bool) -> bool) {
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

    /// The transaction has ended without a commit.
    pub(super) fn rollback(&mut self) {
        self.transaction = Seen::default();
        // The commit may have failed.
        if let Some(commit) = self.noted.take() {
            self.signal.ledger().withdraw(commit);
        }
    }

    /// Tells this signal from now on.
    pub(super) fn listen_to(&mut self, signal: &Arc<Signal>) {
        if !Arc::ptr_eq(&self.signal, signal) {
            *self = Self::new(signal.clone());
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
    use super::*;

    const INSERT: c_int = ffi::SQLITE_INSERT;
    const UPDATE: c_int = ffi::SQLITE_UPDATE;
    const DELETE: c_int = ffi::SQLITE_DELETE;

    fn doubts(events: &[(c_int, &str, i64)]) -> HashMap<String, Doubt> {
        let signal = Arc::new(Signal::default());
        signal.set_captured(vec!["t".into(), "u".into()]);
        let mut context = Context::new(signal.clone());
        events.iter().for_each(|(op, table, rowid)| context.row(*op, table.as_bytes(), *rowid, || false));
        context.commit(None, |_| false);
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
        let mut context = Context::new(signal.clone());
        context.row(INSERT, b"t", 1, || false);
        context.row(INSERT, b"other", 1, || false);
        signal.set_captured(vec!["t".into()]);
        context.commit(None, |_| false);
        assert_eq!(signal.take_doubts().tables, HashMap::from([("t".to_string(), Doubt::Whole)]));
    }

    #[test]
    fn a_rolled_back_transaction_is_forgotten() {
        let signal = Arc::new(Signal::default());
        signal.set_captured(vec!["t".into()]);
        let mut context = Context::new(signal.clone());
        context.row(INSERT, b"t", 1, || false);
        context.transaction = Seen::default();
        context.commit(None, |_| false);
        assert_eq!(signal.take_doubts().tables, HashMap::new());
        assert_eq!(signal.commits.load(Ordering::Relaxed), 1);
    }
}
