//! Capture: the key log and the triggers that write it, in the application's own transaction.
//!
//! Invariants
//! - A set of triggers belongs to an id. It is remade under a new id when it no longer fits its table, or is no longer the
//!   newest; log rows under an id that no table has any more mean "written while the triggers did not fit".
//! - Each row of the log has a random number, so that two histories of one database, which may well log the same keys under the same
//!   `seq`, are told apart (`changeset::plan`). The last rows that any message covers are never forgotten.
//! - Row 0 of the log holds a random number for ever: the log's own name. A log that was emptied, or dropped and made again, has
//!   another one or none, and what was published says nothing about it.
//!
//! Not here: what the triggers say (`triggers`), when to enrol (`drive`), what is made of the log (`changeset`).

pub mod canary;
pub mod columns;
pub mod connected;
pub mod doubts;
pub mod home;
pub mod ledger;
pub mod observer;
pub mod omitted;
mod replaced;
pub mod signal;
mod triggers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension};

use crate::catalog::schema::{self, Table};
use crate::catalog::{collation, quote, sqltext, OURS};
use crate::error::{Doing, Error, Result};
use crate::host::blame::{concerns_object, reason};
use crate::host::connection;
use home::Home;
use omitted::Omitted;
use triggers::{triggers, Trigger, LOG};

/// Log rows before the cursor with which a restored backup is told from its original.
pub(super) const REMEMBERED: i64 = 16;

/// Log rows that are deleted between two looks at the clock.
const FORGOTTEN_AT_ONCE: i64 = 1_024;

/// The version of our tables in a database.
const FORMAT: i64 = 3;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _logos_log(seq INTEGER PRIMARY KEY, tbl INTEGER, r INTEGER DEFAULT (random() & 32767), k0);
    CREATE TABLE IF NOT EXISTS _logos_table(id INTEGER PRIMARY KEY, name TEXT, replaces INTEGER);
    CREATE TABLE IF NOT EXISTS _logos_state(id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER,
        channel TEXT, path TEXT, file TEXT);
    INSERT OR IGNORE INTO _logos_log(seq, tbl, k0) VALUES(0, 0, random());
    INSERT OR IGNORE INTO _logos_state(id, format) VALUES(1, 3);";

/// From format 2 to 3. Its trigger on the log was part of every statement that the application prepared.
const UPGRADE: &str = "
    DROP TRIGGER IF EXISTS \"_logos_prune\";
    ALTER TABLE _logos_state ADD COLUMN channel TEXT; ALTER TABLE _logos_state ADD COLUMN path TEXT;
    ALTER TABLE _logos_state ADD COLUMN file TEXT; UPDATE _logos_state SET format = 3;";

/// One replicated table and what is known of its capture.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The table.
    pub table: Table,
    /// Id of its triggers; `None` when it has none.
    pub id: Option<i64>,
    /// The id that `id` took over from without a gap, if any.
    pub replaces: Option<i64>,
    /// Whether the triggers that log each row's own key are as they must be.
    pub core: bool,
    /// Whether all triggers are as they must be.
    pub intact: bool,
    /// The list of its columns that SQLite keeps up to date (`columns`).
    pub columns: Vec<String>,
}

impl Captured {
    /// Whether there is nothing to do about its capture.
    pub fn is_enrolled(&self) -> bool {
        self.intact && (self.table.is_virtual || self.table.visible.iter().all(|c| self.columns.contains(&c.name)))
    }
}

