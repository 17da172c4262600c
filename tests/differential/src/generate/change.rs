//! Schema changes, one at a time and in the sequences that migrations consist of.

use harness::rusqlite::version_number;
use harness::Sql;

use super::look::{self, quote, Table};
use super::{schema, texts, value, Generator, TABLES_MAX};
use crate::habits::Habit;
use crate::program::Actor;
use crate::run::shells_are_alike;

/// How many sequences there are.
pub(super) const SEQUENCES: u64 = 9;

/// From this version on a column that is added with DEFAULT true is of its type in the rows that are there; 3.40 is older.
const SHOWS_TEXT: i32 = 3_054_000;

impl Generator {
    pub(super) fn new_table(&mut self, actor: Actor) {
        let name = schema::table_name(&mut self.d, self.taste);
        let parents: Vec<Table> = self.tables(actor).into_iter().filter(|t| !t.is_view).collect();
        let sql = schema::create_table(&mut self.d, self.taste, &name, &parents);
        self.try_on(actor, &sql);
    }

    fn some_table(&mut self, actor: Actor) -> Option<Table> {
        let mut tables = self.tables(actor);
        tables.retain(|t| !t.is_view);
        if tables.is_empty() {
            return None;
        }
        let at = self.d.below(tables.len() as u64) as usize;
        Some(tables.swap_remove(at))
    }

    fn some_name(&mut self, actor: Actor, kind: &str) -> Option<String> {
        let mut names = look::names(self.shadow.of(actor), kind);
        if names.is_empty() {
            return None;
        }
        let at = self.d.below(names.len() as u64) as usize;
        Some(names.swap_remove(at))
    }

    fn fresh_name(&mut self, kind: &str) -> String {
        self.names += 1;
        if self.d.below(3) == 0 {
            return format!("{kind} {}", self.d.below(3));
        }
        format!("{kind}{}", self.names)
    }

    /// One schema change, or one sequence of them.
    pub(super) fn change(&mut self, actor: Actor) {
        let Some(table) = self.some_table(actor) else { return self.new_table(actor) };
        if self.taste.habit.is_some() && self.d.below(3) == 0 {
            return self.sequence(actor, &table);
        }
        let few = self.tables(actor).len() < TABLES_MAX;
        match self.d.below(40) {
            0..=5 if few => self.new_table(actor),
            0..=5 => drop(self.try_on(actor, &format!("DROP TABLE {}", main(&table)))),
            6..=9 => self.add_column(actor, &table),
            10..=12 => self.rename_column(actor, &table),
            13..=14 => self.drop_column(actor, &table),
            15 => self.rename_table(actor, &table),
            16..=17 => self.index(actor, &table, false),
            18..=21 => self.index(actor, &table, true),
            22..=23 => self.drop_one(actor, "index"),
            24 => self.drop_one(actor, "view"),
            25..=26 => self.drop_one(actor, "trigger"),
            27..=28 => {
                let name = self.fresh_name("view");
                let sql = schema::create_view(&mut self.d, &name, &table);
                self.try_on(actor, &sql);
            }
            29..=32 => self.trigger(actor),
            33 => self.create_as(actor, &table),
            34 => drop(self.try_on(actor, &format!("DROP TABLE {}", main(&table)))),
            _ => self.sequence(actor, &table),
        }
    }

    fn add_column(&mut self, actor: Actor, table: &Table) {
        let name = quote(&schema::column_name(&mut self.d, self.taste));
        let declared = self.d.pick(&["", "TEXT", "INTEGER", "REAL"]).to_string();
        let declared = if table.strict { "ANY".into() } else { declared };
        let plain = table.columns.iter().find(|c| !c.pk && !c.generated);
        let source = plain.map_or_else(|| "7".into(), |c| quote(&c.name));
        let extra = match self.d.below(9) {
            0..=2 if self.taste.quirks => {
                let null = self.d.pick(&["", " NOT NULL"]);
                let default = texts::default(&mut self.d, "b");
                let default = Self::agreed(declared.as_str(), default);
                format!("{null} DEFAULT {default}")
            }
            0..=1 => format!(" DEFAULT {}", Self::agreed(declared.as_str(), self.literal().into())),
            2 => format!(" NOT NULL DEFAULT {}", self.d.below(9)),
            3 => format!(" AS (length({source})) VIRTUAL"),
            4 => " COLLATE NOCASE".into(),
            5 => format!(" CHECK ({name} IS NOT 'never')"),
            _ => String::new(),
        };
        self.try_on(actor, &format!("ALTER TABLE {} ADD COLUMN {name} {declared}{extra}", main(table)));
    }

