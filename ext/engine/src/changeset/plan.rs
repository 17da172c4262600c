//! What the next message will say, decided in the read transaction in which it is written (`rows`).
//!
//! Invariants
//! - I1. Everything a message says is read in one snapshot, so after it the replica equals a state that the primary had.
//! - A table's whole content is sent unless the channel has it already *and* every later write is in the log under
//!   ids that follow each other without a gap.
//! - The plan is made and carried out in the same read transaction, which the caller has begun and durably synced.

use std::collections::{BTreeMap, BTreeSet};

use logos_log::ids::Digest;
use logos_log::payload::{Encoding, Extent, Settings};
use rusqlite::Connection;

use super::{diff, reset, stamps};
use crate::capture::doubts::{Doubt, Doubts};
use crate::capture::omitted::Omitted;
use crate::capture::{self, canary, columns, Captured};
use crate::catalog::values::{encoding, Reading};
use crate::catalog::{collation, quote, schema, OURS};
use crate::error::{Doing, Error, Result};
use crate::host::blame::{concerns_object, reason};
use crate::host::connection;
use crate::outbox::{Base, Published};

/// What the next message will say.
#[derive(Debug)]
pub struct Plan {
    /// Statements, if the schema changed.
    pub(super) statements: Vec<String>,
    /// Tables with rows to send.
    pub(super) tables: Vec<TablePlan>,
    /// Settings, if they changed.
    pub(super) settings: Option<Settings>,
    /// Sequences, if they changed.
    pub(super) sequences: Option<Vec<(String, i64)>>,
    /// How text is encoded.
    pub(super) encoding: Encoding,
    /// Whether it says of the channel what was not so before: that it may be incomplete, or is not any more.
    pub(super) news_of_doubt: bool,
    /// What the channel has after it (its position is still the old one).
    pub next: Published,
    pub(super) from: i64,
    /// Whether a table was not under capture.
    pub(super) uncaptured: bool,
}

#[derive(Debug)]
pub(super) struct TablePlan {
    pub(super) table: schema::Table,
    pub(super) extent: Extent,
    /// Log ids whose keys are sent.
    pub(super) ids: Vec<i64>,
    /// Rows that are sent besides: a hook saw them, and the log does not have them.
    pub(super) rowids: Vec<i64>,
}

impl TablePlan {
    fn whole(captured: &Captured) -> Self {
        Self { table: captured.table.clone(), extent: Extent::Whole, ids: Vec::new(), rowids: Vec::new() }
    }
}

impl Plan {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
            && self.tables.is_empty()
            && self.settings.is_none()
            && self.sequences.is_none()
            && !self.news_of_doubt
    }

    /// Has the message say whether what the channel has after it may be incomplete; if that is news, it is something to say.
    pub fn call_incomplete(&mut self, incomplete: bool, before: &Published) {
        self.next.incomplete = incomplete;
        self.news_of_doubt = before.incomplete != incomplete;
    }

    /// Whether what was remembered differs, so that it must be stored even when there is nothing to say.
    pub fn moved(&self, before: &Published) -> bool {
        let known = |p: &Published| (p.cursor, p.history, p.canary, p.cookie, p.bases.clone());
        known(&self.next) != known(before)
    }

    /// Whether anything that we look at was changed since the last message: then a commit that no hook saw is explained.
    ///
    /// - A schema that is as it was explains one if it was changed and changed back, which takes two changes: SQLite's backup API counts
    ///   one more than what it overwrites. The triggers that we have made since are not compared.
    /// - Sequences explain none: they grow whoever inserts, with triggers switched off too. Nor does a doubt.
    /// - Whoever writes to a table that is not under capture yet logs nothing.
    /// - A VACUUM leaves the canary as the one before has left it, if nobody could arm it again in between.
    pub fn explains_a_commit(&self, before: &Published) -> bool {
        let known = |p: &Published| (p.cursor, p.history, p.canary);
        let changes = self.next.cookie.zip(before.cookie).map(|(now, before)| now - before);
        !self.statements.is_empty()
            || self.uncaptured
            || self.settings.is_some()
            || known(&self.next) != known(before)
            || !matches!(changes, Some(0 | 1))
            || (changes == Some(1) && !canary::is_armed(self.next.canary))
            || self.next.stamps != before.stamps
    }
}

