//! The samples that `hook` gives to the hooks that run after a request was sent, and what these hooks do with them.

use std::fmt::Write as _;
use std::path::Path;

use super::arguments::HookRun;
use super::output::Failed;
use crate::error::{Error, Kind};
use crate::hooks::{ErrorDecision, Hook, HookRequest, Hooks, SearchDecision};
use crate::json::{self, Value, add_changes, shortened};

/// The most bytes of a file of samples.
const SAMPLES_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// The samples that are used without a file, in the form of such files.
const EVENTS: &str = r#"[{"type":"thinking","text":"Let me see."},{"type":"text","text":"Hello."},
{"type":"tool_use","id":"toolu_1","name":"Read"},{"type":"end","stop_reason":"end_turn","output_tokens":12}]"#;
const CALL: &str = r#"{"id":"toolu_1","name":"Read","input":{"file_path":"/tmp/a.txt"}}"#;
const ERROR: &str =
    r#"{"status":503,"type":"api_error","message":"the model is still loading","upstream":"default"}"#;
const RECORD: &str = r#"{"request_id":"req_1","time":"2026-11-30T10:00:00.000Z","client":"127.0.0.1","stream":true,
"model":"claude-sonnet-5","upstream":"default","upstream_model":"qwen3","lane":0,"status":200,"stop_reason":"end_turn",
"input_tokens":14000,"cached_tokens":12000,"new_tokens":2000,"output_tokens":12,"tokens_per_second":40.0,
"received_ms":1,"connect_ms":0,"sent_ms":2,"head_ms":40,"first_byte_ms":400,"first_word_ms":450,"total_ms":700}"#;

/// Runs each of these hooks that is defined, on the samples of the options or on built-in ones, and adds lines on the
/// results. `upstream` is where the request goes.
///
/// # Errors
/// A file cannot be read, or holds no samples; the text says which.
pub(super) fn run_on_samples(
    hooks: &Hooks,
    options: &HookRun,
    request: &mut HookRequest,
    upstream: &str,
    text: &mut String,
) -> Result<(), Failed> {
    let given = [
        (Hook::Event, &options.event, "--event", EVENTS),
        (Hook::ToolCall, &options.tool_call, "--tool-call", CALL),
        (Hook::Error, &options.error, "--error", ERROR),
        (Hook::Log, &options.log, "--log", RECORD),
    ];
    for (hook, file, option, built_in) in given {
        if let (Some(file), false) = (file, hooks.defines(hook)) {
            return Err(format!("{option} {}: no file defines {}", file.display(), hook.name()));
        }
        if !hooks.defines(hook) {
            continue;
        }
        let samples = match file {
            Some(file) => samples_of(file)?,
            None => parsed(built_in)?,
        };
        for sample in samples {
            let _ = writeln!(text, "\n{}  {}", hook.name(), shortened(&sample.to_json()));
            let result = run_one(hooks, hook, sample, request, upstream);
            text.push_str(&result);
        }
    }
    if hooks.defines(Hook::UpstreamState) {
        let _ = writeln!(text, "\n{}  {upstream:?}, \"out\", \"a sample\"", Hook::UpstreamState.name());
        hooks.on_upstream_state(upstream, "out", "a sample");
    }
    Ok(())
}

/// Runs `on_search`, if it is defined, and adds lines on its decision. No engine is asked.
pub(super) fn run_on_query(hooks: &Hooks, query: &str, request: &mut HookRequest, text: &mut String) {
    if !hooks.defines(Hook::Search) {
        return;
    }
    let failed = hooks.failures(Hook::Search);
    let _ = writeln!(text, "\n{}  {query:?}", Hook::Search.name());
    let decided = hooks.on_search(query, request);
    if hooks.failures(Hook::Search) > failed {
        text.push_str("failed, see the log lines\n");
    }
    let _ = match decided {
        Err(error) => writeln!(text, "ends with {error}"),
        Ok(SearchDecision::Ask(asked)) => writeln!(text, "the engine is asked for {asked:?}"),
        Ok(SearchDecision::Answer(hits)) => writeln!(text, "answered with {} results", hits.len()),
        Ok(SearchDecision::Refuse(failure)) => writeln!(text, "refused with {}", failure.name()),
    };
}

