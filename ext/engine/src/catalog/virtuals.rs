//! Virtual tables: which way each of them is replicated.
//!
//! Virtual tables cannot have triggers. The shadow tables they keep their content in could, but a file with such a trigger
//! cannot be opened by a DEFENSIVE connection of newer SQLite ("malformed database schema", seen on 3.54.1), which would
//! break other programs' access to the application's own file.
//! - *Rows*: FTS5 and FTS3/4 with content of their own, and rtree. When the shadow tables that hold the rows changed
//!   (`stamps`), the table is sent whole, read and applied through the virtual table itself.
//! - *Index*: FTS over an ordinary table. Nothing is sent but the table's own rows; the replica keeps the index in step as it
//!   applies them, since the application's triggers do not run there.
//! - Everything else is left out, and the status names it with the reason: what has no rows to read or is no table of a module that
//!   we know, what would arrive as something else (a locale, a language, a text that functions of the application compress), what this
//!   connection or this replica cannot open.

use rusqlite::Connection;

use super::modules::Options;
use super::schema::{Object, Table};
use super::{quote, sqltext};

/// The way in which a virtual table is replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Its rows travel.
    Rows {
        /// The shadow tables that hold them.
        shadows: Vec<String>,
    },
    /// It is an index over this ordinary table.
    Index(Indexer),
    /// It is left out, and why.
    LeftOut(String),
}

/// An FTS index over an ordinary table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexer {
    /// The virtual table.
    pub name: String,
    /// The table that it indexes.
    pub content: String,
    rowid: String,
    fts5: bool,
}

/// The suffixes of the shadow tables of a module that we know, whether it is here or not.
pub fn suffixes(module: &str) -> Option<&'static [&'static str]> {
    Some(match module {
        "fts5" => &["config", "content", "data", "docsize", "idx"],
        "fts3" | "fts4" => &["content", "docsize", "segdir", "segments", "stat"],
        "rtree" | "rtree_i32" | "geopoly" => &["node", "parent", "rowid"],
        _ => return None,
    })
}

/// Decides by the statement that made the table.
pub fn way(object: &Object) -> Way {
    let module = object.module().unwrap_or_default();
    let rows = |suffix: &str| Way::Rows { shadows: vec![format!("{}_{suffix}", object.name)] };
    let left_out = |why: &str| Way::LeftOut(why.to_string());
    let fts5 = module == "fts5";
    match module.as_str() {
        "rtree" | "rtree_i32" => return rows("node"),
        "fts5" | "fts3" | "fts4" => {}
        _ => return Way::LeftOut(format!("its module {module} is not one that logos can read and write rows of")),
    }
    let options = Options::of(&object.sql, &module);
    if options.get("languageid").is_some() {
        return left_out("its rows have languages (languageid=), which cannot be read back");
    }
    if fts5 && options.get("locale") == Some("1") {
        return left_out("its values may have locales (locale=1), which reading them does not show");
    }
    match options.get("content") {
        None if options.get("compress").is_some() => {
            left_out("its text is compressed by functions of the application (compress=)")
        }
        None => rows("content"),
        Some("") => left_out("it keeps no content (content=''), so there are no rows to read"),
        Some(content) => Way::Index(Indexer {
            name: object.name.clone(),
            content: content.to_string(),
            rowid: options.get("content_rowid").unwrap_or("rowid").to_string(),
            fts5,
        }),
    }
}

/// Whether a table is an index with the columns of its table (FTS4 that names none itself), so that it must be made anew with them.
pub fn has_columns_of_its_table(object: &Object) -> bool {
    let is_tokenizer = |a: &str| a.get(..8).is_some_and(|word| word.eq_ignore_ascii_case("tokenize"));
    matches!(way(object), Way::Index(Indexer { fts5: false, .. }))
        && sqltext::arguments(&object.sql).iter().all(|a| a.contains('=') || is_tokenizer(a))
}

/// Describes a virtual table whose rows travel.
pub fn describe(conn: &Connection, name: &str, module: &str, shadows: &[String]) -> rusqlite::Result<Table> {
    let visible = columns(conn, name, false)?;
    let mut shadows = shadows.to_vec();
    // What an rtree has besides boxes (+name) is beside its rowids; else these are in the nodes too.
    let rowids = format!("{name}_rowid");
    if module.starts_with("rtree") && columns(conn, &rowids, false)?.len() > 2 {
        shadows.push(rowids);
    }
    let columns: Vec<String> = if module.starts_with("rtree") {
        visible
    } else {
        std::iter::once("rowid".to_string()).chain(visible).collect()
    };
    Ok(Table {
        name: name.to_string(),
        shadows,
        key: columns.first().cloned().into_iter().collect(),
        columns,
        rowid_names: vec!["rowid".into()],
        key_is_rowid: true,
        key_is_hidden: false,
        key_may_be_null: false,
        is_parent: false,
        sent_whole: false,
        visible: Vec::new(),
        autoincrement: false,
        unique: Vec::new(),
        is_virtual: true,
    })
}

