//! Collations of the application, which our connections do not have: in most languages they can be registered on one connection only.
//!
//! Invariants
//! - On a primary a stand-in lets statements be prepared, and nothing is looked up or ordered by it: the file is in an order that
//!   we do not know. A table whose key is sorted that way is sent whole.
//! - A replica's file is in the order of a stand-in only where the user named one, which is then kept in the file: every process
//!   that writes here must sort alike. Without one, whatever is sorted by the collation is left out (`left_out`).

use std::collections::BTreeMap;

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension};

use super::schema::Table;
use super::{quote, OURS};
use crate::error::{Doing, Error, Result};
use crate::host::collations;
pub use crate::host::collations::StandIn;

/// Stand-ins by the name of the collation, as options give them.
pub type StandIns = BTreeMap<String, StandIn>;

/// Has a connection that only reads accept whatever collation a schema names.
pub fn accept_any(conn: &Connection) {
    collations::on_collation_needed(conn, |conn, name| {
        // The second one tells a stand-in from a collation that was registered for every connection.
        let _ = collations::create_collation(conn, name, StandIn::Binary);
        let _ = collations::create_collation(conn, &format!("{OURS}{name}"), StandIn::Binary);
    });
}

/// Whether a connection does not have a collation, or only a stand-in that it accepted.
fn is_unknown(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    if conn.prepare(&format!("SELECT '' = '' COLLATE {}", quote(name))).is_err() {
        return Ok(true);
    }
    let stand_in = format!("{OURS}{name}");
    conn.prepare("SELECT 1 FROM pragma_collation_list WHERE name = ?1 COLLATE NOCASE")?.exists([stand_in])
}

/// The first collation that the rows of a table are looked up by and that this connection does not have.
pub fn unknown_in_key(conn: &Connection, table: &Table) -> rusqlite::Result<Option<String>> {
    if table.key_is_rowid {
        return Ok(None);
    }
    let mut statement = conn.prepare(
        "SELECT DISTINCT x.coll FROM pragma_index_list(?1, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS x \
         WHERE i.origin = 'pk' AND x.key",
    )?;
    let names = statement.query_map([&table.name], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for name in names {
        if is_unknown(conn, &name)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Registers the stand-ins of a replica, those it was given before and those named now, where the connection does not have the
/// collation itself.
pub fn use_stand_ins(conn: &Connection, named: &StandIns) -> Result<()> {
    let doing = || "registering stand-ins for collations".to_string();
    let mut all = kept(conn).doing(doing)?;
    for (name, &stand_in) in named {
        let before = all.insert(name.to_ascii_lowercase(), stand_in).filter(|before| *before != stand_in);
        if let Some(before) = before {
            return Err(Error::fix(
                format!(
                    "{} stands for collation {name} in this replica, and its tables are sorted by that",
                    before.word()
                ),
                "nothing was changed; name the same, or attach a new file to sort them otherwise",
            ));
        }
    }
    for (name, stand_in) in all {
        if is_unknown(conn, &name).doing(doing)? {
            collations::create_collation(conn, &name, stand_in).doing(doing)?;
        }
    }
    Ok(())
}

fn kept(conn: &Connection) -> rusqlite::Result<StandIns> {
    let exists =
        conn.query_row("SELECT 1 FROM sqlite_schema WHERE name = '_logos_collation'", [], |_| Ok(())).optional()?;
    if exists.is_none() {
        return Ok(StandIns::new());
    }
    let mut statement = conn.prepare("SELECT name, stand_in FROM _logos_collation")?;
    let rows = statement.query_map([], |row| {
        let word: String = row.get(1)?;
        let known = StandIn::ALL.iter().find(|(_, w)| *w == word).map_or(StandIn::Binary, |(it, _)| *it);
        Ok((row.get(0)?, known))
    })?;
    rows.collect()
}

/// Keeps the stand-ins with the replica.
pub fn keep(conn: &Connection, named: &StandIns) -> Result<()> {
    let doing = || "keeping stand-ins for collations".to_string();
    let before = kept(conn).doing(doing)?;
    let new = |name: &String| !before.contains_key(&name.to_ascii_lowercase());
    if !named.keys().any(new) {
        return Ok(());
    }
    let tx = conn.unchecked_transaction().doing(doing)?;
    tx.execute_batch("CREATE TABLE IF NOT EXISTS _logos_collation(name TEXT PRIMARY KEY, stand_in TEXT)")
        .doing(doing)?;
    for (name, stand_in) in named {
        tx.execute(
            "INSERT OR IGNORE INTO _logos_collation VALUES(?1, ?2)",
            (name.to_ascii_lowercase(), stand_in.word()),
        )
        .doing(doing)?;
    }
    tx.commit().doing(doing)
}

/// The name in SQLite's message about a collation that it does not have.
pub fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("no such collation sequence: ")
}

/// A collation or function that a statement asked for in vain.
fn asked_for<'m>(message: &'m str, what: &str) -> Option<&'m str> {
    message.rsplit_once(what).map(|(_, name)| name)
}

