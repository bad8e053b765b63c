//! An upstream's bytes, whatever they are, become a valid stream of events, the same however they are cut; and a valid
//! whole Message of the same content.
//!
//! Input: four bytes (the request's plan, the form of the body, the size of the pieces, where it breaks), then the body.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sparkgap::anthropic::Event;
use sparkgap::dialect::ServerKind;
use sparkgap::error::{Error, Kind};
use sparkgap::json::Parser;
use sparkgap::settings::Settings;
use sparkgap::sse::Decoder;
use sparkgap::translate::{Lessons, MessageStream, Plan, Progress, Target};

use support::cuts::judge;
use support::replay::{Answer, Exchange, MESSAGE_ID, REQUEST_ID, request};
use support::validator::{self, Ended};

/// Members of the client's request beside two tools.
const REQUESTS: [&str; 8] = [
    r#""max_tokens":50"#,
    r#""max_tokens":50,"stop_sequences":["END","text text","\n\nHuman:"]"#,
    r#""max_tokens":50,"thinking":{"type":"adaptive"}"#,
    r#""max_tokens":50,"thinking":{"type":"adaptive","display":"omitted"},"stop_sequences":["E"]"#,
    r#""max_tokens":50,"tool_choice":{"type":"auto","disable_parallel_tool_use":true}"#,
    r#""max_tokens":50,"tool_choice":{"type":"none"}"#,
    r#""max_tokens":0"#,
    r#""max_tokens":20000,"tool_choice":{"type":"tool","name":"f"}"#,
];

/// Whole deltas, from which bodies are put together.
const DELTAS: [&str; 32] = [
    r#"{"content":"text "}"#,
    r#"{"content":"\n\n"}"#,
    r#"{"content":"EN"}"#,
    r#"{"content":"D"}"#,
    r#"{"content":"<thi"}"#,
    r#"{"content":"nk>"}"#,
    r#"{"content":"</think>"}"#,
    r#"{"content":[{"type":"text","text":"part"},{"text":""},7]}"#,
    r#"{"reasoning":"hm "}"#,
    r#"{"reasoning_content":"\n"}"#,
    r#"{"reasoning":"so","content":"both","tool_calls":[{"index":0,"function":{"name":"f","arguments":"{"}}]}"#,
    r#"{"refusal":"no"}"#,
    r#"{}"#,
    r#"null"#,
    r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}"#,
    r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"n\":"}}]}"#,
    r#"{"tool_calls":[{"index":0,"function":{"arguments":"\"5\"}"}}]}"#,
    r#"{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{\"s\": \"x"}}]}"#,
    r#"{"tool_calls":[{"index":1,"function":{"arguments":"\\ud83d"}}]}"#,
    r#"{"tool_calls":[{"index":1,"function":{"arguments":"\\ude00\"}"}}]}"#,
    r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"g","arguments":"{}"}}]}"#,
    r#"{"tool_calls":[{"id":"a","function":{"arguments":"}"}}]}"#,
    r#"{"tool_calls":[{"function":{"name":"f"}}]}"#,
    r#"{"tool_calls":[{"function":{"arguments":"[1,"}}]}"#,
    r#"{"tool_calls":[{"index":2,"function":{"arguments":"tru}"}}]}"#,
    r#"{"tool_calls":[{"index":2,"function":{"name":"f"}}]}"#,
    r#"{"tool_calls":[{"index":3,"id":"a","function":{"name":"f","arguments":"{\"n\":1}"}},{"index":4,"function":{"name":"","arguments":null}}]}"#,
    r#"{"tool_calls":[{"index":"x","id":5,"function":7},null,"y"]}"#,
    r#"{"function_call":{"name":"f","arguments":"{"}}"#,
    r#"{"tool_calls":[{"function":{"name":"g","arguments":{"s":1,"t":[true,null]}}}]}"#,
    r#"{"role":"assistant","content":null,"tool_calls":null}"#,
    r#"{"tool_calls":[{"index":1,"function":{"arguments":", \"n\": 0x1F, 'm': None"}}]}"#,
];

/// Whole events for the same purpose.
const EVENTS: [&str; 16] = [
    "data: [DONE]\n\n",
    ": comment\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"stop_reason\":\"END\"}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"END\"},\"finish_reason\":\"abort\"}]}\n\n",
    "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"other\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":50,\"total_tokens\":60,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8000,\"completion_tokens\":1000,\"completion_tokens_details\":{\"reasoning_tokens\":7}}}\n\n",
    "data: {\"choices\":[],\"prompt_progress\":{\"total\":100,\"cache\":60,\"processed\":70}}\n\n",
    "data: {\"error\":{\"message\":\"broken\",\"code\":500}}\n\n",
    "data: {\"error\":{\"message\":\"This model's maximum context length is 9000 tokens. However, your request has 9100 input tokens.\",\"code\":400}}\n\n",
    "event: error\ndata: {\"message\":\"no\"}\n\n",
    "data: {\"choices\":[{\"message\":{\"content\":\"whole\",\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n",
];

