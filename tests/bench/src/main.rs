//! What capture and publishing cost the writer: every workload plain and with the extension, in turns, in one run.
//!
//! Method: each measurement is a process of its own on fresh files; plain and published alternate, round by round, so
//! that whatever else the machine does meets both. The time is the writer's, from its first statement to the return of
//! its last commit, while the publisher runs. After it, outside the time, the channel is flushed and a replica made
//! from it must be equal. "Captured" is the same with the publisher stopped: triggers and hooks alone. Shown are medians; a ratio above its goal is marked and never an error.
//!
//! `bench [ROUNDS]`; `bench run plain|captured|published WORKLOAD` is one measurement and prints its seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::time::Instant;

use harness::pair::{publish, replicate};
use harness::{open, open_plain, rusqlite, Connection, Sql, TempDir};

struct Workload {
    name: &'static str,
    title: &'static str,
    goal: f64,
    prepare: fn(&Connection),
    work: fn(&Connection),
}

const WORKLOADS: [Workload; 2] = [
    Workload {
        name: "transactions",
        title: "100k one-row transactions",
        goal: 1.8,
        prepare: |conn| conn.run("CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL)"),
        work: one_row_transactions,
    },
    Workload {
        name: "updates",
        title: "300k updates by key, one transaction",
        goal: 1.7,
        prepare: |conn| {
            conn.run(
                "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL);
                 WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 300000)
                 INSERT INTO item SELECT i, 'item number ' || i, i / 7.0 FROM c",
            );
        },
        work: updates_by_key,
    },
];

fn one_row_transactions(conn: &Connection) {
    let mut insert = conn.prepare("INSERT INTO item VALUES (?1, ?2, ?3)").unwrap();
    for i in 0..100_000_i64 {
        insert.execute((i, format!("item number {i}"), i as f64 / 7.0)).unwrap();
    }
}

fn updates_by_key(conn: &Connection) {
    conn.run("BEGIN IMMEDIATE");
    let mut update = conn.prepare("UPDATE item SET name = ?2, price = ?3 WHERE id = ?1").unwrap();
    for i in 1..=300_000_i64 {
        let id = i * 7919 % 300_000 + 1;
        assert_eq!(update.execute((id, format!("changed {i}"), i as f64)).unwrap(), 1);
    }
    drop(update);
    conn.run("COMMIT");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", variant, workload] => println!("{}", measure(variant, find(workload))),
        [] => compare(5),
        [rounds] => compare(rounds.parse().expect("usage: bench [ROUNDS]")),
        _ => panic!("usage: bench [ROUNDS]"),
    }
}

fn find(name: &str) -> &'static Workload {
    WORKLOADS.iter().find(|workload| workload.name == name).expect("a workload of this program")
}

fn measure(variant: &str, workload: &Workload) -> f64 {
    let with_logos = variant != "plain";
    let dir = TempDir::new();
    let path = dir.file("bench.db");
    let conn = if with_logos { open(&path) } else { open_plain(&path) };
    conn.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
    (workload.prepare)(&conn);
    let url = with_logos.then(|| {
        let url = publish(&conn, &dir.channel());
        conn.run("SELECT logos_flush(300)");
        if variant == "captured" {
            conn.run("SELECT logos_stop()");
        }
        url
    });
    let start = Instant::now();
    (workload.work)(&conn);
    let seconds = start.elapsed().as_secs_f64();
    if let Some(url) = url {
        publish(&conn, &dir.channel());
        conn.run("SELECT logos_flush(300)");
        replicate(&conn, &url, &dir.file("replica.db"));
    }
    seconds
}

fn compare(rounds: usize) {
    let me = std::env::current_exe().unwrap();
    let run = |variant: &str, workload: &Workload| -> f64 {
        let output = Command::new(&me).args(["run", variant, workload.name]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    println!("SQLite {}, median of {rounds} rounds, seconds of the writer", rusqlite::version());
    println!("{:<40} {:>8} {:>9} {:>10} {:>7} {:>6}", "workload", "plain", "captured", "published", "ratio", "goal");
    for workload in &WORKLOADS {
        let mut plain = Vec::new();
        let (mut captured, mut published) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            plain.push(run("plain", workload));
            captured.push(run("captured", workload));
            published.push(run("published", workload));
        }
        let (plain, captured, published) = (median(plain), median(captured), median(published));
        let ratio = published / plain;
        let mark = if ratio > workload.goal { "  above the goal" } else { "" };
        println!(
            "{:<40} {plain:>8.2} {captured:>9.2} {published:>10.2} {ratio:>7.2} {:>6.1}{mark}",
            workload.title, workload.goal
        );
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