/// Looks at every table of the replicated schema. What cannot be described is taken out of `objects`, and noted.
pub fn survey(conn: &Connection, objects: &mut Vec<schema::Object>, omitted: &mut Omitted) -> Result<Vec<Captured>> {
    let doing = || "looking at the capture triggers".to_string();
    let mut statement = conn
        .prepare(
            "SELECT rowid, name, lower(tbl_name), sql FROM sqlite_schema WHERE type = 'trigger' AND sql IS NOT NULL",
        )
        .doing(doing)?;
    let rows = statement.query_map([], |row| {
        // Theirs need not be UTF-8.
        let text = |i| row.get_ref(i).and_then(|v| Ok(String::from_utf8_lossy(v.as_bytes()?).into_owned()));
        Ok(Present { age: row.get(0)?, name: text(1)?, table: text(2)?, sql: text(3)? })
    });
    let present: Vec<Present> = rows.and_then(Iterator::collect).doing(doing)?;
    let parents = schema::parents(conn).doing(doing)?;
    collation::accept_any(conn);
    let replaced = replaced(conn).doing(doing)?;
    omitted.begin(connection::cookie(conn).doing(doing)?);
    for (kind, name) in schema::not_utf8(conn)? {
        omitted.find(&kind, &name, "its text in the schema is not UTF-8".into());
    }
    let mut nulls = NullKeys::default();
    let mut all = Vec::new();
    for object in objects.iter().filter(|o| o.kind == "table") {
        if omitted.covers(object) {
            continue;
        }
        let described = schema::try_table(conn, object);
        let table = match described.and_then(|table| check_loops(conn, object).map(|()| table)) {
            Err(e) if concerns_object(&e) => {
                omitted.find(&object.kind, &object.name, reason(&e));
                continue;
            }
            other => other.doing(|| format!("reading the columns and indexes of table {}", quote(&object.name)))?,
        };
        let Some(mut table) = table else { continue };
        if table.is_virtual {
            // Known by its stamp (`virtuals`), not by triggers.
            all.push(Captured { table, id: None, replaces: None, core: true, intact: true, columns: Vec::new() });
            continue;
        }
        let unknown = collation::unknown_in_key(conn, &table).doing(doing)?;
        if let Some(collation) = unknown.filter(|_| !table.sent_whole) {
            (table.sent_whole, table.key) = (true, table.key.into_iter().take(1).collect());
            omitted.note(format!(
                "table {} is sent whole whenever it changes: its key is sorted by collation {collation}, which only the \
                 application's own connections have",
                table.name
            ));
        }
        let name = table.name.to_ascii_lowercase();
        table.is_parent = !table.key_is_rowid && parents.contains(&name);
        let (carried, others): (Vec<_>, Vec<_>) =
            present.iter().filter(|t| t.table == name).partition(|t| t.id_and_role().is_some());
        let (lists, carried): (Vec<_>, Vec<_>) =
            carried.into_iter().partition(|t| t.id_and_role().is_some_and(|(_, role)| role == columns::ROLE));
        let columns = lists.first().map(|t| sqltext::update_of(&t.sql)).unwrap_or_default();
        let insert = carried.iter().find_map(|t| Some((t, t.id_and_role().filter(|(_, role)| *role == "insert")?.0)));
        let id = insert.map(|(_, id)| id);
        if table.key_may_be_null {
            let other = schema::table_by_rowid(conn, object)?;
            let is_by_rowid =
                insert.is_some_and(|(t, id)| triggers(&other, id, &|_| true).iter().any(|o| o.sql == t.sql));
            if is_by_rowid || nulls.seen(conn, &table, id).doing(doing)? {
                table = other;
            }
        }
        let (mut core, mut intact, mut replaces) = (false, false, None);
        if let Some(id) = id {
            let has = |wanted: &Trigger| carried.iter().any(|t| t.name == wanted.name && t.sql == wanted.sql);
            // As a rule they are as the texts alone say; asking SQLite takes longer.
            let mut wanted = triggers(&table, id, &|_| true);
            if !wanted.iter().all(has) {
                wanted = triggers(&table, id, &|query| has_meaning(conn, &table, query));
            }
            // SQLite fires the newest first, and what comes before ours may keep ours from firing.
            let oldest = carried.iter().map(|t| t.age).min();
            let newer: Vec<_> =
                others.iter().filter(|t| Some(t.age) > oldest && sqltext::mentions(&t.sql, "after")).collect();
            // Any may end the statement by a conflict, under OR FAIL; without a rowid no hook tells of the row either.
            let without_rowid = table.rowid_names.is_empty() && !newer.is_empty();
            let kept_from_us = without_rowid || newer.iter().any(|t| sqltext::keeps_rows_from_triggers(&t.sql));
            core = wanted.iter().filter(|t| t.core).all(has) && !kept_from_us && !columns.is_empty();
            intact = !columns.is_empty() && wanted.len() == carried.len() && wanted.iter().all(has) && newer.is_empty();
            replaces = replaced.get(&id).copied();
        }
        all.push(Captured { table, id, replaces, core, intact, columns });
    }
    objects.retain(|object| !omitted.covers(object));
    Ok(all)
}

