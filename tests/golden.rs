//! The golden corpus: every folder of `tests/golden` is a case. See `tests/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers fail as tests do"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::cuts;
use support::cuts::PlacesMax;
use support::golden::Case;
use support::replay::Exchange;

/// The variable that makes a run rewrite the expected results. Read the difference before you commit it.
const BLESS: &str = "SPARKGAP_BLESS";

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders.into_iter().map(Case::read).collect()
}

#[test]
fn every_case_comes_out_as_expected() {
    let bless = std::env::var_os(BLESS).is_some();
    let wrong: Vec<String> = cases().iter().flat_map(|case| case.check(bless)).collect();
    assert!(wrong.is_empty(), "{}\n{} differ", wrong.join("\n\n"), wrong.len());
}

/// A number of places that no case exceeds.
const EVERY_BYTE: PlacesMax = PlacesMax(10_000);

fn exchanges() -> impl Iterator<Item = (String, Exchange)> {
    cases().into_iter().filter_map(|case| Some((case.name.clone(), case.request().ok()?.1?)))
}

#[test]
fn cuts_change_nothing() {
    exchanges().for_each(|(name, exchange)| cuts::cut(&name, &exchange, EVERY_BYTE));
}

#[test]
fn truncations_are_errors() {
    exchanges().for_each(|(name, exchange)| cuts::truncate(&name, &exchange, EVERY_BYTE));
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    for case in cases() {
        let made = |case: &Case| case.request().map(|(chat, _)| chat);
        assert_eq!(made(&case), made(&case), "{}", case.name);
    }
}

/// The places of tests that say which requirements they cover: the line before a test is `// covers: 32, 33`, or `#
/// covers:` in Python.
const MARKED: [&str; 5] = ["e2e", "transport", "clients", "prefix.rs", "support/validator.rs"];

/// The marked tests in a file or folder of `tests`: the test's place for each requirement.
fn marked(path: &Path, add: &mut dyn FnMut(usize, String)) {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        return entries.iter().for_each(|entry| marked(entry, add));
    }
    let Ok(text) = fs::read_to_string(path) else { return };
    let place = path.to_string_lossy().rsplit_once("/tests/").unwrap().1.to_string();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(numbers) = ["// covers: ", "# covers: "].iter().find_map(|mark| line.strip_prefix(mark))
        else {
            continue;
        };
        let name = |line: &str| {
            let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            let rest = line.strip_prefix("fn ").or_else(|| line.strip_prefix("def "))?;
            Some(rest.split('(').next()?.to_string())
        };
        let name = lines.by_ref().find_map(name).unwrap_or_else(|| panic!("{place}: what does {line}?"));
        for number in numbers.split(", ") {
            add(number.parse().unwrap(), format!("`{place}: {name}`"));
        }
    }
}

/// The requirements that unit tests cover.
const ELSEWHERE: [(usize, &str); 3] = [
    (91, "unit tests of `openai::failure`: every wording"),
    (110, "unit tests of `json`"),
    (113, "unit tests of `ids`"),
];

/// The requirements of `docs/cases.md`: the lines that begin with a number. The first is 1, and none is left out.
fn requirements() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cases.md");
    let text = fs::read_to_string(path).unwrap();
    let numbered = |line: &str| {
        let (number, requirement) = line.split_once(". ")?;
        Some((number.parse::<usize>().ok()?, requirement.to_string()))
    };
    let found: Vec<(usize, String)> = text.lines().filter_map(numbered).collect();
    for (at, (number, requirement)) in found.iter().enumerate() {
        assert_eq!(*number, at + 1, "docs/cases.md: the wrong number stands before: {requirement}");
    }
    found.into_iter().map(|(_, requirement)| requirement).collect()
}

/// The beginning of a requirement, cut between two words, for one column of a table.
fn shortened(requirement: &str) -> String {
    const LENGTH_MAX: usize = 90;
    if requirement.len() <= LENGTH_MAX {
        return requirement.to_string();
    }
    let beginnings = requirement.match_indices(' ').map(|(at, _)| requirement.split_at(at).0);
    // A cut inside `code` would leave one mark without the other.
    let is_outside_code = |text: &&str| text.matches('`').count().is_multiple_of(2);
    let fitting = beginnings.take_while(|text| text.len() <= LENGTH_MAX).filter(is_outside_code);
    format!("{} …", fitting.last().unwrap_or_default())
}

/// The tests that cover each requirement. Requirement 1 has index 0.
fn covered(count: usize) -> Vec<Vec<String>> {
    let mut covered = vec![Vec::new(); count];
    let mut add = |number: usize, test: String| {
        assert!((1..=count).contains(&number), "{test} covers {number}, which docs/cases.md does not have");
        covered[number - 1].push(test);
    };
    for case in cases() {
        for number in case.get("covers").unwrap_or("").split(", ").filter(|text| !text.is_empty()) {
            add(number.parse().unwrap(), format!("`{}`", case.name));
        }
    }
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    MARKED.iter().for_each(|place| marked(&tests.join(place), &mut add));
    ELSEWHERE.iter().for_each(|(number, place)| add(*number, place.to_string()));
    covered
}

/// The first two lines of the table of cases in `tests/README.md`. The table is the end of the page.
const TABLE_HEAD: &str = "| case | requirement | covered by |\n|--:|---|---|\n";

#[test]
fn each_case_of_the_specification_is_covered_and_stands_in_the_table() {
    let requirements = requirements();
    let covered = covered(requirements.len());
    let mut table = String::from(TABLE_HEAD);
    for (at, (requirement, tests)) in requirements.iter().zip(&covered).enumerate() {
        let number = at + 1;
        assert!(!tests.is_empty(), "no test covers case {number} of docs/cases.md: {requirement}");
        table.push_str(&format!("| {number} | {} | {} |\n", shortened(requirement), tests.join(", ")));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/README.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, _) = text.split_once(TABLE_HEAD).expect("tests/README.md has the table of cases");
    let expected = format!("{before}{table}");
    if std::env::var_os(BLESS).is_some() {
        fs::write(&path, &expected).unwrap();
    } else {
        assert_eq!(text, expected, "run with {BLESS}=1");
    }
}
