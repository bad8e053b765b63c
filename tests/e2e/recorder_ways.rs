//! The recorder for requests whose answers are not translated: OpenAI's paths, an upstream of the Messages API, and counts of
//! tokens.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::client::{Answer, hello, hello_stream, post_to, post_with};
use super::messages_api::{MessagesApi, stream, streamed};
use super::recorder::{CANARY, folder, run, start};
use super::server::{Server, hooks_file};
use super::upstream::{Gate, Then, Upstream, text_chunks};

const CHAT: &str = "/v1/chat/completions";
const COUNT: &str = "/v1/messages/count_tokens";

/// All recorded requests, the oldest first.
fn recorded(folder: &Path) -> Vec<Value> {
    super::recorder::rows(folder).into_iter().filter(|row| row["recorded"] == true).collect()
}

fn id(row: &Value) -> &str {
    row["request_id"].as_str().unwrap()
}

/// Asks on a connection of its own, and returns when the server is done with the request: then its row has its place.
fn ask_alone(server: &Server, request: &[u8]) -> Answer {
    let line = request.windows(2).position(|end| end == b"\r\n").unwrap() + 2;
    let mut client = server.connect();
    let answer = client.ask(&[&request[..line], b"connection: close\r\n", &request[line..]].concat());
    client.rest();
    answer
}

/// Asserts that a command on a recording says this, and returns its output.
fn says(folder: &Path, arguments: &[&str], code: i32, words: &str) -> String {
    let (found, stdout, stderr) = run(folder, arguments);
    let text = format!("{stdout}{stderr}");
    assert!(found == Some(code) && text.contains(words), "{arguments:?}: {found:?}\n{text}");
    text
}

/// Starts a server with a box and an upstream of the Messages API for `claude-opus-*`.
fn start_cloud(name: &str, api: &str, boxed: &Upstream, folder: &Path, more: &[&str]) -> Server {
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{
            cloud = {{ url = "{api}", protocol = "messages", auth = "client" }}, box = {{ url = "{}" }} }},
            aliases = {{ {{ "claude-opus-*", upstream = "cloud" }}, {{ "*", upstream = "box" }} }} }}"#,
        boxed.url()
    );
    let hooks = hooks_file(&format!("recorder-{name}"), &lua);
    let state = folder.to_str().unwrap();
    let server = Server::run(
        &[&["serve", "--hooks", &hooks, "--state", state, "--record", "all"], more].concat(),
        &[],
    );
    server.wait_for("upstream box: ");
    server
}

fn opus(mut body: Value) -> Value {
    body["model"] = "claude-opus-5".into();
    body
}