/// Which ids have logged NULL in which columns of their keys.
#[derive(Default)]
struct NullKeys {
    /// One reading of the log is enough for all tables.
    logged: Option<Vec<(i64, Vec<bool>)>>,
}

impl NullKeys {
    /// Whether a table has had a row with NULL in its key. From then on its rows are known by their rowids: by the key, each
    /// such row would bring all of them along.
    fn seen(&mut self, conn: &Connection, table: &Table, id: Option<i64>) -> rusqlite::Result<bool> {
        let Some(id) = id else {
            let any = |k: &String| {
                let sql = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE {} IS NULL)", quote(&table.name), quote(k));
                conn.query_row(&sql, [], |row| row.get::<_, bool>(0))
            };
            return table.key.iter().try_fold(false, |found, k| Ok(found || any(k)?));
        };
        if self.logged.is_none() {
            self.logged = Some(logged_nulls(conn, i64::MIN)?);
        }
        Ok(self.logged.iter().flatten().any(|logged| is_null(logged, (id, table.key.len()))))
    }
}

/// The ids that were logged after a row of the log, each with the columns of its keys that were NULL.
fn logged_nulls(conn: &Connection, after: i64) -> rusqlite::Result<Vec<(i64, Vec<bool>)>> {
    let width: i64 = conn.query_row(KEY_WIDTH, [], |row| row.get(0))?;
    if width == 0 {
        // The log is not there: a tool has dropped it.
        return Ok(Vec::new());
    }
    let nulls = (0..width).map(|i| format!(", k{i} IS NULL")).collect::<String>();
    let mut statement = conn.prepare(&format!("SELECT DISTINCT tbl{nulls} FROM _logos_log WHERE seq > ?1"))?;
    let rows = statement.query_map([after], |row| {
        let nulls = (1..=width as usize).map(|i| row.get(i)).collect::<rusqlite::Result<_>>()?;
        Ok((row.get::<_, Option<i64>>(0)?.unwrap_or(0), nulls))
    })?;
    rows.collect()
}

fn is_null((of, nulls): &(i64, Vec<bool>), (id, width): (i64, usize)) -> bool {
    *of == id && nulls.iter().take(width).any(|null| *null)
}

/// Whether a table whose declared key may be NULL and has not been yet has logged a NULL after a row of the log.
pub fn has_logged_null(conn: &Connection, captured: &[Captured], after: i64) -> Result<bool> {
    let keys = captured.iter().filter(|c| c.table.key_may_be_null).filter_map(|c| Some((c.id?, c.table.key.len())));
    let never_null: Vec<(i64, usize)> = keys.collect();
    if never_null.is_empty() {
        return Ok(false);
    }
    let logged = logged_nulls(conn, after).doing(|| "reading the log of changes".into())?;
    Ok(logged.iter().any(|logged| never_null.iter().any(|&key| is_null(logged, key))))
}

/// How many columns of keys the log has.
const KEY_WIDTH: &str = "SELECT count(*) FROM pragma_table_info('_logos_log') WHERE name GLOB 'k[0-9]*'";

