//! Conversations that move between a box, a Claude model and another Claude model at random turns: the API, which checks each
//! signature, refuses none of their requests.

use serde_json::{Value, json};

use super::client::{Answer, Client, post_with};
use super::messages_api::MessagesApi;
use super::server::{Server, hooks_file};
use super::upstream::{Upstream, delta, finish, usage};

const CONVERSATIONS: u64 = 1000;

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.throw(from.len() as u64)).unwrap()]
    }
}

fn start(name: &str, api: &MessagesApi, boxed: &Upstream) -> Server {
    let lua = format!(
        r#"return {{ api = 1,
            upstreams = {{
              cloud = {{ url = "{}", protocol = "messages", api_key = "sk-ant-of-the-operator" }},
              box = {{ url = "{}" }},
            }},
            aliases = {{ {{ "claude-*", upstream = "cloud" }}, {{ "*", upstream = "box" }} }} }}"#,
        api.url(),
        boxed.url()
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file(&format!("moving-{name}"), &lua)], &[]);
    server.wait_for("upstream box: ");
    server
}

/// The next answer of the box: perhaps reasoning, perhaps a text, perhaps a call.
fn script(boxed: &Upstream, dice: &mut Dice) {
    let mut chunks = vec![delta(json!({"role": "assistant", "content": ""}))];
    if dice.throw(3) > 0 {
        chunks.push(delta(json!({"reasoning": "a box thought"})));
    }
    let calls = dice.throw(2) == 0;
    if !calls || dice.throw(2) == 0 {
        chunks.push(delta(json!({"content": "\n\nbox text"})));
    }
    if calls {
        let call = json!({"index": 0, "id": format!("call_{}", dice.throw(1 << 30)), "type": "function",
            "function": {"name": "Read", "arguments": "{\"path\": \"/b\"}"}});
        chunks.push(delta(json!({"tool_calls": [call]})));
    }
    chunks.push(finish(if calls { "tool_calls" } else { "stop" }));
    chunks.push(usage(20, 5));
    boxed.next_chunks(chunks);
}

/// The content of an answer, streamed or not.
fn content_of(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    if answer.header("content-type") == Some("application/json") {
        return answer.json()["content"].as_array().unwrap().clone();
    }
    let mut content: Vec<Value> = Vec::new();
    let mut input = String::new();
    for data in answer.text().lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(data).unwrap();
        match event["type"].as_str().unwrap() {
            "content_block_start" => content.push(event["content_block"].clone()),
            "content_block_delta" => {
                let (delta, block) = (&event["delta"], content.last_mut().unwrap());
                let key = match delta["type"].as_str().unwrap() {
                    "text_delta" => "text",
                    "thinking_delta" => "thinking",
                    "signature_delta" => "signature",
                    _ => {
                        input.push_str(delta["partial_json"].as_str().unwrap());
                        continue;
                    }
                };
                let joined = format!("{}{}", block[key].as_str().unwrap(), delta[key].as_str().unwrap());
                block[key] = joined.into();
            }
            "content_block_stop" if !input.is_empty() => {
                content.last_mut().unwrap()["input"] = serde_json::from_str(&input).unwrap();
                input.clear();
            }
            _ => {}
        }
    }
    content
}

/// The message of a user that follows this content.
fn next_message(content: &[Value], dice: &mut Dice) -> Value {
    let calls = content.iter().filter(|block| block["type"] == "tool_use");
    let result = |call: &Value| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "found"});
    let mut blocks: Vec<Value> = calls.map(result).collect();
    if blocks.is_empty() {
        return json!({"role": "user", "content": "And then?"});
    }
    if dice.throw(4) == 0 {
        blocks.push(json!({"type": "text", "text": "Look at it."}));
    }
    json!({"role": "user", "content": blocks})
}

