//! Defaults: whether rows hold what ADD COLUMN puts there, and columns set back to it.
//!
//! A column that was dropped and added again as it was leaves the schema as before, but its values are gone, and no trigger fired.
//! Where the schema cookie moved further than the visible changes explain, and every row that was not written to holds the default, the
//! replica sets the column back: an UPDATE that finds nothing to do if it always looked like that.
//!
//! Invariants
//! - Values are compared by type and bytes, never under a collation: 'a' is not 'A', 1 is not 1.0.
//! - The statement follows from table and column alone, so a replica can tell that it is this one and no other.

use rusqlite::Connection;

use super::diff::Copy;
use crate::catalog::schema::{Object, Table};
use crate::catalog::{quote, sqltext};
use crate::host::connection;

/// What ADD COLUMN would store in rows that are there already, as a literal; `None`: it could not be added to such, or nobody
/// knows. SQLite is asked once, because the text of a default can be a word, a number of another type, a string in wrong quotes.
pub fn default_of(object: &Object, column: &str) -> Option<String> {
    let definitions = sqltext::column_definitions(&object.sql)?;
    let definition = definitions.iter().find(|d| !d.is_constraint() && d.name == column)?;
    if !definition.can_be_added() {
        return None;
    }
    let conn = connection::open_memory().ok()?;
    let like = if sqltext::is_strict(&object.sql) { "(_logos_c ANY) STRICT" } else { "(_logos_c)" };
    let add = format!(
        "CREATE TABLE _logos_d{like}; INSERT INTO _logos_d VALUES(1); ALTER TABLE _logos_d ADD COLUMN {}",
        definition.text
    );
    conn.execute_batch(&add).ok()?;
    let ask = format!("SELECT typeof({0}), quote({0}) FROM _logos_d", quote(column));
    let (kind, literal): (String, String) = conn.query_row(&ask, [], |row| Ok((row.get(0)?, row.get(1)?))).ok()?;
    let again = conn.query_row(
        &format!("SELECT typeof({literal}) = ?1 AND {literal} IS {} COLLATE BINARY FROM _logos_d", quote(column)),
        [kind],
        |row| row.get(0),
    );
    // What the column of a STRICT table cannot hold, no row holds.
    conn.execute(&format!("UPDATE _logos_d SET {} = {literal}", quote(column)), []).ok()?;
    again.unwrap_or(false).then_some(literal)
}

/// The condition under which a column holds something else than a literal.
pub(super) fn other_than(table: &str, column: &str, literal: &str) -> String {
    let column = format!("{}.{}", quote(table), quote(column));
    format!("(typeof({column}) IS NOT typeof({literal}) OR {column} IS NOT {literal} COLLATE BINARY)")
}

/// Sets a column back to its default: the statement, and the default.
pub fn statement(object: &Object, column: &str) -> Option<(String, String)> {
    let literal = default_of(object, column)?;
    let (table, condition) = (quote(&object.name), other_than(&object.name, column, &literal));
    Some((format!("UPDATE {table} SET {} = {literal} WHERE {condition}", quote(column)), literal))
}

/// Whether a statement is such an UPDATE, and of which column of which table.
pub fn is_statement(sql: &str, objects: &[Object]) -> Option<Object> {
    let (table, column) = sqltext::updated(sql)?;
    let object = objects.iter().find(|o| o.kind == "table" && !o.is_virtual() && o.name == table)?;
    statement(object, &column).is_some_and(|(expected, _)| expected == sql).then(|| object.clone())
}

/// Whether a table's columns from the given one on can be dropped and added again so that the same text comes out.
pub fn leads_back(object: &Object, column: &str) -> bool {
    let again = || {
        let definitions = sqltext::column_definitions(&object.sql)?;
        let mut definitions = definitions;
        definitions.retain(|d| !d.is_constraint());
        let from = definitions.iter().position(|d| d.name == column)?;
        let on = quote(&object.name);
        let mut copy = Copy::of(std::slice::from_ref(object)).ok()?;
        for definition in definitions[from..].iter().rev() {
            copy.run(format!("ALTER TABLE {on} DROP COLUMN {}", quote(&definition.name))).ok()?;
        }
        for definition in &definitions[from..] {
            copy.run(format!("ALTER TABLE {on} ADD COLUMN {}", definition.text)).ok()?;
        }
        Some(copy.has(std::slice::from_ref(object)))
    };
    again().unwrap_or(false)
}

/// Whether setting a column back could meet a UNIQUE index on the way, while rows that were written to are as they were.
pub fn may_clash(conn: &Connection, table: &str, column: &str, literal: &str) -> rusqlite::Result<bool> {
    // Over plain columns NULL never clashes; what an expression or a condition makes of it nobody knows.
    conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_index_list(?1) AS l, pragma_index_xinfo(l.name) AS i \
         LEFT JOIN pragma_table_xinfo(?1) AS c ON c.cid = i.cid \
         WHERE l.\"unique\" AND i.key AND (l.partial OR i.cid = -2 OR c.hidden IN (2, 3) OR (i.name = ?2 AND ?3)))",
        (table, column, literal != "NULL"),
        |row| row.get(0),
    )
}

/// Whether a row that was not written to (`logged`: a query of the distinct keys that were, as k0, k1 and so on) holds
/// something else in a column than a literal. The first such row ends the search.
pub fn has_value_of_its_own(
    conn: &Connection,
    table: &Table,
    logged: Option<&str>,
    column: &str,
    literal: &str,
) -> rusqlite::Result<bool> {
    let (name, condition) = (quote(&table.name), other_than(&table.name, column, literal));
    let Some(logged) = logged else {
        return conn
            .query_row(&format!("SELECT EXISTS (SELECT 1 FROM {name} WHERE {condition})"), [], |row| row.get(0));
    };
    let operator = if table.key_is_rowid { "=" } else { "IS" };
    let on = table.key.iter().enumerate().map(|(i, k)| format!("{name}.{} {operator} _logos_l.k{i}", quote(k)));
    let on = on.collect::<Vec<_>>().join(" AND ");
    let written: i64 = conn.query_row(
        &format!("SELECT count(*) FROM ({logged}) AS _logos_l CROSS JOIN {name} ON {on} WHERE {condition}"),
        [],
        |row| row.get(0),
    )?;
    let any = format!("SELECT count(*) > ?1 FROM (SELECT 1 FROM {name} WHERE {condition} LIMIT ?1 + 1)");
    conn.query_row(&any, [written], |row| row.get(0))
}
