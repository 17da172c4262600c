//! The arguments of CREATE VIRTUAL TABLE, as the parsers of SQLite's own modules read them.
//!
//! SQLite cuts the list at its commas and gives each piece to the module as it was written. What an option may look like each
//! module decides by itself: FTS5 takes any beginning of an option's name (`c=''` is `content=''`), blanks around the sign and no
//! value at all; FTS4 wants the whole name directly before the sign and takes all that follows, blanks too; FTS3 has none and
//! makes a column of it. (fts5_config.c, fts3.c; texts come from sqlite_schema, so the module has accepted them.)

use super::sqltext;

/// Options of FTS5, in the order in which a beginning of a name is looked up.
const FTS5_OPTIONS: [&str; 10] = [
    "prefix",
    "tokenize",
    "content",
    "contentless_delete",
    "contentless_unindexed",
    "content_rowid",
    "columnsize",
    "locale",
    "detail",
    "tokendata",
];

/// The options of a full-text table, by their whole names and in the order given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<(String, String)>);

impl Options {
    /// Reads those of a statement; `module` is in lower case.
    pub fn of(sql: &str, module: &str) -> Self {
        let arguments = sqltext::arguments(sql);
        let option = match module {
            "fts5" => fts5_option,
            "fts4" => fts4_option,
            _ => return Self::default(),
        };
        Self(arguments.iter().filter_map(|argument| option(argument)).collect())
    }

    /// The value of an option: the last one given, which is the one that counts.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

fn fts5_option(argument: &str) -> Option<(String, String)> {
    let end = argument.find(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' && c != '\u{1a}')?;
    let value = argument[end..].trim_start_matches(' ').strip_prefix('=')?.trim_matches(' ');
    let given = argument[..end].to_ascii_lowercase();
    let name = FTS5_OPTIONS.iter().find(|name| !given.is_empty() && name.starts_with(&given))?;
    Some((name.to_string(), dequoted(value)))
}

fn fts4_option(argument: &str) -> Option<(String, String)> {
    let (name, value) = argument.split_once('=')?;
    Some((name.to_ascii_lowercase(), dequoted(value)))
}

/// Without its quotes, if it begins with one; what follows the closing one does not count.
fn dequoted(value: &str) -> String {
    let Some(quote @ ('"' | '\'' | '`' | '[')) = value.chars().next() else { return value.to_string() };
    let quote = if quote == '[' { ']' } else { quote };
    let mut text = String::new();
    let mut rest = value[1..].chars().peekable();
    while let Some(c) = rest.next() {
        if c == quote && rest.next_if_eq(&quote).is_none() {
            break;
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(module: &str, arguments: &str, name: &str) -> Option<String> {
        let sql = format!("CREATE VIRTUAL TABLE \"d (\" USING {module}({arguments})");
        Options::of(&sql, module).get(name).map(String::from)
    }

    #[test]
    fn fts5_takes_any_beginning_of_a_name_and_no_value() {
        for written in ["c=''", "content=", "CONTENT = \"\"", "cont=[]", "a, con = ``, b", "content='' "] {
            assert_eq!(get("fts5", written, "content").as_deref(), Some(""), "{written}");
        }
        assert_eq!(get("fts5", "a, content_='id', c=t", "content_rowid").as_deref(), Some("id"));
        assert_eq!(get("fts5", "a, l=1", "locale").as_deref(), Some("1"));
        assert_eq!(get("fts5", "a, content='it''s'", "content").as_deref(), Some("it's"));
        // A column may be called like an option, and a list may end in a comma.
        assert_eq!(get("fts5", "content, \"content\" UNINDEXED, ", "content"), None);
    }

    #[test]
    fn fts4_takes_all_that_follows_the_sign_and_fts3_has_no_options() {
        assert_eq!(get("fts4", "content=\"\"", "content").as_deref(), Some(""));
        assert_eq!(get("fts4", "Content=my t, x", "content").as_deref(), Some("my t"));
        assert_eq!(get("fts4", "content= t", "content").as_deref(), Some(" t"));
        assert_eq!(get("fts4", "content=a, content=b", "content").as_deref(), Some("b"));
        assert_eq!(get("fts3", "content=\"t\"", "content"), None);
    }
}
