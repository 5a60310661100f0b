//! The house rules that a machine can hold: layers, file sizes, names in their rooms. Must never be silenced by an
//! exception in the code it reads; exceptions stand in the tables below, each with its reason.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Code lines at which a file in `src/` must be split.
const LONGEST_FILE: usize = 500;

/// Which rooms each room may `use`, beside L0 ([`FLOOR`]).
const EDGES: &[(&str, &[&str])] = &[
    ("api", &["cluster::target", "ledger"]),
    ("cluster", &["api"]),
    ("config", &["api"]),
    ("ledger", &[]),
    ("pod", &[]),
    ("claims", &["ledger"]),
    // Leases through the client of `cluster`.
    ("register", &["api", "cluster"]),
    ("router", &["api", "cluster", "config", "ledger"]),
    ("status", &["api", "cluster", "ledger"]),
    // `Claimed` is the key to the invoker.
    ("invoker", &["api", "cluster", "config", "ledger", "claims"]),
    ("dispatch", &["api", "cluster", "config", "ledger", "claims", "router", "invoker"]),
    // A source hands batches to `dispatch`, which hands on the window and lease types.
    ("sources", &["api", "cluster", "config", "ledger", "register", "dispatch", "status::report"]),
    ("admin", &["api", "cluster", "config", "ledger", "dispatch"]),
    // Renders arguments for the programs that run inside Pods.
    ("controller", &["admin", "api", "cluster", "config", "pod"]),
    ("local", &["api", "cluster", "config", "ledger", "sources", "daemon"]),
    ("cli", &["api", "cluster", "config", "ledger", "sources", "local", "daemon"]),
];
/// L0: everybody may use these, and these use one another only.
const FLOOR: &[&str] = &["event", "clock", "telemetry", "shutdown", "testkit"];
/// Where the name of a source may stand outside its folder: the reading order of the crate, and the names of the
/// generated definitions, which the compiler reads by name and a test compares with the folder.
const NAMES_SOURCES: &[&str] = &["src/lib.rs", "src/cli/install/files.rs"];
/// L5: wiring may use every room.
const WIRING: &[&str] = &["daemon", "bin", "lib"];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The room: `src/<room>/…` or `src/<room>.rs`; empty outside `src/`.
    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or("");
        inside.split(['/', '.']).next().unwrap_or("")
    }

    /// Numbered lines of code before the first `#[cfg(test)]`, comments cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let product = self.text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        product.map(|(n, line)| (n + 1, uncommented(line))).filter(|(_, line)| !line.trim().is_empty())
    }
}

/// The line without its comment. A `//` behind a colon or inside an open quote is text.
fn uncommented(line: &str) -> &str {
    let cut = line.match_indices("//").find(|(at, _)| {
        let before = &line[..*at];
        !before.ends_with(':') && before.matches('"').count().is_multiple_of(2)
    });
    cut.map_or(line, |(at, _)| &line[..at])
}

/// Judges one file; appends `path:line: what; fix` for each violation.
fn judge(file: &Source, found: &mut String) {
    let mut say = |line: usize, text: &str| {
        let _ = writeln!(found, "{}:{line}: {text}", file.path);
    };
    if !file.text.starts_with("//!") {
        say(1, "no `//!`: say what the file is for and what it must never do");
    }
    let (path, tests) = (file.path.as_str(), !file.path.starts_with("src/"));
    let rules: &[(&str, bool, &str)] = &[
        (concat!("#[", "ignore"), true, "ignored test: repair or remove it"),
        (concat!("todo", "!("), true, "unfinished: finish it"),
        (concat!("unimplemented", "!("), true, "unfinished: finish it"),
        (
            concat!("thread::", "sleep"),
            path.starts_with("tests/it/"),
            "sleep in a fast test: wait for an event",
        ),
        (
            concat!("time::", "sleep("),
            path.starts_with("tests/it/"),
            "sleep in a fast test: wait for an event",
        ),
        (".unwrap()", !tests, "unwrap: return the error, or `expect` with the invariant"),
        (
            "unsafe ",
            !tests && path != "src/sources/kafka/ffi.rs",
            "unsafe: only src/sources/kafka/ffi.rs may",
        ),
        (
            "rdkafka",
            !tests && !path.starts_with("src/sources/kafka/"),
            "rdkafka: move it to src/sources/kafka",
        ),
        (
            "hyper::client",
            !tests && file.room() != "invoker",
            "hyper's client: only src/invoker calls functions",
        ),
        ("counter!(", !tests && file.room() != "telemetry", "raw metric: define it in src/telemetry"),
        ("gauge!(", !tests && file.room() != "telemetry", "raw metric: define it in src/telemetry"),
        ("histogram!(", !tests && file.room() != "telemetry", "raw metric: define it in src/telemetry"),
        ("process::exit", !tests && file.room() != "bin", "exit: return to the binary, which exits"),
    ];
    let mut lines = 0;
    for (n, line) in file.code() {
        lines += 1;
        for (word, applies, text) in rules {
            if *applies && line.contains(word) {
                say(n, text);
            }
        }
        if tests {
            continue;
        }
        for name in ["kafka", "nats", "kinesis"] {
            // Whole words and parts of identifiers, but not the middle of an English word ("signature").
            let told = path.starts_with("src/sources/") || NAMES_SOURCES.contains(&path);
            if !told && names(line, name) {
                say(n, &format!("`{name}` outside src/sources: ask the source through its `SourceKind`"));
            }
        }
        for used in uses(line) {
            if !allowed(file.room(), &used) {
                say(n, &format!("`{}` must not use `crate::{used}`: layers in src/lib.rs", file.room()));
            }
        }
    }
    if !tests && lines > LONGEST_FILE {
        say(lines, &format!("{lines} code lines, more than {LONGEST_FILE}: split the file by thought"));
    }
}

