//! A whole database as lines, so that two can be compared value by value.
//!
//! A value is shown by its storage class and its exact bits: text and blobs as hex of their bytes, reals as their
//! IEEE bits. Rows are sorted, so that only content counts. Left out is what belongs to this project or to SQLite
//! (`_logos_…`, `sqlite_…`), save `sqlite_sequence`, which is part of how AUTOINCREMENT tables behave; and shadow tables, whose
//! bytes and text depend on the history of their virtual table (its own rows are there).

use rusqlite::types::ValueRef;
use rusqlite::Connection;

use crate::sql::{hex, text_of, Sql};

const OURS: &str = "name LIKE '\\_logos\\_%' ESCAPE '\\' OR name LIKE 'sqlite\\_%' ESCAPE '\\'";

/// Every line of what must be equal on a primary and its replica, read in one transaction.
pub fn dump(conn: &Connection) -> Vec<String> {
    dump_without(conn, &[])
}

/// The same without these tables.
pub fn dump_without(conn: &Connection, left_out: &[String]) -> Vec<String> {
    let skipped: Vec<String> = left_out.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
    let skipped = format!("name IN ({})", skipped.join(", "));
    let outside = conn.is_autocommit();
    if outside {
        conn.run("BEGIN");
    }
    let mut lines = Vec::new();
    // The pragmas answer from what the connection last saw of the file.
    conn.run("SELECT count(*) FROM sqlite_schema");
    for pragma in ["user_version", "application_id", "encoding"] {
        lines.push(format!("{pragma} {}", conn.text(&format!("PRAGMA {pragma}"))));
    }
    lines.extend(rows(
        conn,
        &format!(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE NOT ({OURS}) AND NOT {skipped} AND name NOT IN \
             (SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow') ORDER BY type, name"
        ),
        "schema",
    ));
    let tables =
        conn.texts(&format!("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual') AND NOT ({OURS}) AND NOT {skipped} ORDER BY name"));
    for table in &tables {
        let quoted = table.replace('"', "\"\"");
        lines.extend(rows(conn, &format!("SELECT * FROM \"{quoted}\""), table));
    }
    if conn.int("SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_sequence'") == 1 {
        let query = format!("SELECT name, seq FROM main.sqlite_sequence WHERE NOT ({OURS})");
        lines.extend(rows(conn, &query, "sqlite_sequence"));
    }
    if outside {
        conn.run("COMMIT");
    }
    lines
}

fn rows(conn: &Connection, query: &str, label: &str) -> Vec<String> {
    let mut statement = conn.prepare(query).unwrap_or_else(|error| panic!("{error}\n  in: {query}"));
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut lines = Vec::new();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let values: Vec<String> =
            columns.iter().enumerate().map(|(i, name)| format!("{name}={}", exact(row.get_ref(i).unwrap()))).collect();
        lines.push(format!("{label}: {}", values.join(", ")));
    }
    lines.sort();
    if label != "schema" && label != "sqlite_sequence" {
        lines.insert(0, format!("{label}: columns {}", columns.join(", ")));
    }
    lines
}

fn exact(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".into(),
        ValueRef::Integer(number) => format!("integer {number}"),
        ValueRef::Real(number) => format!("real {number:?} {:016x}", number.to_bits()),
        ValueRef::Text(bytes) => format!("text {:?} {}", shorten(&text_of(value)), hex(bytes)),
        ValueRef::Blob(bytes) => format!("blob {}", hex(bytes)),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Lines that only one of two dumps has: `- ` for the first, `+ ` for the second.
pub fn differences(first: &[String], second: &[String]) -> Vec<String> {
    let (mut a, mut b) = (first.to_vec(), second.to_vec());
    a.sort();
    b.sort();
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if j == b.len() || (i < a.len() && a[i] < b[j]) {
            found.push(format!("- {}", a[i]));
            i += 1;
        } else if i == a.len() || b[j] < a[i] {
            found.push(format!("+ {}", b[j]));
            j += 1;
        } else {
            (i, j) = (i + 1, j + 1);
        }
    }
    found
}

/// Fails with the first differences unless both databases hold the same.
pub fn assert_equal(primary: &Connection, replica: &Connection) {
    let found = differences(&dump(primary), &dump(replica));
    if !found.is_empty() {
        let shown: Vec<String> = found.iter().take(20).map(|line| line.chars().take(400).collect()).collect();
        panic!("{} lines differ (- primary, + replica), first {}:\n{}", found.len(), shown.len(), shown.join("\n"));
    }
}
