//! Virtual tables: which way each of them is replicated.
//!
//! Virtual tables cannot have triggers. The shadow tables they keep their content in could, but a file with such a trigger
//! cannot be opened by a DEFENSIVE connection of newer SQLite ("malformed database schema", seen on 3.54.1), which would
//! break other programs' access to the application's own file.
//! - *Rows*: FTS5 and FTS3/4 with content of their own, and rtree. Their shadow tables are looked at for each message; when
//!   they changed, the table is sent whole, read and applied through the virtual table itself.
//! - *Index*: FTS over an ordinary table. Nothing is sent but the table's own rows; the replica keeps the index in step as it
//!   applies them, since the application's triggers do not run there.
//! - Everything else (contentless FTS, FTS4 with language ids, unknown modules, an index whose columns are not those of its
//!   table) is left out, and the status names it.

use logos_log::ids::Digest;
use rusqlite::Connection;

use super::schema::{Object, Table};
use super::{quote, sqltext};

/// The way in which a virtual table is replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Its rows travel.
    Rows {
        /// Queries whose answers change with every change of the rows.
        stamp: Vec<String>,
    },
    /// It is an index over this ordinary table.
    Index(Indexer),
    /// It is left out.
    LeftOut,
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

/// Decides by the statement that made the table.
pub fn way(object: &Object) -> Way {
    let module = object.module().unwrap_or_default();
    let shadow = |suffix: &str| quote(&format!("{}_{suffix}", object.name));
    match module.as_str() {
        "rtree" | "rtree_i32" => {
            Way::Rows { stamp: ["node", "rowid"].map(|s| format!("SELECT * FROM {} ORDER BY 1", shadow(s))).to_vec() }
        }
        "fts5" | "fts3" | "fts4" => {
            let fts5 = module == "fts5";
            if sqltext::option(&object.sql, "languageid").is_some() {
                return Way::LeftOut;
            }
            match sqltext::option(&object.sql, "content").as_deref() {
                // FTS5 keeps totals in record 1 of its data and a count of all writes in record 10, its structure. FTS3/4
                // lists its segments with their roots. Rows without any token change without either.
                None if fts5 => {
                    let without_sizes = sqltext::option(&object.sql, "columnsize").is_some_and(|size| size == "0");
                    Way::Rows {
                        stamp: vec![
                            format!("SELECT id, block FROM {} WHERE id IN (1, 10) ORDER BY id", shadow("data")),
                            format!("SELECT count(*), max(id) FROM {}", shadow("content")),
                            unindexed(&shadow("content"), (!without_sizes).then(|| (shadow("docsize"), "id", "sz"))),
                        ],
                    }
                }
                None => {
                    let sizes = module == "fts4" && sqltext::option(&object.sql, "matchinfo").is_none();
                    Way::Rows {
                        stamp: vec![
                            format!("SELECT * FROM {} ORDER BY level, idx", shadow("segdir")),
                            format!("SELECT count(*), max(docid) FROM {}", shadow("content")),
                            unindexed(&shadow("content"), sizes.then(|| (shadow("docsize"), "docid", "size"))),
                        ],
                    }
                }
                Some("") => Way::LeftOut,
                Some(content) => Way::Index(Indexer {
                    name: object.name.clone(),
                    content: content.to_string(),
                    rowid: sqltext::option(&object.sql, "content_rowid").unwrap_or_else(|| "rowid".into()),
                    fts5,
                }),
            }
        }
        _ => Way::LeftOut,
    }
}

/// The rows that no index knows of, because they have no token: those whose sizes, where the table keeps them, are all zero.
fn unindexed(content: &str, sizes: Option<(String, &str, &str)>) -> String {
    match sizes {
        None => format!("SELECT * FROM {content} ORDER BY 1"),
        Some((table, id, size)) => format!(
            "SELECT * FROM {content} WHERE rowid IN (SELECT {id} FROM {table} WHERE {size} = zeroblob(length({size}))) \
             ORDER BY 1"
        ),
    }
}

/// Digest of what tells whether a virtual table's rows have changed.
pub fn stamp(conn: &Connection, queries: &[String]) -> rusqlite::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    for query in queries {
        let mut statement = conn.prepare(query)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for i in 0..columns {
                let value = format!("{:?}", row.get_ref(i)?);
                hasher.update(&(value.len() as u64).to_le_bytes());
                hasher.update(value.as_bytes());
            }
        }
    }
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// Describes a virtual table whose rows travel.
pub fn describe(conn: &Connection, name: &str, module: &str, stamp: &[String]) -> rusqlite::Result<Table> {
    let visible = columns(conn, name, false)?;
    let columns: Vec<String> = if module.starts_with("rtree") {
        visible
    } else {
        std::iter::once("rowid".to_string()).chain(visible).collect()
    };
    Ok(Table {
        name: name.to_string(),
        stamp: stamp.to_vec(),
        key: columns.first().cloned().into_iter().collect(),
        columns,
        rowid_names: vec!["rowid".into()],
        key_is_rowid: true,
        key_is_hidden: false,
        is_parent: false,
        sent_whole: false,
        visible: Vec::new(),
        generated: Vec::new(),
        defaults: Vec::new(),
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

impl Indexer {
    /// Whether the table has the columns that the index is made from.
    pub fn fits(&self, conn: &Connection) -> rusqlite::Result<bool> {
        let there = columns(conn, &self.content, true)?;
        let has = |name: &str| there.iter().any(|c| c.eq_ignore_ascii_case(name));
        let rowid = ["rowid", "_rowid_", "oid"].iter().any(|name| self.rowid.eq_ignore_ascii_case(name));
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
        assert_eq!(way_of("CREATE VIRTUAL TABLE d USING fts5(a, content='')"), Way::LeftOut);
        assert_eq!(way_of("CREATE VIRTUAL TABLE d USING vec0(a)"), Way::LeftOut);
        assert!(matches!(way_of("CREATE VIRTUAL TABLE d USING rtree(id, x0, x1)"), Way::Rows { .. }));
        assert_eq!(way_of("CREATE VIRTUAL TABLE d USING fts4(a, languageid='l')"), Way::LeftOut);
        let index = Way::Index(Indexer { name: "d".into(), content: "my t".into(), rowid: "id".into(), fts5: true });
        assert_eq!(way_of("CREATE VIRTUAL TABLE d USING fts5(a, content=\"my t\", content_rowid=id)"), index);
        // A column may be called like an option.
        assert_eq!(way_of("CREATE VIRTUAL TABLE d USING fts5(a, content, content='my t', content_rowid=id)"), index);
    }
}
