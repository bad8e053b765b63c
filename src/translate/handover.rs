//! Makes a Messages request fit for another server of the Messages API, in the client's own bytes: all that need not change
//! stays as it was written.
//!
//! A conversation may move between models. The API refuses a thinking block whose signature another model has made, for as
//! long as the block is in the conversation, so such blocks are removed:
//!
//! | the block | is |
//! |---|---|
//! | thinking with a signature of ours, or with none | removed: sparkgap made it of a local model's reasoning |
//! | thinking, or redacted thinking, of another model | removed |
//! | of the same model, or of one that is not known | kept |
//! | a web search that sparkgap made, with its result | written as text: the API accepts only results that it has encrypted |
//!
//! In a turn that calls tools the API wants the thinking before the first call, if the request asks for thinking. Where it
//! was removed, the request no longer asks.
//!
//! Pure: the caller knows which model has made a block.

use std::collections::HashSet;
use std::ops::Range;

use super::signature::is_ours;
use crate::hash::Fnv;
use crate::json::spans::{self, Member, Splice};
use crate::json::{self, Value};

/// The type of a block with the result of a web search.
const SEARCH_RESULT: &str = "web_search_tool_result";

/// The model that has made a block of thinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinkingMaker {
    /// The model that the request goes to.
    Same,
    /// Another model.
    Other,
    /// Nobody knows.
    Unknown,
}

/// A request after [`hand_over`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// The request's bytes.
    pub body: Vec<u8>,
    /// The blocks of thinking that it still has, by their [`thinking_id`].
    pub kept: Vec<u64>,
    /// The number of blocks that were removed.
    pub removed: usize,
}

/// Names a block of thinking by its signature, or by the data of a redacted one.
pub fn thinking_id(signature: &str) -> u64 {
    Fnv::EMPTY.push(signature.as_bytes()).mixed()
}

/// Changes a Messages request for the model of this name. `maker` tells which model has made the block of an id.
///
/// The body must be valid JSON.
pub fn hand_over(body: &[u8], model: &str, maker: &dyn Fn(u64) -> ThinkingMaker) -> HandedOver {
    let root = spans::members(body, spans::whole(body));
    let mut change = Change { body, maker, splices: Vec::new(), kept: Vec::new(), removed: 0 };
    for member in root.iter().filter(|member| spans::is_named(body, member, "model")) {
        if spans::text(body, member.value.clone()).as_deref() != Some(model) {
            change.replace(member.value.clone(), spans::string(model));
        }
    }
    // Nearly all requests of a client without thinking are done here.
    let has = |word: &[u8]| memchr::memmem::find(body, word).is_some();
    if has(b"thinking") || has(SEARCH_RESULT.as_bytes()) {
        change.messages(&root);
    }
    let Change { splices, kept, removed, .. } = change;
    HandedOver { body: spans::splice(body, splices), kept, removed }
}

/// True if the API's words in an error of status 400 say that a block of thinking cannot be accepted.
pub fn is_thinking_refusal(words: &str) -> bool {
    let words = words.to_ascii_lowercase().replace('`', "");
    words.contains("thinking") && REFUSALS.iter().any(|said| words.contains(said))
}

/// Parts of the API's words about thinking that it does not accept, in lower case and without backquotes.
const REFUSALS: [&str; 10] = [
    "signature",
    "cannot be modified",
    "must start with a thinking block",
    "expected thinking",
    "invalid data in redacted_thinking",
    "redacted_thinking.data",
    "first block must be thinking",
    "must match the parameters during the original request",
    "must contain thinking",
    "bound to a different conversation",
];

/// A change of a request that is being worked out.
struct Change<'b> {
    body: &'b [u8],
    maker: &'b dyn Fn(u64) -> ThinkingMaker,
    splices: Vec<Splice>,
    kept: Vec<u64>,
    removed: usize,
}

/// A message, as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
struct TurnPart {
    is_assistant: bool,
    /// True for a user's message with the result of a tool.
    has_result: bool,
    has_call: bool,
    /// True if the first block that stays is thinking.
    begins_thinking: bool,
    was_cut: bool,
    /// True for a message in the midst of a turn that is neither the user's nor the assistant's.
    is_aside: bool,
}

