//! The shape of `src/`, read from its text: who imports whom, where each foreign crate lives, and the habits that keep
//! files small and time in one place. The tables are the rule; `ARCHITECTURE.md` says why.
//!
//! The reader knows Rust's comments, strings, `use` trees and inline paths, and no more. It must not know what the code does.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::Path;

/// Each room of the house, and the rooms that it may import. `main` includes `src/commands*`, `lib` the demo's
/// `demonstration.rs` and `upkeep.rs`.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["lib", "config", "model"]),
    (
        "lib",
        &[
            "config", "clock", "vault", "token", "model", "methods", "policy", "engine", "store", "delivery", "http",
            "demo", "measure",
        ],
    ),
    ("http", &["engine", "model", "config", "measure"]),
    ("demo", &[]),
    ("engine", &["methods", "policy", "store", "delivery", "token", "vault", "clock", "model", "config", "measure"]),
    ("methods", &["model"]),
    ("policy", &["model"]),
    ("store", &["model", "measure"]),
    ("delivery", &["model", "config", "measure"]),
    ("token", &["model"]),
    ("vault", &["model", "config"]),
    ("clock", &["model"]),
    ("measure", &["clock", "model"]),
    ("config", &["model"]),
    ("model", &[]),
];

/// What the inline tests of any room may import besides: a clock to turn, a source of randomness, keys to seal with.
const FOR_TESTS: &[&str] = &["clock", "vault"];

/// Foreign crates with one home: rooms, or the beginning of a path where a star ends it. No home: nowhere.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["axum", "hyper", "hyper_util"], &["http", "demo", "lib"]),
    (&["axum_extra", "tower", "utoipa_axum", "askama", "governor"], &["http", "demo"]),
    (&["sqlx", "rusqlite"], &["store"]),
    (&["webauthn_rs", "webauthn_rs_core", "webauthn_rs_proto", "serde_cbor_2"], &["methods/webauthn*"]),
    (&["totp_rs", "qrcode"], &["methods/totp*"]),
    (&["phonenumber"], &["methods/sms*"]),
    (&["argon2"], &["vault"]),
    (&["aws_lc_rs"], &["vault", "token", "clock"]),
    (&["jsonwebtoken"], &["token"]),
    (&["reqwest"], &["delivery", "demo", "main"]),
    (&["anyhow", "clap", "tikv_jemallocator", "tracing_subscriber"], &["main"]),
    (&["opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp"], &["main", "http/trace*"]),
    (&["tracing_opentelemetry"], &["main", "http/trace*"]),
    (&["metrics", "metrics_exporter_prometheus"], &["measure"]),
    (&["rand", "fastrand", "getrandom"], &[]),
];

const LONGEST_FILE: usize = 400;
const DRAWERS: &[&str] = &["utils", "helpers", "common", "manager", "service"];

#[test]
fn every_room_imports_only_the_rooms_it_may() {
    assert_none(imports(&sources()));
}

#[test]
fn every_foreign_crate_stays_in_its_home() {
    assert_none(homes(&sources()));
}

#[test]
fn only_the_clock_reads_the_time() {
    assert_none(times(&sources()));
}

#[test]
fn no_id_is_made_from_a_time_of_its_own() {
    assert_none(own_ids(&sources()));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    assert_none(headers(&sources()));
}

#[test]
fn no_file_without_its_tests_is_longer_than_the_limit() {
    assert_none(lengths(&sources()));
}

#[test]
fn no_file_is_named_like_a_drawer() {
    assert_none(names(&sources()));
}

#[test]
fn nothing_unwraps_outside_tests() {
    assert_none(unwraps(&sources()));
}

fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "{} found:\n{}", found.len(), found.join("\n"));
}

// --- the rules ---

fn imports(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let Some((room, may)) = ROOMS.iter().find(|(room, _)| *room == source.room()) else {
            found.push(format!("{}:1: `{}` is no room of the house", source.path, source.room()));
            continue;
        };
        for path in source.own_paths() {
            let Some(target) = source.room_of(path) else { continue };
            let in_tests = source.in_tests(path.place) && FOR_TESTS.contains(&target);
            if target != *room && !may.contains(&target) && !in_tests {
                found.push(format!("{}:{}: {room} imports {target} (`{}`)", source.path, path.line, path.text()));
            }
        }
    }
    found
}