/// Whether `line` names a source; letters right before it make it part of another word.
fn names(line: &str, name: &str) -> bool {
    let line_lower = line.to_ascii_lowercase();
    let bytes = line.as_bytes();
    line_lower.match_indices(name).any(|(at, _)| {
        let starts_word = at == 0 || !bytes[at - 1].is_ascii_alphabetic();
        let camel = bytes[at].is_ascii_uppercase() && at > 0 && bytes[at - 1].is_ascii_lowercase();
        let end = at + name.len();
        let ends = bytes.get(end).is_none_or(|next| !next.is_ascii_lowercase());
        (starts_word || camel) && (ends || name != "nats")
    })
}

/// What follows each `crate::` of a line: `a` or `a::b`; a group is taken apart at its top level.
fn uses(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(two_steps(rest)),
            Some(group) => {
                let mut depth = 0;
                for part in group.split(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0
                }) {
                    found.push(two_steps(part.trim()));
                }
            }
        }
    }
    found.retain(|used| !used.is_empty());
    found
}

fn two_steps(path: &str) -> String {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(path.len());
    path[..end].split("::").filter(|step| !step.is_empty()).take(2).collect::<Vec<_>>().join("::")
}

fn allowed(room: &str, used: &str) -> bool {
    let first = used.split("::").next().unwrap_or(used);
    if room == first || WIRING.contains(&room) || FLOOR.contains(&first) {
        return true;
    }
    let Some((_, edges)) = EDGES.iter().find(|(name, _)| *name == room) else { return false };
    edges.contains(&first) || edges.contains(&used)
}

/// Joins the lines of a `use crate::{…};` so that a group is one line; line numbers stay.
fn joined(text: &str) -> String {
    let (mut joined, mut owed) = (String::new(), 0);
    let mut open = false;
    for line in text.lines() {
        open |= line.trim_start().trim_start_matches("pub ").starts_with("use crate::{");
        joined.push_str(if open { uncommented(line).trim() } else { line });
        if open && !line.contains(';') {
            owed += 1;
            continue;
        }
        open = false;
        joined.push_str(&"\n".repeat(std::mem::take(&mut owed) + 1));
    }
    joined
}

/// Dependencies of a manifest whose group (lines without a blank or a comment between) no comment opens.
fn unexplained(manifest: &str) -> Vec<(usize, String)> {
    let (mut inside, mut explained, mut found) = (false, false, Vec::new());
    for (n, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
            explained = false;
        } else if line.starts_with('#') {
            explained = true;
        } else if line.trim().is_empty() {
            explained = false;
        } else if inside && !explained && line.contains('=') {
            found.push((n + 1, line.to_owned()));
        }
    }
    found
}

