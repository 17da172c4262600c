//! Runs a program on the primary and on its shadow, step by step, and compares both with the replica.
//!
//! Invariants
//! - Statements run one after the other, each on the shadow first; one that is BUSY there is left out on the primary.
//! - At the end every open transaction is rolled back, and an existing and a fresh replica are compared.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::LazyLock;

use harness::pair::try_attach;
use harness::rusqlite::ffi;
use harness::{differences, dump, Connection, Shell, Sql, TempDir, PATIENCE};

use crate::program::{Actor, Program, Step, Which};
use crate::shadow::{self, Outcome, Shadow};

/// SQLITE_CONSTRAINT_DATATYPE, which ffi does not name for old hosts.
const SQLITE_CONSTRAINT_DATATYPE: i32 = ffi::SQLITE_CONSTRAINT | (12 << 8);

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Publishing, flushing or stopping failed.
    Publish,
    /// A statement did otherwise than on the shadow: the codes of both.
    Outcome(i32, i32),
    /// The primary holds something else than the shadow.
    Primary,
    /// The replica could not apply a message.
    Apply,
    /// The replica holds something else than the primary.
    Replica,
    /// The replica's file is damaged.
    Integrity,
    /// The tester itself could not go on.
    Panic,
}

/// A difference.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What went wrong.
    pub kind: Kind,
    /// At which step.
    pub step: usize,
    /// In words.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at step {}: {}", self.kind, self.step + 1, self.text)
    }
}

static SHELL_VERSION: LazyLock<String> = LazyLock::new(|| {
    let said = std::process::Command::new("sqlite3").arg("--version").output().expect("the sqlite3 shell").stdout;
    String::from_utf8_lossy(&said).split(' ').next().unwrap_or("").to_string()
});

type Checked = Result<(), (Kind, String)>;

/// Runs a program in a folder of its own.
pub fn run(program: &Program) -> Result<(), Failure> {
    let mut at = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(program);
        for (i, step) in program.steps.iter().enumerate() {
            at = i;
            run.step(step)?;
        }
        run.end()
    }));
    let checked = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err((Kind::Panic, text.unwrap_or("a panic").to_string()))
    });
    checked.map_err(|(kind, text)| Failure { kind, step: at, text })
}

struct Run<'p> {
    program: &'p Program,
    replica: Option<Connection>,
    fresh: u32,
    locals: HashMap<Actor, Connection>,
    shells: HashMap<Actor, (Shell, String)>,
    observer: Connection,
    shadow: Shadow,
    url: Option<String>,
    running: bool,
    /// Whether the shadow is comparable (`is_comparable`), and still is.
    comparing: bool,
    /// Whether a conflict clause or trigger keeps what a failing statement did before.
    any_fail_clause: bool,
    /// Whose `last_insert_rowid()` may be another: VACUUM sets it by the rows it copies, ours among them, and an INSERT
    /// that fails by a foreign key does so before or after the row, depending on whether there are triggers.
    unsettled: HashSet<Actor>,
    primary: PathBuf,
    dir: TempDir,
}

impl<'p> Run<'p> {
    fn new(program: &'p Program) -> Self {
        let dir = TempDir::new();
        let primary = dir.file("primary.db");
        shadow::create(&primary, &program.settings);
        let observer = harness::open(&primary);
        Self {
            program,
            replica: None,
            fresh: 0,
            locals: HashMap::new(),
            shells: HashMap::new(),
            observer,
            shadow: Shadow::new(dir.path(), &program.settings),
            url: None,
            running: false,
            comparing: is_comparable(program),
            any_fail_clause: program.steps.iter().any(|step| matches!(step, Step::Sql(_, sql) if sql.contains("FAIL"))),
            unsettled: HashSet::new(),
            primary,
            dir,
        }
    }

    fn step(&mut self, step: &Step) -> Checked {
        match step {
            Step::Sql(actor, sql) => self.sql(*actor, sql),
            Step::Publish => self.publish(),
            Step::Stop => self.stop(),
            Step::Flush => self.flush(),
            Step::Check(which) => self.check(*which),
        }
    }

