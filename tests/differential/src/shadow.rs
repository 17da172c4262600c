//! The shadow: the same statements on a database that is not published, and what came of each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use harness::rusqlite::{self, ffi};
use harness::sql::text_of;
use harness::{Connection, Sql};

use crate::program::Actor;

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

/// Makes the database file.
pub fn create(path: &Path, settings: &str) {
    let conn = Connection::open(path).unwrap();
    conn.run(settings);
    conn.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE first(a); DROP TABLE first");
}

/// Opens a connection of the application that waits for others as long as this.
pub fn open(path: &Path, patience: Duration) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(patience).unwrap();
    conn.run(OPENING);
    conn
}

/// Runs one statement; the error's text as well.
pub fn execute(conn: &Connection, sql: &str) -> (Outcome, String) {
    match try_execute(conn, sql) {
        Ok(mut rows) => {
            rows.sort();
            (Outcome::Done(rows, conn.changes() as i64, conn.last_insert_rowid()), String::new())
        }
        Err(error) => {
            let code = error.sqlite_error().map_or(-1, |e| e.extended_code);
            (Outcome::Failed(code), error.to_string())
        }
    }
}

fn try_execute(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
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

/// The database and a connection for every actor.
pub struct Shadow {
    path: PathBuf,
    actors: HashMap<Actor, Connection>,
    /// Sees what is committed.
    pub observer: Connection,
    looks: Option<Arc<AtomicU32>>,
}

/// Instructions of SQLite's machine between two looks, and looks until a statement counts as too long.
const LOOK: i32 = 2_000;
const LOOKS_MAX: u32 = 150;

impl Shadow {
    /// A new database in this folder.
    pub fn new(folder: &Path, settings: &str) -> Self {
        let path = folder.join("shadow.db");
        create(&path, settings);
        Self { observer: open(&path, Duration::ZERO), path, actors: HashMap::new(), looks: None }
    }

    /// The same, where statements that take too long fail with INTERRUPT.
    pub fn limited(folder: &Path, settings: &str) -> Self {
        Self { looks: Some(Arc::default()), ..Self::new(folder, settings) }
    }

    /// The connection of an actor.
    pub fn of(&mut self, actor: Actor) -> &Connection {
        let (path, looks) = (&self.path, &self.looks);
        self.actors.entry(actor).or_insert_with(|| {
            let mut conn = open(path, Duration::ZERO);
            if let Some(looks) = looks.clone() {
                let look = move || looks.fetch_add(1, Ordering::Relaxed) > LOOKS_MAX;
                conn.progress_handler(LOOK, Some(look)).unwrap();
            }
            conn
        })
    }

    /// Runs one statement as an actor.
    pub fn execute(&mut self, actor: Actor, sql: &str) -> (Outcome, String) {
        if let Some(looks) = &self.looks {
            looks.store(0, Ordering::Relaxed);
        }
        execute(self.of(actor), sql)
    }

    /// The actor that has a transaction open, if any.
    pub fn in_transaction(&self) -> Option<Actor> {
        self.actors.iter().find(|(_, conn)| !conn.is_autocommit()).map(|(actor, _)| *actor)
    }
}
