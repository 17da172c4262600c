//! Carries a plan out: the rows and statements of one message, read in the snapshot in which the plan was made.

use std::io::Write;

use logos_log::ids::Digest;
use logos_log::payload::{Encoding, Extent, Header, Kind, PayloadWriter, TableHead};
use logos_log::value::{Value, ValueRef};
use rusqlite::{Connection, Statement};

use super::plan::{Plan, TablePlan};
use crate::catalog::values::Reading;
use crate::catalog::values::{bind, param};
use crate::catalog::{quote, schema};
use crate::error::{Doing, Result};
use crate::host::blame::{concerns_object, reason};

/// What came of writing a payload.
pub enum Written<W> {
    /// All of it.
    All(W, logos_log::payload::Counts),
    /// A table cannot be read, for this reason: the message must be planned again without it.
    Unreadable(String, String),
}

/// Why the rows of a table could not be written into the payload.
enum Failure {
    Reading(rusqlite::Error),
    Writing(logos_log::error::LogError),
}

impl From<rusqlite::Error> for Failure {
    fn from(e: rusqlite::Error) -> Self {
        Self::Reading(e)
    }
}

impl From<logos_log::error::LogError> for Failure {
    fn from(e: logos_log::error::LogError) -> Self {
        Self::Writing(e)
    }
}

/// Writes the payload of a plan. `conn` is still in the same read transaction.
pub fn write<W: Write>(
    conn: &Connection,
    plan: &Plan,
    seq: u64,
    previous: Digest,
    time_ms: i64,
    out: W,
) -> Result<Written<W>> {
    let writing = || format!("writing message {seq}");
    let header = Header {
        kind: Kind::Changes,
        encoding: plan.encoding,
        incomplete: plan.next.incomplete,
        seq,
        previous,
        time_ms,
        schema: schema::fingerprint(&plan.next.schema),
    };
    let mut writer = PayloadWriter::new(out, &header).doing(writing)?;
    if let Some(settings) = plan.settings {
        writer.settings(settings).doing(writing)?;
    }
    if !plan.statements.is_empty() {
        writer.schema(&plan.statements).doing(writing)?;
    }
    for table in &plan.tables {
        let head = TableHead {
            name: table.table.name.clone(),
            extent: table.extent,
            columns: table.table.columns.clone(),
            key: table.table.key_indices(),
        };
        writer.table(&head).doing(writing)?;
        let written = match table.extent {
            Extent::Whole => write_whole(conn, plan.encoding, &table.table, &mut writer),
            Extent::Keys => write_keys(conn, plan, table, &mut writer),
        };
        match written {
            Err(Failure::Reading(e)) if concerns_object(&e) => return Ok(Written::Unreadable(head.name, reason(&e))),
            Err(Failure::Reading(e)) => Err(e).doing(|| format!("reading table {}", quote(&head.name)))?,
            Err(Failure::Writing(e)) => Err(e).doing(writing)?,
            Ok(()) => {}
        }
    }
    if let Some(sequences) = &plan.sequences {
        writer.sequences(sequences).doing(writing)?;
    }
    let (out, counts) = writer.finish().doing(writing)?;
    Ok(Written::All(out, counts))
}

fn write_whole<W: Write>(
    conn: &Connection,
    encoding: Encoding,
    table: &schema::Table,
    writer: &mut PayloadWriter<W>,
) -> std::result::Result<(), Failure> {
    let how = Reading::of(encoding);
    // NOT INDEXED: in the order of the table itself, which the replica then appends in. It is also the same order in each of the
    // statements that a wide table needs.
    let mut statements = Vec::new();
    let groups: Vec<&[String]> = table.columns.chunks(how.width(conn)?).collect();
    for group in &groups {
        let sql = format!("SELECT {} FROM {} AS t NOT INDEXED", how.list(group), quote(&table.name));
        statements.push(conn.prepare(&sql)?);
    }
    let cursors = statements.iter_mut().map(|statement| statement.query([])).collect::<rusqlite::Result<Vec<_>>>();
    let mut cursors = cursors?;
    loop {
        let mut values = Vec::with_capacity(table.columns.len());
        for (cursor, group) in cursors.iter_mut().zip(&groups) {
            let Some(row) = cursor.next()? else { return Ok(()) };
            values.extend(how.values(row, 0, group.len())?);
        }
        writer.row(values.iter().copied())?;
    }
}

/// For each key logged, the rows that have it now. One pass: the log's distinct keys, joined with the table.
fn write_keys<W: Write>(
    conn: &Connection,
    plan: &Plan,
    table_plan: &TablePlan,
    writer: &mut PayloadWriter<W>,
) -> std::result::Result<(), Failure> {
    let table = &table_plan.table;
    let how = Reading::of(plan.encoding);
    let mut wide = Wide::of(conn, table, plan.encoding)?;
    let selected = wide.as_ref().map_or_else(|| table.columns.clone(), |wide| wide.address.clone());
    let sql = keys_sql(&how, table_plan, &selected);
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query((plan.from, plan.next.cursor))?;
    let width = table.key.len();
    let mut group = Group { key: Vec::new(), rows: Vec::new(), key_columns: table.key_indices() };
    while let Some(row) = rows.next()? {
        let mut same = !group.key.is_empty();
        for i in 0..width {
            same = same && how.get(row, i * how.stride())?.same(group.key[i].as_ref());
        }
        if !same {
            group.flush(writer)?;
            for i in 0..width {
                group.key.push(how.get(row, i * how.stride())?.to_owned());
            }
        }
        let present: bool = row.get(width * how.stride())?;
        if present {
            // One column, the witness, lies between key and row.
            let values =
                (0..selected.len()).map(|i| how.get(row, (width + i) * how.stride() + 1).map(ValueRef::to_owned));
            let values = values.collect::<rusqlite::Result<Vec<_>>>()?;
            group.rows.push(match &mut wide {
                None => values,
                Some(wide) => wide.row(&values)?,
            });
        }
    }
    Ok(group.flush(writer)?)
}