fn homes(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for path in source.own_paths() {
            let Some((_, homes)) = HOMES.iter().find(|(crates, _)| crates.contains(&path.first())) else { continue };
            if !homes.iter().any(|home| source.lives_in(home)) {
                let home = if homes.is_empty() { "nowhere".to_owned() } else { format!("in {}", homes.join(", ")) };
                found.push(format!("{}:{}: `{}` belongs {home}", source.path, path.line, path.text()));
            }
        }
    }
    found
}

fn times(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.lives_in("clock")) {
        for path in source.paths.iter().filter(|path| !path.import) {
            let full = source.expanded(path);
            let reads = match full.as_slice() {
                [.., kind, "now"] => ["SystemTime", "Instant", "UtcDateTime"].contains(kind),
                [.., last] => ["now_utc", "now_local"].contains(last),
                [] => false,
            };
            if reads {
                found.push(format!(
                    "{}:{}: `{}` reads the time outside clock.rs",
                    source.path,
                    path.line,
                    full.join("::")
                ));
            }
        }
    }
    found
}

fn own_ids(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for token in source.tokens.iter().filter(|token| token.text == "now_v7") {
            found.push(format!(
                "{}:{}: `now_v7` reads the system clock: make ids from the Moment",
                source.path, token.line
            ));
        }
    }
    found
}

fn headers(sources: &[Source]) -> Vec<String> {
    let bare = sources.iter().filter(|source| !source.text.starts_with("//!"));
    bare.map(|source| format!("{}:1: no `//!` that says what the file is for", source.path)).collect()
}

fn lengths(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let tests: HashSet<usize> = source.tests.iter().flat_map(|range| source.lines(range)).collect();
        let count = (1..=source.text.lines().count()).filter(|line| !tests.contains(line)).count();
        if count > LONGEST_FILE {
            found.push(format!("{}:{LONGEST_FILE}: {count} lines without tests", source.path));
        }
    }
    found
}

fn names(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        if let Some(drawer) = DRAWERS.iter().find(|drawer| source.path.contains(*drawer)) {
            found.push(format!("{}:1: `{drawer}` says nothing of what is inside", source.path));
        }
    }
    found
}

fn unwraps(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (place, four) in source.tokens.windows(4).enumerate() {
            // with an argument it is a method of another meaning
            let texts: Vec<&str> = four.iter().map(|token| token.text.as_str()).collect();
            let calls = matches!(texts[..], [".", "unwrap", "(", ")"] | ["Option" | "Result", "::", "unwrap", _]);
            if calls && !source.in_tests(place) {
                found.push(format!("{}:{}: `unwrap` outside tests", source.path, four[1].line));
            }
        }
    }
    found
}

// --- a file ---

struct Source {
    /// From the root of the package, with forward slashes: `src/store/mod.rs`.
    path: String,
    text: String,
    tokens: Vec<Token>,
    /// Tokens of the items under `#[cfg(test)]`.
    tests: Vec<Range<usize>>,
    paths: Vec<NamedPath>,
    /// What a name stands for, by the `use` that brought it in.
    names: HashMap<String, Vec<String>>,
}

struct Token {
    text: String,
    line: usize,
}

/// A path as it is written, `self` and `super` resolved to `crate`.
struct NamedPath {
    segments: Vec<String>,
    place: usize,
    line: usize,
    import: bool,
}

impl NamedPath {
    fn first(&self) -> &str {
        &self.segments[0]
    }

    fn text(&self) -> String {
        self.segments.join("::")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src and its folders can be read") {
            let path = entry.expect("a folder's entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(
        files.iter().any(|file| file.ends_with("src/lib.rs")),
        "src/lib.rs was not read: the rules would see nothing"
    );
    let parse = |file: &Path| {
        let text = fs::read_to_string(file).expect("a source file is UTF-8");
        let path = file.strip_prefix(root).expect("it lies under the root").to_string_lossy().replace('\\', "/");
        Source::new(&path, &text)
    };
    files.iter().map(|file| parse(file)).collect()
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        let tokens = tokens(text);
        let whole = 0..tokens.len();
        let tests = if path.ends_with("/tests.rs") { vec![whole] } else { tests(&tokens) };
        let mut reader = Reader { tokens: &tokens, module: module(path), paths: Vec::new(), names: HashMap::new() };
        reader.read();
        let Reader { paths, names, .. } = reader;
        Source { path: path.to_owned(), text: text.to_owned(), tokens, tests, paths, names }
    }

