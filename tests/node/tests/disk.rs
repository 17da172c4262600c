//! Goal: a disk that is full while the sender records how far its entries have come stops nothing for good.
//! Method: the stock shell publishes with a preloaded library that makes writes to the sidecar fail, as the harness does it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use logos_devnode::{Fault, Rule};
use node_tests::*;

/// A shell that is asked one thing after another.
struct Shell<'s> {
    scene: &'s Scene,
    child: Child,
    stdin: ChildStdin,
    asked: Cell<u32>,
}

impl<'s> Shell<'s> {
    fn open(scene: &'s Scene) -> Self {
        let (source, library) = (scene.path("full.c"), scene.path("full.so"));
        fs::write(&source, include_str!("../../harness/tests/resources/full.c")).unwrap();
        let cc =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
        assert!(cc.expect("a C compiler (run `make setup`)").success());
        let mut child = Command::new("sqlite3")
            .args(["-batch", "-init", "/dev/null"])
            .arg(scene.path("p.db"))
            .env("LD_PRELOAD", &library)
            .env("FULL_FLAG", scene.path("full"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the sqlite3 shell (run `make setup`)");
        let stdin = child.stdin.take().unwrap();
        Self { scene, child, stdin, asked: Cell::new(0) }
    }

    fn ask(&self, sql: &str) -> String {
        self.asked.set(self.asked.get() + 1);
        let answer = self.scene.path(&format!("answer-{}", self.asked.get()));
        writeln!(&self.stdin, ".output '{}'\n{sql}\n.print done\n.output", answer.display()).unwrap();
        let mut said = String::new();
        wait_until(sql, || {
            said = fs::read_to_string(&answer).unwrap_or_default();
            said.ends_with("done\n")
        });
        said.trim_end_matches("done\n").trim().to_string()
    }
}

#[test]
fn a_full_disk_while_the_sender_records_ends_nothing() {
    let scene = Scene::by_hand();
    let shell = Shell::open(&scene);
    shell.ask(&format!(".load '{}'", extension().display()));
    shell.ask("CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, data BLOB);");
    let url = shell.ask(&format!("SELECT logos_publish('{}', '{QUICK}');", scene.node.url()));
    shell.ask("INSERT INTO item VALUES(1, 'x', NULL); SELECT logos_position();");
    wait_until("a post", || !scene.node.node().pending().is_empty());
    fs::write(scene.path("full"), "-logos").unwrap();
    scene.node.node().mine(1);
    let mut error = String::new();
    wait_until("the status says it", || {
        error = shell.ask("SELECT state || ' ' || error FROM logos_status;");
        !error.is_empty()
    });
    assert!(error.starts_with("refused") && error.contains("full"), "{error}");
    fs::remove_file(scene.path("full")).unwrap();
    scene.mine_until("it goes on", || shell.ask("SELECT state FROM logos_status;") == "healthy");
    shell.ask("INSERT INTO item VALUES(2, 'afterwards', NULL); SELECT logos_position();");
    scene.mine_until("it is sent", || shell.ask("SELECT accepted_position = position FROM logos_status;") == "1");
    let Shell { mut child, stdin, .. } = shell;
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert_once(&scene.node, channel_of(&url));
    scene.assert_replicates(&scene.db("p.db"), &url, "r.db");
}

#[test]
fn what_was_posted_is_remembered_although_the_disk_was_full_when_it_was() {
    let scene = Scene::by_hand();
    // The node is away until there is a message, and then the disk is full.
    scene.node.node().fault(Rule { times: None, ..Rule::new(Fault::Close, "/", 1) });
    let shell = Shell::open(&scene);
    shell.ask(&format!(".load '{}'", extension().display()));
    shell.ask("CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, data BLOB);");
    shell.ask(&format!("SELECT logos_publish('{}', '{QUICK}');", scene.node.url()));
    shell.ask("SELECT logos_position();");
    fs::write(scene.path("full"), "-logos").unwrap();
    scene.node.node().clear_faults();
    wait_until("the status says it", || shell.ask("SELECT error FROM logos_status;").contains("full"));
    fs::remove_file(scene.path("full")).unwrap();
    wait_until("it goes on", || shell.ask("SELECT state FROM logos_status;") == "sending");
    let Shell { mut child, stdin, .. } = shell;
    drop(stdin);
    assert!(child.wait().unwrap().success());
    let posted = scene.node.node().pending()[0].to_string();
    let sidecar = rusqlite::Connection::open(scene.path("p.db-logos")).unwrap();
    let memo: String = sidecar.query_row("SELECT value FROM meta WHERE name = 'memo'", [], |row| row.get(0)).unwrap();
    assert!(memo.contains(&posted), "{memo}");
}
