//! The SQL surface: one table of functions, three tables, and what happens when a connection loads us.
//!
//! Invariants
//! - Every function and table is direct-only: a schema cannot call them behind the user's back.
//! - Every callback is panic-guarded, and every failure is one sentence with a hint.
//! - Loading twice is harmless; a connection that is ours is passed by.

mod functions;
pub mod load;
mod permission;
mod standins;
mod tables;

use std::panic::{catch_unwind, AssertUnwindSafe};

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::registry;
use crate::sqlite::api::Host;
use crate::sqlite::database::Database;

/// Runs a callback's body; a panic becomes an error.
fn guarded<T, E: Into<rusqlite::Error>>(body: impl FnOnce() -> std::result::Result<T, E>) -> rusqlite::Result<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Error::bug("a function of logos panicked").into()),
    }
}

/// The file that a connection has open, which must still be at its path; an error for a temporary or in-memory database.
fn database_of(host: Host) -> Result<Database> {
    let database = registry::database(host).ok_or_else(|| {
        Error::fix(
            "the main database is in memory or temporary",
            "nothing was changed; open a database file first (in the sqlite3 shell: .open app.db)",
        )
    })?;
    database.check_in_place()?;
    Ok(database)
}

/// Refuses inside a transaction of the caller.
fn outside_transaction(host: Host, what: &str) -> Result<()> {
    if host.autocommit() && !host.writing() {
        return Ok(());
    }
    Err(Error::fix(
        format!("{what} cannot run inside a transaction"),
        "nothing was changed; COMMIT or ROLLBACK first, then call it in a statement of its own",
    ))
}

/// Puts the whole surface on a connection.
fn register(conn: &Connection) -> rusqlite::Result<()> {
    functions::register(conn)?;
    tables::register(conn)
}
