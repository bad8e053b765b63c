//! The events of a streamed answer, and their bytes.

use crate::error::Error;
use crate::json::{write_str, write_u64};
use crate::sse;

/// What an answer cost, in tokens. `input + cache_read + cache_creation` is the whole prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens that no cache served. Never 0 in an answer: clients take a 0 for "not told".
    pub input: u64,
    /// Prompt tokens that the upstream's prefix cache served.
    pub cache_read: u64,
    /// Prompt tokens that were written to the cache, where an upstream tells.
    pub cache_creation: u64,
    /// Tokens of the answer, reasoning included.
    pub output: u64,
    /// Tokens of reasoning, where an upstream tells.
    pub thinking: Option<u64>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model was done.
    EndTurn,
    /// The token limit.
    MaxTokens,
    /// A stop sequence of the request.
    StopSequence,
    /// The model calls tools.
    ToolUse,
    /// A content filter of the upstream.
    Refusal,
    /// The context window is full; only for clients that asked for it by its beta.
    ContextWindow,
}

impl StopReason {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            StopReason::EndTurn => "end_turn",
            StopReason::MaxTokens => "max_tokens",
            StopReason::StopSequence => "stop_sequence",
            StopReason::ToolUse => "tool_use",
            StopReason::Refusal => "refusal",
            StopReason::ContextWindow => "model_context_window_exceeded",
        }
    }
}

