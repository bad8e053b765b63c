//! Translates every recorded answer of a real vLLM 0.32 and a real llama.cpp b11434: judged, cut and truncated, and its
//! outcome compared with a line of `tests/recordings/expected.txt`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers fail as tests do"
)]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sparkgap::dialect::ServerKind;
use sparkgap::settings::Settings;
use sparkgap::translate::{Lessons, Plan, Target};

use support::cuts::PlacesMax;
use support::replay::{Answer, Exchange, request};
use support::{cuts, validator};

/// A request like those behind the recordings: with the same tools, and with thinking.
const MESSAGES: &str = r#"{"model":"claude-x","max_tokens":300,"stream":true,"thinking":{"type":"adaptive"},
"messages":[{"role":"user","content":"WEATHER"}],
"tools":[{"name":"get_weather","input_schema":{"type":"object","properties":{"city":{"type":"string"},"unit":{"type":"string"}}}},
{"name":"Bash","input_schema":{"type":"object","properties":{"command":{"type":"string"},"description":{"type":"string"},"timeout":{"type":"integer"}}}}]}"#;

/// The number of places at which a recording is cut. Recordings are long, and the golden cases are cut at every byte.
const PLACES: PlacesMax = PlacesMax(400);

/// The recordings whose requests had stop strings.
const STOPS: [(&str, &str); 2] = [("stop_in_reasoning", "greets"), ("stop_string", "can I")];

/// The recordings whose requests allowed no call, or offered no tool.
const NO_CALLS: [&str; 2] = ["tool_choice_none", "notools_offered"];

struct Recording {
    name: String,
    flavour: ServerKind,
    status: u16,
    is_sse: bool,
    body: Vec<u8>,
}

fn recordings() -> Vec<Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut all = Vec::new();
    for (server, flavour) in [("llama.cpp", ServerKind::LlamaCpp), ("vllm", ServerKind::Vllm)] {
        let mut files: Vec<PathBuf> =
            fs::read_dir(root.join(server)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files {
            let name = file.file_name().unwrap().to_string_lossy().replace(".response.txt", "");
            if !name.starts_with("GET_") {
                all.push(Recording::read(format!("{server}/{name}"), flavour, &fs::read(&file).unwrap()));
            }
        }
    }
    assert!(all.len() > 180, "{}", all.len());
    all
}

impl Recording {
    /// A status line, headers and a body as received; the body's length may differ from the header's.
    fn read(name: String, flavour: ServerKind, bytes: &[u8]) -> Recording {
        let text = String::from_utf8_lossy(bytes);
        let separator = if text.contains("\r\n\r\n") { "\r\n\r\n" } else { "\n\n" };
        let head = text.split(separator).next().unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let at = bytes.windows(separator.len()).position(|window| window == separator.as_bytes()).unwrap();
        let body = bytes[at + separator.len()..].to_vec();
        Recording { name, flavour, status, is_sse: head.contains("text/event-stream"), body }
    }

    fn exchange(&self, stream: bool) -> Exchange {
        let settings = Settings::default();
        let target = Target {
            model: "qwen3",
            flavour: self.flavour,
            window: Some(8192),
            lessons: Lessons::default(),
            settings: &settings,
        };
        // A call in the text of an answer is a call only if the request allowed one.
        let choice = if NO_CALLS.iter().any(|name| self.name.contains(name)) { "none" } else { "auto" };
        let messages =
            MESSAGES.replace("\"tools\":", &format!(r#""tool_choice":{{"type":"{choice}"}},"tools":"#));
        let (_, plan) = request(messages.as_bytes(), &target).unwrap();
        let stops = STOPS.iter().filter(|(name, _)| self.name.contains(name));
        let stop_sequences = stops.map(|(_, stop)| stop.to_string()).collect();
        Exchange {
            plan: Plan { stream, stop_sequences, ..plan },
            window: Some(8192),
            status: self.status,
            retry_after: None,
            silences: Vec::new(),
            is_sse: self.is_sse,
            body: self.body.clone(),
            search: None,
        }
    }

    /// One line: the blocks, the stop reason and the tokens, or the error.
    fn outcome(&self) -> String {
        let mut line = format!("{}:", self.name);
        match self.exchange(false).whole().answer {
            Answer::Refused(error) => {
                let message = error.message.chars().take(110).collect::<String>();
                write!(line, " {} {}: {message}", error.kind.status(), error.kind.name()).unwrap();
            }
            Answer::Told(bytes) => {
                let message: Value = serde_json::from_slice(&bytes).unwrap();
                for block in message["content"].as_array().unwrap() {
                    match block["type"].as_str().unwrap() {
                        "text" => write!(line, " text {}", short(&block["text"])),
                        "thinking" => write!(line, " thinking {}", short(&block["thinking"])),
                        _ => write!(line, " {} {}", block["name"].as_str().unwrap(), block["input"]),
                    }
                    .unwrap();
                }
                let usage = &message["usage"];
                let (input, output) = (&usage["input_tokens"], &usage["output_tokens"]);
                let cached = &usage["cache_read_input_tokens"];
                write!(line, " | {}", message["stop_reason"].as_str().unwrap()).unwrap();
                if let Some(stop) = message["stop_sequence"].as_str() {
                    write!(line, " {stop:?}").unwrap();
                }
                write!(line, " | {input}+{cached} {output}").unwrap();
            }
        }
        line
    }
}

fn short(text: &Value) -> String {
    let text = text.as_str().unwrap();
    let kept: String = text.chars().take(60).collect();
    if kept.len() < text.len() { format!("{kept:?}… ({})", text.len()) } else { format!("{kept:?}") }
}

#[test]
fn every_outcome_is_as_expected() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/expected.txt");
    let found: String = recordings().iter().map(|recording| recording.outcome() + "\n").collect();
    if std::env::var_os("SPARKGAP_BLESS").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn streamed_and_folded_answers_say_the_same() {
    for recording in recordings() {
        let streamed = recording.exchange(true).whole().answer;
        cuts::judge(&recording.name, &streamed, true);
        let folded = recording.exchange(false).whole().answer;
        cuts::judge(&recording.name, &folded, false);
        if let (Answer::Told(streamed), Answer::Told(folded)) = (&streamed, &folded) {
            let (_, blocks) = validator::stream(streamed).unwrap();
            let content = validator::message(folded).unwrap();
            for (block, folded) in blocks.iter().zip(&content) {
                // A call that was cut at the token limit is completed in the folded message.
                assert!(
                    block == folded || block["input"].is_string(),
                    "{}: {block} {folded}",
                    recording.name
                );
            }
            assert_eq!(blocks.len(), content.len(), "{}", recording.name);
        }
    }
}

#[test]
fn cuts_change_nothing() {
    for recording in recordings().iter().filter(|recording| recording.is_sse) {
        cuts::cut(&recording.name, &recording.exchange(true), PLACES);
    }
}

#[test]
fn truncations_are_errors() {
    for recording in recordings() {
        cuts::truncate(&recording.name, &recording.exchange(true), PLACES);
    }
}
