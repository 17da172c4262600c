//! The builder: makes messages out of commits.
//!
//! Invariants
//! - A step is the whole of: enrol what is new → one snapshot → sync → plan → store durably. If the process dies in between,
//!   the next start finds either the whole message or the log as it was, and takes the step again.
//! - The application's file is written only while nobody has a transaction open (`idle`), for some milliseconds.
//! - An idle database costs a look at its files' times now and then: the connection is closed while nobody commits, so that
//!   the application may do with its file what needs it alone (another journal mode, an exclusive lock, a copy).
//! - No message calls complete what may have been written past the log (`suspect`).

use std::collections::BTreeSet;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use logos_log::ids::{Digest, Position};
use logos_log::part::PartWriter;
use logos_log::payload::Kind as MessageKind;
use rusqlite::Connection;

use super::pace::{Action, Event, Idle, Look, Pace};
use super::{Journal, Publisher};
use crate::capture::doubts::Doubts;
use crate::capture::home::Home;
use crate::capture::omitted::Omitted;
use crate::capture::{self, connected, Captured};
use crate::catalog::schema;
use crate::changeset::plan::{self, Plan};
use crate::changeset::rows::{self, Written};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::api::{self, Commits};
use crate::host::database::{Database, Footprint};
use crate::host::idle::Background;
use crate::host::{connection, connections, fork, threads};
use crate::outbox::{Message, Published, Sidecar};

/// Tables put under capture in one write transaction, and about the most time that this may take: so long those wait who
/// begin a transaction meanwhile. Each such transaction makes all connections read the schema again.
const ENROL_TABLES: usize = 32;
const ENROL_TIME: Duration = Duration::from_millis(20);

/// How long a further one is tried before the rest waits for the next turn.
const ENROL_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two short writes: those who waited for the last one go first.
const BREATH: Duration = Duration::from_millis(1);

/// Pause after an error that passes by itself.
const ERROR_PAUSE: Duration = Duration::from_millis(250);

/// Log rows that are final before it is worth a write to forget them, and about the most time that this may take.
const FORGET_WORTH: i64 = 5_000;
const FORGET_TIME: Duration = Duration::from_millis(3);

/// Largest database whose tables are all sent whole because something may have been written past the log, and for how long a byte
/// sent for that reason keeps the next such message away. (Some applications write with triggers switched off each time.)
const SUSPECT_BYTES: i64 = 16 * 1024 * 1024;
const SUSPECT_REST_PER_BYTE: Duration = Duration::from_micros(15);

/// Starts the thread, on a connection that has the file open already.
pub(super) fn spawn(publisher: Arc<Publisher>, conn: Background) -> Result<()> {
    let run = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut builder = fork::inside(|| Builder::new(&publisher, conn))?;
            let outcome = loop {
                match builder.step() {
                    Ok(Next::Again) => {}
                    Ok(Next::Wait { time, commits }) => publisher.signal.wait(time, commits),
                    Ok(Next::Pause(time)) => std::thread::sleep(time),
                    Ok(Next::End) => break Ok(()),
                    Err(e) => break Err(e),
                }
            };
            fork::inside(|| builder.leave());
            outcome
        }));
        publisher.update(|p| {
            match outcome {
                Err(_) => p.builder = Some(Error::bug("the builder thread panicked")),
                Ok(Err(e)) => p.builder = Some(e),
                Ok(Ok(())) => {}
            }
            p.interrupt = None;
            p.builder_done = true;
        });
        publisher.let_go();
    };
    threads::spawn("logos-builder", run)
}

/// What the builder waits for after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Again,
    /// So long, or until somebody asks; until a commit too, if `commits`.
    Wait {
        /// The longest time.
        time: Duration,
        /// Whether a commit ends it.
        commits: bool,
    },
    /// So long, whatever happens.
    Pause(Duration),
    /// It has ended.
    End,
}