    fn sql(&mut self, actor: Actor, sql: &str) -> Checked {
        let began = !self.shadow.of(actor).is_autocommit();
        let (expected, why) = self.shadow.execute(actor, sql);
        if expected.is_busy() {
            return Ok(());
        }
        // Without triggers such a statement keeps the rows before the one that failed; with any it keeps none.
        self.comparing &= expected.code() != ffi::SQLITE_MISMATCH;
        self.settle_except(actor);
        // What ended its transaction there ends it here: shells of another version fail otherwise, and would keep their locks.
        let ended = began && self.shadow.of(actor).is_autocommit();
        if actor.is_shell() {
            let path = &self.primary;
            let (_, script) = self.shells.entry(actor).or_insert_with(|| (open_shell(path), String::new()));
            script.push_str(sql);
            script.push_str(if ended { ";\nROLLBACK;\n" } else { ";\n" });
            return Ok(());
        }
        let path = &self.primary;
        // A reader of SQLite itself that meets a half-written WAL index takes the write lock for a moment.
        let conn = self.locals.entry(actor).or_insert_with(|| shadow::open(path, PATIENCE));
        let (found, error) = if actor == Actor::Thread {
            let conn = &mut *conn;
            std::thread::scope(|scope| scope.spawn(move || shadow::execute(conn, sql)).join().unwrap())
        } else {
            shadow::execute(conn, sql)
        };
        if ended && !self.comparing && !conn.is_autocommit() {
            let _ = conn.execute_batch("ROLLBACK");
        }
        self.comparing &= !(self.any_fail_clause && stops_midway(sql, &expected));
        // With triggers the types of a STRICT table are checked before conflicts that OR IGNORE passes over.
        self.comparing &= found.code() != SQLITE_CONSTRAINT_DATATYPE;
        match (&expected, &found) {
            (Outcome::Done(_, _, a), Outcome::Done(_, _, b)) if a == b => drop(self.unsettled.remove(&actor)),
            (Outcome::Done(..), _) if sql != "VACUUM" => {}
            _ => drop(self.unsettled.insert(actor)),
        }
        if !self.comparing || comparable(sql, &expected, &found, !self.unsettled.contains(&actor)) {
            return Ok(());
        }
        let kind = Kind::Outcome(expected.code(), found.code());
        Err((kind, format!("{sql}\n  without us: {expected:?} {why}\n  with us:    {found:?} {error}")))
    }

    /// Lets the shells run what was handed to them, all but one.
    fn settle_except(&mut self, except: Actor) {
        for (_, (shell, script)) in self.shells.iter_mut().filter(|(actor, _)| **actor != except) {
            if !script.is_empty() {
                shell.ask(script.trim_end());
                script.clear();
            }
        }
    }

    fn settle(&mut self) {
        self.settle_except(Actor::Local);
    }

    fn publish(&mut self) -> Checked {
        self.settle();
        if self.running {
            return Ok(());
        }
        let channel = self.url.clone().unwrap_or_else(|| self.dir.channel());
        if self.url.is_none() && self.shadow.in_transaction().is_some() {
            return Ok(()); // setting up capture needs the write lock
        }
        let published = self.observer.query_row(
            "SELECT logos_publish(?1, ?2)",
            [channel.as_str(), self.program.options.as_str()],
            |row| row.get(0),
        );
        match published {
            Ok(url) => {
                self.url = Some(url);
                self.running = true;
                Ok(())
            }
            // A transaction of the application is in the way; it is told so.
            Err(_) if self.shadow.in_transaction().is_some() => Ok(()),
            Err(e) => Err((Kind::Publish, e.to_string())),
        }
    }

    fn stop(&mut self) -> Checked {
        self.settle();
        self.running = false;
        self.observer.try_run("SELECT logos_stop()").map_err(|e| (Kind::Publish, e.to_string()))
    }

    fn flush(&mut self) -> Checked {
        self.publish()?;
        if !self.running {
            return Ok(());
        }
        self.observer.try_run("SELECT logos_flush(60)").map_err(|e| (Kind::Publish, e.to_string()))
    }

