//! One run: the dice choose who steps.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use logos_engine::channel::mem::{Mem, Weather};
use logos_engine::channel::{Transport, Url};
use logos_engine::drive::follower::{Follower, Machine};
use logos_engine::drive::following::Action as Follows;
use logos_engine::drive::publisher::builder::{Builder, Next};
use logos_engine::drive::publisher::sender::Sender;
use logos_engine::drive::publisher::sending::Action as Sends;
use logos_engine::drive::publisher::{Options, Publisher};
use logos_engine::drive::puller::{Options as PullOptions, Puller};
use logos_engine::drive::workers::Workers;
use logos_engine::error::Error;
use logos_engine::host::database::Database;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::application::{contents, statement, SETUP};
use crate::env::{Clock, Simulated};

/// Steps of a run before the sky clears, and the most that it may take then until all has arrived.
const STEPS: usize = 400;
const CLEARING: usize = 2_000;

/// What came of a run.
pub struct Outcome {
    /// What each step came to.
    pub trace: Vec<String>,
    /// What is wrong, if anything.
    pub fault: Option<String>,
}

impl Outcome {
    /// Digest of the trace.
    pub fn digest(&self) -> String {
        blake3::hash(self.trace.join("\n").as_bytes()).to_hex()[..16].to_string()
    }
}

/// Runs a seed.
pub fn run(seed: u64) -> Outcome {
    let mut sim = Sim::new(seed);
    let fault = sim.play().err();
    Outcome { trace: std::mem::take(&mut sim.trace), fault }
}

struct Primary {
    publisher: Arc<Publisher>,
    builder: Builder,
    sender: Sender,
}

struct Replica {
    name: &'static str,
    env: Arc<Simulated>,
    database: Database,
    machine: Option<Machine>,
    follower: Arc<Follower>,
}

struct Sim {
    dice: Rng,
    clock: Clock,
    mem: Mem,
    url: Url,
    application: Connection,
    workers: Arc<Workers>,
    database: Database,
    primary: Option<Primary>,
    replicas: Vec<Replica>,
    trace: Vec<String>,
    _folder: TempDir,
}

/// A file of that name, empty.
fn file(folder: &Path, name: &str) -> Database {
    let path = std::fs::canonicalize(folder).unwrap().join(name);
    logos_engine::host::connection::create(&path).unwrap();
    // An empty file is made when something is written; this is only opened.
    if !path.exists() {
        std::fs::File::create(&path).unwrap();
    }
    Database::at(&path)
}

