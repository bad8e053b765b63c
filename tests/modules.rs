//! Checks the layout that the crate's docs describe: rooms stand on floors and import only from floors below, files
//! inside a folder import each other in one direction, the pure rooms name no I/O, clock, log or Lua, names that belong
//! to one room occur in no other, and no two types have the same name.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "helpers fail as tests do"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Names that only impure code needs.
const IMPURE: [&str; 10] = [
    "std::io",
    "std::net",
    "std::time",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "log::",
    "mlua",
    "rustls",
];

/// Names, and the only rooms that may have them.
const ALONE: [(&str, &[&str]); 8] = [
    ("rusqlite::", &["state"]),
    ("mlua::", &["hooks"]),
    ("rustls::", &["transport", "server"]),
    ("ureq::", &["transport"]),
    ("sd_notify::", &["service"]),
    ("listenfd::", &["service"]),
    ("thread::Builder", &["server", "threads"]),
    ("thread::spawn", &["server", "threads"]),
];

/// A source file: its module, such as `hooks::load::file`, and its code without comments and tests.
struct Source {
    path: PathBuf,
    module: Vec<String>,
    code: String,
    is_facade: bool,
}

impl Source {
    fn room(&self) -> &str {
        &self.module[0]
    }

    fn name(&self) -> String {
        self.module.join("::")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(&root).unwrap().with_extension("");
            let mut module: Vec<String> =
                below.components().map(|part| part.as_os_str().to_str().unwrap().to_owned()).collect();
            let is_facade = module.last().unwrap() == "mod";
            if is_facade {
                module.pop();
            }
            let is_test = module.iter().any(|part| part.starts_with("tests"));
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            if is_rust && !is_test && !matches!(module[0].as_str(), "lib" | "main") {
                let code = code(&fs::read_to_string(&path).unwrap());
                found.push(Source { path, module, code, is_facade });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The code without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The floor of each room, and whether it is pure, from the table in the crate's docs.
fn floors() -> BTreeMap<String, (u32, bool)> {
    let docs = fs::read_to_string(root().join("lib.rs")).unwrap();
    let mut floors = BTreeMap::new();
    for line in docs.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some((floor, rooms)) = line.split_once(" | ") else { continue };
        let Ok(floor) = floor.parse() else { continue };
        for room in rooms.trim_end_matches(" |").split(", ") {
            let name = room.split('`').nth(1).unwrap_or_else(|| panic!("'{room}' names no room"));
            floors.insert(name.to_owned(), (floor, room.ends_with("(pure)")));
        }
    }
    floors
}

/// The paths that a piece of code names after `crate`, `super` and `self`, with those in braces written out.
fn imports(module: &[String], is_facade: bool, code: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for (start, _) in code.match_indices("::") {
        let before = &code[..start];
        let word =
            before.len() - before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
        let word = &before[before.len() - word..];
        // A path that continues to the left was found at its first word.
        if before[..before.len() - word.len()].ends_with("::") {
            continue;
        }
        // `super` of a file is the module that it stands in; a `mod.rs` is that module itself.
        let mut base = match word {
            "crate" => Vec::new(),
            "super" => module[..module.len() - 1].to_vec(),
            "self" => module.to_vec(),
            _ => continue,
        };
        let mut rest = &code[start + 2..];
        while let Some(after) = rest.strip_prefix("super::") {
            base.pop();
            rest = after;
        }
        expand(&base, rest, &mut found);
    }
    if is_facade {
        // A facade names the modules that it re-exports by bare words: `pub use call::Path`.
        for (at, _) in code.match_indices("use ") {
            let rest = &code[at + 4..];
            if !["crate", "super", "self", "std"].iter().any(|word| rest.starts_with(word)) {
                expand(module, rest, &mut found);
            }
        }
    }
    found
}

/// Adds the paths of a use tree such as `a::{b, c::D}`.
fn expand(base: &[String], tree: &str, found: &mut BTreeSet<Vec<String>>) {
    let end = tree.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(tree.len());
    let word = &tree[..end];
    let mut path = base.to_vec();
    if !word.is_empty() && word != "self" {
        path.push(word.to_owned());
    }
    let rest = &tree[end..];
    let group = if word.is_empty() { rest.strip_prefix('{') } else { rest.strip_prefix("::{") };
    if let Some(group) = group {
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' | ',' if depth == 0 => {
                    let part = group[start..at].trim();
                    if !part.is_empty() {
                        expand(&path, part, found);
                    }
                    start = at + 1;
                    if c == '}' {
                        return;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    } else if let Some(rest) = rest.strip_prefix("::") {
        expand(&path, rest, found);
    } else {
        found.insert(path);
    }
}

/// For each file, the files that it imports. A name that a `mod.rs` re-exports counts for the file that defines it.
fn graph(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeMap<Vec<String>, &Source> =
        sources.iter().map(|source| (source.module.clone(), source)).collect();
    let mut graph = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_facade) {
        let mut targets = BTreeSet::new();
        for path in imports(&source.module, false, &source.code) {
            if let Some(target) = file_of(&path, &files, 0) {
                targets.insert(target);
            }
        }
        targets.remove(&source.name());
        graph.insert(source.name(), targets);
    }
    graph
}

/// The file that a path leads to: the longest beginning of it that is a file, through at most a few re-exports.
fn file_of(path: &[String], files: &BTreeMap<Vec<String>, &Source>, hops: usize) -> Option<String> {
    let length = (1..=path.len()).rev().find(|length| files.contains_key(&path[..*length]))?;
    let source = files[&path[..length]];
    let name = path.get(length);
    if let (true, Some(name), 0..4) = (source.is_facade, name, hops) {
        let exports = imports(&source.module, true, &source.code);
        if let Some(export) =
            exports.iter().find(|export| export.last() == Some(name) && export.len() > length + 1)
        {
            return file_of(export, files, hops + 1);
        }
    }
    (!source.is_facade).then(|| source.name())
}

/// A circle in the graph, if there is one.
fn circle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        node: &str,
        graph: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(at) = path.iter().position(|other| other == node) {
            return Some(path[at..].to_vec());
        }
        if done.contains(node) {
            return None;
        }
        path.push(node.to_owned());
        for next in graph.get(node).into_iter().flatten() {
            if let Some(circle) = visit(next, graph, path, done) {
                return Some(circle);
            }
        }
        path.pop();
        done.insert(node.to_owned());
        None
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|node| visit(node, graph, &mut Vec::new(), &mut done))
}

