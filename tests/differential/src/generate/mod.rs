//! Makes a program from a seed. Every statement is tried on a shadow first, so that the next one can look at what is
//! there; most statements succeed that way.
//!
//! Invariants
//! - One actor at a time has a transaction open; nobody else writes meanwhile.
//! - Nothing here asks for the time or for random numbers other than the seed's.
//! - What the README names as not possible is not generated: a column that a CREATE UNIQUE INDEX named is never dropped.

mod around;
mod change;
mod look;
mod schema;
mod texts;
mod value;
mod virtuals;
mod write;

use std::collections::HashSet;

use harness::{Dice, Sql, TempDir};

use crate::client::Outcome;
use crate::habits::{Habit, Habits};
use crate::program::{Actor, Program, Step, Which};
use crate::shadow::Shadow;
use look::Table;
use schema::Taste;

/// Makes the program of a seed for these habits.
pub fn program(seed: u64, allowed: Habits) -> Program {
    let mut dice = Dice::new(seed);
    let habits = habits(&mut dice).and(allowed);
    let program = settings(&mut dice);
    let dir = TempDir::new();
    let taste = taste(&mut dice);
    let mut actors = actors(&mut dice);
    if habits.has(Habit::Turns) {
        actors = processes(&mut dice);
    }
    let hooked = |actor: &Actor| matches!(actor, Actor::Local | Actor::Thread);
    let taste = Taste { skipping: actors.iter().all(hooked), quirks: habits.has(Habit::Texts), ..taste };
    let mut generator = Generator {
        shadow: Shadow::limited(dir.path(), &program.settings),
        steps: Vec::new(),
        ddl: 2 + dice.below(10),
        d: dice,
        taste,
        habits,
        actors,
        unseen: HashSet::new(),
        never_drop: HashSet::new(),
        rotating: None,
        ended: false,
        names: 0,
    };
    generator.run();
    Program { steps: generator.steps, ..program }
}

fn settings(d: &mut Dice) -> Program {
    let encoding = match d.below(8) {
        0 => "PRAGMA encoding = 'UTF-16le'; ",
        1 => "PRAGMA encoding = 'UTF-16be'; ",
        _ => "",
    };
    let auto_vacuum = d.pick(&["", "", "PRAGMA auto_vacuum = FULL; ", "PRAGMA auto_vacuum = INCREMENTAL; "]);
    let page_size = d.pick(&["", "", "PRAGMA page_size = 512; ", "PRAGMA page_size = 1024; "]);
    let options = d.pick(&["{}", "{\"batch_ms\":60000}"]);
    Program {
        settings: format!("{encoding}{auto_vacuum}{page_size}").trim().into(),
        options: options.into(),
        steps: Vec::new(),
    }
}

/// The more expensive, the rarer.
fn habits(d: &mut Dice) -> Habits {
    let rates = [
        (Habit::Scratch, 2),
        (Habit::Cursors, 3),
        (Habit::Restore, 4),
        (Habit::Older, 2),
        (Habit::Virtual, 3),
        (Habit::Short, 2),
        (Habit::Misfit, 2),
        (Habit::Texts, 2),
        (Habit::Turns, 6),
        (Habit::Silent, 8),
    ];
    rates.into_iter().fold(Habits::NONE, |some, (habit, rate)| if d.below(rate) == 0 { some.with(habit) } else { some })
}

fn taste(d: &mut Dice) -> Taste {
    Taste {
        unique: [0, 2, 4, 6][d.below(4) as usize],
        foreign: [0, 0, 3, 6][d.below(4) as usize],
        triggers: [0, 0, 2, 4][d.below(4) as usize],
        odd_names: d.below(3) == 0,
        skipping: false,
        quirks: false,
        habit: [None, Some(d.below(change::SEQUENCES))][d.below(2) as usize],
    }
}

/// Every second program has writers without the extension.
fn actors(d: &mut Dice) -> Vec<Actor> {
    let all = [
        vec![Actor::Local],
        vec![Actor::Local, Actor::Thread],
        vec![Actor::Local, Actor::Shell],
        vec![Actor::Local, Actor::Thread, Actor::Shell],
        vec![Actor::Shell],
        vec![Actor::Thread, Actor::Shell, Actor::OtherShell],
        vec![Actor::Local, Actor::Thread],
        vec![Actor::Local],
    ];
    all[d.below(all.len() as u64) as usize].clone()
}

