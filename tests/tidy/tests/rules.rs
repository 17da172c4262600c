//! The style rules that a tool can hold (STYLE habit 19), few on purpose. Each failure names file and line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidy::{code, code_without_tests, files, files_of, lines_with, root, File};

/// Files of the extension and the doors.
const PRODUCT: [&str; 2] = ["ext/", "capi/"];

/// Files that may say `unsafe`: those at the C line.
const UNSAFE: [&str; 5] = ["ext/src/lib.rs", "ext/engine/src/host/", "ext/engine/src/sql/", "capi/src/", "tests/"];

/// The rooms of the engine from the ground up, and which of those below each may use.
const ROOMS: [(&str, &[&str]); 10] = [
    ("host", &[]),
    ("channel", &["host"]),
    ("catalog", &["host"]),
    ("outbox", &["host", "channel", "catalog"]),
    ("capture", &["host", "catalog"]),
    ("changeset", &["host", "catalog", "outbox", "capture"]),
    ("apply", &["host", "catalog", "capture", "changeset"]),
    ("drive", &["host", "channel", "catalog", "outbox", "capture", "changeset", "apply"]),
    ("service", &["host", "channel", "catalog", "outbox", "capture", "changeset", "apply", "drive"]),
    ("sql", &["host", "apply", "service"]),
];

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.contains("/benches/")
}

fn none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Every line of product code, tests left out, where one of the words stands.
fn words_in(prefixes: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for File { path, text } in files_of(prefixes, ".rs").iter().filter(|file| !is_test(&file.path)) {
        let code = code_without_tests(text);
        for word in words {
            found.extend(lines_with(&code, word).iter().map(|line| format!("{path}:{line}: {word}")));
        }
    }
    found
}

#[test]
fn the_log_uses_nothing_above_it_and_does_no_io() {
    none(words_in(
        &["ext/log/"],
        &[
            "logos_engine",
            "rusqlite",
            "std::fs",
            "std::net",
            "std::thread",
            "std::process",
            "std::env",
            "SystemTime",
            "Instant",
        ],
    ));
    let manifest = std::fs::read_to_string(root().join("ext/log/Cargo.toml")).unwrap();
    for above in ["logos-engine", "rusqlite", "ureq", "notify", "getrandom", "tempfile"] {
        assert!(!manifest.contains(above), "ext/log/Cargo.toml depends on {above}");
    }
    let lib = std::fs::read_to_string(root().join("ext/log/src/lib.rs")).unwrap();
    assert!(lib.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn rooms_use_only_those_below_them() {
    let folder = root().join("ext/engine/src");
    let found = std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let mut folders: Vec<String> = found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    folders.sort();
    let mut rooms = ROOMS.map(|(room, _)| room.to_string());
    rooms.sort();
    assert_eq!(folders, rooms, "a room that no rule knows");
    for (at, (room, uses)) in ROOMS.iter().enumerate() {
        assert!(
            uses.iter().all(|used| ROOMS[..at].iter().any(|(below, _)| below == used)),
            "{room} uses what is above it"
        );
        let others = ROOMS.iter().map(|(other, _)| *other).filter(|other| other != room && !uses.contains(other));
        let words: Vec<String> =
            others.flat_map(|other| [format!("crate::{other}"), format!("super::super::{other}")]).collect();
        none(words_in(&[&format!("ext/engine/src/{room}/")], &words.iter().map(String::as_str).collect::<Vec<_>>()));
        // `use crate::{a, b}` would hide what is used.
        none(words_in(&[&format!("ext/engine/src/{room}/")], &["crate::{"]));
    }
    none(words_in(&["ext/engine/src/channel"], &["rusqlite"]));
}

#[test]
fn what_a_process_shares_is_in_one_room() {
    let mut found = Vec::new();
    for File { path, text } in files_of(&["ext/"], ".rs").iter().filter(|file| !is_test(&file.path)) {
        let code = code_without_tests(text);
        let is_static = |line: &str| line.split_whitespace().any(|word| word == "static" || word == "thread_local!");
        let lines = code.lines().enumerate().filter(|(_, line)| is_static(line));
        found.extend(lines.map(|(n, line)| format!("{path}:{}: {}", n + 1, line.trim())));
    }
    found.retain(|at| !at.starts_with("ext/engine/src/host/"));
    none(found);
}

#[test]
fn the_doors_use_the_engine_only() {
    none(words_in(&["ext/src/", "capi/src/"], &["logos_log", "ureq", "notify"]));
    for (door, other) in [("ext/Cargo.toml", "capi"), ("capi/Cargo.toml", "\"ext\"")] {
        let manifest = std::fs::read_to_string(root().join(door)).unwrap_or_default();
        assert!(!manifest.contains(other), "{door} uses {other}");
    }
}

#[test]
fn nothing_uses_the_tests() {
    for File { path, text } in files_of(&[""], "Cargo.toml").iter().filter(|file| !is_test(&file.path)) {
        let found = text.lines().any(|line| line.contains("path") && line.contains("tests/"));
        assert!(!found, "{path} depends on something in tests");
    }
}

#[test]
fn only_the_doors_export_symbols() {
    let exports = words_in(&PRODUCT, &["no_mangle", "export_name"]);
    none(exports.into_iter().filter(|at| !at.starts_with("ext/src/") && !at.starts_with("capi/src/")).collect());
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = files_of(&[""], ".rs").into_iter().filter(|file| !file.text.starts_with("//! "));
    none(silent.map(|file| format!("{}: does not open with //!", file.path)).collect());
}

#[test]
fn unsafe_code_stands_in_few_files_and_each_block_says_why_it_is_sound() {
    let mut found = Vec::new();
    for File { path, text } in files_of(&[""], ".rs") {
        let code = code(&text);
        let lines: Vec<&str> = text.lines().collect();
        for line in lines_with(&code, "unsafe") {
            if !UNSAFE.iter().any(|allowed| path.starts_with(allowed)) {
                found.push(format!("{path}:{line}: unsafe, but the file is not one of those that may"));
            }
            let stated =
                lines[..line].iter().rev().take(12).any(|l| l.contains("// SAFETY:") || l.contains("# Safety"));
            let declares =
                code.lines().nth(line - 1).is_some_and(|l| l.contains("unsafe extern") || l.contains("unsafe fn("));
            if !stated && !declares {
                found.push(format!("{path}:{line}: unsafe without a SAFETY comment above it"));
            }
        }
    }
    none(found);
}

#[test]
fn product_code_does_not_panic_on_purpose() {
    none(words_in(&PRODUCT, &[".unwrap()", ".expect(", "panic!", "unreachable!", "unimplemented!"]));
}

#[test]
fn nothing_is_left_to_do() {
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("dbg", "!("), concat!("to", "do!(")];
    let mut found = Vec::new();
    for File { path, text } in files().iter().filter(|file| !file.path.ends_with(".lock")) {
        for word in words {
            found.extend(lines_with(text, word).iter().map(|line| format!("{path}:{line}: {word}")));
        }
    }
    none(found);
}

#[test]
fn no_test_is_switched_off() {
    let mut found = Vec::new();
    for File { path, text } in files_of(&[""], ".rs") {
        found.extend(lines_with(&code(&text), "#[ignore").iter().map(|line| format!("{path}:{line}: ignored")));
    }
    none(found);
}

#[test]
fn every_markdown_file_has_exactly_one_title() {
    let mut found = Vec::new();
    for File { path, text } in files_of(&[""], ".md") {
        let mut fenced = false;
        let mut titles = 0;
        for line in text.lines() {
            fenced ^= line.trim_start().starts_with("```");
            titles += usize::from(!fenced && line.starts_with("# "));
        }
        if titles != 1 {
            found.push(format!("{path}: {titles} titles"));
        }
    }
    none(found);
}

#[test]
fn there_is_one_version() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version =
        manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"').to_owned();
    for File { path, text } in files_of(&PRODUCT, "Cargo.toml") {
        assert!(text.contains("version.workspace = true"), "{path} has a version of its own");
    }
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md")).expect("CHANGELOG.md");
    let top = changelog.lines().find_map(|line| line.strip_prefix("## ")).expect("an entry in CHANGELOG.md");
    assert!(top.contains(&version), "CHANGELOG.md begins with {top:?}, Cargo.toml says {version}");
}

