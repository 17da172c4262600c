//! What is in the shadow's main database at the moment, as far as the generator wants to know.

use harness::{Connection, Sql};

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub declared: String,
    pub pk: bool,
    pub generated: bool,
}

/// A table or view.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    pub is_view: bool,
    pub strict: bool,
    /// A name of the rowid that no column hides.
    pub rowid: Option<&'static str>,
}

impl Table {
    /// Its name as SQL.
    pub fn sql(&self) -> String {
        quote(&self.name)
    }

    /// Columns that can be written.
    pub fn writable(&self) -> Vec<&Column> {
        self.columns.iter().filter(|c| !c.generated).collect()
    }
}

/// A name as SQL.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// All tables and views of main.
pub fn tables(conn: &Connection) -> Vec<Table> {
    let list =
        "SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'view') \
                AND name NOT LIKE 'sqlite_%' \
                ORDER BY name";
    let mut statement = conn.prepare(list).unwrap();
    let rows = statement
        .query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?, row.get::<_, bool>(3)?))
        })
        .unwrap();
    let mut found = Vec::new();
    for (name, kind, without_rowid, strict) in rows.map(Result::unwrap) {
        // A view whose table is gone has no columns to tell.
        let Ok(columns) = columns(conn, &name) else { continue };
        let is_view = kind == "view";
        let hidden = |alias: &str| columns.iter().any(|c| c.name.eq_ignore_ascii_case(alias));
        let rowid = ["rowid", "oid", "_rowid_"].into_iter().find(|alias| !without_rowid && !is_view && !hidden(alias));
        found.push(Table { name, columns, is_view, strict, rowid });
    }
    found
}

fn columns(conn: &Connection, table: &str) -> harness::rusqlite::Result<Vec<Column>> {
    let mut statement = conn.prepare(&format!("PRAGMA main.table_xinfo({})", quote(table)))?;
    let rows = statement.query_map([], |row| {
        Ok(Column {
            name: row.get(1)?,
            declared: row.get(2)?,
            pk: row.get::<_, i64>(5)? > 0,
            generated: row.get::<_, i64>(6)? > 1,
        })
    })?;
    rows.collect()
}

/// A virtual table.
#[derive(Debug, Clone)]
pub struct Virtual {
    pub name: String,
    pub sql: String,
    pub columns: Vec<String>,
}

impl Virtual {
    /// Whether it is a tree of boxes.
    pub fn is_rtree(&self) -> bool {
        self.sql.contains("USING rtree")
    }
}

/// The virtual tables of main whose columns can be told.
pub fn virtuals(conn: &Connection) -> Vec<Virtual> {
    let query = "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0 ORDER BY name";
    let mut statement = conn.prepare(query).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    let mut found = Vec::new();
    for (name, sql) in rows.map(Result::unwrap) {
        let Ok(columns) = conn.prepare(&format!("SELECT * FROM main.{}", quote(&name))) else { continue };
        let columns = columns.column_names().map(str::to_string).collect();
        found.push(Virtual { name, sql, columns });
    }
    found
}

/// Names of the objects of a kind in main (or, for triggers, of temp too).
pub fn names(conn: &Connection, kind: &str) -> Vec<String> {
    conn.texts(&format!(
        "SELECT name FROM main.sqlite_schema WHERE type = '{kind}' AND sql IS NOT NULL AND name NOT LIKE 'sqlite_%' \
         ORDER BY name"
    ))
}
