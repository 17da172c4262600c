//! What a database consists of: its schema objects, and for each replicated table its columns and its key.
//!
//! Invariants
//! - Objects of ours (`_logos_…`) and of SQLite (`sqlite_…`) are never part of the replicated schema.
//! - The key of a table is what DESIGN calls it: INTEGER PRIMARY KEY, else the declared PRIMARY KEY (unless a UNIQUE index depends on
//!   the rowid), else the rowid; where a table hides its rowid behind columns of that name, all its columns together.
//! - The fingerprint depends on the objects' texts only, not on their order or on who created them.

use std::collections::HashSet;

use logos_log::ids::Digest;
use rusqlite::Connection;

use super::expression::{self, Affinity, Expression};
use super::unique::{self, Origin, Unique};
use super::virtuals::{self, Way};
use super::{quote, sqltext};
use crate::error::{Doing, Result};

/// Objects that are the application's.
const THEIRS: &str = "sql IS NOT NULL AND name NOT GLOB 'sqlite_*' AND lower(name) NOT GLOB '_logos_*' AND lower(tbl_name) NOT GLOB '_logos_*'";

/// One row of sqlite_schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// "table", "index", "view" or "trigger".
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The table it belongs to.
    pub table: String,
    /// The statement that makes it.
    pub sql: String,
}

impl Object {
    /// Whether it is a virtual table.
    pub fn is_virtual(&self) -> bool {
        self.kind == "table" && self.module().is_some()
    }

    /// The module of a virtual table, in lower case.
    pub fn module(&self) -> Option<String> {
        sqltext::virtual_table(&self.sql).map(|(_, module)| module)
    }
}

/// Reads the replicated part of the schema, in the order of creation; virtual tables after the others, which they may be made from.
pub fn read(conn: &Connection) -> Result<Vec<Object>> {
    Ok(split(conn)?.0)
}

/// A table that is not replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// A clause that tells the reason.
    pub why: String,
}

/// The tables that are left out: the status says so.
pub fn left_out(conn: &Connection) -> Result<Vec<LeftOut>> {
    Ok(split(conn)?.1)
}

/// A row of sqlite_schema; where a text in it is not UTF-8, kind and name as far as they can be read.
fn object(row: &rusqlite::Row<'_>) -> rusqlite::Result<std::result::Result<Object, (String, String)>> {
    let bytes = |i| -> rusqlite::Result<&[u8]> { row.get_ref(i)?.as_bytes().map_err(Into::into) };
    let lossy = |i| bytes(i).map(|b| String::from_utf8_lossy(b).into_owned());
    let all = [bytes(0)?, bytes(1)?, bytes(2)?, bytes(3)?].map(std::str::from_utf8);
    Ok(match all {
        [Ok(kind), Ok(name), Ok(table), Ok(sql)] => {
            Ok(Object { kind: kind.into(), name: name.into(), table: table.into(), sql: sql.into() })
        }
        _ => Err((lossy(0)?, lossy(1)?)),
    })
}

/// Kind and name of each object whose text is not UTF-8: no other program would be told what it means.
pub fn not_utf8(conn: &Connection) -> Result<Vec<(String, String)>> {
    let doing = || "reading the schema".to_string();
    let mut statement = conn
        .prepare(&format!("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE {THEIRS} ORDER BY rowid"))
        .doing(doing)?;
    let rows = statement.query_map([], |row| object(row).map(std::result::Result::err)).doing(doing)?;
    rows.filter_map(rusqlite::Result::transpose).collect::<rusqlite::Result<Vec<_>>>().doing(doing)
}

