//! Following: a background thread that keeps a replica up to date, and what is known of every replica of this process.
//!
//! Invariants
//! - An error stops nothing that can go on by itself: it is shown, and tried again; only disagreement ends the thread.
//! - The thread has connections of its own and touches nothing of the application's.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logos_log::ids::Position;

use super::env::Env;
use super::following::{Action, Event, Following};
use super::patience::Patience;
use super::puller::{Options, Puller};
use crate::apply::Applied;
use crate::channel::Url;
use crate::error::{Error, Kind, Result};
use crate::host::database::Database;
use crate::host::threads;

/// How long closing the application's last connection waits for the thread.
const FAREWELL: Duration = Duration::from_millis(500);

/// One replica of this process.
pub struct Follower {
    env: Arc<dyn Env>,
    database: Database,
    url: Url,
    options: Options,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Clone, Default)]
struct State {
    position: Option<Position>,
    bookmark: String,
    requests: u64,
    following: bool,
    messages: i64,
    bytes: i64,
    error: Option<Error>,
    warnings: Vec<String>,
    incomplete: bool,
}

/// What `logos_status` shows of a replica.
#[derive(Debug, Clone)]
pub struct Report {
    /// Full URL of the channel.
    pub url: Url,
    /// The database.
    pub path: PathBuf,
    /// One word.
    pub state: &'static str,
    /// The last message applied.
    pub position: Position,
    /// Entries that lie ahead on the channel and their bytes, as far as known.
    pub ahead: Option<(u64, u64)>,
    /// Messages applied by this process.
    pub messages: i64,
    /// Their payload bytes.
    pub bytes: i64,
    /// What is wrong, if anything.
    pub error: Option<Error>,
    /// Requests made to a node.
    pub requests: u64,
    /// What of the primary is left out, each with the reason.
    pub warnings: Vec<String>,
}

impl Follower {
    /// Whether it is a replica of that channel.
    pub fn is_for(&self, url: &Url, options: &Options) -> bool {
        self.url == *url && self.options.node == options.node
    }

