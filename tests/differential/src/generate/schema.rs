//! Random CREATE statements: tables of every shape, indexes, views and the application's own triggers.

use harness::Dice;

use super::look::{quote, Table};
use super::{texts, value, write};

const TYPES: [&str; 8] = ["INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC", "", "VARCHAR(10)", "INT"];
const STRICT_TYPES: [&str; 6] = ["INTEGER", "TEXT", "REAL", "BLOB", "ANY", "INT"];
const CONFLICTS: [&str; 6] = ["", "", " ON CONFLICT REPLACE", " ON CONFLICT IGNORE", " ON CONFLICT FAIL", ""];
const ACTIONS: [&str; 5] = ["CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION"];

/// What may occur in the schemas of one seed.
#[derive(Debug, Clone, Copy)]
pub struct Taste {
    /// Out of 10: how often a column is UNIQUE, a table has foreign keys, triggers come up.
    pub unique: u64,
    pub foreign: u64,
    pub triggers: u64,
    pub odd_names: bool,
    /// Whether AFTER INSERT triggers may say RAISE(IGNORE) or RAISE(FAIL), and TEMP triggers may be AFTER INSERT or UPDATE: a
    /// writer without the extension would then write rows that no trigger of ours sees.
    pub skipping: bool,
    /// Whether texts have quirks (`texts.rs`).
    pub quirks: bool,
    /// A sequence of schema changes that this program has a weakness for: defects may need the same one twice.
    pub habit: Option<u64>,
}

/// A name for a table.
pub fn table_name(d: &mut Dice, taste: Taste) -> String {
    if taste.odd_names && d.below(3) == 0 {
        if taste.quirks && d.below(4) == 0 {
            return d.pick(&["logged", "logger", "Logged", "new", "keys"]).to_string();
        }
        return d.pick(&["two words", "quo\"te", "Größe", "select", "it's", "T", "a.b", "x;y", "[b]"]).to_string();
    }
    d.pick(&["t", "u", "v", "w", "item", "part"]).to_string()
}

/// A name for a column.
pub fn column_name(d: &mut Dice, taste: Taste) -> String {
    if taste.odd_names && d.below(4) == 0 {
        return d
            .pick(&["k 1", "order", "q\"x", "ßç", "rowid", "oid", "_rowid_", "new", "old", "A'b", "k0", "tbl"])
            .to_string();
    }
    format!("{}{}", d.pick(&["a", "b", "c", "d", "e"]), d.pick(&["", "1", "2"]))
}

struct Draft {
    name: String,
    declared: &'static str,
    constraints: String,
    generated: bool,
}

/// A CREATE TABLE, with `parents` to refer to. `head` comes before the name.
pub fn create_table(d: &mut Dice, taste: Taste, name: &str, parents: &[Table]) -> String {
    let strict = d.below(8) == 0;
    let mut columns = columns(d, taste, strict);
    let mut constraints = Vec::new();
    let without_rowid = primary_key(d, &mut columns, &mut constraints);
    let plain: Vec<String> = columns.iter().map(|c| quote(&c.name)).collect();
    let last = plain[plain.len() - 1].clone();
    // Generated columns come from the second one, never from a rowid: a BEFORE trigger does not know one that SQLite is
    // going to choose, so what a UNIQUE generated column replaces then is not captured.
    for (i, column) in columns.iter_mut().enumerate().skip(1) {
        decorate(d, taste, strict, column, (i > 1).then_some(plain[1].as_str()));
    }
    if d.below(10) < taste.foreign && !parents.is_empty() {
        constraints.push({
            let at = d.below(plain.len() as u64) as usize;
            foreign_key(d, name, &plain[at], parents)
        });
    }
    if d.below(10) < taste.unique && plain.len() > 2 {
        constraints.push(format!("UNIQUE ({}, {}){}", last, plain[1], d.pick(&CONFLICTS)));
    }
    if d.below(12) == 0 {
        constraints.push(format!("CHECK ({last} IS NOT 7)"));
    }
    let mut parts: Vec<String> = columns
        .iter()
        .map(|c| format!("{} {}{}", quote(&c.name), c.declared, c.constraints).trim_end().to_string())
        .map(|c| if taste.quirks { c + texts::comment(d) } else { c })
        .collect();
    parts.extend(constraints);
    let options: Vec<&str> =
        [(without_rowid, "WITHOUT ROWID"), (strict, "STRICT")].iter().filter(|o| o.0).map(|o| o.1).collect();
    format!(
        "CREATE TABLE {}({}){}{}",
        quote(name),
        parts.join(", "),
        if options.is_empty() { "" } else { " " },
        options.join(", ")
    )
}