    /// A default of which rows that are there show the value that new rows get. SQLite 3.40 shows the number 1 where a TEXT column is
    /// added with DEFAULT true, and an integer for a real without a fraction: other values than a newer one, whose DROP COLUMN then
    /// writes its own.
    fn agreed(declared: &str, default: String) -> String {
        match default.to_lowercase().as_str() {
            "true" | "false" if declared == "TEXT" && version_number() < SHOWS_TEXT => "'true'".into(),
            "1e3" | "5." | "-0.0" if !shells_are_alike() => "2.5".into(),
            _ => default,
        }
    }

    /// What ALTER TABLE takes as a default: constants only.
    fn literal(&mut self) -> &'static str {
        ["5", "-1", "'text'", "NULL", "x'00'", "2.5", "''", "-0.0", "'it''s'"][self.d.below(9) as usize]
    }

    fn rename_column(&mut self, actor: Actor, table: &Table) {
        let from = &table.columns[self.d.below(table.columns.len() as u64) as usize].name;
        let to = schema::column_name(&mut self.d, self.taste);
        if self.never_drop.contains(&from.to_lowercase()) {
            self.never_drop.insert(to.to_lowercase());
        }
        self.try_on(actor, &format!("ALTER TABLE {} RENAME COLUMN {} TO {}", main(table), quote(from), quote(&to)));
    }

    fn droppable(&mut self, table: &Table) -> Option<String> {
        let mut columns: Vec<String> = table.columns.iter().map(|c| c.name.clone()).collect();
        columns.retain(|c| !self.never_drop.contains(&c.to_lowercase()));
        if columns.is_empty() {
            return None;
        }
        let at = self.d.below(columns.len() as u64) as usize;
        Some(columns.swap_remove(at))
    }

    fn drop_column(&mut self, actor: Actor, table: &Table) {
        let Some(column) = self.droppable(table) else { return };
        self.try_on(actor, &format!("ALTER TABLE {} DROP COLUMN {}", main(table), quote(&column)));
    }

    fn rename_table(&mut self, actor: Actor, table: &Table) {
        let to = schema::table_name(&mut self.d, self.taste);
        self.try_on(actor, &format!("ALTER TABLE {} RENAME TO {}", main(table), quote(&to)));
    }

    fn index(&mut self, actor: Actor, table: &Table, unique: bool) {
        let name = self.fresh_name("index");
        let (sql, named) = schema::create_index(&mut self.d, self.taste, &name, table, unique);
        if self.try_on(actor, &sql.replace(" INDEX ", " INDEX main.")) && unique {
            self.never_drop.extend(named.iter().map(|n| n.to_lowercase()));
            self.unseen.insert(name);
        }
    }

    fn trigger(&mut self, actor: Actor) {
        let tables = self.tables(actor);
        let triggers = look::names(self.shadow.of(actor), "trigger").len() as u64;
        if triggers >= self.taste.triggers {
            return;
        }
        let mut name = self.fresh_name("trigger");
        if self.taste.quirks && self.d.below(3) == 0 {
            name.clone_from(&tables[self.d.below(tables.len() as u64) as usize].name);
        }
        let table = &tables[self.d.below(tables.len() as u64) as usize];
        let sql = schema::create_trigger(&mut self.d, self.taste, &name, table, &tables);
        self.try_on(actor, &sql);
    }

    fn drop_one(&mut self, actor: Actor, kind: &str) {
        if let Some(name) = self.some_name(actor, kind) {
            // The README: a UNIQUE index that nobody saw takes the rows along that REPLACE deleted under it.
            if self.unseen.contains(&name) {
                if self.shadow.in_transaction().is_some() {
                    return;
                }
                self.flush();
            }
            self.try_on(actor, &format!("DROP {} main.{}", kind.to_uppercase(), quote(&name)));
        }
    }

    fn create_as(&mut self, actor: Actor, table: &Table) {
        let name = quote(&schema::table_name(&mut self.d, self.taste));
        self.try_on(actor, &format!("CREATE TABLE main.{name} AS SELECT * FROM {}", main(table)));
    }

    /// Several statements that belong together, mostly in one transaction.
    fn sequence(&mut self, actor: Actor, table: &Table) {
        let begins = self.shadow.in_transaction().is_none() && self.d.below(4) > 0;
        if begins {
            self.try_on(actor, "BEGIN");
        }
        // Only from the second round on do the texts stay the same.
        let again = self.rotating.clone().filter(|_| self.d.below(2) == 0);
        let again = again.and_then(|name| self.tables(actor).into_iter().find(|t| t.name == name && !t.is_view));
        let any = self.d.below(SEQUENCES);
        match self.taste.habit.filter(|_| self.d.below(2) == 0).unwrap_or(any) {
            0 => self.rebuild(actor, table),
            1 => self.drop_and_create(actor, table),
            2 => self.drop_and_add_column(actor, table),
            3 => self.drop_and_add_another(actor, table),
            4 => self.rotate(actor, again.as_ref().unwrap_or(table)),
            5 => self.brief_index(actor, table),
            6 => self.scratch_table(actor, table),
            7 => self.scratch_index(actor, table),
            _ => self.trade_names(actor, table),
        }
        self.write_to(actor, table);
        if begins {
            let end = if self.d.below(8) == 0 { "ROLLBACK" } else { "COMMIT" };
            self.try_on(actor, end);
        }
    }

    fn write_to(&mut self, actor: Actor, table: &Table) {
        let tables = self.tables(actor);
        if let Some(now) = tables.iter().find(|t| t.name == table.name) {
            let sql = super::write::write(&mut self.d, now, &tables);
            self.try_on(actor, &sql);
        }
    }

    /// The twelve steps: a new table, its rows, the old one gone, the name taken over.
    fn rebuild(&mut self, actor: Actor, table: &Table) {
        self.write_to(actor, table);
        let parents = [table.clone()];
        let sql = schema::create_table(&mut self.d, self.taste, "rebuilt", &parents);
        if !self.try_on(actor, &sql) {
            return;
        }
        let Some(new) = self.tables(actor).into_iter().find(|t| t.name == "rebuilt") else { return };
        let names: Vec<String> = new.writable().iter().map(|c| quote(&c.name)).collect();
        let values: Vec<String> = new
            .writable()
            .iter()
            .map(|c| match table.columns.iter().find(|o| o.name == c.name) {
                Some(same) => quote(&same.name),
                None => value::of_type(&mut self.d, &c.declared),
            })
            .collect();
        let copy = format!(
            "INSERT OR IGNORE INTO main.rebuilt({}) SELECT {} FROM {}",
            names.join(", "),
            values.join(", "),
            main(table)
        );
        self.try_on(actor, &copy);
        if self.try_on(actor, &format!("DROP TABLE {}", main(table))) {
            self.try_on(actor, &format!("ALTER TABLE main.rebuilt RENAME TO {}", table.sql()));
        }
    }

    fn drop_and_create(&mut self, actor: Actor, table: &Table) {
        let text = self.text_of(actor, table);
        if self.try_on(actor, &format!("DROP TABLE {}", main(table))) {
            let same = self.d.below(2) == 0;
            let sql = text.filter(|_| same);
            let sql = sql.unwrap_or_else(|| schema::create_table(&mut self.d, self.taste, &table.name, &[]));
            self.try_on(actor, &sql);
        }
    }

    fn text_of(&mut self, actor: Actor, table: &Table) -> Option<String> {
        let conn = self.shadow.of(actor);
        let query = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1";
        conn.query_row(query, [&table.name], |row| row.get(0)).ok()
    }

    fn drop_and_add_column(&mut self, actor: Actor, table: &Table) {
        let Some(column) = self.droppable(table).map(|c| quote(&c)) else { return };
        if self.try_on(actor, &format!("ALTER TABLE {} DROP COLUMN {column}", main(table))) {
            let declared = if table.strict { "ANY" } else { "" };
            self.try_on(actor, &format!("ALTER TABLE {} ADD COLUMN {column} {declared}", main(table)));
        }
    }

    /// What reads like a renamed column, maybe beside something that is dropped with all that belongs to it.
    fn drop_and_add_another(&mut self, actor: Actor, table: &Table) {
        match self.d.below(4) {
            0 => self.drop_one(actor, "view"),
            1 => {
                if let Some(other) = self.some_table(actor).filter(|other| other.name != table.name) {
                    self.try_on(actor, &format!("DROP TABLE {}", main(&other)));
                }
            }
            _ => {}
        }
        let Some(last) = table.columns.last().filter(|c| !self.never_drop.contains(&c.name.to_lowercase())) else {
            return;
        };
        if self.try_on(actor, &format!("ALTER TABLE {} DROP COLUMN {}", main(table), quote(&last.name))) {
            let name = quote(&schema::column_name(&mut self.d, self.taste));
            self.try_on(actor, &format!("ALTER TABLE {} ADD COLUMN {name} {}", main(table), last.declared));
        }
    }

    /// As logs are rotated: the table goes aside, and one like it takes its place.
    fn rotate(&mut self, actor: Actor, table: &Table) {
        let Some(text) = self.text_of(actor, table) else { return };
        self.try_on(actor, "DROP TABLE IF EXISTS main.rotated");
        if self.try_on(actor, &format!("ALTER TABLE {} RENAME TO rotated", main(table))) {
            self.try_on(actor, &text);
            self.rotating = Some(table.name.clone());
        }
    }

    /// A UNIQUE index for a few statements, maybe beside another change. In a transaction nobody sees it but they, and
    /// none of them may delete rows by it (the README).
    fn brief_index(&mut self, actor: Actor, table: &Table) {
        if self.d.below(2) == 0 {
            if let Some(other) = self.some_table(actor) {
                self.add_column(actor, &other);
            }
        }
        let unseen = self.shadow.in_transaction().is_some();
        let replacing = "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%REPLACE%'";
        if unseen && !self.shadow.of(actor).texts(replacing).is_empty() {
            return;
        }
        let name = self.fresh_name("index");
        let (sql, named) = schema::create_index(&mut self.d, self.taste, &name, table, true);
        if self.try_on(actor, &sql.replace(" INDEX ", " INDEX main.")) {
            self.never_drop.extend(named.iter().map(|n| n.to_lowercase()));
            if !unseen {
                self.flush();
            }
            for _ in 0..2 {
                let tables = self.tables(actor);
                if let Some(now) = tables.iter().find(|t| t.name == table.name) {
                    let sql = super::write::write(&mut self.d, now, &tables);
                    self.try_on(
                        actor,
                        &if unseen { sql.replace("OR REPLACE ", "").replace("REPLACE ", "INSERT ") } else { sql },
                    );
                }
            }
            self.try_on(actor, &format!("DROP INDEX main.{}", quote(&name)));
        }
    }

    /// A table of intermediate results.
    fn scratch_table(&mut self, actor: Actor, table: &Table) {
        if !self.habits.has(Habit::Scratch) {
            return;
        }
        let name = self.d.pick(&["scratch", "_scratch", "tmp_ids"]).to_string();
        let made = if self.d.below(2) == 0 {
            self.try_on(actor, &format!("CREATE TABLE main.{name} AS SELECT * FROM {}", main(table)))
        } else {
            let sql = schema::create_table(&mut self.d, self.taste, &name, &[]);
            self.try_on(actor, &sql)
        };
        if !made {
            return;
        }
        for _ in 0..self.d.below(4) {
            let tables = self.tables(actor);
            let Some(scratch) = tables.iter().find(|t| t.name == name) else { break };
            if self.d.below(3) == 0 {
                self.index(actor, scratch, false);
            } else {
                let sql = super::write::write(&mut self.d, scratch, &tables);
                self.try_on(actor, &sql);
            }
        }
        self.write_to(actor, table);
        self.try_on(actor, &format!("DROP TABLE IF EXISTS main.{name}"));
    }

    /// An index that only speeds up what is done in between.
    fn scratch_index(&mut self, actor: Actor, table: &Table) {
        if !self.habits.has(Habit::Scratch) {
            return;
        }
        let name = self.fresh_name("index");
        let (sql, _) = schema::create_index(&mut self.d, self.taste, &name, table, false);
        if self.try_on(actor, &sql.replace(" INDEX ", " INDEX main.")) {
            for _ in 0..1 + self.d.below(3) {
                self.write_to(actor, table);
            }
            self.try_on(actor, &format!("DROP INDEX IF EXISTS main.{}", quote(&name)));
        }
    }

    fn trade_names(&mut self, actor: Actor, table: &Table) {
        let Some(other) = self.some_table(actor).filter(|other| other.name != table.name) else { return };
        for (from, to) in [(table, "between"), (&other, table.name.as_str())] {
            if !self.try_on(actor, &format!("ALTER TABLE {} RENAME TO {}", main(from), quote(to))) {
                return;
            }
        }
        self.try_on(actor, &format!("ALTER TABLE main.between RENAME TO {}", other.sql()));
    }
}

fn main(table: &Table) -> String {
    format!("main.{}", table.sql())
}
