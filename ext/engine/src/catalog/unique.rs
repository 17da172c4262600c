//! UNIQUE indexes, and what the values in them come from: where `OR REPLACE` deletes rows that no trigger sees.
//!
//! Not here: the statements that log the keys of such rows (`replaced`).

use rusqlite::{Connection, OptionalExtension};

use super::expression::{Affinity, Expression};
use super::{quote, sqltext};

/// A UNIQUE index besides the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// Its terms.
    pub terms: Vec<Term>,
    /// Condition of a partial index.
    pub condition: Option<Expression>,
}

/// One term of a UNIQUE index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// What it is the value of.
    pub of: Of,
    /// The collation that the index compares it with.
    pub collation: String,
}

/// What a term is the value of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// A column.
    Column(String),
    /// An expression over the table's columns.
    Expression(Expression),
    /// Something that was not found in the index's text.
    Unknown,
}

/// A column that NEW and OLD have in a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The affinity of its type.
    pub affinity: Affinity,
    /// Where its values come from.
    pub origin: Origin,
}

/// Where the values of a column come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From the statement.
    Given,
    /// The same, but REPLACE puts a default in the place of NULL: this constant, if it is one.
    Default(Option<String>),
    /// Computed from other columns: so, if its text was understood.
    Generated(Option<Expression>),
}

/// What the columns of a table are to its UNIQUE indexes.
pub struct Columns<'t>(pub &'t [Column]);

impl<'t> Columns<'t> {
    /// One of them.
    pub fn find(&self, name: &str) -> Option<&'t Column> {
        self.0.iter().find(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// The columns that no expression computes from which these get their values; all, if that is not known.
    pub fn sources<'n>(&self, names: impl Iterator<Item = &'n String>) -> Vec<&'t Column> {
        let mut seen: Vec<&Column> = Vec::new();
        let mut next: Vec<&Column> = names.filter_map(|name| self.find(name)).collect();
        // A loop of generated columns is possible: SQLite notices it when the table is used.
        while let Some(column) = next.pop() {
            if seen.iter().any(|s| std::ptr::eq(*s, column)) {
                continue;
            }
            seen.push(column);
            match &column.origin {
                Origin::Generated(Some(expression)) => {
                    next.extend(expression.columns.iter().filter_map(|c| self.find(c)))
                }
                Origin::Generated(None) => next.extend(self.0),
                Origin::Given | Origin::Default(_) => {}
            }
        }
        let given = |c: &&&Column| !matches!(c.origin, Origin::Generated(_));
        self.0.iter().filter(|c| seen.iter().any(|s| std::ptr::eq(*s, *c))).filter(|c| given(&c)).collect()
    }
}

impl Unique {
    /// Every column that it names.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        self.terms.iter().flat_map(Term::columns).chain(self.condition.iter().flat_map(|c| &c.columns))
    }
}

impl Term {
    /// Every column that it names.
    pub fn columns(&self) -> std::slice::Iter<'_, String> {
        match &self.of {
            Of::Column(name) => std::slice::from_ref(name).iter(),
            Of::Expression(expression) => expression.columns.iter(),
            Of::Unknown => [].iter(),
        }
    }

    /// Whether it is just a column.
    pub fn is_column(&self) -> bool {
        matches!(self.of, Of::Column(_))
    }
}

/// A row of index_list.
pub(super) struct Index {
    pub name: String,
    pub unique: bool,
    pub origin: String,
}

/// The indexes of a table.
pub(super) fn indexes(conn: &Connection, table: &str) -> rusqlite::Result<Vec<Index>> {
    let mut statement = conn.prepare(&format!("PRAGMA main.index_list({})", quote(table)))?;
    let rows = statement.query_map([], |row| {
        Ok(Index { name: row.get(1)?, unique: row.get::<_, i64>(2)? != 0, origin: row.get(3)? })
    })?;
    rows.collect()
}

/// The statement that made an index (`None` within for one that a constraint made), if sqlite_schema has it.
pub(super) fn index_sql(conn: &Connection, name: &str) -> rusqlite::Result<Option<Option<String>>> {
    conn.query_row("SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND name = ?1", [name], |row| row.get(0))
        .optional()
}

/// The key terms of an index: (column id, column, collation).
fn index_terms(conn: &Connection, name: &str) -> rusqlite::Result<Vec<(i64, Option<String>, String)>> {
    let mut statement = conn.prepare(&format!("PRAGMA main.index_xinfo({})", quote(name)))?;
    let rows = statement.query_map([], |row| Ok((row.get(1)?, row.get(2)?, row.get(4)?, row.get::<_, i64>(5)?)))?;
    let all: Vec<(i64, Option<String>, String, i64)> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(all.into_iter().filter(|t| t.3 != 0).map(|t| (t.0, t.1, t.2)).collect())
}

/// Describes a UNIQUE index of a table with these columns, whose rowid has these names.
pub(super) fn describe(
    conn: &Connection,
    index: &Index,
    columns: &[String],
    rowid: &[String],
) -> rusqlite::Result<Unique> {
    let text = index_sql(conn, &index.name)?.flatten().and_then(|sql| sqltext::index(&sql));
    let mut terms = Vec::new();
    for (position, (cid, name, collation)) in index_terms(conn, &index.name)?.into_iter().enumerate() {
        let of = match (name, cid) {
            (Some(name), _) => Of::Column(name),
            // The rowid is unique by itself; its clash is the key's, or is caught by its own statement.
            (None, -1) => continue,
            (None, _) => match text.as_ref().and_then(|t| t.terms.get(position)) {
                Some(text) => Of::Expression(Expression::read(text, columns, &[])),
                None => Of::Unknown,
            },
        };
        terms.push(Term { of, collation });
    }
    let condition = text.and_then(|t| t.condition).map(|text| Expression::read(&text, columns, rowid));
    Ok(Unique { terms, condition })
}
