//! Comparison: what of a database the channel has already, table by table, where the log of changes does not tell.
//!
//! Invariants
//! - Both sides are read in one snapshot each; what is committed later is in the log after the cursor returned.
//! - A table counts as equal when every column of every row is, type and bytes. Every doubt counts as a difference: such a table
//!   is sent whole.

use logos_log::ids::Position;
use rusqlite::Connection;

use super::{plan, stamps};
use crate::capture::omitted::Omitted;
use crate::capture::{self, canary, Captured};
use crate::catalog::values::{self, Reading};
use crate::catalog::{quote, schema};
use crate::error::{Doing, Result};
use crate::host::connection;
use crate::outbox::{Base, Published};

/// What a comparison found.
#[derive(Debug)]
pub struct Compared {
    /// From where publishing goes on.
    pub published: Published,
    /// Tables whose content the channel has not.
    pub differing: Vec<String>,
    /// Tables in all.
    pub tables: usize,
}

/// What a replica says of the channel besides its rows.
pub struct Held {
    /// The last message applied.
    pub position: Position,
    /// Whether that called what the channel has incomplete.
    pub incomplete: bool,
    /// The schema that the channel has, with what the replica leaves out.
    pub schema: Vec<schema::Object>,
}

/// Compares a primary, which is under capture, with a replica that holds what the channel has.
pub fn compare(primary: &Connection, replica: &Connection, held: Held) -> Result<Compared> {
    let doing = || "comparing the database with the channel".to_string();
    primary.execute_batch("BEGIN").doing(doing)?;
    let compared = within_snapshot(primary, replica, held);
    primary.execute_batch("ROLLBACK").doing(doing)?;
    compared
}

fn within_snapshot(primary: &Connection, replica: &Connection, held: Held) -> Result<Compared> {
    let doing = || "comparing the database with the channel".to_string();
    let (mut here, there) = (schema::read(primary)?, held.schema);
    let captured = capture::survey(primary, &mut here, &mut Omitted::default())?;
    let pragma = |name: &str| replica.pragma_query_value(None, name, |row| row.get(0)).doing(doing);
    let settings = logos_log::payload::Settings {
        user_version: pragma("user_version")?,
        application_id: pragma("application_id")?,
    };
    let mut bases = Vec::new();
    let mut differing = Vec::new();
    for table in &captured {
        let known = here.iter().any(|o| o.kind == "table" && o.name == table.table.name && there.contains(o));
        match table.id.filter(|_| known && table.intact && same_rows(primary, replica, table)) {
            Some(id) => {
                bases.push(Base { id, name: table.table.name.clone(), intact: true, columns: table.columns.clone() })
            }
            None => differing.push(table.table.name.clone()),
        }
    }
    let cookie = connection::cookie(primary).doing(doing)?;
    let plan::End { cursor, mark: cursor_mark, history } = plan::log_end(primary).doing(doing)?;
    Ok(Compared {
        tables: captured.len(),
        differing,
        published: Published {
            position: held.position,
            cursor,
            cursor_mark,
            history,
            schema: there,
            bases,
            sequences: schema::sequences(replica).doing(doing)?,
            // Nobody compares the rows of virtual tables: they are sent whole.
            stamps: Vec::new(),
            settings: Some(settings),
            incomplete: held.incomplete,
            encoding: Some(values::encoding(replica)?),
            canary: canary::read(primary).doing(doing)?,
            // What is sent as equal was compared: nothing that happened before matters.
            cookie: Some(cookie),
        },
    })
}

fn same_rows(primary: &Connection, replica: &Connection, captured: &Captured) -> bool {
    let table = &captured.table;
    if table.is_virtual || table.sent_whole {
        return false;
    }
    // Text as the bytes it is stored in: converted, what is not valid would look alike.
    let column = |name: &String| {
        let name = quote(name);
        format!("typeof({name}), CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END")
    };
    let columns = table.columns.iter().map(column).collect::<Vec<_>>().join(", ");
    let order = table.key.iter().map(|k| quote(k)).collect::<Vec<_>>().join(", ");
    let query = [(format!("SELECT {columns} FROM {} ORDER BY {order}", quote(&table.name)), 2 * table.columns.len())];
    let how = Reading::of(logos_log::payload::Encoding::Utf8);
    match (stamps::digest(primary, &how, &query), stamps::digest(replica, &how, &query)) {
        (Ok(here), Ok(there)) => here == there,
        _ => false,
    }
}
