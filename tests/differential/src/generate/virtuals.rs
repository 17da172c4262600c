//! FTS and rtree tables: made, written through, dropped and made again.
//!
//! Not here: FTS tables whose options SQLite reads otherwise than their documentation says (`tests/harness`).

use super::look::{self, quote, Table, Virtual};
use super::{value, Generator};
use crate::habits::Habit;
use crate::program::Actor;

const VIRTUALS_MAX: usize = 3;
const TOKENIZE: [&str; 5] = ["porter", "unicode61", "ascii", "porter ascii", "unicode61"];

impl Generator {
    /// Something with virtual tables.
    pub(super) fn virtual_work(&mut self, actor: Actor) {
        let there = look::virtuals(self.shadow.of(actor));
        if there.is_empty() || (there.len() < VIRTUALS_MAX && self.d.below(8) == 0) {
            return self.new_virtual(actor);
        }
        let one = there[self.d.below(there.len() as u64) as usize].clone();
        match self.d.below(24) {
            0 => drop(self.try_on(actor, &format!("DROP TABLE main.{}", quote(&one.name)))),
            1 => {
                self.try_on(actor, &format!("DROP TABLE main.{}", quote(&one.name)));
                if self.d.below(2) == 0 {
                    self.virtual_write(actor, &one);
                }
                self.try_on(actor, &one.sql);
            }
            2 if self.habits.has(Habit::Misfit) => {
                let to = self.virtual_name();
                self.try_on(actor, &format!("ALTER TABLE main.{} RENAME TO {}", quote(&one.name), quote(&to)));
            }
            _ => self.virtual_write(actor, &one),
        }
    }

    fn virtual_name(&mut self) -> String {
        if self.taste.odd_names && self.d.below(3) == 0 {
            return self.d.pick(&["full text", "fts\"x", "Wörter", "F"]).to_string();
        }
        self.d.pick(&["f", "g", "h", "docs"]).to_string()
    }

    fn new_virtual(&mut self, actor: Actor) {
        let name = self.virtual_name();
        match self.d.below(10) {
            0..=1 => self.rtree(actor, &name),
            2..=4 => self.own_content(actor, &name),
            5..=8 => self.over_a_table(actor, &name),
            _ => self.without_content(actor, &name),
        }
    }

    fn rtree(&mut self, actor: Actor, name: &str) {
        let module = self.d.pick(&["rtree", "rtree_i32", "rtree"]).to_string();
        let more = self.d.pick(&["", ", y0, y1", ", y0, y1, +label", ", +label TEXT, +note"]).to_string();
        self.try_on(actor, &format!("CREATE VIRTUAL TABLE {} USING {module}(id, x0, x1{more})", quote(name)));
    }

