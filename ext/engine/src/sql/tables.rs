//! The tables: `attach_replica` (a table function), `logos_status` and `logos_log`.
//!
//! `attach_replica` is lazy: each row it returns is a message that was applied just now, so a query that stops early, or is
//! interrupted, stops between two messages.
//!
//! rusqlite does not guard the methods of a table against panics, which must not leave them: those that do more than hand out what
//! is there are guarded here.

use std::borrow::Cow;
use std::ffi::{c_int, CStr};
use std::marker::PhantomData;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConfig, VTabConnection, VTabCursor,
};
use rusqlite::{ffi, Connection};

use super::functions::options;
use super::permission::may_write;
use super::{database_of, guarded, outside_transaction};
use crate::channel::Url;
use crate::error::{Doing, Error, Result};
use crate::publish;
use crate::registry;
use crate::replica::{Follower, Options, Puller};
use crate::sqlite::api::{host_version, warning_of_version, Host};
use crate::sqlite::apply::Applied;
use crate::sqlite::database::Database;
use crate::sqlite::home::Home;
use crate::sqlite::role::{self, Role};
use crate::sqlite::{connection, idle};

type Row = Vec<Value>;

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    const ATTACH: Module<'static, AttachTab> = Module::eponymous_only_module();
    const LIST: Module<'static, ListTab> = Module::eponymous_only_module();
    conn.create_module(c"attach_replica", &ATTACH, Some(()))?;
    conn.create_module(c"logos_status", &LIST, Some(List { declare: STATUS, rows: status_rows }))?;
    conn.create_module(c"logos_log", &LIST, Some(List { declare: LOG, rows: log_rows }))
}

/// # Safety
/// `db` is what SQLite passed to connect; the table goes before the connection does.
unsafe fn host(db: &mut VTabConnection) -> Host {
    // SAFETY: as the caller says.
    unsafe { Host::new(db.handle()) }
}

fn direct_only(db: &mut VTabConnection) -> rusqlite::Result<()> {
    db.config(VTabConfig::DirectOnly)
}

fn text(s: impl Into<String>) -> Value {
    Value::Text(s.into())
}

// ---- attach_replica -------------------------------------------------------------------------------------------------

const ATTACH_COLUMNS: &CStr =
    c"CREATE TABLE x(seq INTEGER, position TEXT, kind TEXT, tables INTEGER, changes INTEGER, \
    bytes INTEGER, channel TEXT HIDDEN, options TEXT HIDDEN)";
const CHANNEL: c_int = 6;
const OPTIONS: c_int = 7;

#[repr(C)]
struct AttachTab {
    base: ffi::sqlite3_vtab,
    host: Host,
}

// SAFETY: `base` is the first field of a `repr(C)` struct.
unsafe impl<'vtab> VTab<'vtab> for AttachTab {
    type Aux = ();
    type Cursor = AttachCursor<'vtab>;

    fn connect(
        db: &mut VTabConnection,
        _aux: Option<&()>,
        _module: &[u8],
        _database: &[u8],
        _table: &[u8],
        _args: &[&[u8]],
    ) -> rusqlite::Result<(Cow<'static, CStr>, Self)> {
        guarded(|| -> rusqlite::Result<_> {
            direct_only(db)?;
            // SAFETY: SQLite disconnects the table before it closes the connection.
            let host = unsafe { host(db) };
            Ok((Cow::Borrowed(ATTACH_COLUMNS), Self { base: ffi::sqlite3_vtab::default(), host }))
        })
    }

    fn best_index(&self, info: &mut IndexInfo) -> rusqlite::Result<bool> {
        guarded(|| -> Result<_> {
            use_wal_while_nobody_reads(self.host);
            let mut arguments = [None, None];
            let mut usable = true;
            for (i, constraint) in info.constraints().enumerate() {
                let slot = constraint.column() - CHANNEL;
                if constraint.operator() == IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ && (0..2).contains(&slot) {
                    usable &= constraint.is_usable();
                    arguments[slot as usize] = Some(i);
                }
            }
            let mut plan = 0;
            for (slot, constraint) in arguments.iter().enumerate() {
                if let Some(constraint) = constraint {
                    plan |= 1 << slot;
                    let mut usage = info.constraint_usage(*constraint);
                    usage.set_argv_index((plan as u32).count_ones() as c_int);
                    usage.set_omit(true);
                }
            }
            info.set_idx_num(plan);
            info.set_estimated_cost(1e6);
            Ok(usable)
        })
    }

