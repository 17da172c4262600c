//! The builder: makes messages out of commits.
//!
//! Invariants
//! - A step is the whole of: enrol what is new → one snapshot → sync → plan → store durably. A kill anywhere repeats it.
//! - The application's write lock is taken only through `write`, which never waits for anybody.
//! - An idle database costs a `PRAGMA data_version` now and then, and no write.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logos_log::ids::Position;
use logos_log::part::PartWriter;
use logos_log::payload::Kind as MessageKind;
use rusqlite::Connection;

use super::{now_ms, Publisher};
use crate::error::{Doing, Error, Kind, Result};
use crate::fork;
use crate::registry;
use crate::sqlite::api::{self, Commits};
use crate::sqlite::capture::{self, Captured};
use crate::sqlite::hooks::Doubt;
use crate::sqlite::omitted::Omitted;
use crate::sqlite::sidecar::{Message, Published};
use crate::sqlite::{connection, schema, snapshot};
use crate::threads;

/// How often to look for commits that no hook told us of: while there are some, and when there were none for a while.
const POLL_BUSY: Duration = Duration::from_millis(20);
const POLL_IDLE: Duration = Duration::from_millis(200);

/// After a hook announced a commit, the snapshot is looked at this often before polling goes on as usual.
const LOOK_AGAIN: u32 = 12;

/// How soon to try again to put under capture what could not be.
const ENROL_AGAIN: Duration = Duration::from_millis(5);

/// Tables put under capture in one write transaction, and about the most time that this may take.
const ENROL_TABLES: usize = 32;
const ENROL_TIME: Duration = Duration::from_millis(50);

/// How long a further one is tried before the rest waits for the next turn. Each makes all connections read the schema again.
const ENROL_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two short writes: mutexes are not handed out in turn, and without one whoever waits for a mutex that we held
/// could wait until the last write is done.
const BREATH: Duration = Duration::from_millis(1);

/// Pause after an error that passes by itself.
const ERROR_PAUSE: Duration = Duration::from_millis(250);

/// A rest after a message, in multiples of the time it took; and at most this long.
const REST_FACTOR: u32 = 8;
const REST_MAX: Duration = Duration::from_millis(150);

/// Log rows worth a write transaction of their own while the application is at work.
const PRUNE_WORTH: i64 = 5_000;

/// How long a connection without a mutex must have committed nothing: nobody can tell whether it is in a call.
const UNSURE_REST: Duration = Duration::from_millis(20);

/// After this long without such a rest it is done all the same: such connections have a busy timeout of their own, or wait for us
/// by our busy handler, and a table that never gets its triggers would be sent whole for ever.
const UNSURE_PATIENCE: Duration = Duration::from_secs(1);

/// How often fewer are pruned all the same.
const PRUNE_EVERY: Duration = Duration::from_secs(1);

/// Log rows above which pruning no longer waits for writers of other processes to rest.
const PRUNE_PRESSING: i64 = 200_000;

/// How long nothing must have been committed for a database to count as resting.
const REST: Duration = Duration::from_millis(500);

/// A look that took longer is followed by a rest as a message is.
const LOOK_WORTH: Duration = Duration::from_millis(5);

/// How often a snapshot is begun anew to know the count of commits in it.
const COUNT_TRIES: usize = 4;

/// Starts the thread, on a connection that has the file open already.
pub(super) fn spawn(publisher: Arc<Publisher>, conn: Connection) -> Result<()> {
    let run = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut builder = fork::inside(|| Builder::new(&publisher, conn))?;
            let outcome = builder.run();
            registry::close(&publisher.path, builder.conn);
            outcome
        }));
        publisher.update(|p| {
            match outcome {
                Err(_) => p.builder = Some(Error::bug("the builder thread panicked")),
                Ok(Err(e)) => p.builder = Some(e),
                Ok(Ok(())) => {}
            }
            p.builder_done = true;
        });
        publisher.let_go();
    };
    threads::spawn("logos-builder", run)
}