    fn module(&mut self) -> &'static str {
        ["fts5", "fts5", "fts5", "fts4", "fts4", "FTS5"][self.d.below(6) as usize]
    }

    /// Options that change what is kept, not whether it can be replicated. FTS5 takes the beginning of a name as well.
    fn options(&mut self, module: &str) -> String {
        let tokenize = self.d.pick(&TOKENIZE).to_string();
        if module.eq_ignore_ascii_case("fts5") {
            match self.d.below(12) {
                2 | 7 if !self.habits.has(Habit::Short) => String::new(),
                0 => format!(", tokenize = '{tokenize}'"),
                1 => ", prefix = '1 2'".into(),
                2 => ", pre=1".into(),
                3 => ", columnsize = 0".into(),
                4 => ", columnsize=\"0\"".into(),
                5 => ", detail = column".into(),
                6 => ", detail=none".into(),
                7 => format!(", tok='{tokenize}'"),
                _ => String::new(),
            }
        } else {
            match self.d.below(10) {
                0 => ", tokenize=porter".into(),
                1 => ", prefix=\"1,2\"".into(),
                2 => ", matchinfo=fts3".into(),
                3 => ", order=desc".into(),
                _ => String::new(),
            }
        }
    }

    fn own_content(&mut self, actor: Actor, name: &str) {
        let module = self.module();
        let columns = self.d.pick(&["a, b", "a", "title, body, note"]);
        let unindexed = match self.d.below(4) {
            0 if module == "fts4" => ", extra, notindexed=extra",
            0 => ", extra UNINDEXED",
            _ => "",
        };
        let options = self.options(module);
        let sql = format!("CREATE VIRTUAL TABLE {} USING {module}({columns}{unindexed}{options})", quote(name));
        self.try_on(actor, &sql);
    }

    fn without_content(&mut self, actor: Actor, name: &str) {
        let text = match self.d.below(5) {
            0 => "fts4(a, b, content=\"\")",
            1 => "fts5(a, b, content='', contentless_delete=1)",
            2 => "fts4(a, b, languageid=\"lid\")",
            3 if self.habits.has(Habit::Short) => "fts5(a, b, con='')",
            _ => "fts5(a, b, content = '')",
        };
        self.try_on(actor, &format!("CREATE VIRTUAL TABLE {} USING {text}", quote(name)));
    }

    /// An index over an ordinary table, with the triggers of the documentation or without any.
    fn over_a_table(&mut self, actor: Actor, name: &str) {
        let tables: Vec<Table> = self.tables(actor).into_iter().filter(|t| !t.is_view && t.rowid.is_some()).collect();
        if tables.is_empty() {
            return;
        }
        let table = &tables[self.d.below(tables.len() as u64) as usize];
        let key = self.alias(actor, table);
        let columns: Vec<String> =
            table.columns.iter().filter(|c| Some(&c.name) != key.as_ref()).take(3).map(|c| c.name.clone()).collect();
        if columns.is_empty() {
            return;
        }
        let module = self.module();
        let names: Vec<String> = columns.iter().map(|c| quote(c)).collect();
        let options = self.options(module);
        let content = table.name.replace('\'', "''");
        let key_option = match &key {
            Some(key) if module != "fts4" => format!(", content_rowid='{}'", key.replace('\'', "''")),
            _ => String::new(),
        };
        let word = if module == "fts4" || !self.habits.has(Habit::Short) {
            "content"
        } else {
            self.d.pick(&["content", "content", "conte"])
        };
        let made = self.try_on(
            actor,
            &format!(
                "CREATE VIRTUAL TABLE {} USING {module}({}, {word}='{content}'{key_option}{options})",
                quote(name),
                names.join(", ")
            ),
        );
        let key = key.map_or_else(|| table.rowid.unwrap_or("rowid").to_string(), |key| quote(&key));
        if made && self.d.below(4) > 0 {
            let sqls = index_triggers(name, table, &names, &key, module != "fts4");
            for sql in sqls {
                self.try_on(actor, &sql);
            }
            self.try_on(actor, &format!("INSERT INTO {0}({0}) VALUES ('rebuild')", quote(name)));
        }
    }

    /// The column that is the table's rowid.
    fn alias(&mut self, actor: Actor, table: &Table) -> Option<String> {
        let keys: Vec<_> = table.columns.iter().filter(|c| c.pk).collect();
        let [key] = keys.as_slice() else { return None };
        let query = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 AND sql NOT LIKE '%DESC%'";
        let plain = self.shadow.of(actor).query_row(query, [&table.name], |row| row.get::<_, String>(0)).is_ok();
        (plain && key.declared.eq_ignore_ascii_case("integer")).then(|| key.name.clone())
    }

    fn virtual_write(&mut self, actor: Actor, one: &Virtual) {
        let sql = if one.is_rtree() { self.rtree_write(one) } else { self.fts_write(one) };
        self.try_on(actor, &sql);
    }

    fn rtree_write(&mut self, one: &Virtual) -> String {
        let name = quote(&one.name);
        let id = self.d.below(12);
        let or = self.d.pick(&["", "OR REPLACE ", "OR IGNORE "]).to_string();
        match self.d.below(10) {
            0..=5 => {
                let mut values = vec![if self.d.below(4) == 0 { "NULL".to_string() } else { id.to_string() }];
                for (i, column) in one.columns.iter().enumerate().skip(1) {
                    values.push(match column.as_str() {
                        "label" | "note" => value::any(&mut self.d),
                        _ if i % 2 == 1 => self.d.below(6).to_string(),
                        _ => (5 + self.d.below(6)).to_string(),
                    });
                }
                format!("INSERT {or}INTO main.{name} VALUES ({})", values.join(", "))
            }
            6 => format!("UPDATE {or}main.{name} SET x1 = x1 + 1 WHERE id % 2 = {}", id % 2),
            7 => format!("UPDATE {or}main.{name} SET id = id + 1 WHERE id = {id}"),
            8 => format!("DELETE FROM main.{name} WHERE id = {id}"),
            _ => format!("DELETE FROM main.{name} WHERE x0 > {}", id % 6),
        }
    }

    fn fts_write(&mut self, one: &Virtual) -> String {
        let name = quote(&one.name);
        let id = 1 + self.d.below(10);
        let columns: Vec<String> = one.columns.iter().map(|c| quote(c)).collect();
        let or = self.d.pick(&["", "", "OR REPLACE ", "OR IGNORE "]).to_string();
        match self.d.below(20) {
            0..=5 => {
                let rows: Vec<String> = (0..1 + self.d.below(3)).map(|_| self.texts(columns.len())).collect();
                format!("INSERT INTO main.{name}({}) VALUES {}", columns.join(", "), rows.join(", "))
            }
            6..=8 => {
                let row = self.texts(columns.len());
                let row = row.trim_start_matches('(');
                format!("INSERT {or}INTO main.{name}(rowid, {}) VALUES ({id}, {row}", columns.join(", "))
            }
            9..=11 => {
                let column = columns[self.d.below(columns.len() as u64) as usize].clone();
                let text = self.sentence();
                format!("UPDATE main.{name} SET {column} = {text} WHERE rowid % 3 = {}", id % 3)
            }
            12 => format!("UPDATE {or}main.{name} SET rowid = rowid + 1 WHERE rowid = {id}"),
            13..=14 => format!("DELETE FROM main.{name} WHERE rowid = {id}"),
            15 => format!("DELETE FROM main.{name} WHERE {name} MATCH '{}'", self.d.pick(&["a", "b", "c", "fox"])),
            16 => format!("DELETE FROM main.{name}"),
            _ => {
                let command = self.d.pick(&["rebuild", "optimize", "optimize", "integrity-check", "delete-all"]);
                format!("INSERT INTO main.{name}({name}) VALUES ('{command}')")
            }
        }
    }

    fn texts(&mut self, columns: usize) -> String {
        let row: Vec<String> = (0..columns).map(|_| self.sentence()).collect();
        format!("({})", row.join(", "))
    }

    fn sentence(&mut self) -> String {
        if self.d.below(6) == 0 {
            return value::any(&mut self.d);
        }
        let words: Vec<&str> = (0..1 + self.d.below(5))
            .map(|_| self.d.pick(&["a", "b", "c", "fox", "foxes", "Größe", "d.", "E"]))
            .collect();
        format!("'{}'", words.join(" "))
    }
}

