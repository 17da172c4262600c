//! Loading: what `.load` and the auto-extension do with a connection.

use std::ffi::{c_char, c_int, c_void, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;

use rusqlite::{ffi, Connection};

use crate::error::{Doing, Error, Result};
use crate::host::api::Host;
use crate::host::{connection, connections, library};
use crate::service::Service;

/// Loads the extension into a host's connection; the whole of the entry point.
///
/// # Safety
/// The arguments are those that SQLite passes to an extension's entry point.
pub unsafe fn entry(db: *mut ffi::sqlite3, error: *mut *mut c_char, api: *mut ffi::sqlite3_api_routines) -> c_int {
    let loaded = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as the caller says.
        unsafe { library::initialise(api) }?;
        if !connection::is_ours() {
            // SAFETY: the connection is open and stays so until it closes, which `attach` gets to know.
            attach(unsafe { Host::new(db) })?;
        }
        library::watch_forks()?;
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
    if connections::knows(host) {
        return Ok(());
    }
    let service = Service::of_process()?;
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
    service.join(host, &conn);
    Ok(())
}

unsafe extern "C" fn never(_: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {}

unsafe extern "C" fn leave(db: *mut c_void) {
    // SAFETY: `attach` has given the connection itself, which is closing. No hook runs on it any more.
    let host = unsafe { Host::new(db.cast()) };
    let _ = catch_unwind(AssertUnwindSafe(|| {
        Service::of_process().iter().for_each(|service| service.leave(host));
    }));
}
