//! Taking the hooks of an application's connection so that it does not show.
//!
//! SQLite has one place a connection for each hook. Whoever sets one displaces the former and gets back its argument, and there are
//! applications (apsw) for which an argument that is not their own is an error.
//!
//! Invariants
//! - A hook that was there is kept: ours calls it with its own argument and gives its answer on.
//! - What we set passes on the argument that was there (NULL where there was no hook), so that whoever sets a hook later gets back
//!   what it would have got without us. Which connection a hook is for, the function itself knows: there are `SLOTS` of each.
//! - A hook that the application sets later replaces ours, and commits are found by polling; the next call of ours on that
//!   connection takes the hook again, with the application's behind it.
//!
//! SQLite tells only the argument of a hook, and NULL is one that hooks have. So the function is read out of the connection itself,
//! from where `measure` has found it in a connection of our own of the same library. Where it finds nothing, no hook is taken.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::mem::size_of;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::OnceLock;

use rusqlite::ffi;

use super::api::{Commits, Host};
use super::connection;

/// Connections of a process that can have hooks of ours; the commits of others are found by polling.
const SLOTS: usize = 64;

type Update = unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *const c_char, ffi::sqlite3_int64);
type Commit = unsafe extern "C" fn(*mut c_void) -> c_int;
type Rollback = unsafe extern "C" fn(*mut c_void);

/// Is told what the hooks of one connection see, one call at a time. Nothing here may wait, or run SQL.
pub trait Observer: Send {
    /// A row of the main database was written. `may_have_temp_triggers` asks whether the connection has anything temporary.
    fn row(&mut self, op: c_int, table: &[u8], rowid: i64, may_have_temp_triggers: &dyn Fn() -> bool);

    /// A row of another database was written.
    fn row_of_other(&mut self, database: &[u8]);

    /// The transaction is about to be committed. `commits`: the count of commits before it, if all rows that it wrote were shown.
    /// `may_be_silent`: whether triggers are switched off on the connection, or may have been if (given true) rows came without log rows.
    fn commit(&mut self, commits: Option<Commits>, may_be_silent: &dyn Fn(bool) -> bool);

    /// The transaction has ended without a commit.
    fn rollback(&mut self);
}

/// One connection's place.
struct Slot {
    /// The connection as a number; 0 when the place is free.
    owner: AtomicUsize,
    taken: AtomicPtr<Taken>,
}

/// What belongs to a connection whose hooks are ours, and what was there before.
struct Taken {
    observer: Box<dyn Observer>,
    /// Whom the observer tells: another number means another observer.
    whose: usize,
    update: Option<Update>,
    commit: Option<Commit>,
    rollback: Option<Rollback>,
}

static PLACES: [Slot; SLOTS] =
    [const { Slot { owner: AtomicUsize::new(0), taken: AtomicPtr::new(ptr::null_mut()) } }; SLOTS];

struct Functions {
    update: Update,
    commit: Commit,
    rollback: Rollback,
}

macro_rules! functions {
    ($($n:literal)*) => {
        [$(Functions { update: on_update::<$n>, commit: on_commit::<$n>, rollback: on_rollback::<$n> }),*]
    };
}

static FUNCTIONS: [Functions; SLOTS] = functions!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
);

/// Takes the hooks of a connection, unless they are ours already. `observe` makes the observer where there is none, or one of somebody else
/// (`whose`). `false`: that cannot be done without displacing what may be there, or there is no place left.
/// The call is within one of SQLite's to us on that connection (`Host`), and `give_back` is called while it closes.
pub fn take(host: Host, whose: usize, observe: impl Fn() -> Box<dyn Observer>) -> bool {
    let Some(layout) = layout() else { return false };
    let db = host.as_ptr();
    let Some(n) = place_of(db as usize).or_else(|| claim(db as usize)) else { return false };
    let (place, functions) = (&PLACES[n], &FUNCTIONS[n]);
    if place.taken.load(Ordering::Acquire).is_null() {
        let taken = Box::new(Taken { observer: observe(), whose, update: None, commit: None, rollback: None });
        place.taken.store(Box::into_raw(taken), Ordering::Release);
    }
    // SAFETY: made above or before; hooks of this connection do not run now, since we are in a call of SQLite on it.
    let taken = unsafe { &mut *place.taken.load(Ordering::Acquire) };
    if taken.whose != whose {
        (taken.observer, taken.whose) = (observe(), whose);
    }
    // SAFETY: the layout was measured on a connection of this SQLite library, and each word is read as the function that SQLite
    // keeps there, or NULL. What is set lives as long as the library, which stays loaded.
    unsafe {
        let (argument, function) = layout.update.of(db);
        if function != functions.update as usize {
            taken.update = (function != 0).then(|| std::mem::transmute::<usize, Update>(function));
            ffi::sqlite3_update_hook(db, Some(functions.update), argument);
        }
        let (argument, function) = layout.commit.of(db);
        if function != functions.commit as usize {
            taken.commit = (function != 0).then(|| std::mem::transmute::<usize, Commit>(function));
            ffi::sqlite3_commit_hook(db, Some(functions.commit), argument);
        }
        let (argument, function) = layout.rollback.of(db);
        if function != functions.rollback as usize {
            taken.rollback = (function != 0).then(|| std::mem::transmute::<usize, Rollback>(function));
            ffi::sqlite3_rollback_hook(db, Some(functions.rollback), argument);
        }
    }
    true
}

