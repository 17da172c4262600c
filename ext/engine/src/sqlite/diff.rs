//! Schema changes: the statements that lead from the last published schema to the present one.
//!
//! Invariants
//! - The statements have been run on an empty copy of the old schema and gave exactly the new one, or they are nothing
//!   but drops and creates.
//! - An ALTER is only chosen where nothing else can have happened to the rows. A table that keeps its triggers under
//!   another name was renamed. For columns, texts alone prove nothing (a dropped and added column may read like a renamed
//!   one), so the schema cookie must have moved by exactly as much as the fewest statements move it: what goes along with
//!   a dropped table costs nothing, and a table that is gone beside one that is new may have cost one rename.
//! - Every other changed table is dropped and made anew, and is named as such: its rows are then sent whole.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::schema::{self, Object};
use super::{connection, quote, sqltext};

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// To be run in order.
    pub statements: Vec<String>,
    /// Tables that come into being empty: all their rows must follow.
    pub remade: HashSet<String>,
    /// How far the application must at least have moved the schema cookie, if the statements were run on a copy.
    pub cookie_moves: Option<i64>,
    /// Tables that the statements rename: present name → former name.
    pub renamed: HashMap<String, String>,
}

/// What is known besides the two texts.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Tables that kept their capture triggers: former name → present name.
    pub same_table: HashMap<String, String>,
    /// How far the schema cookie moved by the application's doing; `None`: not known.
    pub cookie_moved: Option<i64>,
}

/// Compares two schemas.
pub fn change(old: &[Object], new: &[Object], evidence: &Evidence) -> Change {
    let mut plain = drop_and_create(old, new);
    plain.cookie_moves = match plain.statements.is_empty() {
        true => Some(0),
        false => moves(old, &plain.statements).ok().map(|moves| at_least(moves, old, &plain.remade, new)),
    };
    let was = |name: &String| old.iter().any(|o| o.kind == "table" && o.name == *name);
    if plain.statements.is_empty()
        || !plain.remade.iter().any(|name| was(name) || evidence.same_table.values().any(|n| n == name))
    {
        return plain;
    }
    // A copy that cannot be made (a function or module that only the application has) leaves drop and create.
    alter(old, new, evidence).ok().flatten().unwrap_or(plain)
}

/// How far statements move the schema cookie.
fn moves(old: &[Object], statements: &[String]) -> rusqlite::Result<i64> {
    let mut copy = Copy::of(old)?;
    let start = copy.cookie()?;
    statements.iter().try_for_each(|sql| copy.run(sql.clone()))?;
    Ok(copy.cookie()? - start)
}

/// The least that the application can have moved the cookie where our statements move it by `moves`. An existing table that we
/// make anew it may have changed by one ALTER, whatever depends on it included; a rename is one step where we take two.
fn at_least(moves: i64, old: &[Object], remade: &HashSet<String>, new: &[Object]) -> i64 {
    if old.iter().any(|o| o.kind == "table" && remade.contains(&o.name)) {
        return 1;
    }
    let without = |of: &[Object], others: &[Object]| {
        let is_in = |o: &Object| others.iter().any(|other| other.kind == "table" && other.name == o.name);
        of.iter().filter(|o| o.kind == "table" && !is_in(o)).count() as i64
    };
    moves - without(old, new).min(without(new, old))
}

/// Without any ALTER.
fn drop_and_create(old: &[Object], new: &[Object]) -> Change {
    let mut change = Change::default();
    let old_set: HashSet<&Object> = old.iter().collect();
    let new_set: HashSet<&Object> = new.iter().collect();
    let gone = |o: &&Object| !new_set.contains(o);
    let carrier = |o: &&Object| matches!(o.kind.as_str(), "table" | "view");
    let gone_carriers: HashSet<String> =
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
        for kind in ["table", "view", "index", "trigger"] {
            old.iter().filter(|o| o.kind == kind).try_for_each(|o| conn.execute_batch(&o.sql))?;
        }
        Ok(Self { conn, statements: Vec::new() })
    }

    /// Runs a statement and remembers it.
    pub fn run(&mut self, sql: String) -> rusqlite::Result<()> {
        self.conn.execute_batch(&sql)?;
        self.statements.push(sql);
        Ok(())
    }

    /// Whether its schema is this one.
    pub fn has(&self, objects: &[Object]) -> bool {
        same(&self.objects(), objects)
    }

    /// Its schema now.
    fn objects(&self) -> Vec<Object> {
        schema::read(&self.conn).unwrap_or_default()
    }

    fn cookie(&self) -> rusqlite::Result<i64> {
        schema::cookie(&self.conn)
    }

    fn columns(&self, table: &str) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.conn.prepare(&format!("PRAGMA table_xinfo({})", quote(table)))?;
        let names = statement.query_map([], |row| row.get(1))?;
        names.collect()
    }
}

