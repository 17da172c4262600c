//! Values as SQL literals: few and close together, so that they clash, with every oddity SQLite can store.

use harness::Dice;

const REALS: [&str; 8] = ["1.5", "2.0", "-0.0", "0.1", "9e999", "-9e999", "1e300", "-2.5"];
const TEXTS: [&str; 14] = [
    "''",
    "'3'",
    "'007'",
    "' a'",
    "'a '",
    "'1e2'",
    "'it''s'",
    "'a\"b'",
    "'ß'",
    "'日本'",
    "('a' || char(0) || 'b')",
    "CAST(x'ff' AS TEXT)",
    "CAST(x'61c3' AS TEXT)",
    "char(128512, 65, 55296)",
];
/// No zeroblob() by itself: in UTF-16, SQLite casts it to another text than the same bytes.
const BLOBS: [&str; 6] =
    ["x''", "x'61'", "x'00'", "x'ff00'", "CAST(replace(hex(zeroblob(900)), '0', 'y') AS BLOB)", "CAST('a' AS BLOB)"];
/// Not the largest: after a row with that rowid SQLite chooses rowids at random.
const INTEGERS: [&str; 6] =
    ["9223372036854775000", "-9223372036854775808", "9007199254740993", "-1", "2147483648", "0x7f"];
const LONG: &str = "replace(hex(zeroblob(900)), '0', 'z')";

/// A value of any type.
pub fn any(d: &mut Dice) -> String {
    match d.below(26) {
        0..=9 => small(d),
        10..=15 => word(d),
        16..=17 => "NULL".into(),
        18..=19 => d.pick(&REALS).into(),
        20..=21 => d.pick(&TEXTS).into(),
        22..=23 => d.pick(&BLOBS).into(),
        24 => d.pick(&INTEGERS).into(),
        _ => LONG.into(),
    }
}

/// A small number.
pub fn small(d: &mut Dice) -> String {
    d.below(10).to_string()
}

/// A short word, in either case.
pub fn word(d: &mut Dice) -> String {
    format!("'{}'", d.pick(&["a", "b", "c", "d", "e", "A", "B", "C"]))
}

/// A value that a column of this declared type takes in a STRICT table too.
pub fn of_type(d: &mut Dice, declared: &str) -> String {
    match declared.to_ascii_uppercase().as_str() {
        "INTEGER" | "INT" => {
            if d.below(12) == 0 {
                d.pick(&INTEGERS).into()
            } else {
                small(d)
            }
        }
        "REAL" => d.pick(&REALS).into(),
        "TEXT" => {
            if d.below(4) == 0 {
                d.pick(&TEXTS).into()
            } else {
                word(d)
            }
        }
        "BLOB" => d.pick(&BLOBS).into(),
        _ => any(d),
    }
}
