//! Just enough reading of SQL text: the expressions of a CREATE INDEX and the columns of a CREATE TABLE, which no pragma
//! gives as they were written.
//!
//! Not a parser: it knows quotes, comments and brackets, and cuts at the top level. The text comes from
//! sqlite_schema, so SQLite has already accepted it.

/// The indexed expressions and the WHERE clause of a CREATE INDEX statement.
#[derive(Debug, PartialEq, Eq)]
pub struct IndexText {
    /// One text per indexed term, without ASC/DESC (a COLLATE clause stays).
    pub terms: Vec<String>,
    /// The condition of a partial index.
    pub condition: Option<String>,
}

/// Cuts `CREATE [UNIQUE] INDEX name ON table(terms) [WHERE condition]`.
pub fn index(sql: &str) -> Option<IndexText> {
    let tokens = tokens(sql);
    let (items, close) = list(&tokens)?;
    let terms = items.into_iter().map(|item| term(sql, item)).collect::<Option<_>>()?;
    let rest = &tokens[close + 1..];
    let condition = rest
        .iter()
        .position(|t| t.text.eq_ignore_ascii_case("where"))
        .and_then(|at| rest.get(at + 1))
        .map(|first| sql[first.at..].trim().to_string());
    Some(IndexText { terms, condition })
}

/// The items of the first list in brackets, cut at its top level, and where it closes.
fn list<'t, 's>(tokens: &'t [Token<'s>]) -> Option<(Vec<&'t [Token<'s>]>, usize)> {
    let open = tokens.iter().position(|t| t.text == "(")?;
    let (mut items, mut depth, mut start) = (Vec::new(), 0, open + 1);
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && token.text == ",") {
            items.push(&tokens[start..i]);
            start = i + 1;
        }
        if depth == 0 {
            return Some((items, i));
        }
    }
    None
}

/// One item of a CREATE TABLE's list.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its first word, unquoted: the column's name (or CONSTRAINT, PRIMARY and the like).
    pub name: String,
    /// The whole item.
    pub text: String,
}

impl Definition {
    /// Whether it is a constraint of the table and no column. ADD COLUMN puts a column before these.
    pub fn is_constraint(&self) -> bool {
        let words = ["constraint", "primary", "unique", "check", "foreign"];
        tokens(&self.text).first().is_some_and(|first| words.iter().any(|word| first.text.eq_ignore_ascii_case(word)))
    }

    /// Whether ADD COLUMN takes it whatever rows the table has: a constant default or none, and no further conditions.
    pub fn can_be_added(&self) -> bool {
        let words: Vec<String> = tokens(&self.text).iter().map(|t| t.text.to_lowercase()).collect();
        let has = |word: &str| words[1..].iter().any(|w| w == word);
        let refused =
            ["check", "generated", "as", "unique", "primary", "current_time", "current_date", "current_timestamp"];
        let default = words.iter().position(|w| w == "default");
        let constant = default.is_none_or(|at| words.get(at + 1).is_some_and(|w| w != "("));
        !refused.iter().any(|word| has(word)) && constant && (!has("not") || default.is_some())
    }