#[test]
fn a_room_imports_only_rooms_below_it() {
    let floors = floors();
    let floor = |room: &str| floors.get(room).map(|(floor, _)| *floor);
    let mut wrong = Vec::new();
    for source in sources() {
        let path = source.path.display();
        let own = floor(source.room()).unwrap_or_else(|| panic!("{path}: '{}' has no floor", source.room()));
        for import in imports(&source.module, source.is_facade, &source.code) {
            let Some(room) = import.first().filter(|room| *room != source.room()) else { continue };
            match floor(room) {
                Some(other) if other < own => {}
                Some(other) => wrong.push(format!("{path} (floor {own}) imports '{room}' (floor {other})")),
                // These re-exports of a facade name another crate.
                None if source.is_facade => {}
                None => wrong.push(format!("{path}: '{room}' has no floor")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_import_each_other_in_one_direction() {
    let circle = circle(&graph(&sources()));
    assert!(circle.is_none(), "a circle of imports: {}", circle.unwrap().join(" -> "));
}

#[test]
fn a_mod_file_holds_docs_and_re_exports_only() {
    for source in sources().iter().filter(|source| source.is_facade) {
        let statements = source.code.split_inclusive(';').map(str::trim).filter(|text| !text.is_empty());
        for statement in statements {
            let rest = statement.rsplit("]\n").next().unwrap().trim_start();
            let visible =
                ["pub ", "pub(crate) ", "pub(super) "].iter().find_map(|word| rest.strip_prefix(word));
            let is_plain = ["mod ", "use "].iter().any(|start| visible.unwrap_or(rest).starts_with(start));
            assert!(is_plain, "{}: move this to a file of its own: {rest}", source.path.display());
        }
    }
}

#[test]
fn the_pure_rooms_only_compute() {
    let floors = floors();
    for source in sources() {
        let is_pure = floors.get(source.room()).is_some_and(|(_, is_pure)| *is_pure);
        for name in IMPURE.iter().filter(|_| is_pure) {
            assert!(!source.code.contains(name), "{} is pure, but names {name}", source.path.display());
        }
    }
}

/// Each request of a client leaves through `outgoing`, which applies `never_to` to the bytes that really go out.
#[test]
fn bodies_leave_by_one_file_only() {
    let calls =
        ["post_with(", "upstream().post(", "upstream().ask(", "tokenize::ask_token_count", "endpoint().post"];
    let proxy = sources().into_iter().filter(|source| source.room() == "proxy");
    let (gate, others): (Vec<Source>, Vec<Source>) =
        proxy.partition(|source| source.name() == "proxy::outgoing");
    assert!(gate.iter().any(|gate| calls.iter().any(|call| gate.code.contains(call))), "the file has moved");
    for source in others {
        let found = calls.iter().find(|call| source.code.contains(**call));
        assert!(found.is_none(), "{} sends a body past proxy::outgoing: {found:?}", source.path.display());
    }
}

#[test]
fn some_names_stand_in_one_room_only() {
    for source in sources() {
        for (name, allowed) in ALONE {
            let found = source.code.contains(name) && !allowed.contains(&source.room());
            assert!(!found, "{}: {name} belongs to {allowed:?} alone", source.path.display());
        }
    }
}

/// The names of the types that this code defines outside of functions.
fn type_names(code: &str) -> Vec<&str> {
    const VISIBILITIES: [&str; 3] = ["pub ", "pub(crate) ", "pub(super) "];
    let name = |line| {
        let rest = VISIBILITIES.iter().find_map(|word| str::strip_prefix(line, word)).unwrap_or(line);
        let keywords = ["struct ", "enum ", "trait ", "type "];
        let rest = keywords.iter().find_map(|word| rest.strip_prefix(word))?;
        rest.split(|c: char| !c.is_alphanumeric()).next()
    };
    code.lines().filter_map(name).collect()
}

#[test]
fn each_type_has_a_name_of_its_own() {
    let mut homes = BTreeMap::new();
    for source in sources() {
        for name in type_names(&source.code) {
            if let Some(other) = homes.insert(name.to_owned(), source.name()) {
                panic!("{name} is a type of {other} and of {}", source.name());
            }
        }
    }
    assert!(homes.len() > 200, "{} types were found", homes.len());
}

#[test]
fn type_names_are_found() {
    let code = "pub struct A<'a> {\n    type B = u8;\npub(super) enum C {}\ntrait D: E {}\ntype F = u8;\nfn struct_() {}";
    assert_eq!(type_names(code), ["A", "C", "D", "F"]);
}

#[test]
fn imports_are_found() {
    let code = "use crate::a;\nuse crate::{b::{self, c}, d, e::F};\nfn f() -> crate::g::H {}\nuse super::x::{Y, z};\n\
                use super::super::w;\nself::v();";
    let module = ["r".to_owned(), "s".to_owned(), "t".to_owned()];
    let found: Vec<String> = imports(&module, false, code).iter().map(|path| path.join("::")).collect();
    let expected = ["a", "b", "b::c", "d", "e::F", "g::H", "r::s::t::v", "r::s::x::Y", "r::s::x::z", "r::w"];
    assert_eq!(found, expected);
}

#[test]
fn circles_are_found() {
    let arrows = |text: &str| -> BTreeMap<String, BTreeSet<String>> {
        let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in text.split_whitespace().map(|arrow| arrow.split_at(1)) {
            graph.entry(from.to_owned()).or_default().insert(to.to_owned());
        }
        graph
    };
    assert_eq!(circle(&arrows("ab bc cd")), None);
    assert_eq!(circle(&arrows("ab ac bd cd")), None);
    assert_eq!(circle(&arrows("ab bc cb")), Some(vec!["b".to_owned(), "c".to_owned()]));
}
