//! What an error of SQLite's is about: a row, one object of the schema, or more than that.

use rusqlite::ffi;

/// Whether an error is about the statement or the object it names: then only that object is concerned.
pub fn concerns_object(e: &rusqlite::Error) -> bool {
    let codes =
        [ffi::SQLITE_ERROR, ffi::SQLITE_TOOBIG, ffi::SQLITE_MISMATCH, ffi::SQLITE_CONSTRAINT, ffi::SQLITE_RANGE];
    match e {
        // A virtual table that finds its own tables damaged says nothing of the file.
        rusqlite::Error::SqliteFailure(e, _) if e.extended_code == ffi::SQLITE_CORRUPT_VTAB => true,
        rusqlite::Error::SqliteFailure(e, _) if !is_clash_code(e.extended_code) => {
            codes.contains(&(e.extended_code & 0xff))
        }
        rusqlite::Error::Utf8Error(..) | rusqlite::Error::FromSqlConversionFailure(..) => true,
        _ => false,
    }
}

fn is_clash_code(code: i32) -> bool {
    is_clash(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
}

/// The same sentence without what rusqlite or SQLite put around it.
pub fn reason(e: &rusqlite::Error) -> String {
    match e {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::Utf8Error(..) | rusqlite::Error::FromSqlConversionFailure(..) => {
            "its text in the schema is not UTF-8".into()
        }
        other => other.to_string(),
    }
}

/// Whether a row could not be inserted because another has its key or a UNIQUE value of it.
pub fn is_clash(e: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE};
    e.sqlite_error().is_some_and(|e| {
        [SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE].contains(&e.extended_code)
    })
}
