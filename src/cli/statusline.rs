//! `statusline`: one line for Claude Code's status line. Claude Code runs it often and shows what it prints, so it answers
//! soon, prints only what it knows, and never fails.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use super::activity::{ActivitySource, percent, short};
use super::arguments::StatusLine;
use super::output::{Failed, print};
use super::remote;
use crate::json::{self, Value};
use crate::shown::ShownText;

/// The time for the whole question. Claude Code waits for the line.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(150);

/// The most bytes of the JSON that Claude Code gives; it has about 2 KB.
const INPUT_SIZE_MAX: u64 = 1024 * 1024;

/// The longest name that is shown, in bytes.
const NAME_SIZE_MAX: usize = 40;

/// `sparkgap statusline`.
pub(super) fn run(options: &StatusLine) -> Result<(), Failed> {
    let mut input = Vec::new();
    if !std::io::stdin().is_terminal() {
        // A text that cannot be read to its end is not JSON, and is then left out.
        let _ = std::io::stdin().lock().take(INPUT_SIZE_MAX).read_to_end(&mut input);
    }
    let told = json::parse(&mut input).unwrap_or(Value::Null);
    let session = told.get("session_id").and_then(Value::as_str).unwrap_or_default();
    let activity = ask(options.url.as_deref(), session).unwrap_or(Value::Null);
    let line = line(&told, &activity);
    if !line.is_empty() {
        print(&format!("{line}\n"));
    }
    Ok(())
}

/// Asks for the last turn of a session. `None`: the sparkgap does not answer in time, or there is none.
fn ask(url: Option<&str>, session: &str) -> Option<Value<'static>> {
    // The environment that `sparkgap env` gives to Claude Code, which its commands inherit.
    let inherited = remote::named("ANTHROPIC_BASE_URL")
        .filter(|_| url.is_none() && remote::named("SPARKGAP_URL").is_none())
        .map(|url| (url, remote::named("ANTHROPIC_AUTH_TOKEN")));
    let (url, key) = inherited.map_or_else(
        || (remote::address(url), remote::key(None)),
        |(url, key)| (remote::address(Some(&url)), remote::key(None).or(key)),
    );
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // Without a session the turns of all would be told.
    if session.is_empty() || !session.chars().all(is_plain) {
        return None;
    }
    let source = ActivitySource::new(url, key.as_deref()).ok()?;
    source.ask(&format!("?session={session}&limit=10"), ANSWER_TIMEOUT).ok()
}

/// The line: box, context fill, cached share of the last turn, tokens a second, queue. Parts that are not known are left out.
fn line(told: &Value<'_>, activity: &Value<'_>) -> String {
    let mut parts = Vec::new();
    let finished = activity.get("finished").and_then(Value::as_array).unwrap_or_default();
    let number = |value: &Value<'_>, key: &str| value.get(key).and_then(Value::as_u64);
    // The last turn that has counts: a title or a failed request says nothing of the conversation.
    let has_counts = |row: &&Value<'_>| number(row, "input_tokens").is_some_and(|tokens| tokens > 0);
    let is_for_person = |row: &&Value<'_>| number(row, "lane") == Some(0);
    let last = finished.iter().rev().filter(is_for_person).find(has_counts);
    let text = |value: Option<&Value<'_>>| {
        let text = value.and_then(Value::as_str).unwrap_or_default();
        ShownText::within(text, NAME_SIZE_MAX).to_string()
    };
    let box_name = text(last.and_then(|last| last.get("upstream")));
    if !box_name.is_empty() {
        parts.push(box_name);
    }
    parts.extend(context(told, last));
    if let Some(last) = last {
        let (prompt, cached) =
            (number(last, "input_tokens").unwrap_or(0), number(last, "cached_tokens").unwrap_or(0));
        parts.push(format!("cached {}%", percent(cached, prompt).min(100)));
        if let Some(speed) = last.get("tokens_per_second").and_then(Value::as_f64) {
            parts.push(format!("{speed:.0} tok/s"));
        }
        if let Some(cause) = last.get("prefix").and_then(|prefix| prefix.get("cause")) {
            parts.push(format!("cache lost: {}", text(Some(cause))));
        }
    }
    match number(activity, "waiting") {
        None | Some(0) => {}
        Some(waiting) => parts.push(format!("{waiting} waiting")),
    }
    parts.join(" \u{b7} ")
}

/// The fill of the context: by Claude Code's own numbers, otherwise by the tokens of the last turn.
fn context(told: &Value<'_>, last: Option<&Value<'_>>) -> Option<String> {
    let window = told.get("context_window");
    let of = |value: Option<&Value<'_>>, key: &str| value.and_then(|value| value.get(key)?.as_u64());
    let size = of(window, "context_window_size").filter(|size| *size > 0);
    let usage = window.and_then(|window| window.get("current_usage"));
    let keys = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
    let own = of(usage, "input_tokens")
        .map(|_| keys.iter().fold(0_u64, |sum, key| sum.saturating_add(of(usage, key).unwrap_or_default())));
    let used = own.or_else(|| {
        let count = |key| of(last, key).unwrap_or_default();
        last.map(|_| count("input_tokens").saturating_add(count("output_tokens")))
    })?;
    Some(match size {
        Some(size) => format!("{}/{} {}%", short(used), short(size), percent(used, size)),
        None => format!("{} tokens", short(used)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(told: &str, activity: &str) -> String {
        let (mut told, mut activity) = (told.as_bytes().to_vec(), activity.as_bytes().to_vec());
        let parsed = json::parse(&mut told).unwrap_or(Value::Null);
        line(&parsed, &json::parse(&mut activity).unwrap_or(Value::Null))
    }

    #[test]
    fn a_line_has_what_is_known() {
        let told = r#"{"session_id":"s","context_window":{"context_window_size":131072,"current_usage":{"input_tokens":1000,"cache_read_input_tokens":45000}}}"#;
        let activity = r#"{"waiting":2,"finished":[
            {"upstream":"spark1","lane":0,"input_tokens":50000,"cached_tokens":46000,"output_tokens":9,"tokens_per_second":38.4},
            {"upstream":"title","lane":2,"input_tokens":9},{"upstream":"spark2","lane":0,"input_tokens":0}]}"#;
        assert_eq!(shown(told, activity), "spark1 · 46k/131k 35% · cached 92% · 38 tok/s · 2 waiting");
        assert_eq!(shown("{}", activity), "spark1 · 50k tokens · cached 92% · 38 tok/s · 2 waiting");
        assert_eq!(shown(told, ""), "46k/131k 35%");
        assert_eq!(shown("rubbish", "[]"), "");
    }

    #[test]
    fn hostile_values_stay_one_line() {
        let activity = r#"{"finished":[{"upstream":"a\u001b[2J\nb","lane":0,"input_tokens":1,"cached_tokens":99,"prefix":{"cause":"\r\n"}}]}"#;
        let line = shown("{\"context_window\":7}", activity);
        assert!(!line.contains(['\n', '\r', '\u{1b}']) && line.contains("cached 100%"), "{line}");
        let huge = r#"{"context_window":{"context_window_size":1,"current_usage":{"input_tokens":18446744073709551615,"cache_read_input_tokens":18446744073709551615}}}"#;
        assert!(!shown(huge, "").is_empty());
    }
}