/// What is replicated, and which tables are not.
pub fn split(conn: &Connection) -> Result<(Vec<Object>, Vec<LeftOut>)> {
    let doing = || "reading the schema".to_string();
    let mut statement = conn
        .prepare(&format!("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE {THEIRS} ORDER BY rowid"))
        .doing(doing)?;
    let rows = statement.query_map([], |row| object(row).map(std::result::Result::ok)).doing(doing)?;
    let all = rows.filter_map(rusqlite::Result::transpose).collect::<rusqlite::Result<Vec<_>>>().doing(doing)?;
    let shadows = Shadows::of(conn, &all).doing(doing)?;
    let mut left_out = Vec::new();
    for object in all.iter().filter(|o| o.kind == "table") {
        let why = if object.is_virtual() { left_out_because(conn, object, &all) } else { shadows.unsure(&object.name) };
        left_out.extend(why.map(|why| LeftOut { name: object.name.clone(), why }));
    }
    let is_out = |o: &Object| left_out.iter().any(|l| l.name.eq_ignore_ascii_case(&o.table));
    let mut replicated: Vec<Object> = all.iter().filter(|o| !is_out(o) && !shadows.has(o)).cloned().collect();
    replicated.sort_by_key(Object::is_virtual);
    Ok((replicated, left_out))
}

/// Why a virtual table is not replicated, if so. An index over a view is not: nobody knows which rows a change moves in it. One that
/// does not fit its table at the moment is left out until it does.
fn left_out_because(conn: &Connection, object: &Object, all: &[Object]) -> Option<String> {
    let table =
        |name: &str| all.iter().any(|o| o.kind == "table" && !o.is_virtual() && o.name.eq_ignore_ascii_case(name));
    match virtuals::way(object) {
        Way::LeftOut(why) => Some(why),
        Way::Index(index) if !table(&index.content) => {
            Some(format!("it is an index over {}, which is no table of this database", quote(&index.content)))
        }
        Way::Index(index) => match index.fits(conn) {
            Ok(true) => None,
            Ok(false) => Some(format!("its columns are not those of table {}", quote(&index.content))),
            Err(e) => Some(format!("it cannot be opened: {e}")),
        },
        Way::Rows { .. } => None,
    }
}

/// The tables that virtual tables keep their content in. A trigger on one makes the file unreadable for DEFENSIVE connections of newer
/// SQLite. Of the modules that we know, the suffixes are known; of others that are here, SQLite says it.
struct Shadows {
    /// Virtual tables of modules that we know: name and suffixes.
    known: Vec<(String, &'static [&'static str])>,
    /// In lower case.
    told: HashSet<String>,
    /// Virtual tables of modules that are not here: name and module.
    strange: Vec<(String, String)>,
}

impl Shadows {
    fn of(conn: &Connection, all: &[Object]) -> rusqlite::Result<Self> {
        let mut shadows = Self { known: Vec::new(), told: HashSet::new(), strange: Vec::new() };
        for object in all.iter().filter(|o| o.is_virtual()) {
            let module = object.module().unwrap_or_default();
            match virtuals::suffixes(&module) {
                Some(suffixes) => shadows.known.push((object.name.clone(), suffixes)),
                None => shadows.strange.push((object.name.clone(), module)),
            }
        }
        if !shadows.strange.is_empty() {
            let here = lower_names(conn, "SELECT lower(name) FROM pragma_module_list")?;
            shadows.strange.retain(|(_, module)| !here.contains(module));
            let told = "SELECT lower(name) FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'";
            // From SQLite 3.37. Before, those of unknown modules are ordinary tables to us, as they are to their writers.
            shadows.told = lower_names(conn, told).unwrap_or_default();
        }
        Ok(shadows)
    }

    fn has(&self, object: &Object) -> bool {
        let suffixed = |(name, suffixes): &(String, &'static [&'static str])| {
            let rest = belonging(&object.table, name);
            rest.is_some_and(|rest| suffixes.iter().any(|s| rest.eq_ignore_ascii_case(s)))
        };
        self.known.iter().any(suffixed) || self.told.contains(&object.table.to_ascii_lowercase())
    }

    /// Why a table is left out that may belong to a virtual table whose module is not here.
    fn unsure(&self, table: &str) -> Option<String> {
        let (name, module) = self.strange.iter().find(|(name, _)| belonging(table, name).is_some())?;
        Some(format!("it may belong to virtual table {}, and module {module} is not here to tell", quote(name)))
    }
}

/// What follows `name_` in the name of a table.
fn belonging<'t>(table: &'t str, name: &str) -> Option<&'t str> {
    let (head, rest) = (table.get(..name.len())?, table.get(name.len()..)?);
    head.eq_ignore_ascii_case(name).then(|| rest.strip_prefix('_')).flatten()
}

