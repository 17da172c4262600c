//! Random INSERT, UPDATE, DELETE and their kin.

use harness::Dice;

use super::look::{quote, Column, Table};
use super::value;

const OR: [&str; 12] =
    ["", "", "", "", "", "OR REPLACE ", "OR REPLACE ", "OR IGNORE ", "OR FAIL ", "OR ABORT ", "OR ROLLBACK ", ""];

/// The name of a column that can be written, as SQL.
pub fn some_column(d: &mut Dice, table: &Table) -> String {
    quote(&one(d, &table.writable()).name)
}

fn one<'a>(d: &mut Dice, columns: &[&'a Column]) -> &'a Column {
    columns[d.below(columns.len() as u64) as usize]
}

fn value_for(d: &mut Dice, table: &Table, column: &Column) -> String {
    let typed = table.strict || (column.pk && d.below(3) > 0) || d.below(2) == 0;
    if d.below(14) == 0 {
        "NULL".into()
    } else if typed {
        value::of_type(d, &column.declared)
    } else {
        value::any(d)
    }
}

/// An INSERT of one row without further clauses (as triggers need it), one column of which is `given`.
pub fn insert_of(d: &mut Dice, table: &Table, given: &str, or: &str) -> String {
    let columns = table.writable();
    let at = d.below(columns.len() as u64) as usize;
    let names: Vec<String> = columns.iter().map(|c| quote(&c.name)).collect();
    let values: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| if i == at { given.to_string() } else { value_for(d, table, c) })
        .collect();
    format!("INSERT {or}INTO {}({}) VALUES ({})", table.sql(), names.join(", "), values.join(", "))
}

/// A condition on the rows of a table.
pub fn condition(d: &mut Dice, table: &Table) -> String {
    let column = one(d, &table.columns.iter().collect::<Vec<_>>()).clone();
    let name = quote(&column.name);
    match (d.below(9), table.rowid) {
        (0..=1, Some(rowid)) => format!("{rowid} % 3 = {}", d.below(3)),
        (2, Some(rowid)) => format!("{rowid} = {}", value::small(d)),
        (0..=3, _) => format!("{name} = {}", value_for(d, table, &column)),
        (4, _) => format!("{name} IS NULL"),
        (5, _) => format!("{name} > {}", value_for(d, table, &column)),
        (6, _) => format!("{name} = (SELECT max({name}) FROM main.{})", table.sql()),
        (7, _) => format!("{name} IS {}", value_for(d, table, &column)),
        _ => "1".into(),
    }
}

fn expression(d: &mut Dice, table: &Table, column: &Column) -> String {
    let (own, other) = (quote(&column.name), some_column(d, table));
    if table.strict {
        return value_for(d, table, column);
    }
    match d.below(10) {
        0..=1 => format!("{own} + 1"),
        2 => format!("{own} || 'x'"),
        3 => other,
        4 => format!("coalesce({own}, {})", value::small(d)),
        5 => format!("CASE WHEN {other} > 3 THEN {} ELSE {own} END", value::any(d)),
        _ => value_for(d, table, column),
    }
}

fn returning(d: &mut Dice) -> &'static str {
    if d.below(8) == 0 {
        " RETURNING *"
    } else {
        ""
    }
}

/// Any statement that writes to the table (or to the view, by its triggers).
pub fn write(d: &mut Dice, table: &Table, others: &[Table]) -> String {
    if table.writable().is_empty() {
        return format!("INSERT INTO main.{} DEFAULT VALUES", table.sql());
    }
    match d.below(20) {
        0..=6 => insert(d, table),
        7 => insert_select(d, table, others),
        8..=9 if !table.is_view => upsert(d, table),
        10..=15 => update(d, table),
        16..=18 => delete(d, table),
        _ => special(d, table),
    }
}

fn rows(d: &mut Dice, table: &Table, columns: &[&Column], rowid: bool) -> String {
    let mut rows = Vec::new();
    for _ in 0..1 + d.below(4) {
        let mut values: Vec<String> = columns.iter().map(|c| value_for(d, table, c)).collect();
        if rowid {
            values.push(value::small(d));
        }
        rows.push(format!("({})", values.join(", ")));
    }
    rows.join(", ")
}

fn insert(d: &mut Dice, table: &Table) -> String {
    let mut columns = table.writable();
    if d.below(3) == 0 && columns.len() > 1 {
        columns.remove(d.below(columns.len() as u64) as usize);
    }
    let rowid = table.rowid.filter(|_| d.below(8) == 0);
    let mut names: Vec<String> = columns.iter().map(|c| quote(&c.name)).collect();
    names.extend(rowid.map(String::from));
    let rows = rows(d, table, &columns, rowid.is_some());
    let verb = if d.below(8) == 0 { "REPLACE ".to_string() } else { format!("INSERT {}", d.pick(&OR)) };
    format!("{verb}INTO main.{}({}) VALUES {rows}{}", table.sql(), names.join(", "), returning(d))
}