struct Builder<'p> {
    publisher: &'p Publisher,
    conn: Connection,
    published: Published,
    /// `PRAGMA data_version` at the last step; `None` before the first.
    data_version: Option<i64>,
    /// `PRAGMA schema_version` when capture was last found to be intact.
    schema_version: Option<i64>,
    /// What the last snapshot found of the schema.
    survey: Option<snapshot::Survey>,
    /// Highest log seq seen in a snapshot.
    seen: i64,
    look_again: u32,
    /// Whether commits wait for the message before theirs.
    gathering: bool,
    commits: u64,
    last_commit: Instant,
    last_foreign: Option<Instant>,
    last_message: Option<Instant>,
    /// How long it took to make.
    message_took: Duration,
    sync: api::Sync,
    /// Everything below is pruned.
    pruned: i64,
    /// The newest milestone that was set here.
    marked: i64,
    last_prune: Instant,
    /// Since when a write was put off because nobody could tell whether the application is at rest.
    refused_since: Cell<Option<Instant>>,
    /// The count of commits in the snapshot that the published stamps are of, and in the present one, where they are known.
    stamped: Option<Commits>,
    count: Option<Commits>,
    /// Tables that are left out for now.
    omitted: Omitted,
    /// Virtual tables that are not replicated, and what may belong to them.
    left_out: Vec<schema::LeftOut>,
    /// Tables of which rows were written past the capture triggers.
    bypassed: BTreeSet<String>,
}

impl<'p> Builder<'p> {
    fn new(publisher: &'p Publisher, conn: Connection) -> Result<Self> {
        publisher.signal.attach();
        // What it writes (triggers, pruning) may be lost with the power: it is done again.
        conn.pragma_update(None, "synchronous", "NORMAL").doing(|| "opening the database".into())?;
        let published = publisher.sidecar().published()?;
        Ok(Self {
            publisher,
            conn,
            survey: None,
            seen: published.cursor,
            marked: published.cursor,
            published,
            data_version: None,
            schema_version: None,
            look_again: 0,
            gathering: false,
            commits: 0,
            last_commit: Instant::now(),
            last_foreign: None,
            last_message: None,
            message_took: Duration::ZERO,
            sync: api::Sync::default(),
            pruned: 0,
            last_prune: Instant::now(),
            refused_since: Cell::new(None),
            omitted: Omitted::default(),
            left_out: Vec::new(),
            stamped: None,
            count: None,
            bypassed: BTreeSet::new(),
        })
    }

    fn run(&mut self) -> Result<()> {
        loop {
            if self.publisher.stopping() {
                return Ok(());
            }
            let retired = self.publisher.retired.load(Ordering::Acquire);
            let ticket = self.publisher.tickets.load(Ordering::Acquire);
            match fork::inside(|| self.turn(retired)) {
                Ok(true) => continue,
                Ok(false) if retired => return Ok(()),
                Ok(false) => {
                    let (pause, commits) = self.pause();
                    self.publisher.signal.wait(pause, commits);
                }
                Err(e) if matches!(e.kind, Kind::Resync | Kind::Bug) || retired => return Err(e),
                Err(e) => {
                    self.data_version = None;
                    self.publisher.update(|p| {
                        p.builder = Some(e);
                        p.failed = ticket;
                    });
                    std::thread::sleep(ERROR_PAUSE);
                }
            }
        }
    }

