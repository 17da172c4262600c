//! What this process has open: connections that loaded the extension, and one publisher or follower a database.
//!
//! Invariants
//! - A connection is here from its loading to its closing: SQLite calls `forget` from within sqlite3_close, and that
//!   waits for the registry lock. Whoever holds the lock may therefore touch the connections listed.
//! - Our own connections are never listed. Those of our threads open within a call of the application, while it has the
//!   file open itself, and close through `close`: SQLite answers BUSY to whoever meets the first opening or the last
//!   closing of a file in WAL mode, and that must not be ours.
//! - After a fork the child has none of the threads; what it inherited is dropped without a word to them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::Connection;

use crate::fork;
use crate::publish::Publisher;
use crate::replica::Follower;
use crate::sqlite::api::{Host, HostLock, TryLock};
use crate::sqlite::hooks::Signal;

#[derive(Default)]
struct Registry {
    connections: HashMap<usize, Listed>,
    signals: HashMap<PathBuf, Arc<Signal>>,
    publishers: HashMap<PathBuf, Arc<Publisher>>,
    /// Publishers that were told to end; while they live they hold the sidecar.
    retired: HashMap<PathBuf, Weak<Publisher>>,
    followers: HashMap<PathBuf, Arc<Follower>>,
    /// Databases whose last connection, one of ours, is closing.
    closing: HashSet<PathBuf>,
    process: u32,
}

struct Listed {
    host: Host,
    path: Option<PathBuf>,
    /// Calls of ours, outside any transaction, that its thread is waiting in.
    waiting: u32,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// Notified when `closing` lost a database.
static CLOSED: Condvar = Condvar::new();

fn registry() -> MutexGuard<'static, Registry> {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if registry.process != process {
        if registry.process != 0 {
            // The threads stayed in the parent; dropping their handles here would join or signal what is not there.
            registry.publishers.drain().for_each(|(_, p)| std::mem::forget(p));
            registry.followers.drain().for_each(|(_, f)| std::mem::forget(f));
            registry.retired.clear();
            registry.closing.clear();
        }
        registry.process = process;
    }
    registry
}

thread_local! {
    /// The registry, held by the thread that forks.
    static HELD: RefCell<Option<MutexGuard<'static, Registry>>> = const { RefCell::new(None) };
}

/// Before a fork: takes the lock, so that it is not somebody else's in the child. Tries until the deadline.
pub fn hold(deadline: Instant) {
    let registry = loop {
        match REGISTRY.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Err(TryLockError::WouldBlock) => return,
            Err(TryLockError::Poisoned(registry)) => break registry.into_inner(),
            Ok(registry) => break registry,
        }
    };
    // What cannot be kept is given back at once.
    let _ = HELD.try_with(|held| held.replace(Some(registry)));
}

/// After a fork, in parent and child.
pub fn release() {
    let _ = HELD.try_with(RefCell::take);
}

/// The signal of a database: shared by the hooks of all its connections and its publisher.
pub fn signal(path: &Path) -> Arc<Signal> {
    registry().signals.entry(path.to_path_buf()).or_default().clone()
}

/// Whether the connection is listed already: loading twice is harmless.
pub fn knows(host: Host) -> bool {
    registry().connections.contains_key(&(host.as_ptr() as usize))
}

/// Lists a connection. It is being opened, and waits here while one of ours closes the file, which takes what closing the
/// application's last connection would have taken.
pub fn remember(host: Host, path: Option<PathBuf>) {
    let mut registry = registry();
    while path.as_ref().is_some_and(|path| registry.closing.contains(path)) {
        registry = CLOSED.wait(registry).unwrap_or_else(PoisonError::into_inner);
    }
    registry.connections.insert(host.as_ptr() as usize, Listed { host, path, waiting: 0 });
}

/// Closes a connection of one of our threads. When the application has none left on that database it is the last, and does
/// what the application's last would have done: it brings the write-ahead log into the database and removes it.
pub fn close(path: &Path, conn: Connection) {
    let _inside = fork::enter();
    let mut listed = registry();
    if listed.connections.values().any(|l| l.path.as_deref() == Some(path)) {
        return;
    }
    listed.closing.insert(path.to_path_buf());
    drop(listed);
    // Should this fail, the log stays where it is, and whoever opens the file next reads it.
    let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    drop(conn);
    registry().closing.remove(path);
    CLOSED.notify_all();
}

