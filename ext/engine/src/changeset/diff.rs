//! Schema changes: the statements that lead from the last published schema to the present one.
//!
//! Invariants
//! - The statements have been run on an empty copy of the old schema and gave exactly the new one, or they are nothing
//!   but drops and creates.
//! - A table that keeps its triggers is the same table, whatever it is called now. What became of its columns is told by names
//!   and data (`columns`), never by how far the schema cookie moved: that only says whether columns that look untouched are worth a look.
//! - A table whose text differs and whose columns do not (constraints came or went) takes the new text over and keeps its rows.
//! - Every other changed table is dropped and made anew, and is named as such: its rows are then sent whole.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::config::DbConfig;
use rusqlite::Connection;

use super::reset;
use crate::capture::columns::{Columns, Fate};
use crate::catalog::schema::{self, Object};
use crate::catalog::{collation, quote, sqltext};
use crate::host::connection;

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// To be run in order.
    pub statements: Vec<String>,
    /// Tables that come into being empty: all their rows must follow.
    pub remade: BTreeSet<String>,
    /// Tables that look untouched and may not be: all their rows must follow.
    pub unsure: BTreeSet<String>,
    /// Tables that the statements rename: present name → former name.
    pub renamed: BTreeMap<String, String>,
}

/// What is known besides the two texts.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Tables that kept their capture triggers: former name → present name.
    pub same_table: BTreeMap<String, String>,
    /// Of these, by former name: former column → what it is called now, if it is still there.
    pub called: BTreeMap<String, Vec<(String, String)>>,
    /// How far the schema cookie moved by the application's doing; `None`: not known.
    pub cookie_moved: Option<i64>,
}

/// Dropping something and making it again moves the schema cookie by at least this.
const UNSEEN: i64 = 2;

/// Looks whether a row of a table (by its present name) that was not written to holds something else in a column than a literal;
/// `None`: that cannot be told.
pub type Own<'a> = &'a mut dyn FnMut(&str, &str, &str) -> Option<bool>;

/// Whether setting a column of a table back to a literal may meet a UNIQUE index on the replica.
pub type Clash<'a> = &'a dyn Fn(&str, &str, &str) -> bool;

/// Compares two schemas.
pub fn change(old: &[Object], new: &[Object], evidence: &Evidence, own: Own<'_>, clash: Clash<'_>) -> Change {
    if old == new && evidence.cookie_moved.is_some_and(|moved| moved < UNSEEN) {
        return Change::default();
    }
    let tables = tables(old, new, evidence);
    // What else was made or dropped is not counted: objects also come and go because they can be read or not.
    let steps = tables.iter().map(Table::steps).sum::<i64>();
    let spare = evidence.cookie_moved.map_or(i64::MAX, |moved| moved - steps);
    let mut change = Change::default();
    let mut plans = Vec::new();
    let mut resets = Vec::new();
    for table in &tables {
        if table.old == table.new && spare < UNSEEN {
            continue;
        }
        match table.fate(spare, own) {
            Fate::Told { kept, reset } => {
                let name = &table.new.name;
                for column in reset.iter().map(|&i| &table.columns_new[i].name) {
                    match reset::statement(table.new, column) {
                        Some((sql, literal)) if !clash(name, column, &literal) => resets.push((name.clone(), sql)),
                        _ => drop(change.unsure.insert(name.clone())),
                    }
                }
                plans.push(Plan { table, kept });
            }
            Fate::Untold if table.old.sql == table.new.sql => drop(change.unsure.insert(table.new.name.clone())),
            Fate::Untold => {}
        }
    }
    let plain = drop_and_create(old, new);
    let found =
        match plain.remade.iter().any(|name| was_there(old, name) || evidence.same_table.values().any(|n| n == name)) {
            // A copy that cannot be made (a function or module that only the application has) leaves drop and create.
            true => alter(old, new, evidence, plans).unwrap_or(plain),
            false => plain,
        };
    resets.retain(|(name, _)| !found.remade.contains(name) && !change.unsure.contains(name));
    change.statements = found.statements;
    change.statements.extend(resets.into_iter().map(|(_, sql)| sql));
    Change { remade: found.remade, renamed: found.renamed, ..change }
}

fn was_there(old: &[Object], name: &str) -> bool {
    old.iter().any(|o| o.kind == "table" && o.name == *name)
}

/// A column as far as it decides what rows hold. Whether it may be NULL does not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    declared: String,
    default: Option<String>,
    key: i64,
    hidden: i64,
}