    /// How long to wait, and whether a commit ends it.
    fn pause(&mut self) -> (Duration, bool) {
        if self.gathering {
            // The sender wakes us, or somebody who wants everything covered.
            let rest = self.rest_left();
            return (if rest.is_zero() { POLL_IDLE } else { rest }, false);
        }
        if self.publisher.signal.seq.load(Ordering::Acquire) > self.seen && self.look_again < LOOK_AGAIN {
            // A commit was announced that no snapshot shows yet.
            self.look_again += 1;
            return (Duration::from_micros(50 << self.look_again), true);
        }
        if self.schema_version.is_none() {
            // Looking costs as much as there are tables, so somebody who stays in a transaction is looked at less often.
            let held_up = self.publisher.state().held_up.map_or(Duration::ZERO, |since| since.elapsed());
            return ((held_up / 16).clamp(ENROL_AGAIN, POLL_IDLE), true);
        }
        let active = self.last_commit.elapsed() < Duration::from_secs(5);
        (if active { POLL_BUSY } else { POLL_IDLE }, true)
    }

    /// What is left of the rest after a message: as the options say (or as long as the channel takes for one), and several
    /// times what the message took, so that under load the application has the machine and commits gather. The first commit
    /// after a rest waits for nothing.
    fn rest_left(&self) -> Duration {
        let given = self.publisher.options.batch_ms.map(Duration::from_millis);
        let batch = given.or_else(|| self.publisher.state().pace).unwrap_or_default();
        let rest = batch.max((self.message_took * REST_FACTOR).min(REST_MAX));
        self.last_message.map_or(Duration::ZERO, |last| rest.saturating_sub(last.elapsed()))
    }

    /// One look, and a step if there is something to do. Returns whether something was done.
    fn turn(&mut self, retired: bool) -> Result<bool> {
        let publisher = self.publisher;
        let ticket = publisher.tickets.load(Ordering::Acquire);
        let asked = publisher.state().covered < ticket;
        let version: i64 = self
            .conn
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .doing(|| format!("looking at {}", publisher.path.display()))?;
        let changed = self.data_version != Some(version) || self.gathering;
        if self.data_version != Some(version) {
            self.note_commit();
        }
        let doubts = publisher.signal.take_doubts();
        let doubted = !doubts.is_empty();
        if doubted {
            self.settle_doubts(doubts)?;
        }
        let unenrolled = self.schema_version.is_none();
        let again = self.omitted.is_due();
        if again {
            self.omitted.try_again();
            (self.survey, self.schema_version) = (None, None);
        }
        let due = again || changed || asked || doubted || (unenrolled && self.enrol()?);
        if !due {
            return self.prune();
        }
        self.data_version = Some(version);
        // Group commit: with as many messages on their way as the channel takes, the commits gather.
        let enough = publisher.state().backlog.messages >= publisher.in_flight();
        let on_its_way = enough || !self.rest_left().is_zero();
        if on_its_way && !asked && !retired {
            self.gathering = true;
            return self.prune();
        }
        self.gathering = false;
        // What cannot be enrolled now (a transaction is open) is sent whole meanwhile.
        self.enrol()?;
        self.step()?;
        publisher.update(|p| {
            p.covered = p.covered.max(ticket);
            p.builder = None;
        });
        Ok(true)
    }

    /// Keeps account of who commits: connections of this process, or others.
    fn note_commit(&mut self) {
        let commits = self.publisher.signal.commits.load(Ordering::Relaxed);
        if self.data_version.is_some() && commits == self.commits {
            self.last_foreign = Some(Instant::now());
        }
        self.commits = commits;
        self.last_commit = Instant::now();
        self.look_again = 0;
    }

    /// Runs `change` in a short write transaction, if that can be had at once without anybody noticing. How far it moves the schema
    /// cookie is not the application's doing.
    fn write(&mut self, change: impl FnOnce(&Connection) -> Result<()>) -> Result<bool> {
        let path = &self.publisher.path;
        let doing = || format!("writing to {}", path.display());
        let quiet = registry::quiet(path);
        self.note_held_up(quiet.is_none());
        let Some(quiet) = quiet else { return Ok(false) };
        if quiet.unsure() && self.last_commit.elapsed() < UNSURE_REST {
            let refused_for = self.refused_since.get().map_or(Duration::ZERO, |since| since.elapsed());
            if refused_for < UNSURE_PATIENCE {
                self.refused_since.set(self.refused_since.get().or_else(|| Some(Instant::now())));
                return Ok(false);
            }
        }
        self.refused_since.set(None);
        let writing = &self.publisher.signal.writing;
        writing.store(true, Ordering::Release);
        let written = self.write_now(&quiet, change, &doing);
        writing.store(false, Ordering::Release);
        drop(quiet);
        let moved = written?;
        self.published.cookie = self.published.cookie.map(|cookie| cookie + moved.unwrap_or(0));
        Ok(moved.is_some())
    }

