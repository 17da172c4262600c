//! What virtual tables answer, and which of them a replica may lack.
//!
//! - With content of its own (FTS, rtree): rows and answers are the primary's.
//! - An index over an ordinary table: its rows are the table's. It is kept over all of them, whatever the application's
//!   triggers do, so its answers are those of the primary's index after a rebuild.
//! - Everything else may be left out. Then it is not there, and the status names it.

use std::time::Duration;

use harness::rusqlite::backup::Backup;
use harness::{Connection, Sql};

/// A virtual table as its statement describes it.
pub struct Virtual {
    name: String,
    sql: String,
}

const WORDS: [&str; 4] = ["a", "fo*", "größe", "b OR d"];

impl Virtual {
    fn is_fts(&self) -> bool {
        let sql = self.sql.to_lowercase();
        sql.contains("using fts") && !sql.contains("fts5vocab")
    }

    fn has_own_content(&self) -> bool {
        // As the generator writes them; FTS5 takes any beginning of an option's name.
        let written = self.sql.to_lowercase();
        let elsewhere = ["con=", "conte=", "content=", "content =", "languageid"];
        written.contains("using rtree") || (self.is_fts() && !elsewhere.iter().any(|option| written.contains(option)))
    }

    /// Whether it is an index over a table that has all its columns, and no column that hides the rowid.
    fn fits_its_table(&self, conn: &Connection) -> bool {
        let written = self.sql.replace("conte=", "content=");
        let Some((_, rest)) = written.split_once("content='") else { return false };
        let content = rest.replace("''", "\0");
        let content = content.split('\'').next().unwrap_or_default().replace('\0', "'");
        let ordinary = "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE \
                        AND type = 'table' AND NOT wr AND NOT EXISTS (SELECT 1 FROM pragma_table_xinfo(?1) c \
                        WHERE lower(c.name) = 'rowid' AND NOT (c.pk = 1 AND lower(c.type) = 'integer'))";
        let ordinary: i64 = conn.query_row(ordinary, [&content], |row| row.get(0)).unwrap();
        // A column of that name that is gone reads like the rowid.
        let strange = "SELECT count(*) FROM pragma_table_info(?1) WHERE lower(name) NOT IN (SELECT lower(name) FROM pragma_table_xinfo(?2))";
        let strange: i64 = conn.query_row(strange, [self.name.as_str(), &content], |row| row.get(0)).unwrap();
        ordinary == 1 && strange == 0 && !self.sql.contains("languageid") && self.is_readable(conn)
    }

    fn is_readable(&self, conn: &Connection) -> bool {
        conn.try_texts(&format!("SELECT count(*) FROM (SELECT * FROM main.{})", quote(&self.name))).is_ok()
            && conn.try_texts(&format!("SELECT * FROM main.{}", quote(&self.name))).is_ok()
    }

    fn answers(&self, conn: &Connection, rowid: bool) -> Vec<String> {
        let name = quote(&self.name);
        let Ok(statement) = conn.prepare(&format!("SELECT * FROM main.{name}")) else { return Vec::new() };
        let mut shown: Vec<String> =
            statement.column_names().map(|column| format!("quote({})", quote(column))).collect();
        if rowid {
            shown.push("rowid".into());
        }
        let shown = shown.join(" || '|' || ");
        let mut lines = Vec::new();
        for word in WORDS.iter().filter(|_| self.is_fts()) {
            let found = conn.try_texts(&format!("SELECT {shown} FROM main.{name} WHERE {name} MATCH '{word}'"));
            let found = found.unwrap_or_else(|error| vec![error.to_string()]);
            lines.extend(found.iter().map(|line| format!("{} MATCH {word}: {line}", self.name)));
        }
        if !self.is_fts() {
            let found = conn.try_texts(&format!("SELECT {shown} FROM main.{name} WHERE x0 <= 3 AND x1 >= 6"));
            let found = found.unwrap_or_else(|error| vec![error.to_string()]);
            lines.extend(found.iter().map(|line| format!("{} about 5: {line}", self.name)));
        }
        lines
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The virtual tables of a database.
pub fn all(conn: &Connection) -> Vec<Virtual> {
    let query = "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0 ORDER BY name";
    let mut statement = conn.prepare(query).unwrap();
    let rows = statement.query_map([], |row| Ok(Virtual { name: row.get(0)?, sql: row.get(1)? })).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Those that cannot be read at the moment: their table is gone, say.
pub fn unreadable(conn: &Connection) -> Vec<String> {
    all(conn).into_iter().filter(|v| !v.is_readable(conn)).map(|v| v.name).collect()
}

/// Everything that they answer.
pub fn answers(conn: &Connection) -> Vec<String> {
    all(conn).iter().filter(|v| v.is_readable(conn)).flat_map(|v| v.answers(conn, true)).collect()
}

/// Those of the primary that are not compared with the replica; or what is missing there, or not named, without leave.
pub fn left_out(primary: &Connection, replica: &Connection) -> Result<Vec<String>, String> {
    let there: Vec<String> = all(replica).into_iter().map(|v| v.name).collect();
    let warnings =
        || primary.text("SELECT coalesce(group_concat(warnings), '') FROM logos_status WHERE role = 'primary'");
    let here = all(primary);
    if let Some(alone) = there.iter().find(|name| here.iter().all(|v| v.name != **name)) {
        return Err(format!("the replica has a virtual table {alone}, the primary has none"));
    }
    let mut names = Vec::new();
    for v in here {
        if there.contains(&v.name) {
            if !v.is_readable(primary) {
                names.push(v.name);
            }
        } else if v.has_own_content() || v.fits_its_table(primary) {
            return Err(format!("{} is not on the replica: {}\n  {}", v.name, v.sql, warnings()));
        } else if !soon(|| warnings().contains(&v.name)) {
            return Err(format!("{} is left out, which nobody says: {}\n  {}", v.name, v.sql, warnings()));
        } else {
            names.push(v.name);
        }
    }
    Ok(names)
}

/// A table without a row changes no position: a flush may be answered before the status has its name.
fn soon(mut come_true: impl FnMut() -> bool) -> bool {
    (0..1_000).any(|_| {
        let true_now = come_true();
        if !true_now {
            std::thread::sleep(Duration::from_millis(5));
        }
        true_now
    })
}

/// What the replica answers, and what it should answer.
pub fn compared(primary: &Connection, replica: &Connection, left_out: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut wanted, mut found) = (Vec::new(), Vec::new());
    let mut copy: Option<Connection> = None;
    for v in all(primary).iter().filter(|v| !left_out.contains(&v.name)) {
        if v.has_own_content() {
            wanted.extend(v.answers(primary, true));
            found.extend(v.answers(replica, true));
        } else if v.fits_its_table(primary) {
            let copy = copy.get_or_insert_with(|| in_memory(primary));
            if copy.try_run(&format!("INSERT INTO {0}({0}) VALUES ('rebuild')", quote(&v.name))).is_ok() {
                wanted.extend(v.answers(copy, false));
                found.extend(v.answers(replica, false));
            }
        }
    }
    (wanted, found)
}

fn in_memory(conn: &Connection) -> Connection {
    let mut copy = Connection::open_in_memory().unwrap();
    copy.run(&format!("PRAGMA page_size = {}", conn.int("PRAGMA page_size")));
    Backup::new(conn, &mut copy).unwrap().run_to_completion(10_000, Duration::ZERO, None).unwrap();
    copy
}
