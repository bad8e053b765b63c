//! Checks the order of modules that the crate's docs promise: a module imports only modules above it, the pure ones
//! name no I/O, clock, log or Lua, and what one module alone may name stands nowhere else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the bottom up. One imports only those before it.
const ORDER: [&str; 24] = [
    "json",
    "hash",
    "error",
    "sse",
    "anthropic",
    "openai",
    "translate",
    "route",
    "service",
    "logger",
    "config",
    "litellm",
    "http",
    "access",
    "hooks",
    "ids",
    "server",
    "upstream",
    "proxy",
    "probe",
    "doctor",
    "latency",
    "demo",
    "cli",
];

/// What computes only: ids, clocks and randomness are its arguments.
const PURE: [&str; 8] = ["error", "hash", "json", "sse", "anthropic", "openai", "translate", "route"];

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

/// Names, and the only modules that may hold them.
const ALONE: [(&str, &[&str]); 6] = [
    ("mlua::", &["hooks"]),
    ("rustls::", &["upstream"]),
    ("sd_notify::", &["service"]),
    ("listenfd::", &["service"]),
    ("thread::Builder", &["server"]),
    ("thread::spawn", &["server"]),
];

/// A source file: its module, and its code without comments and tests.
struct Source {
    path: PathBuf,
    module: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(&root).unwrap();
            let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
            let module = first.trim_end_matches(".rs").to_string();
            let is_test =
                below.components().any(|part| part.as_os_str().to_str().unwrap().starts_with("tests"));
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            if is_rust && !is_test && !matches!(module.as_str(), "lib" | "main") {
                let code = code(&fs::read_to_string(&path).unwrap());
                found.push(Source { path, module, code });
            }
        }
    }
    found
}

/// Without comments, and without the tests at the end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The modules behind `crate::`, those in braces too.
fn imports(code: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            found.push(name(rest));
            continue;
        };
        let (mut depth, mut at_start) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                c if depth == 0 && at_start && !c.is_whitespace() => {
                    at_start = false;
                    found.extend(group.get(at..).map(name));
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn a_module_imports_only_modules_above_it() {
    let place = |module: &str| ORDER.iter().position(|name| *name == module);
    for Source { path, module, code } in sources() {
        let path = path.display();
        let own = place(&module).unwrap_or_else(|| panic!("{path}: '{module}' has no place in the order"));
        for import in imports(&code) {
            let other =
                place(&import).unwrap_or_else(|| panic!("{path}: '{import}' has no place in the order"));
            assert!(other <= own, "{path}: '{module}' imports '{import}', which stands below it");
        }
    }
}

#[test]
fn the_pure_modules_only_compute() {
    for Source { path, module, code } in sources() {
        for name in IMPURE.iter().filter(|_| PURE.contains(&module.as_str())) {
            assert!(!code.contains(name), "{}: '{module}' is pure, but names {name}", path.display());
        }
    }
}

#[test]
fn some_names_stand_in_one_module_only() {
    for Source { path, module, code } in sources() {
        for (name, allowed) in ALONE {
            let found = code.contains(name) && !allowed.contains(&module.as_str());
            assert!(!found, "{}: {name} belongs to {allowed:?} alone", path.display());
        }
    }
}

#[test]
fn imports_are_found() {
    let code = "use crate::a;\nuse crate::{b::{self, c}, d, e::F};\nfn f() -> crate::g::H {}\nuse crate::error::Kind;";
    assert_eq!(imports(code), ["a", "b", "d", "e", "g", "error"]);
}
