//! Standing by: another process publishes this database, and this one goes on when that ends or dies.
//!
//! Several workers of an application all say `logos_publish(…, '{"standby": true}')` when they start: one publishes, the others wait
//! here. What they commit is captured like anybody's, and published by the one that does.
//!
//! Invariants
//! - Who publishes holds the lock of the sidecar, which the system lets go of when a process ends, however it ends. Looking whether
//!   it is held writes nothing, and opens no file of the application's.
//! - Nobody stands by for what was taken out: where the database is not under capture and has no sidecar, standing by ends.
//! - When the application has closed its last connection, no publisher begins any more.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::publisher::{Options, Publisher};
use super::workers::Workers;
use crate::apply::role::{self, Role};
use crate::capture::home::Home;
use crate::channel::Url;
use crate::error::{Doing, Error, Result};
use crate::host::database::Database;
use crate::host::{connection, fork, threads};
use crate::outbox;

/// How often it looks whether the other publishes still.
const LOOK: Duration = Duration::from_millis(250);

/// How long `logos_publish` waits for the other to say on which channel it publishes: it may have begun just now.
const SAID: Duration = Duration::from_secs(2);

/// A database that this process would publish if nobody else did.
pub struct Standby {
    workers: Arc<Workers>,
    database: Database,
    url: Url,
    options: Options,
    /// Held while this process takes over.
    taking: Mutex<()>,
    state: Mutex<State>,
    /// Notified when it is told to end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ended: bool,
    /// Why it could not take over when nobody published.
    error: Option<Error>,
}

impl Standby {
    /// Stands by, from a thread of its own.
    pub fn start(workers: &Arc<Workers>, database: &Database, url: &Url, options: &Options) -> Result<Arc<Self>> {
        if let Some(standby) = workers.get::<Self>(database) {
            return standby.check_same(url, options).map(|()| standby);
        }
        let noted = said(database)?;
        if let Some((wanted, other)) = url.channel.zip(noted).filter(|(wanted, other)| wanted != other) {
            return Err(Error::fix(
                format!("{} is published on channel {other}, not on {wanted}", database.path().display()),
                "nothing was changed; leave the id out, or use the database and sidecar that belong to that channel",
            ));
        }
        let standby = Arc::new(Self {
            workers: workers.clone(),
            database: database.clone(),
            url: Url { channel: url.channel.or(noted), ..url.clone() },
            options: options.clone(),
            taking: Mutex::new(()),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let listed = workers.add(database, standby.clone());
        if Arc::ptr_eq(&listed, &standby) {
            threads::spawn("logos-standby", move || standby.run())?;
        }
        Ok(listed)
    }

    fn check_same(&self, url: &Url, options: &Options) -> Result<()> {
        let same = url.transport == self.url.transport && url.channel.is_none_or(|id| Some(id) == self.url.channel);
        if same && *options == self.options {
            return Ok(());
        }
        Err(Error::fix(
            format!(
                "this process stands by for {} already, with another channel or other options",
                self.database.path().display()
            ),
            "nothing was changed; SELECT logos_stop() first, then publish with the new ones",
        ))
    }

    /// The channel that it would go on with.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Ends it. Whoever is taking over now is done with that, one way or the other, when this returns.
    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
        drop(self.taking.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The database.
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    /// Why it could not take over when nobody published, if so.
    pub fn error(&self) -> Option<Error> {
        self.state().error.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self: Arc<Self>) {
        loop {
            let state = self.state();
            let waited = self.changed.wait_timeout_while(state, LOOK, |state| !state.ended);
            if waited.unwrap_or_else(PoisonError::into_inner).0.ended {
                return;
            }
            let taken = catch_unwind(AssertUnwindSafe(|| self.look()));
            match taken.unwrap_or_else(|_| Err(Error::bug("the standby thread panicked"))) {
                Ok(false) => self.state().error = None,
                Ok(true) => break,
                Err(e) => self.state().error = Some(e),
            }
        }
        self.workers.remove::<Self>(&self.database);
    }

    /// Takes over if nobody publishes. Returns whether there is nothing more to stand by for.
    fn look(&self) -> Result<bool> {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let _inside = fork::enter();
        let path = self.database.path();
        let held = self.state().ended || outbox::is_held(path);
        // Whose lock is held keeps the file for itself: it is not even opened.
        let role = if held { None } else { Some(role::role(&connection::open(&self.database)?)?) };
        match takeover(role.as_ref(), outbox::path_of(path).exists()) {
            Takeover::Wait => return Ok(false),
            Takeover::End => return Ok(true),
            Takeover::Begin => {}
        }
        match Publisher::begin(&self.workers, &self.database, &self.url, self.options.clone()) {
            // Another one that stood by was quicker.
            Err(e) if e.code == Some(rusqlite::ffi::SQLITE_LOCKED) => Ok(false),
            begun => begun.map(|_| true),
        }
    }
}

/// What to do after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takeover {
    Wait,
    Begin,
    End,
}

/// Decides by what the file is to us (`None`: somebody publishes it) and whether there is a sidecar.
fn takeover(role: Option<&Role>, has_sidecar: bool) -> Takeover {
    match role {
        None => Takeover::Wait,
        Some(Role::Replica(_)) => Takeover::End,
        Some(Role::Primary) => Takeover::Begin,
        // Who was to publish may have died before anything was captured; but what was removed has no sidecar either.
        Some(Role::Empty | Role::Plain) if has_sidecar => Takeover::Begin,
        Some(Role::Empty | Role::Plain) => Takeover::End,
    }
}

/// The channel on which another process publishes a database.
fn said(database: &Database) -> Result<Option<logos_log::ids::ChannelId>> {
    let conn = connection::open(database)?;
    let deadline = Instant::now() + SAID;
    loop {
        let noted = Home::noted(&conn).doing(|| "looking for the channel".into())?;
        if noted.is_some() || Instant::now() > deadline {
            return Ok(noted.map(|home| home.channel));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::role::Standing;
    use logos_log::ids::ChannelId;

    #[test]
    fn it_takes_over_what_nobody_publishes_and_lets_go_of_what_was_taken_out() {
        let replica = Role::Replica(Box::new(Standing::start(ChannelId([1; 32]), "dir:x")));
        for has_sidecar in [true, false] {
            assert_eq!(takeover(None, has_sidecar), Takeover::Wait);
            assert_eq!(
                takeover(Some(&Role::Primary), has_sidecar),
                Takeover::Begin,
                "a lost sidecar is asked about by beginning"
            );
            assert_eq!(takeover(Some(&replica), has_sidecar), Takeover::End);
        }
        // Whoever was to publish died before anything was captured.
        assert_eq!(takeover(Some(&Role::Plain), true), Takeover::Begin);
        // logos_remove() took both.
        assert_eq!(takeover(Some(&Role::Plain), false), Takeover::End);
        assert_eq!(takeover(Some(&Role::Empty), false), Takeover::End);
    }
}
