//! The memory that requests may take: each at most 12 times its body and 1 MB, and a budget for all together.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::HANG;
use super::client::{hello, hello_stream, post};
use super::server::Server;
use super::upstream::{Gate, Then, Upstream, delta, text_chunks};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;

/// The size of the hostile bodies.
const SIZE: usize = 3 * MIB;

const HEAD: &str = r#"{"model":"m","max_tokens":9"#;
const USER: &str = r#","messages":[{"role":"user","content":"x"}]"#;

/// A body of items that repeat, between two ends that close what they open.
struct Shape {
    name: &'static str,
    before: String,
    item: &'static str,
    after: &'static str,
    /// Whether a client may send it in earnest: then it is served. Any other may be refused as the client's fault.
    is_honest: bool,
}

impl Shape {
    fn body(&self) -> Vec<u8> {
        let count = (SIZE - self.before.len() - self.after.len()) / self.item.len();
        let items = self.item.repeat(count);
        // The last comma is one too many, except within a string.
        let items = if self.item.ends_with(',') { items.trim_end_matches(',') } else { &items };
        format!("{}{items}{}", self.before, self.after).into_bytes()
    }
}

fn content(name: &'static str, item: &'static str, is_honest: bool) -> Shape {
    let before = format!(r#"{HEAD},"messages":[{{"role":"user","content":[{{"type":"text","text":"x"}},"#);
    Shape { name, before, item, after: "]}]}", is_honest }
}

fn tools(name: &'static str, item: &'static str, is_honest: bool) -> Shape {
    Shape { name, before: format!(r#"{HEAD}{USER},"tools":["#), item, after: "]}", is_honest }
}

fn schema(
    name: &'static str,
    before: &str,
    item: &'static str,
    after: &'static str,
    is_honest: bool,
) -> Shape {
    let before = format!(r#"{HEAD}{USER},"tools":[{{"name":"a","input_schema":{{{before}"#);
    Shape { name, before, item, after, is_honest }
}

fn top(name: &'static str, before: &str, item: &'static str, after: &'static str, is_honest: bool) -> Shape {
    Shape { name, before: format!("{HEAD}{before}"), item, after, is_honest }
}

const TURN: &str = concat!(
    r#"{"role":"assistant","content":[{"type":"text","text":"I read the file now."},{"type":"tool_use","id":"#,
    r#""toolu_01ABCDEFGHIJKLMNOPQRST","name":"Read","input":{"file_path":"/home/me/project/src/main.rs","limit":40}}]},"#,
    r#"{"role":"user","content":[{"tool_use_id":"toolu_01ABCDEFGHIJKLMNOPQRST","type":"tool_result","content":"#,
    r#""fn main() { println!(1); } and some more lines of it, as a file has a few hundred bytes at least"}]},"#
);

const DESCRIBED: &str = r#""path":{"type":"string","description":"The absolute path of the file"},"#;

fn shapes() -> Vec<Shape> {
    let chat = r#","messages":[{"role":"user","content":"x"},"#;
    let dialogue = r#"{"role":"assistant","content":"x"},{"role":"user","content":"x"},"#;
    let text = r#","messages":[{"role":"user","content":""#;
    let long_id = format!(
        r#","messages":[{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"{}","content":["#,
        "x".repeat(SIZE / 2)
    );
    let image = r#"{"type":"image","source":{"type":"url","url":"http://x"}},"#;
    vec![
        top("one text", text, "word ", r#""}]}"#, true),
        top("a text of quotes", text, r#"\""#, r#""}]}"#, true),
        top("turns of a session", chat, TURN, "]}", true),
        schema("described properties", r#""properties":{"#, DESCRIBED, "}}}]}", true),
        schema("properties", r#""properties":{"#, r#""path":{"type":"string"},"#, "}}}]}", false),
        top("numbers", &format!(r#"{USER},"a":["#), "0,", "]}", false),
        top("lists", &format!(r#"{USER},"a":["#), "[],", "]}", false),
        top("objects", &format!(r#"{USER},"a":["#), r#"{"":0},"#, "]}", false),
        top("members", &format!(r#"{USER},"#), r#""a":"b","#, "}", false),
        top("template arguments", &format!(r#"{USER},"chat_template_kwargs":{{"#), r#""a":1,"#, "}}", false),
        top("messages", chat, dialogue, "]}", false),
        content("texts", r#"{"type":"text","text":"a"},"#, false),
        content("documents", r#"{"type":"document"},"#, false),
        content("unknown blocks", r#"{"type":"x"},"#, false),
        content("server calls", r#"{"type":"server_tool_use"},"#, false),
        content("results", r#"{"type":"tool_result","tool_use_id":""},"#, false),
        content("images", r#"{"type":"image","source":{"type":"url","url":""}},"#, false),
        top("images under a long id", &long_id, image, "]}]}]}", false),
        tools("tools of the API", r#"{"type":"computer_","name":"a"},"#, false),
        tools("small tools", r#"{"name":"a","input_schema":{}},"#, false),
        tools("tools", r#"{"name":"a","input_schema":{"properties":{"b":{"type":"null"}}}},"#, false),
        schema("small properties", r#""properties":{"#, r#""b":{"type":"null"},"#, "}}}]}", false),
        schema("members of a schema", "", r#""b":1,"#, "}}]}", false),
    ]
}

#[test]
fn one_request_takes_at_most_twelve_times_its_body() {
    let upstream = Upstream::start();
    for shape in shapes() {
        let server = Server::start(&upstream);
        server.connect().post(&hello()).message();
        let before = server.memory();
        let body = shape.body();
        let status = server.connect().ask(&post(&body)).status;
        assert!(status == 200 || (status == 400 && !shape.is_honest), "{}: {status}", shape.name);
        let took = server.peak().saturating_sub(before);
        // A process that has just begun also takes some MiB once: a second arena, and the thread that asks for models.
        let allowed = 12 * body.len() as u64 + 4 * MIB as u64;
        println!("{:24} {status} {:.1} times its body", shape.name, took as f64 / body.len() as f64);
        assert!(took <= allowed, "{}: {} MiB for a body of {} MiB", shape.name, took >> 20, body.len() >> 20);
        server.connect().post(&hello()).message();
    }
}

#[test]
fn conversations_of_many_short_turns_are_taken() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let user = |content: Value| json!({"role": "user", "content": content});
    let model = |content: Value| json!({"role": "assistant", "content": content});
    let one_letter = vec![user(json!("x")); 2000];
    let blocks = (0..1000).flat_map(|_| {
        let text = json!([{"type": "text", "text": "k"}]);
        [user(text.clone()), model(text)]
    });
    let calls = (0..1000).flat_map(|i| {
        let id = format!("toolu_{i:024}");
        let call = json!([{"type": "tool_use", "id": id, "name": "f", "input": {}}]);
        [model(call), user(json!([{"type": "tool_result", "tool_use_id": id, "content": "ok"}]))]
    });
    let images = (0..600)
        .map(|i| json!({"type": "image", "source": {"type": "url", "url": format!("https://a.b/{i}.png")}}));
    let first = || std::iter::once(user(json!("x")));
    for (name, messages) in [
        ("letters", one_letter),
        ("blocks", blocks.chain(first()).collect()),
        ("calls", first().chain(calls).collect()),
        ("images", vec![user(images.collect())]),
    ] {
        let mut body = hello();
        body["messages"] = messages.into();
        let answer = server.connect().post(&body);
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
}

#[test]
fn promises_of_large_bodies_keep_nobody_out() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--memory-max", "64M"]);
    let promises: Vec<TcpStream> = (0..32)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.write_all(b"POST /v1/messages HTTP/1.1\r\ncontent-length: 33554432\r\n\r\n{").unwrap();
            stream
        })
        .collect();
    let large = hello().to_string().replace("Hi", &"word ".repeat(300_000));
    assert_eq!(server.connect().ask(&post(large.as_bytes())).status, 200);
    drop(promises);
}

#[test]
fn chunked_bodies_that_were_read_count_as_what_they_are() {
    const WAITING: usize = 8;
    let upstream = Upstream::start();
    let gate = Gate::default();
    for _ in 0..WAITING {
        let gate = gate.clone();
        upstream.next(move |call| {
            gate.wait();
            call.stream_head();
            text_chunks("Hello.").iter().for_each(|chunk| call.chunk(chunk));
            call.done()
        });
    }
    let server = Server::start_with(&upstream, &["--memory-max", "64M"]);
    let body = hello().to_string().replace("Hi", &"word ".repeat(20_000));
    let head = "POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    // 100 KB each. If each counted as the largest body that may come (32 MiB), not even one would fit.
    let clients = server.send_at_once(WAITING, chunked.as_bytes());
    server.wait_until(|_| upstream.seen().len() == WAITING);
    let large = hello().to_string().replace("Hi", &"word ".repeat(1_200_000));
    assert_eq!(server.connect().ask(&post(large.as_bytes())).status, 200);
    gate.open();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
}

#[test]
fn a_body_that_trickles_is_given_up() {
    let told = trickle(&["--body-timeout", "1"]);
    assert!(told.starts_with("HTTP/1.1 408"), "{told}");
    assert!(told.contains("less than 1024 bytes of its body in 1 s"), "{told}");
}

#[test]
fn a_body_has_a_time_in_all() {
    let told = trickle(&["--body-total-timeout", "1"]);
    assert!(told.starts_with("HTTP/1.1 408"), "{told}");
    assert!(told.contains("the request did not arrive in time: its body took more than 1 s"), "{told}");
}

/// Sends a body in small pieces until the server answers, and returns the answer.
fn trickle(arguments: &[&str]) -> String {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, arguments);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"POST /v1/messages HTTP/1.1\r\ncontent-length: 33554432\r\n\r\n{").unwrap();
    // The answer is waited for a little between two bytes: none of the waits is as long as the time limit.
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let tries = HANG.as_millis() / 50;
    for _ in 0..tries {
        let _ = stream.write_all(b" ");
        let mut first = [0; 1];
        match stream.read_exact(&mut first) {
            Ok(()) => {
                stream.set_read_timeout(Some(HANG)).unwrap();
                let mut rest = String::from(char::from(first[0]));
                let _ = stream.read_to_string(&mut rest);
                return rest;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no answer");
}

#[test]
fn beyond_the_budget_requests_wait_and_small_ones_pass() {
    let upstream = Upstream::start();
    let (asked, was_asked) = channel();
    let mut gates = Vec::new();
    for _ in 0..12 {
        let (open, opened) = channel::<()>();
        gates.push(open);
        let asked = asked.clone();
        upstream.next(move |call| {
            asked.send(()).unwrap();
            let _ = opened.recv_timeout(HANG);
            call.stream_head();
            call.chunk(&delta(json!({"content": "Hello."})));
            call.done()
        });
    }
    let server = Server::start_with(&upstream, &["--memory-max", "64M"]);
    let before = server.memory();
    let large = hello().to_string().replace("Hi", &"word ".repeat(1_200_000));
    let request = post(large.as_bytes());
    let clients = server.send_at_once(11, &request);
    // Those that fit: 6 MB each, within half of 64 MB.
    (0..4).for_each(|_| was_asked.recv_timeout(HANG).unwrap());
    let counted = server.connect().ask(&post_count());
    assert_eq!(counted.status, 200, "a small request does not wait");
    drop(gates);
    let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 529 | 502)), "{statuses:?}");
    assert!(server.peak() < before + 128 * MIB as u64, "{} MiB", server.peak() >> 20);
}

fn post_count() -> Vec<u8> {
    let body = hello().to_string();
    let length = body.len();
    format!("POST /v1/messages/count_tokens HTTP/1.1\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

#[test]
fn what_a_stream_would_have_to_keep_is_bounded() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let with = |key: &str, value: serde_json::Value| {
        let mut body = hello();
        body[key] = value;
        let answer = server.connect().post(&body);
        (answer.status, if answer.status == 200 { String::new() } else { answer.error().1 })
    };
    let refused = |text: &str| (400, text.to_owned());
    assert_eq!(with("model", json!("x".repeat(256))).0, 200);
    assert_eq!(
        with("model", json!("x".repeat(257))),
        refused("model: String should have at most 256 characters")
    );
    assert_eq!(with("stop_sequences", json!(["x".repeat(60_000)])).0, 200);
    assert_eq!(with("stop_sequences", json!(["x".repeat(70_000)])).0, 400);
    let computers = |count: usize| {
        (0..count).map(|i| json!({"type": "computer_", "name": i.to_string()})).collect::<Vec<_>>()
    };
    assert_eq!(with("tools", json!(computers(16))).0, 200);
    let what = "tools: at most 16 tools of the API's own types are allowed; declare each of them once";
    assert_eq!(with("tools", json!(computers(17))), refused(what));
}

#[test]
fn of_large_tools_a_stream_keeps_a_part_and_the_log_says_so_once() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let property =
        |i: usize| (format!("property_{i}"), json!({"type": "integer", "description": "A number."}));
    let properties: serde_json::Map<String, serde_json::Value> = (0..20_000).map(property).collect();
    let mut body = hello();
    body["tools"] = json!([{"name": "large", "input_schema": {"type": "object", "properties": properties}}]);
    (0..2).for_each(|_| _ = server.connect().post(&body).message());
    let log = server.terminate_and_log();
    assert_eq!(log.matches("arguments of some are not coerced to their schemas").count(), 1, "{log}");
}

#[test]
fn words_of_clients_are_cut_in_the_log() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut body = hello();
    body["messages"][0]["content"] = json!([{"type": "x".repeat(100_000)}, {"type": "text", "text": "Hi"}]);
    server.connect().post(&body).message();
    body["tool_choice"] = json!({"type": "tool", "name": "x".repeat(100_000)});
    assert_eq!(server.connect().post(&body).status, 400);
    let log = server.terminate_and_log();
    assert!(log.contains("content block of type xxx"), "{log}");
    assert!(log.lines().all(|line| line.len() < 5000));
}

/// `call.whole` announces the length, and says that it is JSON.
#[test]
fn a_whole_answer_of_the_upstream_is_bounded() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    server.connect().post(&hello()).message();
    let before = server.memory();
    let answer = |filler: &str, text: &str| {
        let message = json!({"role": "assistant", "content": text});
        let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
        format!(r#"{{"choices":[{choice}],"a":[{filler}0]}}"#)
    };
    upstream.next_answer(200, &answer(&"0,".repeat(4 * MIB), "Hello."));
    let told = server.connect().post(&hello());
    assert_eq!(
        (told.status, told.error().1.as_str()),
        (502, "the upstream's answer has too many JSON values")
    );
    upstream.next_answer(200, &answer("", &"x".repeat(20 * MIB)));
    let told = server.connect().post(&hello());
    assert_eq!((told.status, told.error().1.as_str()), (502, "the upstream's answer is too long"));
    upstream.next_answer(200, &answer("", &"x".repeat(6 * MIB)));
    assert_eq!(server.connect().post(&hello()).message()[0]["text"].as_str().map(str::len), Some(6 * MIB));
    assert!(server.peak() < before + 100 * MIB as u64, "{} MiB", server.peak() >> 20);
}

#[test]
fn what_a_stream_holds_back_is_bounded() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    server.connect().post(&hello()).message();
    let before = server.memory();
    let call = |index: usize, name: &str, arguments: &str| {
        let function = json!({"name": name, "arguments": arguments});
        delta(
            json!({"tool_calls": [{"index": index, "id": format!("c{index}"), "type": "function", "function": function}]}),
        )
    };
    let long = "x".repeat(256 * 1024);
    let open = call(0, "f", r#"{"k":""#);
    for (first, rest) in [
        (delta(json!({"reasoning": "x"})), delta(json!({"reasoning": long}))), // to be omitted
        (open.clone(), delta(json!({"content": long}))),                       // its turn does not come
        (open, call(1, "g", &long)),
    ] {
        upstream.next(move |call| {
            call.stream_head();
            let rest = format!("data: {rest}\n\n");
            call.chunk(&first);
            while call.try_piece(&rest).is_ok() {}
            Then::Close
        });
        let mut body = hello_stream();
        body["thinking"] = json!({"type": "adaptive", "display": "omitted"});
        let mut client = server.connect();
        client.send(&post(body.to_string().as_bytes()));
        assert_eq!(client.head().status, 200);
        let told = client.read_until("the upstream's answer is too long");
        assert!(!told.contains("message_stop"), "{told}");
    }
    assert!(server.peak() < before + 150 * MIB as u64, "{} MiB", server.peak() >> 20);
}