fn lower_names(conn: &Connection, query: &str) -> rusqlite::Result<HashSet<String>> {
    let mut statement = conn.prepare(query)?;
    // A name may be no UTF-8.
    let names = statement.query_map([], |row| Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned()))?;
    names.collect()
}

/// Digest of a schema: equal on a primary and on a replica that has applied all its schema changes.
pub fn fingerprint(objects: &[Object]) -> Digest {
    // A replica may lack the module of a virtual table, and still has everything else.
    let mut sorted: Vec<&Object> = objects.iter().filter(|o| !o.is_virtual()).collect();
    sorted.sort();
    let mut hasher = blake3::Hasher::new();
    for object in sorted {
        for text in [&object.kind, &object.name, &object.table, &object.sql] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    Digest(*hasher.finalize().as_bytes())
}

/// A replicated table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Whether it is a virtual table.
    pub is_virtual: bool,
    /// For a virtual table, the tables that hold its rows.
    pub shadows: Vec<String>,
    /// Columns that are read and written, in order: all but generated ones, and before them the rowid where that is the key.
    pub columns: Vec<String>,
    /// The columns of the key, in order.
    pub key: Vec<String>,
    /// Names by which a statement may set the rowid without naming a key column; empty WITHOUT ROWID.
    pub rowid_names: Vec<String>,
    /// Whether the key is the rowid, by whatever name.
    pub key_is_rowid: bool,
    /// Whether the key is a rowid that no column declares, which VACUUM may renumber.
    pub key_is_hidden: bool,
    /// Whether foreign keys refer to it and its key is not the rowid: then triggers may be shown another key than the row holds.
    pub is_parent: bool,
    /// Whether rows cannot be told apart (three columns hide the rowid and there is no key, or one that may be NULL), or only by
    /// more columns than the log takes: the table is always sent whole. The first column stands for the key then.
    pub sent_whole: bool,
    /// Whether the key is a declared one that may be NULL: any number of rows share such a key.
    pub key_may_be_null: bool,
    /// All columns that NEW and OLD have in a trigger.
    pub visible: Vec<unique::Column>,
    /// Whether an automatic key is never given twice (AUTOINCREMENT).
    pub autoincrement: bool,
    /// UNIQUE indexes besides the key.
    pub unique: Vec<Unique>,
}

impl Table {
    /// Indices of the key's columns in `columns`.
    pub fn key_indices(&self) -> Vec<usize> {
        let find = |k: &String| self.columns.iter().position(|c| c == k);
        self.key.iter().filter_map(find).collect()
    }

    /// Names of all columns that NEW and OLD have in a trigger.
    pub fn visible_names(&self) -> Vec<String> {
        self.visible.iter().map(|column| column.name.clone()).collect()
    }

    /// The INTEGER PRIMARY KEY.
    pub fn integer_key(&self) -> Option<&String> {
        self.key.first().filter(|_| self.key_is_rowid && !self.key_is_hidden)
    }
}

/// Widest key that rows are told apart by. Twice as many result columns and conditions are far from SQLite's limits, and the
/// log has a column for each.
const KEY_COLUMNS_MAX: usize = 250;

/// Names, in lower case, of the tables that foreign keys refer to.
pub fn parents(conn: &Connection) -> rusqlite::Result<HashSet<String>> {
    let query = "SELECT lower(f.\"table\") FROM main.sqlite_schema AS s, pragma_foreign_key_list(s.name, 'main') AS f \
                 WHERE s.type = 'table'";
    lower_names(conn, query)
}

struct Column {
    name: String,
    declared: String,
    default: Option<String>,
    not_null: bool,
    pk: i64,
    generated: bool,
}

/// The names of a table's columns.
pub fn column_names(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    Ok(columns(conn, table)?.into_iter().map(|column| column.name).collect())
}