/// One call of one hook, and the lines on its result.
fn run_one(
    hooks: &Hooks,
    hook: Hook,
    mut sample: Value<'static>,
    request: &mut HookRequest,
    upstream: &str,
) -> String {
    let before = sample.clone();
    let failed = hooks.failures(hook);
    let mut lines = String::new();
    let refused = match hook {
        Hook::Event => hooks.on_event(&mut sample, request).map(|kept| {
            if !kept {
                lines.push_str("dropped\n");
            }
        }),
        Hook::ToolCall => hooks.on_tool_call(&mut sample, request),
        Hook::Error => decide(hooks, &sample, request, upstream, &mut lines),
        _ => {
            hooks.on_log(&mut sample, request);
            Ok(())
        }
    };
    if let Err(error) = refused {
        let _ = writeln!(lines, "ends with {error}");
    }
    add_changes("", &before, &sample, &mut lines);
    if hooks.failures(hook) > failed {
        lines.push_str("failed, see the log lines\n");
    } else if lines.is_empty() {
        lines.push_str("unchanged\n");
    }
    lines
}

fn decide(
    hooks: &Hooks,
    sample: &Value<'_>,
    request: &mut HookRequest,
    upstream: &str,
    lines: &mut String,
) -> Result<(), Error> {
    let message = sample.get("message").and_then(Value::as_str).unwrap_or_default();
    let status = sample.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let status = status.unwrap_or(500);
    let upstream = sample.get("upstream").and_then(Value::as_str).unwrap_or(upstream);
    let error = Error::new(Kind::from_status(status), message).with_status(status);
    match hooks.on_error(&error, upstream, request)? {
        ErrorDecision::Continue => {}
        ErrorDecision::RetryOther => lines.push_str("another upstream is asked\n"),
        ErrorDecision::Route { model, upstream } => {
            let shown = |name: Option<String>| name.unwrap_or_else(|| "as before".into());
            let _ = writeln!(lines, "goes to   {}, model {}", shown(upstream), shown(model));
        }
        ErrorDecision::Replace(error) => _ = writeln!(lines, "answered  {error}"),
    }
    Ok(())
}

/// The samples in a file: one object, a list of objects, or one object in each line.
fn samples_of(file: &Path) -> Result<Vec<Value<'static>>, Failed> {
    let fail = |why: String| format!("{}: {why}", file.display());
    let size = std::fs::metadata(file).map_err(|error| fail(error.to_string()))?.len();
    if size > SAMPLES_SIZE_MAX {
        return Err(fail(format!("{size} bytes; {SAMPLES_SIZE_MAX} is the most")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
    parsed(&text).map_err(fail)
}

fn parsed(text: &str) -> Result<Vec<Value<'static>>, Failed> {
    let read = |text: &str| json::parse(&mut text.as_bytes().to_vec()).map(Value::into_owned);
    let values = match read(text) {
        Ok(Value::Array(list)) => list.iter().map(|value| value.clone().into_owned()).collect(),
        Ok(one) => vec![one],
        Err(error) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty()).map(read);
            lines.collect::<Result<Vec<_>, _>>().map_err(|_| format!("not valid JSON: {error}"))?
        }
    };
    match values.iter().all(|value| value.as_object().is_some()) && !values.is_empty() {
        true => Ok(values),
        false => Err("expected a JSON object, a list of objects, or one object in each line".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_three_forms() {
        for text in [EVENTS, CALL, ERROR, RECORD] {
            assert!(!parsed(text).unwrap().is_empty());
        }
        assert_eq!(parsed("{\"a\":1}\n\n{\"a\":2}\n").unwrap().len(), 2);
        for text in ["", "[]", "7", "[1]", "{", "{}\n{"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
