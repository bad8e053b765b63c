//! Upstreams in any order: streams of every kind of piece, in orders that no server sends on purpose and with silences
//! between them, must still give valid events, the same however they are cut.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers fail as tests do")]

mod support;

use serde_json::{Value, json};
use sparkgap::dialect::ServerKind;
use sparkgap::settings::Settings;
use sparkgap::translate::{Lessons, Plan, TakenIds, Target};

use support::cuts::judge;
use support::replay::{Answer, Exchange, SearchScript, request};
use support::validator::{self, Ended};

const STREAMS: u64 = 20_000;

const DELTAS: [&str; 38] = [
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
    // Ids that the API does not allow, with each piece, without an index, and told late.
    r#"{"tool_calls":[{"index":0,"id":"functions.f:0","function":{"name":"f","arguments":"{\"n\""}}]}"#,
    r#"{"tool_calls":[{"index":0,"id":"functions.f:0","function":{"name":"f","arguments":": 7}"}}]}"#,
    r#"{"tool_calls":[{"id":"functions.f:0","function":{"arguments":"{\"n\": 8}"}}]}"#,
    r#"{"tool_calls":[{"index":2,"id":"functions.g:1","function":{"arguments":" "}}]}"#,
    // Heads that come again, whole calls that do, and an id that was ours.
    r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"n\":1}"}}]}"#,
    r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"n\":2}"}}]}"#,
    r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":""}}]}"#,
    r#"{"tool_calls":[{"id":"toolu_sg1_YQ","function":{"name":"g","arguments":"{\"s\": \"z\"}"}}]}"#,
];

/// The events of the round after a search.
const NEXT: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"found\"},\"finish_reason\":\"stop\"}]}\n\n";

/// A history in which some of the ids occurred, plain and encoded.
const HISTORY: &str = r#"{"role":"assistant","content":[
    {"type":"tool_use","id":"a","name":"f","input":{"n":1}},
    {"type":"tool_use","id":"toolu_sg1_ZnVuY3Rpb25zLmY6MA","name":"f","input":{"n":2}}]},
    {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"1"},
    {"type":"tool_result","tool_use_id":"toolu_sg1_ZnVuY3Rpb25zLmY6MA","content":"2"}]}"#;

const FINISHES: [&str; 7] =
    ["stop", "length", "tool_calls", "content_filter", "abort", "function_call", "unheard-of"];

/// The values of `finish_reason` that mean that there is no reason yet.
const NO_FINISHES: [&str; 3] = ["null", "\"\"", "\"null\""];

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
    let has_history = dice.below(2) == 0;
    let plan = plan(&extra, has_history, dice.below(4) == 0);
    let mut body = String::new();
    for _ in 0..dice.below(12) {
        let delta = DELTAS[dice.below(DELTAS.len())];
        let unsaid = NO_FINISHES[dice.below(NO_FINISHES.len())];
        body += &format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{unsaid}}}]}}\n\n"
        );
    }
    let (delta, finish) = (DELTAS[dice.below(DELTAS.len())], FINISHES[dice.below(FINISHES.len())]);
    let stop = ["null", "\"END\"", "7"][dice.below(3)];
    body += &format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":\"{finish}\",\"stop_reason\":{stop}}}]}}\n\n"
    );
    let silences = (0..dice.below(3)).map(|_| dice.below(12)).collect();
    let exchange = streamed(plan, silences, body);
    if dice.below(4) == 0 { with_searches(exchange) } else { exchange }
}

/// The same with the calls of one of the tools as web searches, after which the answer goes on.
fn with_searches(exchange: Exchange) -> Exchange {
    let body = String::from_utf8(exchange.body).unwrap().replace(r#""name":"g""#, r#""name":"web_search""#);
    let mut plan = exchange.plan;
    plan.search = Some(Box::default());
    plan.tools.push(("web_search".to_owned(), None));
    let search = SearchScript {
        page: br#"{"results":[{"url":"http://a/"}]}"#.to_vec(),
        next: NEXT.as_bytes().to_vec(),
    };
    Exchange { plan, body: body.into_bytes(), search: Some(search), ..exchange }
}

fn plan(extra: &str, has_history: bool, think_tags: bool) -> Plan {
    let history = if has_history { format!("{HISTORY},") } else { String::new() };
    let messages = format!(
        r#"{{"model":"m","max_tokens":50,"stream":true{extra},"messages":[{history}{{"role":"user","content":"Hi"}}],"tools":[
        {{"name":"f","input_schema":{{"properties":{{"n":{{"type":"integer"}}}}}}}},
        {{"name":"g","input_schema":{{"properties":{{"s":{{"type":"string"}}}}}}}}]}}"#
    );
    let settings = Settings { think_tags, ..Settings::default() };
    let target = Target {
        model: "m",
        flavour: ServerKind::Unknown,
        window: Some(9000),
        lessons: Lessons::default(),
        settings: &settings,
    };
    request(messages.as_bytes(), &target).unwrap().1
}

fn streamed(plan: Plan, silences: Vec<usize>, body: String) -> Exchange {
    let (window, status, retry_after) = (None, 200, None);
    Exchange {
        plan,
        window,
        status,
        retry_after,
        silences,
        is_sse: true,
        body: body.into_bytes(),
        search: None,
    }
}