fn columns(conn: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = conn.prepare(&format!("PRAGMA main.table_xinfo({})", quote(table)))?;
    let rows = statement.query_map([], |row| {
        Ok(Column {
            name: row.get(1)?,
            declared: row.get(2)?,
            not_null: row.get::<_, i64>(3)? != 0,
            default: row.get(4)?,
            pk: row.get(5)?,
            generated: matches!(row.get::<_, i64>(6)?, 2 | 3),
        })
    })?;
    rows.collect()
}

/// Describes one table of the main database; `None` for an index over another table, which has no rows of its own.
pub fn table(conn: &Connection, object: &Object) -> Result<Option<Table>> {
    try_table(conn, object).doing(|| format!("reading the columns and indexes of table {}", quote(&object.name)))
}

/// The same with SQLite's own error.
pub fn try_table(conn: &Connection, object: &Object) -> rusqlite::Result<Option<Table>> {
    let name = &object.name;
    if !object.is_virtual() {
        return describe(conn, object, false).map(Some);
    }
    match virtuals::way(object) {
        Way::Rows { shadows } => {
            let module = object.module().unwrap_or_default();
            virtuals::describe(conn, name, &module, &shadows).map(Some)
        }
        Way::Index(_) | Way::LeftOut(_) => Ok(None),
    }
}

/// The same for a table whose declared key may be NULL, with its rows known by their rowids instead.
pub fn table_by_rowid(conn: &Connection, object: &Object) -> Result<Table> {
    describe(conn, object, true).doing(|| format!("reading the columns and indexes of table {}", quote(&object.name)))
}

fn describe(conn: &Connection, object: &Object, by_rowid: bool) -> rusqlite::Result<Table> {
    let name = object.name.as_str();
    let columns = columns(conn, name)?;
    let indexes = unique::indexes(conn, name)?;
    let has_column = |alias: &str| columns.iter().any(|c| c.name.eq_ignore_ascii_case(alias));
    let mut declared: Vec<&Column> = columns.iter().filter(|c| c.pk > 0).collect();
    declared.sort_by_key(|c| c.pk);
    let pk_index = indexes.iter().find(|i| i.origin == "pk");
    // The index of a WITHOUT ROWID table's key is the table itself and has no row of its own in sqlite_schema.
    let without_rowid = match pk_index {
        Some(index) => unique::index_sql(conn, &index.name)?.is_none(),
        None => false,
    };
    let rowid_names: Vec<String> = if without_rowid {
        Vec::new()
    } else {
        ["rowid", "_rowid_", "oid"].into_iter().filter(|a| !has_column(a)).map(String::from).collect()
    };
    let writable: Vec<String> = columns.iter().filter(|c| !c.generated).map(|c| c.name.clone()).collect();
    let key_is_alias = !declared.is_empty() && pk_index.is_none();
    let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
    let unique_indexes = indexes.iter().filter(|i| i.unique);
    let described = unique_indexes.map(|i| Ok((i, unique::describe(conn, i, &names, &rowid_names)?)));
    let described: Vec<(&unique::Index, Unique)> = described.collect::<rusqlite::Result<_>>()?;
    // An index whose condition reads the rowid holds the same rows on a replica only if they have the same rowids there.
    let by_rowid =
        by_rowid || !key_is_alias && described.iter().any(|(_, u)| u.condition.as_ref().is_some_and(|c| c.reads_rowid));
    let (key, read, key_is_hidden, sent_whole) = if !declared.is_empty() && !by_rowid {
        // Where even the rowid is out of reach, nothing tells a row whose key is NULL from one that is not there.
        let nameless =
            rowid_names.is_empty() && !without_rowid && !key_is_alias && declared.iter().any(|c| !c.not_null);
        let key: Vec<String> = declared.iter().map(|c| c.name.clone()).collect();
        let whole = nameless || key.len() > KEY_COLUMNS_MAX;
        (key, writable, false, whole)
    } else if let Some(alias) = rowid_names.first() {
        let read = std::iter::once(alias.clone()).chain(writable).collect();
        (vec![alias.clone()], read, true, false)
    } else {
        (writable.clone(), writable, false, true)
    };
    let key_may_be_null =
        !(key_is_alias || without_rowid || key_is_hidden || sent_whole) && declared.iter().any(|c| !c.not_null);
    let key = if sent_whole { key.into_iter().take(1).collect() } else { key };
    // The key's own index may compare otherwise than its columns do; then it takes other rows for the same.
    let plain = |u: &Unique| u.terms.iter().all(|t| t.collation.eq_ignore_ascii_case("BINARY"));
    let besides_key = |(index, u): &(&unique::Index, Unique)| index.origin != "pk" || key_is_hidden || !plain(u);
    let unique = described.into_iter().filter(besides_key).map(|(_, u)| u).collect();
    let visible = visible(&object.sql, &columns, &names, key_is_alias);
    Ok(Table {
        name: name.to_string(),
        is_virtual: false,
        is_parent: false,
        autoincrement: key_is_alias && sqltext::mentions(&object.sql, "autoincrement"),
        shadows: Vec::new(),
        columns: read,
        key,
        key_is_rowid: key_is_alias || key_is_hidden,
        key_is_hidden,
        key_may_be_null,
        sent_whole,
        visible,
        unique,
        rowid_names,
    })
}