#[test]
fn requests_of_openai_s_protocol_are_recorded() {
    let (upstream, folder) = (Upstream::start(), folder("openai"));
    let server = start(&upstream, &folder, &["--record", "all", "--open-after", "0", "--ping-every", "1"]);
    let chat = json!({"model": "gpt-5", "stream": true, "messages": [{"role": "user", "content": "Hi"}]});
    upstream.next_chunks(text_chunks("One two."));
    ask_alone(&server, &post_to(CHAT, &chat));
    upstream.next_answer(200, r#"{"data":[{"index":0,"embedding":[0.5,1]}],"usage":{"prompt_tokens":2}}"#);
    ask_alone(&server, &post_to("/v1/embeddings?api-version=7&key=x", &json!({"model": "e", "input": "x"})));
    upstream.next_answer(400, r#"{"error":{"message":"too cold"}}"#);
    ask_alone(&server, &post_to("/v1/completions", &json!({"model": "c", "prompt": "x"})));
    upstream.next_answer(404, r#"{"detail":"Not Found"}"#);
    ask_alone(&server, &post_to("/v1/responses", &json!({"model": "r", "input": "x"})));
    // Comments in silence, then an upstream that breaks off.
    let gate = Gate::default();
    let waits = gate.clone();
    upstream.next(move |call| {
        waits.wait();
        call.stream_head();
        call.chunk(&text_chunks("Half")[0]);
        call.close();
        Then::Close
    });
    let mut client = server.connect();
    client.send(&post_to(CHAT, &chat));
    client.read_until_head_and(": keep-alive\n\n: keep-alive\n\n");
    gate.open();
    while client.piece().is_some() {}
    assert!(server.terminate());
    let rows = recorded(&folder);
    assert_eq!(rows.len(), 5, "{rows:?}");
    for row in &rows {
        says(&folder, &["replay", id(row), "--offline"], 0, "the same ");
        says(&folder, &["show", id(row), "--har"], 0, "\"text\"");
        says(&folder, &["show", id(row), "--curl"], 0, "curl -sSN ");
        says(
            &folder,
            &["replay", id(row), "--offline", "--save", "x"],
            1,
            "nothing of this request was translated",
        );
    }
    let shown = says(&folder, &["show", id(&rows[0])], 0, "== the client's answer");
    for words in
        [format!("to {}/chat/completions", upstream.url()), "\"model\": \"qwen3\"".into(), "[DONE]".into()]
    {
        assert!(shown.contains(&words), "{words}: {shown}");
    }
    says(&folder, &["show", id(&rows[1])], 0, "/embeddings?api-version=7&key=***");
    assert_eq!(says(&folder, &["requests", "--failed"], 0, "too cold").lines().count(), 3);
    says(&folder, &["replay", id(&rows[0]), "--offline"], 0, "they passed as the upstream sent them");
    // Asked again, and somewhere else.
    upstream.next_chunks(text_chunks("One two."));
    says(&folder, &["replay", id(&rows[0])], 0, "the answers are the same");
    upstream.next_chunks(text_chunks("Three."));
    says(&folder, &["replay", id(&rows[0]), "--to", &upstream.url()], 1, "Three.");
    let api = MessagesApi::start();
    api.next_answer(404, "", r#"{"type":"error","error":{"type":"not_found_error","message":"Not found"}}"#);
    says(&folder, &["replay", id(&rows[0]), "--to", &api.url()], 1, "name such a server with --to");
}

#[test]
fn a_form_is_named_by_the_sizes_of_its_files() {
    let (upstream, folder) = (Upstream::start(), folder("form"));
    let server = start(&upstream, &folder, &["--record", "all"]);
    let audio = [b"RIFF\xff\xfe\0\r\n".as_slice(), &[0x80; 5000]].concat();
    let part = |head: &str, value: &[u8]| {
        [format!("--b\r\ncontent-disposition: form-data; {head}\r\n\r\n").as_bytes(), value, b"\r\n"].concat()
    };
    let form = [
        part("name=\"model\"", b"whisper-1"),
        part("name=\"prompt\"", b"sk-live-0123456789abcdefghij"),
        part("name=\"file\"; filename=\"a.wav\"\r\ncontent-type: audio/wav", &audio),
        b"--b--\r\n".to_vec(),
    ]
    .concat();
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\n\r\n",
        form.len()
    );
    upstream.next_answer(200, r#"{"text":"Hello"}"#);
    let answer = ask_alone(&server, &[head.as_bytes(), &form].concat());
    assert_eq!(answer.status, 200, "{}", answer.text());
    // An answer that is not text.
    upstream.next(|call| {
        call.write("HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 4\r\n\r\nID3\0");
        Then::Keep
    });
    ask_alone(&server, &post_to("/v1/audio/speech", &json!({"model": "tts", "input": "Hi"})));
    assert_eq!(upstream.seen()[0].raw.len(), form.len() - "whisper-1".len() + "qwen3".len());
    assert!(server.terminate());
    let rows = recorded(&folder);
    let shown = says(&folder, &["show", id(&rows[0])], 0, "cut:5009:bytes");
    assert!(shown.contains("filename=\"a.wav\"") && !shown.contains("sk-live-0123"), "{shown}");
    says(&folder, &["show", id(&rows[0]), "--har"], 0, "cut:5009:bytes");
    says(&folder, &["show", id(&rows[0]), "--curl"], 1, "is a form or not text");
    says(&folder, &["replay", id(&rows[0])], 1, "--record-images keeps them");
    says(&folder, &["replay", id(&rows[0]), "--offline"], 0, "the same 16 bytes");
    says(&folder, &["show", id(&rows[1])], 0, "(4 bytes of audio/mpeg, not text)");
    says(&folder, &["show", id(&rows[1]), "--har"], 0, "\"mimeType\":\"audio/mpeg\"");
    upstream.next(|call| {
        call.write("HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 4\r\n\r\nID3\0");
        Then::Keep
    });
    says(&folder, &["replay", id(&rows[1])], 0, "the answers are the same");
}

#[test]
fn answers_that_pass_and_counts_are_recorded() {
    let (api, boxed, folder) = (MessagesApi::start(), Upstream::start(), folder("passed"));
    let server = start_cloud("passed", &api.url(), &boxed, &folder, &[]);
    let key =
        "x-api-key: sk-ant-canary-0123456789\r\nanthropic-beta: a-2025\r\nx-claude-code-session-id: s\r\n";
    let ask = |path: &str, body: Value| -> Answer {
        let request = String::from_utf8(post_with(key, body.to_string().as_bytes())).unwrap();
        ask_alone(&server, request.replacen("/v1/messages", path, 1).as_bytes())
    };
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "stop_sequence": null, "usage": {"input_tokens": 1, "output_tokens": 2}});
    api.next_bytes(stream(&message));
    ask("/v1/messages?beta=true", opus(hello_stream()));
    api.next_answer(200, "", &message.to_string());
    ask("/v1/messages", opus(hello()));
    api.next_answer(
        429,
        "retry-after: 3\r\n",
        r#"{"type":"error", "error":{"type":"rate_limit_error","message":"slow"}}"#,
    );
    ask("/v1/messages", opus(hello()));
    api.next(|client, _| {
        use std::io::Write as _;
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\nevent\r\n");
        false
    });
    let mut client = server.connect();
    client.send(&post_with(key, opus(hello_stream()).to_string().as_bytes()));
    client.rest();
    api.next_answer(200, "", r#"{"input_tokens": 12}"#);
    ask(COUNT, opus(hello()));
    api.next_answer(400, "", r#"{"type":"error","error":{"type":"invalid_request_error","message":"odd"}}"#);
    ask(COUNT, opus(hello()));
    // A box counts in its own way, and the second time the number is known.
    for _ in 0..2 {
        assert_eq!(ask(COUNT, hello()).json()["input_tokens"], 321);
    }
    assert_eq!(ask(COUNT, json!({"model": "claude-x"})).status, 400);
    api.next_answer(200, "", &message.to_string());
    ask("/v1/messages", opus(hello()));
    assert!(server.terminate());
    let rows = recorded(&folder);
    assert_eq!(rows.len(), 10, "{rows:?}");
    for row in &rows {
        says(&folder, &["replay", id(row), "--offline"], 0, "the same ");
        says(&folder, &["show", id(row), "--har"], 0, "\"creator\"");
        says(
            &folder,
            &["replay", id(row), "--offline", "--save", "x"],
            1,
            "nothing of this request was translated",
        );
    }
    let failed = says(&folder, &["requests", "--failed"], 0, "slow");
    assert!(failed.contains("count_tokens: odd") && failed.lines().count() == 4, "{failed}");
    assert_eq!(rows[4]["stop_reason"], "count_tokens");
    let curl = says(&folder, &["show", id(&rows[0]), "--curl"], 0, "/messages?beta=true");
    assert!(curl.contains("'anthropic-beta: a-2025'") && curl.contains("x-api-key: $SPARKGAP"), "{curl}");
    says(&folder, &["show", id(&rows[1]), "--diff"], 0, "\"stream\"");
    // The turn before is the message, not the counts between them.
    says(&folder, &["show", id(&rows[9]), "--diff"], 0, "-   \"stream\": true");
    says(&folder, &["show", id(&rows[7]), "--diff"], 1, "no upstream was asked");
    api.next_answer(200, "", &message.to_string());
    says(&folder, &["replay", id(&rows[1])], 0, "the answers are the same");
    assert_eq!(api.got().last().unwrap().header("anthropic-beta"), Some("a-2025"));
    says(&folder, &["replay", id(&rows[6])], 0, "the answers are the same");
    boxed.set_tokens(99);
    says(&folder, &["replay", id(&rows[6])], 1, "99 tokens");
    boxed.next_answer(404, r#"{"detail":"Not Found"}"#);
    says(&folder, &["replay", id(&rows[1]), "--to", &boxed.url()], 1, "a server of the Messages API");
    let (_, usage, _) = run(&folder, &["usage", "--json", "--by", "model"]);
    assert!(!usage.contains("\"requests\":8"), "counts are not usage: {usage}");
}

/// Both tries stand in the recording, with the body of the second one.
#[test]
fn a_failover_is_recorded_with_both_tries() {
    let (first, second, folder) = (Upstream::start(), Upstream::start(), folder("failover-ways"));
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ a = {{ url = "{}" }}, b = {{ url = "{}" }} }},
            aliases = {{ {{ "*", upstream = "a", backup = {{ "b" }} }} }} }}"#,
        first.url(),
        second.url()
    );
    let hooks = hooks_file("recorder-failover", &lua);
    let state = folder.to_str().unwrap();
    let server = Server::run(&["serve", "--hooks", &hooks, "--state", state, "--record", "errors"], &[]);
    let _ = ["upstream a: ", "upstream b: "].map(|line| server.wait_for(line));
    let chat = json!({"model": "gpt-5", "messages": []});
    first.next_answer(503, r#"{"error":{"message":"busy"}}"#);
    second.next_answer(400, r#"{"error":{"message":"no"}}"#);
    assert_eq!(ask_alone(&server, &post_to(CHAT, &chat)).status, 400);
    first.next_answer(503, r#"{"error":{"message":"busy"}}"#);
    second.next_answer(200, "{}");
    assert_eq!(ask_alone(&server, &post_to(CHAT, &chat)).status, 200);
    assert!(server.terminate());
    let rows = recorded(&folder);
    assert_eq!(rows.len(), 1, "the answer that came is not a failure: {rows:?}");
    let shown = says(&folder, &["show", id(&rows[0])], 0, "bytes in 2 parts");
    assert!(
        shown.contains("busy") && shown.contains(&format!("to {}/chat/completions", second.url())),
        "{shown}"
    );
    says(&folder, &["replay", id(&rows[0]), "--offline"], 0, "the same 26 bytes");
    says(&folder, &["show", id(&rows[0]), "--curl"], 0, &second.url());
}

#[test]
fn a_hook_alone_decides_for_every_kind() {
    let (upstream, folder) = (Upstream::start(), folder("hook-ways"));
    let hooks = hooks_file(
        "recorder-ways",
        "return { on_request = function(req) return { record = req.body.user == 'keep' or req.body.model == 'keep' } end }",
    );
    let server = start(&upstream, &folder, &["--hooks", &hooks]);
    for user in ["keep", "no"] {
        let mut body = hello();
        body["user"] = user.into();
        ask_alone(&server, &post_to(COUNT, &body));
        ask_alone(&server, &post_to(CHAT, &json!({"model": "m", "user": user})));
        let form =
            format!("--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{user}\r\n--b--\r\n");
        let head = "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=b\r\n";
        upstream.next_answer(200, "{}");
        ask_alone(&server, format!("{head}content-length: {}\r\n\r\n{form}", form.len()).as_bytes());
    }
    assert!(server.terminate());
    let rows = recorded(&folder);
    assert_eq!(rows.len(), 3, "{rows:?}");
    for row in &rows {
        says(&folder, &["show", id(row)], 0, "== the client's body");
        says(&folder, &["replay", id(row), "--offline"], 0, "the same ");
    }
}

/// A client that leaves, a body that is larger than a recording, and an answer that does not end.
#[test]
fn large_and_broken_exchanges_stay_within_the_limits() {
    let (upstream, folder) = (Upstream::start(), folder("large-ways"));
    let server = start(&upstream, &folder, &["--record", "all"]);
    let gate = Gate::default();
    let waits = gate.clone();
    upstream.next(move |call| {
        call.stream_head();
        call.chunk(&text_chunks("Half of it")[0]);
        call.chunk(&text_chunks("Half of it")[1]);
        waits.wait();
        Then::Close
    });
    let chat = json!({"model": "m", "stream": true, "messages": []});
    let mut client = server.connect();
    client.send(&post_to(CHAT, &chat));
    client.read_until_head_and("Half");
    drop(client);
    server.wait_until(|health| health["cancelled"]["stream"] == 1);
    gate.open();
    let big = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(30 << 20)}]});
    upstream.next_answer(200, "{}");
    ask_alone(&server, &post_to(CHAT, &big));
    upstream.next(|call| {
        call.stream_head();
        let piece = format!("data: {{\"x\":\"{}\"}}\n\n", "y".repeat(1 << 20));
        (0..40).for_each(|_| call.piece(&piece));
        call.done()
    });
    let answer = ask_alone(&server, &post_to(CHAT, &chat));
    assert!(answer.body.len() > 40 << 20);
    assert!(server.terminate());
    let rows = recorded(&folder);
    assert_eq!(rows.len(), 3);
    let (left, cut): (Vec<&Value>, Vec<&Value>) = rows.iter().partition(|row| row["status"] == 499);
    says(&folder, &["replay", id(left[0]), "--offline"], 0, "the same ");
    assert_eq!(cut.len(), 2);
    for row in cut {
        says(&folder, &["show", id(row), "--har"], 0, "a limit has cut this recording");
    }
    let size: u64 =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 80 << 20, "{size}");
}