/// Columns that are generated from each other, as only `PRAGMA writable_schema` can write them. SQLite finds out when it computes
/// them; whoever follows their expressions otherwise does not come to an end.
fn check_loops(conn: &Connection, object: &schema::Object) -> rusqlite::Result<()> {
    if object.is_virtual() || !sqltext::mentions(&object.sql, "as") {
        return Ok(());
    }
    match conn.prepare(&format!("INSERT INTO {} DEFAULT VALUES", quote(&object.name))) {
        Err(e) if e.to_string().contains("generated column loop") => Err(e),
        _ => Ok(()),
    }
}

/// The ids that took over from others, and those others.
fn replaced(conn: &Connection) -> rusqlite::Result<BTreeMap<i64, i64>> {
    if !has_table(conn, "_logos_table")? {
        return Ok(BTreeMap::new());
    }
    let mut statement = conn.prepare("SELECT id, replaces FROM _logos_table WHERE replaces IS NOT NULL")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// A trigger in the schema.
struct Present {
    /// Its rowid there: a trigger made later has a higher one, also after VACUUM.
    age: i64,
    name: String,
    /// In lower case.
    table: String,
    sql: String,
}

impl Present {
    /// If it is one of ours, the id it belongs to and what it is for.
    fn id_and_role(&self) -> Option<(i64, &str)> {
        let (id, role) = self.name.strip_prefix(OURS)?.split_once('_')?;
        Some((id.parse().ok()?, role))
    }
}

/// Whether all that is ours in the file is as it must be, but for the triggers of the tables. Tools that do not know us drop or
/// empty what they like.
pub fn is_set_up(conn: &Connection) -> rusqlite::Result<bool> {
    let found = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, bool>(0)).unwrap_or(false);
    Ok(found("SELECT r IS NOT NULL FROM _logos_log WHERE seq = 0 AND tbl = 0")
        && found(&format!("SELECT format = {FORMAT} FROM _logos_state WHERE id = 1"))
        && found("SELECT count(*) > 0 FROM pragma_table_info('_logos_table')")
        && canary::is_armed(canary::read(conn).unwrap_or(None)))
}

fn has_table(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")?.exists([name])
}

/// Makes our tables where they are not as they must be. The caller has an open write transaction.
pub fn set_up(conn: &Connection) -> Result<()> {
    let doing = || "setting up capture".to_string();
    let columns = "SELECT count(*) FROM pragma_table_info('_logos_log') WHERE name IN ('seq', 'tbl', 'r', 'k0')";
    let log: i64 = conn.query_row(columns, [], |row| row.get(0)).doing(doing)?;
    if (1..4).contains(&log) {
        // Made by a former build: what it has logged is sent with the whole tables that follow.
        remove(conn).doing(doing)?;
    }
    conn.execute_batch(TABLES).doing(doing)?;
    let state = "SELECT count(*) FROM pragma_table_info('_logos_state') WHERE name = 'channel'";
    if conn.query_row(state, [], |row| row.get::<_, i64>(0)).doing(doing)? == 0 {
        conn.execute_batch(UPGRADE).doing(doing)?;
    }
    canary::arm(conn).doing(doing)
}

/// Where the log begins; `None` where nothing is in it.
pub fn oldest(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    conn.query_row("SELECT min(seq) FROM _logos_log WHERE seq > 0", [], |row| row.get(0))
}

/// Deletes rows of the log up to the cursor of a message that is final, but for the last ones, and for as long as `time` allows. The
/// caller has an open write transaction. Returns whether that was all.
pub fn forget(conn: &Connection, cursor: i64, time: Duration) -> rusqlite::Result<bool> {
    let start = Instant::now();
    let kept: Option<i64> = conn.query_row(
        "SELECT min(seq) FROM (SELECT seq FROM _logos_log WHERE seq > 0 AND seq <= ?1 ORDER BY seq DESC LIMIT ?2)",
        [cursor, REMEMBERED],
        |row| row.get(0),
    )?;
    let mut delete = conn.prepare("DELETE FROM _logos_log WHERE seq > 0 AND seq < ?1")?;
    let Some((mut from, kept)) = oldest(conn)?.zip(kept) else { return Ok(true) };
    while from < kept && start.elapsed() < time {
        from = (from + FORGOTTEN_AT_ONCE).min(kept);
        delete.execute([from])?;
    }
    Ok(from >= kept)
}

