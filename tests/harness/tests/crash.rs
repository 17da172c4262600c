//! Goal: a kill at any point loses nothing that was committed and repeats nothing (I3, I6, I7, T2; issue 2 point 4).
//!
//! Method: child processes under random load are killed with SIGKILL at random moments, and at every named fault
//! point of the build with fault points; after each kill the work is taken up again and the replica compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use harness::files::{extension, extension_sim};
use harness::pair::{attach, flush, publish};
use harness::{assert_equal, load, messages, open, Dice, Pair, Shell, Sql, TempDir};

fn worker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args(args).env("LOGOS_EXTENSION", extension()).env_remove("LOGOS_FAULT");
    command
}

/// Starts a worker and waits for its first line.
fn start(mut command: Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL), "the worker ended by itself");
}

#[test]
fn a_primary_killed_fifty_times_under_load_loses_nothing() {
    let dir = TempDir::new();
    let (database, replica_path) = (dir.file("primary.db"), dir.file("replica.db"));
    let mut dice = Dice::new(2026);
    let mut url = String::new();
    for round in 0..50 {
        let (child, said) = start(worker(&["primary", database.to_str().unwrap(), &dir.channel(), &round.to_string()]));
        assert!(url.is_empty() || said == url, "round {round}: {said:?} is not {url}");
        url = said;
        std::thread::sleep(Duration::from_micros(dice.below(250_000)));
        kill(child);

        let primary = open(&database);
        assert_eq!(primary.text("PRAGMA integrity_check"), "ok");
        assert_eq!(publish(&primary, &dir.channel()), url, "round {round}");
        let position = flush(&primary);
        let replica = open(&replica_path);
        attach(&replica, &url);
        assert_equal(&primary, &replica);
        assert_eq!(replica.text("SELECT logos_position()"), position);
        primary.run("SELECT logos_stop()");
        primary.close().unwrap();
    }
    let (primary, fresh) = (open(&database), open(&dir.file("fresh.db")));
    assert!(primary.int("SELECT transactions FROM progress") > 50);
    attach(&fresh, &url);
    assert_equal(&primary, &fresh);
}

#[test]
fn a_killed_shell_with_open_and_committed_work_publishes_the_committed_part() {
    let dir = TempDir::new();
    let database = dir.file("primary.db");
    let mut url = String::new();
    for round in 0..10 {
        let mut shell = Shell::open_with_logos(&database);
        url = shell.must(&format!("SELECT logos_publish('{}');", dir.channel()));
        shell.must("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v);");
        shell.must(&format!("INSERT INTO t VALUES ({round}, 'committed');"));
        shell.must(&format!("BEGIN; INSERT INTO t VALUES ({}, 'open'); UPDATE t SET v = 'open';", 1000 + round));
        shell.kill();
    }
    let primary = open(&database);
    assert_eq!(publish(&primary, &dir.channel()), url);
    let replica = harness::replicate(&primary, &url, &dir.file("replica.db"));
    assert_eq!(replica.text("SELECT count(*) || ' ' || group_concat(DISTINCT v) FROM t"), "10 committed");
}

#[test]
fn a_replica_killed_at_random_applies_every_message_once() {
    let pair = Pair::of(load::SCHEMA);
    flush(&pair.primary);
    let (replica_path, mut dice) = (pair.replica_path(), Dice::new(5));
    let (mut work, mut last) = (Dice::new(6), String::new());
    for _ in 0..20 {
        let (child, said) = start(worker(&["replica", replica_path.to_str().unwrap(), &pair.url]));
        assert_eq!(said, "following");
        for _ in 0..30 {
            load::transaction(&pair.primary, &mut work);
        }
        std::thread::sleep(Duration::from_micros(dice.below(60_000)));
        kill(child);
        let replica = open(&replica_path);
        let position = replica.text("SELECT logos_position()");
        assert!(position >= last, "went back from {last} to {position}");
        last = position;
        assert_eq!(replica.text("PRAGMA integrity_check"), "ok");
        flush(&pair.primary);
        let rows = attach(&replica, &pair.url);
        assert!(rows.iter().all(|row| row.position > last), "a message was applied twice");
        assert_equal(&pair.primary, &replica);
        last = replica.text("SELECT logos_position()");
    }
}

