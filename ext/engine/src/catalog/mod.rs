//! What a schema is: objects, tables and their keys, texts, virtual tables.

pub mod collation;
pub mod expression;
pub mod modules;
pub mod schema;
pub mod sqltext;
pub mod unique;
pub mod values;
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
