//! From an answer to a verdict: whether the content is the one that a task expects.

use super::task::{AimMember, AimValue, ExamAim, ExpectedCall};
use crate::json::{self, Value};

/// The most characters of a model's words that a reason quotes.
const QUOTED_MAX: usize = 60;

/// Marks of reasoning that must not stand in a text.
const THINK_MARKS: [&str; 2] = ["<think>", "</think>"];

/// True if reasoning stands in the text of a message.
pub(super) fn has_think_marks(message: &Value<'_>) -> bool {
    let text = text_of(message);
    THINK_MARKS.iter().any(|mark| text.contains(mark))
}

/// True if the model has thought.
pub(super) fn has_thinking(message: &Value<'_>) -> bool {
    blocks(message, "thinking").next().is_some()
}

/// Judges a message of the Messages API.
///
/// # Errors
/// The reason why it does not pass.
pub(super) fn judge(message: &Value<'_>, expected: ExamAim) -> Result<(), String> {
    let reason = message.get("stop_reason").and_then(Value::as_str).unwrap_or_default();
    if reason == "max_tokens" {
        return Err("the answer met its limit of tokens".to_owned());
    }
    let (text, calls) = (text_of(message), calls_of(message));
    if has_think_marks(message) {
        return Err(format!("reasoning stands in the text: {}", quoted(&text)));
    }
    if let ExamAim::Calls(wanted) = expected {
        return judge_calls(&calls, wanted, &text);
    }
    if let Some((name, _)) = calls.first() {
        return Err(format!("called {name}, though no call was wanted"));
    }
    match expected {
        ExamAim::Text(words) => {
            let lower = text.to_lowercase();
            match words.iter().find(|word| !lower.contains(**word)) {
                Some(word) => Err(format!("expected a text with \"{word}\", got {}", quoted(&text))),
                None => Ok(()),
            }
        }
        ExamAim::Json(key, value) => {
            let mut bytes = text.trim().as_bytes().to_vec();
            let parsed =
                json::parse(&mut bytes).map_err(|_| format!("expected JSON, got {}", quoted(&text)))?;
            match parsed.get(key).map(Value::to_json) {
                Some(found) if found == value => Ok(()),
                _ => Err(format!("expected \"{key}\": {value}, got {}", quoted(&text))),
            }
        }
        ExamAim::StopsBefore(stop) if text.contains(stop) => {
            Err(format!("the stop sequence stands in the text: {}", quoted(&text)))
        }
        ExamAim::StopsBefore(stop) if reason != "stop_sequence" => {
            Err(format!("did not stop at \"{stop}\", but with {reason}: {}", quoted(&text)))
        }
        ExamAim::StopsBefore(_) | ExamAim::Calls(_) => Ok(()),
    }
}

