//! The application's connections to the primary: in this process, in helpers, in stock shells.
//!
//! Invariant: statements of different actors never overlap. A shell is handed its statements without an answer, and has
//! run them before anybody else does anything.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use harness::{Shell, PATIENCE};

use crate::client::{self, Client, Outcome};
use crate::helper::Helper;
use crate::program::Actor;

/// The actors of one run.
pub struct Actors {
    path: PathBuf,
    locals: HashMap<Actor, Client>,
    shells: HashMap<Actor, (Shell, String)>,
    /// By whether they have loaded the extension.
    helpers: HashMap<bool, Helper>,
    opened: HashSet<Actor>,
}

impl Actors {
    /// Nobody yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            locals: HashMap::new(),
            shells: HashMap::new(),
            helpers: HashMap::new(),
            opened: HashSet::new(),
        }
    }

    /// Runs a statement; shells do not say what came of it. `ended`: it ended its transaction on the shadow. What ended it
    /// there ends it here: shells of another version fail otherwise, and would keep their locks.
    pub fn execute(&mut self, actor: Actor, sql: &str, ended: bool) -> Option<(Outcome, String)> {
        self.settle_except(Some(actor));
        let path = &self.path;
        match actor {
            Actor::Shell | Actor::OtherShell => {
                let (_, script) = self.shells.entry(actor).or_insert_with(|| (open_shell(path), String::new()));
                script.push_str(&client::for_shell(sql));
                script.push_str(if ended { "ROLLBACK;\n" } else { "" });
                None
            }
            Actor::Process | Actor::LoadedProcess => {
                let loaded = actor == Actor::LoadedProcess;
                let helper = self.helpers.entry(loaded).or_insert_with(|| Helper::take(loaded));
                if self.opened.insert(actor) {
                    helper.open(actor, path, PATIENCE);
                }
                Some(helper.execute(actor, sql))
            }
            // A reader of SQLite itself that meets a half-written WAL index takes the write lock for a moment.
            Actor::Local | Actor::Thread => {
                let client = self.locals.entry(actor).or_insert_with(|| Client::open(path, PATIENCE));
                Some(if actor == Actor::Thread {
                    std::thread::scope(|scope| scope.spawn(move || client.execute(sql)).join().unwrap())
                } else {
                    client.execute(sql)
                })
            }
        }
    }

    /// Whether an actor of this process has its connection.
    pub fn is_open(&self, actor: Actor) -> bool {
        self.locals.contains_key(&actor)
    }

    /// Lets the shells run what was handed to them.
    pub fn settle(&mut self) {
        self.settle_except(None);
    }

    fn settle_except(&mut self, except: Option<Actor>) {
        for (_, (shell, script)) in self.shells.iter_mut().filter(|(actor, _)| Some(**actor) != except) {
            if !script.is_empty() {
                shell.ask(script.trim_end());
                script.clear();
            }
        }
    }

    /// Closes this process's connections; returns whether nobody else has the file open.
    pub fn close_locals(&mut self) -> bool {
        self.locals.clear();
        self.shells.is_empty() && self.opened.is_empty()
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        self.locals.clear();
        if !std::thread::panicking() {
            self.helpers.drain().for_each(|(loaded, helper)| helper.give_back(loaded));
        }
    }
}

fn open_shell(path: &Path) -> Shell {
    let mut shell = Shell::open(path);
    shell.send(client::OPENING);
    shell.send(";");
    shell
}
