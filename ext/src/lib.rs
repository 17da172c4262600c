//! The door: the entry points that SQLite looks up in the library, and nothing else.

use std::ffi::{c_char, c_int};

use logos_engine::ffi;
use logos_engine::sql::load;

/// Entry point for `.load logos`: SQLite derives this name from the file's.
///
/// # Safety
/// Called by SQLite with an open connection and its own function table.
#[no_mangle]
pub unsafe extern "C" fn sqlite3_logos_init(
    db: *mut ffi::sqlite3,
    error: *mut *mut c_char,
    api: *mut ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe { load::entry(db, error, api) }
}

/// Entry point under the name that SQLite tries for any file.
///
/// # Safety
/// Called by SQLite with an open connection and its own function table.
#[no_mangle]
pub unsafe extern "C" fn sqlite3_extension_init(
    db: *mut ffi::sqlite3,
    error: *mut *mut c_char,
    api: *mut ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe { load::entry(db, error, api) }
}
