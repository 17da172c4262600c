//! Capture: the key log and the triggers that write it, in the application's own transaction.
//!
//! Invariants (DESIGN I2–I5)
//! - The triggers are built-in SQL only and name nothing of ours but `_logos_log`, so any writer runs them.
//! - For every row that a statement may write, at least one log row carries each key that the row had or has. Too many
//!   keys are harmless, so every doubt is resolved by logging.
//! - A set of triggers belongs to an id. It is remade under a new id when it no longer fits its table; log rows under
//!   an id that no table has any more mean "written while the triggers did not fit".
//! - `_logos_log` keeps its last row for ever: `seq` never restarts.
//!
//! UPDATE and DELETE are logged BEFORE: an application trigger that cuts the rest short with RAISE cannot hide them.
//! INSERT must be logged AFTER, because an automatic rowid is not known before; likewise the new key of an UPDATE. There
//! our triggers come before the application's, because SQLite fires the newest first and ours are made anew when there is a newer one.
//!
//! Not here: when to enrol or prune (`publish`), what is made of the log (`snapshot`).

use rusqlite::{Connection, OptionalExtension};

use super::schema::{self, Table, Term, Unique};
use super::{literal, quote, sqltext, OURS};
use crate::error::{Doing, Error, Result};

const LOG: &str = "\"_logos_log\"";

/// Log rows deleted in one short write transaction: a few milliseconds.
const PRUNE_ROWS: i64 = 20_000;

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
}

/// Looks at every table of the replicated schema.
pub fn survey(conn: &Connection, objects: &[schema::Object]) -> Result<Vec<Captured>> {
    let doing = || "looking at the capture triggers".to_string();
    let mut statement = conn
        .prepare(
            "SELECT rowid, name, lower(tbl_name), sql FROM sqlite_schema WHERE type = 'trigger' AND sql IS NOT NULL",
        )
        .doing(doing)?;
    let rows = statement
        .query_map([], |row| Ok(Present { age: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? }));
    let present: Vec<Present> = rows.and_then(Iterator::collect).doing(doing)?;
    let mut all = Vec::new();
    for object in objects.iter().filter(|o| o.kind == "table") {
        let Some(table) = schema::table(conn, object)? else { continue };
        if table.is_virtual {
            // Known by its stamp (`virtuals`), not by triggers.
            all.push(Captured { table, id: None, replaces: None, core: true, intact: true });
            continue;
        }
        let name = table.name.to_lowercase();
        let (carried, others): (Vec<_>, Vec<_>) =
            present.iter().filter(|t| t.table == name).partition(|t| t.id_and_role().is_some());
        let id = carried.iter().find_map(|t| t.id_and_role().filter(|(_, role)| *role == "insert")).map(|(id, _)| id);
        let (mut core, mut intact, mut replaces) = (false, false, None);
        if let Some(id) = id {
            let wanted = triggers(&table, id);
            let has = |wanted: &Trigger| carried.iter().any(|t| t.name == wanted.name && t.sql == wanted.sql);
            // SQLite fires the newest first, and what comes before ours may keep ours from firing.
            let oldest = carried.iter().map(|t| t.age).min();
            let newer: Vec<_> =
                others.iter().filter(|t| Some(t.age) > oldest && sqltext::mentions(&t.sql, "after")).collect();
            let kept_from_us = newer.iter().any(|t| sqltext::keeps_rows_from_triggers(&t.sql));
            core = wanted.iter().filter(|t| t.core).all(has) && !kept_from_us;
            intact = wanted.len() == carried.len() && wanted.iter().all(has) && newer.is_empty();
            replaces = conn
                .query_row("SELECT replaces FROM _logos_table WHERE id = ?1", [id], |row| row.get(0))
                .optional()
                .doing(doing)?
                .flatten();
        }
        all.push(Captured { table, id, replaces, core, intact });
    }
    Ok(all)
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

/// Whether anything of ours is in the file, and the canary is armed.
pub fn is_set_up(conn: &Connection) -> rusqlite::Result<bool> {
    let n: i64 = conn.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('_logos_log', '_logos_table', '_logos_canary')",
        [],
        |row| row.get(0),
    )?;
    Ok(n == 3 && is_armed(canary(conn)?))
}

