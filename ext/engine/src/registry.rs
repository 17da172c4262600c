//! What this process has open: connections that loaded the extension, and one publisher or follower a database.
//!
//! Invariants
//! - A connection is here from its loading to its closing: SQLite calls `forget` from within sqlite3_close.
//! - Our own connections are never listed. When the application closes its last connection to a database, the threads of ours
//!   let go of the file before that call returns: nobody has the file open then, and its write-ahead log is where the
//!   application's last close would have brought it.
//! - After a fork the child has none of the threads; what it inherited is dropped without a word to them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use crate::fork;
use crate::publish::{Publisher, Standby};
use crate::replica::Follower;
use crate::sqlite::api::Host;
use crate::sqlite::database::Database;
use crate::sqlite::hooks::Signal;
use crate::sqlite::idle::Background;

#[derive(Default)]
struct Registry {
    connections: HashMap<usize, Option<Database>>,
    signals: HashMap<Database, Arc<Signal>>,
    publishers: HashMap<Database, Arc<Publisher>>,
    standbys: HashMap<Database, Arc<Standby>>,
    /// Publishers that were told to end; while they live they hold the sidecar.
    retired: HashMap<Database, Weak<Publisher>>,
    followers: HashMap<Database, Arc<Follower>>,
    /// Databases whose last connection, one of ours, is closing.
    closing: HashSet<Database>,
    process: u32,
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
            registry.standbys.clear();
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
pub fn signal(database: &Database) -> Arc<Signal> {
    registry().signals.entry(database.clone()).or_default().clone()
}

/// Whether the connection is listed already: loading twice is harmless.
pub fn knows(host: Host) -> bool {
    registry().connections.contains_key(&(host.as_ptr() as usize))
}

/// The database that a connection has open, as it was when the connection was listed.
pub fn database(host: Host) -> Option<Database> {
    let listed = registry().connections.get(&(host.as_ptr() as usize)).cloned();
    listed.unwrap_or_else(|| host.database())
}

/// Lists a connection. It is being opened, and waits here while one of ours closes the file, which takes what closing the
/// application's last connection would have taken.
pub fn remember(host: Host, database: Option<Database>) {
    let mut registry = registry();
    while database.as_ref().is_some_and(|database| registry.closing.contains(database)) {
        registry = CLOSED.wait(registry).unwrap_or_else(PoisonError::into_inner);
    }
    registry.connections.insert(host.as_ptr() as usize, database);
}

/// Closes a connection of one of our threads. When the application has none left on that database it is the last, and does
/// what the application's last would have done: it brings the write-ahead log into the database and removes it.
pub fn close(database: &Database, conn: Background) {
    let _inside = fork::enter();
    let mut listed = registry();
    if listed.connections.values().any(|l| l.as_ref() == Some(database)) {
        return;
    }
    listed.closing.insert(database.clone());
    drop(listed);
    conn.checkpoint_on_close(true);
    drop(conn);
    registry().closing.remove(database);
    CLOSED.notify_all();
}

/// A connection closes. When it was the last of its database in this process, publisher and follower let go of the file before
/// this returns, and end by themselves.
pub fn forget(host: Host) {
    let listed = registry().connections.remove(&(host.as_ptr() as usize));
    let Some(database) = listed.flatten() else { return };
    let is_last = || !registry().connections.values().any(|l| l.as_ref() == Some(&database));
    if !is_last() {
        return;
    }
    // Before the publisher, which it may be just about to start.
    remove_standby(&database).iter().for_each(|standby| standby.end());
    let mut registry = registry();
    if registry.connections.values().any(|l| l.as_ref() == Some(&database)) {
        return;
    }
    let publisher = registry.publishers.remove(&database);
    let follower = registry.followers.remove(&database);
    registry.signals.remove(&database);
    registry.retired.retain(|_, retired| retired.strong_count() > 0);
    registry.retired.extend(publisher.iter().map(|p| (database.clone(), Arc::downgrade(p))));
    drop(registry);
    publisher.iter().for_each(|p| p.retire());
    follower.iter().for_each(|f| f.retire());
    publisher.iter().for_each(|p| p.let_go_of_file());
    follower.iter().for_each(|f| f.let_go_of_file());
}

/// The publisher of a database.
pub fn publisher(database: &Database) -> Option<Arc<Publisher>> {
    registry().publishers.get(database).cloned()
}

/// Whether this process publishes a database, or stands by for that.
pub fn is_for_publishing(database: &Database) -> bool {
    let registry = registry();
    registry.publishers.contains_key(database) || registry.standbys.contains_key(database)
}

/// Whoever stands by for a database.
pub fn standby(database: &Database) -> Option<Arc<Standby>> {
    registry().standbys.get(database).cloned()
}

/// Lists who stands by, unless another call was quicker: then that one is returned.
pub fn add_standby(database: &Database, standby: Arc<Standby>) -> Arc<Standby> {
    registry().standbys.entry(database.clone()).or_insert(standby).clone()
}

/// Takes who stands by off the list.
pub fn remove_standby(database: &Database) -> Option<Arc<Standby>> {
    registry().standbys.remove(database)
}

/// All that stand by.
pub fn standbys() -> Vec<Arc<Standby>> {
    registry().standbys.values().cloned().collect()
}

/// Lists a publisher, unless another call was quicker: then that one is returned.
pub fn add_publisher(database: &Database, publisher: Arc<Publisher>) -> Arc<Publisher> {
    registry().publishers.entry(database.clone()).or_insert(publisher).clone()
}

/// Publishers that are in the way of a new one: one of the same database that was told to end, or has ended by itself, and
/// those of files that were at the same path before. They are off the list then.
pub fn former_publishers(database: &Database) -> Vec<Arc<Publisher>> {
    let mut registry = registry();
    let mut former: Vec<_> =
        registry.retired.remove(database).and_then(|retired| retired.upgrade()).into_iter().collect();
    let in_the_way =
        |d: &Database, p: &Publisher| if d == database { p.has_ended() } else { d.path() == database.path() };
    former.extend(registry.publishers.extract_if(|d, p| in_the_way(d, p)).map(|(_, publisher)| publisher));
    former
}

/// Takes a publisher off the list.
pub fn remove_publisher(database: &Database) -> Option<Arc<Publisher>> {
    registry().publishers.remove(database)
}

/// All publishers.
pub fn publishers() -> Vec<Arc<Publisher>> {
    registry().publishers.values().cloned().collect()
}

/// The follower of a database.
pub fn follower(database: &Database) -> Option<Arc<Follower>> {
    registry().followers.get(database).cloned()
}

/// Lists a follower, unless another call was quicker: then that one is returned.
pub fn add_follower(database: &Database, follower: Arc<Follower>) -> Arc<Follower> {
    registry().followers.entry(database.clone()).or_insert(follower).clone()
}

/// Takes a follower off the list.
pub fn remove_follower(database: &Database) -> Option<Arc<Follower>> {
    registry().followers.remove(database)
}

/// All followers.
pub fn followers() -> Vec<Arc<Follower>> {
    registry().followers.values().cloned().collect()
}
