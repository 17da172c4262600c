//! Runs a program on the primary and on its shadow, step by step, and compares both with the replica.
//!
//! Invariants
//! - Statements run one after the other, each on the shadow first; one that has to wait there is left out on the primary.
//! - At the end every open transaction is rolled back, and an existing and a fresh replica are compared.

use std::collections::HashSet;
use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use harness::pair::try_attach;
use harness::rusqlite::ffi;
use harness::{differences, dump_without, Connection, Sql, TempDir};

use crate::actors::Actors;
use crate::client::Outcome;
use crate::program::{Actor, Program, Step, Which};
use crate::shadow::{self, Shadow};
use crate::virtuals;

/// SQLITE_CONSTRAINT_DATATYPE, which ffi does not name for old hosts.
const SQLITE_CONSTRAINT_DATATYPE: i32 = ffi::SQLITE_CONSTRAINT | (12 << 8);

/// How long what is about to happen may take: after the last connection's end the write-ahead log goes, say.
const GONE: Duration = Duration::from_secs(10);

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Publishing, flushing or stopping failed.
    Publish,
    /// A statement did otherwise than on the shadow: the codes of both.
    Outcome(i32, i32),
    /// A statement was in the way of our background work.
    Busy,
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

/// Whether the stock shells have the SQLite that this process hosts.
pub fn shells_are_alike() -> bool {
    *SHELL_VERSION == harness::rusqlite::version()
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
    actors: Actors,
    observer: Connection,
    shadow: Shadow,
    url: Option<String>,
    running: bool,
    /// A backup was restored, and `logos_resync` has not looked since.
    restored: bool,
    /// The schema cookie when it was made, and whether it has brought another schema back.
    saved_at: i64,
    undoes_schema: bool,
    /// Somebody wrote with triggers switched off.
    silent: bool,
    /// Who has triggers switched off on a connection that no hook of ours tells of.
    apart: HashSet<Actor>,
    /// Connections of this process that were opened while it publishes: these have our hooks.
    hooked: HashSet<Actor>,
    /// Whether the shadow is comparable (`is_comparable`), and still is.
    comparing: bool,
    /// Whether a conflict clause or trigger keeps what a failing statement did before.
    any_fail_clause: bool,
    /// Whose `last_insert_rowid()` may be another: VACUUM sets it by the rows it copies, ours among them, and an INSERT
    /// that fails by a foreign key does so before or after the row, depending on whether there are triggers. And see
    /// `has_fts`.
    unsettled: HashSet<Actor>,
    /// Whether there is an FTS table. Before a statement that may be undone alone SQLite has such a table write what its transaction
    /// has gathered (3.40 only FTS5). Any statement on a table whose triggers call a function or may fail is of that kind, and so
    /// is ours. FTS3/4 forgets `last_insert_rowid()` over it; and `changes()` after COMMIT tells what was left to be written.
    has_fts: bool,
    /// Whether a statement may fail once with "no such table", as the README says of SQLite 3.40.
    fails_once: bool,
    /// Who reads, while somebody else has run a statement that changed nothing. With us it may have logged keys all the same (OR IGNORE
    /// of every row), and so committed: who then writes in his old snapshot is told BUSY_SNAPSHOT.
    may_be_stale: HashSet<Actor>,
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
            actors: Actors::new(&primary),
            observer,
            shadow: Shadow::new(dir.path(), &program.settings),
            url: None,
            running: false,
            restored: false,
            saved_at: 0,
            undoes_schema: false,
            silent: false,
            apart: HashSet::new(),
            hooked: HashSet::new(),
            comparing: is_comparable(program),
            any_fail_clause: program.steps.iter().any(|step| matches!(step, Step::Sql(_, sql) if sql.contains("FAIL"))),
            unsettled: HashSet::new(),
            fails_once: may_fail_once(program),
            may_be_stale: HashSet::new(),
            has_fts: program
                .steps
                .iter()
                .any(|step| matches!(step, Step::Sql(_, sql) if sql.to_lowercase().contains("using fts"))),
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
            Step::Think(ms) => {
                self.actors.settle();
                std::thread::sleep(Duration::from_millis(*ms));
                Ok(())
            }
            Step::Restart => self.restart(),
            Step::Backup => {
                self.actors.settle();
                self.shadow.backup();
                self.saved_at = self.cookie();
                shadow::copy(&self.primary, &self.saved());
                Ok(())
            }
            Step::Restore => self.restore(),
            Step::Resync => self.resync(),
        }
    }

    fn sql(&mut self, actor: Actor, sql: &str) -> Checked {
        // A checkpoint that truncates waits for every snapshot.
        if sql.contains("wal_checkpoint") && !self.shadow.cursors().is_empty() {
            return Ok(());
        }
        if self.running && matches!(actor, Actor::Local | Actor::Thread) && !self.actors.is_open(actor) {
            self.hooked.insert(actor);
        }
        if sql == ".triggers off" {
            self.silent = true;
            if !self.hooked.contains(&actor) {
                self.apart.insert(actor);
                // Who reads keeps new tables from being put under capture, and what is not logged there proves nothing.
                self.close_cursors()?;
            }
        }
        // What no hook tells of shows by its commit alone, if nothing else is committed between two looks.
        let apart = self.apart.contains(&actor) && !sql.starts_with('.');
        if apart && self.shadow.in_transaction().is_none() {
            self.flush()?;
        }
        if sql == ".triggers on" {
            self.apart.remove(&actor);
        }
        self.run_on_both(actor, sql)?;
        if apart && self.shadow.in_transaction().is_none() {
            self.flush()?;
        }
        Ok(())
    }

    fn run_on_both(&mut self, actor: Actor, sql: &str) -> Checked {
        let began = !self.shadow.of(actor).is_autocommit();
        let rowid = self.shadow.of(actor).last_insert_rowid();
        let (expected, why) = self.shadow.execute(actor, sql);
        // What waits for nobody is done on both. SQLite 3.40 does so once after a failure that leaves an FTS5 table reading.
        if expected.is_busy() && expected.code() != ffi::SQLITE_BUSY_SNAPSHOT {
            return Ok(());
        }
        // Without triggers such a statement keeps the rows before the one that failed; with any it keeps none.
        self.comparing &= expected.code() != ffi::SQLITE_MISMATCH;
        let ended = began && self.shadow.of(actor).is_autocommit();
        self.note_stale(actor, &expected);
        let Some(mut told) = self.actors.execute(actor, sql, ended) else { return Ok(()) };
        if self.fails_once && expected.code() == 0 && told.1.contains("no such table: main.") {
            told = self.actors.execute(actor, sql, ended).unwrap_or(told);
        }
        let (found, error) = told;
        if ended && !self.comparing {
            self.actors.execute(actor, "ROLLBACK", false);
        }
        self.comparing &= !(self.any_fail_clause && stops_midway(sql, &expected));
        // With triggers the types of a STRICT table are checked before conflicts that OR IGNORE passes over.
        self.comparing &= found.code() != SQLITE_CONSTRAINT_DATATYPE;
        match (&expected, &found) {
            _ if sql.starts_with('.') => {}
            (Outcome::Done(_, _, a), Outcome::Done(_, _, b)) if a == b => drop(self.unsettled.remove(&actor)),
            (Outcome::Done(_, _, a), _) if sql != "VACUUM" && !(began && *a == rowid && self.has_fts) => {}
            _ => drop(self.unsettled.insert(actor)),
        }
        let only_rows = self.has_fts && sql.starts_with("SELECT");
        let (expected, found) = if only_rows { (expected.rows_only(), found.rows_only()) } else { (expected, found) };
        if !self.comparing || comparable(sql, &expected, &found, !self.unsettled.contains(&actor)) {
            return Ok(());
        }
        let busy = found.is_busy() && !expected.is_busy();
        if busy && found.code() == ffi::SQLITE_BUSY_SNAPSHOT && self.may_be_stale.contains(&actor) {
            self.comparing = false;
            return Ok(());
        }
        let kind = if busy { Kind::Busy } else { Kind::Outcome(expected.code(), found.code()) };
        Err((kind, format!("{sql}\n  without us: {expected:?} {why}\n  with us:    {found:?} {error}")))
    }

    fn note_stale(&mut self, actor: Actor, outcome: &Outcome) {
        let (cursors, inside) = (self.shadow.cursors(), self.shadow.in_transaction());
        for other in Actor::ALL {
            let reads = cursors.contains(&other) || inside == Some(other);
            if !reads {
                self.may_be_stale.remove(&other);
            } else if other != actor && !matches!(outcome, Outcome::Done(_, changes, _) if *changes > 0) {
                self.may_be_stale.insert(other);
            }
        }
    }

    fn publish(&mut self) -> Checked {
        self.actors.settle();
        if self.running {
            return Ok(());
        }
        let channel = self.url.clone().unwrap_or_else(|| self.dir.channel());
        if self.url.is_none() && self.shadow.in_transaction().is_some() {
            return Ok(()); // setting up capture needs the write lock
        }
        // It may write, as a statement of the application would: what has read before cannot write afterwards.
        self.close_cursors()?;
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
            // A transaction of the application is in the way, or the file is another one; it is told so.
            Err(_) if self.restored || self.shadow.in_transaction().is_some() => Ok(()),
            Err(e) => Err((Kind::Publish, e.to_string())),
        }
    }

    /// Gives up every unfinished SELECT, here and there.
    fn close_cursors(&mut self) -> Checked {
        self.shadow.cursors().into_iter().try_for_each(|actor| self.sql(actor, ".close"))
    }

    fn saved(&self) -> PathBuf {
        self.dir.file("saved.db")
    }

    /// Whether all is at rest, now at least: nobody is in a transaction, no SELECT is unfinished.
    fn at_rest(&mut self) -> Result<bool, (Kind, String)> {
        self.actors.settle();
        if self.shadow.in_transaction().is_some() {
            return Ok(false);
        }
        self.close_cursors()?;
        Ok(true)
    }

    fn restart(&mut self) -> Checked {
        if !self.at_rest()? {
            return Ok(());
        }
        let here = [Actor::Local, Actor::Thread];
        self.shadow.close(&here);
        here.iter().for_each(|actor| {
            self.apart.remove(actor);
            self.hooked.remove(actor);
        });
        let alone = self.actors.close_locals();
        self.observer = Connection::open_in_memory().unwrap();
        let wal = PathBuf::from(format!("{}-wal", self.primary.display()));
        // Our threads end after the last connection; an application that comes back meanwhile meets them half gone.
        let deadline = Instant::now() + GONE;
        while alone && self.program.steps.len().is_multiple_of(2) && wal.exists() {
            if Instant::now() > deadline {
                return Err((Kind::Primary, "the last connection left a write-ahead log behind".into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.observer = harness::open(&self.primary);
        self.running = false;
        if self.url.is_some() {
            self.publish()?;
        }
        Ok(())
    }

    fn cookie(&self) -> i64 {
        self.shadow.observer.int("PRAGMA schema_version")
    }

    fn restore(&mut self) -> Checked {
        if !self.at_rest()? {
            return Ok(());
        }
        let cookie = self.cookie();
        if self.shadow.restore() {
            self.undoes_schema = cookie != self.saved_at;
            shadow::copy(&self.saved(), &self.primary);
            self.restored = self.url.is_some();
        }
        Ok(())
    }

    fn resync(&mut self) -> Checked {
        if !self.at_rest()? {
            return Ok(());
        }
        self.publish()?;
        if self.running {
            // It refuses while messages are on their way; then flushing may be enough, or it is called again, as it says.
            let deadline = Instant::now() + GONE;
            while let Err(e) = self.observer.try_run("SELECT logos_resync()") {
                if self.observer.try_run("SELECT logos_flush(60)").is_ok() {
                    break;
                }
                if Instant::now() > deadline {
                    return Err((Kind::Publish, e.to_string()));
                }
            }
            self.restored = false;
        }
        Ok(())
    }

    fn stop(&mut self) -> Checked {
        self.actors.settle();
        self.running = false;
        self.observer.try_run("SELECT logos_stop()").map_err(|e| (Kind::Publish, e.to_string()))
    }

    fn flush(&mut self) -> Checked {
        self.publish()?;
        if !self.running {
            return Ok(());
        }
        match self.observer.try_run("SELECT logos_flush(60)") {
            Err(e) if !self.restored => Err((Kind::Publish, e.to_string())),
            _ => Ok(()),
        }
    }

    fn check(&mut self, which: Which) -> Checked {
        self.flush()?;
        if self.comparing {
            let whole = |conn: &Connection| {
                let mut lines = dump_without(conn, &virtuals::unreadable(conn));
                lines.extend(virtuals::answers(conn));
                lines
            };
            same(Kind::Primary, "- without us, + with us", &whole(&self.shadow.observer), &whole(&self.observer))?;
        }
        if !self.running {
            return Ok(());
        }
        // Either it says so, or it is as the channel has it.
        if self.restored && self.observer.try_run("SELECT logos_flush(60)").is_err() {
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
        let compared = compare(&self.observer, replica);
        // Until `logos_resync` nothing tells of a restored backup that undoes what the log does not show.
        if compared.is_err() && self.restored && (self.silent || self.undoes_schema) {
            return Ok(());
        }
        if compared.is_err() && self.silent && self.says_incomplete() {
            // What nobody could have seen, which is said, and there is one call that mends it.
            let mended = self.observer.try_run("SELECT logos_resync(); SELECT logos_flush(60)");
            mended.map_err(|e| (Kind::Publish, e.to_string()))?;
            try_attach(replica, url, None).map_err(|e| (Kind::Apply, e.to_string()))?;
            compare(&self.observer, replica)?;
        } else {
            compared?;
        }
        let integrity = |conn: &Connection| conn.texts("PRAGMA main.integrity_check(5)");
        // As any newcomer reads it: a connection that saw the empty file may go on computing in another encoding.
        let newcomer = Connection::open(replica.path().unwrap()).unwrap();
        let found = integrity(&newcomer);
        if found != ["ok"] && integrity(&self.observer) == ["ok"] {
            return Err((Kind::Integrity, found.join("\n")));
        }
        Ok(())
    }

    fn says_incomplete(&self) -> bool {
        let said = "SELECT coalesce(group_concat(state || ' ' || coalesce(warnings, '')), '') FROM logos_status \
                    WHERE role = 'primary'";
        self.observer.text(said).contains("incomplete")
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
        self.close_cursors()?;
        if self.restored {
            self.resync()?;
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
    let same_version = !program.has_shells() || shells_are_alike();
    // Nobody sees whether a shell's statement failed.
    let seen = !(program.has_shells() && may_fail_once(program));
    same_version && seen && !program.steps.iter().any(recursive)
}

/// The first statement after another connection has changed the schema, where a trigger writes to an FTS5 table.
fn may_fail_once(program: &Program) -> bool {
    let trigger = |step: &Step| matches!(step, Step::Sql(_, sql) if sql.starts_with("CREATE TRIGGER"));
    let fts5 = |step: &Step| matches!(step, Step::Sql(_, sql) if sql.to_lowercase().contains("using fts5"));
    harness::rusqlite::version_number() < MENDED && program.steps.iter().any(trigger) && program.steps.iter().any(fts5)
}

/// The SQLite that does not fail so.
const MENDED: i32 = 3_054_000;

/// Whether a failed statement may have changed some of its rows: nobody says in which order an UPDATE visits them.
fn stops_midway(sql: &str, outcome: &Outcome) -> bool {
    sql.starts_with("UPDATE") && outcome.code() & 0xff == ffi::SQLITE_CONSTRAINT
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

fn compare(primary: &Connection, replica: &Connection) -> Checked {
    let left_out = virtuals::left_out(primary, replica).map_err(|said| (Kind::Replica, said))?;
    let (mut wanted, mut found) = virtuals::compared(primary, replica, &left_out);
    wanted.extend(dump_without(primary, &left_out));
    found.extend(dump_without(replica, &left_out));
    same(Kind::Replica, "- primary, + replica", &wanted, &found)
}

fn same(kind: Kind, signs: &str, first: &[String], second: &[String]) -> Checked {
    let found = differences(first, second);
    if found.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = found.iter().take(12).map(|line| line.chars().take(300).collect()).collect();
    Err((kind, format!("{} lines differ ({signs}):\n  {}", found.len(), shown.join("\n  "))))
}
