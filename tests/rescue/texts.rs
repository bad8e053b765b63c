//! Text about calls is not changed, and not held longer than it may be a call.

use std::fs;
use std::path::{Path, PathBuf};

use sparkgap::settings::Settings;

use super::answer::{pieces, plan, told};
use super::corpus::cases;
use super::random::Random;

/// The repository's own sources and pages that name tags of calls.
fn files() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> =
        ["src", "docs", "tests", "hooks", "benches"].iter().map(|name| root.join(name)).collect();
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if matches!(extension, Some("rs" | "md" | "lua" | "py" | "json")) {
                texts.extend(fs::read_to_string(path).ok().filter(|text| text.len() < 60_000));
            }
        }
    }
    texts
}

/// Surroundings of a call that make it a text about calls: what stands before it, and behind it.
const SURROUNDINGS: [(&str, &str); 16] = [
    ("Write it as `", "`."),
    ("The model writes\n\n```text\n", "\n```\n"),
    ("```xml\n", "\n```\n\nThe server reads that."),
    ("const CALL: &str = r#\"", "\"#;\n"),
    ("    let text = \"", "\";\n    assert_eq!(calls(text).len(), 1);\n}\n"),
    ("    \"\"\"Reads calls such as\n\n    ", "\n    \"\"\"\n    return None\n"),
    ("# The form\n\n    ", "\n\nEach argument stands in a tag of its own.\n"),
    ("| family | form |\n|---|---|\n| one | ", " |\n"),
    ("- ", "\n- and nothing else\n"),
    ("<p>", "</p>"),
    ("", "\n\nThat is how a call looks."),
    ("In reasoning: ", " (this one was not run)"),
    ("> ", "\n>\n> quoted"),
    ("'", "'"),
    ("print('''", "''')\n"),
    ("1. ", "\n2. The result follows.\n"),
];

/// Texts that are not calls, although they have the tags of calls in them.
fn texts() -> Vec<String> {
    let mut random = Random(20_261_130);
    let mut texts = Vec::new();
    for case in cases() {
        for (before, behind) in SURROUNDINGS {
            texts.push(format!("{before}{}{behind}", case.text));
        }
        // Of a tool that is not offered.
        let mut unknown = case.text.clone();
        for (name, _) in &case.calls {
            unknown = unknown.replace(name, "lookup_order");
        }
        texts.push(unknown);
    }
    let files = files();
    for file in &files {
        texts.push(file.clone());
        let lines: Vec<&str> = file.lines().collect();
        let start = random.below(lines.len());
        let end = (start + 1 + random.below(40)).min(lines.len());
        texts.push(lines.get(start..end).unwrap_or_default().join("\n"));
    }
    texts.retain(|text| !text.trim().is_empty() && !text.trim_start().starts_with("<think>"));
    texts
}

#[test]
fn texts_about_calls_are_not_changed() {
    let plan = plan("", &Settings::default());
    let texts = texts();
    assert!(texts.len() >= 2_000, "{}", texts.len());
    for (index, text) in texts.iter().enumerate() {
        let told = told(&plan, "content", &pieces(text, 1 + index % 23), "stop");
        assert!(told.calls.is_empty(), "{text}");
        assert_eq!(told.text, *text);
    }
}

#[test]
fn text_is_shown_at_the_first_byte_that_rules_a_call_out() {
    let plan = plan("", &Settings::default());
    for (text, held) in [
        ("a < b", 0),
        ("a <", 1),
        ("[1] and [a](b)", 0),
        ("<div>", 0),
        ("see <tool_call", 10),
        ("see <tool_call>", 11),
        ("see <tool_call> tags", 0),
        ("see `<tool_call>", 0),
        ("see <tool_call>{\"a", 14),
        ("see <tool_call>{\"a\"", 0),
        ("<tool_call>{\"name\": \"Bosh", 25),
        ("<tool_call>{\"name\": \"Bosh\"", 0),
        ("<function=B", 11),
        ("<function=Bo", 0),
        ("{\"title\"", 0),
        ("```rust", 0),
        ("Rea", 3),
        ("Reac", 0),
        ("Read the", 0),
        ("x {\"name\"", 0),
    ] {
        let told = told(&plan, "content", &pieces(text, 1), "stop");
        assert_eq!(text.len() - told.early, held, "{text}");
        assert_eq!(told.text, text);
    }
}

#[test]
fn a_call_that_does_not_end_is_given_free_at_the_limit() {
    let plan = plan("", &Settings::default());
    let text =
        format!("<tool_call>{{\"name\": \"Bash\", \"arguments\": {{\"command\": \"{}", "é".repeat(600_000));
    let told = told(&plan, "content", &pieces(&text, 1000), "stop");
    assert!(told.early > sparkgap::rescue::HELD_SIZE_MAX - 9999, "{}", told.early);
    assert_eq!(told.text, text);
}