    fn open(&'vtab mut self) -> rusqlite::Result<AttachCursor<'vtab>> {
        Ok(AttachCursor {
            base: ffi::sqlite3_vtab_cursor::default(),
            host: self.host,
            work: None,
            row: None,
            arguments: [Value::Null, Value::Null],
            rowid: 0,
            phantom: PhantomData,
        })
    }
}

/// A running SELECT holds a read lock on its own connection, and outside WAL mode that would keep the pulling connection
/// from committing. So an empty file, or a replica, is brought into WAL mode while the SELECT is only being prepared.
/// Whatever fails here fails again, with a sentence, when the SELECT runs.
fn use_wal_while_nobody_reads(host: Host) {
    // SAFETY: SQLite calls us on this connection, so it is open for the whole call; this `Connection` does not own it.
    let Ok(caller) = (unsafe { Connection::from_handle(host.as_ptr()) }) else { return };
    if may_write(&caller, "attach_replica").is_err() {
        return;
    }
    let Some(database) = registry::database(host).filter(|_| host.autocommit()) else { return };
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

struct Work {
    puller: Puller,
    follower: Arc<Follower>,
    follow: bool,
}

#[repr(C)]
struct AttachCursor<'vtab> {
    base: ffi::sqlite3_vtab_cursor,
    host: Host,
    work: Option<Work>,
    row: Option<Applied>,
    arguments: [Value; 2],
    rowid: i64,
    phantom: PhantomData<&'vtab AttachTab>,
}

impl AttachCursor<'_> {
    fn start(&mut self) -> Result<()> {
        // SAFETY: SQLite calls us on this connection, so it is open for the whole call; this `Connection` does not own it.
        let caller = unsafe { Connection::from_handle(self.host.as_ptr()) }.doing(|| "attaching".into())?;
        may_write(&caller, "attach_replica")?;
        outside_transaction(self.host, "attach_replica")?;
        let database = database_of(self.host)?;
        let argument = |value: &Value, what: &str| match value {
            Value::Text(text) => Ok(Some(text.clone())),
            Value::Null => Ok(None),
            _ => Err(Error::fix(
                format!("{what} must be text"),
                "nothing was changed; for example attach_replica('dir:orders')",
            )),
        };
        let Some(channel) = argument(&self.arguments[0], "the channel")? else {
            return Err(Error::fix(
                "attach_replica needs the URL of a channel",
                "nothing was changed; SELECT * FROM attach_replica('dir:PATH/<channel id>'), with the URL that logos_publish returned",
            ));
        };
        let options: Options = options(argument(&self.arguments[1], "the options")?.as_deref())?;
        let url = Url::parse(&channel)?;
        let puller = Puller::open(&database, &url, &options).inspect_err(|e| {
            // A channel that is not there yet, or a database that is refused, shows in the status too.
            if registry::publisher(&database).is_none() {
                registry::add_follower(&database, Follower::new(&database, &url, &options)).note(None, &Err(e.clone()));
            }
        })?;
        let mut follower = registry::add_follower(&database, Follower::new(&database, puller.url(), &options));
        if !follower.is_for(puller.url(), &options) {
            registry::remove_follower(&database).iter().for_each(|f| f.retire());
            follower = registry::add_follower(&database, Follower::new(&database, puller.url(), &options));
        }
        self.work = Some(Work { puller, follower, follow: options.follow });
        self.step()
    }

    fn step(&mut self) -> Result<()> {
        self.rowid += 1;
        self.row = None;
        let Some(work) = &mut self.work else { return Ok(()) };
        let outcome = work.puller.pull();
        work.follower.note(Some(&work.puller), &outcome);
        self.row = match outcome {
            // Half an entry at this moment is no more than one that is not there yet: the follower waits for it.
            Err(e) if e.waits && work.follow => None,
            outcome => outcome?,
        };
        if self.row.is_none() {
            if let Some(done) = self.work.take().filter(|work| work.follow) {
                done.follower.follow(done.puller)?;
            }
        }
        Ok(())
    }
}

impl Drop for AttachCursor<'_> {
    /// SQLite closes the cursor: connections and files are closed here, where a panic ends.
    fn drop(&mut self) {
        let work = self.work.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(work)));
    }
}

