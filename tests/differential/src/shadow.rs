//! The shadow: the same statements on a database that is not published.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use harness::rusqlite::backup::Backup;
use harness::{Connection, Sql};

use crate::client::{Client, Outcome};
use crate::program::Actor;

/// Makes the database file.
pub fn create(path: &Path, settings: &str) {
    let conn = Connection::open(path).unwrap();
    conn.run(settings);
    conn.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE first(a); DROP TABLE first");
}

/// Copies a database over another one by the backup API, as `.backup` and `.restore` do.
pub fn copy(from: &Path, to: &Path) {
    let (from, mut to) = (harness::open_plain(from), harness::open_plain(to));
    to.run("PRAGMA synchronous = OFF");
    Backup::new(&from, &mut to).unwrap().run_to_completion(1_000, Duration::ZERO, None).unwrap();
}

/// The database and a connection for every actor.
pub struct Shadow {
    path: PathBuf,
    actors: HashMap<Actor, Client>,
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
        let observer = Client::open(&path, Duration::ZERO).conn;
        Self { observer, path, actors: HashMap::new(), looks: None }
    }

    /// The same, where statements that take too long fail with INTERRUPT.
    pub fn limited(folder: &Path, settings: &str) -> Self {
        Self { looks: Some(Arc::default()), ..Self::new(folder, settings) }
    }

    fn client(&mut self, actor: Actor) -> &mut Client {
        let (path, looks) = (&self.path, &self.looks);
        self.actors.entry(actor).or_insert_with(|| {
            let mut client = Client::open(path, Duration::ZERO);
            if let Some(looks) = looks.clone() {
                let look = move || looks.fetch_add(1, Ordering::Relaxed) > LOOKS_MAX;
                client.conn.progress_handler(LOOK, Some(look)).unwrap();
            }
            client
        })
    }

    /// The connection of an actor.
    pub fn of(&mut self, actor: Actor) -> &Connection {
        &self.client(actor).conn
    }

    /// Runs one statement as an actor, which waits for nobody here.
    pub fn execute(&mut self, actor: Actor, sql: &str) -> (Outcome, String) {
        if let Some(looks) = &self.looks {
            looks.store(0, Ordering::Relaxed);
        }
        let sql = if sql.starts_with(".timeout") { ".timeout 0" } else { sql };
        self.client(actor).execute(sql)
    }

    /// The actor that has a transaction open, if any.
    pub fn in_transaction(&self) -> Option<Actor> {
        self.actors.iter().find(|(_, client)| !client.conn.is_autocommit()).map(|(actor, _)| *actor)
    }

    /// The actors that have unfinished SELECTs, once for each.
    pub fn cursors(&self) -> Vec<Actor> {
        let each = |actor| std::iter::repeat_n(actor, self.actors.get(&actor).map_or(0, Client::cursors));
        Actor::ALL.into_iter().flat_map(each).collect()
    }

    /// These actors go, as their process ends.
    pub fn close(&mut self, actors: &[Actor]) {
        self.actors.retain(|actor, _| !actors.contains(actor));
    }

    fn saved(&self) -> PathBuf {
        self.path.with_file_name("shadow-saved.db")
    }

    /// Copies the database aside.
    pub fn backup(&self) {
        copy(&self.path, &self.saved());
    }

    /// Brings the copy back, if there is one; returns whether there is.
    pub fn restore(&self) -> bool {
        let there = self.saved().exists();
        if there {
            copy(&self.saved(), &self.path);
        }
        there
    }
}
