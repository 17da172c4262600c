//! The status: what this process publishes and follows, and what the caller's own file says of other processes.

use std::path::PathBuf;

use logos_log::ids::Position;

use super::{Caller, Service};
use crate::apply::role::Role;
use crate::capture::home::Home;
use crate::drive::follower::Follower;
use crate::drive::publisher::{self, Publisher};
use crate::drive::standby::Standby;
use crate::error::{Error, Result};
use crate::host::api::warning_of_version;
use crate::host::connections;
use crate::outbox::MessageRow;

/// One channel and database.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Full URL of the channel, or its id alone where another process publishes.
    pub channel: Option<String>,
    /// The database.
    pub database: PathBuf,
    /// "primary" or "replica".
    pub role: &'static str,
    /// One word.
    pub state: &'static str,
    /// The last message stored here, or applied.
    pub position: Option<Position>,
    /// The last message on the channel, as far as a primary knows; on a replica the position.
    pub accepted: Option<Position>,
    /// The last message that is on the channel for good.
    pub finalized: Option<Position>,
    /// What is not on the channel yet, or not applied yet: messages (on a replica: entries) and bytes.
    pub lag: Option<(i64, i64)>,
    /// Messages and their payload bytes.
    pub done: Option<(i64, i64)>,
    /// What is wrong, if anything.
    pub error: Option<Error>,
    /// What is not replicated, and what users should know.
    pub warnings: Vec<String>,
    /// Requests made to a node.
    pub requests: Option<u64>,
}

impl Service {
    /// All that this process knows of; and the caller's database, where only other processes do.
    pub fn status(&self, caller: Caller<'_>) -> Vec<Status> {
        let mut all: Vec<Status> = self.workers.all::<Publisher>().iter().map(|p| of_publisher(p)).collect();
        all.extend(self.workers.all::<Follower>().iter().map(|f| of_follower(f)));
        all.extend(self.workers.all::<Standby>().iter().map(|standby| Status {
            channel: Some(standby.url()),
            database: standby.path().to_path_buf(),
            role: "primary",
            state: "standby",
            error: standby.error(),
            ..Status::default()
        }));
        all.extend(self.seen_from_outside(caller));
        let of_version = warning_of_version();
        all.iter_mut().for_each(|status| status.warnings.extend(of_version.clone()));
        all
    }

    /// What the caller's own file, and the lock of its sidecar, say of a publisher that is not in this process.
    fn seen_from_outside(&self, caller: Caller<'_>) -> Option<Status> {
        let database = connections::database(caller.host).filter(|d| !self.workers.is_for_publishing(d))?;
        if caller.role().ok()? != Role::Primary {
            return None;
        }
        let noted = Home::noted(caller.conn).ok()?;
        let noted = noted.filter(|noted| noted.is_same_place(&Home::of(noted.channel, &database)));
        let state = if publisher::is_published_elsewhere(&database) { "elsewhere" } else { "stopped" };
        Some(Status {
            channel: noted.map(|home| home.channel.to_string()),
            database: database.path().to_path_buf(),
            role: "primary",
            state,
            ..Status::default()
        })
    }

    /// The messages of the caller's database, where this process publishes it.
    pub fn log(&self, caller: Caller<'_>) -> Result<Vec<MessageRow>> {
        let publisher = connections::database(caller.host).and_then(|d| self.workers.get::<Publisher>(&d));
        publisher.map_or_else(|| Ok(Vec::new()), |publisher| publisher.messages())
    }
}

fn of_publisher(publisher: &Publisher) -> Status {
    let report = publisher.report();
    Status {
        channel: Some(report.url),
        database: report.path,
        role: "primary",
        state: report.state,
        position: Some(report.position),
        accepted: Some(report.accepted),
        finalized: Some(report.finalized),
        lag: Some((report.backlog.messages, report.backlog.bytes)),
        done: Some((report.messages, report.bytes)),
        error: report.error,
        warnings: report.warnings,
        requests: Some(report.requests),
    }
}

fn of_follower(follower: &Follower) -> Status {
    let report = follower.report();
    Status {
        channel: Some(report.url.to_string()),
        database: report.path,
        role: "replica",
        state: report.state,
        position: Some(report.position),
        accepted: Some(report.position),
        finalized: None,
        lag: report.ahead.map(|(entries, bytes)| (entries as i64, bytes as i64)),
        done: Some((report.messages, report.bytes)),
        error: report.error,
        warnings: report.warnings,
        requests: Some(report.requests),
    }
}