/// Gives the place of a connection back, which is closing (`Host`): SQLite calls no hook of it any more.
pub fn give_back(host: Host) {
    let Some(place) = place_of(host.as_ptr() as usize).map(|n| &PLACES[n]) else { return };
    let taken = place.taken.swap(ptr::null_mut(), Ordering::AcqRel);
    if !taken.is_null() {
        // SAFETY: made by `Box::into_raw` in `take`, and nobody uses it any more (caller).
        drop(unsafe { Box::from_raw(taken) });
    }
    place.owner.store(0, Ordering::Release);
}

fn place_of(owner: usize) -> Option<usize> {
    PLACES.iter().position(|place| place.owner.load(Ordering::Acquire) == owner)
}

fn claim(owner: usize) -> Option<usize> {
    let free = |place: &Slot| place.owner.compare_exchange(0, owner, Ordering::AcqRel, Ordering::Acquire).is_ok();
    PLACES.iter().position(free)
}

/// Runs a hook's body on its observer, and returns what else the place has. A panic ends here.
///
/// # Safety
/// SQLite calls the hooks of a connection one at a time, and not while it closes.
unsafe fn with(n: usize, body: impl FnOnce(&mut dyn Observer)) -> Option<&'static Taken> {
    let taken = PLACES[n].taken.load(Ordering::Acquire);
    // SAFETY: set before the hook was, and freed when the connection closes.
    let observer = unsafe { taken.as_mut()?.observer.as_mut() };
    if catch_unwind(AssertUnwindSafe(|| body(&mut *observer))).is_err() {
        // Whatever was half noted is forgotten; the log in the database has it all.
        observer.rollback();
    }
    // SAFETY: as above; the other borrow is over.
    unsafe { taken.as_ref() }
}

/// Whether triggers are switched off on the connection of this place, whose commit hook is running. Or may have been, if rows came
/// without log rows (`bare`) and there is no TEMP trigger that could have kept ours from firing.
fn may_be_silent<const N: usize>(bare: bool) -> bool {
    let db = PLACES[N].owner.load(Ordering::Acquire) as *mut ffi::sqlite3;
    // SAFETY: SQLite is calling us on this connection, so it is open.
    unsafe { Host::new(db) }.triggers_are_off() || (bare && !may_have_temp_triggers::<N>())
}

unsafe extern "C" fn on_update<const N: usize>(
    argument: *mut c_void,
    op: c_int,
    db: *const c_char,
    table: *const c_char,
    rowid: ffi::sqlite3_int64,
) {
    // SAFETY: SQLite passes NUL-terminated names that live as long as the call.
    let (database, name) = unsafe { (CStr::from_ptr(db).to_bytes(), CStr::from_ptr(table).to_bytes()) };
    let note = |observer: &mut dyn Observer| {
        if database == b"main" {
            observer.row(op, name, rowid, &may_have_temp_triggers::<N>);
        } else {
            observer.row_of_other(database);
        }
    };
    // SAFETY: SQLite is the caller. The former hook gets its own argument, as without us.
    unsafe {
        if let Some(former) = with(N, note).and_then(|taken| taken.update) {
            former(argument, op, db, table, rowid);
        }
    }
}

/// Whether the connection of this place, whose update hook is running, has a temporary database, where TEMP triggers would be.
fn may_have_temp_triggers<const N: usize>() -> bool {
    let db = PLACES[N].owner.load(Ordering::Acquire) as *mut ffi::sqlite3;
    // SAFETY: SQLite is calling us on this connection, so it is open. This looks a name up and changes nothing.
    unsafe { ffi::sqlite3_db_readonly(db, c"temp".as_ptr()) >= 0 }
}

