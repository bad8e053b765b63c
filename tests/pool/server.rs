//! The model server over its socket: answers in vLLM's shape, and each of its faults.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::physics::engine::Profile;
use crate::physics::server::{Answer, CachedClaim, Fault, MODEL, ModelServer, Phase, WINDOW};

/// Ends a test that hangs; no working test comes near it.
const HANG: Duration = Duration::from_secs(60);

fn start() -> ModelServer {
    ModelServer::start(Profile::spark(), 500.0)
}

/// A server whose answers begin with thinking, and take an hour at its own pace.
fn start_slow() -> ModelServer {
    let server = ModelServer::start(Profile::spark(), 1.0);
    server.set_script(|_| Answer { thinking: 50_000, text: 50_000 });
    server
}

fn chat(messages: &Value, max_tokens: u64) -> Value {
    json!({"model": MODEL, "messages": messages, "max_tokens": max_tokens, "stream": true,
        "stream_options": {"include_usage": true}})
}

fn connect(server: &ModelServer) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

fn post(stream: &mut TcpStream, body: &Value) {
    let body = body.to_string();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
}

/// Reads until the text has come, or until the connection ends. Returns what came, and how it ended.
fn read_until(stream: &mut TcpStream, text: &str) -> (String, Option<ErrorKind>) {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (String::from_utf8(all).unwrap(), Some(ErrorKind::UnexpectedEof)),
            Ok(count) => all.extend(&piece[..count]),
            Err(error) => return (String::from_utf8(all).unwrap(), Some(error.kind())),
        }
        if String::from_utf8_lossy(&all).contains(text) {
            return (String::from_utf8(all).unwrap(), None);
        }
    }
}

/// A whole streamed answer: its text and its usage.
fn ask(server: &ModelServer, body: &Value) -> (String, Value) {
    let mut stream = connect(server);
    post(&mut stream, body);
    let (all, end) = read_until(&mut stream, "0\r\n\r\n");
    assert_eq!(end, None, "{all}");
    let events = all.lines().filter_map(|line| line.strip_prefix("data: {"));
    let events: Vec<Value> =
        events.map(|event| serde_json::from_str(&format!("{{{event}")).unwrap()).collect();
    let text = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    (text, events.last().unwrap()["usage"].clone())
}

fn get(server: &ModelServer, path: &str) -> String {
    let mut stream = connect(server);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let (head, _) = read_until(&mut stream, "\r\n\r\n");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let (head, start) = head.split_once("\r\n\r\n").unwrap();
    let mut rest = vec![0; length.parse::<usize>().unwrap() - start.len()];
    stream.read_exact(&mut rest).unwrap();
    format!("{head}\r\n\r\n{start}{}", String::from_utf8(rest).unwrap())
}

fn metric(server: &ModelServer, name: &str) -> f64 {
    let page = get(server, "/metrics");
    let line = page.lines().find(|line| line.starts_with(&format!("vllm:{name}{{"))).unwrap();
    line.split_once("} ").unwrap().1.parse().unwrap()
}

fn wait_until(server: &ModelServer, is_so: impl Fn(&ModelServer) -> bool) {
    let until = Instant::now() + HANG;
    while !is_so(server) {
        assert!(Instant::now() < until, "{:?}", server.load());
        std::thread::yield_now();
    }
}

#[test]
fn the_second_turn_finds_the_first_one_in_memory() {
    let server = start();
    let question = json!({"role": "user", "content": "word ".repeat(4000)});
    let (text, usage) = ask(&server, &chat(&json!([question]), 100));
    assert_eq!(text.len(), 400);
    assert_eq!(usage["completion_tokens"], 100);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    let first = usage["prompt_tokens"].as_u64().unwrap();
    let messages =
        json!([question, {"role": "assistant", "content": text}, {"role": "user", "content": "more"}]);
    let (other, usage) = ask(&server, &chat(&messages, 100));
    assert_ne!(text, other);
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!((first + 80..first + 100).contains(&cached), "{cached} of {first}");
    assert_eq!(server.totals().cached, cached);
    assert_eq!(metric(&server, "prefix_cache_hits_total"), cached as f64);
    assert_eq!(metric(&server, "generation_tokens_total"), 200.0);
}

