//! Goal: the public surface changes only on purpose.
//!
//! Method: the exact lists of SQL functions, modules, columns and exported symbols are written down here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::process::Command;

use harness::files::extension;
use harness::{open, Sql, TempDir};

#[test]
fn sql_functions_are_exactly_these() {
    let dir = TempDir::new();
    let conn = open(&dir.file("x.db"));
    let found = conn.texts("SELECT name || '/' || narg FROM pragma_function_list WHERE name LIKE 'logos%' ORDER BY 1");
    let found: BTreeSet<String> = found.into_iter().collect();
    let names: BTreeSet<&str> = found.iter().map(|name| name.split('/').next().unwrap()).collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        [
            "logos_flush",
            "logos_position",
            "logos_publish",
            "logos_remove",
            "logos_resync",
            "logos_stop",
            "logos_touch",
            "logos_version",
            "logos_wait",
        ],
        "{found:?}"
    );
}

#[test]
fn table_functions_and_tables_are_exactly_these() {
    let dir = TempDir::new();
    let conn = open(&dir.file("x.db"));
    let found = conn
        .texts("SELECT name FROM pragma_module_list WHERE name LIKE '%logos%' OR name LIKE '%replica%' ORDER BY name");
    assert_eq!(found, ["attach_replica", "logos_log", "logos_status"]);
}

#[test]
fn columns_are_exactly_these() {
    let dir = TempDir::new();
    let conn = open(&dir.file("x.db"));
    let columns = |table: &str| conn.text(&format!("SELECT group_concat(name, ' ') FROM pragma_table_info('{table}')"));
    assert_eq!(columns("attach_replica"), "seq position kind tables changes bytes");
    assert_eq!(
        columns("logos_status"),
        "channel database role state position accepted_position lag_messages lag_bytes messages bytes error hint warnings sqlite \
         final_position requests"
    );
    assert_eq!(
        columns("logos_log"),
        "seq position id parent state slot kind tables changes bytes fee entries created accepted"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn the_library_exports_its_entry_points_and_nothing_else() {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(extension()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let symbols: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(symbols, ["sqlite3_extension_init", "sqlite3_logos_init"]);
}

#[test]
fn options_that_cannot_be_read_are_refused_with_the_names_that_there_are() {
    let dir = TempDir::new();
    let conn = open(&dir.file("x.db"));
    let calls = [
        (
            "SELECT logos_publish('dir:nowhere', ",
            "batch_ms, collations, fee_cap, in_flight, journal, moved, poll_ms, reserve_percent, standby, wallet_key",
        ),
        ("SELECT * FROM attach_replica('dir:nowhere', ", "collations, confirm, follow, poll_ms"),
    ];
    for (call, names) in calls {
        for json in ["[]", "1", "", "{", r#"{"jurnal": 1}"#, r#"{"poll_ms": "often"}"#] {
            let error = conn.fails(&format!("{call}'{json}')"));
            assert!(error.contains("cannot be used") && error.ends_with(&format!("names: {names}")), "{json}: {error}");
            assert!(!error.contains("struct"), "{json}: {error}");
        }
        let error = conn.fails(&format!("{call}1)"));
        assert!(error.contains("the options must be text"), "{error}");
    }
    assert_eq!(conn.int("SELECT count(*) FROM sqlite_schema"), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn the_library_takes_sqlite_from_its_host() {
    let output = Command::new("nm").args(["-D", "--undefined-only"]).arg(extension()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let wanted: Vec<&str> = text.lines().filter(|line| line.contains("sqlite3_")).collect();
    assert_eq!(wanted, Vec::<&str>::new(), "these would bind to another SQLite than the host's");
}