/// The rowid of `_logos_canary`'s only row. VACUUM makes it 1, as it renumbers every rowid that no column declares; and it is
/// another one each time it is set anew. So whoever finds it changed knows that hidden rowids may have changed.
pub fn canary(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    conn.query_row("SELECT max(rowid) FROM _logos_canary", [], |row| row.get(0))
}

/// Whether the next VACUUM will be told by the canary.
pub fn is_armed(canary: Option<i64>) -> bool {
    canary.is_some_and(|rowid| rowid > 1)
}

/// Puts everything under capture that is not. The caller has an open write transaction. Returns how far that moved the schema
/// cookie, which is not the application's doing.
pub fn enrol(conn: &Connection) -> Result<i64> {
    let doing = || "setting up capture".to_string();
    let cookie = || conn.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0)).doing(doing);
    let before = cookie()?;
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS _logos_log(seq INTEGER PRIMARY KEY, tbl INTEGER, k0); \
         CREATE TABLE IF NOT EXISTS _logos_table(id INTEGER PRIMARY KEY, name TEXT, replaces INTEGER); \
         CREATE TABLE IF NOT EXISTS _logos_canary(note TEXT); \
         INSERT INTO _logos_log(seq, tbl) SELECT 1, 0 WHERE NOT EXISTS (SELECT 1 FROM _logos_log);",
    )
    .doing(doing)?;
    if !is_armed(canary(conn).doing(doing)?) {
        conn.execute_batch(
            "DELETE FROM _logos_canary; INSERT INTO _logos_canary(rowid, note) VALUES(2 + (random() & 0xffffffffffff), \
             'VACUUM changes the rowid of this row; so logos knows that it may have changed others');",
        )
        .doing(doing)?;
    }
    let objects = schema::read(conn)?;
    for captured in survey(conn, &objects)?.iter().filter(|c| !c.intact) {
        enrol_table(conn, captured).doing(|| format!("setting up capture of table {}", quote(&captured.table.name)))?;
    }
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
    conn.execute("INSERT INTO _logos_table(name, replaces) VALUES(?1, ?2)", (&table.name, replaces))?;
    for trigger in triggers(table, conn.last_insert_rowid()) {
        conn.execute_batch(&trigger.sql)?;
    }
    Ok(())
}

/// Ends the capture of a table, so that it begins anew under a new id and the table is sent whole.
/// The caller has an open write transaction.
pub fn begin_anew(conn: &Connection, captured: &Captured) -> rusqlite::Result<()> {
    enrol_table(conn, &Captured { core: false, ..captured.clone() })
}

/// Gives the log as many key columns as the widest key needs.
fn widen(conn: &Connection, width: usize) -> rusqlite::Result<()> {
    let has: i64 = conn.query_row("SELECT count(*) - 2 FROM pragma_table_info('_logos_log')", [], |row| row.get(0))?;
    for k in has as usize..width {
        conn.execute_batch(&format!("ALTER TABLE _logos_log ADD COLUMN k{k}"))?;
    }
    Ok(())
}