fn said<T: Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(what) => format!("{what:?}"),
        // Without the sentence: it names the folder.
        Err(e) => format!("{:?}", e.kind),
    }
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut dice = Rng::with_seed(seed);
        let clock = Clock::default();
        clock.pass(Duration::from_secs(1_000));
        let folder = tempfile::tempdir().unwrap();
        let mem = Mem::new("sim");
        let url = Url { transport: Transport::Mem(mem.clone()), channel: None };
        let database = file(folder.path(), "primary.db");
        let application = Connection::open(database.path()).unwrap();
        application.execute_batch(SETUP).unwrap();
        application.busy_timeout(Duration::ZERO).unwrap();
        let mut env = |drift| Simulated::new(&clock, drift, dice.u64(..));
        let workers = Workers::new(env(3));
        let replicas = [("one", 0), ("two", 40)].map(|(name, drift)| {
            let (env, database) = (env(drift), file(folder.path(), name));
            let follower = Follower::new(env.clone(), &database, &url, &PullOptions::default());
            Replica { name, env, database, machine: None, follower }
        });
        Self {
            dice,
            clock,
            mem,
            url,
            application,
            workers,
            database,
            primary: None,
            replicas: replicas.into(),
            trace: Vec::new(),
            _folder: folder,
        }
    }

    fn note(&mut self, what: String) {
        let line = format!("{:>9} {what}", self.clock.now().as_millis());
        self.trace.push(line);
    }

    fn play(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step()?;
        }
        if !self.application.is_autocommit() {
            self.application.execute_batch("COMMIT").map_err(|e| e.to_string())?;
        }
        self.note("the sky clears".into());
        self.clear()?;
        let expected = contents(&self.application);
        for replica in &self.replicas {
            let found = contents(&Connection::open(replica.database.path()).map_err(|e| e.to_string())?);
            if found != expected {
                let lacks = expected.iter().filter(|line| !found.contains(line)).take(3);
                let more = found.iter().filter(|line| !expected.contains(line)).take(3);
                let lines: Vec<&String> = lacks.chain(more).collect();
                return Err(format!("replica {} differs: {lines:#?}", replica.name));
            }
        }
        let digest = blake3::hash(expected.join("\n").as_bytes()).to_hex()[..16].to_string();
        self.note(format!("all equal: {digest}"));
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        match self.dice.u32(0..100) {
            0..=19 => self.application(),
            20..=44 => self.build()?,
            45..=59 => self.send()?,
            60..=79 => {
                let which = self.dice.usize(0..self.replicas.len());
                self.follow(which)?;
            }
            80..=86 => {
                let n = self.dice.usize(1..4);
                self.mem.deliver(n);
                self.note(format!("delivered {n}: {:?}", self.mem.length()));
            }
            87..=90 => {
                let dice = &mut self.dice;
                let weather = Weather {
                    offline: dice.u32(0..5) == 0,
                    loses_after: (dice.u32(0..3) == 0).then(|| dice.usize(0..3)),
                    repeats: dice.u32(0..3) == 0,
                    delays: dice.bool(),
                };
                self.mem.set_weather(weather);
                self.note(format!("{weather:?}"));
            }
            91..=97 => {
                let longest = [10, 300, 5_000, 60_000][self.dice.usize(0..4)];
                let time = Duration::from_millis(self.dice.u64(1..=longest));
                self.clock.pass(time);
            }
            98 => self.end_publisher(),
            _ => {
                let which = self.dice.usize(0..self.replicas.len());
                self.replicas[which].machine = None;
                self.note(format!("replica {} ends", self.replicas[which].name));
            }
        }
        self.clock.pass(Duration::from_millis(1));
        Ok(())
    }

    /// Some transactions stay open over the steps of others.
    fn application(&mut self) {
        let opens = self.dice.u32(0..6) == 0;
        let sql = match (self.application.is_autocommit(), opens) {
            (true, true) => "BEGIN".to_string(),
            (false, true) => ["COMMIT", "COMMIT", "ROLLBACK"][self.dice.usize(0..3)].to_string(),
            _ => statement(&mut self.dice),
        };
        // Some statements fail, and some meet nobody.
        let done = self.application.execute_batch(&sql).map_err(|e| e.sqlite_error_code());
        self.note(format!("application: {sql}: {done:?}"));
    }

    fn primary(&mut self) -> Result<&mut Primary, String> {
        if self.primary.is_none() {
            let opened = Publisher::open(&self.workers, &self.database, &self.url, Options::default());
            let made = opened.and_then(|(publisher, conn)| {
                Ok(Primary { builder: Builder::new(&publisher, conn)?, sender: Sender::new(&publisher)?, publisher })
            });
            self.note("the publisher begins".into());
            self.primary = Some(made.map_err(|e| e.to_string())?);
        }
        self.primary.as_mut().ok_or_else(|| "no publisher".into())
    }

    fn end_publisher(&mut self) {
        if let Some(mut primary) = self.primary.take() {
            primary.builder.leave();
        }
        self.note("the publisher ends".into());
    }

    /// Whether it may be there at all: a file in the middle of the application's transaction cannot be put under capture.
    fn may_publish(&self) -> bool {
        self.primary.is_some() || self.application.is_autocommit()
    }

    fn build(&mut self) -> Result<(), String> {
        if !self.may_publish() {
            return Ok(());
        }
        let primary = self.primary()?;
        let done = primary.builder.step();
        let status = primary.publisher.report();
        let position = status.position;
        // How long it waits depends on when the file was last written, which is the machine's clock.
        let word = match &done {
            Ok(Next::Again) => "again".to_string(),
            Ok(Next::Wait { .. }) => "waits".to_string(),
            other => format!("{:?}", other.as_ref().map_err(|e| e.kind)),
        };
        self.note(format!("builder: {word}, at {position}"));
        done.map(drop).map_err(|e| format!("the builder ended: {e}"))
    }

    fn send(&mut self) -> Result<(), String> {
        if !self.may_publish() {
            return Ok(());
        }
        let primary = self.primary()?;
        let done = primary.sender.step();
        let status = primary.publisher.report();
        self.note(format!("sender: {done:?}, accepted {}, final {}", status.accepted.seq, status.finalized.seq));
        if done == Sends::End {
            return Err(format!("the sender ended: {:?}", status.error.map(|e| e.to_string())));
        }
        Ok(())
    }

    fn follow(&mut self, which: usize) -> Result<(), String> {
        let url = self.url.clone();
        let replica = &mut self.replicas[which];
        let name = replica.name;
        if replica.machine.is_none() {
            let puller = Puller::open(&replica.database, &url, &PullOptions::default());
            match puller {
                Ok(puller) => {
                    replica.follower =
                        Follower::new(replica.env.clone(), &replica.database, &url, &PullOptions::default());
                    replica.machine = Some(Machine::new(&replica.follower, puller));
                }
                Err(e) if e.waits => {
                    self.note(format!("replica {name} waits for the channel"));
                    return Ok(());
                }
                Err(e) => return Err(format!("replica {name} cannot begin: {e}")),
            }
        }
        let Some(machine) = &mut replica.machine else { return Ok(()) };
        let done = machine.step();
        if let Follows::Listen(_) = done {
            machine.listen(Duration::ZERO);
        }
        let report = replica.follower.report();
        self.note(format!("replica {name}: {done:?}, {} at {}", report.state, report.position));
        if done == Follows::End {
            return Err(format!("replica {name} ended: {:?}", report.error.map(|e| e.to_string())));
        }
        Ok(())
    }

    /// Nothing is lost or late any more: all that was committed arrives.
    fn clear(&mut self) -> Result<(), String> {
        self.mem.set_weather(Weather::default());
        self.primary()?.publisher.ask();
        for _ in 0..CLEARING {
            self.build()?;
            self.send()?;
            self.mem.deliver(usize::MAX);
            (0..self.replicas.len()).try_for_each(|which| self.follow(which))?;
            self.clock.pass(Duration::from_millis(500));
            let publisher = &self.primary()?.publisher;
            let (position, covered) = (publisher.report().position, publisher.is_covered());
            if covered && self.replicas.iter().all(|r| r.follower.report().position == position) {
                return Ok(());
            }
        }
        let status = self.primary()?.publisher.report();
        Err(format!(
            "not all arrives: primary {} accepted {} {:?}, replicas {:?}",
            status.position,
            status.accepted,
            said::<()>(status.error.map_or(Ok(()), Err)),
            self.replicas.iter().map(|r| r.follower.report().position.to_string()).collect::<Vec<_>>()
        ))
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.replicas.iter_mut().for_each(|r| r.machine = None);
        if let Some(mut primary) = self.primary.take() {
            primary.builder.leave();
        }
    }
}
