//! Columns that were dropped and added again, as they were: the schema reads as before, but their values are gone, and no
//! trigger fired.
//!
//! Such a column is one of the table's last, and holds its default in every row (a table that was written to is sent whole). Where the schema
//! cookie moved further than the known changes explain and a table looks like that, the same two ALTERs are sent: if it
//! was so, they do on the replica what was done here; if it always looked like that, they change nothing there.

use rusqlite::Connection;

use super::diff::Copy;
use super::schema::{Object, Table};
use super::{quote, sqltext};

/// A DROP and an ADD move the schema cookie by at least this.
const STEPS: i64 = 2;

/// Whatever depends on the column (an index, a view, a trigger) must have been dropped and made again around them.
const STEPS_AROUND: i64 = 2;

/// What to do about one table.
#[derive(Debug, PartialEq, Eq)]
pub enum Reset {
    /// Nothing: it cannot have happened.
    No,
    /// Send these statements.
    Statements(Vec<String>),
    /// It cannot be told, or not be said in statements: send the table whole.
    Unknown,
}

/// Looks at one table whose text has not changed, and to which nothing was written. `old` and `new` are the schemas then and
/// now; `surplus`: how much further the cookie moved than is explained.
pub fn find(
    conn: &Connection,
    table: &Table,
    object: &Object,
    (old, new): (&[Object], &[Object]),
    surplus: i64,
) -> rusqlite::Result<Reset> {
    if surplus < STEPS || table.is_virtual {
        return Ok(Reset::No);
    }
    let Some(candidates) = candidates(object, (old, new), surplus / STEPS) else { return Ok(Reset::No) };
    let mut found = Vec::new();
    for Candidate { column, drop, add, ways } in candidates {
        match (has_value_of_its_own(conn, table, &column), ways) {
            (Ok(false), Ways::Now) => found.push((drop, add)),
            (Ok(false), Ways::Before) => return Ok(Reset::Unknown),
            (Ok(false), Ways::None) if surplus >= STEPS + STEPS_AROUND => return Ok(Reset::Unknown),
            (Ok(_), _) => break,
            (Err(_), _) => return Ok(Reset::Unknown),
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
    ways: Ways,
}

/// With which of the objects that depend on the column it can be done.
enum Ways {
    /// With all that there are now.
    Now,
    /// Only without those that are new.
    Before,
    /// They must have been dropped and made again around it.
    None,
}

/// The last columns that SQLite lets one drop and add so that the text is the same, from the last on.
fn candidates(object: &Object, (old, new): (&[Object], &[Object]), most: i64) -> Option<Vec<Candidate>> {
    let definitions = sqltext::column_definitions(&object.sql)?;
    let kept: Vec<Object> = new.iter().filter(|o| old.contains(o)).cloned().collect();
    let mut found: Vec<Candidate> = Vec::new();
    let columns = definitions.iter().rev().skip_while(|d| d.is_constraint());
    for definition in columns.take(most as usize).take_while(|d| d.can_be_added()) {
        let drop = format!("ALTER TABLE {} DROP COLUMN {}", quote(&object.name), quote(&definition.name));
        let add = format!("ALTER TABLE {} ADD COLUMN {}", quote(&object.name), definition.text);
        found.push(Candidate { column: definition.name.clone(), drop, add, ways: Ways::None });
        // Only what leads back to the same text can have happened unseen.
        if !leads_back(&found, std::slice::from_ref(object)) {
            found.pop();
            break;
        }
        let ways = match (leads_back(&found, new), leads_back(&found, &kept)) {
            (true, _) => Ways::Now,
            (false, true) => Ways::Before,
            (false, false) => Ways::None,
        };
        found.iter_mut().last()?.ways = ways;
    }
    (!found.is_empty()).then_some(found)
}

fn leads_back(found: &[Candidate], objects: &[Object]) -> bool {
    let Ok(mut copy) = Copy::of(objects) else { return false };
    let drops = found.iter().map(|c| c.drop.clone());
    let adds = found.iter().rev().map(|c| c.add.clone());
    drops.chain(adds).try_for_each(|sql| copy.run(sql)).is_ok() && copy.has(objects)
}

/// Whether a row has another value than the default: then the column was not dropped.
fn has_value_of_its_own(conn: &Connection, table: &Table, column: &str) -> rusqlite::Result<bool> {
    let default: Option<String> = conn.query_row(
        "SELECT dflt_value FROM pragma_table_xinfo(?1) WHERE name = ?2",
        (&table.name, column),
        |row| row.get(0),
    )?;
    let default = default.unwrap_or_else(|| "NULL".into());
    let any = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE {} IS NOT {default})", quote(&table.name), quote(column));
    conn.query_row(&any, [], |row| row.get(0))
}