/// Makes a table that names collations and functions which are not here, as long as no row needs them: one that only says what a
/// column is compared by, a CHECK, a default. SQLite would refuse it. The caller undoes what
/// was done if this fails.
pub fn make_table(conn: &Connection, sql: &str, name: &str) -> rusqlite::Result<()> {
    let Some(lacked) = with_stand_ins(conn, || conn.execute(sql, []).map(drop))? else { return Ok(()) };
    // SQLite itself says whether writing a row takes them.
    let mut columns = conn.prepare("SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0")?;
    let columns = columns.query_map([name], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let names = columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ");
    let nulls = vec!["NULL"; columns.len()].join(", ");
    match conn.prepare(&format!("INSERT INTO {}({names}) VALUES({nulls})", quote(name))) {
        Ok(_) => Ok(()),
        Err(_) => Err(lacked),
    }
}

/// Runs a change of the schema with stand-ins for the collations and functions that it asks for and that are not here. They are
/// taken away again. Returns the first error that there would have been without.
pub fn with_stand_ins(
    conn: &Connection,
    mut run: impl FnMut() -> rusqlite::Result<()>,
) -> rusqlite::Result<Option<rusqlite::Error>> {
    let mut first = None;
    let (mut collations, mut functions): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let done = loop {
        let Err(e) = run() else { break Ok(()) };
        let rusqlite::Error::SqliteFailure(_, Some(message)) = &e else { break Err(e) };
        let new = |known: &[String], what| {
            asked_for(message, what).filter(|n| !known.iter().any(|k| k == n)).map(String::from)
        };
        if let Some(name) = new(&collations, "no such collation sequence: ") {
            collations::create_collation(conn, &name, StandIn::Binary)?;
            collations.push(name);
        } else if let Some(name) = new(&functions, "no such function: ") {
            let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
            conn.create_scalar_function(name.as_str(), -1, flags, |_| Ok(rusqlite::types::Null))?;
            functions.push(name);
        } else {
            break Err(e);
        }
        first = first.or(Some(e));
    };
    collations.iter().try_for_each(|name| collations::remove_collation(conn, name))?;
    functions.iter().try_for_each(|name| conn.remove_function(name.as_str(), -1))?;
    done.map(|()| first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering;

    #[test]
    fn stand_ins_compare_as_the_collations_of_sqlite_do() {
        assert_eq!(StandIn::Nocase.compare(b"aB", b"Ab"), Ordering::Equal);
        assert_eq!(StandIn::Nocase.compare(b"_", b"B"), Ordering::Less);
        assert_eq!(StandIn::Rtrim.compare(b"a  ", b"a"), Ordering::Equal);
        assert_eq!(StandIn::Binary.compare(b"a ", b"a"), Ordering::Greater);
    }
}