impl Change<'_> {
    fn replace(&mut self, place: Range<usize>, bytes: Vec<u8>) {
        self.splices.push(Splice { place, bytes });
    }

    fn remove(&mut self, parts: &[Range<usize>], is_removed: &[bool]) {
        for place in spans::removals(parts, is_removed) {
            self.replace(place, Vec::new());
        }
    }

    fn text_of(&self, members: &[Member], name: &str) -> Option<String> {
        let member = spans::last(self.body, members, name)?;
        spans::text(self.body, member.value.clone()).map(std::borrow::Cow::into_owned)
    }

    fn messages(&mut self, root: &[Member]) {
        let Some(list) = spans::last(self.body, root, "messages") else { return };
        let places = spans::items(self.body, list.value.clone());
        let mut is_emptied = vec![false; places.len()];
        let mut parts = Vec::with_capacity(places.len());
        for (place, emptied) in places.iter().zip(&mut is_emptied) {
            let before = self.splices.len();
            let (part, is_empty) = self.message(place.clone());
            if is_empty {
                // The whole message goes, so that its parts need not.
                self.splices.truncate(before);
                *emptied = true;
            }
            parts.push(part);
        }
        self.remove(&places, &is_emptied);
        let asked = spans::last(self.body, root, "thinking");
        let kind =
            asked.and_then(|asked| self.text_of(&spans::members(self.body, asked.value.clone()), "type"));
        if is_thinking_missing(&parts, kind.as_deref() == Some("enabled")) {
            self.ask_no_thinking(root);
        }
    }

    /// Removes from a message the thinking that the model would refuse. Also returns true if nothing is left of it.
    fn message(&mut self, place: Range<usize>) -> (TurnPart, bool) {
        let members = spans::members(self.body, place);
        let role = self.text_of(&members, "role").unwrap_or_default();
        let mut part = TurnPart {
            is_assistant: role == "assistant",
            is_aside: !matches!(role.as_str(), "assistant" | "user"),
            ..TurnPart::default()
        };
        let Some(content) = spans::last(self.body, &members, "content") else { return (part, false) };
        let places = spans::items(self.body, content.value.clone());
        let mut is_removed = vec![false; places.len()];
        let blocks: Vec<(Vec<Member>, String)> = places
            .iter()
            .map(|block| {
                let members = spans::members(self.body, block.clone());
                let kind = self.text_of(&members, "type").unwrap_or_default();
                (members, kind)
            })
            .collect();
        let searches = self.own_searches(&blocks);
        let mut is_first = true;
        for ((block, (members, kind)), removed) in places.iter().zip(&blocks).zip(&mut is_removed) {
            let name = match kind.as_str() {
                "thinking" => Some("signature"),
                "redacted_thinking" => Some("data"),
                _ => None,
            };
            if let Some(name) = name {
                let signature = self.text_of(members, name).unwrap_or_default();
                *removed = self.is_refused(&signature);
            }
            let id = if kind == SEARCH_RESULT { "tool_use_id" } else { "id" };
            if matches!(kind.as_str(), SEARCH_RESULT | "server_tool_use")
                && self.text_of(members, id).is_some_and(|id| searches.contains(&id))
            {
                self.write_as_text(block, kind);
                is_first = false;
                continue;
            }
            part.has_result |= kind == "tool_result";
            part.has_call |= kind == "tool_use" || kind == "server_tool_use";
            if !*removed && std::mem::take(&mut is_first) {
                part.begins_thinking = name.is_some();
            }
        }
        let count = is_removed.iter().filter(|removed| **removed).count();
        self.removed += count;
        part.was_cut = count > 0;
        self.remove(&places, &is_removed);
        (part, count > 0 && count == places.len())
    }

    /// The ids of the searches among these blocks that sparkgap made: their results have nothing encrypted.
    fn own_searches(&self, blocks: &[(Vec<Member>, String)]) -> HashSet<String> {
        let results = blocks.iter().filter(|(_, kind)| kind == SEARCH_RESULT);
        let own = results.filter_map(|(members, _)| {
            let content = spans::last(self.body, members, "content")?;
            let first = spans::items(self.body, content.value.clone()).into_iter().next()?;
            let encrypted = self.text_of(&spans::members(self.body, first), "encrypted_content")?;
            self.text_of(members, "tool_use_id").filter(|_| encrypted.is_empty())
        });
        own.collect()
    }

    /// Replaces a block by a block of its text.
    fn write_as_text(&mut self, block: &Range<usize>, kind: &str) {
        let mut bytes = self.body.get(block.clone()).unwrap_or_default().to_vec();
        let Ok(value) = json::parse(&mut bytes) else { return };
        let text = value.as_object().and_then(|object| super::blocks::text(kind, object)).unwrap_or_default();
        let written = Value::object([("type", "text".into()), ("text", Value::String(text))]);
        self.replace(block.clone(), written.to_json().into_bytes());
    }

    /// True if the model would refuse a block with this signature.
    fn is_refused(&mut self, signature: &str) -> bool {
        if signature.is_empty() || is_ours(signature) {
            return true;
        }
        let id = thinking_id(signature);
        let is_refused = (self.maker)(id) == ThinkingMaker::Other;
        if !is_refused {
            self.kept.push(id);
        }
        is_refused
    }

    /// Makes the request one that does not ask for thinking, and for none of the edits that need it.
    fn ask_no_thinking(&mut self, root: &[Member]) {
        let mut is_removed: Vec<bool> =
            root.iter().map(|member| spans::is_named(self.body, member, "thinking")).collect();
        for (member, removed) in root.iter().zip(&mut is_removed) {
            if !spans::is_named(self.body, member, "context_management") {
                continue;
            }
            let members = spans::members(self.body, member.value.clone());
            let Some(edits) = spans::last(self.body, &members, "edits") else { continue };
            let edits = spans::items(self.body, edits.value.clone());
            let needs_thinking: Vec<bool> = edits
                .iter()
                .map(|edit| {
                    let kind = self.text_of(&spans::members(self.body, edit.clone()), "type");
                    kind.is_some_and(|kind| kind.starts_with("clear_thinking"))
                })
                .collect();
            if !edits.is_empty() && needs_thinking.iter().all(|needs| *needs) {
                *removed = true;
            } else {
                self.remove(&edits, &needs_thinking);
            }
        }
        let places: Vec<Range<usize>> = root.iter().map(Member::whole).collect();
        self.remove(&places, &is_removed);
    }
}