/// A table with too many columns for one SELECT: its rows are looked up once more for each group of columns.
struct Wide<'c> {
    how: Reading,
    encoding: Encoding,
    /// The columns that a row is looked up by.
    address: Vec<String>,
    /// For each group of columns a statement, and how many they are.
    groups: Vec<(Statement<'c>, usize)>,
}

impl<'c> Wide<'c> {
    fn of(conn: &'c Connection, table: &schema::Table, encoding: Encoding) -> rusqlite::Result<Option<Self>> {
        let how = Reading::of(encoding);
        let width = how.width(conn)?;
        if table.key.len() + 1 + table.columns.len() <= width {
            return Ok(None);
        }
        let address = table.rowid_names.first().map_or_else(|| table.key.clone(), |rowid| vec![rowid.clone()]);
        let operator = if table.rowid_names.is_empty() { "IS" } else { "=" };
        let found = |(i, name): (usize, &String)| format!("t.{} {operator} {}", quote(name), param(encoding, i));
        let condition = address.iter().enumerate().map(found).collect::<Vec<_>>().join(" AND ");
        let statement = |group: &[String]| {
            let sql = format!("SELECT {} FROM {} AS t WHERE {condition}", how.list(group), quote(&table.name));
            Ok((conn.prepare(&sql)?, group.len()))
        };
        let groups = table.columns.chunks(width).map(statement).collect::<rusqlite::Result<_>>()?;
        Ok(Some(Self { how, encoding, address, groups }))
    }

    /// The row at an address.
    fn row(&mut self, address: &[Value]) -> rusqlite::Result<Vec<Value>> {
        let mut all = Vec::new();
        for (statement, columns) in &mut self.groups {
            bind(statement, address.iter(), self.encoding)?;
            let mut rows = statement.raw_query();
            let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            all.extend(self.how.values(row, 0, *columns)?.into_iter().map(ValueRef::to_owned));
        }
        Ok(all)
    }
}

fn keys_sql(how: &Reading, plan: &TablePlan, selected: &[String]) -> String {
    let table = &plan.table;
    let ids = plan.ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    let log_keys = (0..table.key.len()).map(|i| format!("k{i}")).collect::<Vec<_>>().join(", ");
    let keys = (0..table.key.len()).map(|i| how.select(&format!("l.k{i}"))).collect::<Vec<_>>().join(", ");
    let columns = how.list(selected);
    // The sign makes the table's own affinity decide, as it does on the replica: a logged 123 is the '123' of a TEXT key.
    // IS also finds NULL; a rowid is never NULL, and `=` is what every version of SQLite looks it up with.
    let operator = if table.key_is_rowid { "=" } else { "IS" };
    let on = table
        .key
        .iter()
        .enumerate()
        .map(|(i, k)| format!("t.{} {operator} +l.k{i}", quote(k)))
        .collect::<Vec<_>>()
        .join(" AND ");
    // Keys that the table takes for one ('a' and 'A' under NOCASE) are one here too: the first SELECT of a UNION says
    // how its columns compare.
    let table_keys = table.key.iter().map(|k| quote(k)).collect::<Vec<_>>().join(", ");
    let compared = if table.key_is_rowid {
        String::new()
    } else {
        format!("SELECT {table_keys} FROM main.{} WHERE 0 UNION ALL ", quote(&table.name))
    };
    let rowids = plan.rowids.iter().map(|rowid| format!("({rowid})")).collect::<Vec<_>>().join(",");
    let doubted = match (plan.rowids.is_empty(), table.rowid_names.first()) {
        (false, _) if table.key_is_rowid => format!(" UNION ALL SELECT column1 FROM (VALUES {rowids})"),
        (false, Some(rowid)) => {
            let (name, rowid) = (quote(&table.name), quote(rowid));
            format!(
                " UNION ALL SELECT {table_keys} FROM {name} WHERE {rowid} IN (SELECT column1 FROM (VALUES {rowids}))"
            )
        }
        _ => String::new(),
    };
    // A column that cannot be NULL tells a row that is there from one that is not.
    let witness = table.rowid_names.first().unwrap_or(&table.key[0]);
    format!(
        "WITH _logos_logged({log_keys}) AS ({compared}SELECT {log_keys} FROM main._logos_log \
         WHERE seq > ?1 AND seq <= ?2 AND tbl IN ({ids}){doubted}) \
         SELECT {keys}, t.{} IS NOT NULL, {columns} FROM (SELECT DISTINCT {log_keys} FROM _logos_logged) AS l \
         LEFT JOIN main.{} AS t ON {on}",
        quote(witness),
        quote(&table.name)
    )
}

/// Rows with the same logged key.
struct Group {
    key: Vec<Value>,
    rows: Vec<Vec<Value>>,
    key_columns: Vec<usize>,
}

impl Group {
    fn flush<W: Write>(
        &mut self,
        writer: &mut PayloadWriter<W>,
    ) -> std::result::Result<(), logos_log::error::LogError> {
        if self.key.is_empty() {
            return Ok(());
        }
        match self.rows.as_slice() {
            [] => writer.absent(self.key.iter().map(Value::as_ref))?,
            [row] if self.key_columns.iter().zip(&self.key).all(|(&c, k)| row[c].as_ref().same(k.as_ref())) => {
                writer.row(row.iter().map(Value::as_ref))?;
            }
            rows => writer.rows(&self.key, rows)?,
        }
        self.key.clear();
        self.rows.clear();
        Ok(())
    }
}