/// The key stands in every header, in the query, in the body, and in what upstreams repeat.
#[test]
fn a_key_stands_nowhere_in_any_kind() {
    let (api, boxed, folder) = (MessagesApi::start(), Upstream::start(), folder("canary-ways"));
    let keys = folder.with_extension("keys");
    fs::write(&keys, format!("{CANARY} anna\n")).unwrap();
    let own = "sk-ant-own-canary-0123456789";
    let server = start_cloud(
        "canary",
        &api.url(),
        &boxed,
        &folder,
        &["--api-key-file", keys.to_str().unwrap(), "--metrics-by-client", "--log-format", "json"],
    );
    let headers = format!(
        "x-sparkgap-key: {CANARY}\r\nx-api-key: {own}\r\nuser-agent: t {CANARY}\r\ncookie: a={CANARY}\r\nx-mine: {CANARY}\r\nanthropic-beta: {CANARY}\r\nx-app: {CANARY}\r\nx-claude-code-session-id: {CANARY}\r\nx-claude-code-agent-id: {CANARY}\r\naccept: {CANARY}\r\n"
    );
    let text = format!("say {CANARY} and {own}, not sk-live-0123456789abcdefghij");
    let mut body = hello_stream();
    body["system"] = text.as_str().into();
    body["messages"][0]["content"] = text.as_str().into();
    body["metadata"] = json!({"user_id": text, "api_key": "hunter2-4711"});
    body["user"] = CANARY.into();
    body["tools"] = json!([{"name": "T", "description": text, "input_schema": {"type": "object"}}]);
    let send = |path: &str, body: &Value| {
        let request = String::from_utf8(post_with(&headers, body.to_string().as_bytes())).unwrap();
        let path = format!("{path}?beta=true&key={CANARY}");
        ask_alone(&server, request.replacen("/v1/messages", &path, 1).as_bytes())
    };
    let error = json!({"type": "error", "error": {"type": "x", "message": text}}).to_string();
    for model in ["claude-opus-5", "claude-sonnet-5"] {
        body["model"] = model.into();
        api.next_bytes(streamed(&format!("event: x\ndata: {{\"t\":\"{text}\"}}\n\n")));
        boxed.next_chunks(text_chunks(&text));
        send("/v1/messages", &body);
        api.next_answer(400, "", &error);
        boxed.next_answer(400, &error);
        send("/v1/messages", &body);
        api.next_answer(400, "", &error);
        send(COUNT, &body);
    }
    assert_eq!(send(COUNT, &json!({"model": CANARY})).status, 400);
    boxed.next_chunks(text_chunks(&text));
    send(CHAT, &body);
    boxed.next_answer(400, &error);
    send(CHAT, &body);
    boxed.next_answer(200, &json!({"data": [{"embedding": [1], "object": text}]}).to_string());
    send("/v1/embeddings", &json!({"model": CANARY, "input": text}));
    // While the server runs, the newest pages stand in the write-ahead log.
    let mut texts = pages(&server);
    texts.extend(files(&folder));
    texts.push(server.terminate_and_log());
    texts.extend(files(&folder));
    let rows = recorded(&folder);
    assert!(rows.len() >= 9, "{}: {rows:?}", rows.len());
    let mut saved = 0;
    for row in &rows {
        saved += usize::from(add_outputs(&folder, row, &mut texts));
    }
    assert_eq!(saved, 2);
    for secret in [CANARY, own, "hunter2-4711", "sk-live-0123456789abcdefghij"] {
        for text in &texts {
            if let Some(at) = text.find(secret) {
                let around = text.as_bytes()[at.saturating_sub(200)..at].to_vec();
                panic!("{secret} in: {}", String::from_utf8_lossy(&around));
            }
        }
    }
    assert!(texts.iter().any(|text| text.contains("say *****")), "the recordings themselves are there");
}

