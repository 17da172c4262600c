//! The SQL surface: one table of functions, three tables, and what happens when a connection loads us.
//!
//! Invariants
//! - Every function and table is direct-only: a schema cannot call them behind the user's back.
//! - Every callback is panic-guarded, and every failure is one sentence with a hint.
//! - Loading twice is harmless; a connection that is ours is passed by.

mod functions;
pub mod load;
mod tables;

use std::panic::{catch_unwind, AssertUnwindSafe};

use rusqlite::Connection;

use crate::error::{Doing, Error, Result};
use crate::host::api::Host;
use crate::service::{Caller, Service};

/// Runs a callback's body; a panic becomes an error.
fn guarded<T, E: Into<rusqlite::Error>>(body: impl FnOnce() -> std::result::Result<T, E>) -> rusqlite::Result<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Error::bug("a function of logos panicked").into()),
    }
}

/// Does something for the connection on which SQLite calls us.
fn on_behalf<T>(host: Host, run: impl FnOnce(&Service, Caller<'_>) -> Result<T>) -> Result<T> {
    // SAFETY: SQLite calls us on this connection, so it is open for the whole call; this `Connection` does not own it, and no statement
    // outlives it.
    let conn = unsafe { Connection::from_handle(host.as_ptr()) }.doing(|| "finding the connection".into())?;
    run(Service::of_process()?, Caller::new(host, &conn))
}

/// Puts the whole surface on a connection.
fn register(conn: &Connection) -> rusqlite::Result<()> {
    functions::register(conn)?;
    tables::register(conn)
}
