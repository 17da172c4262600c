//! Schema texts that SQLite reads otherwise than they look: comments, bare words, double-quoted strings, names of the rowid.
//!
//! Whether SQLite takes them is not asked here; what it refuses, it refuses everywhere.

use harness::Dice;

use super::look::{quote, Table};

/// A comment, or nothing.
pub fn comment(d: &mut Dice) -> &'static str {
    const COMMENTS: [&str; 8] =
        ["", "", "", " /* why */", " /* ), ' \" */", " -- live rows only\n", " -- it's ) here\n", "/**/"];
    COMMENTS[d.below(COMMENTS.len() as u64) as usize]
}

/// What may follow DEFAULT. `other` is the name of another column.
pub fn default(d: &mut Dice, other: &str) -> String {
    match d.below(20) {
        0..=2 => d.pick(&["active", "none", "abc", "rowid", "new"]).into(),
        3 => d.pick(&["true", "false", "TRUE"]).into(),
        4 => quote(other),
        5 => "\"it\"\"s\"".into(),
        6 => "[in brackets]".into(),
        7 => "`ticks`".into(),
        8 => d.pick(&["-5", "+5", "- 5", "+1.5", "-0.0"]).into(),
        9 => d.pick(&["0x1f", "1e3", ".5", "5."]).into(),
        10 => "('x' -- why\n)".into(),
        11 => "(1 /* ) */ + 1)".into(),
        12 => "(abs(-3))".into(),
        13 => "(lower('ABC') || ' /* no comment */ -- none')".into(),
        14 => "('it''s')".into(),
        15 => "(NULL)".into(),
        16 => "(CASE WHEN 1 THEN 'one' ELSE 'other' END)".into(),
        17 => "x'00ff' /* bytes */".into(),
        18 => "((7))".into(),
        _ => "'-- text'".into(),
    }
}

/// The expression of a generated column that comes from `source`.
pub fn generated(d: &mut Dice, source: &str) -> String {
    match d.below(9) {
        0 => "1".into(),
        1 => format!("lower({source}) -- for logins\n"),
        2 => format!("/* ( */ typeof({source})"),
        3 => format!("({source}) IS NOT NULL"),
        4 => format!("typeof({source}) || \"suffix\""),
        5 => format!("{source} COLLATE NOCASE"),
        6 => format!("{source} IN ('a', 'b' /* , 'c' */)"),
        7 => format!("coalesce({source}, 'old')"),
        _ => "'constant' -- always\n".into(),
    }
}

/// A term of an index.
pub fn term(d: &mut Dice, column: &str) -> String {
    match d.below(9) {
        0 => format!("{column} COLLATE \"nocase\""),
        1 => format!("lower({column} /* of it */)"),
        2 => format!("({column}) COLLATE RTRIM DESC"),
        3 => format!("{column} -- the column\n"),
        4 => format!("{column} || \"suffix\""),
        5 => format!("coalesce({column}, \"none\")"),
        6 => format!("CASE WHEN {column} THEN 'new' ELSE {column} END"),
        7 => format!("{column} = 1"),
        _ => column.to_string(),
    }
}

/// A condition of an index.
pub fn condition(d: &mut Dice, table: &Table, column: &str) -> String {
    let rowid = table.rowid.unwrap_or("rowid");
    match d.below(12) {
        0..=1 => format!("{rowid} > {}", d.below(4)),
        2 => format!("{} > 1", d.pick(&["rowid", "oid", "_rowid_", "ROWID"])),
        3 => format!("{column} = \"active\""),
        4 => format!("{column} <> \"b\" -- double quotes\n"),
        5 => format!("{column} IS NOT NULL -- live rows only\n"),
        6 => format!("/* WHERE */ {column} > 2 /* end */"),
        7 => format!("{column} COLLATE NOCASE > 'A'"),
        8 => format!("{column} BETWEEN 1 AND 'c'"),
        9 => format!("{column} IN (1, 2, 'a', 'b')"),
        // Builds of SQLite differ in whether LIKE looks into blobs, and the shells are of another one than the publisher.
        10 => format!("(typeof({column}) <> 'blob' AND {column} LIKE 'a%') OR {column} IS 3"),
        _ => format!("NOT {column} OR {column} IS NULL"),
    }
}
