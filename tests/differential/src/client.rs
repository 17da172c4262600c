//! One connection of an application: it runs statements, keeps SELECTs unfinished, changes its own settings.
//!
//! Statements that begin with a dot are for the connection itself:
//! `.cursor SELECT …` begins a SELECT and reads one row; `.next` reads another one; `.close` gives the newest one up;
//! `.triggers off`, `.dqs off` (double-quoted strings), `.timeout 0` are settings. Shells know the last three (`for_shell`).
//!
//! Invariant: a cursor that came to its end, or failed, is gone; so what is counted is what holds a snapshot.

use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

use harness::rusqlite::config::DbConfig;
use harness::rusqlite::{self, ffi};
use harness::sql::text_of;
use harness::{Connection, Sql};

/// What came of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ran to its end; its rows, `changes()` and `last_insert_rowid()`.
    Done(Vec<String>, i64, i64),
    /// It failed with this extended code.
    Failed(i32),
}

impl Outcome {
    /// Its error code, or 0.
    pub fn code(&self) -> i32 {
        match self {
            Self::Done(..) => 0,
            Self::Failed(code) => *code,
        }
    }

    /// The same without `changes()` and `last_insert_rowid()`.
    pub fn rows_only(self) -> Self {
        match self {
            Self::Done(rows, ..) => Self::Done(rows, 0, 0),
            failed => failed,
        }
    }

    /// Whether somebody else's transaction was in the way.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Failed(code) if [ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED].contains(&(code & 0xff)))
    }

    /// Whether it was given up as too long.
    pub fn is_interrupted(&self) -> bool {
        *self == Self::Failed(ffi::SQLITE_INTERRUPT)
    }
}

/// What every connection of an application runs when it is opened.
pub const OPENING: &str = "PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; PRAGMA recursive_triggers = OFF";

/// A SELECT that may not have come to its end.
struct Cursor(*mut ffi::sqlite3_stmt);

// SAFETY: SQLite is compiled with mutexes, and a cursor is used through `&mut Client` only.
unsafe impl Send for Cursor {}

impl Cursor {
    fn open(conn: &Connection, sql: &str) -> Result<Self, i32> {
        let text = CString::new(sql).unwrap();
        let mut statement = std::ptr::null_mut();
        // SAFETY: the handle is open as long as `conn` is borrowed; the text ends with NUL and is not kept.
        let code = unsafe {
            ffi::sqlite3_prepare_v2(conn.handle(), text.as_ptr(), -1, &raw mut statement, std::ptr::null_mut())
        };
        if code == ffi::SQLITE_OK {
            Ok(Self(statement))
        } else {
            Err(code)
        }
    }

    /// Reads a row; false at the end.
    fn next(&mut self) -> Result<bool, i32> {
        // SAFETY: the statement is finalized by `drop` only, which comes before its connection's end.
        match unsafe { ffi::sqlite3_step(self.0) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            code => Err(code),
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // SAFETY: made by `open`, finalized once; NULL does nothing.
        unsafe { ffi::sqlite3_finalize(self.0) };
    }
}

/// A connection and its unfinished SELECTs, which end first.
pub struct Client {
    cursors: Vec<Cursor>,
    /// The connection.
    pub conn: Connection,
}

impl Client {
    /// Opens a connection of the application that waits for others as long as this.
    pub fn open(path: &Path, patience: Duration) -> Self {
        let conn = Connection::open(path).unwrap();
        conn.busy_timeout(patience).unwrap();
        conn.run(OPENING);
        Self { cursors: Vec::new(), conn }
    }

    /// How many SELECTs are unfinished.
    pub fn cursors(&self) -> usize {
        self.cursors.len()
    }

    /// Runs one statement; the error's text as well.
    pub fn execute(&mut self, sql: &str) -> (Outcome, String) {
        if let Some(command) = sql.strip_prefix('.') {
            return self.command(command);
        }
        match rows(&self.conn, sql) {
            Ok(mut rows) => {
                rows.sort();
                (Outcome::Done(rows, self.conn.changes() as i64, self.conn.last_insert_rowid()), String::new())
            }
            Err(error) => {
                let code = error.sqlite_error().map_or(-1, |e| e.extended_code);
                (Outcome::Failed(code), error.to_string())
            }
        }
    }

    fn command(&mut self, command: &str) -> (Outcome, String) {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let done = Ok(());
        let result = match word {
            "cursor" => Cursor::open(&self.conn, rest).and_then(|cursor| {
                self.cursors.push(cursor);
                self.next()
            }),
            "next" => self.next(),
            "close" => {
                self.cursors.pop();
                done
            }
            "timeout" => {
                self.conn.busy_timeout(Duration::from_millis(rest.parse().unwrap())).unwrap();
                done
            }
            "triggers" => self.switch(&[DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER], rest),
            "dqs" => self.switch(&[DbConfig::SQLITE_DBCONFIG_DQS_DML, DbConfig::SQLITE_DBCONFIG_DQS_DDL], rest),
            other => panic!("not a command: .{other}"),
        };
        match result {
            Ok(()) => (Outcome::Done(Vec::new(), 0, 0), String::new()),
            Err(code) => {
                (Outcome::Failed(code), rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).to_string())
            }
        }
    }

    fn next(&mut self) -> Result<(), i32> {
        let Some(cursor) = self.cursors.last_mut() else { return Ok(()) };
        let found = cursor.next();
        if found != Ok(true) {
            self.cursors.pop();
        }
        found.map(drop)
    }

    fn switch(&self, settings: &[DbConfig], to: &str) -> Result<(), i32> {
        for setting in settings {
            self.conn.set_db_config(*setting, to == "on").unwrap();
        }
        Ok(())
    }
}

fn rows(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        // Another connection's schema change may have given it other columns since it was prepared.
        let width = row.as_ref().column_count();
        let values: Vec<String> = (0..width).map(|i| text_of(row.get_ref(i).unwrap())).collect();
        found.push(values.join("|"));
    }
    Ok(found)
}

/// A statement as the stock shell takes it.
pub fn for_shell(sql: &str) -> String {
    match sql.split_once(' ') {
        Some((".triggers", to)) => format!(".dbconfig enable_trigger {to}\n;\n"),
        Some((".dqs", to)) => format!(".dbconfig dqs_dml {to}\n.dbconfig dqs_ddl {to}\n;\n"),
        Some((".timeout", ms)) => format!(".timeout {ms}\n;\n"),
        _ if sql.starts_with('.') => String::new(),
        // No line ends before the semicolon but that of a comment: shells keep it in the schema's text.
        _ => format!("{sql};\n"),
    }
}
