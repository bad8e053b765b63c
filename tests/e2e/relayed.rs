//! OpenAI's protocol, passed on byte for byte.

use std::sync::mpsc::channel;

use serde_json::{Value, json};

use super::client::{Answer, Client};
use super::server::{Server, hooks_file};
use super::upstream::{Gate, Then, Upstream, text_chunks};

const CHAT: &str = "/v1/chat/completions";

/// The paths whose bodies are JSON.
const JSON_PATHS: [&str; 6] =
    [CHAT, "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank", "/v1/audio/speech"];

fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn send(server: &Server, path: &str, body: &str) -> Client {
    let mut client = server.connect();
    client.send(&request(path, "content-type: application/json\r\n", body.as_bytes()));
    client
}

fn ask(server: &Server, path: &str, body: &str) -> Answer {
    send(server, path, body).receive()
}

/// The message and the code of an error, which must be in OpenAI's envelope.
fn error(answer: &Answer) -> (String, Value) {
    let body = answer.json();
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    assert!(answer.header("request-id").is_some_and(|id| id.starts_with("req_")), "{answer:?}");
    let error = &body["error"];
    assert!(error["type"].is_string() && error["param"].is_null() && body.get("type").is_none(), "{body}");
    (error["message"].as_str().unwrap().to_owned(), error["code"].clone())
}

/// A server in front of these upstreams as one pool.
fn pool(name: &str, upstreams: &[&Upstream]) -> Server {
    let names: Vec<String> = (1..=upstreams.len()).map(|n| format!("spark{n}")).collect();
    let lines = names.iter().zip(upstreams).map(|(name, it)| format!("{name} = {{ url = '{}' }},", it.url()));
    let members = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let lua = format!(
        "return {{ api = 1, upstreams = {{ {} }}, aliases = {{ {{ '*', upstream = {{ {members} }} }} }} }}",
        lines.collect::<String>()
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file(&format!("relayed-{name}"), &lua)], &[]);
    names.iter().for_each(|name| _ = server.wait_for(&format!("upstream {name}: ")));
    server
}