fuzz_target!(|input: &[u8]| {
    let [plan, form, size, at, body @ ..] = input else { return };
    let body = if form & 1 == 1 { put_together(body) } else { body.to_vec() };
    let plan = plans()[usize::from(*plan) % plans().len()].clone();
    let is_sse = form & 2 == 0;
    let silences = vec![usize::from(*at) % 8];
    let exchange =
        Exchange { plan, window: None, status: 200, retry_after: None, silences, is_sse, body, search: None };
    let whole = exchange.whole().answer;
    let ended = judge("whole", &whole, true);
    let size = usize::from(*size) + 1;
    assert_eq!(exchange.replay(exchange.body.chunks(size)).answer, whole, "in pieces of {size}");
    if ended == Ended::Whole {
        folded(exchange.clone(), &whole);
    }
    if is_sse {
        broken(&exchange, size, usize::from(*at));
    }
});

/// The plans of requests: each of `REQUESTS` with and without reasoning in the text, and with and without a known
/// window.
fn plans() -> &'static [Plan] {
    static PLANS: OnceLock<Vec<Plan>> = OnceLock::new();
    PLANS.get_or_init(|| {
        let kinds = [(false, None), (true, Some(9000)), (false, Some(9000)), (true, None)];
        kinds.iter().flat_map(|kind| REQUESTS.map(|extra| plan(extra, *kind))).collect()
    })
}

fn plan(extra: &str, (think_tags, window): (bool, Option<u64>)) -> Plan {
    let messages = format!(
        r#"{{"model":"m","stream":true,{extra},"messages":[{{"role":"user","content":"Hi"}}],"tools":[
        {{"name":"f","input_schema":{{"properties":{{"n":{{"type":"integer"}},"o":{{"type":["object","null"]}}}}}}}},
        {{"name":"g","input_schema":{{"properties":{{"s":{{"type":"string"}},"t":{{"type":"array"}},"b":{{"type":"boolean"}}}}}}}}]}}"#
    );
    let settings = Settings { think_tags, ..Settings::default() };
    let flavour = ServerKind::Unknown;
    let target = Target { model: "m", flavour, window, lessons: Lessons::default(), settings: &settings };
    let (_, mut plan) = request(messages.as_bytes(), &target).expect("a good request");
    plan.context_window_beta = think_tags;
    plan
}

/// Puts a body together: each byte from 0x80 on stands for a whole event, the others stand for themselves.
fn put_together(bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for byte in bytes {
        let at = usize::from(byte & 0x7f);
        match (byte & 0x80, DELTAS.get(at), EVENTS.get(at % EVENTS.len())) {
            (0x80, Some(delta), _) => body.extend_from_slice(
                format!(
                    "data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}\n\n"
                )
                .as_bytes(),
            ),
            (0x80, None, Some(event)) => body.extend_from_slice(event.as_bytes()),
            _ => body.push(*byte),
        }
    }
    body
}

/// Compares with the answer for a client that does not stream.
fn folded(mut exchange: Exchange, streamed: &Answer) {
    exchange.plan.stream = false;
    let message = exchange.whole().answer;
    let (Answer::Told(streamed), Answer::Told(message)) = (streamed, &message) else {
        panic!("streamed {streamed:?}\nnot streamed {message:?}");
    };
    let (_, blocks) = validator::stream(streamed).expect("judged before");
    let content = validator::message(message).unwrap_or_else(|what| panic!("{what}"));
    assert_eq!(blocks.len(), content.len());
    for (block, whole) in blocks.iter().zip(&content) {
        // A cut call is told as text in a Message; a stream shows it as it is.
        let is_cut = block["type"] == "tool_use" && block["input"].is_string();
        assert!(is_cut || same(block, whole), "streamed {block}\nnot streamed {whole}");
    }
}

/// True if the values are equal, apart from numbers that are written in two ways.
fn same(one: &Value, other: &Value) -> bool {
    one == other || one.to_string() == other.to_string()
}

/// The upstream breaks off after `at` pieces, or the client lost patience one piece before. The result must be a valid
/// stream that failed.
fn broken(exchange: &Exchange, size: usize, at: usize) {
    let mut out = Vec::new();
    let mut stream = MessageStream::new(exchange.plan.clone(), MESSAGE_ID.to_string());
    let (mut decoder, mut parser) = (Decoder::default(), Parser::default());
    for (number, piece) in exchange.body.chunks(size).enumerate().take(at) {
        decoder.feed(piece);
        if number + 1 == at {
            stream.open(&mut |event: &Event<'_>| event.encode(&mut out));
        }
        while let Ok(Some(event)) = decoder.next_event() {
            match stream.data(&mut parser, event.data, event.is_error, &mut |event| event.encode(&mut out)) {
                Ok(Progress::More | Progress::Done) => {}
                Ok(Progress::Cancel) | Err(_) => return failed(stream, out),
            }
        }
    }
    failed(stream, out);
}

fn failed(mut stream: MessageStream, mut out: Vec<u8>) {
    let error = Error::new(Kind::BadGateway, "broken");
    stream.fail(&error, REQUEST_ID, &mut |event| event.encode(&mut out));
    match validator::stream(&out) {
        Ok((ended, _)) => assert_eq!(ended, Ended::Failed),
        Err(what) => panic!("{what}\n{}", String::from_utf8_lossy(&out)),
    }
}