unsafe extern "C" fn on_commit<const N: usize>(argument: *mut c_void) -> c_int {
    let former = PLACES[N].taken.load(Ordering::Acquire);
    // SAFETY: SQLite is the caller. The former hook gets its own argument, and its answer holds: it may turn the commit into a
    // rollback, so it comes first.
    unsafe {
        let refused = former.as_ref().and_then(|taken| taken.commit).map_or(0, |former| former(argument));
        if refused == 0 {
            let commits = commits_before::<N>();
            with(N, |observer| observer.commit(commits, &may_be_silent::<N>));
        }
        refused
    }
}

/// The count of commits before the one that is about to be made, if our update hook was there to see its rows. (The application may
/// have set one of its own, and kept our commit hook.)
///
/// # Safety
/// The commit hook of this place is running.
unsafe fn commits_before<const N: usize>() -> Option<Commits> {
    let db = PLACES[N].owner.load(Ordering::Acquire) as *mut ffi::sqlite3;
    // SAFETY: SQLite is calling us on this connection, so it is open, and the layout is that of its library.
    let (host, (_, function)) = unsafe { (Host::new(db), layout()?.update.of(db)) };
    let all_seen = function == FUNCTIONS[N].update as usize && host.writing();
    all_seen.then(|| host.commits()).flatten()
}

unsafe extern "C" fn on_rollback<const N: usize>(argument: *mut c_void) {
    // SAFETY: SQLite is the caller. The former hook gets its own argument, as without us.
    unsafe {
        if let Some(former) = with(N, |observer| observer.rollback()).and_then(|taken| taken.rollback) {
            former(argument);
        }
    }
}

/// Where a connection keeps a hook: the argument, in words from the beginning, and the function behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At(usize);

impl At {
    /// # Safety
    /// It was measured on a connection of the library that `db` is an open connection of.
    unsafe fn of(self, db: *mut ffi::sqlite3) -> (*mut c_void, usize) {
        let words = db.cast::<usize>();
        // SAFETY: both words lie within the connection (caller).
        unsafe { (words.add(self.0).read_volatile() as *mut c_void, words.add(self.0 + 1).read_volatile()) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Layout {
    update: At,
    commit: At,
    rollback: At,
}

/// Measured once; there is one SQLite library (`load::initialise`).
fn layout() -> Option<Layout> {
    static LAYOUT: OnceLock<Option<Layout>> = OnceLock::new();
    *LAYOUT.get_or_init(measure)
}

/// Sets hooks on a connection of our own and looks where they have come to stand; `None` if that is not beyond doubt.
fn measure() -> Option<Layout> {
    let conn = connection::open_memory().ok()?;
    // SAFETY: the connection is open until the end of this function.
    let db = unsafe { conn.handle() };
    // SAFETY: SQLite's allocator made the connection, so it can tell its size.
    let words = unsafe { ffi::sqlite3_msize(db.cast()) } as usize / size_of::<usize>();
    let marks: [u8; 3] = [0; 3];
    let mark = |n: usize| ptr::from_ref(&marks[n]).cast_mut().cast::<c_void>();
    let functions = &FUNCTIONS[0];
    let find = |n: usize, function: usize| {
        let at = |i: &usize| {
            // SAFETY: both words lie within the connection's memory; it is ours, so nobody changes it meanwhile.
            unsafe { At(*i).of(db) == (mark(n), function) }
        };
        let mut found = (0..words.saturating_sub(1)).filter(at);
        let first = found.next()?;
        found.next().is_none().then_some(At(first))
    };
    // SAFETY: the connection is open; no statement runs while these hooks are set.
    unsafe {
        ffi::sqlite3_update_hook(db, Some(functions.update), mark(0));
        ffi::sqlite3_commit_hook(db, Some(functions.commit), mark(1));
        ffi::sqlite3_rollback_hook(db, Some(functions.rollback), mark(2));
    }
    let found =
        (find(0, functions.update as usize), find(1, functions.commit as usize), find(2, functions.rollback as usize));
    // SAFETY: as above.
    unsafe {
        ffi::sqlite3_update_hook(db, None, ptr::null_mut());
        ffi::sqlite3_commit_hook(db, None, ptr::null_mut());
        ffi::sqlite3_rollback_hook(db, None, ptr::null_mut());
    }
    let layout = Layout { update: found.0?, commit: found.1?, rollback: found.2? };
    let empty = [layout.update, layout.commit, layout.rollback].iter().all(|at| {
        // SAFETY: as in `find`.
        unsafe { at.of(db) == (ptr::null_mut(), 0) }
    });
    empty.then_some(layout)
}
