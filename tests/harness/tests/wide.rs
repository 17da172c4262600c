//! Goal: a table may have as many columns as SQLite allows, and be replicated.
//!
//! Method: SQLite's limit counts the columns of a result too, where the rowid is one more and UTF-16 doubles each; so tables at
//! the limit are filled, changed, re-keyed and swapped, in every order relative to the publisher.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::{in_every_order, Pair, Sql};

fn columns(n: usize) -> String {
    (0..n).map(|i| format!("c{i}")).collect::<Vec<_>>().join(", ")
}

const STEPS: &[&str] = &[
    "INSERT INTO t(c0, c1, c1100) VALUES ('a', 1, 'x'), ('b', 2, x'00ff'), ('c', 3, 1.5)",
    "UPDATE t SET c1100 = 'é' WHERE c1 = 1; DELETE FROM t WHERE c1 = 2",
    "UPDATE t SET c0 = c0 || c0; UPDATE t SET c1 = c1 + 1",
];

#[test]
fn two_thousand_columns_without_a_key_replicate() {
    in_every_order(&format!("CREATE TABLE t({})", columns(2000)), STEPS);
}

#[test]
fn two_thousand_columns_with_a_key_replicate() {
    in_every_order(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY, {})", columns(1999)), STEPS);
    in_every_order(&format!("CREATE TABLE t({}, PRIMARY KEY (c1, c0)) WITHOUT ROWID", columns(2000)), STEPS);
}

#[test]
fn two_thousand_columns_in_utf16_replicate() {
    let of = |table: String| format!("PRAGMA encoding = 'UTF-16le'; CREATE TABLE t({table}");
    in_every_order(&of(format!("id INTEGER PRIMARY KEY, {})", columns(1200))), STEPS);
    in_every_order(&of(format!("{}, PRIMARY KEY (c0, c1)) WITHOUT ROWID", columns(2000))), STEPS);
}

#[test]
fn unique_values_swapped_between_rows_of_two_thousand_columns_arrive() {
    let pair = Pair::of(&format!("CREATE TABLE t({}, UNIQUE (c1999))", columns(2000)));
    pair.run("INSERT INTO t(c0, c1999) VALUES ('a', 1), ('b', 2), ('c', 3)");
    pair.check();
    pair.run("BEGIN; UPDATE t SET c1999 = -c1999; UPDATE t SET c1999 = 4 + c1999; COMMIT");
    let replica = pair.check();
    assert_eq!(replica.texts("SELECT c1999 FROM t ORDER BY rowid"), ["3", "2", "1"]);
}

#[test]
fn a_wide_table_whose_columns_hide_the_rowid_replicates() {
    let table = format!("CREATE TABLE t(rowid, _rowid_, oid, {})", columns(1997));
    in_every_order(&table, STEPS);
}

#[test]
fn a_key_of_hundreds_of_columns_replicates() {
    let all = columns(1990);
    in_every_order(&format!("CREATE TABLE t({all}, PRIMARY KEY ({all}))"), STEPS);
    let key = columns(240);
    in_every_order(&format!("CREATE TABLE t({all}, PRIMARY KEY ({key}))"), STEPS);
}
