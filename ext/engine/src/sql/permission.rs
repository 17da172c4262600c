//! Read-only means read-only: functions of ours that write anything anywhere refuse on a connection that may not write itself.
//!
//! A host that lets visitors run SQL (a report page, Datasette) relies on a read-only file, on `PRAGMA query_only` or on an authorizer.
//! Ours write through connections of their own, which none of these binds; a visitor could publish the database to a
//! place of his choice.

use rusqlite::{ffi, Connection, ErrorCode};

use crate::error::{Doing, Error, Result};

/// Whether the connection may write to its main database; `what` is refused otherwise.
pub(super) fn may_write(conn: &Connection, what: &str) -> Result<()> {
    let refused = |why: &str, code| {
        let hint = "nothing was changed; call it on a connection that may write";
        Err(Error::fix(format!("{what} would write, and {why}"), hint).with_code(code))
    };
    if conn.is_readonly("main").doing(|| "asking the connection whether it is read-only".into())? {
        return refused("this connection is read-only", ffi::SQLITE_READONLY);
    }
    match conn.pragma_query_value(None, "query_only", |row| row.get::<_, bool>(0)) {
        Ok(false) => {}
        Ok(true) => return refused("this connection is set to query_only", ffi::SQLITE_READONLY),
        Err(e) if is_denied(&e) => return refused("an authorizer keeps from us whether it may", ffi::SQLITE_AUTH),
        Err(e) => return Err(e).doing(|| "reading PRAGMA query_only".into()),
    }
    // Prepared only: the authorizer is asked, and nothing happens.
    match conn.prepare("CREATE TABLE main._logos_permission(x)") {
        Err(e) if is_denied(&e) => refused("an authorizer does not let this connection write", ffi::SQLITE_AUTH),
        _ => Ok(()),
    }
}

fn is_denied(e: &rusqlite::Error) -> bool {
    // SQLite 3.40 takes it for a change of the schema when the first statement that reads that is refused; the text is the same.
    let text = matches!(e, rusqlite::Error::SqliteFailure(_, Some(text)) if text == "not authorized");
    text || e.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied)
}
