//! A running stream makes no allocation per event: bytes -> `Decoder` -> `MessageStream` -> bytes in a reused buffer.
//!
//! The only exception is memory that grows with the answer (the arguments of a call are kept for the end): it doubles
//! its buffer now and then. A crate brings the counting allocator, since this project has no unsafe code of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers fail as tests do")]

use sparkgap::dialect::ServerKind;
use sparkgap::json;
use sparkgap::settings::Settings;
use sparkgap::sse::Decoder;
use sparkgap::translate::{Lessons, MessageStream, Plan, Progress, Target, chat_request};

const WARM_UP: usize = 200;
const EVENTS: usize = 20_000;

fn plan(extra: &str) -> Plan {
    let body = format!(
        r#"{{"model":"m","max_tokens":9,"stream":true{extra},"messages":[{{"role":"user","content":"Hi"}}],
        "tools":[{{"name":"f","input_schema":{{"properties":{{"n":{{"type":"integer"}}}}}}}}]}}"#
    );
    let mut bytes = body.into_bytes();
    let value = json::parse(&mut bytes).unwrap();
    let request = sparkgap::anthropic::MessagesRequest::read(&value).unwrap();
    let settings = Settings::default();
    let target = Target {
        model: "m",
        flavour: ServerKind::Vllm,
        window: None,
        lessons: Lessons::default(),
        settings: &settings,
    };
    chat_request(&request, &target).unwrap().plan
}

/// The number of allocations that `EVENTS` events make after the first ones.
fn allocations(plan: Plan, first: &str, delta: &str) -> usize {
    let chunk = |delta: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-95ba27188dad2c36\",\"object\":\"chat.completion.chunk\",\"created\":1795369566,\
             \"model\":\"qwen3\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":null}}],\
             \"usage\":{{\"prompt_tokens\":14,\"total_tokens\":15,\"completion_tokens\":1}}}}\n\n"
        )
    };
    let mut stream = MessageStream::new(plan, "msg_0123456789abcdefghijklmn".to_string());
    let (mut decoder, mut parser) = (Decoder::default(), json::Parser::default());
    let mut out: Vec<u8> = Vec::with_capacity(1 << 16);
    let mut feed = |bytes: &[u8]| {
        out.clear();
        decoder.feed(bytes);
        while let Some(event) = decoder.next_event().unwrap() {
            let progress =
                stream.data(&mut parser, event.data, event.is_error, &mut |event| event.encode(&mut out));
            assert_eq!(progress, Ok(Progress::More));
        }
        out.len()
    };
    feed(chunk(first).as_bytes());
    let chunk = chunk(delta);
    (0..WARM_UP).for_each(|_| _ = feed(chunk.as_bytes()));
    let counted = allocation_counter::measure(|| {
        for _ in 0..EVENTS {
            assert!(feed(chunk.as_bytes()) > 100);
        }
    });
    usize::try_from(counted.count_total).unwrap()
}

#[test]
fn the_allocation_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(10))));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn text() {
    assert_eq!(
        allocations(plan(""), r#"{"role":"assistant","content":""}"#, r#"{"content":" hé\n\"llo"}"#),
        0
    );
}

#[test]
fn text_with_stop_sequences() {
    let plan = plan(r#","stop_sequences":["END","</block>","STOP","x1","x2"]"#);
    // A piece that is held back each time, and that the next piece shows not to be a stop sequence.
    assert_eq!(allocations(plan, r#"{"content":"x"}"#, r#"{"content":" hello E"}"#), 0);
}

#[test]
fn reasoning() {
    assert_eq!(allocations(plan(""), r#"{"role":"assistant"}"#, r#"{"reasoning":" let me"}"#), 0);
}

#[test]
fn tool_arguments() {
    let first = r#"{"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"f","arguments":"{\"s\": \""}}]}"#;
    let delta = r#"{"tool_calls":[{"index":0,"function":{"arguments":" line\\n"}}]}"#;
    let growths = usize::try_from((EVENTS / WARM_UP).ilog2()).unwrap() + 1;
    let found = allocations(plan(""), first, delta);
    assert!(found <= growths, "{found}");
}

#[test]
fn numbers_in_tool_arguments() {
    let first = r#"{"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"f","arguments":"{\"l\": [0"}}]}"#;
    let delta = r#"{"tool_calls":[{"index":0,"function":{"arguments":", 12, true"}}]}"#;
    let growths = usize::try_from((EVENTS / WARM_UP).ilog2()).unwrap() + 1;
    let found = allocations(plan(""), first, delta);
    assert!(found <= growths, "{found}");
}