fn judge_calls(calls: &[(&str, &Value<'_>)], wanted: &[ExpectedCall], text: &str) -> Result<(), String> {
    if calls.is_empty() {
        return Err(format!("expected a call, got the text {}", quoted(text)));
    }
    let mut left: Vec<&(&str, &Value<'_>)> = calls.iter().collect();
    for (name, members) in wanted {
        let fits = |call: &&(&str, &Value<'_>)| call.0 == *name && misfit(call.1, members).is_none();
        if let Some(at) = left.iter().position(fits) {
            left.swap_remove(at);
            continue;
        }
        let Some(call) = left.iter().find(|call| call.0 == *name) else {
            let names: Vec<&str> = calls.iter().map(|call| call.0).collect();
            let count =
                if wanted.len() == 1 { "a call".to_owned() } else { format!("{} calls, one", wanted.len()) };
            return Err(format!("expected {count} of {name}; got {}", names.join(", ")));
        };
        let (path, found) = misfit(call.1, members).unwrap_or_default();
        return Err(format!("the input of {name} has the wrong {path}: {}", beginning(&found)));
    }
    match left.first() {
        Some(call) => Err(format!("called {} once too often", call.0)),
        None => Ok(()),
    }
}

/// The first member of an input that is not as wanted: its path, and its value as JSON.
fn misfit(input: &Value<'_>, members: &[AimMember]) -> Option<(String, String)> {
    members.iter().find_map(|(path, wanted)| {
        let found = path.split('.').try_fold(input, |value, key| match key.parse::<usize>() {
            Ok(index) => value.as_array()?.get(index),
            Err(_) => value.get(key),
        });
        let fits = found.is_some_and(|value| match wanted {
            AimValue::Is(json) => value.to_json() == *json,
            AimValue::Has(part) => value.as_str().is_some_and(|text| text.contains(part)),
            AimValue::Count(count) => value.as_array().is_some_and(|list| list.len() == *count),
        });
        let shown = || found.map_or_else(|| "nothing".to_owned(), Value::to_json);
        (!fits).then(|| ((*path).to_owned(), shown()))
    })
}

fn blocks<'m>(message: &'m Value<'m>, kind: &'static str) -> impl Iterator<Item = &'m Value<'m>> {
    let content = message.get("content").and_then(Value::as_array).unwrap_or_default();
    content.iter().filter(move |block| block.get("type").and_then(Value::as_str) == Some(kind))
}

fn text_of(message: &Value<'_>) -> String {
    blocks(message, "text").filter_map(|block| block.get("text")?.as_str()).collect()
}

/// The names and inputs of the calls.
pub(super) fn calls_of<'m>(message: &'m Value<'m>) -> Vec<(&'m str, &'m Value<'m>)> {
    blocks(message, "tool_use")
        .filter_map(|block| Some((block.get("name")?.as_str()?, block.get("input")?)))
        .collect()
}

/// The beginning of a model's words, in quotation marks.
fn quoted(text: &str) -> String {
    format!("\"{}\"", beginning(text))
}

/// The beginning of a text in one line.
fn beginning(text: &str) -> String {
    text.chars().take(QUOTED_MAX).collect::<String>().replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(content: &str, reason: &str, expected: ExamAim) -> Result<(), String> {
        let mut bytes = format!(r#"{{"content":[{content}],"stop_reason":"{reason}"}}"#).into_bytes();
        judge(&json::parse(&mut bytes).unwrap(), expected)
    }

    const READ: ExamAim = ExamAim::Calls(&[("Read", &[("file_path", AimValue::Is(r#""/a""#))])]);

    #[test]
    fn calls_must_be_the_wanted_ones() {
        let call = |name: &str, input: &str| {
            format!(r#"{{"type":"tool_use","id":"t","name":"{name}","input":{input}}}"#)
        };
        let good = call("Read", r#"{"file_path":"/a"}"#);
        assert_eq!(judged(&good, "tool_use", READ), Ok(()));
        for (content, why) in [
            (r#"{"type":"text","text":"I would read /a."}"#.to_owned(), "expected a call, got the text"),
            (call("Bash", "{}"), "expected a call of Read; got Bash"),
            (call("Read", r#"{"file_path":"/b"}"#), "the wrong file_path"),
            (call("Read", "{}"), "nothing"),
            (format!("{good},{good}"), "called Read once too often"),
        ] {
            let found = judged(&content, "tool_use", READ).unwrap_err();
            assert!(found.contains(why), "{content}: {found}");
        }
        let two =
            ExamAim::Calls(&[("f", &[("n.0.k", AimValue::Count(2))]), ("f", &[("n", AimValue::Has("x"))])]);
        let content = format!("{},{}", call("f", r#"{"n":"axb"}"#), call("f", r#"{"n":[{"k":[1,2]}]}"#));
        assert_eq!(judged(&content, "tool_use", two), Ok(()));
    }

    #[test]
    fn texts_must_have_the_words_and_end_in_time() {
        let text = |text: &str| format!(r#"{{"type":"text","text":"{text}"}}"#);
        assert_eq!(judged(&text("Hello!"), "end_turn", ExamAim::Text(&["hello"])), Ok(()));
        assert_eq!(judged(&text("one two three "), "stop_sequence", ExamAim::StopsBefore("four")), Ok(()));
        assert_eq!(judged(&text(r#"{\"port\": 443}"#), "end_turn", ExamAim::Json("port", "443")), Ok(()));
        for (content, reason, expected, why) in [
            (text("Bye"), "end_turn", ExamAim::Text(&["hello"]), "expected a text with"),
            (
                text("<think>x</think>hello"),
                "end_turn",
                ExamAim::Text(&["hello"]),
                "reasoning stands in the text",
            ),
            (text("hello"), "max_tokens", ExamAim::Text(&["hello"]), "limit of tokens"),
            (text("one four"), "end_turn", ExamAim::StopsBefore("four"), "stands in the text"),
            (text("one two"), "end_turn", ExamAim::StopsBefore("four"), "did not stop"),
            (text("port 443"), "end_turn", ExamAim::Json("port", "443"), "expected JSON"),
            (text("[]"), "end_turn", ExamAim::Json("port", "443"), "expected \"port\""),
        ] {
            let found = judged(&content, reason, expected).unwrap_err();
            assert!(found.contains(why), "{content}: {found}");
        }
        let call = r#"{"type":"tool_use","id":"t","name":"Bash","input":{}}"#;
        assert!(judged(call, "tool_use", ExamAim::Text(&["x"])).unwrap_err().contains("called Bash"));
        assert!(judged("", "end_turn", READ).is_err());
    }
}
