//! The capture triggers of a table, as text.
//!
//! Invariants (DESIGN I2–I5)
//! - They are built-in SQL only and name nothing of ours but `_logos_log`, so any writer runs them.
//! - For every row that a statement may write, at least one log row carries each key that the row had or has. Too many
//!   keys are harmless, so every doubt is resolved by logging.
//! - They name no column of the table that could be dropped without them, or else the index that they serve.
//!
//! UPDATE and DELETE are logged BEFORE: an application trigger that cuts the rest short with RAISE cannot hide them.
//! INSERT must be logged AFTER, because an automatic rowid is not known before; likewise the new key of an UPDATE. There
//! ours come before the application's, because SQLite fires the newest first (`capture` sees to that).

use super::schema::{Table, Term, Unique};
use super::{literal, quote, sqltext, OURS};

/// The log, quoted.
pub(super) const LOG: &str = "\"_logos_log\"";

/// One trigger.
pub(super) struct Trigger {
    /// Its name.
    pub name: String,
    /// The statement that makes it.
    pub sql: String,
    /// Whether it logs the row's own key (the others log keys of rows that REPLACE deletes).
    pub core: bool,
}

/// All triggers that a table must carry, for the given id.
pub(super) fn triggers(table: &Table, id: i64) -> Vec<Trigger> {
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
    let names = |names: &mut dyn Iterator<Item = &String>| names.map(|n| quote(n)).collect::<Vec<_>>().join(",");
    let rekeyed =
        table.key.iter().map(|k| format!("NEW.{0} IS NOT OLD.{0}", quote(k))).collect::<Vec<_>>().join(" OR ");
    // A statement may set the rowid by a name that is no column of the key.
    let mut aliases: Vec<String> = if table.key_is_rowid { table.rowid_names.clone() } else { Vec::new() };
    aliases.retain(|a| !table.key.contains(a));
    let key_names = names(&mut table.key.iter().chain(&aliases));
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
            Some(rowid) => ("AFTER", log_where(table, id, &format!("{on}.{0} = NEW.{0}", quote(rowid)))),
            None => ("BEFORE", log("NEW")),
        };
        all.push(make("parent", false, format!("{time} INSERT ON {on}"), body.clone()));
        all.push(make("reparent", false, format!("{time} UPDATE OF {key_names} ON {on}"), body));
    }
    let mut clashes: Vec<String> =
        table.unique.iter().filter_map(|unique| clash(&NewRow { table, automatic: false }, unique, id)).collect();
    // A row may also be replaced by its rowid where the key is another one.
    let rowid = table.rowid_names.first().filter(|_| !table.key_is_rowid);
    clashes.extend(rowid.map(|rowid| log_where(table, id, &format!("{on}.{0} = NEW.{0}", quote(rowid)))));
    if !clashes.is_empty() {
        let body = clashes.join(" ");
        let by_key = table.unique.iter().filter(|unique| depends_on_key(table, unique));
        let by_key = by_key.filter_map(|unique| clash(&NewRow { table, automatic: true }, unique, id));
        let inserted = std::iter::once(body.clone()).chain(by_key).collect::<Vec<_>>().join(" ");
        all.push(make("replace", false, format!("BEFORE INSERT ON {on}"), inserted));
        let of = match unique_columns(table) {
            Some(columns) => format!(
                "OF {} ",
                names(&mut columns.iter().chain(rowid.map(|_| &table.rowid_names).into_iter().flatten()))
            ),
            None => String::new(),
        };
        all.push(make("swap", false, format!("BEFORE UPDATE {of}ON {on}"), body));
    }
    all
}

/// The columns that a statement must set to change a value in a UNIQUE index, or `None` where an expression or condition may
/// depend on any column.
fn unique_columns(table: &Table) -> Option<Vec<String>> {
    let mut columns: Vec<String> = Vec::new();
    for unique in &table.unique {
        for term in &unique.terms {
            match term {
                Term::Column { name, .. } if unique.condition.is_none() => set_for(table, name, &mut columns),
                _ => return None,
            }
        }
    }
    columns.sort();
    columns.dedup();
    Some(columns)
}

/// A column itself; those that a generated one is computed from.
fn set_for(table: &Table, column: &str, columns: &mut Vec<String>) {
    match table.generated.iter().find(|(name, _)| name == column) {
        None => columns.push(column.to_string()),
        Some((_, expression)) => sources_of(table, expression, Some(column), columns),
    }
}

/// The columns that an expression is computed from, other than the one whose expression it is.
fn sources_of(table: &Table, expression: &str, own: Option<&str>, columns: &mut Vec<String>) {
    let named = table.visible.iter().filter(|c| Some(c.as_str()) != own && sqltext::refers_to(expression, c));
    named.for_each(|c| set_for(table, c, columns));
}

