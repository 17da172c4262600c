//! `logos_status` and `logos_log` as values.

use std::path::Path;

use rusqlite::Connection;

/// One row of `logos_status`.
#[derive(Debug, Clone)]
pub struct Status {
    pub channel: String,
    pub database: String,
    pub role: String,
    pub state: String,
    pub position: Option<String>,
    pub accepted_position: Option<String>,
    pub lag_messages: i64,
    pub lag_bytes: i64,
    pub messages: i64,
    pub bytes: i64,
    pub error: Option<String>,
    pub hint: Option<String>,
    /// Without what every row says of a SQLite with a bug.
    pub warnings: String,
}

/// The warnings of a row without the one of SQLite's version, which is there if and only if that version has the WAL-reset bug.
pub fn without_version(warnings: &str, sqlite: &str) -> String {
    let numbers: Vec<u32> = sqlite.split('.').map(|number| number.parse().unwrap()).collect();
    let has_bug = match numbers[..] {
        [3, 44, patch] => patch < 6,
        [3, 50, patch] => patch < 7,
        [3, 51, patch] => patch < 3,
        [3, minor, _] => minor < 51,
        _ => panic!("SQLite {sqlite}"),
    };
    let is_of_version = |warning: &&str| warning.starts_with(&format!("SQLite {sqlite} has a bug"));
    let (of_version, others): (Vec<&str>, Vec<&str>) =
        warnings.split("; ").filter(|warning| !warning.is_empty()).partition(is_of_version);
    assert_eq!(of_version.len(), usize::from(has_bug), "SQLite {sqlite}: {warnings}");
    assert!(of_version.iter().all(|warning| warning.ends_with(": upgrade to 3.51.3")), "{warnings}");
    others.join("; ")
}

/// Every row of `logos_status`.
pub fn status(conn: &Connection) -> Vec<Status> {
    let mut statement = conn
        .prepare(
            "SELECT coalesce(channel, ''), database, role, state, position, accepted_position, coalesce(lag_messages, 0),
                    coalesce(lag_bytes, 0), coalesce(messages, 0), coalesce(bytes, 0), error, hint, coalesce(warnings, ''), sqlite
               FROM logos_status",
        )
        .unwrap();
    let rows = statement.query_map([], |row| {
        Ok(Status {
            channel: row.get(0)?,
            database: row.get(1)?,
            role: row.get(2)?,
            state: row.get(3)?,
            position: row.get(4)?,
            accepted_position: row.get(5)?,
            lag_messages: row.get(6)?,
            lag_bytes: row.get(7)?,
            messages: row.get(8)?,
            bytes: row.get(9)?,
            error: row.get(10)?,
            hint: row.get(11)?,
            warnings: without_version(&row.get::<_, String>(12)?, &row.get::<_, String>(13)?),
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// The row of one database of this process.
pub fn status_of(conn: &Connection, database: &Path) -> Option<Status> {
    let wanted = database.canonicalize().unwrap();
    status(conn).into_iter().find(|row| Path::new(&row.database).canonicalize().is_ok_and(|path| path == wanted))
}

/// The warnings of the only row of a role (`primary`, `replica`).
pub fn warnings(conn: &Connection, role: &str) -> String {
    let mut rows = status(conn);
    rows.retain(|row| row.role == role);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0).warnings
}

/// One row of `logos_log`.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub seq: i64,
    pub position: String,
    pub parent: Option<String>,
    pub state: String,
    pub kind: String,
    pub bytes: i64,
}

/// Every row of `logos_log`, oldest first.
pub fn messages(conn: &Connection) -> Vec<Message> {
    let mut statement =
        conn.prepare("SELECT seq, position, parent, state, kind, bytes FROM logos_log ORDER BY seq").unwrap();
    let rows = statement.query_map([], |row| {
        Ok(Message {
            seq: row.get(0)?,
            position: row.get(1)?,
            parent: row.get(2)?,
            state: row.get(3)?,
            kind: row.get(4)?,
            bytes: row.get(5)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}