fn columns_of(conn: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = conn.prepare(&format!("PRAGMA main.table_xinfo({})", quote(table)))?;
    let columns = statement.query_map([], |row| {
        let (name, declared, default, key, hidden) = (row.get(1)?, row.get(2)?, row.get(4)?, row.get(5)?, row.get(6)?);
        Ok(Column { name, declared, default, key, hidden })
    })?;
    columns.collect()
}

/// A table that is the same one as before.
struct Table<'a> {
    old: &'a Object,
    new: &'a Object,
    columns_old: Vec<Column>,
    columns_new: Vec<Column>,
    names_old: Vec<String>,
    names_new: Vec<String>,
    called: Vec<Option<String>>,
}

/// The tables that are the same as before, as far as their columns can be read.
fn tables<'a>(old: &'a [Object], new: &'a [Object], evidence: &Evidence) -> Vec<Table<'a>> {
    let of = |(from, to): (&String, &String)| {
        let find =
            |of: &'a [Object], name: &str| of.iter().find(|o| o.kind == "table" && !o.is_virtual() && o.name == name);
        let (old, new) = (find(old, from)?, find(new, to)?);
        let read = |object: &Object| columns_of(&Copy::of(std::slice::from_ref(object)).ok()?.conn, &object.name).ok();
        let names = |columns: &[Column]| columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        // Where nothing moved the cookie, hundreds of untouched tables need no copies.
        if old == new && evidence.cookie_moved.is_some_and(|moved| moved < UNSEEN) {
            return None;
        }
        let columns_old = read(old)?;
        let columns_new = if old == new { columns_old.clone() } else { read(new)? };
        let (names_old, names_new) = (names(&columns_old), names(&columns_new));
        let list = evidence.called.get(from).map(Vec::as_slice).unwrap_or_default();
        let now = |name: &String| list.iter().find(|(then, _)| then == name).map(|(_, now)| now.clone());
        let called = names_old.iter().map(now).collect();
        Some(Table { old, new, columns_old, columns_new, names_old, names_new, called })
    };
    evidence.same_table.iter().filter_map(of).collect()
}

impl Table<'_> {
    fn with_columns<T>(&self, f: impl FnOnce(&Columns<'_>) -> T) -> T {
        let alike = |j: usize, i: usize| {
            let (old, new) = (&self.columns_old[j], &self.columns_new[i]);
            Column { name: new.name.clone(), ..old.clone() } == *new
        };
        f(&Columns { old: &self.names_old, called: &self.called, new: &self.names_new, alike: &alike })
    }

    /// How many statements at least have changed it.
    fn steps(&self) -> i64 {
        self.with_columns(|columns| columns.kept().map_or(0, |kept| columns.steps(&kept)))
    }

    fn fate(&self, spare: i64, own: Own<'_>) -> Fate {
        let generated = |i: usize| self.columns_new[i].hidden != 0;
        let mut look = |i: usize| {
            let name = &self.columns_new[i].name;
            // Computed, not stored.
            if generated(i) {
                return Some(false);
            }
            own(&self.new.name, name, &reset::default_of(self.new, name)?)
        };
        let mut may_be_reset = |i: usize, columns: usize| {
            let column = &self.columns_new[i];
            let enough = i64::try_from(columns).is_ok_and(|n| n.saturating_mul(UNSEEN) <= spare);
            enough && column.key == 0 && !generated(i) && reset::leads_back(self.new, &column.name)
        };
        self.with_columns(|columns| columns.fate(&mut may_be_reset, &mut look))
    }
}

/// What is done about one table.
struct Plan<'a> {
    table: &'a Table<'a>,
    kept: Vec<usize>,
}

/// Without any ALTER.
fn drop_and_create(old: &[Object], new: &[Object]) -> Change {
    let mut change = Change::default();
    let old_set: BTreeSet<&Object> = old.iter().collect();
    let new_set: BTreeSet<&Object> = new.iter().collect();
    let gone = |o: &&Object| !new_set.contains(o);
    let carrier = |o: &&Object| matches!(o.kind.as_str(), "table" | "view");
    let gone_carriers: BTreeSet<String> =
        old.iter().filter(|o| carrier(o) && gone(o)).map(|o| o.name.to_ascii_lowercase()).collect();
    // Indexes and triggers go with their table or view; whatever else is gone is dropped by name, dependents first.
    let goes_along = |o: &Object| !carrier(&o) && gone_carriers.contains(&o.table.to_ascii_lowercase());
    for kind in ["trigger", "view", "index", "table"] {
        let dropped = old.iter().filter(|o| o.kind == kind && gone(o) && !goes_along(o));
        change.statements.extend(dropped.map(drop_statement));
    }
    for kind in ["table", "view", "index", "trigger"] {
        for object in new.iter().filter(|o| o.kind == kind) {
            if !old_set.contains(object) || goes_along(object) {
                change.statements.push(object.sql.clone());
                if kind == "table" {
                    change.remade.insert(object.name.clone());
                }
            }
        }
    }
    change
}

