//! Who works on which database: publishers, those who stand by, followers, and the signals that the observers of connections raise.
//!
//! Invariants
//! - One of each a database. An engine has one list; a process that loads the extension has one engine.
//! - After a fork the child has none of the threads; what it inherited is dropped without a word to them.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::env::Env;
use super::follower::Follower;
use super::publisher::Publisher;
use super::standby::Standby;
use crate::capture::signal::Signal;
use crate::host::database::Database;
use crate::host::{connections, fork};

/// The workers of one engine.
pub struct Workers {
    /// Clock and randomness of all of them.
    pub env: Arc<dyn Env>,
    lists: Mutex<Lists>,
}

/// The lists behind the lock.
#[derive(Default)]
pub struct Lists {
    signals: HashMap<Database, Arc<Signal>>,
    publishers: HashMap<Database, Arc<Publisher>>,
    standbys: HashMap<Database, Arc<Standby>>,
    /// Publishers that were told to end; while they live they hold the sidecar.
    retired: HashMap<Database, Weak<Publisher>>,
    followers: HashMap<Database, Arc<Follower>>,
    process: u32,
}

/// What is listed, one a database.
pub trait Worker {
    /// The list of its kind.
    fn list(lists: &mut Lists) -> &mut HashMap<Database, Arc<Self>>;
}

impl Worker for Publisher {
    fn list(lists: &mut Lists) -> &mut HashMap<Database, Arc<Self>> {
        &mut lists.publishers
    }
}

impl Worker for Standby {
    fn list(lists: &mut Lists) -> &mut HashMap<Database, Arc<Self>> {
        &mut lists.standbys
    }
}

impl Worker for Follower {
    fn list(lists: &mut Lists) -> &mut HashMap<Database, Arc<Self>> {
        &mut lists.followers
    }
}

/// The lists, held; a fork waits meanwhile.
struct Held<'w> {
    lists: MutexGuard<'w, Lists>,
    _inside: fork::Inside,
}

impl Deref for Held<'_> {
    type Target = Lists;

    fn deref(&self) -> &Lists {
        &self.lists
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Lists {
        &mut self.lists
    }
}

impl Workers {
    /// Nobody yet.
    pub fn new(env: Arc<dyn Env>) -> Arc<Self> {
        Arc::new(Self { env, lists: Mutex::default() })
    }

    fn lists(&self) -> Held<'_> {
        let _inside = fork::enter();
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if lists.process != process {
            if lists.process != 0 {
                // The threads stayed in the parent; dropping their handles here would join or signal what is not there.
                lists.publishers.drain().for_each(|(_, p)| std::mem::forget(p));
                lists.followers.drain().for_each(|(_, f)| std::mem::forget(f));
                lists.standbys.drain().for_each(|(_, s)| std::mem::forget(s));
                lists.retired.clear();
            }
            lists.process = process;
        }
        Held { lists, _inside }
    }

    /// The signal of a database: shared by the observers of all its connections and its publisher.
    pub fn signal(&self, database: &Database) -> Arc<Signal> {
        self.lists().signals.entry(database.clone()).or_default().clone()
    }

    /// The worker of a kind on a database.
    pub fn get<W: Worker>(&self, database: &Database) -> Option<Arc<W>> {
        W::list(&mut self.lists()).get(database).cloned()
    }

    /// Lists a worker, unless another call was quicker: then that one is returned.
    pub fn add<W: Worker>(&self, database: &Database, worker: Arc<W>) -> Arc<W> {
        W::list(&mut self.lists()).entry(database.clone()).or_insert(worker).clone()
    }

    /// Takes a worker off the list.
    pub fn remove<W: Worker>(&self, database: &Database) -> Option<Arc<W>> {
        W::list(&mut self.lists()).remove(database)
    }

    /// All workers of a kind.
    pub fn all<W: Worker>(&self) -> Vec<Arc<W>> {
        W::list(&mut self.lists()).values().cloned().collect()
    }

    /// Whether a database is published here, or somebody stands by for that.
    pub fn is_for_publishing(&self, database: &Database) -> bool {
        let lists = self.lists();
        lists.publishers.contains_key(database) || lists.standbys.contains_key(database)
    }

    /// Publishers that are in the way of a new one: one of the same database that was told to end, or has ended by itself, and
    /// those of files that were at the same path before. They are off the list then.
    pub fn former_publishers(&self, database: &Database) -> Vec<Arc<Publisher>> {
        let mut lists = self.lists();
        let mut former: Vec<_> =
            lists.retired.remove(database).and_then(|retired| retired.upgrade()).into_iter().collect();
        let in_the_way =
            |d: &Database, p: &Publisher| if d == database { p.has_ended() } else { d.path() == database.path() };
        former.extend(lists.publishers.extract_if(|d, p| in_the_way(d, p)).map(|(_, publisher)| publisher));
        former
    }

    /// The application has closed its last connection to a database. Publisher and follower let go of the file before this returns, and
    /// end by themselves: nobody has the file open then, and its write-ahead log is where the application's last close would have brought it.
    pub fn let_go_of(&self, database: &Database) {
        // Before the publisher, which it may be just about to start.
        self.remove::<Standby>(database).iter().for_each(|standby| standby.end());
        let retired = connections::unless_open(database, || {
            let mut lists = self.lists();
            let (publisher, follower) = (lists.publishers.remove(database), lists.followers.remove(database));
            lists.signals.remove(database);
            lists.retired.retain(|_, retired| retired.strong_count() > 0);
            lists.retired.extend(publisher.iter().map(|p| (database.clone(), Arc::downgrade(p))));
            (publisher, follower)
        });
        let Some((publisher, follower)) = retired else { return };
        publisher.iter().for_each(|p| p.retire());
        follower.iter().for_each(|f| f.retire());
        publisher.iter().for_each(|p| p.let_go_of_file());
        follower.iter().for_each(|f| f.let_go_of_file());
    }
}