/// The builder of one publisher. Whoever lets it step calls `leave` when it has ended.
pub struct Builder {
    publisher: Arc<Publisher>,
    /// `None` while nobody commits.
    conn: Option<Background>,
    /// What the files looked like when the connection was closed.
    parked: Option<Footprint>,
    published: Published,
    /// `PRAGMA data_version` at the last step; `None` before the first.
    data_version: Option<i64>,
    /// `PRAGMA schema_version` when capture was last found to be intact.
    schema_version: Option<i64>,
    /// What the last snapshot found of the schema.
    survey: Option<plan::Survey>,
    /// Highest log seq seen in a snapshot.
    seen: i64,
    pace: Pace,
    sync: api::Sync,
    /// The log begins no earlier than here.
    oldest: i64,
    /// Whether some of what is final was forgotten, and the rest is to follow.
    forgetting: bool,
    /// What was written past the capture triggers, as far as hooks saw it.
    doubts: Doubts,
    /// The count of commits in the last snapshot, where it is known, and what explains commits that log nothing.
    count: Option<Commits>,
    /// Whether the connection was opened anew since.
    reopened: bool,
    statistics: Option<Digest>,
    /// Commits that hooks had announced when a snapshot was last taken.
    hooked: u64,
    /// Whether something may have been written past the log that no hook saw; and until when it stays so.
    suspect: bool,
    suspect_until: Option<Duration>,
    /// Tables that are left out for now.
    omitted: Omitted,
    /// Virtual tables that are not replicated, and what may belong to them.
    left_out: Vec<schema::LeftOut>,
    /// Tables of which rows were written past the capture triggers.
    bypassed: BTreeSet<String>,
    /// The journal mode, if it is not the one that was asked for.
    other_journal: Option<String>,
    /// Whether our tables were dropped or emptied by somebody, and everything was sent anew.
    made_anew: bool,
}

impl Builder {
    /// One that goes on where the sidecar says.
    pub fn new(publisher: &Arc<Publisher>, conn: Background) -> Result<Self> {
        publisher.signal.attach();
        let (published, suspect) = {
            let sidecar = publisher.sidecar();
            (sidecar.published()?, sidecar.is_incomplete()?)
        };
        let mut builder = Self {
            publisher: publisher.clone(),
            conn: None,
            parked: None,
            survey: None,
            seen: published.cursor,
            published,
            data_version: None,
            schema_version: None,
            pace: Pace::default(),
            sync: api::Sync::default(),
            oldest: 0,
            forgetting: false,
            doubts: Doubts::default(),
            count: None,
            reopened: false,
            statistics: None,
            hooked: 0,
            suspect,
            suspect_until: None,
            omitted: Omitted::default(),
            left_out: Vec::new(),
            bypassed: BTreeSet::new(),
            other_journal: None,
            made_anew: false,
        };
        builder.take(conn)?;
        Ok(builder)
    }

    /// Takes one step: a look, and a message if there is something to say.
    pub fn step(&mut self) -> Result<Next> {
        let publisher = self.publisher.clone();
        if publisher.stopping() {
            return Ok(Next::End);
        }
        let retired = publisher.retired.load(Ordering::Acquire);
        let ticket = publisher.tickets.load(Ordering::Acquire);
        let opened_before = self.conn.is_some();
        match fork::inside(|| self.turn(retired)) {
            Ok(true) => Ok(Next::Again),
            Ok(false) if retired => Ok(Next::End),
            Ok(false) => Ok(fork::inside(|| self.rest())),
            Err(e) if matches!(e.kind, Kind::Resync | Kind::Bug) || retired => Err(e),
            // What a connection has read of its file once (the text encoding) may not hold any more: a new one has a try.
            Err(e) if opened_before && e.kind == Kind::Fix => {
                fork::inside(|| (self.conn, self.parked) = (None, None));
                Ok(Next::Again)
            }
            Err(e) => {
                self.data_version = None;
                publisher.update(|p| {
                    p.builder = Some(e);
                    p.failed = ticket;
                });
                Ok(Next::Pause(ERROR_PAUSE))
            }
        }
    }

    fn now(&self) -> Duration {
        self.publisher.workers.env.now()
    }

    /// The open connection.
    fn conn(&mut self) -> Result<&Background> {
        if self.conn.is_none() {
            let conn = Background::open(&self.publisher.database)?;
            self.take(conn)?;
        }
        self.open()
    }