    /// Tells the status since when connections of this process have kept us from writing.
    fn note_held_up(&self, held_up: bool) {
        if self.publisher.state().held_up.is_some() != held_up {
            self.publisher.update(|p| p.held_up = held_up.then(Instant::now));
        }
    }

    /// Returns how far the schema cookie moved; `None`: it could not be had.
    fn write_now(
        &self,
        quiet: &registry::Quiet,
        change: impl FnOnce(&Connection) -> Result<()>,
        doing: &impl Fn() -> String,
    ) -> Result<Option<i64>> {
        // Without WAL, a commit that waited for a reader of another process would keep everybody from reading meanwhile.
        self.conn.busy_timeout(Duration::ZERO).doing(doing)?;
        let done = self.write_unless_busy(quiet, change, doing);
        if !self.conn.is_autocommit() {
            self.conn.execute_batch("ROLLBACK").doing(doing)?;
        }
        self.conn.busy_timeout(Duration::from_secs(5)).doing(doing)?;
        done
    }

    fn write_unless_busy(
        &self,
        quiet: &registry::Quiet,
        change: impl FnOnce(&Connection) -> Result<()>,
        doing: &impl Fn() -> String,
    ) -> Result<Option<i64>> {
        let can = |sql| match self.conn.execute_batch(sql).doing(doing) {
            Err(e) if e.kind == Kind::Retry => Ok(false),
            other => other.map(|()| true),
        };
        if !can("BEGIN IMMEDIATE")? {
            return Ok(None);
        }
        let before = self.cookie()?;
        // A transaction begun meanwhile has read before us, and could not write after us.
        if !quiet.still() {
            return Ok(None);
        }
        let (count, changes) = (api::commits(&self.conn), self.conn.total_changes());
        change(&self.conn)?;
        let moved = self.cookie()? - before;
        let any = moved != 0 || self.conn.total_changes() != changes;
        let done = can("COMMIT")?;
        if let Some(count) = count.filter(|_| any && done) {
            // Tables of ours and triggers: no virtual table was written to.
            self.publisher.signal.ledger().note(count.count.wrapping_add(1), []);
        }
        Ok(done.then_some(moved))
    }

    /// Puts under capture what is not. Returns whether everything is.
    fn enrol(&mut self) -> Result<bool> {
        let null_key = || match &self.survey {
            Some(survey) => survey.finds_null_key(&self.conn, self.published.cursor),
            None => Ok(false),
        };
        if self.schema_version == Some(self.cookie()?) && !null_key()? {
            return Ok(true);
        }
        // Until all is done, it is tried again soon, also if nothing is committed meanwhile.
        self.schema_version = None;
        if !capture::is_set_up(&self.conn).unwrap_or(false) && !self.write(capture::set_up)? {
            return Ok(false);
        }
        // What the survey looks at is as old as this, or newer: then the cookie shows it at the next look.
        let at = self.cookie()?;
        let mut captured = capture::survey(&self.conn, &mut schema::read(&self.conn)?, &mut self.omitted)?;
        let done = self.enrol_tables(&mut captured, at)?;
        self.left_out = schema::left_out(&self.conn)?;
        self.warn();
        let known = captured.into_iter().filter(|c| c.core && !c.table.is_virtual).map(|c| c.table.name);
        self.publisher.signal.set_captured(known.collect());
        self.schema_version = done;
        Ok(done.is_some())
    }