/// Logs one key by hand. Runs on any connection, in whatever transaction it has.
pub fn touch(conn: &Connection, table: &str, key: &[rusqlite::types::Value]) -> Result<()> {
    let objects = schema::read(conn)?;
    let captured = survey(conn, &objects)?;
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

/// Logs the rows with these rowids, as the update hook saw them. The caller has an open write transaction.
pub fn touch_rowids(conn: &Connection, captured: &Captured, rowids: &[i64]) -> rusqlite::Result<()> {
    let (Some(id), Some(rowid)) = (captured.id, captured.table.rowid_names.first()) else { return Ok(()) };
    let table = &captured.table;
    let columns = (0..table.key.len()).map(|i| format!(", k{i}")).collect::<String>();
    let sql = if table.key_is_rowid {
        format!("INSERT INTO {LOG}(tbl{columns}) VALUES({id}, ?1)")
    } else {
        let key = table.key.iter().map(|k| format!(", {}", quote(k))).collect::<String>();
        format!(
            "INSERT INTO {LOG}(tbl{columns}) SELECT {id}{key} FROM {} WHERE {} = ?1",
            quote(&table.name),
            quote(rowid)
        )
    };
    let mut statement = conn.prepare(&sql)?;
    rowids.iter().try_for_each(|rowid| statement.execute([rowid]).map(drop))
}

/// Forgets log rows below `seq`, some at a time. Returns whether there may be more. One short write transaction.
pub fn prune(conn: &Connection, seq: i64) -> rusqlite::Result<bool> {
    let first: Option<i64> = conn.query_row("SELECT min(seq) FROM _logos_log", [], |row| row.get(0))?;
    let Some(first) = first.filter(|&first| first < seq) else { return Ok(false) };
    let end = seq.min(first + PRUNE_ROWS);
    conn.execute("DELETE FROM _logos_log WHERE seq < ?1", [end])?;
    Ok(end < seq)
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

struct Trigger {
    name: String,
    sql: String,
    /// Whether it logs the row's own key (the others log keys of rows that REPLACE deletes).
    core: bool,
}

/// All triggers that a table must carry, for the given id.
fn triggers(table: &Table, id: i64) -> Vec<Trigger> {
    let on = quote(&table.name);
    let make = |name: &str, core: bool, head: String, body: String| Trigger {
        name: format!("{OURS}{id}_{name}"),
        sql: format!("CREATE TRIGGER \"{OURS}{id}_{name}\" {head} BEGIN {body} END"),
        core,
    };
    let log = |row: &str| {
        let columns = (0..table.key.len()).map(|i| format!(",k{i}")).collect::<String>();
        let values = table.key.iter().map(|k| format!(",{row}.{}", quote(k))).collect::<String>();
        format!("INSERT INTO {LOG}(tbl{columns}) VALUES({id}{values});")
    };
    let names = |names: &mut dyn Iterator<Item = &String>| names.map(|n| quote(n)).collect::<Vec<_>>().join(",");
    let rekeyed =
        table.key.iter().map(|k| format!("NEW.{0} IS NOT OLD.{0}", quote(k))).collect::<Vec<_>>().join(" OR ");
    // A statement may set the rowid by a name that is no column of the key.
    let mut aliases: Vec<String> = if table.key_is_rowid { table.rowid_names.clone() } else { Vec::new() };
    aliases.retain(|a| !table.key.contains(a));
    let key_names = names(&mut table.key.iter().chain(&aliases));
    let mut all = vec![
        make("insert", true, format!("AFTER INSERT ON {on}"), log("NEW")),
        make("update", true, format!("BEFORE UPDATE ON {on}"), log("OLD")),
        make("rekey", true, format!("AFTER UPDATE OF {key_names} ON {on} WHEN {rekeyed}"), log("NEW")),
        make("delete", true, format!("BEFORE DELETE ON {on}"), log("OLD")),
    ];
    let mut clashes: Vec<String> = table.unique.iter().filter_map(|unique| clash(table, unique, id, &given)).collect();
    // A row may also be replaced by its rowid where the key is another one.
    let rowid = table.rowid_names.first().filter(|_| !table.key_is_rowid);
    clashes.extend(rowid.map(|rowid| log_where(table, id, &format!("{on}.{0} = NEW.{0}", quote(rowid)))));
    if !clashes.is_empty() {
        let body = clashes.join(" ");
        let by_key = table.unique.iter().filter(|unique| depends_on_key(table, unique));
        let by_key =
            by_key.filter_map(|unique| clash(table, unique, id, &|c| foretold(table, c).unwrap_or_else(|| given(c))));
        let inserted = std::iter::once(body.clone()).chain(by_key).collect::<Vec<_>>().join(" ");
        all.push(make("replace", false, format!("BEFORE INSERT ON {on}"), inserted));
        let of = match unique_columns(table) {
            Some(columns) => format!(
                "OF {} ",
                names(&mut columns.iter().chain(rowid.map(|_| &table.rowid_names).into_iter().flatten()))
            ),
            None => String::new(),
        };
        all.push(make("swap", false, format!("BEFORE UPDATE {of}ON {on}"), body));
    }
    all
}

/// The columns of all UNIQUE indexes, or `None` where an expression or condition may depend on any column.
fn unique_columns(table: &Table) -> Option<Vec<String>> {
    let mut columns: Vec<String> = Vec::new();
    for unique in &table.unique {
        for term in &unique.terms {
            match term {
                Term::Column { name, .. } if unique.condition.is_none() => columns.push(name.clone()),
                _ => return None,
            }
        }
    }
    columns.sort();
    columns.dedup();
    Some(columns)
}

fn log_where(table: &Table, id: i64, condition: &str) -> String {
    let on = quote(&table.name);
    let columns = (0..table.key.len()).map(|i| format!(",k{i}")).collect::<String>();
    let values = table.key.iter().map(|k| format!(",{on}.{}", quote(k))).collect::<String>();
    format!("INSERT INTO {LOG}(tbl{columns}) SELECT {id}{values} FROM {on} WHERE {condition};")
}

/// How a BEFORE trigger writes the value that a column of the new row has.
type NewValue<'t> = &'t dyn Fn(&str) -> String;

/// As it is given.
fn given(column: &str) -> String {
    format!("NEW.{}", quote(column))
}

/// An expression of the table over the new row. The row has those columns only that the expression names: any other may be
/// dropped under the trigger.
fn over_new_row(table: &Table, expression: &str, value: NewValue<'_>) -> String {
    let columns = table.visible.iter().filter(|c| sqltext::refers_to(expression, c));
    let columns = columns.map(|c| format!("{} AS {}", value(c), quote(c))).collect::<Vec<_>>().join(",");
    let columns = if columns.is_empty() { "1" } else { &columns };
    format!("(SELECT {expression} FROM (SELECT {columns}) AS {})", quote(&table.name))
}

/// The value of a column of a row that gets an automatic INTEGER PRIMARY KEY, where it depends on that. SQLite chooses the
/// key after all BEFORE triggers, so it must be foretold: one more than the highest. (Not foretold are random keys once
/// 2^63-1 is taken, and what BEFORE triggers of the application insert into the same table meanwhile.)
fn foretold(table: &Table, column: &str) -> Option<String> {
    let key = table.integer_key()?;
    if column.eq_ignore_ascii_case(key) {
        let highest = format!("coalesce((SELECT max({}) FROM {}),0)", quote(key), quote(&table.name));
        return Some(match table.autoincrement {
            false => format!("({highest}+1)"),
            true => {
                let given = format!("SELECT seq FROM sqlite_sequence WHERE name={}", literal(&table.name));
                format!("(max({highest},coalesce(({given}),0))+1)")
            }
        });
    }
    let (_, expression) = table.generated.iter().find(|(name, _)| name == column)?;
    table.visible.iter().find(|c| sqltext::refers_to(expression, c) && foretold(table, c).is_some())?;
    // The sign takes the affinity of a plain column away, so that the generated column's own decides.
    Some(over_new_row(table, &format!("+({expression})"), &|c| foretold(table, c).unwrap_or_else(|| given(c))))
}

/// Whether a UNIQUE index depends on the INTEGER PRIMARY KEY, beyond naming it.
fn depends_on_key(table: &Table, unique: &Unique) -> bool {
    let text =
        |text: &String| table.visible.iter().any(|c| sqltext::refers_to(text, c) && foretold(table, c).is_some());
    let term = |term: &Term| match term {
        Term::Column { name, .. } => Some(name) != table.integer_key() && foretold(table, name).is_some(),
        Term::Expression(expression) => text(expression),
    };
    unique.terms.iter().any(term) || unique.condition.as_ref().is_some_and(text)
}

/// Logs the keys of rows that clash with the new row on one UNIQUE index: found with the index's own terms and
/// collations, so that SQLite finds them by that index.
fn clash(table: &Table, unique: &Unique, id: i64, value: NewValue<'_>) -> Option<String> {
    let on = quote(&table.name);
    let mut conditions: Vec<String> = Vec::new();
    for term in &unique.terms {
        conditions.push(match term {
            Term::Column { name, collation, default } => {
                let new = match default {
                    Some(default) => format!("coalesce({},({default}))", value(name)),
                    None => value(name),
                };
                format!("{on}.{} = {new} COLLATE {}", quote(name), quote(collation))
            }
            Term::Expression(text) => format!("({text}) = {}", over_new_row(table, text, value)),
        });
    }
    if conditions.is_empty() {
        return None;
    }
    if let Some(condition) = &unique.condition {
        conditions.push(format!("({condition})"));
        conditions.push(over_new_row(table, condition, value));
    }
    Some(log_where(table, id, &conditions.join(" AND ")))
}
