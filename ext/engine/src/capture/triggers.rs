//! The capture triggers of a table, as text.
//!
//! Invariants (DESIGN I2–I5)
//! - They are built-in SQL only and name nothing of ours but `_logos_log`, so any writer runs them.
//! - For every row that a statement may write, at least one log row carries each key that the row had or has. Too many
//!   keys are harmless, so every doubt is resolved by logging.
//! - They name no column of the table that could be dropped without them, or else the index that they serve.
//! - Their text follows from the table's text, so that `capture` can tell whether they are as they must be. They nest no expressions
//!   deep and join no SELECTs: a writer's connection may have low limits.
//!
//! UPDATE and DELETE are logged BEFORE: an application trigger that cuts the rest short with RAISE cannot hide them.
//! INSERT must be logged AFTER, because an automatic rowid is not known before; likewise the new key of an UPDATE. There
//! ours come before the application's, because SQLite fires the newest first (`capture` sees to that).

use super::replaced::{by_index, Event, Logging};
use crate::catalog::schema::Table;
use crate::catalog::unique::{Columns, Origin};
use crate::catalog::{any_of, quote, OURS};

/// The log, quoted.
pub(super) const LOG: &str = "\"_logos_log\"";

/// One trigger.
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// The statement that makes it.
    pub sql: String,
    /// Whether it logs the row's own key (the others log keys of rows that REPLACE deletes).
    pub core: bool,
}

/// All triggers that a table must carry, for the given id. `has_meaning`: whether SQLite can make sense of a query in which NEW is
/// a row of the table.
pub(super) fn triggers(table: &Table, id: i64, has_meaning: &dyn Fn(&str) -> bool) -> Vec<Trigger> {
    let on = quote(&table.name);
    let make = |name: &str, core: bool, head: String, body: String| Trigger {
        name: format!("{OURS}{id}_{name}"),
        sql: format!("CREATE TRIGGER \"{OURS}{id}_{name}\" {head} BEGIN {body} END"),
        core,
    };
    let log = |row: &str| {
        let columns = (0..table.key.len()).map(|i| format!(",k{i}")).collect::<String>();
        let values = table.key.iter().map(|k| format!(",{row}.{}", quote(k))).collect::<String>();
        format!("INSERT INTO {LOG}(tbl{columns}) VALUES({id}{values});")
    };
    let changed = |k: &String| format!("NEW.{0} IS NOT OLD.{0}", quote(k));
    let rekeyed = any_of(&table.key.iter().map(changed).collect::<Vec<_>>());
    // A statement may set the rowid by a name that is no column of the key.
    let mut aliases: Vec<String> = if table.key_is_rowid { table.rowid_names.clone() } else { Vec::new() };
    aliases.retain(|a| !table.key.contains(a));
    let key_names = names(table.key.iter().chain(&aliases));
    let mut all = vec![
        make("insert", true, format!("AFTER INSERT ON {on}"), log("NEW")),
        make("update", true, format!("BEFORE UPDATE ON {on}"), log("OLD")),
        make("rekey", true, format!("AFTER UPDATE OF {key_names} ON {on} WHEN {rekeyed}"), log("NEW")),
        make("delete", true, format!("BEFORE DELETE ON {on}"), log("OLD")),
    ];
    if table.is_parent {
        // SQLite before 3.54 checks foreign keys between the BEFORE and the AFTER triggers, and may leave '0123' of a key as the
        // number 123 in NEW and OLD, as the child's column would have it. So the key is read where it is still right: in the
        // row itself, else before the check.
        let (time, body) = match table.rowid_names.first() {
            Some(rowid) => ("AFTER", Logging::same_rowid(table, id, rowid).sql()),
            None => ("BEFORE", log("NEW")),
        };
        all.push(make("parent", false, format!("{time} INSERT ON {on}"), body.clone()));
        all.push(make("reparent", false, format!("{time} UPDATE OF {key_names} ON {on}"), body));
    }
    let body = |event: Event| {
        let by_index = table.unique.iter().flat_map(|unique| by_index(table, id, unique, event, has_meaning));
        // A row may also be replaced by its rowid where the key is another one.
        let rowid = table.rowid_names.first().filter(|_| !table.key_is_rowid);
        let by_rowid = rowid.map(|rowid| Logging::same_rowid(table, id, rowid));
        by_index.chain(by_rowid).map(|logging| logging.sql()).collect::<Vec<_>>().join(" ")
    };
    let inserted = body(Event::Insert);
    if !inserted.is_empty() {
        all.push(make("replace", false, format!("BEFORE INSERT ON {on}"), inserted));
    }
    let set = set_for_unique(table);
    let updated = body(Event::Update);
    if !updated.is_empty() && !set.is_empty() {
        let head = format!("BEFORE UPDATE OF {} ON {on}{}", names(set.iter()), loading(table));
        all.push(make("swap", false, head, updated));
    }
    all
}

fn names<'n>(names: impl Iterator<Item = &'n String>) -> String {
    names.map(|n| quote(n)).collect::<Vec<_>>().join(",")
}

/// The columns that a statement must set to change a value in a UNIQUE index, or the rowid. (None, if an index has a constant only.)
fn set_for_unique(table: &Table) -> Vec<String> {
    let named = table.unique.iter().flat_map(|unique| unique.columns());
    let mut set: Vec<String> = Columns(&table.visible).sources(named).iter().map(|c| c.name.clone()).collect();
    let by_rowid = table.unique.iter().flat_map(|unique| &unique.condition).any(|condition| condition.reads_rowid);
    if by_rowid || !table.key_is_rowid || table.integer_key().is_some_and(|key| set.contains(key)) {
        set.extend(table.rowid_names.iter().cloned());
        set.extend(table.integer_key().filter(|key| !set.contains(key)).cloned());
    }
    set
}

/// A condition that always holds and names the columns that indexed generated columns are computed from. Of a BEFORE UPDATE
/// trigger's NEW, SQLite loads only the columns that it names, and computes NEW.g from what is loaded.
fn loading(table: &Table) -> String {
    let columns = Columns(&table.visible);
    let is_generated = |name: &&String| columns.find(name).is_some_and(|c| matches!(c.origin, Origin::Generated(_)));
    let generated = table.unique.iter().flat_map(|unique| unique.columns()).filter(is_generated);
    let sources =
        columns.sources(generated).iter().map(|c| format!("NEW.{}", quote(&c.name))).collect::<Vec<_>>().join(",");
    if sources.is_empty() {
        String::new()
    } else {
        format!(" WHEN ({sources}) IS ({sources})")
    }
}
