//! `replay`: sends a recorded request again, or translates its recorded answer again, and compares.

use super::arguments::ReplayCommand;
use super::history::open;
use super::output::{Failed, note, print};
use super::show::{sent_of, url_of};
use crate::activity::hide_keys;
use crate::app::Sources;
use crate::json::{self, Value};
use crate::proxy::{replay_answer, replay_offline};
use crate::shown::ShownText;
use crate::state::RecordingRow;
use crate::transport::{CallLimits, Endpoint, Path, nobody};

/// The largest answer that is compared, in bytes.
const ANSWER_SIZE_MAX: usize = 16 * 1024 * 1024;

/// The bytes before and behind a difference that are shown.
const AROUND: usize = 80;

/// `sparkgap replay`. Fails if the answers differ.
pub(super) fn run(options: &ReplayCommand) -> Result<(), Failed> {
    if options.offline && (options.to.is_some() || options.upstream_key_file.is_some()) {
        return Err("--offline asks no server, so it excludes --to and --upstream-key-file".to_owned());
    }
    let row = open(options.state.clone())?.recording(&options.id)?;
    if row.is_cut {
        note("sparkgap: a limit has cut this recording, so the answers may differ\n");
    }
    if options.offline { compare_offline(&row) } else { ask_again(options, &row) }
}

/// The client's bytes of that time.
fn answer_of(row: &RecordingRow) -> &[u8] {
    let [.., answer] = &row.places;
    answer
}

fn compare_offline(row: &RecordingRow) -> Result<(), Failed> {
    let mut translated = replay_offline(row)?;
    // The recording lost its keys, so the new translation must lose them too.
    hide_keys(&mut translated, &[]);
    let recorded = answer_of(row);
    if translated == recorded {
        print(&format!("{}: the same {} bytes as recorded\n", row.id, recorded.len()));
        return Ok(());
    }
    let same = translated.iter().zip(recorded).take_while(|(new, old)| new == old).count();
    if same == recorded.len() && translated.len() > same {
        print(&format!(
            "{}: the same {same} bytes as recorded, and {} more: the client had left, or a limit has cut the recording\n",
            row.id,
            translated.len() - same
        ));
        return Ok(());
    }
    let around = |bytes: &[u8]| {
        let part = bytes.get(same.saturating_sub(AROUND)..bytes.len().min(same + AROUND)).unwrap_or_default();
        ShownText::whole(&String::from_utf8_lossy(part)).to_string()
    };
    print(&format!("recorded: {}\nnow:      {}\n", around(recorded), around(&translated)));
    Err(format!("{}: the answers differ from byte {same} on; hooks that see events are not run here", row.id))
}

fn ask_again(options: &ReplayCommand, row: &RecordingRow) -> Result<(), Failed> {
    let recorded = url_of(row).ok_or("no upstream was asked, so there is nothing to send")?;
    let url = options.to.clone().unwrap_or(recorded);
    let sources = Sources {
        upstreams: vec![url.clone()],
        upstream_key_file: options.upstream_key_file.clone(),
        ..Sources::default()
    };
    let loaded = sources.load()?;
    let config = loaded.config.upstreams.first().ok_or("the server has no address")?;
    let server = Endpoint::new(config, &CallLimits::default())?;
    let response = server.post(Path::Api("/chat/completions"), sent_of(row), &nobody());
    let response = response.map_err(|failure| format!("{}: {failure}", ShownText::new(&url)))?;
    let status = response.status;
    let body = response.read_all(ANSWER_SIZE_MAX).map_err(|failure| failure.to_string())?;
    let mut text = String::from_utf8_lossy(&replay_answer(row, status, &body)?).into_owned();
    server.hide_keys(&mut text);
    let (then, now) = (Told::read(answer_of(row)), Told::read(text.as_bytes()));
    print(&format!("then: {}\nnow:  {}\n", then.line(), now.line()));
    if then == now {
        print("the answers are the same\n");
        return Ok(());
    }
    print(&format!(
        "\n== then\n{}\n\n== now (status {status} of the server)\n{}\n",
        then.content, now.content
    ));
    Err("the answers differ".to_owned())
}

