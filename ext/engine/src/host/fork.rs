//! The gate where a fork waits until no thread of ours is inside SQLite.
//!
//! A forked child has none of our threads, but every mutex as it was. One that a thread of ours held at that moment, be it of
//! SQLite's memory or of a list of ours, stays taken for ever, and the child hangs as soon as it opens a database of its own.
//!
//! Invariants
//! - Our threads are inside while they call SQLite, and every thread is while it holds a list of the process (`connections`, `drive::workers`).
//!   They are outside while they wait: for work, a channel, the sidecar's mutex, a pause. So nobody waits inside for somebody outside.
//! - In order: the sidecar's mutex, the gate, the lists.
//! - A fork waits for `PATIENCE` at most. Work that takes longer (a large table) lets it by with `pass`.
//!
//! Not here: threads of the application that are inside SQLite while another one forks; that is as without us.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a fork waits for a thread of ours that does not come out. Then it goes on as it would without the gate.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Gate {
    /// Threads inside.
    inside: usize,
    /// Forks under way: meanwhile nobody enters.
    forks: usize,
}

static GATE: Mutex<Gate> = Mutex::new(Gate { inside: 0, forks: 0 });

/// Notified when the last thread has left, and when the last fork is done.
static CHANGED: Condvar = Condvar::new();

/// Whether there are forks under way, to be asked often.
static FORKING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// How many `Inside` this thread has.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The gate, closed and held by the thread that forks.
    static HELD: RefCell<Option<MutexGuard<'static, Gate>>> = const { RefCell::new(None) };
}

fn gate() -> MutexGuard<'static, Gate> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This thread is inside until dropped.
pub struct Inside(PhantomData<*const ()>);

/// Enters; may be nested.
pub fn enter() -> Inside {
    if DEPTH.get() == 0 {
        go_in();
    }
    DEPTH.set(DEPTH.get() + 1);
    Inside(PhantomData)
}

/// Does something inside.
pub fn inside<T>(work: impl FnOnce() -> T) -> T {
    let _inside = enter();
    work()
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() == 0 {
            go_out();
        }
    }
}

fn go_in() {
    let mut gate = CHANGED.wait_while(gate(), |gate| gate.forks > 0).unwrap_or_else(PoisonError::into_inner);
    gate.inside += 1;
}

fn go_out() {
    let mut gate = gate();
    gate.inside -= 1;
    if gate.inside == 0 {
        CHANGED.notify_all();
    }
}

/// Waits for something outside, wherever this thread is.
pub fn outside<T>(wait: impl FnOnce() -> T) -> T {
    struct Back(usize);
    impl Drop for Back {
        fn drop(&mut self) {
            if self.0 > 0 {
                go_in();
                DEPTH.set(self.0);
            }
        }
    }
    let back = Back(DEPTH.replace(0));
    if back.0 > 0 {
        go_out();
    }
    wait()
}

/// Lets a fork by that waits. The thread is not in a call of SQLite.
pub fn pass() {
    if FORKING.load(Ordering::Relaxed) {
        outside(|| ());
    }
}

/// Before a fork, in the thread that forks: closes the gate.
pub fn prepare() {
    let deadline = Instant::now() + PATIENCE;
    let mut gate = gate();
    gate.forks += 1;
    FORKING.store(true, Ordering::Relaxed);
    while gate.inside > 0 {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
        gate = CHANGED.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    // A thread that is at its end already has no such place; the fork is then as without the gate.
    let _ = HELD.try_with(|held| held.replace(Some(gate)));
}

/// After it, in the parent: everything goes on.
pub fn in_parent() {
    release(|gate| gate.forks -= 1);
    CHANGED.notify_all();
}

/// After it, in the child, which has this thread only.
pub fn in_child() {
    release(|gate| *gate = Gate::default());
}

fn release(change: impl FnOnce(&mut Gate)) {
    let mut gate = HELD.try_with(RefCell::take).ok().flatten().unwrap_or_else(gate);
    change(&mut gate);
    FORKING.store(gate.forks > 0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_fork_waits_for_those_inside_and_keeps_others_out() {
        let (entered, is_in) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel();
        let first = std::thread::spawn(move || {
            let _outer = enter();
            let _inner = enter();
            entered.send(()).unwrap();
            outside(|| may_leave.recv().unwrap());
            assert_eq!(DEPTH.get(), 2);
        });
        is_in.recv().unwrap();
        // It waits outside, so nothing keeps the fork.
        prepare();
        assert_eq!(HELD.with_borrow(|held| held.as_ref().map(|gate| (gate.inside, gate.forks))), Some((0, 1)));
        leave.send(()).unwrap();
        let second = std::thread::spawn(|| drop(enter()));
        in_parent();
        first.join().unwrap();
        second.join().unwrap();
        let now = gate();
        assert_eq!((now.inside, now.forks), (0, 0));
    }
}