    /// Puts those of the tables under capture that are not, a few in each write transaction: a migration may bring hundreds.
    /// `at` is the schema cookie that the survey was made at. Returns the one at which all are captured; `None`: not all are.
    fn enrol_tables(&mut self, captured: &mut [Captured], mut at: i64) -> Result<Option<i64>> {
        let mut open: Vec<&mut Captured> = captured.iter_mut().filter(|c| !c.is_enrolled()).collect();
        let mut open = open.as_mut_slice();
        let mut last: Option<Instant> = None;
        while !open.is_empty() {
            if self.publisher.stopping() {
                return Ok(None);
            }
            let (mut done, mut now) = (0, at);
            let mut refused = Vec::new();
            let written = self.write(|conn| {
                let start = Instant::now();
                // Changed since the survey: then there is nothing to rely on.
                let same = cookie(conn)? == at;
                while same && done < open.len().min(ENROL_TABLES) && start.elapsed() < ENROL_TIME {
                    let reason = capture::enrol(conn, open[done])?;
                    refused.extend(reason.map(|reason| (open[done].table.name.clone(), reason)));
                    done += 1;
                }
                now = cookie(conn)?;
                crate::fault::point("enrol.before_commit");
                Ok(())
            })?;
            if written && done > 0 {
                (at, last) = (now, Some(Instant::now()));
                for (table, reason) in refused {
                    self.omitted.meet(&table, reason, at);
                    self.survey = None;
                }
                let (enrolled, rest) = open.split_at_mut(done);
                enrolled.iter_mut().for_each(|c| c.core = true);
                open = rest;
            } else if written || last.is_none_or(|last| last.elapsed() > ENROL_PATIENCE) {
                // Once begun it is worth waiting a little: what is not captured yet goes into the next message whole.
                return Ok(None);
            }
            breathe();
        }
        Ok(Some(at))
    }

    /// Logs rows that the update hook saw and the log did not. Doubts that cannot be settled now come back.
    fn settle_doubts(&mut self, doubts: HashMap<String, Doubt>) -> Result<()> {
        let settled = self.log_doubted(&doubts);
        if !matches!(settled, Ok(true)) {
            self.publisher.signal.add_doubts(doubts);
            fork::outside(|| std::thread::sleep(POLL_BUSY));
            return settled.map(drop);
        }
        self.schema_version = None;
        self.bypassed.extend(doubts.into_keys());
        self.warn();
        Ok(())
    }

    /// Returns whether that could be done now. As with enrolment, the survey is made before the write.
    fn log_doubted(&mut self, doubts: &HashMap<String, Doubt>) -> Result<bool> {
        let at = self.cookie()?;
        let mut captured = capture::survey(&self.conn, &mut schema::read(&self.conn)?, &mut self.omitted)?;
        captured.retain(|c| doubts.contains_key(&c.table.name));
        let mut same = false;
        let written = self.write(|conn| {
            same = cookie(conn)? == at;
            for captured in captured.iter().filter(|_| same) {
                let doing = || format!("logging rows of table {} by hand", captured.table.name);
                match &doubts[&captured.table.name] {
                    Doubt::Rows(rowids) => capture::touch_rowids(conn, captured, rowids).doing(doing)?,
                    // What such a row may have replaced has its own key, so that nothing else was deleted.
                    Doubt::Bare(rowids) if captured.table.key_is_rowid && captured.table.unique.is_empty() => {
                        capture::touch_rowids(conn, captured, rowids).doing(doing)?;
                    }
                    Doubt::Bare(_) | Doubt::Whole => capture::begin_anew(conn, captured).doing(doing)?,
                }
            }
            Ok(())
        })?;
        Ok(written && same)
    }

    fn cookie(&self) -> Result<i64> {
        cookie(&self.conn)
    }

