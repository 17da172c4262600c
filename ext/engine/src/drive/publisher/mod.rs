//! Publishing: two threads a database, one that makes messages out of commits and one that sends them.
//!
//! The *builder* watches for commits, takes a snapshot, stores the message in the sidecar and enrols. The *sender*
//! brings stored messages to the channel and records how far they have come. They share the sidecar and nothing else, so a
//! channel that hangs never keeps a commit from being captured.
//!
//! Invariants
//! - I6. Order of a message's life: durable on the primary → stored with its cursor, durably → sent → recorded → forgotten.
//! - Group commit: while a message is on its way, commits gather for the next one.
//! - I9. No network and no lock on the application's path; a write transaction of ours is short and only taken while nobody, in any
//!   process, has a transaction open (`host::idle`).
//!
//! Not here: what a message says (`changeset`), how it travels (`channel`).

pub mod builder;
pub mod pace;
pub mod sender;
pub mod sending;

pub use builder::remove_from;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use logos_log::entry::SignedTx;
use logos_log::ids::{ChannelId, MsgId, Position};
use rusqlite::{Connection, InterruptHandle};
use serde::{Deserialize, Serialize};

use crate::apply::role::{self, Role};
use crate::capture;
use crate::capture::home::Home;
use crate::capture::signal::Signal;
use crate::catalog::collation::StandIns;
use crate::channel::entry::State;
use crate::channel::logos::WriteOptions;
use crate::channel::{Author, Store, Url};
use crate::drive::patience::Patience;
use crate::drive::workers::Workers;
use crate::error::{Doing, Error, Kind, Result};
use crate::host::database::Database;
use crate::host::idle::{self, Background};
use crate::host::{connection, fork};
use crate::outbox::{self, Backlog, MessageRow, Sidecar};

/// How long a publisher that was told to end is waited for before another takes over. Its threads look at every step.
const HANDOVER: Duration = Duration::from_secs(10);

/// How long its threads may take to let go of the sidecar once they are done; somebody who waits for it holds it longer.
const LETTING_GO: Duration = Duration::from_millis(500);

/// How long transactions keep us from writing before the status says so: what most of them take is no news.
const HELD_UP_NEWS: Duration = Duration::from_secs(5);

/// How long `logos_publish` waits until the builder has looked at the database once, and closed its file again.
const FIRST_REST: Duration = Duration::from_millis(250);

/// When the application closes its last connection: how long the builder may take to finish what it is at, and to end then.
const FAREWELL: Duration = Duration::from_millis(500);
const FAREWELL_LAST: Duration = Duration::from_secs(5);

/// Options of `logos_publish`, one JSON object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "one JSON object")]
pub struct Options {
    /// `"wal"` (the default) switches to WAL; `"keep"` leaves the journal mode, and then the application's commits may
    /// find the database BUSY while a snapshot is read.
    #[serde(default)]
    pub journal: Journal,
    /// Least time from one message to the next, in milliseconds; commits gather meanwhile.
    pub batch_ms: Option<u64>,
    /// Where another process publishes this database already: stand by, and go on when that ends or dies.
    #[serde(default)]
    pub standby: bool,
    /// The database was moved here together with its sidecar, and the original is gone.
    #[serde(default)]
    pub moved: bool,
    /// As `attach_replica` takes it, so that an application may give both the same; checked, and of no effect. A primary needs none: what
    /// is sorted by a collation that only the application's own connections have is never looked up here (`catalog::collation`).
    #[serde(default)]
    pub collations: StandIns,
    /// What only a Logos node needs; a folder ignores it.
    #[serde(flatten)]
    pub node: WriteOptions,
}

/// What to do about the journal mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Journal {
    /// Switch to WAL.
    #[default]
    Wal,
    /// Leave it as it is.
    Keep,
}