/// One turn: asks a model for the next message, and adds it and the next question to the conversation.
fn turn(
    client: &mut Client,
    boxed: &Upstream,
    conversation: &mut Vec<Value>,
    dice: &mut Dice,
) -> &'static str {
    let model = dice.pick(&["local", "claude-opus-5", "claude-sonnet-5"]);
    if model == "local" {
        script(boxed, dice);
    }
    let mut body =
        json!({"model": model, "max_tokens": 4000, "stream": dice.throw(3) > 0, "messages": conversation});
    let thinking = [
        Value::Null,
        json!({"type": "disabled"}),
        json!({"type": "enabled", "budget_tokens": 1024}),
        json!({"type": "enabled", "budget_tokens": 1024, "display": "omitted"}),
        json!({"type": "adaptive", "display": "omitted"}),
        json!({"type": "adaptive"}),
    ];
    let kind = dice.throw(thinking.len() as u64);
    if kind > 0 {
        body["thinking"] = thinking[usize::try_from(kind).unwrap()].clone();
    }
    if kind > 1 && dice.throw(2) == 0 {
        body["context_management"] = json!({"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]});
    }
    body["tools"] = json!([{"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}]);
    let answer = client.ask(&post_with("", body.to_string().as_bytes()));
    let content = content_of(&answer);
    let next = next_message(&content, dice);
    // Claude Code sends what it got, also a block that has nothing but thinking.
    conversation.push(json!({"role": "assistant", "content": content}));
    conversation.push(next);
    model
}

#[test]
fn a_thousand_conversations_move_without_a_refusal() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("thousand", &api, &boxed);
    let mut client = server.connect();
    let mut dice = Dice(20);
    let mut moves = 0;
    for number in 0..CONVERSATIONS {
        let mut conversation = vec![json!({"role": "user", "content": format!("Question {number}")})];
        let mut before = "";
        for _ in 0..3 + dice.throw(4) {
            let model = turn(&mut client, &boxed, &mut conversation, &mut dice);
            moves += usize::from(model != before && !before.is_empty());
            before = model;
        }
    }
    assert_eq!(api.refused(), Vec::<String>::new());
    assert!(moves > 2000, "{moves}");
    let kept = api.got().iter().filter(|got| String::from_utf8_lossy(&got.body).contains("EqQB")).count();
    assert!(kept > 500, "thinking of the same model stays: {kept} of {}", api.got().len());
    let boxed = format!("{:?}", boxed.seen());
    assert!(boxed.contains("a box thought") && !boxed.contains("cloud thought") && !boxed.contains("EqQB"));
}

#[test]
fn after_a_restart_a_refusal_is_mended_once_and_remembered() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let mut dice = Dice(7);
    let mut conversations: Vec<Vec<Value>> = (0..40)
        .map(|number| vec![json!({"role": "user", "content": format!("Question {number}")})])
        .collect();
    for round in 0..3 {
        let server = start("restart", &api, &boxed);
        let mut client = server.connect();
        let before = api.refused().len();
        for _ in 0..3 {
            for conversation in &mut conversations {
                turn(&mut client, &boxed, conversation, &mut dice);
            }
        }
        let refused = api.refused().split_off(before);
        let kinds = ["Invalid `signature`", "Invalid `data`"];
        assert!(refused.iter().all(|why| kinds.iter().any(|kind| why.contains(kind))), "{refused:?}");
        // Fewer than one for each conversation, though two models may refuse: neither gets again what it has refused.
        assert!(refused.len() <= conversations.len() && (round == 0) == refused.is_empty(), "{refused:?}");
    }
}

#[test]
fn thinking_of_the_same_model_stays() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("same", &api, &boxed);
    let mut client = server.connect();
    let mut conversation = vec![json!({"role": "user", "content": "Hi"})];
    for _ in 0..3 {
        for is_streamed in [true, false] {
            let body = json!({"model": "claude-opus-5", "max_tokens": 4000, "stream": is_streamed,
                "thinking": {"type": "enabled", "budget_tokens": 1024}, "messages": conversation});
            let text = body.to_string();
            let content = content_of(&client.ask(&post_with("", text.as_bytes())));
            let got = String::from_utf8(api.got().pop().unwrap().body).unwrap();
            assert_eq!(got, text);
            conversation.push(json!({"role": "assistant", "content": content}));
            conversation.push(json!({"role": "user", "content": "And then?"}));
        }
    }
    let blocks = conversation.iter().map(Value::to_string).filter(|message| message.contains("EqQB")).count();
    assert_eq!((blocks, api.refused()), (6, Vec::new()));
    // Another model gets none of it, and the first one still gets all.
    for (model, expected) in [("claude-sonnet-5", 0), ("claude-opus-5", blocks)] {
        let body = json!({"model": model, "max_tokens": 4000, "messages": conversation});
        content_of(&client.ask(&post_with("", body.to_string().as_bytes())));
        let got: Value = serde_json::from_slice(&api.got().pop().unwrap().body).unwrap();
        let messages = got["messages"].as_array().unwrap();
        assert_eq!(messages.iter().filter(|message| message.to_string().contains("EqQB")).count(), expected);
    }
}