    /// Tells the status what is not replicated, or only by hand.
    fn warn(&self) {
        let mut warnings: Vec<String> =
            self.left_out.iter().map(|l| format!("table {} is not replicated: {}", l.name, l.why)).collect();
        warnings.extend(self.omitted.warnings());
        if !self.bypassed.is_empty() {
            warnings.push(format!(
                "rows of {} were written past the capture triggers and were logged by hand: a trigger of the application \
                 says RAISE, or triggers are switched off on its connection",
                self.bypassed.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
            ));
        }
        self.publisher.update(|p| p.warnings = warnings);
    }

    /// One snapshot, and the message that it gives.
    fn step(&mut self) -> Result<()> {
        let start = Instant::now();
        self.begin_snapshot()?;
        let built = self.build_without_omitted();
        if built.is_ok() {
            self.stamped = self.count;
        }
        if !self.conn.is_autocommit() {
            self.conn.execute_batch("ROLLBACK").doing(|| format!("reading {}", self.publisher.path.display()))?;
        }
        let (stored, took) = (built?, start.elapsed());
        // Looking at large virtual tables takes its time also where it finds nothing.
        if stored || took > LOOK_WORTH {
            (self.last_message, self.message_took) = (Some(Instant::now()), took);
        }
        if stored {
            self.publisher.refresh()?;
        }
        Ok(())
    }

    /// Begins the read transaction; if nobody commits just then, the count of commits in it is known.
    fn begin_snapshot(&mut self) -> Result<()> {
        let doing = || format!("reading {}", self.publisher.path.display());
        for _ in 0..COUNT_TRIES {
            let before = api::commits(&self.conn);
            self.conn.execute_batch("BEGIN").doing(doing)?;
            self.cookie()?;
            self.count = api::commits(&self.conn).filter(|count| Some(*count) == before);
            if self.count.is_some() {
                return Ok(());
            }
            self.conn.execute_batch("ROLLBACK").doing(doing)?;
        }
        self.conn.execute_batch("BEGIN").doing(doing)
    }

    /// Tells which virtual tables are as the published stamps say without looking, given the tables that hold their rows: those that no
    /// commit since wrote to. If there is one that we do not know of, that is none.
    fn untouched(&mut self) -> impl Fn(&[String]) -> bool {
        let written = match (self.stamped.take(), self.count) {
            (Some(from), Some(to)) if from.wal == to.wal => {
                self.publisher.signal.ledger().written(from.count, to.count)
            }
            _ => None,
        };
        move |shadows| {
            let untouched =
                |written: &BTreeSet<String>| !shadows.iter().any(|s| written.contains(&s.to_ascii_lowercase()));
            written.as_ref().is_some_and(untouched)
        }
    }

    /// Within the read transaction. Returns whether a message was stored.
    fn build_without_omitted(&mut self) -> Result<bool> {
        let (start, before) = (Instant::now(), self.omitted.warnings());
        let stored = loop {
            if let Some(stored) = self.build()? {
                break stored;
            }
            // A table that cannot be read is left out from now on.
            self.survey = None;
        };
        if self.omitted.warnings() != before {
            self.omitted.took(start.elapsed());
            self.warn();
        }
        Ok(stored)
    }