/// A connection closes. When it was the last of its database in this process, publisher and follower finish what they
/// have begun and end by themselves; nobody waits for them here.
pub fn forget(host: Host) {
    let mut registry = registry();
    let listed = registry.connections.remove(&(host.as_ptr() as usize));
    let Some(path) = listed.and_then(|l| l.path) else { return };
    if registry.connections.values().any(|l| l.path.as_ref() == Some(&path)) {
        return;
    }
    let publisher = registry.publishers.remove(&path);
    let follower = registry.followers.remove(&path);
    registry.signals.remove(&path);
    registry.retired.retain(|_, retired| retired.strong_count() > 0);
    registry.retired.extend(publisher.iter().map(|p| (path.clone(), Arc::downgrade(p))));
    drop(registry);
    publisher.iter().for_each(|p| p.retire());
    follower.iter().for_each(|f| f.retire());
}

/// The mutexes of all connections of this process to a database, held, with no transaction open on any of them: for as
/// long as this lives, a short write transaction of ours makes none of them BUSY.
///
/// A transaction that only reads counts as well, also that of a statement which is not finished: if it goes on to write,
/// SQLite says BUSY at once when somebody has written meanwhile. Without WAL, a reader would keep us from committing,
/// and we the next reader from reading.
pub struct Quiet {
    _locks: Vec<HostLock>,
    /// Connections without a mutex: nothing keeps them from doing something meanwhile.
    glanced_at: Vec<Host>,
    _registry: MutexGuard<'static, Registry>,
}

impl Quiet {
    /// Whether some connection has no mutex.
    pub fn unsure(&self) -> bool {
        !self.glanced_at.is_empty()
    }

    /// Whether no connection is in a transaction. For one without a mutex that is a glance, and may be over at once.
    pub fn still(&self) -> bool {
        self.glanced_at.iter().all(|host| host.autocommit() && !host.in_transaction())
    }
}

/// Takes them if nobody is busy right now; never waits.
pub fn quiet(path: &Path) -> Option<Quiet> {
    let registry = registry();
    let mut locks = Vec::new();
    let mut glanced_at = Vec::new();
    for listed in registry.connections.values().filter(|l| l.path.as_deref() == Some(path) && l.waiting == 0) {
        let host = listed.host;
        match host.try_lock() {
            TryLock::Busy => return None,
            TryLock::NoMutex => glanced_at.push(host),
            // Between BEGIN and the first statement nothing has been read, and nothing will be before we are done.
            TryLock::Held(_) if host.in_transaction() => return None,
            TryLock::Held(lock) => locks.push(lock),
        }
    }
    let quiet = Quiet { _locks: locks, glanced_at, _registry: registry };
    quiet.still().then_some(quiet)
}

/// A connection whose thread waits in a call of ours, outside any transaction: it counts as quiet, though its mutex is
/// taken. It cannot go on while somebody holds a `Quiet`, since leaving needs the registry lock.
pub struct Waiting(Host);

impl Waiting {
    /// Marks the connection, if it has no transaction open.
    pub fn new(host: Host) -> Option<Self> {
        if host.in_transaction() {
            return None;
        }
        registry().connections.get_mut(&(host.as_ptr() as usize))?.waiting += 1;
        Some(Self(host))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(listed) = registry().connections.get_mut(&(self.0.as_ptr() as usize)) {
            listed.waiting -= 1;
        }
    }
}

/// The publisher of a database.
pub fn publisher(path: &Path) -> Option<Arc<Publisher>> {
    registry().publishers.get(path).cloned()
}

/// Lists a publisher, unless another call was quicker: then that one is returned.
pub fn add_publisher(path: &Path, publisher: Arc<Publisher>) -> Arc<Publisher> {
    registry().publishers.entry(path.to_path_buf()).or_insert(publisher).clone()
}

/// A publisher of the database that was told to end and has not ended yet.
pub fn retired_publisher(path: &Path) -> Option<Arc<Publisher>> {
    registry().retired.remove(path)?.upgrade()
}

/// Takes a publisher off the list.
pub fn remove_publisher(path: &Path) -> Option<Arc<Publisher>> {
    registry().publishers.remove(path)
}

/// All publishers.
pub fn publishers() -> Vec<Arc<Publisher>> {
    registry().publishers.values().cloned().collect()
}

/// The follower of a database.
pub fn follower(path: &Path) -> Option<Arc<Follower>> {
    registry().followers.get(path).cloned()
}

/// Lists a follower, unless another call was quicker: then that one is returned.
pub fn add_follower(path: &Path, follower: Arc<Follower>) -> Arc<Follower> {
    registry().followers.entry(path.to_path_buf()).or_insert(follower).clone()
}

/// Takes a follower off the list.
pub fn remove_follower(path: &Path) -> Option<Arc<Follower>> {
    registry().followers.remove(path)
}

/// All followers.
pub fn followers() -> Vec<Arc<Follower>> {
    registry().followers.values().cloned().collect()
}