/// Ends a publisher, and returns when its sidecar is free: as soon as its threads have let go of it.
pub fn end(publisher: Arc<Publisher>, patience: Duration) {
    publisher.stop(patience);
    let database = publisher.database.clone();
    drop(publisher);
    let deadline = Instant::now() + LETTING_GO;
    while outbox::is_open_here(database.path()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process other than this one publishes a database.
pub fn is_published_elsewhere(database: &Database) -> bool {
    !outbox::is_open_here(database.path()) && outbox::is_held(database.path())
}

/// One database being published by this process.
pub struct Publisher {
    workers: Arc<Workers>,
    database: Database,
    url: Url,
    channel: ChannelId,
    options: Options,
    signal: Arc<Signal>,
    sidecar: Mutex<Sidecar>,
    state: Mutex<Progress>,
    /// Notified when `state` changed.
    changed: Condvar,
    stop: AtomicBool,
    retired: AtomicBool,
    /// Tickets given to those who want everything committed so far in a message.
    tickets: AtomicU64,
}

/// What the threads have achieved; also what the status shows.
#[derive(Clone, Default)]
struct Progress {
    /// Counts the changes.
    news: u64,
    /// Highest ticket whose commits are in stored messages.
    covered: u64,
    /// Highest ticket given before the turn that failed last; whoever asks later gets a turn of his own.
    failed: u64,
    /// The last stored message.
    stored: Option<Position>,
    /// The last message on the channel.
    accepted: Option<Position>,
    /// The last final message, and the log cursor that it covers: the log up to there may be forgotten.
    finalized: Option<Position>,
    final_cursor: i64,
    backlog: Backlog,
    messages: i64,
    bytes: i64,
    builder: Option<Error>,
    sender: Option<Error>,
    warnings: Vec<String>,
    /// Why the channel may lack something that was committed, if it may.
    incomplete: Option<String>,
    /// Since when somebody was in a transaction whenever the builder wanted to write.
    held_up: Option<Duration>,
    /// Whether the builder has published all there was once, and closed the application's file.
    rested: bool,
    /// Ends what the builder is doing with the application's file.
    interrupt: Option<Arc<InterruptHandle>>,
    /// How long the channel takes for an entry.
    pace: Option<Duration>,
    requests: u64,
    builder_done: bool,
    sender_done: bool,
}

/// What `logos_status` shows of a publisher.
#[derive(Debug, Clone)]
pub struct Report {
    /// Full URL of the channel.
    pub url: String,
    /// The database.
    pub path: PathBuf,
    /// One word.
    pub state: &'static str,
    /// The last stored message.
    pub position: Position,
    /// The last message on the channel.
    pub accepted: Position,
    /// What is not on the channel yet.
    pub backlog: Backlog,
    /// Messages in all.
    pub messages: i64,
    /// Payload bytes in all.
    pub bytes: i64,
    /// What is wrong, if anything.
    pub error: Option<Error>,
    /// What is not replicated, or only by polling.
    pub warnings: Vec<String>,
    /// The last message that is on the channel for good.
    pub finalized: Position,
    /// Requests made to a node.
    pub requests: u64,
}

impl Publisher {
    /// Puts the database under capture and starts publishing it; for one that is published already, nothing but a check
    /// that the channel is the same. The caller has no transaction open.
    pub fn start(workers: &Arc<Workers>, database: &Database, url: &Url, options: Options) -> Result<Arc<Self>> {
        let publisher = Self::begin(workers, database, url, options)?;
        // An application that opens its file now, and sets another journal mode as it does each time, finds nobody in its way.
        let rested = |p: &Progress| (p.rested || p.builder_done || p.builder.is_some()).then_some(Ok(()));
        let _ = publisher.wait_until(&Patience::of(FIRST_REST), rested);
        Ok(publisher)
    }

    /// The same, without a look at how it begins.
    pub fn begin(workers: &Arc<Workers>, database: &Database, url: &Url, options: Options) -> Result<Arc<Self>> {
        database.check_in_place()?;
        // One that has ended by itself is replaced, not answered for.
        if let Some(publisher) = workers.get::<Self>(database).filter(|publisher| !publisher.has_ended()) {
            return publisher.check_same(url, &options).map(|()| publisher);
        }
        workers.former_publishers(database).into_iter().for_each(|former| end(former, HANDOVER));
        let (publisher, conn) = match Self::open(workers, database, url, options) {
            // Two threads may both have come here; the one that lost finds the winner's publisher.
            Err(e) => return workers.get(database).ok_or(e),
            Ok(opened) => opened,
        };
        let publisher = workers.add(database, publisher);
        builder::spawn(publisher.clone(), conn)?;
        sender::spawn(publisher.clone())?;
        Ok(publisher)
    }

    /// A publisher without threads: its builder, for which the connection is, and its sender are to be made and let step by the caller.
    pub fn open(
        workers: &Arc<Workers>,
        database: &Database,
        url: &Url,
        options: Options,
    ) -> Result<(Arc<Self>, Background)> {
        let path = database.path();
        prepare(database, &options)?;
        let sidecar = Sidecar::open(path, || may_begin(database), |bytes| workers.env.fill(bytes))?;
        let same_file = sidecar.check_home(database, options.moved)?;
        let channel = sidecar.channel();
        if let Some(wanted) = url.channel.filter(|&id| id != channel) {
            return Err(Error::fix(
                format!("{} publishes on channel {channel}, not on {wanted}", path.display()),
                "nothing was changed; leave the id out, or use the database and sidecar that belong to that channel",
            ));
        }
        let url = Url { channel: Some(channel), ..url.clone() };
        check_transport(&sidecar, &url)?;
        sidecar.set_transport(&url.transport.to_string())?;
        let conn = Background::open(database)?;
        if !same_file && sidecar.has_other_history(history(&conn)?)? {
            sidecar.set_replaced()?;
        }
        // Where capture is set up already, the builder brings it up to date, while nobody has a transaction open.
        if !capture::is_set_up(&conn).unwrap_or(false) {
            conn.execute_batch("BEGIN IMMEDIATE").map_err(|e| busy(path, &e))?;
            let moved = capture::enrol_all(&conn, &Home::of(channel, database))?;
            conn.execute_batch("COMMIT").map_err(|e| busy(path, &e))?;
            sidecar.move_cookie(moved)?;
        }
        let publisher = Arc::new(Self {
            workers: workers.clone(),
            database: database.clone(),
            channel,
            url,
            options,
            signal: workers.signal(database),
            state: Mutex::new(Progress::default()),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            tickets: AtomicU64::new(1),
            sidecar: Mutex::new(sidecar),
        });
        publisher.refresh()?;
        Ok((publisher, conn))
    }

    /// Whether everything that was asked for is in messages, and these are on the channel.
    pub fn is_covered(&self) -> bool {
        let state = self.state();
        let covered = state.covered >= self.tickets.load(Ordering::Acquire);
        covered && state.accepted == state.stored
    }

    /// Asks for a message that covers everything committed so far, and does not wait for it.
    pub fn ask(&self) -> u64 {
        let ticket = self.tickets.fetch_add(1, Ordering::AcqRel) + 1;
        self.signal.wake();
        ticket
    }

    /// Another call of `logos_publish`, from another connection maybe: the same channel, and no other options.
    fn check_same(&self, url: &Url, options: &Options) -> Result<()> {
        if url.transport == self.url.transport && url.channel.is_none_or(|id| id == self.channel) {
            // What only matters at the start, or never, is no difference.
            let mattering = |options: &Options| Options {
                moved: false,
                standby: false,
                collations: StandIns::default(),
                ..options.clone()
            };
            let same = [&self.options, &Options::default()];
            return match same.into_iter().any(|same| mattering(same) == mattering(options)) {
                true => Ok(()),
                false => Err(Error::fix(
                    format!("{} is being published already, with other options", self.path().display()),
                    "nothing was changed; SELECT logos_stop() first, then publish with the new ones",
                )),
            };
        }
        Err(Error::fix(
            format!("{} is being published to {} already", self.path().display(), self.url),
            "nothing was changed; SELECT logos_stop() first if you mean to change the channel",
        ))
    }

    /// Full URL of the channel.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// The same, as it was parsed.
    pub fn channel_url(&self) -> &Url {
        &self.url
    }

    /// The channel.
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether both of its threads have ended.
    pub fn has_ended_wholly(&self) -> bool {
        let state = self.state();
        state.builder_done && state.sender_done
    }

    /// Path of the database.
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    /// Whether its threads have ended, by themselves or because they were told to.
    pub fn has_ended(&self) -> bool {
        let state = self.state();
        state.builder_done || state.sender_done
    }

    /// Returns when the builder has closed the application's file, which `retire` has told it to.
    pub fn let_go_of_file(&self) {
        let done = |p: &Progress| p.builder_done.then_some(Ok(()));
        if self.wait_until(&Patience::of(FAREWELL), done).is_some() {
            return;
        }
        // What is not in a message yet is made one after the next start.
        self.stop.store(true, Ordering::Release);
        let deadline = Instant::now() + FAREWELL_LAST;
        while Instant::now() < deadline {
            // Under the lock: the builder takes the handle away before it closes the file.
            self.state().interrupt.iter().for_each(|handle| handle.interrupt());
            self.signal.wake();
            if self.wait_until(&Patience::of(Duration::from_millis(50)), done).is_some() {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its sidecar, held.
    pub fn sidecar(&self) -> HeldSidecar<'_> {
        let sidecar = fork::outside(|| self.sidecar.lock().unwrap_or_else(PoisonError::into_inner));
        HeldSidecar { sidecar, _inside: fork::enter() }
    }

    /// The last thing that a thread of ours does with it: closing the sidecar may be that.
    fn let_go(self: Arc<Self>) {
        let _inside = fork::enter();
        drop(self);
    }

    /// Changes the progress and tells everybody who waits for it.
    fn update(&self, change: impl FnOnce(&mut Progress)) {
        let mut state = self.state();
        change(&mut state);
        state.news += 1;
        drop(state);
        self.changed.notify_all();
    }

    /// Reads positions and backlog out of the sidecar.
    fn refresh(&self) -> Result<()> {
        let sidecar = self.sidecar();
        let stored = sidecar.reached(State::Pending)?.0;
        let accepted = sidecar.reached(State::Included)?.0;
        let (finalized, final_cursor) = sidecar.reached(State::Final)?;
        let (backlog, (messages, bytes)) = (sidecar.backlog()?, sidecar.totals()?);
        // Still under the sidecar's lock: the other thread's newer reading must not be overwritten by this one.
        self.update(|p| {
            p.stored = Some(stored);
            p.accepted = Some(accepted);
            (p.finalized, p.final_cursor) = (Some(finalized), final_cursor);
            (p.backlog, p.messages, p.bytes) = (backlog, messages, bytes);
        });
        drop(sidecar);
        Ok(())
    }

    /// Messages on their way at a time before commits gather.
    fn in_flight(&self) -> i64 {
        self.url.in_flight(&self.options.node) as i64
    }

    /// Whom the sender writes for.
    pub fn author(&self) -> Result<Author> {
        let sidecar = self.sidecar();
        Ok(Author { key: sidecar.key().clone(), memo: sidecar.memo()? })
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The number of changes so far, to wait for the next one.
    fn news(&self) -> u64 {
        self.state().news
    }

    /// Waits until something has changed since `seen`, at most for `time`.
    fn wait_for_news(&self, seen: u64, time: Duration) {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, time, |p| p.news == seen);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Asks both threads to end. Returns once they have, or after `patience`: what is not sent waits in the sidecar.
    pub fn stop(&self, patience: Duration) {
        self.stop.store(true, Ordering::Release);
        self.signal.wake();
        self.update(|_| ());
        let _ = self.wait_until(&Patience::of(patience), |p| (p.builder_done && p.sender_done).then_some(Ok(())));
    }

    /// The last connection of the application has gone: finish what can be finished, then end.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.signal.wake();
        self.update(|_| ());
    }

    /// Waits until `done` says something about the progress; `None`: the patience is over.
    fn wait_until<T>(
        &self,
        patience: &Patience<'_>,
        mut done: impl FnMut(&Progress) -> Option<Result<T>>,
    ) -> Option<Result<T>> {
        loop {
            if let Err(interrupted) = patience.check() {
                return Some(Err(interrupted));
            }
            let state = self.state();
            if let Some(result) = done(&state) {
                return Some(result);
            }
            if patience.is_over() {
                return None;
            }
            drop(self.changed.wait_timeout(state, patience.step()).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The position that covers everything committed before the call. Local: it does not wait for the channel.
    pub fn position(&self, patience: &Patience<'_>) -> Result<Position> {
        let ticket = self.ask();
        let covered = self.wait_until(patience, |p| {
            if p.covered >= ticket {
                return Some(Ok(p.stored.unwrap_or(Position::START)));
            }
            let tried = p.failed >= ticket || p.builder_done;
            let failed = p.builder.as_ref().filter(|e| e.kind != Kind::Retry && tried);
            failed.cloned().or_else(|| p.builder_done.then(|| stopped(self.path()))).map(Err)
        });
        covered.unwrap_or_else(|| {
            let why =
                self.state().builder.as_ref().map_or_else(|| "it is still reading".to_string(), |e| e.message.clone());
            Err(Error::retry(
                format!(
                    "not everything committed to {} is in a message after {} s: {why}",
                    self.path().display(),
                    patience.seconds()
                ),
                "nothing was lost; it goes on in the background, ask again or see logos_status",
            ))
        })
    }

    /// Waits until everything committed before the call is on the channel.
    pub fn flush(&self, patience: &Patience<'_>) -> Result<Position> {
        let target = self.position(patience)?;
        if let Some(why) = self.state().incomplete.clone() {
            return Err(Error::resync(
                format!("what is published of {} may be incomplete: {why}", self.path().display()),
                "nothing was lost of this database, and what the log shows goes on being published; SELECT logos_resync() sends what is missing",
            ));
        }
        let accepted = self.wait_until(patience, |p| {
            if p.accepted.is_some_and(|a| a.seq >= target.seq) {
                return Some(Ok(target));
            }
            let failed = p.sender.as_ref().filter(|e| e.kind != Kind::Retry);
            failed.cloned().or_else(|| p.sender_done.then(|| stopped(self.path()))).map(Err)
        });
        accepted.unwrap_or_else(|| {
            let state = self.state().clone();
            let why = state.sender.as_ref().map_or_else(String::new, |e| format!(": {}", e.message));
            Err(Error::retry(
                format!(
                    "{} messages are not on the channel {} after {} s{why}",
                    state.backlog.messages,
                    self.url,
                    patience.seconds()
                ),
                "nothing was lost; they wait in the sidecar and are sent as soon as that is possible, see logos_status",
            ))
        })
    }

    /// Messages for `logos_log`.
    pub fn messages(&self) -> Result<Vec<MessageRow>> {
        self.sidecar().messages()
    }

    /// What `logos_status` shows.
    pub fn report(&self) -> Report {
        let p = self.state().clone();
        let error = p.builder.clone().or_else(|| p.sender.clone());
        let state = match &error {
            Some(e) if e.kind != Kind::Retry => "refused",
            _ if p.builder_done || p.sender_done => "stopped",
            Some(e) if e.waits => "waiting",
            Some(_) => "offline",
            None if p.incomplete.is_some() => "incomplete",
            None if p.backlog.messages > 0 => "sending",
            None => "healthy",
        };
        let mut warnings = p.warnings;
        warnings.extend(p.incomplete);
        let untaken = self.signal.untaken.load(Ordering::Relaxed);
        if untaken > 0 {
            warnings.push(format!(
                "on {untaken} connections logos has no commit hook (more than it has places for, or an unknown build of SQLite): \
                 their commits are found by polling"
            ));
        }
        let held_up = p.held_up.filter(|_| !p.builder_done).map(|since| self.workers.env.now().saturating_sub(since));
        if let Some(held_up) = held_up.filter(|&time| time > HELD_UP_NEWS) {
            warnings.push(format!(
                "for {} s, whenever logos looked, somebody had a transaction open or a SELECT unfinished, in this process or another: until \
                 nobody has, new tables are sent whole with each message, and the log is not shortened",
                held_up.as_secs()
            ));
        }
        Report {
            url: self.url(),
            path: self.path().to_path_buf(),
            state,
            position: p.stored.unwrap_or(Position::START),
            accepted: p.accepted.unwrap_or(Position::START),
            backlog: p.backlog,
            messages: p.messages,
            bytes: p.bytes,
            error,
            warnings,
            finalized: p.finalized.unwrap_or(Position::START),
            requests: p.requests,
        }
    }
}

/// The sidecar, held; meanwhile a fork waits.
pub struct HeldSidecar<'p> {
    sidecar: MutexGuard<'p, Sidecar>,
    _inside: fork::Inside,
}

impl Deref for HeldSidecar<'_> {
    type Target = Sidecar;

    fn deref(&self) -> &Sidecar {
        &self.sidecar
    }
}

impl DerefMut for HeldSidecar<'_> {
    fn deref_mut(&mut self) -> &mut Sidecar {
        &mut self.sidecar
    }
}

/// The sidecar is only held while something is read out of it, never while the network is asked.
impl Store for Publisher {
    fn entry(&self, index: u64) -> Result<SignedTx> {
        self.sidecar().entry(index)
    }

    fn index_of(&self, id: &MsgId) -> Result<Option<u64>> {
        self.sidecar().index_of(id)
    }
}

fn history(conn: &Connection) -> Result<Option<i64>> {
    capture::history(conn).doing(|| "reading the log of changes".into())
}

fn stopped(path: &Path) -> Error {
    Error::fix(
        format!("publishing of {} was stopped", path.display()),
        "nothing was lost, and commits are captured all the same; SELECT logos_publish(…) resumes it",
    )
}

fn busy(path: &Path, e: &rusqlite::Error) -> Error {
    Error::retry(
        format!("{} cannot be put under capture now: {e}", path.display()),
        "nothing was changed; end the transaction that holds the database, then try again",
    )
}

/// Checks what the database is and brings its journal mode about.
fn prepare(database: &Database, options: &Options) -> Result<()> {
    idle::check_shareable(database)?;
    let path = database.path();
    let conn = connection::open(database)?;
    if let role @ Role::Replica(_) = role::role(&conn)? {
        return Err(Error::fix(
            format!("{} {}", path.display(), role::describe(&role).unwrap_or_default()),
            "nothing was changed; a replica cannot be published: publish its primary, or SELECT logos_remove() to make \
             this file an ordinary database first",
        ));
    }
    match options.journal {
        Journal::Keep => Ok(()),
        Journal::Wal => connection::switch_to_wal(&conn, path),
    }
}

/// A sidecar is missing or empty. Where the file says that it was published from here, a new identity would leave everybody who
/// follows it behind; a copy elsewhere gets a channel of its own.
fn may_begin(database: &Database) -> Result<()> {
    let noted = Home::noted(&connection::open(database)?).doing(|| "looking for the former channel".into())?;
    let Some(noted) = noted.filter(|noted| noted.is_same_place(&Home::of(noted.channel, database))) else {
        return Ok(());
    };
    let path = database.path().display();
    Err(Error::fix(
        format!("{path} was published on channel {}, and its sidecar {path}-logos, which has the key to it, is missing or empty", noted.channel),
        "nothing was changed; put the sidecar back where it was. If it is lost, nobody can go on with that channel: SELECT logos_remove(), \
         then logos_publish begins a new one, which its replicas must be attached to anew",
    ))
}

/// A database goes on where it was. Another folder, or the same under another name, must have what was sent; where nothing was
/// sent yet, any will do.
fn check_transport(sidecar: &Sidecar, url: &Url) -> Result<()> {
    let now = url.transport.to_string();
    let (Some(before), Some((index, id))) = (sidecar.transport()?, sidecar.last_accepted()?) else { return Ok(()) };
    if url.continues(&before) || url.holds(index, id) {
        return Ok(());
    }
    Err(Error::fix(
        format!(
            "this database is published to {before}, and {now} does not have what was sent there: entry {index} is missing"
        ),
        "nothing was changed; publish to the former channel, or bring its folder to the new place first (move it, or copy it \
         whole). To begin a new channel instead, SELECT logos_remove() first",
    ))
}
