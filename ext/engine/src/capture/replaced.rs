//! The statements that log, before a row is written, the keys of the rows that REPLACE may delete for it by a UNIQUE index.
//!
//! They look for rows that have the new row's value in the index. A BEFORE trigger does not know that value in every case:
//! SQLite puts defaults in the place of NULL and chooses an automatic key after it. So up to three statements serve an index: for
//! the row as it is given, for what a default or a type may make of it, and for an automatic key.
//!
//! Invariants
//! - A row that REPLACE deletes is found by one of them, or the table is marked. Rows that are found beside it are harmless. A
//!   statement finds at most one row, save where a value cannot be told beforehand.
//! - Whether the new row meets the condition of a partial index is not asked: if it does not, one key too many is logged. Only where
//!   the index has an expression the condition goes before it, because the expression may fail where the condition does not
//!   hold (json_extract over what is no JSON).
//! - They are found with the index's own terms and collations, so that SQLite uses that index.
//!
//! A *mark* is a log row whose table is the negative of the table's id: "a row may have gone that nobody can name". The table
//! is sent whole then (`changeset`).

use super::triggers::LOG;
use crate::catalog::expression::{Affinity, Expression};
use crate::catalog::schema::Table;
use crate::catalog::unique::{Column, Columns, Of, Origin, Term, Unique};
use crate::catalog::{all_of, any_of, literal, quote};

/// How the row of the table itself is called, so that no name of the application can mean it.
const ROW: &str = "_logos_row";

/// How the new row's values are called, followed by a number.
const NEW: &str = "_logos_new";

/// A statement for a table's trigger.
pub(super) struct Logging {
    columns: String,
    /// The query that finds what is logged.
    pub query: String,
}

impl Logging {
    /// The statement.
    pub fn sql(&self) -> String {
        format!("INSERT INTO {LOG}({}) {};", self.columns, self.query)
    }

    /// Logs the keys of the rows that meet the conditions. `new`: queries that the new row's values come from; they are first, and
    /// so the outer loops.
    fn rows(table: &Table, id: i64, new: &[String], conditions: &str) -> Self {
        let from = new.iter().map(|query| format!("({query}) CROSS JOIN ")).collect::<String>();
        let values = table.key.iter().map(|k| format!(",{ROW}.{}", quote(k))).collect::<String>();
        let columns = (0..table.key.len()).map(|i| format!(",k{i}")).collect::<String>();
        Self {
            columns: format!("tbl{columns}"),
            query: format!("SELECT {id}{values} FROM {from}{} AS {ROW} WHERE {conditions}", quote(&table.name)),
        }
    }

    /// Logs the keys of the rows that have the new row's rowid.
    pub fn same_rowid(table: &Table, id: i64, rowid: &str) -> Self {
        Self::rows(table, id, &[], &format!("{ROW}.{0} = NEW.{0}", quote(rowid)))
    }

    fn mark(id: i64, condition: Option<String>) -> Self {
        let condition = condition.map(|c| format!(" WHERE {c}")).unwrap_or_default();
        Self { columns: "tbl".into(), query: format!("SELECT {}{condition}", -id) }
    }
}

/// What the trigger is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Insert,
    Update,
}

/// The statements for one index. `has_meaning`: whether SQLite can make sense of a query in which NEW is a row of the table.
pub(super) fn by_index(
    table: &Table,
    id: i64,
    unique: &Unique,
    event: Event,
    has_meaning: &dyn Fn(&str) -> bool,
) -> Vec<Logging> {
    let by = ByIndex { table, id, unique, columns: Columns(&table.visible) };
    let statements = by.statements(event);
    // What is in the schema as text is in no statement over plain columns.
    let is_plain = !by.has_text() && statements.len() <= 1;
    if is_plain || statements.iter().all(|s| has_meaning(&s.query)) {
        return statements;
    }
    vec![Logging::mark(id, None)]
}

struct ByIndex<'t> {
    table: &'t Table,
    id: i64,
    unique: &'t Unique,
    columns: Columns<'t>,
}