/// With ALTERs, as far as they are certain; `None` where they do not lead to the new schema.
fn alter(old: &[Object], new: &[Object], evidence: &Evidence) -> rusqlite::Result<Option<Change>> {
    let mut copy = Copy::of(old)?;
    let start = copy.cookie()?;
    let renamed: HashMap<String, String> = evidence
        .same_table
        .iter()
        .filter(|(from, to)| from != to)
        .map(|(from, to)| (to.clone(), from.clone()))
        .collect();
    let stays = |o: &Object| new.iter().any(|n| n.kind == o.kind && n.name == o.name);
    let carrier = |o: &Object| old.iter().find(|c| matches!(c.kind.as_str(), "table" | "view") && c.name == o.table);
    let goes_along = |o: &Object| carrier(o).is_some_and(|c| !stays(c) && !evidence.same_table.contains_key(&c.name));
    let vanished = |o: &&Object| o.kind != "table" && !stays(o) && (o.kind == "view" || !goes_along(o));
    for kind in ["trigger", "view", "index"] {
        for object in old.iter().filter(|o| o.kind == kind).filter(vanished) {
            copy.run(drop_statement(object))?;
        }
    }
    for (to, from) in &renamed {
        copy.run(format!("ALTER TABLE {} RENAME TO {}", quote(from), quote(to)))?;
    }
    let renamed_only = copy.statements.clone();
    for table in new.iter().filter(|n| n.kind == "table") {
        let differs =
            copy.objects().into_iter().find(|o| o.kind == "table" && o.name == table.name && o.sql != table.sql);
        if differs.is_some() {
            alter_columns(&mut copy, table)?;
        }
    }
    if copy.statements.len() > renamed_only.len() {
        // Column changes count only if they explain everything, to the last step of the cookie.
        let altered = copy.objects();
        let rest = drop_and_create(&altered, new);
        let complete = rest.remade.is_disjoint(&old.iter().map(|o| o.name.clone()).collect());
        rest.statements.iter().try_for_each(|sql| copy.run(sql.clone()))?;
        let least = at_least(copy.cookie()? - start, &altered, &rest.remade, new);
        if complete && same(&copy.objects(), new) && evidence.cookie_moved == Some(least) {
            return Ok(Some(Change {
                statements: copy.statements,
                remade: rest.remade,
                cookie_moves: Some(least),
                renamed,
            }));
        }
        copy = Copy::of(old)?;
        renamed_only.into_iter().try_for_each(|sql| copy.run(sql))?;
    }
    let altered = copy.objects();
    let rest = drop_and_create(&altered, new);
    rest.statements.iter().try_for_each(|sql| copy.run(sql.clone()))?;
    let cookie_moves = Some(at_least(copy.cookie()? - start, &altered, &rest.remade, new));
    let leads = same(&copy.objects(), new);
    Ok(leads.then_some(Change { statements: copy.statements, remade: rest.remade, cookie_moves, renamed }))
}

fn same(a: &[Object], b: &[Object]) -> bool {
    schema::fingerprint(a) == schema::fingerprint(b)
}

/// The fewest ALTERs that may lead to the new text: columns added at the end, or one dropped, or some renamed in place.
fn alter_columns(copy: &mut Copy, table: &Object) -> rusqlite::Result<()> {
    let after = Copy::of(std::slice::from_ref(table))?.columns(&table.name)?;
    let before = copy.columns(&table.name)?;
    let on = quote(&table.name);
    if before.len() < after.len() && after.starts_with(&before) {
        let Some(definitions) = sqltext::column_definitions(&table.sql) else { return Ok(()) };
        for name in &after[before.len()..] {
            let Some(definition) = definitions.iter().find(|d| d.name == *name).filter(|d| d.can_be_added()) else {
                return Ok(());
            };
            copy.run(format!("ALTER TABLE {on} ADD COLUMN {}", definition.text))?;
        }
    } else if before.len() > after.len() {
        for name in before.iter().filter(|name| !after.contains(name)) {
            copy.run(format!("ALTER TABLE {on} DROP COLUMN {}", quote(name)))?;
        }
    } else if before.len() == after.len() {
        // The new name is written to the schema as the statement had it, in quotes or bare.
        let definitions = sqltext::column_definitions(&table.sql).unwrap_or_default();
        let bare = |name: &str| definitions.iter().any(|d| d.name == name && d.text.starts_with(name));
        for (from, to) in before.iter().zip(&after).filter(|(from, to)| from != to) {
            let written = if bare(to) { to.clone() } else { quote(to) };
            copy.run(format!("ALTER TABLE {on} RENAME COLUMN {} TO {written}", quote(from)))?;
        }
    }
    Ok(())
}
