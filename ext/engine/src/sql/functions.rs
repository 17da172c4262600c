//! The SQL functions, as one table: name, arity, and which use case it is.

use std::time::Duration;

use logos_log::ids::Position;
use logos_log::part::FORMAT_VERSION;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::Connection;

use super::{guarded, on_behalf};
use crate::apply::guard;
use crate::error::{Doing, Error, Result};
use crate::host::api::{host_version, Host};
use crate::service::{options, refuse_scalar, Caller, Service};

type Function = fn(&Context<'_>) -> Result<Value>;

/// Name, number of arguments (-1: any), and the function.
const FUNCTIONS: &[(&str, i32, Function)] = &[
    ("logos_publish", 1, publish),
    ("logos_publish", 2, publish),
    ("logos_flush", 0, flush),
    ("logos_flush", 1, flush),
    ("logos_position", 0, position),
    ("logos_wait", 2, wait),
    ("logos_touch", -1, touch),
    ("logos_resync", 0, resync),
    ("logos_stop", 0, stop),
    ("logos_remove", 0, remove),
    ("logos_version", 0, version),
    ("attach_replica", -1, |_| Err(refuse_scalar())),
    #[cfg(feature = "sim")]
    ("logos_faults", 0, faults),
];

/// How long to wait when the caller does not say.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    for &(name, arity, function) in FUNCTIONS {
        conn.create_scalar_function(
            name,
            arity,
            FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY,
            move |ctx| guarded(|| function(ctx)).map(ToSqlOutput::Owned),
        )?;
    }
    // A replica's guards call it from their triggers.
    let innocuous = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function(guard::REFUSAL, 0, innocuous, |_| {
        guarded(|| -> Result<Value> { Err(guard::refusal()) })
    })
}

/// Does something for the caller's connection.
fn call<T>(ctx: &Context<'_>, run: impl FnOnce(&Service, Caller<'_>) -> Result<T>) -> Result<T> {
    // SAFETY: SQLite calls us on this connection, so it is open for the whole call; we keep neither.
    let host = unsafe { ctx.get_connection().map(|conn| Host::new(conn.handle())) };
    on_behalf(host.doing(|| "finding the connection".into())?, run)
}

fn text(ctx: &Context<'_>, index: usize, what: &str) -> Result<String> {
    ctx.get::<String>(index).map_err(|_| {
        Error::fix(
            format!("{what} must be text"),
            "nothing was changed; what was given is NULL, a number or a blob: text stands in single quotes",
        )
    })
}

/// Seconds, as an argument.
fn seconds(ctx: &Context<'_>, index: usize) -> Result<Duration> {
    if index >= ctx.len() {
        return Ok(PATIENCE);
    }
    let seconds = ctx.get::<f64>(index).ok().or_else(|| ctx.get::<i64>(index).ok().map(|s| s as f64));
    seconds.filter(|s| *s >= 0.0).and_then(|s| Duration::try_from_secs_f64(s.min(1e9)).ok()).ok_or_else(|| {
        Error::fix(
            "the time to wait must be a number of seconds, not negative",
            "nothing was changed; give for example 10",
        )
    })
}

fn publish(ctx: &Context<'_>) -> Result<Value> {
    call(ctx, |service, caller| {
        let url = text(ctx, 0, "the channel")?;
        let json = if ctx.len() > 1 { Some(text(ctx, 1, "the options")?) } else { None };
        service.publish(caller, &url, &options(json.as_deref())?).map(Value::Text)
    })
}

fn flush(ctx: &Context<'_>) -> Result<Value> {
    call(ctx, |service, caller| {
        let time = seconds(ctx, 0);
        service.flush(caller, time?).map(|position| Value::Text(position.to_string()))
    })
}

fn position(ctx: &Context<'_>) -> Result<Value> {
    call(ctx, |service, caller| service.position(caller, PATIENCE)).map(|position| Value::Text(position.to_string()))
}

fn wait(ctx: &Context<'_>) -> Result<Value> {
    let wanted = text(ctx, 0, "the position")?;
    let wanted: Position = wanted.parse().map_err(|_| {
        Error::fix(
            format!("{wanted:?} is no position"),
            "nothing was changed; give what logos_flush() or logos_position() returned on the primary",
        )
    })?;
    let time = seconds(ctx, 1)?;
    call(ctx, |service, caller| service.wait(caller, wanted, time)).map(|reached| Value::Integer(reached.into()))
}

fn touch(ctx: &Context<'_>) -> Result<Value> {
    if ctx.len() < 2 {
        return Err(Error::fix(
            "logos_touch needs a table and the values of its key",
            "nothing was logged; for example SELECT logos_touch('item', 1)",
        ));
    }
    call(ctx, |service, caller| {
        let table = text(ctx, 0, "the table")?;
        let key = (1..ctx.len())
            .map(|i| ctx.get::<Value>(i))
            .collect::<rusqlite::Result<Vec<_>>>()
            .doing(|| "reading the key".into())?;
        service.touch(caller, &table, &key)
    })
    .map(|()| Value::Null)
}

fn resync(ctx: &Context<'_>) -> Result<Value> {
    call(ctx, |service, caller| service.resync(caller)).map(Value::Text)
}

fn stop(ctx: &Context<'_>) -> Result<Value> {
    let stopped = call(ctx, |service, caller| service.stop(caller))?;
    Ok(Value::Text(match stopped.as_slice() {
        [] => "nothing to stop".into(),
        some => format!("stopped: {}", some.join(", ")),
    }))
}

fn remove(ctx: &Context<'_>) -> Result<Value> {
    call(ctx, |service, caller| service.remove(caller)).map(|()| Value::Text("removed".into()))
}

fn version(_: &Context<'_>) -> Result<Value> {
    Ok(Value::Text(format!(
        "logos {}, SQLite {}, payload format {FORMAT_VERSION}",
        env!("CARGO_PKG_VERSION"),
        host_version()
    )))
}

#[cfg(feature = "sim")]
fn faults(_: &Context<'_>) -> Result<Value> {
    Ok(Value::Text(crate::host::fault::POINTS.join(" ")))
}