    /// The connection, which is open.
    fn open(&self) -> Result<&Background> {
        self.conn.as_ref().ok_or_else(no_connection)
    }

    fn take(&mut self, conn: Background) -> Result<()> {
        let handle = conn.get_interrupt_handle();
        self.publisher.update(|p| p.interrupt = Some(Arc::new(handle)));
        let mode = connection::journal_mode(&conn).doing(|| "looking at the journal mode".into())?;
        let asked_for = self.publisher.options.journal == Journal::Keep || mode == "wal";
        self.other_journal = (!asked_for).then_some(mode);
        (self.conn, self.parked, self.data_version, self.reopened) = (Some(conn), None, None, true);
        self.warn();
        Ok(())
    }

    /// Closes the connection if nobody has committed for a while.
    fn park(&mut self) {
        let footprint = self.publisher.database.footprint();
        let Some(conn) = &self.conn else { return };
        // Whatever is committed later changes the files. But what a commit writes is there, and maybe being synced, before anybody
        // can see the commit: its transaction is open as long.
        if !footprint.is_settled() || !conn.is_nobody_in_transaction() {
            return;
        }
        if conn.pragma_query_value(None, "data_version", |row| row.get(0)).ok() != self.data_version {
            return;
        }
        (self.conn, self.parked) = (None, Some(footprint));
        self.publisher.update(|p| (p.interrupt, p.rested) = (None, true));
    }

    /// Whether the connection is closed and there is no reason to open it.
    fn stays_parked(&mut self, asked: bool, retired: bool) -> bool {
        let now = self.now();
        let told = asked
            || retired
            || self.may_forget()
            || self.omitted.is_due(now)
            || self.publisher.signal.commits.load(Ordering::Acquire) != self.hooked;
        !told && self.parked.as_ref().is_some_and(|parked| *parked == self.publisher.database.footprint())
    }

    /// Lets go of the file. If the application has closed its last connection, and left its write-ahead log to us, we do what its
    /// close would have done.
    pub fn leave(&mut self) {
        // From here on nobody interrupts: closing would leave the write-ahead log where it is.
        self.publisher.update(|p| p.interrupt = None);
        let database = &self.publisher.database;
        let left_over = || database.is_in_place().then(|| database.footprint()).is_some_and(|f| f.has_log());
        if self.conn.is_none() && left_over() {
            self.conn = Background::open(database).ok();
        }
        self.conn.take().into_iter().for_each(|conn| connections::close(database, conn));
    }

    /// There is nothing to do: how long to wait, and whether to let go of the file meanwhile.
    fn rest(&mut self) -> Next {
        let uncaptured = (self.schema_version.is_none() && self.parked.is_none()).then(|| {
            let held_up = self.publisher.state().held_up;
            held_up.map_or(Duration::ZERO, |since| self.now().saturating_sub(since))
        });
        let idle = Idle {
            batch: self.batch(),
            announced: self.publisher.signal.seq.load(Ordering::Acquire) > self.seen,
            uncaptured,
            busy: self.may_forget() || !self.publisher.workers.env.tells_times_of_files(),
        };
        match self.pace.step(Event::Idle(idle), self.now()) {
            Action::Wait { time, commits } => Next::Wait { time, commits },
            Action::Park { time, else_wait } => {
                self.park();
                // Only what was just written keeps it open for so short: somebody who reads may go on for hours.
                let stays = self.conn.is_some() && !self.publisher.database.footprint().is_settled();
                Next::Wait { time: if stays { else_wait } else { time }, commits: true }
            }
            Action::Build | Action::Nothing => Next::Again,
        }
    }

    /// Least time from one message to the next: as the options say, or as long as the channel takes for one.
    fn batch(&self) -> Duration {
        let given = self.publisher.options.batch_ms.map(Duration::from_millis);
        given.or_else(|| self.publisher.state().pace).unwrap_or_default()
    }