#[test]
fn only_the_model_changes_on_the_way_there_and_nothing_on_the_way_back() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let body = "{ \"a\" : 123456789012345678901234567890,\r\n\t\"model\":@, \"a\":1.50E+2,\"messages\":[ ] ,\
                \"metadata\":{\"model\":\"x\\u002f\\/\"}, \"m\\u006fdel\" : @ }";
    let said = "{ \"id\":\"x\\u0041\", \"n\":0.10, \"model\" : \"qwen3\" ,\"n\":1}\n";
    for path in JSON_PATHS {
        upstream.next_answer(200, said);
        let answer = ask(&server, path, &body.replace('@', "\"gpt-5\""));
        assert_eq!((answer.status, answer.text()), (200, said), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let seen = upstream.seen().pop().unwrap();
        assert!(seen.head.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{}", seen.head);
        assert!(seen.head.contains("\r\ncontent-type: application/json\r\n"), "{}", seen.head);
        assert_eq!(String::from_utf8(seen.raw).unwrap(), body.replace('@', "\"qwen3\""));
        server.wait_for(" gpt-5 -> default/qwen3 whole 200 ");
    }
    upstream.next_answer(200, said);
    ask(&server, "/v1/embeddings?api-version=2", r#"{"model":"m","input":"x"}"#);
    let head = upstream.seen().pop().unwrap().head;
    assert!(head.starts_with("POST /v1/embeddings?api-version=2 HTTP/1.1\r\n"), "{head}");
}

#[test]
fn a_stream_is_passed_on_piece_by_piece() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let (go, may_go) = channel();
    let pieces = ["data: {\"id\":\"1\",\"cho", "ices\":[]}\n\n: odd\r\n\r\nevent: x\nda", "ta: [DONE]\n\n"];
    upstream.next(move |call| {
        call.stream_head();
        for piece in pieces {
            call.piece(piece);
            may_go.recv().unwrap();
        }
        call.end()
    });
    let mut client = send(&server, CHAT, r#"{"model":"m","stream":true,"messages":[]}"#);
    let head = client.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    for piece in pieces {
        assert_eq!(client.piece().unwrap(), piece.as_bytes());
        go.send(()).unwrap();
    }
    assert_eq!(client.piece(), None);
}

#[test]
fn the_log_has_the_counts_of_an_answer() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.next_chunks(text_chunks("One two three."));
    ask(&server, CHAT, r#"{"model":"m","stream":true,"messages":[]}"#);
    let line = server.wait_for(" m -> default/qwen3 stream 200 ");
    assert!(line.contains(" end_turn in 20 out 5 cached 0 first "), "{line}");
    upstream.next_answer(
        200,
        r#"{"id":"c","choices":[{"finish_reason":"length"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#,
    );
    ask(&server, CHAT, r#"{"model":"w","messages":[]}"#);
    let line = server.wait_for(" w -> default/qwen3 whole 200 ");
    assert!(line.contains(" max_tokens in 7 out 3 cached 4 "), "{line}");
}

#[test]
fn comments_keep_a_stream_alive_until_its_first_byte() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--open-after", "0", "--ping-every", "1"]);
    let gate = Gate::default();
    let waiting = gate.clone();
    upstream.next(move |call| {
        waiting.wait();
        call.stream_head();
        call.piece("data: 1\n\n");
        call.done()
    });
    let mut client = send(&server, CHAT, r#"{"model":"m","stream":true}"#);
    assert_eq!(client.head().header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(client.read_until("e\n\n: keep-alive\n\n"), ": keep-alive\n\n: keep-alive\n\n");
    gate.open();
    assert!(client.read_until("[DONE]\n\n").ends_with("data: 1\n\ndata: [DONE]\n\n"));
    assert_eq!(client.piece(), None);
}

#[test]
fn an_error_behind_a_comment_is_an_event() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--open-after", "0"]);
    for (path, begins) in [
        (CHAT, "data: {\"error\":{\"message\":\"no room"),
        (
            "/v1/responses",
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"id\":\"req_",
        ),
    ] {
        let gate = Gate::default();
        let waiting = gate.clone();
        upstream.next(move |call| {
            waiting.wait();
            call.whole(400, r#"{"error":{"message":"no room"}}"#)
        });
        let mut client = send(&server, path, r#"{"model":"m","stream":true}"#);
        assert_eq!(client.head().status, 200);
        client.read_until(": keep-alive\n\n");
        gate.open();
        let said = client.read_until("no room");
        assert!(said.contains(begins) && said.contains(r#""error":{"message":"no room"#), "{said}");
        assert_eq!(client.piece(), None);
    }
}

#[test]
fn a_client_without_a_stream_gets_no_comments() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--open-after", "0"]);
    upstream.next_answer(200, "{}");
    assert_eq!(ask(&server, CHAT, r#"{"model":"m"}"#).text(), "{}");
}

#[test]
fn a_client_that_leaves_ends_its_call() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for stream in ["true", "false"] {
        let (begun, has_begun) = channel();
        let (ended, has_ended) = channel();
        upstream.next(move |call| {
            if stream == "true" {
                call.stream_head();
                call.piece("data: 1\n\n");
            }
            begun.send(()).unwrap();
            call.wait_for_close();
            ended.send(()).unwrap();
            Then::Close
        });
        let mut client = send(&server, CHAT, &format!(r#"{{"model":"leaves-{stream}","stream":{stream}}}"#));
        has_begun.recv_timeout(super::HANG).unwrap();
        if stream == "true" {
            client.head();
            client.read_until("data: 1\n\n");
        }
        drop(client);
        has_ended.recv_timeout(super::HANG).unwrap();
        let line = server.wait_for(&format!(" leaves-{stream} -> "));
        assert!(line.contains(" 499 ") && line.contains("the client has left"), "{line}");
    }
}

#[test]
fn refusals_keep_the_upstream_s_words_but_not_its_key() {
    let upstream = Upstream::start();
    let server = Server::run(
        &["serve", "--upstream", &upstream.url()],
        &[("SPARKGAP_UPSTREAM_KEY", "sk-upstream-0123456789")],
    );
    server.wait_for("upstream default: ");
    let words =
        "{\"error\": {\"message\":\"max_tokens is too large\",\"type\":\"BadRequestError\", \"code\":400}}";
    for status in [400, 404, 422, 429, 500, 503] {
        upstream.next_answer(status, words);
        let answer = ask(&server, CHAT, r#"{"model":"m"}"#);
        assert_eq!((answer.status, answer.text()), (status, words));
    }
    upstream.next_answer(400, r#"{"error":{"message":"odd key sk-upstream-0123456789"}}"#);
    let answer = ask(&server, CHAT, r#"{"model":"m"}"#);
    assert!(answer.status == 400 && !answer.text().contains("sk-upstream"), "{}", answer.text());
    // The key that the upstream refuses is sparkgap's own: the client must not think that it is its key.
    upstream.next_answer(401, r#"{"error":{"message":"bad key","code":"invalid_api_key"}}"#);
    let answer = ask(&server, CHAT, r#"{"model":"m"}"#);
    assert!(answer.status != 401 && !answer.text().contains("invalid_api_key"), "{}", answer.text());
    error(&answer);
    assert!(!server.log().contains("sk-upstream"), "{}", server.log());
}

#[test]
fn an_upstream_without_the_path_is_named() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for (status, body) in [
        (404, r#"{"detail":"Not Found"}"#),
        (405, r#"{"detail":"Method Not Allowed"}"#),
        (404, ""),
        (200, r#"{"error":"Unexpected endpoint or method. (POST /v1/rerank)"}"#),
    ] {
        upstream.next_answer(status, body);
        let answer = ask(&server, "/v1/rerank", r#"{"model":"m","query":"q","documents":[]}"#);
        let expected = "upstream default does not serve /v1/rerank";
        assert_eq!((answer.status, error(&answer).0.as_str()), (404, expected));
    }
}

#[test]
fn our_own_errors_are_in_openai_s_envelope() {
    let upstream = Upstream::start();
    let keys = hooks_file("relayed-keys", "sk-0123456789abcdef anna\n");
    let server = Server::start_with(&upstream, &["--api-key-file", &keys, "--body-size-max", "1000"]);
    let json = "content-type: application/json\r\n";
    let key = format!("{json}authorization: Bearer sk-0123456789abcdef\r\n");
    for path in JSON_PATHS {
        let post = |headers: &str, body: &[u8]| server.connect().ask(&request(path, headers, body));
        let answer = post(json, b"{}");
        assert_eq!(
            (answer.status, error(&answer)),
            (401, ("invalid x-api-key".to_owned(), json!("invalid_api_key")))
        );
        for (body, status, message) in [
            ("", 400, "The request body is not valid JSON"),
            ("{", 400, "The request body is not valid JSON"),
            ("[]", 400, "model: Field required"),
            ("{}", 400, "model: Field required"),
            (r#"{"model":7}"#, 400, "model: Field required"),
            (r#"{"model":""}"#, 400, "model: Field required"),
            (&format!(r#"{{"model":"{}"}}"#, "x".repeat(257)), 400, "model: String should have at most 256"),
            (&format!(r#"{{"model":"{}"}}"#, "x".repeat(2000)), 413, "request body over 1000 bytes"),
        ] {
            let answer = post(&key, body.as_bytes());
            let (said, _) = error(&answer);
            assert!(answer.status == status && said.starts_with(message), "{path} {body}: {}", answer.text());
        }
        let answer = post(&key.replace("application/json", "text/plain"), b"{}");
        assert_eq!(answer.status, 415, "{}", error(&answer).0);
        let answer = server.connect().ask(format!("GET {path} HTTP/1.1\r\n{key}\r\n").as_bytes());
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{}", error(&answer).0);
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn an_unknown_model_and_a_dead_upstream_are_said() {
    let (dead, _held) = super::upstream::closed();
    let lua = format!(
        "return {{ api = 1, upstreams = {{ box = {{ url = 'http://{dead}/v1', model = 'm' }} }}, aliases = {{ {{ 'a', upstream = 'box' }} }} }}"
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file("relayed-dead", &lua)], &[]);
    let answer = ask(&server, CHAT, r#"{"model":"b"}"#);
    assert_eq!((answer.status, error(&answer)), (404, ("model: b".to_owned(), json!("model_not_found"))));
    let answer = ask(&server, CHAT, r#"{"model":"a"}"#);
    assert_eq!(answer.status, 502, "{}", error(&answer).0);
}

#[test]
fn another_member_of_the_pool_takes_over() {
    let upstreams = [Upstream::start(), Upstream::start()];
    let server = pool("failover", &[&upstreams[0], &upstreams[1]]);
    for upstream in &upstreams {
        upstream.next_answer(503, r#"{"error":{"message":"Loading model"}}"#);
        upstream.next_answer(200, r#"{"ok":1}"#);
    }
    // One of them refuses, and the other one refuses as well: the first one is asked once more only later.
    let first = ask(&server, CHAT, r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#);
    assert_eq!(first.status, 503);
    assert_eq!(upstreams.each_ref().map(|it| it.seen().len()), [1, 1]);
    let upstreams = [Upstream::start(), Upstream::start()];
    let server = pool("failover-2", &[&upstreams[0], &upstreams[1]]);
    upstreams.iter().for_each(|it| {
        it.next(|call| {
            call.close();
            Then::Close
        })
    });
    upstreams[1].next_answer(200, r#"{"ok":1}"#);
    let answer =
        ask(&server, CHAT, r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"a"}]}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_conversation_stays_at_its_upstream() {
    let upstreams = [Upstream::start(), Upstream::start(), Upstream::start()];
    let server = pool("sticky", &upstreams.each_ref());
    let long = "You are helpful. ".repeat(400);
    let turn = |n: usize, say: &str| {
        let mut messages =
            vec![json!({"role": "system", "content": long}), json!({"role": "user", "content": say})];
        (0..n).for_each(|n| {
            messages.push(json!({"role": "assistant", "content": format!("{n}")}));
            messages.push(json!({"role": "user", "content": "on"}));
        });
        json!({"model": "m", "messages": messages}).to_string()
    };
    for say in ["one", "two", "three", "four", "five", "six"] {
        let home = |n: usize| {
            let before = upstreams.each_ref().map(|it| it.seen().len());
            ask(&server, CHAT, &turn(n, say));
            let after = upstreams.each_ref().map(|it| it.seen().len());
            (0..3).find(|i| before[*i] != after[*i]).unwrap()
        };
        let first = home(0);
        assert!((1..4).all(|n| home(n) == first), "{say}");
    }
}

#[test]
fn a_response_goes_on_where_it_was_made() {
    let upstreams = [Upstream::start(), Upstream::start(), Upstream::start()];
    let server = pool("home", &upstreams.each_ref());
    let count = || upstreams.each_ref().map(|it| it.seen().len());
    for n in 0..12 {
        let id = format!("resp_{n}");
        let said =
            format!(r#"{{"id":"{id}","object":"response","usage":{{"input_tokens":1,"output_tokens":1}}}}"#);
        let before = count();
        // Whichever is asked first makes it.
        upstreams.iter().for_each(|it| {
            let said = said.clone();
            it.next(move |call| call.whole(200, &said));
        });
        ask(&server, "/v1/responses", &format!(r#"{{"model":"m","input":"{n}"}}"#));
        let home = (0..3).find(|i| before[*i] != count()[*i]).unwrap();
        // The others still have their script.
        let others = (0..3).filter(|i| *i != home);
        let next = format!(r#"{{"model":"m","input":"other {n}","previous_response_id":"{id}"}}"#);
        let before = count();
        ask(&server, "/v1/responses", &next);
        assert_eq!((0..3).find(|i| before[*i] != count()[*i]), Some(home), "{n}");
        // Drain the scripts of the others, by name of the model through their own addresses.
        for other in others {
            let direct = Server::start(&upstreams[other]);
            ask(&direct, "/v1/responses", r#"{"model":"m","input":"x"}"#);
        }
    }
}

#[test]
fn a_form_has_its_model_replaced() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let form = |model: &str| {
        format!(
            "--x1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\n\0\u{1}RIFF\r\n\r\n--x\r\n--x1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--x1--\r\n"
        )
    };
    let kind = "content-type: multipart/form-data; boundary=x1\r\n";
    let path = "/v1/audio/transcriptions";
    upstream.next_answer(200, r#"{"text":"Hi"}"#);
    let answer = server.connect().ask(&request(path, kind, form("whisper-1").as_bytes()));
    assert_eq!((answer.status, answer.text()), (200, r#"{"text":"Hi"}"#));
    let seen = upstream.seen().pop().unwrap();
    assert!(seen.head.starts_with(&format!("POST {path} ")) && seen.head.contains(kind), "{}", seen.head);
    assert_eq!(String::from_utf8(seen.raw).unwrap(), form("qwen3"));
    let second = "--x1\r\nContent-Disposition: form-data; NAME=\"model\"\r\n\r\nother\r\n--x1--\r\n";
    let odd = second.replace("\"model\"", "\"m\\odel\"");
    for (kind, body, said) in [
        (kind, "--x1--\r\n", "model: Field required"),
        (kind, "", "model: Field required"),
        (kind, &form("m").replace("--x1--\r\n", second), "model: the form has this field more than once"),
        (
            kind,
            &form("m").replace("--x1--\r\n", &odd),
            "the form has a field whose name can be read in two ways",
        ),
        ("content-type: multipart/form-data\r\n", &form("m"), "content-type: name the boundary"),
    ] {
        let answer = server.connect().ask(&request(path, kind, body.as_bytes()));
        assert!(answer.status == 400 && error(&answer).0.starts_with(said), "{}", answer.text());
    }
    assert_eq!(upstream.seen().len(), 1, "an odd form reached the upstream");
    // Only audio comes as a form, and no page of the web may send one.
    let answer = server.connect().ask(&request(CHAT, kind, form("m").as_bytes()));
    assert_eq!(answer.status, 415, "{}", error(&answer).0);
    let page = format!("{kind}origin: https://evil.example\r\n");
    let answer = server.connect().ask(&request(path, &page, form("m").as_bytes()));
    assert_eq!(answer.status, 403, "{}", error(&answer).0);
}

#[test]
fn an_answer_without_one_byte_is_a_failure() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let server = pool("empty", &[&first, &second]);
    for upstream in [&first, &second] {
        upstream.next_answer(200, "");
    }
    // Both members fail in turn.
    let answer = ask(&server, CHAT, r#"{"model":"m","messages":[]}"#);
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(error(&answer).0.ends_with("closed the connection without an answer"), "{}", answer.text());
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1));
    // The log has the status that the client got.
    server.wait_for(" whole 502 ");
    let server = Server::start(&first);
    first.next_answer(200, "");
    assert_eq!(ask(&server, CHAT, r#"{"model":"m","messages":[]}"#).status, 502);
}

#[test]
fn a_payment_that_an_upstream_wants_is_not_the_client_s() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.next_answer(402, r#"{"error":{"message":"Insufficient credits"}}"#);
    let answer = ask(&server, CHAT, r#"{"model":"m","messages":[]}"#);
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(!answer.text().contains("Insufficient"), "{}", answer.text());
    server.wait_for("Insufficient credits");
}

#[test]
fn hooks_that_change_nothing_change_no_byte() {
    let upstream = Upstream::start();
    let lua = format!(
        "return {{ api = 1, upstreams = {{ box = {{ url = '{}' }} }},
        on_request = function(req)
            local body = req.body
            if body.say == 'no' then return {{ reject = 403, message = 'not this' }} end
            if body.say == 'edit' then body.temperature = 0 end
            if body.say == 'respond' then return {{ respond = 'Hi' }} end
        end,
        on_upstream_request = function(body, req) if body.say == 'late' then body.top_p = 1 end end,
        on_log = function(rec, req) log.info('logged ' .. rec.model .. ' ' .. req.path .. ' ' .. rec.output_tokens) end }}",
        upstream.url()
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file("relayed-hooks", &lua)], &[]);
    server.wait_for("upstream box: ");
    let body = |say: &str| format!("{{ \"say\":\"{say}\" , \"model\":\"m\",\"n\":1.0 }}");
    let raw = || String::from_utf8(upstream.seen().pop().unwrap().raw).unwrap();
    let usage = r#"{"usage":{"prompt_tokens":1,"completion_tokens":42}}"#;
    for (say, expected) in [
        ("yes", "{ \"say\":\"yes\" , \"model\":\"qwen3\",\"n\":1.0 }"),
        ("edit", r#"{"say":"edit","model":"qwen3","n":1.0,"temperature":0}"#),
        ("late", r#"{"say":"late","model":"qwen3","n":1.0,"top_p":1}"#),
    ] {
        upstream.next_answer(200, usage);
        assert_eq!(ask(&server, CHAT, &body(say)).status, 200);
        assert_eq!(raw(), expected);
        server.wait_for("logged m /v1/chat/completions 42");
    }
    let answer = ask(&server, CHAT, &body("no"));
    assert_eq!((answer.status, error(&answer).0.as_str()), (403, "not this"));
    let answer = ask(&server, CHAT, &body("respond"));
    assert!(answer.status == 500 && error(&answer).0.contains("only /v1/messages has"), "{}", answer.text());
}

#[test]
fn a_stream_that_breaks_never_looks_complete() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    // Between two events the client is told so; in the middle of one, its connection ends.
    for (piece, is_told) in [("data: {\"a\":1}\n\n", true), ("data: {\"a\":", false)] {
        upstream.next(move |call| {
            call.stream_head();
            call.piece(piece);
            call.close();
            Then::Close
        });
        let mut client = server.connect();
        let headers = "connection: close\r\ncontent-type: application/json\r\n";
        client.send(&request(CHAT, headers, br#"{"model":"m","stream":true}"#));
        assert_eq!(client.head().status, 200);
        let rest = String::from_utf8(client.rest()).unwrap();
        assert!(rest.contains(piece), "{rest}");
        assert_eq!(rest.contains("data: {\"error\":{\"message\":\""), is_told, "{rest}");
        assert_eq!(rest.ends_with("0\r\n\r\n"), is_told, "{rest}");
    }
}

#[test]
fn a_client_s_own_key_is_not_in_the_log() {
    const KEY: &str = "sk-client-0123456789";
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.next_answer(400, &json!({"error": {"message": format!("{KEY} is no model")}}).to_string());
    let headers = format!(
        "content-type: application/json\r\nauthorization: Bearer {KEY}\r\nx-claude-code-session-id: {KEY}\r\n"
    );
    let body = json!({"model": KEY, "messages": []}).to_string();
    let answer = server.connect().ask(&request(CHAT, &headers, body.as_bytes()));
    assert_eq!(answer.status, 400);
    server.wait_for(" 400 ");
    let log = server.terminate_and_log();
    assert!(!log.contains(KEY), "{log}");
}