fn log_where(table: &Table, id: i64, condition: &str) -> String {
    let on = quote(&table.name);
    let columns = (0..table.key.len()).map(|i| format!(",k{i}")).collect::<String>();
    let values = table.key.iter().map(|k| format!(",{on}.{}", quote(k))).collect::<String>();
    format!("INSERT INTO {LOG}(tbl{columns}) SELECT {id}{values} FROM {on} WHERE {condition};")
}

/// The new row as a BEFORE trigger can know it: SQLite replaces NULL by defaults and chooses automatic keys after it, and
/// computes generated columns from what is there then.
struct NewRow<'t> {
    table: &'t Table,
    /// Whether it gets its INTEGER PRIMARY KEY by itself.
    automatic: bool,
}

impl NewRow<'_> {
    /// The value of a column.
    fn value(&self, column: &str) -> String {
        self.changed(column).unwrap_or_else(|| format!("NEW.{}", quote(column)))
    }

    /// The same where it is, or may be, another than what the trigger is given.
    fn changed(&self, column: &str) -> Option<String> {
        if self.automatic && self.table.integer_key().is_some_and(|key| key.eq_ignore_ascii_case(column)) {
            return Some(self.automatic_key(column));
        }
        let of =
            |named: &'_ [(String, String)]| named.iter().find(|(name, _)| name == column).map(|(_, text)| text.clone());
        if let Some(default) = of(&self.table.defaults) {
            return Some(format!("coalesce(NEW.{},{default})", quote(column)));
        }
        let expression = of(&self.table.generated).filter(|expression| self.changes(expression))?;
        // The sign takes the affinity of a plain column away, so that the generated column's own decides.
        Some(self.compute(&format!("+({expression})")))
    }

    /// Whether an expression may have another value than over what the trigger is given.
    fn changes(&self, expression: &str) -> bool {
        self.table.visible.iter().any(|c| sqltext::refers_to(expression, c) && self.changed(c).is_some())
    }

    /// One more than the highest. (Not foretold are random keys once 2^63-1 is taken, and what BEFORE triggers of the
    /// application insert into the same table meanwhile.)
    fn automatic_key(&self, key: &str) -> String {
        let highest = format!("coalesce((SELECT max({}) FROM {}),0)", quote(key), quote(&self.table.name));
        if !self.table.autoincrement {
            return format!("({highest}+1)");
        }
        let given = format!("SELECT seq FROM sqlite_sequence WHERE name={}", literal(&self.table.name));
        format!("(max({highest},coalesce(({given}),0))+1)")
    }

    /// An expression of the table over the row. The row has those columns only that the expression names: any other may be
    /// dropped under the trigger.
    fn compute(&self, expression: &str) -> String {
        let columns = self.table.visible.iter().filter(|c| sqltext::refers_to(expression, c));
        let columns = columns.map(|c| format!("{} AS {}", self.value(c), quote(c))).collect::<Vec<_>>().join(",");
        let columns = if columns.is_empty() { "1" } else { &columns };
        format!("(SELECT {expression} FROM (SELECT {columns}) AS {})", quote(&self.table.name))
    }
}

/// Whether a UNIQUE index depends on the INTEGER PRIMARY KEY, beyond naming it.
fn depends_on_key(table: &Table, unique: &Unique) -> bool {
    let Some(key) = table.integer_key() else { return false };
    let mut sources = Vec::new();
    for term in &unique.terms {
        match term {
            Term::Column { name, .. } if name == key => {}
            Term::Column { name, .. } => set_for(table, name, &mut sources),
            Term::Expression(text) => sources_of(table, text, None, &mut sources),
        }
    }
    unique.condition.iter().for_each(|text| sources_of(table, text, None, &mut sources));
    sources.contains(key)
}

/// Logs the keys of rows that clash with the new row on one UNIQUE index: found with the index's own terms and
/// collations, so that SQLite finds them by that index.
fn clash(row: &NewRow<'_>, unique: &Unique, id: i64) -> Option<String> {
    let table = row.table;
    let on = quote(&table.name);
    let mut conditions: Vec<String> = Vec::new();
    for term in &unique.terms {
        conditions.push(match term {
            Term::Column { name, collation } => {
                format!("{on}.{} = {} COLLATE {}", quote(name), row.value(name), quote(collation))
            }
            Term::Expression(text) => format!("({text}) = {}", row.compute(text)),
        });
    }
    if conditions.is_empty() {
        return None;
    }
    if let Some(condition) = &unique.condition {
        conditions.push(format!("({condition})"));
        conditions.push(row.compute(condition));
    }
    Some(log_where(table, id, &conditions.join(" AND ")))
}
