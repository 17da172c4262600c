//! Expressions of a schema's text (of index terms, conditions, generated columns, defaults), written so that they mean in a query
//! of ours what they mean where they stand.
//!
//! Out of there four things would change: a comment at the end hides what follows; "text" in double quotes that names no column
//! is a string there, and an error for a writer who has switched that off; a column may stand behind its table's name; and a
//! comparison depends on the types of its columns, which NEW.x has not in a trigger (SQLite 3.40: `NEW.n = '5'` is false for 5).
//!
//! Invariants
//! - The text has no comments, no table names and no strings in double quotes. It is a function of what is given: no query, no state.
//! - `columns` has every column that the expression reads, and none that it does not: a trigger that names a column keeps it
//!   from being dropped.
//!
//! Not a parser: what it does not understand it leaves as it is; SQLite is asked whether the outcome has a meaning (`replaced`).

use super::sqltext::{self, Token};
use super::{literal, quote};

/// What a column's declared type does to values that it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Text that looks like a number becomes one.
    Numeric,
    /// Numbers become text.
    Text,
    /// Nothing.
    Blob,
}

impl Affinity {
    /// That of a declared type (SQLite's datatypes, section 3.1).
    pub fn of(declared: &str, strict: bool) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if declared.is_empty() || (strict && declared == "ANY") {
            Self::Blob
        } else if has(&["INT"]) {
            Self::Numeric
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Self::Text
        } else if has(&["BLOB"]) {
            Self::Blob
        } else {
            Self::Numeric
        }
    }
}

/// An expression over the columns of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// As it can be written in a query over the table, or over anything whose columns have the same names.
    pub text: String,
    /// The columns that it reads.
    pub columns: Vec<String>,
    /// Whether it reads the rowid by a name that is no column.
    pub reads_rowid: bool,
    /// Columns that it reads as JSON, which fails if they hold something else.
    json: Vec<String>,
    operands: Operands,
}

/// What may be compared in an expression.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Operands {
    /// Whether it compares at all, other than with NULL.
    compared: bool,
    /// Text that may look like a number: such a literal, or whatever a function returns.
    texts: bool,
    /// Numbers, in the same sense.
    numbers: bool,
    /// A CAST, which has a type of its own.
    casts: bool,
}

/// A value in the place of a column, for `Expression::over`.
pub struct Operand {
    /// The SQL of the value as the expression must get it.
    pub sql: String,
    /// Conditions under which the expression's value may be another one nevertheless.
    pub doubts: Vec<String>,
}

impl Expression {
    /// Reads an expression of a table with these columns. `rowid`: names that mean its rowid there (only conditions of
    /// indexes may read it; elsewhere "rowid" is a string).
    pub fn read(text: &str, columns: &[String], rowid: &[String]) -> Self {
        Reader {
            tokens: sqltext::tokens(text),
            columns,
            rowid,
            found: Vec::new(),
            json: Vec::new(),
            reads_rowid: false,
        }
        .read()
    }

    /// A column's value, so that a comparison treats it as it treats the column. Types matter only where one operand of a
    /// comparison is a number and another is text that may look like one.
    pub fn operand(&self, column: &str, value: &str, affinity: impl Fn(&str) -> Affinity) -> Operand {
        let others = |of: Affinity| self.columns.iter().any(|c| !c.eq_ignore_ascii_case(column) && affinity(c) == of);
        let Operands { compared, texts, numbers, casts } = self.operands;
        let own = affinity(column);
        let matters = compared
            && match own {
                Affinity::Numeric => texts || others(Affinity::Text) || others(Affinity::Blob),
                Affinity::Text => numbers || others(Affinity::Numeric) || others(Affinity::Blob),
                Affinity::Blob => casts || others(Affinity::Text),
            };
        let (mut sql, mut doubts) = (value.to_string(), Vec::new());
        if self.json.iter().any(|c| c.eq_ignore_ascii_case(column)) {
            // A row may be ignored for another reason (NOT NULL, CHECK) before SQLite looks at its JSON.
            sql = format!("CASE WHEN json_valid({value}) THEN {value} END");
            doubts.push(format!("NOT json_valid({value})"));
        }
        if matters {
            // A CAST has the type and leaves alone what is of it.
            let types = match own {
                Affinity::Numeric => {
                    sql = format!("CAST({sql} AS NUMERIC)");
                    "'text','blob'"
                }
                Affinity::Text => {
                    sql = format!("CAST({sql} AS TEXT)");
                    "'blob'"
                }
                Affinity::Blob => "'integer','real'",
            };
            doubts.push(format!("typeof({value}) IN ({types})"));
        }
        Operand { sql, doubts }
    }
}

