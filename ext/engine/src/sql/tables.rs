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

use logos_log::ids::Position;
use rusqlite::types::Value;
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConfig, VTabConnection, VTabCursor,
};
use rusqlite::{ffi, Connection};

use super::{guarded, on_behalf};
use crate::apply::Applied;
use crate::error::{Doing, Error, Result};
use crate::host::api::{host_version, Host};
use crate::service::{options, Attachment, Caller, Service};

type Row = Vec<Value>;
type Rows = fn(&Service, Caller<'_>) -> Result<Vec<Row>>;

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
            on_behalf(self.host, |service, caller| {
                service.prepare_to_attach(caller);
                Ok(())
            })?;
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

#[repr(C)]
struct AttachCursor<'vtab> {
    base: ffi::sqlite3_vtab_cursor,
    host: Host,
    work: Option<Attachment>,
    row: Option<Applied>,
    arguments: [Value; 2],
    rowid: i64,
    phantom: PhantomData<&'vtab AttachTab>,
}

impl AttachCursor<'_> {
    fn start(&mut self) -> Result<()> {
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
        let options = options(argument(&self.arguments[1], "the options")?.as_deref())?;
        self.work = Some(on_behalf(self.host, |service, caller| service.attach(caller, &channel, &options))?);
        self.step()
    }

    fn step(&mut self) -> Result<()> {
        self.rowid += 1;
        self.row = match &mut self.work {
            Some(attachment) => attachment.step()?,
            None => None,
        };
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
    rows: Rows,
}

#[repr(C)]
struct ListTab {
    base: ffi::sqlite3_vtab,
    host: Host,
    rows: Rows,
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
    make: Rows,
    rows: Vec<Row>,
    at: usize,
    phantom: PhantomData<&'vtab ListTab>,
}

// SAFETY: `base` is the first field of a `repr(C)` struct.
unsafe impl VTabCursor for ListCursor<'_> {
    fn filter(&mut self, _plan: c_int, _name: Option<&str>, _args: &Filters<'_>) -> rusqlite::Result<()> {
        self.at = 0;
        self.rows = guarded(|| on_behalf(self.host, self.make))?;
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

fn status_rows(service: &Service, caller: Caller<'_>) -> Result<Vec<Row>> {
    let rows = service.status(caller).into_iter().map(|s| {
        let or_null = |value: Option<Value>| value.unwrap_or(Value::Null);
        let position = |position: Option<Position>| or_null(position.map(|p| text(p.to_string())));
        let (lag_messages, lag_bytes) = s.lag.unzip();
        let (messages, bytes) = s.done.unzip();
        let integer = |n: Option<i64>| or_null(n.map(Value::Integer));
        let (error, hint) = s.error.map(|e| (text(e.message), text(e.hint))).unzip();
        vec![
            or_null(s.channel.map(text)),
            text(s.database.display().to_string()),
            text(s.role),
            text(s.state),
            position(s.position),
            position(s.accepted),
            integer(lag_messages),
            integer(lag_bytes),
            integer(messages),
            integer(bytes),
            or_null(error),
            or_null(hint),
            if s.warnings.is_empty() { Value::Null } else { text(s.warnings.join("; ")) },
            text(host_version()),
            position(s.finalized),
            integer(s.requests.map(|n| n as i64)),
        ]
    });
    Ok(rows.collect())
}

const LOG: &CStr = c"CREATE TABLE x(seq INTEGER, position TEXT, id TEXT, parent TEXT, state TEXT, slot INTEGER, \
    kind TEXT, tables INTEGER, changes INTEGER, bytes INTEGER, fee INTEGER, entries INTEGER, created INTEGER, accepted INTEGER)";

fn log_rows(service: &Service, caller: Caller<'_>) -> Result<Vec<Row>> {
    let integer = |n: Option<i64>| n.map_or(Value::Null, Value::Integer);
    let rows = service.log(caller)?.into_iter().map(|m| {
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
