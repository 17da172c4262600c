//! A primary and its replica, and the ways to drive them through a list of statements.

use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::Connection;

use crate::dump::assert_equal;
use crate::files::TempDir;
use crate::sql::{open, Sql};

/// A row of `attach_replica`.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    pub seq: i64,
    pub position: String,
    pub kind: String,
    pub tables: Value,
    pub changes: i64,
    pub bytes: i64,
}

/// Pulls and applies; the rows, or the error.
pub fn try_attach(replica: &Connection, url: &str, options: Option<&str>) -> rusqlite::Result<Vec<Applied>> {
    let query = match options {
        None => "SELECT seq, position, kind, tables, changes, bytes FROM attach_replica(?1)",
        Some(_) => "SELECT seq, position, kind, tables, changes, bytes FROM attach_replica(?1, ?2)",
    };
    let mut statement = replica.prepare(query)?;
    let given: Vec<&str> = std::iter::once(url).chain(options).collect();
    let rows = statement.query_map(rusqlite::params_from_iter(given), |row| {
        Ok(Applied {
            seq: row.get(0)?,
            position: row.get(1)?,
            kind: row.get(2)?,
            tables: row.get(3)?,
            changes: row.get(4)?,
            bytes: row.get(5)?,
        })
    })?;
    rows.collect()
}

/// Pulls and applies what must be applicable.
pub fn attach(replica: &Connection, url: &str) -> Vec<Applied> {
    try_attach(replica, url, None).unwrap_or_else(|error| panic!("attach_replica({url}): {error}"))
}

/// Publishes and returns the full URL.
pub fn publish(primary: &Connection, channel: &str) -> String {
    primary.query_row("SELECT logos_publish(?1)", [channel], |row| row.get(0)).unwrap()
}

/// Waits until everything committed is on the channel; returns the position.
pub fn flush(primary: &Connection) -> String {
    primary.text("SELECT logos_flush(60)")
}

/// Flush, pull into the file at `replica`, compare. The replica's connection is returned.
pub fn replicate(primary: &Connection, url: &str, replica: &Path) -> Connection {
    let position = flush(primary);
    let replica = open(replica);
    attach(&replica, url);
    assert_equal(primary, &replica);
    assert_eq!(replica.text("SELECT logos_position()"), position);
    replica
}

/// A primary that publishes to a directory channel, with a replica beside it, in a folder of their own.
pub struct Pair {
    pub primary: Connection,
    pub url: String,
    pub dir: TempDir,
    /// Replicas made by `check_fresh` so far.
    pub fresh: usize,
}

impl Pair {
    /// Publishes an empty database.
    pub fn new() -> Self {
        Self::of("")
    }

    /// Runs the script first and publishes then.
    pub fn of(script: &str) -> Self {
        Self::with_options(script, "{}")
    }

    /// The same with options for `logos_publish`.
    pub fn with_options(script: &str, options: &str) -> Self {
        let dir = TempDir::new();
        let primary = open(&dir.file("primary.db"));
        primary.run(script);
        let url = primary
            .query_row("SELECT logos_publish(?1, ?2)", [dir.channel().as_str(), options], |row| row.get(0))
            .unwrap();
        Self { primary, url, dir, fresh: 0 }
    }

    /// File of the primary.
    pub fn primary_path(&self) -> PathBuf {
        self.dir.file("primary.db")
    }

    /// File of the replica that `check` keeps following.
    pub fn replica_path(&self) -> PathBuf {
        self.dir.file("replica.db")
    }

    /// Runs on the primary.
    pub fn run(&self, script: &str) {
        self.primary.run(script);
    }

    /// Runs one step: a leading `!` means that it must fail.
    pub fn step(&self, step: &str) {
        match step.strip_prefix('!') {
            None => self.run(step),
            Some(failing) => {
                self.primary.fails(failing);
            }
        }
    }

    /// Flushes, brings the replica up to date and compares.
    pub fn check(&self) -> Connection {
        replicate(&self.primary, &self.url, &self.replica_path())
    }

    /// The same with a new replica, made from the channel alone.
    pub fn check_fresh(&mut self) -> Connection {
        self.fresh += 1;
        let path = self.dir.file(&format!("fresh-{}.db", self.fresh));
        replicate(&self.primary, &self.url, &path)
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a scenario in the four ways in which it can meet the publisher, and compares after each.
///
/// `setup` before `logos_publish` or after it; every step in a message of its own or all steps in one. A step that
/// starts with `!` must fail. `check` then sees the end on a replica made from the channel alone.
pub fn in_every_order(setup: &str, steps: &[&str]) {
    for before in [true, false] {
        for one_message in [true, false] {
            eprintln!("setup before publishing: {before}, all steps in one message: {one_message}");
            let options = if one_message { r#"{"batch_ms":60000}"# } else { "{}" };
            let mut pair = Pair::with_options(if before { setup } else { "" }, options);
            if !before {
                pair.run(setup);
            }
            pair.check();
            for step in steps {
                pair.step(step);
                if !one_message && pair.primary.is_autocommit() {
                    pair.check();
                }
            }
            pair.check();
            pair.check_fresh();
            pair.run("SELECT logos_stop()");
        }
    }
}
