//! The caller: the connection of the application on whose behalf something is done, and what it may.
//!
//! Read-only means read-only. A host that lets visitors run SQL (a report page, Datasette) relies on a read-only file, on `PRAGMA query_only`
//! or on an authorizer. We write through connections of our own, which none of these binds; a visitor could publish the database to a
//! place of his choice.

use rusqlite::{ffi, Connection, ErrorCode};

use crate::apply::role::{self, Role};
use crate::error::{Doing, Error, Result};
use crate::host::api::Host;
use crate::host::connections;
use crate::host::database::Database;

/// A connection of the application, during one call of it.
#[derive(Clone, Copy)]
pub struct Caller<'c> {
    pub(super) host: Host,
    pub(super) conn: &'c Connection,
}

impl<'c> Caller<'c> {
    /// `host` and `conn` are the same connection.
    pub fn new(host: Host, conn: &'c Connection) -> Self {
        Self { host, conn }
    }

    /// The file that it has open, which must still be at its path; an error for a temporary or in-memory database.
    pub fn database(&self) -> Result<Database> {
        let database = connections::database(self.host).ok_or_else(|| {
            Error::fix(
                "the main database is in memory or temporary",
                "nothing was changed; open a database file first (in the sqlite3 shell: .open app.db)",
            )
        })?;
        database.check_in_place()?;
        Ok(database)
    }

    /// What its database is to us.
    pub fn role(&self) -> Result<Role> {
        role::role(self.conn)
    }

    /// Refuses inside a transaction.
    pub fn outside_transaction(&self, what: &str) -> Result<()> {
        if self.host.autocommit() && !self.host.writing() {
            return Ok(());
        }
        Err(Error::fix(
            format!("{what} cannot run inside a transaction"),
            "nothing was changed; COMMIT or ROLLBACK first, then call it in a statement of its own",
        ))
    }

    /// For what only makes sense on a primary.
    pub fn not_a_replica(&self) -> Result<()> {
        match self.role()? {
            Role::Replica(standing) => Err(Error::fix(
                format!("{} is a replica of {}", self.database()?.path().display(), standing.url),
                "nothing was changed; this is for the primary. To rebuild a replica, attach a new file to the channel",
            )),
            _ => Ok(()),
        }
    }

    /// Whether somebody interrupted the connection: then any statement on it ends at once. This one names no table, so it
    /// reads nothing of the file.
    pub fn is_interrupted(&self) -> bool {
        let step = self.conn.execute_batch("SELECT 1");
        step.is_err_and(|e| e.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
    }

    /// Whether it may write to its main database; `what` is refused otherwise.
    pub fn may_write(&self, what: &str) -> Result<()> {
        let refused = |why: &str, code| {
            let hint = "nothing was changed; call it on a connection that may write";
            Err(Error::fix(format!("{what} would write, and {why}"), hint).with_code(code))
        };
        if self.conn.is_readonly("main").doing(|| "asking the connection whether it is read-only".into())? {
            return refused("this connection is read-only", ffi::SQLITE_READONLY);
        }
        match self.conn.pragma_query_value(None, "query_only", |row| row.get::<_, bool>(0)) {
            Ok(false) => {}
            Ok(true) => return refused("this connection is set to query_only", ffi::SQLITE_READONLY),
            Err(e) if is_denied(&e) => return refused("an authorizer keeps from us whether it may", ffi::SQLITE_AUTH),
            Err(e) => return Err(e).doing(|| "reading PRAGMA query_only".into()),
        }
        // Prepared only: the authorizer is asked, and nothing happens.
        match self.conn.prepare("CREATE TABLE main._logos_permission(x)") {
            Err(e) if is_denied(&e) => refused("an authorizer does not let this connection write", ffi::SQLITE_AUTH),
            _ => Ok(()),
        }
    }
}

fn is_denied(e: &rusqlite::Error) -> bool {
    // SQLite 3.40 takes it for a change of the schema when the first statement that reads that is refused; the text is the same.
    let text = matches!(e, rusqlite::Error::SqliteFailure(_, Some(text)) if text == "not authorized");
    text || e.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied)
}