    /// One look, and a step if there is something to do. Returns whether something was done.
    fn turn(&mut self, retired: bool) -> Result<bool> {
        let publisher = self.publisher.clone();
        let ticket = publisher.tickets.load(Ordering::Acquire);
        let asked = publisher.state().covered < ticket;
        if let Err(e) = publisher.database.check_in_place() {
            // What we have open is another file than whoever opens this path now.
            (self.conn, self.parked) = (None, None);
            return Err(e);
        }
        if self.stays_parked(asked, retired) {
            return Ok(false);
        }
        let doing = || format!("looking at {}", publisher.path().display());
        let version: i64 = self.conn()?.pragma_query_value(None, "data_version", |row| row.get(0)).doing(doing)?;
        let changed = self.data_version != Some(version);
        if changed {
            self.pace.step(Event::Committed { known: self.survey.is_some() }, self.now());
        }
        let now = self.now();
        let again = self.omitted.is_due(now);
        if again {
            self.omitted.try_again();
            (self.survey, self.schema_version) = (None, None);
        }
        let known_due = again || changed || self.pace.is_gathering() || asked || publisher.signal.has_doubts();
        let crowded = publisher.state().backlog.messages >= publisher.in_flight();
        let look = Look {
            due: known_due || self.is_suspect_due() || (self.schema_version.is_none() && self.enrol()?),
            asked,
            retired,
            crowded,
            batch: self.batch(),
        };
        if look.due {
            self.data_version = Some(version);
        }
        if self.pace.step(Event::Looked(look), self.now()) != Action::Build {
            return self.forget();
        }
        // What cannot be enrolled now (somebody has a transaction open) is sent whole meanwhile.
        self.enrol()?;
        self.build_message(asked)?;
        publisher.update(|p| {
            p.covered = p.covered.max(ticket);
            p.builder = None;
        });
        Ok(true)
    }

    /// Whether it is time to send everything, since something may have been written past the log.
    fn is_suspect_due(&self) -> bool {
        self.suspect && self.suspect_until.is_some_and(|until| until <= self.now())
    }

    /// Runs `change` in a short write transaction, if nobody has a transaction open. How far it moves the schema cookie is not the
    /// application's doing.
    fn write(&mut self, change: impl FnOnce(&Connection) -> Result<()>) -> Result<bool> {
        let publisher = self.publisher.clone();
        let doing = || format!("writing to {}", publisher.path().display());
        let (mut moved, mut commit) = (0, None);
        let written = self.conn()?.when_idle(&doing, |conn| {
            let (before, changes) = (cookie(conn)?, conn.total_changes());
            let commits = api::commits(conn);
            change(conn)?;
            moved = cookie(conn)? - before;
            commit = commits.filter(|_| moved != 0 || conn.total_changes() != changes);
            Ok(())
        })?;
        self.note_held_up(!written);
        if written {
            // Tables of ours and triggers: nothing else was written to.
            commit.iter().for_each(|c| publisher.signal.ledger().note(c.count.wrapping_add(1), []));
            self.published.cookie = self.published.cookie.map(|cookie| cookie + moved);
        }
        Ok(written)
    }

    /// Tells the status since when transactions of the application have kept us from writing.
    fn note_held_up(&self, held_up: bool) {
        if self.publisher.state().held_up.is_some() != held_up {
            self.publisher.update(|p| p.held_up = held_up.then(|| self.now()));
        }
    }