#[test]
fn thinking_comes_before_text_and_a_limit_cuts_the_answer() {
    let server = start();
    server.set_script(|_| Answer { thinking: 30, text: 500 });
    let mut stream = connect(&server);
    post(&mut stream, &chat(&json!([{"role": "user", "content": "hi"}]), 40));
    let (all, _) = read_until(&mut stream, "0\r\n\r\n");
    let (reasoning, content) = (all.find("\"reasoning\""), all.rfind("\"content\":\""));
    assert!(reasoning.unwrap() < content.unwrap());
    assert!(
        all.contains(r#""finish_reason":"length""#) && all.contains(r#""completion_tokens":40"#),
        "{all}"
    );
}

#[test]
fn an_answer_in_one_piece_has_the_same_numbers() {
    let server = start();
    let mut body = chat(&json!([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]), 20);
    body["stream"] = false.into();
    let mut stream = connect(&server);
    post(&mut stream, &body);
    let (all, _) = read_until(&mut stream, r#""usage""#);
    assert!(
        all.contains(r#""completion_tokens":20"#) && all.contains(r#""object":"chat.completion""#),
        "{all}"
    );
}

#[test]
fn a_prompt_beyond_the_window_is_refused_in_vllms_words() {
    let server = start();
    let mut stream = connect(&server);
    post(&mut stream, &chat(&json!([{"role": "user", "content": "x".repeat(WINDOW as usize * 4)}]), 10));
    let (all, _) = read_until(&mut stream, "}}");
    assert!(
        all.starts_with("HTTP/1.1 400 ") && all.contains("maximum context length is 200000 tokens"),
        "{all}"
    );
}

#[test]
fn models_and_unknown_paths_are_answered() {
    let server = start();
    let models = get(&server, "/v1/models");
    assert!(models.contains(r#""owned_by":"vllm""#) && models.contains(r#""max_model_len":200000"#));
    assert!(get(&server, "/health").starts_with("HTTP/1.1 200 "));
    assert!(get(&server, "/nothing").starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_server_that_loads_answers_503() {
    let server = start();
    server.set_fault(Some(Fault::Loading));
    assert!(get(&server, "/v1/models").starts_with("HTTP/1.1 503 "));
    server.set_fault(None);
    server.fail_next(Fault::Loading);
    assert!(get(&server, "/v1/models").starts_with("HTTP/1.1 200 "));
    let mut stream = connect(&server);
    let body = chat(&json!([{"role": "user", "content": "hi"}]), 5);
    post(&mut stream, &body);
    assert!(read_until(&mut stream, "}}").0.contains("Loading model"));
    assert_eq!(ask(&server, &body).0.len(), 20);
}

#[test]
fn a_reset_comes_in_its_phase() {
    let server = start();
    server.set_script(|_| Answer { thinking: 40, text: 40 });
    let body = chat(&json!([{"role": "user", "content": "hi"}]), 100);
    let phases = [Phase::Head, Phase::Prefill, Phase::Thinking, Phase::Text];
    for (at, phase) in phases.into_iter().enumerate() {
        server.fail_next(Fault::Reset(phase));
        let mut stream = connect(&server);
        post(&mut stream, &body);
        let (all, end) = read_until(&mut stream, "[DONE]");
        assert!(end.is_some(), "{phase:?}: {all}");
        let signs = ["HTTP/1.1 200", "\"reasoning\"", "\"content\":\"a", "finish_reason\":\"stop"];
        let has = |sign: &str| match sign {
            "\"content\":\"a" => {
                all.matches("\"content\":\"").count() > all.matches("\"content\":\"\"").count()
            }
            _ => all.contains(sign),
        };
        // A reset may overtake bytes that were sent before it, so only what may not have come is certain.
        assert!(signs.iter().skip(at).all(|sign| !has(sign)), "{phase:?}: {all}");
        wait_until(&server, |server| server.load() == (0, 0));
    }
    assert_eq!(ask(&server, &body).0.len(), 160);
}

#[test]
fn a_fault_for_all_reaches_a_running_answer() {
    let server = start_slow();
    let mut stream = connect(&server);
    post(&mut stream, &chat(&json!([{"role": "user", "content": "hi"}]), 100_000));
    assert_eq!(read_until(&mut stream, "reasoning").1, None);
    server.set_fault(Some(Fault::Reset(Phase::Thinking)));
    assert!(read_until(&mut stream, "[DONE]").1.is_some());
    wait_until(&server, |server| server.load() == (0, 0));
}

#[test]
fn a_hanging_server_looks_well() {
    let server = start_slow();
    let mut stream = connect(&server);
    post(&mut stream, &chat(&json!([{"role": "user", "content": "hi"}]), 100_000));
    assert_eq!(read_until(&mut stream, "reasoning").1, None);
    server.set_speed(0.0);
    let before = metric(&server, "generation_tokens_total");
    assert!(get(&server, "/v1/models").starts_with("HTTP/1.1 200 "));
    assert!(get(&server, "/health").starts_with("HTTP/1.1 200 "));
    assert_eq!(metric(&server, "num_requests_running"), 1.0);
    assert_eq!(metric(&server, "generation_tokens_total"), before);
    server.set_speed(1.0);
    wait_until(&server, |server| metric(server, "generation_tokens_total") > before);
}

#[test]
fn a_client_that_leaves_frees_the_box_even_when_it_hangs() {
    let server = start_slow();
    server.set_speed(0.0);
    let mut stream = connect(&server);
    post(&mut stream, &chat(&json!([{"role": "user", "content": "hi"}]), 1000));
    wait_until(&server, |server| server.load() == (0, 1));
    drop(stream);
    wait_until(&server, |server| server.load() == (0, 0));
}

#[test]
fn a_killed_server_refuses_until_it_starts_with_an_empty_memory() {
    let server = start();
    let body = chat(&json!([{"role": "user", "content": "word ".repeat(500)}]), 5);
    ask(&server, &body);
    server.set_speed(0.0);
    let mut stream = connect(&server);
    post(&mut stream, &body);
    wait_until(&server, |server| server.load().1 == 1);
    server.kill();
    server.kill();
    assert!(read_until(&mut stream, "[DONE]").1.is_some());
    assert_eq!(TcpStream::connect(server.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    server.restart();
    assert_eq!(server.totals().prompt, 0);
    assert_eq!(ask(&server, &body).1["prompt_tokens_details"]["cached_tokens"], 0);
}

#[test]
fn a_server_that_refuses_ends_what_it_has_begun() {
    let server = start();
    let mut stream = connect(&server);
    server.refuse();
    assert_eq!(TcpStream::connect(server.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    post(&mut stream, &chat(&json!([{"role": "user", "content": "hi"}]), 5));
    assert_eq!(read_until(&mut stream, "[DONE]").1, None);
    server.accept_again();
    server.accept_again();
    assert!(get(&server, "/v1/models").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_server_may_lie_about_cached_tokens() {
    let server = start();
    let body = chat(&json!([{"role": "user", "content": "word ".repeat(500)}]), 5);
    let told = |claim| {
        server.set_cached_claim(claim);
        let usage = ask(&server, &body).1;
        (usage["prompt_tokens_details"]["cached_tokens"].as_u64(), usage["prompt_tokens"].as_u64())
    };
    let (all, prompt) = told(CachedClaim::Everything);
    assert_eq!(all, prompt);
    assert_eq!(told(CachedClaim::Nothing).0, Some(0));
    assert_eq!(told(CachedClaim::Missing).0, None);
    assert!(told(CachedClaim::Truth).0.unwrap() > 500);
}