/// The log's own name; `None` where there is no log, or it was emptied.
pub fn history(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    if !has_table(conn, "_logos_log")? {
        return Ok(None);
    }
    conn.query_row("SELECT k0 FROM _logos_log WHERE seq = 0 AND tbl = 0", [], |row| row.get(0)).optional()
}

/// Puts one table under capture, or mends its capture. The caller has an open write transaction, in which the table is still
/// as it was when `survey` looked.
/// Returns the reason if it cannot be done with this table.
pub fn enrol(conn: &Connection, captured: &Captured) -> Result<Option<String>> {
    let doing = || format!("setting up capture of table {}", quote(&captured.table.name));
    conn.execute_batch("SAVEPOINT _logos_enrol").doing(doing)?;
    let enrolled = match captured.id {
        Some(id) if captured.intact => list_columns(conn, captured, id),
        _ => enrol_table(conn, captured),
    };
    let why = enrolled.as_ref().err().filter(|e| concerns_object(e)).map(reason);
    if why.is_some() {
        conn.execute_batch("ROLLBACK TO _logos_enrol").doing(doing)?;
    } else {
        enrolled.doing(doing)?;
    }
    conn.execute_batch("RELEASE _logos_enrol").doing(doing)?;
    Ok(why)
}

/// Puts everything under capture that is not. The caller has an open write transaction. Returns how far that moved the schema
/// cookie, which is not the application's doing.
pub fn enrol_all(conn: &Connection, home: &Home) -> Result<i64> {
    let cookie = || connection::cookie(conn).doing(|| "setting up capture".into());
    let before = cookie()?;
    if !is_set_up(conn).unwrap_or(false) {
        set_up(conn)?;
    }
    home.note(conn).doing(|| "setting up capture".into())?;
    let mut objects = schema::read(conn)?;
    let captured = survey(conn, &mut objects, &mut Omitted::default())?;
    // Where it cannot be done, the builder finds that out too, and says so.
    captured.iter().filter(|c| !c.is_enrolled()).try_for_each(|captured| enrol(conn, captured).map(drop))?;
    Ok(cookie()? - before)
}

fn enrol_table(conn: &Connection, captured: &Captured) -> rusqlite::Result<()> {
    let table = &captured.table;
    let mut statement = conn.prepare(&format!(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name GLOB '{OURS}[0-9]*' AND lower(tbl_name) = lower(?1)"
    ))?;
    let stale = statement.query_map([&table.name], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for name in stale {
        conn.execute_batch(&format!("DROP TRIGGER {}", quote(&name)))?;
    }
    widen(conn, table.key.len())?;
    let replaces = captured.id.filter(|_| captured.core);
    let id = next_id(conn)?;
    conn.execute("INSERT INTO _logos_table(id, name, replaces) VALUES(?1, ?2, ?3)", (id, &table.name, replaces))?;
    for trigger in triggers(table, id, &|query| has_meaning(conn, table, query)) {
        conn.execute_batch(&trigger.sql)?;
    }
    let known = if captured.core { captured.columns.as_slice() } else { &[] };
    conn.execute_batch(&columns::trigger(table, id, &columns::extended(known, &table.visible_names())))
}

/// Adds columns that came since to the list. The other triggers stay as they are, and their id.
fn list_columns(conn: &Connection, captured: &Captured, id: i64) -> rusqlite::Result<()> {
    conn.execute_batch(&format!("DROP TRIGGER \"{OURS}{id}_{}\"", columns::ROLE))?;
    let list = columns::extended(&captured.columns, &captured.table.visible_names());
    conn.execute_batch(&columns::trigger(&captured.table, id, &list))
}

/// An id that nothing here has, or is likely to have had: not the table of ids, which a tool may have emptied, nor any trigger,
/// nor the same database before our tables were dropped and made again.
fn next_id(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row(
        &format!(
            "SELECT iif(max(id) > 0, max(id) + 1, 32768 + (random() & 4194303)) FROM (SELECT id FROM _logos_table UNION ALL \
             SELECT CAST(substr(name, {}) AS INTEGER) FROM sqlite_schema WHERE type = 'trigger' AND name GLOB '{OURS}[0-9]*')",
            OURS.len() + 1
        ),
        [],
        |row| row.get(0),
    )
}

/// Whether SQLite can make sense of a query in which NEW is a row of the table: CREATE TRIGGER does not look at names, so it would
/// fail with each write. Functions and collations of the application are not known here and are with its writers.
fn has_meaning(conn: &Connection, table: &Table, query: &str) -> bool {
    // Two rows, so that a column without NEW before it is ambiguous and not found there: a trigger has only NEW.
    let on = quote(&table.name);
    let checked = format!("SELECT 1 FROM main.{on} AS NEW, main.{on} AS _logos_other WHERE EXISTS ({query})");
    // "name" of a column that has gone is an error here, not a string. (Elsewhere our connections read it as SQLite does.)
    let usual = conn.db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML).unwrap_or(true);
    let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false);
    let prepared = conn.prepare(&checked).map(drop);
    let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, usual);
    match prepared {
        Ok(()) => true,
        Err(e) => ["no such function: ", "no such collation sequence: "].iter().any(|of| e.to_string().contains(of)),
    }
}