    /// Puts under capture what is not. Returns whether everything is.
    fn enrol(&mut self) -> Result<bool> {
        let known = self.schema_version;
        let conn = self.conn()?;
        let same = known == Some(cookie(conn)?) && capture::is_set_up(conn).unwrap_or(false);
        let null_key = || match &self.survey {
            Some(survey) => survey.finds_null_key(self.open()?, self.published.cursor),
            None => Ok(false),
        };
        if same && !null_key()? {
            return Ok(true);
        }
        // Until all is done, it is tried again soon, also if nothing is committed meanwhile.
        self.schema_version = None;
        let home = Home::of(self.publisher.channel, &self.publisher.database);
        let conn = self.conn()?;
        let set_up = capture::is_set_up(conn).unwrap_or(false);
        let at_home = set_up && Home::noted(conn).is_ok_and(|noted| noted.as_ref() == Some(&home));
        let make = |conn: &Connection| {
            if !set_up {
                capture::set_up(conn)?;
            }
            home.note(conn).doing(|| "noting the channel".into())
        };
        let ready = at_home || self.write(make)?;
        self.left_out = schema::left_out(self.conn()?)?;
        if !ready {
            self.warn();
            return Ok(false);
        }
        // What the survey looks at is as old as this, or newer: then the cookie shows it at the next look.
        self.conn()?;
        let conn = self.conn.as_ref().ok_or_else(no_connection)?;
        let at = cookie(conn)?;
        let mut captured = capture::survey(conn, &mut schema::read(conn)?, &mut self.omitted)?;
        let done = self.enrol_tables(&mut captured, at)?;
        self.warn();
        let known = captured.into_iter().filter(|c| c.core && !c.table.is_virtual).map(|c| c.table.name);
        self.publisher.signal.set_captured(known.collect());
        let late = connected::find(self.conn()?).doing(|| "looking at the triggers".into())?;
        self.publisher.signal.set_opened_late(late);
        self.schema_version = done;
        Ok(done.is_some())
    }

    /// Puts those of the tables under capture that are not, a few in each write transaction: a migration may bring hundreds.
    /// `at` is the schema cookie that the survey was made at. Returns the one at which all are captured; `None`: not all are.
    fn enrol_tables(&mut self, captured: &mut [Captured], mut at: i64) -> Result<Option<i64>> {
        let mut open: Vec<&mut Captured> = captured.iter_mut().filter(|c| !c.is_enrolled()).collect();
        let mut open = open.as_mut_slice();
        let env = self.publisher.workers.env.clone();
        let mut last: Option<Duration> = None;
        while !open.is_empty() {
            if self.publisher.stopping() {
                return Ok(None);
            }
            let (mut done, mut now) = (0, at);
            let mut refused = Vec::new();
            let written = self.write(|conn| {
                let start = env.now();
                // Changed since the survey: then there is nothing to rely on.
                let same = cookie(conn)? == at;
                while same && done < open.len().min(ENROL_TABLES) && env.now().saturating_sub(start) < ENROL_TIME {
                    let reason = capture::enrol(conn, open[done])?;
                    refused.extend(reason.map(|reason| (open[done].table.name.clone(), reason)));
                    done += 1;
                }
                now = cookie(conn)?;
                crate::host::fault::point("enrol.before_commit");
                Ok(())
            })?;
            if written && done > 0 {
                (at, last) = (now, Some(env.now()));
                for (table, reason) in refused {
                    self.omitted.meet(&table, reason, at);
                    self.survey = None;
                }
                let (enrolled, rest) = open.split_at_mut(done);
                enrolled.iter_mut().for_each(|c| c.core = true);
                open = rest;
            } else if written || last.is_none_or(|last| env.now().saturating_sub(last) > ENROL_PATIENCE) {
                // Once begun it is worth waiting a little: what is not captured yet goes into the next message whole.
                return Ok(None);
            }
            breathe();
        }
        Ok(Some(at))
    }

    /// Tells the status what is not replicated, or only by hand.
    fn warn(&self) {
        let mut warnings: Vec<String> =
            self.left_out.iter().map(|l| format!("table {} is not replicated: {}", l.name, l.why)).collect();
        warnings.extend(self.omitted.warnings());
        if !self.bypassed.is_empty() {
            warnings.push(format!(
                "rows of {} were written past the capture triggers and were found by the hooks: a trigger of the application \
                 says RAISE, or triggers are switched off on its connection",
                self.bypassed.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
            ));
        }
        if let Some(mode) = &self.other_journal {
            warnings.push(format!(
                "somebody has taken this database out of WAL mode (it is in mode {mode} now): while a snapshot is read, commits can find it busy"
            ));
        }
        if self.made_anew {
            warnings.push(
                "the tables of logos in this database had been dropped or emptied: they were made again, and all tables sent whole"
                    .into(),
            );
        }
        let incomplete = self.suspect.then(|| {
            "something was committed to this database that the log does not show (triggers switched off on another program's \
             connection, say): what the channel has may be incomplete; SELECT logos_resync() compares it and sends what differs"
                .to_string()
        });
        self.publisher.update(|p| (p.warnings, p.incomplete) = (warnings, incomplete));
    }