fn index_triggers(name: &str, table: &Table, columns: &[String], key: &str, fts5: bool) -> Vec<String> {
    let of = |row: &str| columns.iter().map(|c| format!("{row}.{c}")).collect::<Vec<_>>().join(", ");
    let (index, table, list) = (quote(name), table.sql(), columns.join(", "));
    let trigger = |suffix: &str, when: &str, body: String| {
        format!("CREATE TRIGGER {} {when} ON {table} BEGIN {body} END", quote(&format!("{name} {suffix}")))
    };
    let docid = if fts5 { "rowid" } else { "docid" };
    let insert = format!("INSERT INTO {index}({docid}, {list}) VALUES (new.{key}, {});", of("new"));
    if fts5 {
        let delete =
            format!("INSERT INTO {index}({index}, rowid, {list}) VALUES ('delete', old.{key}, {});", of("old"));
        return vec![
            trigger("i", "AFTER INSERT", insert.clone()),
            trigger("d", "AFTER DELETE", delete.clone()),
            trigger("u", "AFTER UPDATE", format!("{delete} {insert}")),
        ];
    }
    let delete = format!("DELETE FROM {index} WHERE docid = old.{key};");
    vec![
        trigger("bu", "BEFORE UPDATE", delete.clone()),
        trigger("bd", "BEFORE DELETE", delete),
        trigger("au", "AFTER UPDATE", insert.clone()),
        trigger("ai", "AFTER INSERT", insert),
    ]
}
