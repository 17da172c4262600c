//! Guards: what keeps local writers off a replica.
//!
//! Invariants
//! - Every ordinary table of a replica carries them, after every change of the schema, in the same transaction.
//! - A refused write is never an error of the kind CONSTRAINT, which ORMs take for a key that exists and try again (Django's sessions
//!   for ever). RAISE gives no other kind, so a guard calls a function whose name is the sentence: without the extension there
//!   is none, and SQLite says "no such function: this database is a read-only replica…"; with it, the function refuses as READONLY.

use rusqlite::{ffi, Connection, TransactionBehavior};

use crate::capture;
use crate::catalog::{quote, schema, OURS};
use crate::error::{Doing, Error, Result};

const GUARD: &str = "guard_";

/// Name of the function that a guard calls; at most 255 bytes.
pub const REFUSAL: &str = "this database is a read-only replica of logos, write to its primary instead";

/// What it says.
pub fn refusal() -> Error {
    Error::fix(
        "this database is a read-only replica",
        "nothing was changed; write to its primary instead, or SELECT logos_remove() to make this file an ordinary database",
    )
    .with_code(ffi::SQLITE_READONLY)
}

/// Puts a guard on every replicated table: no local writer changes it by mistake, with or without the extension. Virtual
/// tables have none: a trigger on a shadow table makes the whole file unreadable for DEFENSIVE connections ("malformed
/// database schema"), and those of newer shells and of PHP are.
pub(super) fn guard(tx: &Connection) -> Result<()> {
    let doing = || "guarding the replica's tables".to_string();
    for object in schema::read(tx)?.iter().filter(|o| o.kind == "table" && !o.is_virtual()) {
        for event in ["insert", "update", "delete"] {
            let sql = format!(
                "CREATE TRIGGER {} BEFORE {} ON {} BEGIN SELECT {}(); END",
                quote(&format!("{OURS}{GUARD}{event}_{}", object.name)),
                event.to_uppercase(),
                quote(&object.name),
                quote(REFUSAL)
            );
            tx.execute_batch(&sql).doing(doing)?;
        }
    }
    Ok(())
}

/// Takes them away, so that the schema can be changed.
pub(super) fn unguard(tx: &Connection) -> Result<()> {
    let doing = || "guarding the replica's tables".to_string();
    let mut statement = tx
        .prepare(&format!("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name GLOB '{OURS}{GUARD}*'"))
        .doing(doing)?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).doing(doing)?;
    names.iter().try_for_each(|name| tx.execute_batch(&format!("DROP TRIGGER {}", quote(name)))).doing(doing)
}

/// Makes a replica an ordinary database again: takes the guards and the position away.
pub fn release(conn: &mut Connection) -> Result<()> {
    let doing = || "releasing the replica".to_string();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    capture::remove(&tx).doing(doing)?;
    tx.commit().doing(doing)
}