/// What each column is to the UNIQUE indexes of its table.
fn visible(sql: &str, columns: &[Column], names: &[String], key_is_alias: bool) -> Vec<unique::Column> {
    let definitions = sqltext::column_definitions(sql).unwrap_or_default();
    let expression = |c: &Column| {
        let definition = definitions.iter().find(|d| d.name.eq_ignore_ascii_case(&c.name))?;
        Some(Expression::read(&definition.generated_as()?, names, &[]))
    };
    let strict = sqltext::is_strict(sql);
    let describe = |c: &Column| unique::Column {
        name: c.name.clone(),
        affinity: Affinity::of(&c.declared, strict),
        origin: match &c.default {
            _ if c.generated => Origin::Generated(expression(c)),
            // A rowid is never NULL, whatever its default.
            Some(default) if c.not_null && !(key_is_alias && c.pk > 0) => {
                Origin::Default(expression::constant(default))
            }
            _ => Origin::Given,
        },
    };
    columns.iter().map(describe).collect()
}

/// Whether there is a sqlite_sequence.
pub fn has_sequences(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'")?.exists([])
}

/// What sqlite_sequence holds; nothing where there is none.
pub fn sequences(conn: &Connection) -> rusqlite::Result<Vec<(String, i64)>> {
    if !has_sequences(conn)? {
        return Ok(Vec::new());
    }
    let mut statement = conn.prepare(
        "SELECT name, seq FROM sqlite_sequence WHERE typeof(name) = 'text' AND typeof(seq) = 'integer' ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_module_of_a_virtual_table_is_read_from_its_text() {
        let object = |sql: &str| Object { kind: "table".into(), name: "t".into(), table: "t".into(), sql: sql.into() };
        assert_eq!(object("CREATE VIRTUAL TABLE t USING fts5(a, b)").module().as_deref(), Some("fts5"));
        assert_eq!(object("CREATE VIRTUAL TABLE \"t x\" USING  RTree (a, b)").module().as_deref(), Some("rtree"));
        assert_eq!(object("CREATE TABLE virtual(a)").module(), None);
        // As they may be written without blanks, or with words in the name that look like the statement's own.
        for sql in ["CREATE VIRTUAL TABLE \"d\"USING fts5(a)", "CREATE VIRTUAL TABLE d USING/* x */FTS5(a)"] {
            assert_eq!(object(sql).module().as_deref(), Some("fts5"));
        }
        assert_eq!(object("CREATE VIRTUAL TABLE \"docs using tags\" USING fts5(a)").module().as_deref(), Some("fts5"));
    }

    #[test]
    fn the_fingerprint_does_not_depend_on_the_order_of_objects() {
        let object =
            |name: &str| Object { kind: "table".into(), name: name.into(), table: name.into(), sql: name.into() };
        let (a, b) = (object("a"), object("b"));
        assert_eq!(fingerprint(&[a.clone(), b.clone()]), fingerprint(&[b, a.clone()]));
        assert_ne!(fingerprint(&[a]), fingerprint(&[]));
    }
}
