//! Random but repeatable work for a primary: what an application might do, chosen by dice.

use rusqlite::Connection;

use crate::dice::Dice;
use crate::sql::Sql;

/// Tables of several shapes. Running it again changes nothing.
pub const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS account(id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance REAL);
    CREATE TABLE IF NOT EXISTS event(id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT, data BLOB);
    CREATE TABLE IF NOT EXISTS note(text TEXT, n INTEGER);
    CREATE TABLE IF NOT EXISTS tag(name TEXT, item INTEGER, weight, PRIMARY KEY(item, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS person(email TEXT UNIQUE COLLATE NOCASE, name TEXT, PRIMARY KEY(name));
    CREATE TABLE IF NOT EXISTS progress(id INTEGER PRIMARY KEY CHECK(id = 1), transactions INTEGER);
    INSERT OR IGNORE INTO progress VALUES (1, 0);";

/// One transaction: some statements, now and then rolled back in part or whole.
pub fn transaction(conn: &Connection, dice: &mut Dice) {
    conn.run("BEGIN IMMEDIATE");
    conn.run("UPDATE progress SET transactions = transactions + 1");
    for _ in 0..=dice.below(8) {
        statement(conn, dice);
        if dice.below(10) == 0 {
            conn.run("SAVEPOINT part");
            statement(conn, dice);
            conn.run(dice.pick(&["ROLLBACK TO part; RELEASE part", "RELEASE part"]));
        }
    }
    conn.run(if dice.below(12) == 0 { "ROLLBACK" } else { "COMMIT" });
}

fn statement(conn: &Connection, dice: &mut Dice) {
    let (id, other, n) = (dice.below(60), dice.below(60), dice.below(1000));
    let sql = match dice.below(40) {
        0..=9 => format!("INSERT OR REPLACE INTO account VALUES ({id}, 'owner {n}', {n} / 7.0)"),
        10..=13 => format!("UPDATE account SET balance = balance + {n} WHERE id BETWEEN {id} AND {other}"),
        14..=15 => format!("DELETE FROM account WHERE id = {id}"),
        16..=17 => format!("UPDATE OR IGNORE account SET id = {other} WHERE id = {id}"),
        18..=22 => format!("INSERT INTO event(what, data) VALUES ('event {n}', randomblob({n}))"),
        23 => format!("DELETE FROM event WHERE id % 13 = {}", n % 13),
        24..=26 => format!("INSERT INTO note VALUES ('note {id}', {n}), (NULL, NULL)"),
        27 => format!("DELETE FROM note WHERE n > {n} OR n IS NULL"),
        28..=30 => format!("INSERT OR REPLACE INTO tag VALUES ('tag {}', {id}, {n})", n % 5),
        31 => format!("UPDATE OR REPLACE tag SET name = 'moved', item = {other} WHERE item = {id}"),
        32..=34 => format!("INSERT OR REPLACE INTO person VALUES ('Mail{id}@example.org', 'person {other}')"),
        35 => format!("UPDATE OR REPLACE person SET email = 'mail{other}@EXAMPLE.org' WHERE name = 'person {id}'"),
        36 => format!(
            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {n})
             INSERT INTO note SELECT 'bulk', i FROM c"
        ),
        37 => "DELETE FROM note WHERE text = 'bulk'".into(),
        38 => format!("CREATE TABLE IF NOT EXISTS extra{}(a INTEGER PRIMARY KEY, b TEXT)", n % 7),
        _ => format!("DROP TABLE IF EXISTS extra{}", n % 7),
    };
    conn.run(&sql);
}
