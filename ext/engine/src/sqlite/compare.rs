//! Comparison: what of a database the channel has already, table by table, where the log of changes does not tell.
//!
//! Invariants
//! - Both sides are read in one snapshot each; what is committed later is in the log after the cursor returned.
//! - A table counts as equal when every column of every row is, type and bytes. Every doubt counts as a difference: such a table
//!   is sent whole.

use logos_log::ids::Position;
use rusqlite::Connection;

use super::canary;
use super::capture::{self, Captured};
use super::omitted::Omitted;
use super::sidecar::{Base, Published};
use super::{left_out, quote, role, schema, snapshot, stamps};
use crate::error::{Doing, Result};

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

/// Compares a primary with a replica that holds what the channel has at `position`. The primary is under capture.
pub fn compare(primary: &Connection, replica: &Connection, position: Position) -> Result<Compared> {
    let doing = || "comparing the database with the channel".to_string();
    primary.execute_batch("BEGIN").doing(doing)?;
    let compared = within_snapshot(primary, replica, position);
    primary.execute_batch("ROLLBACK").doing(doing)?;
    compared
}

fn within_snapshot(primary: &Connection, replica: &Connection, position: Position) -> Result<Compared> {
    let doing = || "comparing the database with the channel".to_string();
    let (mut here, there) = (schema::read(primary)?, left_out::schema(replica)?);
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
    let cookie = schema::cookie(primary).doing(doing)?;
    let snapshot::End { cursor, mark: cursor_mark, history } = snapshot::log_end(primary).doing(doing)?;
    Ok(Compared {
        tables: captured.len(),
        differing,
        published: Published {
            position,
            cursor,
            cursor_mark,
            history,
            schema: there,
            bases,
            sequences: snapshot::sequences(replica).doing(doing)?,
            // Nobody compares the rows of virtual tables: they are sent whole.
            stamps: Vec::new(),
            settings: Some(settings),
            incomplete: role::position(replica)?.is_some_and(|standing| standing.incomplete),
            encoding: Some(snapshot::encoding(replica)?),
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
    let how = snapshot::Reading::of(logos_log::payload::Encoding::Utf8);
    match (stamps::digest(primary, &how, &query), stamps::digest(replica, &how, &query)) {
        (Ok(here), Ok(there)) => here == there,
        _ => false,
    }
}