/// Programs in which processes take turns have some that answer.
fn processes(d: &mut Dice) -> Vec<Actor> {
    let all = [
        vec![Actor::Process],
        vec![Actor::LoadedProcess],
        vec![Actor::Process, Actor::LoadedProcess],
        vec![Actor::Local, Actor::Process],
        vec![Actor::Local, Actor::LoadedProcess],
        vec![Actor::Local, Actor::Thread, Actor::Process, Actor::LoadedProcess],
    ];
    all[d.below(all.len() as u64) as usize].clone()
}

struct Generator {
    d: Dice,
    taste: Taste,
    habits: Habits,
    /// Out of 30: how many statements change the schema.
    ddl: u64,
    actors: Vec<Actor>,
    shadow: Shadow,
    steps: Vec<Step>,
    /// Columns that a UNIQUE index has named.
    never_drop: HashSet<String>,
    /// UNIQUE indexes made since the publisher looked last.
    unseen: HashSet<String>,
    /// The table whose former selves are called `rotated`.
    rotating: Option<String>,
    /// A statement took too long: the program ends before it.
    ended: bool,
    names: u32,
}

const TABLES_MAX: usize = 6;

impl Generator {
    fn run(&mut self) {
        let publish_first = self.d.below(2) == 0;
        if publish_first {
            self.steps.push(Step::Publish);
        }
        for pragma in ["recursive_triggers", "foreign_keys"] {
            for actor in self.actors.clone() {
                if self.d.below(2) == 0 {
                    self.try_on(actor, &format!("PRAGMA {pragma} = ON"));
                }
            }
        }
        for actor in self.actors.clone() {
            if self.taste.quirks && self.d.below(4) == 0 {
                self.try_on(actor, ".dqs off");
            }
        }
        for _ in 0..1 + self.d.below(4) {
            let actor = self.actor();
            self.new_table(actor);
        }
        let length = 30 + self.d.below(100) as usize;
        let publish_at = if publish_first { usize::MAX } else { self.d.below(20) as usize };
        for step in 0..length {
            if self.ended {
                return;
            }
            if step == publish_at {
                self.steps.push(Step::Publish);
            }
            self.next();
        }
    }

    fn actor(&mut self) -> Actor {
        self.actors[self.d.below(self.actors.len() as u64) as usize]
    }

    /// Tries a statement; it becomes a step whatever comes of it, unless it could not even be tried. Returns whether it
    /// succeeded.
    fn try_on(&mut self, actor: Actor, sql: &str) -> bool {
        if self.ended {
            return false;
        }
        let (outcome, _) = self.shadow.execute(actor, sql);
        if outcome.is_interrupted() {
            self.ended = true;
            return false;
        }
        if outcome.is_busy() {
            return false;
        }
        self.steps.push(Step::Sql(actor, sql.to_string()));
        matches!(outcome, Outcome::Done(..))
    }

    fn tables(&mut self, actor: Actor) -> Vec<Table> {
        look::tables(self.shadow.of(actor))
    }

    fn next(&mut self) {
        match self.shadow.in_transaction() {
            Some(actor) => self.inside(actor),
            None => self.outside(),
        }
    }

    fn outside(&mut self) {
        let actor = self.actor();
        if self.save_or_start() || self.cursor(actor) || self.turn(actor) || self.silent_write() {
            return;
        }
        match self.d.below(100) {
            0..=13 => {
                let begin = self.d.pick(&["BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT \"outer\""]).to_string();
                self.try_on(actor, &begin);
            }
            14..=21 => self.check(),
            22..=24 => self.flush(),
            25 => self.steps.push(Step::Stop),
            26..=27 => self.at_rest(Step::Publish),
            28..=31 => self.setting(actor),
            _ => self.work(actor),
        }
    }

    fn inside(&mut self, actor: Actor) {
        if self.cursor(actor) {
            return;
        }
        match self.d.below(100) {
            0..=10 => drop(self.try_on(actor, "COMMIT")),
            11..=13 => drop(self.try_on(actor, "ROLLBACK")),
            14..=17 => {
                let name = self.d.pick(&["s1", "s2"]).to_string();
                self.try_on(actor, &format!("SAVEPOINT {name}"));
            }
            18..=23 => {
                let name = self.d.pick(&["s1", "s2", "outer"]);
                let sql = match self.d.below(5) {
                    0..=1 => format!("ROLLBACK TO \"{name}\""),
                    _ => format!("RELEASE \"{name}\""),
                };
                self.try_on(actor, &sql);
            }
            24 => self.check(),
            25 => self.steps.push(Step::Flush),
            _ => self.work(actor),
        }
    }