/// Paths of this repository that a document names in backquotes or links.
fn named_paths(text: &str) -> Vec<(usize, String)> {
    const ROOTS: [&str; 9] =
        ["src/", "tests/", "docs/", "scripts/", "benches/", "config/", "deploy/", "fuzz/", "examples/"];
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate() {
        for word in line.split(['`', '(', ')', ' ', ',', '"']) {
            let word = word.split(['#', ':']).next().unwrap_or("").trim_end_matches(['.', '/', ';']);
            let pattern = word.contains(['*', '<', '{', '$', '…']) || word.contains("...");
            if ROOTS.iter().any(|root| word.starts_with(root)) && !pattern {
                found.push((n + 1, word.to_owned()));
            }
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &str, extension: &str) -> Vec<Source> {
    let mut folders: Vec<PathBuf> = vec![root().join(dir)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).expect("a text file of this repository");
                let name = path.strip_prefix(root()).expect("inside the root").display().to_string();
                found.push(Source { path: name, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

#[test]
fn the_code_keeps_the_house_rules() {
    let mut found = String::new();
    for mut file in ["src", "tests", "benches"].iter().flat_map(|dir| files(dir, "rs")) {
        // This file holds the forbidden words as data.
        if file.path == "tests/it/tidy.rs" {
            continue;
        }
        file.text = joined(&file.text);
        judge(&file, &mut found);
    }
    assert!(found.is_empty(), "\n{found}");
}

#[test]
fn every_dependency_says_why() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let found = unexplained(&manifest);
    assert!(found.is_empty(), "Cargo.toml: put a comment above, with the reason: {found:?}");
}

#[test]
fn documents_name_only_files_that_exist() {
    let mut found = String::new();
    let mut documents = files("docs", "md");
    for name in ["README.md", "CONTRIBUTING.md"] {
        if let Ok(text) = fs::read_to_string(root().join(name)) {
            documents.push(Source { path: name.into(), text });
        }
    }
    for document in &documents {
        for (line, path) in named_paths(&document.text) {
            if !root().join(&path).exists() {
                let _ = writeln!(found, "{}:{line}: {path} does not exist: correct the name", document.path);
            }
        }
    }
    assert!(found.is_empty(), "\n{found}");
}

#[test]
fn each_rule_can_fail() {
    let seeds = [
        ("src/event/x.rs", "fn f() {}", "no `//!`"),
        ("tests/it/x.rs", "//! x\n#[ignore]", "ignored test"),
        ("src/event/x.rs", "//! x\nfn f() { todo!() }", "unfinished"),
        ("tests/real/x.rs", "//! x\nfn f() { unimplemented!() }", "unfinished"),
        ("tests/it/x.rs", "//! x\nstd::thread::sleep(d)", "sleep in a fast test"),
        ("tests/it/x.rs", "//! x\ntokio::time::sleep(d)", "sleep in a fast test"),
        ("src/event/x.rs", "//! x\nf().unwrap()", "unwrap"),
        ("src/event/x.rs", "//! x\nunsafe { f() }", "unsafe"),
        ("src/dispatch/x.rs", "//! x\nuse rdkafka::Message;", "rdkafka: move it"),
        ("src/router/x.rs", "//! x\nuse hyper::client::conn;", "only src/invoker"),
        ("src/router/x.rs", "//! x\nmetrics::counter!(\"a\");", "raw metric"),
        ("src/daemon.rs", "//! x\nstd::process::exit(1)", "exit: return"),
        ("src/api/x.rs", "//! x\nstruct KafkaTrigger;", "`kafka` outside"),
        ("src/config/x.rs", "//! x\nconst A: &str = \"KAFKA_BROKERS\";", "`kafka` outside"),
        (
            "src/router/x.rs",
            "//! x\nuse crate::claims::Claimed;",
            "`router` must not use `crate::claims::Claimed`",
        ),
        (
            "src/sources/x.rs",
            "//! x\nuse crate::{\n    event::Event,\n    router::Index,\n};",
            "`crate::router::Index`",
        ),
        ("src/event/x.rs", "//! x\nuse crate::api::Function;", "`event` must not use"),
        ("src/api/x.rs", "//! x\nuse crate::cluster::index::Index;", "`api` must not use"),
        ("src/attic/x.rs", "//! x\nuse crate::api::Function;", "`attic` must not use"),
    ];
    for (path, text, wanted) in seeds {
        let mut found = String::new();
        judge(&Source { path: path.into(), text: joined(text) }, &mut found);
        assert!(found.contains(wanted), "{path}: {text:?} gave {found:?}, not {wanted:?}");
    }
    let mut found = String::new();
    let text = format!("//! x\n{}", "let a = 1;\n".repeat(LONGEST_FILE + 1));
    judge(&Source { path: "src/event/x.rs".into(), text }, &mut found);
    assert!(found.contains("split the file"), "{found}");
    assert_eq!(unexplained("[dependencies]\n# why\na = \"1\"\nb = \"1\"\n\nc = \"1\"\n").len(), 1);
    assert_eq!(named_paths("see `src/a.rs:7` and [b](docs/b.md#x), not `src/*.rs`").len(), 2);
}

#[test]
fn what_is_right_passes() {
    let right = [
        (
            "src/invoker/x.rs",
            "//! x\nuse crate::{claims::Claimed, cluster::target::TargetCell, event::Event};",
        ),
        ("src/api/x.rs", "//! x\nuse crate::cluster::target::ObjectRef; // kafka in a comment"),
        (
            "src/event/x.rs",
            "//! x\nlet signature = designates;\n#[cfg(test)]\nmod tests { fn f() { g().unwrap() } }",
        ),
        ("src/sources/kafka/x.rs", "//! x\nuse rdkafka::Message;\nuse crate::dispatch::Handle;"),
        ("src/daemon.rs", "//! x\nuse crate::{sources, router, claims};"),
    ];
    for (path, text) in right {
        let mut found = String::new();
        judge(&Source { path: path.into(), text: joined(text) }, &mut found);
        assert!(found.is_empty(), "{path}: {found}");
    }
}
