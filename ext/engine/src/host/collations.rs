//! Collations that stand for those which only the application's own connections have, as SQLite calls them.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::panic::catch_unwind;
use std::ptr;

use rusqlite::{ffi, Connection};
use serde::{Deserialize, Serialize};

/// What may stand for a collation: SQLite's own three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StandIn {
    /// Byte by byte.
    Binary,
    /// The 26 letters of ASCII in either case are the same.
    Nocase,
    /// Blanks at the end do not count.
    Rtrim,
}

impl StandIn {
    /// All, with their names in lower case.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Binary, "binary"), (Self::Nocase, "nocase"), (Self::Rtrim, "rtrim")];

    /// Its name in lower case.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(it, _)| *it == self).map_or("binary", |(_, word)| word)
    }

    /// Compares two texts in UTF-8.
    pub fn compare(self, a: &[u8], b: &[u8]) -> std::cmp::Ordering {
        match self {
            Self::Binary => a.cmp(b),
            Self::Nocase => a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase()),
            Self::Rtrim => without_blanks(a).cmp(without_blanks(b)),
        }
    }
}

fn without_blanks(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&b| b != b' ').map_or(0, |last| last + 1);
    &text[..end]
}

/// What is called when a connection is asked for a collation that it does not have.
type CollationNeeded = fn(&Connection, &str);

/// Has `needed` called when a statement names a collation that the connection does not have.
pub fn on_collation_needed(conn: &Connection, needed: CollationNeeded) {
    unsafe extern "C" fn call(needed: *mut c_void, db: *mut ffi::sqlite3, _: c_int, name: *const c_char) {
        let _ = catch_unwind(|| {
            // SAFETY: the argument is the function given below; SQLite passes the open connection and a NUL-terminated name, and
            // the `Connection` made here does not own the handle.
            let (needed, conn, name) = unsafe {
                (
                    std::mem::transmute::<*mut c_void, CollationNeeded>(needed),
                    Connection::from_handle(db),
                    CStr::from_ptr(name),
                )
            };
            if let (Ok(conn), Ok(name)) = (conn, name.to_str()) {
                needed(&conn, name);
            }
        });
    }
    // SAFETY: the handle is open for as long as `conn` is borrowed; `call` has the signature asked for, no panic leaves it, and its
    // argument is a function of this library, which stays loaded.
    unsafe { ffi::sqlite3_collation_needed(conn.handle(), needed as *mut c_void, Some(call)) };
}

/// Registers a collation.
pub fn create_collation(conn: &Connection, name: &str, stand_in: StandIn) -> rusqlite::Result<()> {
    unsafe fn compare(stand_in: StandIn, n: c_int, a: *const c_void, m: c_int, b: *const c_void) -> c_int {
        let compared = catch_unwind(|| {
            let text = |start: *const c_void, n: c_int| match usize::try_from(n) {
                // SAFETY: SQLite passes the text and its length.
                Ok(n) if n > 0 => unsafe { std::slice::from_raw_parts(start.cast::<u8>(), n) },
                _ => &[],
            };
            stand_in.compare(text(a, n), text(b, m)) as c_int
        });
        compared.unwrap_or(0)
    }
    macro_rules! callback {
        ($stand_in:ident) => {{
            unsafe extern "C" fn call(_: *mut c_void, n: c_int, a: *const c_void, m: c_int, b: *const c_void) -> c_int {
                // SAFETY: the arguments are SQLite's own.
                unsafe { compare(StandIn::$stand_in, n, a, m, b) }
            }
            call
        }};
    }
    let call: unsafe extern "C" fn(_, _, _, _, _) -> c_int = match stand_in {
        StandIn::Binary => callback!(Binary),
        StandIn::Nocase => callback!(Nocase),
        StandIn::Rtrim => callback!(Rtrim),
    };
    set_collation(conn, name, Some(call))
}

/// Takes a collation away.
pub fn remove_collation(conn: &Connection, name: &str) -> rusqlite::Result<()> {
    set_collation(conn, name, None)
}

type Compare = unsafe extern "C" fn(*mut c_void, c_int, *const c_void, c_int, *const c_void) -> c_int;

fn set_collation(conn: &Connection, name: &str, compare: Option<Compare>) -> rusqlite::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the handle is open for as long as `conn` is borrowed; the function lives as long as this library, and takes no
    // argument that would have to.
    let rc = unsafe {
        let (flags, none) = (ffi::SQLITE_UTF8, ptr::null_mut());
        ffi::sqlite3_create_collation_v2(conn.handle(), name.as_ptr(), flags, none, compare, None)
    };
    match rc {
        ffi::SQLITE_OK => Ok(()),
        rc => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(rc), None)),
    }
}
