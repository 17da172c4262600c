//! Connections and the few ways in which tests talk to them.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, LoadExtensionGuard};

use crate::files::extension;
use crate::PATIENCE;

/// A connection with the extension loaded, foreign keys on, and a patient busy time-out.
pub fn open(path: &Path) -> Connection {
    open_loading(path, &extension(), None)
}

/// The same with another build of the extension, and its entry point where the file's name does not tell it.
pub fn open_loading(path: &Path, extension: &Path, entry: Option<&str>) -> Connection {
    let conn = open_plain(path);
    // SAFETY: the file loaded is the extension under test, and loading is switched off again by the guard.
    unsafe {
        let _guard = LoadExtensionGuard::new(&conn).unwrap();
        conn.load_extension(extension, entry).unwrap();
    }
    conn
}

/// A connection on which the test does not load the extension.
///
/// Loading registers it for every later connection of the process: a writer that surely is without it is a `Shell`.
pub fn open_plain(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(30)).unwrap();
    conn.run("PRAGMA foreign_keys = ON");
    conn
}

/// How tests talk to a connection. Whatever is not expected panics with the statement and the reason.
pub trait Sql {
    /// Runs every statement of a script to its end; the first error stops it.
    fn try_run(&self, script: &str) -> rusqlite::Result<()>;
    /// The first column of every row of one statement, as text (`NULL` for NULL, blobs in hex).
    fn try_texts(&self, query: &str) -> rusqlite::Result<Vec<String>>;

    /// Runs a script that must succeed.
    fn run(&self, script: &str) {
        self.try_run(script).unwrap_or_else(|error| panic!("{error}\n  in: {script}"));
    }

    /// Runs a script that must fail; returns the error text.
    fn fails(&self, script: &str) -> String {
        match self.try_run(script) {
            Ok(()) => panic!("this succeeded and must not: {script}"),
            Err(error) => error.to_string(),
        }
    }

    /// First column of every row.
    fn texts(&self, query: &str) -> Vec<String> {
        self.try_texts(query).unwrap_or_else(|error| panic!("{error}\n  in: {query}"))
    }

    /// First column of the only row.
    fn text(&self, query: &str) -> String {
        let mut all = self.texts(query);
        assert_eq!(all.len(), 1, "not one row: {query}");
        all.remove(0)
    }

    /// First column of the only row, a number.
    fn int(&self, query: &str) -> i64 {
        let text = self.text(query);
        text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number: {query}"))
    }
}

impl Sql for Connection {
    fn try_run(&self, script: &str) -> rusqlite::Result<()> {
        let mut batch = Batch::new(self, script);
        while let Some(mut statement) = batch.next()? {
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    fn try_texts(&self, query: &str) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.prepare(query)?;
        let rows = statement.query_map([], |row| Ok(text_of(row.get_ref(0)?)))?;
        rows.collect()
    }
}

/// A value as a person would write it.
pub fn text_of(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Blob(bytes) => format!("x'{}'", hex(bytes)),
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for something that must come true; `what` says in the failure what did not.
pub fn wait_until(what: &str, mut come_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !come_true() {
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}
