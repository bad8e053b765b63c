//! The events of a streamed answer, and their encoding.

use crate::error::Error;
use crate::json::{Value, write_str, write_u64};
use crate::sse;

/// The cost of an answer, in tokens. `input + cache_read + cache_creation` is the whole prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens that no cache served. Never 0 in an answer: clients read a 0 as "unknown".
    pub input: u64,
    /// Prompt tokens that the upstream's prefix cache served.
    pub cache_read: u64,
    /// Prompt tokens that were written to the cache; 0 if the upstream does not report them.
    pub cache_creation: u64,
    /// Tokens of the answer, reasoning included.
    pub output: u64,
    /// Tokens of reasoning; `None` if the upstream does not report them.
    pub thinking: Option<u64>,
    /// Web searches that were made for the answer.
    pub searches: u64,
}

/// The reason why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended its answer.
    EndTurn,
    /// The token limit was reached.
    MaxTokens,
    /// The answer met a stop sequence of the request.
    StopSequence,
    /// The model calls tools.
    ToolUse,
    /// A content filter of the upstream stopped it.
    Refusal,
    /// The context window is full. Only clients that asked for this reason by its beta get it.
    ContextWindow,
}

impl StopReason {
    /// All of them.
    pub const ALL: [StopReason; 6] = [
        StopReason::EndTurn,
        StopReason::MaxTokens,
        StopReason::StopSequence,
        StopReason::ToolUse,
        StopReason::Refusal,
        StopReason::ContextWindow,
    ];

    /// The name in the API.
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
    /// A piece of a text block.
    Text(&'e str),
    /// A piece of a thinking block.
    Thinking(&'e str),
    /// The signature of a thinking block; it comes once, just before the block's end.
    Signature(&'e str),
    /// A piece of the JSON text of a tool use's input.
    InputJson(&'e str),
}

/// One event of a streamed answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'e> {
    /// The first event.
    MessageStart {
        /// `msg_…`, unique: Claude Code merges answers of the same id.
        id: &'e str,
        /// The model as the client named it.
        model: &'e str,
        /// The usage as far as it is known.
        usage: Usage,
    },
    /// Shows the client that the answer is still being made.
    Ping,
    /// A text block opens.
    TextStart {
        /// The block's index: 0, 1, 2 …
        index: u32,
    },
    /// A thinking block opens.
    ThinkingStart {
        /// The block's index.
        index: u32,
    },
    /// A tool use opens.
    ToolUseStart {
        /// The block's index.
        index: u32,
        /// The id: `toolu_…`, or the upstream's own.
        id: &'e str,
        /// The name of the tool.
        name: &'e str,
    },
    /// A use of a tool that is not the client's opens: a web search. Its input follows as that of a tool use does.
    ServerToolUseStart {
        /// The block's index.
        index: u32,
        /// The id: `srvtoolu_…`.
        id: &'e str,
        /// The name of the tool.
        name: &'e str,
    },
    /// The result of such a tool. It comes whole, and only its end follows.
    ServerToolResult {
        /// The block's index.
        index: u32,
        /// The block.
        block: &'e Value<'e>,
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
        /// The block's index.
        index: u32,
    },
    /// A `message_delta` in the middle of an answer that reports the usage so far. It changes nothing in any client's
    /// message, and clients take it as progress, which a ping is not.
    Usage {
        /// The whole usage so far, cumulative.
        usage: Usage,
    },
    /// The last event but one.
    MessageDelta {
        /// The reason why the answer ended.
        stop_reason: StopReason,
        /// The stop sequence that was met.
        stop_sequence: Option<&'e str>,
        /// The text of a refusal.
        refusal: Option<&'e str>,
        /// The whole usage, cumulative.
        usage: Usage,
    },
    /// The last event of a complete answer.
    MessageStop,
    /// The last event of an answer that failed.
    Error {
        /// The error.
        error: &'e Error,
        /// The id that the response's `request-id` header has.
        request_id: &'e str,
    },
}

impl Event<'_> {
    /// The event's name in the API.
    pub fn name(&self) -> &'static str {
        match self {
            Event::MessageStart { .. } => "message_start",
            Event::Ping => "ping",
            Event::TextStart { .. }
            | Event::ThinkingStart { .. }
            | Event::ToolUseStart { .. }
            | Event::ServerToolUseStart { .. }
            | Event::ServerToolResult { .. } => "content_block_start",
            Event::BlockDelta { .. } => "content_block_delta",
            Event::BlockStop { .. } => "content_block_stop",
            Event::Usage { .. } | Event::MessageDelta { .. } => "message_delta",
            Event::MessageStop => "message_stop",
            Event::Error { .. } => "error",
        }
    }

    /// Appends the event as a server-sent event. Allocates only when `out` needs room.
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
            Event::ToolUseStart { index, id, name } => write_call_start("tool_use", *index, id, name, out),
            Event::ServerToolUseStart { index, id, name } => {
                write_call_start("server_tool_use", *index, id, name, out);
            }
            Event::ServerToolResult { index, block } => {
                write_indexed(br#"{"type":"content_block_start","index":"#, *index, out);
                out.extend_from_slice(br#","content_block":"#);
                block.write(out);
                out.push(b'}');
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
            Event::Error { error, request_id } => error.envelope(request_id, out),
        }
    }
}

fn write_indexed(head: &[u8], index: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(head);
    write_u64(u64::from(index), out);
}

fn write_call_start(kind: &str, index: u32, id: &str, name: &str, out: &mut Vec<u8>) {
    write_indexed(br#"{"type":"content_block_start","index":"#, index, out);
    out.extend_from_slice(br#","content_block":{"type":"#);
    write_str(kind, out);
    out.extend_from_slice(br#","id":"#);
    write_str(id, out);
    out.extend_from_slice(br#","name":"#);
    write_str(name, out);
    out.extend_from_slice(br#","input":{}}}"#);
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

/// Appends a whole event with a delta. Nearly all events are of this kind, so its fixed parts are few and long.
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
    /// Appends the API's `usage` object, with every key present.
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
        match self.searches {
            0 => out.extend_from_slice(br#","server_tool_use":null"#),
            searches => {
                member(br#","server_tool_use":{"web_search_requests":"#, searches, out);
                out.push(b'}');
            }
        }
        out.extend_from_slice(br#","service_tier":"standard"}"#);
    }
}
