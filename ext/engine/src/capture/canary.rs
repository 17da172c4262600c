//! The canary: a row that tells that the file was vacuumed.
//!
//! VACUUM renumbers every rowid that no column declares, and so does a `.dump` that is read into a new file. Rows without a key
//! of their own are known by such a rowid, on a primary as on a replica.
//!
//! Invariants
//! - `_logos_canary` has one row and no index, and its rowid is a random number above 1. Renumbered it is 1; set anew it is
//!   another one.

use rusqlite::Connection;

/// The rowid of the row; `None` where there is no row.
pub fn read(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    conn.query_row("SELECT max(rowid) FROM _logos_canary", [], |row| row.get(0))
}

/// Whether the next VACUUM will be told by it.
pub fn is_armed(canary: Option<i64>) -> bool {
    canary.is_some_and(|rowid| rowid > 1)
}

/// Sets it, if it is not. The caller has an open write transaction.
pub fn arm(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("CREATE TABLE IF NOT EXISTS _logos_canary(note TEXT)")?;
    if is_armed(read(conn)?) {
        return Ok(());
    }
    conn.execute_batch(
        "DELETE FROM _logos_canary; INSERT INTO _logos_canary(rowid, note) VALUES(2 + (random() & 0xffffffffffff), \
         'VACUUM changes the rowid of this row; so logos knows that it may have changed others');",
    )
}
