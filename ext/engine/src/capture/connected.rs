//! Virtual tables that a connection must have opened before it writes to certain tables for the first time.
//!
//! SQLite before 3.54 opens an FTS or rtree table that a trigger writes to while it compiles the statement that fires the trigger. If another
//! connection has changed the schema meanwhile, opening it notices that, and SQLite compiles the statement again; but where any trigger that
//! names a table was compiled in between, it takes the schema that it has just dropped for read, and the statement fails with "no such
//! table", once. Our AFTER INSERT trigger is such a one, and for some tables the only one: there the application would meet us.
//! A virtual table that is open already notices nothing, and the change of the schema is found when the statement begins, as always.
//!
//! What this cannot do: SQLite closes virtual tables whenever it reads the schema anew, and nobody is told. So it helps
//! against the first change of the schema after a connection was opened, or after a call of ours on it; the README names the rest.

use rusqlite::Connection;

use crate::catalog::schema::Object;
use crate::catalog::sqltext::{self, Token};
use crate::catalog::{quote, virtuals, OURS};

/// The first version whose retry reads the schema.
const MENDED: i32 = 3_054_000;

/// Names of those tables, as far as the caller's snapshot shows.
pub fn find(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    if rusqlite::version_number() >= MENDED {
        return Ok(Vec::new());
    }
    let mut statement = conn.prepare(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE typeof(sql) = 'text' AND \
         (type = 'table' AND rootpage = 0 OR type = 'trigger' AND name NOT GLOB '_logos_*')",
    )?;
    let rows = statement.query_map([], |row| {
        let text = |i| row.get_ref(i).and_then(|v| Ok(String::from_utf8_lossy(v.as_bytes()?).into_owned()));
        Ok(Object { kind: text(0)?, name: text(1)?, table: text(2)?, sql: text(3)? })
    })?;
    let objects = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(opened_late(&objects))
}

/// Virtual tables that are written to before our AFTER INSERT trigger, which is the last one of a statement.
fn opened_late(objects: &[Object]) -> Vec<String> {
    let theirs: Vec<(&Object, Vec<Token<'_>>)> = objects
        .iter()
        .filter(|o| o.kind == "trigger" && !o.name.to_ascii_lowercase().starts_with(OURS))
        .map(|o| (o, sqltext::tokens(&o.sql)))
        .collect();
    let late = |(trigger, tokens): &&(&Object, Vec<Token<'_>>)| {
        let same_table = |other: &Object| other.table.eq_ignore_ascii_case(&trigger.table);
        // Where an AFTER INSERT trigger of the application's own follows, the statement fails without us too.
        !is_after_insert(tokens) && !theirs.iter().any(|(other, tokens)| same_table(other) && is_after_insert(tokens))
    };
    let named: Vec<&Vec<Token<'_>>> = theirs.iter().filter(late).map(|(_, tokens)| tokens).collect();
    let opens_with_sql = |o: &&Object| o.module().is_some_and(|module| virtuals::suffixes(&module).is_some());
    let is_named = |o: &&Object| named.iter().any(|t| t.iter().any(|t| t.name().eq_ignore_ascii_case(&o.name)));
    objects.iter().filter(opens_with_sql).filter(is_named).map(|o| o.name.clone()).collect()
}

fn is_after_insert(trigger: &[Token<'_>]) -> bool {
    let event =
        |pair: &[Token<'_>]| pair[0].text.eq_ignore_ascii_case("after") && pair[1].text.eq_ignore_ascii_case("insert");
    let mut parts = trigger.split(|t| t.text.eq_ignore_ascii_case("begin"));
    parts.next().is_some_and(|head| head.windows(2).any(event))
}

/// Has a connection of the application's open them. What it cannot open now it would fail to open then.
pub fn open(conn: &Connection, tables: &[String]) {
    for table in tables {
        let _ = conn.prepare(&format!("SELECT 1 FROM main.{}", quote(table)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, name: &str, table: &str, sql: &str) -> Object {
        Object { kind: kind.into(), name: name.into(), table: table.into(), sql: sql.into() }
    }

    #[test]
    fn only_tables_that_a_trigger_before_ours_writes_to() {
        let index = object("table", "Find", "Find", "CREATE VIRTUAL TABLE \"Find\" USING fts5(a)");
        let other = object("table", "seen", "seen", "CREATE VIRTUAL TABLE seen USING csv(filename=find)");
        let trigger = |name: &str, head: &str| {
            let sql = format!("CREATE TRIGGER {name} {head} ON item BEGIN INSERT INTO [find](a) VALUES(new.a); SELECT 1 FROM seen; END");
            object("trigger", name, "item", &sql)
        };
        let of = |triggers: &[Object]| opened_late(&[&[index.clone(), other.clone()], triggers].concat());
        assert_eq!(of(&[]), Vec::<String>::new());
        assert_eq!(of(&[trigger("t", "BEFORE INSERT")]), ["Find"]);
        assert_eq!(of(&[trigger("t", "INSERT")]), ["Find"]);
        assert_eq!(of(&[trigger("t", "AFTER UPDATE OF a")]), ["Find"]);
        assert_eq!(of(&[trigger("t", "AFTER INSERT")]), Vec::<String>::new());
        assert_eq!(of(&[trigger("t", "AFTER INSERT"), trigger("u", "AFTER UPDATE")]), Vec::<String>::new());
        assert_eq!(of(&[trigger("_logos_1_insert", "BEFORE INSERT")]), Vec::<String>::new());
    }
}