/// The ids of calls differ within the answer and from all ids of [`HISTORY`], if that went before.
fn check_ids(case: &str, blocks: &[Value], has_history: bool) {
    let mut ids: Vec<&str> = blocks.iter().filter_map(|block| block["id"].as_str()).collect();
    let known = ["a", "toolu_sg1_ZnVuY3Rpb25zLmY6MA"];
    assert!(!has_history || !ids.iter().any(|id| known.contains(id)), "{case}\n{ids:?}");
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "{case}");
}

#[test]
fn any_order_gives_valid_events() {
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
        check_ids(&case, &blocks, exchange.plan.taken_ids != TakenIds::default());
        let content = validator::message(&message).unwrap_or_else(|what| panic!("{case}\n{what}"));
        assert_eq!(blocks.len(), content.len(), "{case}");
    }
}

/// How a server names a call in the pieces of it.
struct Dialect {
    has_index: bool,
    /// `None`: the server has no ids.
    id: Option<&'static str>,
    /// The first piece that tells the id.
    id_from: usize,
    id_again: bool,
    /// The id that comes again is another one each time.
    is_id_anew: bool,
    name_again: bool,
    /// A last piece without arguments repeats the head; or all of the call comes once more.
    ends_with_head: bool,
    ends_with_all: bool,
}

impl Dialect {
    fn roll(dice: &mut Dice) -> Dialect {
        let has_index = dice.below(3) > 0;
        let is_id_anew = has_index && dice.below(4) == 0;
        Dialect {
            has_index,
            id: [None, Some("call_"), Some("functions.f:"), Some("a"), Some("toolu_sg1_Y")][dice.below(5)],
            id_from: dice.below(3),
            id_again: dice.below(2) == 0,
            is_id_anew,
            name_again: dice.below(2) == 0,
            ends_with_head: dice.below(3) == 0,
            // With another id, the same arguments are another call.
            ends_with_all: !is_id_anew && dice.below(3) == 0,
        }
    }

    fn piece(&self, call: usize, piece: usize, arguments: &str) -> Value {
        let mut delta = json!({"type": "function", "function": {"arguments": arguments}});
        if self.has_index {
            delta["index"] = call.into();
        }
        if let Some(id) = self.id.filter(|_| piece == self.id_from || (piece > self.id_from && self.id_again))
        {
            let anew = if self.is_id_anew { format!("n{piece}") } else { String::new() };
            delta["id"] = format!("{id}{call}{anew}").into();
        }
        if piece == 0 || self.name_again {
            delta["function"]["name"] = "f".into();
        }
        delta
    }

    /// The pieces of one call, `piece_size` bytes of arguments in each.
    fn pieces(&mut self, call: usize, arguments: &str, piece_size: usize) -> Vec<Value> {
        let cuts: Vec<&[u8]> = arguments.as_bytes().chunks(piece_size).collect();
        self.id_from = self.id_from.min(cuts.len() - 1);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut pieces: Vec<Value> =
            cuts.iter().enumerate().map(|(at, bytes)| self.piece(call, at, &text(bytes))).collect();
        // Without an index a head that comes again is the next call's as well as this one's, unless ids come first.
        let is_clear = self.has_index || self.id_from == 0;
        for (wanted, again) in
            [(self.ends_with_head && is_clear, ""), (self.ends_with_all && self.id.is_some(), arguments)]
        {
            if wanted {
                let at = if self.is_id_anew && self.id_again { cuts.len() } else { self.id_from };
                let mut last = self.piece(call, at, again);
                last["function"]["name"] = "f".into();
                pieces.push(last);
            }
        }
        pieces
    }
}

/// Up to three calls, told in every dialect and, where there is an index, in turns: as many calls with the same
/// arguments come out.
#[test]
fn calls_stay_as_many_however_their_pieces_name_them() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for number in 0..STREAMS / 4 {
        let mut dialect = Dialect::roll(&mut dice);
        let has_history = dice.below(2) == 0;
        let inputs: Vec<Value> = (0..1 + dice.below(3)).map(|n| json!({"n": n, "s": "x} {"})).collect();
        let mut queues: Vec<Vec<Value>> = Vec::new();
        for (call, input) in inputs.iter().enumerate() {
            let size = 3 + dice.below(30);
            queues.push(dialect.pieces(call, &input.to_string(), size));
        }
        let mut body = String::new();
        let mut begun = 1;
        while queues.iter().any(|queue| !queue.is_empty()) {
            let at = if dialect.has_index { dice.below(begun) } else { 0 };
            let unfinished = (0..queues.len()).find(|at| !queues[*at].is_empty()).unwrap();
            let at = if queues[at].is_empty() { unfinished } else { at };
            let delta = json!({"tool_calls": [queues[at].remove(0)]});
            body += &format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
            begun = (begun + dice.below(2)).max(at + 1).min(at + 2).clamp(begun, queues.len());
        }
        body += "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n";
        let case = format!("stream {number}: {body}");
        let exchange = streamed(plan("", has_history, false), Vec::new(), body);
        let Answer::Told(events) = exchange.whole().answer else { panic!("{case}") };
        let (ended, blocks) = validator::stream(&events).unwrap_or_else(|what| panic!("{case}\n{what}"));
        assert_eq!(ended, Ended::Whole, "{case}");
        let mut found: Vec<Value> = blocks.iter().map(|block| block["input"].clone()).collect();
        found.sort_by_key(|input| input["n"].as_u64());
        assert_eq!(found, inputs, "{case}");
        assert!(String::from_utf8_lossy(&events).contains("\"stop_reason\":\"tool_use\""), "{case}");
        check_ids(&case, &blocks, has_history);
    }
}