impl<'t> ByIndex<'t> {
    fn statements(&self, event: Event) -> Vec<Logging> {
        let terms = &self.unique.terms;
        if terms.is_empty() {
            return Vec::new();
        }
        let given = NewRow { by: self, automatic: false };
        let mut statements = vec![self.rows_or_mark(&given, |_| true, None)];
        let inserted = event == Event::Insert;
        let mut doubts: Vec<String> = Vec::new();
        for doubt in terms.iter().flat_map(|term| given.doubts(term)) {
            if !doubts.contains(&doubt) {
                doubts.push(doubt);
            }
        }
        if !doubts.is_empty() {
            let sure = |term: &Term| given.doubts(term).is_empty() && !(inserted && self.depends_on_key(term));
            statements.push(self.rows_or_mark(&given, sure, Some(any_of(&doubts))));
        }
        if let Some(key) = self.key().filter(|_| inserted && terms.iter().any(|t| self.depends_on_key(t))) {
            // With a key of its own the new row cannot be another row's equal in an index that has the key as a term.
            let is_key = |term: &Term| matches!(&term.of, Of::Column(name) if name.eq_ignore_ascii_case(key));
            if !terms.iter().any(is_key) {
                let row = NewRow { by: self, automatic: true };
                let unknown = terms.iter().any(|term| row.term(term, 0).is_none());
                let guard = unknown.then(|| format!("(NEW.{0} IS NULL OR NEW.{0} = -1)", quote(key)));
                statements.push(self.rows_or_mark(&row, |_| true, guard));
            }
        }
        statements
    }

    /// Whether there are expressions of the schema in the index. Beside such, an equation of a column stands in likely(), or SQLite
    /// writes its constant (`state = 'x'`; NEW.x is one too) in the column's place everywhere: the expression would not be found in
    /// the index any more, and be evaluated where the condition does not hold.
    fn has_text(&self) -> bool {
        self.unique.condition.is_some() || !self.unique.terms.iter().all(Term::is_column)
    }

    /// Logs the rows that have the new row's values in those terms that count and are known. Or marks the table, if there is
    /// nothing to find rows by.
    fn rows_or_mark(&self, row: &NewRow<'_, 't>, counts: impl Fn(&Term) -> bool, guard: Option<String>) -> Logging {
        let (mut new, mut texts, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for (i, term) in self.unique.terms.iter().enumerate().filter(|(_, term)| counts(term)) {
            let Some(Value { sql, query }) = row.term(term, i) else { continue };
            new.extend(query);
            let same = format!("{sql} COLLATE {}", quote(&term.collation));
            match &term.of {
                Of::Column(name) if self.has_text() => plain.push(format!("likely({ROW}.{} = {same})", quote(name))),
                Of::Column(name) => plain.push(format!("{ROW}.{} = {same}", quote(name))),
                Of::Expression(expression) => texts.push(format!("({}) = {same}", expression.text)),
                Of::Unknown => {}
            }
        }
        if texts.is_empty() && plain.is_empty() {
            return Logging::mark(self.id, guard);
        }
        plain.extend(guard);
        // The schema's own texts nest least: they may be as deep as the writer's limits allow already.
        if let Some(condition) = &self.unique.condition {
            texts.insert(0, format!("likely({})", condition.text));
        }
        if !plain.is_empty() {
            texts.push(all_of(&plain));
        }
        Logging::rows(self.table, self.id, &new, &all_of(&texts))
    }

    fn key(&self) -> Option<&'t str> {
        self.table.integer_key().map(String::as_str)
    }

    /// Whether a term depends on the INTEGER PRIMARY KEY, beyond naming it.
    fn depends_on_key(&self, term: &Term) -> bool {
        let Some(key) = self.key() else { return false };
        let is_key = |name: &str| name.eq_ignore_ascii_case(key);
        !matches!(&term.of, Of::Column(name) if is_key(name)) && self.sources(term).iter().any(|c| is_key(&c.name))
    }

    /// What a term's value comes from in the new row.
    fn sources(&self, term: &Term) -> Vec<&'t Column> {
        let goes_before = self.goes_before(term).into_iter().flat_map(|c| &c.columns);
        self.columns.sources(term.columns().chain(goes_before))
    }

    /// The condition, if the term may be looked at only where it holds. (One over the rowid is not known to a BEFORE trigger.)
    fn goes_before(&self, term: &Term) -> Option<&'t Expression> {
        self.unique.condition.as_ref().filter(|condition| !term.is_column() && !condition.reads_rowid)
    }
}

/// The new row as a BEFORE trigger can know it.
struct NewRow<'r, 't> {
    by: &'r ByIndex<'t>,
    /// Whether it gets its INTEGER PRIMARY KEY by itself.
    automatic: bool,
}

/// A value of the new row.
struct Value {
    sql: String,
    /// A query that it is a column of. (As a query within the expression it would nest deeper.)
    query: Option<String>,
}