/// True if the conversation ends in the midst of a turn that calls tools and lacks the thinking that the API wants there.
/// `is_strict`: the request asks for thinking in the form in which the model never calls a tool without it.
fn is_thinking_missing(parts: &[TurnPart], is_strict: bool) -> bool {
    let mut first = None;
    let mut was_cut = false;
    for part in parts.iter().rev().filter(|part| !part.is_aside) {
        match (part.is_assistant, part.has_result) {
            (true, _) => {
                first = Some(part);
                was_cut |= part.was_cut;
            }
            (false, true) => {}
            (false, false) => break,
        }
    }
    // A message of the user without a result ends the turn before it.
    let is_in_turn = parts.iter().rev().find(|part| !part.is_aside).is_some_and(|last| last.has_result);
    let Some(first) = first.filter(|_| is_in_turn) else { return false };
    was_cut || (is_strict && first.has_call && !first.begins_thinking)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(body: &str, other: &str) -> HandedOver {
        let maker = |id| match id {
            id if id == thinking_id(other) => ThinkingMaker::Other,
            _ => ThinkingMaker::Unknown,
        };
        hand_over(body.as_bytes(), "claude-a", &maker)
    }

    fn text(body: &str, other: &str) -> String {
        String::from_utf8(handed(body, other).body).unwrap()
    }

    #[test]
    fn nothing_but_the_model_changes() {
        let body = r#" {"x":1e2, "model" : "opus","n":123456789012345678901234567890,"a":1,"a":2, "mod\u0065l":"b" ,
            "messages":[{"role":"user","content":"\u00e9\/"}],"t":-0.0}"#;
        let expected = body.replace(r#""opus""#, r#""claude-a""#).replace(r#""b""#, r#""claude-a""#);
        assert_eq!(text(body, ""), expected);
        let same = expected.clone();
        assert_eq!(text(&same, ""), expected);
    }

    #[test]
    fn thinking_of_others_is_removed_and_the_rest_stays() {
        let body = r#"{"model":"claude-a","messages":[{"role":"user","content":"a"},
            {"role":"assistant","content":[ {"type":"thinking","thinking":"x","signature":"mine"}, {"type":"text","text":"1e2"} ]},
            {"role":"assistant","content":[{"type":"thinking","thinking":"x","signature":"sg1.00"}, {"type":"text","text":"b"}]},
            {"role":"assistant","content":[{"type":"text","text":"c"},{"type":"thinking","thinking":"x","signature":""}]},
            {"role":"assistant","content":[{"type":"redacted_thinking","data":"theirs"},{"type":"thinking","thinking":"y"}]},
            {"role":"user","content":"z"}]}"#;
        let handed = handed(body, "theirs");
        let expected = r#"{"model":"claude-a","messages":[{"role":"user","content":"a"},
            {"role":"assistant","content":[ {"type":"thinking","thinking":"x","signature":"mine"}, {"type":"text","text":"1e2"} ]},
            {"role":"assistant","content":[{"type":"text","text":"b"}]},
            {"role":"assistant","content":[{"type":"text","text":"c"}]},
            {"role":"user","content":"z"}]}"#;
        assert_eq!(String::from_utf8(handed.body).unwrap(), expected);
        assert_eq!((handed.removed, handed.kept), (4, vec![thinking_id("mine")]));
    }

    #[test]
    fn a_turn_that_lost_its_thinking_asks_for_none() {
        let turn = |signature: &str, thinking: &str, last: &str| {
            format!(
                r#"{{"model":"claude-a","thinking":{thinking},"context_management":{{"edits":[{{"type":"clear_thinking_20251015","keep":"all"}}]}},"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","content":[{{"type":"thinking","thinking":"x","signature":"{signature}"}},{{"type":"tool_use","id":"t","name":"n","input":{{}}}}]}},{last}],"z":1}}"#
            )
        };
        let result = r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"}]},{"role":"system","content":"s"}"#;
        let (enabled, adaptive) = (r#"{"type":"enabled","budget_tokens":1024}"#, r#"{"type":"adaptive"}"#);
        for kind in [enabled, adaptive] {
            let handed = text(&turn("sg1.0", kind, result), "");
            assert!(!handed.contains("thinking") && !handed.contains("context_management"), "{handed}");
            assert!(
                handed.starts_with(r#"{"model":"claude-a","messages":"#) && handed.ends_with(r#","z":1}"#)
            );
            let kept = turn("mine", kind, result);
            assert_eq!(text(&kept, ""), kept);
            // A new turn asks as before.
            let next = text(&turn("sg1.0", kind, r#"{"role":"user","content":"next"}"#), "");
            assert!(next.contains(kind) && next.contains("clear_thinking"), "{next}");
        }
        // A local model's turn without any thinking.
        let bare = |kind| {
            turn("sg1.0", kind, result)
                .replace(r#"{"type":"thinking","thinking":"x","signature":"sg1.0"},"#, "")
        };
        assert!(!text(&bare(enabled), "").contains("enabled"));
        assert_eq!(text(&bare(adaptive), ""), bare(adaptive));
        // Other edits stay.
        let two = turn("sg1.0", enabled, result)
            .replace("[{\"type\":\"clear", "[{\"type\":\"clear_tool_uses\"},{\"type\":\"clear");
        assert!(text(&two, "").contains(r#""edits":[{"type":"clear_tool_uses"}]"#), "{}", text(&two, ""));
    }

    #[test]
    fn refusals_of_thinking_are_known() {
        for (words, expected) in [
            ("messages.1.content.0: Invalid `signature` in `thinking` block", true),
            (
                "messages.1.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified.",
                true,
            ),
            (
                "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is enabled, a final `assistant` message must start with a thinking block",
                true,
            ),
            ("thinking.budget_tokens: Input should be greater than or equal to 1024", false),
            ("signature", false),
            ("", false),
        ] {
            assert_eq!(is_thinking_refusal(words), expected, "{words}");
        }
    }

    #[test]
    fn searches_of_sparkgap_are_written_as_text_and_others_stay() {
        let search = |id: &str, encrypted: &str| {
            format!(
                r#"{{"type":"server_tool_use","id":"{id}","name":"web_search","input":{{"query":"rust"}}}}, {{"type":"web_search_tool_result","tool_use_id":"{id}","content":[{{"type":"web_search_result","title":"T","url":"https://t/","encrypted_content":"{encrypted}"}}]}}"#
            )
        };
        let body = |blocks: &str| {
            format!(r#"{{"model":"claude-a", "messages":[{{"role":"assistant","content":[{blocks}]}}]}}"#)
        };
        let theirs = search("srvtoolu_1", "abc");
        assert_eq!(text(&body(&theirs), ""), body(&theirs));
        let both = text(&body(&format!("{theirs} , {}", search("srvtoolu_2", ""))), "");
        assert!(both.contains(&theirs) && !both.contains("srvtoolu_2"), "{both}");
        let tree: serde_json::Value = serde_json::from_str(&both).unwrap();
        let blocks = tree["messages"][0]["content"].as_array().unwrap();
        assert_eq!(blocks.len(), 4);
        assert!(
            blocks[2]["type"] == "text" && blocks[2]["text"].as_str().unwrap().contains("rust"),
            "{both}"
        );
        assert!(blocks[3]["text"].as_str().unwrap().contains("https://t/"), "{both}");
    }

    #[test]
    fn odd_requests_pass_as_they_are() {
        for body in [
            r#"{"model":"claude-a","messages":"thinking"}"#,
            r#"{"model":"claude-a","messages":[1,"thinking",null,{"content":[1,[],{}]}]}"#,
            r#"{"model":"claude-a","thinking":1,"messages":[]}"#,
            r#"{"model":"claude-a","thinking":{"type":"enabled"}}"#,
        ] {
            assert_eq!(text(body, ""), body);
        }
    }
}
