//! What the tests of the node channel share: a development node, primaries and replicas on it, dumps that compare them.
//!
//! Everything is real but the chain: files, the built extension, HTTP on 127.0.0.1 at a port that the system chose.
//!
//! Invariants
//! - Waiting is for something that must happen, with a generous limit; no test asserts how long anything takes.
//!
//! Not here: claims. Those are the files under `tests`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logos_devnode::{DevNode, Forgery, NodeConfig, Prices};
use logos_log::entry::{ChannelConfig, Inscription};
use logos_log::ids::{ChannelId, MsgId, PublicKey};
use rusqlite::types::Value;
use rusqlite::Connection;

/// How long to wait for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Options of a publisher that looks often.
pub const QUICK: &str = r#"{"poll_ms": 10, "batch_ms": 0}"#;

/// The same for a database that was copied or restored, by somebody who says that it was moved.
pub const MOVED: &str = r#"{"poll_ms": 10, "batch_ms": 0, "moved": true}"#;

/// The extension as it was built.
pub fn extension() -> PathBuf {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../build/logos.so");
    std::env::var_os("LOGOS_EXTENSION").map_or_else(|| built.into(), PathBuf::from)
}

/// A connection with the extension loaded.
pub fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    // SAFETY: the extension under test is the code we mean to run.
    unsafe {
        conn.load_extension_enable().unwrap();
        conn.load_extension(extension(), None::<&str>).unwrap_or_else(|e| panic!("{}: {e}", extension().display()));
    }
    conn
}

/// A node and a folder for databases on it.
pub struct Scene {
    pub node: DevNode,
    pub folder: tempfile::TempDir,
}