/// A piece of an open content block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delta<'e> {
    /// Of a text block.
    Text(&'e str),
    /// Of a thinking block.
    Thinking(&'e str),
    /// The signature of a thinking block, once, just before its end.
    Signature(&'e str),
    /// JSON text of a tool use's input.
    InputJson(&'e str),
}

/// One event of a streamed answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'e> {
    /// The first.
    MessageStart {
        /// `msg_…`, unique: Claude Code merges answers of the same id.
        id: &'e str,
        /// The model as the client named it.
        model: &'e str,
        /// As far as it is known.
        usage: Usage,
    },
    /// Something to show that the answer is alive.
    Ping,
    /// A text block opens.
    TextStart {
        /// Its index: 0, 1, 2 …
        index: u32,
    },
    /// A thinking block opens.
    ThinkingStart {
        /// Its index.
        index: u32,
    },
    /// A tool use opens.
    ToolUseStart {
        /// Its index.
        index: u32,
        /// `toolu_…` or as the upstream named it.
        id: &'e str,
        /// The tool.
        name: &'e str,
    },
    /// A piece of the open block.
    BlockDelta {
        /// The block's index.
        index: u32,
        /// The piece.
        delta: Delta<'e>,
    },
    /// The open block ends.
    BlockStop {
        /// Its index.
        index: u32,
    },
    /// A `message_delta` that ends nothing: what the answer costs so far. Leaves no trace in any client's message, and counts
    /// as progress where a ping does not.
    Usage {
        /// The whole usage so far, cumulative.
        usage: Usage,
    },
    /// The last but one.
    MessageDelta {
        /// Why it ended.
        stop_reason: StopReason,
        /// The stop sequence that was met.
        stop_sequence: Option<&'e str>,
        /// The text of a refusal.
        refusal: Option<&'e str>,
        /// The whole usage, cumulative.
        usage: Usage,
    },
    /// The last of a whole answer.
    MessageStop,
    /// The last of a broken one.
    Error {
        /// What went wrong.
        error: &'e Error,
        /// The same as in the response's `request-id` header.
        request_id: &'e str,
    },
}

impl Event<'_> {
    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Event::MessageStart { .. } => "message_start",
            Event::Ping => "ping",
            Event::TextStart { .. } | Event::ThinkingStart { .. } | Event::ToolUseStart { .. } => {
                "content_block_start"
            }
            Event::BlockDelta { .. } => "content_block_delta",
            Event::BlockStop { .. } => "content_block_stop",
            Event::Usage { .. } | Event::MessageDelta { .. } => "message_delta",
            Event::MessageStop => "message_stop",
            Event::Error { .. } => "error",
        }
    }

    /// Appends it as a server-sent event. Allocates nothing but the room in `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Event::BlockDelta { index, delta } => encode_delta(*index, *delta, out),
            _ => sse::encode(self.name(), out, |out| self.write_data(out)),
        }
    }

    fn write_data(&self, out: &mut Vec<u8>) {
        match self {
            Event::MessageStart { id, model, usage } => write_message_start(id, model, *usage, out),
            Event::Ping => out.extend_from_slice(br#"{"type":"ping"}"#),
            Event::TextStart { index } => {
                write_indexed(br#"{"type":"content_block_start","index":"#, *index, out);
                out.extend_from_slice(br#","content_block":{"type":"text","text":""}}"#);
            }
            Event::ThinkingStart { index } => {
                write_indexed(br#"{"type":"content_block_start","index":"#, *index, out);
                out.extend_from_slice(
                    br#","content_block":{"type":"thinking","thinking":"","signature":""}}"#,
                );
            }
            Event::ToolUseStart { index, id, name } => {
                write_indexed(br#"{"type":"content_block_start","index":"#, *index, out);
                out.extend_from_slice(br#","content_block":{"type":"tool_use","id":"#);
                write_str(id, out);
                out.extend_from_slice(br#","name":"#);
                write_str(name, out);
                out.extend_from_slice(br#","input":{}}}"#);
            }
            Event::BlockDelta { index, delta } => {
                write_indexed(br#"{"type":"content_block_delta","index":"#, *index, out);
                write_delta(*delta, out);
            }
            Event::BlockStop { index } => {
                write_indexed(br#"{"type":"content_block_stop","index":"#, *index, out);
                out.push(b'}');
            }
            Event::Usage { usage } => {
                out.extend_from_slice(br#"{"type":"message_delta","delta":{"stop_reason":null,"#);
                out.extend_from_slice(br#""stop_sequence":null,"stop_details":null},"usage":"#);
                usage.write(out);
                out.push(b'}');
            }
            Event::MessageDelta { stop_reason, stop_sequence, refusal, usage } => {
                out.extend_from_slice(br#"{"type":"message_delta","delta":{"#);
                write_stop(*stop_reason, *stop_sequence, *refusal, out);
                out.extend_from_slice(br#"},"usage":"#);
                usage.write(out);
                out.push(b'}');
            }
            Event::MessageStop => out.extend_from_slice(br#"{"type":"message_stop"}"#),
            Event::Error { error, request_id } => error.body(request_id, out),
        }
    }
}

fn write_indexed(head: &[u8], index: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(head);
    write_u64(u64::from(index), out);
}

fn write_message_start(id: &str, model: &str, usage: Usage, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"message_start","message":{"id":"#);
    write_str(id, out);
    out.extend_from_slice(br#","type":"message","role":"assistant","model":"#);
    write_str(model, out);
    out.extend_from_slice(
        br#","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"usage":"#,
    );
    usage.write(out);
    out.extend_from_slice(b"}}");
}

/// The whole event. Nearly all events are this one, so its fixed parts are few and long.
fn encode_delta(index: u32, delta: Delta<'_>, out: &mut Vec<u8>) {
    const HEAD: &[u8] = b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":";
    write_indexed(HEAD, index, out);
    write_delta(delta, out);
    out.extend_from_slice(b"\n\n");
}

fn write_delta(delta: Delta<'_>, out: &mut Vec<u8>) {
    let (head, text): (&[u8], &str) = match delta {
        Delta::Text(text) => (br#","delta":{"type":"text_delta","text":"#, text),
        Delta::Thinking(text) => (br#","delta":{"type":"thinking_delta","thinking":"#, text),
        Delta::Signature(text) => (br#","delta":{"type":"signature_delta","signature":"#, text),
        Delta::InputJson(text) => (br#","delta":{"type":"input_json_delta","partial_json":"#, text),
    };
    out.extend_from_slice(head);
    write_str(text, out);
    out.extend_from_slice(b"}}");
}

/// Appends `"stop_reason":…,"stop_sequence":…,"stop_details":…`: the same members in a stream and in a whole message.
pub(crate) fn write_stop(
    reason: StopReason,
    sequence: Option<&str>,
    refusal: Option<&str>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(br#""stop_reason":""#);
    out.extend_from_slice(reason.name().as_bytes());
    out.extend_from_slice(br#"","stop_sequence":"#);
    match sequence {
        Some(text) => write_str(text, out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","stop_details":"#);
    match (reason, refusal) {
        (StopReason::Refusal, text) => {
            out.extend_from_slice(br#"{"type":"refusal","category":null,"explanation":"#);
            match text {
                Some(text) => write_str(text, out),
                None => out.extend_from_slice(b"null"),
            }
            out.push(b'}');
        }
        _ => out.extend_from_slice(b"null"),
    }
}

impl Usage {
    /// Appends it as the API's `usage` object, every key present.
    pub fn write(self, out: &mut Vec<u8>) {
        let member = |key: &[u8], n: u64, out: &mut Vec<u8>| {
            out.extend_from_slice(key);
            write_u64(n, out);
        };
        member(br#"{"input_tokens":"#, self.input, out);
        member(br#","cache_creation_input_tokens":"#, self.cache_creation, out);
        member(br#","cache_read_input_tokens":"#, self.cache_read, out);
        member(br#","output_tokens":"#, self.output, out);
        member(br#","cache_creation":{"ephemeral_5m_input_tokens":"#, self.cache_creation, out);
        out.extend_from_slice(br#","ephemeral_1h_input_tokens":0}"#);
        if let Some(thinking) = self.thinking {
            member(br#","output_tokens_details":{"thinking_tokens":"#, thinking, out);
            out.push(b'}');
        }
        out.extend_from_slice(br#","server_tool_use":null,"service_tier":"standard"}"#);
    }
}
