//! Attaching: a replica pulls what is there, message by message, and then maybe follows.

use std::sync::Arc;

use super::{Caller, Service};
use crate::apply::role::{self, Role};
use crate::apply::Applied;
use crate::channel::Url;
use crate::drive::follower::Follower;
use crate::drive::publisher::Publisher;
use crate::drive::puller::{Options, Puller};
use crate::error::{Error, Result};
use crate::host::{connection, connections, idle};

/// A replica that is catching up.
pub struct Attachment {
    /// `None` once it has.
    work: Option<Work>,
}

struct Work {
    puller: Puller,
    follower: Arc<Follower>,
    follow: bool,
}

impl Service {
    /// A running SELECT holds a read lock on its own connection, and outside WAL mode that would keep the pulling connection
    /// from committing. So an empty file, or a replica, is brought into WAL mode while the SELECT is only being prepared.
    /// Whatever fails here fails again, with a sentence, when the SELECT runs.
    pub fn prepare_to_attach(&self, caller: Caller<'_>) {
        if caller.may_write("attach_replica").is_err() {
            return;
        }
        let Some(database) = connections::database(caller.host).filter(|_| caller.host.autocommit()) else { return };
        if idle::check_shareable(&database).is_err() {
            return;
        }
        let Ok(conn) = connection::open(&database) else { return };
        if connection::journal_mode(&conn).is_ok_and(|mode| mode == "wal") {
            return;
        }
        if matches!(role::role(&conn), Ok(Role::Empty | Role::Replica(_))) {
            let _ = connection::switch_to_wal(&conn, database.path());
        }
    }

    /// Attaches the caller's database to a channel: it must be empty, or a replica of that channel.
    pub fn attach(&self, caller: Caller<'_>, channel: &str, options: &Options) -> Result<Attachment> {
        caller.may_write("attach_replica")?;
        caller.outside_transaction("attach_replica")?;
        let database = caller.database()?;
        let (workers, url) = (&self.workers, Url::parse(channel)?);
        let add = |url: &Url| workers.add(&database, Follower::new(workers.env.clone(), &database, url, options));
        let puller = Puller::open(&database, &url, options).inspect_err(|e| {
            // A channel that is not there yet, or a database that is refused, shows in the status too.
            if workers.get::<Publisher>(&database).is_none() {
                add(&url).note(None, &Err(e.clone()));
            }
        })?;
        let mut follower = add(puller.url());
        if !follower.is_for(puller.url(), options) {
            workers.remove::<Follower>(&database).iter().for_each(|f| f.retire());
            follower = add(puller.url());
        }
        Ok(Attachment { work: Some(Work { puller, follower, follow: options.follow }) })
    }
}

impl Attachment {
    /// Applies the next message; `None` when the channel has no more, and somebody follows it if that was asked for.
    pub fn step(&mut self) -> Result<Option<Applied>> {
        let Some(work) = &mut self.work else { return Ok(None) };
        let outcome = work.puller.pull();
        work.follower.note(Some(&work.puller), &outcome);
        let applied = match outcome {
            // Half an entry at this moment is no more than one that is not there yet: the follower waits for it.
            Err(e) if e.waits && work.follow => None,
            outcome => outcome?,
        };
        if applied.is_none() {
            if let Some(done) = self.work.take().filter(|work| work.follow) {
                done.follower.follow(done.puller)?;
            }
        }
        Ok(applied)
    }
}

/// As a scalar call it would hand out one value and hide what was applied.
pub fn refuse_scalar() -> Error {
    Error::fix(
        "attach_replica is a table, with a row for each message that it applies",
        "nothing was changed; SELECT * FROM attach_replica('dir:PATH/<channel id>')",
    )
}
