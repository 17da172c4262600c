//! Publishing: what it means to begin, how far it is, what is logged by hand.

use std::sync::Arc;
use std::time::Duration;

use logos_log::ids::Position;
use rusqlite::types::Value;

use super::{Caller, Service};
use crate::apply::role::Role;
use crate::capture;
use crate::channel::Url;
use crate::drive::follower::Follower;
use crate::drive::patience::Patience;
use crate::drive::publisher::{self, Options, Publisher};
use crate::drive::standby::Standby;
use crate::error::{Error, Result};
use crate::host::database::Database;

/// How long a publisher that was told to end is waited for before another takes over. Its threads look at every step.
const HANDOVER: Duration = Duration::from_secs(10);

impl Service {
    /// Publishes the caller's database. Returns the channel's URL.
    pub fn publish(&self, caller: Caller<'_>, url: &str, options: &Options) -> Result<String> {
        caller.may_write("logos_publish")?;
        caller.outside_transaction("logos_publish")?;
        let url = self.publish_database(&caller.database()?, &Url::parse(url)?, options)?;
        self.observe(caller.host, caller.conn);
        Ok(url)
    }

    /// Publishes a database, or stands by where the options allow it and another process publishes it. Returns the channel's URL.
    pub(super) fn publish_database(&self, database: &Database, url: &Url, options: &Options) -> Result<String> {
        let workers = &self.workers;
        let stand_by = || Standby::start(workers, database, url, options).map(|standby| standby.url());
        if workers.get::<Publisher>(database).is_none_or(|publisher| publisher.has_ended()) {
            // The one before may still be at its farewell, with the sidecar in its hands. What it has not sent, we send.
            workers.former_publishers(database).into_iter().for_each(|former| publisher::end(former, HANDOVER));
            // One that has just ended may not have closed it yet; who publishes here opens it as soon as it can.
            if options.standby && publisher::is_published_elsewhere(database) {
                return stand_by();
            }
        }
        if let Some(standby) = workers.remove::<Standby>(database) {
            standby.end();
        }
        match Publisher::start(workers, database, url, options.clone()) {
            Err(e) if options.standby && e.code == Some(rusqlite::ffi::SQLITE_LOCKED) => stand_by(),
            started => started.map(|publisher| {
                // An attach_replica that was refused here is no news any more.
                workers.remove::<Follower>(database);
                publisher.url()
            }),
        }
    }

    /// The publisher of the caller's database, or why there is none.
    pub(super) fn publisher(&self, caller: Caller<'_>) -> Result<Arc<Publisher>> {
        let database = caller.database()?;
        if let Some(publisher) = self.workers.get::<Publisher>(&database) {
            self.observe(caller.host, caller.conn);
            return Ok(publisher);
        }
        caller.not_a_replica()?;
        let stands_by = self.workers.get::<Standby>(&database).is_some();
        if stands_by || publisher::is_published_elsewhere(&database) {
            let (this_one, when) = match stands_by {
                true => (", and this one stands by", "this one will when it takes over"),
                false => ("", "publish with {\"standby\": true} to go on when it ends"),
            };
            return Err(Error::fix(
                format!("{} is published by another process{this_one}", database.path().display()),
                format!(
                    "nothing was lost: what is committed here is captured, and published there. Only the process that publishes knows \
                     how far that has come; {when}"
                ),
            )
            .with_code(rusqlite::ffi::SQLITE_LOCKED));
        }
        if let Some(follower) = self.attached_to_nothing_yet(caller)? {
            return Err(Error::retry(
                format!(
                    "{} is attached to {}, and nothing is applied to it yet",
                    database.path().display(),
                    follower.url()
                ),
                "nothing was changed; SELECT state, error FROM logos_status says what it waits for",
            ));
        }
        Err(Error::fix(
            format!("{} is not being published by this process", database.path().display()),
            "nothing was lost; SELECT logos_publish('dir:…') first (again after each start of the application)",
        ))
    }

    /// What this process has attached to the caller's database while that is still empty: a replica before its first message.
    fn attached_to_nothing_yet(&self, caller: Caller<'_>) -> Result<Option<Arc<Follower>>> {
        let is_empty = caller.role()? == Role::Empty;
        Ok(self.workers.get::<Follower>(&caller.database()?).filter(|_| is_empty))
    }

    /// Waits until everything committed before the call is on the channel.
    pub fn flush(&self, caller: Caller<'_>, time: Duration) -> Result<Position> {
        caller.outside_transaction("logos_flush")?;
        let publisher = self.publisher(caller)?;
        publisher.flush(&Patience::unless(time, &|| caller.is_interrupted()))
    }

    /// The position that covers everything committed before the call, or where a replica stands.
    pub fn position(&self, caller: Caller<'_>, time: Duration) -> Result<Position> {
        match caller.role()? {
            Role::Replica(standing) => Ok(standing.position),
            Role::Empty if self.attached_to_nothing_yet(caller)?.is_some() => Ok(Position::START),
            _ => self.publisher(caller)?.position(&Patience::unless(time, &|| caller.is_interrupted())),
        }
    }

    /// Logs one key of a table by hand, in whatever transaction the caller has.
    pub fn touch(&self, caller: Caller<'_>, table: &str, key: &[Value]) -> Result<()> {
        caller.may_write("logos_touch")?;
        caller.not_a_replica()?;
        if caller.role()? != Role::Primary {
            return Err(Error::fix(
                "this database is not under capture",
                "nothing was logged; SELECT logos_publish('dir:…') first",
            ));
        }
        capture::touch(caller.conn, table, key)
    }
}