/// Rows at either end of a table that is only glanced at.
const GLANCE: i64 = 16;

/// What the log holds since the last message.
struct LogSummary {
    last: i64,
    mark: Option<Digest>,
    /// Rows an id.
    ids: BTreeMap<i64, i64>,
}

/// Digest of the last rows of the log up to `seq`, with which a restored backup is told from its original: keys are given out
/// again, but not the random number of each row. `None` where there are none.
fn mark(conn: &Connection, seq: i64) -> rusqlite::Result<Option<Digest>> {
    let mut statement =
        conn.prepare("SELECT seq, r FROM _logos_log WHERE seq > 0 AND seq <= ?1 ORDER BY seq DESC LIMIT ?2")?;
    let mut rows = statement.query([seq, capture::REMEMBERED])?;
    let (mut hasher, mut found) = (blake3::Hasher::new(), false);
    while let Some(row) = rows.next()? {
        found = true;
        hasher.update(&row.get::<_, i64>(0)?.to_le_bytes());
        hasher.update(&row.get::<_, Option<i64>>(1)?.unwrap_or(-1).to_le_bytes());
    }
    Ok(found.then(|| Digest(*hasher.finalize().as_bytes())))
}

fn read_log(conn: &Connection, cursor: i64) -> rusqlite::Result<LogSummary> {
    let End { cursor: last, mark, .. } = log_end(conn)?;
    let mut ids = BTreeMap::new();
    let mut statement = conn.prepare("SELECT tbl, count(*) FROM _logos_log WHERE seq > ?1 GROUP BY tbl")?;
    let mut rows = statement.query([cursor])?;
    while let Some(row) = rows.next()? {
        ids.insert(row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
    }
    Ok(LogSummary { last, mark, ids })
}

/// Where the log ends.
pub(super) struct End {
    /// Its last row.
    pub cursor: i64,
    /// Its mark.
    pub mark: Option<Digest>,
    /// The log's own name.
    pub history: Option<i64>,
}

/// Looks where the log ends; a log that is not there ends before its first row.
pub(super) fn log_end(conn: &Connection) -> rusqlite::Result<End> {
    let history = capture::history(conn)?;
    if history.is_none() {
        return Ok(End { cursor: 0, mark: None, history });
    }
    let cursor = conn.query_row("SELECT max(seq) FROM _logos_log", [], |row| row.get(0))?;
    Ok(End { cursor, mark: mark(conn, cursor)?, history })
}

/// The pages where the tables of ANALYZE begin; as a rule they have no other.
pub fn statistics_pages(conn: &Connection) -> rusqlite::Result<BTreeSet<u32>> {
    let mut statement =
        conn.prepare("SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name GLOB 'sqlite_stat[1-4]'")?;
    let pages = statement.query_map([], |row| row.get(0))?.collect();
    pages
}

/// Digest of what is written without any log row and is nobody's row: the statistics of ANALYZE, and tables that are not replicated
/// (those of virtual tables that are left out, say). Of these a glance must do, since they may be large: their first and last rows.
pub fn statistics(conn: &Connection, survey: &Survey) -> Result<Digest> {
    let doing = || "looking at the statistics of ANALYZE".to_string();
    let how = Reading::of(encoding(conn)?);
    let mut names = conn
        .prepare(&format!(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND lower(name) NOT GLOB '{OURS}*' \
             AND name <> 'sqlite_sequence' ORDER BY name"
        ))
        .doing(doing)?;
    // Nobody can ask for a table, or a column, whose name is no UTF-8.
    let names = names.query_map([], |row| Ok(row.get_ref(0)?.as_str().ok().map(str::to_string)));
    let names: Vec<Option<String>> = names.and_then(Iterator::collect).doing(doing)?;
    let mut queries = Vec::new();
    for name in names.iter().flatten().filter(|name| !survey.captured.iter().any(|c| c.table.name == **name)) {
        let columns = match schema::column_names(conn, name) {
            Err(e) if concerns_object(&e) => continue,
            columns => columns.doing(doing)?,
        };
        for order in ["", "DESC"] {
            let limit = if name.starts_with("sqlite_stat") { -1 } else { GLANCE };
            let sql = format!(
                "SELECT {} FROM main.{} AS t ORDER BY t.rowid {order} LIMIT {limit}",
                how.list(&columns),
                quote(name)
            );
            // A table without rowids has another one beside it, as far as SQLite's own modules go.
            if conn.prepare(&sql).is_ok() {
                queries.push((sql, columns.len()));
            }
        }
    }
    stamps::digest(conn, &how, &queries).doing(doing)
}

/// The schema and its capture as they are at a schema cookie: most messages find them as the one before did.
pub struct Survey {
    cookie: i64,
    objects: Vec<schema::Object>,
    captured: Vec<Captured>,
}

impl Survey {
    fn of(conn: &Connection, cookie: i64, omitted: &mut Omitted) -> Result<Self> {
        let mut objects = schema::read(conn)?;
        let captured = capture::survey(conn, &mut objects, omitted)?;
        Ok(Self { cookie, objects, captured })
    }

    /// Whether a table must be put under capture anew, since there is NULL in its key for the first time.
    pub fn finds_null_key(&self, conn: &Connection, cursor: i64) -> Result<bool> {
        capture::has_logged_null(conn, &self.captured, cursor)
    }
}

/// Decides what the next message says. `conn` is in the read transaction of the snapshot; `survey` is what the last call left.
/// `omitted`: what is left out, which grows by what turns out not to be readable. `untouched` tells whether the last message's stamp
/// of a virtual table still holds, given the tables that hold its rows: all that was committed since is known, and none of it wrote there.
pub fn plan(
    conn: &Connection,
    before: &Published,
    survey: &mut Option<Survey>,
    doubts: &Doubts,
    omitted: &mut Omitted,
    untouched: &dyn Fn(&[String]) -> bool,
) -> Result<Plan> {
    let doing = || "reading the log of changes".to_string();
    collation::accept_any(conn);
    let history = capture::history(conn).doing(doing)?;
    // Another log than the one that was read: it says nothing of what was written meanwhile.
    let anew = (before.history != history).then(|| before.begun_anew());
    let before = anew.as_ref().unwrap_or(before);
    let log = match history {
        Some(_) => read_log(conn, before.cursor).doing(doing)?,
        None => LogSummary { last: 0, mark: None, ids: BTreeMap::new() },
    };
    if anew.is_none() && history.is_some() {
        check_time(conn, before, &log)?;
    }
    let cookie = connection::cookie(conn).doing(doing)?;
    let known = survey.take().filter(|known| known.cookie == cookie);
    let same_schema = known.is_some();
    let survey = survey.insert(known.map_or_else(|| Survey::of(conn, cookie, omitted), Ok)?);
    let (objects, captured) = (&survey.objects, &survey.captured);
    let mut own = |table: &str, column: &str, literal: &str| {
        let captured = captured.iter().find(|c| c.table.name == table)?;
        let logged = captured.id.filter(|id| log.ids.contains_key(id));
        if captured.table.sent_whole && logged.is_some() {
            // All its rows follow anyway.
            return Some(false);
        }
        let logged = logged.map(|id| logged_keys(&captured.table, id, before.cursor, log.last));
        reset::has_value_of_its_own(conn, &captured.table, logged.as_deref(), column, literal).ok()
    };
    let clash =
        |table: &str, column: &str, literal: &str| reset::may_clash(conn, table, column, literal).unwrap_or(true);
    let change = diff::change(&before.schema, objects, &evidence(before, captured, cookie), &mut own, &clash);
    let canary = canary::read(conn).unwrap_or(None);
    let vacuumed = !canary::is_armed(canary) || before.canary.is_some_and(|before| Some(before) != canary);
    let encoding = encoding(conn)?;
    check_encoding(before, encoding)?;
    let how = Reading::of(encoding);
    let mut tables = Vec::new();
    let mut bases = Vec::new();
    let mut stamps = Vec::new();
    let statements = change.statements;
    for captured in captured {
        let remade = change.remade.contains(&captured.table.name);
        if captured.table.is_virtual {
            let (name, shadows) = (&captured.table.name, &captured.table.shadows);
            let former = before.stamps.iter().find(|(of, _)| of == name);
            // A changed schema may have put other rows behind the name.
            let still = former.filter(|_| same_schema && !remade && untouched(shadows));
            let stamp = match still.filter(|_| !stamps::is_any_empty(conn, shadows).unwrap_or(true)) {
                Some(stamp) => stamp.clone(),
                None => match stamps::stamp(conn, &how, shadows) {
                    Err(e) if concerns_object(&e) => {
                        omitted.meet(&captured.table.name, reason(&e), cookie);
                        return plan(conn, before, &mut None, doubts, omitted, untouched);
                    }
                    other => (name.clone(), other.doing(doing)?),
                },
            };
            let changed = doubts.everything() || remade || former != Some(&stamp);
            tables.extend(changed.then(|| TablePlan::whole(captured)));
            stamps.push(stamp);
            continue;
        }
        let former = change.renamed.get(&captured.table.name).unwrap_or(&captured.table.name);
        let unsure = change.unsure.contains(&captured.table.name);
        let table_plan = plan_table(captured, (&before.bases, former), &log, remade || unsure, vacuumed);
        let table_plan = with_doubts((captured, former), table_plan, doubts, log.last);
        bases.extend(captured.id.filter(|_| captured.core).map(|id| Base {
            id,
            name: captured.table.name.clone(),
            intact: captured.intact,
            columns: captured.columns.clone(),
        }));
        tables.extend(table_plan);
    }
    // As the outbox gives them back: in another order they would look changed after a restart, and explain whatever was committed.
    bases.sort_by_key(|base: &Base| base.id);
    stamps.sort();
    let settings = Settings {
        user_version: conn.pragma_query_value(None, "user_version", |row| row.get(0)).doing(doing)?,
        application_id: conn.pragma_query_value(None, "application_id", |row| row.get(0)).doing(doing)?,
    };
    let sequences = schema::sequences(conn).doing(doing)?;
    Ok(Plan {
        statements,
        tables,
        settings: (before.settings != Some(settings)).then_some(settings),
        sequences: (before.sequences != sequences).then(|| sequences.clone()),
        encoding,
        news_of_doubt: false,
        from: before.cursor,
        uncaptured: captured.iter().any(|c| !c.core),
        next: Published {
            position: before.position,
            cursor: log.last,
            cursor_mark: log.mark,
            history,
            schema: objects.clone(),
            bases,
            stamps,
            sequences,
            settings: Some(settings),
            incomplete: before.incomplete,
            encoding: Some(encoding),
            canary,
            cookie: Some(cookie),
        },
    })
}

/// What tells an ALTER from a table made anew.
fn evidence(before: &Published, captured: &[Captured], cookie: i64) -> diff::Evidence {
    let former = |c: &Captured| {
        let ids = [c.id, c.replaces];
        before.bases.iter().find(|b| ids.contains(&Some(b.id)))
    };
    let tables = || captured.iter().filter(|c| !c.table.is_virtual).filter_map(|c| Some((former(c)?, c)));
    diff::Evidence {
        same_table: tables().map(|(was, now)| (was.name.clone(), now.table.name.clone())).collect(),
        called: tables().map(|(was, now)| (was.name.clone(), columns::called(&was.columns, &now.columns))).collect(),
        cookie_moved: before.cookie.map(|before| cookie - before),
    }
}

/// Only another database in the place of the one that was published can have another encoding (the backup API copies it along).
fn check_encoding(before: &Published, now: Encoding) -> Result<()> {
    match before.encoding.filter(|&before| before != now) {
        None => Ok(()),
        Some(before) => Err(Error::fix(
            format!(
                "another database was copied over the published one: its text is {}, the channel's is {}, and no replica can change that",
                now.pragma(),
                before.pragma()
            ),
            "nothing was published from it; copy the former database back, or begin a new channel: SELECT logos_remove(), then publish",
        )),
    }
}

/// The last rows of the log before the cursor are never forgotten: if they are not there as they were, the database is not the
/// one we knew.
fn check_time(conn: &Connection, before: &Published, log: &LogSummary) -> Result<()> {
    let found = mark(conn, before.cursor).doing(|| "reading the log of changes".to_string())?;
    if log.last >= before.cursor && found == before.cursor_mark {
        return Ok(());
    }
    Err(Error::resync(
        format!(
            "this database went back in time: its log ends at {}, but changes up to {} were published from it",
            log.last, before.cursor
        ),
        "nothing was published from the older state, and the channel keeps the newer one. If a backup was restored on \
         purpose, SELECT logos_resync(): it compares the database with the channel and undoes there what only the channel has. \
         Or SELECT logos_remove(): then logos_publish begins a new channel",
    ))
}

/// `former`: the name under which the replica has the table, if it has it. Tables whose texts are alike can trade their names
/// without a difference to be seen between the schemas; only the triggers tell, which go with the rows.
fn plan_table(
    captured: &Captured,
    (bases, former): (&[Base], &str),
    log: &LogSummary,
    remade: bool,
    vacuumed: bool,
) -> Option<TablePlan> {
    let has_rows = |id: i64| log.ids.get(&id).is_some_and(|&n| n > 0);
    // A mark: a row may have gone that nobody can name (`replaced`).
    let marked = |id: i64| has_rows(-id);
    let written = |id: i64| has_rows(id) || marked(id);
    let (id, before) = (captured.id, captured.replaces);
    let base = |id: i64| bases.iter().find(|base| base.id == id && base.name == former);
    let known = id.and_then(base);
    let taken_over = before.is_some_and(|before| base(before).is_some() && !written(before));
    let always_intact = captured.intact && known.is_none_or(|base| base.intact);
    let gap = !always_intact && id.is_some_and(written);
    let whole = remade
        || !captured.core
        || !(known.is_some() || taken_over)
        || gap
        || id.is_some_and(marked)
        || (vacuumed && captured.table.key_is_hidden)
        || (captured.table.sent_whole && id.is_some_and(written));
    if whole {
        return Some(TablePlan::whole(captured));
    }
    let ids: Vec<i64> = id.into_iter().filter(|&id| written(id)).collect();
    (!ids.is_empty()).then(|| TablePlan {
        table: captured.table.clone(),
        extent: Extent::Keys,
        ids,
        rowids: Vec::new(),
    })
}

/// Adds what was written past the log, as far as hooks saw it, under the table's name or its former one. `last`: the last row of the log.
fn with_doubts(
    (captured, former): (&Captured, &str),
    plan: Option<TablePlan>,
    doubts: &Doubts,
    last: i64,
) -> Option<TablePlan> {
    let table = &captured.table;
    if doubts.everything() {
        return Some(TablePlan::whole(captured));
    }
    let names = [table.name.as_str(), former];
    let names = if former == table.name { &names[..1] } else { &names[..] };
    let doubt = doubts.of(names);
    let mut rowids = doubts.guessed(names, last);
    match doubt {
        None if rowids.is_empty() || table.rowid_names.is_empty() => return plan,
        None => {}
        Some(_) if table.rowid_names.is_empty() => return Some(TablePlan::whole(captured)),
        Some(Doubt::Rows(rows)) => rowids.extend(rows),
        // What such a row may have replaced has its own key, so that nothing else was deleted.
        Some(Doubt::Bare(rows)) if table.key_is_rowid && table.unique.is_empty() => rowids.extend(rows),
        Some(Doubt::Bare(_) | Doubt::Whole) => return Some(TablePlan::whole(captured)),
    }
    match plan {
        Some(plan) if plan.extent == Extent::Whole => Some(plan),
        plan => Some(TablePlan {
            table: table.clone(),
            extent: Extent::Keys,
            ids: plan.map(|plan| plan.ids).unwrap_or_default(),
            rowids,
        }),
    }
}

/// The distinct keys that were logged of a table. What the table takes for one key ('a' and 'A' under NOCASE) is one here too.
fn logged_keys(table: &schema::Table, id: i64, after: i64, to: i64) -> String {
    let keys = (0..table.key.len()).map(|i| format!("k{i}")).collect::<Vec<_>>().join(", ");
    let log = format!("SELECT {keys} FROM _logos_log WHERE seq > {after} AND seq <= {to} AND tbl = {id}");
    if table.key_is_rowid {
        return format!("SELECT DISTINCT {keys} FROM ({log})");
    }
    let names =
        table.key.iter().enumerate().map(|(i, k)| format!("{} AS k{i}", quote(k))).collect::<Vec<_>>().join(", ");
    format!("SELECT DISTINCT {keys} FROM (SELECT {names} FROM {} WHERE 0 UNION ALL {log})", quote(&table.name))
}