    fn check(&mut self, which: Which) -> Checked {
        self.flush()?;
        let primary = dump(&self.observer);
        if self.comparing {
            same(Kind::Primary, "- without us, + with us", &dump(&self.shadow.observer), &primary)?;
        }
        if !self.running {
            return Ok(());
        }
        let conn;
        let replica = match which {
            Which::Fresh => {
                self.fresh += 1;
                conn = self.open_replica(&format!("fresh-{}.db", self.fresh));
                &conn
            }
            Which::Reopened | Which::Same => {
                if which == Which::Reopened {
                    self.replica = None;
                }
                if self.replica.is_none() {
                    self.replica = Some(self.open_replica("replica.db"));
                }
                self.replica.as_ref().unwrap()
            }
        };
        let url = self.url.as_deref().unwrap();
        try_attach(replica, url, None).map_err(|e| (Kind::Apply, e.to_string()))?;
        // A connection that saw the empty file tells the encoding it found then, until it reads something.
        replica.int("SELECT count(*) FROM sqlite_schema");
        same(Kind::Replica, "- primary, + replica", &primary, &dump(replica))?;
        let integrity = |conn: &Connection| conn.texts("PRAGMA main.integrity_check(5)");
        // As any newcomer reads it: a connection that saw the empty file may go on computing in another encoding.
        let newcomer = Connection::open(replica.path().unwrap()).unwrap();
        let found = integrity(&newcomer);
        if found != ["ok"] && integrity(&self.observer) == ["ok"] {
            return Err((Kind::Integrity, found.join("\n")));
        }
        Ok(())
    }

    fn open_replica(&self, name: &str) -> Connection {
        let conn = harness::open(&self.dir.file(name));
        conn.run("PRAGMA synchronous = OFF");
        conn
    }

    fn end(&mut self) -> Checked {
        for actor in Actor::ALL {
            if !self.shadow.of(actor).is_autocommit() {
                self.sql(actor, "ROLLBACK")?;
            }
        }
        self.check(Which::Same)?;
        self.check(Which::Fresh)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // The threads of the extension end before the folder goes.
        let _ = self.observer.try_run("SELECT logos_stop()");
    }
}

/// Whether SQLite promises that a database with triggers does what one without them does. Shells of another version are
/// not always of the same mind; and where recursive triggers make REPLACE fire any DELETE trigger, it checks UNIQUE
/// indexes once more, which may then fail on the row that is being replaced.
fn is_comparable(program: &Program) -> bool {
    let recursive = |step: &Step| matches!(step, Step::Sql(_, sql) if sql == "PRAGMA recursive_triggers = ON");
    let same_version = !program.has_shells() || *SHELL_VERSION == harness::rusqlite::version();
    same_version && !program.steps.iter().any(recursive)
}

/// Whether a failed statement may have changed some of its rows: nobody says in which order an UPDATE visits them.
fn stops_midway(sql: &str, outcome: &Outcome) -> bool {
    sql.starts_with("UPDATE") && outcome.code() & 0xff == ffi::SQLITE_CONSTRAINT
}

fn open_shell(path: &std::path::Path) -> Shell {
    let mut shell = Shell::open(path);
    shell.send(shadow::OPENING);
    shell.send(";");
    shell
}

/// Whether both did the same, as far as that is promised: `changes()` and such for statements that write rows.
fn comparable(sql: &str, expected: &Outcome, found: &Outcome, rowids: bool) -> bool {
    let writes = ["INSERT", "UPDATE", "DELETE", "REPLACE", "SELECT", "WITH"];
    match (expected, found) {
        (Outcome::Done(..), Outcome::Done(..)) if !writes.iter().any(|word| sql.starts_with(word)) => true,
        // Which of two constraints is found first depends on whether there are triggers.
        (Outcome::Failed(_), Outcome::Failed(code)) => !found.is_busy() || *expected == Outcome::Failed(*code),
        (Outcome::Done(a, b, _), Outcome::Done(c, d, _)) if !rowids => (a, b) == (c, d),
        _ => expected == found,
    }
}

fn same(kind: Kind, signs: &str, first: &[String], second: &[String]) -> Checked {
    let found = differences(first, second);
    if found.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = found.iter().take(12).map(|line| line.chars().take(300).collect()).collect();
    Err((kind, format!("{} lines differ ({signs}):\n  {}", found.len(), shown.join("\n  "))))
}