    fn check(&mut self) {
        let which = match self.d.below(10) {
            0 => Which::Fresh,
            1..=2 => Which::Reopened,
            _ => Which::Same,
        };
        self.unseen.clear();
        self.steps.push(Step::Check(which));
    }

    /// What was committed has been looked at afterwards.
    fn flush(&mut self) {
        self.unseen.clear();
        self.steps.push(Step::Flush);
    }

    fn work(&mut self, actor: Actor) {
        if self.d.below(30) < self.ddl {
            return self.change(actor);
        }
        if self.habits.has(Habit::Virtual) && self.d.below(3) == 0 {
            return self.virtual_work(actor);
        }
        if self.d.below(25) == 0 {
            return self.elsewhere(actor);
        }
        let tables = self.tables(actor);
        if tables.is_empty() {
            return self.new_table(actor);
        }
        if !self.keys_fit(actor) {
            return;
        }
        self.plain_write(actor, &tables);
    }

    fn plain_write(&mut self, actor: Actor, tables: &[Table]) {
        let table = &tables[self.d.below(tables.len() as u64) as usize];
        let sql = write::write(&mut self.d, table, tables);
        self.try_on(actor, &sql);
    }

    /// A foreign key whose parent has no such key fails statements, some of them only where the table has triggers, as
    /// ours are: no such writes. Returns whether all is well.
    fn keys_fit(&mut self, actor: Actor) -> bool {
        let conn = self.shadow.of(actor);
        if conn.int("PRAGMA foreign_keys") == 0 || conn.try_texts("PRAGMA foreign_key_check").is_ok() {
            return true;
        }
        let way_out = if conn.is_autocommit() { "PRAGMA foreign_keys = OFF" } else { "ROLLBACK" };
        self.try_on(actor, way_out);
        false
    }

    /// Settings of a connection or of the file, and the like.
    fn setting(&mut self, actor: Actor) {
        let number = self.d.below(1000);
        let sql = match self.d.below(14) {
            0 => "PRAGMA recursive_triggers = ON".to_string(),
            1 => "PRAGMA recursive_triggers = OFF".into(),
            2 => "PRAGMA foreign_keys = ON".into(),
            3 => "PRAGMA foreign_keys = OFF".into(),
            4 => format!("PRAGMA user_version = {number}"),
            5 => format!("PRAGMA application_id = {number}"),
            6..=8 => "VACUUM".into(),
            9 => "ANALYZE".into(),
            // It would wait for every snapshot.
            10 if !self.shadow.cursors().is_empty() => "REINDEX".into(),
            10 => "PRAGMA wal_checkpoint(TRUNCATE)".into(),
            11 => "PRAGMA incremental_vacuum".into(),
            12 => format!("PRAGMA trusted_schema = {}", number % 2),
            _ => "REINDEX".into(),
        };
        self.try_on(actor, &sql);
    }

    /// Attached and temporary tables: written in the same transactions, never replicated. None has the name of a table
    /// of main: SQLite would then take it for that table when ALTER checks the triggers, anybody's triggers.
    fn elsewhere(&mut self, actor: Actor) {
        let table = format!("temporary {}", self.d.below(3));
        let value = value::any(&mut self.d);
        let on = look::quote(&table);
        match self.d.below(6) {
            0 => drop(self.try_on(actor, "ATTACH ':memory:' AS aux")),
            1 => drop(
                self.try_on(actor, &format!("CREATE TEMP TABLE IF NOT EXISTS {on}(a INTEGER PRIMARY KEY, b UNIQUE)")),
            ),
            2 => drop(self.try_on(actor, &format!("INSERT OR REPLACE INTO temp.{on}(b) VALUES ({value}), (1)"))),
            3 => drop(self.try_on(actor, &format!("CREATE TABLE IF NOT EXISTS aux.{on}(a, b)"))),
            4 => drop(self.try_on(actor, &format!("INSERT INTO aux.{on} VALUES ({value}, 1)"))),
            _ => drop(self.try_on(actor, &format!("DROP TABLE IF EXISTS temp.{on}"))),
        }
    }
}