#[test]
fn a_process_that_ends_in_the_midst_of_publishing_loses_nothing() {
    let dir = TempDir::new();
    let database = dir.file("primary.db");
    let mut rows = 0;
    for round in 0..20 {
        let script = format!(
            "SELECT logos_publish('{}'); CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v);
             WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {n}) INSERT INTO t(v) SELECT randomblob(100) FROM c;
             INSERT INTO t(v) VALUES ('last');",
            dir.channel(),
            n = 1 + round * 200
        );
        let answer = Shell::run_with_logos(&database, &script);
        assert_eq!(answer.err, "", "round {round}");
        rows += 2 + round * 200;
    }
    let primary = open(&database);
    assert_eq!(primary.int("SELECT count(*) FROM t"), rows);
    let url = publish(&primary, &dir.channel());
    harness::replicate(&primary, &url, &dir.file("replica.db"));
}

/// Names of the fault points that the build for it lists. A shell loads it, never this process, which has the other.
fn fault_points() -> Vec<String> {
    let dir = TempDir::new();
    let load = format!(".load '{}' sqlite3_logos_init", extension_sim().with_extension("").display());
    let listed = Shell::run(&dir.file("x.db"), &format!("{load}\nSELECT logos_faults();")).out;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    listed.split(|c: char| !is_name(c)).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn tour(folder: &Path, fault: Option<&str>) -> Output {
    let mut command = worker(&["tour", folder.to_str().unwrap()]);
    command.env("LOGOS_EXTENSION", extension_sim());
    if let Some(fault) = fault {
        command.env("LOGOS_FAULT", fault);
    }
    command.output().unwrap()
}

#[test]
fn a_kill_at_every_fault_point_is_made_good_by_the_next_start() {
    let points = fault_points();
    assert!(points.len() >= 5, "the build with fault points lists only {points:?}");
    let mut never_reached = Vec::new();
    for point in &points {
        let mut reached = 0;
        for pass in [1, 2, 7] {
            let dir = TempDir::new();
            let fault = format!("{point}:{pass}");
            let output = tour(dir.path(), Some(&fault));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.signal() == Some(libc::SIGKILL) {
                reached += 1;
            } else {
                assert!(output.status.success(), "{fault}: {said}");
            }
            // The same tour over what the kill left, with no fault, must come to its end and be equal.
            let output = tour(dir.path(), None);
            assert!(output.status.success(), "after {fault}: {}", String::from_utf8_lossy(&output.stderr));
            let primary = open(&dir.file("primary.db"));
            let url = publish(&primary, &dir.channel());
            let position = flush(&primary);
            let replica = open(&dir.file("replica.db"));
            attach(&replica, &url);
            assert_equal(&primary, &replica);
            harness::replicate(&primary, &url, &dir.file("fresh.db"));
            assert_eq!(messages(&primary).last().unwrap().position, position, "after {fault}");
            primary.run("SELECT logos_stop()");
        }
        if reached == 0 {
            never_reached.push(point.as_str());
        }
    }
    assert_eq!(never_reached, Vec::<&str>::new(), "the tour passes none of these points");
}

#[test]
fn the_shipped_build_has_no_fault_points() {
    let dir = TempDir::new();
    let answer = Shell::run_with_logos(&dir.file("x.db"), "SELECT logos_faults();");
    assert!(answer.err.contains("no such function"), "{answer:?}");
    let mut command = worker(&["tour", dir.path().to_str().unwrap()]);
    for point in fault_points().into_iter().take(1) {
        command.env("LOGOS_FAULT", point);
    }
    assert!(command.output().unwrap().status.success());
}