// SAFETY: `base` is the first field of a `repr(C)` struct.
unsafe impl VTabCursor for AttachCursor<'_> {
    fn filter(&mut self, plan: c_int, _name: Option<&str>, args: &Filters<'_>) -> rusqlite::Result<()> {
        guarded(|| {
            (self.work, self.row, self.rowid) = (None, None, 0);
            self.arguments = [Value::Null, Value::Null];
            let mut next = 0;
            for slot in 0..2 {
                if plan & (1 << slot) != 0 {
                    self.arguments[slot] = args.get(next).doing(|| "reading the arguments".into())?;
                    next += 1;
                }
            }
            self.start()
        })
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        guarded(|| self.step())
    }

    fn eof(&self) -> bool {
        self.row.is_none()
    }

    fn column(&self, ctx: &mut Context, column: c_int) -> rusqlite::Result<()> {
        guarded(|| {
            let value = match (&self.row, column) {
                (Some(applied), 0) => Value::Integer(applied.position.seq as i64),
                (Some(applied), 1) => text(applied.position.to_string()),
                (Some(applied), 2) => text(applied.kind),
                (Some(applied), 3) => Value::Integer(applied.tables as i64),
                (Some(applied), 4) => Value::Integer(applied.changes as i64),
                (Some(applied), 5) => Value::Integer(applied.bytes as i64),
                (_, CHANNEL | OPTIONS) => self.arguments[(column - CHANNEL) as usize].clone(),
                _ => Value::Null,
            };
            ctx.set_result(&value)
        })
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        Ok(self.rowid)
    }
}

// ---- logos_status and logos_log -------------------------------------------------------------------------------------

/// A table whose rows are made when a query begins.
struct List {
    declare: &'static CStr,
    rows: fn(Host) -> Result<Vec<Row>>,
}

#[repr(C)]
struct ListTab {
    base: ffi::sqlite3_vtab,
    host: Host,
    rows: fn(Host) -> Result<Vec<Row>>,
}

// SAFETY: `base` is the first field of a `repr(C)` struct.
unsafe impl<'vtab> VTab<'vtab> for ListTab {
    type Aux = List;
    type Cursor = ListCursor<'vtab>;

    fn connect(
        db: &mut VTabConnection,
        aux: Option<&List>,
        _module: &[u8],
        _database: &[u8],
        _table: &[u8],
        _args: &[&[u8]],
    ) -> rusqlite::Result<(Cow<'static, CStr>, Self)> {
        guarded(|| -> rusqlite::Result<_> {
            direct_only(db)?;
            let list = aux.ok_or_else(|| Error::bug("a table without its list"))?;
            // SAFETY: SQLite disconnects the table before it closes the connection.
            let host = unsafe { host(db) };
            let table = Self { base: ffi::sqlite3_vtab::default(), host, rows: list.rows };
            Ok((Cow::Borrowed(list.declare), table))
        })
    }

    fn best_index(&self, info: &mut IndexInfo) -> rusqlite::Result<bool> {
        info.set_estimated_cost(100.0);
        Ok(true)
    }

    fn open(&'vtab mut self) -> rusqlite::Result<ListCursor<'vtab>> {
        let base = ffi::sqlite3_vtab_cursor::default();
        Ok(ListCursor { base, host: self.host, make: self.rows, rows: Vec::new(), at: 0, phantom: PhantomData })
    }
}

#[repr(C)]
struct ListCursor<'vtab> {
    base: ffi::sqlite3_vtab_cursor,
    host: Host,
    make: fn(Host) -> Result<Vec<Row>>,
    rows: Vec<Row>,
    at: usize,
    phantom: PhantomData<&'vtab ListTab>,
}

// SAFETY: `base` is the first field of a `repr(C)` struct.
unsafe impl VTabCursor for ListCursor<'_> {
    fn filter(&mut self, _plan: c_int, _name: Option<&str>, _args: &Filters<'_>) -> rusqlite::Result<()> {
        self.at = 0;
        self.rows = guarded(|| (self.make)(self.host))?;
        Ok(())
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        self.at += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.at >= self.rows.len()
    }

    fn column(&self, ctx: &mut Context, column: c_int) -> rusqlite::Result<()> {
        guarded(|| {
            let value = self.rows.get(self.at).and_then(|row| row.get(column as usize));
            ctx.set_result(value.unwrap_or(&Value::Null))
        })
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        Ok(self.at as i64)
    }
}

const STATUS: &CStr = c"CREATE TABLE x(channel TEXT, database TEXT, role TEXT, state TEXT, position TEXT, \
    accepted_position TEXT, lag_messages INTEGER, lag_bytes INTEGER, messages INTEGER, bytes INTEGER, error TEXT, \
    hint TEXT, warnings TEXT, sqlite TEXT, final_position TEXT, requests INTEGER)";

