//! Loading: what becomes of a connection of the application when it loads us, and when it closes.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use rusqlite::Connection;

use super::Service;
use crate::capture::connected;
use crate::capture::observer::TransactionObserver;
use crate::host::api::Host;
use crate::host::{connections, hooks};

impl Service {
    /// A connection has loaded us. `host` and `conn` are the same connection; `leave` is called while it closes.
    pub fn join(&self, host: Host, conn: &Connection) {
        connections::add(host, host.database());
        self.observe(host, conn);
    }

    /// Takes the hooks of a connection if its file is being published, or may be soon, and has it open what it must (`connected`): the one
    /// place that does, called when a connection is opened or loads us, and in calls of ours on it. Those of other connections are left
    /// alone; their commits are found by polling.
    pub fn observe(&self, host: Host, conn: &Connection) {
        let Some(database) = connections::database(host).filter(|d| self.workers.is_for_publishing(d)) else { return };
        let signal = self.workers.signal(&database);
        let observer = || -> Box<dyn hooks::Observer> { Box::new(TransactionObserver::new(signal.clone())) };
        if !hooks::take(host, Arc::as_ptr(&signal) as usize, observer) {
            signal.untaken.fetch_add(1, Ordering::Relaxed);
        }
        connected::open(conn, &signal.opened_late());
    }

    /// A connection closes. SQLite calls no hook of it any more.
    pub fn leave(&self, host: Host) {
        if let Some(database) = connections::remove(host) {
            self.workers.let_go_of(&database);
        }
        hooks::give_back(host);
    }
}
