//! The SQL functions, as one table: name, arity, what it does.

use std::sync::Arc;
use std::time::Duration;

use logos_log::ids::Position;
use logos_log::part::FORMAT_VERSION;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::Connection;
use serde::de::DeserializeOwned;
use serde::Serialize;

use super::permission::may_write;
use super::{database_of, guarded, load, outside_transaction};
use crate::channel::Url;
use crate::error::{Doing, Error, Result};
use crate::patience::Patience;
use crate::publish::{self, Publisher};
use crate::registry;
use crate::replica::{self, Follower, Puller};
use crate::sqlite::api::{host_version, Host};
use crate::sqlite::database::Database;
use crate::sqlite::role::{self, Role};
use crate::sqlite::sidecar::Removal;
use crate::sqlite::{capture, connection, guard};

type Function = fn(&Context<'_>) -> Result<Value>;

/// Whether a function writes anything anywhere, or ends what does. `logos_wait` pulls only where it may.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Read,
    Write,
}
use Does::{Read, Write};

/// Name, number of arguments (-1: any), and the function.
const FUNCTIONS: &[(&str, i32, Does, Function)] = &[
    ("logos_publish", 1, Write, publish),
    ("logos_publish", 2, Write, publish),
    ("logos_flush", 0, Read, flush),
    ("logos_flush", 1, Read, flush),
    ("logos_position", 0, Read, position),
    ("logos_wait", 2, Read, wait),
    ("logos_touch", -1, Write, touch),
    ("logos_resync", 0, Write, resync),
    ("logos_stop", 0, Write, stop),
    ("logos_remove", 0, Write, remove),
    ("logos_version", 0, Read, version),
    ("attach_replica", -1, Read, attach_replica),
    #[cfg(feature = "sim")]
    ("logos_faults", 0, Read, faults),
];

/// How long to wait when the caller does not say.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    for &(name, arity, does, function) in FUNCTIONS {
        let call = move |ctx: &Context<'_>| {
            if does == Write {
                with_connection(ctx, |conn| may_write(conn, name))?;
            }
            function(ctx)
        };
        conn.create_scalar_function(
            name,
            arity,
            FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY,
            move |ctx| guarded(|| call(ctx)).map(ToSqlOutput::Owned),
        )?;
    }
    // A replica's guards call it from their triggers.
    let innocuous = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function(guard::REFUSAL, 0, innocuous, |_| {
        guarded(|| -> Result<Value> { Err(guard::refusal()) })
    })
}

fn host(ctx: &Context<'_>) -> Result<Host> {
    // SAFETY: SQLite calls us on this connection, so it is open for the whole call; we keep neither.
    unsafe { ctx.get_connection().map(|conn| Host::new(conn.handle())) }.doing(|| "finding the connection".into())
}

/// Runs something with the caller's own connection.
fn with_connection<T>(ctx: &Context<'_>, run: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    // SAFETY: SQLite calls us on this connection, so it is open for the whole call; no statement outlives it.
    let conn = unsafe { ctx.get_connection() }.doing(|| "finding the connection".into())?;
    run(&conn)
}

fn text(ctx: &Context<'_>, index: usize, what: &str) -> Result<String> {
    ctx.get::<String>(index).map_err(|_| {
        Error::fix(
            format!("{what} must be text"),
            "nothing was changed; what was given is NULL, a number or a blob: text stands in single quotes",
        )
    })
}

/// Whether somebody interrupted the caller's connection: then any statement on it ends at once. This one names no table, so it
/// reads nothing of the file.
fn is_interrupted(ctx: &Context<'_>) -> bool {
    let step = with_connection(ctx, |conn| Ok(conn.execute_batch("SELECT 1")));
    step.is_ok_and(|done| done.is_err_and(|e| e.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted)))
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

/// Options: one JSON object.
pub(super) fn options<T: DeserializeOwned + Serialize + Default>(json: Option<&str>) -> Result<T> {
    let Some(json) = json else { return Ok(T::default()) };
    serde_json::from_str(json).map_err(|e| {
        // Whatever can be read can be written, so the names are these.
        let names = match serde_json::to_value(T::default()) {
            Ok(serde_json::Value::Object(names)) => names.keys().cloned().collect::<Vec<_>>().join(", "),
            _ => String::new(),
        };
        Error::fix(
            format!("the options {json:?} cannot be used: {e}"),
            format!("nothing was changed; give one JSON object with any of these names: {names}"),
        )
    })
}

fn publish(ctx: &Context<'_>) -> Result<Value> {
    let host = host(ctx)?;
    outside_transaction(host, "logos_publish")?;
    let database = database_of(host)?;
    let url = Url::parse(&text(ctx, 0, "the channel")?)?;
    let json = if ctx.len() > 1 { Some(text(ctx, 1, "the options")?) } else { None };
    let url = publish::publish(&database, &url, &options(json.as_deref())?)?;
    load::take_hooks(host);
    Ok(Value::Text(url))
}

