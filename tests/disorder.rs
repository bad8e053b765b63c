//! Upstreams in any order: streams made up of every kind of piece, as no server sends them on purpose, with silences
//! between them, must still give legal events, the same however they are cut.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers fail as tests do")]

mod support;

use sparkgap::openai::{Flavour, Settings};
use sparkgap::translate::{Lessons, Target};

use support::cuts::judge;
use support::replay::{Answer, Exchange, request};
use support::validator::{self, Ended};

const STREAMS: u64 = 20_000;

const DELTAS: [&str; 30] = [
    r#"{"content":"text "}"#,
    r#"{"content":"\n\n"}"#,
    r#"{"content":""}"#,
    r#"{"content":"EN"}"#,
    r#"{"content":"D"}"#,
    r#"{"content":"<think>"}"#,
    r#"{"content":"</think>"}"#,
    r#"{"content":[{"type":"text","text":"part"}]}"#,
    r#"{"reasoning":"hm "}"#,
    r#"{"reasoning_content":"\n"}"#,
    r#"{"reasoning":"so","content":"both"}"#,
    r#"{"refusal":"no"}"#,
    r#"{}"#,
    r#"null"#,
    r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}"#,
    r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"n\":"}}]}"#,
    r#"{"tool_calls":[{"index":0,"function":{"arguments":"\"5\"}"}}]}"#,
    r#"{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{\"s\": \"x"}}]}"#,
    r#"{"tool_calls":[{"index":1,"function":{"arguments":"y\"}"}}]}"#,
    r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"g","arguments":"{}"}}]}"#,
    r#"{"tool_calls":[{"id":"a","function":{"arguments":"}"}}]}"#,
    r#"{"tool_calls":[{"function":{"name":"f"}}]}"#,
    r#"{"tool_calls":[{"function":{"arguments":"[1,"}}]}"#,
    r#"{"tool_calls":[{"index":2,"function":{"arguments":"tru}"}}]}"#,
    r#"{"tool_calls":[{"index":2,"function":{"name":"f"}}]}"#,
    r#"{"tool_calls":[{"index":3,"id":"a","function":{"name":"f","arguments":"{\"n\":1}"}},{"index":4,"function":{"name":"","arguments":null}}]}"#,
    r#"{"tool_calls":[{"index":"x","id":5,"function":7},null,"y"]}"#,
    r#"{"function_call":{"name":"f","arguments":"{"}}"#,
    r#"{"tool_calls":[{"function":{"name":"g","arguments":{"s":1}}}]}"#,
    r#"{"role":"assistant","content":null,"tool_calls":null}"#,
];

const FINISHES: [&str; 7] =
    ["stop", "length", "tool_calls", "content_filter", "abort", "function_call", "unheard-of"];

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % u64::try_from(n).unwrap()).unwrap()
    }
}

fn exchange(dice: &mut Dice) -> Exchange {
    let mut extra = String::new();
    for option in [
        r#","stop_sequences":["END","text text"]"#,
        r#","thinking":{"type":"adaptive","display":"omitted"}"#,
        r#","tool_choice":{"type":"auto","disable_parallel_tool_use":true}"#,
    ] {
        if dice.below(3) == 0 {
            extra += option;
        }
    }
    let messages = format!(
        r#"{{"model":"m","max_tokens":50,"stream":true{extra},"messages":[{{"role":"user","content":"Hi"}}],"tools":[
        {{"name":"f","input_schema":{{"properties":{{"n":{{"type":"integer"}}}}}}}},
        {{"name":"g","input_schema":{{"properties":{{"s":{{"type":"string"}}}}}}}}]}}"#
    );
    let settings = Settings { think_tags: dice.below(4) == 0, ..Settings::default() };
    let target = Target {
        model: "m",
        flavour: Flavour::Unknown,
        window: Some(9000),
        lessons: Lessons::default(),
        settings: &settings,
    };
    let (_, plan) = request(messages.as_bytes(), &target).unwrap();
    let mut body = String::new();
    for _ in 0..dice.below(12) {
        let delta = DELTAS[dice.below(DELTAS.len())];
        body +=
            &format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}\n\n");
    }
    let (delta, finish) = (DELTAS[dice.below(DELTAS.len())], FINISHES[dice.below(FINISHES.len())]);
    let stop = ["null", "\"END\"", "7"][dice.below(3)];
    body += &format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":\"{finish}\",\"stop_reason\":{stop}}}]}}\n\n"
    );
    let silences = (0..dice.below(3)).map(|_| dice.below(12)).collect();
    let (window, status, retry_after) = (None, 200, None);
    Exchange { plan, window, status, retry_after, silences, is_sse: true, body: body.into_bytes() }
}

#[test]
fn any_order_gives_legal_events() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for number in 0..STREAMS {
        let exchange = exchange(&mut dice);
        let case = format!("stream {number}: {}", String::from_utf8_lossy(&exchange.body));
        let answer = exchange.whole().answer;
        assert_eq!(judge(&case, &answer, true), Ended::Whole, "{case}");
        let size = 1 + dice.below(40);
        assert_eq!(exchange.replay(exchange.body.chunks(size)).answer, answer, "{case}");

        let mut folded = exchange.clone();
        folded.plan.stream = false;
        let (Answer::Told(events), Answer::Told(message)) = (answer, folded.whole().answer) else {
            panic!("{case}")
        };
        let (_, blocks) = validator::stream(&events).unwrap();
        let content = validator::message(&message).unwrap_or_else(|what| panic!("{case}\n{what}"));
        assert_eq!(blocks.len(), content.len(), "{case}");
    }
}