    fn inside(&self) -> &str {
        self.path.strip_prefix("src/").expect("every source lies in src")
    }

    fn room(&self) -> &str {
        let first = self.inside().split('/').next().unwrap_or_default().trim_end_matches(".rs");
        match first {
            _ if first.starts_with("commands") => "main",
            "demonstration" | "upkeep" => "lib",
            other => other,
        }
    }

    fn lives_in(&self, home: &str) -> bool {
        match home.strip_suffix('*') {
            Some(beginning) => self.inside().starts_with(beginning),
            None => self.room() == home,
        }
    }

    fn in_tests(&self, place: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&place))
    }

    /// The paths that name something where they stand, rather than through a `use` above them.
    fn own_paths(&self) -> impl Iterator<Item = &NamedPath> {
        self.paths.iter().filter(|path| path.import || !self.names.contains_key(path.first()))
    }

    /// The room that a path leads to, if it is one of ours.
    fn room_of(&self, path: &NamedPath) -> Option<&'static str> {
        let package = match path.first() {
            "crate" => false,
            "countersign" => true,
            _ => return None,
        };
        let next = path.segments.get(1).map_or("", String::as_str);
        let known = ROOMS.iter().find(|(room, _)| *room == next).map(|(room, _)| *room);
        let binary = self.room() == "main" && !package;
        Some(known.unwrap_or(if binary { "main" } else { "lib" }))
    }

    fn expanded<'a>(&'a self, path: &'a NamedPath) -> Vec<&'a str> {
        let mut full: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        for _ in 0..4 {
            let Some(names) = self.names.get(full[0]) else { break };
            full.splice(0..1, names.iter().map(String::as_str));
        }
        full
    }

    fn lines(&self, range: &Range<usize>) -> Range<usize> {
        match self.tokens.get(range.clone()) {
            Some([first, .., last]) => first.line..last.line + 1,
            _ => 0..0,
        }
    }
}

/// The module that a file is: `src/store/mod.rs` is `store`.
fn module(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if ["mod", "lib", "main"].contains(&module[module.len() - 1].as_str()) {
        module.pop();
    }
    module
}

/// The items under `#[cfg(test)]`, each from its attribute to its last brace or semicolon.
fn tests(tokens: &[Token]) -> Vec<Range<usize>> {
    let text = |place: usize| tokens.get(place).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        let inner = text(place + 1) == "!";
        let open = place + 1 + usize::from(inner);
        if !(text(place) == "#" && text(open) == "[" && text(open + 1) == "cfg") {
            place += 1;
            continue;
        }
        let end = closing(tokens, open);
        let condition: Vec<&str> = (open..end).map(text).collect();
        let start = place;
        place = end + 1;
        if !condition.contains(&"test") || condition.contains(&"not") {
            continue;
        }
        if inner {
            let whole = 0..tokens.len();
            return vec![whole];
        }
        while text(place) == "#" {
            place = closing(tokens, place + 1) + 1;
        }
        while place < tokens.len() && text(place) != ";" {
            match text(place) {
                "{" => {
                    place = closing(tokens, place);
                    break;
                }
                "(" | "[" => place = closing(tokens, place) + 1,
                _ => place += 1,
            }
        }
        place = (place + 1).min(tokens.len());
        found.push(start..place);
    }
    found
}

/// The place of the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (place, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return place;
        }
    }
    tokens.len()
}

// --- paths ---

struct Reader<'a> {
    tokens: &'a [Token],
    module: Vec<String>,
    paths: Vec<NamedPath>,
    names: HashMap<String, Vec<String>>,
}

