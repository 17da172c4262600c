//! Waiting for a position: on a primary until it is covered, on a replica until it is applied, pulling where nobody else does.

use std::time::Duration;

use logos_log::ids::Position;

use super::{Caller, Service};
use crate::apply::role::Role;
use crate::channel::Url;
use crate::drive::follower::{reached, Follower};
use crate::drive::patience::Patience;
use crate::drive::publisher::Publisher;
use crate::drive::puller::{self, Puller};
use crate::error::{Error, Result};
use crate::host::database::Database;

impl Service {
    /// Waits until the caller's database has reached a position. `false`: not in that time.
    pub fn wait(&self, caller: Caller<'_>, wanted: Position, time: Duration) -> Result<bool> {
        let interrupted = || caller.is_interrupted();
        let patience = Patience::unless(time, &interrupted);
        let database = caller.database()?;
        // What a transaction has begun to see does not change under it, however long we wait.
        let sees_what_comes = !caller.host.in_transaction();
        let role = caller.role()?;
        let here = match &role {
            Role::Replica(standing) => reached(standing.position, wanted),
            // A replica before its first message: attached by this process, or by another one.
            Role::Empty if self.workers.get::<Publisher>(&database).is_none() => reached(Position::START, wanted),
            _ if sees_what_comes => {
                let position = self.publisher(caller)?.position(&patience)?;
                Some(reached(position, wanted).unwrap_or(Ok(false)))
            }
            _ => None,
        };
        if let Some(reached) = here {
            return reached;
        }
        if !sees_what_comes {
            return Err(Error::fix(
                "logos_wait cannot wait inside a transaction, or in a statement that reads a table: it would go on to see what it saw",
                "nothing was changed; COMMIT or ROLLBACK first, then SELECT logos_wait(…) in a statement of its own",
            ));
        }
        match (role, self.workers.get::<Follower>(&database)) {
            (Role::Replica(standing), _) => {
                self.wait_for_replica(caller, &database, &Url::parse(&standing.url)?, wanted, &patience)
            }
            (_, Some(follower)) => self.wait_for_replica(caller, &database, follower.url(), wanted, &patience),
            (_, None) => wait_for_others(caller, wanted, &patience),
        }
    }

    fn wait_for_replica(
        &self,
        caller: Caller<'_>,
        database: &Database,
        url: &Url,
        wanted: Position,
        patience: &Patience<'_>,
    ) -> Result<bool> {
        let follower = self.workers.get::<Follower>(database);
        if let Some(reached) = follower.as_ref().and_then(|f| f.wait_for(wanted, patience)) {
            return reached;
        }
        if caller.may_write("logos_wait").is_err() {
            return wait_for_others(caller, wanted, patience);
        }
        // Nobody follows: pull here, as it was attached.
        let options = follower.as_ref().map_or_else(puller::Options::default, |f| f.options().clone());
        let mut puller = Puller::open(database, url, &options)?;
        loop {
            if let Some(reached) = reached(puller.position(), wanted) {
                return reached;
            }
            let outcome = puller.pull();
            // The status shows what the last pull met, whoever made it.
            follower.iter().for_each(|f| f.note(Some(&puller), &outcome));
            let came = match outcome {
                Err(e) if e.waits && !patience.is_over() => None,
                outcome => outcome?,
            };
            if came.is_none() {
                if patience.is_over() {
                    return Ok(false);
                }
                patience.check()?;
                while !puller.wait(patience.step()) && !patience.is_over() {
                    patience.check()?;
                }
            }
        }
    }
}

/// This connection may not pull, but another process may follow: looks at where the file stands.
fn wait_for_others(caller: Caller<'_>, wanted: Position, patience: &Patience<'_>) -> Result<bool> {
    while !patience.is_over() {
        patience.check()?;
        std::thread::sleep(patience.step());
        if let Role::Replica(standing) = caller.role()? {
            if let Some(reached) = reached(standing.position, wanted) {
                return reached;
            }
        }
    }
    Ok(false)
}
