//! Everything that touches a database: capture and snapshots on the primary, apply on the replica, the sidecar.
//!
//! `api`, `hooks`, `hosthooks` and `idle` are the only files of this folder with `unsafe`; the rest is SQL through rusqlite.
//! Not here: channels, threads, decisions about when to do what (`publish`, `replica`).

pub mod api;
pub mod apply;
mod canary;
pub mod capture;
pub mod collation;
pub mod columns;
pub mod compare;
pub mod connected;
pub mod connection;
pub mod database;
pub mod diff;
pub mod expression;
pub mod guard;
pub mod home;
pub mod hooks;
pub mod hosthooks;
pub mod idle;
pub mod left_out;
mod modules;
pub mod omitted;
mod replaced;
pub mod reset;
pub mod role;
pub mod schema;
mod section;
pub mod sidecar;
pub mod snapshot;
pub mod sqltext;
pub mod stamps;
mod triggers;
pub mod unique;
pub mod virtuals;

/// Prefix of every object that is ours in a user's database.
pub const OURS: &str = "_logos_";

/// `name` as an SQL identifier, quoted so that any name is safe.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL string literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// All of the conditions. In pairs, so that even very many nest less deep than the lowest limit that an application may set
/// (SQLITE_LIMIT_EXPR_DEPTH; SQLite's own advice for untrusted input is 10).
pub fn all_of(conditions: &[String]) -> String {
    paired(conditions, "AND")
}

/// Any of the conditions, in the same way.
pub fn any_of(conditions: &[String]) -> String {
    paired(conditions, "OR")
}

fn paired(conditions: &[String], operator: &str) -> String {
    match conditions {
        [] => "1".into(),
        [one] => one.clone(),
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            format!("({} {operator} {})", paired(left, operator), paired(right, operator))
        }
    }
}