    /// One snapshot, and the message that it gives.
    fn build_message(&mut self, asked: bool) -> Result<()> {
        let start = self.now();
        let path = self.publisher.path().to_path_buf();
        let doing = || format!("reading {}", path.display());
        let count = self.conn()?.begin_snapshot(&doing)?;
        let built = self.build_without_omitted(count, asked);
        let conn = self.conn()?;
        if !conn.is_autocommit() {
            conn.execute_batch("ROLLBACK").doing(doing)?;
        }
        let (stored, took) = (built?, self.now().saturating_sub(start));
        self.pace.step(Event::Built { stored, took }, self.now());
        if stored {
            self.publisher.refresh()?;
        }
        Ok(())
    }

    /// While we had the file closed, maybe nobody had it open, and counting began anew. The log says how many commits there were; where
    /// it was begun anew as well, nothing is known.
    fn follow_count(&mut self, now: Option<Commits>) {
        if !std::mem::replace(&mut self.reopened, false) {
            return;
        }
        let Some((before, now)) = self.count.zip(now) else { return };
        if !(before.wal && now.wal) {
            return;
        }
        let Some(logged) = self.conn.as_ref().and_then(|conn| api::logged_between(conn, before, now)) else {
            self.count = None;
            return;
        };
        let commits = logged.commits;
        if now.count.wrapping_sub(before.count) == commits {
            return;
        }
        if now.count < commits {
            // Some of them came before, under other numbers.
            self.publisher.signal.ledger().forget();
        }
        self.count = Some(before.counted_anew(now.count.saturating_sub(commits)));
    }

    /// The tables, besides captured ones, that were written to since the last snapshot; `None` if there was a commit that no hook
    /// of ours saw whole.
    fn written(&self, count: Option<Commits>) -> Option<BTreeSet<String>> {
        let (from, to) = self.count.zip(count).filter(|(from, to)| from.wal == to.wal)?;
        self.publisher.signal.ledger().written(from.count, to.count)
    }

    fn plan(&mut self, written: Option<&BTreeSet<String>>) -> Result<Plan> {
        let untouched = |shadows: &[String]| {
            written.is_some_and(|written| !shadows.iter().any(|s| written.contains(&s.to_ascii_lowercase())))
        };
        let conn = self.conn.as_ref().ok_or_else(no_connection)?;
        plan::plan(conn, &self.published, &mut self.survey, &self.doubts, &mut self.omitted, &untouched)
    }

    /// Within the read transaction. Returns whether a message was stored.
    fn build_without_omitted(&mut self, count: Option<Commits>, asked: bool) -> Result<bool> {
        let (start, before) = (self.now(), self.omitted.warnings());
        // What the snapshot shows, the hooks have told before it could be committed.
        self.doubts.add(self.publisher.signal.take_doubts());
        self.bypassed.extend(self.doubts.tables().cloned());
        self.follow_count(count);
        let written = self.written(count);
        let mut judged = false;
        let stored = loop {
            if let Some(stored) = self.build(count, asked, written.as_ref(), &mut judged)? {
                break stored;
            }
            // A table that cannot be read is left out from now on.
            self.survey = None;
        };
        // Later looks ask what was committed after this one.
        self.count = count;
        if self.omitted.warnings() != before {
            let now = self.now();
            self.omitted.took(now, now.saturating_sub(start));
            self.warn();
        }
        Ok(stored)
    }