/// The value of a DEFAULT clause, if the text alone says it: a literal or a sum of such. A bare word is a string, whatever
/// columns there are; functions may give another value each time.
pub fn constant(text: &str) -> Option<String> {
    let tokens = sqltext::tokens(text);
    let is_number = |t: &Token<'_>| t.text.starts_with(|c: char| c.is_ascii_digit());
    if let [only] = tokens.as_slice() {
        return match only.text.to_ascii_lowercase().as_str() {
            "true" => Some("1".into()),
            "false" => Some("0".into()),
            "null" => Some("NULL".into()),
            "current_time" | "current_date" | "current_timestamp" => None,
            _ if is_number(only) || only.is_blob() || only.text.starts_with('\'') => Some(only.text.to_string()),
            _ => Some(literal(&only.name())),
        };
    }
    let mut parts = Vec::new();
    for token in &tokens {
        let text = match token.text.to_ascii_lowercase().as_str() {
            "true" => "1",
            "false" => "0",
            "null" => "NULL",
            _ if is_number(token) || token.is_blob() || token.text.starts_with('\'') => token.text,
            _ if token.text.len() == 1 && token.text.starts_with(|c: char| c.is_ascii_punctuation()) => token.text,
            _ => return None,
        };
        parts.push((token.follows_gap, text.to_string()));
    }
    (!parts.is_empty()).then(|| join(parts))
}

/// Words that are never a column's name unless they are quoted.
const RESERVED: [&str; 17] = [
    "and", "as", "between", "case", "collate", "else", "escape", "exists", "in", "is", "isnull", "not", "notnull",
    "null", "or", "then", "when",
];

struct Reader<'a> {
    tokens: Vec<Token<'a>>,
    columns: &'a [String],
    rowid: &'a [String],
    found: Vec<String>,
    json: Vec<String>,
    reads_rowid: bool,
}