impl Scene {
    /// A node with this configuration.
    pub fn new(config: NodeConfig) -> Self {
        Self { node: DevNode::start(config).unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// Blocks when asked for; final after three.
    pub fn by_hand() -> Self {
        Self::new(NodeConfig { k: 3, ..NodeConfig::default() })
    }

    /// A block every 20 ms; final after five.
    pub fn running() -> Self {
        Self::new(NodeConfig { k: 5, block_ms: Some(20), ..NodeConfig::default() })
    }

    /// With fees, paid from these notes.
    pub fn with_fees(notes: &[u64]) -> Self {
        Self::new(NodeConfig { k: 3, prices: Prices::GENESIS, notes: notes.to_vec(), ..NodeConfig::default() })
    }

    /// Path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A primary that is not published yet, with one table.
    pub fn primary(&self, name: &str) -> Db {
        let db = self.db(name);
        db.run("CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, data BLOB)");
        db
    }

    /// A database.
    pub fn db(&self, name: &str) -> Db {
        Db { conn: open(&self.path(name)), path: self.path(name) }
    }

    /// Makes blocks until something is so.
    pub fn mine_until(&self, what: &str, mut so: impl FnMut() -> bool) {
        wait_until(what, || {
            so() || {
                self.node.node().mine(1);
                std::thread::sleep(Duration::from_millis(20));
                so()
            }
        });
    }

    /// Makes blocks until all that was committed is on the channel.
    pub fn settle(&self, primary: &Db) {
        let position = primary.text("SELECT logos_position()");
        let accepted = "SELECT accepted_position FROM logos_status WHERE role = 'primary' AND database = ";
        self.mine_until(&format!("{position} on the channel: {:?}", primary.status()), || {
            primary.text(&format!("{accepted} '{}'", primary.path.display())) == position
        });
    }

    /// A replica made from the channel, caught up with the primary and equal to it.
    pub fn assert_replicates(&self, primary: &Db, url: &str, name: &str) -> Db {
        let replica = self.db(name);
        replica.pull(url, r#"{"poll_ms": 5}"#);
        assert_eq!(replica.dump(), primary.dump(), "{name}");
        replica
    }
}

/// Waits for something that must happen.
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "it does not happen: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One database, on one connection.
pub struct Db {
    pub conn: Connection,
    pub path: PathBuf,
}

impl Db {
    pub fn run(&self, sql: &str) {
        self.conn.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    pub fn text(&self, sql: &str) -> String {
        match self.conn.query_row(sql, [], |row| row.get::<_, Value>(0)).unwrap_or_else(|e| panic!("{sql}: {e}")) {
            Value::Text(text) => text,
            Value::Null => "NULL".into(),
            Value::Integer(n) => n.to_string(),
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// A text, or the error.
    pub fn try_text(&self, sql: &str) -> Result<String, String> {
        self.conn.query_row(sql, [], |row| row.get(0)).map_err(|e| e.to_string())
    }

    pub fn number(&self, sql: &str) -> i64 {
        self.conn.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Publishes; returns the channel's URL.
    pub fn publish(&self, url: &str, options: &str) -> String {
        self.try_publish(url, options).unwrap()
    }

    pub fn try_publish(&self, url: &str, options: &str) -> rusqlite::Result<String> {
        self.conn.query_row("SELECT logos_publish(?1, ?2)", [url, options], |row| row.get(0))
    }

    /// Pulls all there is; returns how many messages were applied.
    pub fn pull(&self, url: &str, options: &str) -> i64 {
        self.try_pull(url, options).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn try_pull(&self, url: &str, options: &str) -> Result<i64, String> {
        let sql = "SELECT count(*) FROM attach_replica(?1, ?2)";
        self.conn.query_row(sql, [url, options], |row| row.get(0)).map_err(|e| e.to_string())
    }

    /// A column of the status of this database.
    pub fn of_status(&self, column: &str) -> String {
        let sql = format!("SELECT {column} FROM logos_status WHERE database = '{}'", self.path.display());
        self.text(&sql)
    }

    pub fn status(&self) -> String {
        let one = |column: &str| format!("{column}: {}; ", self.of_status(column));
        ["role", "state", "position", "error", "hint"].map(one).concat()
    }

    /// Waits for an error that says this.
    pub fn wait_for_error(&self, says: &str) -> String {
        let mut error = String::new();
        wait_until(&format!("an error with {says:?}"), || {
            error = self.of_status("error");
            error.contains(says)
        });
        error
    }

    /// All rows and the schema, without what is ours.
    pub fn dump(&self) -> Vec<String> {
        let ours = "name NOT LIKE '\\_logos%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
        let schema = format!(
            "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema WHERE {ours} ORDER BY 1"
        );
        let mut lines = self.lines(&schema);
        let tables = self.lines(&format!("SELECT name FROM sqlite_schema WHERE type = 'table' AND {ours} ORDER BY 1"));
        for table in tables {
            let columns = self.lines(&format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"));
            let quoted = columns.iter().map(|c| format!("quote(\"{c}\")")).collect::<Vec<_>>().join(" || ',' || ");
            lines.extend(self.lines(&format!("SELECT '{table}: ' || {quoted} FROM \"{table}\" ORDER BY rowid")));
        }
        lines
    }

    fn lines(&self, sql: &str) -> Vec<String> {
        let mut statement = self.conn.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let lines = statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>();
        lines.unwrap()
    }

    /// The seed of the key in the sidecar, once nobody holds that.
    pub fn seed(&self) -> [u8; 32] {
        let mut sidecar = self.path.clone().into_os_string();
        sidecar.push("-logos");
        let sidecar = Connection::open(sidecar).unwrap();
        sidecar.query_row("SELECT value FROM meta WHERE name = 'key'", [], |row| row.get(0)).unwrap()
    }
}

/// A published row, and a replica that has it.
pub struct Stage {
    pub scene: Scene,
    pub primary: Db,
    pub replica: Db,
    pub url: String,
    pub seed: [u8; 32],
}

impl Stage {
    pub fn new(k: u64) -> Self {
        let scene = Scene::new(NodeConfig { k, ..NodeConfig::default() });
        let primary = scene.primary("p.db");
        let url = primary.publish(&scene.node.url(), QUICK);
        scene.settle(&primary);
        primary.text("SELECT logos_stop()");
        let seed = primary.seed();
        primary.publish(&scene.node.url(), QUICK);
        let replica = scene.assert_replicates(&primary, &url, "r.db");
        Self { scene, primary, replica, url, seed }
    }

    pub fn insert(&self, id: u64) {
        self.primary.run(&format!("INSERT INTO item VALUES({id}, 'x', NULL)"));
        self.scene.settle(&self.primary);
    }

    pub fn stop(&self) {
        self.primary.text("SELECT logos_stop()");
    }

    pub fn newest(&self) -> Inscription {
        self.scene.node.node().inscriptions(&channel_of(&self.url)).pop().unwrap()
    }

    /// The pull is refused with these words, and changes nothing.
    pub fn refused(&self, says: &str) -> String {
        let before = (self.replica.dump(), self.replica.text("SELECT logos_position()"));
        let error = self.replica.try_pull(&self.url, "{}").unwrap_err();
        assert!(error.contains(says), "{says:?} is not in: {error}");
        assert!(error.contains("hint:"), "{error}");
        assert_eq!((self.replica.dump(), self.replica.text("SELECT logos_position()")), before);
        error
    }

    pub fn forge(&self, change: impl FnOnce(&mut Forgery)) {
        self.stop();
        let mut forgery = Forgery {
            channel: channel_of(&self.url),
            seed: self.seed,
            data: b"forged".to_vec(),
            parent: None,
            signer: None,
            corrupt: false,
        };
        change(&mut forgery);
        self.scene.node.node().forge_inscription(forgery);
        self.scene.node.node().mine(1);
    }

    /// The publisher's own node tells it the truth.
    pub fn insert_despite(&self, id: u64) {
        let withheld: Vec<_> = self.scene.node.node().with_faults(|faults| faults.withheld.drain().collect());
        self.insert(id);
        withheld.into_iter().for_each(|id| self.scene.node.node().withhold(id));
    }
}

/// The channel in a URL.
pub fn channel_of(url: &str) -> ChannelId {
    url.rsplit('/').next().unwrap().parse().unwrap()
}

/// A configuration of the channel in a URL that gives it to these keys; none is the author's.
pub fn config(url: &str, keys: &[Option<[u8; 32]>]) -> ChannelConfig {
    let author = PublicKey(channel_of(url).0);
    ChannelConfig {
        channel: channel_of(url),
        keys: keys.iter().map(|key| key.map_or(author, PublicKey)).collect(),
        posting_timeframe: 0,
        posting_timeout: 0,
        configuration_threshold: 1,
        transfer_threshold: 1,
    }
}

/// On the preferred chain every entry of the channel is there once, each after the one before it.
pub fn assert_once(node: &DevNode, channel: ChannelId) -> usize {
    let all = node.node().inscriptions(&channel);
    let mut tip = MsgId::ROOT;
    for one in &all {
        assert_eq!(one.parent, tip);
        tip = one.id();
    }
    // Each part is there once: message number and part number stand at its beginning.
    let mut parts: Vec<&[u8]> = all.iter().map(|one| &one.data[2..14]).collect();
    parts.sort();
    parts.dedup();
    assert_eq!(parts.len(), all.len(), "a part is on the channel twice");
    all.len()
}

/// What a node answers, asked without the product's client.
pub fn get(url: &str) -> serde_json::Value {
    use std::io::{Read, Write};
    let rest = url.trim_start_matches("http://");
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

/// Copies a database and its sidecar, as a careless user or a backup does.
pub fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-logos", "-logos-wal"] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let _ = std::fs::remove_file(with(to));
        let _ = std::fs::copy(with(from), with(to));
    }
}