    /// The same; `None`: not without another table.
    fn build(&mut self) -> Result<Option<bool>> {
        let publisher = self.publisher;
        let untouched = self.untouched();
        let mut plan = snapshot::plan(&self.conn, &self.published, &mut self.survey, &mut self.omitted, &untouched)?;
        self.seen = plan.next.cursor;
        if plan.is_empty() && !plan.moved(&self.published) {
            return Ok(Some(false));
        }
        let mut sidecar = publisher.sidecar();
        let mut storing = sidecar.begin()?;
        if plan.is_empty() {
            self.end_snapshot()?;
            storing.remember(&plan.next)?;
            self.published = plan.next;
            return Ok(Some(false));
        }
        let seq = self.published.position.seq + 1;
        let (created, previous) = (now_ms(), self.published.position.digest);
        let parts = PartWriter::new(seq, |_, data| {
            fork::pass();
            storing.part(seq, data)
        });
        let (parts, counts) = match snapshot::write(&self.conn, &plan, seq, previous, created, parts)? {
            snapshot::Written::All(parts, counts) => (parts, counts),
            snapshot::Written::Unreadable(table, reason) => {
                self.omitted.meet(&table, reason, cookie(&self.conn)?);
                return Ok(None);
            }
        };
        let (digest, bytes, parts) = parts.finish().doing(|| format!("storing message {seq}"))?;
        plan.next.position = Position { seq, digest };
        self.end_snapshot()?;
        crate::fault::point("build.before_store");
        storing.commit(&Message {
            position: plan.next.position,
            kind: MessageKind::Changes.word(),
            tables: counts.tables,
            changes: counts.keys,
            bytes,
            parts,
            created,
            published: &plan.next,
        })?;
        crate::fault::point("build.stored");
        self.published = plan.next;
        Ok(Some(true))
    }

    /// Ends the read transaction, which kept SQLite from starting its log over, and makes durable what it showed: that was
    /// written to the files, though maybe not synced by its writer.
    fn end_snapshot(&mut self) -> Result<()> {
        let path = &self.publisher.path;
        self.conn.execute_batch("ROLLBACK").doing(|| format!("reading {}", path.display()))?;
        self.sync.sync(&self.conn).map_err(|e| {
            Error::retry(format!("syncing {} failed: {e}", path.display()), "nothing was published; it is tried again")
        })?;
        crate::fault::point("build.synced");
        Ok(())
    }

    /// Forgets log rows that the channel has, and sets a milestone after what was stored since the last. Returns whether to go on
    /// at once.
    fn prune(&mut self) -> Result<bool> {
        let accepted = self.publisher.state().accepted_cursor;
        let rows = accepted - self.pruned;
        let unmarked = self.published.cursor - self.marked;
        let resting = self.last_commit.elapsed() > REST;
        let others_rest = self.last_foreign.is_none_or(|at| at.elapsed() > REST);
        let worth = resting || rows.max(unmarked) > PRUNE_WORTH || self.last_prune.elapsed() > PRUNE_EVERY;
        let pressing = rows.max(unmarked) > PRUNE_PRESSING;
        if (rows <= 0 && unmarked <= 0) || !worth || !(others_rest || pressing) {
            // Nobody is in the way of anything.
            self.note_held_up(self.schema_version.is_none() && self.publisher.state().held_up.is_some());
            return Ok(false);
        }
        let (mut more, mut marked) = (false, self.marked);
        let written = self.write(|conn| {
            let doing = || "forgetting published log rows".into();
            more = capture::prune(conn, accepted).doing(doing)?;
            if !more && unmarked > 0 {
                marked = capture::milestone(conn).doing(doing)?;
            }
            crate::fault::point("prune.before_commit");
            Ok(())
        })?;
        if written && !more {
            (self.pruned, self.marked) = (accepted, marked);
            self.last_prune = Instant::now();
            crate::fault::point("prune.done");
        }
        if written && more {
            breathe();
        }
        Ok(written && more)
    }
}

fn cookie(conn: &Connection) -> Result<i64> {
    schema::cookie(conn).doing(|| "reading the schema".into())
}

fn breathe() {
    fork::outside(|| std::thread::sleep(BREATH));
}

/// Takes everything of ours out of a database file. Waits for writers for as long as SQLite does.
pub fn remove_from(path: &Path) -> Result<()> {
    let conn = connection::open(path)?;
    let doing = || format!("removing capture from {}", path.display());
    conn.execute_batch("BEGIN IMMEDIATE").doing(doing)?;
    capture::remove(&conn).doing(doing)?;
    conn.execute_batch("COMMIT").doing(doing)
}
