//! The golden corpus: every folder of `tests/golden` is a case. See `tests/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers fail as tests do"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sparkgap::dialect::ServerKind;
use sparkgap::error::Error;
use sparkgap::settings::{LateTools, LoopMode, Settings, SystemMessages, ThinkingMode};
use sparkgap::translate::{Lessons, Target, extend_chat};

use support::cuts::PlacesMax;
use support::pretty::{compact, pretty};
use support::replay::{Answer, Exchange, REQUEST_ID, SearchScript, request};
use support::{cuts, validator};

/// The variable that makes a run rewrite the expected results. Read the difference before you commit it.
const BLESS: &str = "SPARKGAP_BLESS";

struct Case {
    name: String,
    folder: PathBuf,
    about: BTreeMap<String, String>,
    messages: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders.into_iter().map(Case::read).collect()
}

impl Case {
    fn read(folder: PathBuf) -> Case {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let about =
            fs::read_to_string(folder.join("about.txt")).unwrap_or_else(|_| panic!("{name}/about.txt"));
        let messages =
            fs::read(folder.join("messages.json")).unwrap_or_else(|_| panic!("{name}/messages.json"));
        let without_keys = about.strip_prefix('\n').map(|prose| ("", prose));
        let parts = without_keys.or_else(|| about.split_once("\n\n"));
        let (head, prose) =
            parts.unwrap_or_else(|| panic!("{name}: a blank line before the prose is missing"));
        assert!(!prose.trim().is_empty() && prose.trim().lines().count() <= 3, "{name}: say what and why");
        let line = |line: &str| {
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{name}: {line}"));
            assert!(KEYS.contains(&key), "{name}: unknown key {key}");
            (key.to_string(), value.to_string())
        };
        let about = head.lines().map(line).collect();
        Case { name: name.clone(), folder, about, messages }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.about.get(key).map(String::as_str)
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.get(key).map(|text| text.parse().unwrap_or_else(|_| panic!("{}: {key}: {text}", self.name)))
    }

    fn numbers(&self, key: &str) -> Vec<usize> {
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{}: {key}: {text}", self.name));
        self.get(key).unwrap_or("").split_whitespace().map(number).collect()
    }

    fn words(&self, key: &str) -> Option<Vec<String>> {
        self.get(key).map(|words| words.split_whitespace().map(str::to_owned).collect())
    }

    fn is(&self, key: &str, default: bool) -> bool {
        self.number(key).unwrap_or(default)
    }

