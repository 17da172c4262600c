//! What a build of SQLite leaves out (SQLITE_OMIT_…): its function table has NULL in that place, and calling it would panic.
//!
//! - What we can do without gets a stand-in that does nothing, or the same in another way.
//! - What we cannot do without is named when we are loaded.
//! - The two functions that rusqlite calls in the wrong order are put right.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi;

use crate::error::{Error, Result};

type Api = ffi::sqlite3_api_routines;

/// The names of those that are NULL.
macro_rules! absent {
    ($api:expr; $($name:ident)*) => {
        [$(($api.$name.is_none(), concat!("sqlite3_", stringify!($name)))),*]
            .into_iter().filter_map(|(absent, name)| absent.then_some(name)).collect::<Vec<&str>>()
    };
}

/// The host's table with stand-ins where it has nothing. (It is as long as this type, or longer: `load::OLDEST_HOST`.)
pub fn complete(host: &Api) -> Result<Api> {
    let absent = absent!(host; auto_extension bind_blob64 bind_double bind_int64 bind_null bind_parameter_count bind_text64
        busy_timeout changes close column_blob column_bytes column_count column_double column_int64 column_name column_text column_type
        context_db_handle create_function_v2 create_module_v2 db_config db_filename db_mutex db_readonly declare_vtab errcode errmsg
        errstr extended_result_codes file_control finalize free get_autocommit last_insert_rowid malloc64 msize mutex_alloc
        mutex_free mutex_leave mutex_try open_v2 prepare_v3 reset result_blob64 result_double result_error result_error_code
        result_error_nomem result_error_toobig result_int64 result_null result_text64 result_value result_zeroblob step txn_state
        user_data value_blob value_bytes value_double value_int64 value_text value_type vtab_config);
    if !absent.is_empty() {
        return Err(Error::fix(
            format!("this SQLite was built without {}", absent.join(", ")),
            "nothing was loaded; use a build of SQLite that has them (SQLITE_OMIT_VIRTUALTABLE and the like leave them out)",
        ));
    }
    let mut api = *host;
    api.bind_zeroblob.get_or_insert(bind_zeroblob);
    api.busy_handler.get_or_insert(busy_handler);
    api.column_decltype.get_or_insert(column_decltype);
    api.commit_hook.get_or_insert(commit_hook);
    api.progress_handler.get_or_insert(progress_handler);
    api.rollback_hook.get_or_insert(rollback_hook);
    api.set_authorizer.get_or_insert(set_authorizer);
    api.update_hook.get_or_insert(update_hook);
    let _ = RESULT_ERROR.set((api.result_error, api.result_error_code));
    api.result_error = Some(result_error);
    api.result_error_code = Some(result_error_code);
    Ok(api)
}

/// Fails where SQLite cannot be used by several threads: built so, or set up so with sqlite3_config.
pub fn several_threads(api: &Api) -> Result<()> {
    /// What a SQLite that was set up for one thread gives out for a mutex.
    const NO_MUTEX: usize = 8;
    // SAFETY: SQLite's own functions; the mutex is made and freed here and used by nobody.
    let capable = unsafe {
        match (api.xthreadsafe, api.mutex_alloc, api.mutex_free) {
            (Some(threadsafe), Some(alloc), Some(free)) if threadsafe() != 0 => {
                let mutex = alloc(ffi::SQLITE_MUTEX_FAST);
                free(mutex);
                mutex as usize != NO_MUTEX
            }
            _ => false,
        }
    };
    if capable {
        return Ok(());
    }
    Err(Error::fix(
        "this SQLite is for one thread only (SQLITE_THREADSAFE=0 or SQLITE_CONFIG_SINGLETHREAD), and logos works in threads of its own",
        "nothing was loaded; use a SQLite with threads, or publish from a process of its own that has one",
    ))
}

unsafe extern "C" fn bind_zeroblob(statement: *mut ffi::sqlite3_stmt, index: c_int, _length: c_int) -> c_int {
    // Asked for empty blobs only, by rusqlite. A blob of length 0 at NULL would be NULL, so it points somewhere.
    // SAFETY: the arguments are the caller's; nothing is read at the address, which lives for ever.
    unsafe { ffi::sqlite3_bind_blob64(statement, index, c"".as_ptr().cast(), 0, ffi::SQLITE_STATIC()) }
}

extern "C" fn busy_handler(
    _: *mut ffi::sqlite3,
    _: Option<unsafe extern "C" fn(*mut c_void, c_int) -> c_int>,
    _: *mut c_void,
) -> c_int {
    ffi::SQLITE_OK
}

extern "C" fn column_decltype(_: *mut ffi::sqlite3_stmt, _: c_int) -> *const c_char {
    ptr::null()
}

extern "C" fn commit_hook(
    _: *mut ffi::sqlite3,
    _: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    _: *mut c_void,
) -> *mut c_void {
    ptr::null_mut()
}

extern "C" fn progress_handler(
    _: *mut ffi::sqlite3,
    _: c_int,
    _: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    _: *mut c_void,
) {
}

extern "C" fn rollback_hook(
    _: *mut ffi::sqlite3,
    _: Option<unsafe extern "C" fn(*mut c_void)>,
    _: *mut c_void,
) -> *mut c_void {
    ptr::null_mut()
}

type ResultError = unsafe extern "C" fn(*mut ffi::sqlite3_context, *const c_char, c_int);
type ResultErrorCode = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int);

/// SQLite's own two ways to say that a function failed.
static RESULT_ERROR: OnceLock<(Option<ResultError>, Option<ResultErrorCode>)> = OnceLock::new();

thread_local! {
    /// The code that was set last, and for which call.
    static CODE: Cell<(usize, c_int)> = const { Cell::new((0, 0)) };
}

unsafe extern "C" fn result_error_code(call: *mut ffi::sqlite3_context, code: c_int) {
    let _ = CODE.try_with(|last| last.set((call as usize, code)));
    if let Some((_, Some(set_code))) = RESULT_ERROR.get() {
        // SAFETY: SQLite's own function, with the caller's arguments.
        unsafe { set_code(call, code) }
    }
}

/// rusqlite sets the code first and then the text, and SQLite takes a text for a plain error: so the code is set again.
unsafe extern "C" fn result_error(call: *mut ffi::sqlite3_context, text: *const c_char, length: c_int) {
    let (of, code) = CODE.try_with(|last| last.replace((0, 0))).unwrap_or_default();
    if let Some((Some(set_text), Some(set_code))) = RESULT_ERROR.get() {
        // SAFETY: SQLite's own functions, with the caller's arguments; a code leaves a text that is there.
        unsafe {
            set_text(call, text, length);
            if of == call as usize {
                set_code(call, code);
            }
        }
    }
}

type Authorizer =
    unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *const c_char, *const c_char, *const c_char) -> c_int;

extern "C" fn set_authorizer(_: *mut ffi::sqlite3, _: Option<Authorizer>, _: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

type Update = unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *const c_char, ffi::sqlite3_int64);

extern "C" fn update_hook(_: *mut ffi::sqlite3, _: Option<Update>, _: *mut c_void) -> *mut c_void {
    ptr::null_mut()
}