#[test]
fn every_way_in_which_bytes_can_be_wrong_is_named_in_a_test() {
    let errors = std::fs::read_to_string(root().join("ext/log/src/error.rs")).unwrap();
    let code_of_errors = code(&errors);
    let body = &code_of_errors[code_of_errors.find("pub enum LogError").expect("the enum LogError")..];
    let mut variants = Vec::new();
    for line in body.lines().skip(1).take_while(|line| *line != "}") {
        if let Some(name) = line.strip_prefix("    ").filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
        {
            variants.push(name.trim_end_matches([' ', '{', ',']).split('(').next().unwrap().to_owned());
        }
    }
    assert!(variants.len() >= 5, "found only {variants:?}");
    let mut tests = String::new();
    for File { path, text } in files_of(&[""], ".rs") {
        if is_test(&path) {
            tests.push_str(&text);
        } else if let Some(start) = text.find("#[cfg(test)]") {
            tests.push_str(&text[start..]);
        }
    }
    let missing = variants.iter().filter(|name| lines_with(&tests, &format!("LogError::{name}")).is_empty());
    none(missing.map(|name| format!("LogError::{name} is named in no test")).collect());
}

#[test]
fn the_rules_see_code_and_not_what_is_written_about_it() {
    let text = "fn a() { b('\"'); \"unsafe\"; r#\"unsafe \" \"#; } // unsafe\n/* unsafe */ let c: &'a str = 'x';\n";
    assert_eq!(lines_with(&code(text), "unsafe"), Vec::<usize>::new());
    assert!(code(text).contains("let c: &'a str ="));
    let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { x.unwrap() } }\nfn c() { y.unwrap() }\n";
    assert_eq!(lines_with(&code_without_tests(text), ".unwrap()"), [4]);
}