fn drop_statement(object: &Object) -> String {
    format!("DROP {} {}", object.kind.to_uppercase(), quote(&object.name))
}

/// An empty database with the old schema, on which candidates are tried.
pub struct Copy {
    conn: Connection,
    statements: Vec<String>,
}

impl Copy {
    /// Makes one.
    pub fn of(old: &[Object]) -> rusqlite::Result<Self> {
        let conn = connection::open_memory().map_err(|_| rusqlite::Error::InvalidQuery)?;
        collation::accept_any(&conn);
        for kind in ["table", "view", "index", "trigger"] {
            old.iter()
                .filter(|o| o.kind == kind)
                .try_for_each(|o| collation::with_stand_ins(&conn, || conn.execute_batch(&o.sql)).map(drop))?;
        }
        Ok(Self { conn, statements: Vec::new() })
    }

    /// Runs a statement and remembers it.
    pub fn run(&mut self, sql: String) -> rusqlite::Result<()> {
        collation::with_stand_ins(&self.conn, || self.conn.execute_batch(&sql))?;
        self.statements.push(sql);
        Ok(())
    }

    /// Runs several or none.
    fn attempt(&mut self, change: impl FnOnce(&mut Self) -> rusqlite::Result<()>) -> rusqlite::Result<bool> {
        let before = self.statements.len();
        self.conn.execute_batch("SAVEPOINT attempt")?;
        let done = change(self).is_ok();
        if !done {
            self.statements.truncate(before);
            self.conn.execute_batch("ROLLBACK TO attempt")?;
        }
        self.conn.execute_batch("RELEASE attempt")?;
        Ok(done)
    }

    /// Whether its schema is this one.
    pub fn has(&self, objects: &[Object]) -> bool {
        same(&self.objects(), objects)
    }

    /// Its schema now.
    fn objects(&self) -> Vec<Object> {
        schema::read(&self.conn).unwrap_or_default()
    }

    fn has_column(&self, table: &str, column: &str) -> bool {
        columns_of(&self.conn, table).is_ok_and(|all| all.iter().any(|c| c.name.eq_ignore_ascii_case(column)))
    }
}

/// With ALTERs, as far as they lead to the new schema. A table that they do not lead to is left to drop and create, and then
/// without ALTERs before that.
fn alter(old: &[Object], new: &[Object], evidence: &Evidence, mut plans: Vec<Plan<'_>>) -> Option<Change> {
    loop {
        let found = try_alter(old, new, evidence, &plans).ok()??;
        let before = plans.len();
        plans.retain(|plan| !found.remade.contains(&plan.table.new.name));
        if plans.len() == before {
            return Some(found);
        }
    }
}