impl NewRow<'_, '_> {
    /// Its value in a term, the index's `i`th, if it can be told.
    fn term(&self, term: &Term, i: usize) -> Option<Value> {
        let by_itself = |sql: String| Some(Value { sql, query: None });
        let of_query = |expression: String, from: String| {
            let query = Some(format!("SELECT {expression} AS {NEW}{i} FROM ({from})"));
            Some(Value { sql: format!("{NEW}{i}"), query })
        };
        match &term.of {
            Of::Column(name) => match self.by.columns.find(name).map(|c| &c.origin) {
                Some(Origin::Default(Some(constant))) => by_itself(format!("coalesce(NEW.{},{constant})", quote(name))),
                // The sign takes the expression's own affinity away, so that the column's decides.
                Some(Origin::Generated(Some(expression))) if self.computes(name) => {
                    of_query(format!("+({})", expression.text), self.operands(expression)?)
                }
                _ => by_itself(self.column(name)?),
            },
            Of::Expression(expression) => {
                let mut operands = self.operands(expression)?;
                if let Some(condition) = self.by.goes_before(term) {
                    operands = format!("{operands} FROM ({}) WHERE {}", self.operands(condition)?, condition.text);
                }
                of_query(expression.text.clone(), operands)
            }
            Of::Unknown => None,
        }
    }

    /// Whether a column has another value than NEW has, because it is computed from an automatic key.
    fn computes(&self, name: &str) -> bool {
        let is_key = |c: &&Column| self.by.key().is_some_and(|key| key.eq_ignore_ascii_case(&c.name));
        self.automatic && self.by.columns.sources(std::iter::once(&name.to_string())).iter().any(is_key)
    }

    /// The value of a column.
    fn column(&self, name: &str) -> Option<String> {
        if !self.computes(name) {
            return Some(format!("NEW.{}", quote(name)));
        }
        let column = self.by.columns.find(name)?;
        match &column.origin {
            // No expression has the effect of storing a value in a column that has a type.
            Origin::Generated(Some(expression)) if column.affinity == Affinity::Blob => {
                Some(format!("(SELECT {} FROM ({}))", expression.text, self.operands(expression)?))
            }
            Origin::Generated(_) => None,
            Origin::Given | Origin::Default(_) => Some(self.automatic_key(name)),
        }
    }

    /// One more than the highest. (Not foretold are random keys once 2^63-1 is taken, and what BEFORE triggers of the
    /// application insert into the same table meanwhile.)
    fn automatic_key(&self, key: &str) -> String {
        let table = self.by.table;
        let highest = format!("coalesce((SELECT max({}) FROM {}),0)", quote(key), quote(&table.name));
        if !table.autoincrement {
            return format!("({highest}+1)");
        }
        let given = format!("SELECT seq FROM sqlite_sequence WHERE name={}", literal(&table.name));
        format!("(max({highest},coalesce(({given}),0))+1)")
    }

    /// A query whose only row has the columns that an expression reads, and no others.
    fn operands(&self, expression: &Expression) -> Option<String> {
        let operand = |c: &String| {
            let value = self.column(c)?;
            Some(format!("{} AS {}", expression.operand(c, &value, |c| self.affinity(c)).sql, quote(c)))
        };
        let operands = expression.columns.iter().map(operand).collect::<Option<Vec<_>>>()?.join(",");
        Some(format!("SELECT {}", if operands.is_empty() { "1" } else { &operands }))
    }

    fn affinity(&self, column: &str) -> Affinity {
        self.by.columns.find(column).map_or(Affinity::Blob, |c| c.affinity)
    }

    /// When a term of the row to be stored may have another value than it has for the row as it is given.
    fn doubts(&self, term: &Term) -> Vec<String> {
        let is_null = |c: &Column| format!("NEW.{} IS NULL", quote(&c.name));
        let mut doubts: Vec<String> = match (&term.of, self.by.sources(term).as_slice()) {
            (Of::Column(name), [source]) if source.name.eq_ignore_ascii_case(name) => {
                let unknown = matches!(source.origin, Origin::Default(None));
                unknown.then(|| is_null(source)).into_iter().collect()
            }
            (_, sources) => {
                let defaults = sources.iter().filter(|c| matches!(c.origin, Origin::Default(_)));
                defaults.map(|c| is_null(c)).collect()
            }
        };
        if let Of::Expression(expression) = &term.of {
            match self.by.goes_before(term).map(|condition| (condition, self.operands(condition))) {
                None => doubts.extend(self.operand_doubts(expression)),
                Some((condition, operands)) => {
                    doubts.extend(self.operand_doubts(condition));
                    let holds =
                        format!("EXISTS (SELECT 1 FROM ({}) WHERE {})", operands.unwrap_or_default(), condition.text);
                    doubts.extend(self.operand_doubts(expression).iter().map(|doubt| format!("({holds} AND {doubt})")));
                }
            }
        }
        doubts
    }

    /// When an expression's value may be another one, because of the values that it reads.
    fn operand_doubts(&self, expression: &Expression) -> Vec<String> {
        let doubts = |c: &String| expression.operand(c, &format!("NEW.{}", quote(c)), |c| self.affinity(c)).doubts;
        expression.columns.iter().flat_map(doubts).collect()
    }
}