    /// A replica that was attached; its thread is not started.
    pub fn new(env: Arc<dyn Env>, database: &Database, url: &Url, options: &Options) -> Arc<Self> {
        Arc::new(Self {
            env,
            database: database.clone(),
            url: url.clone(),
            options: options.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// The channel; without its id where that was not found yet.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// What it was attached with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Notes what a pull achieved or met.
    pub fn note(&self, puller: Option<&Puller>, outcome: &Result<Option<Applied>>) {
        self.update(|s| {
            if let Some(puller) = puller {
                s.position = Some(puller.position());
                s.bookmark = puller.bookmark().to_string();
                s.requests = puller.requests();
                s.warnings = puller.left_out().to_vec();
                s.incomplete = puller.is_incomplete();
            }
            match outcome {
                Ok(applied) => {
                    s.error = None;
                    s.messages += i64::from(applied.is_some());
                    s.bytes += applied.as_ref().map_or(0, |a| a.bytes as i64);
                }
                Err(e) => s.error = Some(e.clone()),
            }
        });
    }

    /// Starts the thread, unless it runs: it goes on with this puller.
    pub fn follow(self: &Arc<Self>, puller: Puller) -> Result<()> {
        if std::mem::replace(&mut self.state().following, true) {
            return Ok(());
        }
        let follower = self.clone();
        let run = move || {
            let pulling = AssertUnwindSafe(|| {
                let mut machine = Machine::new(&follower, puller);
                loop {
                    match machine.step() {
                        Action::Pull => {}
                        Action::Listen(time) => machine.listen(time),
                        Action::Rest(time) => follower.rest(time),
                        Action::End => break,
                    }
                }
                machine.puller.close();
            });
            if catch_unwind(pulling).is_err() {
                follower.update(|s| s.error = Some(Error::bug("the follower thread panicked")));
            }
            follower.update(|s| s.following = false);
        };
        threads::spawn("logos-follower", run)
    }

    /// Sleeps, but not through a stop.
    fn rest(&self, pause: Duration) {
        let state = self.state();
        let stopped = |_: &mut State| !self.stop.load(Ordering::Acquire);
        drop(self.changed.wait_timeout_while(state, pause, stopped).unwrap_or_else(PoisonError::into_inner));
    }

    /// Asks the thread to end. Returns once it has, or after `patience`.
    pub fn stop(&self, patience: Duration) {
        self.retire();
        let state = self.state();
        drop(self.changed.wait_timeout_while(state, patience, |s| s.following).unwrap_or_else(PoisonError::into_inner));
    }

    /// Asks the thread to end.
    pub fn retire(&self) {
        self.stop.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Returns when the thread has closed the application's file, which `retire` has told it to; not later than `FAREWELL`: it may be in
    /// the middle of a request, and does then what closing the application's last connection would have done.
    pub fn let_go_of_file(&self) {
        let state = self.state();
        drop(self.changed.wait_timeout_while(state, FAREWELL, |s| s.following).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until the thread has reached a position. `false`: not in that time. `None`: there is no thread.
    pub fn wait_for(&self, position: Position, patience: &Patience<'_>) -> Option<Result<bool>> {
        loop {
            if let Err(interrupted) = patience.check() {
                return Some(Err(interrupted));
            }
            let state = self.state();
            if let Some(reached) = reached(state.position.unwrap_or(Position::START), position) {
                return Some(reached);
            }
            if !state.following {
                return None;
            }
            if patience.is_over() {
                return Some(Ok(false));
            }
            drop(self.changed.wait_timeout(state, patience.step()).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What `logos_status` shows.
    pub fn report(&self) -> Report {
        let mut s = self.state().clone();
        if s.incomplete {
            s.warnings.push(
                "its primary says that what the channel has may be incomplete (something was committed there that its log does not show); \
                 SELECT logos_resync() there sends what is missing"
                    .into(),
            );
        }
        let state = match &s.error {
            Some(e) if e.waits => "waiting",
            Some(e) if e.kind == Kind::Retry => "offline",
            Some(_) => "refused",
            None if s.incomplete => "incomplete",
            None if s.following => "following",
            None => "attached",
        };
        Report {
            ahead: self.url.ahead(&s.bookmark),
            requests: s.requests,
            url: self.url.clone(),
            path: self.database.path().to_path_buf(),
            state,
            position: s.position.unwrap_or(Position::START),
            messages: s.messages,
            bytes: s.bytes,
            error: s.error,
            warnings: s.warnings,
        }
    }
}

/// What the thread lets step: pulls when it is time, and notes what came of it.
pub struct Machine {
    follower: Arc<Follower>,
    puller: Puller,
    following: Following,
}

impl Machine {
    /// One that begins with pulling.
    pub fn new(follower: &Arc<Follower>, puller: Puller) -> Self {
        Self { follower: follower.clone(), puller, following: Following::default() }
    }

    /// Takes one step. Says what it waits for; `Pull`: for nothing.
    pub fn step(&mut self) -> Action {
        let env = self.follower.env.clone();
        let event = if self.follower.stop.load(Ordering::Acquire) { Event::Stopped } else { Event::Looked };
        let action = self.following.step(event, env.now());
        if action != Action::Pull {
            return action;
        }
        let outcome = self.puller.pull();
        self.follower.note(Some(&self.puller), &outcome);
        let event = match &outcome {
            Ok(Some(_)) => Event::Applied,
            Ok(None) => Event::CaughtUp,
            Err(e) => Event::Failed(e),
        };
        self.following.step(event, env.now())
    }

    /// Listens to the channel, so long at most.
    pub fn listen(&mut self, time: Duration) {
        let heard = self.puller.wait(time);
        self.following.step(Event::Heard(heard), self.follower.env.now());
    }
}

/// Whether `now` has reached `wanted`; `None`: not yet.
pub fn reached(now: Position, wanted: Position) -> Option<Result<bool>> {
    if now.seq < wanted.seq {
        return None;
    }
    if now.seq == wanted.seq && now.digest != wanted.digest {
        return Some(Err(Error::resync(
            format!("this replica stands at {now}, which is not {wanted}: the two are of different histories"),
            "nothing was changed; check that both databases belong to the same channel",
        )));
    }
    Some(Ok(true))
}
