//! One golden case: a folder with a request, an upstream's answer, and the expected results.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use sparkgap::dialect::ServerKind;
use sparkgap::error::Error;
use sparkgap::settings::{LateTools, LoopMode, Settings, SystemMessages, ThinkingMode};
use sparkgap::translate::{Lessons, Target, extend_chat};

use super::pretty::{compact, pretty};
use super::replay::{Answer, Exchange, REQUEST_ID, SearchScript, request};
use super::{cuts, validator};

/// A case, read from its folder.
pub struct Case {
    pub name: String,
    folder: PathBuf,
    about: BTreeMap<String, String>,
    messages: Vec<u8>,
}

impl Case {
    pub fn read(folder: PathBuf) -> Case {
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

    pub fn get(&self, key: &str) -> Option<&str> {
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

    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
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
            never_empty: self.is("never_empty", default.never_empty),
            foreign_thinking: self.is("foreign_thinking", default.foreign_thinking),
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
    pub fn request(&self) -> Result<(String, Option<Exchange>), Error> {
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

    pub fn check(&self, bless: bool) -> Vec<String> {
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
const KEYS: [&str; 26] = [
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
    "never_empty",
    "foreign_thinking",
];