/// The bytes of all files of a folder.
fn files(folder: &Path) -> Vec<String> {
    let paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.iter().map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()).collect()
}

/// The pages of a server about itself, for the owner of the key.
fn pages(server: &Server) -> Vec<String> {
    let page = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-sparkgap-key: {CANARY}\r\n\r\n");
        server.connect().ask(request.as_bytes()).text().to_owned()
    };
    let mut pages = ["/metrics", "/activity", "/health"].map(page).to_vec();
    let mut client = server.connect();
    client.send(
        format!("GET /ui/events HTTP/1.1\r\nhost: localhost\r\nx-sparkgap-key: {CANARY}\r\n\r\n").as_bytes(),
    );
    client.head();
    pages.push(client.read_until("\n\n"));
    pages
}

/// Adds all that commands print and write of a recording. Returns whether it became a case.
fn add_outputs(folder: &Path, row: &Value, texts: &mut Vec<String>) -> bool {
    let id = id(row);
    for forms in [&[][..], &["--har"], &["--curl"], &["--diff"]] {
        texts.push(run(folder, &[&["show", id], forms].concat()).1);
    }
    let case = folder.with_extension(format!("case-{id}"));
    let _ = fs::remove_dir_all(&case);
    let save = ["replay", id, "--offline", "--save", case.to_str().unwrap()];
    let (code, stdout, stderr) = run(folder, &save);
    texts.extend([stdout, stderr]);
    let (_, stdout, stderr) = run(folder, &["replay", id, "--offline"]);
    texts.extend([stdout, stderr]);
    if code == Some(0) {
        texts.extend(files(&case));
        fs::remove_dir_all(&case).unwrap();
    }
    code == Some(0)
}

