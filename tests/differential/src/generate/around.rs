//! What happens around statements: unfinished SELECTs, backups and restarts, transactions that think, triggers off.

use super::look::{quote, Table};
use super::Generator;
use crate::habits::Habit;
use crate::program::{Actor, Step};

/// Unfinished SELECTs at a time.
const CURSORS_MAX: usize = 4;

impl Generator {
    /// Does something with cursors; returns whether it did.
    pub(super) fn cursor(&mut self, actor: Actor) -> bool {
        if !self.habits.has(Habit::Cursors) || actor.is_shell() || self.d.below(8) > 0 {
            return false;
        }
        let own = self.shadow.cursors().iter().filter(|a| **a == actor).count();
        let what = self.d.below(4);
        let tables = self.tables(actor);
        // SQLite 3.54.1 goes on to use its description of such a table when another of the connection's statements has dropped it (ALTER
        // TABLE of any table): it reads freed memory, without us too (valgrind).
        let is_unsafe = |table: &Table| table.strict && table.columns.iter().any(|c| c.generated);
        let tables: Vec<Table> = match tables.iter().any(is_unsafe) {
            true => tables.into_iter().filter(|t| !t.is_view && !is_unsafe(t)).collect(),
            false => tables,
        };
        match what {
            0..=1 if own < CURSORS_MAX && !tables.is_empty() => {
                let table = &tables[self.d.below(tables.len() as u64) as usize];
                let order = if self.d.below(4) == 0 { " ORDER BY 1" } else { "" };
                self.try_on(actor, &format!(".cursor SELECT * FROM main.{}{order}", quote(&table.name)))
            }
            2 if own > 0 => self.try_on(actor, ".close"),
            _ if own > 0 => self.try_on(actor, ".next"),
            _ => false,
        }
    }

    /// A step for which nobody has a transaction or a SELECT open.
    pub(super) fn at_rest(&mut self, step: Step) {
        for actor in self.shadow.cursors() {
            self.try_on(actor, ".close");
        }
        self.steps.push(step);
    }

    /// A backup, its restoration, or another start; returns whether there was one.
    pub(super) fn save_or_start(&mut self) -> bool {
        if !self.habits.has(Habit::Restore) || self.d.below(12) > 0 {
            return false;
        }
        match self.d.below(8) {
            0..=2 => {
                let published = |step: &Step| matches!(step, Step::Publish | Step::Flush | Step::Check(_));
                if !self.habits.has(Habit::Older) && !self.steps.iter().any(published) {
                    return false;
                }
                self.shadow.backup();
                self.steps.push(Step::Backup);
            }
            3..=5 => self.restore(),
            _ => {
                self.at_rest(Step::Restart);
                self.shadow.close(&[Actor::Local, Actor::Thread]);
            }
        }
        true
    }

    /// A restored database is at odds with its channel until `logos_resync` has looked. What happens before is compared
    /// too, as far as flushing says that all is well.
    fn restore(&mut self) {
        self.at_rest(Step::Restore);
        if !self.shadow.restore() {
            drop(self.steps.pop());
            return;
        }
        self.unseen.clear();
        match self.d.below(4) {
            0 => self.check(),
            1 => self.at_rest(Step::Restart),
            2 => {
                let actor = self.actor();
                self.work(actor);
                let ended = self.shadow.in_transaction();
                if let Some(actor) = ended {
                    self.try_on(actor, "ROLLBACK");
                }
            }
            _ => {}
        }
        if let Some(Step::Restart) = self.steps.last() {
            self.shadow.close(&[Actor::Local, Actor::Thread]);
        }
        self.at_rest(Step::Resync);
    }

    /// A deferred transaction that reads, thinks and writes. Nobody else does anything meanwhile, so that only our own
    /// background work could make it fail. Returns whether there was one.
    pub(super) fn turn(&mut self, actor: Actor) -> bool {
        if !self.habits.has(Habit::Turns) || self.d.below(5) > 0 {
            return false;
        }
        if self.d.below(3) == 0 {
            let patience = self.d.pick(&[".timeout 0", ".timeout 0", ".timeout 30000"]).to_string();
            self.try_on(actor, &patience);
        }
        let tables = self.tables(actor);
        if tables.is_empty() || !self.keys_fit(actor) {
            return true;
        }
        self.try_on(actor, "BEGIN");
        let read = &tables[self.d.below(tables.len() as u64) as usize];
        self.try_on(actor, &format!("SELECT count(*) FROM main.{}", read.sql()));
        for _ in 0..1 + self.d.below(3) {
            match self.d.below(8) {
                0..=1 => {}
                2..=3 => self.steps.push(Step::Think(1 + self.d.below(5))),
                4 => self.steps.push(Step::Think(10 + self.d.below(40))),
                5 => self.steps.push(Step::Flush),
                _ => self.steps.push(Step::Think(0)),
            }
            self.plain_write(actor, &tables);
            // Some statements end their transaction.
            if self.shadow.in_transaction().is_none() {
                return true;
            }
        }
        self.try_on(actor, "COMMIT");
        true
    }

    /// A transaction whose connection has triggers switched off. Returns whether there was one.
    pub(super) fn silent_write(&mut self) -> bool {
        if !self.habits.has(Habit::Silent) || self.d.below(10) > 0 {
            return false;
        }
        let actor = [Actor::Process, Actor::Shell, Actor::Local, Actor::Process][self.d.below(4) as usize];
        let tables: Vec<Table> = self.tables(actor).into_iter().filter(|t| !t.is_view).collect();
        if tables.is_empty() {
            return true;
        }
        self.try_on(actor, ".triggers off");
        self.try_on(actor, "BEGIN");
        for _ in 0..1 + self.d.below(3) {
            self.plain_write(actor, &tables);
        }
        if self.shadow.in_transaction().is_some() {
            self.try_on(actor, "COMMIT");
        }
        self.try_on(actor, ".triggers on");
        true
    }
}
