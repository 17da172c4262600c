//! Loading: what `.load` and the auto-extension do with a connection.

use std::ffi::{c_char, c_int, c_void, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock, PoisonError};

use rusqlite::{ffi, Connection};

use super::standins;
use crate::error::{Doing, Error, Result};
use crate::fork;
use crate::registry;
use crate::sqlite::api::{host_version, Host};
use crate::sqlite::hosthooks;
use crate::sqlite::{connected, connection};

/// Oldest host: what rusqlite's function table needs, and has `sqlite3_txn_state`.
const OLDEST_HOST: c_int = 3_034_001;

/// Loads the extension into a host's connection; the whole of the entry point.
///
/// # Safety
/// The arguments are those that SQLite passes to an extension's entry point.
pub unsafe fn entry(db: *mut ffi::sqlite3, error: *mut *mut c_char, api: *mut ffi::sqlite3_api_routines) -> c_int {
    let loaded = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as the caller says.
        unsafe { initialise(api) }?;
        if !connection::is_ours() {
            // SAFETY: the connection is open and stays so until it closes, which `attach` gets to know.
            attach(unsafe { Host::new(db) })?;
        }
        watch_forks()?;
        // SAFETY: `auto_entry` has the signature that SQLite calls it with (its C declaration hides that behind a plain
        // function pointer); registering it again does nothing.
        match unsafe {
            ffi::sqlite3_auto_extension(Some(std::mem::transmute::<AutoEntry, unsafe extern "C" fn()>(auto_entry)))
        } {
            ffi::SQLITE_OK => Ok(()),
            rc => Err(Error::bug(format!("SQLite refused to call us for later connections (error {rc})"))),
        }
    }));
    match loaded.unwrap_or_else(|_| Err(Error::bug("loading panicked"))) {
        // The library stays: its threads and hooks must not outlive their code.
        Ok(()) => ffi::SQLITE_OK_LOAD_PERMANENTLY,
        Err(e) => {
            // SAFETY: `error` is where SQLite takes the message from.
            unsafe { report(&e, error, api) }
            ffi::SQLITE_ERROR
        }
    }
}

/// Takes the host's function table, if the host is not too old, and not another one than before.
///
/// # Safety
/// `api` is the table that SQLite passed.
unsafe fn initialise(api: *mut ffi::sqlite3_api_routines) -> Result<()> {
    /// Address of the table that was taken. Each SQLite library has one, for as long as it is loaded.
    static TAKEN: Mutex<Option<usize>> = Mutex::new(None);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if *taken == Some(api as usize) {
        return Ok(());
    }
    // SAFETY: as the caller says; every host has had this function since 3.0.
    let version = unsafe { api.as_ref() }.and_then(|api| api.libversion_number).map_or(0, |f| {
        // SAFETY: a plain query.
        unsafe { f() }
    });
    if version < OLDEST_HOST {
        return Err(Error::fix(
            format!(
                "this is SQLite {}.{}.{}; logos needs 3.34.1 or newer",
                version / 1_000_000,
                version / 1000 % 1000,
                version % 1000
            ),
            "nothing was loaded; load it into a newer SQLite",
        ));
    }
    if taken.is_some() {
        // Every call of ours goes through the one table, so connections of the two libraries would be mixed up.
        return Err(Error::fix(
            format!("another SQLite library of this process ({}) has loaded logos already", host_version()),
            "nothing was loaded, and the other goes on; have all of the process use one SQLite library, or publish from a process \
             of its own",
        ));
    }
    // SAFETY: the table is valid and new enough.
    let host = unsafe { &*api };
    standins::several_threads(host)?;
    let mut complete = standins::complete(host)?;
    // SAFETY: as above; the functions are copied out of the table.
    unsafe { ffi::rusqlite_extension_init2(&mut complete) }.map_err(|e| {
        Error::fix(format!("this SQLite cannot host logos: {e}"), "nothing was loaded; use another SQLite")
    })?;
    *taken = Some(api as usize);
    Ok(())
}

/// Has a fork of this process wait until no thread of ours is inside SQLite, once a process.
#[cfg(unix)]
fn watch_forks() -> Result<()> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    // SAFETY: the handlers are functions of this library, which stays loaded, and no panic leaves them.
    let rc = REGISTERED.get_or_init(|| unsafe {
        libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork_in_child))
    });
    match rc {
        0 => Ok(()),
        rc => Err(Error::bug(format!("the system refused to call us before a fork (error {rc})"))),
    }
}

#[cfg(not(unix))]
fn watch_forks() -> Result<()> {
    Ok(())
}

#[cfg(unix)]
unsafe extern "C" fn before_fork() {
    let _ = catch_unwind(fork::prepare);
}