/// Pings before an answer that passes, a client that leaves in the middle of one, and an upstream that cannot be reached.
#[test]
fn odd_exchanges_that_pass_are_replayed_to_the_same_bytes() {
    use std::io::Write as _;
    let (api, boxed, folder) = (MessagesApi::start(), Upstream::start(), folder("odd-ways"));
    let server = start_cloud("odd", &api.url(), &boxed, &folder, &["--open-after", "0", "--ping-every", "1"]);
    let key = "x-api-key: sk-ant-canary-0123456789\r\n";
    let request = post_with(key, opus(hello_stream()).to_string().as_bytes());
    let events = "event: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Half\"}}\n\n";
    for leaves in [false, true] {
        let gate = Gate::default();
        let waits = gate.clone();
        api.next(move |client, _| {
            if !leaves {
                waits.wait();
            }
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = client.write_all(format!("{head}{:x}\r\n{events}\r\n", events.len()).as_bytes());
            if leaves {
                waits.wait();
            }
            let _ = client.write_all(b"0\r\n\r\n");
            false
        });
        let mut client = server.connect();
        client.send(&request);
        client.read_until_head_and(if leaves { "Half" } else { "event: ping" });
        if leaves {
            drop(client);
            server.wait_until(|health| health["cancelled"]["stream"] == 1);
            gate.open();
        } else {
            gate.open();
            while client.piece().is_some() {}
        }
    }
    // An error of sparkgap's own, as an event or as a status.
    for _ in 0..2 {
        api.next(|_, _| false);
        ask_alone(&server, &request);
    }
    assert!(server.terminate());
    let rows = recorded(&folder);
    assert_eq!(rows.len(), 4, "{rows:?}");
    for row in &rows {
        says(&folder, &["replay", id(row), "--offline"], 0, "they passed as the upstream sent them");
    }
}