impl Reader<'_> {
    fn read(mut self) -> Expression {
        let mut operands = Operands::default();
        let mut parts = Vec::new();
        // The depth of brackets, and that of a CAST whose type is being read.
        let (mut depth, mut cast) = (0, None);
        let (mut qualified, mut gap) = (false, false);
        for at in 0..self.tokens.len() {
            let Token { text, follows_gap, .. } = self.tokens[at];
            gap |= follows_gap;
            if text == ";" || (text == "." && qualified) {
                continue;
            }
            if self.is_qualifier(at) {
                qualified = true;
                continue;
            }
            let word = text.to_ascii_lowercase();
            let written = if std::mem::take(&mut qualified) {
                let name = self.tokens[at].name();
                self.column(&name, at);
                quote(&name)
            } else if text == "(" || text == ")" {
                if text == "(" {
                    depth += 1;
                } else {
                    cast = cast.filter(|&of| of != depth);
                    depth -= 1;
                }
                text.to_string()
            } else if self.tokens[at].is_name() {
                let called = self.is(at + 1, "(");
                let reserved = RESERVED.contains(&word.as_str());
                if word == "as" {
                    cast = Some(depth);
                }
                operands.note_word(&word, called && !reserved, |ahead, word| self.is(at + ahead, word));
                let is_operand = !(called || reserved || cast.is_some() || (at > 0 && self.is(at - 1, "collate")));
                let name = self.tokens[at].name();
                if is_operand && !self.column(&name, at) && text.starts_with('"') {
                    operands.texts |= looks_like_a_number(&name);
                    literal(&name)
                } else {
                    text.to_string()
                }
            } else {
                if text.starts_with('\'') {
                    operands.texts |= looks_like_a_number(&self.tokens[at].name());
                } else if text.starts_with(|c: char| c.is_ascii_digit()) {
                    operands.numbers = true;
                } else if at == 0 || !self.continues_operator(at) {
                    operands.note_operator(&self.operator(at));
                }
                text.to_string()
            };
            parts.push((std::mem::take(&mut gap), written));
        }
        let Reader { found, json, reads_rowid, .. } = self;
        Expression { text: join(parts), columns: found, reads_rowid, json, operands }
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|t| t.text.eq_ignore_ascii_case(word))
    }

    /// Whether a schema's or table's name and a dot stand here.
    fn is_qualifier(&self, at: usize) -> bool {
        let may = |at: usize| self.tokens.get(at).is_some_and(|t| t.is_name() || t.text.starts_with('\''));
        may(at) && self.is(at + 1, ".") && may(at + 2)
    }

    /// Notes a column that is read by its name there, or the rowid. Whether it is one of these.
    fn column(&mut self, name: &str, at: usize) -> bool {
        let columns = self.columns;
        if let Some(column) = columns.iter().find(|c| c.eq_ignore_ascii_case(name)) {
            if !self.found.contains(column) {
                self.found.push(column.clone());
            }
            if self.is_json(at) {
                self.json.push(column.clone());
            }
            return true;
        }
        let is_rowid = self.rowid.iter().any(|alias| alias.eq_ignore_ascii_case(name));
        self.reads_rowid |= is_rowid;
        is_rowid
    }

    /// Whether the name there is the first argument of a JSON function, or before an arrow.
    fn is_json(&self, at: usize) -> bool {
        let mut first = at;
        while first >= 2 && self.is(first - 1, ".") {
            first -= 2;
        }
        let function = (first >= 2 && self.is(first - 1, "(")).then(|| self.tokens[first - 2].name());
        function.is_some_and(|name| {
            name.to_ascii_lowercase().starts_with("json") && !name.eq_ignore_ascii_case("json_valid")
        }) || (self.is(at + 1, "-") && self.operator(at + 1).starts_with("->"))
    }

    fn continues_operator(&self, at: usize) -> bool {
        is_operator(self.tokens[at].text) && is_operator(self.tokens[at - 1].text) && !self.tokens[at].follows_gap
    }

    /// The signs that follow each other without a gap.
    fn operator(&self, at: usize) -> String {
        let rest = &self.tokens[at..];
        let more = rest.iter().skip(1).take_while(|t| is_operator(t.text) && !t.follows_gap);
        rest.iter().take(1).chain(more).map(|t| t.text).collect()
    }
}

fn is_operator(text: &str) -> bool {
    matches!(text, "<" | ">" | "=" | "!" | "-" | "|" | "+" | "*" | "/" | "%" | "&" | "~")
}

impl Operands {
    /// `is`: whether a word stands so many tokens ahead.
    fn note_word(&mut self, word: &str, called: bool, is: impl Fn(usize, &str) -> bool) {
        match word {
            "in" | "between" => self.compared = true,
            "is" => self.compared |= !(is(1, "null") || (is(1, "not") && is(2, "null"))),
            "case" => self.compared |= !is(1, "when"),
            "true" | "false" => self.numbers = true,
            _ => {}
        }
        self.casts |= word == "cast";
        // What a function returns is not known.
        self.texts |= called;
        self.numbers |= called;
    }

