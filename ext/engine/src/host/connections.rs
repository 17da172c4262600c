//! The application's connections that have loaded us, from their loading to their closing, each with the file that it had open then.
//!
//! Invariants
//! - Our own connections are never listed.
//! - While one of ours closes a file that the application has no connection to any more, which may write to it, connections being opened wait.

use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use super::api::Host;
use super::database::Database;
use super::fork;
use super::idle::Background;

#[derive(Default)]
struct Listed {
    connections: HashMap<usize, Option<Database>>,
    /// Databases whose last connection, one of ours, is closing.
    closing: HashSet<Database>,
    process: u32,
}

impl Listed {
    fn has(&self, database: &Database) -> bool {
        self.connections.values().any(|listed| listed.as_ref() == Some(database))
    }
}

static LISTED: LazyLock<Mutex<Listed>> = LazyLock::new(Mutex::default);

/// Notified when `closing` lost a database.
static CLOSED: Condvar = Condvar::new();

/// The list, held; a fork waits meanwhile, so that it is not somebody else's in the child.
struct Held {
    listed: MutexGuard<'static, Listed>,
    _inside: fork::Inside,
}

impl Deref for Held {
    type Target = Listed;

    fn deref(&self) -> &Listed {
        &self.listed
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Listed {
        &mut self.listed
    }
}

fn listed() -> Held {
    let _inside = fork::enter();
    let mut listed = LISTED.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if listed.process != process {
        // Who was closing stayed in the parent.
        listed.closing.clear();
        listed.process = process;
    }
    Held { listed, _inside }
}

/// Whether a connection is listed already: loading twice is harmless.
pub fn knows(host: Host) -> bool {
    listed().connections.contains_key(&(host.as_ptr() as usize))
}

/// The database that a connection has open, as it was when the connection was listed.
pub fn database(host: Host) -> Option<Database> {
    let known = listed().connections.get(&(host.as_ptr() as usize)).cloned();
    known.unwrap_or_else(|| host.database())
}

/// Lists a connection. It is being opened, and waits here while one of ours closes the file, which takes what closing the
/// application's last connection would have taken.
pub fn add(host: Host, database: Option<Database>) {
    let mut held = listed();
    while database.as_ref().is_some_and(|database| held.closing.contains(database)) {
        held.listed = CLOSED.wait(held.listed).unwrap_or_else(PoisonError::into_inner);
    }
    held.connections.insert(host.as_ptr() as usize, database);
}

/// Takes a connection off the list: SQLite says so from within sqlite3_close. Returns its database if no other connection has that.
pub fn remove(host: Host) -> Option<Database> {
    let mut held = listed();
    let database = held.connections.remove(&(host.as_ptr() as usize)).flatten()?;
    (!held.has(&database)).then_some(database)
}

/// Does something while no connection to a database can be listed, if none is.
pub fn unless_open<T>(database: &Database, action: impl FnOnce() -> T) -> Option<T> {
    let held = listed();
    (!held.has(database)).then(action)
}

/// Closes a connection of one of our threads. When the application has none left on that database it is the last, and does
/// what the application's last would have done: it brings the write-ahead log into the database and removes it.
pub fn close(database: &Database, conn: Background) {
    let _inside = fork::enter();
    let mut held = listed();
    if held.has(database) {
        return;
    }
    held.closing.insert(database.clone());
    drop(held);
    conn.checkpoint_on_close(true);
    drop(conn);
    listed().closing.remove(database);
    CLOSED.notify_all();
}