fn try_alter(
    old: &[Object],
    new: &[Object],
    evidence: &Evidence,
    plans: &[Plan<'_>],
) -> rusqlite::Result<Option<Change>> {
    let mut copy = Copy::of(old)?;
    let renamed: BTreeMap<String, String> = evidence
        .same_table
        .iter()
        .filter(|(from, to)| from != to)
        .map(|(from, to)| (to.clone(), from.clone()))
        .collect();
    let stays = |o: &Object| new.iter().any(|n| n.kind == o.kind && n.name == o.name);
    let carrier = |o: &Object| old.iter().find(|c| matches!(c.kind.as_str(), "table" | "view") && c.name == o.table);
    let goes_along = |o: &Object| carrier(o).is_some_and(|c| !stays(c) && !evidence.same_table.contains_key(&c.name));
    // A trigger that goes with its table goes before any table is renamed all the same: it may name what is dropped by then, and
    // SQLite renames nothing while a trigger does. And an index cannot be dropped once its table has another name.
    let stays_for_now = |o: &Object| goes_along(o) && (o.kind == "index" || renamed.is_empty());
    let vanished = |o: &&Object| !stays(o) && (o.kind == "view" || o.is_virtual() || !stays_for_now(o));
    for kind in ["trigger", "view", "index", "table"] {
        let of_kind = old.iter().filter(|o| o.kind == kind && (kind != "table" || o.is_virtual()));
        for object in of_kind.filter(vanished) {
            copy.run(drop_statement(object))?;
        }
    }
    for (to, from) in &renamed {
        copy.run(format!("ALTER TABLE {} RENAME TO {}", quote(from), quote(to)))?;
    }
    for plan in plans {
        copy.attempt(|copy| alter_columns(copy, plan))?;
    }
    for plan in plans {
        let table = plan.table.new;
        if copy.objects().iter().any(|o| o.kind == "table" && o.name == table.name && o.sql != table.sql) {
            copy.attempt(|copy| {
                restate(&copy.conn, &table.name, &table.sql)?;
                copy.statements.push(table.sql.clone());
                Ok(())
            })?;
        }
    }
    let rest = drop_and_create(&copy.objects(), new);
    rest.statements.iter().try_for_each(|sql| copy.run(sql.clone()))?;
    let leads = same(&copy.objects(), new);
    let change = Change { statements: copy.statements, remade: rest.remade, renamed, ..Change::default() };
    Ok(leads.then_some(change))
}

fn same(a: &[Object], b: &[Object]) -> bool {
    schema::fingerprint(a) == schema::fingerprint(b)
}

/// Drops, renames and adds columns.
fn alter_columns(copy: &mut Copy, Plan { table, kept }: &Plan<'_>) -> rusqlite::Result<()> {
    let on = quote(&table.new.name);
    for (_, name) in table.names_old.iter().enumerate().filter(|(j, _)| !kept.contains(j)) {
        copy.run(format!("ALTER TABLE {on} DROP COLUMN {}", quote(name)))?;
    }
    let definitions = sqltext::column_definitions(&table.new.sql).unwrap_or_default();
    // The new name is written to the schema as the statement had it, in quotes or bare.
    let bare = |name: &str| definitions.iter().any(|d| d.name == name && d.text.starts_with(name));
    let rename = |copy: &mut Copy, from: &str, to: &str| {
        let written = if bare(to) { to.to_string() } else { quote(to) };
        copy.run(format!("ALTER TABLE {on} RENAME COLUMN {} TO {written}", quote(from)))
    };
    let mut names: Vec<(String, &str)> = Vec::new();
    for (i, &j) in kept.iter().enumerate().filter(|(i, &j)| table.names_old[j] != table.names_new[*i]) {
        let (from, to) = (&table.names_old[j], table.names_new[i].as_str());
        // Names that were swapped: each steps aside first.
        let taken = kept.iter().any(|&other| other != j && table.names_old[other].eq_ignore_ascii_case(to));
        let aside = format!("_logos_c{i}");
        if taken && !copy.has_column(&table.new.name, &aside) {
            rename(copy, from, &aside)?;
            names.push((aside, to));
        } else {
            names.push((from.clone(), to));
        }
    }
    names.iter().try_for_each(|(from, to)| rename(copy, from, to))?;
    for name in &table.names_new[kept.len()..] {
        let definition = definitions.iter().find(|d| d.name == *name).ok_or(rusqlite::Error::InvalidQuery)?;
        copy.run(format!("ALTER TABLE {on} ADD COLUMN {}", definition.text))?;
    }
    Ok(())
}

/// What decides where a table's values are: its columns, its indexes, what stands behind its brackets.
fn layout(conn: &Connection, table: &str) -> rusqlite::Result<(Vec<Column>, Vec<String>, Option<sqltext::Layout>)> {
    let mut statement = conn.prepare(
        "SELECT printf('%s %d %s %d %d %s %d %s %d', l.name, l.\"unique\", l.origin, l.partial, i.cid, i.name, i.desc, i.coll, i.key) \
         FROM pragma_index_list(?1) AS l, pragma_index_xinfo(l.name) AS i ORDER BY l.name, i.seqno",
    )?;
    let indexes = statement.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let ask = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1";
    let sql: String = conn.query_row(ask, [table], |row| row.get(0))?;
    Ok((columns_of(conn, table)?, indexes, sqltext::layout(&sql)))
}

/// Gives a table another text, with its rows as they are: constraints came or went, which a newer SQLite does by ALTER TABLE
/// and this one may not know. The way is the one that SQLite's page on ALTER TABLE gives for such changes. Refused if anything
/// else comes out than the same columns in the same places.
pub fn restate(conn: &Connection, table: &str, sql: &str) -> rusqlite::Result<()> {
    let before = layout(conn, table)?;
    let cookie = connection::cookie(conn)?;
    let defensive = conn.db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE).unwrap_or(false);
    let set = |on| conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, on).map(drop);
    if defensive {
        set(false)?;
    }
    conn.execute_batch("PRAGMA writable_schema = ON")?;
    let written =
        conn.execute("UPDATE main.sqlite_schema SET sql = ?2 WHERE type = 'table' AND name = ?1", [table, sql]);
    let counted = conn.pragma_update(None, "schema_version", cookie + 1);
    conn.execute_batch("PRAGMA writable_schema = RESET")?;
    if defensive {
        set(true)?;
    }
    counted?;
    match written? == 1 && layout(conn, table)? == before {
        true => Ok(()),
        false => Err(rusqlite::Error::InvalidQuery),
    }
}
