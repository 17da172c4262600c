//! Columns that were dropped and added again, as they were: the schema reads as before, but their values are gone, and no
//! trigger fired.
//!
//! Such a column is one of the table's last, and holds its default in every row that was not written since. Where the schema
//! cookie moved further than the known changes explain and a table looks like that, the same two ALTERs are sent: if it
//! was so, they do on the replica what was done here; if it always looked like that, they change nothing there.

use rusqlite::Connection;

use super::capture::Captured;
use super::diff::Copy;
use super::schema::Object;
use super::{quote, sqltext};

/// A DROP and an ADD move the schema cookie by at least this.
const STEPS: i64 = 2;

/// Whatever depends on the column (an index, a view, a trigger) must have been dropped and made again around them.
const STEPS_AROUND: i64 = 2;

/// Log rows up to which it is worth looking who was written.
const LOG_ROWS_MAX: i64 = 1_000;

/// What to do about one table.
#[derive(Debug, PartialEq, Eq)]
pub enum Reset {
    /// Nothing: it cannot have happened.
    No,
    /// Send these statements.
    Statements(Vec<String>),
    /// Too much was written to tell: send the table whole.
    Unknown,
}

/// Looks at one table whose text has not changed. `surplus`: how much further the cookie moved than is explained;
/// `written`: log rows of the table after `cursor`.
pub fn find(
    conn: &Connection,
    captured: &Captured,
    (object, all): (&Object, &[Object]),
    surplus: i64,
    written: i64,
    cursor: i64,
) -> rusqlite::Result<Reset> {
    if surplus < STEPS || captured.table.is_virtual {
        return Ok(Reset::No);
    }
    let Some(statements) = candidates(object, all, surplus / STEPS) else { return Ok(Reset::No) };
    let mut found = Vec::new();
    for Candidate { column, drop, add, possible } in statements {
        if written > LOG_ROWS_MAX {
            return Ok(Reset::Unknown);
        }
        match has_value_of_its_own(conn, captured, &column, cursor) {
            Ok(false) if possible => found.push((drop, add)),
            Ok(false) if surplus >= STEPS + STEPS_AROUND => return Ok(Reset::Unknown),
            Ok(_) => break,
            Err(_) => return Ok(Reset::Unknown),
        }
    }
    if found.is_empty() {
        return Ok(Reset::No);
    }
    let drops = found.iter().map(|pair| pair.0.clone());
    let adds = found.iter().rev().map(|pair| pair.1.clone());
    Ok(Reset::Statements(drops.chain(adds).collect()))
}

/// A column that may have been dropped and added.
struct Candidate {
    column: String,
    drop: String,
    add: String,
    /// Whether it can be done as the schema is now, with all that depends on the column.
    possible: bool,
}

/// The last columns that SQLite lets one drop and add so that the text is the same, from the last on.
fn candidates(object: &Object, all: &[Object], most: i64) -> Option<Vec<Candidate>> {
    let definitions = sqltext::column_definitions(&object.sql)?;
    let mut found: Vec<Candidate> = Vec::new();
    for definition in definitions.iter().rev().take(most as usize).take_while(|d| d.can_be_added()) {
        let drop = format!("ALTER TABLE {} DROP COLUMN {}", quote(&object.name), quote(&definition.name));
        let add = format!("ALTER TABLE {} ADD COLUMN {}", quote(&object.name), definition.text);
        found.push(Candidate { column: definition.name.clone(), drop, add, possible: true });
        // Only what leads back to the same text can have happened unseen.
        if !leads_back(&found, std::slice::from_ref(object)) {
            found.pop();
            break;
        }
        let possible = leads_back(&found, all);
        found.iter_mut().last()?.possible = possible;
    }
    (!found.is_empty()).then_some(found)
}

fn leads_back(found: &[Candidate], objects: &[Object]) -> bool {
    let Ok(mut copy) = Copy::of(objects) else { return false };
    let drops = found.iter().map(|c| c.drop.clone());
    let adds = found.iter().rev().map(|c| c.add.clone());
    drops.chain(adds).try_for_each(|sql| copy.run(sql)).is_ok() && copy.has(objects)
}

/// Whether a row that was not written since has another value than the default: then the column was not dropped.
fn has_value_of_its_own(conn: &Connection, captured: &Captured, column: &str, cursor: i64) -> rusqlite::Result<bool> {
    let table = &captured.table;
    let default: Option<String> = conn.query_row(
        "SELECT dflt_value FROM pragma_table_xinfo(?1) WHERE name = ?2",
        (&table.name, column),
        |row| row.get(0),
    )?;
    let default = default.unwrap_or_else(|| "NULL".into());
    let id = captured.id.unwrap_or(-1);
    let same_key = table
        .key
        .iter()
        .enumerate()
        .map(|(i, key)| format!("l.k{i} IS t.{}", quote(key)))
        .collect::<Vec<_>>()
        .join(" AND ");
    conn.query_row(
        &format!(
            "SELECT EXISTS (SELECT 1 FROM {} AS t WHERE t.{} IS NOT {default} AND NOT EXISTS \
             (SELECT 1 FROM _logos_log AS l WHERE l.seq > ?1 AND l.tbl = {id} AND {same_key}))",
            quote(&table.name),
            quote(column)
        ),
        [cursor],
        |row| row.get(0),
    )
}