    fn note_operator(&mut self, signs: &str) {
        let rest = signs.replace("->>", "").replace("->", "");
        self.texts |= rest.contains("||") || rest.len() < signs.len();
        self.numbers |= rest.len() < signs.len();
        let shifted = rest.replace("<<", "").replace(">>", "");
        self.compared |= shifted.contains(['<', '>', '=']);
        self.numbers |=
            shifted.len() < rest.len() || shifted.replace("||", "").contains(['-', '+', '*', '/', '%', '&', '|', '~']);
    }
}

/// Whether SQLite may take a text for a number.
fn looks_like_a_number(text: &str) -> bool {
    text.trim().parse::<f64>().is_ok()
}

fn join(parts: Vec<(bool, String)>) -> String {
    let mut text = String::new();
    for (gap, part) in parts {
        if gap && !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Expression {
        let columns = ["a", "b", "no one", "n"].map(String::from);
        Expression::read(text, &columns, &["rowid".into()])
    }

    #[test]
    fn comments_table_names_and_strings_in_double_quotes_are_written_otherwise() {
        for (text, written) in [
            ("a IS NULL -- why\n", "a IS NULL"),
            ("a/**/-/**/- b /* open", "a - - b"),
            ("\"A\" = \"active\"", "\"A\" = 'active'"),
            ("\"it's\"", "'it''s'"),
            ("main.t.a || `t`.'b' || t.\"no one\"", "\"a\" || \"b\" || \"no one\""),
            ("\"lower\"(a COLLATE \"nocase\")", "\"lower\"(a COLLATE \"nocase\")"),
            ("CAST(a AS \"big int\") = \"x\"", "CAST(a AS \"big int\") = 'x'"),
            ("a IN (1.5e-3,.5, x'61','--')", "a IN (1.5e-3,.5, x'61','--')"),
            ("\"rowid\" > 1;", "\"rowid\" > 1"),
        ] {
            assert_eq!(read(text).text, written);
        }
        assert!(read("\"rowid\" > 1").reads_rowid && !read("a = 'rowid'").reads_rowid);
    }

    #[test]
    fn only_what_is_read_counts_as_a_column() {
        let expression = read("CASE WHEN n('b') THEN [no one] END -- a");
        assert_eq!(expression.columns, ["no one"]);
        assert_eq!(read("CAST('x' AS a) COLLATE b").columns, [""; 0]);
    }

    #[test]
    fn a_type_matters_where_text_may_meet_a_number() {
        let numeric = |text: &str| read(text).operand("a", "NEW.a", |_| Affinity::Numeric).sql;
        let text = |text: &str| read(text).operand("a", "NEW.a", |_| Affinity::Text).sql;
        for plain in ["lower(a)", "a IS NOT NULL", "a = 1", "a = 'x'", "a <> b", "CASE WHEN 1 THEN a END"] {
            assert_eq!(numeric(plain), "NEW.a", "{plain}");
        }
        for typed in ["a = '1'", "a < lower(b)", "a IN ('x', ' 2 ')", "CASE a WHEN b || 1 THEN 1 END", "a = b ->> 'x'"]
        {
            assert_eq!(numeric(typed), "CAST(NEW.a AS NUMERIC)", "{typed}");
        }
        assert_eq!((text("a = 'x'"), text("a IS 1")), ("NEW.a".into(), "CAST(NEW.a AS TEXT)".into()));
        assert_eq!(text("a = -b"), "CAST(NEW.a AS TEXT)");
    }

    #[test]
    fn a_default_is_a_constant_or_unknown() {
        for (text, value) in [
            ("active", Some("'active'")),
            ("\"it's\"", Some("'it''s'")),
            ("[a b]", Some("'a b'")),
            ("TRUE", Some("1")),
            ("-5 -- c", Some("-5")),
            ("('x' -- why\n)", Some("('x' )")),
            ("(1 + /* 2 */ 0x10)", Some("(1 + 0x10)")),
            ("x'00'", Some("x'00'")),
            ("(random())", None),
            ("current_timestamp", None),
            ("(CURRENT_DATE)", None),
        ] {
            assert_eq!(constant(text).as_deref(), value, "{text}");
        }
    }
}
