//! Ending: what runs for a database is stopped, and what is ours is taken out of it.

use std::time::Duration;

use super::{Caller, Service};
use crate::apply::guard;
use crate::apply::role::Role;
use crate::drive::follower::Follower;
use crate::drive::publisher::{self, Publisher};
use crate::drive::standby::Standby;
use crate::error::Result;
use crate::host::connection;
use crate::host::database::Database;
use crate::outbox::Removal;

/// How long threads that were told to end are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

impl Service {
    /// Ends whatever runs here for the caller's database. Returns what that was.
    pub fn stop(&self, caller: Caller<'_>) -> Result<Vec<&'static str>> {
        caller.may_write("logos_stop")?;
        Ok(self.stop_all(&caller.database()?))
    }

    fn stop_all(&self, database: &Database) -> Vec<&'static str> {
        let mut stopped = Vec::new();
        if let Some(standby) = self.workers.remove::<Standby>(database) {
            standby.end();
            stopped.push("standby");
        }
        if let Some(publisher) = self.workers.remove::<Publisher>(database) {
            publisher::end(publisher, PATIENCE);
            stopped.push("publisher");
        }
        if let Some(follower) = self.workers.remove::<Follower>(database) {
            follower.stop(PATIENCE);
            stopped.push("follower");
        }
        stopped
    }

    fn end_former(&self, database: &Database) {
        self.workers.former_publishers(database).into_iter().for_each(|former| publisher::end(former, PATIENCE));
    }

    /// Makes the caller's database an ordinary one again.
    pub fn remove(&self, caller: Caller<'_>) -> Result<()> {
        caller.may_write("logos_remove")?;
        caller.outside_transaction("logos_remove")?;
        let database = caller.database()?;
        let role = caller.role()?;
        self.end_former(&database);
        // What stands by goes on doing so where removal is refused.
        let stands_by = self.workers.get::<Standby>(&database).is_some();
        let refused_or_not = stands_by.then(|| Removal::begin(database.path())).transpose()?;
        self.stop_all(&database);
        self.end_former(&database);
        let sidecar = refused_or_not.map_or_else(|| Removal::begin(database.path()), Ok)?;
        match role {
            Role::Empty | Role::Plain => {}
            Role::Primary => publisher::remove_from(&database)?,
            Role::Replica(_) => guard::release(&mut connection::open(&database)?)?,
        }
        sidecar.finish()
    }
}