/// The content of an answer, as far as two answers can be compared: without ids and times.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// Text, reasoning and tool calls, or the error.
    content: String,
    stop_reason: String,
    output_tokens: u64,
}

impl Told {
    /// Reads events of the Messages API, or a whole message.
    fn read(bytes: &[u8]) -> Told {
        let mut told = Told::default();
        if bytes.trim_ascii_start().starts_with(b"{") {
            let mut copy = bytes.to_vec();
            if let Ok(message) = json::parse(&mut copy) {
                message.get("content").and_then(Value::as_array).into_iter().flatten().for_each(|block| {
                    told.begin(block);
                    told.add(block);
                    if let Some(input) = block.get("input") {
                        told.content.push_str(&input.to_json());
                    }
                });
                told.end(&message, message.get("usage"));
            }
            return told;
        }
        let text = String::from_utf8_lossy(bytes);
        for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let mut copy = data.as_bytes().to_vec();
            let Ok(event) = json::parse(&mut copy) else { continue };
            match event.get("type").and_then(Value::as_str) {
                // The whole of a block's input comes in its deltas.
                Some("content_block_start") => {
                    event.get("content_block").into_iter().for_each(|block| told.begin(block))
                }
                Some("content_block_delta") => {
                    event.get("delta").into_iter().for_each(|delta| told.add(delta))
                }
                Some("message_delta") => {
                    told.end(event.get("delta").unwrap_or(&Value::Null), event.get("usage"));
                }
                Some("error") => told.end(&event, None),
                _ => {}
            }
        }
        told
    }

    fn begin(&mut self, block: &Value<'_>) {
        let field = |key: &str| block.get(key).and_then(Value::as_str).unwrap_or_default();
        if !self.content.is_empty() {
            self.content.push('\n');
        }
        self.content.push_str(&format!("[{}] {}", field("type"), field("name")));
    }

    fn add(&mut self, piece: &Value<'_>) {
        for key in ["text", "thinking", "partial_json"] {
            self.content.push_str(piece.get(key).and_then(Value::as_str).unwrap_or_default());
        }
    }

    fn end(&mut self, end: &Value<'_>, usage: Option<&Value<'_>>) {
        if let Some(reason) = end.get("stop_reason").and_then(Value::as_str) {
            self.stop_reason = reason.to_owned();
        }
        if let Some(error) = end.get("error").and_then(|error| error.get("message")).and_then(Value::as_str) {
            self.content.push_str(&format!("error: {error}"));
        }
        let tokens = usage.and_then(|usage| usage.get("output_tokens")).and_then(Value::as_u64);
        self.output_tokens = tokens.unwrap_or(self.output_tokens);
    }

    fn line(&self) -> String {
        let Told { content, stop_reason, output_tokens } = self;
        format!("{} characters, stop reason {stop_reason}, {output_tokens} tokens", content.chars().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_a_message_of_the_same_content_are_the_same() {
        let message = br#"{"content":[{"type":"text","text":"Hi"},{"type":"tool_use","name":"Bash","input":{"a":1}}],"stop_reason":"tool_use","usage":{"output_tokens":3}}"#;
        let events = [
            r#"data: {"type":"content_block_start","content_block":{"type":"text","text":""}}"#,
            r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"H"}}"#,
            r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"i"}}"#,
            r#"data: {"type":"content_block_start","content_block":{"type":"tool_use","name":"Bash","input":{}}}"#,
            r#"data: {"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}"#,
            r#"data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":3}}"#,
            "data: rubbish",
        ];
        let told = Told::read(events.join("\n\n").as_bytes());
        assert_eq!(told, Told::read(message));
        assert_eq!(told.content, "[text] Hi\n[tool_use] Bash{\"a\":1}");
        let error = Told::read(br#"{"type":"error","error":{"message":"no"}}"#);
        assert_eq!(error.content, "error: no");
        assert_eq!(Told::read(b"{"), Told::default());
    }
}
