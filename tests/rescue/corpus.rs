//! The cases of `calls/`.

use std::fs;
use std::path::Path;

use sparkgap::json;

/// A text with calls at its end.
pub(crate) struct CallCase {
    pub(crate) family: String,
    pub(crate) title: String,
    /// The member of a delta that the text stands in.
    pub(crate) key: &'static str,
    pub(crate) text: String,
    /// Name and arguments, without space.
    pub(crate) calls: Vec<(String, String)>,
}

/// All cases, in the order of their files' names.
pub(crate) fn cases() -> Vec<CallCase> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rescue/calls");
    let mut files: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().flat_map(|file| read(file)).collect()
}

fn read(file: &Path) -> Vec<CallCase> {
    let family = file.file_stem().unwrap().to_str().unwrap();
    let text = fs::read_to_string(file).unwrap();
    let cases = text.strip_prefix("=== ").unwrap().split("\n=== ");
    cases
        .map(|case| {
            let (title, rest) = case.split_once('\n').unwrap();
            let (text, calls) = rest.split_once("\n--- ").unwrap();
            let calls = calls.trim_end().split("\n--- ").map(|call| {
                let (name, arguments) = call.split_once(' ').unwrap();
                let mut bytes = arguments.as_bytes().to_vec();
                (name.to_owned(), json::parse(&mut bytes).unwrap().to_json())
            });
            CallCase {
                family: family.to_owned(),
                title: title.to_owned(),
                key: if title.ends_with(" | reasoning") { "reasoning" } else { "content" },
                text: text.to_owned(),
                calls: calls.collect(),
            }
        })
        .collect()
}