/// Gives the log as many key columns as the widest key needs.
fn widen(conn: &Connection, width: usize) -> rusqlite::Result<()> {
    let has: i64 = conn.query_row("SELECT count(*) - 3 FROM pragma_table_info('_logos_log')", [], |row| row.get(0))?;
    for k in has as usize..width {
        conn.execute_batch(&format!("ALTER TABLE _logos_log ADD COLUMN k{k}"))?;
    }
    Ok(())
}

/// Logs one key by hand. Runs on any connection, in whatever transaction it has.
pub fn touch(conn: &Connection, table: &str, key: &[rusqlite::types::Value]) -> Result<()> {
    let mut objects = schema::read(conn)?;
    let captured = survey(conn, &mut objects, &mut Omitted::default())?;
    let Some(captured) = captured.iter().find(|c| c.table.name.eq_ignore_ascii_case(table)) else {
        return Err(Error::fix(
            format!("there is no replicated table {}", quote(table)),
            "nothing was logged; give the name of a table of the main database",
        ));
    };
    let Some(id) = captured.id else {
        return Err(Error::retry(
            format!("table {} is not under capture yet", quote(table)),
            "nothing was logged, and need not be: a table is sent whole when its capture begins; call logos_publish first",
        ));
    };
    if key.len() != captured.table.key.len() {
        let columns = captured.table.key.iter().map(|k| quote(k)).collect::<Vec<_>>().join(", ");
        return Err(Error::fix(
            format!("the key of table {} has {} columns, not {}", quote(table), captured.table.key.len(), key.len()),
            format!("nothing was logged; give the values of {columns}"),
        ));
    }
    let marks = (0..key.len()).map(|i| format!(", ?{}", i + 2)).collect::<String>();
    let columns = (0..key.len()).map(|i| format!(", k{i}")).collect::<String>();
    let values = std::iter::once(rusqlite::types::Value::Integer(id)).chain(key.iter().cloned());
    conn.execute(&format!("INSERT INTO {LOG}(tbl{columns}) VALUES(?1{marks})"), rusqlite::params_from_iter(values))
        .doing(|| format!("logging a key of table {}", quote(table)))?;
    Ok(())
}

/// Takes everything of ours out of the file. The caller has an open write transaction.
pub fn remove(conn: &Connection) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(&format!(
        "SELECT type, name FROM sqlite_schema WHERE name GLOB '{OURS}*' AND type IN ('trigger', 'table') ORDER BY type DESC"
    ))?;
    let ours = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    for (kind, name) in ours {
        conn.execute_batch(&format!("DROP {kind} {}", quote(&name)))?;
    }
    Ok(())
}