    fn file(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.folder.join(name)).ok()
    }

    fn settings(&self) -> Settings {
        let default = Settings::default();
        Settings {
            max_tokens: self.number("max_tokens"),
            thinking: match self.get("thinking") {
                Some("on") => ThinkingMode::On,
                Some("off") => ThinkingMode::Off,
                _ => ThinkingMode::Auto,
            },
            vision: self.is("vision", default.vision),
            late_tools: match self.get("late_tools") {
                Some("text") => LateTools::Text,
                _ => LateTools::Declare,
            },
            system_messages: match self.get("system_messages") {
                Some("keep") => SystemMessages::Keep,
                _ => SystemMessages::Fold,
            },
            preserve_thinking: self.is("preserve_thinking", default.preserve_thinking),
            thinking_budget: self.get("thinking_budget").map(|value| value == "true"),
            coerce_arguments: self.is("coerce_arguments", default.coerce_arguments),
            loops: match self.get("loops") {
                Some("off") => LoopMode::Off,
                Some("break") => LoopMode::Break,
                _ => LoopMode::Warn,
            },
            rescue_tool_calls: self.is("rescue_tool_calls", default.rescue_tool_calls),
            think_tags: self.is("think_tags", default.think_tags),
            user_id: self.is("user_id", default.user_id),
            thinking_in_text: self.is("thinking_in_text", default.thinking_in_text),
            web_search: self.is("web_search", default.web_search),
            allow_extra: self.words("allow_extra").unwrap_or(default.allow_extra),
            image_schemes: self.words("image_schemes").unwrap_or(default.image_schemes),
            ..default
        }
    }

    fn target<'s>(&self, settings: &'s Settings) -> Target<'s> {
        let flavour = self.get("flavour").unwrap_or("vllm");
        Target {
            model: "qwen3",
            flavour: ServerKind::from_name(flavour).unwrap_or_else(|| panic!("{}: {flavour}", self.name)),
            window: self.number("window"),
            lessons: Lessons::default(),
            settings,
        }
    }

    /// The upstream's body for the client's request, and the values with which the answer is read.
    fn request(&self) -> Result<(String, Option<Exchange>), Error> {
        let settings = self.settings();
        let target = self.target(&settings);
        let (chat, mut plan) = request(&self.messages, &target)?;
        plan.context_window_beta = self.is("context_window_beta", false);
        let (sse, json) = (self.file("upstream.sse"), self.file("upstream.json"));
        let is_sse = sse.is_some();
        let exchange = sse.or(json).map(|body| Exchange {
            plan,
            window: target.window,
            status: self.number("status").unwrap_or(200),
            retry_after: self.number("retry_after"),
            silences: self.numbers("silences"),
            is_sse,
            body,
            search: self
                .file("search.json")
                .map(|page| SearchScript { page, next: self.file("upstream-2.sse").unwrap_or_default() }),
        });
        Ok((chat, exchange))
    }

    /// Every expected result of the folder, by file name: compact JSON, or events as they are.
    fn results(&self) -> BTreeMap<&'static str, Vec<u8>> {
        let mut results = BTreeMap::new();
        let (chat, exchange) = match self.request() {
            Ok(made) => made,
            Err(error) => {
                results.insert("error.json", self.error(&error));
                return results;
            }
        };
        let next = exchange.as_ref().and_then(|exchange| self.next_round(&chat, exchange));
        results.extend(next.map(|next| ("chat-2.json", next.into_bytes())));
        results.insert("chat.json", chat.into_bytes());
        let Some(exchange) = exchange else { return results };
        let answer = exchange.whole().answer;
        cuts::judge(&self.name, &answer, exchange.plan.stream);
        match answer {
            Answer::Refused(error) => results.insert("error.json", self.error(&error)),
            Answer::Told(bytes) if exchange.plan.stream => results.insert("message.sse", bytes),
            // A call's input has the model's own white space.
            Answer::Told(bytes) => results.insert("message.json", compact(&bytes).into_bytes()),
        };
        results
    }

    /// The upstream's body for the next round, if the model searches.
    fn next_round(&self, chat: &str, exchange: &Exchange) -> Option<String> {
        let (round, texts) = exchange.searches()?;
        let settings = self.settings();
        let mut asked = exchange.plan.asked.clone();
        let mut bytes = chat.as_bytes().to_vec();
        let mut body = sparkgap::json::parse(&mut bytes).unwrap();
        extend_chat(&mut body, (&round, &texts), &mut asked, &self.target(&settings), true);
        Some(body.to_json())
    }

    fn error(&self, error: &Error) -> Vec<u8> {
        let mut body = Vec::new();
        error.body(REQUEST_ID, &mut body);
        validator::error(&body).unwrap_or_else(|what| panic!("{}: {what}", self.name));
        let headers: Vec<String> =
            error.headers().iter().map(|(name, value)| format!("{name:?}:{value:?}")).collect();
        let body = String::from_utf8(body).unwrap();
        let status = error.kind.status();
        format!("{{\"status\":{status},\"headers\":{{{}}},\"body\":{body}}}", headers.join(",")).into_bytes()
    }

    fn check(&self, bless: bool) -> Vec<String> {
        let results = self.results();
        let mut wrong = Vec::new();
        for name in EXPECTATIONS {
            let path = self.folder.join(name);
            match (results.get(name), self.file(name)) {
                (Some(found), expected) => {
                    let is_json = name.ends_with(".json");
                    let same = expected.as_ref().is_some_and(|expected| {
                        if is_json { compact(expected).as_bytes() == found } else { expected == found }
                    });
                    if !same && bless {
                        fs::write(&path, if is_json { pretty(found).into_bytes() } else { found.clone() })
                            .unwrap();
                    } else if !same {
                        let (found, expected) = (show(found), expected.map(|bytes| show(&bytes)));
                        wrong.push(format!("{}/{name}\nfound\n{found}\nexpected {expected:?}", self.name));
                    }
                }
                (None, Some(_)) if bless => fs::remove_file(&path).unwrap(),
                (None, Some(_)) => wrong.push(format!("{}/{name}: there is no such result", self.name)),
                (None, None) => {}
            }
        }
        if let Some(other) = self.get("same_chat_as") {
            let expected = self.folder.with_file_name(other).join("chat.json");
            if self.file("chat.json") != Some(fs::read(&expected).unwrap()) {
                wrong.push(format!("{}/chat.json is not that of {other}", self.name));
            }
        }
        wrong
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const EXPECTATIONS: [&str; 5] = ["chat.json", "chat-2.json", "message.sse", "message.json", "error.json"];

/// The keys that the head of an `about.txt` may have.
const KEYS: [&str; 24] = [
    "web_search",
    "allow_extra",
    "image_schemes",
    "late_tools",
    "thinking_in_text",
    "covers",
    "same_chat_as",
    "flavour",
    "window",
    "max_tokens",
    "vision",
    "thinking",
    "system_messages",
    "preserve_thinking",
    "thinking_budget",
    "coerce_arguments",
    "loops",
    "rescue_tool_calls",
    "user_id",
    "think_tags",
    "status",
    "retry_after",
    "silences",
    "context_window_beta",
];

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