fn status_rows(host: Host) -> Result<Vec<Row>> {
    let fault = |error: Option<Error>| match error {
        Some(e) => [text(e.message), text(e.hint)],
        None => [Value::Null, Value::Null],
    };
    let of_version = warning_of_version();
    let warnings = |all: &[String]| {
        let all: Vec<&str> = all.iter().chain(&of_version).map(String::as_str).collect();
        if all.is_empty() {
            Value::Null
        } else {
            text(all.join("; "))
        }
    };
    let mut rows = Vec::new();
    for publisher in registry::publishers() {
        let r = publisher.report();
        let [error, hint] = fault(r.error);
        let warnings = warnings(&r.warnings);
        rows.push(vec![
            text(r.url),
            text(r.path.display().to_string()),
            text("primary"),
            text(r.state),
            text(r.position.to_string()),
            text(r.accepted.to_string()),
            Value::Integer(r.backlog.messages),
            Value::Integer(r.backlog.bytes),
            Value::Integer(r.messages),
            Value::Integer(r.bytes),
            error,
            hint,
            warnings,
            text(host_version()),
            text(r.finalized.to_string()),
            Value::Integer(r.requests as i64),
        ]);
    }
    for follower in registry::followers() {
        let r = follower.report();
        let ahead = |n: Option<u64>| n.map_or(Value::Null, |n| Value::Integer(n as i64));
        let (entries, bytes) = (ahead(r.ahead.map(|a| a.0)), ahead(r.ahead.map(|a| a.1)));
        let [error, hint] = fault(r.error);
        rows.push(vec![
            text(r.url.to_string()),
            text(r.path.display().to_string()),
            text("replica"),
            text(r.state),
            text(r.position.to_string()),
            text(r.position.to_string()),
            entries,
            bytes,
            Value::Integer(r.messages),
            Value::Integer(r.bytes),
            error,
            hint,
            warnings(&r.warnings),
            text(host_version()),
            Value::Null,
            Value::Integer(r.requests as i64),
        ]);
    }
    let bare = |channel: Option<String>, path: &Path, state, error| {
        let mut row =
            vec![channel.map_or(Value::Null, text), text(path.display().to_string()), text("primary"), text(state)];
        row.resize(16, Value::Null);
        let [error, hint] = fault(error);
        (row[10], row[11], row[12], row[13]) = (error, hint, warnings(&[]), text(host_version()));
        row
    };
    rows.extend(registry::standbys().iter().map(|s| bare(Some(s.url()), s.path(), "standby", s.error())));
    if let Some((database, channel, state)) = seen_from_outside(host) {
        rows.push(bare(channel, database.path(), state, None));
    }
    Ok(rows)
}

/// What the caller's own file, and the lock of its sidecar, say of a publisher that is not in this process.
fn seen_from_outside(host: Host) -> Option<(Database, Option<String>, &'static str)> {
    let database = registry::database(host).filter(|database| !registry::is_for_publishing(database))?;
    // SAFETY: SQLite calls us on this connection, so it is open for the whole call; this `Connection` does not own it.
    let caller = unsafe { Connection::from_handle(host.as_ptr()) }.ok()?;
    if role::role(&caller).ok()? != Role::Primary {
        return None;
    }
    let noted = Home::noted(&caller).ok()?.filter(|noted| noted.is_same_place(&Home::of(noted.channel, &database)));
    let state = if publish::is_published_elsewhere(&database) { "elsewhere" } else { "stopped" };
    Some((database, noted.map(|home| home.channel.to_string()), state))
}

const LOG: &CStr = c"CREATE TABLE x(seq INTEGER, position TEXT, id TEXT, parent TEXT, state TEXT, slot INTEGER, \
    kind TEXT, tables INTEGER, changes INTEGER, bytes INTEGER, fee INTEGER, entries INTEGER, created INTEGER, accepted INTEGER)";

fn log_rows(host: Host) -> Result<Vec<Row>> {
    let publisher = registry::database(host).and_then(|database| registry::publisher(&database));
    let Some(publisher) = publisher else { return Ok(Vec::new()) };
    let integer = |n: Option<i64>| n.map_or(Value::Null, Value::Integer);
    let rows = publisher.messages()?.into_iter().map(|m| {
        vec![
            Value::Integer(m.position.seq as i64),
            text(m.position.to_string()),
            m.id.map_or(Value::Null, |id| text(id.to_string())),
            m.parent.map_or(Value::Null, |id| text(id.to_string())),
            text(m.state.word()),
            integer(m.slot),
            text(m.kind),
            Value::Integer(m.tables),
            Value::Integer(m.changes),
            Value::Integer(m.bytes),
            integer(m.fee),
            Value::Integer(m.parts),
            Value::Integer(m.created),
            integer(m.accepted),
        ]
    });
    Ok(rows.collect())
}
