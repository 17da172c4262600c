//! Two functions that rusqlite 0.41 calls and that SQLite has only since 3.44: client data of a connection.
//!
//! Compiled in only when the tests link the system's SQLite. rusqlite keeps its own callbacks there, under the
//! connection's address; a new value replaces the old one, whose destructor runs at once as in SQLite itself.
//! Unlike there, what is left when a connection closes is freed when the next connection at that address replaces it.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::sync::{LazyLock, Mutex};

use rusqlite::ffi;

type Destructor = Option<unsafe extern "C" fn(*mut c_void)>;

struct Data(*mut c_void, Destructor);

// SAFETY: the pointer is only stored and handed back to rusqlite, which asks for `Send` data.
unsafe impl Send for Data {}

static ALL: LazyLock<Mutex<HashMap<(usize, CString), Data>>> = LazyLock::new(Default::default);

/// Stand-in for the function of that name in SQLite 3.44.
///
/// # Safety
/// `name` is a string that ends in NUL; `data` fits `destructor`.
#[no_mangle]
pub unsafe extern "C" fn sqlite3_set_clientdata(
    db: *mut ffi::sqlite3,
    name: *const c_char,
    data: *mut c_void,
    destructor: Destructor,
) -> c_int {
    // SAFETY: the caller promises a string that ends in NUL.
    let key = (db as usize, unsafe { CStr::from_ptr(name) }.to_owned());
    let mut all = ALL.lock().unwrap();
    let old = if data.is_null() { all.remove(&key) } else { all.insert(key, Data(data, destructor)) };
    drop(all);
    if let Some(Data(old, Some(destroy))) = old {
        // SAFETY: `old` was stored together with its destructor and has just been taken out, so this runs once.
        unsafe { destroy(old) };
    }
    ffi::SQLITE_OK
}

/// Stand-in for the function of that name in SQLite 3.44.
///
/// # Safety
/// `name` is a string that ends in NUL.
#[no_mangle]
pub unsafe extern "C" fn sqlite3_get_clientdata(db: *mut ffi::sqlite3, name: *const c_char) -> *mut c_void {
    // SAFETY: the caller promises a string that ends in NUL.
    let key = (db as usize, unsafe { CStr::from_ptr(name) }.to_owned());
    ALL.lock().unwrap().get(&key).map_or(std::ptr::null_mut(), |data| data.0)
}