    /// The same; `None`: not without another table. `written`: see there. `judged`: whether the commits have been (`suspect`).
    fn build(
        &mut self,
        count: Option<Commits>,
        asked: bool,
        written: Option<&BTreeSet<String>>,
        judged: &mut bool,
    ) -> Result<Option<bool>> {
        let publisher = self.publisher.clone();
        let mut plan = self.plan(written)?;
        if self.published.history.is_some() && self.published.history != plan.next.history {
            check_same_file(&publisher.sidecar(), publisher.path())?;
            self.made_anew = true;
        }
        if !std::mem::replace(judged, true) {
            self.suspect(count, written, &plan)?;
        }
        if self.suspect && self.may_send_all(asked)? {
            self.doubts.doubt_everything();
            plan = self.plan(written)?;
        }
        // Replicas do not call healthy what the status here does not.
        plan.call_incomplete(self.suspect && !self.doubts.everything(), &self.published);
        self.seen = plan.next.cursor;
        if plan.is_empty() && !plan.moved(&self.published) {
            return Ok(Some(false));
        }
        let database = &publisher.database;
        let conn = self.conn.as_ref().ok_or_else(no_connection)?;
        let mut sidecar = publisher.sidecar();
        let mut storing = sidecar.begin()?;
        if plan.is_empty() {
            end_snapshot(conn, &mut self.sync, database)?;
            storing.remember(&plan.next)?;
            self.published = plan.next;
            return Ok(Some(false));
        }
        let seq = self.published.position.seq + 1;
        let (created, previous) = (publisher.workers.env.wall_ms(), self.published.position.digest);
        let parts = PartWriter::new(seq, |_, data| {
            fork::pass();
            storing.part(seq, data)
        });
        let (parts, counts) = match rows::write(conn, &plan, seq, previous, created, parts)? {
            Written::All(parts, counts) => (parts, counts),
            Written::Unreadable(table, reason) => {
                self.omitted.meet(&table, reason, cookie(conn)?);
                return Ok(None);
            }
        };
        let (digest, bytes, parts) = parts.finish().doing(|| format!("storing message {seq}"))?;
        plan.next.position = Position { seq, digest };
        end_snapshot(conn, &mut self.sync, database)?;
        // The snapshot must have been one of the file that this path leads to.
        database.check_in_place()?;
        crate::host::fault::point("build.before_store");
        let all = self.doubts.everything();
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
        crate::host::fault::point("build.stored");
        if all {
            sidecar.set_incomplete(false)?;
            self.suspect = false;
            let rest = SUSPECT_REST_PER_BYTE.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
            self.suspect_until = Some(self.now() + rest);
        }
        drop(sidecar);
        self.published = plan.next;
        self.doubts.covered(count, self.published.cursor);
        self.warn();
        Ok(Some(true))
    }

    /// Whether commits were seen that nothing explains: neither a hook that saw what was written, nor the log, the schema, the
    /// settings, a virtual table, the statistics of ANALYZE.
    fn suspect(&mut self, count: Option<Commits>, written: Option<&BTreeSet<String>>, plan: &Plan) -> Result<()> {
        self.hooked = self.publisher.signal.commits.load(Ordering::Acquire);
        // Counting begins anew when nobody had the file open in between: then nothing is known, and nothing suspected.
        let commits = self.count.zip(count).is_some_and(|(from, to)| from.wal == to.wal && from.count < to.count);
        let unexplained = commits && written.is_none() && !plan.explains_a_commit(&self.published);
        let silent = self.doubts.shows_silent(count);
        // What explains the next commit is what differs from what this snapshot shows.
        let as_before = written.is_some_and(BTreeSet::is_empty) && plan.next.cookie == self.published.cookie;
        let mut explained = !unexplained;
        if let Some(survey) = self.survey.as_ref().filter(|_| !as_before || self.statistics.is_none()) {
            let statistics = Some(plan::statistics(self.open()?, survey)?);
            explained |= std::mem::replace(&mut self.statistics, statistics) != statistics;
            // ANALYZE that finds what was found before.
            explained = explained || self.wrote_statistics_only(count)?;
        }
        if (silent || !explained) && !self.suspect {
            self.publisher.sidecar().set_incomplete(true)?;
            self.suspect = true;
            self.suspect_until = self.suspect_until.or_else(|| Some(self.now()));
            self.warn();
        }
        Ok(())
    }