fn columns(d: &mut Dice, taste: Taste, strict: bool) -> Vec<Draft> {
    let mut columns: Vec<Draft> = Vec::new();
    for _ in 0..2 + d.below(5) {
        let name = column_name(d, taste);
        if columns.iter().all(|c| c.name.to_lowercase() != name.to_lowercase()) {
            let declared = static_pick(d, if strict { &STRICT_TYPES } else { &TYPES });
            columns.push(Draft { name, declared, constraints: String::new(), generated: false });
        }
    }
    if columns.len() == 1 {
        let declared = if strict { "ANY" } else { "" };
        columns.push(Draft { name: "z".into(), declared, constraints: String::new(), generated: false });
    }
    columns
}

fn static_pick(d: &mut Dice, of: &[&'static str]) -> &'static str {
    of[d.below(of.len() as u64) as usize]
}

/// Chooses a key; returns whether the table is WITHOUT ROWID.
fn primary_key(d: &mut Dice, columns: &mut [Draft], constraints: &mut Vec<String>) -> bool {
    let first = quote(&columns[0].name);
    let second = quote(&columns[1].name);
    let last = quote(&columns[columns.len() - 1].name);
    match d.below(20) {
        0..=3 => {
            columns[0].declared = "INTEGER";
            columns[0].constraints = format!(" PRIMARY KEY{}", d.pick(&CONFLICTS));
        }
        4..=5 => {
            columns[0].declared = "INTEGER";
            columns[0].constraints = " PRIMARY KEY AUTOINCREMENT".into();
        }
        6 => {
            columns[0].declared = "INTEGER";
            columns[0].constraints = " PRIMARY KEY DESC".into();
        }
        7 => {
            let at = columns.len() - 1;
            columns[at].declared = "INTEGER";
            constraints.push(format!("PRIMARY KEY ({last})"));
        }
        8..=9 => columns[0].constraints = format!(" PRIMARY KEY{}", d.pick(&CONFLICTS)),
        10 => {
            columns[0].declared = "TEXT";
            columns[0].constraints = format!(" COLLATE {} PRIMARY KEY", d.pick(&["NOCASE", "RTRIM"]));
        }
        11..=12 => constraints.push(format!("PRIMARY KEY ({last}, {first}){}", d.pick(&CONFLICTS))),
        13 => constraints.push(format!("PRIMARY KEY ({second} DESC, {first} COLLATE NOCASE)")),
        14 => {
            columns[0].constraints = format!(" PRIMARY KEY{}", d.pick(&CONFLICTS));
            return true;
        }
        15 => {
            constraints.push(format!("PRIMARY KEY ({last}, {first}){}", d.pick(&CONFLICTS)));
            return true;
        }
        16 => {
            columns[0].declared = "TEXT";
            constraints.push(format!("PRIMARY KEY ({first} COLLATE NOCASE, {second} DESC)"));
            return true;
        }
        _ => {}
    }
    false
}

/// Adds constraints to a column that is not the key's first; one generated from `source`, if any.
fn decorate(d: &mut Dice, taste: Taste, strict: bool, column: &mut Draft, source: Option<&str>) {
    if !column.constraints.is_empty() {
        return;
    }
    let declared = column.declared;
    let name = quote(&column.name);
    let mut text = String::new();
    if let Some(source) = source.filter(|_| d.below(10) == 0) {
        // Versions of SQLite do not agree on reals as text, and what is stored was computed by whoever wrote it.
        let source = format!("CASE typeof({source}) WHEN 'real' THEN CAST({source} AS INTEGER) ELSE {source} END");
        let quirky = taste.quirks && d.below(2) == 0;
        if quirky && strict {
            // Versions of SQLite do not agree on whether a value of another type may be stored there.
            column.declared = "ANY";
        }
        let expression = match declared {
            _ if quirky => texts::generated(d, &source),
            "TEXT" => format!("CAST({source} AS TEXT) || '!'"),
            "BLOB" => format!("CAST({source} AS BLOB)"),
            _ => format!("length({source})"),
        };
        text = format!(" AS ({expression}) {}", d.pick(&["VIRTUAL", "STORED"]));
        column.generated = true;
    } else {
        match d.below(10) {
            0..=3 if taste.quirks => {
                let null = d.pick(&["", "", " NOT NULL", " NOT NULL ON CONFLICT REPLACE"]);
                text.push_str(&format!("{null} DEFAULT {}", texts::default(d, "b")));
            }
            0 => text.push_str(&format!(" DEFAULT {}", parenthesised(&value::of_type(d, declared)))),
            1 => text.push_str(&format!(
                " NOT NULL{} DEFAULT {}",
                d.pick(&CONFLICTS),
                parenthesised(&value::of_type(d, declared))
            )),
            2 => text.push_str(" DEFAULT (1 + 1)"),
            3 => text.push_str(" NOT NULL"),
            _ => {}
        }
        if d.below(14) == 0 {
            let comment = if taste.quirks { texts::comment(d) } else { "" };
            text.push_str(&format!(" CHECK ({name} IS NULL OR length({name}) < 50{comment})"));
        }
    }
    if d.below(14) < taste.unique {
        text.push_str(&format!(" UNIQUE{}", d.pick(&CONFLICTS)));
    }
    if d.below(8) == 0 {
        text.push_str(&format!(" COLLATE {}", d.pick(&["NOCASE", "RTRIM"])));
    }
    column.constraints = text;
}

/// A default must be a literal or in parentheses; these are always right.
pub fn parenthesised(value: &str) -> String {
    if value.starts_with('(') {
        value.to_string()
    } else {
        format!("({value})")
    }
}

fn foreign_key(d: &mut Dice, own: &str, column: &str, parents: &[Table]) -> String {
    let parent = &parents[d.below(parents.len() as u64) as usize];
    let key: Vec<_> = parent.columns.iter().filter(|c| c.pk).collect();
    let (table, target) = match key.as_slice() {
        [only] => (parent.sql(), quote(&only.name)),
        _ => (quote(own), column.to_string()),
    };
    format!(
        "FOREIGN KEY ({column}) REFERENCES {table}({target}) ON DELETE {} ON UPDATE {}{}",
        d.pick(&ACTIONS),
        d.pick(&ACTIONS),
        d.pick(&["", "", " DEFERRABLE INITIALLY DEFERRED"])
    )
}

/// A CREATE INDEX and the columns that it names.
pub fn create_index(d: &mut Dice, taste: Taste, name: &str, table: &Table, unique: bool) -> (String, Vec<String>) {
    let mut named = Vec::new();
    // Nothing computed from the key, as for generated columns.
    let mut columns: Vec<_> = table.columns.iter().filter(|c| !unique || !c.pk).collect();
    if columns.is_empty() {
        columns = table.columns.iter().collect();
    }
    let mut column = |d: &mut Dice| {
        let column = columns[d.below(columns.len() as u64) as usize];
        named.push(column.name.clone());
        quote(&column.name)
    };
    let mut terms = Vec::new();
    for _ in 0..1 + d.below(2) {
        let c = column(d);
        terms.push(match d.below(9) {
            _ if taste.quirks && d.below(3) == 0 => texts::term(d, &c),
            0 => format!("{c} COLLATE NOCASE"),
            1 => format!("{c} DESC"),
            2 => format!("lower({c})"),
            3 => format!("length({c})"),
            4 => format!("{c} || {}", column(d)),
            5 => format!("coalesce({c}, 'none')"),
            _ => c,
        });
    }
    let condition = match d.below(6) {
        0..=3 if taste.quirks => {
            let c = column(d);
            format!(" WHERE {}", texts::condition(d, table, &c))
        }
        0 => format!(" WHERE {} IS NOT NULL", column(d)),
        1 => format!(" WHERE {} > 2", column(d)),
        2 => format!(" WHERE typeof({}) = 'text' OR {} < 5", column(d), column(d)),
        _ => String::new(),
    };
    let word = if unique { "UNIQUE " } else { "" };
    (format!("CREATE {word}INDEX {} ON {}({}){condition}", quote(name), table.sql(), terms.join(", ")), named)
}

/// A CREATE VIEW.
pub fn create_view(d: &mut Dice, name: &str, table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().take(3).map(|c| quote(&c.name)).collect();
    let distinct = if d.below(4) == 0 { "DISTINCT " } else { "" };
    format!("CREATE VIEW {} AS SELECT {distinct}{} FROM {}", quote(name), columns.join(", "), table.sql())
}

/// A CREATE TRIGGER on a table or view, whose body may touch `others`.
pub fn create_trigger(d: &mut Dice, taste: Taste, name: &str, table: &Table, others: &[Table]) -> String {
    let event = d.pick(&["INSERT", "UPDATE", "DELETE"]);
    let time = if table.is_view { "INSTEAD OF" } else { d.pick(&["BEFORE", "AFTER"]) };
    let row = if event == "DELETE" { "OLD" } else { "NEW" };
    // Under OR FAIL one that comes before ours and fails has the effect of RAISE(FAIL).
    let cuts_off = time == "AFTER" && event != "DELETE" && !taste.skipping;
    let temp = if d.below(8) == 0 && !cuts_off { "TEMP " } else { "" };
    let of = if event == "UPDATE" && d.below(3) == 0 {
        format!(" OF {}", quote(&table.columns[d.below(table.columns.len() as u64) as usize].name))
    } else {
        String::new()
    };
    let when = match d.below(4) {
        0 => format!(" WHEN {row}.{} > 4", column_of(d, table)),
        1 => format!(" WHEN typeof({row}.{}) <> 'text'", column_of(d, table)),
        _ => String::new(),
    };
    let skipping = taste.skipping || !(time == "AFTER" && event == "INSERT");
    let mut body = String::new();
    for _ in 0..1 + d.below(2) {
        body.push_str(&trigger_step(d, row, table, others, skipping));
        body.push_str("; ");
    }
    let on = if temp.is_empty() { table.sql() } else { format!("main.{}", table.sql()) };
    format!("CREATE {temp}TRIGGER {} {time} {event}{of} ON {on}{when} BEGIN {body}END", quote(name))
}

fn column_of(d: &mut Dice, table: &Table) -> String {
    quote(&table.columns[d.below(table.columns.len() as u64) as usize].name)
}

fn trigger_step(d: &mut Dice, row: &str, table: &Table, others: &[Table], skipping: bool) -> String {
    let tables: Vec<&Table> = others.iter().filter(|t| !t.is_view).collect();
    let given = format!("{row}.{}", column_of(d, table));
    if d.below(6) == 0 || tables.is_empty() {
        let kinds: &[&str] = if skipping { &["IGNORE", "FAIL", "ABORT", "ROLLBACK"] } else { &["ABORT", "ROLLBACK"] };
        return match d.pick(kinds) {
            "IGNORE" => format!("SELECT RAISE(IGNORE) WHERE {given} = 5"),
            kind => format!("SELECT RAISE({kind}, 'refused') WHERE {given} = 6"),
        };
    }
    let other = tables[d.below(tables.len() as u64) as usize];
    let column = write::some_column(d, other);
    match d.below(8) {
        0..=2 if !table.is_view && table.writable().len() > 1 => {
            let set = write::some_column(d, table);
            let by = quote(&table.columns[0].name);
            format!("UPDATE {} SET {set} = {} WHERE {by} IS {row}.{by}", table.sql(), value::any(d))
        }
        0..=3 => write::insert_of(d, other, &given, ""),
        4 => {
            let or = d.pick(&["OR REPLACE ", "OR IGNORE "]);
            write::insert_of(d, other, &given, or)
        }
        5 => format!("DELETE FROM {} WHERE {column} = {given}", other.sql()),
        6 => format!("UPDATE OR REPLACE {} SET {column} = {given} WHERE {column} = {}", other.sql(), value::any(d)),
        _ => format!("UPDATE OR IGNORE {} SET {column} = {given} WHERE {column} = {}", other.sql(), value::small(d)),
    }
}
