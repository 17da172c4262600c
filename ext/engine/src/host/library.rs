//! The host's SQLite library: its function table is taken once a process, and forks of the process are watched.

use std::ffi::c_int;
#[cfg(unix)]
use std::panic::catch_unwind;
use std::sync::{Mutex, OnceLock, PoisonError};

use rusqlite::ffi;

use super::api::host_version;
use super::{fork, standins};
use crate::error::{Error, Result};

/// Oldest host: what rusqlite's function table needs, and has `sqlite3_txn_state`.
const OLDEST_HOST: c_int = 3_034_001;

/// Takes the host's function table, if the host is not too old, and not another one than before.
///
/// # Safety
/// `api` is the table that SQLite passed.
pub unsafe fn initialise(api: *mut ffi::sqlite3_api_routines) -> Result<()> {
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
pub fn watch_forks() -> Result<()> {
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
pub fn watch_forks() -> Result<()> {
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