/// Names of columns, those of a virtual table that are no data of its rows excepted.
fn columns(conn: &Connection, table: &str, generated: bool) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare(&format!("PRAGMA main.table_xinfo({})", quote(table)))?;
    let columns = statement.query_map([], |row| Ok((row.get::<_, String>(1)?, row.get::<_, i64>(6)?)))?;
    let shown = |hidden: i64| hidden == 0 || (generated && matches!(hidden, 2 | 3));
    columns.filter_map(|column| column.map(|(name, hidden)| shown(hidden).then_some(name)).transpose()).collect()
}

/// Whether a column is the INTEGER PRIMARY KEY of its table, another name of the rowid.
fn is_integer_key(conn: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    conn.query_row(
        "SELECT count(*) = 1 AND max(lower(type)) = 'integer' AND max(lower(name)) = lower(?2) FROM pragma_table_info(?1) WHERE pk > 0",
        [table, column],
        |row| row.get(0),
    )
    .map(|key: Option<bool>| key.unwrap_or(false))
}

impl Indexer {
    /// Whether the table has the columns that the index is made from.
    pub fn fits(&self, conn: &Connection) -> rusqlite::Result<bool> {
        let there = columns(conn, &self.content, true)?;
        let has = |name: &str| there.iter().any(|c| c.eq_ignore_ascii_case(name));
        let rowid = ["rowid", "_rowid_", "oid"].iter().any(|name| self.rowid.eq_ignore_ascii_case(name));
        // A column called rowid hides the real one, and may hold anything; the index is then over what is no number of a row.
        if rowid && has(&self.rowid) && !is_integer_key(conn, &self.content, &self.rowid)? {
            return Ok(false);
        }
        Ok((rowid || has(&self.rowid)) && columns(conn, &self.name, false)?.iter().all(|name| has(name)))
    }

    fn columns(&self, conn: &Connection) -> rusqlite::Result<String> {
        let names = columns(conn, &self.name, false)?;
        Ok(names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", "))
    }

    /// The statement that takes the rows of a key out of the index; to be run while they are still in the table.
    pub fn forget(&self, conn: &Connection, condition: &str) -> rusqlite::Result<String> {
        let (name, content, rowid) = (quote(&self.name), quote(&self.content), quote(&self.rowid));
        if !self.fts5 {
            return Ok(format!("DELETE FROM {name} WHERE docid IN (SELECT {rowid} FROM {content} WHERE {condition})"));
        }
        let columns = self.columns(conn)?;
        Ok(format!(
            "INSERT INTO {name}({name}, rowid, {columns}) SELECT 'delete', {rowid}, {columns} FROM {content} WHERE {condition}"
        ))
    }

    /// The statement that puts the rows of a key into the index; to be run when they are in the table.
    pub fn learn(&self, conn: &Connection, condition: &str) -> rusqlite::Result<String> {
        let (name, content, rowid) = (quote(&self.name), quote(&self.content), quote(&self.rowid));
        let columns = self.columns(conn)?;
        let key = if self.fts5 { "rowid" } else { "docid" };
        Ok(format!("INSERT INTO {name}({key}, {columns}) SELECT {rowid}, {columns} FROM {content} WHERE {condition}"))
    }

    /// The statement that makes the index anew.
    pub fn rebuild(&self) -> String {
        let name = quote(&self.name);
        format!("INSERT INTO {name}({name}) VALUES('rebuild')")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way_of(sql: &str) -> Way {
        way(&Object { kind: "table".into(), name: "d".into(), table: "d".into(), sql: sql.into() })
    }

    #[test]
    fn the_way_is_read_from_the_statement() {
        assert!(matches!(way_of("CREATE VIRTUAL TABLE d USING fts5(a, b, tokenize = 'porter')"), Way::Rows { .. }));
        for left_out in [
            "fts5(a, content='')",
            "fts5(a, c=)",
            "fts5(a, l=1)",
            "fts4(a, content=\"\")",
            "fts4(a, languageid='l')",
            "fts4(a, compress=zip, uncompress=unzip)",
            "vec0(a)",
        ] {
            assert!(
                matches!(way_of(&format!("CREATE VIRTUAL TABLE d USING {left_out}")), Way::LeftOut(_)),
                "{left_out}"
            );
        }
        assert!(matches!(way_of("CREATE VIRTUAL TABLE d USING rtree(id, x0, x1)"), Way::Rows { .. }));
        assert!(matches!(way_of("CREATE VIRTUAL TABLE d USING fts3(content='t')"), Way::Rows { .. }));
        let index = Way::Index(Indexer { name: "d".into(), content: "my t".into(), rowid: "id".into(), fts5: true });
        assert_eq!(way_of("CREATE VIRTUAL TABLE d USING fts5(a, content=\"my t\", content_rowid=id)"), index);
        // A column may be called like an option.
        assert_eq!(way_of("CREATE VIRTUAL TABLE d USING fts5(a, content, content='my t', content_rowid=id)"), index);
    }
}