#[cfg(unix)]
unsafe extern "C" fn after_fork() {
    let _ = catch_unwind(fork::in_parent);
}

#[cfg(unix)]
unsafe extern "C" fn after_fork_in_child() {
    let _ = catch_unwind(fork::in_child);
}

/// Hands the sentence to SQLite, in memory of SQLite's own.
///
/// # Safety
/// `error` is NULL or where SQLite takes the message from; `api` is the table that SQLite passed, or NULL.
unsafe fn report(e: &Error, error: *mut *mut c_char, api: *mut ffi::sqlite3_api_routines) {
    let text = CString::new(e.to_string().replace('\0', " ")).unwrap_or_default();
    let bytes = text.as_bytes_with_nul();
    // SAFETY: as the caller says; the block is as large as what is copied into it. Our own table may not be initialised.
    unsafe {
        let Some(malloc) = api.as_ref().and_then(|api| api.malloc) else { return };
        let block = malloc(bytes.len() as c_int).cast::<u8>();
        if !error.is_null() && !block.is_null() {
            ptr::copy_nonoverlapping(bytes.as_ptr(), block, bytes.len());
            *error = block.cast();
        }
    }
}

type AutoEntry = unsafe extern "C" fn(*mut ffi::sqlite3, *mut *mut c_char, *const ffi::sqlite3_api_routines) -> c_int;

/// Called by SQLite for every connection opened later in the process.
unsafe extern "C" fn auto_entry(
    db: *mut ffi::sqlite3,
    _error: *mut *mut c_char,
    _api: *const ffi::sqlite3_api_routines,
) -> c_int {
    if connection::is_ours() {
        return ffi::SQLITE_OK;
    }
    // A failure of ours must not keep the application from opening its database; without us the log is still written.
    // SAFETY: the connection is open and stays so until it closes, which `attach` gets to know.
    let _ = catch_unwind(AssertUnwindSafe(|| attach(unsafe { Host::new(db) })));
    ffi::SQLITE_OK
}

/// Puts functions and tables on a connection, and hooks if its file is being published.
fn attach(host: Host) -> Result<()> {
    if registry::knows(host) {
        return Ok(());
    }
    let database = host.database();
    // SAFETY: the handle is open; this `Connection` does not own it.
    let conn = unsafe { Connection::from_handle(host.as_ptr()) }.doing(|| "loading".into())?;
    super::register(&conn).doing(|| "registering functions and tables".into())?;
    // A function nobody calls: SQLite destroys its argument when the connection closes, and only then (its name is ours).
    // SAFETY: the argument is the connection itself, which `leave` only takes as a name; SQLite calls that once, also when this
    // call fails.
    let rc = unsafe {
        ffi::sqlite3_create_function_v2(
            host.as_ptr(),
            c"_logos_connection".as_ptr(),
            0,
            ffi::SQLITE_UTF8,
            host.as_ptr().cast(),
            Some(never),
            None,
            None,
            Some(leave),
        )
    };
    if rc != ffi::SQLITE_OK {
        return Err(Error::bug(format!("SQLite refused a function (error {rc})")));
    }
    registry::remember(host, database);
    take_hooks(host);
    Ok(())
}

/// Takes the hooks of a connection if its file is being published, or may be soon, and has it open what it must (`connected`): the one place
/// that does, called when a connection is opened or loads us, and in calls of ours on it. Those of other connections are left alone; their commits are found by polling.
pub(super) fn take_hooks(host: Host) {
    let Some(database) = registry::database(host).filter(registry::is_for_publishing) else { return };
    let signal = registry::signal(&database);
    // SAFETY: SQLite is calling us on this connection, and `leave` gives the hooks back when it closes.
    if !unsafe { hosthooks::take(host, &signal) } {
        signal.untaken.fetch_add(1, Ordering::Relaxed);
    }
    let late = signal.opened_late();
    if !late.is_empty() {
        // SAFETY: as above; this `Connection` does not own the handle.
        let conn = unsafe { Connection::from_handle(host.as_ptr()) };
        conn.iter().for_each(|conn| connected::open(conn, &late));
    }
}

unsafe extern "C" fn never(_: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {}

unsafe extern "C" fn leave(db: *mut c_void) {
    // SAFETY: `attach` has given the connection itself, which is closing. No hook runs on it any more.
    let host = unsafe { Host::new(db.cast()) };
    let _ = catch_unwind(AssertUnwindSafe(|| {
        registry::forget(host);
        // SAFETY: SQLite calls this in the end of closing, after the last transaction was rolled back.
        unsafe { hosthooks::give_back(host) };
    }));
}