    /// The expression of a generated column: what is in the brackets after its AS.
    pub fn generated_as(&self) -> Option<String> {
        let tokens = tokens(&self.text);
        let mut depth = 0;
        let mut open = None;
        for (i, token) in tokens.iter().enumerate().skip(1) {
            match token.text {
                "(" => {
                    if depth == 0 && tokens[i - 1].text.eq_ignore_ascii_case("as") {
                        open = Some(token.at + 1);
                    }
                    depth += 1;
                }
                ")" => {
                    depth -= 1;
                    if depth == 0 {
                        if let Some(open) = open {
                            return self.text.get(open..token.at).map(|text| text.trim().to_string());
                        }
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// Whether a CREATE TABLE ends with the option STRICT.
pub fn is_strict(sql: &str) -> bool {
    let tokens = tokens(sql);
    list(&tokens).is_some_and(|(_, close)| tokens[close..].iter().any(|t| t.text.eq_ignore_ascii_case("strict")))
}

/// The items of a CREATE TABLE's list.
pub fn column_definitions(sql: &str) -> Option<Vec<Definition>> {
    let tokens = tokens(sql);
    let (items, _) = list(&tokens)?;
    let definition = |item: &[Token<'_>]| {
        let (first, last) = (item.first()?, item.last()?);
        let text = sql.get(first.at..last.at + last.text.len())?.to_string();
        Some(Definition { name: unquoted(first.text), text })
    };
    items.into_iter().map(definition).collect()
}

/// The arguments of a CREATE VIRTUAL TABLE, as they were written.
pub fn arguments(sql: &str) -> Vec<&str> {
    let tokens = tokens(sql);
    let items = list(&tokens).map(|(items, _)| items).unwrap_or_default();
    let text = |item: &[Token<'_>]| sql.get(item.first()?.at..item.last().map(|t| t.at + t.text.len())?);
    items.into_iter().filter_map(text).collect()
}

/// Whether a statement is a CREATE, DROP or ALTER.
pub fn changes_schema(sql: &str) -> bool {
    let words = ["create", "drop", "alter"];
    tokens(sql).first().is_some_and(|first| words.iter().any(|word| first.text.eq_ignore_ascii_case(word)))
}

/// What a CREATE statement makes: kind, name, and the table it belongs to.
pub fn created(sql: &str) -> Option<(String, String, String)> {
    let tokens = tokens(sql);
    let words = ["create", "temp", "temporary", "unique", "virtual"];
    let at = tokens.iter().position(|t| !words.iter().any(|w| t.text.eq_ignore_ascii_case(w)))?;
    let kind = tokens[at].text.to_ascii_lowercase();
    let name = unquoted(tokens.get(at + 1)?.text);
    let table = match kind.as_str() {
        "table" | "view" => name.clone(),
        "index" | "trigger" => {
            let on = at + 2 + tokens.iter().skip(at + 2).position(|t| t.text.eq_ignore_ascii_case("on"))?;
            let qualified = tokens.get(on + 2).is_some_and(|t| t.text == ".");
            unquoted(tokens.get(on + if qualified { 3 } else { 1 })?.text)
        }
        _ => return None,
    };
    Some((kind, name, table))
}

/// A CREATE TRIGGER without the name of a schema in its `ON schema.table`: it stays in the text of a trigger that was made through
/// ATTACH. SQLite passes over it when it reads a schema, but not when the statement is run where that schema has another name.
pub fn trigger_on_any_schema(sql: &str) -> Option<String> {
    let tokens = tokens(sql);
    let is = |n: usize, word: &str| tokens.get(n).is_some_and(|t| t.text.eq_ignore_ascii_case(word));
    if !(is(0, "create") && is(1, "trigger")) {
        return None;
    }
    let on = (3..tokens.len()).find(|&n| is(n, "on"))?;
    let [schema, dot, table, ..] = tokens.get(on + 1..)? else { return None };
    (dot.text == ".")
        .then(|| format!("{}{}", sql.get(..schema.at).unwrap_or_default(), sql.get(table.at..).unwrap_or_default()))
}

/// Kind and name in `DROP kind name`.
pub fn dropped(sql: &str) -> Option<(String, String)> {
    match tokens(sql).as_slice() {
        [drop, kind, name, ..] if drop.text.eq_ignore_ascii_case("drop") => {
            Some((kind.text.to_ascii_lowercase(), unquoted(name.text)))
        }
        _ => None,
    }
}

/// The table in `ALTER TABLE name …`, and its new name in `… RENAME TO name`.
pub fn altered(sql: &str) -> Option<(String, Option<String>)> {
    let name = name_after(sql, &["alter", "table"])?;
    let tokens = tokens(sql);
    let to = match tokens.get(3..)? {
        [rename, to, name, ..] if rename.text.eq_ignore_ascii_case("rename") && to.text.eq_ignore_ascii_case("to") => {
            Some(unquoted(name.text))
        }
        _ => None,
    };
    Some((name, to))
}

/// What a CREATE TABLE says about where values are, and no pragma does.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// What stands behind the list: WITHOUT ROWID, STRICT.
    pub options: Vec<String>,
    /// Whether automatic keys are never given twice.
    pub autoincrement: bool,
    /// The expressions of generated columns.
    pub generated: Vec<Option<String>>,
}

/// Reads it.
pub fn layout(sql: &str) -> Option<Layout> {
    let all = tokens(sql);
    let (_, close) = list(&all)?;
    Some(Layout {
        options: all[close + 1..].iter().map(|t| t.text.to_ascii_lowercase()).collect(),
        autoincrement: mentions(sql, "autoincrement"),
        generated: column_definitions(sql)?
            .iter()
            .filter(|d| !d.is_constraint())
            .map(Definition::generated_as)
            .collect(),
    })
}

/// The name in `CREATE TABLE name(…)`.
pub fn created_table(sql: &str) -> Option<String> {
    name_after(sql, &["create", "table"])
}

/// Table and column in `UPDATE table SET column …`.
pub fn updated(sql: &str) -> Option<(String, String)> {
    match tokens(sql).get(..4)? {
        [update, table, set, column] if update.text == "UPDATE" && set.text == "SET" => {
            Some((unquoted(table.text), unquoted(column.text)))
        }
        _ => None,
    }
}

/// The names in the `UPDATE OF` list of a trigger of ours.
pub fn update_of(sql: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let list = tokens.iter().skip_while(|t| !t.text.eq_ignore_ascii_case("of")).skip(1);
    let list = list.take_while(|t| !t.text.eq_ignore_ascii_case("on")).filter(|t| t.text != ",");
    list.map(|t| unquoted(t.text)).collect()
}

/// Name and module (in lower case) in `CREATE VIRTUAL TABLE name USING module…`.
pub fn virtual_table(sql: &str) -> Option<(String, String)> {
    let name = name_after(sql, &["create", "virtual", "table"])?;
    let tokens = tokens(sql);
    match tokens.get(4..6)? {
        [using, module] if using.text.eq_ignore_ascii_case("using") => {
            Some((name, unquoted(module.text).to_ascii_lowercase()))
        }
        _ => None,
    }
}

fn name_after(sql: &str, words: &[&str]) -> Option<String> {
    let tokens = tokens(sql);
    let begins = words.iter().zip(&tokens).filter(|(word, token)| token.text.eq_ignore_ascii_case(word)).count();
    (begins == words.len()).then(|| tokens.get(begins)).flatten().map(|name| unquoted(name.text))
}

fn unquoted(word: &str) -> String {
    let inner = |n: usize| word.get(n..word.len() - n).unwrap_or_default();
    match word.as_bytes().first() {
        Some(b'"') => inner(1).replace("\"\"", "\""),
        Some(b'`') => inner(1).replace("``", "`"),
        Some(b'\'') => inner(1).replace("''", "'"),
        Some(b'[') => inner(1).to_string(),
        _ => word.to_string(),
    }
}

fn term(sql: &str, tokens: &[Token<'_>]) -> Option<String> {
    let mut tokens = tokens;
    if let [rest @ .., last] = tokens {
        if last.text.eq_ignore_ascii_case("asc") || last.text.eq_ignore_ascii_case("desc") {
            tokens = rest;
        }
    }
    let (first, last) = (tokens.first()?, tokens.last()?);
    Some(sql[first.at..last.at + last.text.len()].to_string())
}

/// A word, a quoted thing or a single sign.
pub struct Token<'a> {
    at: usize,
    /// As it is written.
    pub text: &'a str,
    /// Whether white space or a comment is before it.
    pub follows_gap: bool,
}

impl Token<'_> {
    /// Whether it can be a name where one is asked for: a word, or something in the quotes of names. (Keywords are words too.)
    pub fn is_name(&self) -> bool {
        let first = self.text.bytes().next().unwrap_or_default();
        matches!(first, b'"' | b'`' | b'[') || (is_word(first) && !first.is_ascii_digit() && !self.is_blob())
    }

    /// The name, or the content of a string, without its quotes.
    pub fn name(&self) -> String {
        unquoted(self.text)
    }

    /// Whether it is a literal like x'00'.
    pub fn is_blob(&self) -> bool {
        matches!(self.text.as_bytes(), [b'x' | b'X', b'\'', ..])
    }
}

/// Words, quoted things and single punctuation; white space and comments are dropped.
pub fn tokens(sql: &str) -> Vec<Token<'_>> {
    let bytes = sql.as_bytes();
    let mut tokens: Vec<Token<'_>> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            // SQLite skips a byte order mark like white space.
            0xef if bytes[at..].starts_with(b"\xef\xbb\xbf") => {
                at += 3;
                continue;
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at = sql[at..].find('\n').map_or(bytes.len(), |n| at + n + 1);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = sql[at + 2..].find("*/").map_or(bytes.len(), |n| at + n + 4);
                continue;
            }
            quote @ (b'\'' | b'"' | b'`') => quoted(bytes, at, quote),
            b'x' | b'X' if bytes.get(at + 1) == Some(&b'\'') => quoted(bytes, at + 1, b'\''),
            b'[' => sql[at..].find(']').map_or(bytes.len(), |n| at + n + 1),
            b if is_word(b) => bytes[at..].iter().position(|&b| !is_word(b)).map_or(bytes.len(), |n| at + n),
            _ => at + 1,
        };
        let follows_gap = tokens.last().is_some_and(|last| last.at + last.text.len() < at);
        tokens.push(Token { at, text: &sql[at..end], follows_gap });
        at = end;
    }
    tokens
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80
}

/// End of the quoted thing that begins at `at`; a doubled quote stands for one.
fn quoted(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut i = at + 1;
    while i < bytes.len() {
        if bytes[i] == quote {
            if bytes.get(i + 1) != Some(&quote) {
                return i + 1;
            }
            i += 1;
        }
        i += 1;
    }
    bytes.len()
}

/// Whether the text uses `word` outside quotes and comments, in any case.
pub fn mentions(sql: &str, word: &str) -> bool {
    tokens(sql).iter().any(|t| t.text.eq_ignore_ascii_case(word))
}

/// Whether a trigger can end a statement and keep the rows written so far, so that older triggers never see them:
/// RAISE(IGNORE), RAISE(FAIL) or OR FAIL in it.
pub fn keeps_rows_from_triggers(sql: &str) -> bool {
    let tokens = tokens(sql);
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|t| t.text.eq_ignore_ascii_case(word));
    (0..tokens.len()).any(|at| {
        let raises = is(at, "raise") && is(at + 1, "(") && (is(at + 2, "ignore") || is(at + 2, "fail"));
        raises || (is(at, "or") && is(at + 1, "fail"))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cut(sql: &str) -> (Vec<String>, Option<String>) {
        let text = index(sql).unwrap();
        (text.terms, text.condition)
    }

    #[test]
    fn terms_and_condition_are_cut_at_the_top_level() {
        let sql = "CREATE UNIQUE INDEX \"i(\" ON t ( lower(a, ')') COLLATE nocase DESC, [b,c] -- (x\n , `d``,` asc) \
                   WHERE a IS NOT NULL AND b IN (1,2) ";
        let terms = ["lower(a, ')') COLLATE nocase", "[b,c]", "`d``,`"].map(String::from).to_vec();
        assert_eq!(cut(sql), (terms, Some("a IS NOT NULL AND b IN (1,2)".into())));
    }

    #[test]
    fn a_plain_index_has_no_condition() {
        assert_eq!(cut("CREATE INDEX i ON t(a)"), (vec!["a".into()], None));
        assert_eq!(index("CREATE TABLE t"), None);
    }

    #[test]
    fn the_columns_of_a_table_are_cut_as_they_were_written() {
        let sql = "CREATE TABLE t(a INT DEFAULT (1,2), \"b \"\"c\" TEXT NOT NULL DEFAULT 'x, y', d, CHECK (a > 0))";
        let items = column_definitions(sql).unwrap();
        let names: Vec<&str> = items.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["a", "b \"c", "d", "CHECK"]);
        assert_eq!(items[1].text, "\"b \"\"c\" TEXT NOT NULL DEFAULT 'x, y'");
        let addable: Vec<bool> = items[..3].iter().map(Definition::can_be_added).collect();
        assert_eq!(addable, [false, true, true]);
    }

    #[test]
    fn the_expression_of_a_generated_column_is_what_its_as_brackets() {
        let sql = "CREATE TABLE t(a DECIMAL(3, 1) CHECK (CAST(a AS INT) > 0), \"as\" TEXT GENERATED ALWAYS AS ( (a) || ')' ) STORED \
                   UNIQUE, c AS (a))";
        let items = column_definitions(sql).unwrap();
        let found: Vec<Option<String>> = items.iter().map(Definition::generated_as).collect();
        assert_eq!(found, [None, Some("(a) || ')'".into()), Some("a".into())]);
    }

    #[test]
    fn what_a_statement_is_about_is_read_from_its_first_words() {
        let of =
            |sql: &str| created(sql).map(|(kind, name, table)| format!("{kind} {name} {table}")).unwrap_or_default();
        assert_eq!(of("CREATE TABLE \"a \"\"b\"(\"on\")"), "table a \"b a \"b");
        assert_eq!(of("CREATE UNIQUE INDEX i ON [t x](a)"), "index i t x");
        assert_eq!(of("CREATE VIRTUAL TABLE v USING fts5(a)"), "table v v");
        assert_eq!(of("CREATE TRIGGER g/* on x */AFTER UPDATE OF a, \"on\" ON t BEGIN SELECT 1; END"), "trigger g t");
        let through = "CREATE TRIGGER g AFTER INSERT ON \"x\" . [t] BEGIN SELECT a.b FROM t; END";
        assert_eq!(of(through), "trigger g t");
        let anywhere = "CREATE TRIGGER g AFTER INSERT ON [t] BEGIN SELECT a.b FROM t; END";
        assert_eq!(trigger_on_any_schema(through).as_deref(), Some(anywhere));
        assert_eq!(trigger_on_any_schema(anywhere), None);
        assert_eq!(dropped("DROP VIEW \"v w\""), Some(("view".into(), "v w".into())));
        assert_eq!(altered("ALTER TABLE \"t\" RENAME TO \"u\""), Some(("t".into(), Some("u".into()))));
        assert_eq!(altered("ALTER TABLE t ADD COLUMN rename TO"), Some(("t".into(), None)));
    }

    #[test]
    fn words_in_quotes_and_comments_do_not_count() {
        assert!(mentions("select Raise(IGNORE)", "raise"));
        assert!(!mentions("select 'raise' /* raise */ -- raise", "raise"));
        assert!(keeps_rows_from_triggers("BEGIN SELECT RAISE /**/ ( Ignore ); END"));
        assert!(keeps_rows_from_triggers("BEGIN UPDATE OR FAIL t SET a = 1; END"));
        assert!(!keeps_rows_from_triggers(
            "BEGIN INSERT OR IGNORE INTO fail SELECT RAISE(ABORT, 'fail') OR failed; END"
        ));
    }
}
