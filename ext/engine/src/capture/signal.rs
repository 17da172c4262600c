//! The signal: what the observers of all connections to one database tell its publisher, and how they wake it.
//!
//! Invariants
//! - Nothing here waits but the publisher: atomics, and mutexes that are held for a moment.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use super::doubts::Doubts;
use super::ledger::Ledger;

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
    pub(super) captured: Mutex<Arc<Vec<String>>>,
    pub(super) epoch: AtomicU64,
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
    pub(super) fn add_doubts(&self, more: Doubts) {
        if more.is_empty() {
            return;
        }
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).add(more);
        self.has_doubts.store(true, Ordering::Release);
    }
}