/// The publisher of the caller's database.
fn publisher(ctx: &Context<'_>) -> Result<Arc<Publisher>> {
    let database = database_of(host(ctx)?)?;
    if let Some(publisher) = registry::publisher(&database) {
        load::take_hooks(host(ctx)?);
        return Ok(publisher);
    }
    not_a_replica(ctx)?;
    let stands_by = registry::standby(&database).is_some();
    if stands_by || publish::is_published_elsewhere(&database) {
        let (this_one, when) = match stands_by {
            true => (", and this one stands by", "this one will when it takes over"),
            false => ("", "publish with {\"standby\": true} to go on when it ends"),
        };
        return Err(Error::fix(
            format!("{} is published by another process{this_one}", database.path().display()),
            format!(
                "nothing was lost: what is committed here is captured, and published there. Only the process that publishes knows how \
                 far that has come; {when}"
            ),
        )
        .with_code(rusqlite::ffi::SQLITE_LOCKED));
    }
    if let Some(follower) = attached_to_nothing_yet(ctx)? {
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

/// For what only makes sense on a primary.
fn not_a_replica(ctx: &Context<'_>) -> Result<()> {
    match role(ctx)? {
        Role::Replica(standing) => Err(Error::fix(
            format!("{} is a replica of {}", database_of(host(ctx)?)?.path().display(), standing.url),
            "nothing was changed; this is for the primary. To rebuild a replica, attach a new file to the channel",
        )),
        _ => Ok(()),
    }
}

/// What this process has attached to the caller's database while that is still empty: a replica before its first message.
fn attached_to_nothing_yet(ctx: &Context<'_>) -> Result<Option<Arc<Follower>>> {
    let is_empty = role(ctx)? == Role::Empty;
    Ok(registry::follower(&database_of(host(ctx)?)?).filter(|_| is_empty))
}

fn flush(ctx: &Context<'_>) -> Result<Value> {
    outside_transaction(host(ctx)?, "logos_flush")?;
    let publisher = publisher(ctx)?;
    let interrupted = || is_interrupted(ctx);
    let position = publisher.flush(&Patience::unless(seconds(ctx, 0)?, &interrupted))?;
    Ok(Value::Text(position.to_string()))
}

/// Role of the caller's database.
fn role(ctx: &Context<'_>) -> Result<Role> {
    with_connection(ctx, role::role)
}

fn position(ctx: &Context<'_>) -> Result<Value> {
    let position = match role(ctx)? {
        Role::Replica(standing) => standing.position,
        Role::Empty if attached_to_nothing_yet(ctx)?.is_some() => Position::START,
        _ => {
            let publisher = publisher(ctx)?;
            publisher.position(&Patience::unless(PATIENCE, &|| is_interrupted(ctx)))?
        }
    };
    Ok(Value::Text(position.to_string()))
}

fn wait(ctx: &Context<'_>) -> Result<Value> {
    let wanted = text(ctx, 0, "the position")?;
    let wanted: Position = wanted.parse().map_err(|_| {
        Error::fix(
            format!("{wanted:?} is no position"),
            "nothing was changed; give what logos_flush() or logos_position() returned on the primary",
        )
    })?;
    let interrupted = || is_interrupted(ctx);
    let patience = Patience::unless(seconds(ctx, 1)?, &interrupted);
    let host = host(ctx)?;
    let database = database_of(host)?;
    // What a transaction has begun to see does not change under it, however long we wait.
    let sees_what_comes = !host.in_transaction();
    let role = role(ctx)?;
    let here = match &role {
        Role::Replica(standing) => replica::reached(standing.position, wanted),
        // A replica before its first message: attached by this process, or by another one.
        Role::Empty if registry::publisher(&database).is_none() => replica::reached(Position::START, wanted),
        _ if sees_what_comes => {
            let position = publisher(ctx)?.position(&patience)?;
            Some(replica::reached(position, wanted).unwrap_or(Ok(false)))
        }
        _ => None,
    };
    let reached = match (here, role) {
        (Some(reached), _) => reached?,
        (None, role) if sees_what_comes => match (role, registry::follower(&database)) {
            (Role::Replica(standing), _) => wait_for_replica(ctx, &database, &Url::parse(&standing.url)?, wanted, &patience)?,
            (_, Some(follower)) => wait_for_replica(ctx, &database, follower.url(), wanted, &patience)?,
            (_, None) => wait_for_others(ctx, wanted, &patience)?,
        },
        _ => {
            return Err(Error::fix(
                "logos_wait cannot wait inside a transaction, or in a statement that reads a table: it would go on to see what it saw",
                "nothing was changed; COMMIT or ROLLBACK first, then SELECT logos_wait(…) in a statement of its own",
            ))
        }
    };
    Ok(Value::Integer(reached.into()))
}

fn wait_for_replica(
    ctx: &Context<'_>,
    database: &Database,
    url: &Url,
    wanted: Position,
    patience: &Patience<'_>,
) -> Result<bool> {
    let follower = registry::follower(database);
    if let Some(reached) = follower.as_ref().and_then(|f| f.wait_for(wanted, patience)) {
        return reached;
    }
    if with_connection(ctx, |conn| may_write(conn, "logos_wait")).is_err() {
        return wait_for_others(ctx, wanted, patience);
    }
    // Nobody follows: pull here, as it was attached.
    let options = follower.as_ref().map_or_else(replica::Options::default, |f| f.options().clone());
    let mut puller = Puller::open(database, url, &options)?;
    loop {
        if let Some(reached) = replica::reached(puller.position(), wanted) {
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

/// This connection may not pull, but another process may follow: looks at where the file stands.
fn wait_for_others(ctx: &Context<'_>, wanted: Position, patience: &Patience<'_>) -> Result<bool> {
    while !patience.is_over() {
        patience.check()?;
        std::thread::sleep(patience.step());
        if let Role::Replica(standing) = role(ctx)? {
            if let Some(reached) = replica::reached(standing.position, wanted) {
                return reached;
            }
        }
    }
    Ok(false)
}

/// As a scalar call it would hand out one value and hide what was applied.
fn attach_replica(_: &Context<'_>) -> Result<Value> {
    Err(Error::fix(
        "attach_replica is a table, with a row for each message that it applies",
        "nothing was changed; SELECT * FROM attach_replica('dir:PATH/<channel id>')",
    ))
}

fn touch(ctx: &Context<'_>) -> Result<Value> {
    if ctx.len() < 2 {
        return Err(Error::fix(
            "logos_touch needs a table and the values of its key",
            "nothing was logged; for example SELECT logos_touch('item', 1)",
        ));
    }
    not_a_replica(ctx)?;
    let table = text(ctx, 0, "the table")?;
    let key = (1..ctx.len())
        .map(|i| ctx.get::<Value>(i))
        .collect::<rusqlite::Result<Vec<_>>>()
        .doing(|| "reading the key".into())?;
    with_connection(ctx, |conn| {
        if role::role(conn)? != Role::Primary {
            return Err(Error::fix(
                "this database is not under capture",
                "nothing was logged; SELECT logos_publish('dir:…') first",
            ));
        }
        capture::touch(conn, &table, &key)
    })?;
    Ok(Value::Null)
}

fn resync(ctx: &Context<'_>) -> Result<Value> {
    let host = host(ctx)?;
    outside_transaction(host, "logos_resync")?;
    not_a_replica(ctx)?;
    publish::resync(publisher(ctx)?).map(Value::Text)
}

/// Ends whatever this process runs for the database. Returns what that was.
fn stop_all(database: &Database) -> Vec<&'static str> {
    let mut stopped = Vec::new();
    if let Some(standby) = registry::remove_standby(database) {
        standby.end();
        stopped.push("standby");
    }
    if let Some(publisher) = registry::remove_publisher(database) {
        publish::end(publisher, PATIENCE);
        stopped.push("publisher");
    }
    if let Some(follower) = registry::remove_follower(database) {
        follower.stop(PATIENCE);
        stopped.push("follower");
    }
    stopped
}

fn stop(ctx: &Context<'_>) -> Result<Value> {
    let stopped = stop_all(&database_of(host(ctx)?)?);
    Ok(Value::Text(if stopped.is_empty() {
        "nothing to stop".into()
    } else {
        format!("stopped: {}", stopped.join(", "))
    }))
}

fn remove(ctx: &Context<'_>) -> Result<Value> {
    let host = host(ctx)?;
    outside_transaction(host, "logos_remove")?;
    let database = database_of(host)?;
    let role = role(ctx)?;
    registry::former_publishers(&database).into_iter().for_each(|former| publish::end(former, PATIENCE));
    // What stands by goes on doing so where removal is refused.
    let refused_or_not = registry::standby(&database).map(|_| Removal::begin(database.path())).transpose()?;
    stop_all(&database);
    registry::former_publishers(&database).into_iter().for_each(|former| publish::end(former, PATIENCE));
    let sidecar = refused_or_not.map_or_else(|| Removal::begin(database.path()), Ok)?;
    match role {
        Role::Empty | Role::Plain => {}
        Role::Primary => publish::remove_from(&database)?,
        Role::Replica(_) => guard::release(&mut connection::open(&database)?)?,
    }
    sidecar.finish()?;
    Ok(Value::Text("removed".into()))
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
    Ok(Value::Text(crate::fault::POINTS.join(" ")))
}