impl Reader<'_> {
    fn text(&self, place: usize) -> &str {
        self.tokens.get(place).map_or("", |token| token.text.as_str())
    }

    fn read(&mut self) {
        let mut depth = 0;
        let mut modules = Vec::new();
        let mut place = 0;
        while place < self.tokens.len() {
            match self.text(place) {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if modules.last() == Some(&depth) {
                        modules.pop();
                        self.module.pop();
                    }
                }
                "mod" if is_name(self.text(place + 1)) && self.text(place + 2) == "{" => {
                    modules.push(depth);
                    self.module.push(self.text(place + 1).to_owned());
                }
                "use" if self.text(place + 1) != "<" => {
                    place = self.tree(place + 1, &[]);
                    continue;
                }
                "extern" if self.text(place + 1) == "crate" => {
                    self.add(place, vec![self.text(place + 2).to_owned()], true)
                }
                name if is_name(name) && self.text(place + 1) == "::" && self.begins(place) => {
                    place = self.inline(place);
                    continue;
                }
                _ => {}
            }
            place += 1;
        }
    }

    /// Whether a path begins at this name: nothing stands before it that it is a part of.
    fn begins(&self, place: usize) -> bool {
        let before = |back: usize| place.checked_sub(back).map_or("", |at| self.text(at));
        before(1) != "::" || !(is_name(before(2)) || before(2) == ">")
    }

    fn inline(&mut self, start: usize) -> usize {
        let mut segments = vec![self.text(start).to_owned()];
        let mut place = start + 1;
        while self.text(place) == "::" && is_name(self.text(place + 1)) {
            segments.push(self.text(place + 1).to_owned());
            place += 2;
        }
        self.add(start, segments, false);
        place
    }

    /// One tree of a `use`, from its first token; the place after its last.
    fn tree(&mut self, mut place: usize, prefix: &[String]) -> usize {
        let mut segments = prefix.to_vec();
        loop {
            match self.text(place) {
                "::" => place += 1,
                "{" => {
                    let end = closing(self.tokens, place);
                    place += 1;
                    while place < end {
                        place = self.tree(place, &segments);
                        place += usize::from(self.text(place) == ",");
                    }
                    return end + 1;
                }
                name if is_name(name) || name == "*" => {
                    let of_prefix = name == "self" && !segments.is_empty();
                    if !of_prefix {
                        segments.push(name.to_owned());
                    }
                    if self.text(place + 1) == "::" {
                        place += 2;
                        continue;
                    }
                    let renamed = self.text(place + 1) == "as";
                    let known = if renamed {
                        self.text(place + 2).to_owned()
                    } else {
                        segments.last().cloned().unwrap_or_default()
                    };
                    self.add(place, segments.clone(), true);
                    if segments != [known.clone()] {
                        self.names.insert(known, self.resolved(segments));
                    }
                    return place + if renamed { 3 } else { 1 };
                }
                _ => return place + 1,
            }
        }
    }

    fn add(&mut self, place: usize, segments: Vec<String>, import: bool) {
        let segments = self.resolved(segments);
        self.paths.push(NamedPath { segments, place, line: self.tokens[place].line, import });
    }

    fn resolved(&self, segments: Vec<String>) -> Vec<String> {
        let up = segments.iter().take_while(|segment| *segment == "super").count();
        let here = usize::from(segments[0] == "self");
        if up + here == 0 {
            return segments;
        }
        let kept = self.module.len().saturating_sub(up);
        let mut full = vec!["crate".to_owned()];
        full.extend_from_slice(&self.module[..kept]);
        full.extend_from_slice(&segments[up + here..]);
        full
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

// --- tokens ---

/// Names, numbers, `::` and single signs; comments, strings and characters are left out.
fn tokens(text: &str) -> Vec<Token> {
    let source: Vec<char> = text.chars().collect();
    let at = |place: usize| source.get(place).copied().unwrap_or('\0');
    let word = |place: usize| source[place..].iter().take_while(|sign| sign.is_alphanumeric() || **sign == '_').count();
    let mut found: Vec<Token> = Vec::new();
    let (mut place, mut line) = (0, 1);
    while place < source.len() {
        let start = place;
        let mut kept = None;
        match at(place) {
            '/' if at(place + 1) == '/' => place += source[place..].iter().take_while(|sign| **sign != '\n').count(),
            '/' if at(place + 1) == '*' => place = after_comment(&source, place),
            '"' => place = after_string(&source, place, None),
            '\'' => match character(&source, place) {
                Some(end) => place = end,
                None => place += 1 + word(place + 1),
            },
            sign if sign.is_alphanumeric() || sign == '_' => {
                let end = place + word(place);
                let name: String = source[place..end].iter().collect();
                let hashes = source[end..].iter().take_while(|sign| **sign == '#').count();
                let raw = name.ends_with('r') && at(end + hashes) == '"';
                match name.as_str() {
                    "r" | "br" | "cr" if raw => place = after_string(&source, end + hashes, Some(hashes)),
                    "b" | "c" if at(end) == '"' => place = after_string(&source, end, None),
                    "b" if at(end) == '\'' => place = character(&source, end).unwrap_or(end + 1),
                    "r" if at(end) == '#' => place = end + 1,
                    _ => {
                        place = end;
                        kept = Some(name);
                    }
                }
            }
            ':' if at(place + 1) == ':' => {
                place += 2;
                kept = Some("::".to_owned());
            }
            sign => {
                place += 1;
                kept = (!sign.is_whitespace()).then(|| sign.to_string());
            }
        }
        found.extend(kept.map(|text| Token { text, line }));
        line += source[start..place.min(source.len())].iter().filter(|sign| **sign == '\n').count();
    }
    found
}

fn after_comment(source: &[char], start: usize) -> usize {
    let (mut depth, mut place) = (0, start);
    while place < source.len() {
        match source[place..] {
            ['/', '*', ..] => (depth, place) = (depth + 1, place + 2),
            ['*', '/', ..] => (depth, place) = (depth - 1, place + 2),
            _ => place += 1,
        }
        if depth == 0 {
            break;
        }
    }
    place
}

/// The place after the string whose quotation mark is at `open`; with `hashes` it is raw.
fn after_string(source: &[char], open: usize, hashes: Option<usize>) -> usize {
    let mut place = open + 1;
    while place < source.len() {
        match (source[place], hashes) {
            ('\\', None) => place += 1,
            ('"', None) => return place + 1,
            ('"', Some(count))
                if source[place + 1..].iter().take(count).filter(|sign| **sign == '#').count() == count =>
            {
                return place + 1 + count;
            }
            _ => {}
        }
        place += 1;
    }
    source.len()
}

/// The place after the character literal at `open`, unless it is a lifetime.
fn character(source: &[char], open: usize) -> Option<usize> {
    match source[open + 1..] {
        ['\\', _, ..] => {
            let rest = source[open + 3..].iter().position(|sign| *sign == '\'')?;
            Some(open + 3 + rest + 1)
        }
        [_, '\'', ..] => Some(open + 3),
        _ => None,
    }
}

// --- the rules can fail ---

mod checker {
    use super::*;

    fn check(rule: fn(&[Source]) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
        rule(&[Source::new(path, text)])
    }

    #[test]
    fn an_import_of_a_room_out_of_reach_is_found_with_its_line() {
        let found = check(imports, "src/http/pages/mod.rs", "//! Pages.\n\nuse crate::store::Store;\n");
        assert_eq!(found, ["src/http/pages/mod.rs:3: http imports store (`crate::store::Store`)"]);
    }

    #[test]
    fn an_import_is_found_in_every_way_of_writing_it() {
        for text in [
            "pub(crate) use crate::store::Store;",
            "use crate::{model::Id, store::{self, Store}};",
            "use crate::{\n    model::Id,\n    store as rows,\n};",
            "use countersign::store::Store;",
            "use ::countersign::store::*;",
            "fn f(x: &crate::store::Store) {}",
            "fn f() { let x = crate::store::open::<u8>(1); }",
            "macro_rules! m { () => { $crate::store::open() } }",
            "use super::super::store::Store;",
            "fn f() -> super::super::store::Error { todo!() }",
            "mod inner { use super::super::super::store::Store; }",
            "mod inner { mod deep {} } use super::super::store::Store;",
            "#[derive(crate::store::Row)] struct S;",
            "#[cfg(test)] mod tests { use crate::store::Store; }",
            "#[cfg(test)] mod tests { use crate::vault::MasterKey; } use crate::store::Store;",
        ] {
            let found = check(imports, "src/methods/totp.rs", text);
            assert!(
                !found.is_empty() && found.iter().all(|what| what.contains("methods imports store")),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn each_member_of_a_group_is_found_on_its_own_line() {
        let found = check(
            imports,
            "src/policy/mod.rs",
            "use crate::{\n    store::Store,\n    model::Id,\n    vault::{Key, Ring},\n};",
        );
        let lines: Vec<&str> = found.iter().filter_map(|what| what.split(' ').next()).collect();
        assert_eq!(lines, ["src/policy/mod.rs:2:", "src/policy/mod.rs:4:", "src/policy/mod.rs:4:"]);
    }

    #[test]
    fn what_a_room_may_import_is_no_finding() {
        for (path, text) in [
            ("src/engine/mod.rs", "use crate::{store, vault::Vault, methods::*, clock::Clock, config, model};"),
            (
                "src/methods/totp.rs",
                "use crate::model::Id; use super::Method; use self::inner::X; pub(in crate::methods) fn f() {}",
            ),
            (
                "src/store/mod.rs",
                "mod user; use user::Row; #[cfg(test)] mod tests { use super::*; use super::super::model::Id; }",
            ),
            ("src/lib.rs", "pub mod store; use crate::{http, engine}; use store::Store;"),
            (
                "src/main.rs",
                "mod commands; use countersign::config::Config; fn main() { countersign::run(); crate::commands::go() }",
            ),
            (
                "src/commands/key.rs",
                "use crate::commands::Output; use crate::Arguments; use super::super::Arguments as A;",
            ),
            ("src/methods/sms.rs", "#[cfg(test)] mod tests { use crate::{clock::ManualClock, vault::MasterKey}; }"),
            ("src/demo/mod.rs", "use crate::demo::bank::Bank; use axum::Router; fn f<'a>() -> impl Send + use<'a> {}"),
        ] {
            assert_eq!(check(imports, path, text), [""; 0], "{text}");
        }
    }

    #[test]
    fn comments_strings_and_characters_are_not_read() {
        let text = r####"
            // use crate::store::A;
            /* use crate::store::B; /* nested */ use crate::store::C; */
            /// [`crate::store::D`]
            const A: &str = "use crate::store::E; \" crate::store::F";
            const B: &str = r#"use crate::store::"G";"#;
            const C: &[u8] = b"use crate::store::H"; const D: &[u8] = br"crate::store::I";
            const E: char = '"'; const F: char = '\''; const G: u8 = b'"'; const H: char = '\u{22}';
            fn f<'a>(x: &'a str) -> &'a str { x }
            fn r#use(r: u8, b: u8) -> u8 { r + b }
            use crate::vault::Found;
        "####;
        assert_eq!(
            check(imports, "src/methods/sms.rs", text),
            ["src/methods/sms.rs:11: methods imports vault (`crate::vault::Found`)"]
        );
    }

    #[test]
    fn a_file_outside_every_room_is_found() {
        assert_eq!(check(imports, "src/misc.rs", ""), ["src/misc.rs:1: `misc` is no room of the house"]);
    }

    #[test]
    fn main_and_its_commands_reach_no_further_than_the_library() {
        for text in ["use countersign::store::Store;", "use crate::store::Store;"] {
            assert_eq!(check(imports, "src/commands.rs", text).len(), 1, "{text}");
        }
        assert_eq!(
            check(imports, "src/engine/mod.rs", "use crate::run;").len(),
            1,
            "the library's root is above the engine"
        );
    }

    #[test]
    fn a_foreign_crate_is_found_away_from_its_home() {
        for (path, text) in [
            ("src/engine/mod.rs", "use sqlx::Row;"),
            ("src/engine/mod.rs", "fn f(x: &sqlx::Pool) {}"),
            ("src/engine/mod.rs", "use ::sqlx as db;"),
            ("src/engine/mod.rs", "extern crate sqlx;"),
            ("src/model/user.rs", "#[derive(sqlx::FromRow)] struct Row;"),
            ("src/methods/totp.rs", "use webauthn_rs::prelude::*;"),
            ("src/methods/webauthn.rs", "use totp_rs::Totp;"),
            ("src/lib.rs", "use tower::ServiceExt;"),
            ("src/lib.rs", "fn f() -> anyhow::Result<()> { Ok(()) }"),
            ("src/config.rs", "use clap::Parser;"),
            ("src/http/auth.rs", "let x = rand::random::<u8>();"),
            ("src/vault.rs", "use rand::Rng;"),
            ("src/engine/mod.rs", "use aws_lc_rs::rand; fn f() { rand::fill(&mut x) }"),
        ] {
            assert_eq!(check(homes, path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn a_foreign_crate_at_home_is_no_finding() {
        for (path, text) in [
            ("src/store/mod.rs", "use sqlx::{Row, sqlite::SqlitePool};"),
            ("src/methods/webauthn/cbor.rs", "use serde_cbor_2::Value;"),
            ("src/methods/webauthn_options.rs", "use webauthn_rs_proto::*;"),
            ("src/lib.rs", "let app = axum::serve(listener, router);"),
            ("src/main.rs", "use clap::Parser; fn main() -> anyhow::Result<()> {}"),
            ("src/commands/doctor.rs", "use anyhow::Context;"),
            ("src/token.rs", "use aws_lc_rs::rand; fn f() { rand::fill(&mut x) }"),
            ("src/engine/mod.rs", "let operand::X = y; brand::z(); self.sqlx();"),
        ] {
            assert_eq!(check(homes, path, text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_reading_of_the_time_is_found_under_any_name() {
        for text in [
            "let now = std::time::SystemTime::now();",
            "use std::time::Instant; fn f() { Instant::now(); }",
            "use std::time::SystemTime as Wall; fn f() { Wall::now(); }",
            "use std::time; fn f() { time::Instant::now(); }",
            "let f = tokio::time::Instant::now;",
            "let now = time::OffsetDateTime::now_utc();",
        ] {
            assert_eq!(check(times, "src/engine/session.rs", text).len(), 1, "{text}");
            assert_eq!(check(times, "src/clock.rs", text), [""; 0], "{text}");
        }
        assert_eq!(
            check(times, "src/engine/mod.rs", "use std::time::Instant; fn f(c: &Clock) { c.now(); Clock::now(c); }"),
            [""; 0]
        );
    }

    #[test]
    fn an_id_from_a_time_of_its_own_is_found() {
        assert_eq!(check(own_ids, "src/model/ids.rs", "fn f() -> Uuid { Uuid::now_v7() } // now_v7").len(), 1);
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        assert_eq!(check(headers, "src/vault.rs", "// Not a header.\n").len(), 1);
        assert_eq!(check(headers, "src/vault.rs", "//! A header.\n"), [""; 0]);
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let body = "fn f() {}\n".repeat(LONGEST_FILE);
        let tests = format!("#[cfg(test)]\nmod tests {{\n    use super::*;\n{body}}}\n");
        assert_eq!(check(lengths, "src/vault.rs", &format!("{body}{tests}")), [""; 0]);
        assert_eq!(
            check(lengths, "src/vault.rs", &format!("{body}\n{tests}")),
            ["src/vault.rs:400: 401 lines without tests"]
        );
        assert_eq!(
            check(lengths, "src/vault.rs", &format!("{tests}{body}fn g() {{}}\n")).len(),
            1,
            "code after the tests counts"
        );
        assert_eq!(check(lengths, "src/vault.rs", &format!("#[cfg(not(test))]\nmod m {{\n{body}}}\n")).len(), 1);
    }

    #[test]
    fn a_drawer_is_found_in_a_file_name_and_in_a_folder_name() {
        for path in ["src/store/utils.rs", "src/helpers/mod.rs", "src/engine/session_manager.rs"] {
            assert_eq!(check(names, path, "").len(), 1, "{path}");
        }
        assert_eq!(check(names, "src/engine/session.rs", ""), [""; 0]);
    }

    #[test]
    fn an_unwrap_is_found_outside_tests_only() {
        let tests = "#[cfg(test)]\n#[allow(x)]\nmod tests { fn f() { a.unwrap(); } }\n#[cfg(test)] fn g(x: [u8; 2]) -> u8 { b.unwrap() }\n";
        assert_eq!(check(unwraps, "src/vault.rs", tests), [""; 0]);
        assert_eq!(check(unwraps, "src/vault/tests.rs", "fn f() { a.unwrap(); }"), [""; 0]);
        assert_eq!(
            check(unwraps, "src/vault.rs", &format!("{tests}fn h() {{\n    c.unwrap() }}")),
            ["src/vault.rs:6: `unwrap` outside tests"]
        );
        assert_eq!(check(unwraps, "src/vault.rs", "fn f() { x.map(Option::unwrap) }\n#[cfg(test)] use a::b;").len(), 1);
        assert_eq!(
            check(unwraps, "src/vault.rs", "fn f() { x.unwrap_or(1); y.expect(\"z\"); ring.unwrap(&key)?; }"),
            [""; 0]
        );
    }

    #[test]
    fn every_room_that_the_tables_name_is_a_room() {
        let room = |name: &str| ROOMS.iter().any(|(room, _)| *room == name);
        assert!(ROOMS.iter().flat_map(|(_, may)| *may).all(|name| room(name)));
        assert!(HOMES.iter().flat_map(|(_, homes)| *homes).all(|home| room(home.split('/').next().unwrap_or(home))));
    }
}