    /// Whether the commits since the last snapshot have written to no page but those of the statistics, as far as the log tells.
    fn wrote_statistics_only(&self, now: Option<Commits>) -> Result<bool> {
        let Some((before, now)) = self.count.zip(now) else { return Ok(false) };
        let conn = self.open()?;
        let Some(logged) = api::logged_between(conn, before, now) else { return Ok(false) };
        let roots = plan::statistics_pages(conn).doing(|| "looking at the statistics of ANALYZE".into())?;
        Ok(logged.commits > 0 && logged.pages.iter().all(|page| roots.contains(page)))
    }

    /// Whether all tables are sent whole now, since something may have been written past the log.
    fn may_send_all(&mut self, asked: bool) -> Result<bool> {
        let rested = self.suspect_until.is_some_and(|until| until <= self.now());
        if !asked && !rested {
            return Ok(false);
        }
        let pragma = |conn: &Connection, name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let conn = self.conn()?;
        let size = pragma(conn, "page_count").and_then(|pages| Ok(pages.saturating_mul(pragma(conn, "page_size")?)));
        let small = size.doing(|| "looking at the size of the database".into())? <= SUSPECT_BYTES;
        if !small {
            // Only a comparison helps.
            self.suspect_until = None;
        }
        Ok(small)
    }

    /// Whether it is worth a write to forget what is final.
    fn may_forget(&self) -> bool {
        self.forgetting || self.publisher.state().final_cursor - self.oldest >= FORGET_WORTH
    }

    /// Forgets it, if so. Returns whether to go on at once.
    fn forget(&mut self) -> Result<bool> {
        let doing = || "forgetting log rows that are final".to_string();
        let last = self.publisher.state().final_cursor;
        if self.may_forget() {
            self.oldest = capture::oldest(self.conn()?).doing(doing)?.unwrap_or(last);
        }
        if !self.may_forget() {
            if self.schema_version.is_some() {
                self.note_held_up(false);
            }
            return Ok(false);
        }
        let mut all = false;
        let written = self.write(|conn| {
            all = capture::forget(conn, last, FORGET_TIME).doing(doing)?;
            crate::host::fault::point("forget.before_commit");
            Ok(())
        })?;
        if written {
            self.forgetting = !all;
            if all {
                self.oldest = last;
            }
            crate::host::fault::point("forget.done");
        }
        Ok(false)
    }
}

/// Another log in the same file: a tool that does not know us has dropped or emptied it, and what the file holds goes on. But a log
/// that is missing in another file means that this file is another database, or a backup from before it was published.
fn check_same_file(sidecar: &Sidecar, path: &Path) -> Result<()> {
    if !sidecar.is_replaced()? {
        return Ok(());
    }
    Err(Error::resync(
        format!("{} is another file than the one that was published, and does not hold its log of changes", path.display()),
        "nothing was published from it. If it was put there on purpose (a backup, a rebuilt database), SELECT logos_resync(): it \
         compares the file with the channel and makes what the file holds the channel's next state",
    ))
}

/// Ends the read transaction, which kept SQLite from starting its log over, and makes durable what it showed: that was
/// written to the files, though maybe not synced by its writer.
fn end_snapshot(conn: &Background, sync: &mut api::Sync, database: &Database) -> Result<()> {
    let path = database.path();
    conn.execute_batch("ROLLBACK").doing(|| format!("reading {}", path.display()))?;
    sync.sync(conn).map_err(|e| {
        Error::retry(format!("syncing {} failed: {e}", path.display()), "nothing was published; it is tried again")
    })?;
    crate::host::fault::point("build.synced");
    Ok(())
}

fn no_connection() -> Error {
    Error::bug("no connection to the database")
}

fn cookie(conn: &Connection) -> Result<i64> {
    connection::cookie(conn).doing(|| "reading the schema".into())
}

fn breathe() {
    fork::outside(|| std::thread::sleep(BREATH));
}

/// Takes everything of ours out of a database file. Waits for writers for as long as SQLite does.
pub fn remove_from(database: &Database) -> Result<()> {
    let conn = connection::open(database)?;
    let doing = || format!("removing capture from {}", database.path().display());
    conn.execute_batch("BEGIN IMMEDIATE").doing(doing)?;
    capture::remove(&conn).doing(doing)?;
    conn.execute_batch("COMMIT").doing(doing)
}
