//! The application: one connection that has not loaded us, and commits what the dice say.

use fastrand::Rng;
use rusqlite::Connection;

/// Tables that it makes, drops and writes to.
const TABLES: u32 = 4;

/// Makes the first tables.
pub const SETUP: &str = "
    PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
    CREATE TABLE t0(id INTEGER PRIMARY KEY, v TEXT, n REAL);
    CREATE TABLE t1(k TEXT PRIMARY KEY, v BLOB UNIQUE) WITHOUT ROWID;
    INSERT INTO t0(v, n) VALUES ('one', 1), ('two', 2.5);";

/// One statement, or a few. Some of them fail, and some do nothing.
pub fn statement(dice: &mut Rng) -> String {
    let table = dice.u32(0..TABLES);
    let (key, value) = (dice.u32(0..30), dice.u32(0..1000));
    match dice.u32(0..20) {
        0..=6 => match table {
            1 => format!("INSERT OR REPLACE INTO t1 VALUES ('k{key}', x'{:04x}')", value % 40),
            _ => format!("INSERT INTO t{table}(v, n) VALUES ('v{value}', {key}.25)"),
        },
        7..=9 => match table {
            1 => format!("UPDATE OR IGNORE t1 SET k = 'k{}', v = x'{value:04x}' WHERE k = 'k{key}'", value % 30),
            _ => format!("UPDATE t{table} SET v = 'w{value}', n = NULL WHERE id % 7 = {}", key % 7),
        },
        10..=11 if table != 1 => format!("UPDATE OR REPLACE t{table} SET id = id + 1 WHERE id > {key}"),
        10..=12 if table == 1 => format!("DELETE FROM t1 WHERE k < 'k{key}'"),
        13 => format!("DELETE FROM t{table} WHERE id % 5 = {}", key % 5),
        14 if table > 1 => format!("CREATE TABLE IF NOT EXISTS t{table}(id INTEGER PRIMARY KEY, v TEXT, n REAL)"),
        15 if table > 1 && key % 3 == 0 => format!("DROP TABLE IF EXISTS t{table}"),
        16 if table != 1 => format!("ALTER TABLE t{table} ADD COLUMN c{value} DEFAULT {key}"),
        17 => format!("CREATE INDEX IF NOT EXISTS i{table} ON t{table}(v)"),
        18 => format!("PRAGMA user_version = {value}"),
        19 if table != 1 => {
            format!(
                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {value}) \
                     INSERT INTO t{table}(v, n) SELECT hex(i) || 'filler of some length', i FROM c"
            )
        }
        _ => format!("DELETE FROM t0 WHERE id = {key}"),
    }
}

/// Everything in a database but what is ours, as lines.
pub fn contents(conn: &Connection) -> Vec<String> {
    let ours = "name NOT LIKE '\\_logos%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let lines = |sql: &str| -> Vec<String> {
        let mut statement = conn.prepare(sql).unwrap();
        let found = statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>();
        found.unwrap()
    };
    let mut all = lines(&format!(
        "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema WHERE {ours} ORDER BY 1"
    ));
    for table in lines(&format!("SELECT name FROM sqlite_schema WHERE type = 'table' AND {ours} ORDER BY 1")) {
        let columns = lines(&format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"));
        let quoted = columns.iter().map(|c| format!("quote(\"{c}\")")).collect::<Vec<_>>().join(" || ',' || ");
        all.extend(lines(&format!("SELECT '{table}: ' || {quoted} FROM \"{table}\" ORDER BY 1")));
    }
    all.extend(lines("SELECT 'user_version ' || user_version FROM pragma_user_version"));
    all
}