fn insert_select(d: &mut Dice, table: &Table, others: &[Table]) -> String {
    let source = &others[d.below(others.len() as u64) as usize];
    let columns = table.writable();
    let names: Vec<String> = columns.iter().map(|c| quote(&c.name)).collect();
    let or = d.pick(&OR);
    if d.below(4) == 0 {
        let values: Vec<String> =
            columns.iter().map(|c| if d.below(2) == 0 { "i".into() } else { value_for(d, table, c) }).collect();
        return format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) INSERT {or}INTO main.{}({}) \
             SELECT {} FROM n",
            10 + d.below(30),
            table.sql(),
            names.join(", "),
            values.join(", ")
        );
    }
    let values: Vec<String> = columns
        .iter()
        .map(|c| {
            let from = &source.columns[d.below(source.columns.len() as u64) as usize];
            if d.below(3) > 0 {
                quote(&from.name)
            } else {
                value_for(d, table, c)
            }
        })
        .collect();
    format!(
        "INSERT {or}INTO main.{}({}) SELECT {} FROM main.{} LIMIT {}",
        table.sql(),
        names.join(", "),
        values.join(", "),
        source.sql(),
        1 + d.below(20)
    )
}

fn upsert(d: &mut Dice, table: &Table) -> String {
    let key: Vec<String> = table.columns.iter().filter(|c| c.pk).map(|c| quote(&c.name)).collect();
    let columns = table.writable();
    let names: Vec<String> = columns.iter().map(|c| quote(&c.name)).collect();
    let rows = rows(d, table, &columns, false);
    let target = if key.is_empty() || d.below(4) == 0 { String::new() } else { format!("({}) ", key.join(", ")) };
    let column = one(d, &columns);
    let action = match d.below(4) {
        0 => "DO NOTHING".to_string(),
        1 => format!("DO UPDATE SET {0} = excluded.{0}", quote(&column.name)),
        2 => format!(
            "DO UPDATE SET {} = {} WHERE {}",
            quote(&column.name),
            value_for(d, table, column),
            condition(d, table)
        ),
        _ => format!("DO UPDATE SET {0} = {0} + 1", quote(&column.name)),
    };
    format!(
        "INSERT INTO main.{}({}) VALUES {rows} ON CONFLICT {target}{action}{}",
        table.sql(),
        names.join(", "),
        returning(d)
    )
}

fn update(d: &mut Dice, table: &Table) -> String {
    let columns = table.writable();
    let mut sets = Vec::new();
    match (d.below(12), table.rowid) {
        (0, Some(rowid)) => sets.push(format!("{rowid} = {rowid} + {}", d.below(3) as i64 - 1)),
        (1, _) if columns.len() > 1 => {
            let (a, b) = (quote(&columns[0].name), quote(&columns[1].name));
            sets.push(format!("{a} = {b}, {b} = {a}"));
        }
        _ => {
            let mut chosen: Vec<&Column> = (0..1 + d.below(2)).map(|_| one(d, &columns)).collect();
            chosen.dedup_by(|a, b| a.name == b.name);
            sets.extend(chosen.iter().map(|c| format!("{} = {}", quote(&c.name), expression(d, table, c))));
        }
    }
    let condition = if d.below(4) == 0 { String::new() } else { format!(" WHERE {}", condition(d, table)) };
    // What `rowid` means beside a subquery differs between versions.
    let from = if d.below(20) == 0 && table.rowid.is_none_or(|r| !condition.contains(r) && !sets[0].contains(r)) {
        " FROM (SELECT 1 AS one)"
    } else {
        ""
    };
    format!("UPDATE {}main.{} SET {}{from}{condition}{}", d.pick(&OR), table.sql(), sets.join(", "), returning(d))
}

fn delete(d: &mut Dice, table: &Table) -> String {
    let condition = if d.below(8) == 0 { String::new() } else { format!(" WHERE {}", condition(d, table)) };
    format!("DELETE FROM main.{}{condition}{}", table.sql(), returning(d))
}

fn special(d: &mut Dice, table: &Table) -> String {
    match d.below(5) {
        0 => format!("INSERT {}INTO main.{} DEFAULT VALUES", d.pick(&OR), table.sql()),
        1 => format!("DELETE FROM main.{}", table.sql()),
        2 => format!("UPDATE sqlite_sequence SET seq = {} WHERE seq < 1000", d.below(20)),
        3 => "DELETE FROM sqlite_sequence".into(),
        _ => format!("SELECT count(*) FROM main.{}", table.sql()),
    }
}
